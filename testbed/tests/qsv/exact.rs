//! Every picture is restored bit for bit.

use encoder_testbed::qsv::What;

use crate::{
    device,
    ffmpeg::{Encode, ffmpegs},
};

const PLAIN: &str = "-preset veryfast -global_quality 23 -look_ahead 0 -g 30 -bf 0 -idr_interval 0 \
                     -forced_idr 1 -async_depth 4";

#[test]
fn sizes() {
    for ffmpeg in ffmpegs() {
        for size in [(16, 16), (160, 96), (322, 182), (640, 360), (1922, 1082)] {
            let Some(device) = device() else { return };
            let frames = if size.0 > 1000 { 3 } else { 12 };
            Encode { size, frames, ..Encode::new(ffmpeg, &device).options(PLAIN) }.assert_exact();
        }
    }
}

#[test]
fn options() {
    for ffmpeg in ffmpegs() {
        for options in [
            "-preset slow -global_quality 1 -look_ahead 0 -g 5 -bf 0",
            "-global_quality 23 -look_ahead 0 -bf 0 -async_depth 1",
            "-global_quality 23 -look_ahead 0 -bf 0 -async_depth 30",
            "-global_quality 23 -look_ahead 0 -g 4 -idr_interval 2 -bf 0",
            "-global_quality 23 -look_ahead 0 -g 1 -bf 0",
            "-global_quality 23 -look_ahead 0 -g 8 -bf 2",
            "-global_quality 23 -look_ahead 0 -g 8 -idr_interval 1 -bf 3 -async_depth 2",
            "-global_quality 23 -look_ahead 0 -bf 1 -g 100 -aud 1",
            "-b:v 2M -maxrate 3M -bf 0 -profile:v baseline",
            "-q:v 20 -bf 0 -profile:v main -level 40",
        ] {
            let Some(device) = device() else { return };
            Encode::new(ffmpeg, &device).options(options).assert_exact();
        }
    }
}

#[test]
fn devices_and_containers() {
    for ffmpeg in ffmpegs() {
        for format in ["flv", "mp4", "matroska"] {
            let Some(device) = device() else { return };
            let device = device.node(129);
            let encode = Encode::new(ffmpeg, &device).options(PLAIN);
            let global = "-init_hw_device qsv=hw,child_device=/dev/dri/renderD129".into();
            Encode { global, format, ..encode }.assert_exact();
        }
    }
}

/// With B pictures, decoding is one frame ahead of presentation; without them, both times are
/// equal.
#[test]
fn times() {
    for ffmpeg in ffmpegs() {
        for (b_frames, first) in [(0, [(0, 0), (1, 1), (2, 2)]), (2, [(-1, 0), (0, 3), (1, 1)])] {
            let Some(device) = device() else { return };
            let options = format!("-global_quality 23 -look_ahead 0 -bf {b_frames}");
            let encode = Encode::new(ffmpeg, &device).options(&options);
            let encode = Encode { format: "nut", ..encode };
            let times = encode.times(&encode.assert_exact());
            // The container has its own time base, and may start later than 0.
            let mut shown: Vec<_> = times.iter().map(|(_, shown)| *shown).collect();
            shown.sort_unstable();
            let (begin, step) = (shown[0], shown[1] - shown[0]);
            let frame = |time: i64| (time - begin) / step;
            let times: Vec<_> = times.into_iter().map(|(d, s)| (frame(d), frame(s))).collect();
            assert_eq!(times[..3], first, "FFmpeg {}", ffmpeg.major);
            assert!(times.iter().all(|(decoded, shown)| decoded <= shown), "{times:?}");
            assert!(shown.into_iter().map(frame).eq(0..20), "{times:?}");
        }
    }
}

/// The types of 20 pictures in decoding order.
#[test]
fn groups() {
    let forced = "-g 30 -bf 0 -forced_idr 1 -force_key_frames expr:eq(mod(n,7),6)";
    let forced_b = "-g 30 -bf 3 -forced_idr 1 -force_key_frames expr:eq(mod(n,7),6)";
    let table = [
        ("-g 8 -bf 0", "IPPPPPPPIPPPPPPPIPPP"),
        ("-g 8 -bf 0 -idr_interval 1", "IPPPPPPPiPPPPPPPIPPP"),
        ("-g 30 -bf 2", "IPBBPBBPBBPBBPBBPBBP"),
        // The last B picture in front of an IDR picture or of the end is a P picture.
        ("-g 8 -bf 2", "IPBBPBBPIPBBPBBPIPBB"),
        ("-g 7 -bf 2 -idr_interval 1", "IPBBPBBiPBBPBBIPBBPB"),
        (forced, "IPPPPPIPPPPPPIPPPPPP"),
        (forced_b, "IPBBBPIPBBBPBIPBBBPB"),
    ];
    for ffmpeg in ffmpegs() {
        for (options, wanted) in table {
            let Some(device) = device() else { return };
            let all = format!("-global_quality 23 -look_ahead 0 {options}");
            Encode::new(ffmpeg, &device).options(&all).assert_exact();
            let log: Vec<_> = device.log().into_iter().map(|event| event.what).collect();
            let types = log.iter().find_map(|what| match what {
                What::Finished { types, .. } => Some(types.as_str()),
                _ => None,
            });
            assert_eq!(types, Some(wanted), "FFmpeg {}: {options}", ffmpeg.major);
            let forced = log.iter().filter_map(|what| match what {
                What::Forced { frame, frame_type, .. } => Some((*frame, *frame_type)),
                _ => None,
            });
            // The sum of I, reference and IDR.
            let expected: &[_] =
                if options.contains("force") { &[(6, 193), (13, 193)] } else { &[] };
            assert_eq!(forced.collect::<Vec<_>>(), expected, "FFmpeg {}: {options}", ffmpeg.major);
        }
    }
}
