#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use ::metrics::with_local_recorder;
use encoder_core::{EncoderType, Refusal, RefusalKind};
use encoder_ringbuf::Snapshot;
use metrics_util::{
    MetricKind,
    debugging::{DebugValue, DebuggingRecorder},
};

use super::*;

/// Everything that was emitted, by name and labels: `encoder_fps{encoder_type=x264}`. A histogram
/// counts its samples.
#[derive(Default)]
struct Seen {
    recorder: DebuggingRecorder,
    sums: BTreeMap<String, f64>,
}

impl Seen {
    /// The recorder resets counters at each snapshot, so their increments are added up here.
    fn now(&mut self) -> &BTreeMap<String, f64> {
        for (key, _, _, value) in self.recorder.snapshotter().snapshot().into_vec() {
            let (_, key) = key.into_parts();
            let labels: Vec<_> =
                key.labels().map(|l| format!("{}={}", l.key(), l.value())).collect();
            let name = format!("{}{{{}}}", key.name(), labels.join(","));
            let value = match value {
                DebugValue::Counter(n) => n as f64,
                DebugValue::Gauge(value) => value.0,
                DebugValue::Histogram(samples) => samples.len() as f64,
            };
            *self.sums.entry(name).or_default() += value;
        }
        &self.sums
    }

    #[track_caller]
    fn expect(&mut self, name: &str, labels: &str, value: f64) {
        let key = format!("{name}{{{labels}}}");
        let all = self.now();
        assert_eq!(all.get(&key).copied(), Some(value), "{key} of {all:#?}");
    }
}

const X264: &str = "encoder_type=x264";

fn x264(camera: Option<&str>) -> Meter {
    Meter::new(EncoderType::X264, None, camera)
}

#[test]
fn every_name_says_what_it_is() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    with_local_recorder(&recorder, || {
        describe();
        let meter = x264(None);
        meter.failover(None, "died");
        meter.checked(1, true);
        meter.refusal(&Refusal::new(EncoderType::NVENC, RefusalKind::Busy, "", ""));
        let mut labels = labels(EncoderType::X264, None);
        labels.extend([Label::new("gpu", "0"), Label::new("engine", "encoder")]);
        ::metrics::gauge!(GPU_UTILIZATION, labels).set(0.5);
        let emitted = snapshotter.snapshot().into_vec();
        assert_eq!(emitted.len(), ALL.len());
        for metric in ALL {
            let of_name = |(key, ..): &&(metrics_util::CompositeKey, _, _, _)| {
                key.key().name() == metric.name
            };
            let (key, unit, help, _) = emitted.iter().find(of_name).unwrap();
            let kind = match metric.kind {
                Kind::Counter => MetricKind::Counter,
                Kind::Gauge => MetricKind::Gauge,
                Kind::Histogram => MetricKind::Histogram,
            };
            assert_eq!(key.kind(), kind, "{metric:?}");
            let labels: Vec<_> = key.key().labels().map(|label| label.key()).collect();
            assert_eq!(labels, [&["encoder_type"], metric.labels].concat(), "{metric:?}");
            assert_eq!(help.as_ref().unwrap().as_ref(), metric.help);
            assert_eq!(unit.is_none(), metric.unit == "ratio", "{metric:?}");
            // Prometheus' rules for names.
            let ends = |end| metric.name.ends_with(end);
            assert_eq!(metric.kind == Kind::Counter, ends("_total"), "{metric:?}");
            assert_eq!(metric.unit == "seconds", ends("_seconds"), "{metric:?}");
            assert_eq!(metric.unit == "bytes", metric.name.contains("_bytes_"), "{metric:?}");
        }
    });
}

#[test]
fn what_a_session_tells_arrives() {
    let mut seen = Seen::default();
    let meter = with_local_recorder(&seen.recorder, || {
        let mut meter = x264(Some("/cam"));
        (0..3).for_each(|_| meter.frame(1000));
        meter.unit(100, Duration::from_millis(3));
        meter.unit(50, Duration::from_millis(4));
        meter.repeated(2);
        meter.failed();
        meter.dropped(7);
        meter.failover(Some(EncoderType::OPENH264), "stalled");
        meter.failover(None, "died");
        meter.checked(3, true);
        meter.checked(2, false);
        meter.check_time(Duration::from_millis(500));
        meter.refusal(&Refusal::new(EncoderType::NVENC, RefusalKind::NoDevice, "", ""));
        meter
    });
    let labels = "encoder_type=x264,camera=/cam";
    for (name, value) in [
        (FRAMES, 2.0),
        (BYTES_IN, 3000.0),
        (BYTES_OUT, 150.0),
        (LATENCY, 2.0),
        (REPEATED, 2.0),
        (FAILED, 1.0),
        (DROPPED, 7.0),
        (SESSIONS, 1.0),
        // Registered from the start, so that the first increment is visible.
        (FPS, 0.0),
        (QUEUE_DEPTH, 0.0),
        (PRODUCER_WAITS, 0.0),
        (CONSUMER_WAIT, 0.0),
    ] {
        seen.expect(name, labels, value);
    }
    let from = format!("{labels},from=x264");
    seen.expect(FAILOVERS, &format!("{from},to=openh264,reason=stalled"), 1.0);
    seen.expect(FAILOVERS, &format!("{from},to=none,reason=died"), 1.0);
    seen.expect(CHECKS, &format!("{labels},result=right"), 4.0);
    seen.expect(CHECKS, &format!("{labels},result=wrong"), 1.0);
    seen.expect(CHECK_TIME, labels, 0.5);
    seen.expect(REFUSALS, "encoder_type=nvenc,camera=/cam,reason=no-device", 1.0);
    drop(meter);
    seen.expect(SESSIONS, labels, 0.0);
    seen.expect(FRAMES, labels, 2.0);
}

#[test]
fn the_rate_is_that_of_the_last_second() {
    let mut seen = Seen::default();
    let begin = Instant::now();
    let at = |ms| begin + Duration::from_millis(ms);
    let mut meter = with_local_recorder(&seen.recorder, || x264(None));
    let ring = Snapshot::default();
    meter.tick(at(0), &ring);
    for n in 1..=30 {
        meter.unit(1, Duration::ZERO);
        meter.tick(at(n * 33), &ring);
    }
    seen.expect(FPS, X264, 0.0);
    // 31 frames in 1.033 s.
    meter.unit(1, Duration::ZERO);
    meter.tick(at(1033), &ring);
    seen.expect(FPS, X264, 30.015625);
    // The value holds until the next second is over.
    meter.tick(at(2000), &ring);
    seen.expect(FPS, X264, 30.015625);
    meter.tick(at(2033), &ring);
    seen.expect(FPS, X264, 0.0);
    // The clock may stand still, or be read out of order.
    meter.tick(at(0), &ring);
    seen.expect(FPS, X264, 0.0);
}

#[test]
fn the_ring_is_followed_by_its_changes() {
    let mut seen = Seen::default();
    let now = Instant::now();
    let mut meter = with_local_recorder(&seen.recorder, || x264(None));
    let ring = |waits, ms, readable| Snapshot {
        readable,
        producer_waits: waits,
        consumer_waits: 2 * waits,
        producer_wait: Duration::from_millis(ms),
        consumer_wait: Duration::from_millis(2 * ms),
        ..Snapshot::default()
    };
    for (waits, ms, readable) in [(3, 250, 5), (3, 500, 2), (10, 2000, 9)] {
        meter.tick(now, &ring(waits, ms, readable));
        seen.expect(PRODUCER_WAITS, X264, waits as f64);
        seen.expect(CONSUMER_WAITS, X264, 2.0 * waits as f64);
        seen.expect(PRODUCER_WAIT, X264, ms as f64 / 1000.0);
        seen.expect(CONSUMER_WAIT, X264, ms as f64 / 500.0);
        seen.expect(QUEUE_DEPTH, X264, readable as f64);
    }
    drop(meter);
    seen.expect(QUEUE_DEPTH, X264, 0.0);
    seen.expect(PRODUCER_WAIT, X264, 2.0);
}

/// A second of `frames`, and a queue.
fn run(meter: &mut Meter, begin: Instant, frames: u32, readable: usize) {
    let ring = Snapshot { readable, ..Snapshot::default() };
    meter.tick(begin, &ring);
    (0..frames).for_each(|_| meter.unit(1, Duration::ZERO));
    // Slightly more than a second, for a rate with many digits.
    meter.tick(begin + Duration::from_millis(1037), &ring);
}

#[test]
fn cameras_add_up_and_nothing_is_left_of_them() {
    let mut seen = Seen::default();
    let begin = Instant::now();
    let mut meters: Vec<_> =
        with_local_recorder(&seen.recorder, || (0..8).map(|_| x264(None)).collect());
    for (n, meter) in (1..).zip(&mut meters) {
        run(meter, begin, n * 7, n as usize);
    }
    seen.expect(SESSIONS, X264, 8.0);
    seen.expect(QUEUE_DEPTH, X264, 36.0);
    seen.expect(FRAMES, X264, 252.0);
    let rate = seen.now()[&format!("{FPS}{{{X264}}}")];
    assert!((rate - 252.0 / 1.037).abs() < 0.1, "{rate}");
    meters.swap(2, 5);
    meters.truncate(3);
    seen.expect(SESSIONS, X264, 3.0);
    seen.expect(QUEUE_DEPTH, X264, 1.0 + 2.0 + 6.0);
    drop(meters);
    for name in [SESSIONS, QUEUE_DEPTH, FPS] {
        seen.expect(name, X264, 0.0);
    }
}

#[test]
fn a_session_that_changes_its_encoder_moves() {
    let mut seen = Seen::default();
    let openh264 = "encoder_type=openh264";
    let begin = Instant::now();
    let (mut moving, staying) = with_local_recorder(&seen.recorder, || (x264(None), x264(None)));
    run(&mut moving, begin, 30, 4);
    let before = seen.now()[&format!("{FPS}{{{X264}}}")];
    with_local_recorder(&seen.recorder, || {
        moving.failover(Some(EncoderType::OPENH264), "failed");
        moving.switch(EncoderType::OPENH264, None);
    });
    moving.unit(10, Duration::ZERO);
    for (labels, sessions, depth, frames) in [(X264, 1.0, 0.0, 30.0), (openh264, 1.0, 4.0, 1.0)] {
        seen.expect(SESSIONS, labels, sessions);
        seen.expect(QUEUE_DEPTH, labels, depth);
        seen.expect(FRAMES, labels, frames);
    }
    seen.expect(FPS, X264, 0.0);
    seen.expect(FPS, openh264, before);
    drop((moving, staying));
    seen.expect(SESSIONS, openh264, 0.0);
    seen.expect(FPS, openh264, 0.0);
}

#[test]
fn refusals_before_a_session_are_counted_too() {
    let mut seen = Seen::default();
    let all = RefusalKind::ALL.iter();
    let all: Vec<_> = all.map(|kind| Refusal::new(EncoderType::QSV, *kind, "", "")).collect();
    with_local_recorder(&seen.recorder, || {
        not_opened(&OpenError::NoneLeft { refusals: all.clone() }, None);
        not_opened(&OpenError::Refused(all[0].clone()), Some("/cam"));
        not_opened(&OpenError::Unknown { wanted: "x".into(), available: Vec::new() }, None);
    });
    for kind in RefusalKind::ALL {
        seen.expect(REFUSALS, &format!("encoder_type=qsv,reason={}", kind.as_str()), 1.0);
    }
    seen.expect(REFUSALS, "encoder_type=qsv,camera=/cam,reason=not-built", 1.0);
    assert_eq!(seen.now().len(), RefusalKind::ALL.len() + 1);
}
