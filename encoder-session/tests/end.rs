//! The ways in which a session that accepts no more frames ends: by itself, at a deadline, by an
//! abort.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::SeqCst},
    time::Duration,
};

use encoder_core::{
    Backend, ConfigError, EncodeError, EncodedChunk, EncoderType, Frame, OpenError, PixelFormat,
    Plan, Resolution, VideoEncoder, block_on, inventory,
};
use encoder_session::{Closing, Session, SessionError, SessionState, VideoReport};
use support::{
    ENCODERS, Gate, Output, PATIENCE, SINKS, SIZE, Written, at, config, picture, session_threads,
    until,
};
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
        let error = Session::open(Resolution::new(width, height), &config(), sink).err();
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
        let mut config = config();
        config.plan = Plan::new(vec![encoder], vec![]);
        let sink = Output::boxed(&self.gate, &self.written, &self.part());
        Session::open(SIZE, &config, sink).unwrap()
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
        let closing = case.closing(support::FAKE);
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
    let closing = case.closing(support::FAKE);
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
        let mut session = case.open(support::FAKE);
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
    let closing = case.closing(support::FAKE).with_deadline(Duration::from_millis(20));
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
    let closing = case.closing(support::FAKE).with_deadline(PATIENCE);
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
    let closing = case.closing(support::FAKE);
    case.gate.until(2);
    closing.abort();
    drop(closing);
    let kept = case.kept();
    case.gate.allow(usize::MAX);
    until("the sink keeps its file", || kept.exists());
    case.end();
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

inventory::submit! { Backend::new(HANGS, |_| Ok(Box::new(Hangs))) }

struct Hangs;

impl VideoEncoder for Hangs {
    fn encode_frame(&mut self, frame: &Frame<'_>) -> Result<Option<EncodedChunk>, EncodeError> {
        gate().pass();
        let pts = frame.index;
        Ok(Some(EncodedChunk { data: vec![0], pts, dts: pts, keyframe: pts == 0 }))
    }
    fn flush(&mut self) -> Result<Vec<EncodedChunk>, EncodeError> {
        Ok(Vec::new())
    }
    fn encoder_type(&self) -> EncoderType {
        HANGS
    }
    fn description(&self) -> String {
        "a test".into()
    }
    fn pixel_format(&self) -> PixelFormat {
        PixelFormat::Yuv420p
    }
}
