//! Times that cannot be true are repaired and reported; constant rates of several cameras share a
//! grid.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use mcap::WriteOptions;

use crate::common::{
    EPOCH, MS, S,
    decode::{Video, decode, decode_fragmented},
    program::{Converted, convert},
    recording::{Content, Recording, Serialization, camera, cut_jpeg, small, small_jpeg},
};

const PERIOD: i64 = 50 * MS;

/// A camera at 20 fps, whose frame `n` has the header stamp and log time of `times`.
fn stamped(count: usize, times: impl Fn(i64) -> (i64, i64)) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let frame = |n: usize| {
        let (header, log) = times(n as i64);
        (header, log, small_jpeg(n))
    };
    let path = camera(directory.path(), &(0..count).map(frame).collect::<Vec<_>>());
    (directory, path)
}

/// The display times of a video in nanoseconds.
fn nanoseconds(video: &Video) -> Vec<i64> {
    let ns = |pts: &u64| u128::from(*pts) * 1_000_000_000 / u128::from(video.timescale);
    video.pts.iter().map(|pts| ns(pts) as i64).collect()
}

/// The display times of the only video in nanoseconds, after a check of its frames' order.
fn times(converted: &Converted, count: usize) -> Vec<i64> {
    let path = converted.path("cam.mp4");
    let is_fragmented = std::fs::read(&path).unwrap().windows(4).any(|word| word == b"moof");
    let video = if is_fragmented { decode_fragmented(&path) } else { decode(&path) };
    assert_eq!(video.numbers(), (0..count).map(Some).collect::<Vec<_>>(), "{}", converted.report);
    nanoseconds(&video)
}

#[test]
fn a_stamp_that_cannot_be_true_is_repaired_and_said() {
    type Fault = (fn(i64) -> i64, [&'static str; 2], i64);
    // The stamp of a frame, a part of the warning for each mode, and how many times are estimates.
    let table: [Fault; 4] = [
        (|n| if n == 0 { 36 * S } else { EPOCH + n * PERIOD }, ["at frame 1"; 2], 1),
        (|n| if n == 0 { 0 } else { EPOCH + n * PERIOD }, ["at frame 1"; 2], 1),
        (
            |n| if n == 7 { EPOCH - S } else { EPOCH + n * PERIOD },
            ["frame 7 has no usable stamp", "1 of 30 frames (7) have header stamps"],
            1,
        ),
        (
            |n| EPOCH + n * PERIOD + if n < 12 { 0 } else { 3600 * S },
            ["ahead by 3600.050 s", "from frame 12 on, all frames are 3600.0"],
            1,
        ),
    ];
    for (stamp, warnings, guessed) in table {
        let (_directory, path) = stamped(30, |n| (stamp(n), EPOCH + n * PERIOD + n % 3 * MS));
        for (mode, warning) in ["progressive", "fragmented"].into_iter().zip(warnings) {
            let converted = convert(&path, &["--output-mode", mode]).expect(3);
            for (n, ns) in times(&converted, 30).into_iter().enumerate() {
                let off = (ns - n as i64 * PERIOD).abs();
                assert!(off <= 3 * MS, "{warning}, {mode}: frame {n} is off by {off}");
            }
            assert_eq!(converted.count("times_guessed"), guessed, "{warning}, {mode}");
            assert!(converted.warns(warning), "{}", converted.report);
            let warnings = converted.output()["warnings"].as_array().unwrap();
            assert_eq!(warnings.len(), 1, "{}", converted.report);
        }
    }
}

#[test]
fn the_same_stamp_for_all_frames_gives_way_to_the_log_times() {
    let (_directory, path) = stamped(60, |n| (EPOCH - 5 * S, EPOCH + n * PERIOD));
    let converted = convert(&path, &[]).expect(0);
    assert_eq!(times(&converted, 60)[59], 59 * PERIOD);
    assert!(converted.warns("are the same: log times are used"), "{}", converted.report);
    let converted = convert(&path, &["--resample", "30"]).expect(0);
    assert_eq!(converted.count("frames_encoded"), 90);
    assert!(converted.warns("log times are used"), "{}", converted.report);
}

#[test]
fn simulated_time_counts() {
    for speed in [1, 4] {
        let (_directory, path) = stamped(20, |n| (n * PERIOD * speed / 2, EPOCH + n * PERIOD));
        let converted = convert(&path, &[]).expect(0);
        assert_eq!(times(&converted, 20)[19], 19 * PERIOD * speed / 2);
        assert_eq!(converted.output()["warnings"].as_array().unwrap().len(), 0);
    }
}

#[test]
fn a_clock_that_is_set_back_does_not_interleave_two_periods() {
    for by in [4975 * MS, 5000 * MS, 3600 * S] {
        let clock = |n: i64| EPOCH + n * PERIOD - if n < 120 { 0 } else { by };
        let (_directory, path) = stamped(200, |n| (clock(n), clock(n)));
        for args in [&[][..], &["--time", "log"], &["--output-mode", "fragmented"]] {
            let converted = convert(&path, args).expect(3);
            let distances: Vec<_> =
                times(&converted, 200).windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert!(distances.iter().all(|d| (d - PERIOD).abs() <= MS), "{by}: {distances:?}");
            assert!(converted.warns("step back by"), "{}", converted.report);
            assert!(converted.count("times_guessed") > 0);
        }
    }
}

#[test]
fn the_clock_that_is_set_back_is_that_of_all_cameras() {
    // A fast camera, and a slow one alone and beside it; in chunks and without them.
    for (topics, is_chunked) in [
        (&[("/slow", 1000)][..], true),
        (&[("/slow", 1000), ("/fast", 100)], true),
        (&[("/slow", 1000), ("/fast", 100)], false),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let options = WriteOptions::new().use_chunks(is_chunked).compression(None);
        let mut recording = Recording::with(directory.path().join("two.mcap"), options);
        for moment in (0..20_000).step_by(100) {
            for (topic, _) in topics.iter().filter(|(_, every)| moment % every == 0) {
                let log = EPOCH + (moment - if moment < 10_000 { 0 } else { 4450 }) * MS;
                let n = moment as usize / 100;
                let stamp = EPOCH + moment * MS;
                recording.write(topic, Serialization::CdrLittle, stamp, log, &small_jpeg(n));
            }
        }
        let converted = convert(&recording.finish(), &[]);
        assert!(converted.warns("step back by 3."), "{}", converted.report);
        for (topic, every) in topics {
            let shown = decode(&converted.path(&format!("{}.mp4", &topic[1..]))).numbers();
            let expected = (0..200).step_by(*every as usize / 100).map(Some);
            assert_eq!(shown, expected.collect::<Vec<_>>(), "{topic}: {}", converted.report);
        }
    }
}

#[test]
fn at_the_recorded_rate_no_frame_is_left_out() {
    let (_directory, path) = stamped(50, |n| (EPOCH + n * 33_333_333, EPOCH + n * 33_333_333));
    let converted = convert(&path, &["--resample", "30"]).expect(0);
    assert_eq!(times(&converted, 50).len(), 50);
    assert_eq!(converted.count("frames_left_out") + converted.count("frames_repeated"), 0);
}

#[test]
fn frame_n_of_all_cameras_is_the_same_moment() {
    let directory = tempfile::tempdir().unwrap();
    let mut recording = Recording::create(directory.path().join("two.mcap"));
    for n in 0..40 {
        for (topic, first) in [("/a", 0), ("/b", 5)] {
            if n >= first {
                let time = EPOCH + n as i64 * PERIOD;
                recording.write(topic, Serialization::CdrLittle, time, time, &small_jpeg(n));
            }
        }
    }
    let path = recording.finish();
    let shown = |converted: &Converted, file: &str| -> Vec<usize> {
        decode(&converted.path(file)).numbers().into_iter().flatten().collect()
    };
    let all: Vec<_> = (0..40).collect();
    let padded: Vec<_> = (0..40).map(|n| n.max(5)).collect();

    let converted = convert(&path, &["--resample", "20"]).expect(0);
    assert_eq!(shown(&converted, "a.mp4"), all);
    assert_eq!(shown(&converted, "b.mp4"), padded);
    assert!(converted.warns("begins 0.200 s before this camera"), "{}", converted.report);
    let grid = &converted.report["grid"];
    assert_eq!((&grid["scope"], &grid["ends"]), (&"recording".into(), &"pad".into()), "{grid}");
    assert_eq!(grid["cameras"][1]["padded_before"], 4, "{grid}");

    let converted = convert(&path, &["--resample", "20", "--grid-ends", "trim"]).expect(0);
    assert_eq!(shown(&converted, "a.mp4"), all[5..]);
    assert_eq!(shown(&converted, "b.mp4"), all[5..]);
    assert_eq!(converted.report["grid"]["cameras"][0]["trimmed"], 5);

    let converted = convert(&path, &["--resample", "20", "--grid", "camera"]).expect(0);
    assert_eq!(shown(&converted, "a.mp4"), all);
    assert_eq!(shown(&converted, "b.mp4"), all[5..]);
    assert!(converted.report["grid"]["ends"].is_null());
}

#[test]
fn a_broken_frame_that_is_skipped_moves_no_later_frame() {
    let directory = tempfile::tempdir().unwrap();
    let broken = || Content::compressed("jpeg", b"\xff\xd8\xffno picture".to_vec());
    let frames: Vec<_> = (0..12)
        .map(|n| {
            let time = EPOCH + n as i64 * PERIOD;
            let content = match n {
                0 => broken(),
                1 | 6 => cut_jpeg(n),
                _ => small_jpeg(n),
            };
            (time, time, content)
        })
        .collect();
    let path = camera(directory.path(), &frames);
    for (rate, at_six) in [("--fps", None), ("--resample", Some(5))] {
        let converted = convert(&path, &[rate, "20", "--on-bad-frame", "skip"]).expect(3);
        let video = converted.video();
        for (number, ns) in video.numbers().into_iter().zip(nanoseconds(&video)) {
            let frame = (ns + MS) / PERIOD;
            let expected = match frame {
                0..=1 => Some(2),
                6 => at_six,
                n => Some(n as usize),
            };
            assert_eq!(number, expected, "{rate}: frame {frame}");
        }
        assert_eq!(video.frames.len(), if at_six.is_some() { 12 } else { 11 }, "{rate}");
    }
}

#[test]
fn a_regular_stream_with_b_frames_has_no_gap() {
    let (_directory, path) = stamped(40, |n| (EPOCH + n * PERIOD, EPOCH + n * PERIOD));
    let converted = convert(&path, &["--b-frames", "4", "--encoder", "x264"]).expect(0);
    assert_eq!(times(&converted, 40)[39], 39 * PERIOD);
    assert_eq!(converted.output()["warnings"].as_array().unwrap().len(), 0);
}

/// Depth, which needs an option.
fn depth() -> Content {
    let (width, height) = (32, 32);
    let data = 2000u16.to_le_bytes().repeat(32 * 32);
    Content::Image { encoding: "16UC1".into(), width, height, step: 64, big: false, data }
}

#[test]
fn a_constant_rate_is_planned_for_what_is_converted() {
    // The options of a topic count.
    let directory = tempfile::tempdir().unwrap();
    let mut recording = Recording::create(directory.path().join("a.mcap"));
    for n in 0..12 {
        let time = EPOCH + n as i64 * PERIOD;
        recording.write("/cam", Serialization::CdrLittle, time, time, &small_jpeg(n));
        recording.write("/depth", Serialization::CdrLittle, time, time, &depth());
    }
    let path = recording.finish();
    let args = ["--resample", "10", "--depth-range", "/depth=500:4000"];
    let converted = convert(&path, &args).expect(0);
    for output in converted.outputs() {
        assert_eq!((&output["frames_encoded"], &output["frames_left_out"]), (&6.into(), &6.into()));
    }
    assert_eq!(converted.report["grid"]["cameras"].as_array().unwrap().len(), 2);

    // Of two publishers on one topic, the first is not converted.
    let mut recording = Recording::create(directory.path().join("b.mcap"));
    let channel = recording.topic("/cam", Serialization::CdrLittle, &small(0));
    for n in 0..12 {
        let time = EPOCH + n as i64 * PERIOD;
        let (frame_id, content) = if n % 2 == 0 { ("depth", depth()) } else { ("left", small(n)) };
        let message = content.message_from(frame_id, Serialization::CdrLittle, time);
        recording.bytes(channel, time, &message);
    }
    let converted = convert(&recording.finish(), &["--resample", "5"]).expect(3);
    assert_eq!(converted.video().numbers(), [Some(1), Some(5), Some(9)], "{}", converted.report);
    assert_eq!(converted.report["skipped_topics"][0]["reason_kind"], "unsupported");
}

#[test]
fn a_regular_source_with_a_rate_of_its_own_has_no_warning() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.y4m");
    let frame = [b"FRAME\n".to_vec(), vec![128; 32 * 32 * 3 / 2]].concat();
    std::fs::write(&path, [b"YUV4MPEG2 W32 H32 F20:1\n".to_vec(), frame.repeat(8)].concat())
        .unwrap();
    let converted = convert(&path, &["--resample", "10"]).expect(0);
    assert_eq!(converted.count("frames_encoded"), 4);
    assert_eq!(converted.output()["warnings"].as_array().unwrap().len(), 0, "{}", converted.report);
}

#[test]
fn the_warnings_of_a_fragmented_file_are_about_its_times() {
    // Numbers of frames in place of stamps, which show as that at the end only.
    let (_directory, path) = stamped(30, |n| (n, EPOCH + n * PERIOD));
    let converted = convert(&path, &[]).expect(0);
    assert!(converted.warns("log times are used"), "{}", converted.report);
    let converted = convert(&path, &["--output-mode", "fragmented"]).expect(3);
    assert!(!converted.warns("log times are used"), "{}", converted.report);
    assert!(converted.warns("has the header stamps nevertheless"), "{}", converted.report);
    assert_eq!(converted.count("times_guessed"), 30);
    // Without any stamp it has the log times.
    let (_directory, path) = stamped(30, |n| (0, EPOCH + n * PERIOD));
    let converted = convert(&path, &["--output-mode", "fragmented"]).expect(0);
    assert_eq!(times(&converted, 30)[29], 29 * PERIOD);
    assert!(converted.warns("are the same: log times are used"), "{}", converted.report);
}
