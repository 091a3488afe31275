//! The load of the devices that sessions run on.
//!
//! A driver that hangs must not block a session, so a thread queries it. All sessions of a backend
//! share this thread: a driver that hangs blocks only the shared thread, however many sessions are
//! opened and closed. The thread ends when the last session of the backend ends.

use std::{
    collections::{BTreeMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use ::metrics::{Gauge, Label, gauge};
use encoder_core::{DeviceLoad, EncoderType, LoadProbe};

use super::{GPU_UTILIZATION, labels};

/// How often the load of a device is queried.
const INTERVAL: Duration = Duration::from_secs(1);

/// The devices of one session.
pub(super) struct Devices {
    encoder: EncoderType,
    source: Option<Source>,
    /// When the last query was made.
    queried: Option<Instant>,
    /// The engines that have been reported.
    engines: Vec<Engine>,
}

/// The source of a session's load values.
struct Source {
    probe: LoadProbe,
    user: User,
    /// The receiver for the result of the pending query.
    result: Option<Receiver<Vec<DeviceLoad>>>,
}

impl Devices {
    pub fn new(encoder: EncoderType, probe: Option<LoadProbe>) -> Self {
        Self::with_thread(encoder, probe, || LoadThread::of(encoder))
    }

    fn with_thread(
        encoder: EncoderType,
        probe: Option<LoadProbe>,
        thread: impl FnOnce() -> LoadThread,
    ) -> Self {
        let source = probe.map(|probe| Source { probe, user: thread().join(), result: None });
        Self { encoder, source, queried: None, engines: Vec::new() }
    }

    /// Emits the result of a completed query, and sends the next query when it is due.
    pub fn tick(&mut self, now: Instant) {
        let Some(source) = &mut self.source else { return };
        if let Some(result) = &source.result {
            match result.try_recv() {
                Err(TryRecvError::Empty) => return,
                Ok(loads) if !loads.is_empty() => {
                    source.result = None;
                    self.emit(&loads);
                }
                // The driver reports no load, or the query panicked; the next query would do the
                // same.
                _ => {
                    (self.source, self.engines) = (None, Vec::new());
                    return;
                }
            }
        }
        let Some(source) = &mut self.source else { return };
        if self.queried.is_some_and(|last| now.saturating_duration_since(last) < INTERVAL) {
            return;
        }
        self.queried = Some(now);
        source.result = source.user.query(&source.probe);
    }

    fn emit(&mut self, loads: &[DeviceLoad]) {
        for load in loads {
            let key = (self.encoder, load.device.clone(), load.engine);
            let engine = match self.engines.iter().position(|engine| engine.key == key) {
                Some(index) => &self.engines[index],
                None => {
                    self.engines.push(Engine::new(key));
                    &self.engines[self.engines.len() - 1]
                }
            };
            engine.gauge.set(load.ratio);
        }
    }
}

/// The thread that queries the driver of a backend. It runs while it has users.
#[derive(Clone, Default)]
struct LoadThread(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Notified when a query is queued or a user leaves.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// At most one query per user.
    queries: VecDeque<Query>,
    users: usize,
    next_user: u64,
    is_running: bool,
}

struct Query {
    user: u64,
    probe: LoadProbe,
    result: SyncSender<Vec<DeviceLoad>>,
}

impl LoadThread {
    /// The thread of a backend.
    fn of(encoder: EncoderType) -> Self {
        static ALL: Mutex<BTreeMap<EncoderType, LoadThread>> = Mutex::new(BTreeMap::new());
        ALL.lock().unwrap_or_else(PoisonError::into_inner).entry(encoder).or_default().clone()
    }

    /// Adds a user.
    fn join(self) -> User {
        let mut state = self.0.lock();
        state.users += 1;
        state.next_user += 1;
        let number = state.next_user;
        drop(state);
        User { thread: self, number }
    }
}

impl Shared {
    /// Nothing panics while the state is locked.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next query; `None` when there are no users left and the thread must end.
    fn next_query(&self) -> Option<Query> {
        let mut state = self.lock();
        loop {
            if let Some(query) = state.queries.pop_front() {
                return Some(query);
            }
            if state.users == 0 {
                state.is_running = false;
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn run(&self) {
        while let Some(query) = self.next_query() {
            // After a panic the sender is dropped without a result, which the user detects.
            if let Ok(loads) = catch_unwind(AssertUnwindSafe(|| query.probe.ask())) {
                // The user may have left.
                let _ = query.result.send(loads);
            }
        }
    }
}

/// A session that uses a [`LoadThread`].
struct User {
    thread: LoadThread,
    number: u64,
}

impl User {
    /// Queues a query; returns `None` if no thread can be started.
    fn query(&self, probe: &LoadProbe) -> Option<Receiver<Vec<DeviceLoad>>> {
        let shared = &self.thread.0;
        let mut state = shared.lock();
        if !state.is_running {
            let running = Arc::clone(shared);
            let thread = thread::Builder::new().name("device-load".into());
            thread.spawn(move || running.run()).ok()?;
            state.is_running = true;
        }
        let (sender, result) = sync_channel(1);
        let (user, probe) = (self.number, probe.clone());
        state.queries.push_back(Query { user, probe, result: sender });
        shared.changed.notify_one();
        Some(result)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let mut state = self.thread.0.lock();
        state.users -= 1;
        state.queries.retain(|query| query.user != self.number);
        self.thread.0.changed.notify_one();
    }
}

/// Encoder, device, engine.
type Key = (EncoderType, String, &'static str);

/// Number of sessions that use each engine: when the last session ends, its gauge is set to 0.
static USERS: Mutex<BTreeMap<Key, usize>> = Mutex::new(BTreeMap::new());

fn users() -> MutexGuard<'static, BTreeMap<Key, usize>> {
    USERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An engine of a device that a session uses.
struct Engine {
    key: Key,
    gauge: Gauge,
}

impl Engine {
    fn new(key: Key) -> Self {
        let (encoder, device, engine) = &key;
        let mut labels = labels(*encoder, None);
        labels.push(Label::new("gpu", device.clone()));
        labels.push(Label::new("engine", *engine));
        *users().entry(key.clone()).or_default() += 1;
        Self { gauge: gauge!(GPU_UTILIZATION, labels), key }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let mut users = users();
        let left = users.get(&self.key).copied().unwrap_or_default().saturating_sub(1);
        if left > 0 {
            users.insert(self.key.clone(), left);
        } else {
            users.remove(&self.key);
            self.gauge.set(0.0);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        collections::HashSet,
        sync::{
            atomic::{AtomicUsize, Ordering::SeqCst},
            mpsc::channel,
        },
        thread::ThreadId,
    };

    use ::metrics::with_local_recorder;
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    use super::*;

    fn load(device: &str, ratio: f64) -> DeviceLoad {
        DeviceLoad { device: device.into(), engine: "encoder", ratio }
    }

    /// The last value of a device's gauge since the last snapshot.
    fn value(recorder: &DebuggingRecorder, device: &str) -> Option<f64> {
        let all = recorder.snapshotter().snapshot().into_vec();
        all.into_iter().find_map(|(key, _, _, value)| {
            let labels: Vec<_> = key.key().labels().map(|l| (l.key(), l.value())).collect();
            let expected = [("encoder_type", "nvenc"), ("gpu", device), ("engine", "encoder")];
            match value {
                DebugValue::Gauge(value) if labels == expected => Some(value.0),
                _ => None,
            }
        })
    }

    /// Ticks until the result has arrived, at least once.
    fn settle(devices: &mut Devices, recorder: &DebuggingRecorder, now: Instant) {
        let deadline = Instant::now() + Duration::from_secs(60);
        with_local_recorder(recorder, || {
            devices.tick(now);
            while devices.source.as_ref().is_some_and(|source| source.result.is_some()) {
                assert!(Instant::now() < deadline, "no result");
                thread::yield_now();
                devices.tick(now);
            }
        });
    }

    /// A session with a thread that no other test uses.
    fn devices(thread: &LoadThread, probe: LoadProbe) -> Devices {
        Devices::with_thread(EncoderType::NVENC, Some(probe), || thread.clone())
    }

    /// Waits until the thread has ended.
    fn until_ended(thread: &LoadThread) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while thread.0.lock().is_running {
            assert!(Instant::now() < deadline, "the thread runs on");
            thread::yield_now();
        }
    }

    #[test]
    fn a_device_is_queried_once_a_second() {
        let queries = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&queries);
        let probe = LoadProbe::new(move || {
            vec![load("often", [0.25, 0.5, 1.0][count.fetch_add(1, SeqCst)])]
        });
        let recorder = DebuggingRecorder::new();
        let begin = Instant::now();
        let mut devices = devices(&LoadThread::default(), probe);
        // Milliseconds | value, if there is a new value
        for (ms, expected) in [(0, 0.25), (500, 0.0), (999, 0.0), (1000, 0.5), (7000, 1.0)] {
            settle(&mut devices, &recorder, begin + Duration::from_millis(ms));
            assert_eq!(value(&recorder, "often"), Some(expected), "{ms} ms");
        }
        assert_eq!(queries.load(SeqCst), 3);
    }

    #[test]
    fn all_sessions_share_one_thread_that_ends_with_the_last_of_them() {
        let threads = Arc::new(Mutex::new(HashSet::<ThreadId>::new()));
        let noted = Arc::clone(&threads);
        let probe = LoadProbe::new(move || {
            noted.lock().unwrap().insert(thread::current().id());
            vec![load("shared", 0.5)]
        });
        let recorder = DebuggingRecorder::new();
        let begin = Instant::now();
        let thread = LoadThread::default();
        for run in 1..=2 {
            let mut sessions: Vec<_> = (0..5).map(|_| devices(&thread, probe.clone())).collect();
            for second in 0..20 {
                for session in &mut sessions {
                    settle(session, &recorder, begin + Duration::from_secs(second));
                }
            }
            assert!(thread.0.lock().is_running);
            drop(sessions);
            until_ended(&thread);
            // A session that is opened later starts the thread again.
            assert_eq!(threads.lock().unwrap().len(), run);
        }
    }

    #[test]
    fn a_driver_that_hangs_blocks_no_session_and_costs_one_thread() {
        let entered = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&entered);
        let (go, wait) = channel::<()>();
        let wait = Mutex::new(wait);
        let probe = LoadProbe::new(move || {
            count.fetch_add(1, SeqCst);
            let _ = wait.lock().unwrap().recv();
            vec![load("hung", 0.5)]
        });
        let recorder = DebuggingRecorder::new();
        let begin = Instant::now();
        let thread = LoadThread::default();
        let mut first = devices(&thread, probe.clone());
        first.tick(begin);
        let deadline = begin + Duration::from_secs(60);
        while entered.load(SeqCst) == 0 {
            assert!(Instant::now() < deadline, "no query");
            thread::yield_now();
        }
        // Sessions are opened and closed, and none of their queries runs.
        for session in 0..50 {
            let mut other = devices(&thread, probe.clone());
            for second in 0..10 {
                other.tick(begin + Duration::from_secs(10 * session + second));
                assert_eq!(thread.0.lock().queries.len(), 1);
            }
            drop(other);
            assert_eq!(thread.0.lock().queries.len(), 0);
        }
        first.tick(begin + Duration::from_secs(100));
        assert_eq!((value(&recorder, "hung"), entered.load(SeqCst)), (None, 1));
        // Once the driver responds, queries run again.
        drop(go);
        settle(&mut first, &recorder, begin);
        assert_eq!((value(&recorder, "hung"), entered.load(SeqCst)), (Some(0.5), 1));
        settle(&mut first, &recorder, begin + Duration::from_secs(100));
        assert_eq!(entered.load(SeqCst), 2);
        drop(first);
        until_ended(&thread);
    }

    #[test]
    fn the_thread_of_a_driver_that_hangs_ends_when_it_answers() {
        let (go, wait) = channel::<()>();
        let wait = Mutex::new(wait);
        let probe = LoadProbe::new(move || {
            let _ = wait.lock().unwrap().recv();
            Vec::new()
        });
        let thread = LoadThread::default();
        let mut session = devices(&thread, probe);
        session.tick(Instant::now());
        drop(session);
        drop(go);
        until_ended(&thread);
    }

    #[test]
    fn a_driver_that_reports_nothing_is_not_queried_again() {
        for panics in [false, true] {
            let queries = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&queries);
            let probe = LoadProbe::new(move || {
                count.fetch_add(1, SeqCst);
                assert!(!panics, "a defect of the driver");
                Vec::new()
            });
            let recorder = DebuggingRecorder::new();
            let begin = Instant::now();
            let thread = LoadThread::default();
            let mut session = devices(&thread, probe);
            for second in 0..3 {
                settle(&mut session, &recorder, begin + Duration::from_secs(second));
            }
            assert_eq!(queries.load(SeqCst), 1);
            assert!(recorder.snapshotter().snapshot().into_vec().is_empty());
            // The session no longer needs the thread.
            until_ended(&thread);
        }
    }

    #[test]
    fn the_last_session_of_a_device_leaves_nothing() {
        let recorder = DebuggingRecorder::new();
        let begin = Instant::now();
        let new =
            || Devices::new(EncoderType::NVENC, Some(LoadProbe::new(|| vec![load("two", 0.5)])));
        let (mut first, mut second) = (new(), new());
        settle(&mut first, &recorder, begin);
        settle(&mut second, &recorder, begin);
        drop(first);
        assert_eq!(value(&recorder, "two"), Some(0.5));
        settle(&mut second, &recorder, begin + INTERVAL);
        drop(second);
        assert_eq!(value(&recorder, "two"), Some(0.0));
        assert!(!users().keys().any(|(_, device, _)| device == "two"));
    }
}
