#![allow(clippy::unwrap_used)]

use encoder_core::{RefusalKind, Settings};

use super::*;

/// The spec for the fields of `[gpu]` and `[backend.nvenc]` as TOML.
fn spec_for(crf: u8, b_frames: u8, gpu: &str, options: &str) -> FfmpegSpec {
    spec_with(RateControl::Crf(crf), b_frames, gpu, options)
}

fn spec_with(rate_control: RateControl, b_frames: u8, gpu: &str, options: &str) -> FfmpegSpec {
    let config = EncoderConfig { rate_control, b_frames, ..Default::default() };
    let settings = Settings::from_toml(&format!("[gpu]\n{gpu}\n[backend.nvenc]\n{options}"));
    let settings = settings.unwrap();
    let options = NvencOptions::read(&settings.backend["nvenc"]).unwrap();
    spec(&config, &settings.gpu, &options).unwrap()
}

#[test]
fn argument_lists() {
    // crf, B-frames, [gpu], [backend.nvenc] | arguments, delay
    let table = [
        (
            (23, 0, "", ""),
            "-preset p4 -tune hq -g 30 -bf 0 -b_ref_mode disabled -forced-idr 1 \
             -rc vbr -cq 23 -b:v 0 -profile:v high -delay 0",
            8,
        ),
        (
            (0, 2, "nvenc_preset = \"p5\"", "gpu = 1\nspatial_aq = true\ntemporal_aq = true"),
            "-preset p5 -tune hq -g 30 -bf 2 -b_ref_mode disabled -forced-idr 1 \
             -rc vbr -cq 1 -b:v 0 -profile:v high -spatial-aq 1 -temporal-aq 1 -delay 0 -gpu 1",
            16,
        ),
        (
            (51, 0, "nvenc_preset = \"p1\"\nnvenc_tune = \"ull\"", ""),
            "-preset p1 -tune ull -g 30 -bf 0 -b_ref_mode disabled -forced-idr 1 \
             -rc vbr -cq 51 -b:v 0 -profile:v high -delay 0 -zerolatency 1",
            8,
        ),
        (
            (30, 2, "nvenc_tune = \"ll\"", ""),
            "-preset p4 -tune ll -g 30 -bf 2 -b_ref_mode disabled -forced-idr 1 \
             -rc vbr -cq 30 -b:v 0 -profile:v high -delay 0",
            16,
        ),
        (
            (23, 2, "nvenc_tune = \"lossless\"", "rc_lookahead = 8\nspatial_aq = true"),
            "-preset p4 -tune lossless -g 30 -bf 2 -b_ref_mode disabled -forced-idr 1 \
             -rc constqp -qp 0 -delay 0",
            16,
        ),
        (
            (23, 1, "nvenc_tune = \"ull\"", "rc_lookahead = 20"),
            "-preset p4 -tune ull -g 30 -bf 1 -b_ref_mode disabled -forced-idr 1 \
             -rc vbr -cq 23 -b:v 0 -profile:v high \
             -rc-lookahead 20 -no-scenecut 1 -delay 26",
            31,
        ),
        (
            (23, 0, "nvenc_preset = \"p7\"", ""),
            "-preset p7 -tune hq -g 30 -bf 0 -b_ref_mode disabled -forced-idr 1 \
             -rc vbr -cq 23 -b:v 0 -profile:v high -delay 0",
            41,
        ),
    ];
    for ((crf, b_frames, gpu, options), expected, delay) in table {
        let spec = spec_for(crf, b_frames, gpu, options);
        assert_eq!(spec.options.join(" "), expected);
        assert_eq!((spec.encoder, spec.max_delay), ("h264_nvenc", delay));
    }
}

#[test]
fn rate_controls() {
    let table = [
        (
            RateControl::ConstantQp(30),
            "-rc constqp -qp 30 -i_qfactor 1 -i_qoffset 0 -b_qfactor 1 -b_qoffset 0 \
             -profile:v high -delay 0",
        ),
        (RateControl::bitrate(900), "-rc vbr -b:v 900k -profile:v high -spatial-aq 1 -delay 0"),
        (
            RateControl::bitrate_with_max(900, 1800),
            "-rc vbr -b:v 900k -maxrate 1800k -bufsize 1800k -profile:v high -spatial-aq 1 \
             -delay 0",
        ),
    ];
    for (rate_control, expected) in table {
        let spec = spec_with(rate_control, 2, "", "spatial_aq = true");
        let arguments = spec.options.join(" ");
        assert!(arguments.ends_with(&format!("-forced-idr 1 {expected}")), "{arguments}");
    }
}

#[test]
fn wrong_options_are_errors() {
    for (text, expected) in [
        ("[backend.nvenc]\ngpus = 1", "did you mean `gpu`?"),
        ("[backend.nvenc]\ngpu = -1", "[backend.nvenc]"),
        ("[backend.nvenc]\ngpu = \"x\"", "[backend.nvenc]"),
        ("[backend.nvenc]\nrc_lookahead = 28", "backend.nvenc.rc_lookahead = 28"),
        ("[backend.nvenc]\nspatial_aq = 1", "[backend.nvenc]"),
        ("[gpu]\nnvenc_preset = \"p9\"", "p7"),
        ("[gpu]\nnvenc_tune = \"fast\"", "lossless"),
    ] {
        let error = Settings::from_toml(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

/// FFmpeg reads the options before it looks for a device, so no device is needed. Needs FFmpeg.
#[test]
fn ffmpeg_knows_every_option() {
    for tune in ["hq", "ll", "ull", "lossless"] {
        let options = "gpu = 0\nrc_lookahead = 4\nspatial_aq = true\ntemporal_aq = true";
        let spec = spec_for(23, 2, &format!("nvenc_tune = \"{tune}\""), options);
        match encoder_ffmpeg::test_encode(&spec, None, Duration::from_secs(60)) {
            ProbeResult::Usable(_) => {}
            ProbeResult::Refused(refusal) => {
                let device = [RefusalKind::Missing, RefusalKind::NoDevice, RefusalKind::Busy];
                assert!(device.contains(&refusal.kind), "{refusal}");
                assert!(!refusal.hint.contains("ENCODER_FFMPEG"), "{refusal}");
            }
        }
    }
}

#[test]
fn the_backend_is_registered() {
    let settings = encoder_core::Settings::default();
    let request = OpenRequest::new(&settings, EncoderType::NVENC, 2);
    let all = encoder_core::backends();
    let ids: Vec<_> = all.iter().map(|b| (b.id, (b.rank)(&request))).collect();
    assert_eq!(ids, [(EncoderType::NVENC, 10)]);
}
