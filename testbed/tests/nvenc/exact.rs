//! Every picture is restored, at all settings.

use crate::{
    device,
    ffmpeg::{Encode, ffmpegs},
};

#[test]
fn every_preset_and_tuning() {
    let Some(device) = device() else { return };
    for ffmpeg in ffmpegs() {
        for preset in 1..=7 {
            for (i, tuning) in ["hq", "ll", "ull", "lossless"].into_iter().enumerate() {
                let mut encode = Encode::new(ffmpeg, &device)
                    .options(&format!("-preset p{preset} -tune {tuning}"));
                // Formats and sizes alternate.
                encode.pixels = ["nv12", "yuv420p"][(preset + i) % 2];
                encode.size = [(160, 96), (146, 50), (190, 108)][(preset + i) % 3];
                encode.format = ["h264", "flv"][preset % 2];
                encode.assert_exact();
            }
        }
    }
    assert_eq!(device.violations(), [""; 0]);
    assert_eq!(device.configs().len(), ffmpegs().len() * 28);
    assert_eq!(device.open_sessions(), 0);
}

#[test]
fn many_sizes() {
    let Some(device) = device() else { return };
    let sizes = [
        (146, 50),
        (148, 66),
        (318, 238),
        (320, 240),
        (638, 482),
        (1280, 720),
        (1920, 1080),
        (4096, 64),
        (160, 4096),
    ];
    for ffmpeg in ffmpegs() {
        for (i, size) in sizes.into_iter().enumerate() {
            let mut encode = Encode::new(ffmpeg, &device).options("-preset p1");
            encode.size = size;
            encode.frames = 3;
            encode.pixels = ["nv12", "yuv420p", "yuv444p"][i % 3];
            encode.assert_exact();
        }
    }
    assert_eq!(device.violations(), [""; 0]);
}

#[test]
fn b_pictures_lookahead_and_gops() {
    let Some(device) = device() else { return };
    let settings = [
        "-bf 1",
        "-bf 2 -g 5",
        "-bf 3 -profile:v main",
        "-bf 4 -g 7 -forced-idr 1 -force_key_frames expr:eq(mod(n,4),2)",
        "-bf 0 -g 1",
        "-g 0",
        "-bf 2 -rc-lookahead 8",
        "-bf 0 -rc-lookahead 4 -no-scenecut 1",
        "-bf 0 -delay 0 -zerolatency 1",
        "-profile:v baseline -bf 0",
        "-aud 1 -bf 2",
    ];
    for ffmpeg in ffmpegs() {
        for setting in settings {
            for (format, frames) in [("h264", 30), ("flv", 11)] {
                let mut encode = Encode::new(ffmpeg, &device).options(setting);
                encode.frames = frames;
                encode.format = format;
                let encoded = encode.assert_exact();
                if format == "flv" {
                    let mut times = encode.times(encoded);
                    times.sort_unstable();
                    let wanted: Vec<_> = (0..11).map(|n| (n * 1000_i64 + 15) / 30).collect();
                    assert_eq!(times, wanted, "{setting}");
                }
            }
        }
    }
    assert_eq!(device.violations(), [""; 0]);
}

#[test]
fn frames_in_the_memory_of_the_gpu() {
    let Some(device) = device() else { return };
    for ffmpeg in ffmpegs() {
        for pixels in ["nv12", "yuv420p"] {
            let mut encode =
                Encode::new(ffmpeg, &device).options("-vf hwupload_cuda -preset p4 -bf 2");
            encode.pixels = pixels;
            encode.size = (182, 102);
            encode.assert_exact();
        }
    }
    assert_eq!(device.violations(), [""; 0]);
}
