//! The description of an encoder in FFmpeg, and the command line for it.

use std::{any::Any, sync::Arc, time::Duration};

use encoder_core::{
    EncoderConfig, EncoderType, FrameRate, LoadProbe, PixelFormat, Resolution, Waiter,
};

use crate::{rule::Rule, version::Version};

/// A child that makes no progress for this long is killed.
pub const STALL: Duration = Duration::from_secs(60);

/// An encoder that has not opened after this long is killed.
pub const START: Duration = Duration::from_secs(10);

/// Size of the pictures of a probe: smaller ones are refused by devices that work.
pub const PROBE_SIZE: Resolution = Resolution::new(640, 360);

/// The bitstream filter that writes the colour tags of every [`arguments`] into the parameter sets:
/// for devices whose driver writes the sets itself and without tags.
pub const TAG_COLOURS: &str = "h264_metadata=video_full_range_flag=0:colour_primaries=1:\
                               transfer_characteristics=13:matrix_coefficients=6";

/// The options that make the quantiser of I and B pictures that of P pictures: by default FFmpeg's
/// encoders derive other quantisers from it.
pub const EQUAL_QUANTISERS: &str = "-i_qfactor 1 -i_qoffset 0 -b_qfactor 1 -b_qoffset 0";

/// The options for a mean bit rate in kilobits per second. The maximum is kept over a second: the
/// decoder's buffer has the bits of a second.
pub fn bit_rate(kbps: u32, max_kbps: Option<u32>) -> String {
    let mut options = format!("-b:v {kbps}k");
    if let Some(max) = max_kbps {
        options.push_str(&format!(" -maxrate {max}k -bufsize {max}k"));
    }
    options
}

/// Describes the encoder that a backend runs in an FFmpeg child.
#[derive(Clone, Debug)]
pub struct FfmpegSpec {
    /// The backend, for messages.
    pub id: EncoderType,
    /// FFmpeg's name of the encoder: `libx264`, `h264_nvenc` …
    pub encoder: &'static str,
    /// Options in front of the input, such as `-init_hw_device`.
    pub global: Vec<String>,
    /// The encoder's own options.
    pub options: Vec<String>,
    /// Format of the input frames.
    pub format: PixelFormat,
    /// A filter in front of the encoder, for an encoder that takes frames only on the device:
    /// `format=nv12,hwupload`. Without a filter the encoder gets the input frames unchanged.
    pub filter: Option<&'static str>,
    /// Size of the pictures of a probe: [`PROBE_SIZE`], unless the device needs larger ones.
    pub probe_size: Resolution,
    /// Whether a probe must see access units out of display order, as B-frames make them.
    pub reorders: bool,
    /// Frames from one IDR picture to the next, as `options` ask for it.
    pub gop_size: u32,
    /// The most frames that the encoder, FFmpeg's own queues included, holds before an access unit
    /// must come out: the same number as [`Backend::max_delay`](encoder_core::Backend::max_delay), or
    /// [`open`](crate::open) refuses the encoder. A bound that is too low ends in a stall.
    pub max_delay: usize,
    /// How long the child may make no progress: [`STALL`], unless the configuration sets it.
    pub stall: Duration,
    /// How long the encoder may take to open, from the first frame on: [`START`], unless the
    /// configuration sets it.
    pub start: Duration,
    /// Ends waits for the child early when the run is interrupted; a stop kills the child at once.
    pub waiter: Waiter,
    /// Held as long as the encoder runs: a session of a budget.
    pub hold: Option<Arc<dyn Any + Send + Sync>>,
    /// Reports how busy the device is: [`load`](encoder_core::VideoEncoder::load) of the encoder.
    pub load: Option<LoadProbe>,
    /// The meaning of lines of FFmpeg's log for this encoder, for [`classify`](crate::classify).
    pub rules: Vec<&'static [Rule]>,
}

impl FfmpegSpec {
    /// A spec with the options of `config` that are not options of the encoder itself.
    pub fn new(id: EncoderType, encoder: &'static str, config: &EncoderConfig) -> Self {
        Self {
            id,
            encoder,
            global: Vec::new(),
            options: Vec::new(),
            format: config.pixel_format,
            filter: None,
            probe_size: PROBE_SIZE,
            reorders: false,
            gop_size: config.gop_size,
            max_delay: 0,
            stall: STALL,
            start: START,
            waiter: Waiter::new(),
            hold: None,
            load: None,
            rules: Vec::new(),
        }
    }

    /// Sets what ends waits for the child early: of an [`OpenRequest`](encoder_core::OpenRequest).
    #[must_use]
    pub fn with_waiter(mut self, waiter: Option<&Waiter>) -> Self {
        self.waiter = waiter.cloned().unwrap_or_default();
        self
    }

    /// Adds encoder options, separated by spaces.
    #[must_use]
    pub fn with_options(mut self, options: &str) -> Self {
        self.options.extend(options.split_whitespace().map(str::to_owned));
        self
    }

    /// Adds a table of rules after the tables that were added before.
    #[must_use]
    pub fn with_rules(mut self, rules: &'static [Rule]) -> Self {
        self.rules.push(rules);
        self
    }

    /// A probe of this spec must see B-frames: an encoder without them may ignore the option.
    #[must_use]
    pub fn reordering(mut self) -> Self {
        self.reorders = true;
        self
    }
}

/// The rate that FFmpeg is given for frames at `rate`.
///
/// Times in FLV have 31 bits of milliseconds. The encoder uses the rate for its decisions only, so
/// slower and faster streams are announced with a rate whose times FLV can tell apart.
pub(crate) fn announced(rate: FrameRate) -> (u32, u32) {
    match rate.as_f64() {
        ..1.0 => (1, 1),
        ..=480.0 => (rate.numerator(), rate.denominator()),
        _ => (480, 1),
    }
}

/// The whole command line for frames of (even) `size` at `rate`, without the program.
///
/// `version` is `None` for a development build, which is treated as a new version.
pub fn arguments(
    spec: &FfmpegSpec,
    version: Option<Version>,
    size: Resolution,
    rate: FrameRate,
) -> Vec<String> {
    let (num, den) = announced(rate);
    let rate = if den == 1 { num.to_string() } else { format!("{num}/{den}") };
    let passthrough = Version::passthrough(version);
    let size = size.even().to_string();
    let format = spec.format.as_str();
    let mut all: Vec<String> = Vec::new();
    let mut add = |arguments: &[&str]| all.extend(arguments.iter().map(|&a| a.to_owned()));
    // `level` marks each line with its severity.
    add(&["-hide_banner", "-nostats", "-loglevel", "level+verbose"]);
    add(&spec.global.iter().map(String::as_str).collect::<Vec<_>>());
    add(&["-f", "rawvideo", "-pix_fmt", format, "-s", &size, "-framerate", &rate]);
    // Before the input: as output options, FFmpeg 9 loses some of them.
    add(&["-color_range", "tv", "-colorspace", "smpte170m"]);
    add(&["-color_primaries", "bt709", "-color_trc", "iec61966-2-1"]);
    // Raw video needs no format detection, so FFmpeg must not read ahead.
    add(&["-probesize", "32", "-i", "pipe:0", "-map", "0:v", passthrough, "passthrough"]);
    add(&["-c:v", spec.encoder]);
    add(&spec.options.iter().map(String::as_str).collect::<Vec<_>>());
    match spec.filter {
        Some(filter) => add(&["-vf", filter]),
        None => add(&["-pix_fmt", format]),
    }
    add(&["-f", "flv", "-flush_packets", "1"]);
    add(&["-flvflags", "no_duration_filesize+no_metadata", "pipe:1"]);
    all
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_command_line() {
        let config = EncoderConfig { pixel_format: PixelFormat::Nv12, ..Default::default() };
        let mut spec =
            FfmpegSpec::new(EncoderType::QSV, "h264_qsv", &config).with_options("-g 30 -bf 0");
        spec.global = vec!["-init_hw_device".into(), "qsv=hw".into()];
        let line = |version, rate: &str| {
            arguments(&spec, version, Resolution::new(641, 359), rate.parse().unwrap()).join(" ")
        };
        assert_eq!(
            line(Some(Version::new(9, 0)), "30000/1001"),
            "-hide_banner -nostats -loglevel level+verbose -init_hw_device qsv=hw \
             -f rawvideo -pix_fmt nv12 -s 642x360 -framerate 30000/1001 \
             -color_range tv -colorspace smpte170m \
             -color_primaries bt709 -color_trc iec61966-2-1 \
             -probesize 32 -i pipe:0 -map 0:v -fps_mode passthrough -c:v h264_qsv -g 30 -bf 0 \
             -pix_fmt nv12 -f flv -flush_packets 1 \
             -flvflags no_duration_filesize+no_metadata pipe:1"
        );
        for (version, rate, part) in [
            (Some(Version::new(4, 4)), "30", "-vsync passthrough"),
            (Some(Version::new(5, 0)), "30", "-vsync passthrough"),
            (Some(Version::new(5, 1)), "30", "-fps_mode passthrough"),
            (None, "30", "-fps_mode passthrough"),
            (None, "0.1", "-framerate 1 "),
            (None, "480", "-framerate 480 "),
            (None, "29.97", "-framerate 30000/1001 "),
            (None, "1000", "-framerate 480 "),
        ] {
            assert!(line(version, rate).contains(part), "{version:?} {rate}: {part}");
        }
        spec.filter = Some("format=nv12,hwupload");
        let filtered = arguments(&spec, None, Resolution::new(640, 360), FrameRate::default());
        let end = "-bf 0 -vf format=nv12,hwupload -f flv -flush_packets 1 -flvflags \
                   no_duration_filesize+no_metadata pipe:1";
        assert!(filtered.join(" ").ends_with(end), "{filtered:?}");
    }
}
