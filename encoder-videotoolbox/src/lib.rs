#![doc = include_str!("../README.md")]
//!
//! The VideoToolbox backend: Apple's encoder, hosted by FFmpeg's `h264_videotoolbox`.
//!
//! Quality: VideoToolbox has a scale of 1 (worst) to 100 on Apple silicon only: `crf` becomes
//! `-q:v` = 100 - 2 × crf, at least 1 (crf 23 gives 54). On Intel there is only a bit rate: 0.1 bit
//! per pixel at crf 23, twice as many for each 6 steps down, as on x264's scale. `bitrate_kbps` and
//! `max_bitrate_kbps` are used as they are. VideoToolbox has no constant quantiser: with `qp` it is
//! refused.
//!
//! `preset` has no effect. `b_frames` only allows or forbids B-frames: VideoToolbox chooses how
//! many follow each other.
//!
//! Only hardware encoders are used: `-allow_sw 0`. Encoders of Intel Macs refuse small pictures, so
//! their probe uses 1280x720.
//!
//! Only options that FFmpeg 4.4 to 9 all know are used.
//!
//! # Example
//! ```
//! use encoder_core::{Settings, backends};
//! use encoder_videotoolbox as _; // registers the backend
//!
//! // The backend has no options of its own.
//! let error = Settings::from_toml("[backend.videotoolbox]\nquality = 50").unwrap_err();
//! assert!(error.to_string().contains("unknown key `quality`"));
//! assert!(backends().iter().any(|backend| backend.id.as_str() == "videotoolbox"));
//! ```

mod rules;

use std::{fs, time::Duration};

use encoder_core::{
    Backend, BackendOptions, ConfigError, Device, EncoderConfig, EncoderType, OpenError,
    OpenRequest, ProbeResult, RateControl, Refusal, RefusalKind, Resolution, VideoEncoder,
};
use encoder_ffmpeg::{FfmpegSpec, PROBE_SIZE, read_options};
use serde::Deserialize;

/// The backend, as it registers itself; for [`encoder_core::register`].
pub const BACKEND: Backend = Backend::new(EncoderType::VIDEOTOOLBOX, open)
    .rank(|_| 30)
    .hardware(true)
    .check_options(|options| VideotoolboxOptions::read(options).map(|_| ()))
    .inspect(inspect)
    .probe(probe)
    .max_delay(|_| MAX_DELAY);

encoder_core::inventory::submit! { BACKEND }

/// VideoToolbox guarantees no bound and chooses its look-ahead; the longest known is some tens of
/// frames. A bound that is too low would end in a stall.
const MAX_DELAY: usize = 64;

/// Table `[backend.videotoolbox]`: it has no keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VideotoolboxOptions {}

impl VideotoolboxOptions {
    /// Reads and checks the table.
    ///
    /// # Errors
    /// [`ConfigError::UnknownKey`] for any key.
    pub fn read(options: &BackendOptions) -> Result<Self, ConfigError> {
        read_options(EncoderType::VIDEOTOOLBOX, options, &[])
    }
}

/// The two families of Macs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// Apple silicon: has constant quality.
    AppleSilicon,
    /// Intel: has a bit rate only.
    Intel,
}

impl Machine {
    /// The family that this program was built for.
    pub const HERE: Self =
        if cfg!(target_arch = "aarch64") { Self::AppleSilicon } else { Self::Intel };

    const fn name(self) -> &'static str {
        match self {
            Self::AppleSilicon => "Apple silicon",
            Self::Intel => "Intel Mac",
        }
    }

    const fn probe_size(self) -> Resolution {
        match self {
            Self::AppleSilicon => PROBE_SIZE,
            Self::Intel => Resolution::new(1280, 720),
        }
    }
}

/// The spec for FFmpeg.
///
/// # Errors
/// [`OpenError::Refused`] for a rate control that VideoToolbox does not have.
pub fn spec(config: &EncoderConfig, machine: Machine) -> Result<FfmpegSpec, OpenError> {
    let quality = match (config.rate_control, machine) {
        (RateControl::Crf(crf), Machine::AppleSilicon) => {
            format!("-q:v {}", 100u8.saturating_sub(2 * crf).max(1))
        }
        (RateControl::Crf(crf), Machine::Intel) => {
            format!("-b:v {}", bit_rate(crf, config, machine))
        }
        // It has limits for the bits of a second, and no decoder's buffer.
        (RateControl::Bitrate { kbps, max_kbps, .. }, _) => {
            let limit = max_kbps.map_or(String::new(), |max| format!(" -maxrate {max}k"));
            format!("-b:v {kbps}k{limit}")
        }
        (other, _) => {
            let why = "VideoToolbox has only a quality and a bit rate";
            return Err(other.refused_by(EncoderType::VIDEOTOOLBOX, why).into());
        }
    };
    let EncoderConfig { gop_size, b_frames, .. } = *config;
    let mut spec = FfmpegSpec::new(EncoderType::VIDEOTOOLBOX, "h264_videotoolbox", config)
        .with_options(&format!(
            "{quality} -profile:v high -g {gop_size} -bf {b_frames} -realtime 0 -allow_sw 0"
        ))
        .with_rules(rules::RULES);
    spec.probe_size = machine.probe_size();
    spec.max_delay = MAX_DELAY;
    Ok(spec)
}

/// Bits per second for Macs without constant quality.
fn bit_rate(crf: u8, config: &EncoderConfig, machine: Machine) -> u64 {
    let size = config.resolution.unwrap_or(machine.probe_size());
    let pixels = f64::from(size.width) * f64::from(size.height) * config.frame_rate.as_f64();
    let bits = 0.1 * 2f64.powf((23.0 - f64::from(crf)) / 6.0);
    (pixels * bits).clamp(64_000.0, 400_000_000.0).round() as u64
}

fn system() -> Result<(), Refusal> {
    if cfg!(target_os = "macos") {
        return Ok(());
    }
    Err(Refusal::new(
        EncoderType::VIDEOTOOLBOX,
        RefusalKind::NoDevice,
        "VideoToolbox is part of macOS",
        "use another encoder on this system",
    )
    .absent())
}

fn inspect(request: &OpenRequest<'_>) -> Result<Device, OpenError> {
    VideotoolboxOptions::read(request.options)?;
    system()?;
    let mut identity =
        encoder_ffmpeg::identity(&spec(request.config, Machine::HERE)?, request.ffmpeg)?;
    // The encoder is a part of the system and changes with it.
    let file = "/System/Library/CoreServices/SystemVersion.plist";
    let version = fs::read_to_string(file).ok().and_then(|text| product_version(&text));
    let driver = version.map(|version| format!("macOS {version}"));
    identity.extend(driver.clone());
    Ok(Device::new(Machine::HERE.name()).with_driver(driver).with_identity(identity))
}

/// The version in a property list in XML, as Apple writes it: a key, then its value.
fn product_version(plist: &str) -> Option<String> {
    let (_, rest) = plist.split_once("<key>ProductVersion</key>")?;
    let (value, _) = rest.trim_start().strip_prefix("<string>")?.split_once("</string>")?;
    Some(value.trim().to_owned())
}

fn probe(request: &OpenRequest<'_>, deadline: Duration) -> ProbeResult {
    let here = |config: &_| spec(config, Machine::HERE);
    encoder_ffmpeg::test_encode_b_frames(EncoderType::VIDEOTOOLBOX, request, here, deadline)
}

fn open(request: &OpenRequest<'_>) -> Result<Box<dyn VideoEncoder>, OpenError> {
    VideotoolboxOptions::read(request.options)?;
    system()?;
    encoder_ffmpeg::open(spec(request.config, Machine::HERE)?, request)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use encoder_core::Settings;

    use super::*;

    #[test]
    fn argument_lists() {
        let table = [
            (
                23,
                0,
                Machine::AppleSilicon,
                "-q:v 54 -profile:v high -g 30 -bf 0 -realtime 0 -allow_sw 0",
            ),
            (
                0,
                2,
                Machine::AppleSilicon,
                "-q:v 100 -profile:v high -g 30 -bf 2 -realtime 0 -allow_sw 0",
            ),
            (
                51,
                0,
                Machine::AppleSilicon,
                "-q:v 1 -profile:v high -g 30 -bf 0 -realtime 0 -allow_sw 0",
            ),
            (
                23,
                0,
                Machine::Intel,
                "-b:v 6220800 -profile:v high -g 30 -bf 0 -realtime 0 -allow_sw 0",
            ),
            (
                17,
                0,
                Machine::Intel,
                "-b:v 12441600 -profile:v high -g 30 -bf 0 -realtime 0 -allow_sw 0",
            ),
        ];
        for (crf, b_frames, machine, expected) in table {
            let config = EncoderConfig {
                rate_control: RateControl::Crf(crf),
                b_frames,
                resolution: Some(Resolution::new(1920, 1080)),
                ..Default::default()
            };
            assert_eq!(spec(&config, machine).unwrap().options.join(" "), expected);
        }
        // A probe has its own size, and on Intel the bit rate for that size.
        let config = EncoderConfig::default();
        let (silicon, intel) =
            (spec(&config, Machine::AppleSilicon).unwrap(), spec(&config, Machine::Intel).unwrap());
        assert_eq!(silicon.probe_size, Resolution::new(640, 360));
        assert_eq!(intel.probe_size, Resolution::new(1280, 720));
        assert!(intel.options.starts_with(&["-b:v".into(), "2764800".into()]), "{intel:?}");
    }

    #[test]
    fn rate_controls() {
        for machine in [Machine::AppleSilicon, Machine::Intel] {
            let spec =
                |rate_control| spec(&EncoderConfig { rate_control, ..Default::default() }, machine);
            for (rate_control, expected) in [
                (RateControl::bitrate(900), "-b:v 900k -profile:v high"),
                (
                    RateControl::bitrate_with_max(900, 1000),
                    "-b:v 900k -maxrate 1000k -profile:v high",
                ),
            ] {
                let arguments = spec(rate_control).unwrap().options.join(" ");
                assert!(arguments.starts_with(expected), "{arguments}");
            }
            let Err(OpenError::Refused(refusal)) = spec(RateControl::ConstantQp(30)) else {
                panic!("a constant quantiser");
            };
            assert_eq!(refusal.kind, RefusalKind::Unsupported);
            assert!(refusal.reason.contains("qp 30"), "{refusal}");
            assert!(refusal.hint.contains("bitrate_kbps"), "{refusal}");
        }
    }

    #[test]
    fn the_version_of_the_system() {
        let plist = "<plist version=\"1.0\">\n<dict>\n\t<key>ProductName</key>\n\
                     \t<string>macOS</string>\n\t<key>ProductVersion</key>\n\
                     \t<string>15.3.1</string>\n</dict>\n</plist>\n";
        assert_eq!(product_version(plist).as_deref(), Some("15.3.1"));
        for text in ["", "bplist00", "<key>ProductVersion</key>", "<key>ProductVersion</key><x/>"] {
            assert_eq!(product_version(text), None, "{text}");
        }
    }

    #[test]
    fn no_options_and_no_other_system() {
        let options = "quality = 3".parse().unwrap();
        let error = VideotoolboxOptions::read(&options).unwrap_err().to_string();
        assert!(error.contains("unknown key `quality` in [backend.videotoolbox]"), "{error}");
        if !cfg!(target_os = "macos") {
            let settings = Settings::default();
            let request = OpenRequest::new(&settings, EncoderType::VIDEOTOOLBOX, 1);
            let Err(OpenError::Refused(refusal)) = inspect(&request) else { panic!() };
            assert_eq!(refusal.reason, "VideoToolbox is part of macOS");
        }
    }

    #[test]
    fn the_backend_is_registered() {
        let settings = encoder_core::Settings::default();
        let request = OpenRequest::new(&settings, EncoderType::VIDEOTOOLBOX, 2);
        let all = encoder_core::backends();
        let ids: Vec<_> = all.iter().map(|b| (b.id, (b.rank)(&request))).collect();
        assert_eq!(ids, [(EncoderType::VIDEOTOOLBOX, 30)]);
    }
}
