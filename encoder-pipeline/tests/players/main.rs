//! Plays files whose encoder changed in the middle with FFmpeg, PyAV (as data loaders do) and
//! Chromium. Each player shows every frame once, in order and at its time, from the start and after
//! every seek.
//!
//! Needs FFmpeg. PyAV and Chromium are used if `ENCODER_PYAV` (the folder of the Python package)
//! and `ENCODER_CHROMIUM` (the program) are set, as `cargo xtask test` does.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod chromium;

use std::{
    collections::BTreeSet,
    env,
    ffi::OsString,
    ops::Range,
    path::{Path, PathBuf},
    process::Command,
};

use OutputMode::{Fragmented, Progressive};
use Part::{Ended, Lost};
use encoder_core::{
    EncodedChunk, EncoderConfig, EncoderType, FrameLayout, OpenRequest, PixelFormat, Resolution,
    Settings, VideoEncoder, backends,
};
use encoder_pipeline::{
    mux::{AccessUnit, Mp4Options, Mp4Sink, OutputMode, Sink},
    timeline::{Clock, FrameTimes, TimestampAnalysis, Timing},
};
use encoder_testbed::fixtures::{
    EPOCH, MS,
    decode::{decode, decode_fragmented, decode_from},
    picture::{Picture, psnr},
};

const SIZE: (usize, usize) = (192, 128);
const RESOLUTION: Resolution = Resolution::new(SIZE.0 as u32, SIZE.1 as u32);
const GOP: u32 = 8;
const X264: EncoderType = EncoderType::X264;
const OPENH264: EncoderType = EncoderType::OPENH264;

/// The part of the stream by one encoder, before the next encoder took over.
#[derive(Clone, Copy)]
enum Part {
    /// It encoded this many frames, to the end: the last GOP is complete, though it may be short.
    Ended(EncoderType, usize),
    /// It was lost after this many access units, in the middle of a group with B-frames if it uses
    /// them. Access units that were returned and are complete in display order are in the video.
    Lost(EncoderType, usize),
}

/// A video and its expected contents.
struct Made {
    path: PathBuf,
    mode: OutputMode,
    /// Display time of each frame, in nanoseconds after the first.
    times: Vec<u64>,
    /// The first frame of each part.
    starts: Vec<usize>,
    _folder: tempfile::TempDir,
}

/// The recorded time of frame `n`, with frames about this far apart: not evenly, but exactly
/// representable in MP4 for every distance in these tests.
fn at(n: usize, step_ms: i64) -> FrameTimes {
    let n = n as i64;
    FrameTimes::at(EPOCH + n * step_ms * MS + (n * 7 % 13) * MS + n * 110)
}

/// A bar code and patches, and below them an image similar to a photograph, for which x264 uses
/// B-frames.
fn stamped(n: usize) -> Picture {
    let (mut picture, scene) =
        (Picture::stamped(SIZE.0, SIZE.1, n), Picture::scene(SIZE.0, SIZE.1, n));
    let below = picture.rgb.len() / 2;
    picture.rgb[below..].copy_from_slice(&scene.rgb[below..]);
    picture
}

fn config() -> EncoderConfig {
    EncoderConfig {
        b_frames: 2,
        gop_size: GOP,
        resolution: Some(RESOLUTION),
        ..EncoderConfig::default()
    }
}

impl Made {
    fn new(mode: OutputMode, step_ms: i64, parts: &[Part]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.mp4");
        let (mut chunks, mut starts) = (Vec::new(), Vec::new());
        for part in parts {
            starts.push(chunks.len());
            chunks.extend(part.encode(chunks.len()));
        }
        let times: Vec<_> = (0..chunks.len()).map(|n| at(n, step_ms)).collect();
        write(&path, mode, chunks, &times);
        let times = times.iter().map(|t| (t.log_ns - times[0].log_ns) as u64).collect();
        Self { path, mode, times, starts, _folder: folder }
    }

    fn count(&self) -> usize {
        self.times.len()
    }

    /// Whether frame `n` is displayed at this time. A fragmented file has microseconds.
    fn is_at(&self, ns: u64, n: usize) -> bool {
        match self.mode {
            Progressive => ns == self.times[n],
            _ => ns.abs_diff(self.times[n]) <= 500,
        }
    }

    /// A moment in the middle of frame `n`, in nanoseconds.
    fn middle(&self, n: usize) -> u64 {
        let end = self.times.get(n + 1).copied().unwrap_or(self.times[n] + 40_000_000);
        u64::midpoint(self.times[n], end)
    }

    /// Every frame once, with many seeks forth and back between the parts.
    fn tour(&self) -> Vec<usize> {
        let count = self.count();
        let stride = (count / 3..)
            .find(|&s| (2..=s).all(|d| s % d > 0 || !count.is_multiple_of(d)))
            .unwrap();
        let tour: Vec<_> = (1..=count).map(|k| k * stride % count).collect();
        assert_eq!(tour.iter().collect::<BTreeSet<_>>().len(), count);
        tour
    }
}

impl Part {
    /// The access units of the frames from `first` on.
    fn encode(self, first: usize) -> Vec<EncodedChunk> {
        let (Self::Ended(id, count) | Self::Lost(id, count)) = self;
        let settings = Settings { encoder: config(), ..Settings::default() };
        let backend = backends().into_iter().find(|backend| backend.id == id).unwrap();
        let mut encoder = (backend.open)(&OpenRequest::new(&settings, id, 1)).unwrap();
        let lost = matches!(self, Self::Lost(..));
        let given = if lost { count + GOP as usize } else { count };
        let mut chunks = feed(&mut *encoder, first..first + given);
        if lost {
            let is_whole = |units: &[EncodedChunk]| {
                units.iter().all(|unit| unit.pts < (first + units.len()) as u64)
            };
            let makes_b_frames = chunks.windows(2).any(|w| w[0].pts > w[1].pts);
            assert_eq!(makes_b_frames, id == X264, "B-frames of {id}");
            let at = (count..).find(|&at| !makes_b_frames || !is_whole(&chunks[..at])).unwrap();
            chunks.truncate((0..=at).rfind(|&end| is_whole(&chunks[..end])).unwrap());
            assert!(chunks.len() > count / 2 && chunks.len() <= at);
        }
        chunks
    }
}

/// Encodes frames to the end of the stream.
fn feed(encoder: &mut dyn VideoEncoder, frames: Range<usize>) -> Vec<EncodedChunk> {
    let layout = FrameLayout::new(encoder.pixel_format(), RESOLUTION);
    let encoding = match encoder.pixel_format() {
        PixelFormat::Yuv420p => "i420",
        PixelFormat::Nv12 => "nv12",
        other => panic!("{other}"),
    };
    let mut memory = vec![0; layout.bytes()];
    let mut chunks = Vec::new();
    for n in frames {
        let (samples, _) = stamped(n).raw(encoding, 0);
        let mut samples = &samples[..];
        for plane in layout.planes_mut(&mut memory) {
            for row in plane.data.chunks_mut(plane.stride).take(plane.rows) {
                let (packed, rest) = samples.split_at(plane.row_bytes);
                row[..plane.row_bytes].copy_from_slice(packed);
                samples = rest;
            }
        }
        chunks.extend(encoder.encode_frame(&layout.frame(&memory, n as u64)).unwrap());
    }
    chunks.extend(encoder.flush().unwrap());
    chunks
}

/// Writes access units to a file.
fn write(path: &Path, mode: OutputMode, chunks: Vec<EncodedChunk>, times: &[FrameTimes]) {
    let timing = Timing::Recorded(Clock::Header);
    let options = Mp4Options { mode, ..Mp4Options::new(timing, &config()) };
    let mut analysis = TimestampAnalysis::new(timing, options.rate, options.reorder);
    times.iter().for_each(|times| analysis.push(times));
    let mut sink = Box::new(Mp4Sink::create(path, &options).unwrap());
    for chunk in chunks {
        let times = times[chunk.pts as usize];
        sink.write(AccessUnit::new(chunk, times)).unwrap();
    }
    sink.finish(&analysis.timeline()).unwrap();
}

/// The picture must be that of this frame; a picture decoded with the wrong parameter sets is not.
fn check(picture: &Picture, number: usize, what: &str) {
    assert_eq!(picture.number(), Some(number), "{what}, frame {number}");
    let likeness = psnr(&picture.rgb, &stamped(number).rgb);
    assert!(likeness > 22.0, "{what}, frame {number}: {likeness:.1} dB");
}

/// All pictures from this frame on, once and in order.
fn check_all(pictures: &[Picture], first: usize, made: &Made, what: &str) {
    let numbers: Vec<_> = pictures.iter().map(Picture::number).collect();
    assert_eq!(numbers, (first..made.count()).map(Some).collect::<Vec<_>>(), "{what}");
    for (number, picture) in (first..).zip(pictures) {
        check(picture, number, what);
    }
}

fn ffmpeg_shows_all_of(made: &Made) {
    let video = match made.mode {
        Progressive => decode(&made.path),
        _ => decode_fragmented(&made.path),
    };
    check_all(&video.frames, 0, made, "FFmpeg");
    for (number, ticks) in video.pts.iter().enumerate() {
        let ns = ticks * 1_000_000_000 / video.timescale;
        assert!(made.is_at(ns, number), "FFmpeg: frame {number} is at {ns} ns");
    }
    // To the first frame of each part, and into its second group of pictures.
    let firsts = made.starts.iter().flat_map(|start| [*start, start + GOP as usize + 1]);
    for first in firsts.filter(|first| *first < made.count()) {
        let Some(before) = first.checked_sub(1) else { continue };
        let pictures = decode_from(&made.path, made.middle(before), SIZE);
        check_all(&pictures, first, made, &format!("FFmpeg from frame {first}"));
    }
}

/// The tool that a variable names; `None`, with a message, if the variable is not set.
fn tool(variable: &str) -> Option<OsString> {
    let found = env::var_os(variable);
    if found.is_none() {
        eprintln!("left out: {variable} is not set; `cargo xtask test` sets it");
    }
    found
}

fn pyav_shows_all_of(made: &Made) {
    let Some(package) = tool("ENCODER_PYAV") else { return };
    let tour = made.tour();
    // A fragmented file's time may be less than the frame's by half a microsecond.
    let output = Command::new("python3")
        .args(["-c", include_str!("decode.py"), made.path.to_str().unwrap()])
        .args(tour.iter().map(|&n| made.times[n].saturating_sub(1000).to_string()))
        .env("PYTHONPATH", package)
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && words.is_empty(), "PyAV: {words}");
    let mut rest = &output.stdout[..];
    let mut take = |count: usize| -> &[u8] {
        let (taken, left) = rest.split_at(count);
        rest = left;
        taken
    };
    for (k, number) in (0..made.count()).chain(tour).enumerate() {
        let ns = u64::from_le_bytes(take(8).try_into().unwrap());
        let mut side = || u32::from_le_bytes(take(4).try_into().unwrap()) as usize;
        let (width, height) = (side(), side());
        let picture = Picture::new(width, height, take(width * height * 3).to_vec());
        let what = if k < made.count() { "PyAV" } else { "PyAV after a seek" };
        check(&picture, number, what);
        assert!(made.is_at(ns, number), "{what}: frame {number} is at {ns} ns");
    }
    assert!(rest.is_empty(), "PyAV: {} bytes too many", rest.len());
}

fn chromium_shows_all_of(made: &Made) {
    let Some(program) = tool("ENCODER_CHROMIUM") else { return };
    let tour = made.tour();
    let seeks: Vec<_> = tour.iter().map(|&n| made.middle(n) as f64 / 1e9).collect();
    let play = chromium::play(&program, &made.path, &seeks);
    assert_eq!(play.decoded, made.count(), "Chromium decodes each frame once");
    // Chromium's clock has microseconds.
    let is_at = |time: f64, number: usize| (time - made.times[number] as f64 / 1e9).abs() < 2e-6;
    let mut next = 0;
    for shown in &play.played {
        let number = shown.picture.number().expect("Chromium plays: a bar code");
        assert!(number >= next, "Chromium plays frame {number} behind {next}");
        check(&shown.picture, number, "Chromium plays");
        // On a busy machine the next picture may be shown before the page captures this picture.
        assert!((0..=number).any(|n| is_at(shown.time, n)), "Chromium plays at {}", shown.time);
        next = number;
    }
    check(&play.last.unwrap(), made.count() - 1, "Chromium has played");
    assert_eq!(play.sought.len(), tour.len());
    let led: Vec<_> = play.sought.iter().zip(tour).collect();
    let wrong = led.iter().filter(|(shown, number)| !is_at(shown.time, *number));
    let wrong: Vec<_> = wrong.map(|(shown, number)| (number, shown.time)).collect();
    assert!(wrong.is_empty(), "Chromium seeks frames of a {:?} file: {wrong:?}", made.mode);
    for (shown, number) in led {
        check(&shown.picture, number, "Chromium seeks");
    }
}

fn all_show(mode: OutputMode, step_ms: i64, parts: &[Part]) {
    let made = Made::new(mode, step_ms, parts);
    ffmpeg_shows_all_of(&made);
    pyav_shows_all_of(&made);
    chromium_shows_all_of(&made);
}

/// Five changes, from B-frames to none and back.
const CHANGES: [Part; 6] = [
    Lost(X264, 11),
    Lost(OPENH264, 10),
    Ended(X264, 12),
    Ended(OPENH264, 10),
    Lost(X264, 18),
    Ended(OPENH264, 12),
];

#[test]
fn one_encoder() {
    all_show(Progressive, 40, &[Ended(X264, 20)]);
}

#[test]
fn many_changes() {
    all_show(Progressive, 40, &CHANGES);
}

#[test]
fn many_changes_in_a_fragmented_file() {
    all_show(Fragmented, 40, &CHANGES);
}

#[test]
fn from_no_b_frames_to_some() {
    all_show(Progressive, 40, &[Lost(OPENH264, 11), Ended(X264, 12)]);
    all_show(Fragmented, 40, &[Lost(OPENH264, 11), Ended(X264, 12)]);
}

/// Frames far apart in ticks: FFmpeg up to 5.1 ignores all offsets of reordered pictures if one of
/// them is above 2^28.
#[test]
fn b_frames_at_a_low_rate() {
    all_show(Progressive, 200, &[Lost(X264, 11), Ended(OPENH264, 3)]);
}
