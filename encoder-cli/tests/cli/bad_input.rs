//! Recordings that are broken, odd or hostile: readable frames are converted, and losses are
//! reported.
#![allow(clippy::unwrap_used)]

use crate::common;

use std::path::Path;

use common::{
    EPOCH, MS,
    decode::{decode, decode_fragmented},
    entries,
    picture::Picture,
    program::{command, convert, run},
    recording::{Content, Recording, Serialization, camera, cut_jpeg, small, small_jpeg},
};

/// A JPEG whose size cannot be read.
fn no_jpeg() -> Content {
    Content::compressed("jpeg", b"\xff\xd8\xffthis is no picture".to_vec())
}

type Make = fn(usize) -> Content;

/// A camera at 25 fps with these contents.
fn recorded(directory: &Path, contents: Vec<Content>) -> std::path::PathBuf {
    let frames: Vec<_> = (0..)
        .zip(contents)
        .map(|(n, content)| (EPOCH + n * 40 * MS, EPOCH + n * 40 * MS, content))
        .collect();
    camera(directory, &frames)
}

/// `count` valid JPEGs, except at these numbers.
fn jpegs_but(count: usize, broken: &[(usize, Make)]) -> Vec<Content> {
    let content = |n: usize| match broken.iter().find(|(at, _)| *at == n) {
        Some((_, make)) => make(n),
        None => small_jpeg(n),
    };
    (0..count).map(content).collect()
}

#[test]
fn a_broken_frame_is_repeated_skipped_or_fatal() {
    let directory = tempfile::tempdir().unwrap();
    let contents = jpegs_but(8, &[(3, cut_jpeg), (4, |_| no_jpeg()), (6, cut_jpeg)]);
    let path = recorded(directory.path(), contents);

    let converted = convert(&path, &[]).expect(3);
    let video = converted.video();
    assert_eq!(video.numbers(), [0, 1, 2, 2, 2, 5, 5, 7].map(Some));
    assert_eq!(video.nanoseconds(), (0..8).map(|n| n * 40_000_000).collect::<Vec<_>>());
    assert_eq!(converted.count("frames_in"), 8);
    assert_eq!(converted.count("frames_encoded"), 8);
    assert_eq!(converted.count("frames_repeated"), 3);
    assert_eq!(converted.count("frames_failed"), 3);
    for n in [3, 4, 6] {
        assert!(converted.warns(&format!("frame {n}: ")), "{}", converted.report);
    }

    let converted = convert(&path, &["--on-bad-frame", "skip"]).expect(3);
    let video = converted.video();
    assert_eq!(video.numbers(), [0, 1, 2, 5, 7].map(Some));
    assert_eq!(video.nanoseconds(), [0, 40, 80, 200, 280].map(|ms| ms * 1_000_000));
    assert_eq!(converted.count("frames_encoded"), 5);
    assert_eq!(converted.count("frames_failed"), 3);

    let converted = convert(&path, &["--on-bad-frame", "fail"]).expect(1);
    assert!(converted.output()["file"].is_null());
    let error = converted.output()["error"].as_str().unwrap();
    assert!(error.contains("frame 3 cannot be decoded"), "{error}");
    assert!(converted.said.contains("/cam"), "{}", converted.said);
}

#[test]
fn broken_frames_at_the_start_show_the_first_whole_one() {
    let directory = tempfile::tempdir().unwrap();
    let contents = jpegs_but(5, &[(0, |_| no_jpeg()), (1, cut_jpeg)]);
    let path = recorded(directory.path(), contents);
    let converted = convert(&path, &[]).expect(3);
    assert_eq!(converted.video().numbers(), [2, 2, 2, 3, 4].map(Some));
    assert_eq!(converted.count("frames_repeated"), 2);
    assert_eq!(converted.output()["first_stamp_ns"], EPOCH);
    let converted = convert(&path, &["--on-bad-frame", "skip"]).expect(3);
    assert_eq!(converted.video().numbers(), [2, 3, 4].map(Some));
    assert_eq!(converted.output()["first_stamp_ns"], EPOCH + 80 * MS);
    convert(&path, &["--on-bad-frame", "fail"]).expect(1);
}

#[test]
fn nothing_but_broken_frames_is_a_failure_that_names_the_topic() {
    for (make, policy) in [
        (no_jpeg as fn() -> Content, "repeat"),
        (|| cut_jpeg(0), "repeat"),
        (|| cut_jpeg(0), "skip"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = recorded(directory.path(), (0..4).map(|_| make()).collect());
        let converted = convert(&path, &["--on-bad-frame", policy]).expect(1);
        assert_eq!(converted.files(), ["report.json"]);
        assert!(converted.report.to_string().contains("/cam"), "{}", converted.report);
        assert!(converted.said.contains("/cam"), "{}", converted.said);
        assert!(converted.said.contains("decoded"), "{}", converted.said);
    }
}

#[test]
fn a_message_that_ends_early_is_a_frame_that_is_lost_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let mut recording = Recording::create(directory.path().join("short.mcap"));
    let channel = recording.topic("/cam", Serialization::CdrLittle, &small(0));
    for n in 0..5 {
        let time = EPOCH + n as i64 * 40 * MS;
        match n {
            2 => recording.bytes(channel, time, &[0, 1, 0, 0, 9]),
            3 => recording.bytes(channel, time, b""),
            _ => recording.write("/cam", Serialization::CdrLittle, time, time, &small(n)),
        }
    }
    let converted = convert(&recording.finish(), &[]).expect(3);
    let video = converted.video();
    assert_eq!(video.numbers(), [0, 1, 1, 1, 4].map(Some));
    assert_eq!(converted.count("frames_failed"), 2);
}

#[test]
fn topics_that_cannot_be_shown_do_not_stop_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let mut recording = Recording::create(directory.path().join("mixed.mcap"));
    let odd = Content::Image {
        encoding: "hsv12".into(),
        width: 16,
        height: 16,
        step: 24,
        big: false,
        data: vec![0; 384],
    };
    // Depth: a hole, near, half, far.
    let (width, height) = (64u32, 48u32);
    let millimetres = |x: u32| [0u16, 500, 2250, 4000][(x / 16) as usize];
    let depth = |big: bool| {
        let value =
            |x| if big { millimetres(x).to_be_bytes() } else { millimetres(x).to_le_bytes() };
        Content::Image {
            encoding: "16UC1".into(),
            width,
            height,
            step: width * 2,
            big,
            data: (0..width * height).flat_map(|n| value(n % width)).collect(),
        }
    };
    let nothing = small(0);
    recording.topic("/empty", Serialization::CdrLittle, &nothing);
    recording.other("/joints", "sensor_msgs/msg/JointState", "cdr", "ros2msg");
    for n in 0..3 {
        let time = EPOCH + n as i64 * 40 * MS;
        recording.write("/odd", Serialization::CdrLittle, time, time, &odd);
        recording.write("/depth", Serialization::CdrLittle, time, time, &depth(false));
        recording.write("/depth_big", Serialization::CdrLittle, time, time, &depth(true));
        recording.write("/good", Serialization::CdrLittle, time, time, &small(n));
    }
    let path = recording.finish();

    let converted = convert(&path, &[]).expect(3);
    assert_eq!(converted.video().numbers(), [0, 1, 2].map(Some));
    let skipped = converted.report["skipped_topics"].as_array().unwrap().clone();
    let reason = |topic: &str| {
        let one = skipped.iter().find(|s| s["topic"] == topic).unwrap_or_else(|| panic!("{topic}"));
        (one["reason"].as_str().unwrap().to_string(), one["frames_in"].as_u64().unwrap())
    };
    assert!(reason("/odd").0.contains("hsv12"), "{skipped:?}");
    assert_eq!(reason("/odd").1, 3);
    assert!(reason("/depth").0.contains("--depth-range"), "{skipped:?}");
    assert_eq!(reason("/empty"), ("the topic has no messages".into(), 0));
    assert!(converted.said.contains("--depth-range"), "{}", converted.said);

    let converted =
        convert(&path, &["--depth-range", "500:4000", "--topic", "/depth*", "--crf", "10"]);
    let converted = converted.expect(0);
    for file in ["depth.mp4", "depth_big.mp4"] {
        let video = decode(&converted.path(file));
        let columns: Vec<f64> =
            (0..4).map(|n| video.frames[0].mean(n * 16 + 4..n * 16 + 12, 8..40)[1]).collect();
        for (got, wanted) in columns.iter().zip([0.0, 0.0, 127.5, 255.0]) {
            assert!((got - wanted).abs() < 4.0, "{file}: {columns:?}");
        }
    }
}

#[test]
fn each_size_is_a_video_and_nothing_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let sizes = [(160, 120), (160, 120), (160, 120), (256, 96), (256, 96), (160, 120), (160, 120)];
    let contents = (0..).zip(sizes);
    let contents = contents.map(|(n, (w, h))| Content::jpeg(&Picture::stamped(w, h, n)));
    let path = recorded(directory.path(), contents.collect());
    let expected =
        [("cam.mp4", (160, 120), vec![0, 1, 2, 5, 6]), ("cam_part2.mp4", (256, 96), vec![3, 4])];
    for (encoder, mode) in
        [("openh264", "progressive"), ("openh264", "fragmented"), ("x264", "progressive")]
    {
        let args = ["--encoder", encoder, "--output-mode", mode];
        let converted = convert(&path, &args).expect(0);
        assert_eq!(converted.outputs().len(), 2);
        for (output, (file, size, numbers)) in converted.outputs().into_iter().zip(&expected) {
            assert_eq!(output["file"], *file);
            assert_eq!(output["frames_in"], numbers.len());
            assert_eq!(output["first_stamp_ns"], EPOCH + numbers[0] as i64 * 40 * MS);
            let file = converted.path(file);
            let video = if mode == "fragmented" { decode_fragmented(&file) } else { decode(&file) };
            assert_eq!((video.width, video.height), *size);
            let times = numbers.iter().map(|n| (n - numbers[0]) as u64 * 40_000_000);
            let shown = video.pts.iter().map(|pts| pts * 1_000_000_000 / video.timescale);
            assert_eq!(shown.collect::<Vec<_>>(), times.collect::<Vec<_>>(), "{mode}");
            let numbers: Vec<_> = numbers.iter().copied().map(Some).collect();
            assert_eq!(video.numbers(), numbers, "{mode}");
        }
        assert!(converted.warns("change from 160x120 to 256x96, and back at frame 5"));
        assert!(!converted.warns("a new video begins"));
    }
}

/// Number of threads of a process, while it runs.
#[cfg(target_os = "linux")]
fn threads(child: &std::process::Child) -> usize {
    std::fs::read_dir(format!("/proc/{}/task", child.id())).map_or(0, Iterator::count)
}

#[cfg(target_os = "linux")]
#[test]
fn pictures_whose_sizes_take_turns_need_few_threads_and_files() {
    use std::process::Stdio;

    let directory = tempfile::tempdir().unwrap();
    let (pictures, out) = (directory.path().join("cam"), directory.path().join("out"));
    std::fs::create_dir(&pictures).unwrap();
    let width = |n: usize| if n.is_multiple_of(2) { 160 } else { 128 };
    for n in 0..600 {
        let png = Picture::stamped(width(n), 96, n).png();
        std::fs::write(pictures.join(format!("{n}.png")), png).unwrap();
    }
    let args = ["encode", pictures.to_str().unwrap(), "-o", out.to_str().unwrap()];
    let options = ["--fps", "10", "--encoder", "openh264", "--threads", "2", "--quiet"];
    let mut command = command([&args[..], &options].concat());
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let mut most = 0;
    let status = loop {
        most = most.max(threads(&child));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    };
    assert_eq!(status.code(), Some(0));
    assert!(most <= 12, "{most} threads");
    assert_eq!(entries(&out), ["cam.mp4", "cam_part2.mp4", "report.json"]);
    for (file, first) in [("cam.mp4", 0), ("cam_part2.mp4", 1)] {
        let video = decode(&out.join(file));
        assert_eq!(video.width, width(first));
        let numbers: Vec<_> = (first..600).step_by(2).map(Some).collect();
        assert_eq!(video.numbers(), numbers);
        // Frame N of the directory at exactly N/10 s, relative to the first of its video.
        let pts = (0..300).map(|n| n * 2 * video.timescale / 10);
        assert_eq!(video.pts, pts.collect::<Vec<_>>());
    }
}

#[test]
fn a_recording_that_breaks_off_gives_what_it_has() {
    let directory = tempfile::tempdir().unwrap();
    let path = recorded(directory.path(), (0..20).map(small).collect());
    let whole = std::fs::read(&path).unwrap();
    let cut = directory.path().join("cut.mcap");
    std::fs::write(&cut, &whole[..whole.len() * 6 / 10]).unwrap();
    let converted = convert(&cut, &[]).expect(3);
    let numbers = converted.video().numbers();
    let wanted: Vec<_> = (0..numbers.len()).map(Some).collect();
    assert_eq!(numbers, wanted);
    assert!((8..=12).contains(&numbers.len()), "{} frames of 12", numbers.len());
    assert_eq!(converted.report["warnings"].as_array().unwrap().len(), 1, "{}", converted.report);

    // One byte of a chunk is inverted: only its frames are missing. (Chunks have checksums.)
    let mut flipped = whole.clone();
    let at = whole.len() / 2;
    flipped[at] ^= 0xff;
    let broken = directory.path().join("broken.mcap");
    std::fs::write(&broken, flipped).unwrap();
    let converted = convert(&broken, &[]).expect(3);
    let numbers: Vec<_> = converted.video().numbers().into_iter().flatten().collect();
    assert!(numbers.contains(&0) && numbers.contains(&19), "{numbers:?}");
    assert!(numbers.windows(2).all(|w| w[0] <= w[1]), "{numbers:?}");
}

#[test]
fn what_is_no_recording_is_told_so() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, data: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, data).unwrap();
        path
    };
    let jpeg = Picture::stamped(160, 120, 0).jpeg420();
    let only_magic = b"\x89MCAP0\r\n";
    let nothing_inside = directory.path().join("nothing");
    std::fs::create_dir(&nothing_inside).unwrap();
    for (path, part) in [
        (file("text.mcap", b"hello, this is a text and no recording at all"), "text.mcap"),
        (file("magic.mcap", only_magic), "magic.mcap"),
        (file("empty", b""), "the file is empty"),
        (file("still.jpg", &jpeg), "give the directory"),
        (nothing_inside, "no pictures"),
        (directory.path().join("missing.mcap"), "missing.mcap"),
    ] {
        let converted = convert(&path, &[]).expect(1);
        assert!(converted.said.contains(part), "{part}: {}", converted.said);
        assert_eq!(converted.outputs().len(), 0);
    }
    // A directory that does not exist yet is created for the report.
    let (text, fresh) = (directory.path().join("text.mcap"), directory.path().join("fresh"));
    let (code, _) = run(["encode", text.to_str().unwrap(), "-o", fresh.to_str().unwrap()]);
    assert_eq!((code, entries(&fresh)), (1, vec!["report.json".to_owned()]));
}

#[test]
fn recordings_without_cameras_say_what_they_have() {
    let directory = tempfile::tempdir().unwrap();
    let mut recording = Recording::create(directory.path().join("joints.mcap"));
    let joints = recording.other("/joints", "sensor_msgs/msg/JointState", "cdr", "ros2msg");
    recording.bytes(joints, EPOCH, b"\0\x01\0\0");
    let path = recording.finish();
    let converted = convert(&path, &[]).expect(1);
    assert!(converted.said.contains("no camera topic"), "{}", converted.said);
    assert!(converted.said.contains("/joints [sensor_msgs/msg/JointState]"), "{}", converted.said);

    let directory = tempfile::tempdir().unwrap();
    let path = recorded(directory.path(), vec![small(0)]);
    let converted = convert(&path, &["--topic", "/front*"]).expect(1);
    assert!(converted.said.contains("/cam"), "names what there is: {}", converted.said);
}

#[test]
fn absurd_sizes_are_refused_by_a_limit() {
    let directory = tempfile::tempdir().unwrap();
    let claimed = |encoding: &str, data: Vec<u8>| Content::Image {
        encoding: encoding.into(),
        width: 60_000,
        height: 60_000,
        step: 0,
        big: false,
        data,
    };
    let mut png = Picture::stamped(160, 120, 0).png();
    // Width and height in the header, and its checksum.
    png[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
    let crc = crc32(&png[12..29]);
    png[29..33].copy_from_slice(&crc.to_be_bytes());
    for content in [claimed("mono8", vec![0; 1000]), Content::compressed("png", png)] {
        let path = recorded(directory.path(), vec![content.clone(), content]);
        let converted = convert(&path, &[]).expect(1);
        assert!(converted.said.contains("--max-pixels"), "{}", converted.said);
        // With the limit raised, the conversion fails because the picture's data is missing.
        let converted = convert(&path, &["--max-pixels", "4000000000"]).expect(1);
        assert!(!converted.said.contains("--max-pixels"), "{}", converted.said);
    }
    let path = recorded(directory.path(), (0..2).map(small).collect());
    let converted = convert(&path, &["--max-pixels", "19199"]).expect(1);
    assert!(converted.said.contains("--max-pixels"), "{}", converted.said);
    convert(&path, &["--max-pixels", "19200"]).expect(0);
    let converted = convert(&path, &["--max-message-bytes", "10000"]);
    assert_ne!(converted.code, 0, "{}", converted.said);
    assert!(converted.said.contains("--max-message-bytes"), "{}", converted.said);
    assert_eq!(entries(directory.path()), ["one.mcap"]);
}

/// The checksum of PNG chunks.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 }
        })
    };
    !bytes.iter().fold(u32::MAX, step)
}
