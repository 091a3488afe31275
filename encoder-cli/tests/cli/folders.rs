//! Directories of recordings, parts of a recording, and recordings through pipes.

use crate::common;

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use common::{
    EPOCH, MS, bag,
    decode::decode,
    entries,
    program::{command, convert, convert_input, run, told},
    recording::{Content, Recording, Serialization, small_jpeg},
};
use encoder_testbed::process::until;

/// An MCAP file of the camera `/cam`, with pictures `numbers` at 20 fps from the epoch.
fn mcap(path: &Path, numbers: impl IntoIterator<Item = usize>) {
    let mut recording = Recording::create(path);
    for n in numbers {
        let time = EPOCH + n as i64 * 50 * MS;
        recording.write("/cam", Serialization::CdrLittle, time, time, &small_jpeg(n));
    }
    recording.finish();
}

/// A bag of the camera `/cam`, with pictures `numbers` at 20 fps.
fn ros1(path: &Path, numbers: std::ops::Range<usize>) {
    std::fs::write(path, ros1_bytes(numbers)).unwrap();
}

fn ros1_bytes(numbers: std::ops::Range<usize>) -> Vec<u8> {
    let messages: Vec<_> = numbers
        .map(|n| {
            let ms = n as u32 * 50;
            (0, ms, small_jpeg(n).message(Serialization::Ros1, bag::ns(ms)))
        })
        .collect();
    let mut bag = bag::Bag::new(&[(0, "/cam", bag::CAMERA)]);
    bag.chunk("none", &messages);
    bag.finish()
}

fn metadata(directory: &Path, files: &[&str], more: &str) {
    let text = format!(
        "rosbag2_bagfile_information:\n  version: 5\n  storage_identifier: mcap\n  \
         relative_file_paths: [{}]\n{more}",
        files.join(", ")
    );
    std::fs::write(directory.join("metadata.yaml"), text).unwrap();
}

fn range(numbers: std::ops::Range<usize>) -> Vec<Option<usize>> {
    numbers.map(Some).collect()
}

fn numbers(video: &Path) -> Vec<Option<usize>> {
    decode(video).numbers()
}

#[test]
fn recordings_in_a_directory_are_converted_apart() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    // At the same time, with a pause, of another kind, without a camera, and in directories.
    mcap(&at("ep1.mcap"), 0..6);
    mcap(&at("ep2.mcap"), 1..8);
    mcap(&at("ep3.mcap"), 100..104);
    ros1(&at("ep1.bag"), 0..3);
    let mut imu = Recording::create(at("imu.mcap"));
    let channel = imu.other("/imu", "sensor_msgs/msg/Imu", "cdr", "ros2msg");
    imu.bytes(channel, EPOCH, b"x");
    imu.finish();
    for run in ["day1/run1", "day1/run2"] {
        std::fs::create_dir_all(at(run)).unwrap();
        mcap(&at(run).join("run_0.mcap"), 0..2);
        mcap(&at(run).join("run_1.mcap"), 2..5);
        metadata(&at(run), &["run_0.mcap", "run_1.mcap"], "");
    }
    let root = directory.path().to_str().unwrap();
    let out = tempfile::tempdir().unwrap();
    let to = out.path().to_str().unwrap();
    let (code, said) = run(["encode", root, "-o", to, "--encoder", "openh264"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("4 recordings are in"), "{said}");
    let day = ["run1", "run2"].map(|run| format!("day1/{run}"));
    let expected = [("ep1.mcap", 0..6), ("ep2", 1..8), ("ep3", 100..104), ("ep1.bag", 0..3)]
        .map(|(n, r)| (n.to_owned(), r));
    let expected = expected.into_iter().chain(day.map(|name| (name, 0..5)));
    for (name, frames) in expected {
        let directory = out.path().join(&name);
        assert_eq!(entries(&directory), ["cam.mp4", "report.json"], "{name}");
        assert_eq!(numbers(&directory.join("cam.mp4")), range(frames), "{name}");
    }
    assert_eq!(entries(out.path()), ["day1", "ep1.bag", "ep1.mcap", "ep2", "ep3"]);

    let (code, said) = run(["encode", root, "-o", &format!("{to}/a.mp4"), "--encoder", "openh264"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("there are 6 recordings"), "{said}");
    let (code, said) = run(["info", root]);
    assert_eq!((code, said.matches("/cam  [").count()), (0, 6), "{said}");
    let (code, said) = run(["info", root, "--json"]);
    let infos: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, infos.as_array().map(Vec::len)), (0, Some(6)), "{said}");
    assert!(infos[0]["recording"].as_str().is_some_and(|name| name.contains("ep1")), "{said}");
}

#[test]
fn parts_of_a_recording_stay_one_video() {
    // Files with their pictures, the files in `metadata.yaml`, part of the warning.
    type Files<'a> = &'a [(&'a str, &'a [usize])];
    let first: Vec<usize> = (0..10).collect();
    let second: Vec<usize> = (10..20).collect();
    let crossing: (Vec<usize>, Vec<usize>) =
        ((0..9).chain([10]).collect(), [9].into_iter().chain(11..20).collect());
    let table: &[(Files<'_>, Option<&[&str]>, &str)] = &[
        (&[("x_0.mcap", &first), ("x_1.mcap", &second)], Some(&["x_0.mcap", "x_1.mcap"]), ""),
        // Listed in another order, and messages that cross the boundary.
        (&[("x_0.mcap", &first), ("x_1.mcap", &second)], Some(&["x_1.mcap", "x_0.mcap"]), ""),
        (
            &[("x_0.mcap", &crossing.0), ("x_1.mcap", &crossing.1)],
            Some(&["x_0.mcap", "x_1.mcap"]),
            "",
        ),
        // Not listed, and renamed.
        (
            &[("x_0.mcap", &first), ("x_1.mcap", &second)],
            Some(&["x_0.mcap"]),
            "x_1.mcap is not listed",
        ),
        (
            &[("x_0.mcap", &first), ("y.mcap", &second)],
            Some(&["x_0.mcap", "x_1.mcap"]),
            "read in place of x_1.mcap",
        ),
        (&[("x_0.mcap", &first), ("x_1.mcap", &second)], None, "2 files are read as one recording"),
        (
            &[("x_0.mcap", &crossing.0), ("x_1.mcap", &crossing.1)],
            None,
            "2 files are read as one recording",
        ),
    ];
    for (files, listed, warning) in table {
        let directory = tempfile::tempdir().unwrap();
        for (name, numbers) in *files {
            mcap(&directory.path().join(name), numbers.iter().copied());
        }
        if let Some(listed) = listed {
            metadata(directory.path(), listed, "");
        }
        let converted = convert(directory.path(), &[]).expect(0);
        assert_eq!(converted.video().numbers(), range(0..20), "{files:?} {listed:?}");
        let warnings = converted.report["warnings"].as_array().unwrap();
        assert_eq!(warnings.len(), usize::from(!warning.is_empty()), "{warnings:?}");
        assert!(warning.is_empty() || converted.warns(warning), "{warnings:?}");
        // Also at a constant rate, for which the recording is read twice.
        let converted = convert(directory.path(), &["--resample", "20"]).expect(0);
        assert_eq!(converted.video().numbers(), range(0..20), "{files:?} {listed:?}");
    }
}

#[test]
fn a_file_beside_a_recording_that_does_not_fit_is_named() {
    let directory = tempfile::tempdir().unwrap();
    mcap(&directory.path().join("x_0.mcap"), 0..10);
    mcap(&directory.path().join("copy.mcap"), 0..10);
    metadata(directory.path(), &["x_0.mcap"], "");
    let converted = convert(directory.path(), &[]).expect(0);
    assert_eq!(converted.video().numbers(), range(0..10));
    assert!(converted.warns("copy.mcap is not listed in metadata.yaml and is not read"));
    // The wrong time for the missing file.
    let times = "  starting_time: {nanoseconds_since_epoch: 5}\n  duration: {nanoseconds: 7}\n";
    metadata(directory.path(), &["x_0.mcap", "x_1.mcap"], times);
    let converted = convert(directory.path(), &[]).expect(3);
    assert!(converted.warns("x_1.mcap, listed in metadata.yaml, is not there"));
}

#[cfg(unix)]
#[test]
fn files_that_are_named_and_not_there_are_a_loss() {
    type Make = fn(&Path);
    let lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n";
    let table: [(Make, &str); 5] = [
        (
            |d| std::os::unix::fs::symlink("../.git/annex/objects/a", d.join("ep2.mcap")).unwrap(),
            "ep2.mcap is a link to ../.git/annex/objects/a, which is not there",
        ),
        (|d| std::fs::write(d.join("ep2.mcap.dvc"), "outs:\n").unwrap(), "dvc pull"),
        (|d| std::fs::write(d.join("ep2.mcap"), b"/annex/objects/X\n").unwrap(), "git annex get"),
        // Parts of a bag.
        (|d| ros1(&d.join("x_2.bag"), 20..30), "1 part is missing between x_0.bag and x_2.bag"),
        (|d| std::fs::write(d.join("ep2.mcap"), "").unwrap(), "ep2.mcap"),
    ];
    for (n, (make, warning)) in table.into_iter().enumerate() {
        let directory = tempfile::tempdir().unwrap();
        let count = match n {
            3 => {
                ros1(&directory.path().join("x_0.bag"), 0..10);
                20
            }
            _ => {
                mcap(&directory.path().join("ep1.mcap"), 0..10);
                10
            }
        };
        make(directory.path());
        let converted = convert(directory.path(), &[]).expect(3);
        assert!(converted.warns(warning), "{warning}: {}", converted.report);
        assert_eq!(converted.video().numbers().len(), count);
    }
    // The recording itself.
    let directory = tempfile::tempdir().unwrap();
    let pointer = directory.path().join("a.mcap");
    std::fs::write(&pointer, lfs).unwrap();
    assert!(convert(&pointer, &[]).expect(1).said.contains("git lfs pull"));
    let link = directory.path().join("b.mcap");
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    let converted = convert(&link, &[]).expect(1);
    assert!(converted.said.contains("a link to nowhere, which is not there"), "{}", converted.said);
    // A picture of a directory of pictures: a broken frame.
    let directory = tempfile::tempdir().unwrap();
    for n in 0..3 {
        let common::recording::Content::Compressed { data, .. } = small_jpeg(n) else { panic!() };
        std::fs::write(directory.path().join(format!("{n}.jpg")), data).unwrap();
    }
    std::os::unix::fs::symlink("nowhere", directory.path().join("3.jpg")).unwrap();
    std::fs::write(directory.path().join("4.jpg"), lfs).unwrap();
    let converted = convert(directory.path(), &[]).expect(3);
    assert_eq!(converted.count("frames_failed"), 2);
    assert!(converted.warns("a link to nowhere") && converted.warns("git lfs pull"));
}

#[test]
fn what_is_not_read_in_a_directory_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    std::fs::create_dir_all(at("bags/run")).unwrap();
    mcap(&at("bags/run/run_0.mcap"), 0..10);
    metadata(&at("bags/run"), &["run_0.mcap"], "");
    std::fs::write(at("preview.jpg"), "").unwrap();
    let converted = convert(directory.path(), &[]).expect(0);
    assert!(converted.warns("the pictures in"), "{}", converted.report);
    assert_eq!(converted.video().numbers(), range(0..10));
    // A file without a camera that can be seen, as it is damaged.
    let bytes = std::fs::read(at("bags/run/run_0.mcap")).unwrap();
    std::fs::write(at("bags/cut.mcap"), &bytes[..40]).unwrap();
    let converted = convert(directory.path(), &[]).expect(3);
    assert!(converted.warns("cut.mcap"), "{}", converted.report);
    assert_eq!(converted.video().numbers(), range(0..10));
    // A part that has no camera is there; its type has another spelling in the last part.
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    mcap(&at("x_0.mcap"), 0..10);
    let mut imu = Recording::create(at("x_1.mcap"));
    let channel = imu.other("/imu", "sensor_msgs/msg/Imu", "cdr", "ros2msg");
    imu.bytes(channel, EPOCH, b"x");
    imu.finish();
    let mut last = Recording::create(at("x_2.mcap"));
    let channel = last.other("/cam", "sensor_msgs/CompressedImage", "cdr", "ros2msg");
    for n in 20..30 {
        let time = EPOCH + n as i64 * 50 * MS;
        last.bytes(channel, time, &small_jpeg(n).message(Serialization::CdrLittle, time));
    }
    last.finish();
    metadata(directory.path(), &["x_0.mcap", "x_1.mcap", "x_2.mcap"], "");
    let converted = convert(directory.path(), &[]).expect(0);
    let pictures: Vec<_> = (0..10).chain(20..30).map(Some).collect();
    assert_eq!(converted.video().numbers(), pictures);
}

#[test]
fn recordings_come_through_standard_input() {
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().join("a.mcap");
    mcap(&path, 0..10);
    let bytes = std::fs::read(&path).unwrap();
    let zip = zstd::encode_all(bytes.as_slice(), 1).unwrap();
    for bytes in [&bytes, &ros1_bytes(0..10), &zip] {
        let converted = convert_input(bytes, &[]).expect(0);
        assert_eq!(converted.video().numbers(), range(0..10));
        // Never as raw frames.
        let converted = convert_input(bytes, &["--raw", "gray:16x16"]).expect(1);
        assert!(converted.said.contains("which has no raw frames"), "{}", converted.said);
    }
    let converted = convert_input(&bytes, &["--max-temporary-bytes", "1000"]).expect(1);
    assert!(converted.said.contains("--max-temporary-bytes"), "{}", converted.said);
    // A recorder that ends early.
    let converted = convert_input(&bytes[..bytes.len() / 2], &[]).expect(3);
    assert!(!converted.video().numbers().is_empty());
    let converted = convert_input(b"\x1f\x8b\x08rest", &[]).expect(1);
    assert!(converted.said.contains("gunzip"), "{}", converted.said);
}

#[test]
fn a_camera_that_begins_when_the_others_have_failed_is_in_a_recording_through_a_pipe() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.mcap");
    let mut recording = Recording::create(&path);
    let at = |n: i64| EPOCH + n * 50 * MS;
    let broken = Content::Compressed { format: "jpeg".into(), data: b"\xff\xd8\xff".to_vec() };
    for n in 0..4 {
        let content = if n == 2 { &broken } else { &small_jpeg(n) };
        let time = at(n as i64);
        recording.write("/bad", Serialization::CdrLittle, time, time, content);
    }
    for n in 0..6 {
        let time = at(10 + n as i64);
        recording.write("/cam", Serialization::CdrLittle, time, time, &small_jpeg(n));
    }
    recording.finish();
    let bytes = std::fs::read(&path).unwrap();
    let converted = convert_input(&bytes, &["--on-bad-frame", "fail"]).expect(1);
    assert_eq!(entries(converted.directory.path()), ["cam.mp4", "report.json"]);
    assert_eq!(decode(&converted.directory.path().join("cam.mp4")).numbers(), range(0..6));
}

#[test]
fn a_video_beside_a_recording_is_named_unless_a_run_made_it() {
    let directory = tempfile::tempdir().unwrap();
    mcap(&directory.path().join("a.mcap"), 0..2);
    let own = directory.path().join("own.mp4");
    let to = own.to_str().unwrap();
    let path = directory.path().join("a.mcap");
    let (code, said) = run(["encode", path.to_str().unwrap(), "-o", to, "--encoder", "openh264"]);
    assert_eq!(code, 0, "{said}");
    convert(directory.path(), &[]).expect(0);
    std::fs::write(directory.path().join("b.mp4"), "a video").unwrap();
    let converted = convert(directory.path(), &[]).expect(0);
    assert!(converted.warns("b.mp4 is not read") && !converted.warns("own.mp4"));
}

#[test]
fn a_directory_is_shown_as_a_list_whatever_can_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.mcap");
    mcap(&path, 0..2);
    let info = |path: &Path| -> serde_json::Value {
        let output = command(["info", path.to_str().unwrap(), "--json"]).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    };
    assert_eq!(info(&path)["cameras"][0]["frames"], 2);
    for name in ["", "b.mcap", "c.mcap"] {
        match name {
            "" => {}
            "b.mcap" => std::fs::write(directory.path().join(name), "no MCAP").unwrap(),
            _ => mcap(&directory.path().join(name), 9..10),
        }
        let shown = info(directory.path());
        assert_eq!(shown[0]["cameras"][0]["frames"], 2, "{shown}");
        assert!(shown[0]["recording"].is_string(), "{shown}");
        assert_eq!(shown.as_array().unwrap().len(), if name == "c.mcap" { 2 } else { 1 });
    }
    // A rosbag2 directory is one recording.
    metadata(directory.path(), &["a.mcap"], "");
    assert_eq!(info(directory.path())["cameras"][0]["frames"], 2);
}

#[cfg(unix)]
#[test]
fn a_start_behind_the_end_of_a_pipe_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("a.mcap");
    mcap(&source, 0..3);
    let bytes = std::fs::read(source).unwrap();
    let pipe = directory.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let (to, out) = (pipe.clone(), tempfile::tempdir().unwrap());
    let writer = std::thread::spawn(move || std::fs::write(to, bytes));
    let paths = [&pipe, out.path()].map(|path| path.to_str().unwrap());
    let args = ["encode", paths[0], "-o", paths[1], "--start", "1000", "--encoder", "openh264"];
    let mut program = command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It does not wait for a second writer.
    until("it ends", || program.try_wait().unwrap().is_some());
    let (code, said) = told(&program.wait_with_output().unwrap());
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("no camera message was logged in the chosen part"), "{said}");
    writer.join().unwrap().unwrap();
}

#[cfg(unix)]
#[test]
fn recordings_come_through_named_pipes() {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("a.mcap");
    mcap(&source, 0..10);
    let bytes = std::fs::read(source).unwrap();
    let pipe = directory.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let write = |bytes: Vec<u8>| {
        let pipe = pipe.clone();
        // Opening waits for the reader.
        std::thread::spawn(move || drop(std::fs::write(pipe, bytes)))
    };
    let writer = write(bytes.clone());
    let converted = convert(&pipe, &[]).expect(0);
    assert_eq!(converted.video().numbers(), range(0..10));
    writer.join().unwrap();
    let writer = write(bytes);
    let (code, said) = run(["info", pipe.to_str().unwrap()]);
    assert!(code == 0 && said.contains("10 frames"), "{said}");
    writer.join().unwrap();
    let writer = write(b"\0\0\0\x18ftypisom and the rest".to_vec());
    let converted = convert(&pipe, &[]).expect(1);
    assert!(converted.said.contains("pipe"), "{}", converted.said);
    writer.join().unwrap();
    let out = directory.path().join("out");
    let (code, said) =
        run(["encode", pipe.to_str().unwrap(), "-o", out.to_str().unwrap(), "--resample", "10"]);
    assert!(code == 2 && said.contains("can be read once only"), "{said}");
}

#[test]
fn a_clock_that_is_set_back_between_parts() {
    // Each part has these frames, and the clock is set back by this much before a frame.
    for (set_at, by) in [(10, 100_000), (20, 100_000), (20, 875), (30, 100_000), (30, 2475)] {
        let directory = tempfile::tempdir().unwrap();
        let parts = [("x_0.mcap", 0..20), ("x_1.mcap", 20..40), ("x_2.mcap", 40..60)];
        for (name, numbers) in parts {
            let mut recording = Recording::create(directory.path().join(name));
            for n in numbers {
                let moment = EPOCH + n as i64 * 250 * MS;
                let log = moment - if n < set_at { 0 } else { by * MS };
                recording.write("/cam", Serialization::CdrLittle, moment, log, &small_jpeg(n));
            }
            recording.finish();
        }
        metadata(directory.path(), &["x_0.mcap", "x_1.mcap", "x_2.mcap"], "");
        let converted = convert(directory.path(), &[]);
        assert_eq!(numbers(&converted.path("cam.mp4")), range(0..60), "{set_at} {by}");
        assert!(converted.warns("the clock was set"), "{}", converted.report);
    }
}
