//! A constant rate from recorded times: cameras that do not fit, and a recording that changes while
//! it is read.

use std::cell::Cell;

use encoder_core::Resolution;
use encoder_pipeline::{
    progress::Silent,
    rate::{GridEnds, GridScope},
    report::{Report, SkipReason},
    run::Run,
};

use super::{
    encoder::{NAMING, config},
    memory::{Fails, Kept, Memory, Message, Recording},
};

const SIZE: Resolution = Resolution::new(16, 16);

/// Converts to 20 frames per second. The recording is `first` while its times are read.
fn convert(first: Recording, second: Recording, ends: GridEnds) -> (Report, Kept) {
    let (destination, kept) = Memory::new(Fails::Nowhere);
    let (first, second, is_read) = (first.opened(), second.opened(), Cell::new(false));
    let open = || if is_read.replace(true) { second() } else { first() };
    let report = Run::new(destination, config(&[NAMING]))
        .resample(Some("20".parse().unwrap()))
        .grid(GridScope::Recording, ends)
        .threads(1)
        .convert(&open, &Silent);
    let kept = std::mem::take(&mut *kept.lock().unwrap());
    (report, kept)
}

/// The camera `/cam` with five pictures in half a second, and `/other` with the pictures at
/// these times.
fn with_other(times: &[i64]) -> Recording {
    let other = times.iter().map(|&ns| Message { stream: 1, ns, ..Message::at(7, SIZE) });
    let mut messages: Vec<_> = (0..5).map(|n| Message::at(n, SIZE)).chain(other).collect();
    messages.sort_by_key(|message| message.ns);
    Recording { topics: &["/cam", "/other"], messages, end: None }
}

fn shown(kept: &Kept, topic: &str) -> Vec<u32> {
    kept.videos.get(&(topic.into(), 1)).map_or(Vec::new(), |video| video.frames.clone())
}

const TWICE: [u32; 10] = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4];

#[test]
fn a_camera_that_does_not_fit_does_not_stop_the_others() {
    const DAY: i64 = 86_400_000_000_000;
    // Times of the other camera, the ends of the grid, and why the camera has no video.
    let table: [(&[i64], GridEnds, Option<&str>); 6] = [
        (&[-900 * DAY], GridEnds::Pad, Some("no-common-time")),
        (&[-900 * DAY], GridEnds::Trim, Some("no-common-time")),
        (&[0, 2 * DAY], GridEnds::Pad, Some("rate-gap")),
        (&[-DAY / 48], GridEnds::Pad, None),
        (&[-100_000], GridEnds::Trim, None),
        (&[0], GridEnds::Trim, None),
    ];
    for (times, ends, reason) in table {
        let (report, kept) = convert(with_other(times), with_other(times), ends);
        assert_eq!(shown(&kept, "/cam"), TWICE, "{times:?}: {report:?}");
        let found: Vec<_> =
            report.skipped_topics.iter().map(|t| (t.topic.as_str(), t.reason.kind())).collect();
        let expected: Vec<_> = reason.map(|kind| ("/other", kind)).into_iter().collect();
        assert_eq!((report.exit, found), (if reason.is_some() { 3 } else { 0 }, expected));
        if reason.is_none() {
            assert_eq!(shown(&kept, "/other"), [7; 10], "{times:?}");
            let warnings = &report.outputs[1].video.warnings;
            assert!(warnings[0].contains("has a single picture"), "{warnings:?}");
        }
    }
}

#[test]
fn cameras_on_different_clocks_are_aligned_by_their_log_times() {
    const SECOND: i64 = 1_000_000_000;
    // For each camera, which has 40 pictures in 4 s: log time and stamp of the picture at a time,
    // and the first tick of the common grid at which it is recorded. Part of the warning of the
    // second camera.
    type Camera = (fn(i64) -> i64, fn(i64) -> i64, usize);
    let table: [(Camera, Camera, Option<&str>); 6] = [
        // Clocks whose stamps have a time in common by chance, and some that have none.
        ((|t| t, |t| 9 * SECOND + t, 0), (|t| t, |t| 12 * SECOND + t, 0), Some("of /cam: for")),
        ((|t| t, |t| 9 * SECOND + t, 0), (|t| t, |t| SECOND + t, 0), Some("moved by 8.000 s")),
        ((|t| t, |t| t, 0), (|t| 2 * SECOND + t, |t| 4 * SECOND + t, 40), Some("by -2.000 s")),
        // Cameras with one clock: the second follows the first, and another has a high latency.
        (
            (|t| SECOND / 2 + t, |t| t, 0),
            (|t| 5 * SECOND + t, |t| 5 * SECOND + t, 100),
            Some("begins 4.950 s before this camera"),
        ),
        ((|t| t, |t| t, 0), (|t| SECOND + t, |t| t, 0), None),
        // Log times that are all the same show nothing about the clocks.
        (
            (|_| SECOND, |t| t, 0),
            (|_| SECOND, |t| 2 * SECOND + t, 40),
            Some("begins 1.950 s before this camera"),
        ),
    ];
    for (row, (first, second, warning)) in table.into_iter().enumerate() {
        let messages = |stream, (log, stamp, _): Camera| {
            (0..40).map(move |n| {
                let at = Message::at(n, SIZE);
                let ns = log(at.ns);
                Message { stream, ns, stamp_offset: stamp(at.ns) - ns, ..at }
            })
        };
        let mut messages: Vec<_> = messages(0, first).chain(messages(1, second)).collect();
        messages.sort_by_key(|message| message.ns);
        let recording =
            || Recording { topics: &["/cam", "/other"], messages: messages.clone(), end: None };
        let (report, kept) = convert(recording(), recording(), GridEnds::Pad);
        assert_eq!(report.exit, 0, "{row}: {report:?}");
        for (topic, (_, _, tick)) in [("/cam", first), ("/other", second)] {
            let shown = shown(&kept, topic);
            // Two ticks per picture.
            let next = shown.iter().position(|shown| *shown == 1);
            assert_eq!(next, Some(tick + 2), "{row} {topic}: {shown:?}");
        }
        let warnings = &report.outputs[1].video.warnings;
        assert_eq!(warnings.is_empty(), warning.is_none(), "{row}: {warnings:?}");
        let all = warnings.join(" ");
        assert!(all.contains(warning.unwrap_or_default()), "{row}: {warnings:?}");
    }
}

#[test]
fn a_single_picture_on_another_clock_is_shown_on_the_whole_grid() {
    let mut recording = with_other(&[0]);
    let single = recording.messages.iter_mut().find(|message| message.stream == 1).unwrap();
    single.stamp_offset = -7_200_000_000_000;
    let again = Recording { messages: recording.messages.clone(), ..with_other(&[]) };
    let (report, kept) = convert(recording, again, GridEnds::Pad);
    assert_eq!((report.exit, shown(&kept, "/cam")), (0, TWICE.to_vec()), "{report:?}");
    assert_eq!(shown(&kept, "/other"), [7; 10]);
    let warnings = &report.outputs[1].video.warnings;
    assert!(matches!(&warnings[..], [one] if one.contains("single picture")), "{warnings:?}");
}

#[test]
fn messages_that_appear_later_are_left_out_and_counted() {
    let frames = |count| Recording::new((0..count).map(|n| Message::at(n, SIZE)).collect());
    let (report, kept) = convert(frames(5), frames(8), GridEnds::Pad);
    assert_eq!((report.exit, shown(&kept, "/cam")), (3, TWICE.to_vec()), "{report:?}");
    let video = &report.outputs[0].video;
    assert_eq!((video.frames_in, video.frames_failed), (8, 3));
    assert!(video.warnings[0].contains("when the times of the recording were read"), "{video:?}");

    // No picture could be read in the first pass.
    let mut broken = frames(5);
    broken.messages.iter_mut().for_each(|message| message.payload = Err("broken".into()));
    let (report, _) = convert(broken, frames(5), GridEnds::Pad);
    assert_eq!(report.exit, 1, "{report:?}");
    assert_eq!(report.skipped_topics[0].reason, SkipReason::Unplanned);
}
