//! Pictures whose size changes repeatedly.

use std::collections::BTreeMap;

use encoder_core::{FrameRate, Resolution};
use encoder_pipeline::{
    destination::FileDestination,
    naming::Target,
    progress::{Progress, Silent},
    report::Report,
    run::Run,
    session::{OnBadFrame, StatsHandle},
    timeline::Timing,
};

use super::{
    encoder::{COUNTED, NAMING, config, most_open},
    memory::{Fails, Kept, Memory, Message, Recording, Video},
};

/// The `n`th size.
fn size(n: u32) -> Resolution {
    Resolution::new(16 + 2 * n, 16)
}

/// Pictures 0 to `count - 1`, with alternating sizes.
fn cycling(count: u32, sizes: u32) -> Recording {
    Recording::new((0..count).map(|n| Message::at(n, size(n % sizes))).collect())
}

fn convert(
    recording: Recording,
    session: encoder_pipeline::session::SessionConfig,
) -> (Report, Kept) {
    let (destination, kept) = Memory::new(Fails::Nowhere);
    let report = Run::new(destination, session).threads(2).convert(&recording.opened(), &Silent);
    let kept = std::mem::take(&mut *kept.lock().unwrap());
    (report, kept)
}

/// The videos by their number.
fn videos(kept: Kept) -> BTreeMap<usize, Video> {
    kept.videos.into_iter().map(|((_, number), video)| (number, video)).collect()
}

#[test]
fn two_sizes_that_take_turns_are_two_videos_with_right_times() {
    let rate: FrameRate = "30000/1001".parse().unwrap();
    for timing in [None, Some(rate)] {
        let mut session = config(&[NAMING]);
        session.timing = timing.map_or(session.timing, Timing::Rate);
        let (report, kept) = convert(cycling(600, 2), session);
        assert_eq!(report.exit, 0, "{report:?}");
        let videos = videos(kept);
        assert_eq!(videos.keys().copied().collect::<Vec<_>>(), [1, 2]);
        for (number, video) in videos {
            let parity = number as u32 - 1;
            assert_eq!(video.size, (size(parity).width, 16));
            assert_eq!(video.frames, (0..300).map(|n| 2 * n + parity).collect::<Vec<_>>());
            // Each frame at its time: frames of the other size leave their times empty.
            let step = if timing.is_some() { 1001 } else { 100_000_000 };
            assert_eq!(video.ticks, (0..300).map(|n| 2 * n * step).collect::<Vec<_>>());
            assert_eq!(video.timescale, if timing.is_some() { 30_000 } else { 1_000_000_000 });
        }
        let mut alternating = 0;
        for (output, first) in report.outputs.iter().zip(0..) {
            assert_eq!(output.part, first as usize + 1);
            assert_eq!((output.video.frames_in, output.video.frames_encoded), (300, 300));
            // The recorded times, also at a constant rate.
            assert_eq!(output.video.first_ns, Some(first * 100_000_000 + 7));
            let warnings = &output.video.warnings;
            assert!(warnings.len() < 15, "{warnings:?}");
            let all = warnings.join("\n");
            alternating += all.matches("as if the topic had several publishers").count();
            assert!(!all.contains("a new video begins"), "{all}");
        }
        assert_eq!(alternating, 1, "one warning for all changes");
    }
}

#[test]
fn a_size_that_comes_back_late_begins_a_new_video() {
    // A video is not ended by 99 frames of another size, but by 100.
    for (between, count) in [(99, 2), (100, 3)] {
        let sizes = (0..between + 20).map(|n| size(u32::from((10..10 + between).contains(&n))));
        let messages = (0..).zip(sizes).map(|(n, size)| Message::at(n, size)).collect();
        let (report, kept) = convert(Recording::new(messages), config(&[NAMING]));
        assert_eq!(report.exit, 0);
        assert_eq!(report.outputs.len(), count, "{between}");
        let mut frames: Vec<_> = videos(kept).into_values().flat_map(|v| v.frames).collect();
        frames.sort_unstable();
        assert_eq!(frames, (0..between + 20).collect::<Vec<_>>());
    }
}

#[test]
fn however_often_the_size_changes_few_encoders_are_open_and_the_report_is_short() {
    // Two sizes stay open. Of nine sizes none is still open when it returns, until there are 1000
    // videos. Then four of nine are.
    for (count, sizes, most, parts, lost) in [(600, 2, 2, 2, 0), (1100, 9, 6, 1000, 56)] {
        most_open();
        let (report, kept) = convert(cycling(count, sizes), config(&[COUNTED]));
        let most_open = most_open();
        assert!(most_open <= most, "{most_open} encoders at once");
        assert!(kept.most_open_sinks <= most, "{} sinks at once", kept.most_open_sinks);
        assert_eq!((report.outputs.len(), kept.videos.len()), (parts, parts));
        let mut frames: Vec<_> = kept.videos.into_values().flat_map(|v| v.frames).collect();
        frames.sort_unstable();
        assert_eq!(frames.len(), (count - lost) as usize);
        frames.dedup();
        assert_eq!(frames.len(), (count - lost) as usize, "each frame once");
        assert_eq!(report.exit, if lost > 0 { 3 } else { 0 });
        let failed: u64 = report.outputs.iter().map(|o| o.video.frames_failed).sum();
        let frames_in: u64 = report.outputs.iter().map(|o| o.video.frames_in).sum();
        assert_eq!((failed, frames_in), (lost.into(), count.into()));
        let warnings = report.outputs.iter().map(|o| o.video.warnings.len()).max();
        assert!(warnings < Some(25), "{warnings:?}");
        let all: Vec<_> = report.outputs.iter().flat_map(|o| &o.video.warnings).collect();
        let is_said = all.iter().any(|text| text.contains("no video is begun for it"));
        assert_eq!(is_said, lost > 0);
    }
}

#[test]
fn cameras_share_the_number_of_waiting_videos() {
    // Six cameras with four sizes each would be 18 waiting videos.
    let topics = &["/a", "/b", "/c", "/d", "/e", "/f"];
    let of = |stream: u32| {
        (0..40).map(move |n| Message { stream: stream as usize, ..Message::at(n, size(n % 4)) })
    };
    let mut messages: Vec<_> = (0..6).flat_map(of).collect();
    messages.sort_by_key(|message| message.ns);
    let recording = Recording { topics, messages, end: None };
    let (report, kept) = convert(recording, config(&[NAMING]));
    assert_eq!(report.exit, 0, "{report:?}");
    // One current video of each camera, 8 that are open but not current, 4 that are closing and one
    // that is added.
    assert!(kept.most_open_sinks <= 6 + 8 + 5, "{} sinks at once", kept.most_open_sinks);
    let mut frames: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for ((topic, _), video) in kept.videos {
        frames.entry(topic).or_default().extend(video.frames);
    }
    for (topic, mut frames) in frames {
        frames.sort_unstable();
        assert_eq!(frames, (0..40).collect::<Vec<_>>(), "{topic}");
    }
}

#[test]
fn a_frame_that_is_left_out_leaves_its_time_free_at_a_constant_rate() {
    let mut messages: Vec<_> = (0..6).map(|n| Message::at(n, size(0))).collect();
    messages[2].payload = Err("cut off".into());
    let mut session = config(&[NAMING]);
    session.timing = Timing::Rate("10".parse().unwrap());
    session.on_bad_frame = OnBadFrame::Skip;
    let (report, kept) = convert(Recording::new(messages), session);
    assert_eq!(report.exit, 3);
    let video = &videos(kept)[&1];
    assert_eq!(video.frames, [0, 1, 3, 4, 5]);
    let frames: Vec<_> = video.ticks.iter().map(|t| t * 10 / u64::from(video.timescale)).collect();
    assert_eq!(frames, [0, 1, 3, 4, 5]);
}

#[test]
fn of_many_broken_frames_before_the_first_good_one_the_last_are_shown() {
    let broken = |n| Message { payload: Err("no picture".into()), ..Message::at(n, size(0)) };
    let mut messages: Vec<_> = (0..12_000).map(broken).collect();
    messages.extend((12_000..12_003).map(|n| Message::at(n, size(0))));
    let (report, kept) = convert(Recording::new(messages), config(&[NAMING]));
    assert_eq!(report.exit, 3);
    let video = &videos(kept)[&1];
    assert_eq!(video.frames.len(), 10_003);
    assert_eq!(video.frames[..10_001], vec![12_000; 10_001]);
    assert_eq!(video.ticks[10_002], 10_002 * 100_000_000);
    let output = &report.outputs[0].video;
    assert_eq!((output.frames_in, output.frames_failed), (12_003, 12_000));
    assert_eq!(output.frames_encoded, 10_003);
    assert_eq!(output.frames_repeated, 10_000);
    let warnings = output.warnings.join("\n");
    assert!(warnings.contains("the first 2000 are left out"), "{warnings}");
}

/// Counts the videos that begin.
#[derive(Default)]
struct Begun(std::sync::atomic::AtomicUsize);

impl Progress for Begun {
    fn camera(&self, _: &str, _: Option<u64>, _: StatsHandle) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }
}

#[test]
fn a_late_second_camera_is_refused_and_complete_videos_stay() {
    // The first video is closed long before the second camera has a picture.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.mp4");
    let mut messages: Vec<_> = (0..300).map(|n| Message::at(n, size(u32::from(n > 3)))).collect();
    messages.push(Message { stream: 1, ..Message::at(300, size(0)) });
    let recording = Recording { topics: &["/cam", "/rear"], messages, end: None };
    let files = FileDestination::new(Target::of(&file));
    let session = config(&[encoder_core::EncoderType::OPENH264]);
    let begun = Begun::default();
    let report = Run::new(files, session).convert(&recording.opened(), &begun);
    assert_eq!(begun.0.into_inner(), 2);
    let error = report.error.as_ref().unwrap();
    assert_eq!(error.kind().as_str(), "output-refused", "{error}");
    assert!(error.to_string().contains("(/cam, /rear)"), "{error}");
    // Complete videos are reported, incomplete videos are removed.
    let [output] = &report.outputs[..] else { panic!("{report:?}") };
    assert_eq!((output.part, output.video.frames_encoded), (1, 4));
    assert_eq!(encoder_testbed::fixtures::entries(directory.path()), ["a.mp4"]);
}
