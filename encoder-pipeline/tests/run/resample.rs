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
            let part = if times[0] < 0 { "no frame of this camera" } else { "its last picture is" };
            assert!(warnings.iter().any(|text| text.contains(part)), "{warnings:?}");
        }
    }
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
