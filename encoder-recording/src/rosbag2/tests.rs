#![allow(clippy::unwrap_used)]

mod packed;

use std::path::PathBuf;

use super::*;
use crate::{Event, Moment, StreamInfo, folder, signature};
use encoder_testbed::fixtures::recording::{Recording, Serialization, small_jpeg};

use crate::Payload;
use crate::sqlite::tests::write;

/// The reader of databases, and `mcap` for MCAP files.
fn storages(
    mcap: impl Fn(&Path, &SourceOptions) -> Result<Box<dyn Source>, SourceError> + Send + 'static,
) -> Storages {
    Storages {
        mcap: Box::new(mcap),
        sqlite: Box::new(crate::sqlite::SqliteSource::open),
        bag: Box::new(crate::formats::open_bag),
    }
}

/// Opens the only recording in a directory.
fn open_with(
    directory: &Path,
    options: &SourceOptions,
    storages: impl Fn() -> Storages,
) -> Result<Box<dyn Source>, SourceError> {
    let opener = || Opener::new(storages(), options.limits.temporary_bytes);
    if let Ok(metadata) = Metadata::read(directory) {
        return open_directory(directory, &metadata, options, opener());
    }
    let found = folder::find(directory, options, &opener())?;
    let [folder::Found { place: folder::Place::Files(path, files), warnings, .. }] = &found[..]
    else {
        panic!("{found:?}");
    };
    folder::open(path, files, warnings, options, opener())
}

/// Stands for the reader of MCAP files: opens databases, whatever their name.
fn open(directory: &Path, options: &SourceOptions) -> Result<Box<dyn Source>, SourceError> {
    let refuse = |path: &Path, _: &SourceOptions| {
        Err(SourceError::invalid(path, "not an MCAP file", "check what it is"))
    };
    open_with(directory, options, || storages(refuse))
}

#[derive(Debug, Default, PartialEq)]
struct Read {
    streams: Vec<Option<u64>>,
    /// Number of the message, number in the picture.
    frames: Vec<(u64, u32)>,
    warnings: Vec<Warning>,
}

fn read(directory: &Path, options: &SourceOptions) -> Result<Read, SourceError> {
    let mut source = open(directory, options)?;
    let mut read = Read::default();
    while let Some(event) = source.next_event()? {
        match event {
            Event::Stream(info) => {
                assert_eq!(info.id, read.streams.len());
                read.streams.push(info.messages);
            }
            Event::Warning(warning) => read.warnings.push(warning),
            Event::Packet(packet) => {
                assert_eq!(packet.stream, 0);
                let Ok(Payload::Compressed { data, .. }) = packet.payload else { panic!() };
                read.frames.push((packet.number, data[0].into()));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(source.other_topics(), [("/imu".into(), "sensor_msgs/msg/Imu".into())]);
    Ok(read)
}

fn metadata(files: &[&str], start: &str, compression: &str) -> String {
    let files: String = files.iter().map(|file| format!("    - {file}\n")).collect();
    format!(
        "rosbag2_bagfile_information:
  version: 5
  storage_identifier: sqlite3
  duration:
    nanoseconds: 29000000
{start}  message_count: 60
  topics_with_message_count:
    - topic_metadata:
        name: /cam
        type: sensor_msgs/msg/CompressedImage
        serialization_format: cdr
        offered_qos_profiles: \"- history: 3\\n  depth: 0\"
      message_count: 30
  compression_format: {compression}
  compression_mode: {compression}
  relative_file_paths:
{files}  custom_data: ~
"
    )
}

const START: &str = "  starting_time:\n    nanoseconds_since_epoch: 0\n";

/// Three files of ten frames each.
fn recording() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, frames) in [("x_0.db3", 0..10), ("x_2.db3", 10..20), ("x_10.db3", 20..30)] {
        drop(write(&directory.path().join(name), frames, false));
    }
    directory
}

fn expected(numbers: std::ops::Range<u32>) -> Vec<(u64, u32)> {
    numbers.map(|n| (n.into(), n)).collect()
}

#[test]
fn files_are_joined() {
    let directory = recording();
    let yaml = directory.path().join(ROSBAG2_METADATA);
    // As written today, and as first versions wrote it.
    for files in [["x_0.db3", "x_2.db3", "x_10.db3"], ["d/x_0.db3", "d/x_2.db3", "d/x_10.db3"]] {
        std::fs::write(&yaml, metadata(&files, START, "\"\"")).unwrap();
        let read = read(directory.path(), &SourceOptions::default()).unwrap();
        assert_eq!(
            read,
            Read { streams: vec![Some(30)], frames: expected(0..30), warnings: vec![] }
        );
    }
}

#[test]
fn windows_count_from_the_recording() {
    let directory = recording();
    let yaml = directory.path().join(ROSBAG2_METADATA);
    let window = SourceOptions {
        start: Some(Moment::FromStart(8_000_000)),
        end: Some(Moment::FromStart(21_000_000)),
        ..Default::default()
    };
    for start in [START, ""] {
        let files = ["x_0.db3", "x_2.db3", "x_10.db3"];
        std::fs::write(&yaml, metadata(&files, start, "\"\"")).unwrap();
        assert_eq!(read(directory.path(), &window).unwrap().frames, expected(8..22));
    }
}

#[test]
fn without_metadata_the_files_are_found() {
    let directory = recording();
    for text in [None, Some("rosbag2_bagfile_information: [1, 2"), Some("x: 1")] {
        if let Some(text) = text {
            std::fs::write(directory.path().join(ROSBAG2_METADATA), text).unwrap();
        }
        // Without the metadata, only the first bytes tell what the files are.
        let read = read(directory.path(), &SourceOptions::default()).unwrap();
        assert_eq!(read.frames, expected(0..30));
        assert!(matches!(read.warnings.as_slice(), [Warning { loss: false, .. }]), "{read:?}");
    }
}

#[test]
fn files_that_are_missing_or_broken() {
    let directory = recording();
    let files = ["x_0.db3", "x_1.db3", "x_2.db3", "x_10.db3"];
    std::fs::write(directory.path().join(ROSBAG2_METADATA), metadata(&files, START, "\"\""))
        .unwrap();
    std::fs::write(directory.path().join("x_2.db3"), "").unwrap();
    let all = read(directory.path(), &SourceOptions::default()).unwrap();
    assert_eq!(
        all.frames.iter().map(|f| f.1).collect::<Vec<_>>(),
        (0..10).chain(20..30).collect::<Vec<_>>()
    );
    assert_eq!(all.warnings.iter().filter(|w| w.loss).count(), 2, "{:?}", all.warnings);
    assert!(all.warnings[0].text.contains("x_1.db3"));
    assert!(all.warnings[1].text.contains("x_2.db3"));
    for name in files {
        let _ = std::fs::write(directory.path().join(name), "");
    }
    let error = read(directory.path(), &SourceOptions::default()).unwrap_err().to_string();
    assert!(error.contains("x_0.db3"), "{error}");
    for name in files {
        std::fs::remove_file(directory.path().join(name)).unwrap();
    }
    let error = read(directory.path(), &SourceOptions::default()).unwrap_err().to_string();
    assert!(error.contains("without any of its recordings"), "{error}");
}

#[test]
fn compressed_files() {
    let directory = recording();
    for name in ["x_0.db3", "x_2.db3", "x_10.db3"] {
        let path = directory.path().join(name);
        let bytes = std::fs::read(&path).unwrap();
        let zipped = zstd::encode_all(bytes.as_slice(), 1).unwrap();
        std::fs::write(directory.path().join(format!("{name}.zstd")), zipped).unwrap();
        std::fs::remove_file(path).unwrap();
    }
    let files = ["x_0.db3.zstd", "x_2.db3.zstd", "x_10.db3.zstd"];
    std::fs::write(directory.path().join(ROSBAG2_METADATA), metadata(&files, START, "zstd"))
        .unwrap();
    let all = read(directory.path(), &SourceOptions::default()).unwrap();
    assert_eq!((all.frames, all.warnings), (expected(0..30), vec![]));
}

#[test]
fn parts_without_a_camera() {
    let directory = recording();
    let strip = |name: &str| {
        let path = directory.path().join(name);
        std::fs::remove_file(&path).unwrap();
        let database = write(&path, 10..20, false);
        database.execute("DELETE FROM topics WHERE id = 2", []).unwrap();
    };
    let files = ["x_0.db3", "x_2.db3", "x_10.db3"];
    std::fs::write(directory.path().join(ROSBAG2_METADATA), metadata(&files, START, "\"\""))
        .unwrap();
    strip("x_2.db3");
    let part = read(directory.path(), &SourceOptions::default()).unwrap();
    assert_eq!((part.frames.len(), part.warnings), (20, vec![]));
    strip("x_0.db3");
    strip("x_10.db3");
    let error = read(directory.path(), &SourceOptions::default()).unwrap_err();
    let SourceError::NoCamera { topics, location } = error else { panic!("{error}") };
    assert_eq!((topics.len(), location.path()), (1, Some(directory.path())));
}

#[test]
fn other_files_go_to_the_reader_of_mcap() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("x.mcap"), b"\x89MCAP0\r\n").unwrap();
    let error = open(directory.path(), &SourceOptions::default()).err().unwrap().to_string();
    assert!(error.contains("x.mcap: not an MCAP file"), "{error}");
}

/// A recording with these files, and without `metadata.yaml`, in a directory; beside it
/// `other/x_9.db3`.
fn beside_another(files: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let (directory, other) = (parent.path().join("rec"), parent.path().join("other"));
    std::fs::create_dir(&directory).unwrap();
    std::fs::create_dir(&other).unwrap();
    for file in files {
        drop(write(&directory.join(file), 0..10, false));
    }
    drop(write(&other.join("x_9.db3"), 90..100, false));
    (parent, directory)
}

#[test]
fn listed_files_outside_the_directory_are_not_read() {
    let (parent, directory) = beside_another(&["x_0.db3"]);
    let absolute = parent.path().join("other/x_9.db3");
    let yaml = directory.join(ROSBAG2_METADATA);
    for outside in ["../other/x_9.db3", absolute.to_str().unwrap()] {
        std::fs::write(&yaml, metadata(&["x_0.db3", outside], START, "\"\"")).unwrap();
        let all = read(&directory, &SourceOptions::default()).unwrap();
        assert_eq!(all.frames, expected(0..10));
        let [Warning { text, loss: true }] = all.warnings.as_slice() else { panic!("{all:?}") };
        assert!(text.contains(outside) && text.contains("outside the directory"), "{text}");
        // The only one.
        std::fs::write(&yaml, metadata(&[outside], START, "\"\"")).unwrap();
        let error = read(&directory, &SourceOptions::default()).unwrap_err().to_string();
        assert!(error.contains(outside) && error.contains("outside the directory"), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn links_out_of_the_directory_are_not_read() {
    use std::os::unix::fs::symlink;
    let (parent, directory) = beside_another(&["x_0.db3"]);
    let yaml = directory.join(ROSBAG2_METADATA);
    symlink("../other/x_9.db3", directory.join("x_9.db3")).unwrap();
    for text in [Some(metadata(&["x_0.db3", "x_9.db3"], START, "\"\"")), None] {
        match text {
            Some(text) => std::fs::write(&yaml, text).unwrap(),
            None => std::fs::remove_file(&yaml).unwrap(),
        }
        let all = read(&directory, &SourceOptions::default()).unwrap();
        assert_eq!(all.frames, expected(0..10));
        let loss = all.warnings.iter().find(|warning| warning.loss).unwrap();
        assert!(loss.text.contains("x_9.db3") && loss.text.contains("is a link to"), "{loss:?}");
    }
    // The description itself: the recordings are read by name.
    std::fs::remove_file(directory.join("x_9.db3")).unwrap();
    let elsewhere = parent.path().join("other/metadata.yaml");
    std::fs::write(&elsewhere, metadata(&["x_1.db3"], START, "\"\"")).unwrap();
    symlink(&elsewhere, &yaml).unwrap();
    let all = read(&directory, &SourceOptions::default()).unwrap();
    assert_eq!(all.frames, expected(0..10));
    let [Warning { text, loss: false }] = all.warnings.as_slice() else { panic!("{all:?}") };
    assert!(text.starts_with("metadata.yaml is a link to"), "{text}");
    // Links that stay inside are followed, and the directory may be one.
    std::fs::remove_file(&yaml).unwrap();
    std::fs::create_dir(directory.join("data")).unwrap();
    std::fs::rename(directory.join("x_0.db3"), directory.join("data/a")).unwrap();
    std::fs::write(directory.join("data/m"), metadata(&["x_0.db3"], START, "\"\"")).unwrap();
    symlink("data/a", directory.join("x_0.db3")).unwrap();
    symlink("data/m", &yaml).unwrap();
    let link = parent.path().join("link");
    symlink("rec", &link).unwrap();
    let all = read(&link, &SourceOptions::default()).unwrap();
    assert_eq!((all.frames, all.warnings), (expected(0..10), vec![]));
}

/// A file that breaks off after its first event, with an error of the system.
struct Failing(bool);

impl Source for Failing {
    fn next_event(&mut self) -> Result<Option<Event>, SourceError> {
        if std::mem::replace(&mut self.0, true) {
            let error = std::io::Error::other("the disk is gone");
            return Err(SourceError::io(Path::new("x_1.mcap"), error));
        }
        Ok(Some(Event::Stream(StreamInfo {
            id: 0,
            topic: "/cam".into(),
            schema: "sensor_msgs/msg/CompressedImage".into(),
            messages: Some(u64::MAX),
            rate: None,
        })))
    }

    fn other_topics(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}

/// Opens a directory in which each MCAP file breaks off; at once where `begins` is not set.
fn open_failing(directory: &Path, begins: bool) -> Vec<Event> {
    let options = SourceOptions::default();
    let failing = move || storages(move |_, _| Ok(Box::new(Failing(!begins))));
    let mut source = open_with(directory, &options, failing).unwrap();
    let mut events = Vec::new();
    while let Some(event) = source.next_event().unwrap() {
        events.push(event);
    }
    events
}

#[test]
fn an_error_in_a_file_costs_the_rest_of_that_file_only() {
    let directory = tempfile::tempdir().unwrap();
    drop(write(&directory.path().join("x_0.db3"), 0..10, false));
    std::fs::write(directory.path().join("x_1.mcap"), signature::MCAP).unwrap();
    drop(write(&directory.path().join("x_2.db3"), 20..30, false));
    let yaml = metadata(&["x_0.db3", "x_1.mcap", "x_2.db3"], START, "\"\"");
    let yaml = yaml.replace("storage_identifier: sqlite3", "storage_identifier: mcap");
    std::fs::write(directory.path().join(ROSBAG2_METADATA), yaml).unwrap();
    for begins in [true, false] {
        let events = open_failing(directory.path(), begins);
        let mut pictures = Vec::new();
        let mut losses = Vec::new();
        for event in events {
            match event {
                Event::Packet(packet) => {
                    let Ok(Payload::Compressed { data, .. }) = packet.payload else { panic!() };
                    pictures.push(u32::from(data[0]));
                }
                Event::Warning(Warning { text, loss: true }) => losses.push(text),
                Event::Warning(warning) => panic!("{warning:?}"),
                _ => {}
            }
        }
        assert_eq!(pictures, (0..10).chain(20..30).collect::<Vec<_>>());
        let [loss] = losses.as_slice() else { panic!("{losses:?}") };
        assert!(loss.contains("x_1.mcap") && loss.contains("the disk is gone"), "{loss}");
    }
}

#[test]
fn windows_without_metadata_count_from_the_first_file_that_can_be_read() {
    let directory = recording();
    std::fs::write(directory.path().join("x_0.db3"), "").unwrap();
    let window = SourceOptions { start: Some(Moment::FromStart(5_000_000)), ..Default::default() };
    let all = read(directory.path(), &window).unwrap();
    assert_eq!(
        all.frames.iter().map(|frame| frame.1).collect::<Vec<_>>(),
        (15..30).collect::<Vec<_>>()
    );
    // A recorder that has no message yet writes the largest time.
    let start = "  starting_time:\n    nanoseconds_since_epoch: 9223372036854775807\n";
    let yaml = metadata(&["x_2.db3", "x_10.db3"], start, "\"\"");
    std::fs::write(directory.path().join(ROSBAG2_METADATA), yaml).unwrap();
    assert_eq!(read(directory.path(), &window).unwrap().frames.len(), 15);
}

#[test]
fn a_part_without_a_wanted_topic_is_no_loss() {
    let directory = tempfile::tempdir().unwrap();
    for (name, topic) in [("x_0.mcap", "/left"), ("x_1.mcap", "/right"), ("x_2.mcap", "/left")] {
        let mut recording = Recording::create(directory.path().join(name));
        recording.write(topic, Serialization::CdrLittle, 1, 1, &small_jpeg(0));
        recording.finish();
    }
    drop(write(&directory.path().join("x_3.db3"), 0..10, false));
    let files = ["x_0.mcap", "x_1.mcap", "x_2.mcap", "x_3.db3"];
    std::fs::write(directory.path().join(ROSBAG2_METADATA), metadata(&files, START, "\"\""))
        .unwrap();
    for (topic, expected) in [("/left", 2), ("/right", 1), ("/cam", 10), ("*", 13)] {
        let options = SourceOptions { topics: vec![topic.into()], ..Default::default() };
        let mut source = crate::open(directory.path(), &options).unwrap();
        let mut packets = 0;
        while let Some(event) = source.next_event().unwrap() {
            match event {
                Event::Packet(_) => packets += 1,
                Event::Warning(warning) => assert!(!warning.loss, "{topic}: {warning:?}"),
                _ => {}
            }
        }
        assert_eq!(packets, expected, "{topic}");
    }
}

#[test]
fn files_that_overlap_are_merged_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    drop(write(&directory.path().join("x_0.db3"), 0..10, false));
    drop(write(&directory.path().join("x_1.db3"), 8..18, false));
    let both = (0..10).chain(8..18);
    for files in [["x_0.db3", "x_1.db3"], ["x_1.db3", "x_0.db3"]] {
        let yaml = directory.path().join(ROSBAG2_METADATA);
        std::fs::write(yaml, metadata(&files, START, "\"\"")).unwrap();
        let all = read(directory.path(), &SourceOptions::default()).unwrap();
        let mut pictures: Vec<u32> = both.clone().collect();
        pictures.sort_unstable();
        assert_eq!(all.frames, (0..).zip(pictures).collect::<Vec<_>>());
        assert_eq!(all.warnings, []);
        // Numbers count messages that the window leaves out.
        let start = Some(Moment::FromStart(7_000_000));
        let part = SourceOptions { start, ..Default::default() };
        let part = read(directory.path(), &part).unwrap().frames;
        assert!(part.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{part:?}");
        assert_eq!((part.len(), part.first().unwrap().1, part.last().unwrap()), (13, 7, &(19, 17)));
    }
}

#[test]
fn more_files_than_are_open_at_once_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let names: Vec<_> = (0..20).map(|n| format!("x_{n}.db3")).collect();
    for name in &names {
        drop(write(&directory.path().join(name), 0..2, false));
    }
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let yaml = directory.path().join(ROSBAG2_METADATA);
    std::fs::write(yaml, metadata(&names, START, "\"\"")).unwrap();
    let all = read(directory.path(), &SourceOptions::default()).unwrap();
    assert_eq!(all.frames.len(), 40);
    let [Warning { text, loss: false }] = all.warnings.as_slice() else { panic!("{all:?}") };
    assert!(text.contains("may come out of order"), "{text}");
}

#[test]
fn a_camera_that_begins_at_the_end_of_the_first_file_is_no_step_of_the_clock() {
    let directory = tempfile::tempdir().unwrap();
    // The files overlap in the other topic.
    for (name, frames, camera) in [("x_0.db3", 0..21, 20), ("x_1.db3", 19..40, 21)] {
        let database = write(&directory.path().join(name), frames, false);
        let before = i64::from(camera) * 1_000_000;
        database
            .execute("DELETE FROM messages WHERE topic_id = 2 AND timestamp < ?", [before])
            .unwrap();
    }
    let yaml = directory.path().join(ROSBAG2_METADATA);
    std::fs::write(yaml, metadata(&["x_0.db3", "x_1.db3"], START, "\"\"")).unwrap();
    let all = read(directory.path(), &SourceOptions::default()).unwrap();
    assert_eq!(all.frames, (0..).zip(20..40).collect::<Vec<_>>());
    assert_eq!(all.warnings, []);
}
