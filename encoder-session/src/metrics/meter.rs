//! The metrics of one session.

use std::time::{Duration, Instant};

use ::metrics::{Counter, Gauge, Histogram, Label, SharedString, counter, gauge, histogram};
use encoder_core::{EncoderType, LoadProbe, Refusal};
use encoder_ringbuf::Snapshot;

use super::{
    BYTES_IN, BYTES_OUT, CHECK_TIME, CHECKS, CONSUMER_WAIT, CONSUMER_WAITS, DROPPED, FAILED,
    FAILOVER_REASONS, FAILOVERS, FPS, FRAMES, LATENCY, PRODUCER_WAIT, PRODUCER_WAITS, QUEUE_DEPTH,
    REPEATED, SESSIONS, devices::Devices, labels, refusal,
};

/// The window over which the frame rate is measured.
const SECOND: Duration = Duration::from_secs(1);

/// Emits the metrics of one session. Its contribution to gauges is removed when it is dropped.
pub(crate) struct Meter {
    camera: Option<SharedString>,
    encoder: EncoderType,
    handles: Handles,
    devices: Devices,
    /// The ring as it was at the last tick.
    ring: Snapshot,
    /// When the current second began, and how many frames were returned since then.
    second: Option<Instant>,
    frames: u32,
}

impl Meter {
    /// Creates the meter of a session whose encoder has been opened. `load` is the value of
    /// [`VideoEncoder::load`](encoder_core::VideoEncoder::load). `camera` is the value of the label
    /// of that name.
    pub fn new(encoder: EncoderType, load: Option<LoadProbe>, camera: Option<&str>) -> Self {
        let camera = camera.map(|camera| SharedString::from(camera.to_owned()));
        Self {
            handles: Handles::new(&labels(encoder, camera.as_ref())),
            devices: Devices::new(encoder, load),
            camera,
            encoder,
            ring: Snapshot::default(),
            second: None,
            frames: 0,
        }
    }

    /// Moves the session's contribution to the gauges to the new encoder.
    pub fn switch(&mut self, to: EncoderType, load: Option<LoadProbe>) {
        let mut handles = Handles::new(&labels(to, self.camera.as_ref()));
        handles.fps.set(self.handles.fps.value);
        handles.queue_depth.set(self.handles.queue_depth.value);
        self.handles = handles;
        self.devices = Devices::new(to, load);
        self.encoder = to;
    }

    /// Records that the session drops its encoder, to switch to another or to end. `reason` is one
    /// of [`FAILOVER_REASONS`]. Must be called before [`switch`](Self::switch).
    pub fn failover(&self, to: Option<EncoderType>, reason: &'static str) {
        debug_assert!(FAILOVER_REASONS.contains(&reason), "{reason}");
        let mut labels = labels(self.encoder, self.camera.as_ref());
        labels.push(Label::new("from", self.encoder.as_str()));
        labels.push(Label::new("to", to.map_or("none", EncoderType::as_str)));
        labels.push(Label::new("reason", reason));
        counter!(FAILOVERS, labels).increment(1);
    }

    /// Records that an encoder, the active one or another, was passed over.
    pub fn refusal(&self, why: &Refusal) {
        refusal(why, self.camera.as_ref());
    }

    /// Records that a frame of `bytes` bytes, without padding, was passed to the encoder.
    pub fn frame(&self, bytes: usize) {
        self.handles.bytes_in.increment(bytes as u64);
    }

    /// Records an access unit, its size in bytes and the time since its frame was passed to the
    /// encoder.
    pub fn unit(&mut self, bytes: usize, latency: Duration) {
        self.frames = self.frames.saturating_add(1);
        self.handles.frames.increment(1);
        self.handles.bytes_out.increment(bytes as u64);
        self.handles.latency.record(latency);
    }

    /// Records checks of pictures of the encoder; without `are_right` the last one was wrong.
    pub fn checked(&self, pictures: u64, are_right: bool) {
        let wrong = u64::from(!are_right).min(pictures);
        for (result, count) in [("right", pictures - wrong), ("wrong", wrong)] {
            if count > 0 {
                let mut labels = labels(self.encoder, self.camera.as_ref());
                labels.push(Label::new("result", result));
                counter!(CHECKS, labels).increment(count);
            }
        }
    }

    /// Records the time that checks took.
    pub fn check_time(&self, time: Duration) {
        if !time.is_zero() {
            self.handles.check_time.increment(time);
        }
    }

    /// Records frames that repeat the picture of another frame.
    pub fn repeated(&self, n: u64) {
        self.handles.repeated.increment(n);
    }

    /// Records a frame that could not be decoded.
    pub fn failed(&self) {
        self.handles.failed.increment(1);
    }

    /// Records frames that were dropped because the ring was full.
    pub fn dropped(&self, n: u64) {
        self.handles.dropped.increment(n);
    }

    /// Must be called about once per frame, and at least once a second while there are no frames.
    pub fn tick(&mut self, now: Instant, ring: &Snapshot) {
        let since = *self.second.get_or_insert(now);
        let passed = now.saturating_duration_since(since);
        if passed >= SECOND {
            self.handles.fps.set(f64::from(self.frames) / passed.as_secs_f64());
            (self.second, self.frames) = (Some(now), 0);
        }
        self.handles.queue_depth.set(ring.readable as f64);
        let (handles, last) = (&self.handles, &self.ring);
        for (waits, now, before) in [
            (&handles.producer_waits, ring.producer_waits, last.producer_waits),
            (&handles.consumer_waits, ring.consumer_waits, last.consumer_waits),
        ] {
            waits.increment(now.saturating_sub(before));
        }
        for (waited, now, before) in [
            (&handles.producer_wait, ring.producer_wait, last.producer_wait),
            (&handles.consumer_wait, ring.consumer_wait, last.consumer_wait),
        ] {
            waited.increment(now.saturating_sub(before));
        }
        self.ring = ring.clone();
        self.devices.tick(now);
    }
}

/// The metric handles of one encoder type, looked up once.
struct Handles {
    frames: Counter,
    bytes_in: Counter,
    bytes_out: Counter,
    latency: Histogram,
    producer_waits: Counter,
    consumer_waits: Counter,
    /// Counters of the facade are integers.
    producer_wait: Gauge,
    consumer_wait: Gauge,
    check_time: Gauge,
    repeated: Counter,
    dropped: Counter,
    failed: Counter,
    fps: Share,
    queue_depth: Share,
    #[expect(dead_code, reason = "it counts by being there")]
    sessions: Share,
}

impl Handles {
    fn new(labels: &[Label]) -> Self {
        let counter = |name: &'static str| counter!(name, labels.to_vec());
        let gauge = |name: &'static str| gauge!(name, labels.to_vec());
        Self {
            frames: counter(FRAMES),
            bytes_in: counter(BYTES_IN),
            bytes_out: counter(BYTES_OUT),
            latency: histogram!(LATENCY, labels.to_vec()),
            producer_waits: counter(PRODUCER_WAITS),
            consumer_waits: counter(CONSUMER_WAITS),
            producer_wait: gauge(PRODUCER_WAIT),
            consumer_wait: gauge(CONSUMER_WAIT),
            check_time: gauge(CHECK_TIME),
            repeated: counter(REPEATED),
            dropped: counter(DROPPED),
            failed: counter(FAILED),
            fps: Share::new(gauge(FPS), 0.0),
            queue_depth: Share::new(gauge(QUEUE_DEPTH), 0.0),
            sessions: Share::new(gauge(SESSIONS), 1.0),
        }
    }
}

/// The contribution of one session to a gauge that all sessions share; subtracted on drop.
struct Share {
    gauge: Gauge,
    value: f64,
}

impl Share {
    fn new(gauge: Gauge, value: f64) -> Self {
        let mut share = Self { gauge, value: 0.0 };
        share.set(value);
        share
    }

    /// Rounded to 1/64: such numbers add up exactly, so that the gauge returns to 0.
    fn set(&mut self, value: f64) {
        let value = (value * 64.0).round() / 64.0;
        if value != self.value {
            self.gauge.increment(value - self.value);
            self.value = value;
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.gauge.decrement(self.value);
    }
}
