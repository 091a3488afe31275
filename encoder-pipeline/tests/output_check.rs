//! Pictures of a hardware encoder are checked while it encodes. The encoder here is OpenH264 in
//! the place of a device, with wrong pictures at a chosen frame.
#![allow(clippy::unwrap_used)]

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering::SeqCst},
};

use encoder_core::{
    Backend, Caps, CheckOutput, EncodeError, EncodedChunk, EncoderType, Frame, FrameBuffer,
    FrameLayout, OpenError, OpenRequest, PixelFormat, Plan, ProbeResult, RateControl, Resolution,
    Settings, VideoEncoder, backend,
};
use encoder_pipeline::{
    mux::{Mp4Options, Mp4Sink},
    session::{Session, SessionConfig, SessionError, VideoReport},
    source::{Payload, RawImage},
    timeline::FrameTimes,
};
use encoder_testbed::fixtures::{EPOCH, MS, decode::decode, picture::Picture};

const GPU: EncoderType = EncoderType::new("gpu");
const SIZE: Resolution = Resolution::new(160, 120);
const GOP: u64 = 10;
const FRAMES: usize = 45;

encoder_core::inventory::submit! {
    Backend::new(GPU, Gpu::open)
        .rank(|_| 1)
        .hardware(true)
        .check_options(|_| Ok(()))
        .probe(|_, _| ProbeResult::Usable(Caps::default()))
}

/// Encoders that were opened for the test `run`; at most one test uses a number.
static OPENED: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];

struct Gpu {
    inner: Box<dyn VideoEncoder>,
    fault: String,
    /// The frame of the fault.
    at: u64,
    previous: FrameBuffer,
}

impl Gpu {
    fn open(request: &OpenRequest<'_>) -> Result<Box<dyn VideoEncoder>, OpenError> {
        let number = |key| request.options.get(key).and_then(toml::Value::as_integer);
        let text = |key| request.options.get(key).and_then(toml::Value::as_str);
        let opened = OPENED[number("run").unwrap_or_default() as usize].fetch_add(1, SeqCst);
        let is_faulty = number("openings").is_none_or(|most| opened < most as u64);
        let inner = backend(EncoderType::OPENH264).unwrap();
        let none = Default::default();
        Ok(Box::new(Self {
            inner: inner.open_encoder(&request.clone().with_options(&none))?,
            fault: text("fault").filter(|_| is_faulty).unwrap_or_default().into(),
            at: number("frame").unwrap_or_default() as u64,
            previous: FrameBuffer::new(FrameLayout::new(PixelFormat::Yuv420p, SIZE)),
        }))
    }
}

impl VideoEncoder for Gpu {
    fn encode_frame(&mut self, frame: &Frame<'_>) -> Result<Option<EncodedChunk>, EncodeError> {
        let fault = if frame.index == self.at { self.fault.as_str() } else { "" };
        let mut black = FrameBuffer::new(FrameLayout::new(PixelFormat::Yuv420p, SIZE));
        let coded = match fault {
            "black" => self.inner.encode_frame(&black.frame(frame.index)),
            "stale" => self.inner.encode_frame(&self.previous.frame(frame.index)),
            _ => self.inner.encode_frame(frame),
        };
        black.copy_from(frame);
        self.previous = black;
        let damage = |mut chunk: EncodedChunk| {
            let data = &mut chunk.data;
            match fault {
                "garbage" => data.iter_mut().skip(60).for_each(|byte| *byte = byte.rotate_left(3)),
                "cut" => data.truncate(data.len() / 2),
                "empty" => data.clear(),
                _ => {}
            }
            chunk
        };
        coded.map(|chunk| chunk.map(damage))
    }

    fn flush(&mut self) -> Result<Vec<EncodedChunk>, EncodeError> {
        self.inner.flush()
    }

    fn encoder_type(&self) -> EncoderType {
        GPU
    }

    fn description(&self) -> String {
        "a test".into()
    }

    fn pixel_format(&self) -> PixelFormat {
        PixelFormat::Yuv420p
    }

    fn max_delay(&self) -> usize {
        0
    }
}

fn config(check: CheckOutput, order: &[EncoderType], options: &str) -> SessionConfig {
    let mut settings = Settings::default();
    settings.encoder.gop_size = GOP as u32;
    settings.gpu.check_output = check;
    settings.backend.insert(GPU.as_str().into(), options.parse().unwrap());
    SessionConfig::new(settings, Plan::new(order.to_vec(), vec![]))
}

fn encode(
    config: &SessionConfig,
    file: &Path,
    picture: impl Fn(usize) -> Payload,
) -> Result<VideoReport, SessionError> {
    let sink = Mp4Sink::create(file, &Mp4Options::default()).unwrap();
    let mut session = Session::open(SIZE, config, Box::new(sink))?;
    for n in 0..FRAMES {
        if session.push(&picture(n), FrameTimes::at(EPOCH + n as i64 * 40 * MS)).is_err() {
            break;
        }
    }
    session.finish()
}

fn raw(encoding: &str, step: u32, data: Vec<u8>) -> Payload {
    let (encoding, data) = (encoding.into(), data.into());
    let Resolution { width, height } = SIZE;
    Payload::Raw(RawImage { encoding, width, height, step, is_bigendian: false, data })
}

fn stamped(n: usize) -> Payload {
    let (data, step) = Picture::stamped(160, 120, n).raw("bgr8", 0);
    raw("bgr8", step, data)
}

const BOTH: [EncoderType; 2] = [GPU, EncoderType::OPENH264];

#[test]
fn right_pictures_are_counted_and_nothing_else_happens() {
    let directory = tempfile::tempdir().unwrap();
    for (check, checked) in
        [(CheckOutput::Off, 0), (CheckOutput::Key, 5), (CheckOutput::All, FRAMES as u64)]
    {
        let file = directory.path().join(format!("{check:?}.mp4"));
        let report = encode(&config(check, &BOTH, ""), &file, stamped).unwrap();
        assert_eq!(report.frames_checked, checked, "{check:?}");
        assert_eq!(report.failovers, []);
        assert_eq!(report.warnings, Vec::<String>::new());
        assert_eq!(report.encoder, GPU);
    }
}

#[test]
fn software_is_not_checked() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(CheckOutput::All, &[EncoderType::OPENH264], "");
    let report = encode(&config, &directory.path().join("a.mp4"), stamped).unwrap();
    assert_eq!(report.frames_checked, 0);
}

#[test]
fn a_wrong_picture_is_encoded_again_by_the_next_encoder() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.mp4");
    for fault in ["black", "stale", "garbage", "cut", "empty"] {
        for (check, frame) in [
            (CheckOutput::Key, 0),
            (CheckOutput::Key, 20),
            (CheckOutput::All, 20),
            (CheckOutput::All, 27),
        ] {
            if frame == 0 && fault == "stale" {
                continue;
            }
            let options = format!("fault = \"{fault}\"\nframe = {frame}");
            let report = encode(&config(check, &BOTH, &options), &file, stamped).unwrap();
            let case = format!("{fault} at {frame}, {check:?}: {report:?}");
            assert_eq!(report.failovers.len(), 1, "{case}");
            let failover = &report.failovers[0];
            assert_eq!((failover.from, failover.to), (GPU, EncoderType::OPENH264), "{case}");
            assert_eq!(failover.cause, "wrong-picture", "{case}");
            // A picture comes with the next access unit. If that does not decode, the picture is
            // not checked either.
            let late = u64::from(check == CheckOutput::All && frame > 0);
            assert!((frame - late..=frame).contains(&failover.frame), "{case}");
            assert!(failover.reason.contains(&format!("the picture of frame {frame} is wrong")));
            let unchecked = check == CheckOutput::Key && frame > 0;
            assert_eq!(report.warnings.len(), usize::from(unchecked), "{case}");
            if unchecked {
                assert!(report.warnings[0].contains("frames 11 to 19"), "{case}");
            }
            let numbers: Vec<_> = (0..FRAMES).map(Some).collect();
            assert_eq!(decode(&file).numbers(), numbers, "{case}");
            std::fs::remove_file(&file).unwrap();
        }
    }
}

#[test]
fn the_only_encoder_is_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.mp4");
    let options = "fault = \"black\"\nframe = 20\nrun = 1\nopenings = 1";
    let report = encode(&config(CheckOutput::Key, &[GPU], options), &file, stamped).unwrap();
    assert_eq!((report.failovers.len(), report.failovers[0].to), (1, GPU));
    assert_eq!(decode(&file).numbers(), (0..FRAMES).map(Some).collect::<Vec<_>>());

    std::fs::remove_file(&file).unwrap();
    // Wrong each time: no video is better than a wrong one.
    let options = "fault = \"black\"\nframe = 20";
    let failed = encode(&config(CheckOutput::Key, &[GPU], options), &file, stamped);
    let text = failed.unwrap_err().to_string();
    assert!(text.contains("the picture of frame 20 is wrong"), "{text}");
}

fn noise(n: usize, x: usize, y: usize) -> u8 {
    ((n * 7919 + y * 160 + x).wrapping_mul(2_654_435_761) >> 13) as u8
}

/// Pictures that are hard to encode, at the lowest and the usual quality: no right picture may
/// count as wrong.
#[test]
fn right_pictures_of_bad_quality_are_right() {
    type Level = fn(usize, usize, usize) -> u8;
    let scenes: [(&str, Level); 8] = [
        ("noise", noise),
        ("dim noise", |n, x, y| 60 + noise(n, x, y) % 24),
        ("fade", |n, x, _| (n * 3 + x / 40) as u8),
        ("flash", |n, x, y| if n % 7 == 0 { 250 } else { (x + y) as u8 / 2 }),
        ("pan", |n, x, y| (((x + n * 5) / 11 + y / 9) % 7 * 36) as u8),
        ("shake", |n, x, y| (((x + n * 37 % 23) / 11 + (y + n * 13 % 7) / 9) % 7 * 36) as u8),
        ("stripes", |n, x, _| if (x + n) % 2 == 0 { 0 } else { 255 }),
        ("night", |n, x, y| ((x * y + n * 11) % 97 == 0) as u8 * 90),
    ];
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.mp4");
    for (name, level) in scenes {
        for crf in [51, 35, 23, 10] {
            let mut config = config(CheckOutput::All, &BOTH, "");
            config.settings.encoder.rate_control = RateControl::Crf(crf);
            let picture = |n| {
                let pixels = (0..120).flat_map(|y| (0..160).map(move |x| (x, y)));
                raw("mono8", 160, pixels.map(|(x, y)| level(n, x, y)).collect())
            };
            let report = encode(&config, &file, picture)
                .unwrap_or_else(|error| panic!("{name}, crf {crf}: {error}"));
            assert_eq!(report.failovers, [], "{name}, crf {crf}");
            assert_eq!(report.frames_checked, FRAMES as u64);
            std::fs::remove_file(&file).unwrap();
        }
    }
}
