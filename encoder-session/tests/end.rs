//! The ways in which a session that accepts no more frames ends: by itself, at a deadline, by an
//! abort.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::Ordering::SeqCst,
        mpsc::{Receiver, Sender, channel},
    },
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use common::{
    ENCODERS, FAKE, Fake, Gate, Output, PATIENCE, SINKS, SIZE, Written, at, config, picture,
    session_threads, unit, until,
};
use encoder_core::{
    Backend, ConfigError, EncoderType, OpenError, Resolution, Waiter, block_on, inventory,
};
use encoder_media::{AccessUnit, Finished, Location, Sink, SinkError, timeline::Timeline};
use encoder_session::{Closing, Panicked, Session, SessionError, SessionState, VideoReport};
use tempfile::TempDir;

/// The tests count the threads of the process, so they run one at a time.
static TURN: Mutex<()> = Mutex::new(());

#[test]
fn the_size_is_checked_before_it_is_used() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    for (width, height) in [(u32::MAX, 2), (2, u32::MAX), (u32::MAX, u32::MAX), (0, 2)] {
        let gate = Gate::open(0);
        let sink = Output::boxed(&gate, &Written::default(), &folder.path().join("a.part"));
        let error = Session::open(Resolution::new(width, height), &config(&[FAKE]), sink).err();
        let Some(SessionError::Open(OpenError::Config(ConfigError::Value { field, .. }))) = error
        else {
            panic!("{width}x{height}: {error:?}")
        };
        assert_eq!(field, "encoder.resolution");
    }
    assert_eq!((ENCODERS.load(SeqCst), SINKS.load(SeqCst)), (0, 0));
}

/// A session with a gate in front of its sink.
struct Case {
    folder: TempDir,
    gate: Arc<Gate>,
    written: Written,
    _turn: MutexGuard<'static, ()>,
}

impl Case {
    fn new(allowed: usize) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().unwrap();
        Self { folder, gate: Gate::open(allowed), written: Written::default(), _turn: turn }
    }

    fn part(&self) -> PathBuf {
        self.folder.path().join("a.part")
    }

    fn kept(&self) -> PathBuf {
        self.folder.path().join("a.kept")
    }

    fn open(&self, encoder: EncoderType) -> Session {
        let sink = Output::boxed(&self.gate, &self.written, &self.part());
        Session::open(SIZE, &config(&[encoder]), sink).unwrap()
    }

    /// A session with as many frames as its ring has slots.
    fn closing(&self, encoder: EncoderType) -> Closing {
        let mut session = self.open(encoder);
        (0..3).for_each(|n| session.push(&picture(1), at(n)).unwrap());
        session.close()
    }

    fn frames(&self) -> usize {
        self.written.lock().unwrap().len()
    }

    /// Waits until nothing of the session is left.
    fn end(self) {
        self.gate.allow(usize::MAX);
        until("threads end", || session_threads() == 0);
        until("encoders and sinks are dropped", || ENCODERS.load(SeqCst) + SINKS.load(SeqCst) == 0);
    }
}

/// The error, and the file that is kept.
#[track_caller]
fn kept(ended: Result<VideoReport, SessionError>) -> (SessionError, PathBuf) {
    match ended {
        Err(SessionError::Kept { error, part }) => (*error, part.path().unwrap().to_owned()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_ends_by_itself_within_its_deadline() {
    type End = fn(Closing) -> Result<VideoReport, SessionError>;
    let ends: [End; 4] = [
        Closing::join,
        |closing| closing.join_within(PATIENCE),
        |closing| block_on(closing.with_deadline(PATIENCE), None).unwrap(),
        |closing| closing.with_deadline(PATIENCE).with_deadline(PATIENCE).join(),
    ];
    for end in ends {
        let case = Case::new(0);
        let closing = case.closing(FAKE);
        case.gate.until(1);
        assert!(!closing.is_finished());
        assert_eq!(closing.stats().state, SessionState::Closing);
        let stats = closing.stats_handle();
        case.gate.allow(usize::MAX);
        until("it ends", || closing.is_finished());
        assert_eq!(stats.get().state, SessionState::Ended);
        assert_eq!(end(closing).unwrap().frames_encoded, 3);
        assert!(!case.kept().exists());
        case.end();
    }
}

#[test]
fn an_abort_keeps_what_was_written() {
    let case = Case::new(1);
    let closing = case.closing(FAKE);
    // The second access unit is inside a call of the sink, which is completed.
    case.gate.until(2);
    closing.abort();
    closing.abort();
    assert!(!closing.is_finished());
    case.gate.allow(usize::MAX);
    let (error, part) = kept(closing.join());
    assert!(matches!(error, SessionError::Aborted), "{error}");
    assert_eq!((part, case.frames()), (case.kept(), 2));
    assert!(case.kept().exists() && !case.part().exists());
    case.end();
}

#[test]
fn a_deadline_ends_a_session_that_waits() {
    let table: [fn(Closing) -> Result<VideoReport, SessionError>; 2] = [
        |closing| closing.join_within(Duration::from_millis(20)),
        |closing| block_on(closing.with_deadline(Duration::from_millis(20)), None).unwrap(),
    ];
    for end in table {
        let case = Case::new(usize::MAX);
        let mut session = case.open(FAKE);
        session.push(&picture(1), at(0)).unwrap();
        // Nobody fills this slot.
        let slot = session.reserve(at(1)).unwrap();
        until("frame 0 is written", || case.frames() == 1);
        let (error, part) = kept(end(session.close()));
        assert!(error.to_string().starts_with("the session did not end within 0.02 s"), "{error}");
        assert_eq!(part, case.kept());
        drop(slot);
        case.end();
    }
}

#[test]
fn a_deadline_does_not_wait_for_a_sink_that_hangs() {
    let case = Case::new(1);
    let closing = case.closing(FAKE).with_deadline(Duration::from_millis(20));
    let (error, part) = kept(block_on(closing, Some(PATIENCE)).unwrap());
    assert_eq!(
        error.to_string(),
        "the session did not end within 0.02 s, and does not return from a call of its encoder or \
         its sink"
    );
    // The sink cannot be asked, but its file is there.
    assert_eq!(part, case.part());
    assert!(part.exists());
    let kept = case.kept();
    case.gate.allow(usize::MAX);
    until("the sink abandons its file", || kept.exists());
    case.end();
}

#[test]
fn a_deadline_does_not_wait_for_an_encoder_that_hangs() {
    let case = Case::new(usize::MAX);
    let mut session = case.open(HANGS);
    session.push(&picture(1), at(0)).unwrap();
    session.push(&picture(1), at(1)).unwrap();
    until("frame 0 is written", || case.frames() == 1);
    let ended = session.close().join_within(Duration::from_millis(20));
    let (error, part) = kept(ended);
    assert!(matches!(error, SessionError::Deadline { is_stuck: true, .. }), "{error}");
    // The encoder is in the call, so the sink completes what it has.
    assert_eq!(part, case.kept());
    assert!(part.exists());
    gate().allow(usize::MAX);
    case.end();
}

#[test]
fn a_drop_discards_the_video_also_with_a_deadline() {
    let case = Case::new(1);
    let closing = case.closing(FAKE).with_deadline(PATIENCE);
    case.gate.until(2);
    drop(closing);
    let folder = case.folder.path().to_owned();
    case.gate.allow(usize::MAX);
    until("the file is removed", || files(&folder) == 0);
    case.end();
}

#[test]
fn an_abort_before_a_drop_keeps_what_was_written() {
    let case = Case::new(1);
    let closing = case.closing(FAKE);
    case.gate.until(2);
    closing.abort();
    drop(closing);
    let kept = case.kept();
    case.gate.allow(usize::MAX);
    until("the sink keeps its file", || kept.exists());
    case.end();
}

/// A sink whose last call waits until the test allows it, and then does what the test asks for.
struct Finishing {
    begun: Sender<()>,
    go: Mutex<Receiver<()>>,
    part: PathBuf,
    finish: fn(&Path) -> Result<Finished, SinkError>,
}

impl Finishing {
    fn boxed(part: PathBuf, finish: fn(&Path) -> Result<Finished, SinkError>) -> Completion {
        let ((begun, has_begun), (release, go)) = (channel(), channel());
        std::fs::write(&part, b"a video").unwrap();
        (Box::new(Self { begun, go: Mutex::new(go), part, finish }), has_begun, release)
    }
}

/// A sink, its message when it completes the video, and what lets it do so.
type Completion = (Box<dyn Sink>, Receiver<()>, Sender<()>);

impl Sink for Finishing {
    fn write(&mut self, _: AccessUnit) -> Result<(), SinkError> {
        Ok(())
    }
    fn finish(self: Box<Self>, _: &Timeline) -> Result<Finished, SinkError> {
        self.begun.send(()).unwrap();
        self.go.lock().unwrap().recv().unwrap();
        (self.finish)(&self.part)
    }
    fn part_file(&self) -> Option<&Path> {
        Some(&self.part)
    }
}

#[test]
fn an_abort_does_not_hide_how_the_video_was_completed() {
    type Check = fn(Result<VideoReport, SessionError>, &Path);
    let full = |part: &Path| {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        Err(SinkError::io(Location::from(part))(full).kept(Location::from(part)))
    };
    let cases: [(fn(&Path) -> Result<Finished, SinkError>, Check); 4] = [
        (|_| Ok(Finished::default()), |ended, _| assert_eq!(ended.unwrap().frames_encoded, 1)),
        (full, |ended, at| {
            let (error, part) = kept(ended);
            assert!(matches!(error, SessionError::Sink(SinkError::Io { .. })), "{error:?}");
            assert_eq!(part, at);
        }),
        (
            |_| Err(SinkError::other("the upload was refused")),
            |ended, _| {
                let error = ended.unwrap_err();
                assert!(matches!(error, SessionError::Sink(SinkError::Other(_))), "{error:?}");
            },
        ),
        (
            |_| panic!("the sink panics"),
            |ended, at| {
                let (error, part) = kept(ended);
                let place = Panicked::Sink;
                assert!(
                    matches!(error, SessionError::Panicked { place: p, .. } if p == place),
                    "{error:?}"
                );
                assert_eq!(part, at);
            },
        ),
    ];
    for (finish, check) in cases {
        for aborts in [false, true] {
            let case = Case::new(0);
            let (sink, begun, release) = Finishing::boxed(case.part(), finish);
            let mut session = Session::open(SIZE, &config(&[FAKE]), sink).unwrap();
            session.push(&picture(1), at(0)).unwrap();
            let closing = session.close();
            begun.recv_timeout(PATIENCE).unwrap();
            if aborts {
                closing.abort();
            }
            release.send(()).unwrap();
            check(closing.join(), &case.part());
            case.end();
        }
    }
}

#[test]
fn a_deadline_while_the_video_is_completed_names_no_file_that_will_move() {
    let table: [fn(Closing) -> Result<VideoReport, SessionError>; 2] = [
        |closing| closing.join_within(Duration::from_millis(20)),
        |closing| block_on(closing.with_deadline(Duration::from_millis(20)), None).unwrap(),
    ];
    for end in table {
        let case = Case::new(0);
        let (sink, begun, release) = Finishing::boxed(case.part(), |part| {
            std::fs::rename(part, part.with_extension("mp4")).unwrap();
            Ok(Finished::default())
        });
        let mut session = Session::open(SIZE, &config(&[FAKE]), sink).unwrap();
        session.push(&picture(1), at(0)).unwrap();
        let closing = session.close();
        let handle = closing.stats_handle();
        begun.recv_timeout(PATIENCE).unwrap();
        let error = end(closing).unwrap_err();
        assert!(
            matches!(error, SessionError::Deadline { is_stuck: true, is_completing: true, .. }),
            "{error:?}"
        );
        assert_eq!(
            error.to_string(),
            "the session did not end within 0.02 s; its sink is still completing the video"
        );
        assert_eq!(handle.get().state, SessionState::Closing);
        release.send(()).unwrap();
        until("the session ends", || handle.get().state == SessionState::Ended);
        assert!(case.part().with_extension("mp4").exists() && !case.part().exists());
        case.end();
    }
}

/// Keeps the thread `convert` inside the end of a span, until the test ends.
struct SlowConverter(Mutex<Option<Receiver<()>>>);

impl tracing::Subscriber for SlowConverter {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {
        if thread::current().name() == Some("convert")
            && let Some(gate) = self.0.lock().unwrap().take()
        {
            let _ = gate.recv();
        }
    }
}

#[test]
fn the_end_does_not_wait_for_the_thread_that_converts() {
    type End = fn(Closing) -> Result<VideoReport, SessionError>;
    let ends: [End; 5] = [
        Closing::join,
        |closing| closing.join_within(PATIENCE),
        |closing| block_on(closing, Some(PATIENCE)).unwrap(),
        |closing| block_on(closing.with_deadline(PATIENCE), Some(PATIENCE)).unwrap(),
        |mut closing| {
            // A wait that is cancelled, unless the result is there.
            block_on(&mut closing, Some(Duration::ZERO)).unwrap_or_else(|| {
                until("it ends", || closing.is_finished());
                match Pin::new(&mut closing).poll(&mut Context::from_waker(Waker::noop())) {
                    Poll::Ready(ended) => ended,
                    Poll::Pending => panic!("it is finished"),
                }
            })
        },
    ];
    for end in ends {
        let case = Case::new(usize::MAX);
        let (release, gate) = channel();
        let slow = tracing::Dispatch::new(SlowConverter(Mutex::new(Some(gate))));
        let mut session = tracing::dispatcher::with_default(&slow, || case.open(FAKE));
        block_on(session.push_async(&picture(1), at(0)), Some(PATIENCE)).unwrap().unwrap();
        let closing = session.close();
        until("it ends", || closing.stats().state == SessionState::Ended);
        let (ended, result) = channel();
        thread::spawn(move || {
            let _ = ended.send(end(closing));
        });
        assert_eq!(result.recv_timeout(PATIENCE).unwrap().unwrap().frames_encoded, 1);
        drop(release);
        case.end();
    }
}

#[test]
fn a_stop_of_the_waiter_leaves_encoders_of_this_process_alone() {
    for is_async in [false, true] {
        let case = Case::new(usize::MAX);
        let waiter = Waiter::new();
        let sink = Output::boxed(&case.gate, &case.written, &case.part());
        let config = config(&[FAKE]).with_waiter(waiter.clone());
        let mut session = Session::open(SIZE, &config, sink).unwrap();
        waiter.stop();
        for n in 0..6 {
            match is_async {
                true => {
                    block_on(session.push_async(&picture(1), at(n)), Some(PATIENCE))
                        .unwrap()
                        .unwrap();
                }
                false => session.push(&picture(1), at(n)).unwrap(),
            }
        }
        let report = session.finish().unwrap();
        assert_eq!((report.frames_encoded, report.frames_dropped), (6, 0), "{is_async}");
        case.end();
    }
}

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

const HANGS: EncoderType = EncoderType::new("hangs");

/// The gate of the encoder, which lets one frame through.
fn gate() -> &'static Arc<Gate> {
    static GATE: std::sync::OnceLock<Arc<Gate>> = std::sync::OnceLock::new();
    GATE.get_or_init(|| Gate::open(1))
}

inventory::submit! {
    Backend::new(HANGS, |_| {
        Ok(Box::new(Fake::encoding(HANGS, |frame| {
            gate().pass();
            Ok(Some(unit(frame)))
        })))
    })
}
