//! The same device as an encoder of VA-API.

use encoder_testbed::qsv::{Action, Fault, Gpu, Part, Stage, VirtualQsv, What};

use crate::{
    device,
    ffmpeg::{Encode, Ffmpeg, ffmpegs},
};

const PLAIN: &str = "-rc_mode CQP -qp 23 -profile:v high -g 8 -idr_interval 0";

fn encode<'a>(ffmpeg: &'a Ffmpeg, device: &'a VirtualQsv, options: &str) -> Encode<'a> {
    Encode {
        codec: "-vf format=nv12,hwupload -c:v h264_vaapi",
        global: "-init_hw_device vaapi=va:/dev/dri/renderD128 -filter_hw_device va".into(),
        ..Encode::new(ffmpeg, device).options(options)
    }
}

/// The FFmpegs that can map frames of VA-API here: newer ones want `vaMapBuffer2` of libva 2.21
/// and abort without it.
fn usable() -> impl Iterator<Item = &'static Ffmpeg> {
    ffmpegs().iter().filter(|ffmpeg| {
        let Some(device) = device() else { return false };
        let ended = encode(ffmpeg, &device, PLAIN).run();
        let old = ended.stderr().contains("vaMapBuffer2");
        if old {
            eprintln!("left out: libva is too old for {}", ffmpeg.path.display());
        }
        !old
    })
}

#[test]
fn every_picture_is_restored() {
    for ffmpeg in usable() {
        for size in [(16, 16), (160, 96), (322, 182), (1922, 1082)] {
            let Some(device) = device() else { return };
            let frames = if size.0 > 1000 { 3 } else { 12 };
            Encode { size, frames, ..encode(ffmpeg, &device, PLAIN) }.assert_exact();
        }
        for (gpu, format) in [(Gpu::Intel, "flv"), (Gpu::Amd, "flv"), (Gpu::Amd, "mp4")] {
            let Some(device) = device() else { return };
            let device = device.gpu(gpu).without(Part::Runtime);
            let options = format!("{PLAIN} -bf 0 -bsf:v extract_extradata");
            Encode { format, ..encode(ffmpeg, &device, &options) }.assert_exact();
        }
    }
}

/// The types of 20 pictures in decoding order.
#[test]
fn groups() {
    let table = [
        ("-bf 0", "IPPPPPPPIPPPPPPPIPPP"),
        ("-bf 2", "IPBBPBBPIPBBPBBPIPBB"),
        ("-bf 0 -idr_interval 1", "IPPPPPPPiPPPPPPPIPPP"),
        ("-bf 0 -force_key_frames expr:eq(n,5)", "IPPPPIPPPPPPPIPPPPPP"),
    ];
    for ffmpeg in usable() {
        for (options, wanted) in table {
            let Some(device) = device() else { return };
            encode(ffmpeg, &device, &format!("{PLAIN} {options}")).assert_exact();
            let types = device.log().into_iter().find_map(|event| match event.what {
                What::VaFinished { types, .. } => Some(types),
                _ => None,
            });
            assert_eq!(types.as_deref(), Some(wanted), "FFmpeg {}: {options}", ffmpeg.major);
        }
    }
}

#[test]
fn settings_reach_the_driver() {
    for ffmpeg in usable() {
        let config = |options: &str| {
            let device = device()?;
            let size = (322, 182);
            Encode { size, ..encode(ffmpeg, &device, options) }.assert_exact();
            device.va_configs().pop()
        };
        let Some(plain) = config(&format!("{PLAIN} -bf 2")) else { return };
        assert_eq!((plain.width, plain.height, plain.frame_rate), (322, 182, [30, 1]));
        assert_eq!((plain.profile, plain.rate_control, plain.qp), (100, 16, 23));
        assert_eq!((plain.intra_period, plain.intra_idr_period, plain.ip_period), (8, 8, 3));
        let icq = "-rc_mode ICQ -global_quality 31 -bf 0 -compression_level 3";
        let icq = config(&format!("{icq} -g 8 -profile:v main -level 40")).unwrap();
        assert_eq!((icq.rate_control, icq.icq_quality, icq.quality_level), (64, 31, 3));
        assert_eq!((icq.intra_period, icq.intra_idr_period, icq.ip_period), (8, 8, 1));
        assert_eq!((icq.profile, icq.level), (77, 40));
        let rate = config("-rc_mode CBR -b:v 2M -bf 0").unwrap();
        assert_eq!((rate.rate_control, rate.bits_per_second), (2, 2_000_000));
    }
}

#[test]
fn faults() {
    let init = Fault::new(Stage::Init, Action::Error(2));
    let encoding = Fault::new(Stage::Encode, Action::Error(23)).frame(5);
    for ffmpeg in usable() {
        for (fault, wanted) in [
            (init, "Failed to create encode pipeline context: 2 (resource allocation failed)."),
            (encoding, "Failed to end picture encode issue: 23 (internal decoding error)."),
        ] {
            let Some(device) = device() else { return };
            let device = device.fault(fault);
            let ended = encode(ffmpeg, &device, PLAIN).run();
            let what = format!("FFmpeg {}: {}", ffmpeg.major, ended.stderr());
            assert!(ended.stderr().contains(wanted), "{what}");
            let status = if ffmpeg.major < 6 { 1 } else { 251 };
            assert_eq!(ended.status.code(), Some(status), "{what}");
        }
    }
}
