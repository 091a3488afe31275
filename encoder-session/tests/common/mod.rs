//! Encoders and sinks for the tests of a session, and a look at its threads.
#![allow(dead_code, clippy::unwrap_used)]

use std::{
    fmt::Debug,
    fs,
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc::{Receiver, Sender, channel},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use encoder_core::{
    Backend, EncodeError, EncodedChunk, EncoderType, Frame, PixelFormat, Plan, Resolution,
    Settings, VideoEncoder, inventory,
};
use encoder_media::{
    AccessUnit, Finished, Location, Payload, RawImage, Sink, SinkError,
    timeline::{FrameTimes, Timeline},
};
use encoder_session::{OnFull, Session, SessionConfig};

pub const SIZE: Resolution = Resolution::new(64, 48);
/// Bytes of a slot: whole pages.
pub const SLOT: usize = 8192;

/// Only a hang reaches it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A drop takes far less than 100 ms; the rest is for a busy machine.
pub const AT_ONCE: Duration = Duration::from_secs(2);

/// The encoders [`Fake`] and the sinks [`Output`] of this process that are open.
pub static ENCODERS: AtomicUsize = AtomicUsize::new(0);
pub static SINKS: AtomicUsize = AtomicUsize::new(0);

/// An encoder that works.
pub const FAKE: EncoderType = EncoderType::new("fake");

inventory::submit! {
    Backend::new(FAKE, |_| Ok(Box::new(Fake::new(FAKE))))
        .check_options(|_| Ok(()))
        .memory_estimate(|_| 1_000_000)
}

/// The result of encoding a frame.
pub type Encode = Box<dyn FnMut(&Frame<'_>) -> Result<Option<EncodedChunk>, EncodeError> + Send>;

/// An encoder in this process.
pub struct Fake {
    id: EncoderType,
    encode: Encode,
}

impl Fake {
    /// Returns an access unit for each frame at once.
    pub fn new(id: EncoderType) -> Self {
        Self::encoding(id, |frame| Ok(Some(unit(frame))))
    }

    pub fn encoding(
        id: EncoderType,
        encode: impl FnMut(&Frame<'_>) -> Result<Option<EncodedChunk>, EncodeError> + Send + 'static,
    ) -> Self {
        ENCODERS.fetch_add(1, SeqCst);
        Self { id, encode: Box::new(encode) }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        ENCODERS.fetch_sub(1, SeqCst);
    }
}

/// A key frame that has the first sample of the picture.
pub fn unit(frame: &Frame<'_>) -> EncodedChunk {
    let (pts, data) = (frame.index, vec![frame.planes()[0].data[0]]);
    EncodedChunk { data, pts, dts: pts, keyframe: true }
}

impl VideoEncoder for Fake {
    fn encode_frame(&mut self, frame: &Frame<'_>) -> Result<Option<EncodedChunk>, EncodeError> {
        frame.check(PixelFormat::Yuv420p, SIZE)?;
        (self.encode)(frame)
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

/// The smallest ring: three slots.
pub fn config(order: &[EncoderType]) -> SessionConfig {
    let mut settings = Settings::default();
    settings.gpu.enable_ring_buffer = false;
    settings.encoder.b_frames = 0;
    SessionConfig::new(settings, Plan::new(order.to_vec(), vec![]))
}

/// A session that drops frames when its ring is full.
pub fn open(order: &[EncoderType], sink: TestSink) -> Session {
    let config = config(order).with_on_full(OnFull::DropNewest);
    Session::open(SIZE, &config, Box::new(sink)).unwrap()
}

/// A grey picture that needs a conversion.
pub fn picture(shade: u8) -> Payload {
    Payload::Raw(RawImage {
        encoding: "mono8".into(),
        width: SIZE.width,
        height: SIZE.height,
        step: SIZE.width,
        is_bigendian: false,
        data: vec![shade; 64 * 48].into(),
    })
}

/// The access unit of [`picture`]: the shade in limited range.
pub fn shown(shade: u8) -> u8 {
    (16.0 + f64::from(shade) * 219.0 / 255.0).round() as u8
}

pub fn at<N: TryInto<i64, Error: Debug>>(n: N) -> FrameTimes {
    FrameTimes::at(n.try_into().unwrap() * 1_000_000)
}

/// Lets a number of access units into a sink.
#[derive(Default)]
pub struct Gate {
    state: Mutex<(usize, usize)>,
    changed: Condvar,
}

impl Gate {
    pub fn open(allowed: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new((allowed, 0)), changed: Condvar::new() })
    }

    pub fn allow(&self, more: usize) {
        let mut state = self.state.lock().unwrap();
        state.0 = state.0.saturating_add(more);
        self.changed.notify_all();
    }

    /// Waits until this many calls wait at the gate, or passed it.
    pub fn until(&self, calls: usize) {
        let state = self.state.lock().unwrap();
        let waited = self.changed.wait_timeout_while(state, PATIENCE, |state| state.1 < calls);
        assert!(!waited.unwrap().1.timed_out());
    }

    pub fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        self.changed.notify_all();
        let mut state = self.changed.wait_while(state, |state| state.0 == 0).unwrap();
        state.0 -= usize::from(state.0 < usize::MAX);
    }
}

/// What a sink received: the first clock of each frame, and its access unit.
pub type Written = Arc<Mutex<Vec<(i64, u8)>>>;

/// A sink that keeps a file while it is open, and keeps it if it is abandoned.
pub struct Output {
    pub gate: Arc<Gate>,
    pub written: Written,
    file: PathBuf,
}

impl Output {
    pub fn boxed(gate: &Arc<Gate>, written: &Written, file: &Path) -> Box<dyn Sink> {
        SINKS.fetch_add(1, SeqCst);
        std::fs::write(file, b"").unwrap();
        let (gate, written) = (Arc::clone(gate), Arc::clone(written));
        Box::new(Self { gate, written, file: file.to_owned() })
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        SINKS.fetch_sub(1, SeqCst);
        let _ = std::fs::remove_file(&self.file);
    }
}

impl Sink for Output {
    fn write(&mut self, unit: AccessUnit) -> Result<(), SinkError> {
        self.gate.pass();
        let time = unit.times.log_ns;
        self.written.lock().unwrap().push((time, unit.chunk.data[0]));
        Ok(())
    }
    fn finish(self: Box<Self>, _: &Timeline) -> Result<Finished, SinkError> {
        Ok(Finished::default())
    }
    fn abandon(self: Box<Self>) -> Option<Location> {
        let kept = self.file.with_extension("kept");
        std::fs::rename(&self.file, &kept).unwrap();
        Some(Location::from(kept))
    }
    fn part_file(&self) -> Option<&Path> {
        Some(&self.file)
    }
}

/// Is ready after it was polled a number of times; with `usize::MAX` never.
pub struct After(pub usize);

impl Future for After {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.0 {
            0 => Poll::Ready(()),
            usize::MAX => Poll::Pending,
            _ => {
                self.0 -= 1;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

/// Numbers without a pattern.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) as usize % limit
    }
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

/// The threads of this process whose names begin with `name`; Linux keeps 15 bytes of a name.
pub fn threads(name: &str) -> usize {
    let name = &name[..name.len().min(15)];
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return 0 };
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|known| known.starts_with(name)).count()
}

/// The threads of sessions.
pub fn session_threads() -> usize {
    ["encode-", "convert", "open-session", "deadline"].map(threads).iter().sum()
}

/// Waits until the thread of the sessions with this encoder has ended; returns how long that took.
#[track_caller]
pub fn assert_ended(encoder: EncoderType) -> Duration {
    let name = format!("encode-{encoder}");
    let took = until(&format!("no thread {name}"), || threads(&name) == 0);
    eprintln!("thread {name} ended {:.0} ms later", took.as_secs_f64() * 1e3);
    took
}
