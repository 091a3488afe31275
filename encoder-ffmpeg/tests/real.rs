//! Hosted encoders and probes in a real FFmpeg. It needs libx264: set ENCODER_FFMPEG or put it on
//! the PATH.
#![allow(clippy::unwrap_used)]

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use encoder_core::{
    EncodeError, EncodedChunk, EncoderConfig, EncoderType, FrameBuffer, FrameLayout, PixelFormat,
    ProbeResult, RefusalKind, Resolution, VideoEncoder,
};
use encoder_ffmpeg::{Feature, Ffmpeg, FfmpegSpec, HostedEncoder, test_encode_with};

fn ffmpeg() -> Arc<Ffmpeg> {
    Ffmpeg::find(EncoderType::X264).expect(
        "these tests need FFmpeg 4.4 or later with libx264: apt install ffmpeg, or set \
                 ENCODER_FFMPEG to its path",
    )
}

fn config(format: PixelFormat, width: u32, height: u32) -> EncoderConfig {
    EncoderConfig {
        pixel_format: format,
        resolution: Some(Resolution::new(width, height)),
        ..EncoderConfig::default()
    }
}

fn spec(config: &EncoderConfig, options: &str) -> FfmpegSpec {
    let mut spec = FfmpegSpec::new(EncoderType::X264, "libx264", config).with_options(options);
    spec.max_delay = 24;
    spec
}

fn pictures(config: &EncoderConfig, count: u64) -> Vec<FrameBuffer> {
    let layout = FrameLayout::new(config.pixel_format, config.resolution.unwrap());
    (0..count).map(|n| FrameBuffer::test_picture(layout, n)).collect()
}

fn encode(
    config: &EncoderConfig,
    options: &str,
    pictures: &[FrameBuffer],
    base: u64,
) -> Vec<EncodedChunk> {
    let mut encoder = HostedEncoder::open(&ffmpeg(), spec(config, options), config).unwrap();
    let mut chunks = Vec::new();
    for (n, picture) in (base..).zip(pictures) {
        chunks.extend(encoder.encode_frame(&picture.frame(n)).unwrap());
    }
    chunks.extend(encoder.flush().unwrap());
    assert!(encoder.flush().unwrap().is_empty());
    chunks
}

/// The pictures that FFmpeg decodes, packed, and its log.
fn decode(path: &Path, stream: &[u8], format: PixelFormat) -> (Vec<u8>, String) {
    let mut child = Command::new(path)
        .args("-hide_banner -loglevel verbose -f h264 -i pipe:0 -f rawvideo -pix_fmt".split(' '))
        .args([format.as_str(), "pipe:1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let stream = stream.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&stream).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    (output.stdout, String::from_utf8_lossy(&output.stderr).into_owned())
}

fn joined(chunks: &[EncodedChunk]) -> Vec<u8> {
    chunks.iter().flat_map(|c| c.data.iter().copied()).collect()
}

/// Lossless, so that a conversion, a skewed row or a lost frame is detected.
#[test]
fn decoding_restores_every_sample_and_the_stream_has_colour_tags() {
    for (format, width, height, b_frames) in [
        (PixelFormat::Yuv420p, 640, 360, 0),
        (PixelFormat::Nv12, 424, 240, 2),
        (PixelFormat::Yuv420p, 131, 97, 3),
        (PixelFormat::Nv12, 16, 16, 0),
    ] {
        let config = config(format, width, height);
        let pictures = pictures(&config, 50);
        let options =
            format!("-preset veryfast -qp 0 -g 20 -sc_threshold 0 -bf {b_frames} -threads 2");
        let chunks = encode(&config, &options, &pictures, 1000);
        assert_eq!(chunks.len(), 50);
        assert!(chunks.iter().map(|c| c.dts).eq(0..50));
        let keys: Vec<_> = chunks.iter().filter(|c| c.keyframe).map(|c| c.pts).collect();
        assert_eq!(keys, [1000, 1020, 1040]);
        let (raw, log) = decode(&ffmpeg().path, &joined(&chunks), format);
        let mut sent = Vec::new();
        for picture in &pictures {
            picture.frame(0).append_packed(&mut sent);
        }
        assert!(raw == sent, "{format} {width}x{height}: samples differ");
        assert!(log.contains("(tv, smpte170m/bt709/iec61966-2-1"), "{log}");
    }
}

#[test]
fn rates_from_slow_to_fast_keep_their_indices() {
    for rate in ["1/1000", "0.5", "29.97", "240", "480"] {
        let mut config = config(PixelFormat::Yuv420p, 64, 64);
        config.frame_rate = rate.parse().unwrap();
        let options = "-preset ultrafast -g 9 -bf 2 -threads 1";
        let chunks = encode(&config, options, &pictures(&config, 100), 0);
        let mut pts: Vec<_> = chunks.iter().map(|c| c.pts).collect();
        assert!(!pts.is_sorted(), "{rate}: there should be B-frames");
        pts.sort_unstable();
        assert!(pts.into_iter().eq(0..100), "{rate}");
    }
}

#[test]
fn probes_of_encoders_that_work_and_that_do_not() {
    let config = EncoderConfig::default();
    let ten = Duration::from_secs(10);
    match test_encode_with(&ffmpeg(), &spec(&config, "-preset veryfast -crf 23"), &[], ten) {
        ProbeResult::Usable(caps) => {
            assert_eq!(caps.library, format!("{} libx264", ffmpeg().label()));
        }
        ProbeResult::Refused(refusal) => panic!("{refusal}"),
    }
    let table = [
        ("libx264", "-preset warp", RefusalKind::Failed),
        ("libx264", "-no_such_option 3", RefusalKind::Failed),
        // FFmpeg ignores an option of another encoder.
        ("libx264", "-cq 20", RefusalKind::Failed),
        ("libx264", "-crf 51 -vf negate", RefusalKind::WrongOutput),
        ("libx264", "-vf trim=end_frame=3", RefusalKind::WrongOutput),
        ("mpeg4", "", RefusalKind::Failed),
        ("no_such_encoder", "", RefusalKind::NotBuilt),
    ];
    for (encoder, options, kind) in table {
        let mut spec = spec(&config, options);
        spec.encoder = encoder;
        match test_encode_with(&ffmpeg(), &spec, &[], ten) {
            ProbeResult::Refused(refusal) => {
                assert_eq!(refusal.kind, kind, "{encoder} {options}: {refusal}");
            }
            ProbeResult::Usable(_) => panic!("{encoder} {options} should be refused"),
        }
    }
}

#[test]
fn probes_run_inside_async_code() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = EncoderConfig::default();
    let result = runtime.block_on(async {
        test_encode_with(
            &ffmpeg(),
            &spec(&config, "-preset ultrafast"),
            &[],
            Duration::from_secs(10),
        )
    });
    assert!(result.is_usable(), "{result:?}");
}

#[test]
fn ignored_options_and_lost_frames_are_errors() {
    let config = config(PixelFormat::Yuv420p, 64, 64);
    for (options, expected) in
        [("-cq 20", "ignored an option"), ("-vf trim=end_frame=3", "5 frames went in, 3 came out")]
    {
        let mut encoder = HostedEncoder::open(&ffmpeg(), spec(&config, options), &config).unwrap();
        for (n, picture) in (0..).zip(pictures(&config, 5)) {
            encoder.encode_frame(&picture.frame(n)).unwrap();
        }
        let error = encoder.flush().unwrap_err().to_string();
        assert!(error.contains(expected), "{options}: {error}");
        assert!(encoder.flush().is_err());
    }
}

#[test]
fn wrong_frames_are_refused() {
    let config = config(PixelFormat::Yuv420p, 64, 64);
    let open = || HostedEncoder::open(&ffmpeg(), spec(&config, "-g 30"), &config).unwrap();
    let picture = &pictures(&config, 1)[0];
    let other = FrameBuffer::new(FrameLayout::new(PixelFormat::Nv12, Resolution::new(64, 64)));
    let mut encoder = open();
    let error = encoder.encode_frame(&other.frame(0)).unwrap_err();
    assert!(matches!(error, EncodeError::Mismatch { .. }), "{error}");
    // The first frame and GOP boundaries are IDR pictures anyway.
    encoder.encode_frame(&picture.frame(0).with_idr()).unwrap();
    let error = encoder.encode_frame(&picture.frame(1).with_idr()).unwrap_err().to_string();
    assert!(error.contains("ask at multiples of gop_size = 30"), "{error}");
    assert!(encoder.encode_frame(&picture.frame(1)).is_err());
    let mut encoder = open();
    encoder.encode_frame(&picture.frame(0)).unwrap();
    let error = encoder.encode_frame(&picture.frame(2)).unwrap_err().to_string();
    assert!(error.contains("got frame 2 instead of frame 1"), "{error}");
    // A stream without frames is no error.
    assert!(open().flush().unwrap().is_empty());
}

#[test]
fn dropping_leaves_no_child_and_another_thread_may_open() {
    let config = config(PixelFormat::Yuv420p, 640, 360);
    // The thread that opens ends first; the child must continue.
    let opened = config.clone();
    let mut encoder = std::thread::spawn(move || {
        HostedEncoder::open(&ffmpeg(), spec(&opened, "-preset ultrafast"), &opened).unwrap()
    })
    .join()
    .unwrap();
    for (n, picture) in (0..).zip(pictures(&config, 30)) {
        encoder.encode_frame(&picture.frame(n)).unwrap();
    }
    let id = encoder.child_id();
    drop(encoder);
    #[cfg(target_os = "linux")]
    assert!(!Path::new(&format!("/proc/{id}")).exists(), "child {id} is still there");
    let _ = id;
}

#[test]
fn b_frames_are_probed_by_access_units_out_of_order() {
    let config = config(PixelFormat::Nv12, 64, 64);
    for (options, expected) in [("-bf 2 -b_strategy 0", true), ("-bf 0", false)] {
        let spec = spec(&config, options);
        let feature = Feature { name: "b-frames", spec: spec.clone().reordering(), exact: false };
        let result = test_encode_with(&ffmpeg(), &spec, &[feature], Duration::from_secs(60));
        let ProbeResult::Usable(caps) = result else { panic!("{options}: {result:?}") };
        assert_eq!(caps.features.contains(&"b-frames".into()), expected, "{options}");
    }
}

/// As with drivers of VA-API that report no parameter sets to FFmpeg.
#[test]
fn parameter_sets_may_be_in_the_access_units_alone() {
    let config = config(PixelFormat::Nv12, 64, 64);
    let mut spec = spec(&config, "-flags:v -global_header -bsf:v extract_extradata");
    spec.filter = Some("format=nv12");
    spec.probe_size = Resolution::new(320, 240);
    let result = test_encode_with(&ffmpeg(), &spec, &[], Duration::from_secs(60));
    assert!(result.is_usable(), "{result:?}");
}
