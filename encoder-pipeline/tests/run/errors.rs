//! Errors of a run: each has a type and a kind, and its text names the cause once.

use std::{
    error::Error,
    path::Path,
    sync::{Arc, Condvar, Mutex},
};

use encoder_core::{EncoderType, RateControl, Resolution};
use encoder_pipeline::{
    destination::{Destination, FileDestination, PartInfo},
    error::{ErrorKind, RunError},
    mux::{AccessUnit, CallbackSink, Finished, Sink, SinkError},
    naming::Target,
    progress::Silent,
    report::{Report, SkipReason},
    run::Run,
    session::{OnBadFrame, OnFull, SessionConfig, SessionError},
    source::{self, Event, Payload, Source, SourceError},
    stop::Stop,
};
use encoder_testbed::fixtures::{picture::Picture, recording};

use super::{
    encoder::{ABSENT, LOST, NAMING, config},
    memory::{Fails, Memory, Message, Recording},
};

const SMALL: Resolution = Resolution::new(16, 16);

fn frames(count: u32) -> Recording {
    Recording::new((0..count).map(|n| Message::at(n, SMALL)).collect())
}

type Open = Box<dyn Fn() -> Result<Box<dyn Source>, SourceError>>;

fn file(path: &Path) -> Open {
    let path = path.to_owned();
    Box::new(move || source::open(&path, &Default::default()))
}

fn run(open: &Open, session: SessionConfig, destination: impl Destination + 'static) -> Report {
    Run::new(destination, session).recording("a recording").threads(1).convert(open, &Silent)
}

fn memory() -> Memory {
    Memory::new(Fails::Nowhere).0
}

/// The only error of a report; checks its form.
fn only(report: &Report) -> &RunError {
    let errors: Vec<_> = report.errors().collect();
    let [error] = errors[..] else { panic!("{} errors: {report:?}", errors.len()) };
    let mut texts = Vec::new();
    let mut next: Option<&dyn Error> = Some(error);
    while let Some(error) = next {
        texts.push(error.to_string());
        next = error.source();
    }
    for (n, text) in texts.iter().enumerate() {
        assert!(!text.is_empty());
        assert!(texts[..n].iter().all(|outer| !outer.contains(text)), "twice: {texts:?}");
    }
    if let Some(io) = error.io_error() {
        assert_eq!(texts.join("\n").matches(&io.to_string()).count(), 1, "{texts:?}");
    }
    let text = &texts[0];
    assert!(!text.contains(" -o") && !text.contains(" --"), "names an option: {text}");
    // The same in JSON, for the run or the output.
    let json = serde_json::to_value(report).unwrap();
    let place = if report.error.is_some() { &json } else { &json["outputs"][0] };
    assert_eq!(place["error"], *text);
    assert_eq!(place["error_kind"], error.kind().as_str());
    assert_eq!(report.exit, 1);
    error
}

#[test]
fn each_error_has_its_kind_and_is_told_from_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("text.mcap"), "this is no recording").unwrap();
    let joints = {
        let mut recording = recording::Recording::create(path("joints.mcap"));
        let joints = recording.other("/joints", "sensor_msgs/msg/JointState", "cdr", "ros2msg");
        recording.bytes(joints, 0, b"\0\x01\0\0");
        recording.finish()
    };
    std::fs::write(path("taken.mp4"), "somebody's video").unwrap();
    let good = || -> Open { Box::new(frames(12).opened()) };
    let video = || -> Open {
        let payload = Ok(Payload::Video { format: "h265".into(), data: Default::default() });
        Box::new(
            Recording::new(vec![Message { stream: 0, ns: 0, stamp_offset: 7, payload }]).opened(),
        )
    };
    let broken = |payload: Result<Payload, String>, count: u32| -> Open {
        let mut all = frames(count);
        all.messages[0].payload = payload;
        Box::new(all.opened())
    };
    let with = |change: fn(&mut SessionConfig)| {
        let mut session = config(&[NAMING]);
        change(&mut session);
        session
    };

    let report = run(&file(&path("missing.mcap")), config(&[NAMING]), memory());
    let error = only(&report);
    assert_eq!(error.kind(), ErrorKind::Missing);
    assert!(matches!(error, RunError::Source(SourceError::Io { .. })));
    assert!(error.to_string().contains("missing.mcap"), "{error}");

    let report = run(&file(&path("text.mcap")), config(&[NAMING]), memory());
    assert_eq!(only(&report).kind(), ErrorKind::BrokenInput);

    let report = run(&file(&joints), config(&[NAMING]), memory());
    let error = only(&report);
    assert_eq!(error.kind(), ErrorKind::NoCamera);
    assert!(error.to_string().contains("/joints"), "{error}");

    let report = run(&video(), config(&[NAMING]), memory());
    let error = only(&report);
    assert_eq!(error.kind(), ErrorKind::NothingConverted);
    let RunError::NothingConverted { skipped, .. } = error else { panic!("{error:?}") };
    assert_eq!(skipped[0].reason, SkipReason::Codec { format: "h265".into() });
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["skipped_topics"][0]["reason_kind"], "codec");

    let mut gap = frames(2);
    gap.messages[1].ns = 100 * 3600 * 1_000_000_000;
    let rate = "30".parse().unwrap();
    let report =
        Run::new(memory(), config(&[NAMING])).resample(Some(rate)).convert(&gap.opened(), &Silent);
    let error = only(&report);
    assert_eq!(error.kind(), ErrorKind::RateGap);
    assert!(error.to_string().starts_with("/cam: the gap of 360000 s after frame 0"), "{error}");

    // The output.
    let files = |name: &str| FileDestination::new(Target::of(&path(name)));
    let openh264 = || config(&[EncoderType::OPENH264]);
    let report = run(&good(), openh264(), files("taken.mp4"));
    assert_eq!(only(&report).kind(), ErrorKind::OutputExists);
    assert!(matches!(report.outputs[0].error, Some(RunError::Session(SessionError::Sink(_)))));

    let report = run(&good(), openh264(), files("text.mcap/below"));
    assert_eq!(only(&report).kind(), ErrorKind::OutputIo);
    assert!(matches!(report.error, Some(RunError::Sink(SinkError::Io { .. }))));

    let report = run(&good(), config(&[NAMING]), Memory::new(Fails::Write).0);
    assert_eq!(only(&report).kind(), ErrorKind::DiskFull);

    // A stream that is not H.264: the container cannot store it.
    let report = run(&good(), config(&[NAMING]), files("stream.mp4"));
    assert_eq!(only(&report).kind(), ErrorKind::BadStream);

    // The encoder.
    let report = run(&good(), config(&[LOST]), memory());
    let error = only(&report);
    assert_eq!(error.kind(), ErrorKind::EncoderLost);
    assert!(error.to_string().contains("the device was unplugged"), "{error}");
    assert_eq!(report.outputs[0].video.file, None);

    let report = run(&good(), config(&[ABSENT]), memory());
    let error = only(&report);
    assert_eq!(error.kind(), ErrorKind::NoEncoder);
    assert!(error.to_string().contains("plug one in"), "{error}");
    let json = serde_json::to_value(&report).unwrap();
    assert!(json["outputs"][0]["encoder"].is_null(), "{json}");

    let report =
        run(&good(), with(|s| s.settings.encoder.rate_control = RateControl::Crf(99)), memory());
    assert_eq!(only(&report).kind(), ErrorKind::Config);

    let unreadable = || Err("no picture".to_string());
    let report = run(&broken(unreadable(), 1), config(&[NAMING]), memory());
    let error = only(&report);
    assert_eq!(error.kind(), ErrorKind::NothingConverted);
    assert!(error.to_string().contains("frame 0: no picture"), "{error}");

    let fail = |s: &mut SessionConfig| s.on_bad_frame = OnBadFrame::Fail;
    let mut late = frames(3);
    late.messages[1].payload = unreadable();
    let report = run(&(Box::new(late.opened()) as Open), with(fail), memory());
    assert_eq!(only(&report).kind(), ErrorKind::BadFrame);

    let mut jpeg = Picture::stamped(160, 120, 0).jpeg420();
    jpeg.truncate(jpeg.len() / 2);
    let jpeg = Ok(Payload::Compressed { format: "jpeg".into(), data: jpeg.into() });
    let report = run(&broken(jpeg, 1), config(&[NAMING]), memory());
    assert_eq!(only(&report).kind(), ErrorKind::NoPicture);

    let report = run(&good(), with(|s| s.on_full = OnFull::Error), Stuck::default());
    assert_eq!(only(&report).kind(), ErrorKind::TooSlow);
}

/// A destination whose sink accepts nothing before the tenth event: the ring has three slots, and
/// is full by then.
#[derive(Clone, Default)]
struct Stuck(Arc<(Mutex<usize>, Condvar)>);

impl Destination for Stuck {
    fn sink(&mut self, _: &PartInfo<'_>) -> Result<Box<dyn Sink>, SinkError> {
        let Self(gate) = self.clone();
        Ok(Box::new(CallbackSink(move |_: AccessUnit| {
            let (events, changed) = &*gate;
            drop(changed.wait_while(events.lock().unwrap(), |events| *events < 10).unwrap());
        })))
    }

    fn event(&mut self, _: &Event) -> Result<(), SinkError> {
        let (events, changed) = &*self.0;
        *events.lock().unwrap() += 1;
        changed.notify_all();
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Finished, SinkError> {
        Ok(Finished::default())
    }
}

/// Runs `work` on a thread with the file permissions of an unprivileged user.
#[cfg(target_os = "linux")]
fn without_privileges<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let thread = || {
        // SAFETY: the call receives a number, and changes the user for file access of this thread
        // only, which ends here.
        unsafe { libc::setfsuid(65534) };
        work()
    };
    std::thread::scope(|scope| scope.spawn(thread).join().unwrap())
}

#[cfg(target_os = "linux")]
#[test]
fn a_lack_of_permission_is_an_error_of_the_input_or_the_output() {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    let directory = tempfile::tempdir().unwrap();
    let allow = |path: &Path, mode| {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    };
    let input = directory.path().join("secret.mcap");
    std::fs::write(&input, "").unwrap();
    allow(&input, 0o000);
    let locked = directory.path().join("locked");
    std::fs::create_dir(&locked).unwrap();
    allow(&locked, 0o555);
    allow(directory.path(), 0o755);
    without_privileges(|| {
        let report = run(&file(&input), config(&[NAMING]), memory());
        assert_eq!(only(&report).kind(), ErrorKind::InputPermission);
        let open: Open = Box::new(frames(3).opened());
        // For all cameras, and for one.
        let below = FileDestination::new(Target::of(&locked.join("below")));
        let report = run(&open, config(&[NAMING]), below);
        assert_eq!(only(&report).kind(), ErrorKind::OutputPermission);
        assert!(report.outputs.is_empty());
        let report = run(&open, config(&[NAMING]), FileDestination::new(Target::of(&locked)));
        assert_eq!(only(&report).kind(), ErrorKind::OutputPermission);
        assert_eq!(report.outputs.len(), 1);
    });
}

#[test]
fn a_source_that_fails_later_ends_the_run_with_what_came_before() {
    let end = || SourceError::io(Path::new("drive.mcap"), std::io::ErrorKind::TimedOut.into());
    let recording = Recording { end: Some(end), ..frames(5) };
    let report = run(&(Box::new(recording.opened()) as Open), config(&[NAMING]), memory());
    assert_eq!((report.exit, report.errors().count()), (3, 0));
    assert_eq!(report.outputs[0].video.frames_encoded, 5);
    assert!(report.warnings[1].contains("what came before is kept"), "{report:?}");
}

#[test]
fn a_run_that_is_stopped_before_its_first_frame_is_an_error() {
    let good = frames(12).opened();
    for is_opened in [false, true] {
        let stop = Stop::new().unwrap();
        if !is_opened {
            stop.stop();
        }
        let open = || {
            assert!(is_opened, "a run that is stopped opens nothing");
            stop.stop();
            good()
        };
        let run = Run::new(memory(), config(&[NAMING])).recording("a recording");
        let report = run.stop(stop.clone()).convert(&open, &Silent);
        assert_eq!(only(&report).kind(), ErrorKind::Stopped);
        assert!(report.interrupted && report.outputs.is_empty(), "{report:?}");
    }
}
