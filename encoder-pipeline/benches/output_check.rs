//! What the check of a hardware encoder's pictures costs: `cargo bench -p encoder-pipeline --bench
//! output_check`. Sessions of 60 frames at 1080p with a device that returns access units made
//! before; below them the encode of the same frames, for comparison. `ENCODER_BENCH_FRAMES` names a
//! file of at least 60 raw frames (`yuv420p`, 1920x1080) to use in place of test pictures.

use std::sync::LazyLock;

use divan::{Bencher, counter::ItemsCount};
use encoder_core::{
    Backend, Caps, CheckOutput, EncodeError, EncodedChunk, EncoderConfig, EncoderType, Frame,
    FrameBuffer, FrameLayout, OpenRequest, PixelFormat, Plan, ProbeResult, Resolution, Settings,
    VideoEncoder, backend,
};
use encoder_pipeline::{
    mux::{AccessUnit, CallbackSink},
    session::{Session, SessionConfig},
    source::{Payload, RawImage},
    timeline::FrameTimes,
};

const DEVICE: EncoderType = EncoderType::new("device");
const SIZE: Resolution = Resolution::new(1920, 1080);
const FRAMES: u64 = 60;
const W: usize = SIZE.width as usize;
const H: usize = SIZE.height as usize;

encoder_core::inventory::submit! {
    Backend::new(DEVICE, |_| Ok(Box::new(Device(UNITS.iter()))))
        .hardware(true)
        .probe(|_, _| ProbeResult::Usable(Caps::default()))
}

static FRAME_BUFFERS: LazyLock<Vec<FrameBuffer>> = LazyLock::new(|| {
    let layout = FrameLayout::new(PixelFormat::Yuv420p, SIZE);
    let Some(path) = std::env::var_os("ENCODER_BENCH_FRAMES") else {
        return (0..FRAMES).map(|n| FrameBuffer::test_picture(layout, n)).collect();
    };
    let bytes = std::fs::read(path).expect("the frames can be read");
    let frame = |data: &[u8]| {
        let planes =
            [(&data[..W * H], W), (&data[W * H..], W / 2), (&data[W * H * 5 / 4..], W / 2)];
        let frame = Frame::from_planes(PixelFormat::Yuv420p, SIZE, &planes);
        let mut buffer = FrameBuffer::new(layout);
        buffer.copy_from(&frame.expect("the frame is whole"));
        buffer
    };
    bytes.chunks_exact(W * H * 3 / 2).take(FRAMES as usize).map(frame).collect()
});

static UNITS: LazyLock<Vec<EncodedChunk>> = LazyLock::new(encode);

/// Encodes the frames with OpenH264.
fn encode() -> Vec<EncodedChunk> {
    let settings = Settings {
        encoder: EncoderConfig { resolution: Some(SIZE), ..EncoderConfig::default() },
        ..Settings::default()
    };
    let request = OpenRequest::new(&settings, EncoderType::OPENH264, 1);
    let openh264 = backend(EncoderType::OPENH264).expect("it is compiled in");
    let mut encoder = openh264.open_encoder(&request).expect("it opens");
    let mut unit = |(n, frame): (u64, &FrameBuffer)| encoder.encode_frame(&frame.frame(n));
    (0..).zip(FRAME_BUFFERS.iter()).filter_map(|frame| unit(frame).expect("it encodes")).collect()
}

struct Device(std::slice::Iter<'static, EncodedChunk>);

impl VideoEncoder for Device {
    fn encode_frame(&mut self, _: &Frame<'_>) -> Result<Option<EncodedChunk>, EncodeError> {
        Ok(self.0.next().cloned())
    }

    fn flush(&mut self) -> Result<Vec<EncodedChunk>, EncodeError> {
        Ok(Vec::new())
    }

    fn encoder_type(&self) -> EncoderType {
        DEVICE
    }

    fn description(&self) -> String {
        "made before".into()
    }

    fn pixel_format(&self) -> PixelFormat {
        PixelFormat::Yuv420p
    }
}

fn main() {
    divan::main();
}

#[divan::bench(args = ["off", "key", "all"])]
fn session(bencher: Bencher<'_, '_>, check: &str) {
    let pictures: Vec<_> = FRAME_BUFFERS
        .iter()
        .map(|frame| {
            let mut data = Vec::new();
            frame.frame(0).append_packed(&mut data);
            let (width, height) = (SIZE.width, SIZE.height);
            let encoding = "i420".into();
            let (step, is_bigendian) = (0, false);
            Payload::Raw(RawImage {
                encoding,
                width,
                height,
                step,
                is_bigendian,
                data: data.into(),
            })
        })
        .collect();
    let mut settings = Settings::default();
    settings.gpu.check_output = match check {
        "off" => CheckOutput::Off,
        "key" => CheckOutput::Key,
        _ => CheckOutput::All,
    };
    let config = SessionConfig::new(settings, Plan::new(vec![DEVICE], vec![]));
    bencher.counter(ItemsCount::new(FRAMES)).bench(|| {
        let sink = Box::new(CallbackSink(|_: AccessUnit| {}));
        let mut session = Session::open(SIZE, &config, sink).expect("it opens");
        for (n, picture) in (0..).zip(&pictures) {
            session.push(picture, FrameTimes::at(n * 33_333_333)).expect("it takes frames");
        }
        let report = session.finish().expect("it ends");
        let checked = [("off", 0), ("key", 2), ("all", FRAMES)];
        assert!(checked.contains(&(check, report.frames_checked)), "{check} {report:?}");
    });
}

#[divan::bench(sample_count = 5)]
fn encode_alone(bencher: Bencher<'_, '_>) {
    bencher.counter(ItemsCount::new(FRAMES)).bench(encode);
}
