//! What can be said on the command line.

#[cfg(feature = "prometheus")]
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use encoder_core::{FrameRate, Preset, Resolution};
use encoder_pipeline::source::{Moment, RawSpec};

use super::bench::Case;

/// Turns camera topics of robot recordings into correct H.264 video.
#[derive(Parser)]
#[command(name = "encoder", version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    /// More messages: -v for information, -vv for details.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Only errors, and no progress bars.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// How messages are written to standard error; json: one object per line, and no bars.
    #[arg(long, global = true, value_enum, value_name = "FORM", default_value_t = LogArg::Text)]
    pub log: LogArg,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogArg {
    Text,
    Json,
}

#[derive(Subcommand)]
pub enum Command {
    /// Convert recordings: one video per camera topic.
    Encode(Box<Encode>),
    /// Show every encoder of this build: usable here or not, why, and what would help.
    Detect {
        /// As JSON.
        #[arg(long)]
        json: bool,
        /// Only this encoder.
        #[arg(long, value_name = "NAME")]
        encoder: Option<String>,
        /// TOML file with the tables encoder, gpu and backend.NAME: with what is to be probed.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        probe: ProbeArgs,
    },
    /// Measure every encoder that works here, at several presets: speed, CPU time, size, quality,
    /// latency and memory, and what this program costs on top of the encoder.
    Bench(Box<Bench>),
    /// Make whole MP4 files of what a crash, a full disk or a power cut left (NAME.mp4.part, or a
    /// fragmented file), up to the last frame that was written. The files themselves are kept.
    Repair {
        /// What was left.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// The whole file, or a directory for it [default: NAME.mp4 of NAME.mp4.part, otherwise
        /// NAME.repaired.mp4, beside what was left]
        #[arg(short, long, value_name = "DIR|FILE")]
        output: Option<PathBuf>,
        /// Replace files that exist.
        #[arg(long)]
        overwrite: bool,
    },
    /// Show the camera topics of a recording.
    Info {
        /// MCAP, ROS 1 bag, rosbag2 directory or .db3, directory of images, Y4M, or a video file.
        recording: PathBuf,
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        source: SourceArgs,
    },
}

#[derive(Args)]
pub struct ProbeArgs {
    /// Probe every encoder again, whatever earlier runs found out.
    #[arg(long)]
    pub reprobe: bool,
}

#[derive(Args)]
pub struct Encode {
    /// MCAP, ROS 1 bag, rosbag2 directory or .db3, directory of images, Y4M, or a video file;
    /// `-` for Y4M, or with --raw raw frames, on standard input.
    #[arg(required = true)]
    pub recordings: Vec<PathBuf>,
    /// A directory that gets one file per camera topic, or FILE.mp4 (or .h264) for a single topic.
    /// With several recordings, each gets a directory of its own below it.
    #[arg(short, long, value_name = "DIR|FILE")]
    pub output: PathBuf,
    /// Format of the files in a directory.
    #[arg(long, value_enum, default_value_t = FormatArg::Mp4)]
    pub format: FormatArg,
    /// How MP4 files are written. What a crash leaves of either plays up to its last second.
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

    /// Which times of the recording count: the stamps in the message headers (log times where
    /// these are empty or run backwards), or the log times.
    #[arg(long, value_enum, default_value_t = TimeArg::Header)]
    pub time: TimeArg,
    /// Lay frame N at exactly N/FPS, whatever was recorded. Sets the rate of images and raw frames.
    #[arg(long, value_name = "FPS", conflicts_with = "resample")]
    pub fps: Option<FrameRate>,
    /// Make a constant rate by nearest frame: frames are repeated and left out as needed, and
    /// counted. Reads the recording twice.
    #[arg(long, value_name = "FPS")]
    pub resample: Option<FrameRate>,
    /// What to do with a frame that cannot be decoded.
    #[arg(long, value_enum, default_value_t = BadFrameArg::Repeat)]
    pub on_bad_frame: BadFrameArg,
    /// What to do with a frame on standard input when the encoder does not keep up. Frames that are
    /// dropped are counted, and their time stays free.
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

/// What a video shall be, and what may be used for it.
#[derive(Args)]
pub struct VideoArgs {
    /// Quality, 0 (best) to 51 [default: 23]
    #[arg(long)]
    pub crf: Option<u8>,
    /// Frames from one key frame to the next [default: 30]
    #[arg(long)]
    pub gop: Option<u32>,
    /// Most B-frames in a row, 0 to 4 [default: 0]
    #[arg(long, value_name = "N")]
    pub b_frames: Option<u8>,
    #[command(flatten)]
    pub probe: ProbeArgs,
    /// TOML file with the tables encoder, gpu and backend.NAME; options here go before it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Threads for decoding and encoding, all cameras together [default: the number of cores]
    #[arg(short = 'j', long, alias = "jobs", value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

/// What is measured, and with what.
#[derive(Args)]
pub struct Bench {
    /// A recording, whose first frames are encoded; without --topic, those of its first camera
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
    /// Presets, by commas; an encoder is measured at those that it has [default: for each encoder
    /// those that it tells apart]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub preset: Vec<String>,
    /// How often everything is measured; medians are shown.
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=99))]
    pub rounds: u16,
    /// Also measure this program with the same frames, in turn.
    #[arg(long, value_enum, value_name = "PROGRAM")]
    pub baseline: Option<BaselineArg>,
    #[command(flatten)]
    pub video: VideoArgs,
    /// Write everything as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write one page with plots, that needs no network.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Replace files that exist.
    #[arg(long)]
    pub overwrite: bool,
    /// One measurement, for the program's own use.
    #[arg(long, hide = true)]
    pub case: Option<Case>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BaselineArg {
    /// The plain `ffmpeg` program, with the frames through a pipe.
    Ffmpeg,
}

#[cfg(feature = "prometheus")]
#[derive(Args)]
#[command(group = clap::ArgGroup::new("metrics_to").multiple(true)
    .args(["metrics_listen", "metrics_file"]))]
pub struct MetricsArgs {
    /// Serve metrics in Prometheus' format while encoding, at http://ADDR/metrics. A port alone is
    /// one of this machine's loopback [default ADDR: 127.0.0.1:9464]
    #[arg(long, value_name = "ADDR", num_args = 0..=1, default_missing_value = "9464")]
    #[arg(value_parser = listen_address)]
    pub metrics_listen: Option<SocketAddr>,
    /// Write metrics in Prometheus' format to FILE, every 10 seconds and at the end.
    #[arg(long, value_name = "FILE")]
    pub metrics_file: Option<PathBuf>,
    /// Give metrics a label `camera` with the topic.
    #[arg(long, requires = "metrics_to")]
    pub metrics_camera: bool,
}

#[derive(Args)]
pub struct SourceArgs {
    /// Only topics that match this glob; may be given several times.
    #[arg(long, value_name = "GLOB")]
    pub topic: Vec<String>,
    /// Leave out what was logged earlier: seconds from the start of the recording, or @SECONDS
    /// since the epoch.
    #[arg(long, value_name = "TIME", value_parser = moment, allow_hyphen_values = true)]
    pub start: Option<Moment>,
    /// Leave out what was logged later.
    #[arg(long, value_name = "TIME", value_parser = moment, allow_hyphen_values = true)]
    pub end: Option<Moment>,
    /// Show depth topics (16UC1, 32FC1) as grey: MIN is black, MAX white, in the unit of the
    /// recording. Without it they are left out.
    #[arg(long, value_name = "MIN:MAX", value_parser = depth_range)]
    pub depth_range: Option<(f32, f32)>,
    /// Largest chunk or message that is accepted, in bytes, decompressed.
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 30)]
    pub max_message_bytes: u64,
    /// Largest picture that is accepted, in pixels.
    #[arg(long, value_name = "PIXELS", default_value_t = 1 << 27)]
    pub max_pixels: u64,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum FormatArg {
    Mp4,
    Annexb,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum ModeArg {
    /// As FILE.part while it grows; then the index goes in front, for every player.
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
pub enum BadFrameArg {
    /// Show the frame before it again.
    Repeat,
    /// Leave it out.
    Skip,
    /// End with an error.
    Fail,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FullArg {
    /// Wait: whoever writes to standard input waits too.
    Block,
    /// Drop the oldest frame that waits for the encoder.
    DropOldest,
    /// Drop the new frame.
    DropNewest,
    /// End with an error.
    Error,
}

fn moment(text: &str) -> Result<Moment, String> {
    let wrong = || {
        format!("`{text}` is no time: seconds from the start such as 12.5, or @SECONDS since 1970")
    };
    let (digits, absolute) = match text.strip_prefix('@') {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let ns = nanoseconds(digits).filter(|ns| *ns >= 0).ok_or_else(wrong)?;
    Ok(if absolute { Moment::Absolute(ns) } else { Moment::FromStart(ns) })
}

/// Decimal seconds, exactly, in nanoseconds.
fn nanoseconds(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || fraction.len() > 9 || !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole: i64 = whole.parse().ok()?;
    let fraction: i64 = format!("{fraction:0<9}").parse().ok()?;
    whole.checked_mul(1_000_000_000)?.checked_add(fraction)
}

fn depth_range(text: &str) -> Result<(f32, f32), String> {
    text.split_once(':')
        .and_then(|(min, max)| Some((min.parse().ok()?, max.parse().ok()?)))
        .filter(|(min, max): &(f32, f32)| min.is_finite() && max.is_finite() && min < max)
        .ok_or_else(|| format!("`{text}` is no range: MIN:MAX with MIN below MAX, such as 0:4000"))
}

/// An address with port, an address, or a port of the loopback.
#[cfg(feature = "prometheus")]
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const PORT: u16 = 9464;
    let port = |port: &str| port.parse().ok().map(|port| SocketAddr::new(LOOPBACK, port));
    let address = || text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, PORT));
    let local = || text.strip_prefix("localhost:").and_then(port);
    let read = text.parse().ok().or_else(|| port(text)).or_else(address).or_else(local);
    read.filter(|address: &SocketAddr| address.port() != 0).ok_or_else(|| {
        format!(
            "`{text}` is no address to listen at: a port such as 9464, or ADDRESS:PORT; a \
             recording stands in front of --metrics-listen"
        )
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn moments_and_ranges() {
        for (text, expected) in [
            ("12.5", Some(Moment::FromStart(12_500_000_000))),
            ("0", Some(Moment::FromStart(0))),
            ("@1760000000.000000001", Some(Moment::Absolute(1_760_000_000_000_000_001))),
            ("-1", None),
            ("1.0000000001", None),
            ("", None),
            (".5", None),
            ("1e3", None),
            ("99999999999999", None),
        ] {
            assert_eq!(moment(text).ok(), expected, "{text}");
        }
        for (text, expected) in [
            ("0:4000", Some((0.0, 4000.0))),
            ("0.3:5.5", Some((0.3, 5.5))),
            ("5:5", None),
            ("a:b", None),
            ("nan:1", None),
            ("7", None),
        ] {
            assert_eq!(depth_range(text).ok(), expected, "{text}");
        }
    }

    #[cfg(feature = "prometheus")]
    #[test]
    fn addresses_to_listen_at() {
        for (text, expected) in [
            ("9465", Some("127.0.0.1:9465")),
            ("127.0.0.1:9465", Some("127.0.0.1:9465")),
            ("localhost:9465", Some("127.0.0.1:9465")),
            ("0.0.0.0", Some("0.0.0.0:9464")),
            ("0.0.0.0:80", Some("0.0.0.0:80")),
            ("::1", Some("[::1]:9464")),
            ("[::]:9465", Some("[::]:9465")),
            ("0", None),
            ("127.0.0.1:0", None),
            (":9464", None),
            ("65536", None),
            ("drive.mcap", None),
            ("", None),
        ] {
            let expected = expected.map(|text| text.parse().expect("an address"));
            assert_eq!(listen_address(text).ok(), expected, "{text}");
        }
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
