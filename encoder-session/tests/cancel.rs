//! Thousands of cancelled futures: each video has exactly the frames whose push was Ok, in order,
//! and nothing is left. One test, because it counts the threads of the process.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::atomic::Ordering::SeqCst;

use common::{
    After, ENCODERS, FAKE, Gate, Output, Random, SINKS, SIZE, Written, at, config, picture,
    session_threads, shown, until,
};
use encoder_session::{Pool, PoolLimits, Session, SessionError, SessionState};
use tempfile::TempDir;

const TIMES: usize = 10_000;

#[test]
fn select_loops_that_cancel() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (name, cancel) in [
        ("pushes", cancelled_pushes as for<'a> fn(&'a _, &'a _)),
        ("opens", cancelled_opens),
        ("waits for a share", cancelled_waits_for_a_share),
        ("finishes", cancelled_finishes),
        ("videos", cancelled_videos),
    ] {
        cancel(&runtime, &folder);
        until(name, || SINKS.load(SeqCst) == 0);
        until(name, || ENCODERS.load(SeqCst) == 0);
        until(name, || session_threads() == 0);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{name}");
    }
}

/// Pushes that wait for a slot are cancelled, and so are reservations.
fn cancelled_pushes(runtime: &tokio::runtime::Runtime, folder: &TempDir) {
    let (gate, written) = (Gate::open(0), Written::default());
    let sink = Output::boxed(&gate, &written, &folder.path().join("pushes"));
    let report = runtime.block_on(async {
        let mut session = Session::open_async(SIZE, &config(&[FAKE]), sink).await.unwrap();
        let (mut pushed, mut cancelled, mut random) = (Vec::new(), 0, Random(1));
        for n in 0.. {
            let shade = n as u8;
            // A third of the frames fit, and are pushed if it takes long.
            let is_waited_for = n % 3 == 0;
            gate.allow(usize::from(is_waited_for));
            let patience = After(if is_waited_for { usize::MAX } else { random.below(4) });
            let payload = picture(shade);
            let is_reserved = n % 2 == 0;
            let push = async {
                if is_reserved {
                    let slot = session.reserve_async(at(n)).await.unwrap().unwrap();
                    // Another thread fills the slot.
                    let _ = std::thread::spawn(move || slot.fill(&payload)).join();
                } else {
                    session.push_async(&payload, at(n)).await.unwrap();
                }
            };
            tokio::select! {
                biased;
                () = push => pushed.push((n as i64 * 1_000_000, shown(shade))),
                () = patience => cancelled += 1,
            }
            if cancelled == TIMES {
                break;
            }
        }
        gate.allow(usize::MAX);
        let report = session.finish_async().await.unwrap();
        assert!(pushed.len() > TIMES / 4, "{}", pushed.len());
        assert_eq!(*written.lock().unwrap(), pushed);
        assert_eq!(
            (report.frames_in, report.frames_encoded),
            (pushed.len() as u64, pushed.len() as u64)
        );
        report
    });
    assert_eq!(report.frames_failed, 0);
}

/// Sessions that open are cancelled; those that opened are dropped or finished.
fn cancelled_opens(runtime: &tokio::runtime::Runtime, folder: &TempDir) {
    let (gate, mut random) = (Gate::open(usize::MAX), Random(2));
    let file = folder.path().join("opens");
    runtime.block_on(async {
        let mut cancelled = 0;
        for n in 0.. {
            let written = Written::default();
            let file = file.with_extension(n.to_string());
            let sink = Output::boxed(&gate, &written, &file);
            let patience = After(random.below(20));
            tokio::select! {
                biased;
                session = Session::open_async(SIZE, &config(&[FAKE]), sink) => {
                    let mut session = session.unwrap();
                    session.push_async(&picture(9), at(0)).await.unwrap();
                    if n % 2 == 0 {
                        session.finish_async().await.unwrap();
                        assert_eq!(*written.lock().unwrap(), [(0, shown(9))]);
                    }
                }
                () = patience => cancelled += 1,
            }
            // Threads that have not ended yet are not many.
            if n % 100 == 0 {
                until("cancelled opens end", || session_threads() < 50);
            }
            if cancelled == TIMES {
                break;
            }
        }
    });
}

/// Sessions that wait for a share of a pool are cancelled.
fn cancelled_waits_for_a_share(runtime: &tokio::runtime::Runtime, folder: &TempDir) {
    let pool = Pool::new(PoolLimits::new().with_sessions(1));
    let config = config(&[FAKE]).with_pool(pool.clone());
    let (gate, mut random) = (Gate::open(usize::MAX), Random(3));
    let output =
        |n: usize| Output::boxed(&gate, &Written::default(), &folder.path().join(n.to_string()));
    runtime.block_on(async {
        let first = Session::open_async(SIZE, &config, output(0)).await.unwrap();
        for n in 1..=TIMES {
            tokio::select! {
                biased;
                _ = Session::open_async(SIZE, &config, output(n)) => panic!("the pool is full"),
                () = After(random.below(4)) => {}
            }
        }
        assert_eq!((pool.stats().waiting, pool.stats().holders.len()), (0, 1));
        drop(first);
        // The share comes back with the end of the session's thread.
        drop(Session::open_async(SIZE, &config, output(0)).await.unwrap());
    });
    until("the share comes back", || pool.stats().holders.is_empty());
}

/// Waits for the end of a session are cancelled; the session is not.
fn cancelled_finishes(runtime: &tokio::runtime::Runtime, folder: &TempDir) {
    let (gate, written, mut random) = (Gate::open(0), Written::default(), Random(4));
    let sink = Output::boxed(&gate, &written, &folder.path().join("finishes"));
    runtime.block_on(async {
        let mut session = Session::open_async(SIZE, &config(&[FAKE]), sink).await.unwrap();
        for n in 0..3 {
            session.push_async(&picture(n), at(n)).await.unwrap();
        }
        let mut closing = session.close();
        for _ in 0..TIMES {
            tokio::select! {
                biased;
                ended = &mut closing => panic!("{ended:?}"),
                () = After(random.below(4)) => {}
            }
        }
        assert!(!closing.is_finished());
        assert_eq!(closing.stats().state, SessionState::Closing);
        gate.allow(usize::MAX);
        let stats = closing.stats_handle();
        assert_eq!((&mut closing).await.unwrap().frames_encoded, 3);
        assert_eq!(stats.get().state, SessionState::Ended);
        assert!(closing.is_finished());
        // It was awaited already.
        assert!(matches!(closing.await, Err(SessionError::Ended)));
    });
    let expected: Vec<_> = (0..3).map(|n| (i64::from(n) * 1_000_000, shown(n))).collect();
    assert_eq!(*written.lock().unwrap(), expected);
}

/// `finish_async` takes the session: cancelling it discards the video.
fn cancelled_videos(runtime: &tokio::runtime::Runtime, folder: &TempDir) {
    let mut random = Random(5);
    runtime.block_on(async {
        for n in 0..TIMES / 10 {
            let (gate, written) = (Gate::open(0), Written::default());
            let sink = Output::boxed(&gate, &written, &folder.path().join(n.to_string()));
            let mut session = Session::open_async(SIZE, &config(&[FAKE]), sink).await.unwrap();
            session.push_async(&picture(1), at(0)).await.unwrap();
            tokio::select! {
                biased;
                ended = session.finish_async() => panic!("{ended:?}"),
                () = After(random.below(4)) => {}
            }
            // Its thread may be inside a call of the sink.
            gate.allow(usize::MAX);
        }
    });
}
