#![doc = include_str!("../README.md")]
//!
//! The Quick Sync backend: Intel's encoder, hosted by FFmpeg's `h264_qsv`.
//!
//! FFmpeg reaches it through a runtime of Intel's: oneVPL (`libmfx-gen`, an FFmpeg built with
//! `--enable-libvpl`, 6.0 or later) or the Media SDK before it (`libmfx`, `--enable-libmfx`). Each
//! FFmpeg build uses one of them; if that runtime is missing, the refusal names the runtime to
//! install.
//!
//! On Linux the encoder uses a render node: the node that `device` names, else the first Intel node
//! on which the probe succeeds. The node is passed to FFmpeg by name, because older versions find
//! only nodes of the driver `i915`, not of the newer `xe`. If there is a single node and the kernel
//! does not report its vendor, as in some containers, FFmpeg chooses the node.
//!
//! Some devices have only a normal or only a low-power encoder. Without the option `low_power` the
//! driver chooses, and if that is refused, the probe tries both.
//!
//! Frames are NV12, whatever `pixel_format` is: the encoder takes no other format, and
//! [`VideoEncoder::pixel_format`] returns NV12.
//!
//! Quality: `crf` becomes `-global_quality` of the same number, between 1 and 51, without
//! look-ahead or bit rate: intelligent constant quality (ICQ). The scales are similar and not
//! equal. `qp` becomes `-q:v`, a constant quantiser (CQP), the same for all pictures. `bitrate_kbps`
//! becomes a variable bit rate (VBR), which needs a maximum: twice the bit rate unless
//! `max_bitrate_kbps` is set. Where both are equal FFmpeg takes a constant bit rate (CBR).
//!
//! Only options that FFmpeg 4.4 to 9 all know are used, for both runtimes.
//!
//! # Example
//! ```
//! use encoder_qsv as _; // registers the backend
//! use encoder_core::{Settings, backends};
//! use encoder_qsv::QsvOptions;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let settings = Settings::from_toml("[backend.qsv]\nasync_depth = 8")?;
//! let options = QsvOptions::read(&settings.backend["qsv"])?;
//! assert_eq!(options.async_depth, 8);
//! // The options are checked with the rest of the settings.
//! assert!(Settings::from_toml("[backend.qsv]\nasync_depth = 99").is_err());
//!
//! assert!(backends().iter().any(|backend| backend.id.as_str() == "qsv"));
//! # Ok(())
//! # }
//! ```

mod rules;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use encoder_core::{
    Backend, BackendOptions, ConfigError, Device, EncoderConfig, EncoderType, OpenError,
    OpenRequest, PixelFormat, Preset, Presets, ProbeResult, RateControl, Refusal, RefusalKind,
    VideoEncoder,
};
use encoder_ffmpeg::{
    EQUAL_QUANTISERS, FfmpegSpec, bit_rate, read_options,
    render::{self, INTEL, Node, Nodes, Wanted},
};
use serde::Deserialize;

/// The backend, as it registers itself; for [`encoder_core::register`].
pub const BACKEND: Backend = Backend::new(EncoderType::QSV, open)
    .rank(|_| 20)
    .hardware(true)
    .presets(Presets::common(&["veryfast", "medium", "veryslow"]))
    .check_options(|options| QsvOptions::read(options).map(|_| ()))
    .inspect(inspect)
    .probe(probe)
    .max_delay(|request| {
        QsvOptions::read(request.options).map_or(0, |options| max_delay(request.config, &options))
    });

encoder_core::inventory::submit! { BACKEND }

const WANTED: Wanted = Wanted {
    id: EncoderType::QSV,
    what: "Quick Sync",
    fits: |vendor| vendor == INTEL,
    needs: "one of Intel",
    hint: "use a machine with an Intel GPU and its kernel driver (i915 or xe); in a container \
           pass --device /dev/dri; or use another encoder",
};

/// Driver and runtimes in user space, in the system's library folders.
const RUNTIMES: [&str; 3] = ["dri/iHD_drv_video.so", "libmfx-gen.so.1.2", "libmfxhw64.so.1"];

/// Table `[backend.qsv]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QsvOptions {
    /// The render node, on Linux: `/dev/dri/renderD128`. Default: the first of Intel's on which the
    /// probe succeeds.
    pub device: Option<PathBuf>,
    /// Frames that are encoded at once, 1 to 32. Default 4.
    pub async_depth: u32,
    /// Whether to use the device's low-power encoder. Default: the driver chooses; the probe tries
    /// both if that is refused.
    pub low_power: Option<bool>,
}

impl Default for QsvOptions {
    fn default() -> Self {
        Self { device: None, async_depth: 4, low_power: None }
    }
}

impl QsvOptions {
    /// Reads and checks the table.
    ///
    /// # Errors
    /// [`ConfigError`] for unknown keys and wrong values.
    pub fn read(options: &BackendOptions) -> Result<Self, ConfigError> {
        let known = ["device", "async_depth", "low_power"];
        let options: Self = read_options(EncoderType::QSV, options, &known)?;
        if !(1..=32).contains(&options.async_depth) {
            let value = options.async_depth;
            return Err(ConfigError::value("backend.qsv.async_depth", value, "1 to 32"));
        }
        render::check_path(EncoderType::QSV, options.device.as_deref())?;
        Ok(options)
    }
}

/// The spec for FFmpeg, on the device of `node`; without one FFmpeg chooses.
///
/// # Errors
/// [`OpenError::Refused`] for a rate control that this backend does not know.
pub fn spec(
    config: &EncoderConfig,
    options: &QsvOptions,
    node: Option<&Path>,
) -> Result<FfmpegSpec, OpenError> {
    // Quick Sync has no preset faster than veryfast.
    let preset = config.preset.max(Preset::Veryfast);
    let quality = rate_control(config.rate_control)?;
    let EncoderConfig { gop_size, b_frames, .. } = *config;
    let depth = options.async_depth;
    let mut arguments = format!(
        "-preset {preset} {quality} -look_ahead 0 -g {gop_size} -bf {b_frames} \
         -idr_interval 0 -forced_idr 1 -async_depth {depth}"
    );
    if let Some(low_power) = options.low_power {
        arguments.push_str(&format!(" -low_power {}", u8::from(low_power)));
    }
    let mut spec = FfmpegSpec::new(EncoderType::QSV, "h264_qsv", config)
        .with_options(&arguments)
        .with_rules(render::RULES)
        .with_rules(rules::RULES);
    if let Some(node) = node {
        let device = format!("qsv=qs:hw_any,child_device={}", node.display());
        spec.global = vec!["-init_hw_device".into(), device];
    }
    spec.format = PixelFormat::Nv12;
    spec.max_delay = max_delay(config, options);
    Ok(spec)
}

/// FFmpeg's largest buffer, 2^31 - 1 bits. More than the largest mean: an equal maximum would be a
/// constant bit rate.
const MOST_KBPS: u32 = 2_147_483;

fn rate_control(rate_control: RateControl) -> Result<String, Refusal> {
    Ok(match rate_control {
        RateControl::Crf(crf) => format!("-global_quality {}", crf.max(1)),
        RateControl::ConstantQp(qp) => format!("-q:v {qp} {EQUAL_QUANTISERS}"),
        RateControl::Bitrate { kbps, max_kbps, .. } => {
            bit_rate(kbps, max_kbps.or(Some(kbps.saturating_mul(2).min(MOST_KBPS))))
        }
        other => return Err(other.refused_by(EncoderType::QSV, "Quick Sync has no such mode")),
    })
}

/// FFmpeg returns an access unit when `async_depth` later frames are in flight, and the runtime
/// keeps B-frames until the picture that they refer to. The rest is reserve: runtimes guarantee no
/// bound, a bound that is too low ends in a stall, and each additional frame costs only memory.
fn max_delay(config: &EncoderConfig, options: &QsvOptions) -> usize {
    options.async_depth as usize + 2 * usize::from(config.b_frames) + 12
}

/// The options, with those that the probe chose, and the nodes to use; no nodes if the system has no
/// render nodes.
fn look(request: &OpenRequest<'_>) -> Result<(QsvOptions, Option<Nodes>), OpenError> {
    let mut options = QsvOptions::read(request.options)?;
    options.low_power = options.low_power.or(render::probed_low_power(request));
    if !cfg!(target_os = "linux") {
        return Ok((options, None));
    }
    let nodes = render::find(&WANTED, options.device.as_deref(), request)?;
    Ok((options, Some(nodes)))
}

/// The spec on `node`, which is passed to the runtime unless it is the only node, of a vendor that
/// is not known: it may belong to another vendor.
fn spec_on(
    config: &EncoderConfig,
    options: &QsvOptions,
    node: Option<&Node>,
    has_several: bool,
) -> Result<FfmpegSpec, OpenError> {
    let is_certain =
        |node: &&Node| options.device.is_some() || has_several || node.vendor == Some(INTEL);
    spec(config, options, node.filter(is_certain).map(|node| node.path.as_path()))
}

fn inspect(request: &OpenRequest<'_>) -> Result<Device, OpenError> {
    let (options, nodes) = look(request)?;
    let (first, several) = (nodes.as_ref().map(Nodes::first), has_several(nodes.as_ref()));
    let identity = encoder_ffmpeg::identity(
        &spec_on(request.config, &options, first, several)?,
        request.ffmpeg,
    )?;
    Ok(match nodes {
        Some(nodes) => nodes.device(identity, &RUNTIMES),
        None => Device::default().with_identity(identity),
    })
}

fn has_several(nodes: Option<&Nodes>) -> bool {
    nodes.is_some_and(Nodes::has_several)
}

fn probe(request: &OpenRequest<'_>, deadline: Duration) -> ProbeResult {
    let (options, nodes) = match look(request) {
        Ok(found) => found,
        Err(error) => {
            return ProbeResult::Refused(encoder_ffmpeg::refusal(EncoderType::QSV, error));
        }
    };
    let several = has_several(nodes.as_ref());
    let on_node = |node: Option<&Node>, deadline| {
        // Only the driver knows which of the two encoders its device has.
        let modes = [None, Some(true), Some(false)];
        let is_mode = |refusal: &Refusal| refusal.kind == RefusalKind::Unsupported;
        render::probe_low_power(options.low_power, &modes, is_mode, deadline, |mode, deadline| {
            let options = QsvOptions { low_power: mode, ..options.clone() };
            let on_node = |config: &_| spec_on(config, &options, node, several);
            encoder_ffmpeg::test_encode_b_frames(EncoderType::QSV, request, on_node, deadline)
        })
    };
    match &nodes {
        Some(nodes) => nodes.probe(deadline, |node, share| on_node(Some(node), share)),
        None => on_node(None, deadline),
    }
}

fn open(request: &OpenRequest<'_>) -> Result<Box<dyn VideoEncoder>, OpenError> {
    let (options, nodes) = look(request)?;
    let first = nodes.as_ref().map(Nodes::first);
    let spec = spec_on(request.config, &options, first, has_several(nodes.as_ref()))?;
    encoder_ffmpeg::open(spec, request)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use encoder_core::RefusalKind;

    use super::*;

    #[test]
    fn argument_lists() {
        let table = [
            (
                "",
                Preset::Ultrafast,
                23,
                0,
                "",
                "-preset veryfast -global_quality 23 -look_ahead 0 -g 30 -bf 0 -idr_interval 0 \
              -forced_idr 1 -async_depth 4",
                16,
            ),
            (
                "async_depth = 1\nlow_power = false\ndevice = \"/dev/dri/renderD129\"",
                Preset::Slow,
                0,
                2,
                "-init_hw_device qsv=qs:hw_any,child_device=/dev/dri/renderD129",
                "-preset slow -global_quality 1 -look_ahead 0 -g 30 -bf 2 -idr_interval 0 \
              -forced_idr 1 -async_depth 1 -low_power 0",
                17,
            ),
        ];
        for (options, preset, crf, b_frames, global, expected, delay) in table {
            let rate_control = RateControl::Crf(crf);
            let config = EncoderConfig { preset, rate_control, b_frames, ..Default::default() };
            let options = QsvOptions::read(&options.parse().unwrap()).unwrap();
            let spec = spec(&config, &options, options.device.as_deref()).unwrap();
            assert_eq!(spec.global.join(" "), global);
            assert_eq!(spec.options.join(" "), expected);
            assert_eq!((spec.format, spec.max_delay), (PixelFormat::Nv12, delay));
        }
    }

    #[test]
    fn rate_controls() {
        for (rate_control, expected) in [
            (
                RateControl::ConstantQp(30),
                "-preset veryfast -q:v 30 -i_qfactor 1 -i_qoffset 0 -b_qfactor 1 -b_qoffset 0 -look",
            ),
            (
                RateControl::bitrate(900),
                "-preset veryfast -b:v 900k -maxrate 1800k -bufsize 1800k -look_ahead 0",
            ),
            (
                RateControl::bitrate(2_000_000),
                "-preset veryfast -b:v 2000000k -maxrate 2147483k -bufsize 2147483k -look_ahead 0",
            ),
            (
                RateControl::bitrate_with_max(900, 1000),
                "-preset veryfast -b:v 900k -maxrate 1000k -bufsize 1000k -look_ahead 0",
            ),
        ] {
            let config = EncoderConfig { rate_control, ..Default::default() };
            let spec = spec(&config, &QsvOptions::default(), None).unwrap();
            assert!(spec.options.join(" ").starts_with(expected), "{:?}", spec.options);
        }
    }

    #[test]
    fn options() {
        for (text, expected) in [
            ("async_dept = 1", "did you mean `async_depth`?"),
            ("async_depth = 0", "1 to 32"),
            ("async_depth = 33", "1 to 32"),
            ("device = \"a,b\"", "without commas"),
            ("device = 3", "[backend.qsv]"),
            ("low_power = 2", "[backend.qsv]"),
        ] {
            let error = QsvOptions::read(&text.parse().unwrap()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn an_intel_node_is_passed_by_name() {
        let config = EncoderConfig::default();
        let named = QsvOptions { device: Some("/dev/dri/renderD129".into()), ..Default::default() };
        let node = |vendor| Node { path: "/dev/dri/renderD129".into(), vendor, ..Node::default() };
        for (options, vendor, expected) in [
            (QsvOptions::default(), Some(INTEL), true),
            (QsvOptions::default(), None, false),
            (named, None, true),
        ] {
            let spec = spec_on(&config, &options, Some(&node(vendor)), false).unwrap();
            assert_eq!(!spec.global.is_empty(), expected, "{options:?} {vendor:?}");
        }
        let options = QsvOptions::default();
        let unknown = node(None);
        let global = |node, several| spec_on(&config, &options, node, several).unwrap().global;
        assert!(!global(Some(&unknown), true).is_empty());
        assert!(global(None, false).is_empty());
    }

    /// FFmpeg reads the options before it looks for a device, so no device is needed. Needs FFmpeg.
    #[test]
    fn ffmpeg_knows_every_option() {
        for rate_control in [
            RateControl::Crf(23),
            RateControl::ConstantQp(23),
            RateControl::bitrate_with_max(900, 1800),
        ] {
            known(rate_control);
        }
    }

    fn known(rate_control: RateControl) {
        let config = EncoderConfig { b_frames: 2, rate_control, ..Default::default() };
        let options = QsvOptions { low_power: Some(true), ..Default::default() };
        let spec = spec(&config, &options, None).unwrap();
        match encoder_ffmpeg::test_encode(&spec, None, Duration::from_secs(60)) {
            ProbeResult::Usable(_) => {}
            ProbeResult::Refused(refusal) => {
                let device = [RefusalKind::Missing, RefusalKind::NoDevice, RefusalKind::Busy];
                assert!(device.contains(&refusal.kind), "{refusal}");
                assert!(!refusal.hint.contains("ENCODER_FFMPEG"), "{refusal}");
                println!("{refusal}");
            }
        }
    }

    #[test]
    fn the_backend_is_registered() {
        let settings = encoder_core::Settings::default();
        let request = OpenRequest::new(&settings, EncoderType::QSV, 2);
        let all = encoder_core::backends();
        let ids: Vec<_> = all.iter().map(|b| (b.id, (b.rank)(&request))).collect();
        assert_eq!(ids, [(EncoderType::QSV, 20)]);
    }
}
