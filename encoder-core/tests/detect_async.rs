//! Detection without blocking, and its end when nobody waits for it any more.
#![allow(clippy::unwrap_used)]

use std::{
    future::Future,
    pin::pin,
    sync::{
        Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use encoder_core::{
    Backend, Cache, Caps, Detection, EncoderType, OpenRequest, ProbeResult, Refusal, RefusalKind,
    Settings, Waited, block_on, inventory,
};

/// Only a bound against hanging.
const PATIENCE: Duration = Duration::from_secs(60);

/// Works.
const GOOD: EncoderType = EncoderType::new("good");
/// With the option `wait` its probe waits for an hour, or for a stop.
const PATIENT: EncoderType = EncoderType::new("patient");
/// Has no probe of its own; with the option `wait` it opens as the probe of `PATIENT`.
const PLAIN: EncoderType = EncoderType::new("plain");

inventory::submit! {
    Backend::new(GOOD, |_| unreachable!("nothing is opened here"))
        .rank(|_| 1)
        .probe(|_, _| ProbeResult::Usable(Caps::new("good")))
}
inventory::submit! {
    Backend::new(PATIENT, |_| unreachable!("nothing is opened here"))
        .rank(|_| 2)
        .check_options(|_| Ok(()))
        .probe(|request, _| ProbeResult::Refused(wait(PATIENT, request)))
}
inventory::submit! {
    Backend::new(PLAIN, |request| Err(wait(PLAIN, request).into()))
        .rank(|_| 3)
        .check_options(|_| Ok(()))
}

/// What happens in the probes. The tests share it, so they run one at a time.
static EVENTS: Mutex<Option<Sender<Option<Waited>>>> = Mutex::new(None);
static TURN: Mutex<()> = Mutex::new(());

fn events() -> Receiver<Option<Waited>> {
    let (sender, receiver) = channel();
    *EVENTS.lock().unwrap() = Some(sender);
    receiver
}

fn wait(id: EncoderType, request: &OpenRequest<'_>) -> Refusal {
    if request.options.contains_key("wait") {
        let events = EVENTS.lock().unwrap().clone().unwrap();
        events.send(None).unwrap();
        let waited = request.waiter.unwrap().wait(Duration::from_secs(3600));
        // The test may have ended.
        let _ = events.send(Some(waited));
    }
    Refusal::new(id, RefusalKind::NoDevice, "no device", "none")
}

#[test]
fn it_finds_the_same_as_run() {
    let _turn = TURN.lock();
    let settings = Settings::default();
    let detection = Detection::new(&settings);
    let found = block_on(detection.run_async(), Some(PATIENCE)).unwrap().unwrap();
    let expected = detection.run().unwrap();
    let of = |found: &[encoder_core::Detected]| -> Vec<_> {
        found.iter().map(|it| (it.encoder, it.result.is_usable())).collect()
    };
    assert_eq!(of(&found), of(&expected));
    assert_eq!(of(&found), [(GOOD, true), (PATIENT, false), (PLAIN, false)]);
    // Errors of the settings arrive as they are.
    let mut wrong = Settings::default();
    wrong.backend.insert("good".into(), "key = 1".parse().unwrap());
    assert!(block_on(Detection::new(&wrong).run_async(), Some(PATIENCE)).unwrap().is_err());
}

#[test]
fn a_future_that_is_dropped_stops_the_probes_and_stores_nothing() {
    let _turn = TURN.lock();
    for waiting in [PATIENT, PLAIN] {
        let events = events();
        let mut settings = Settings::default();
        settings.backend.insert(waiting.to_string(), "wait = true".parse().unwrap());
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path());
        let begun = Instant::now();
        {
            let detection = Detection::new(&settings).cache(Some(cache));
            let mut running = pin!(detection.run_async());
            let poll = running.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(poll, Poll::Pending));
            assert_eq!(events.recv_timeout(PATIENCE).unwrap(), None);
        }
        assert_eq!(events.recv_timeout(PATIENCE).unwrap(), Some(Waited::Stopped));
        until_no_thread("detect");
        assert!(begun.elapsed() < PATIENCE);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{waiting}");
    }
}

#[test]
fn a_future_that_was_never_polled_starts_nothing() {
    let _turn = TURN.lock();
    let events = events();
    let mut settings = Settings::default();
    settings.backend.insert(PATIENT.to_string(), "wait = true".parse().unwrap());
    drop(Detection::new(&settings).run_async());
    assert!(events.try_recv().is_err());
}

/// In a process whose threads would need more memory than can be addressed.
#[cfg(unix)]
#[test]
fn a_detection_without_a_thread_is_an_error() {
    const CHILD: &str = "TEST_WITHOUT_THREADS";
    let name = "a_detection_without_a_thread_is_an_error";
    if std::env::var_os(CHILD).is_some() {
        let settings = Settings::default();
        let detection = Detection::new(&settings);
        let awaited = block_on(detection.run_async(), Some(PATIENCE)).unwrap();
        for found in [awaited, detection.run()] {
            let error = found.unwrap_err();
            assert!(matches!(error, encoder_core::ConfigError::Thread(_)), "{error:?}");
            assert!(error.to_string().starts_with("the system starts no thread: "), "{error}");
        }
        return;
    }
    // With one test thread, tests run on the main thread, whose stack is there already.
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--test-threads=1"])
        .envs([(CHILD, "1"), ("RUST_MIN_STACK", "1152921504606846976")])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{output:?}");
}

/// Waits until no thread of this process has the name.
fn until_no_thread(name: &str) {
    let is_named = |task: std::io::Result<std::fs::DirEntry>| {
        let comm = std::fs::read_to_string(task.ok()?.path().join("comm")).ok()?;
        Some(comm.trim_end() == name)
    };
    let end = Instant::now() + PATIENCE;
    while let Ok(mut tasks) = std::fs::read_dir("/proc/self/task")
        && tasks.any(|task| is_named(task) == Some(true))
    {
        assert!(Instant::now() < end, "{name}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
