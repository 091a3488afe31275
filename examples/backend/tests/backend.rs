//! The backend, as a program uses it: through the registry, and decoded by FFmpeg.
#![allow(clippy::unwrap_used)]

use std::{
    io::Write,
    process::{Command, Stdio},
};

use encoder_core::{
    Detection, EncodedChunk, FrameBuffer, FrameLayout, OpenRequest, PixelFormat, Policy,
    ProbeResult, Resolution, Settings, backend, backends, plan, testing::Outcome,
};
use encoder_ipcm::IPCM;
// Decodes the pictures.
use encoder_openh264 as _;
use encoder_pipeline::{
    mux::{Mp4Options, Mp4Sink},
    session::{Session, SessionConfig},
    source::{Payload, RawImage},
    timeline::FrameTimes,
};

/// Decodes with FFmpeg to planar pictures, without scaling and without a change of colours.
fn decode(input: &str, stream: &[u8]) -> Vec<u8> {
    let program = std::env::var("ENCODER_FFMPEG").unwrap_or_else(|_| "ffmpeg".into());
    let mut command = Command::new(&program);
    command.args(["-v", "warning"]);
    command.args(input.split(' '));
    command.args(["-f", "rawvideo", "-pix_fmt", "yuv420p", "pipe:1"]);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("this test needs FFmpeg: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(stream).unwrap());
        child.wait_with_output().unwrap()
    });
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && words.is_empty(), "{words}");
    output.stdout
}

#[test]
fn it_keeps_every_rule() {
    let report = encoder_core::testing::check(&encoder_ipcm::BACKEND);
    let passed = Outcome::Passed(String::new());
    assert!(report.results.iter().all(|result| result.outcome == passed), "{report}");
}

#[test]
fn it_registers_itself_and_its_probe_passes() {
    // With the whole workspace, the backends of its other crates are linked too.
    assert_eq!(backends().iter().filter(|backend| backend.id == IPCM).count(), 1);
    let place = backend(IPCM).unwrap().registered_at();
    assert!(place.file().ends_with("backend/src/lib.rs"), "{place}");
    let found = Detection::new(&Settings::default()).run().unwrap();
    let found = found.iter().find(|detected| detected.encoder == IPCM).unwrap();
    let ProbeResult::Usable(caps) = &found.result else { panic!("{found:?}") };
    assert_eq!(caps.library, "encoder-ipcm 0.1.0");
    assert_eq!(caps.pixel_formats, [PixelFormat::Yuv420p]);
}

#[test]
fn every_sample_comes_back_in_every_size() {
    for (width, height) in [(64, 48), (322, 178), (16, 16), (2, 2), (640, 18)] {
        let size = Resolution::new(width, height);
        let mut settings = Settings::default();
        settings.encoder.resolution = Some(size);
        settings.encoder.gop_size = 4;
        let request = OpenRequest::new(&settings, IPCM, 1);
        let mut encoder = backend(IPCM).unwrap().open_encoder(&request).unwrap();
        let layout = FrameLayout::new(encoder.pixel_format(), size);
        let (mut sent, mut chunks) = (Vec::new(), Vec::<EncodedChunk>::new());
        for n in 0..23 {
            let mut picture = FrameBuffer::test_picture(layout, n);
            if n == 3 {
                // Zeros look like start codes.
                picture.memory_mut().fill(0);
            }
            let frame = picture.frame(n);
            frame.append_packed(&mut sent);
            let frame = if n == 10 { frame.with_idr() } else { frame };
            chunks.extend(encoder.encode_frame(&frame).unwrap());
        }
        chunks.extend(encoder.flush().unwrap());
        let keys: Vec<_> = chunks.iter().filter(|chunk| chunk.keyframe).map(|c| c.pts).collect();
        // A forced key frame restarts the GOP.
        assert_eq!(keys, [0, 4, 8, 10, 14, 18, 22]);
        let stream: Vec<u8> = chunks.into_iter().flat_map(|chunk| chunk.data).collect();
        assert!(decode("-f h264 -i pipe:0", &stream) == sent, "{size}");
    }
}

#[test]
fn a_size_beyond_the_largest_level_is_refused() {
    let mut settings = Settings::default();
    for (width, height, good) in [
        (8192, 4352, true),
        (8192, 4354, false),
        (16384, 64, true),
        (16, 16384, true),
        (16384, 16384, false),
    ] {
        settings.encoder.resolution = Some(Resolution::new(width, height));
        let request = OpenRequest::new(&settings, IPCM, 1);
        let opened = backend(IPCM).unwrap().open_encoder(&request);
        assert_eq!(opened.is_ok(), good, "{width}x{height}");
        if let Err(error) = opened {
            let expected = "too large; hint: use another encoder";
            assert!(error.to_string().ends_with(expected), "{error}");
        }
    }
}

#[test]
fn a_session_makes_a_video_with_it() {
    let settings = Settings::default();
    let found = Detection::new(&settings).run().unwrap();
    let plan = plan(&Policy::new(&settings.gpu, Some("ipcm")), &found).unwrap();
    let config = SessionConfig::new(settings, plan);
    let folder = std::env::temp_dir().join(format!("encoder-ipcm-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("a.mp4");
    let options = Mp4Options::new(config.timing, &config.settings.encoder);
    let sink = Box::new(Mp4Sink::create(&path, &options).unwrap());
    let mut session = Session::open(Resolution::new(64, 48), &config, sink).unwrap();
    for n in 0..50u8 {
        let data = vec![n * 5; 64 * 48].into();
        let (encoding, width, height, step) = ("mono8".into(), 64, 48, 64);
        let image = RawImage { encoding, width, height, step, is_bigendian: false, data };
        session.push(&Payload::Raw(image), FrameTimes::at(i64::from(n) * 40_000_000)).unwrap();
    }
    let report = session.finish().unwrap();
    assert_eq!((report.encoder, report.frames_encoded), (IPCM, 50));
    let decoded = decode(&format!("-i {}", path.display()), &[]);
    std::fs::remove_dir_all(&folder).unwrap();
    let shades: Vec<u8> = decoded.chunks(64 * 48 * 3 / 2).map(|picture| picture[0]).collect();
    assert_eq!(shades.len(), 50);
    assert!(shades.is_sorted() && shades[0] == 16 && shades[49] > 220, "{shades:?}");
}
