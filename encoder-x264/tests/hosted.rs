//! x264 in the FFmpeg of this machine. Needs one: set ENCODER_FFMPEG or put it on the PATH.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use encoder_core::{
    EncodedChunk, EncoderConfig, EncoderType, FrameBuffer, FrameLayout, OpenRequest, PixelFormat,
    Preset, ProbeResult, Resolution, Settings, VideoEncoder,
};
use encoder_ffmpeg::{Ffmpeg, HostedEncoder};
use encoder_x264::{Mode, Tune, X264Options, spec};

fn encode(
    config: &EncoderConfig,
    tune: Option<Tune>,
    threads: usize,
    count: u64,
) -> Vec<EncodedChunk> {
    let ffmpeg = Ffmpeg::find(EncoderType::X264).expect("these tests need FFmpeg");
    let options = X264Options { tune, mode: Mode::Ffmpeg };
    let mut spec = spec(config, &options, threads).unwrap();
    // A bound that is too low blocks the encode, so this timeout is reached only if the test fails.
    spec.stall = Duration::from_secs(20);
    let max_delay = spec.max_delay as u64;
    let mut encoder = HostedEncoder::open(&ffmpeg, spec, config).unwrap();
    let layout = FrameLayout::new(config.pixel_format, config.resolution.unwrap());
    let pictures: Vec<_> = (0..8).map(|n| FrameBuffer::test_picture(layout, n)).collect();
    let mut chunks = Vec::new();
    for n in 0..count {
        let picture = &pictures[n as usize % pictures.len()];
        chunks.extend(encoder.encode_frame(&picture.frame(n)).unwrap());
        assert!(n + 1 - chunks.len() as u64 <= max_delay);
    }
    chunks.extend(encoder.flush().unwrap());
    chunks
}

#[test]
fn the_delay_is_never_longer_than_max_delay() {
    for preset in Preset::ALL {
        for (b_frames, threads, tune, gop_size) in [
            (0, 1, None, 250),
            (0, 4, Some(Tune::Film), 30),
            (2, 2, None, 250),
            (4, 16, Some(Tune::Animation), 600),
            // The rows of the picture limit the number of threads.
            (1, 12, None, 60),
            (3, 3, None, 1),
            (0, 4, Some(Tune::Zerolatency), 30),
        ] {
            let config = EncoderConfig {
                preset,
                b_frames,
                gop_size,
                resolution: Some(Resolution::new(64, if threads == 12 { 512 } else { 48 })),
                ..EncoderConfig::default()
            };
            let chunks = encode(&config, tune, threads, 130);
            assert_eq!(chunks.len(), 130, "{preset} {b_frames} {threads} {tune:?}");
        }
    }
}

#[test]
fn every_gop_starts_with_an_idr_picture_and_every_index_comes_once() {
    for (b_frames, format) in [(0, PixelFormat::Nv12), (3, PixelFormat::Yuv420p)] {
        let config = EncoderConfig {
            b_frames,
            gop_size: 7,
            pixel_format: format,
            resolution: Some(Resolution::new(131, 97)),
            ..EncoderConfig::default()
        };
        let chunks = encode(&config, None, 2, 30);
        let keys: Vec<_> = chunks.iter().filter(|c| c.keyframe).map(|c| c.pts).collect();
        assert_eq!(keys, [0, 7, 14, 21, 28]);
        assert!(chunks.iter().map(|c| c.dts).eq(0..30));
        let mut pts: Vec<_> = chunks.iter().map(|c| c.pts).collect();
        assert_eq!(pts.is_sorted(), b_frames == 0);
        pts.sort_unstable();
        assert!(pts.into_iter().eq(0..30));
    }
}

#[test]
fn the_probe_passes() {
    let all = encoder_core::backends();
    let backend = all.iter().find(|b| b.id == EncoderType::X264).unwrap();
    let settings = Settings::default();
    let request = OpenRequest::new(&settings, EncoderType::X264, 2);
    match backend.run_probe(&request, Duration::from_secs(60)) {
        ProbeResult::Usable(caps) => {
            assert!(caps.library.contains("x264"), "{caps:?}");
            // Only the format of the probe.
            assert_eq!(caps.pixel_formats, [PixelFormat::Yuv420p]);
        }
        ProbeResult::Refused(refusal) => panic!("{refusal}"),
    }
}
