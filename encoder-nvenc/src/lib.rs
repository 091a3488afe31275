//! The NVENC backend: NVIDIA's encoder, hosted by FFmpeg's `h264_nvenc`.
//!
//! Quality: `crf` becomes `-cq` of the same number, between 1 and 51 (0 would mean "automatic").
//! The scales look alike and are not equal: at the same number NVENC tends to larger files.
//!
//! Only options that FFmpeg 4.4 to 9 all know are used.

use std::{env, path::Path, time::Duration};

use encoder_core::{
    Backend, BackendOptions, Codec, ConfigError, Device, EncoderConfig, EncoderType,
    GpuEncoderConfig, NvencTune, OpenError, OpenRequest, Refusal, RefusalKind, Verdict,
    VideoEncoder,
};
use encoder_ffmpeg::{Job, read_options};
use serde::Deserialize;

encoder_core::inventory::submit! {
    Backend {
        id: EncoderType::NVENC,
        rank: 10,
        hardware: true,
        codecs: &[Codec::H264],
        check_options: |options| NvencOptions::read(options).map(|_| ()),
        inspect,
        prove,
        max_delay: |request| job_of(request).map_or(0, |job| job.max_delay),
        open,
    }
}

/// Table `[backend.nvenc]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NvencOptions {
    /// Which GPU, as CUDA counts them from 0. Default: the first that can do it.
    pub gpu: Option<u32>,
}

impl NvencOptions {
    /// Reads and checks the table.
    ///
    /// # Errors
    /// [`ConfigError`] for unknown keys and wrong values.
    pub fn read(options: &BackendOptions) -> Result<Self, ConfigError> {
        read_options(EncoderType::NVENC, options, &["gpu"])
    }
}

/// The job for FFmpeg.
pub fn job(config: &EncoderConfig, gpu: &GpuEncoderConfig, options: &NvencOptions) -> Job {
    let (preset, tune) = (gpu.nvenc_preset.as_str(), gpu.nvenc_tune.as_str());
    let quality = config.crf.max(1);
    let EncoderConfig { gop_size, b_frames, .. } = *config;
    let mut words = format!(
        "-preset {preset} -tune {tune} -rc vbr -cq {quality} -b:v 0 -g {gop_size} -bf {b_frames} \
         -b_ref_mode disabled -rc-lookahead 0 -forced-idr 1 -delay 0"
    );
    if gpu.nvenc_tune != NvencTune::Hq {
        words.push_str(" -zerolatency 1");
    }
    if let Some(index) = options.gpu {
        words.push_str(&format!(" -gpu {index}"));
    }
    let mut job = Job::new(EncoderType::NVENC, "h264_nvenc", config).with_options(&words);
    // One picture at once without B-frames; with them FFmpeg keeps more surfaces busy (11 frames
    // were seen with two B-frames).
    job.max_delay = if b_frames == 0 { 8 } else { 16 + 4 * usize::from(b_frames) };
    job
}

/// Looks for a device without starting anything: a machine without one is refused in no time.
fn look() -> Result<(), Refusal> {
    let nodes = ["/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg"];
    let there = !cfg!(target_os = "linux")
        || nodes.iter().any(|node| Path::new(node).exists())
        || on_path("nvidia-smi");
    device(there)
}

fn device(there: bool) -> Result<(), Refusal> {
    let reason = if cfg!(target_os = "macos") {
        "NVENC does not exist on macOS"
    } else if there {
        return Ok(());
    } else {
        "there is no NVIDIA device (/dev/nvidia0, /dev/nvidiactl, /dev/dxg) and no nvidia-smi"
    };
    Err(Refusal::new(
        EncoderType::NVENC,
        RefusalKind::NoDevice,
        reason,
        "install the NVIDIA driver; in a container run with --gpus all and \
         NVIDIA_DRIVER_CAPABILITIES=all; or use another encoder",
    ))
}

fn on_path(program: &str) -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

fn job_of(request: &OpenRequest<'_>) -> Result<Job, ConfigError> {
    Ok(job(request.config, request.gpu, &NvencOptions::read(request.options)?))
}

fn inspect(request: &OpenRequest<'_>) -> Result<Device, OpenError> {
    let job = job_of(request)?;
    look()?;
    Ok(Device { identity: encoder_ffmpeg::identity(&job)?, ..Device::default() })
}

fn prove(request: &OpenRequest<'_>, deadline: Duration) -> Verdict {
    match job_of(request) {
        Ok(job) => encoder_ffmpeg::test_encode(&job, deadline),
        Err(error) => Verdict::Refused(encoder_ffmpeg::misconfigured(EncoderType::NVENC, &error)),
    }
}

fn open(request: &OpenRequest<'_>) -> Result<Box<dyn VideoEncoder>, OpenError> {
    look()?;
    encoder_ffmpeg::open(job_of(request)?, request)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use encoder_core::NvencPreset;

    use super::*;

    #[test]
    fn argument_lists() {
        // preset, tune, crf, B-frames, options | arguments, delay
        let table = [
            (
                NvencPreset::P4,
                NvencTune::Hq,
                23,
                0,
                "",
                "-preset p4 -tune hq -rc vbr -cq 23 -b:v 0 -g 30 -bf 0 -b_ref_mode disabled \
              -rc-lookahead 0 -forced-idr 1 -delay 0",
                8,
            ),
            (
                NvencPreset::P7,
                NvencTune::Hq,
                0,
                2,
                "gpu = 1",
                "-preset p7 -tune hq -rc vbr -cq 1 -b:v 0 -g 30 -bf 2 -b_ref_mode disabled \
              -rc-lookahead 0 -forced-idr 1 -delay 0 -gpu 1",
                24,
            ),
            (
                NvencPreset::P1,
                NvencTune::Ull,
                51,
                0,
                "",
                "-preset p1 -tune ull -rc vbr -cq 51 -b:v 0 -g 30 -bf 0 -b_ref_mode disabled \
              -rc-lookahead 0 -forced-idr 1 -delay 0 -zerolatency 1",
                8,
            ),
        ];
        for (nvenc_preset, nvenc_tune, crf, b_frames, options, expected, delay) in table {
            let config = EncoderConfig { crf, b_frames, ..Default::default() };
            let gpu = GpuEncoderConfig { nvenc_preset, nvenc_tune, ..Default::default() };
            let options = NvencOptions::read(&options.parse().unwrap()).unwrap();
            let job = job(&config, &gpu, &options);
            assert_eq!(job.options.join(" "), expected);
            assert_eq!((job.encoder, job.max_delay), ("h264_nvenc", delay));
        }
    }

    #[test]
    fn options_and_devices() {
        for (text, expected) in [
            ("gpus = 1", "did you mean `gpu`?"),
            ("gpu = -1", "[backend.nvenc]"),
            ("gpu = \"x\"", "[backend.nvenc]"),
        ] {
            let error = NvencOptions::read(&text.parse().unwrap()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let refusal = device(false).unwrap_err();
        assert_eq!((refusal.kind, refusal.transient), (RefusalKind::NoDevice, false));
        assert_eq!(device(true).is_ok(), !cfg!(target_os = "macos"));
    }

    /// With or without a device: FFmpeg reads the options first. Needs FFmpeg.
    #[test]
    fn ffmpeg_knows_every_option() {
        let job = job(
            &EncoderConfig { b_frames: 2, ..Default::default() },
            &GpuEncoderConfig::default(),
            &NvencOptions { gpu: Some(0) },
        );
        match encoder_ffmpeg::test_encode(&job, Duration::from_secs(60)) {
            Verdict::Usable(_) => {}
            Verdict::Refused(refusal) => {
                let device = [RefusalKind::Missing, RefusalKind::NoDevice, RefusalKind::Busy];
                assert!(device.contains(&refusal.kind), "{refusal}");
                assert!(!refusal.cure.contains("ENCODER_FFMPEG"), "{refusal}");
                println!("{refusal}");
            }
        }
    }

    #[test]
    fn it_registers_itself() {
        let ids: Vec<_> = encoder_core::backends().iter().map(|b| (b.id, b.rank)).collect();
        assert_eq!(ids, [(EncoderType::NVENC, 10)]);
    }
}
