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
