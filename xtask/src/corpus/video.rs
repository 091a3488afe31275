//! The contents of a video, as decoded by FFmpeg.

use std::{
    io::Read,
    path::Path,
    process::{Command, Stdio},
};

use crate::process::{self, Result, output};

/// A video, decoded.
pub struct Video {
    /// Presentation times in nanoseconds, in decoding order as FFmpeg returns them.
    pub times_ns: Vec<i64>,
    pub pictures: Vec<Picture>,
}

/// The properties of a decoded picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Picture {
    /// The number in its bar code, if it has a bar code.
    pub bar: Option<u32>,
    /// Mean red, green and blue below the bar code.
    pub mean_rgb: [f64; 3],
}

/// Decodes a whole video with FFmpeg.
///
/// # Errors
/// When FFmpeg reports any error in it.
pub fn decode(ffmpeg: &Path, video: &Path) -> Result<Video> {
    let times_ns = times(ffmpeg, video)?;
    let (width, height) = size(ffmpeg, video)?;
    let mut child = Command::new(ffmpeg)
        .args(["-v", "error", "-xerror", "-nostdin", "-i"])
        .arg(video)
        .args(process::EACH_FRAME_ONCE)
        .args(["-f", "rawvideo", "-pix_fmt", "rgb24", "-"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut pipe = child.stdout.take().ok_or("no pipe")?;
    let mut frame = vec![0; width * height * 3];
    let mut pictures = Vec::new();
    while read_whole(&mut pipe, &mut frame)? {
        pictures.push(Picture { bar: read_bar(&frame, width), mean_rgb: mean_rgb(&frame, width) });
    }
    let status = child.wait()?;
    if !status.success() {
        return Err(format!("{}: FFmpeg cannot decode it: {status}", video.display()).into());
    }
    Ok(Video { times_ns, pictures })
}

/// Fills `frame`; returns false at the end of the stream.
fn read_whole(pipe: &mut impl Read, frame: &mut [u8]) -> Result<bool> {
    let mut filled = 0;
    while filled < frame.len() {
        match pipe.read(&mut frame[filled..])? {
            0 if filled == 0 => return Ok(false),
            0 => return Err("a picture is cut off".into()),
            n => filled += n,
        }
    }
    Ok(true)
}

/// The times of all packets, sorted: the display times.
fn times(ffmpeg: &Path, video: &Path) -> Result<Vec<i64>> {
    // framecrc writes one line per packet: stream, dts, pts, duration, size, checksum.
    let run = output(
        Command::new(ffmpeg)
            .args(["-v", "error", "-nostdin", "-i"])
            .arg(video)
            .args(["-c", "copy", "-copyts", "-f", "framecrc", "-"]),
    )?;
    let text = String::from_utf8_lossy(&run.stdout);
    parse_times(&text).ok_or_else(|| format!("{}: FFmpeg told no times", video.display()).into())
}

fn parse_times(text: &str) -> Option<Vec<i64>> {
    let base = text.lines().find_map(|line| line.strip_prefix("#tb 0:"))?;
    let (numerator, denominator) = base.trim().split_once('/')?;
    let (numerator, denominator): (i128, i128) =
        (numerator.parse().ok()?, denominator.parse().ok()?);
    let mut times = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let pts: i128 = line.split(',').nth(2)?.trim().parse().ok()?;
            Some((pts * numerator * 1_000_000_000 / denominator) as i64)
        })
        .collect::<Option<Vec<_>>>()?;
    times.sort_unstable();
    Some(times)
}

/// Width and height as displayed by a player: cropping applied.
fn size(ffmpeg: &Path, video: &Path) -> Result<(usize, usize)> {
    // A picture file contains the size of the decoded picture.
    let run =
        output(Command::new(ffmpeg).args(["-v", "error", "-nostdin", "-i"]).arg(video).args([
            "-frames:v",
            "1",
            "-f",
            "image2pipe",
            "-c:v",
            "ppm",
            "-",
        ]))?;
    let head = String::from_utf8_lossy(run.stdout.get(..32).unwrap_or_default()).into_owned();
    let mut words = head.split_whitespace().skip(1);
    let mut number = || words.next().and_then(|word| word.parse().ok());
    match (number(), number()) {
        (Some(width), Some(height)) => Ok((width, height)),
        _ => Err(format!("{}: no picture", video.display()).into()),
    }
}

/// Side of a cell of the bar code in pixels.
fn cell(width: usize) -> usize {
    (width / 40).max(4)
}

/// The bar code at the top left: 14 square cells, a white one, twelve bits with the most
/// significant first, a black one.
fn read_bar(rgb: &[u8], width: usize) -> Option<u32> {
    let cell = cell(width);
    let margin = (cell / 4).max(1);
    let inside = margin..cell - margin;
    let mut levels = [0.0; 14];
    for (n, level) in levels.iter_mut().enumerate() {
        let mut sum = 0;
        for y in inside.clone() {
            let row = (y * width + n * cell) * 3;
            let samples = rgb.get(row + inside.start * 3..row + inside.end * 3)?;
            sum += samples.iter().map(|&sample| u64::from(sample)).sum::<u64>();
        }
        *level = sum as f64 / (inside.len() * inside.len() * 3) as f64;
    }
    if levels[0] <= 140.0 || levels[13] >= 110.0 {
        return None;
    }
    Some(levels[1..13].iter().fold(0, |bits, &level| bits << 1 | u32::from(level > 125.0)))
}

/// Mean red, green and blue below the bar code.
fn mean_rgb(rgb: &[u8], width: usize) -> [f64; 3] {
    let rows = rgb.len() / (width * 3).max(1);
    let below = if rows > 2 * cell(width) { cell(width) * width * 3 } else { 0 };
    let pixels = &rgb[below..];
    let mut sums = [0_u64; 3];
    for pixel in pixels.chunks_exact(3) {
        for (sum, &sample) in sums.iter_mut().zip(pixel) {
            *sum += u64::from(sample);
        }
    }
    sums.map(|sum| sum as f64 / (pixels.len() / 3).max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A grey picture with a number in its bar code.
    fn stamped(number: u32, width: usize, height: usize) -> Vec<u8> {
        let mut rgb = vec![100; width * height * 3];
        for n in 0..14 {
            let white = n == 0 || (n < 13 && number >> (12 - n) & 1 == 1);
            for y in 0..cell(width) {
                let from = (y * width + n * cell(width)) * 3;
                rgb[from..from + cell(width) * 3].fill(if white { 235 } else { 16 });
            }
        }
        rgb
    }

    #[test]
    fn bar_codes_are_read_and_nothing_else_is_taken_for_one() {
        for number in [0, 1, 2, 1234, 4095] {
            for width in [64, 320, 641, 1280] {
                let rgb = stamped(number, width, 100);
                assert_eq!(read_bar(&rgb, width), Some(number), "{number} {width}");
                assert_eq!(mean_rgb(&rgb, width), [100.0; 3]);
            }
        }
        assert_eq!(read_bar(&[100; 320 * 100 * 3], 320), None);
        assert_eq!(read_bar(&[255; 320 * 100 * 3], 320), None);
        assert_eq!(read_bar(&[255; 30], 10), None);
    }

    #[test]
    fn times_are_sorted_nanoseconds() {
        let text = "#software: x\n#tb 0: 1/90000\n0, 0, 3000, 1, 9, 0x1\n0, 1, 0, 1, 9, 0x2\n";
        assert_eq!(parse_times(text), Some(vec![0, 33_333_333]));
        assert_eq!(parse_times("0, 0, 0, 1, 9, 0x1"), None);
    }
}
