//! Every frame exactly once, in order, at its time.
#![allow(clippy::unwrap_used)]

use crate::common;

use std::path::PathBuf;

use common::{
    EPOCH, MS, S,
    program::{Converted, convert},
    recording::{Content, Recording, Serialization, camera, cut_jpeg, small, small_jpeg},
};

/// A recording of small pictures 0, 1, 2 … with these header stamps and log times.
fn stamped(times: &[(i64, i64)]) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let frames: Vec<_> =
        times.iter().enumerate().map(|(n, &(header, log))| (header, log, small(n))).collect();
    let path = camera(directory.path(), &frames);
    (directory, path)
}

/// Stamps like a camera's: about 50 ms apart, jittered, and logged up to 9 ms later.
fn jittered(count: usize) -> Vec<(i64, i64)> {
    (0..count as i64)
        .map(|n| {
            let jitter = (n * 7_919_993) % 6_000_011 - 3_000_000;
            let stamp = EPOCH + 123_456_789 + n * 50 * MS + jitter;
            (stamp, stamp + 2 * MS + (n * 1_234_567) % (7 * MS))
        })
        .collect()
}

fn all(count: usize) -> Vec<Option<usize>> {
    (0..count).map(Some).collect()
}

fn relative(stamps: impl Iterator<Item = i64>) -> Vec<u64> {
    let stamps: Vec<_> = stamps.collect();
    stamps.iter().map(|s| (s - stamps[0]) as u64).collect()
}

#[test]
fn header_stamps_are_kept_to_the_nanosecond() {
    // Frames 20 to 22 were dropped by the camera: the gap stays visible.
    let mut times = jittered(45);
    times.drain(20..23);
    let (_directory, path) = stamped(&times);
    for encoder in ["openh264", "x264"] {
        let converted = convert(&path, &["--encoder", encoder]).expect(0);
        let video = converted.video();
        assert_eq!(video.numbers(), all(42), "{encoder}");
        assert_eq!(video.nanoseconds(), relative(times.iter().map(|t| t.0)), "{encoder}");
        let gap = video.pts[20] - video.pts[19];
        assert!((190_000_000..210_000_000).contains(&gap), "the gap is {gap}");
        let output = converted.output();
        assert_eq!(output["first_stamp_ns"], times[0].0);
        assert_eq!(output["last_stamp_ns"], times[41].0);
        assert_eq!(output["warnings"].as_array().unwrap().len(), 0, "{output}");
    }
}

#[test]
fn log_times_when_they_are_asked_for() {
    let times = jittered(12);
    let (_directory, path) = stamped(&times);
    let converted = convert(&path, &["--time", "log"]).expect(0);
    assert_eq!(converted.video().nanoseconds(), relative(times.iter().map(|t| t.1)));
    assert_eq!(converted.output()["first_stamp_ns"], times[0].1);
}

#[test]
fn a_rate_puts_frame_n_at_exactly_n_over_the_rate() {
    let times = jittered(31);
    let (_directory, path) = stamped(&times);
    for (rate, num, den) in [("30", 30, 1), ("30000/1001", 30_000, 1001), ("29.97", 30_000, 1001)] {
        let converted = convert(&path, &["--fps", rate]).expect(0);
        let video = converted.video();
        assert_eq!(video.numbers(), all(31));
        for (n, &pts) in (0..).zip(&video.pts) {
            // pts / timescale == n / rate, without rounding.
            assert_eq!(pts * num, n * den * video.timescale, "frame {n} at {rate}");
        }
        let seconds = converted.output()["duration_s"].as_f64().unwrap();
        assert!((seconds - 31.0 * den as f64 / num as f64).abs() < 1e-9, "{seconds}");
        // The recorded times are still reported.
        assert_eq!(converted.output()["first_stamp_ns"], times[0].0);
    }
}

#[test]
fn a_constant_rate_is_made_of_the_nearest_frames() {
    // Checks the property, not the implementation: at each tick the nearest frame is displayed.
    let times = jittered(40);
    let (_directory, path) = stamped(&times);
    let stamps = relative(times.iter().map(|t| t.0));
    for (rate, period) in [("30", 1e9 / 30.0), ("12.5", 8e7)] {
        let converted = convert(&path, &["--resample", rate]).expect(0);
        let video = converted.video();
        // The last frame is displayed as long as a frame usually is: 50 ms.
        let ticks = ((stamps.last().unwrap() + 50_000_000) as f64 / period).round() as usize;
        assert_eq!(video.frames.len(), ticks, "at {rate}");
        for (n, number) in video.numbers().into_iter().enumerate() {
            let tick = n as f64 * period;
            let off = |stamp: u64| (stamp as f64 - tick).abs();
            let nearest = stamps.iter().map(|&s| off(s)).fold(f64::INFINITY, f64::min);
            let shown = off(stamps[number.expect("a number")]);
            assert!(shown <= nearest + 1.0, "tick {n} at {rate} shows {number:?}");
        }
        let mut shown: Vec<_> = video.numbers().into_iter().flatten().collect();
        shown.dedup();
        assert_eq!(converted.count("frames_left_out"), (40 - shown.len()) as i64);
        assert_eq!(converted.count("frames_repeated"), (ticks - shown.len()) as i64);
        assert_eq!(converted.count("frames_in"), 40);
    }
}

#[test]
fn a_constant_rate_survives_broken_frames_at_the_start() {
    // 10 fps to 30: each picture is displayed three times, including those that replace broken
    // frames.
    let directory = tempfile::tempdir().unwrap();
    let broken = || Content::compressed("jpeg", b"\xff\xd8\xffno picture".to_vec());
    let frames: Vec<_> = (0..6)
        .map(|n| {
            let time = EPOCH + n as i64 * 100 * MS;
            let content = match n {
                0 => broken(),
                1 => cut_jpeg(n),
                4 => broken(),
                _ => small_jpeg(n),
            };
            (time, time, content)
        })
        .collect();
    let path = camera(directory.path(), &frames);
    let converted = convert(&path, &["--resample", "30"]).expect(3);
    let shown: Vec<_> = converted.video().numbers().into_iter().flatten().collect();
    let expected = [vec![2; 8], vec![3; 6], vec![5; 4]].concat();
    assert_eq!(shown, expected, "18 ticks of 1/30 s");
    assert_eq!(converted.count("frames_failed"), 3);
}

#[test]
fn log_times_replace_stamps_that_are_missing() {
    let good: Vec<_> = (0..10).map(|n| (EPOCH + n * 40 * MS, EPOCH + n * 41 * MS)).collect();
    let none: Vec<_> = good.iter().map(|&(_, log)| (0, log)).collect();
    let half: Vec<_> =
        (0..).zip(&good).map(|(n, t)| (if n % 2 == 0 { 0 } else { t.0 }, t.1)).collect();
    for (times, warning) in [(none, "are the same"), (half, "cannot be true")] {
        let (_directory, path) = stamped(&times);
        let converted = convert(&path, &[]).expect(0);
        let video = converted.video();
        assert_eq!(video.numbers(), all(10));
        assert_eq!(video.nanoseconds(), relative(times.iter().map(|t| t.1)), "{warning}");
        assert!(converted.warns(warning), "{}", converted.report);
        assert!(converted.warns("log times are used"), "{}", converted.report);
    }
}

#[test]
fn frames_with_one_stamp_still_come_one_after_another() {
    let mut times: Vec<_> = (0..9).map(|n| (EPOCH + n * 40 * MS, EPOCH + n * 40 * MS)).collect();
    times[4] = times[3];
    times[5] = times[3];
    let (_directory, path) = stamped(&times);
    let converted = convert(&path, &[]).expect(0);
    let video = converted.video();
    assert_eq!(video.numbers(), all(9));
    assert!(video.pts.windows(2).all(|w| w[0] < w[1]), "{:?}", video.pts);
    assert_eq!(video.pts[6], 240_000_000, "later frames keep their times");
    assert!(converted.warns("2 frames have the time of the frame before"), "{}", converted.report);
}

#[test]
fn b_frames_do_not_touch_order_or_times() {
    let times = jittered(40);
    let (_directory, path) = stamped(&times);
    let args = ["--b-frames", "2", "--encoder", "x264", "--gop", "15", "--preset", "medium"];
    let converted = convert(&path, &args).expect(0);
    let video = converted.video();
    assert_eq!(video.numbers(), all(40));
    assert_eq!(video.nanoseconds(), relative(times.iter().map(|t| t.0)));
    let file = std::fs::read(converted.path("cam.mp4")).unwrap();
    assert!(common::mp4::find(&file, "moov/trak/mdia/minf/stbl/ctts").is_some(), "no B-frames");
    let converted = convert(&path, &[&args[..], &["--fps", "30000/1001"]].concat()).expect(0);
    let video = converted.video();
    assert_eq!(video.numbers(), all(40));
    assert!((0..).zip(&video.pts).all(|(n, p)| p * 30_000 == n * 1001 * video.timescale));
}

#[test]
fn long_gaps_are_kept() {
    let mut times: Vec<_> =
        (0..8).map(|n| (EPOCH + n * 40 * MS + 7, EPOCH + n * 40 * MS)).collect();
    for time in &mut times[4..] {
        *time = (time.0 + 40 * S, time.1 + 40 * S);
    }
    let (_directory, path) = stamped(&times);
    let converted = convert(&path, &[]).expect(0);
    let video = converted.video();
    assert_eq!(video.numbers(), all(8));
    // 40 s in nanoseconds exceed MP4's 32 bits: the timescale is coarser, and this is reported.
    assert!(video.timescale >= 1_000_000, "{}", video.timescale);
    assert!(converted.warns("a gap of 40.0 s"), "{}", converted.report);
    for (pts, stamp) in video.pts.iter().zip(relative(times.iter().map(|t| t.0))) {
        let nanoseconds = u128::from(*pts) * 1_000_000_000 / u128::from(video.timescale);
        assert!(nanoseconds.abs_diff(u128::from(stamp)) < 1000, "{nanoseconds} for {stamp}");
    }
}

#[test]
fn a_single_frame_is_a_video() {
    let (_directory, path) = stamped(&[(EPOCH, EPOCH)]);
    for encoder in ["openh264", "x264"] {
        let converted = convert(&path, &["--encoder", encoder]).expect(0);
        assert_eq!(converted.video().numbers(), all(1));
        assert!(converted.output()["duration_s"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn several_cameras_at_once_keep_their_frames_apart() {
    let directory = tempfile::tempdir().unwrap();
    let mut recording = Recording::create(directory.path().join("many.mcap"));
    let cameras = [("/front/image", 50), ("/rear/image", 33), ("/hand/image", 20)];
    let mut messages: Vec<_> = cameras
        .iter()
        .flat_map(|&(topic, period)| (0..30).map(move |n| (n * period * MS, topic, n)))
        .collect();
    messages.sort();
    for (time, topic, n) in messages {
        let code = n as usize + topic.len() * 100;
        recording.write(
            topic,
            Serialization::CdrLittle,
            EPOCH + time + 5,
            EPOCH + time,
            &small_jpeg(code),
        );
    }
    let path = recording.finish();
    for jobs in ["1", "4"] {
        let converted = convert(&path, &["--jobs", jobs]).expect(0);
        assert_eq!(converted.outputs().len(), 3);
        for (topic, period) in cameras {
            let file = format!("{}.mp4", topic[1..].replace('/', "_"));
            let video = common::decode::decode(&converted.path(&file));
            let wanted: Vec<_> = (0..30).map(|n| Some(n + topic.len() * 100)).collect();
            assert_eq!(video.numbers(), wanted, "{topic}");
            let wanted: Vec<_> = (0..30).map(|n| n * period as u64 * MS as u64).collect();
            assert_eq!(video.nanoseconds(), wanted, "{topic}");
        }
    }
    let converted = convert(&path, &["--topic", "/rear*", "--start", "0.2", "--end", "0.5"]);
    let converted: Converted = converted.expect(0);
    let wanted: Vec<_> = (7..16).map(|n| Some(n + 1100)).collect();
    assert_eq!(converted.video().numbers(), wanted);
}
