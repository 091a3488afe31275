//! The VideoToolbox backend: Apple's encoder, hosted by FFmpeg's `h264_videotoolbox`.
//!
//! Quality: VideoToolbox has a scale of 1 (worst) to 100 on Apple silicon only: `crf` becomes
//! `-q:v` = 100 - 2 × crf, at least 1 (crf 23 gives 54). On Intel there is only a bit rate: 0.1 bit per
//! pixel at crf 23, twice as many for each 6 steps down, as x264's scale goes.

use std::time::Duration;

use encoder_core::{
    Backend, BackendOptions, Codec, ConfigError, Device, EncoderConfig, EncoderType, OpenError,
    OpenRequest, Refusal, RefusalKind, Resolution, Verdict, VideoEncoder,
};
use encoder_ffmpeg::{Job, read_options};
use serde::Deserialize;

encoder_core::inventory::submit! {
    Backend {
        id: EncoderType::VIDEOTOOLBOX,
        rank: 30,
        hardware: true,
        codecs: &[Codec::H264],
        check_options: |options| VideotoolboxOptions::read(options).map(|_| ()),
        inspect,
        prove,
        max_delay: |request| job(request.config, Machine::HERE).max_delay,
        open,
    }
}

/// Table `[backend.videotoolbox]`: nothing can be set.
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
    /// Has constant quality.
    AppleSilicon,
    /// Has a bit rate only.
    Intel,
}

impl Machine {
    /// What this program was built for.
    pub const HERE: Self =
        if cfg!(target_arch = "aarch64") { Self::AppleSilicon } else { Self::Intel };
}

/// The job for FFmpeg.
pub fn job(config: &EncoderConfig, machine: Machine) -> Job {
    let quality = match machine {
        Machine::AppleSilicon => format!("-q:v {}", 100u8.saturating_sub(2 * config.crf).max(1)),
        Machine::Intel => format!("-b:v {}", bit_rate(config)),
    };
    let EncoderConfig { gop_size, b_frames, .. } = *config;
    let mut job = Job::new(EncoderType::VIDEOTOOLBOX, "h264_videotoolbox", config)
        .with_options(&format!("{quality} -g {gop_size} -bf {b_frames} -realtime 0 -allow_sw 0"));
    // VideoToolbox promises no bound; frames are kept by the tens at most.
    job.max_delay = 64;
    job
}

/// Bits per second where there is no scale of quality.
fn bit_rate(config: &EncoderConfig) -> u64 {
    let size = config.resolution.unwrap_or(Resolution::new(640, 360));
    let pixels = f64::from(size.width) * f64::from(size.height) * config.frame_rate.as_f64();
    let bits = 0.1 * 2f64.powf((23.0 - f64::from(config.crf)) / 6.0);
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
    ))
}

fn inspect(request: &OpenRequest<'_>) -> Result<Device, OpenError> {
    VideotoolboxOptions::read(request.options)?;
    system()?;
    let identity = encoder_ffmpeg::identity(&job(request.config, Machine::HERE))?;
    Ok(Device { identity, ..Device::default() })
}

fn prove(request: &OpenRequest<'_>, deadline: Duration) -> Verdict {
    encoder_ffmpeg::test_encode(&job(request.config, Machine::HERE), deadline)
}

fn open(request: &OpenRequest<'_>) -> Result<Box<dyn VideoEncoder>, OpenError> {
    VideotoolboxOptions::read(request.options)?;
    system()?;
    encoder_ffmpeg::open(job(request.config, Machine::HERE), request)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use encoder_core::Settings;

    use super::*;

    #[test]
    fn argument_lists() {
        let table = [
            (23, 0, Machine::AppleSilicon, "-q:v 54 -g 30 -bf 0 -realtime 0 -allow_sw 0"),
            (0, 2, Machine::AppleSilicon, "-q:v 100 -g 30 -bf 2 -realtime 0 -allow_sw 0"),
            (51, 0, Machine::AppleSilicon, "-q:v 1 -g 30 -bf 0 -realtime 0 -allow_sw 0"),
            (23, 0, Machine::Intel, "-b:v 6220800 -g 30 -bf 0 -realtime 0 -allow_sw 0"),
            (17, 0, Machine::Intel, "-b:v 12441600 -g 30 -bf 0 -realtime 0 -allow_sw 0"),
        ];
        for (crf, b_frames, machine, expected) in table {
            let config = EncoderConfig {
                crf,
                b_frames,
                resolution: Some(Resolution::new(1920, 1080)),
                ..Default::default()
            };
            assert_eq!(job(&config, machine).options.join(" "), expected);
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
    fn it_registers_itself() {
        let ids: Vec<_> = encoder_core::backends().iter().map(|b| (b.id, b.rank)).collect();
        assert_eq!(ids, [(EncoderType::VIDEOTOOLBOX, 30)]);
    }
}
