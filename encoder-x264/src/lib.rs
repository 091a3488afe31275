#![doc = include_str!("../README.md")]
//!
//! The x264 backend: hosted by FFmpeg, or (feature `native`) on libx264 in this process.
//!
//! The program names the crate; a table in its settings has the options:
//! ```
//! use encoder_x264 as _; // registers the backend
//! use encoder_core::{Settings, backends};
//! use encoder_x264::X264Options;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let settings = Settings::from_toml("[backend.x264]\ntune = \"film\"")?;
//! let options = X264Options::read(&settings.backend["x264"])?;
//! assert_eq!(options.tune, Some(encoder_x264::Tune::Film));
//! // The options are checked with the rest of the settings.
//! assert!(Settings::from_toml("[backend.x264]\ntune = \"loud\"").is_err());
//!
//! assert!(backends().iter().any(|backend| backend.id.as_str() == "x264"));
//! # Ok(())
//! # }
//! ```
//!
//! Rate control: [`RateControl::Crf`] *is* x264's CRF; 0 is
//! lossless, in a profile (High 4:4:4 Predictive) that few hardware decoders take. A constant
//! quantiser is that of all pictures. A bit rate is x264's mean bit rate, and its maximum that of
//! the decoder's buffer, which has the bits of a second.

mod hosted;
#[cfg(feature = "native")]
mod native;

use std::time::Duration;

use encoder_core::{
    Backend, BackendOptions, ConfigError, Device, EncoderConfig, EncoderType, OpenError,
    OpenRequest, Preset, Presets, ProbeResult, RateControl, VideoEncoder,
};
use encoder_ffmpeg::{misconfigured, read_options};
use serde::Deserialize;

pub use hosted::spec;

/// The backend, as it registers itself; for [`encoder_core::register`].
pub const BACKEND: Backend = Backend::new(EncoderType::X264, open)
    .rank(rank)
    .presets(Presets::common(&["ultrafast", "superfast", "veryfast", "medium"]))
    .check_options(|options| X264Options::read(options).map(|_| ()))
    .inspect(inspect)
    .probe(probe)
    .max_delay(|request| Plan::of(request).map_or(0, |(plan, _)| plan.max_delay()))
    .memory_estimate(memory_estimate);

encoder_core::inventory::submit! { BACKEND }

/// In process, x264's fastest preset is the fastest of all software encoders, so its rank is lower.
fn rank(request: &OpenRequest<'_>) -> u16 {
    let is_native = X264Options::read(request.options).is_ok_and(|options| is_native(&options));
    if is_native && request.config.preset == Preset::Ultrafast { 50 } else { 60 }
}

/// Table `[backend.x264]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct X264Options {
    /// The tuning of x264. Default: none.
    pub tune: Option<Tune>,
    /// Where x264 runs. Default `auto`. The old key `way` is still read.
    #[serde(alias = "way")]
    pub mode: Mode,
}

/// Tunings of x264.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Tune {
    Film,
    Grain,
    Zerolatency,
    Animation,
    Stillimage,
    Fastdecode,
}

impl Tune {
    /// The name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Film => "film",
            Self::Grain => "grain",
            Self::Zerolatency => "zerolatency",
            Self::Animation => "animation",
            Self::Stillimage => "stillimage",
            Self::Fastdecode => "fastdecode",
        }
    }
}

/// Where x264 runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// In this process if it is compiled in, else in FFmpeg.
    #[default]
    Auto,
    /// In an FFmpeg child.
    Ffmpeg,
    /// In this process: needs the feature `native`.
    #[serde(alias = "in-process")]
    Native,
}

impl X264Options {
    /// Reads and checks the table.
    ///
    /// # Errors
    /// [`ConfigError`] for unknown keys, wrong values, and a mode that is not compiled in.
    pub fn read(options: &BackendOptions) -> Result<Self, ConfigError> {
        let options: Self = read_options(EncoderType::X264, options, &["tune", "mode", "way"])?;
        if options.mode == Mode::Native && !cfg!(feature = "native") {
            let allowed = "auto or ffmpeg: this build has no libx264 of its own (feature native)";
            return Err(ConfigError::value("backend.x264.mode", "native", allowed));
        }
        Ok(options)
    }
}

/// The rate control, in the terms of x264.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rate {
    Crf(u8),
    Cqp(u8),
    /// Mean and maximum in kilobits per second.
    Abr(u32, Option<u32>),
}

impl Rate {
    fn of(rate_control: RateControl) -> Result<Self, ConfigError> {
        match rate_control {
            RateControl::Crf(crf) => Ok(Self::Crf(crf)),
            RateControl::ConstantQp(qp) => Ok(Self::Cqp(qp)),
            RateControl::Bitrate { kbps, max_kbps, .. } => Ok(Self::Abr(kbps, max_kbps)),
            other => Err(ConfigError::value(other.field(), other, "crf, qp or bitrate_kbps")),
        }
    }
}

/// The parameters of both modes, in the terms of x264.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) preset: Preset,
    pub(crate) tune: Option<Tune>,
    pub(crate) rate: Rate,
    pub(crate) gop_size: u32,
    pub(crate) b_frames: u8,
    pub(crate) threads: usize,
    /// Frames that rate control looks ahead.
    pub(crate) lookahead: u32,
}

impl Plan {
    /// More threads than this make x264 worse, not faster.
    const MOST_THREADS: usize = 32;

    /// The plan and the options of a request.
    fn of(request: &OpenRequest<'_>) -> Result<(Self, X264Options), ConfigError> {
        let options = X264Options::read(request.options)?;
        Ok((Self::new(request.config, &options, request.threads)?, options))
    }

    pub(crate) fn new(
        config: &EncoderConfig,
        options: &X264Options,
        threads: usize,
    ) -> Result<Self, ConfigError> {
        let at_once = options.tune == Some(Tune::Zerolatency);
        if at_once && config.b_frames > 0 {
            let allowed = "0 with backend.x264.tune = \"zerolatency\"";
            return Err(ConfigError::value("encoder.b_frames", config.b_frames, allowed));
        }
        // x264's own values, set explicitly because the delay is computed from them.
        let lookahead = match config.preset {
            _ if at_once => 0,
            Preset::Ultrafast | Preset::Superfast => 0,
            Preset::Veryfast => 10,
            Preset::Faster => 20,
            Preset::Fast => 30,
            Preset::Medium => 40,
            Preset::Slow => 50,
            Preset::Slower | Preset::Veryslow => 60,
        };
        Ok(Self {
            preset: config.preset,
            tune: options.tune,
            rate: Rate::of(config.rate_control)?,
            gop_size: config.gop_size,
            b_frames: config.b_frames,
            threads: threads.clamp(1, Self::MOST_THREADS),
            lookahead,
        })
    }

    /// The most frames that x264 in FFmpeg keeps: the frames that x264 decides on together, one per
    /// other thread, the frames between its threads, and a few in FFmpeg's own queues. In this
    /// process it keeps fewer.
    pub(crate) fn max_delay(&self) -> usize {
        const QUEUES: usize = 4;
        let b_frames = usize::from(self.b_frames);
        let decided = match (self.tune, self.preset >= Preset::Slow) {
            (Some(Tune::Zerolatency), _) => 0,
            // The slow presets decide on B-frames over more frames.
            (_, true) => (b_frames.max(3) * 4).max(self.lookahead as usize),
            (_, false) => b_frames.max(self.lookahead as usize),
        };
        decided + (self.threads - 1) + (b_frames + 1) + QUEUES
    }

    /// Half frames that x264 uses: for reference pictures, for each frame that it keeps, and for
    /// each thread. From measurements of 640x480 and 1920x1080, on the high side.
    fn half_frames(&self) -> u64 {
        32 + 5 * self.max_delay() as u64 + 12 * self.threads as u64
    }
}

/// The bytes that x264 uses, and those of the process of FFmpeg.
fn memory_estimate(request: &OpenRequest<'_>) -> u64 {
    const FFMPEG: u64 = 56 << 20;
    let Ok((plan, options)) = Plan::of(request) else { return 0 };
    let process = if is_native(&options) { 0 } else { FFMPEG };
    process + request.frame_bytes().saturating_mul(plan.half_frames()) / 2
}

/// Whether it runs in this process.
fn is_native(options: &X264Options) -> bool {
    cfg!(feature = "native") && options.mode != Mode::Ffmpeg
}

fn inspect(request: &OpenRequest<'_>) -> Result<Device, OpenError> {
    let (plan, options) = Plan::of(request)?;
    let identity = if is_native(&options) {
        // The library is part of this program, so no file has to be inspected.
        vec![format!("native {plan:?} {:?}", request.config.pixel_format)]
    } else {
        encoder_ffmpeg::identity(&hosted::spec_of(&plan, request.config), request.ffmpeg)?
    };
    Ok(Device::default().with_identity(identity))
}

fn probe(request: &OpenRequest<'_>, deadline: Duration) -> ProbeResult {
    match Plan::of(request) {
        #[cfg(feature = "native")]
        Ok((plan, options)) if is_native(&options) => native::probe(&plan, request.config),
        Ok((plan, _)) => {
            let spec = hosted::spec_of(&plan, request.config).with_waiter(request.waiter);
            encoder_ffmpeg::test_encode(&spec, request.ffmpeg, deadline)
        }
        Err(error) => ProbeResult::Refused(misconfigured(EncoderType::X264, &error)),
    }
}

fn open(request: &OpenRequest<'_>) -> Result<Box<dyn VideoEncoder>, OpenError> {
    match Plan::of(request)? {
        #[cfg(feature = "native")]
        (plan, options) if is_native(&options) => native::open(&plan, request.config),
        (plan, _) => encoder_ffmpeg::open(hosted::spec_of(&plan, request.config), request),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<X264Options, ConfigError> {
        X264Options::read(&text.parse().unwrap())
    }

    #[test]
    fn options() {
        assert_eq!(read(""), Ok(X264Options::default()));
        let film = X264Options { tune: Some(Tune::Film), mode: Mode::Ffmpeg };
        assert_eq!(read("tune = \"film\"\nway = \"ffmpeg\""), Ok(film));
        for tune in ["film", "grain", "zerolatency", "animation", "stillimage", "fastdecode"] {
            let options = read(&format!("tune = \"{tune}\"")).unwrap();
            assert_eq!(options.tune.unwrap().as_str(), tune);
        }
        for (text, expected) in [
            ("tun = 3", "unknown key `tun` in [backend.x264]; did you mean `tune`?"),
            ("tune = \"fast\"", "fastdecode"),
            ("tune = 3", "[backend.x264]"),
            ("mode = \"here\"", "native"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert_eq!(read("mode = \"native\"").is_ok(), cfg!(feature = "native"));
    }

    #[test]
    fn b_frames_and_zerolatency_exclude_each_other() {
        let options = read("tune = \"zerolatency\"").unwrap();
        let config = EncoderConfig { b_frames: 1, ..Default::default() };
        assert!(Plan::new(&config, &options, 1).unwrap_err().to_string().contains("b_frames"));
        let plan = Plan::new(&EncoderConfig::default(), &options, 0).unwrap();
        assert_eq!((plan.lookahead, plan.threads), (0, 1));
    }

    #[test]
    fn the_estimate_of_memory_is_above_what_was_measured() {
        // Most memory that FFmpeg 5.1 used for 90 frames, in MiB.
        let table = [
            (640, 480, Preset::Ultrafast, "", 4, 63),
            (1920, 1080, Preset::Ultrafast, "", 1, 92),
            (1920, 1080, Preset::Ultrafast, "", 4, 130),
            (640, 480, Preset::Medium, "", 1, 112),
            (1920, 1080, Preset::Medium, "", 1, 401),
            (1920, 1080, Preset::Medium, "", 4, 501),
            (1920, 1080, Preset::Medium, "tune = \"zerolatency\"", 1, 123),
            (1920, 1080, Preset::Medium, "tune = \"zerolatency\"", 4, 134),
        ];
        for (width, height, preset, options, threads, measured) in table {
            let resolution = Some(encoder_core::Resolution::new(width, height));
            let encoder = EncoderConfig { resolution, preset, ..Default::default() };
            let options = format!("mode = \"ffmpeg\"\n{options}").parse().unwrap();
            let backend = [("x264".to_owned(), options)].into();
            let settings =
                encoder_core::Settings { encoder, backend, ..encoder_core::Settings::default() };
            let request = OpenRequest::new(&settings, EncoderType::X264, threads);
            let estimate = BACKEND.estimate_memory(&request) >> 20;
            let range = measured..measured * 2;
            assert!(range.contains(&estimate), "{width} {preset} {threads}: {estimate} {measured}");
        }
    }

    #[test]
    fn the_backend_is_registered() {
        let all = encoder_core::backends();
        let ids: Vec<_> = all.iter().map(|b| (b.id, b.hardware)).collect();
        assert_eq!(ids, [(EncoderType::X264, false)]);
    }

    #[test]
    fn rank() {
        let in_process = if cfg!(feature = "native") { 50 } else { 60 };
        for (preset, mode, expected) in [
            (Preset::Ultrafast, "auto", in_process),
            (Preset::Ultrafast, "ffmpeg", 60),
            (Preset::Superfast, "auto", 60),
        ] {
            let mut settings = encoder_core::Settings::default();
            settings.encoder.preset = preset;
            settings.backend.insert("x264".into(), format!("mode = \"{mode}\"").parse().unwrap());
            let request = OpenRequest::new(&settings, EncoderType::X264, 2);
            assert_eq!(super::rank(&request), expected, "{preset} {mode}");
        }
    }
}
