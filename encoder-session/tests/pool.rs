//! Sessions that share the bounds of a pool.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use common::{FAKE, Gate, Output, PATIENCE, SIZE, Written, at, config, picture, until};
use encoder_core::{Backend, EncoderType, OpenError, Plan, Waiter, backend, block_on, inventory};
use encoder_media::{Finished, Sink, SinkError, timeline::Timeline};
use encoder_session::{
    Pool, PoolError, PoolLimits, Session, SessionConfig, SessionError, SessionState,
};

/// Bytes that the backends of this test state for an encoder.
const ENCODER: u64 = 1_000_000;
/// Bytes of a slot.
const SLOT: u64 = common::SLOT as u64;

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
    // One byte less than three slots and an encoder.
    let (config, _pool) = limited(PoolLimits::new().with_memory(ENCODER + 3 * SLOT - 1));
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
        (ENCODER + 100 * SLOT, None, &[16]),
        (2 * ENCODER + 20 * SLOT, None, &[16, 4]),
        (2 * ENCODER + 20 * SLOT, Some(2), &[10, 10]),
        (3 * ENCODER + 11 * SLOT, Some(3), &[3, 4, 4]),
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
                (holder.ring_bytes, holder.encoder_bytes),
                (stats.ring_bytes as u64, ENCODER)
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
    let (config, pool) = limited(PoolLimits::new().with_memory(2 * ENCODER + 6 * SLOT));
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
