//! One fault in one session: the video must be the same as without the fault.

use std::{
    path::Path,
    sync::{Arc, LazyLock, Mutex},
    time::{Duration, Instant},
};

use encoder_core::{EncoderType, Plan, Resolution, Settings};
use encoder_pipeline::{
    mux::{AccessUnit, Finished, Location, Mp4Options, Mp4Sink, Sink, SinkError},
    session::{Session, SessionConfig, VideoReport},
    source::{Payload, RawImage},
    timeline::{FrameTimes, Timeline},
};
use encoder_testbed::process;

use super::{
    common::{EPOCH, MS, decode::decode, entries, picture::Picture},
    frail::{self, FRAIL, Fault},
};

/// Frames of a session.
pub const COUNT: usize = 48;
const SIZE: Resolution = Resolution::new(160, 96);
const GOP: u32 = 12;

/// The moment of a fault.
pub const MOMENTS: [(&str, u64); 5] = [
    ("before the first frame", 0),
    ("first GOP", 7),
    ("B-frames in flight", 29),
    ("last frame", COUNT as u64 - 1),
    ("flush", frail::FLUSH),
];

/// The first encoder of a chain: a backend, with options.
#[derive(Clone, Copy, Debug)]
pub struct First {
    pub name: &'static str,
    pub backend: &'static str,
    pub options: &'static str,
    pub has_child: bool,
    pub b_frames: u8,
}

pub const X264: First = First {
    name: "x264 by FFmpeg",
    backend: "x264",
    options: "mode = \"ffmpeg\"",
    has_child: true,
    b_frames: 2,
};
pub const X264_NATIVE: First = First {
    name: "x264 in process",
    backend: "x264",
    options: "mode = \"native\"",
    has_child: false,
    b_frames: 2,
};
pub const OPENH264: First =
    First { name: "OpenH264", backend: "openh264", options: "", has_child: false, b_frames: 0 };
pub const NVENC: First =
    First { name: "virtual NVENC", backend: "nvenc", options: "", has_child: true, b_frames: 2 };

/// The result of one run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub frames_out: usize,
    pub lost: usize,
    pub repeated: usize,
    pub longest_stall: Duration,
    /// The errors that were found; empty if there are none.
    pub wrong: String,
}

/// Runs one session of [`COUNT`] frames that starts with `first`. `fault` strikes at a moment,
/// `times` times; after three faults in a row `second` becomes active.
pub fn run(
    first: First,
    second: Option<(EncoderType, &str)>,
    fault: Fault,
    at: u64,
    times: u32,
) -> Outcome {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.mp4");
    let mut toml = frail::options(first.backend, first.options, fault, at, times);
    if let Some((id, options)) = second {
        toml.push_str(&format!("\n[backend.{id}]\n{options}"));
    }
    toml.push_str(&format!("\n[encoder]\nb_frames = {}\ngop_size = {GOP}\n", first.b_frames));
    // The smallest possible ring.
    // A slow encoder on a busy machine must not count as hanging.
    toml.push_str("[gpu]\nstall_timeout_s = 3\nprobe_timeout_s = 5\nenable_ring_buffer = false\n");
    let order = [Some(FRAIL), second.map(|(id, _)| id)].into_iter().flatten().collect();
    let config = SessionConfig::new(Settings::from_toml(&toml).unwrap(), Plan::new(order, vec![]));
    let gaps = Arc::new(Mutex::new(Duration::ZERO));
    let mut outcome = match convert(&path, &config, &gaps) {
        Ok(report) => judge(&path, &report),
        Err(error) => Outcome { lost: COUNT, wrong: error, ..Outcome::default() },
    };
    outcome.longest_stall = *gaps.lock().unwrap();
    let left = entries(directory.path());
    if left != ["a.mp4"] {
        outcome.wrong.push_str(&format!("; files: {left:?}"));
    }
    outcome
}

fn convert(
    path: &Path,
    config: &SessionConfig,
    gaps: &Arc<Mutex<Duration>>,
) -> Result<VideoReport, String> {
    static PICTURES: LazyLock<Vec<Payload>> = LazyLock::new(|| (0..COUNT).map(picture).collect());
    let options = Mp4Options::new(config.timing, &config.settings.encoder);
    let sink = Box::new(Mp4Sink::create(path, &options).unwrap());
    let sink = Stopwatch { sink, last: Instant::now(), longest: Arc::clone(gaps) };
    let mut session =
        Session::open(SIZE, config, Box::new(sink)).map_err(|error| error.to_string())?;
    for (n, picture) in PICTURES.iter().enumerate() {
        if session.push(picture, at(n)).is_err() {
            break;
        }
    }
    session.finish().map_err(|error| error.to_string())
}

/// A session in which the first encoder is lost at frame 5, and which runs until the failback.
/// Returns the report, and the number of frames.
pub fn come_back(path: &Path) -> (VideoReport, usize) {
    const AT: u64 = 5;
    let mut toml = frail::options(X264.backend, X264.options, Fault::Error, AT, 3);
    toml.push_str(&format!("\n[encoder]\ngop_size = {GOP}\nb_frames = 1\n[gpu]\ncomeback_s = 1\n"));
    let plan = Plan::new(vec![FRAIL, EncoderType::OPENH264], vec![]);
    let config = SessionConfig::new(Settings::from_toml(&toml).unwrap(), plan);
    let options = Mp4Options::new(config.timing, &config.settings.encoder);
    let sink = Box::new(Mp4Sink::create(path, &options).unwrap());
    let mut session = Session::open(SIZE, &config, sink).unwrap();
    let stats = session.stats_handle();
    let is_through = || stats.get().frames_encoded > AT;
    // Not at full speed, because bar codes end at 4096: until the rest of a second is over, and
    // then for two more GOPs, of which at least one begins after it.
    let (mut n, mut lost, mut left) = (0, None, 2 * GOP);
    while left > 0 {
        session.push(&picture(n), at(n)).unwrap();
        n += 1;
        if lost.is_none() && is_through() {
            lost = Some(Instant::now());
        }
        match lost {
            Some(lost) if lost.elapsed() > Duration::from_secs(1) => left -= 1,
            Some(_) => std::thread::sleep(Duration::from_millis(10)),
            None => {}
        }
    }
    (session.finish().unwrap(), n)
}

fn at(n: usize) -> FrameTimes {
    // No constant rate, so that times cannot be correct by chance.
    FrameTimes::at(EPOCH + n as i64 * 40 * MS + (n as i64 % 3) * MS)
}

fn picture(n: usize) -> Payload {
    let (data, step) = Picture::stamped(160, 96, n).raw("bgr8", 0);
    Payload::Raw(RawImage {
        encoding: "bgr8".into(),
        width: SIZE.width,
        height: SIZE.height,
        step,
        is_bigendian: false,
        data: data.into(),
    })
}

/// Checks that every bar code appears exactly once, in order and at its time.
fn judge(path: &Path, report: &VideoReport) -> Outcome {
    let video = decode(path);
    let numbers = video.numbers();
    let shown: Vec<usize> = numbers.iter().flatten().copied().collect();
    let lost = (0..COUNT).filter(|n| !shown.contains(n)).count();
    let repeated = shown.len() - (COUNT - lost).min(shown.len());
    let mut wrong = String::new();
    if numbers != (0..COUNT).map(Some).collect::<Vec<_>>() {
        wrong = format!("pictures {numbers:?}");
    }
    let first = at(0).log_ns;
    let times: Vec<u64> = (0..COUNT).map(|n| (at(n).log_ns - first) as u64).collect();
    if video.nanoseconds() != times {
        wrong.push_str("; wrong times");
    }
    let counted: u64 = report.spans.iter().map(|span| span.frames).sum();
    if (report.frames_in, report.frames_encoded, counted) != (48, 48, 48) {
        wrong.push_str(&format!("; the report counts {report:?}"));
    }
    Outcome { frames_out: numbers.len(), lost, repeated, wrong, ..Outcome::default() }
}

/// Child processes of this process that run FFmpeg.
pub fn children() -> usize {
    let all = process::children_of(std::process::id());
    all.iter().filter(|process| process.name.starts_with("ffmpeg")).count()
}

/// A sink that measures the longest time between two access units.
struct Stopwatch {
    sink: Box<dyn Sink>,
    last: Instant,
    longest: Arc<Mutex<Duration>>,
}

impl Sink for Stopwatch {
    fn write(&mut self, unit: AccessUnit) -> Result<(), SinkError> {
        let gap = self.last.elapsed();
        self.last = Instant::now();
        let mut longest = self.longest.lock().unwrap();
        *longest = longest.max(gap);
        drop(longest);
        self.sink.write(unit)
    }

    fn finish(self: Box<Self>, layout: &Timeline) -> Result<Finished, SinkError> {
        self.sink.finish(layout)
    }

    fn abandon(self: Box<Self>) -> Option<Location> {
        self.sink.abandon()
    }
}
