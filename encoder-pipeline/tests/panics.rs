//! External code that panics on the encoder's thread: what was written is kept, and the error has
//! the panic's text.
#![allow(clippy::unwrap_used)]

use std::{
    future::Future,
    path::{Path, PathBuf},
    pin::pin,
    sync::{Arc, Mutex, mpsc},
    task::{Context, Wake, Waker},
    time::Duration,
};

use encoder_core::{
    Backend, Caps, EncodeError, EncodedChunk, EncoderType, Frame, PixelFormat, Plan, ProbeResult,
    Resolution, Settings, VideoEncoder, backends,
};
use encoder_pipeline::{
    mux::{AccessUnit, AnnexBSink, Finished, Mp4Options, Mp4Sink, OutputMode, Sink, SinkError},
    session::{Session, SessionConfig, SessionError, VideoReport},
    source::{Payload, RawImage},
    timeline::{FrameTimes, Timeline},
};
use encoder_testbed::fixtures::{
    EPOCH, MS,
    decode::{decode, decode_fragmented, decode_stream},
    entries,
    picture::Picture,
};

const SIZE: Resolution = Resolution::new(160, 120);
/// The frame at which the panic occurs, if it occurs at a frame.
const AT: u64 = 7;

/// OpenH264 that panics at frame [`AT`].
const ENCODING: EncoderType = EncoderType::new("panics-encoding");
/// OpenH264 that panics when its name is queried after frame [`AT`].
const ASKED: EncoderType = EncoderType::new("panics-asked");
/// OpenH264 that panics when it is dropped.
const DROPPED: EncoderType = EncoderType::new("panics-dropped");

macro_rules! register {
    ($($id:ident),*) => {$(
        encoder_core::inventory::submit! {
            Backend::new($id, |request| {
                    let found = backends().into_iter().find(|b| b.id == EncoderType::OPENH264);
                    let real = (found.unwrap().open)(request)?;
                    Ok(Box::new(Panicking { id: $id, real, frames: 0 }))
                })
                .rank(|_| 1000)
                .check_options(|_| Ok(()))
                .probe(|_, _| ProbeResult::Usable(Caps::default()))
                .max_delay(|_| 0)
        }
    )*};
}
register!(ENCODING, ASKED, DROPPED);

struct Panicking {
    id: EncoderType,
    real: Box<dyn VideoEncoder>,
    frames: u64,
}

impl VideoEncoder for Panicking {
    fn encode_frame(&mut self, frame: &Frame<'_>) -> Result<Option<EncodedChunk>, EncodeError> {
        assert!(self.id != ENCODING || frame.index != AT, "the encoder panics");
        self.frames += 1;
        self.real.encode_frame(frame)
    }
    fn flush(&mut self) -> Result<Vec<EncodedChunk>, EncodeError> {
        self.real.flush()
    }
    fn encoder_type(&self) -> EncoderType {
        assert!(self.id != ASKED || self.frames <= AT, "the name panics");
        self.id
    }
    fn description(&self) -> String {
        "a test".into()
    }
    fn pixel_format(&self) -> PixelFormat {
        self.real.pixel_format()
    }
}

impl Drop for Panicking {
    fn drop(&mut self) {
        assert!(self.id != DROPPED, "the drop panics");
    }
}

/// The call in which a sink panics.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Point {
    Nowhere,
    Write,
    Finish,
    /// In `abandon`, after another failure.
    Abandon,
}

/// A wrapper of a sink of this workspace.
struct PanickingSink {
    inner: Box<dyn Sink>,
    point: Point,
}

impl Sink for PanickingSink {
    fn write(&mut self, unit: AccessUnit) -> Result<(), SinkError> {
        assert!(self.point != Point::Write || unit.chunk.pts != AT, "the write of {AT} panics");
        self.inner.write(unit)
    }
    fn finish(self: Box<Self>, timeline: &Timeline) -> Result<Finished, SinkError> {
        assert!(self.point != Point::Finish, "the finish panics");
        self.inner.finish(timeline)
    }
    fn abandon(self: Box<Self>) -> Option<encoder_pipeline::destination::Location> {
        assert!(self.point != Point::Abandon, "the rescue panics");
        self.inner.abandon()
    }
    fn part_file(&self) -> Option<&Path> {
        self.inner.part_file()
    }
}

fn picture(n: usize) -> Payload {
    let (data, step) = Picture::stamped(160, 120, n).raw("bgr8", 0);
    let (width, height) = (160, 120);
    let (encoding, data) = ("bgr8".into(), data.into());
    Payload::Raw(RawImage { encoding, width, height, step, is_bigendian: false, data })
}

fn at(n: usize) -> FrameTimes {
    FrameTimes::at(EPOCH + n as i64 * 200 * MS)
}

fn config(encoder: EncoderType) -> SessionConfig {
    let mut settings = Settings::default();
    settings.gpu.enable_ring_buffer = false;
    SessionConfig::new(settings, Plan::new(vec![encoder], vec![]))
}

fn mp4(path: &Path) -> Box<dyn Sink> {
    Box::new(Mp4Sink::create(path, &Mp4Options::default()).unwrap())
}

/// Encodes up to 20 frames and returns the result of the session.
fn encode(encoder: EncoderType, sink: Box<dyn Sink>) -> Result<VideoReport, SessionError> {
    let mut session = Session::open(SIZE, &config(encoder), sink).unwrap();
    for n in 0..20 {
        match session.push(&picture(n), at(n)) {
            Ok(()) => {}
            Err(SessionError::Failed(_)) => break,
            Err(other) => panic!("{other}"),
        }
    }
    session.finish()
}

/// Checks that an error has this text and names a part file; returns the path.
#[track_caller]
fn kept(ended: Result<VideoReport, SessionError>, text: &str) -> PathBuf {
    let error = ended.unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains(text) && message.contains("what was written so far is in "),
        "{message}"
    );
    let SessionError::Kept { part, .. } = error else { panic!("not kept: {message}") };
    part.path().expect("a file").to_path_buf()
}

fn numbers(count: u64) -> Vec<Option<usize>> {
    (0..count as usize).map(Some).collect()
}

#[test]
fn a_panic_of_the_encoder_keeps_what_was_written() {
    for (encoder, text, frames) in
        [(ENCODING, "it panicked: the encoder panics", AT), (ASKED, "the name panics", AT)]
    {
        let directory = tempfile::tempdir().unwrap();
        let ended = encode(encoder, mp4(&directory.path().join("a.mp4")));
        let part = kept(ended, text);
        assert_eq!(decode_fragmented(&part).numbers(), numbers(frames), "{encoder}");
        assert_eq!(entries(directory.path()), ["a.mp4.part"], "{encoder}");
    }
}

#[test]
fn an_encoder_that_panics_when_it_is_closed_does_not_cost_the_video() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.mp4");
    let report = encode(DROPPED, mp4(&path)).unwrap();
    assert_eq!(report.frames_encoded, 20);
    assert!(report.warnings.join(" ").contains("the drop panics"), "{:?}", report.warnings);
    assert_eq!(decode(&path).numbers(), numbers(20));
    assert_eq!(entries(directory.path()), ["a.mp4"]);
}

#[test]
fn a_panic_of_the_sink_keeps_what_was_written() {
    type Make = fn(&Path) -> Box<dyn Sink>;
    let sinks: [(&str, Make); 3] = [
        ("a.mp4.part", mp4),
        ("a.mp4", |path| {
            let options = Mp4Options { mode: OutputMode::Fragmented, ..Mp4Options::default() };
            Box::new(Mp4Sink::create(path, &options).unwrap())
        }),
        ("a.h264.part", |path| {
            Box::new(AnnexBSink::create(&path.with_extension("h264"), false).unwrap())
        }),
    ];
    for (file, sink) in sinks {
        for (point, encoder, text) in [
            (Point::Write, EncoderType::OPENH264, "the write of 7 panics"),
            (Point::Finish, EncoderType::OPENH264, "the finish panics"),
            (Point::Abandon, ENCODING, "the encoder panics"),
            (Point::Nowhere, ENCODING, "the encoder panics"),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let inner = sink(&directory.path().join("a.mp4"));
            let part = kept(encode(encoder, Box::new(PanickingSink { inner, point })), text);
            assert_eq!(entries(directory.path()), [file], "{point:?}");
            let video =
                if file == "a.h264.part" { decode_stream(&part) } else { decode_fragmented(&part) };
            let count = video.frames.len() as u64;
            assert_eq!(video.numbers(), numbers(count), "{file}, {point:?}");
            // Without the sink's `abandon`, the fragment that was being gathered is missing.
            let whole = if point == Point::Finish { 20 } else { AT };
            let least = match point {
                Point::Finish | Point::Abandon => whole - 4,
                _ => whole,
            };
            assert!((least..=whole).contains(&count), "{file}, {point:?}: {count}");
        }
    }
}

/// Panics when it wakes.
struct PanickingWaker(Mutex<mpsc::Sender<()>>);

impl Wake for PanickingWaker {
    fn wake(self: Arc<Self>) {
        self.0.lock().unwrap().send(()).unwrap();
        panic!("the waker panics");
    }
}

#[test]
fn a_panic_of_a_waker_keeps_what_was_written() {
    /// Waits at frame 1 until the producer waits for a slot.
    struct Held(Box<dyn Sink>, Mutex<mpsc::Receiver<()>>);
    impl Sink for Held {
        fn write(&mut self, unit: AccessUnit) -> Result<(), SinkError> {
            if unit.chunk.pts == 1 {
                self.1.lock().unwrap().recv().unwrap();
            }
            self.0.write(unit)
        }
        fn finish(self: Box<Self>, timeline: &Timeline) -> Result<Finished, SinkError> {
            self.0.finish(timeline)
        }
        fn abandon(self: Box<Self>) -> Option<encoder_pipeline::destination::Location> {
            self.0.abandon()
        }
    }

    let directory = tempfile::tempdir().unwrap();
    let (release, held) = mpsc::channel();
    let sink = Held(mp4(&directory.path().join("a.mp4")), Mutex::new(held));
    let mut session = Session::open(SIZE, &config(EncoderType::OPENH264), Box::new(sink)).unwrap();
    let (send, woken) = mpsc::channel();
    let waker = Waker::from(Arc::new(PanickingWaker(Mutex::new(send))));
    let mut frames = 0;
    loop {
        let payload = picture(frames);
        let mut push = pin!(session.push_async(&payload, at(frames)));
        if push.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            frames += 1;
            continue;
        }
        release.send(()).unwrap();
        woken.recv_timeout(Duration::from_secs(60)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert!(matches!(runtime.block_on(push), Err(SessionError::Failed(_)) | Ok(())));
        break;
    }
    let part = kept(session.finish(), "the waker panics");
    let shown = decode_fragmented(&part).numbers();
    // The ring may be full before the slot of frame 0 is released.
    assert!(!shown.is_empty() && shown == numbers(shown.len() as u64), "{shown:?}");
    assert_eq!(entries(directory.path()), ["a.mp4.part"]);
}
