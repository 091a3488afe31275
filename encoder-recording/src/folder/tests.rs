#![allow(clippy::unwrap_used)]

use std::path::Path;

use encoder_core::FrameRate;
use encoder_testbed::fixtures::bag::{Bag, CAMERA, image};
use encoder_testbed::fixtures::recording::{Content, Recording, Serialization, camera, small_jpeg};

use crate::{Event, SourceError, SourceOptions, recordings};

/// Names of the recordings at a path, and the warnings of the first of them.
fn found(path: &Path, topics: &[&str]) -> Result<(Vec<String>, String), SourceError> {
    let topics = topics.iter().map(|topic| topic.to_string()).collect();
    // A rate for pictures, whose names state no time here.
    let rate = Some(FrameRate::default());
    let options = SourceOptions { topics, rate, ..Default::default() };
    let all = recordings(path, &options)?;
    let mut source = all[0].open(&options)?;
    let mut warnings = String::new();
    while let Some(event) = source.next_event()? {
        if let Event::Warning(warning) = event {
            warnings.push_str(&format!("{}: {}\n", warning.loss, warning.text));
        }
    }
    let name = |recording: &crate::Recording| recording.name().to_string_lossy().into_owned();
    Ok((all.iter().map(name).collect(), warnings))
}

#[test]
fn what_is_in_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let picture = |name: &str| {
        let Content::Compressed { data, .. } = small_jpeg(0) else { panic!() };
        std::fs::create_dir_all(at(name).parent().unwrap()).unwrap();
        std::fs::write(at(name), data).unwrap();
    };
    // Pictures alone.
    picture("left/1.jpg");
    assert_eq!(found(directory.path(), &[]).unwrap().0.len(), 1);
    // Recordings in it: without a camera, at any depth, and in a hidden directory.
    let mut imu = Recording::create(at("imu.mcap"));
    let channel = imu.other("/imu", "sensor_msgs/msg/Imu", "cdr", "ros2msg");
    imu.bytes(channel, 1, b"x");
    imu.finish();
    let error = found(directory.path(), &[]).unwrap_err();
    assert!(matches!(error, SourceError::NoCamera { .. }), "{error}");
    for name in ["a/b/c", ".hidden"] {
        std::fs::create_dir_all(at(name)).unwrap();
        camera(&at(name), &[(1, 1, small_jpeg(0))]);
    }
    let (names, warnings) = found(directory.path(), &[]).unwrap();
    assert_eq!(names, ["a/b/c/one"]);
    assert_eq!(warnings.lines().count(), 1, "{warnings}");
    assert!(warnings.starts_with("false: the pictures in left are not read"), "{warnings}");
    let error = found(directory.path(), &["/nope"]).unwrap_err().to_string();
    assert!(error.contains("no camera topic"), "{error}");
    // A second one, and a file that cannot be read.
    camera(directory.path(), &[(1, 1, small_jpeg(0))]);
    std::fs::write(at("two.mcap"), "no MCAP").unwrap();
    let (names, warnings) = found(directory.path(), &[]).unwrap();
    assert_eq!(names, ["one", "a/b/c/one"]);
    assert!(warnings.contains("true: ") && warnings.contains("two.mcap"), "{warnings}");
    let error = crate::open(directory.path(), &SourceOptions::default()).err().unwrap();
    assert!(error.to_string().contains("2 recordings are in this directory"), "{error}");
    // A directory of pictures stays that.
    picture("1.jpg");
    std::fs::remove_file(at("one.mcap")).unwrap();
    std::fs::remove_file(at("two.mcap")).unwrap();
    std::fs::remove_file(at("imu.mcap")).unwrap();
    assert_eq!(found(directory.path(), &[]).unwrap().0.len(), 1);
}

#[test]
fn what_is_found_in_one_directory_is_one_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    for (name, time) in [("x.mcap", 1), ("y.mcap", 1)] {
        let mut recording = Recording::create(directory.path().join(name));
        recording.write("/cam", Serialization::CdrLittle, time, time, &small_jpeg(0));
        recording.finish();
    }
    let (names, warnings) = found(directory.path(), &[]).unwrap();
    assert_eq!(names, ["x", "y"]);
    assert!(warnings.contains("2 recordings are in"), "{warnings}");
}

/// An MCAP file with a camera, one frame long.
fn one(path: impl AsRef<Path>, topic: &str, time: i64) {
    std::fs::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
    let mut recording = Recording::create(path.as_ref());
    recording.write(topic, Serialization::CdrLittle, time, time, &small_jpeg(0));
    recording.finish();
}

/// Asserts that exactly one warning has each of the `parts`, and that there are no others.
#[track_caller]
fn assert_warnings(warnings: &str, parts: &[(bool, &str)]) {
    assert_eq!(warnings.lines().count(), parts.len(), "{warnings}");
    for (loss, part) in parts {
        let mut lines = warnings.lines();
        let is_like = |line: &str| line.starts_with(&format!("{loss}: ")) && line.contains(part);
        assert!(lines.any(is_like), "{loss}: {part}\n{warnings}");
    }
}

#[test]
fn pictures_that_are_not_read_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let picture = |name: &str| {
        std::fs::create_dir_all(at(name).parent().unwrap()).unwrap();
        std::fs::write(at(name), "").unwrap();
    };
    // Above and beside recordings.
    picture("preview.jpg");
    picture("bags/preview.jpg");
    one(at("bags/a.mcap"), "/cam", 1);
    let mixed = "because recordings are in this directory";
    let (names, warnings) = found(directory.path(), &[]).unwrap();
    assert_eq!(names, ["bags/a"]);
    assert_warnings(&warnings, &[(false, mixed), (false, &format!("bags are not read, {mixed}"))]);
    // The recording cannot be read: the pictures above it are a video.
    std::fs::write(at("bags/a.mcap"), "").unwrap();
    picture("left/1.jpg");
    let (names, warnings) = found(directory.path(), &[]).unwrap();
    assert_eq!(names, [""]);
    let unread = [(true, "a.mcap: "), (true, "bags are not read"), (true, "left are not read")];
    assert_warnings(&warnings, &unread);
    // Directories of pictures are cameras; deeper ones are not read.
    std::fs::remove_dir_all(at("bags")).unwrap();
    std::fs::remove_file(at("preview.jpg")).unwrap();
    picture("left/masks/1.png");
    let (_, warnings) = found(directory.path(), &[]).unwrap();
    assert_warnings(&warnings, &[(true, "left/masks are not read: give this directory")]);
    let (_, warnings) = found(directory.path(), &["left"]).unwrap();
    assert_warnings(&warnings, &[]);
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    one(at("good.mcap"), "/cam", 1);
    let bytes = std::fs::read(at("good.mcap")).unwrap();
    let odd = |name: &str| {
        let mut recording = Recording::create(at(name));
        let channel = recording.other("/cam", "sensor_msgs/msg/Image", "odd", "ros2msg");
        recording.bytes(channel, 1, b"x");
        std::fs::read(recording.finish()).unwrap()
    };
    let files: &[(&str, Vec<u8>)] = &[
        ("empty.mcap", Vec::new()),
        ("empty.bag", Vec::new()),
        ("empty.db3", Vec::new()),
        ("text.mcap", b"text".to_vec()),
        ("text.bag", b"text".to_vec()),
        ("text.db3", b"text".to_vec()),
        ("old.bag", b"#ROSBAG V1.2\n".to_vec()),
        // Nothing but the header, so that no camera is found.
        ("cut.mcap", bytes[..40].to_vec()),
        ("cut.bag", b"#ROSBAG V2.0\n".to_vec()),
        ("encoding.mcap", odd("encoding.mcap")),
        ("x.mcap.xz", b"\xfd7zXZ\0rest".to_vec()),
        ("x.mcap.gz", b"\x1f\x8b\x08rest".to_vec()),
    ];
    for (name, bytes) in files {
        let _ = std::fs::remove_file(at("encoding.mcap"));
        std::fs::write(at(name), bytes).unwrap();
        let (names, warnings) = found(directory.path(), &[]).unwrap();
        assert_eq!(names, ["good"], "{name}");
        assert_warnings(&warnings, &[(true, name)]);
        std::fs::remove_file(at(name)).unwrap();
    }
    // The first recording is a directory of rosbag2.
    std::fs::rename(at("good.mcap"), at("rec.mcap")).unwrap();
    std::fs::create_dir(at("a")).unwrap();
    std::fs::rename(at("rec.mcap"), at("a/rec.mcap")).unwrap();
    let yaml = "rosbag2_bagfile_information:\n  relative_file_paths: [rec.mcap]\n";
    std::fs::write(at("a/metadata.yaml"), yaml).unwrap();
    std::fs::write(at("b.mcap"), "").unwrap();
    let (names, warnings) = found(directory.path(), &[]).unwrap();
    assert_eq!(names, ["a"]);
    assert_warnings(&warnings, &[(true, "b.mcap")]);
}

#[test]
fn recordings_below_and_beside_a_described_one() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for name in ["rec_0.mcap", "data/rec_1.mcap", "old/rec.mcap", "rec_0.mcap.bak"] {
        one(at(name), "/cam", 1);
    }
    std::fs::write(at("other.bag"), "").unwrap();
    let yaml =
        "rosbag2_bagfile_information:\n  relative_file_paths: [rec_0.mcap, data/rec_1.mcap]\n";
    std::fs::write(at("metadata.yaml"), yaml).unwrap();
    let (names, warnings) = found(directory.path(), &[]).unwrap();
    assert_eq!(names, ["", "old/rec"]);
    let unread = [(false, "other.bag is not listed in"), (false, "rec_0.mcap.bak is a recording")];
    assert_warnings(&warnings, &unread);
}

#[cfg(unix)]
#[test]
fn links_are_followed_once_and_named_if_they_lead_out() {
    use std::os::unix::fs::symlink;
    let parent = tempfile::tempdir().unwrap();
    let root = parent.path().join("root");
    let at = |name: &str| root.join(name);
    one(at("day/a.mcap"), "/cam", 1);
    one(at("store/b"), "/cam", 1);
    one(parent.path().join("outside/c.mcap"), "/cam", 1);
    // Loops, links to files and directories inside, and links to what is there no more.
    symlink("..", at("day/loop")).unwrap();
    symlink("day", at("again")).unwrap();
    symlink("../store/b", at("day/b.mcap")).unwrap();
    let (names, warnings) = found(&root, &[]).unwrap();
    assert_eq!(names, ["day/a", "day/b"]);
    assert_warnings(&warnings, &[(false, "2 recordings are in")]);
    std::fs::remove_dir_all(at("store")).unwrap();
    std::fs::remove_file(at("day/b.mcap")).unwrap();
    symlink("../outside", at("out")).unwrap();
    symlink("nowhere", at("later")).unwrap();
    symlink("nowhere", at("notes.txt")).unwrap();
    std::fs::write(at("night.dvc"), "outs:\n").unwrap();
    let (names, warnings) = found(&root, &[]).unwrap();
    assert_eq!(names, ["day/a"]);
    let lost = [
        (true, "out is a link to"),
        (true, "later is a link to nowhere, which is not there"),
        (true, "night is not there, only a DVC pointer to it"),
    ];
    assert_warnings(&warnings, &lost);
    // Directories of pictures are put together by links.
    std::fs::remove_dir_all(&root).unwrap();
    std::fs::create_dir(&root).unwrap();
    std::fs::remove_file(parent.path().join("outside/c.mcap")).unwrap();
    std::fs::write(parent.path().join("outside/1.jpg"), "").unwrap();
    symlink("../outside", at("left")).unwrap();
    assert_eq!(found(&root, &[]).unwrap(), (vec![String::new()], String::new()));
    // Beside recordings they are not read, and perhaps recordings are in them.
    one(at("a.mcap"), "/cam", 1);
    for has_recording in [false, true] {
        if has_recording {
            one(parent.path().join("outside/c.mcap"), "/cam", 1);
        }
        let (names, warnings) = found(&root, &[]).unwrap();
        assert_eq!(names, ["a"]);
        assert_warnings(&warnings, &[(true, "left is a link to")]);
    }
}

#[cfg(unix)]
#[test]
fn parts_are_recognised_whatever_path_leads_to_them() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    one(at("run3/run3_0.mcap"), "/cam", 1);
    one(at("run3/run3_2.mcap"), "/cam", 50_000_000_000);
    std::os::unix::fs::symlink("run3", at("latest")).unwrap();
    let missing = [(true, "1 part is missing between"), (false, "2 files are read as one")];
    for (path, name) in
        [("", "run3/run3"), ("run3", "run3"), ("latest", "run3"), ("run3/.", "run3")]
    {
        let (names, warnings) = found(&at(path), &[]).unwrap();
        assert_eq!(names, [name], "{path}");
        assert_warnings(&warnings, &missing);
    }
}

#[test]
fn files_without_a_camera_are_no_loss_if_they_are_whole() {
    use mcap::WriteOptions;
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    one(at("a.mcap"), "/cam/a", 1);
    for chunks in [false, true] {
        let options = WriteOptions::new().use_chunks(chunks).emit_summary_records(false);
        let mut writer = options.create(std::io::Cursor::new(Vec::new())).unwrap();
        let schema = writer.add_schema("sensor_msgs/msg/Imu", "ros2msg", b"x").unwrap();
        let channel = writer.add_channel(schema, "/imu", "cdr", &Default::default()).unwrap();
        let header = mcap::records::MessageHeader {
            channel_id: channel,
            sequence: 0,
            log_time: 1,
            publish_time: 1,
        };
        writer.write_to_known_channel(&header, b"x").unwrap();
        writer.finish().unwrap();
        let bytes = writer.into_inner().into_inner();
        std::fs::write(at("imu.mcap"), &bytes).unwrap();
        assert_eq!(found(directory.path(), &[]).unwrap(), (vec!["a".into()], String::new()));
        // A cut one may have had a camera.
        std::fs::write(at("imu.mcap"), &bytes[..bytes.len() - 60]).unwrap();
        let (_, warnings) = found(directory.path(), &[]).unwrap();
        assert_warnings(&warnings, &[(true, "imu.mcap: ")]);
        std::fs::remove_file(at("imu.mcap")).unwrap();
    }
    // The cameras of a cut file are left out by `--topic`.
    one(at("b.mcap"), "/cam/b", 1);
    let bytes = std::fs::read(at("b.mcap")).unwrap();
    std::fs::write(at("b.mcap"), &bytes[..bytes.len() - 10]).unwrap();
    let (names, warnings) = found(directory.path(), &["/cam/a"]).unwrap();
    assert_eq!((names, warnings), (vec!["a".into()], String::new()));
}

#[test]
fn a_compressed_file_without_a_camera_is_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let packed = |name: &str, topic: Option<&str>| {
        std::fs::create_dir_all(at(name).parent().unwrap()).unwrap();
        let mut recording = Recording::create(at("x.mcap"));
        match topic {
            Some(topic) => {
                recording.write(topic, Serialization::CdrLittle, 1, 1, &small_jpeg(0));
            }
            None => {
                let channel = recording.other("/imu", "sensor_msgs/msg/Imu", "cdr", "ros2msg");
                recording.bytes(channel, 1, b"x");
            }
        }
        let bytes = std::fs::read(recording.finish()).unwrap();
        std::fs::write(at(name), zstd::encode_all(&bytes[..], 1).unwrap()).unwrap();
        std::fs::remove_file(at("x.mcap")).unwrap();
    };
    packed("b/imu.mcap.zst", None);
    let error = found(directory.path(), &[]).unwrap_err();
    assert!(matches!(error, SourceError::NoCamera { .. }), "{error}");
    packed("a/cam.mcap.zst", Some("/cam"));
    std::fs::create_dir(at("c")).unwrap();
    std::fs::write(at("c/bad.mcap.gz"), b"\x1f\x8b\x08rest").unwrap();
    let (names, warnings) = found(directory.path(), &[]).unwrap();
    assert_eq!(names, ["a/cam"]);
    assert_warnings(&warnings, &[(true, "bad.mcap.gz")]);
    // Pictures are converted instead.
    std::fs::remove_dir_all(at("a")).unwrap();
    std::fs::remove_dir_all(at("c")).unwrap();
    let Content::Compressed { data, .. } = small_jpeg(0) else { panic!() };
    std::fs::write(at("1.jpg"), data).unwrap();
    assert_eq!(found(directory.path(), &[]).unwrap(), (vec![String::new()], String::new()));
}

#[cfg(unix)]
#[test]
fn directories_of_the_file_system_are_ignored() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    one(directory.path().join("a.mcap"), "/cam", 1);
    for name in ["lost+found", "System Volume Information", "$RECYCLE.BIN"] {
        // The superuser can read them, and would find a recording.
        let path = directory.path().join(name);
        one(path.join("b.mcap"), "/cam", 1);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o000)).unwrap();
    }
    let result = found(directory.path(), &[]).unwrap();
    for name in ["lost+found", "System Volume Information", "$RECYCLE.BIN"] {
        let path = directory.path().join(name);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).unwrap();
    }
    assert_eq!(result, (vec!["a".into()], String::new()));
}

#[test]
fn pictures_two_directories_down_are_named() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["mav0/cam0/data", "mav0/cam1/data"] {
        let path = directory.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("1.png"), "").unwrap();
    }
    let error = found(directory.path(), &[]).unwrap_err();
    let SourceError::Invalid { reason, hint, .. } = error else { panic!("{error}") };
    assert!(reason.contains("no pictures in this directory"), "{reason}");
    assert!(hint.ends_with("mav0/cam0/data"), "{hint}");
}

#[cfg(unix)]
#[test]
fn a_directory_that_cannot_be_read_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    one(at("a.mcap"), "/cam", 1);
    std::fs::create_dir(at("closed")).unwrap();
    std::fs::set_permissions(at("closed"), PermissionsExt::from_mode(0o000)).unwrap();
    // The superuser can read it.
    if std::fs::read_dir(at("closed")).is_ok() {
        return;
    }
    let (names, warnings) = found(directory.path(), &[]).unwrap();
    assert_eq!(names, ["a"]);
    assert_warnings(&warnings, &[(true, "closed: ")]);
}

#[test]
fn recordings_by_other_names() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for name in ["a.mcap", "a.mcap.bak", "b", "c.dat"] {
        one(at(name), "/cam", 1);
    }
    std::fs::write(at("d.mcap.txt"), "text").unwrap();
    let (names, warnings) = found(directory.path(), &[]).unwrap();
    assert_eq!(names, ["a"]);
    let unread = [(false, "a.mcap.bak is a recording"), (false, "b is a recording")];
    assert_warnings(&warnings, &unread);
    // A directory that is searched no further.
    let deep = format!("{}e", "x/".repeat(super::DEPTH));
    std::fs::create_dir_all(at(&deep)).unwrap();
    std::fs::remove_file(at("b")).unwrap();
    std::fs::remove_file(at("a.mcap.bak")).unwrap();
    let (_, warnings) = found(directory.path(), &[]).unwrap();
    assert_warnings(&warnings, &[(true, "e is not searched")]);
}

#[test]
fn one_type_in_two_spellings_is_one_stream() {
    let spellings = ["sensor_msgs/msg/CompressedImage", "sensor_msgs/CompressedImage"];
    for yaml in ["", "rosbag2_bagfile_information:\n  relative_file_paths: [x_0.mcap, x_1.mcap]\n"]
    {
        let directory = tempfile::tempdir().unwrap();
        for (n, schema) in (0..).zip(spellings) {
            let path = directory.path().join(format!("x_{n}.mcap"));
            let mut recording = Recording::create(path);
            let channel = recording.other("/cam", schema, "cdr", "ros2msg");
            let message = small_jpeg(0).message(Serialization::CdrLittle, n);
            recording.bytes(channel, n, &message);
            recording.finish();
        }
        if !yaml.is_empty() {
            std::fs::write(directory.path().join("metadata.yaml"), yaml).unwrap();
        }
        let mut source = crate::open(directory.path(), &SourceOptions::default()).unwrap();
        let (mut streams, mut packets) = (0, 0);
        while let Some(event) = source.next_event().unwrap() {
            streams += usize::from(matches!(event, Event::Stream(_)));
            packets += usize::from(matches!(event, Event::Packet(_)));
        }
        assert_eq!((streams, packets), (1, 2), "{yaml}");
    }
}

#[test]
fn a_bag_whose_recorder_was_killed_is_a_part() {
    let directory = tempfile::tempdir().unwrap();
    for (name, ms) in [("x_0.bag", 0), ("x_1.bag", 500), ("x_2.bag.active", 1000)] {
        let mut bag = Bag::new(&[(0, "/cam", CAMERA)]);
        bag.chunk("none", &[(0, ms, image(0)), (0, ms + 400, image(1))]);
        std::fs::write(directory.path().join(name), bag.finish()).unwrap();
    }
    let (names, warnings) = found(directory.path(), &[]).unwrap();
    assert_eq!(names, ["x"]);
    assert_warnings(&warnings, &[(false, "3 files are read as one recording")]);
}

#[test]
fn files_that_are_read_alone_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("b.mp4"), "x").unwrap();
    let error = found(directory.path(), &[]).unwrap_err().to_string();
    assert!(error.contains("b.mp4 is not read"), "{error}");
    // Beside a recording of its own, a rosbag2 directory, and pictures.
    let rosbag2 = "rosbag2_bagfile_information:\n  relative_file_paths: [one.mcap]\n";
    let Content::Compressed { data, .. } = small_jpeg(0) else { panic!() };
    camera(directory.path(), &[(1, 1, small_jpeg(0))]);
    for (name, content) in [("", &b""[..]), ("metadata.yaml", rosbag2.as_bytes())] {
        if !name.is_empty() {
            std::fs::write(at(name), content).unwrap();
        }
        let (names, warnings) = found(directory.path(), &[]).unwrap();
        assert_eq!(names.len(), 1);
        assert!(warnings.starts_with("false: b.mp4 is not read"), "{warnings}");
        assert_eq!(warnings.lines().count(), 1, "{warnings}");
    }
    std::fs::remove_file(at("metadata.yaml")).unwrap();
    std::fs::remove_file(at("one.mcap")).unwrap();
    std::fs::write(at("1.jpg"), data).unwrap();
    let (_, warnings) = found(directory.path(), &[]).unwrap();
    assert!(warnings.starts_with("false: b.mp4 is not read"), "{warnings}");
    // Not the videos of an earlier run; and files of other kinds.
    let report = r#"{"exit": 0, "outputs": [{"file": "b.mp4"}, {"file": null}]}"#;
    std::fs::write(at("out.report.json"), report).unwrap();
    std::fs::write(at("other.report.json"), "no report").unwrap();
    for (name, content) in [("d.Y4M", ""), ("e.ts", "G"), ("f.ts", "export {}"), ("g.gz", "")] {
        std::fs::write(at(name), content).unwrap();
    }
    let all = directory.path().file_name().unwrap().to_str().unwrap();
    for (topics, expected) in [(&[][..], &["d.Y4M", "e.ts"][..]), (&[all, "d.*"], &["d.Y4M"])] {
        let (_, warnings) = found(directory.path(), topics).unwrap();
        let names: Vec<_> = warnings.lines().filter_map(|line| line.split(' ').nth(1)).collect();
        assert_eq!(names, expected, "{warnings}");
    }
}

#[test]
fn warnings_reach_a_rosbag2_directory_that_comes_first() {
    let directory = tempfile::tempdir().unwrap();
    let bag = directory.path().join("a");
    std::fs::create_dir(&bag).unwrap();
    camera(&bag, &[(1, 1, small_jpeg(0))]);
    let rosbag2 = "rosbag2_bagfile_information:\n  relative_file_paths: [one.mcap]\n";
    std::fs::write(bag.join("metadata.yaml"), rosbag2).unwrap();
    std::fs::write(directory.path().join("two.mcap"), "no MCAP").unwrap();
    let (names, warnings) = found(directory.path(), &[]).unwrap();
    assert_eq!(names, ["a"]);
    assert!(warnings.starts_with("true: ") && warnings.contains("two.mcap"), "{warnings}");
}

#[cfg(unix)]
#[test]
fn named_pipes_in_a_directory_are_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    camera(directory.path(), &[(1, 1, small_jpeg(0))]);
    for name in ["metadata.yaml", "two.mcap", "v.mp4", "1.jpg"] {
        let pipe = directory.path().join(name);
        assert!(std::process::Command::new("mkfifo").arg(pipe).status().unwrap().success());
    }
    let (names, warnings) = found(directory.path(), &[]).unwrap();
    assert_eq!(names, ["one"]);
    assert_eq!(warnings, "true: two.mcap is not a file\n");
}
