//! No configuration deadlocks the ring, and no frame is lost: random delays, reorderings, rings,
//! broken frames and losses of the encoder, on encoders that only count.
#![allow(clippy::unwrap_used)]

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use bytes::Bytes;
use encoder_core::{
    Backend, EncodeError, EncodedChunk, EncoderType, FailureKind, Frame, OpenRequest, PixelFormat,
    Plan, Resolution, Settings, VideoEncoder,
};
use encoder_pipeline::{
    mux::{AccessUnit, CallbackSink},
    session::{OnBadFrame, Session, SessionConfig, SessionError},
    source::{Payload, RawImage},
    timeline::FrameTimes,
};
use proptest::prelude::*;

const SIZE: Resolution = Resolution::new(16, 16);
const ALPHA: EncoderType = EncoderType::new("alpha");
const BETA: EncoderType = EncoderType::new("beta");

macro_rules! register {
    ($($id:ident $format:ident),*) => {$(
        encoder_core::inventory::submit! {
            Backend::new($id, |request| {
                Ok(Box::new(Counting::open($id, PixelFormat::$format, request)))
            })
            .check_options(|_| Ok(()))
            .max_delay(|request| number(request, "delay"))
        }
    )*};
}
register!(ALPHA Yuv420p, BETA Nv12);

fn number(request: &OpenRequest<'_>, key: &str) -> usize {
    request.options.get(key).and_then(|value| value.as_integer()).unwrap_or_default() as usize
}

/// How often each run's encoders have failed, by the run's number.
static FAILED: Mutex<Option<HashMap<(EncoderType, usize), usize>>> = Mutex::new(None);

/// Holds exactly its declared number of frames, and returns access units in groups like those with
/// B-frames: the last frame of a group first.
struct Counting {
    id: EncoderType,
    format: PixelFormat,
    delay: usize,
    b_frames: usize,
    /// Fails at each multiple of this number, up to the given number of times.
    every: usize,
    times: usize,
    run: usize,
    base: Option<u64>,
    group: Vec<u64>,
    /// In decoding order.
    ready: std::collections::VecDeque<u64>,
    given: u64,
}

impl Counting {
    fn open(id: EncoderType, format: PixelFormat, request: &OpenRequest<'_>) -> Self {
        Self {
            id,
            format,
            delay: number(request, "delay"),
            b_frames: usize::from(request.config.b_frames),
            every: number(request, "every"),
            times: number(request, "times"),
            run: number(request, "run"),
            base: None,
            group: Vec::new(),
            ready: Default::default(),
            given: 0,
        }
    }

    fn chunk(&mut self, pts: u64) -> EncodedChunk {
        let dts = self.given;
        self.given += 1;
        EncodedChunk { data: vec![1], pts, dts, keyframe: Some(pts) == self.base }
    }

    fn fails(&self, index: u64) -> bool {
        if self.every == 0 || !(index + 1).is_multiple_of(self.every as u64) {
            return false;
        }
        let mut failed = FAILED.lock().unwrap();
        let count = failed.get_or_insert_default().entry((self.id, self.run)).or_default();
        *count += 1;
        *count <= self.times
    }

    fn close_group(&mut self) {
        if let Some(last) = self.group.pop() {
            self.ready.push_back(last);
            self.ready.extend(self.group.drain(..));
        }
    }
}

impl VideoEncoder for Counting {
    fn encode_frame(&mut self, frame: &Frame<'_>) -> Result<Option<EncodedChunk>, EncodeError> {
        assert_eq!(frame.format, self.format);
        let index = frame.index;
        if self.fails(index) {
            let message = "lost".into();
            let kind = FailureKind::Failed;
            return Err(EncodeError::Failed { encoder: self.id, index, kind, message });
        }
        let base = *self.base.get_or_insert(index);
        self.group.push(index);
        if index == base || self.group.len() > self.b_frames {
            self.close_group();
        }
        // Frames without a returned access unit, including this frame.
        let inside = index + 1 - base - self.given;
        let is_due = inside > self.delay as u64 && !self.ready.is_empty();
        let next = if is_due { self.ready.pop_front() } else { None };
        Ok(next.map(|pts| self.chunk(pts)))
    }

    fn flush(&mut self) -> Result<Vec<EncodedChunk>, EncodeError> {
        self.close_group();
        let rest: Vec<_> = self.ready.drain(..).collect();
        Ok(rest.into_iter().map(|pts| self.chunk(pts)).collect())
    }

    fn encoder_type(&self) -> EncoderType {
        self.id
    }
    fn description(&self) -> String {
        "counts".into()
    }
    fn pixel_format(&self) -> PixelFormat {
        self.format
    }
}

#[derive(Clone, Debug)]
struct Case {
    delays: [usize; 2],
    b_frames: u8,
    ring: Option<usize>,
    frames: usize,
    /// Which frames are broken, by a bit pattern over their numbers.
    broken: u64,
    skip: bool,
    /// After how many frames each encoder fails, and how often.
    every: [usize; 2],
    times: [usize; 2],
}

fn case() -> impl Strategy<Value = Case> {
    let delay = || prop_oneof![Just(0), 1usize..4, 4usize..50];
    (
        [delay(), delay()],
        0u8..5,
        prop::option::of(2usize..80),
        1usize..160,
        prop_oneof![3 => Just(0u64), 2 => any::<u64>(), 1 => Just(u64::MAX >> 1)],
        any::<bool>(),
        [prop_oneof![Just(0), 1usize..60], prop_oneof![2 => Just(0), 1 => 1usize..60]],
        [0usize..9, 0usize..3],
    )
        .prop_map(|(delays, b_frames, ring, frames, broken, skip, every, times)| Case {
            delays,
            b_frames,
            ring,
            frames,
            broken,
            skip,
            every,
            times,
        })
}

fn payload(is_broken: bool) -> Payload {
    if is_broken {
        return Payload::Compressed { format: "jpeg".into(), data: Bytes::new() };
    }
    Payload::Raw(RawImage {
        encoding: "mono8".into(),
        width: 16,
        height: 16,
        step: 16,
        is_bigendian: false,
        data: Bytes::from(vec![9; 256]),
    })
}

fn is_broken(case: &Case, n: usize) -> bool {
    case.broken >> (n % 64) & 1 == 1
}

/// The frames of the video in decoding order, with their stamps; how often the encoder was lost.
fn run(case: &Case) -> (Vec<(u64, i64)>, usize) {
    static RUNS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let run = RUNS.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    let mut settings = Settings::default();
    settings.encoder.b_frames = case.b_frames;
    settings.encoder.gop_size = 600;
    settings.gpu.enable_ring_buffer = case.ring.is_some();
    settings.gpu.ring_buffer_size = case.ring.unwrap_or(2);
    let b_frames = usize::from(case.b_frames);
    for (n, id) in [ALPHA, BETA].into_iter().enumerate() {
        let delay = case.delays[n].max(b_frames);
        let table = format!(
            "delay = {delay}\nevery = {}\ntimes = {}\nrun = {run}",
            case.every[n], case.times[n]
        );
        settings.backend.insert(id.to_string(), table.parse().unwrap());
    }
    let mut config = SessionConfig::new(settings, Plan::new(vec![ALPHA, BETA], vec![]));
    config.on_bad_frame = if case.skip { OnBadFrame::Skip } else { OnBadFrame::Repeat };
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let sink = CallbackSink(move |AccessUnit { chunk, times, .. }: AccessUnit| {
        log.lock().unwrap().push((chunk.pts, times.log_ns));
    });
    let mut session = Session::open(SIZE, &config, Box::new(sink)).unwrap();
    for n in 0..case.frames {
        session.push(&payload(is_broken(case, n)), FrameTimes::at(n as i64)).unwrap();
    }
    let report = match session.finish() {
        Err(SessionError::Empty(report)) => *report,
        finished => finished.unwrap(),
    };
    let seen = seen.lock().unwrap().clone();
    assert_eq!(report.frames_encoded, seen.len() as u64);
    (seen, report.failovers.len())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_frame_comes_out_once_whatever_the_sizes(case in case()) {
        let (done, ended) = mpsc::channel();
        let of_thread = case.clone();
        std::thread::spawn(move || done.send(run(&of_thread)));
        let ended = ended.recv_timeout(Duration::from_secs(60));
        let (mut seen, _) = ended.map_err(|e| TestCaseError::fail(format!("it hangs: {e}")))?;
        // At the end of each group, the access units written so far are complete in display order.
        let mut end = 0;
        for (count, (pts, _)) in (1..).zip(&seen) {
            end = end.max(pts + 1);
            prop_assert!(end <= count + u64::from(case.b_frames));
        }
        seen.sort_unstable();
        let good: Vec<_> = (0..case.frames).filter(|n| !is_broken(&case, *n)).collect();
        let expected: Vec<usize> = match (case.skip, good.is_empty()) {
            (_, true) => Vec::new(),
            (true, _) => good,
            (false, _) => (0..case.frames).collect(),
        };
        let expected: Vec<_> = (0..).zip(expected.into_iter().map(|n| n as i64)).collect();
        prop_assert_eq!(seen, expected);
    }
}
