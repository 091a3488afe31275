#![doc = include_str!("../README.md")]
//!
//! The VA-API backend: the encoders of AMD and Intel on Linux, hosted by FFmpeg's `h264_vaapi`.
//!
//! Frames are NV12, whatever `pixel_format` is, and FFmpeg uploads them to the device (`hwupload`):
//! the encoder takes only frames in device memory. Its render node is the node that `device` names,
//! else the first node on which the probe succeeds: nodes of AMD and Intel are probed before others,
//! and those of NVIDIA, whose driver has no encoder for VA-API, are not. On Intel, Quick Sync comes
//! first by rank; this backend is for older devices and for an FFmpeg without Quick Sync.
//!
//! The newest Intel devices have only a low-power encoder, which FFmpeg uses if the driver lists no
//! other. Without the option `low_power` the probe also tries it if the normal one does not work.
//!
//! Quality: `crf` becomes the same number, between 1 and 51, as the quantiser of every P picture
//! (`-rc_mode CQP -qp`), because every driver supports it. Unlike x264's `crf` it does not spend
//! less where motion hides errors, so files are larger. `rc_mode = "icq"` uses the scale of the
//! driver's own constant quality instead, if it has one (Intel; AMD's RDNA 3 does not). `qp` is the
//! quantiser of all pictures, and `bitrate_kbps` a variable bit rate (VBR), where the driver has
//! that.
//!
//! `preset` has no effect, because the drivers of VA-API have no common scale: see
//! [`VaapiOptions::compression_level`].
//!
//! Only options that FFmpeg 4.4 to 9 all know are used.
//!
//! # Example
//! ```
//! use encoder_vaapi as _; // registers the backend
//! use encoder_core::{Settings, backends};
//! use encoder_vaapi::VaapiOptions;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let settings = Settings::from_toml("[backend.vaapi]\ncompression_level = 4")?;
//! let options = VaapiOptions::read(&settings.backend["vaapi"])?;
//! assert_eq!(options.compression_level, Some(4));
//! // The options are checked with the rest of the settings.
//! assert!(Settings::from_toml("[backend.vaapi]\nrc_mode = \"vbr\"").is_err());
//!
//! assert!(backends().iter().any(|backend| backend.id.as_str() == "vaapi"));
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
    OpenRequest, PixelFormat, ProbeResult, RateControl, Refusal, RefusalKind, VideoEncoder,
};
use encoder_ffmpeg::{
    EQUAL_QUANTISERS, FfmpegSpec, TAG_COLOURS, bit_rate, read_options,
    render::{self, NVIDIA, Nodes, Wanted},
};
use serde::Deserialize;

/// The backend, as it registers itself; for [`encoder_core::register`].
pub const BACKEND: Backend = Backend::new(EncoderType::VAAPI, open)
    .rank(|_| 25)
    .hardware(true)
    .check_options(|options| VaapiOptions::read(options).map(|_| ()))
    .inspect(inspect)
    .probe(probe)
    .max_delay(|request| max_delay(request.config));

encoder_core::inventory::submit! { BACKEND }

const WANTED: Wanted = Wanted {
    id: EncoderType::VAAPI,
    what: "VA-API",
    fits: |vendor| vendor != NVIDIA,
    needs: "one of AMD or Intel",
    hint: "use a machine with an AMD or Intel GPU and its kernel driver (amdgpu, i915 or xe); in \
           a container pass --device /dev/dri; or use another encoder",
};

/// The drivers in user space, in the system's library folders.
const DRIVERS: [&str; 3] =
    ["dri/radeonsi_drv_video.so", "dri/iHD_drv_video.so", "dri/i965_drv_video.so"];

/// How the driver uses `crf`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RcMode {
    /// A constant quantiser: every driver has it.
    #[default]
    Cqp,
    /// The driver's constant quality: Intel's has it.
    Icq,
}

/// Table `[backend.vaapi]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VaapiOptions {
    /// The render node: `/dev/dri/renderD128`. Default: the first node on which the probe
    /// succeeds.
    pub device: Option<PathBuf>,
    /// How the driver uses `crf`: `cqp` or `icq`, which `qp` and `bitrate_kbps` of `[encoder]`
    /// contradict. Default `cqp`.
    pub rc_mode: RcMode,
    /// Whether to use the device's low-power encoder, the only encoder of the newest Intel devices.
    /// Default: if the normal one is missing or does not work.
    pub low_power: Option<bool>,
    /// Speed against size on the driver's own scale, 1 to 255; Intel's scale is 1 (best) to 7
    /// (fastest). A driver uses the nearest level that it has. Default: the driver chooses.
    pub compression_level: Option<u8>,
}

impl VaapiOptions {
    /// Reads and checks the table.
    ///
    /// # Errors
    /// [`ConfigError`] for unknown keys and wrong values.
    pub fn read(options: &BackendOptions) -> Result<Self, ConfigError> {
        let known = ["device", "rc_mode", "low_power", "compression_level"];
        let options: Self = read_options(EncoderType::VAAPI, options, &known)?;
        if options.compression_level == Some(0) {
            let field = "backend.vaapi.compression_level";
            return Err(ConfigError::value(field, 0, "1 to 255"));
        }
        render::check_path(EncoderType::VAAPI, options.device.as_deref())?;
        Ok(options)
    }
}

/// The spec for FFmpeg, on the device of `node`.
///
/// # Errors
/// [`OpenError::Refused`] for a rate control that this backend does not know,
/// [`ConfigError::Conflict`] if [`VaapiOptions::rc_mode`] contradicts it.
pub fn spec(
    config: &EncoderConfig,
    options: &VaapiOptions,
    node: &Path,
) -> Result<FfmpegSpec, OpenError> {
    let EncoderConfig { gop_size, b_frames, .. } = *config;
    let mut arguments = rate_control(config.rate_control, options.rc_mode)?;
    arguments.push_str(&format!(" -profile:v high -g {gop_size} -bf {b_frames} -idr_interval 0"));
    // Some drivers write the parameter sets themselves, without colour tags and into the stream
    // alone. FLV needs them at the start of the stream, and FFmpeg before 6 does not move them by
    // itself.
    arguments.push_str(&format!(" -bsf:v {TAG_COLOURS},extract_extradata"));
    if options.low_power == Some(true) {
        arguments.push_str(" -low_power 1");
    }
    if let Some(level) = options.compression_level {
        arguments.push_str(&format!(" -compression_level {level}"));
    }
    let mut spec = FfmpegSpec::new(EncoderType::VAAPI, "h264_vaapi", config)
        .with_options(&arguments)
        .with_rules(render::RULES)
        .with_rules(rules::RULES);
    // Encoder and filters name the device: FFmpeg 8 no longer uses the only device for filters
    // automatically.
    let device = format!("vaapi=va:{}", node.display());
    spec.global = ["-init_hw_device", &device, "-filter_hw_device", "va"].map(Into::into).into();
    spec.format = PixelFormat::Nv12;
    spec.filter = Some("format=nv12,hwupload");
    spec.max_delay = max_delay(config);
    Ok(spec)
}

fn rate_control(rate_control: RateControl, rc_mode: RcMode) -> Result<String, OpenError> {
    Ok(match (rate_control, rc_mode) {
        (RateControl::Crf(crf), RcMode::Cqp) => format!("-rc_mode CQP -qp {}", crf.max(1)),
        (RateControl::Crf(crf), RcMode::Icq) => {
            format!("-rc_mode ICQ -global_quality {}", crf.max(1))
        }
        (other, RcMode::Icq) => {
            let icq = "backend.vaapi.rc_mode = icq";
            return Err(ConfigError::conflict(other.field(), icq).into());
        }
        (RateControl::ConstantQp(qp), _) => format!("-rc_mode CQP -qp {qp} {EQUAL_QUANTISERS}"),
        (RateControl::Bitrate { kbps, max_kbps, .. }, _) => {
            format!("-rc_mode VBR {}", bit_rate(kbps, max_kbps))
        }
        (other, _) => {
            return Err(other.refused_by(EncoderType::VAAPI, "VA-API has no such mode").into());
        }
    })
}

/// FFmpeg keeps B-frames until the picture that they refer to, and since 5.0 two more pictures,
/// which the device encodes in parallel (`-async_depth`, which 4.4 does not know, so its default is
/// used). The rest is reserve.
fn max_delay(config: &EncoderConfig) -> usize {
    8 + 2 * usize::from(config.b_frames)
}

fn on_linux() -> Result<(), Refusal> {
    if cfg!(target_os = "linux") {
        return Ok(());
    }
    Err(Refusal::new(
        EncoderType::VAAPI,
        RefusalKind::NoDevice,
        "VA-API is part of Linux",
        "use another encoder on this system",
    )
    .absent())
}

/// The options, with those that the probe chose, and the nodes to use.
fn look(request: &OpenRequest<'_>) -> Result<(VaapiOptions, Nodes), OpenError> {
    let mut options = VaapiOptions::read(request.options)?;
    options.low_power = options.low_power.or(render::probed_low_power(request));
    on_linux()?;
    let nodes = render::find(&WANTED, options.device.as_deref(), request)?;
    Ok((options, nodes))
}

fn inspect(request: &OpenRequest<'_>) -> Result<Device, OpenError> {
    let (options, nodes) = look(request)?;
    let spec = spec(request.config, &options, &nodes.first().path)?;
    Ok(nodes.device(encoder_ffmpeg::identity(&spec, request.ffmpeg)?, &DRIVERS))
}

fn probe(request: &OpenRequest<'_>, deadline: Duration) -> ProbeResult {
    let (options, nodes) = match look(request) {
        Ok(found) => found,
        Err(error) => {
            return ProbeResult::Refused(encoder_ffmpeg::refusal(EncoderType::VAAPI, error));
        }
    };
    nodes.probe(deadline, |node, share| {
        let modes = [None, Some(true)];
        let is_mode =
            |refusal: &Refusal| rules::MODE.iter().any(|message| refusal.reason.contains(message));
        render::probe_low_power(options.low_power, &modes, is_mode, share, |low_power, deadline| {
            let options = VaapiOptions { low_power, ..options.clone() };
            let on_node = |config: &_| spec(config, &options, &node.path);
            encoder_ffmpeg::test_encode_b_frames(EncoderType::VAAPI, request, on_node, deadline)
        })
    })
}

fn open(request: &OpenRequest<'_>) -> Result<Box<dyn VideoEncoder>, OpenError> {
    let (options, nodes) = look(request)?;
    encoder_ffmpeg::open(spec(request.config, &options, &nodes.first().path)?, request)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn argument_lists() {
        const BITSTREAM: &str = "-bsf:v h264_metadata=video_full_range_flag=0:\
             colour_primaries=1:transfer_characteristics=13:matrix_coefficients=6,\
             extract_extradata";
        // crf, B-frames, options | arguments before and behind the bitstream's, delay
        let table = [
            (23, 0, "", "-rc_mode CQP -qp 23 -profile:v high -g 30 -bf 0 -idr_interval 0", "", 8),
            (
                0,
                2,
                "rc_mode = \"icq\"\nlow_power = true\ncompression_level = 4",
                "-rc_mode ICQ -global_quality 1 -profile:v high -g 30 -bf 2 -idr_interval 0",
                " -low_power 1 -compression_level 4",
                12,
            ),
        ];
        for (crf, b_frames, options, before, behind, delay) in table {
            let rate_control = RateControl::Crf(crf);
            let config = EncoderConfig { rate_control, b_frames, ..Default::default() };
            let options = VaapiOptions::read(&options.parse().unwrap()).unwrap();
            let spec = spec(&config, &options, Path::new("/dev/dri/renderD129")).unwrap();
            assert_eq!(spec.options.join(" "), format!("{before} {BITSTREAM}{behind}"));
            assert_eq!(
                spec.global.join(" "),
                "-init_hw_device vaapi=va:/dev/dri/renderD129 -filter_hw_device va"
            );
            assert_eq!((spec.format, spec.max_delay), (PixelFormat::Nv12, delay));
            assert_eq!(spec.filter, Some("format=nv12,hwupload"));
        }
    }

    #[test]
    fn rate_controls() {
        for (rate_control, expected) in [
            (
                RateControl::ConstantQp(30),
                "-rc_mode CQP -qp 30 -i_qfactor 1 -i_qoffset 0 -b_qfactor 1 -b_qoffset 0",
            ),
            (RateControl::bitrate(900), "-rc_mode VBR -b:v 900k"),
            (
                RateControl::bitrate_with_max(900, 1000),
                "-rc_mode VBR -b:v 900k -maxrate 1000k -bufsize 1000k",
            ),
        ] {
            let config = EncoderConfig { rate_control, ..Default::default() };
            let spec = |options| spec(&config, &options, Path::new("/dev/dri/renderD128"));
            let arguments = spec(VaapiOptions::default()).unwrap().options.join(" ");
            assert!(arguments.starts_with(&format!("{expected} -profile:v high")), "{arguments}");
            let icq = VaapiOptions { rc_mode: RcMode::Icq, ..Default::default() };
            let error = spec(icq).unwrap_err();
            let OpenError::Config(ConfigError::Conflict { first, second }) = error else {
                panic!("{error}");
            };
            assert_eq!(first, rate_control.field());
            assert_eq!(second, "backend.vaapi.rc_mode = icq");
        }
    }

    #[test]
    fn options() {
        for (text, expected) in [
            ("rcmode = \"cqp\"", "did you mean `rc_mode`?"),
            ("rc_mode = \"vbr\"", "[backend.vaapi]"),
            ("compression_level = 0", "1 to 255"),
            ("compression_level = 256", "[backend.vaapi]"),
            ("device = \"a,b\"", "backend.vaapi.device"),
            ("low_power = 1", "[backend.vaapi]"),
        ] {
            let error = VaapiOptions::read(&text.parse().unwrap()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_configured_device_that_does_not_exist_is_an_error() {
        let options = "device = \"/nowhere/renderD128\"".parse().unwrap();
        let settings = encoder_core::Settings {
            backend: [("vaapi".to_owned(), options)].into(),
            ..Default::default()
        };
        let request = OpenRequest::new(&settings, EncoderType::VAAPI, 1);
        match inspect(&request) {
            Err(OpenError::Config(error)) => {
                assert!(error.to_string().contains("backend.vaapi.device = /nowhere"), "{error}");
            }
            other if cfg!(target_os = "linux") => panic!("{other:?}"),
            _ => {}
        }
    }

    /// FFmpeg looks for the device before it reads the encoder's options, so a machine without
    /// one tests them against the encoder's own list. Needs FFmpeg.
    #[test]
    fn ffmpeg_knows_every_option() {
        let ffmpeg = encoder_ffmpeg::Ffmpeg::find(EncoderType::VAAPI).unwrap();
        if !ffmpeg.lists("h264_vaapi") {
            println!("left out: {} has no h264_vaapi", ffmpeg.label());
            return;
        }
        let options = "rc_mode = \"icq\"\nlow_power = true".parse().unwrap();
        let options = VaapiOptions::read(&options).unwrap();
        let help = std::process::Command::new(&ffmpeg.path)
            .args(["-hide_banner", "-h", "encoder=h264_vaapi"])
            .output()
            .unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        let first = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
        let known: Vec<_> = help.lines().map(first).collect();
        let rate = RateControl::bitrate_with_max(900, 1000);
        for (options, rate_control) in [
            (options, RateControl::Crf(23)),
            (VaapiOptions::default(), RateControl::Crf(23)),
            (VaapiOptions::default(), RateControl::ConstantQp(23)),
            (VaapiOptions::default(), rate),
        ] {
            let config = EncoderConfig { rate_control, ..Default::default() };
            let spec = spec(&config, &options, Path::new("/dev/dri/renderD128")).unwrap();
            for pair in spec.options.chunks(2) {
                let name = pair[0].trim_end_matches(":v");
                // Options of every encoder are not in the list.
                let common = [
                    "-g",
                    "-bf",
                    "-global_quality",
                    "-bsf",
                    "-b",
                    "-maxrate",
                    "-bufsize",
                    "-i_qfactor",
                    "-i_qoffset",
                    "-b_qfactor",
                    "-b_qoffset",
                ];
                if !common.contains(&name) {
                    assert!(known.iter().any(|known| known == name), "{name}: {help}");
                }
                // A value that is a word is in the list too.
                let is_word = pair[1].trim_end_matches('k').parse::<u32>().is_err();
                if name != "-bsf" && is_word {
                    assert!(known.contains(&pair[1]), "{pair:?}: {help}");
                }
            }
        }
    }

    /// FFmpeg's log for a file that is not a device. Needs FFmpeg, and no device.
    #[test]
    fn a_file_that_is_not_a_device_is_refused_by_name() {
        let node = Path::new("/dev/null");
        let spec = spec(&EncoderConfig::default(), &VaapiOptions::default(), node).unwrap();
        let result = encoder_ffmpeg::test_encode(&spec, None, Duration::from_secs(60));
        let ProbeResult::Refused(refusal) = result else { panic!("/dev/null encodes") };
        println!("{refusal}");
        let kinds = [RefusalKind::NoDevice, RefusalKind::NotBuilt];
        assert!(kinds.contains(&refusal.kind), "{refusal}");
    }

    #[test]
    fn the_backend_is_registered() {
        let settings = encoder_core::Settings::default();
        let request = OpenRequest::new(&settings, EncoderType::VAAPI, 2);
        let all = encoder_core::backends();
        let ids: Vec<_> = all.iter().map(|b| (b.id, (b.rank)(&request))).collect();
        assert_eq!(ids, [(EncoderType::VAAPI, 25)]);
    }
}
