//! The numbers of a session while it runs and after its end.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{FAKE, Gate, Output, SIZE, SLOT, Written, at, config, picture, until};
use encoder_core::Waiter;
use encoder_media::{AccessUnit, CallbackSink};
use encoder_session::{OnFull, Session, SessionState, Stats};

#[test]
fn stats_follow_a_session_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let (gate, written) = (Gate::open(1), Written::default());
    let sink = Output::boxed(&gate, &written, &folder.path().join("a"));
    let config = config(&[FAKE]).with_on_full(OnFull::DropNewest);
    let mut session = Session::open(SIZE, &config, sink).unwrap();
    let begun = session.stats();
    assert_eq!((begun.state, begun.encoder, begun.failovers), (SessionState::Open, FAKE, 0));
    assert_eq!((begun.ring_slots, begun.ring_bytes), (3, 3 * SLOT));
    assert_eq!((begun.ring_used, begun.ring_high_water, begun.queue), (0, 0, 0));
    assert_eq!((begun.frames_in, begun.fps, begun.latency.max_s), (0, 0.0, 0.0));

    session.push(&picture(1), at(0)).unwrap();
    until("frame 0 is written", || session.stats().frames_encoded == 1);
    // Frame 1 is inside a call of the sink, frames 2 and 3 wait, and frame 4 is dropped.
    session.push(&picture(1), at(1)).unwrap();
    gate.until(2);
    for n in 2..5 {
        session.push(&picture(1), at(n)).unwrap();
    }
    let full = session.stats();
    assert_eq!((full.frames_in, full.frames_encoded, full.frames_dropped), (5, 1, 1));
    assert_eq!((full.ring_used, full.ring_high_water, full.queue), (3, 3, 2));
    assert!(full.latency.max_s >= full.latency.p50_s && full.latency.p50_s > 0.0);

    let handle = session.stats_handle();
    let reader = std::thread::spawn({
        let handle = handle.clone();
        move || {
            let mut last = 0;
            loop {
                let stats = handle.get();
                assert!(stats.frames_encoded >= last);
                last = stats.frames_encoded;
                if stats.state == SessionState::Ended {
                    return stats;
                }
            }
        }
    });
    let closing = session.close();
    assert_eq!(closing.stats().state, SessionState::Closing);
    gate.allow(usize::MAX);
    let report = closing.join().unwrap();
    let ended: Stats = reader.join().unwrap();
    assert_eq!(ended.frames_encoded, report.frames_encoded);
    assert_eq!((ended.frames_encoded, ended.bytes_out, ended.queue), (4, 4, 0));
    assert_eq!(handle.get().frames_dropped, 1);
    assert!(ended.fps > 0.0);

    let json = serde_json::to_value(&ended).unwrap();
    assert_eq!((&json["state"], &json["encoder"]), (&"ended".into(), &"fake".into()));
    assert!(json["latency"]["p99_s"].as_f64().unwrap() > 0.0);
}

#[test]
fn the_latency_contains_the_time_inside_the_sink() {
    let clock = Waiter::manual();
    let sink = CallbackSink({
        let clock = clock.clone();
        move |unit: AccessUnit| {
            // The sink gets the latency up to its call.
            assert_eq!(unit.latency, Some(Duration::ZERO));
            clock.advance(Duration::from_secs(3));
        }
    });
    let config = config(&[FAKE]).with_waiter(clock);
    let mut session = Session::open(SIZE, &config, Box::new(sink)).unwrap();
    session.push(&picture(1), at(0)).unwrap();
    let stats = session.stats_handle();
    session.finish().unwrap();
    assert_eq!(stats.get().latency.max_s, 3.0);
}
