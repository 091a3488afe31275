//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use encoder_core::{ConfigError, FrameRate, Preset};
use encoder_pipeline::{naming::Format, source::RawSpec};

#[cfg(feature = "bench")]
use crate::bench::Bench;
#[cfg(feature = "prometheus")]
use crate::options::MetricsArgs;
use crate::options::{ProbeArgs, SourceArgs, VideoArgs};

/// Turns camera topics of robot recordings into correct H.264 video.
#[derive(Parser)]
#[command(name = "encoder", version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    /// More messages: -v for information, -vv for details.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Only errors: no warnings, no progress bars, and no line about each recording that is done.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// How messages are written to standard error.
    #[arg(long, global = true, value_enum, value_name = "FORM", default_value_t = LogArg::Plain)]
    pub log: LogArg,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogArg {
    /// For people: `warning: …`, and below it `hint: …`.
    Plain,
    /// A log: one line per message, with time, level, camera and session.
    Text,
    /// The same, one JSON object per line, and no bars.
    Json,
}

#[derive(Subcommand)]
pub enum Command {
    /// Convert recordings: one video per camera topic.
    Encode(Box<Encode>),
    /// Show every encoder of this build: whether it works here, why not, and what would help.
    Detect {
        /// As JSON.
        #[arg(long)]
        json: bool,
        /// Only this encoder.
        #[arg(long, value_name = "NAME")]
        encoder: Option<String>,
        /// TOML file with the tables encoder, gpu and backend.NAME: the settings to probe with.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        probe: ProbeArgs,
    },
    /// Measure every encoder that works here, at several presets: speed, CPU time, size, quality,
    /// latency and memory, and what this program costs on top of the encoder.
    #[cfg(feature = "bench")]
    Bench(Box<Bench>),
    /// Make whole MP4 files from the files that a crash, a full disk or a power cut left
    /// (NAME.mp4.part, or a fragmented file), up to the last frame that was written. The damaged
    /// files are kept.
    Repair {
        /// The damaged files; of a directory, all part files in it and below, whose videos replace
        /// no file.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// The whole file, or a directory for it [default: NAME.mp4 of NAME.mp4.part, otherwise
        /// NAME.repaired.mp4, beside the damaged file]
        #[arg(short, long, value_name = "DIR|FILE")]
        output: Option<PathBuf>,
        /// Replace files that exist, for damaged files that are named themselves.
        #[arg(long)]
        overwrite: bool,
    },
    /// Show the camera topics of a recording.
    Info {
        /// MCAP, ROS 1 bag, rosbag2 directory or .db3, directory of recordings or of images, Y4M,
        /// or a video file; `-` for an MCAP file, a ROS 1 bag or Y4M on standard input.
        recording: PathBuf,
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        source: SourceArgs,
    },
}

#[derive(Args)]
pub struct Encode {
    /// MCAP, ROS 1 bag, rosbag2 directory or .db3, directory of recordings or of images, Y4M, or a
    /// video file; `-` for an MCAP file, a ROS 1 bag, Y4M, or with --raw raw frames, on standard
    /// input.
    #[arg(required = true)]
    pub recordings: Vec<PathBuf>,
    /// A directory that gets one file per camera topic, or FILE.mp4 (or .h264) for a single topic.
    /// With several recordings, or several in a directory, each gets a directory of its own below
    /// it.
    #[arg(short, long, value_name = "DIR|FILE")]
    pub output: PathBuf,
    /// Format of the files [default: that of FILE's extension, otherwise mp4]
    #[arg(long, value_enum)]
    pub format: Option<FormatArg>,
    /// How MP4 files are written. After a crash, both kinds play up to the last second that was
    /// written.
    #[arg(long, value_enum, default_value_t = ModeArg::Progressive)]
    pub output_mode: ModeArg,
    /// Replace files that exist.
    #[arg(long)]
    pub overwrite: bool,
    /// Raw frames on standard input, such as rgb24:640x480@30.
    #[arg(long, value_name = "FORMAT:WxH[@FPS]")]
    pub raw: Option<RawSpec>,

    #[command(flatten)]
    pub source: SourceArgs,

    /// Which times of the recording are used: the stamps in the message headers (log times if most
    /// of these cannot be true), or the log times.
    #[arg(long, value_enum, default_value_t = TimeArg::Header)]
    pub time: TimeArg,
    /// Put frame N at exactly N/FPS, whatever times were recorded. Sets the rate of images, Y4M and
    /// raw frames.
    #[arg(long, value_name = "FPS", value_parser = rate, conflicts_with = "resample")]
    pub fps: Option<FrameRate>,
    /// Resample to a constant rate by the nearest frame: frames are repeated and left out as
    /// needed, and counted. Reads the recording twice.
    #[arg(long, value_name = "FPS", value_parser = rate)]
    pub resample: Option<FrameRate>,
    /// The grid of --resample: frame N of all cameras of a recording is the same moment, or each
    /// camera begins with its own first frame.
    #[arg(long, value_enum, default_value_t = GridArg::Recording, requires = "resample")]
    pub grid: GridArg,
    /// Where the common grid begins and ends if the cameras do not begin and end together.
    #[arg(long, value_enum, default_value_t = GridEndsArg::Pad, requires = "resample")]
    pub grid_ends: GridEndsArg,
    /// What to do with a frame that cannot be decoded.
    #[arg(long, value_enum, default_value_t = BadFrameArg::Repeat)]
    pub on_bad_frame: BadFrameArg,
    /// What to do with a frame on standard input when the encoder does not keep up. Dropped frames
    /// are counted, and leave a gap in time.
    #[arg(long, value_enum, default_value_t = FullArg::Block)]
    pub on_full: FullArg,

    /// Speed against size: ultrafast to veryslow [default: veryfast]
    #[arg(long)]
    pub preset: Option<Preset>,
    /// Use this encoder and no other: a name from `encoder detect`.
    #[arg(long, value_name = "NAME")]
    pub encoder: Option<String>,
    #[command(flatten)]
    pub video: VideoArgs,

    #[cfg(feature = "prometheus")]
    #[command(flatten)]
    pub metrics: MetricsArgs,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum FormatArg {
    Mp4,
    Annexb,
}

/// Parses a rate of frames. The error is what is allowed: the user gave an option, and no field.
fn rate(text: &str) -> Result<FrameRate, String> {
    text.parse().map_err(|error| match error {
        ConfigError::Value { allowed, .. } => format!("allowed is {allowed}"),
        other => other.to_string(),
    })
}

impl FormatArg {
    pub const fn format(self) -> Format {
        match self {
            Self::Mp4 => Format::Mp4,
            Self::Annexb => Format::AnnexB,
        }
    }
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum ModeArg {
    /// As FILE.part while it grows; at the end the index is moved to the front, so that every
    /// player can open it.
    Progressive,
    /// In fragments under its own name: it plays while it grows, and is never rewritten.
    Fragmented,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum TimeArg {
    Header,
    Log,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum GridArg {
    Recording,
    Camera,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum GridEndsArg {
    /// With the first and the last frame of any camera: the first and the last picture of the
    /// others are repeated.
    Pad,
    /// With the time that all cameras have in common: frames before and after it are left out.
    Trim,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum BadFrameArg {
    /// Repeat the frame before it.
    Repeat,
    /// Leave the frame out.
    Skip,
    /// End with an error.
    Fail,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FullArg {
    /// Wait: the program that writes to standard input waits too.
    Block,
    /// Drop the oldest frame that waits for the encoder.
    DropOldest,
    /// Drop the new frame.
    DropNewest,
    /// End with an error.
    Error,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[cfg(feature = "prometheus")]
    #[test]
    fn the_address_to_listen_at_is_optional() {
        let listens = |words: &[&str]| {
            let all = [&["encoder", "encode", "a.mcap", "-o", "out"], words].concat();
            let cli = Cli::try_parse_from(all).ok()?;
            let Command::Encode(args) = cli.command else { return None };
            args.metrics.metrics_listen.map(|address| address.to_string())
        };
        assert_eq!(listens(&[]), None);
        assert_eq!(listens(&["--metrics-listen"]).as_deref(), Some("127.0.0.1:9464"));
        assert_eq!(listens(&["--metrics-listen", "9"]).as_deref(), Some("127.0.0.1:9"));
        assert_eq!(listens(&["--metrics-listen=[::1]:9"]).as_deref(), Some("[::1]:9"));
    }
}
