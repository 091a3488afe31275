//! Which quantiser of OpenH264 gives the picture of x264 at a CRF? Measured through the program
//! `encoder`, as its users run it.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    process::{Result, output, target},
    program::encoder,
    setup::{self, Tools},
};

/// The CRFs that people choose.
const CRFS: [u32; 6] = [17, 20, 23, 26, 29, 32];
/// The quantisers among which OpenH264's equal picture is looked for.
const QUANTISERS: std::ops::RangeInclusive<u32> = 8..=40;

/// What one encode gave.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    /// CRF of x264, or quantiser of OpenH264.
    setting: f64,
    kilobytes: f64,
    /// Mean structural similarity of luma, 1 for equal pictures.
    ssim: f64,
}

/// Prints one Markdown table per clip.
///
/// # Errors
/// When a clip cannot be decoded, or an encode fails.
pub fn quality(clips: &[PathBuf], frames: u32, preset: String) -> Result<()> {
    let dir = target().join("quality");
    let bench = Bench { tools: setup::setup()?, encoder: encoder()?, dir, preset };
    fs::create_dir_all(&bench.dir)?;
    for clip in clips {
        let source = bench.decode(clip, frames)?;
        let x264: Vec<Point> =
            CRFS.iter().map(|&crf| bench.x264(&source, crf)).collect::<Result<_>>()?;
        let mapped: Vec<Point> =
            CRFS.iter().map(|&crf| bench.openh264(&source, crf)).collect::<Result<_>>()?;
        let curve: Vec<Point> =
            QUANTISERS.map(|qp| bench.quantiser(&source, qp)).collect::<Result<_>>()?;
        let name = clip.file_name().unwrap_or_default().to_string_lossy();
        print!("{}", table(&name, &x264, &mapped, &curve));
    }
    Ok(())
}

struct Bench {
    tools: Tools,
    encoder: PathBuf,
    dir: PathBuf,
    /// Of both encoders.
    preset: String,
}

impl Bench {
    fn ffmpeg(&self) -> Command {
        let mut command = Command::new(&self.tools.ffmpeg);
        command.args(["-hide_banner", "-nostdin", "-y"]);
        command
    }

    /// The first frames of a clip as Y4M, 4:2:0, limited range.
    fn decode(&self, clip: &Path, frames: u32) -> Result<PathBuf> {
        let source = self.dir.join("source.y4m");
        output(
            self.ffmpeg()
                .arg("-i")
                .arg(clip)
                .args(["-frames:v", &frames.to_string(), "-vf", "scale=out_range=tv"])
                .args(["-pix_fmt", "yuv420p"])
                .arg(&source),
        )?;
        Ok(source)
    }

    fn x264(&self, source: &Path, crf: u32) -> Result<Point> {
        self.encode(source, crf, &["--encoder", "x264", "--crf", &crf.to_string()])
    }

    /// OpenH264 as its quality map has it.
    fn openh264(&self, source: &Path, crf: u32) -> Result<Point> {
        self.encode(source, crf, &["--encoder", "openh264", "--crf", &crf.to_string()])
    }

    /// OpenH264 at a quantiser of its own.
    fn quantiser(&self, source: &Path, quantiser: u32) -> Result<Point> {
        let config = self.dir.join("openh264.toml");
        fs::write(&config, format!("[backend.openh264]\nquantiser = {quantiser}\n"))?;
        let config = config.to_string_lossy();
        self.encode(source, quantiser, &["--encoder", "openh264", "--config", &config])
    }

    fn encode(&self, source: &Path, setting: u32, options: &[&str]) -> Result<Point> {
        let video = self.dir.join("encoded.mp4");
        let mut command = Command::new(&self.encoder);
        command.args(["--quiet", "encode", "-", "--overwrite", "--output"]).arg(&video);
        command.args(["--preset", &self.preset]).args(options).stdin(File::open(source)?);
        let run = self.tools.announce(&mut command).output()?;
        if !run.status.success() {
            return Err(String::from_utf8_lossy(&run.stderr).into());
        }
        let report = fs::read(video.with_extension("report.json"))?;
        let report: Value = serde_json::from_slice(&report)?;
        let bytes = report["outputs"][0]["bytes"].as_f64().ok_or("the report has no bytes")?;
        let ssim = self.ssim(&video, source)?;
        Ok(Point { setting: f64::from(setting), kilobytes: bytes / 1000.0, ssim })
    }

    /// Luma SSIM, frame by frame: the times of the two do not matter.
    fn ssim(&self, video: &Path, source: &Path) -> Result<f64> {
        const GRAPH: &str = "[0:v]settb=AVTB,setpts=N/30/TB[a];[1:v]settb=AVTB,setpts=N/30/TB[b];\
                             [a][b]ssim";
        let mut command = self.ffmpeg();
        command.arg("-i").arg(video).arg("-i").arg(source);
        let run = output(command.args(["-lavfi", GRAPH, "-f", "null", "-"]))?;
        luma_ssim(&String::from_utf8_lossy(&run.stderr)).ok_or_else(|| "FFmpeg told no SSIM".into())
    }
}

/// `SSIM Y:0.987 (…)` out of FFmpeg's words.
fn luma_ssim(text: &str) -> Option<f64> {
    text.split("SSIM Y:").nth(1)?.split_whitespace().next()?.parse().ok()
}

/// The curve through `points` (quality falls as the setting grows) where it has this SSIM.
fn at_ssim(points: &[Point], ssim: f64) -> Option<Point> {
    points.windows(2).find(|w| w[0].ssim >= ssim && ssim > w[1].ssim).map(|w| {
        let part = (w[0].ssim - ssim) / (w[0].ssim - w[1].ssim);
        let between = |a: f64, b: f64| a + part * (b - a);
        Point {
            setting: between(w[0].setting, w[1].setting),
            kilobytes: between(w[0].kilobytes, w[1].kilobytes),
            ssim,
        }
    })
}

fn table(name: &str, x264: &[Point], mapped: &[Point], curve: &[Point]) -> String {
    let mut text = format!("\n### {name}\n\n{HEAD}");
    for (x264, mapped) in x264.iter().zip(mapped) {
        let equal = match at_ssim(curve, x264.ssim) {
            Some(point) => format!("{:.1} | {:.0}", point.setting, point.kilobytes),
            None => "not measured | ".into(),
        };
        text += &format!(
            "| {} | {:.0} | {:.4} | {:.0} | {:.4} | {:+.4} | {equal} |\n",
            x264.setting,
            x264.kilobytes,
            x264.ssim,
            mapped.kilobytes,
            mapped.ssim,
            mapped.ssim - x264.ssim
        );
    }
    text
}

const HEAD: &str = "\
| crf | x264 kB | SSIM | OpenH264 kB | SSIM | difference | quantiser of equal SSIM | kB there |
|---|---|---|---|---|---|---|---|
";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ssim_is_read_from_ffmpegs_words() {
        let text = "[Parsed_ssim_4 @ 0x5] SSIM Y:0.978123 (16.6) U:0.99 (20) V:0.99 (20) All:0.98";
        assert_eq!(luma_ssim(text), Some(0.978_123));
        assert_eq!(luma_ssim("SSIM Y:"), None);
    }

    #[test]
    fn a_line_has_both_encoders_and_the_quantiser_of_equal_ssim() {
        let point = |setting, kilobytes, ssim| Point { setting, kilobytes, ssim };
        let curve = [point(20.0, 100.0, 0.9), point(22.0, 80.0, 0.8)];
        let text = table("a", &[point(23.0, 70.0, 0.85)], &[point(23.0, 90.0, 0.86)], &curve);
        let line = "| 23 | 70 | 0.8500 | 90 | 0.8600 | +0.0100 | 21.0 | 90 |\n";
        assert!(text.ends_with(line), "{text}");
    }

    #[test]
    fn curves_are_read_between_their_points() {
        let point = |setting, kilobytes, ssim| Point { setting, kilobytes, ssim };
        let curve = [point(20.0, 100.0, 0.9), point(22.0, 80.0, 0.8), point(24.0, 50.0, 0.6)];
        let middle = at_ssim(&curve, 0.85).unwrap();
        assert!((middle.setting - 21.0).abs() < 1e-9 && (middle.kilobytes - 90.0).abs() < 1e-9);
        assert_eq!(at_ssim(&curve, 0.9).unwrap().setting, 20.0);
        assert_eq!(at_ssim(&curve, 0.95), None);
        assert_eq!(at_ssim(&curve, 0.5), None);
    }
}
