//! FFmpeg as the decoder from elsewhere.

use std::{path::Path, process::Command, sync::OnceLock};

use super::{mp4, picture::Picture};

/// A video as FFmpeg sees it.
pub struct Video {
    pub width: usize,
    pub height: usize,
    /// When each picture is shown, in ticks.
    pub pts: Vec<u64>,
    /// Ticks in a second.
    pub timescale: u64,
    pub frames: Vec<Picture>,
}

impl Video {
    /// The numbers in the pictures.
    pub fn numbers(&self) -> Vec<Option<usize>> {
        self.frames.iter().map(Picture::number).collect()
    }

    /// When each picture is shown, in nanoseconds; the timescale must be that of nanoseconds.
    pub fn nanoseconds(&self) -> Vec<u64> {
        assert_eq!(self.timescale, 1_000_000_000, "timescale");
        self.pts.clone()
    }
}

/// The program, and the option that leaves frames as they are in its version.
fn ffmpeg() -> &'static (String, [&'static str; 2]) {
    static FOUND: OnceLock<(String, [&str; 2])> = OnceLock::new();
    FOUND.get_or_init(|| {
        let program = std::env::var("ENCODER_FFMPEG").unwrap_or_else(|_| "ffmpeg".into());
        let output = Command::new(&program).arg("-version").output();
        let Ok(output) = output else {
            panic!("no FFmpeg ({program}) to decode with: run cargo xtask setup");
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text.split_whitespace().nth(2).unwrap_or_default();
        let old = version.starts_with("4.") || version.starts_with("5.0");
        (program, if old { ["-vsync", "passthrough"] } else { ["-fps_mode", "passthrough"] })
    })
}

/// Runs FFmpeg; fails when it has anything to say.
fn run(what: &Path, args: &[&str]) -> Vec<u8> {
    let (program, _) = ffmpeg();
    let output = Command::new(program)
        .args(["-nostdin", "-hide_banner", "-v", "warning"])
        .args(args)
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && words.is_empty(), "FFmpeg on {}: {words}", what.display());
    output.stdout
}

/// Decodes an MP4: it must have its index in front, FFmpeg must find nothing wrong with it, and
/// as many pictures come out as it has coded pictures.
pub fn decode(path: &Path) -> Video {
    let file = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    mp4::check_order(&file);
    let video = read(path, true);
    assert_eq!(video.timescale, u64::from(mp4::timescale_and_duration(&file).0));
    assert!(video.pts.windows(2).all(|w| w[0] < w[1]), "times rise: {:?}", video.pts);
    video
}

/// Decodes a fragmented MP4, whole or cut.
pub fn decode_fragmented(path: &Path) -> Video {
    let video = read(path, true);
    assert!(video.pts.windows(2).all(|w| w[0] < w[1]), "times rise: {:?}", video.pts);
    video
}

/// The number in the first picture that comes when a player goes to `seconds`.
pub fn seek(path: &Path, seconds: f64) -> Option<usize> {
    let (at, input) = (seconds.to_string(), path.to_str().unwrap());
    let size = ["-vf", "scale=160:120", "-frames:v", "1"];
    let raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"];
    let rgb = run(path, &[&["-ss", &at, "-i", input][..], &size, &raw].concat());
    Picture::new(160, 120, rgb).number()
}

/// Decodes a video from this time on, in nanoseconds: FFmpeg must find nothing wrong with it.
/// `size` is that of the pictures.
pub fn decode_from(path: &Path, ns: u64, size: (usize, usize)) -> Vec<Picture> {
    let (_, [name, value]) = ffmpeg();
    let seek = format!("{:.6}", ns as f64 / 1e9);
    let input = ["-ss", &seek, "-i", path.to_str().unwrap(), "-map", "0:v"];
    let raw = ["-vf", "setpts=N/TB", name, value, "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"];
    let bytes = run(path, &[&input[..], &raw].concat());
    assert_eq!(bytes.len() % (size.0 * size.1 * 3), 0);
    bytes
        .chunks(size.0 * size.1 * 3)
        .map(|rgb| Picture::new(size.0, size.1, rgb.to_vec()))
        .collect()
}

/// Decodes a stream without timestamps: frame N is at N seconds.
pub fn decode_stream(path: &Path) -> Video {
    read(path, false)
}

fn read(path: &Path, timed: bool) -> Video {
    let list = tempfile::NamedTempFile::new().unwrap();
    let (input, list_path) = (path.to_str().unwrap(), list.path().to_str().unwrap());
    let (_, passthrough) = ffmpeg();
    // Times are read from the coded pictures below; raw pictures only need to be apart.
    let scale = "scale=flags=bilinear+accurate_rnd+full_chroma_int+full_chroma_inp,setpts=N/TB";
    let mut args = vec!["-y", "-copyts", "-i", input, "-map", "0:v", "-vf", scale];
    args.extend(passthrough);
    // Ticks of its own, since those that FFmpeg guesses from the mean rate are hours in a pause.
    args.extend(["-enc_time_base", "1:1000"]);
    args.extend(["-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"]);
    args.extend(["-map", "0:v"]);
    if timed {
        args.extend(["-c", "copy"]);
    } else {
        args.extend(["-vf", "setpts=N/TB"]);
        args.extend(passthrough);
    }
    args.extend(["-f", "framecrc", list_path]);
    let bytes = run(path, &args);
    let list = std::fs::read_to_string(list.path()).unwrap();
    let header = |key: &str| -> &str {
        let line = list.lines().find_map(|l| l.strip_prefix(key));
        line.unwrap_or_else(|| panic!("no {key} in {list}")).trim()
    };
    let (width, height) = header("#dimensions 0:").split_once('x').unwrap();
    let (width, height): (usize, usize) = (width.parse().unwrap(), height.parse().unwrap());
    let (tick, timescale) = header("#tb 0:").split_once('/').unwrap();
    let (tick, timescale): (u64, u64) = (tick.parse().unwrap(), timescale.parse().unwrap());
    let mut pts: Vec<u64> = list
        .lines()
        .filter(|l| !l.starts_with('#'))
        .map(|l| l.split(',').nth(2).unwrap().trim().parse::<u64>().unwrap_or_default() * tick)
        .collect();
    pts.sort_unstable();
    let frame = width * height * 3;
    assert_eq!(bytes.len() % frame, 0);
    let frames: Vec<_> =
        bytes.chunks(frame).map(|rgb| Picture::new(width, height, rgb.to_vec())).collect();
    assert_eq!(frames.len(), pts.len(), "decoded and coded pictures of {input}");
    Video { width, height, pts, timescale, frames }
}

/// The luma planes of a video of known size, exactly as coded.
pub fn luma(path: &Path, width: usize, height: usize) -> Vec<Vec<u8>> {
    let bytes = planes(path);
    let frame = width * height * 3 / 2;
    assert_eq!(bytes.len() % frame, 0);
    bytes.chunks(frame).map(|f| f[..width * height].to_vec()).collect()
}

/// All samples of a 4:2:0 video, exactly as coded: Y, U and V of each picture.
pub fn planes(path: &Path) -> Vec<u8> {
    let (_, [name, value]) = ffmpeg();
    let input = path.to_str().unwrap();
    let raw = ["-f", "rawvideo", "-pix_fmt", "yuv420p", "pipe:1"];
    run(path, &[&["-i", input, "-vf", "setpts=N/TB", name, value][..], &raw].concat())
}
