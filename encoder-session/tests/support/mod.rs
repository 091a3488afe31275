//! An encoder and a sink in this process, which count what they hold.
#![allow(clippy::unwrap_used, dead_code)]

use std::{
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use encoder_core::{
    Backend, EncodeError, EncodedChunk, EncoderType, Frame, OpenError, OpenRequest, PixelFormat,
    Plan, Resolution, Settings, VideoEncoder, inventory,
};
use encoder_media::{
    AccessUnit, Finished, Location, Payload, RawImage, Sink, SinkError,
    timeline::{FrameTimes, Timeline},
};
use encoder_session::SessionConfig;

pub const SIZE: Resolution = Resolution::new(16, 16);
pub const FAKE: EncoderType = EncoderType::new("fake");

/// Only a bound against hanging.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Open encoders and sinks of this process.
pub static ENCODERS: AtomicUsize = AtomicUsize::new(0);
pub static SINKS: AtomicUsize = AtomicUsize::new(0);

inventory::submit! {
    Backend::new(FAKE, open).check_options(|_| Ok(())).memory_estimate(|_| 1_000_000)
}

/// Its access units are the first samples of the pictures.
struct Fake(Resolution, u64);

pub fn open(request: &OpenRequest<'_>) -> Result<Box<dyn VideoEncoder>, OpenError> {
    ENCODERS.fetch_add(1, SeqCst);
    Ok(Box::new(Fake(request.config.resolution.unwrap(), 0)))
}

impl Drop for Fake {
    fn drop(&mut self) {
        ENCODERS.fetch_sub(1, SeqCst);
    }
}

impl VideoEncoder for Fake {
    fn encode_frame(&mut self, frame: &Frame<'_>) -> Result<Option<EncodedChunk>, EncodeError> {
        frame.check(PixelFormat::Yuv420p, self.0)?;
        let (pts, keyframe) = (frame.index, self.1 == 0);
        self.1 += 1;
        let data = vec![frame.planes()[0].data[0]];
        Ok(Some(EncodedChunk { data, pts, dts: pts, keyframe }))
    }
    fn flush(&mut self) -> Result<Vec<EncodedChunk>, EncodeError> {
        Ok(Vec::new())
    }
    fn encoder_type(&self) -> EncoderType {
        FAKE
    }
    fn description(&self) -> String {
        "a test".into()
    }
    fn pixel_format(&self) -> PixelFormat {
        PixelFormat::Yuv420p
    }
}

/// The smallest ring: three slots.
pub fn config() -> SessionConfig {
    let mut settings = Settings::default();
    settings.gpu.enable_ring_buffer = false;
    SessionConfig::new(settings, Plan::new(vec![FAKE], vec![]))
}

/// A grey picture that needs a conversion.
pub fn picture(shade: u8) -> Payload {
    Payload::Raw(RawImage {
        encoding: "mono8".into(),
        width: SIZE.width,
        height: SIZE.height,
        step: SIZE.width,
        is_bigendian: false,
        data: vec![shade; 256].into(),
    })
}

/// The access unit of [`picture`]: the shade in limited range.
pub fn shown(shade: u8) -> u8 {
    (16.0 + f64::from(shade) * 219.0 / 255.0).round() as u8
}

pub fn at(n: usize) -> FrameTimes {
    FrameTimes::at(n as i64 * 1_000_000)
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

/// Waits until a condition holds that another thread brings about.
pub fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The threads of this process whose names begin with one of `names`.
pub fn threads(names: &[&str]) -> usize {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return 0 };
    let name = |task: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
    };
    tasks.filter_map(name).filter(|name| names.iter().any(|known| name.starts_with(known))).count()
}

/// The threads of sessions.
pub fn session_threads() -> usize {
    threads(&["encode-", "convert", "open-session", "deadline"])
}
