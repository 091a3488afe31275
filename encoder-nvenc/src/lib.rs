#![doc = include_str!("../README.md")]
//!
//! The NVENC backend: NVIDIA's encoder, hosted by FFmpeg's `h264_nvenc`.
//!
//! # Quality
//! `crf` becomes `-cq` of the same number, between 1 and 51 (0 would mean "automatic"), at variable
//! bit rate. The scales are similar and not equal: at the same number NVENC tends to larger files.
//! `qp` becomes `-rc constqp`, with one quantiser for all pictures, and `bitrate_kbps` a variable bit
//! rate, with `max_bitrate_kbps` as its maximum.
//! With `nvenc_tune = "lossless"`, `crf` has no effect: decoding restores every sample exactly, in
//! the profile High 4:4:4 Predictive, which many hardware decoders do not play.
//!
//! # Options
//! | `[gpu]` | | FFmpeg |
//! |---|---|---|
//! | `nvenc_preset` | `p1` (fastest) to `p7` (best) | `-preset` |
//! | `nvenc_tune` | `hq`, `ll`, `ull`, `lossless` | `-tune` |
//! | `max_sessions` | see below | |
//!
//! `[backend.nvenc]` is [`NvencOptions`]. `gop_size` and `b_frames` of `[encoder]` are used; its
//! `preset` is not. Only options that FFmpeg 4.4 to 9 all know are used.
//!
//! # Device check and probe
//! The device check takes milliseconds: device nodes, NVML (driver, GPUs), `libcuda.so.1`,
//! `libnvidia-encode.so.1` and its API. It runs in the [helper
//! process](encoder_core::set_helper) if there is one, because a driver may hang or crash. It refuses where an encoder
//! certainly cannot work: no driver, no GPU, no permission, a library that a container lacks, a GPU
//! without an encoder. An option `gpu` that names no GPU of this machine is an error of the
//! configuration.
//!
//! The probe is a real encode with the user's own options; B-frames and lossless encoding are
//! probed too, and listed in [`Caps::features`](encoder_core::Caps).
//!
//! # Sessions
//! With `max_sessions = N`, at most N encoders run on one GPU at once, over all programs of this
//! user with that setting; a probe does not count. Each session is a lock file in
//! `$XDG_RUNTIME_DIR/encoder` (else in a folder for temporary files), which the system frees when
//! a program dies. Of several GPUs, the GPU with most free sessions is used, unless `gpu` names
//! one. GPUs of different kinds count as one GPU, which FFmpeg chooses, unless
//! `CUDA_DEVICE_ORDER=PCI_BUS_ID` fixes their order.
//!
//! # Example
//! ```
//! use encoder_nvenc as _; // registers the backend
//! use encoder_core::{Settings, backends};
//! use encoder_nvenc::NvencOptions;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let settings = Settings::from_toml("[backend.nvenc]\nrc_lookahead = 8")?;
//! let options = NvencOptions::read(&settings.backend["nvenc"])?;
//! assert_eq!(options.rc_lookahead, 8);
//! // The options are checked with the rest of the settings.
//! assert!(Settings::from_toml("[backend.nvenc]\nrc_lookahead = 99").is_err());
//!
//! assert!(backends().iter().any(|backend| backend.id.as_str() == "nvenc"));
//! # Ok(())
//! # }
//! ```

mod budget;
mod device;
mod facts;
mod gather;
mod library;
mod load;
mod messages;
mod rules;

use std::{sync::Arc, time::Duration};

use encoder_core::{
    Backend, BackendOptions, ConfigError, Device, EncoderConfig, EncoderType, GpuEncoderConfig,
    NvencPreset, NvencTune, OpenError, OpenRequest, Presets, ProbeResult, RateControl, Refusal,
    VideoEncoder,
};
use encoder_ffmpeg::{EQUAL_QUANTISERS, Feature, FfmpegSpec, Search, bit_rate, read_options};
use serde::Deserialize;

use crate::facts::Found;

/// The backend, as it registers itself; for [`encoder_core::register`].
pub const BACKEND: Backend = Backend::new(EncoderType::NVENC, open)
    .rank(|_| 10)
    .hardware(true)
    .presets(PRESETS)
    .check_options(|options| NvencOptions::read(options).map(|_| ()))
    .inspect(inspect)
    .probe(probe)
    .driver_identity(gather::driver_identity)
    .max_delay(|request| spec_of(request).map_or(0, |(spec, _)| spec.max_delay));

encoder_core::inventory::submit! { BACKEND }

/// `nvenc_preset`.
const PRESETS: Presets =
    Presets::new(&NvencPreset::NAMES, &["p1", "p4", "p7"], |settings, name| {
        settings.gpu.nvenc_preset = name.parse()?;
        Ok(())
    });

/// Table `[backend.nvenc]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NvencOptions {
    /// CUDA's index of the GPU, from 0. Default: the first GPU that works.
    pub gpu: Option<u32>,
    /// Frames that the encoder looks ahead, 0 to 27: better decisions for more delay and memory.
    /// Not for `lossless`. Default 0.
    pub rc_lookahead: u8,
    /// Spends more bits on flat regions, where the eye sees errors first. Not for `lossless` and
    /// `qp`. Default false.
    pub spatial_aq: bool,
    /// Spends more bits on regions without motion. Not for `lossless` and `qp`. Default false.
    pub temporal_aq: bool,
}

impl NvencOptions {
    /// The driver's limit is 31 together with the B-frames.
    const MOST_LOOKAHEAD: u8 = 27;

    /// Reads and checks the table.
    ///
    /// # Errors
    /// [`ConfigError`] for unknown keys and wrong values.
    pub fn read(options: &BackendOptions) -> Result<Self, ConfigError> {
        let known = ["gpu", "rc_lookahead", "spatial_aq", "temporal_aq"];
        let options: Self = read_options(EncoderType::NVENC, options, &known)?;
        if options.rc_lookahead > Self::MOST_LOOKAHEAD {
            let allowed = format!("0 to {}", Self::MOST_LOOKAHEAD);
            let value = options.rc_lookahead;
            return Err(ConfigError::value("backend.nvenc.rc_lookahead", value, allowed));
        }
        Ok(options)
    }
}

/// The spec for FFmpeg.
///
/// # Errors
/// [`OpenError::Refused`] for a rate control that this backend does not know.
pub fn spec(
    config: &EncoderConfig,
    gpu: &GpuEncoderConfig,
    options: &NvencOptions,
) -> Result<FfmpegSpec, OpenError> {
    let (preset, tune) = (gpu.nvenc_preset.as_str(), gpu.nvenc_tune.as_str());
    let EncoderConfig { gop_size, b_frames, .. } = *config;
    let lossless = gpu.nvenc_tune == NvencTune::Lossless;
    let lookahead = if lossless { 0 } else { options.rc_lookahead };
    let mut arguments = format!(
        "-preset {preset} -tune {tune} -g {gop_size} -bf {b_frames} -b_ref_mode disabled \
         -forced-idr 1"
    );
    let mut add = |text: &str| arguments.extend([" ", text]);
    if lossless {
        // The tuning sets the profile.
        add("-rc constqp -qp 0");
    } else {
        add(&rate_control(config.rate_control)?);
        add("-profile:v high");
        let is_constant = matches!(config.rate_control, RateControl::ConstantQp(_));
        for (wanted, option) in
            [(options.spatial_aq, "-spatial-aq 1"), (options.temporal_aq, "-temporal-aq 1")]
        {
            if wanted && !is_constant {
                add(option);
            }
        }
    }
    if lookahead > 0 {
        // The smallest delay at which FFmpeg does not shorten the look-ahead. Scene cuts would move
        // the grid of IDR pictures.
        let delay = lookahead + b_frames + 5;
        add(&format!("-rc-lookahead {lookahead} -no-scenecut 1 -delay {delay}"));
    } else {
        add("-delay 0");
    }
    let low_latency = matches!(gpu.nvenc_tune, NvencTune::Ll | NvencTune::Ull);
    if low_latency && b_frames == 0 && lookahead == 0 {
        add("-zerolatency 1");
    }
    if let Some(index) = options.gpu {
        add(&format!("-gpu {index}"));
    }
    let mut spec = FfmpegSpec::new(EncoderType::NVENC, "h264_nvenc", config)
        .with_options(&arguments)
        .with_rules(rules::RULES);
    spec.max_delay = max_delay(b_frames, lookahead, gpu);
    Ok(spec)
}

fn rate_control(rate_control: RateControl) -> Result<String, Refusal> {
    Ok(match rate_control {
        RateControl::Crf(crf) => format!("-rc vbr -cq {} -b:v 0", crf.max(1)),
        RateControl::ConstantQp(qp) => format!("-rc constqp -qp {qp} {EQUAL_QUANTISERS}"),
        RateControl::Bitrate { kbps, max_kbps, .. } => {
            format!("-rc vbr {}", bit_rate(kbps, max_kbps))
        }
        other => return Err(other.refused_by(EncoderType::NVENC, "NVENC has no such mode")),
    })
}

/// FFmpeg holds no more frames than it has surfaces: four for each step between P-frames, and
/// room for the look-ahead. The presets p6 and p7 may have a look-ahead of their own.
fn max_delay(b_frames: u8, lookahead: u8, gpu: &GpuEncoderConfig) -> usize {
    /// Frames in flight between the processes.
    const SPARE: usize = 4;
    let thorough = matches!(gpu.nvenc_preset, NvencPreset::P6 | NvencPreset::P7);
    let (step, lookahead) = (usize::from(b_frames) + 1, usize::from(lookahead));
    let lookahead = if thorough { lookahead.max(31) } else { lookahead };
    let ahead = if lookahead > 0 { lookahead + step + 5 } else { 0 };
    ahead.max(4 * step) + SPARE
}

fn spec_of(request: &OpenRequest<'_>) -> Result<(FfmpegSpec, NvencOptions), OpenError> {
    let options = NvencOptions::read(request.options)?;
    Ok((spec(request.config, request.gpu, &options)?, options))
}

/// The optional features that are probed in addition to the user's own spec.
fn features(request: &OpenRequest<'_>, options: &NvencOptions) -> Result<[Feature; 2], OpenError> {
    let config = EncoderConfig { b_frames: 2, ..request.config.clone() };
    let b_frames = spec(&config, request.gpu, options)?;
    let gpu = GpuEncoderConfig { nvenc_tune: NvencTune::Lossless, ..request.gpu.clone() };
    let lossless = spec(request.config, &gpu, options)?;
    Ok([
        Feature { name: "b-frames", spec: b_frames, exact: false },
        Feature { name: "lossless", spec: lossless, exact: true },
    ])
}

fn look(options: &NvencOptions, limit: Duration) -> Result<Found, OpenError> {
    device::check(&gather::facts(limit)?, options.gpu)
}

/// How long the device check may take: milliseconds with a driver that works, a few seconds where it
/// has to wake GPUs.
const LOOK: Duration = Duration::from_secs(5);

fn limit(request: &OpenRequest<'_>) -> Duration {
    Duration::from_secs(request.gpu.probe_timeout_s.into()).max(LOOK)
}

fn inspect(request: &OpenRequest<'_>) -> Result<Device, OpenError> {
    let (spec, options) = spec_of(request)?;
    let Found { name, driver, identity, .. } = look(&options, limit(request))?;
    let identity =
        encoder_ffmpeg::identity(&spec, request.ffmpeg)?.into_iter().chain(identity).collect();
    Ok(Device::new(name).with_driver(driver).with_identity(identity))
}

fn probe(request: &OpenRequest<'_>, deadline: Duration) -> ProbeResult {
    let specs = spec_of(request).and_then(|(spec, options)| {
        let features = features(request, &options)?;
        Ok((spec, options, features))
    });
    let (spec, options, features) = match specs {
        Ok(all) => all,
        Err(error) => {
            return ProbeResult::Refused(encoder_ffmpeg::refusal(EncoderType::NVENC, error));
        }
    };
    let spec = spec.with_waiter(request.waiter);
    let result = encoder_ffmpeg::test_encode_features(&spec, &features, request.ffmpeg, deadline);
    let ProbeResult::Refused(refusal) = result else { return result };
    ProbeResult::Refused(match look(&options, LOOK) {
        Ok(found) => {
            let search = Search::new(EncoderType::NVENC).named(request.ffmpeg);
            let ffmpeg = search.with_waiter(request.waiter).run().ok();
            let path = ffmpeg.map(|ffmpeg| {
                // A link shows where it comes from, unless it leads to the launcher of snap.
                let path = ffmpeg.path.clone();
                let real = path.canonicalize().ok();
                real.filter(|real| real.file_name() == path.file_name()).unwrap_or(path)
            });
            messages::with_device(refusal, &found, path.as_deref())
        }
        // If the device has disappeared since, that refusal is closer to the cause.
        Err(OpenError::Refused(cause)) if !cause.transient => cause,
        Err(_) => refusal,
    })
}

fn open(request: &OpenRequest<'_>) -> Result<Box<dyn VideoEncoder>, OpenError> {
    let mut options = NvencOptions::read(request.options)?;
    let found = look(&options, limit(request))?;
    let slot = request.gpu.max_sessions.map(|n| budget::take(&found, n)).transpose()?;
    options.gpu = slot.as_ref().and_then(|slot| slot.gpu).or(options.gpu);
    let mut spec = spec(request.config, request.gpu, &options)?;
    if let Some(slot) = slot {
        spec.hold = Some(Arc::new(slot));
    }
    spec.load = load::probe(&found, options.gpu);
    encoder_ffmpeg::open(spec, request)
}

#[cfg(test)]
#[path = "lib_tests.rs"]
mod tests;
