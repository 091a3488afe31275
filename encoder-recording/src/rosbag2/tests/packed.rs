//! Compressed files, and what a recording is recognised by.

use std::io::Write;

use encoder_testbed::fixtures::bag::{Bag, CAMERA, image};

use super::*;
use crate::temporary::Room;

/// A file whose data can be decompressed up to any cut.
fn zip_in_pieces(bytes: &[u8]) -> Vec<u8> {
    let mut zip = zstd::Encoder::new(Vec::new(), 1).unwrap();
    for piece in bytes.chunks(1000) {
        zip.write_all(piece).unwrap();
        zip.flush().unwrap();
    }
    zip.finish().unwrap()
}

#[test]
fn what_can_be_decompressed_of_a_cut_file_is_read() {
    let directory = recording();
    let path = directory.path().join("x_2.db3");
    let zip = zip_in_pieces(&std::fs::read(&path).unwrap());
    std::fs::remove_file(&path).unwrap();
    let path = directory.path().join("x_2.db3.zstd");
    for (part, least) in [(9, 6), (8, 4), (7, 2)] {
        std::fs::write(&path, &zip[..zip.len() * part / 10]).unwrap();
        let read = read(directory.path(), &SourceOptions::default()).unwrap();
        let of_file = read.frames.iter().filter(|frame| (10..20).contains(&frame.1)).count();
        assert!((least..10).contains(&of_file), "{part}: {of_file} {:?}", read.warnings);
        assert_eq!(read.frames.len(), 20 + of_file);
        let mut losses = read.warnings.iter().filter(|warning| warning.loss);
        let start = "x_2.db3.zstd: the file cannot be decompressed to its end";
        assert!(losses.any(|loss| loss.text.starts_with(start)), "{:?}", read.warnings);
    }
    // Nothing of the data is there.
    std::fs::write(&path, &zip[..8]).unwrap();
    let read = read(directory.path(), &SourceOptions::default()).unwrap();
    assert_eq!(read.frames.len(), 20);
    let loss = read.warnings.iter().find(|warning| warning.loss).unwrap();
    assert!(loss.text.contains("x_2.db3.zstd: the file cannot be decompressed"), "{loss:?}");
}

/// The files of a directory, compressed, and the originals removed.
fn zip(directory: &Path, ending: &str) {
    for path in crate::images::entries(directory).unwrap() {
        let bytes = std::fs::read(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let zip = zstd::encode_all(bytes.as_slice(), 1).unwrap();
        std::fs::write(directory.join(format!("{name}{ending}")), zip).unwrap();
        std::fs::remove_file(path).unwrap();
    }
}

/// How many frames a recording has, opened by what it is.
fn frames(path: &Path) -> Result<usize, SourceError> {
    let mut source = crate::open(path, &SourceOptions::default())?;
    let mut frames = 0;
    while let Some(event) = source.next_event()? {
        match event {
            Event::Packet(packet) => {
                packet.payload.unwrap();
                frames += 1;
            }
            Event::Warning(warning) => assert!(!warning.loss, "{warning:?}"),
            _ => {}
        }
    }
    Ok(frames)
}

#[test]
fn compressed_recordings_are_recognised() {
    for ending in [".zstd", ".zst"] {
        // A directory without metadata, then the file alone, and under another name.
        let databases = recording();
        zip(databases.path(), ending);
        assert_eq!(frames(databases.path()).unwrap(), 30);
        let one = databases.path().join(format!("x_0.db3{ending}"));
        assert_eq!(frames(&one).unwrap(), 10);
        let renamed = databases.path().join("renamed");
        std::fs::rename(&one, &renamed).unwrap();
        assert_eq!(frames(&renamed).unwrap(), 10);

        let directory = tempfile::tempdir().unwrap();
        let mut recording = Recording::create(directory.path().join("x.mcap"));
        for n in 0..3 {
            recording.write("/cam", Serialization::CdrLittle, n, n, &small_jpeg(0));
        }
        recording.finish();
        zip(directory.path(), ending);
        assert_eq!(frames(directory.path()).unwrap(), 3);
        assert_eq!(frames(&directory.path().join(format!("x.mcap{ending}"))).unwrap(), 3);
    }
    // The same file, decompressed beside the compressed one, is read once.
    let directory = recording();
    let bytes = std::fs::read(directory.path().join("x_2.db3")).unwrap();
    let zip = zstd::encode_all(bytes.as_slice(), 1).unwrap();
    std::fs::write(directory.path().join("x_2.db3.zstd"), zip).unwrap();
    assert_eq!(frames(directory.path()).unwrap(), 30);
}

/// Compresses in two pieces, each of which is complete.
fn zip_twice(bytes: &[u8], kind: &str) -> Vec<u8> {
    let zip = |bytes: &[u8]| match kind {
        "zst" => zstd::encode_all(bytes, 1).unwrap(),
        "gz" => {
            let mut zip = flate2::write::GzEncoder::new(Vec::new(), Default::default());
            zip.write_all(bytes).unwrap();
            zip.finish().unwrap()
        }
        "bz2" => {
            let mut zip = bzip2::write::BzEncoder::new(Vec::new(), Default::default());
            zip.write_all(bytes).unwrap();
            zip.finish().unwrap()
        }
        _ => {
            let mut zip = lz4::EncoderBuilder::new().build(Vec::new()).unwrap();
            zip.write_all(bytes).unwrap();
            let (out, result) = zip.finish();
            result.unwrap();
            out
        }
    };
    let (front, back) = bytes.split_at(bytes.len() / 2);
    [zip(front), zip(back)].concat()
}

#[test]
fn any_recording_in_any_compression() {
    let directory = tempfile::tempdir().unwrap();
    let mcap = directory.path().join("x.mcap");
    let mut recording = Recording::create(&mcap);
    for n in 0..3 {
        recording.write("/cam", Serialization::CdrLittle, n, n, &small_jpeg(0));
    }
    recording.finish();
    let database = directory.path().join("x.db3");
    drop(write(&database, 0..3, false));
    let mut bag = Bag::new(&[(0, "/cam", CAMERA)]);
    bag.chunk("none", &[(0, 0, image(0)), (0, 1, image(1)), (0, 2, image(2))]);
    for (name, bytes) in [
        ("x.mcap", std::fs::read(mcap).unwrap()),
        ("x.db3", std::fs::read(database).unwrap()),
        ("x.bag", bag.finish()),
    ] {
        for kind in ["zst", "gz", "bz2", "lz4"] {
            let path = directory.path().join(format!("{name}.{kind}"));
            let zip = zip_twice(&bytes, kind);
            std::fs::write(&path, &zip).unwrap();
            assert_eq!(frames(&path).unwrap(), 3, "{}", path.display());
            // Cut, it is never taken for whole.
            std::fs::write(&path, &zip[..zip.len() - 5]).unwrap();
            let mut is_lost = false;
            match crate::open(&path, &SourceOptions::default()) {
                Err(_) => is_lost = true,
                Ok(mut source) => loop {
                    match source.next_event() {
                        Ok(Some(Event::Warning(warning))) => is_lost |= warning.loss,
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(_) => {
                            is_lost = true;
                            break;
                        }
                    }
                },
            }
            assert!(is_lost, "{}", path.display());
        }
    }
}

#[test]
fn parts_in_any_compression() {
    for kind in ["zst", "gz", "bz2", "lz4"] {
        let directory = recording();
        // As a directory without metadata, and with metadata that lists the decompressed files.
        for name in ["x_0.db3", "x_2.db3"] {
            let path = directory.path().join(name);
            let zip = zip_twice(&std::fs::read(&path).unwrap(), kind);
            std::fs::write(directory.path().join(format!("{name}.{kind}")), zip).unwrap();
            std::fs::remove_file(path).unwrap();
        }
        assert_eq!(frames(directory.path()).unwrap(), 30, "{kind}");
        let yaml = metadata(&["x_0.db3", "x_2.db3", "x_10.db3"], START, "\"\"");
        std::fs::write(directory.path().join(ROSBAG2_METADATA), yaml).unwrap();
        assert_eq!(frames(directory.path()).unwrap(), 30, "{kind}");
    }
}

#[test]
fn what_is_not_a_recording() {
    let directory = tempfile::tempdir().unwrap();
    let zip = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    for (name, bytes, part) in [
        ("x.txt.zst", zip(b"a text"), "zstd -d x.txt.zst"),
        ("x.tar.zst", zip(b"x.bag\0\0"), "zstd -d x.tar.zst"),
        ("x.zst", zip(&zip(signature::MCAP)), "zstd -d x.zst"),
        ("x.mcap.gz", b"\x1f\x8b\x08rest".to_vec(), "cannot be decompressed"),
        ("x.bag.bz2", b"BZh9rest".to_vec(), "cannot be decompressed"),
        ("x.bag.lz4", b"\x04\x22\x4d\x18rest".to_vec(), "cannot be decompressed"),
        ("x.bag.xz", b"\xfd7zXZ\0rest".to_vec(), "unxz -k x.bag.xz"),
        ("x.mcap", b"PK\x03\x04rest".to_vec(), "unzip x.mcap"),
        ("x.db3.zstd", signature::ZSTD.to_vec(), "cannot be decompressed"),
    ] {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let error = frames(&path).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains(name), "{name}: {error}");
        assert!(!error.contains("encoder-"), "no name of a temporary file: {error}");
    }
}

#[test]
fn pictures_with_metadata_of_their_own() {
    for (yaml, directory_name, part) in [
        ("fps: 30\ncamera: left\n", "picture.jpg", None),
        ("rosbag2_bagfile_information:\n  version: 5\n", "picture.jpg", Some("without any of")),
        ("fps: 30\n", "x.db3.zstd", Some("x.db3.zstd")),
        // A directory with such a name is not a recording.
        ("fps: 30\n", "d.mcap/picture.jpg", None),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(directory_name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
        std::fs::write(directory.path().join(ROSBAG2_METADATA), yaml).unwrap();
        let opened = crate::open(directory.path(), &SourceOptions::default());
        match part {
            None => assert!(opened.is_ok(), "{yaml}"),
            Some(part) => {
                let error = opened.err().unwrap().to_string();
                assert!(error.contains(part), "{error}");
            }
        }
    }
}

#[test]
fn temporary_files_are_limited_and_removed() {
    fn narrow(_: &Path) -> Option<crate::temporary::Space> {
        Some(crate::temporary::Space { total: 1000, free: 1000 })
    }
    let directory = recording();
    zip(directory.path(), ".zstd");
    let path = directory.path().join("x_0.db3.zstd");
    let unpacked = zstd::decode_all(std::fs::File::open(&path).unwrap()).unwrap().len() as u64;
    let place = tempfile::tempdir().unwrap();
    let mut room = Room::new(unpacked);
    room.directory = place.path().into();
    let open = |path: &Path, room: &Room| {
        let no_mcap = storages(|path: &Path, _: &SourceOptions| {
            Err(SourceError::invalid(path, "not an MCAP file", "check what it is"))
        });
        let mut opener = Opener::new(no_mcap, 0);
        opener.room = room.clone();
        open_packed(path, &SourceOptions::default(), opener)
    };
    let left = || std::fs::read_dir(place.path()).unwrap().count();

    let mut source = open(&path, &room).unwrap();
    let mut packets = 0;
    while let Some(event) = source.next_event().unwrap() {
        packets += usize::from(matches!(event, Event::Packet(_)));
        if cfg!(target_os = "linux") {
            assert_eq!(left(), 0);
        }
    }
    assert_eq!(packets, 10);
    drop(source);
    assert_eq!(left(), 0);

    // The size stands in the header of the frame, or shows when it is decompressed.
    let unsized_path = directory.path().join("unsized.zstd");
    let plain = zstd::decode_all(std::fs::File::open(&path).unwrap()).unwrap();
    std::fs::write(&unsized_path, zip_in_pieces(&plain)).unwrap();
    for path in [&path, &unsized_path] {
        let name = path.file_name().unwrap().to_str().unwrap();
        let less = Room { limit: unpacked - 1, ..room.clone() };
        let error = open(path, &less).err().unwrap().to_string();
        for part in [name, "`Limits::temporary_bytes`", &format!("zstd -d {name}")] {
            assert!(error.contains(part), "{part}: {error}");
        }
        let full = Room { space: narrow, ..room.clone() };
        let error = open(path, &full).err().unwrap().to_string();
        for part in [name, "TMPDIR", place.path().to_str().unwrap(), "950 bytes to spare"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        let nowhere = Room { directory: place.path().join("nowhere"), ..room.clone() };
        let error = open(path, &nowhere).err().unwrap().to_string();
        assert!(error.contains("nowhere") && error.contains("TMPDIR"), "{error}");
        assert_eq!(left(), 0);
    }
    // What comes out is no database: the temporary file is gone as well.
    let odd = directory.path().join("odd.zstd");
    let mut bytes = signature::SQLITE.to_vec();
    bytes.extend([0; 100]);
    std::fs::write(&odd, zstd::encode_all(bytes.as_slice(), 1).unwrap()).unwrap();
    let error = open(&odd, &room).err().unwrap().to_string();
    assert!(error.contains("odd.zstd") && !error.contains("encoder-"), "{error}");
    assert_eq!(left(), 0);
}

#[test]
fn the_limit_of_the_options_counts() {
    let directory = recording();
    zip(directory.path(), ".zstd");
    let limits = crate::Limits { temporary_bytes: 1000, ..Default::default() };
    let options = SourceOptions { limits, ..Default::default() };
    let error = crate::open(directory.path(), &options).err().unwrap().to_string();
    assert!(error.contains("more than 1000 bytes"), "{error}");
}
