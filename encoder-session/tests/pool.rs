//! Sessions that share the bounds of a pool.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use common::{FAKE, Fake, Gate, Output, PATIENCE, SIZE, Written, at, config, picture, until};
use encoder_core::{
    Backend, EncodeError, EncodedChunk, EncoderType, FailureKind, Frame, OpenError, PixelFormat,
    Plan, VideoEncoder, Waiter, backend, block_on, inventory,
};
use encoder_media::{Finished, Sink, SinkError, timeline::Timeline};
use encoder_session::{
    OnBadFrame, Pool, PoolError, PoolLimits, Session, SessionConfig, SessionError, SessionState,
};

/// Bytes that the backends of this test state for an encoder.
const ENCODER: u64 = 1_000_000;
/// Bytes of a slot.
const SLOT: u64 = common::SLOT as u64;
/// A picture that is repeated in place of bad frames: 96 rows of 64 bytes, with padding.
const COPY: u64 = 96 * 64;
/// What a session counts beside its ring.
const BESIDE: u64 = ENCODER + COPY;

fn limited(limits: PoolLimits) -> (SessionConfig, Pool) {
    let pool = Pool::new(limits);
    (config(&[FAKE]).with_pool(pool.clone()), pool)
}

fn output(folder: &Path, name: &str) -> Box<dyn Sink> {
    Output::boxed(&Gate::open(usize::MAX), &Written::default(), &folder.join(name))
}

fn open(config: &SessionConfig, folder: &Path, name: &str) -> Result<Session, SessionError> {
    let config = config.clone().with_camera_label(name);
    Session::open(SIZE, &config, output(folder, name))
}

fn finish(mut session: Session) {
    session.push(&picture(1), at(0)).unwrap();
    assert_eq!(session.finish().unwrap().frames_encoded, 1);
}

#[track_caller]
fn pool_error(opened: Result<Session, SessionError>) -> PoolError {
    match opened {
        Err(SessionError::Pool(error)) => error,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it opened"),
    }
}

#[test]
fn a_full_pool_names_its_sessions_and_opens_when_one_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let (config, pool) = limited(PoolLimits::new().with_sessions(2));
    let front = open(&config, folder.path(), "front").unwrap();
    let rear = open(&config, folder.path(), "rear").unwrap();
    let error = pool_error(open(&config, folder.path(), "left"));
    let text = error.to_string();
    assert!(text.contains("free are 0 sessions; in use by front (64x48)"), "{text}");
    assert!(text.contains("rear (64x48)"), "{text}");
    // The sink of the session that did not open is dropped.
    assert!(!folder.path().join("left").exists());
    finish(front);
    finish(open(&config, folder.path(), "left").unwrap());
    finish(rear);
    assert!(pool.stats().holders.is_empty());
}

#[test]
fn a_pool_that_is_too_small_for_a_session_is_an_error_at_once() {
    let folder = tempfile::tempdir().unwrap();
    // One byte less than three slots, a copy and an encoder.
    let (config, _pool) = limited(PoolLimits::new().with_memory(BESIDE + 3 * SLOT - 1));
    let config = config.with_pool_wait(PATIENCE);
    let error = pool_error(open(&config, folder.path(), "a"));
    assert!(matches!(error, PoolError::TooSmall { .. }), "{error}");
    let opening = Session::open_async(SIZE, &config, output(folder.path(), "b"));
    let error = pool_error(block_on(opening, None).unwrap());
    assert!(error.to_string().contains("needs at least 1.0 MB (3 slots of 0.0 MB"), "{error}");
}

#[test]
fn a_ring_is_as_small_as_the_memory_asks_for() {
    let folder = tempfile::tempdir().unwrap();
    // memory | sessions | slots of the rings
    let table: [(u64, Option<usize>, &[usize]); 4] = [
        (BESIDE + 100 * SLOT, None, &[16]),
        (2 * BESIDE + 20 * SLOT, None, &[16, 4]),
        (2 * BESIDE + 20 * SLOT, Some(2), &[10, 10]),
        (3 * BESIDE + 11 * SLOT, Some(3), &[3, 4, 4]),
    ];
    for (memory, sessions, slots) in table {
        let mut limits = PoolLimits::new().with_memory(memory);
        limits.sessions = sessions;
        let (mut config, pool) = limited(limits);
        config.settings.gpu.enable_ring_buffer = true;
        config.settings.gpu.ring_buffer_size = 16;
        let names = ["front", "rear", "left"];
        let sessions: Vec<_> = names[..slots.len()]
            .iter()
            .map(|name| open(&config, folder.path(), name).unwrap())
            .collect();
        let got: Vec<_> = sessions.iter().map(|session| session.stats().ring_slots).collect();
        assert_eq!(got, slots);
        for (session, holder) in sessions.iter().zip(pool.stats().holders) {
            let stats = session.stats();
            assert_eq!(stats.ring_bytes as u64, stats.ring_slots as u64 * SLOT);
            assert_eq!(
                (holder.ring_bytes, holder.copied_bytes, holder.encoder_bytes),
                (stats.ring_bytes as u64, COPY, ENCODER)
            );
        }
        sessions.into_iter().for_each(finish);
        assert_eq!(pool.stats().free.memory, Some(memory));
    }
}

/// The threads for which encoders were opened.
static THREADS: Mutex<Vec<usize>> = Mutex::new(Vec::new());
const THREADED: EncoderType = EncoderType::new("threaded");
inventory::submit! {
    Backend::new(THREADED, |request| {
        THREADS.lock().unwrap().push(request.threads);
        (backend(FAKE).unwrap().open)(request)
    })
}

#[test]
fn encoder_threads_are_divided() {
    let folder = tempfile::tempdir().unwrap();
    let (mut config, pool) = limited(PoolLimits::new().with_threads(6).with_sessions(3));
    config.plan = Plan::new(vec![THREADED], vec![]);
    config.threads = 4;
    let sessions = ["a", "b", "c"].map(|name| open(&config, folder.path(), name).unwrap());
    assert_eq!(*THREADS.lock().unwrap(), [2, 2, 2]);
    assert_eq!(pool.stats().free.threads, Some(0));
    sessions.into_iter().for_each(finish);
    assert_eq!(pool.stats().free.threads, Some(6));
}

/// The example of the documentation: as many threads as sessions.
#[test]
fn each_session_with_a_software_encoder_needs_a_thread() {
    let folder = tempfile::tempdir().unwrap();
    // threads | sessions that open
    for (threads, expected) in [(16, 16), (8, 8)] {
        let limits = PoolLimits::new().with_memory(512_000_000).with_threads(threads);
        let (config, pool) = limited(limits.with_sessions(16));
        let open = |n: usize| open(&config, folder.path(), &n.to_string());
        let sessions: Vec<_> = (0..expected).map(|n| open(n).unwrap()).collect();
        let error = pool_error(open(expected)).to_string();
        assert!(error.contains("1 encoder thread; free are"), "{error}");
        assert_eq!(pool.stats().free.threads, Some(0));
        drop(sessions);
    }
}

/// An encoder with a device, which fails at its second frame.
const DEVICE: EncoderType = EncoderType::new("device");
/// The encoder after it, and the threads for which it was opened.
const AFTER: EncoderType = EncoderType::new("after");
static AFTER_THREADS: Mutex<Vec<usize>> = Mutex::new(Vec::new());

struct Device(Box<dyn VideoEncoder>);

impl VideoEncoder for Device {
    fn encode_frame(&mut self, frame: &Frame<'_>) -> Result<Option<EncodedChunk>, EncodeError> {
        if frame.index == 0 {
            return self.0.encode_frame(frame);
        }
        // Another encoder takes over at once.
        let (encoder, kind) = (DEVICE, FailureKind::WrongPicture);
        Err(EncodeError::Failed { encoder, index: frame.index, kind, message: "wrong".into() })
    }
    fn flush(&mut self) -> Result<Vec<EncodedChunk>, EncodeError> {
        self.0.flush()
    }
    fn encoder_type(&self) -> EncoderType {
        DEVICE
    }
    fn description(&self) -> String {
        "a test".into()
    }
    fn pixel_format(&self) -> PixelFormat {
        self.0.pixel_format()
    }
}

inventory::submit! {
    Backend::new(DEVICE, |_| Ok(Box::new(Device(Box::new(Fake::new(DEVICE)))))).hardware(true)
}
inventory::submit! {
    Backend::new(AFTER, |request| {
        AFTER_THREADS.lock().unwrap().push(request.threads);
        Ok(Box::new(Fake::new(AFTER)))
    })
}

#[test]
fn a_session_with_a_hardware_encoder_returns_its_threads() {
    let folder = tempfile::tempdir().unwrap();
    // plan | a copy for the encoder that takes over
    for (order, copies) in [(vec![DEVICE], 1), (vec![DEVICE, AFTER], 2)] {
        let (mut config, pool) = limited(PoolLimits::new().with_threads(2));
        config.threads = 2;
        config.plan = Plan::new(order, vec![]);
        let mut sessions: Vec<_> =
            (0..3).map(|n| open(&config, folder.path(), &n.to_string()).unwrap()).collect();
        let stats = pool.stats();
        assert_eq!(stats.free.threads, Some(2));
        let held: Vec<_> = stats.holders.iter().map(|it| (it.threads, it.copied_bytes)).collect();
        assert_eq!(held, [(0, copies * COPY); 3]);
        if copies == 2 {
            // The software encoder that takes over gets one thread.
            let mut session = sessions.remove(0);
            for n in 0..3 {
                session.push(&picture(1), at(n)).unwrap();
            }
            let report = session.finish().unwrap();
            assert_eq!((report.frames_encoded, report.failovers.len()), (3, 1));
            assert_eq!(*AFTER_THREADS.lock().unwrap(), [1]);
        }
    }
}

#[test]
fn copies_of_frames_are_counted_where_they_can_be_made() {
    let folder = tempfile::tempdir().unwrap();
    // what happens to bad frames | B-frames | frames
    let table = [
        (OnBadFrame::Repeat, 0, 1),
        (OnBadFrame::Skip, 0, 0),
        (OnBadFrame::Fail, 0, 0),
        // Of 8 frames that are held back and the next one, 5 may each repeat another picture.
        (OnBadFrame::Repeat, 3, 5),
    ];
    for (on_bad_frame, b_frames, frames) in table {
        let (config, pool) = limited(PoolLimits::new());
        let mut config = config.with_on_bad_frame(on_bad_frame);
        config.settings.encoder.b_frames = b_frames;
        let _session = open(&config, folder.path(), "a").unwrap();
        let copied = pool.stats().holders[0].copied_bytes;
        assert_eq!(copied, frames * COPY, "{on_bad_frame} {b_frames}");
    }
}

/// A sink that panics at its first access unit.
struct Panics(#[expect(dead_code, reason = "dropped with it")] Box<dyn Sink>);

impl Sink for Panics {
    fn write(&mut self, _: encoder_media::AccessUnit) -> Result<(), SinkError> {
        panic!("on purpose");
    }
    fn finish(self: Box<Self>, _: &Timeline) -> Result<Finished, SinkError> {
        Ok(Finished::default())
    }
}

#[test]
fn a_share_comes_back_however_a_session_ends() {
    let folder = tempfile::tempdir().unwrap();
    let (config, pool) = limited(PoolLimits::new().with_sessions(1));
    type End = fn(Session);
    let ends: [(&str, End); 6] = [
        ("finished", finish),
        ("dropped", drop),
        ("closed and dropped", |session| drop(session.close())),
        ("aborted", |session| {
            let closing = session.close();
            closing.abort();
            let _ = closing.join();
        }),
        ("dropped by a panic", |session| {
            let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
                let _session = session;
                panic!("on purpose");
            }));
            assert!(panicked.is_err());
        }),
        ("failed", |mut session| {
            session.reserve(at(0)).unwrap().unwrap();
            let error = session.finish().unwrap_err();
            assert!(matches!(error.cause(), SessionError::SlotDropped { number: 0 }), "{error}");
        }),
    ];
    for (how, end) in ends {
        end(open(&config, folder.path(), "a").unwrap());
        until(how, || pool.stats().holders.is_empty());
    }
    let sink = Box::new(Panics(output(folder.path(), "b")));
    let mut session = Session::open(SIZE, &config, sink).unwrap();
    session.push(&picture(1), at(0)).unwrap();
    assert!(session.finish().is_err());
    assert!(pool.stats().holders.is_empty());
    // No encoder opens.
    let mut none = config.clone();
    none.plan = Plan::new(vec![], vec![]);
    assert!(matches!(open(&none, folder.path(), "c"), Err(SessionError::Open(_))));
    assert!(pool.stats().holders.is_empty());
}

#[test]
fn a_slot_that_is_still_held_keeps_the_memory_of_its_ring() {
    let folder = tempfile::tempdir().unwrap();
    let (config, pool) = limited(PoolLimits::new().with_sessions(1));
    let mut session = open(&config, folder.path(), "a").unwrap();
    let slot = session.reserve(at(0)).unwrap().unwrap();
    let stats = session.stats_handle();
    drop(session);
    until("the session has ended", || stats.get().state == SessionState::Ended);
    assert_eq!(pool.stats().holders.len(), 1);
    drop(slot);
    assert!(pool.stats().holders.is_empty());
}

#[test]
fn open_waits_for_a_share_for_a_while() {
    let folder = tempfile::tempdir().unwrap();
    let (config, pool) = limited(PoolLimits::new().with_sessions(1));
    let first = open(&config, folder.path(), "a").unwrap();
    let short = config.clone().with_pool_wait(Duration::from_millis(5));
    let error = pool_error(open(&short, folder.path(), "b"));
    assert!(matches!(error, PoolError::Full { waiting: 0, .. }), "{error}");
    let long = config.clone().with_pool_wait(PATIENCE);
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| finish(open(&long, folder.path(), "c").unwrap()));
        until("it waits", || pool.stats().waiting == 1);
        finish(first);
        opening.join().unwrap();
    });
}

#[test]
fn a_stop_ends_the_wait_for_a_share() {
    let folder = tempfile::tempdir().unwrap();
    let (config, pool) = limited(PoolLimits::new().with_sessions(1));
    let first = open(&config, folder.path(), "a").unwrap();
    let waiter = Waiter::new();
    let config = config.with_waiter(waiter.clone()).with_pool_wait(PATIENCE);
    let opening = Session::open_async(SIZE, &config, output(folder.path(), "b"));
    std::thread::scope(|scope| {
        let blocking = scope.spawn(|| open(&config, folder.path(), "c").err().unwrap());
        // The future borrows nothing, so any thread may poll it.
        let awaiting = std::thread::spawn(|| block_on(opening, None).unwrap().err().unwrap());
        until("both wait", || pool.stats().waiting == 2);
        waiter.stop();
        for error in [blocking.join().unwrap(), awaiting.join().unwrap()] {
            assert!(matches!(error, SessionError::Open(OpenError::Stopped)), "{error}");
        }
    });
    assert_eq!(pool.stats().waiting, 0);
    drop(first);
}

#[test]
fn the_state_of_a_pool_and_its_errors_can_be_serialized() {
    let folder = tempfile::tempdir().unwrap();
    let (config, pool) = limited(PoolLimits::new().with_sessions(1));
    let _first = open(&config, folder.path(), "front").unwrap();
    let json = serde_json::to_value(pool.stats()).unwrap();
    assert_eq!(json["limits"]["sessions"], 1);
    assert!(json["limits"]["memory"].is_null());
    assert_eq!(
        (&json["holders"][0]["camera"], &json["holders"][0]["width"]),
        (&"front".into(), &64.into())
    );
}

/// Sessions that never run at the same time do not wait for each other: three threads with sixty
/// sessions and a pool for two.
#[test]
fn many_threads_share_a_pool() {
    let folder = tempfile::tempdir().unwrap();
    let (config, pool) = limited(PoolLimits::new().with_memory(2 * BESIDE + 6 * SLOT));
    let config = Arc::new(config.with_pool_wait(PATIENCE));
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (config, folder) = (&config, folder.path());
            scope.spawn(move || {
                for n in 0..20 {
                    finish(open(config, folder, &format!("{thread}-{n}")).unwrap());
                }
            });
        }
    });
    assert!(pool.stats().holders.is_empty());
    assert_eq!(config.plan.order, [FAKE]);
}
