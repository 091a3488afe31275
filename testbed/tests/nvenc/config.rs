//! Settings reach the device.

use encoder_testbed::nvenc::{Config, VirtualNvenc, What};

use crate::{
    device,
    ffmpeg::{Encode, Ffmpeg, ffmpegs},
};

/// The configuration that the device received.
fn config(ffmpeg: &Ffmpeg, device: &VirtualNvenc, options: &str) -> Config {
    let before = device.configs().len();
    let mut encode = Encode::new(ffmpeg, device).options(options);
    encode.format = "flv";
    encode.assert_exact();
    let mut configs = device.configs();
    assert_eq!(configs.len(), before + 1);
    configs.pop().unwrap()
}

#[test]
fn settings_reach_the_device() {
    let Some(device) = device() else { return };
    type Check = fn(&Config) -> bool;
    let table: [(&str, Check); 16] = [
        ("", |c| (c.width, c.height, c.fps) == (160, 96, [30, 1]) && c.bitrate == 2_000_000),
        ("-preset p1 -tune ull", |c| c.preset == "p1" && c.tuning == "ull"),
        ("-preset p7 -tune hq", |c| c.preset == "p7" && c.tuning == "hq"),
        ("-preset p3 -tune lossless", |c| c.tuning == "lossless" && c.rate_control == "constqp"),
        ("-rc vbr -cq 23.5", |c| {
            c.rate_control == "vbr" && c.target_quality == 23.5 && c.bitrate == 0 && c.vbv_size == 0
        }),
        ("-rc constqp -qp 21", |c| c.rate_control == "constqp" && c.qp == [17, 21, 28]),
        ("-rc cbr -b:v 3M -maxrate 3M -bufsize 1M", |c| {
            c.rate_control == "cbr"
                && (c.bitrate, c.max_bitrate, c.vbv_size) == (3_000_000, 3_000_000, 1_000_000)
        }),
        ("-g 60 -bf 2", |c| (c.gop_length, c.idr_period, c.frame_interval_p) == (60, 60, 3)),
        ("-g 30 -bf 0", |c| (c.gop_length, c.frame_interval_p) == (30, 1)),
        ("-profile:v main -level 4.1", |c| c.profile == "main" && c.level == 41),
        ("-profile:v baseline -bf 0", |c| c.profile == "baseline"),
        ("-rc-lookahead 16", |c| c.lookahead == 16),
        ("-spatial-aq 1 -aq-strength 12", |c| c.spatial_aq && c.aq_strength == 12),
        ("-temporal-aq 1", |c| c.temporal_aq && !c.spatial_aq),
        ("-zerolatency 1 -multipass fullres", |c| c.zero_reorder_delay && c.multipass == 2),
        ("-vf setparams=range=tv:color_primaries=bt709:color_trc=bt709:colorspace=bt709", |c| {
            c.full_range == Some(false) && c.colour == Some([1, 1, 1])
        }),
    ];
    for ffmpeg in ffmpegs() {
        for (options, check) in table {
            let config = config(ffmpeg, &device, options);
            assert!(check(&config), "{} {options}: {config:?}", ffmpeg.path.display());
        }
    }
    assert_eq!(device.violations(), [""; 0]);
}

#[test]
fn the_container_decides_the_place_of_parameter_sets() {
    let Some(device) = device() else { return };
    for ffmpeg in ffmpegs() {
        Encode::new(ffmpeg, &device).assert_exact();
        let config = device.configs().pop().unwrap();
        assert!(config.in_band_headers && config.repeat_headers);
        for (format, options) in [("flv", ""), ("mp4", "-movflags frag_keyframe+empty_moov")] {
            let mut encode = Encode::new(ffmpeg, &device).options(options);
            encode.format = format;
            encode.assert_exact();
            assert!(!device.configs().pop().unwrap().in_band_headers);
        }
    }
}

#[test]
fn forced_pictures_reach_the_device() {
    for ffmpeg in ffmpegs() {
        let Some(device) = device() else { return };
        let options = "-bf 0 -forced-idr 1 -force_key_frames expr:eq(mod(n,5),3)";
        Encode::new(ffmpeg, &device).options(options).assert_exact();
        let forced: Vec<_> = device
            .log()
            .into_iter()
            .filter_map(|event| match event.what {
                What::Forced { frame, idr, .. } => Some((frame, idr)),
                _ => None,
            })
            .filter(|(frame, _)| *frame > 0)
            .collect();
        assert_eq!(forced, [(3, true), (8, true)]);
    }
}

#[test]
fn the_configured_gpu_is_used() {
    let Some(device) = device() else { return };
    let device = device.gpus(&["NVIDIA H100:no-encoder", "NVIDIA L4", "NVIDIA L40"]);
    for ffmpeg in ffmpegs() {
        assert_eq!(config(ffmpeg, &device, "-gpu 2").gpu, 2);
        // FFmpeg takes the first GPU that can encode.
        assert_eq!(config(ffmpeg, &device, "").gpu, 1);
    }
}
