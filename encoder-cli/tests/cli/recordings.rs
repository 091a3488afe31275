//! Inputs of the program: directories of several files, compressed files, standard input.

use crate::common;

use std::path::{Path, PathBuf};

use common::{
    EPOCH, MS, entries,
    picture::Picture,
    program::{Converted, command, convert, convert_input, told},
    recording::{Recording, Serialization, camera, small, small_jpeg},
};
use mcap::WriteOptions;

/// An MCAP file of one camera, with pictures `first` to `first + count - 1` at 25 fps.
fn file(path: &Path, first: usize, count: usize) {
    let directory = tempfile::tempdir().unwrap();
    let frames: Vec<_> = (first..first + count)
        .map(|n| (EPOCH + n as i64 * 40 * MS, EPOCH + n as i64 * 40 * MS, small_jpeg(n)))
        .collect();
    std::fs::copy(camera(directory.path(), &frames), path).unwrap();
}

/// Compresses a file; returns the path of the compressed file.
fn zip(path: &Path) -> PathBuf {
    let mut zip = path.as_os_str().to_owned();
    zip.push(".zstd");
    std::fs::write(&zip, zstd::encode_all(std::fs::File::open(path).unwrap(), 1).unwrap()).unwrap();
    std::fs::remove_file(path).unwrap();
    zip.into()
}

/// Converts with a temporary directory, which must be empty afterwards.
fn convert_with(recording: &Path, temporary: &Path, args: &[&str]) -> Converted {
    let out = tempfile::tempdir().unwrap();
    let common = ["encode", recording.to_str().unwrap(), "--encoder", "openh264", "-o"];
    let output = command([&common[..], &[out.path().to_str().unwrap()], args].concat())
        .env("TMPDIR", temporary)
        .output()
        .unwrap();
    let (code, said) = told(&output);
    if temporary.is_dir() {
        assert_eq!(entries(temporary), Vec::<String>::new(), "{said}");
    }
    Converted::check(out, "report.json", code, said)
}

#[cfg(unix)]
#[test]
fn compressed_recordings_are_unpacked_within_a_limit() {
    let directory = tempfile::tempdir().unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let (first, second) = (directory.path().join("x_0.mcap"), directory.path().join("x_1.mcap"));
    file(&first, 0, 4);
    file(&second, 4, 4);
    let size = first.metadata().unwrap().len().max(second.metadata().unwrap().len());
    let first = zip(&first);
    zip(&second);
    // A directory that has nothing else, and a file.
    for (recording, count) in [(directory.path(), 8), (first.as_path(), 4)] {
        let enough = ["--max-temporary-bytes", &size.to_string()];
        for args in [&[][..], &enough] {
            let converted = convert_with(recording, temporary.path(), args).expect(0);
            assert_eq!(converted.video().numbers(), (0..count).map(Some).collect::<Vec<_>>());
        }
        let few = ["--max-temporary-bytes", "1000"];
        let converted = convert_with(recording, temporary.path(), &few).expect(1);
        for part in ["x_0.mcap.zstd", "--max-temporary-bytes", "zstd -d x_0.mcap.zstd"] {
            assert!(converted.said.contains(part), "{part}: {}", converted.said);
        }
        let nowhere = temporary.path().join("nowhere");
        let converted = convert_with(recording, &nowhere, &[]).expect(1);
        for part in ["nowhere", "TMPDIR"] {
            assert!(converted.said.contains(part), "{part}: {}", converted.said);
        }
    }
    // As the hint advises: decompressed beside the compressed files.
    file(&directory.path().join("x_0.mcap"), 0, 4);
    file(&directory.path().join("x_1.mcap"), 4, 4);
    let few = ["--max-temporary-bytes", "1000"];
    let converted = convert_with(directory.path(), temporary.path(), &few).expect(0);
    assert_eq!(converted.video().numbers(), (0..8).map(Some).collect::<Vec<_>>());
}

#[test]
fn files_outside_the_directory_are_a_loss() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("rec");
    std::fs::create_dir(&directory).unwrap();
    file(&directory.join("x_0.mcap"), 0, 3);
    file(&parent.path().join("x_9.mcap"), 3, 3);
    let yaml = |files: &str| {
        format!(
            "rosbag2_bagfile_information:\n  version: 5\n  storage_identifier: mcap\n  \
             relative_file_paths: [{files}]\n"
        )
    };
    let metadata = directory.join("metadata.yaml");
    std::fs::write(&metadata, yaml("x_0.mcap, ../x_9.mcap")).unwrap();
    let converted = convert(&directory, &[]).expect(3);
    assert_eq!(converted.video().numbers(), [0, 1, 2].map(Some));
    assert!(converted.warns("../x_9.mcap"), "{}", converted.report);
    std::fs::write(&metadata, yaml("../x_9.mcap")).unwrap();
    let converted = convert(&directory, &[]).expect(1);
    assert!(converted.said.contains("../x_9.mcap"), "{}", converted.said);
}

/// The numbers of the frames `range`, as they stand in the pictures.
fn numbers(range: std::ops::Range<usize>) -> Vec<Option<usize>> {
    range.map(Some).collect()
}

#[test]
fn a_missing_index_is_exit_code_3() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.mcap");
    // Small chunks; the chunk with the definitions is the last in time.
    let options = WriteOptions::new().chunk_size(Some(1000)).emit_summary_records(false);
    let mut recording = Recording::with(&path, options);
    for n in (6..8).chain(0..6) {
        let time = EPOCH + n as i64 * 40 * MS;
        recording.write("/cam", Serialization::CdrLittle, time, time, &small_jpeg(n));
    }
    recording.finish();
    let converted = convert(&path, &[]).expect(3);
    assert_eq!(converted.video().numbers(), numbers(0..8));
    assert!(converted.said.contains("the recording has no index"), "{}", converted.said);
}

#[test]
fn recordings_one_behind_the_other_in_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let [first, second] = ["a.mcap", "b.mcap"].map(|name| directory.path().join(name));
    file(&first, 0, 4);
    file(&second, 4, 4);
    let [a, b] = [&first, &second].map(|path| std::fs::read(path).unwrap());
    let both = directory.path().join("both.mcap");
    std::fs::write(&both, [&a[..], &b].concat()).unwrap();
    let converted = convert(&both, &[]).expect(0);
    assert_eq!(converted.video().numbers(), numbers(0..8));
    assert!(converted.said.contains("2 recordings, one behind the other"), "{}", converted.said);
    // Something else behind the end.
    std::fs::write(&both, [&a[..], b"something else"].concat()).unwrap();
    let converted = convert(&both, &[]).expect(3);
    assert_eq!(converted.video().numbers(), numbers(0..4));
    assert!(converted.said.contains("are no recording"), "{}", converted.said);
}

#[test]
fn a_topic_with_two_types_is_two_videos() {
    let directory = tempfile::tempdir().unwrap();
    let mut recording = Recording::create(directory.path().join("x.mcap"));
    let schemas = ["sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Image"];
    let [jpeg, raw] = schemas.map(|schema| recording.other("/cam", schema, "cdr", "ros2msg"));
    for n in 0..8 {
        let time = EPOCH + n as i64 * 40 * MS;
        let (channel, content) = if n % 2 == 0 { (jpeg, small_jpeg(n)) } else { (raw, small(n)) };
        recording.bytes(channel, time, &content.message(Serialization::CdrLittle, time));
    }
    let converted = convert(&recording.finish(), &[]).expect(0);
    assert!(
        converted.said.contains("/cam: the topic has messages of two types"),
        "{}",
        converted.said
    );
    assert_eq!(converted.outputs().len(), 2);
}

#[test]
fn windows_and_topics_count_for_standard_input() {
    let pictures: Vec<_> = (0..10).map(|n| Picture::stamped(160, 120, n)).collect();
    let raw: Vec<u8> = pictures.iter().flat_map(|picture| picture.rgb.clone()).collect();
    let mut y4m = b"YUV4MPEG2 W160 H120 F10:1\n".to_vec();
    for picture in &pictures {
        y4m.extend(b"FRAME\n");
        y4m.extend(picture.raw("i420", 0).0);
    }
    let of_raw = ["--raw", "rgb24:160x120@10"];
    // Arguments, number of frames; no frames if the only stream is not selected.
    let table: &[(&[&str], Option<std::ops::Range<usize>>)] = &[
        (&["--start", "0.3"], Some(3..10)),
        (&["--start", "0.3", "--end", "0.6"], Some(3..7)),
        (&["--end", "0.2"], Some(0..3)),
        // The requested rate.
        (&["--fps", "5", "--start", "0.4", "--end", "0.8"], Some(2..5)),
        (&["--topic", "std*"], Some(0..10)),
        (&["--topic", "/cam"], None),
    ];
    for (bytes, of_input) in [(&raw, &of_raw[..]), (&y4m, &[])] {
        for (args, expected) in table {
            // Frames after the end are not read.
            let converted = convert_input(bytes, &[of_input, args].concat());
            match expected {
                Some(numbers) => {
                    let converted = converted.expect(0);
                    let numbers: Vec<_> = numbers.clone().map(Some).collect();
                    assert_eq!(converted.video().numbers(), numbers, "{args:?}");
                }
                None => {
                    let converted = converted.expect(1);
                    assert!(converted.said.contains("`stdin`"), "{}", converted.said);
                }
            }
        }
    }
}
