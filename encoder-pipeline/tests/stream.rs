//! The control of a stream: access units with their times, and key frames at requested frames.
#![allow(clippy::unwrap_used)]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    time::Duration,
};

use bytes::Bytes;
use encoder_core::{
    Backend, Caps, EncodeError, EncodedChunk, EncoderType, FailureKind, Frame, OpenRequest,
    PixelFormat, Plan, ProbeResult, Resolution, Settings, VideoEncoder, Waiter,
};
use encoder_pipeline::{
    mux::{AccessUnit, CallbackSink},
    session::{OnBadFrame, OnFull, Session, SessionConfig, VideoReport},
    source::{Payload, RawImage},
    timeline::FrameTimes,
};
use encoder_testbed::fixtures::{EPOCH, MS, decode::decode_stream, picture::Picture};

const SIZE: Resolution = Resolution::new(160, 120);

fn at(n: usize) -> FrameTimes {
    let n = n as i64;
    FrameTimes { header_ns: Some(EPOCH + n * 40 * MS), log_ns: EPOCH + n * 41 * MS }
}

fn picture(n: usize) -> Payload {
    let (data, step) = Picture::stamped(160, 120, n).raw("rgb8", 0);
    Payload::Raw(RawImage {
        encoding: "rgb8".into(),
        width: 160,
        height: 120,
        step,
        is_bigendian: false,
        data: data.into(),
    })
}

fn broken() -> Payload {
    Payload::Compressed { format: "jpeg".into(), data: Bytes::from_static(b"\xff\xd8\xff") }
}

fn config(order: &[EncoderType], gop_size: u32, b_frames: u8) -> SessionConfig {
    let mut settings = Settings::default();
    (settings.encoder.gop_size, settings.encoder.b_frames) = (gop_size, b_frames);
    SessionConfig::new(settings, Plan::new(order.to_vec(), vec![]))
}

/// The access units that a sink received.
type Units = Arc<Mutex<Vec<AccessUnit>>>;

fn recorder() -> (Units, Box<CallbackSink<impl FnMut(AccessUnit) + Send>>) {
    let units = Units::default();
    let log = Arc::clone(&units);
    (units, Box::new(CallbackSink(move |unit| log.lock().unwrap().push(unit))))
}

/// Frames whose pictures are IDR pictures.
fn key_frames(units: &Units) -> Vec<u64> {
    let units = units.lock().unwrap();
    units.iter().map(|unit| &unit.chunk).filter(|c| c.keyframe).map(|c| c.pts).collect()
}

#[test]
fn an_access_unit_has_the_times_of_its_frame() {
    // All frames are reserved at time 0 of a manual clock, which each access unit advances.
    let (go, wait) = mpsc::channel();
    let units = Units::default();
    let mut config = config(&[EncoderType::OPENH264], 30, 0);
    config.waiter = Waiter::manual();
    let sink = CallbackSink({
        let (units, waiter) = (Arc::clone(&units), config.waiter.clone());
        move |unit: AccessUnit| {
            if unit.chunk.pts == 0 {
                wait.recv().unwrap();
            }
            waiter.advance(Duration::from_secs(1));
            units.lock().unwrap().push(unit);
        }
    });
    let mut session = Session::open(SIZE, &config, Box::new(sink)).unwrap();
    for n in 0..8 {
        session.push(&picture(n), at(n)).unwrap();
    }
    go.send(()).unwrap();
    session.finish().unwrap();
    let units = units.lock().unwrap();
    assert_eq!(units.len(), 8);
    for (n, unit) in units.iter().enumerate() {
        assert_eq!(unit.chunk.pts, n as u64);
        assert_eq!(unit.times, at(n));
        assert_eq!(unit.display_ns, Some(n as u64 * 40_000_000));
        assert_eq!(unit.latency, Some(Duration::from_secs(n as u64)));
    }
}

#[test]
fn display_times_are_right_with_b_frames() {
    let (units, sink) = recorder();
    let config = config(&[EncoderType::X264], 30, 2);
    let mut session = Session::open(SIZE, &config, sink).unwrap();
    // A pause, and a stamp that cannot be true.
    let times = |n: usize| match n {
        12 => FrameTimes { header_ns: Some(3), ..at(n) },
        _ => at(if n < 20 { n } else { n + 50 }),
    };
    for n in 0..30 {
        session.push(&picture(n), times(n)).unwrap();
    }
    session.finish().unwrap();
    let mut units = units.lock().unwrap().clone();
    assert!(units.iter().any(|unit| unit.chunk.pts != unit.chunk.dts));
    units.sort_by_key(|unit| unit.chunk.pts);
    for (n, unit) in units.iter().enumerate() {
        assert_eq!(unit.times, times(n));
        let ms = match n {
            // By the distance of the other clock.
            12 => 11 * 40 + 41,
            _ => (if n < 20 { n } else { n + 50 }) * 40,
        };
        assert_eq!(unit.display_ns, Some(ms as u64 * 1_000_000), "frame {n}");
    }
}

#[test]
fn a_requested_key_frame_is_at_exactly_its_frame() {
    let mut table = vec![
        (EncoderType::OPENH264, "", 0),
        (EncoderType::X264, "mode = \"ffmpeg\"", 0),
        (EncoderType::X264, "mode = \"ffmpeg\"", 2),
        (EncoderType::X264, "mode = \"ffmpeg\"\ntune = \"zerolatency\"", 0),
    ];
    if cfg!(feature = "x264-native") {
        table.extend([
            (EncoderType::X264, "mode = \"native\"", 0),
            (EncoderType::X264, "mode = \"native\"", 3),
        ]);
    }
    for (encoder, options, b_frames) in table {
        let name = format!("{encoder} {options} {b_frames}");
        let mut config = config(&[encoder], 10, b_frames);
        config.settings.backend.insert(encoder.to_string(), options.parse().unwrap());
        let (units, sink) = recorder();
        let mut session = Session::open(SIZE, &config, sink).unwrap();
        for n in 0..40 {
            if n == 7 {
                session.request_key_frame();
            }
            let slot = session.reserve(at(n)).unwrap().unwrap();
            // Soon after another key frame, where the next GOP would begin, and the first frame.
            let slot = if [0, 12, 22, 23].contains(&n) { slot.key_frame() } else { slot };
            slot.fill(&picture(n)).unwrap();
        }
        let report = session.finish().unwrap();
        assert_eq!((report.frames_encoded, report.failovers), (40, vec![]), "{name}");
        assert_eq!(report.spans.len(), 1, "{name}");
        assert_eq!(key_frames(&units), [0, 7, 12, 22, 23, 33], "{name}");
        let file = tempfile::NamedTempFile::new().unwrap();
        let units = units.lock().unwrap();
        let stream: Vec<u8> = units.iter().flat_map(|unit| unit.chunk.data.clone()).collect();
        std::fs::write(file.path(), stream).unwrap();
        let numbers = decode_stream(file.path()).numbers();
        assert_eq!(numbers, (0..40).map(Some).collect::<Vec<_>>(), "{name}");
    }
}

const FORCING: EncoderType = EncoderType::new("forcing");
const PLAIN: EncoderType = EncoderType::new("plain");
const LYING: EncoderType = EncoderType::new("lying");
/// Adds an IDR picture at its ninth frame.
const CUTTING: EncoderType = EncoderType::new("cutting");
const LAST: EncoderType = EncoderType::new("last");
const DELAY: u64 = 3;

macro_rules! register {
    ($($id:ident),*) => {$(
        encoder_core::inventory::submit! {
            Backend::new($id, |request| Ok(Box::new(Counting::open($id, request))))
                .rank(|_| 1000)
                .check_options(|_| Ok(()))
                .probe(|_, _| ProbeResult::Usable(Caps::default()))
                .max_delay(|_| DELAY as usize)
        }
    )*};
}
register!(FORCING, PLAIN, LYING, CUTTING, LAST);

fn number(request: &OpenRequest<'_>, key: &str) -> Option<u64> {
    request.options.get(key)?.as_integer()?.try_into().ok()
}

/// How often encoders of each run were opened.
static OPENED: Mutex<Vec<(u64, EncoderType)>> = Mutex::new(Vec::new());

/// Returns each access unit [`DELAY`] frames later, its name as data. Fails once at the frame
/// `fails_at` of its table.
struct Counting {
    id: EncoderType,
    run: u64,
    gop_size: u64,
    fails_at: Option<u64>,
    taken: u64,
    since_idr: u64,
    waiting: Vec<EncodedChunk>,
}

impl Counting {
    fn open(id: EncoderType, request: &OpenRequest<'_>) -> Self {
        let run = number(request, "run").unwrap();
        let mut opened = OPENED.lock().unwrap();
        let is_first = !opened.contains(&(run, id));
        opened.push((run, id));
        Self {
            id,
            run,
            gop_size: request.config.gop_size.into(),
            fails_at: number(request, "fails_at").filter(|_| is_first),
            taken: 0,
            since_idr: 0,
            waiting: Vec::new(),
        }
    }
}

impl VideoEncoder for Counting {
    fn encode_frame(&mut self, frame: &Frame<'_>) -> Result<Option<EncodedChunk>, EncodeError> {
        assert!(!frame.force_idr || self.can_force_idr(), "run {}", self.run);
        if self.fails_at == Some(frame.index) {
            let kind = FailureKind::Died;
            return Err(EncodeError::failed(self.id, self.taken, kind, "it was unplugged"));
        }
        let keyframe = self.since_idr.is_multiple_of(self.gop_size)
            || (frame.force_idr && self.id != LYING)
            || (self.id == CUTTING && self.taken == 8);
        self.since_idr = if keyframe { 1 } else { self.since_idr + 1 };
        let data = self.id.as_str().into();
        self.waiting.push(EncodedChunk { data, pts: frame.index, dts: self.taken, keyframe });
        self.taken += 1;
        Ok((self.waiting.len() as u64 > DELAY).then(|| self.waiting.remove(0)))
    }

    fn flush(&mut self) -> Result<Vec<EncodedChunk>, EncodeError> {
        Ok(std::mem::take(&mut self.waiting))
    }

    fn encoder_type(&self) -> EncoderType {
        self.id
    }
    fn description(&self) -> String {
        "counts".into()
    }
    fn pixel_format(&self) -> PixelFormat {
        PixelFormat::Yuv420p
    }
    fn can_force_idr(&self) -> bool {
        [FORCING, LYING].contains(&self.id)
    }
}

/// A session of 30 frames with GOPs of this length, in which key frames are requested.
fn play(
    (gop_size, order): (u32, &[EncoderType]),
    fails_at: i64,
    requests: &[usize],
) -> (VideoReport, Units, String) {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    let run = RUNS.fetch_add(1, SeqCst);
    let mut config = config(order, gop_size, 0);
    config.waiter = Waiter::manual();
    config.settings.gpu.enable_ring_buffer = false;
    for (n, id) in order.iter().enumerate() {
        let fails_at = if n == 0 { fails_at } else { -1 };
        let table = format!("run = {run}\nfails_at = {fails_at}");
        config.settings.backend.insert(id.to_string(), table.parse().unwrap());
    }
    let (units, sink) = recorder();
    let mut session = Session::open(SIZE, &config, sink).unwrap();
    for n in 0..30 {
        if requests.contains(&n) {
            session.request_key_frame();
        }
        session.push(&picture(n), at(n)).unwrap();
    }
    let report = session.finish().unwrap();
    let opened = OPENED.lock().unwrap();
    let opened: Vec<_> =
        opened.iter().filter(|(of, _)| *of == run).map(|(_, id)| id.as_str()).collect();
    (report, units, opened.join(" "))
}

#[test]
fn an_encoder_of_key_frames_alone_is_not_opened_again() {
    let (_, units, opened) = play((1, &[PLAIN]), -1, &[3, 4]);
    assert_eq!(units.lock().unwrap().iter().filter(|unit| unit.chunk.keyframe).count(), 30);
    assert_eq!(opened, "plain");
}

#[test]
fn a_request_outlives_the_loss_of_the_encoder() {
    // Encoders, the frame at which the first one fails, requests | key frames, encoders opened.
    type Row<'a> = (&'a [EncoderType], i64, &'a [usize], &'a [u64], &'a str);
    let table: &[Row<'_>] = &[
        (&[FORCING], -1, &[13], &[0, 10, 13, 23], "forcing"),
        (&[PLAIN], -1, &[13], &[0, 10, 13, 23], "plain plain"),
        // At its first frame the encoder stays.
        (&[PLAIN], -1, &[0], &[0, 10, 20], "plain"),
        // Where a GOP would begin: an encoder may have added an IDR picture, and counts from there.
        (&[PLAIN], -1, &[10, 20], &[0, 10, 20], "plain plain plain"),
        (&[CUTTING], -1, &[10], &[0, 8, 10, 18, 28], "cutting cutting"),
        (&[CUTTING], -1, &[18], &[0, 8, 18, 26], "cutting cutting"),
        // It is lost when it has the frame, and has not returned its access unit.
        (&[FORCING], 15, &[13], &[0, 10, 12, 13, 23], "forcing forcing"),
        (&[PLAIN], 15, &[13], &[0, 10, 13, 23], "plain plain"),
        // It is lost at the frame.
        (&[FORCING], 13, &[13], &[0, 10, 13, 23], "forcing forcing"),
        // It ignores the request: it is opened again at that frame.
        (&[LYING, LAST], -1, &[13], &[0, 10, 13, 23], "lying lying"),
    ];
    for (order, fails_at, requests, expected, opened) in table {
        let (report, units, got) = play((10, order), *fails_at, requests);
        let name = format!("{order:?} {fails_at} {requests:?}: {got}");
        assert_eq!(report.frames_encoded, 30, "{name}");
        let numbers: Vec<_> = units.lock().unwrap().iter().map(|unit| unit.chunk.pts).collect();
        assert_eq!(numbers, (0..30).collect::<Vec<_>>(), "{name}");
        assert_eq!(key_frames(&units), *expected, "{name}");
        assert_eq!(got, *opened, "{name}");
    }
}

#[test]
fn a_request_outlives_a_frame_that_is_left_out() {
    for (skip, expected) in [(OnBadFrame::Skip, [0, 4]), (OnBadFrame::Repeat, [0, 5])] {
        let config = config(&[EncoderType::OPENH264], 30, 0).with_on_bad_frame(skip);
        let (units, sink) = recorder();
        let mut session = Session::open(SIZE, &config, sink).unwrap();
        for n in 0..12 {
            let is_bad = [3, 5].contains(&n);
            let slot = session.reserve(at(n)).unwrap().unwrap();
            let slot = if n == 5 { slot.key_frame() } else { slot };
            slot.fill(&if is_bad { broken() } else { picture(n) }).unwrap();
        }
        session.finish().unwrap();
        assert_eq!(key_frames(&units), expected, "{skip:?}");
    }
}

#[test]
fn a_request_outlives_a_dropped_frame() {
    for on_full in [OnFull::DropNewest, OnFull::DropOldest] {
        let (go, wait) = mpsc::channel::<()>();
        let (stands, standing) = mpsc::channel();
        let units = Units::default();
        let log = Arc::clone(&units);
        let sink = CallbackSink(move |unit: AccessUnit| {
            if unit.chunk.pts == 0 {
                stands.send(()).unwrap();
                wait.recv().unwrap();
            }
            log.lock().unwrap().push(unit);
        });
        let config = config(&[EncoderType::OPENH264], 600, 0).with_on_full(on_full);
        let mut session = Session::open(SIZE, &config, Box::new(sink)).unwrap();
        session.push(&picture(0), at(0)).unwrap();
        standing.recv().unwrap();
        // The encoder reads nothing: a request in each frame, until frames are dropped.
        let stats = session.stats_handle();
        let mut n = 1;
        while stats.get().frames_dropped < 3 {
            if on_full == OnFull::DropOldest && n == 1 {
                session.request_key_frame();
            }
            session.push(&picture(n), at(n)).unwrap();
            n += 1;
        }
        if on_full == OnFull::DropNewest {
            session.request_key_frame();
            session.push(&picture(n), at(n)).unwrap();
        }
        go.send(()).unwrap();
        // Waits until a frame finds a slot, and is not dropped.
        let before = loop {
            let dropped = stats.get().frames_dropped;
            session.push(&picture(n), at(n)).unwrap();
            if stats.get().frames_dropped == dropped {
                break dropped;
            }
        };
        let report = session.finish().unwrap();
        assert!(report.frames_dropped >= before);
        let keys = key_frames(&units);
        assert_eq!(keys.len(), 2, "{on_full:?}: {keys:?}");
        match on_full {
            OnFull::DropNewest => assert_eq!(keys[1], report.frames_encoded - 1),
            // The first frame behind the gap.
            _ => {
                assert_eq!(keys[1], 1);
                assert!(units.lock().unwrap()[1].times != at(1));
            }
        }
    }
}
