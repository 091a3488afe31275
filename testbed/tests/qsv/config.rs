//! Settings reach the device.

use encoder_testbed::qsv::{Config, What};

use crate::{
    device,
    ffmpeg::{Encode, Ffmpeg, ffmpegs},
};

fn config(ffmpeg: &Ffmpeg, options: &str) -> Option<Config> {
    let device = device()?;
    Encode { frames: 2, ..Encode::new(ffmpeg, &device).options(options) }.assert_exact();
    device.configs().pop()
}

#[test]
fn all_settings_reach_the_device() {
    for ffmpeg in ffmpegs() {
        let options = "-preset veryfast -global_quality 23 -look_ahead 0 -g 30 -bf 0 \
                       -idr_interval 0 -forced_idr 1 -async_depth 4";
        let Some(config) = config(ffmpeg, options) else { return };
        let wanted = Config {
            session: 1,
            width: 160,
            height: 96,
            crop: [0, 0, 160, 96],
            fourcc: "NV12".into(),
            frame_rate: [30, 1],
            profile: 0,
            level: 0,
            target_usage: 7,
            gop_pic_size: 30,
            gop_ref_dist: 1,
            idr_interval: 0,
            rate_control: 9,
            quality: [0, 23, 0],
            low_power: config.low_power,
            async_depth: 4,
            look_ahead_depth: 0,
            colour: [2, 2, 2, 0],
        };
        assert_eq!(config, wanted, "FFmpeg {}", ffmpeg.major);
    }
}

#[test]
fn each_option_reaches_the_device() {
    for ffmpeg in ffmpegs() {
        let config = |options: &str| config(ffmpeg, options);
        let Some(slow) = config("-preset slow -global_quality 1 -look_ahead 0 -g 7 -bf 2") else {
            return;
        };
        assert_eq!((slow.target_usage, slow.gop_pic_size, slow.gop_ref_dist), (3, 7, 3));
        assert_eq!((slow.rate_control, slow.quality[1]), (9, 1));
        let rate = config("-b:v 2M -maxrate 3M -bf 0 -async_depth 1").unwrap();
        assert_eq!((rate.rate_control, rate.quality[1..].to_vec()), (2, vec![2000, 3000]));
        assert_eq!(rate.async_depth, 1);
        let quantiser = config("-q:v 20 -bf 0 -profile:v main -level 40 -idr_interval 5").unwrap();
        assert_eq!((quantiser.rate_control, quantiser.quality[1]), (3, 20));
        assert_eq!((quantiser.profile, quantiser.level, quantiser.idr_interval), (77, 40, 5));
        let low = config("-global_quality 23 -look_ahead 0 -bf 0 -low_power 1").unwrap();
        assert_eq!(low.low_power, 16);
        let colour =
            config("-global_quality 23 -look_ahead 0 -bf 0 -colorspace smpte170m").unwrap();
        assert_eq!(colour.colour[2], 6);
    }
}

/// As many frames are in flight as configured, and all sessions end.
#[test]
fn nothing_is_left() {
    for ffmpeg in ffmpegs() {
        let Some(device) = device() else { return };
        Encode::new(ffmpeg, &device)
            .options("-global_quality 23 -look_ahead 0 -bf 0 -async_depth 3")
            .assert_exact();
        let log: Vec<_> = device.log().into_iter().map(|event| event.what).collect();
        let types = format!("I{}", "P".repeat(19));
        let finished = What::Finished { session: 1, frames: 20, left: 0, most_tasks: 3, types };
        assert!(log.contains(&finished), "{log:?}");
        assert!(log.contains(&What::Closed { session: 1 }), "{log:?}");
        let interface = if ffmpeg.major < 6 { "MFXInitEx" } else { "MFXInitialize" }.into();
        assert!(log.contains(&What::Opened { session: 1, interface }), "{log:?}");
        assert_eq!(log.last(), Some(&What::Display { open: false }));
    }
}
