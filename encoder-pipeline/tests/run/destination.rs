//! A destination that is not a directory.

use std::sync::{Arc, Mutex};

use encoder_core::{EncoderType, Resolution};
use encoder_pipeline::{
    destination::Location,
    error::ErrorKind,
    mux::{AccessUnit, CallbackSink},
    progress::Silent,
    report::Report,
    run::Run,
    session::Session,
    source::Payload,
    timeline::FrameTimes,
};

use super::{
    encoder::{NAMING, config, picture},
    memory::{Fails, Kept, Memory, Message, Recording, Video, full},
};

const SMALL: Resolution = Resolution::new(16, 16);

/// Two cameras with ten pictures each; `/rear` begins after four of `/cam`.
fn two_cameras() -> Recording {
    let mut messages: Vec<_> = (0..10).map(|n| Message::at(n, SMALL)).collect();
    messages.extend((4..14).map(|n| Message { stream: 1, ..Message::at(n, SMALL) }));
    messages.sort_by_key(|message| message.ns);
    Recording { topics: &["/cam", "/rear"], messages, end: None }
}

fn run(fails: Fails) -> (Report, Kept) {
    let (destination, kept) = Memory::new(fails);
    let run = Run::new(destination, config(&[NAMING])).recording("memory").threads(2);
    let report = run.convert(&two_cameras().opened(), &Silent);
    let kept = std::mem::take(&mut *kept.lock().unwrap());
    assert_eq!(kept.open_sinks, 0, "{fails:?}");
    (report, kept)
}

#[test]
fn a_destination_in_memory_gets_the_videos_and_all_events() {
    let (report, kept) = run(Fails::Nowhere);
    assert_eq!((report.exit, kept.ended), (0, Some("finished")), "{report:?}");
    // Two streams and twenty messages.
    assert_eq!((kept.events, kept.warnings), (22, 0));
    assert_eq!(report.destination, Some(Location::Name("memory:".into())));
    assert_eq!(report.warnings, ["memory is small", "memory is volatile"]);
    for (output, (topic, first)) in report.outputs.iter().zip([("/cam", 0), ("/rear", 4)]) {
        let video = &kept.videos[&(topic.to_string(), 1)];
        let expected = Video {
            size: (16, 16),
            frames: (first..first + 10).collect(),
            ticks: (0..10).map(|n| n * 100_000_000).collect(),
            timescale: 1_000_000_000,
            duration: 1_000_000_000,
        };
        assert_eq!(*video, expected);
        assert_eq!(output.topic, topic);
        assert_eq!(output.video.file, Some(Location::Name(format!("memory:{topic}/1"))));
        assert_eq!((output.video.frames_in, output.video.frames_encoded), (10, 10));
    }
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["outputs"][0]["file"], "memory:/cam/1");
    assert_eq!(json["destination"], "memory:");
}

#[test]
fn a_destination_that_fails_leaves_nothing_half_made() {
    // The call that fails, the complete videos, and the errors of the run and of each output.
    type Row = (Fails, usize, Option<ErrorKind>, &'static [ErrorKind]);
    const FULL: ErrorKind = ErrorKind::DiskFull;
    let table: [Row; 7] = [
        (Fails::Begin, 0, Some(FULL), &[]),
        (Fails::Event, 0, Some(FULL), &[]),
        (Fails::Sink, 0, None, &[FULL, FULL]),
        (Fails::Refuse, 0, Some(ErrorKind::OutputRefused), &[]),
        (Fails::Write, 0, None, &[FULL, FULL]),
        (Fails::FinishVideo, 0, None, &[FULL, FULL]),
        (Fails::Finish, 2, Some(FULL), &[]),
    ];
    for (fails, videos, error, of_outputs) in table {
        let (report, kept) = run(fails);
        assert_eq!(report.exit, 1, "{fails:?}");
        assert_eq!(report.error.as_ref().map(|e| e.kind()), error, "{fails:?}: {report:?}");
        let kinds: Vec<_> =
            report.outputs.iter().filter_map(|o| Some(o.error.as_ref()?.kind())).collect();
        assert_eq!(kinds, of_outputs, "{fails:?}: {report:?}");
        assert_eq!(kept.videos.len(), videos, "{fails:?}");
        let ended = if fails == Fails::Finish { "finished" } else { "abandoned" };
        assert_eq!(kept.ended, Some(ended), "{fails:?}");
        assert_eq!(report.destination, None, "{fails:?}");
        for error in report.errors() {
            let text = error.to_string();
            assert!(text.contains("memory:a"), "{fails:?}: {text}");
            assert!(!text.contains(" -o"), "names no option of a program: {text}");
        }
    }
    assert!(full().to_string().starts_with("memory:a: "));
}

/// Access units of `count` pictures, a key frame every four.
fn access_units(count: u32) -> Vec<Vec<u8>> {
    let units = Arc::new(Mutex::new(Vec::new()));
    let sink = CallbackSink({
        let units = Arc::clone(&units);
        move |AccessUnit { chunk, .. }: AccessUnit| units.lock().unwrap().push(chunk.data)
    });
    let mut config = config(&[EncoderType::OPENH264]);
    config.settings.encoder.gop_size = 4;
    let mut session = Session::open(SMALL, &config, Box::new(sink)).unwrap();
    for n in 0..count {
        session.push(&picture(n, SMALL), FrameTimes::at(n.into())).unwrap();
    }
    session.finish().unwrap();
    std::mem::take(&mut *units.lock().unwrap())
}

/// A topic that is already H.264.
fn copied(units: Vec<Vec<u8>>) -> Recording {
    let message = |(n, unit): (i64, Vec<u8>)| {
        let payload = Ok(Payload::Video { format: "h264".into(), data: unit.into() });
        Message { stream: 0, ns: n * 100_000_000, stamp_offset: 7, payload }
    };
    Recording::new((0..).zip(units).map(message).collect())
}

#[test]
fn a_copied_topic_has_the_same_report_and_keeps_what_was_written() {
    // The first message comes before the first key frame.
    let mut units = access_units(6);
    units.insert(0, units[1].clone());
    for fails in [Fails::Nowhere, Fails::Write] {
        let (destination, kept) = Memory::new(fails);
        let run = Run::new(destination, config(&[NAMING]));
        let report = run.convert(&copied(units.clone()).opened(), &Silent);
        let kept = kept.lock().unwrap();
        assert_eq!((kept.copied, kept.open_sinks), (1, 0));
        let [output] = &report.outputs[..] else { panic!("{report:?}") };
        if fails == Fails::Write {
            assert_eq!(output.error.as_ref().map(|e| e.kind()), Some(ErrorKind::DiskFull));
            assert_eq!(output.partial, Some(Location::Name("memory:/cam.part".into())));
            assert_eq!(output.video.file, None);
            continue;
        }
        assert_eq!(report.exit, 3, "{report:?}");
        assert_eq!(kept.videos[&("/cam".to_string(), 1)].frames, (0..6).collect::<Vec<_>>());
        let video = &output.video;
        assert_eq!((video.encoder.as_str(), video.spans.len()), ("copy", 1));
        assert_eq!((video.frames_in, video.frames_encoded, video.frames_failed), (7, 6, 1));
        assert_eq!((video.first_ns, video.last_ns), (Some(100_000_007), Some(600_000_007)));
        let json = serde_json::to_value(output).unwrap();
        assert_eq!((&json["encoder"], &json["width"]), (&"copy".into(), &video.size.width.into()));
    }
}
