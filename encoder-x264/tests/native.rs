//! libx264 in process against libx264 in FFmpeg.
#![cfg(feature = "native")]
#![allow(clippy::unwrap_used)]

use std::{
    io::Write,
    process::{Command, Stdio},
};

use encoder_core::{
    Backend, EncodedChunk, EncoderConfig, EncoderType, FrameBuffer, FrameLayout, NalKind,
    OpenRequest, PixelFormat, Preset, Resolution, Settings, backends, mean_absolute_difference,
    nal_units,
};
use encoder_ffmpeg::Ffmpeg;
use encoder_x264 as _;

const SIZE: Resolution = Resolution::new(322, 180);
const COUNT: u64 = 40;

fn backend() -> &'static Backend {
    backends().into_iter().find(|b| b.id == EncoderType::X264).unwrap()
}

fn pictures(format: PixelFormat) -> Vec<FrameBuffer> {
    let layout = FrameLayout::new(format, SIZE);
    (0..COUNT).map(|n| FrameBuffer::test_picture(layout, n)).collect()
}

fn encode(config: &EncoderConfig, mode: &str, idr_at: Option<u64>) -> Vec<EncodedChunk> {
    let options = format!("mode = \"{mode}\"").parse().unwrap();
    let backends = [("x264".to_owned(), options)].into();
    let settings = Settings { encoder: config.clone(), backend: backends, ..Settings::default() };
    let request = OpenRequest::new(&settings, EncoderType::X264, 2);
    let mut encoder = (backend().open)(&request).unwrap();
    let max_delay = (backend().max_delay)(&request);
    assert!(encoder.description().contains(if mode == "native" { "in process" } else { "ffmpeg" }));
    let mut chunks = Vec::new();
    for (n, picture) in (0..).zip(pictures(config.pixel_format)) {
        let frame = picture.frame(n);
        let frame = if idr_at == Some(n) { frame.with_idr() } else { frame };
        chunks.extend(encoder.encode_frame(&frame).unwrap());
        assert!(n + 1 - chunks.len() as u64 <= max_delay as u64);
    }
    chunks.extend(encoder.flush().unwrap());
    chunks
}

fn decoded_luma(chunks: &[EncodedChunk]) -> Vec<u8> {
    let stream: Vec<u8> = chunks.iter().flat_map(|c| c.data.iter().copied()).collect();
    let ffmpeg = Ffmpeg::find(EncoderType::X264).expect("these tests need FFmpeg");
    let mut child = Command::new(&ffmpeg.path)
        .args("-v error -f h264 -i pipe:0 -f rawvideo -pix_fmt yuv420p pipe:1".split(' '))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&stream).unwrap());
    let raw = child.wait_with_output().unwrap().stdout;
    writer.join().unwrap();
    let luma = (SIZE.width * SIZE.height) as usize;
    raw.chunks(luma * 3 / 2).flat_map(|frame| &frame[..luma]).copied().collect()
}

#[test]
fn both_modes_produce_nearly_the_same_stream() {
    for (format, b_frames) in [(PixelFormat::Yuv420p, 0), (PixelFormat::Nv12, 2)] {
        let config = EncoderConfig {
            preset: Preset::Fast,
            gop_size: 12,
            pixel_format: format,
            b_frames,
            resolution: Some(SIZE),
            ..EncoderConfig::default()
        };
        let sent: Vec<u8> = pictures(format)
            .iter()
            .flat_map(|p| p.frame(0).planes()[0].rows().flatten().copied().collect::<Vec<_>>())
            .collect();
        let [native, hosted] = ["native", "ffmpeg"].map(|mode| encode(&config, mode, None));
        let bytes = |chunks: &[EncodedChunk]| chunks.iter().map(|c| c.data.len()).sum::<usize>();
        let ratio = bytes(&native) as f64 / bytes(&hosted) as f64;
        assert!((0.9..1.1).contains(&ratio), "{ratio}");
        for chunks in [&native, &hosted] {
            assert_eq!(chunks.len() as u64, COUNT);
            assert!(chunks.iter().map(|c| c.dts).eq(0..COUNT));
            let keys: Vec<_> = chunks.iter().filter(|c| c.keyframe).map(|c| c.pts).collect();
            assert_eq!(keys, [0, 12, 24, 36]);
            for chunk in chunks {
                let units: Vec<_> = nal_units(&chunk.data).collect();
                // A start code of four bytes in front of every unit, and nothing else.
                let length: usize = units.iter().map(|unit| unit.len() + 4).sum();
                assert_eq!(length, chunk.data.len());
                let kinds: Vec<_> = units.iter().map(|unit| NalKind::of(unit[0])).collect();
                assert_eq!(kinds.contains(&NalKind::Sps), chunk.keyframe);
                assert_eq!(kinds.contains(&NalKind::Idr), chunk.keyframe);
            }
            let error = mean_absolute_difference(&decoded_luma(chunks), &sent);
            assert!(error < 3.5, "{error}");
        }
        assert!(native.iter().map(|c| c.pts).eq(hosted.iter().map(|c| c.pts)));
    }
}

#[test]
fn idr_pictures_can_be_forced() {
    let config = EncoderConfig {
        gop_size: 100,
        b_frames: 2,
        resolution: Some(SIZE),
        ..EncoderConfig::default()
    };
    let chunks = encode(&config, "native", Some(17));
    let keys: Vec<_> = chunks.iter().filter(|c| c.keyframe).map(|c| c.pts).collect();
    assert_eq!(keys, [0, 17]);
}

#[test]
fn the_probe_passes_and_faults_are_errors() {
    let settings = Settings::default();
    let request = OpenRequest::new(&settings, EncoderType::X264, 2);
    let result = backend().run_probe(&request, std::time::Duration::from_secs(10));
    assert!(result.is_usable(), "{result:?}");
    let config = EncoderConfig { resolution: Some(SIZE), ..EncoderConfig::default() };
    let request = request.with_config(&config);
    let mut encoder = (backend().open)(&request).unwrap();
    let other = FrameLayout::new(PixelFormat::Nv12, SIZE);
    assert!(encoder.encode_frame(&FrameBuffer::new(other).frame(0)).is_err());
    let mut encoder = (backend().open)(&request).unwrap();
    let right = FrameBuffer::new(FrameLayout::new(PixelFormat::Yuv420p, SIZE));
    encoder.encode_frame(&right.frame(5)).unwrap();
    assert!(encoder.encode_frame(&right.frame(7)).is_err());
    assert!(encoder.encode_frame(&right.frame(6)).is_err());
}
