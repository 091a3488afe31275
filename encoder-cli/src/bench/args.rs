//! The options of `encoder bench`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use encoder_core::Resolution;
use encoder_pipeline::source::RawSpec;

use super::spec::Case;
use crate::options::{SourceArgs, VideoArgs};

/// The encoders to measure, and the frames to encode.
#[derive(Args)]
pub struct Bench {
    /// A recording, whose first frames are encoded; without --topic, the frames of its first camera
    /// [default: a clip that the program makes]
    pub recording: Option<PathBuf>,
    /// The recording is a file of raw frames, such as rgb24:640x480@30.
    #[arg(long, value_name = "FORMAT:WxH[@FPS]", requires = "recording")]
    pub raw: Option<RawSpec>,
    #[command(flatten)]
    pub source: SourceArgs,
    /// Size of the clip that the program makes.
    #[arg(long, value_name = "WxH", default_value = "640x480", conflicts_with = "recording")]
    pub size: Resolution,
    /// Frames of each camera [default: 300, fewer where they are large]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=100_000))]
    pub frames: Option<u32>,
    /// Cameras at once, each with the same frames.
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=64))]
    pub cameras: u16,
    /// Only this encoder; may be given several times.
    #[arg(long, value_name = "NAME")]
    pub encoder: Vec<String>,
    /// Presets, separated by commas; each encoder is measured at the presets that it has [default:
    /// for each encoder the presets whose results differ]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub preset: Vec<String>,
    /// How often everything is measured; medians are shown.
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=99))]
    pub rounds: u16,
    /// Also measure this program with the same frames, alternating.
    #[arg(long, value_enum, value_name = "PROGRAM")]
    pub baseline: Option<BaselineArg>,
    #[command(flatten)]
    pub video: VideoArgs,
    /// Write everything as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write one page with plots that needs no network.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Replace files that exist.
    #[arg(long)]
    pub overwrite: bool,
    /// One measurement, for internal use.
    #[arg(long, hide = true)]
    pub case: Option<Case>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BaselineArg {
    /// The plain `ffmpeg` program, with the frames through a pipe.
    Ffmpeg,
}
