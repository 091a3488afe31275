//! Encoders and sinks for the tests of a session, and a look at its threads.
#![allow(dead_code, clippy::unwrap_used)]

use std::{
    fs,
    sync::mpsc::{Receiver, Sender, channel},
    time::{Duration, Instant},
};

use encoder_core::{
    EncodeError, EncodedChunk, EncoderType, Frame, PixelFormat, Plan, Resolution, Settings,
    VideoEncoder,
};
use encoder_media::{
    AccessUnit, Finished, Location, Payload, RawImage, Sink, SinkError,
    timeline::{FrameTimes, Timeline},
};
use encoder_session::{OnFull, Session, SessionConfig};

pub const SIZE: Resolution = Resolution::new(64, 48);

/// Only a hang reaches it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A drop takes far less than 100 ms; the rest is for a busy machine.
pub const AT_ONCE: Duration = Duration::from_secs(2);

/// The result of encoding a frame, by its index.
pub type Encode = Box<dyn FnMut(u64) -> Result<Option<EncodedChunk>, EncodeError> + Send>;

/// An encoder in this process.
pub struct Fake {
    id: EncoderType,
    encode: Encode,
}

impl Fake {
    /// Returns an access unit for each frame at once.
    pub fn new(id: EncoderType) -> Self {
        Self::encoding(id, |pts| Ok(Some(chunk(pts))))
    }

    pub fn encoding(
        id: EncoderType,
        encode: impl FnMut(u64) -> Result<Option<EncodedChunk>, EncodeError> + Send + 'static,
    ) -> Self {
        Self { id, encode: Box::new(encode) }
    }
}

/// A key frame.
pub fn chunk(pts: u64) -> EncodedChunk {
    EncodedChunk { data: vec![0, 0, 0, 1, 0x65], pts, dts: pts, keyframe: true }
}

impl VideoEncoder for Fake {
    fn encode_frame(&mut self, frame: &Frame<'_>) -> Result<Option<EncodedChunk>, EncodeError> {
        (self.encode)(frame.index)
    }
    fn flush(&mut self) -> Result<Vec<EncodedChunk>, EncodeError> {
        Ok(Vec::new())
    }
    fn encoder_type(&self) -> EncoderType {
        self.id
    }
    fn description(&self) -> String {
        "a test".into()
    }
    fn pixel_format(&self) -> PixelFormat {
        PixelFormat::Yuv420p
    }
}

/// A call of a [`TestSink`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    Write(u64),
    Finish,
    Abandon,
    Dropped,
}

/// The result of each write, by the number of the frame.
pub type Write = Box<dyn FnMut(u64) -> Result<(), SinkError> + Send>;

/// A sink that reports its calls, and does in a call what the test asks for.
pub struct TestSink {
    calls: Sender<Call>,
    pub write: Write,
    pub finish: Box<dyn FnMut() + Send>,
}

impl TestSink {
    pub fn new() -> (Self, Receiver<Call>) {
        let (calls, seen) = channel();
        (Self { calls, write: Box::new(|_| Ok(())), finish: Box::new(|| {}) }, seen)
    }

    pub fn writing(
        write: impl FnMut(u64) -> Result<(), SinkError> + Send + 'static,
    ) -> (Self, Receiver<Call>) {
        let (mut sink, calls) = Self::new();
        sink.write = Box::new(write);
        (sink, calls)
    }
}

impl Sink for TestSink {
    fn write(&mut self, unit: AccessUnit) -> Result<(), SinkError> {
        let _ = self.calls.send(Call::Write(unit.chunk.pts));
        (self.write)(unit.chunk.pts)
    }
    fn finish(mut self: Box<Self>, _: &Timeline) -> Result<Finished, SinkError> {
        let _ = self.calls.send(Call::Finish);
        (self.finish)();
        Ok(Finished::default())
    }
    fn abandon(self: Box<Self>) -> Option<Location> {
        let _ = self.calls.send(Call::Abandon);
        Some(Location::Name("what was written".into()))
    }
}

impl Drop for TestSink {
    fn drop(&mut self) {
        let _ = self.calls.send(Call::Dropped);
    }
}

/// The next call of a sink.
#[track_caller]
pub fn next(calls: &Receiver<Call>) -> Call {
    calls.recv_timeout(PATIENCE).unwrap()
}

/// The smallest ring; frames are dropped when it is full.
pub fn config(order: &[EncoderType]) -> SessionConfig {
    let mut settings = Settings::default();
    settings.gpu.enable_ring_buffer = false;
    settings.encoder.b_frames = 0;
    SessionConfig::new(settings, Plan::new(order.to_vec(), vec![])).with_on_full(OnFull::DropNewest)
}

pub fn open(order: &[EncoderType], sink: TestSink) -> Session {
    Session::open(SIZE, &config(order), Box::new(sink)).unwrap()
}

pub fn picture() -> Payload {
    Payload::Raw(RawImage {
        encoding: "i420".into(),
        width: SIZE.width,
        height: SIZE.height,
        step: SIZE.width,
        is_bigendian: false,
        data: vec![128; 64 * 48 * 3 / 2].into(),
    })
}

pub fn at(n: i64) -> FrameTimes {
    FrameTimes::at(n * 40_000_000)
}

/// Drops a value; fails if that is not done at once.
#[track_caller]
pub fn drop_at_once<T>(what: &str, value: T) {
    let begun = Instant::now();
    drop(value);
    let took = begun.elapsed();
    eprintln!("drop of {what}: {:.2} ms", took.as_secs_f64() * 1e3);
    assert!(took < AT_ONCE, "{what}: {took:?}");
}

/// Waits until `condition` holds; returns how long that took.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "not in {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
    begun.elapsed()
}

/// The threads of this process with this name, of which Linux keeps 15 bytes.
pub fn threads(name: &str) -> usize {
    let name = &name[..name.len().min(15)];
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|known| known.trim_end() == name).count()
}

/// Waits until the thread of the sessions with this encoder has ended; returns how long that took.
#[track_caller]
pub fn assert_ended(encoder: EncoderType) -> Duration {
    let name = format!("encode-{encoder}");
    let took = until(&format!("no thread {name}"), || threads(&name) == 0);
    eprintln!("thread {name} ended {:.0} ms later", took.as_secs_f64() * 1e3);
    took
}
