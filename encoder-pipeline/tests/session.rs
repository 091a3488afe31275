//! The library from a user's view: sessions, sinks, and encoders that violate their contract.
#![allow(clippy::unwrap_used)]

use std::{
    path::Path,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use bytes::Bytes;
use encoder_core::{
    Backend, EncodeError, EncodedChunk, EncoderType, FailureKind, Frame, OpenRequest, PixelFormat,
    Plan, Resolution, Settings, VideoEncoder,
};
use encoder_pipeline::{
    mux::{AccessUnit, CallbackSink, Finished, Location, Mp4Options, Mp4Sink, Sink, SinkError},
    session::{OnBadFrame, Session, SessionConfig, SessionError},
    source::{Payload, RawImage},
    timeline::{FrameTimes, Timeline},
};
use encoder_testbed::{
    fixtures::{
        EPOCH, MS,
        decode::{decode, decode_fragmented},
        entries,
        picture::Picture,
    },
    process::until,
};

const SIZE: Resolution = Resolution::new(160, 120);

fn config(encoder: EncoderType) -> SessionConfig {
    let mut settings = Settings::default();
    settings.encoder.b_frames = if encoder == DELAYED { 2 } else { 0 };
    SessionConfig::new(settings, Plan::new(vec![encoder], vec![]))
}

fn small_ring(encoder: EncoderType) -> SessionConfig {
    let mut config = config(encoder);
    config.settings.gpu.enable_ring_buffer = false;
    config
}

fn at(n: usize) -> FrameTimes {
    FrameTimes::at(EPOCH + n as i64 * 40 * MS)
}

fn picture(n: usize) -> Payload {
    let picture = Picture::stamped(160, 120, n);
    let (data, step) = picture.raw("bgr8", 32);
    Payload::Raw(RawImage {
        encoding: "bgr8".into(),
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

fn mp4(path: &Path) -> Box<dyn Sink> {
    Box::new(Mp4Sink::create(path, &Mp4Options::default()).unwrap())
}

/// Runs `work` on a thread of its own; fails if it hangs.
fn within<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || send.send(work()));
    let result = receive.recv_timeout(Duration::from_secs(60));
    result.unwrap_or_else(|e| panic!("{what}: hangs or panicked ({e})"))
}

#[test]
fn pictures_pushed_with_their_stride_become_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.mp4");
    let mut session = Session::open(SIZE, &config(EncoderType::OPENH264), mp4(&path)).unwrap();
    assert_eq!(session.encoder(), EncoderType::OPENH264);
    assert_eq!((session.layout().width, session.layout().height), (160, 120));
    for n in 0..20 {
        session.push(&picture(n), at(n)).unwrap();
    }
    let report = session.finish().unwrap();
    assert_eq!(report.file, Some(Location::from(&path)));
    assert_eq!((report.frames_in, report.frames_encoded), (20, 20));
    assert_eq!(report.encoder, EncoderType::OPENH264);
    assert_eq!((report.first_ns, report.last_ns), (Some(EPOCH), Some(EPOCH + 19 * 40 * MS)));
    let video = decode(&path);
    assert_eq!(video.numbers(), (0..20).map(Some).collect::<Vec<_>>());
    assert_eq!(video.nanoseconds(), (0..20).map(|n| n * 40_000_000).collect::<Vec<_>>());
    assert_eq!(entries(directory.path()), ["a.mp4"]);
}

#[test]
fn a_callback_gets_every_access_unit_as_it_comes() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = CallbackSink({
        let seen = Arc::clone(&seen);
        move |AccessUnit { chunk, times, .. }: AccessUnit| {
            seen.lock().unwrap().push((chunk.pts, chunk.keyframe, times.header_ns, chunk.data));
        }
    });
    let mut session = Session::open(SIZE, &config(EncoderType::OPENH264), Box::new(sink)).unwrap();
    for n in 0..35 {
        session.push(&picture(n), at(n)).unwrap();
    }
    let report = session.finish().unwrap();
    assert_eq!(report.file, None);
    let seen = seen.lock().unwrap();
    assert_eq!(seen.iter().map(|s| s.0).collect::<Vec<_>>(), (0..35).collect::<Vec<_>>());
    for (n, (_, keyframe, stamp, data)) in seen.iter().enumerate() {
        assert_eq!(*keyframe, n % 30 == 0, "frame {n}");
        assert_eq!(*stamp, at(n).header_ns);
        assert!(data.starts_with(&[0, 0, 0, 1]));
    }
    assert_eq!(report.bytes_out, seen.iter().map(|s| s.3.len() as u64).sum::<u64>());
}

#[test]
fn frames_are_pushed_from_a_task() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.mp4");
    let sink = mp4(&path);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut session = Session::open(SIZE, &small_ring(EncoderType::OPENH264), sink).unwrap();
        for n in 0..25 {
            session.push_async(&picture(n), at(n)).await.unwrap();
        }
        session.finish().unwrap();
    });
    assert_eq!(decode(&path).numbers(), (0..25).map(Some).collect::<Vec<_>>());
}

#[test]
fn a_wait_for_a_place_does_not_block_the_executor() {
    // The sink blocks until a second task has run on the same thread.
    let (go, wait) = mpsc::channel::<()>();
    let mut stopped = Some(wait);
    let sink = CallbackSink(move |_: AccessUnit| {
        if let Some(wait) = stopped.take() {
            wait.recv().unwrap();
        }
    });
    let encoded = within("push_async", move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut session =
                Session::open(SIZE, &small_ring(EncoderType::OPENH264), Box::new(sink)).unwrap();
            let pushes = async {
                for n in 0..20 {
                    session.push_async(&picture(n), at(n)).await.unwrap();
                }
            };
            tokio::join!(pushes, async { go.send(()).unwrap() });
            session.finish().unwrap().frames_encoded
        })
    });
    assert_eq!(encoded, 20);
}

#[test]
fn slots_are_filled_out_of_order_on_other_threads() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.mp4");
    let mut session = Session::open(SIZE, &config(EncoderType::OPENH264), mp4(&path)).unwrap();
    for group in 0..4 {
        let slots: Vec<_> = (0..4)
            .map(|k| (group * 4 + k, session.reserve(at(group * 4 + k)).unwrap().unwrap()))
            .collect();
        std::thread::scope(|scope| {
            for (n, slot) in slots.into_iter().rev() {
                scope.spawn(move || match n {
                    5 => slot.fail("lost on the way"),
                    6 => slot.numbered(60).times_in_a_row(2).fill(&picture(n)).unwrap(),
                    _ => slot.fill(&picture(n)).unwrap(),
                });
            }
        });
    }
    let report = session.finish().unwrap();
    assert_eq!(report.failures, [(5, "lost on the way".to_string())]);
    assert_eq!((report.frames_in, report.frames_encoded), (16, 17));
    assert_eq!((report.frames_repeated, report.frames_failed), (2, 1));
    let mut wanted: Vec<_> = (0..16).collect();
    wanted[5] = 4;
    wanted.insert(6, 6);
    assert_eq!(decode(&path).numbers(), wanted.into_iter().map(Some).collect::<Vec<_>>());
}

#[test]
fn bad_frames_follow_the_policy() {
    let table = [
        (OnBadFrame::Repeat, Some(vec![1, 1, 1, 3, 3, 3])),
        (OnBadFrame::Skip, Some(vec![1, 3])),
        (OnBadFrame::Fail, None),
    ];
    for (policy, numbers) in table {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.mp4");
        let mut config = small_ring(EncoderType::OPENH264);
        config.on_bad_frame = policy;
        let mut session = Session::open(SIZE, &config, mp4(&path)).unwrap();
        for n in 0..6 {
            let payload = if matches!(n, 1 | 3) { picture(n) } else { broken() };
            match session.push(&payload, at(n)) {
                Ok(()) => {}
                Err(SessionError::Failed(_)) if numbers.is_none() => break,
                Err(e) => panic!("{e}"),
            }
        }
        match (session.finish(), numbers) {
            (Ok(report), Some(numbers)) => {
                let count = numbers.len();
                let shown = decode(&path).numbers();
                assert_eq!(shown, numbers.into_iter().map(Some).collect::<Vec<_>>());
                assert_eq!(report.frames_encoded, count as u64);
                assert_eq!((report.frames_in, report.frames_failed), (6, 4));
                assert_eq!(report.frames_repeated, count as u64 - 2);
            }
            (Err(SessionError::BadFrame { number: 0, .. }), None) => {
                assert_eq!(entries(directory.path()), Vec::<String>::new());
            }
            (other, _) => panic!("{policy:?}: {other:?}"),
        }
    }
}

#[test]
fn a_session_without_a_good_frame_makes_no_file() {
    for (good, count) in [(false, 3), (false, 0)] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.mp4");
        let mut session = Session::open(SIZE, &config(EncoderType::OPENH264), mp4(&path)).unwrap();
        for n in 0..count {
            session.push(&broken(), at(n)).unwrap();
        }
        let error = session.finish().unwrap_err();
        let SessionError::Empty(report) = error else { panic!("{error}") };
        assert_eq!((report.file.is_some(), report.frames_encoded), (good, 0));
        assert_eq!(report.frames_failed, count as u64);
        assert_eq!(entries(directory.path()), Vec::<String>::new());
    }
}

#[test]
fn a_session_that_is_dropped_leaves_nothing() {
    for encoder in [EncoderType::OPENH264, DELAYED] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.mp4");
        let mut session = Session::open(SIZE, &config(encoder), mp4(&path)).unwrap();
        for n in 0..30 {
            session.push(&picture(n), at(n)).unwrap();
        }
        // A slot that is still being filled.
        let slot = session.reserve(at(30)).unwrap().unwrap();
        drop(session);
        until_empty(directory.path());
        slot.fill(&picture(30)).unwrap();

        let mut session = Session::open(SIZE, &config(encoder), mp4(&path)).unwrap();
        session.push(&picture(0), at(0)).unwrap();
        let slot = session.reserve(at(1)).unwrap();
        drop(session.close());
        until_empty(directory.path());
        drop(slot);
        assert_eq!(entries(directory.path()), Vec::<String>::new(), "{encoder}");
    }
}

/// Waits until the sink of a dropped session has removed its file: the session's thread may have
/// been inside a write.
fn until_empty(directory: &Path) {
    until(&format!("{} is empty", directory.display()), || entries(directory).is_empty());
}

#[test]
fn a_frame_whose_decoder_vanished_fails_the_session() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.mp4");
    let mut session = Session::open(SIZE, &config(EncoderType::OPENH264), mp4(&path)).unwrap();
    session.push(&picture(0), at(0)).unwrap();
    drop(session.reserve(at(1)).unwrap());
    let error = session.finish().unwrap_err();
    let text = error.to_string();
    assert!(text.contains("slot of frame 1 was dropped") && text.contains("a.mp4.part"), "{text}");
    // Earlier frames are kept, under another name.
    let SessionError::Kept { part, .. } = error else { panic!("{text}") };
    assert_eq!(decode_fragmented(part.path().unwrap()).numbers(), [Some(0)]);
    assert_eq!(entries(directory.path()), ["a.mp4.part"]);
}

#[test]
fn several_sessions_run_side_by_side() {
    let directory = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for k in 0..6 {
            let path = directory.path().join(format!("{k}.mp4"));
            scope.spawn(move || {
                let config = small_ring(EncoderType::OPENH264);
                let mut session = Session::open(SIZE, &config, mp4(&path)).unwrap();
                for n in 0..12 {
                    session.push(&picture(100 * k + n), at(n)).unwrap();
                }
                session.finish().unwrap();
            });
        }
    });
    for k in 0..6 {
        let video = decode(&directory.path().join(format!("{k}.mp4")));
        assert_eq!(video.numbers(), (0..12).map(|n| Some(100 * k + n)).collect::<Vec<_>>());
    }
}

#[test]
fn a_size_that_no_encoder_takes_is_refused_with_reasons() {
    let sink = CallbackSink(|_: AccessUnit| {});
    let size = Resolution::new(5000, 5000);
    let opened = Session::open(size, &config(EncoderType::OPENH264), Box::new(sink));
    let error = opened.err().unwrap().to_string();
    assert!(error.contains("openh264") && error.contains("5000x5000"), "{error}");
}

// --- Encoders that this test registers itself, as an external crate may. ---

/// Fails at frame [`FAILS_AT`].
const FAILING: EncoderType = EncoderType::new("failing");
/// Panics at frame [`FAILS_AT`].
const PANICKING: EncoderType = EncoderType::new("panicking");
/// Holds [`DELAY`] frames, and returns them in an order as with two B-frames.
const DELAYED: EncoderType = EncoderType::new("delayed");
/// Omits the access unit of a frame.
const FORGETFUL: EncoderType = EncoderType::new("forgetful");
/// Returns a frame twice.
const DOUBLING: EncoderType = EncoderType::new("doubling");
/// Returns frames that were not passed in.
const INVENTING: EncoderType = EncoderType::new("inventing");

const FAILS_AT: u64 = 9;
const DELAY: usize = 40;

macro_rules! register {
    ($($id:ident),*) => {$(
        encoder_core::inventory::submit! {
            Backend::new($id, |request| Ok(Box::new(Fake::open($id, request))))
                .max_delay(|_| delay($id))
        }
    )*};
}
register!(FAILING, PANICKING, DELAYED, FORGETFUL, DOUBLING, INVENTING);

struct Fake {
    id: EncoderType,
    base: Option<u64>,
    taken: u64,
    given: u64,
    /// Indices in decoding order.
    ready: Vec<u64>,
    group: Vec<u64>,
}

impl Fake {
    fn open(id: EncoderType, _request: &OpenRequest<'_>) -> Self {
        Self { id, base: None, taken: 0, given: 0, ready: Vec::new(), group: Vec::new() }
    }

    fn chunk(&mut self, pts: u64) -> EncodedChunk {
        let dts = self.given;
        self.given += 1;
        let data = [&[0, 0, 0, 1, 0x41][..], &pts.to_be_bytes()].concat();
        EncodedChunk { data, pts, dts, keyframe: Some(pts) == self.base }
    }

    /// I B B P: the P precedes the two B-frames that are displayed before it.
    fn reorder(&mut self, index: u64) {
        self.group.push(index);
        if Some(index) == self.base || self.group.len() == 3 {
            let last = self.group.pop();
            self.ready.extend(last);
            self.ready.append(&mut self.group);
        }
    }
}

impl VideoEncoder for Fake {
    fn encode_frame(&mut self, frame: &Frame<'_>) -> Result<Option<EncodedChunk>, EncodeError> {
        let index = frame.index;
        let base = *self.base.get_or_insert(index);
        assert_eq!(index, base + self.taken, "frames come in order, without gaps");
        self.taken += 1;
        match self.id {
            FAILING if index == FAILS_AT => Err(EncodeError::Failed {
                encoder: self.id,
                index,
                kind: FailureKind::Failed,
                message: "the device was unplugged".into(),
            }),
            PANICKING if index == FAILS_AT => panic!("a test's encoder panics"),
            FORGETFUL if index == FAILS_AT => Ok(None),
            DOUBLING if index == FAILS_AT => Ok(Some(self.chunk(index - 1))),
            INVENTING if index == FAILS_AT => Ok(Some(self.chunk(index + 5))),
            DELAYED => {
                self.reorder(index);
                let full = self.ready.len() + self.group.len() > DELAY;
                Ok(full.then(|| self.ready.remove(0)).map(|pts| self.chunk(pts)))
            }
            _ => Ok(Some(self.chunk(index))),
        }
    }

    fn flush(&mut self) -> Result<Vec<EncodedChunk>, EncodeError> {
        let mut rest = std::mem::take(&mut self.ready);
        rest.append(&mut self.group);
        Ok(rest.into_iter().map(|pts| self.chunk(pts)).collect())
    }

    fn encoder_type(&self) -> EncoderType {
        self.id
    }

    fn description(&self) -> String {
        "a test".into()
    }

    fn pixel_format(&self) -> PixelFormat {
        PixelFormat::Nv12
    }
}

fn delay(id: EncoderType) -> usize {
    if id == DELAYED { DELAY } else { 0 }
}

/// A sink that stores the access units, and the times that the timeline assigns.
#[derive(Default)]
struct Recorder {
    chunks: Vec<u64>,
    log: Arc<Mutex<(Vec<u64>, Vec<u64>)>>,
}

impl Sink for Recorder {
    fn write(&mut self, unit: AccessUnit) -> Result<(), SinkError> {
        let AccessUnit { chunk, times, .. } = unit;
        assert_eq!(times.header_ns, at(chunk.pts as usize).header_ns);
        self.chunks.push(chunk.pts);
        Ok(())
    }

    fn finish(self: Box<Self>, layout: &Timeline) -> Result<Finished, SinkError> {
        let mut ticks = layout.ticks();
        let ticks = (0..self.chunks.len()).map(|n| ticks.next(&at(n))).collect();
        *self.log.lock().unwrap() = (self.chunks, ticks);
        Ok(Finished::default())
    }
}

#[test]
fn a_ring_smaller_than_the_delay_of_the_encoder_does_not_lock() {
    for bad in [false, true] {
        let log = Arc::new(Mutex::new((Vec::new(), Vec::new())));
        let sink = Recorder { log: Arc::clone(&log), ..Recorder::default() };
        let report = within("delayed", move || {
            let mut session = Session::open(SIZE, &small_ring(DELAYED), Box::new(sink)).unwrap();
            for n in 0..100 {
                // Broken frames, replaced by another picture: the first frames, and many in a row.
                let is_bad = bad && (n < 3 || (30..90).contains(&n));
                let payload = if is_bad { broken() } else { picture(n) };
                session.push(&payload, at(n)).unwrap();
            }
            session.finish().unwrap()
        });
        assert_eq!(report.frames_encoded, 100);
        let (order, ticks) = log.lock().unwrap().clone();
        assert_eq!(order[..7], [0, 3, 1, 2, 6, 4, 5], "decoding order");
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
        assert_eq!(ticks, (0..100).map(|n| n * 40_000_000).collect::<Vec<_>>(), "display order");
    }
}

#[test]
fn frames_left_out_do_not_fill_the_ring_of_an_encoder_that_looks_ahead() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let sink = CallbackSink(move |AccessUnit { chunk, times, .. }: AccessUnit| {
        log.lock().unwrap().push((chunk.pts, times));
    });
    let report = within("skip", move || {
        let config = small_ring(DELAYED).with_on_bad_frame(OnBadFrame::Skip);
        let mut session = Session::open(SIZE, &config, Box::new(sink)).unwrap();
        for n in 0..100 {
            let payload = if (1..60).contains(&n) { broken() } else { picture(n) };
            session.push(&payload, at(n)).unwrap();
        }
        session.finish().unwrap()
    });
    assert_eq!((report.frames_encoded, report.frames_failed), (41, 59));
    let mut seen = seen.lock().unwrap().clone();
    seen.sort_unstable_by_key(|(pts, _)| *pts);
    let good = std::iter::once(0).chain(60..100).map(at);
    assert_eq!(seen, (0..).zip(good).collect::<Vec<_>>());
}

#[test]
fn an_encoder_that_fails_again_and_again_ends_the_session_with_its_words() {
    for (id, part) in [
        (FAILING, "encoder failing failed at frame 9: the device was unplugged"),
        (PANICKING, "panicked"),
        (FORGETFUL, "it owes the access units of 1 frames, the first is frame 9"),
        (DOUBLING, "access unit"),
        (INVENTING, "an access unit for frame 14, unasked"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.mp4");
        let sink = FileRecorder(mp4(&path));
        let (stats, error) = within(id.as_str(), move || {
            let mut session = Session::open(SIZE, &small_ring(id), Box::new(sink)).unwrap();
            let stats = session.stats_handle();
            for n in 0..20 {
                // A session that has failed returns an error instead of accepting frames.
                match session.push(&picture(n), at(n)) {
                    Ok(()) => {}
                    Err(SessionError::Failed(cause)) => {
                        assert!(cause.to_string().contains(part), "{id}: {cause}");
                        break;
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            (stats, session.finish().unwrap_err())
        });
        assert!(error.to_string().contains(part), "{id}: {error}");
        assert!(stats.get().frames_in >= FAILS_AT, "{id}");
        assert_eq!(entries(directory.path()), Vec::<String>::new(), "{id}");
    }
}

/// Wraps an MP4 sink but passes nothing to it: fake access units have no parameter sets.
struct FileRecorder(#[allow(dead_code)] Box<dyn Sink>);

impl Sink for FileRecorder {
    fn write(&mut self, _: AccessUnit) -> Result<(), SinkError> {
        Ok(())
    }

    fn finish(self: Box<Self>, _: &Timeline) -> Result<Finished, SinkError> {
        panic!("a failed session must not finish its sink")
    }
}

#[test]
fn a_sink_that_fails_ends_the_session_with_its_words() {
    struct Full;
    impl Sink for Full {
        fn write(&mut self, unit: AccessUnit) -> Result<(), SinkError> {
            match unit.chunk.pts {
                0..4 => Ok(()),
                _ => Err(SinkError::stream(Path::new("a.mp4"), "disk full")),
            }
        }
        fn finish(self: Box<Self>, _: &Timeline) -> Result<Finished, SinkError> {
            panic!("a failed session must not finish its sink")
        }
    }
    let error = within("a full disk", || {
        let config = small_ring(EncoderType::OPENH264);
        let mut session = Session::open(SIZE, &config, Box::new(Full)).unwrap();
        while session.push(&picture(0), at(0)).is_ok() {}
        session.finish().unwrap_err().to_string()
    });
    assert_eq!(error, "a.mp4: disk full");
}

#[test]
fn without_parameter_sets_there_is_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.mp4");
    let mut session = Session::open(SIZE, &config(DELAYED), mp4(&path)).unwrap();
    for n in 0..50 {
        if session.push(&picture(n), at(n)).is_err() {
            break;
        }
    }
    let error = session.finish().unwrap_err().to_string();
    assert!(error.contains("a.mp4") && error.contains("parameter sets"), "{error}");
    assert_eq!(entries(directory.path()), Vec::<String>::new());
}
