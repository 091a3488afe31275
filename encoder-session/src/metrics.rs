//! Metrics of encoders, emitted through the facade of the crate `metrics`.
//!
//! Sessions always emit metrics; they reach the recorder that the program has installed, and are
//! discarded without a recorder. `docs/metrics.md` is the page for operators.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use metrics_util::debugging::DebuggingRecorder;
//!
//! // Install a recorder before the first session is opened, which registers its metrics.
//! let recorder = DebuggingRecorder::new();
//! let numbers = recorder.snapshotter();
//! recorder.install()?;
//! encoder_session::metrics::describe();
//! # assert!(numbers.snapshot().into_vec().is_empty());
//! # Ok(())
//! # }
//! ```

mod devices;
mod meter;

use ::metrics::{
    Label, SharedString, Unit, counter, describe_counter, describe_gauge, describe_histogram,
};
use encoder_core::{EncoderType, OpenError, Refusal};

pub(crate) use meter::Meter;

/// Frames that the encoder returned.
pub const FRAMES: &str = "encoder_frames_total";
/// Frames that the encoder returned in the last second.
pub const FPS: &str = "encoder_fps";
/// Frames that wait for the encoder.
pub const QUEUE_DEPTH: &str = "encoder_queue_depth";
/// Utilisation of the GPU.
pub const GPU_UTILIZATION: &str = "encoder_gpu_utilization";
/// Bytes of raw pictures passed to the encoder.
pub const BYTES_IN: &str = "encoder_bytes_in_total";
/// Bytes of access units.
pub const BYTES_OUT: &str = "encoder_bytes_out_total";
/// Time from passing a frame to the encoder to its access unit.
pub const LATENCY: &str = "encoder_encode_latency_seconds";
/// Waits for a free slot in the ring.
pub const PRODUCER_WAITS: &str = "encoder_producer_waits_total";
/// Duration of the waits for a free slot.
pub const PRODUCER_WAIT: &str = "encoder_producer_wait_seconds";
/// Waits for a frame.
pub const CONSUMER_WAITS: &str = "encoder_consumer_waits_total";
/// Duration of the waits for a frame.
pub const CONSUMER_WAIT: &str = "encoder_consumer_wait_seconds";
/// Changes of encoder.
pub const FAILOVERS: &str = "encoder_failovers_total";
/// Encoders that were passed over.
pub const REFUSALS: &str = "encoder_refusals_total";
/// Frames that repeat another picture.
pub const REPEATED: &str = "encoder_frames_repeated_total";
/// Frames that were dropped.
pub const DROPPED: &str = "encoder_frames_dropped_total";
/// Frames that could not be decoded.
pub const FAILED: &str = "encoder_frames_failed_total";
/// Pictures of the encoder that were checked.
pub const CHECKS: &str = "encoder_output_checks_total";
/// Duration of the checks of the encoder's pictures.
pub const CHECK_TIME: &str = "encoder_output_check_seconds";
/// Videos that are being encoded.
pub const SESSIONS: &str = "encoder_sessions_open";

/// Suggested upper bounds of the buckets of a histogram of [`LATENCY`], in seconds.
pub const LATENCY_BUCKETS: [f64; 13] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The values of the label `reason` of [`FAILOVERS`].
pub const FAILOVER_REASONS: [&str; 7] =
    ["died", "stalled", "wrong-output", "wrong-picture", "failed", "refused", "failback"];

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down. All sessions with the same labels add up.
    Gauge,
    /// Counts by size.
    Histogram,
}

/// The description of a metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its unit: `frames`, `seconds`.
    pub unit: &'static str,
    /// Its labels besides `encoder_type`, and `camera` where that label is enabled.
    pub labels: &'static [&'static str],
    /// Its description, in one sentence.
    pub help: &'static str,
}

const fn metric(
    name: &'static str,
    kind: Kind,
    unit: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind, unit, labels, help }
}

/// Every metric.
pub const ALL: [Metric; 19] = [
    metric(FRAMES, Kind::Counter, "frames", &[], "Frames that came out of the encoder."),
    metric(
        FPS,
        Kind::Gauge,
        "frames per second",
        &[],
        "Frames per second that came out of the encoder in the last second.",
    ),
    metric(
        QUEUE_DEPTH,
        Kind::Gauge,
        "frames",
        &[],
        "Frames in the ring that wait for the encoder.",
    ),
    metric(
        GPU_UTILIZATION,
        Kind::Gauge,
        "ratio",
        &["gpu", "engine"],
        "How busy the GPU that the encoder runs on is, by everything on it: 0 to 1.",
    ),
    metric(BYTES_IN, Kind::Counter, "bytes", &[], "Bytes of raw pictures given to the encoder."),
    metric(BYTES_OUT, Kind::Counter, "bytes", &[], "Bytes of access units that came out of it."),
    metric(
        LATENCY,
        Kind::Histogram,
        "seconds",
        &[],
        "Time from the hand-over of a frame to the encoder to its access unit.",
    ),
    metric(
        PRODUCER_WAITS,
        Kind::Counter,
        "waits",
        &[],
        "Waits of the source for a place in the ring: the encoder is the slower one.",
    ),
    metric(
        PRODUCER_WAIT,
        Kind::Gauge,
        "seconds",
        &[],
        "Time that the source waited for a place in the ring; only grows.",
    ),
    metric(
        CONSUMER_WAITS,
        Kind::Counter,
        "waits",
        &[],
        "Waits of the encoder for a frame: the source is the slower one.",
    ),
    metric(
        CONSUMER_WAIT,
        Kind::Gauge,
        "seconds",
        &[],
        "Time that the encoder waited for a frame; only grows.",
    ),
    metric(
        FAILOVERS,
        Kind::Counter,
        "changes",
        &["from", "to", "reason"],
        "Changes of encoder in a video, from one to another (none: there was no other).",
    ),
    metric(
        REFUSALS,
        Kind::Counter,
        "refusals",
        &["reason"],
        "Encoders that were passed over, once for each video.",
    ),
    metric(
        REPEATED,
        Kind::Counter,
        "frames",
        &[],
        "Frames that show the picture of another frame again.",
    ),
    metric(
        DROPPED,
        Kind::Counter,
        "frames",
        &[],
        "Frames that a full ring had no place for, or that no encoder encoded after a stop.",
    ),
    metric(FAILED, Kind::Counter, "frames", &[], "Frames that could not be decoded."),
    metric(
        CHECKS,
        Kind::Counter,
        "pictures",
        &["result"],
        "Pictures of the encoder that were decoded and compared with their frames: right or wrong.",
    ),
    metric(
        CHECK_TIME,
        Kind::Gauge,
        "seconds",
        &[],
        "Time that the checks of the encoder's pictures took; only grows.",
    ),
    metric(SESSIONS, Kind::Gauge, "sessions", &[], "Videos that are being made."),
];

/// Registers the description of each metric with the recorder. Call it once, after the recorder has
/// been installed.
pub fn describe() {
    for Metric { name, kind, unit, help, .. } in ALL {
        let unit = match unit {
            "bytes" => Some(Unit::Bytes),
            "seconds" => Some(Unit::Seconds),
            "frames per second" => Some(Unit::CountPerSecond),
            "ratio" => None,
            _ => Some(Unit::Count),
        };
        match (kind, unit) {
            (Kind::Counter, Some(unit)) => describe_counter!(name, unit, help),
            (Kind::Counter, None) => describe_counter!(name, help),
            (Kind::Gauge, Some(unit)) => describe_gauge!(name, unit, help),
            (Kind::Gauge, None) => describe_gauge!(name, help),
            (Kind::Histogram, Some(unit)) => describe_histogram!(name, unit, help),
            (Kind::Histogram, None) => describe_histogram!(name, help),
        }
    }
}

/// Counts the encoders that were passed over before a plan failed. Sessions count their own.
pub fn not_opened(error: &OpenError, camera: Option<&str>) {
    let camera = camera.map(|camera| SharedString::from(camera.to_owned()));
    let refusals = match error {
        OpenError::Refused(refusal) => std::slice::from_ref(refusal),
        OpenError::NoneLeft { refusals } => refusals,
        OpenError::Config(_) | OpenError::Stopped | OpenError::Unknown { .. } => &[],
        _ => &[],
    };
    refusals.iter().for_each(|one| refusal(one, camera.as_ref()));
}

fn refusal(refusal: &Refusal, camera: Option<&SharedString>) {
    let mut labels = labels(refusal.encoder, camera);
    labels.push(Label::new("reason", refusal.kind.as_str()));
    counter!(REFUSALS, labels).increment(1);
}

/// The labels of every metric.
fn labels(encoder: EncoderType, camera: Option<&SharedString>) -> Vec<Label> {
    let encoder = Label::new("encoder_type", encoder.as_str());
    let camera = camera.map(|camera| Label::new("camera", camera.clone()));
    [encoder].into_iter().chain(camera).collect()
}

#[cfg(test)]
#[path = "metrics/tests.rs"]
mod tests;
