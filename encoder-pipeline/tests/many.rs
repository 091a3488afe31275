//! Many cameras with one slow sink, and live sources that cannot wait.
#![allow(clippy::unwrap_used)]

use std::{
    sync::{Arc, Condvar, Mutex, mpsc},
    time::Duration,
};

use encoder_core::{EncoderType, FrameRate, Plan, Resolution, Settings};
use encoder_pipeline::{
    mux::{AccessUnit, CallbackSink, Finished, Location, Mp4Options, Mp4Sink, Sink, SinkError},
    session::{OnFull, Session, SessionConfig, SessionError},
    source::{Payload, RawImage},
    timeline::{FrameTimes, Timeline, Timing},
};
use encoder_testbed::fixtures::{decode::decode, picture::Picture};

const SIZE: Resolution = Resolution::new(160, 120);

/// The smallest possible ring: three frames.
fn config() -> SessionConfig {
    let mut settings = Settings::default();
    settings.gpu.enable_ring_buffer = false;
    SessionConfig::new(settings, Plan::new(vec![EncoderType::OPENH264], vec![]))
}
const SLOTS: usize = 3;

fn picture(n: usize) -> Payload {
    let (data, step) = Picture::stamped(160, 120, n).raw("bgr8", 0);
    Payload::Raw(RawImage {
        encoding: "bgr8".into(),
        width: 160,
        height: 120,
        step,
        is_bigendian: false,
        data: data.into(),
    })
}

fn at(n: usize) -> FrameTimes {
    FrameTimes::at(n as i64 * 40_000_000)
}

/// A sink that accepts only as many access units as the test allows.
#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    allowed: [usize; CAMERAS],
    written: [Vec<u64>; CAMERAS],
    pushed: [usize; CAMERAS],
}

const CAMERAS: usize = 8;

impl Gate {
    fn allow(&self, camera: usize, more: usize) {
        self.state.lock().unwrap().allowed[camera] += more;
        self.changed.notify_all();
    }

    /// Waits until `condition` holds.
    fn until(&self, what: &str, condition: impl Fn(&State) -> bool) {
        let patience = Duration::from_secs(60);
        let state = self.state.lock().unwrap();
        let (_state, waited) =
            self.changed.wait_timeout_while(state, patience, |state| !condition(state)).unwrap();
        assert!(!waited.timed_out(), "{what}");
    }

    fn sink(self: &Arc<Self>, camera: usize) -> Box<dyn Sink> {
        let gate = Arc::clone(self);
        Box::new(CallbackSink(move |AccessUnit { chunk, .. }: AccessUnit| {
            let state = gate.state.lock().unwrap();
            let mut state = gate
                .changed
                .wait_while(state, |state| state.allowed[camera] <= state.written[camera].len())
                .unwrap();
            state.written[camera].push(chunk.pts);
            gate.changed.notify_all();
        }))
    }
}

#[test]
fn eight_cameras_behind_a_slow_sink_lose_nothing_and_hold_back_the_source() {
    const FRAMES: usize = 40;
    let gate = Arc::new(Gate::default());
    let mut sessions: Vec<_> =
        (0..CAMERAS).map(|c| Session::open(SIZE, &config(), gate.sink(c)).unwrap()).collect();
    let source = std::thread::spawn({
        let gate = Arc::clone(&gate);
        move || {
            for n in 0..FRAMES {
                for (camera, session) in sessions.iter_mut().enumerate() {
                    session.push(&picture(n), at(n)).unwrap();
                    let mut state = gate.state.lock().unwrap();
                    state.pushed[camera] += 1;
                    gate.changed.notify_all();
                }
            }
            sessions.into_iter().map(|session| session.finish().unwrap()).collect::<Vec<_>>()
        }
    });
    // The sink accepts nothing: the rings fill, and the source blocks at the first full ring.
    gate.until("the rings are full", |state| state.pushed[CAMERAS - 1] == SLOTS);
    // All cameras but one may continue, until the last camera blocks the source.
    for camera in 0..CAMERAS - 1 {
        gate.allow(camera, FRAMES);
    }
    gate.until("the others have caught up", |state| {
        state.written[..CAMERAS - 1].iter().all(|written| written.len() == SLOTS + 1)
    });
    {
        let state = gate.state.lock().unwrap();
        assert_eq!(state.pushed[CAMERAS - 1], SLOTS, "no more than fits");
        assert!(state.pushed.iter().all(|&pushed| pushed <= SLOTS + 1), "{:?}", state.pushed);
    }
    // With one more frame of the last camera, each camera gets one more: none is ahead.
    for more in 1..=5 {
        gate.allow(CAMERAS - 1, 1);
        gate.until("each has one more", |state| {
            state.written[..CAMERAS - 1].iter().all(|written| written.len() == SLOTS + 1 + more)
        });
        let state = gate.state.lock().unwrap();
        assert!(state.pushed.iter().all(|&pushed| pushed <= SLOTS + 1 + more));
    }
    gate.allow(CAMERAS - 1, FRAMES);
    let reports = source.join().unwrap();
    let state = gate.state.lock().unwrap();
    for (camera, report) in reports.iter().enumerate() {
        assert_eq!((report.frames_in, report.frames_encoded), (40, 40), "camera {camera}");
        assert_eq!(report.frames_dropped, 0);
        assert_eq!(state.written[camera], (0..40).collect::<Vec<_>>(), "camera {camera}");
    }
}

/// A sink that blocks at its first access unit until the test releases it.
struct Slow {
    sink: Mp4Sink,
    stands: mpsc::Sender<()>,
    go: Option<mpsc::Receiver<()>>,
}

impl Sink for Slow {
    fn write(&mut self, unit: AccessUnit) -> Result<(), SinkError> {
        if let Some(go) = self.go.take() {
            self.stands.send(()).unwrap();
            let _ = go.recv();
        }
        self.sink.write(unit)
    }
    fn finish(self: Box<Self>, layout: &Timeline) -> Result<Finished, SinkError> {
        Box::new(self.sink).finish(layout)
    }
    fn abandon(self: Box<Self>) -> Option<Location> {
        Box::new(self.sink).abandon()
    }
}

#[test]
fn a_live_source_drops_what_it_was_told_to_and_counts_it() {
    const FRAMES: usize = 12;
    // The encoder holds frame 0; two more fit.
    let table = [
        (OnFull::DropNewest, vec![0, 1, 2, FRAMES]),
        (OnFull::DropOldest, vec![0, FRAMES - 2, FRAMES - 1, FRAMES]),
    ];
    for (on_full, expected) in table {
        for is_rate in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.mp4");
            let rate: FrameRate = "25".parse().unwrap();
            let mut config = config().with_on_full(on_full);
            if is_rate {
                config.timing = Timing::Rate(rate);
            }
            let (stands, is_standing) = mpsc::channel();
            let (go, told) = mpsc::channel();
            let sink = Mp4Sink::create(&path, &Mp4Options::default()).unwrap();
            let sink = Box::new(Slow { sink, stands, go: Some(told) });
            let mut session = Session::open(SIZE, &config, sink).unwrap();
            session.push(&picture(0), at(0)).unwrap();
            is_standing.recv().unwrap();
            for n in 1..FRAMES {
                // Never waits, although the sink blocks.
                session.push(&picture(n), at(n)).unwrap();
            }
            let stats = session.stats_handle();
            go.send(()).unwrap();
            while stats.get().frames_encoded < 3 {
                std::thread::yield_now();
            }
            session.push(&picture(FRAMES), at(FRAMES)).unwrap();
            let report = session.finish().unwrap();
            assert_eq!((report.frames_in, report.frames_dropped), (13, 9), "{on_full:?}");
            assert_eq!(report.frames_encoded, 4);
            let video = decode(&path);
            let shown: Vec<_> = video.numbers().into_iter().flatten().collect();
            assert_eq!(shown, expected, "{on_full:?}");
            // A dropped frame leaves its time empty, at a constant rate too.
            let times: Vec<_> = expected.iter().map(|n| *n as u64 * 40_000_000).collect();
            let nanoseconds = video.pts.iter().map(|pts| pts * 1_000_000_000 / video.timescale);
            assert_eq!(nanoseconds.collect::<Vec<_>>(), times, "{on_full:?} {is_rate}");
        }
    }
}

#[test]
fn where_a_full_ring_is_an_error_it_is_one_and_what_was_taken_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mp4");
    let config = config().with_on_full(OnFull::Error);
    let (stands, is_standing) = mpsc::channel();
    let (go, told) = mpsc::channel();
    let sink = Mp4Sink::create(&path, &Mp4Options::default()).unwrap();
    let sink = Box::new(Slow { sink, stands, go: Some(told) });
    let mut session = Session::open(SIZE, &config, sink).unwrap();
    session.push(&picture(0), at(0)).unwrap();
    is_standing.recv().unwrap();
    session.push(&picture(1), at(1)).unwrap();
    session.push(&picture(2), at(2)).unwrap();
    let full = session.push(&picture(3), at(3)).unwrap_err();
    assert!(matches!(full, SessionError::Full { number: 3, slots: SLOTS }), "{full}");
    assert!(matches!(session.push(&picture(4), at(4)), Err(SessionError::Failed(_))));
    go.send(()).unwrap();
    let error = session.finish().unwrap_err();
    let text = error.to_string();
    assert!(text.contains("does not keep up") && text.contains("gpu.ring_buffer_size"), "{text}");
    let SessionError::Kept { part, .. } = error else { panic!("{text}") };
    assert!(text.contains(&part.to_string()) && !path.exists());
    assert_eq!(
        encoder_testbed::fixtures::decode::decode_fragmented(part.path().unwrap()).numbers(),
        (0..3).map(Some).collect::<Vec<_>>()
    );
}
