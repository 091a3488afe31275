//! How busy the devices are that sessions run on.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, TryRecvError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use ::metrics::{Gauge, Label, gauge};
use encoder_core::{DeviceLoad, EncoderType, LoadProbe};

use super::{GPU_UTILIZATION, labels};

/// How often a device is asked.
const INTERVAL: Duration = Duration::from_secs(1);

/// Follows the devices of one session.
pub(super) struct Devices {
    encoder: EncoderType,
    probe: Option<LoadProbe>,
    /// When it was last asked.
    asked: Option<Instant>,
    /// Where the answer comes, while there is none.
    answer: Option<Receiver<Vec<DeviceLoad>>>,
    /// Those that have answered.
    engines: Vec<Engine>,
}

impl Devices {
    pub fn new(encoder: EncoderType, probe: Option<LoadProbe>) -> Self {
        Self { encoder, probe, asked: None, answer: None, engines: Vec::new() }
    }

    /// Emits the answer when it has come, and asks anew when it is time. Each question has a
    /// thread of its own: a driver that hangs takes that one, and not the session.
    pub fn tick(&mut self, now: Instant) {
        if let Some(answer) = &self.answer {
            match answer.try_recv() {
                Err(TryRecvError::Empty) => return,
                Ok(loads) if !loads.is_empty() => self.emit(&loads),
                // It cannot be told, or asking panicked: so it will be the next time.
                _ => (self.probe, self.engines) = (None, Vec::new()),
            }
            self.answer = None;
        }
        let Some(probe) = &self.probe else { return };
        if self.asked.is_some_and(|asked| now.saturating_duration_since(asked) < INTERVAL) {
            return;
        }
        self.asked = Some(now);
        let (probe, (sender, answer)) = (probe.clone(), sync_channel(1));
        let asking = thread::Builder::new().name("device-load".into()).spawn(move || {
            // An error: the session has ended.
            let _ = sender.send(probe.ask());
        });
        self.answer = asking.is_ok().then_some(answer);
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

/// Encoder, device, engine.
type Key = (EncoderType, String, &'static str);

/// How many sessions use an engine: when the last one goes, nobody measures it any more.
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
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc::channel,
    };

    use ::metrics::with_local_recorder;
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    use super::*;

    fn load(device: &str, ratio: f64) -> DeviceLoad {
        DeviceLoad { device: device.into(), engine: "encoder", ratio }
    }

    /// The gauge of a device as it was set last, since it was last looked at.
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

    /// A tick, and as many more as it takes until the answer has come.
    fn settle(devices: &mut Devices, recorder: &DebuggingRecorder, now: Instant) {
        let deadline = Instant::now() + Duration::from_secs(60);
        with_local_recorder(recorder, || {
            devices.tick(now);
            while devices.answer.is_some() {
                assert!(Instant::now() < deadline, "no answer");
                thread::yield_now();
                devices.tick(now);
            }
        });
    }

    #[test]
    fn a_device_is_asked_once_a_second() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let probe = LoadProbe::new(move || {
            vec![load("often", [0.25, 0.5, 1.0][count.fetch_add(1, SeqCst)])]
        });
        let recorder = DebuggingRecorder::new();
        let begin = Instant::now();
        let mut devices = Devices::new(EncoderType::NVENC, Some(probe));
        // Milliseconds | value, if there is a new one
        for (ms, expected) in [(0, 0.25), (500, 0.0), (999, 0.0), (1000, 0.5), (7000, 1.0)] {
            settle(&mut devices, &recorder, begin + Duration::from_millis(ms));
            assert_eq!(value(&recorder, "often"), Some(expected), "{ms} ms");
        }
        assert_eq!(asked.load(SeqCst), 3);
    }

    #[test]
    fn a_driver_that_hangs_holds_nobody_up() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let (go, wait) = channel::<()>();
        let wait = Mutex::new(wait);
        let probe = LoadProbe::new(move || {
            count.fetch_add(1, SeqCst);
            let _ = wait.lock().unwrap().recv();
            vec![load("hung", 0.5)]
        });
        let recorder = DebuggingRecorder::new();
        let begin = Instant::now();
        let mut devices = Devices::new(EncoderType::NVENC, Some(probe));
        for second in 0..100 {
            devices.tick(begin + Duration::from_secs(second));
        }
        assert_eq!(value(&recorder, "hung"), None);
        // Once it goes on, so do the questions.
        drop(go);
        settle(&mut devices, &recorder, begin);
        assert_eq!((value(&recorder, "hung"), asked.load(SeqCst)), (Some(0.5), 1));
        settle(&mut devices, &recorder, begin + Duration::from_secs(100));
        assert_eq!(asked.load(SeqCst), 2);
    }

    #[test]
    fn a_driver_that_says_nothing_is_not_asked_again() {
        for panics in [false, true] {
            let asked = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&asked);
            let probe = LoadProbe::new(move || {
                count.fetch_add(1, SeqCst);
                assert!(!panics, "a defect of the driver");
                Vec::new()
            });
            let recorder = DebuggingRecorder::new();
            let begin = Instant::now();
            let mut devices = Devices::new(EncoderType::NVENC, Some(probe));
            for second in 0..3 {
                settle(&mut devices, &recorder, begin + Duration::from_secs(second));
            }
            assert_eq!(asked.load(SeqCst), 1);
            assert!(recorder.snapshotter().snapshot().into_vec().is_empty());
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
