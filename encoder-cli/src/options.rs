//! Groups of options that several commands share.

#[cfg(feature = "prometheus")]
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::{collections::BTreeMap, path::PathBuf};

use clap::{Args, ValueEnum};
use encoder_pipeline::{
    picture::PictureOptions,
    source::{Limits, Moment, SourceOptions, check_topic_glob},
};

#[derive(Args)]
pub struct ProbeArgs {
    /// Probe every encoder again and ignore the results of earlier runs.
    #[arg(long)]
    pub reprobe: bool,
}

/// The properties of a video, and the resources for encoding it.
#[derive(Args)]
pub struct VideoArgs {
    /// Quality, 0 (best) to 51 [default: 23]
    #[arg(long, conflicts_with_all = ["qp", "bitrate"])]
    pub crf: Option<u8>,
    /// Constant quantiser, 1 (best) to 51, in place of --crf
    #[arg(long, conflicts_with_all = ["bitrate", "max_bitrate"])]
    pub qp: Option<u8>,
    /// Mean bit rate in kbit/s, in place of --crf
    #[arg(long, value_name = "KBPS")]
    pub bitrate: Option<u32>,
    /// Maximum bit rate in kbit/s, of a decoder's buffer of one second
    #[arg(long, value_name = "KBPS", conflicts_with = "crf")]
    pub max_bitrate: Option<u32>,
    /// Frames from one key frame to the next [default: 30]
    #[arg(long)]
    pub gop: Option<u32>,
    /// Most B-frames in a row, 0 to 4 [default: 0]
    #[arg(long, value_name = "N")]
    pub b_frames: Option<u8>,
    #[command(flatten)]
    pub probe: ProbeArgs,
    /// TOML file with the tables encoder, gpu and backend.NAME; options here override it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Threads for decoding and encoding, all cameras together [default: the number of cores]
    #[arg(short = 'j', long, alias = "jobs", value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

#[cfg(feature = "prometheus")]
#[derive(Args)]
#[command(group = clap::ArgGroup::new("metrics_to").multiple(true)
    .args(["metrics_listen", "metrics_file"]))]
pub struct MetricsArgs {
    /// Serve metrics in Prometheus' format while encoding, at http://ADDR/metrics. A port alone is
    /// on this machine's loopback address [default ADDR: 127.0.0.1:9464]
    #[arg(long, value_name = "ADDR", num_args = 0..=1, default_missing_value = "9464")]
    #[arg(value_parser = listen_address)]
    pub metrics_listen: Option<SocketAddr>,
    /// Write metrics in Prometheus' format to FILE, every 10 seconds and at the end.
    #[arg(long, value_name = "FILE")]
    pub metrics_file: Option<PathBuf>,
    /// Add a label `camera` with the topic to the metrics.
    #[arg(long, requires = "metrics_to")]
    pub metrics_camera: bool,
}

#[derive(Args)]
pub struct SourceArgs {
    /// Only topics that match this glob; may be given several times.
    #[arg(long, value_name = "GLOB", value_parser = topic_glob)]
    pub topic: Vec<String>,
    /// Leave out messages that were logged earlier: seconds from the start of the recording, or
    /// @SECONDS since the epoch.
    #[arg(long, value_name = "TIME", value_parser = moment, allow_hyphen_values = true)]
    pub start: Option<Moment>,
    /// Leave out messages that were logged later.
    #[arg(long, value_name = "TIME", value_parser = moment, allow_hyphen_values = true)]
    pub end: Option<Moment>,
    /// Show depth (16UC1, 32FC1, and pictures of 16 bits that look like it) as grey: MIN is black,
    /// MAX white, in the unit of the recording. Without this option, depth is left out. With TOPIC:
    /// for this topic only, which is then depth whatever its encoding; may be given several times.
    #[arg(long, value_name = "[TOPIC=]MIN:MAX", value_parser = of_topic(depth_range))]
    pub depth_range: Vec<OfTopic<(f32, f32)>>,
    /// Bits that the samples of 16-bit pictures (mono16, bayer_*16, PNG) use, 10 to 14 for most
    /// cameras: the highest value of so many bits is white. With TOPIC: for this topic; may be given
    /// several times.
    #[arg(long, value_name = "[TOPIC=]N", value_parser = of_topic(bits))]
    pub bits: Vec<OfTopic<u8>>,
    /// Whether JPEG and PNG are turned upright by the orientation in their EXIF data, or shown as
    /// they are stored, with a warning.
    #[arg(long, value_enum, default_value_t = ExifArg::Ignore)]
    pub exif_orientation: ExifArg,
    /// Largest chunk or message that is accepted, in bytes, decompressed.
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 30)]
    pub max_message_bytes: u64,
    /// Largest picture that is accepted, in pixels.
    #[arg(long, value_name = "PIXELS", default_value_t = 1 << 27)]
    pub max_pixels: u64,
    /// Most bytes of temporary files. A recording that is compressed as a whole (.mcap.zstd,
    /// .bag.gz), or comes through a pipe, is first written to the temporary directory (TMPDIR).
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 30)]
    pub max_temporary_bytes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExifArg {
    Ignore,
    Apply,
}

/// A value for one topic, or for all that have none of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfTopic<T> {
    topic: Option<String>,
    value: T,
}

/// The last value for `topic`.
fn last<T: Copy>(all: &[OfTopic<T>], topic: Option<&str>) -> Option<T> {
    all.iter().rev().find(|one| one.topic.as_deref() == topic).map(|one| one.value)
}

impl SourceArgs {
    pub fn options(&self) -> SourceOptions {
        SourceOptions {
            topics: self.topic.clone(),
            start: self.start,
            end: self.end,
            rate: None,
            limits: self.limits(),
            ..Default::default()
        }
    }

    pub fn picture(&self) -> PictureOptions {
        PictureOptions {
            depth_range: last(&self.depth_range, None),
            is_depth: false,
            bits: last(&self.bits, None),
            turn_upright: self.exif_orientation == ExifArg::Apply,
            limits: self.limits(),
        }
    }

    /// How the pictures of a topic are shown.
    pub fn picture_of(&self, topic: &str) -> PictureOptions {
        let all = self.picture();
        let depth_range = last(&self.depth_range, Some(topic));
        PictureOptions {
            is_depth: depth_range.is_some(),
            depth_range: depth_range.or(all.depth_range),
            bits: last(&self.bits, Some(topic)).or(all.bits),
            ..all
        }
    }

    /// How the pictures of the topics that options name are shown.
    pub fn pictures(&self) -> BTreeMap<String, PictureOptions> {
        let ranges = self.depth_range.iter().filter_map(|one| one.topic.clone());
        let topics = ranges.chain(self.bits.iter().filter_map(|one| one.topic.clone()));
        topics.map(|topic| (topic.clone(), self.picture_of(&topic))).collect()
    }

    fn limits(&self) -> Limits {
        Limits {
            message_bytes: self.max_message_bytes,
            pixels: self.max_pixels,
            temporary_bytes: self.max_temporary_bytes,
            ..Default::default()
        }
    }
}

fn topic_glob(text: &str) -> Result<String, String> {
    check_topic_glob(text).map(|()| text.to_owned())
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

/// Reads `TOPIC=VALUE` or `VALUE`.
fn of_topic<T>(
    read: fn(&str) -> Result<T, String>,
) -> impl Fn(&str) -> Result<OfTopic<T>, String> + Clone {
    move |text| {
        let (topic, value) = match text.rsplit_once('=') {
            Some((topic, value)) => (Some(topic.to_owned()), value),
            None => (None, text),
        };
        if topic.as_deref() == Some("") {
            return Err(format!("`{text}` names no topic in front of the `=`"));
        }
        Ok(OfTopic { topic, value: read(value)? })
    }
}

fn bits(text: &str) -> Result<u8, String> {
    let bits = text.parse().ok().filter(|bits| (8..=16).contains(bits));
    bits.ok_or_else(|| format!("`{text}` is no number of bits from 8 to 16, such as 12"))
}

fn depth_range(text: &str) -> Result<(f32, f32), String> {
    text.split_once(':')
        .and_then(|(min, max)| Some((min.parse().ok()?, max.parse().ok()?)))
        .filter(|(min, max): &(f32, f32)| min.is_finite() && max.is_finite() && min < max)
        .ok_or_else(|| format!("`{text}` is no range: MIN:MAX with MIN below MAX, such as 0:4000"))
}

/// An address with port, an address, or a port of the loopback address.
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
    use super::*;

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

    #[test]
    fn values_of_topics() {
        let named = |topic: &str, value| Ok(OfTopic { topic: Some(topic.to_owned()), value });
        let read = of_topic(bits);
        assert_eq!(read("12"), Ok(OfTopic { topic: None, value: 12 }));
        assert_eq!(read("/cam/ir=10"), named("/cam/ir", 10));
        assert_eq!(read("a=b=10"), named("a=b", 10));
        for wrong in ["7", "17", "/ir=", "=12", "x", "/ir=auto"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let all = [
            OfTopic { topic: None, value: 12 },
            OfTopic { topic: Some("/ir".into()), value: 10 },
            OfTopic { topic: None, value: 14 },
        ];
        assert_eq!(last(&all, None), Some(14));
        assert_eq!(last(&all, Some("/ir")), Some(10));
        assert_eq!(last(&all, Some("/cam")), None);
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
    }
}
