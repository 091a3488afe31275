//! Measures the similarity of a video and its original with FFmpeg's filters.

use std::{path::Path, sync::Arc, time::Duration};

use encoder_core::{EncoderType, Resolution};
use encoder_ffmpeg::{
    Ffmpeg, Search,
    process::{self, Input},
};
use serde::Serialize;

/// A comparison that has not ended after this long is stopped.
const LIMIT: Duration = Duration::from_secs(6 * 3600);

/// Means over all frames.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quality {
    /// Structural similarity of luma, 1 for equal pictures.
    pub ssim: f64,
    /// Peak signal-to-noise ratio of luma, in decibels; 100 for equal pictures.
    pub psnr: f64,
    /// VMAF, 0 to 100, if FFmpeg has the filter.
    pub vmaf: Option<f64>,
}

/// The FFmpeg that compares videos.
pub struct Judge {
    ffmpeg: Arc<Ffmpeg>,
    has_vmaf: bool,
}

impl Judge {
    /// # Errors
    /// When there is no FFmpeg, or it lacks the filters.
    pub fn new(ffmpeg: Option<&Path>) -> Result<Self, String> {
        let ffmpeg = Search::new(EncoderType::X264).named(ffmpeg).run();
        let ffmpeg = ffmpeg.map_err(|error| error.to_string())?;
        let mut command = ffmpeg.command();
        command.args(["-hide_banner", "-filters"]);
        let listed = process::run(command, Input::Empty, LIMIT);
        let listed = listed.map_err(|error| format!("{}: {error}", ffmpeg.path.display()))?;
        let listed = String::from_utf8_lossy(&listed.stdout);
        let has = |name: &str| listed.lines().any(|l| l.split_whitespace().nth(1) == Some(name));
        if !has("ssim") || !has("psnr") {
            return Err(format!("{} has no filters ssim and psnr", ffmpeg.path.display()));
        }
        let has_vmaf = has("libvmaf");
        Ok(Self { ffmpeg, has_vmaf })
    }

    /// Compares a video with its original in 4:2:0, frame by frame: times do not matter.
    pub fn compare(
        &self,
        video: &Path,
        original: &Path,
        size: Resolution,
    ) -> Result<Quality, String> {
        let copies = if self.has_vmaf { "split=3[s0][p0][v0]" } else { "split[s0][p0]" };
        let others = copies.replace('0', "1");
        let vmaf = if self.has_vmaf { ";[v0][v1]libvmaf" } else { "" };
        let graph = format!(
            "[0:v]settb=AVTB,setpts=N/30/TB,{copies};[1:v]settb=AVTB,setpts=N/30/TB,{others};\
             [s0][s1]ssim;[p0][p1]psnr{vmaf}"
        );
        let size = size.even().to_string();
        let mut command = self.ffmpeg.command();
        command.args(["-hide_banner", "-nostdin", "-nostats", "-i"]).arg(video);
        command.args(["-f", "rawvideo", "-pix_fmt", "yuv420p", "-video_size", &size]);
        command.args(["-framerate", "30", "-i"]).arg(original);
        command.args(["-lavfi", &graph, "-f", "null", "-"]);
        let output =
            process::run(command, Input::Empty, LIMIT).map_err(|error| error.to_string())?;
        read(&output.stderr).ok_or_else(|| {
            let last = output.stderr.lines().last().unwrap_or("no message");
            format!("FFmpeg reported no quality ({}): {last}", output.exit)
        })
    }
}

/// Reads FFmpeg's log.
fn read(text: &str) -> Option<Quality> {
    let behind = |key: &str| {
        let word = text.split(key).nth(1)?.split_whitespace().next()?;
        if word == "inf" { Some(100.0) } else { word.parse().ok() }
    };
    let (ssim, psnr) = (behind("SSIM Y:")?, behind("PSNR y:")?);
    Some(Quality { ssim, psnr, vmaf: behind("VMAF score: ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quality_is_read_from_ffmpegs_log() {
        let text = "[Parsed_ssim_4 @ 0x1] SSIM Y:0.978123 (16.6) U:0.99 (20) All:0.98 (17)\n\
                    [Parsed_psnr_5 @ 0x2] PSNR y:38.250000 u:45.1 v:44 average:39 min:30 max:50\n";
        assert_eq!(read(text), Some(Quality { ssim: 0.978_123, psnr: 38.25, vmaf: None }));
        let more = format!("{text}[libvmaf @ 0x3] VMAF score: 91.5\n");
        assert_eq!(read(&more).and_then(|q| q.vmaf), Some(91.5));
        let equal = "SSIM Y:1.000000 (inf) PSNR y:inf u:inf";
        assert_eq!(read(equal), Some(Quality { ssim: 1.0, psnr: 100.0, vmaf: None }));
        assert_eq!(read("Error opening input"), None);
    }
}
