#![allow(clippy::unwrap_used)]

use encoder_core::{FrameBuffer, FrameLayout};

use super::*;

#[test]
fn planes_are_written_without_their_padding() {
    for (width, pieces) in [(640, 1), (642, 360)] {
        let layout = FrameLayout::new(PixelFormat::Yuv420p, Resolution::new(width, 360));
        let picture = FrameBuffer::test_picture(layout, 2);
        let frame = picture.frame(0);
        assert_eq!(runs(&frame.planes()[0]).len(), pieces);
        let mut packed = Vec::new();
        frame.append_packed(&mut packed);
        assert_eq!(frame.planes().iter().flat_map(runs).collect::<Vec<_>>().concat(), packed);
    }
}

/// FFmpeg reports an error that the encoder survives, and much later has no output for longer than
/// [`AFTER_ERROR`]: its input is not closed.
#[cfg(unix)]
#[test]
fn an_error_that_was_survived_does_not_end_the_stream() {
    use encoder_testbed::scripted::{Script, Step};

    const COUNT: u64 = 40;
    let size = Resolution::new(64, 64);
    let picture = FrameBuffer::test_picture(FrameLayout::new(PixelFormat::Yuv420p, size), 0);
    let frame_bytes = 64 * 64 * 3 / 2;

    let stream = encoder_testbed::flv::stream(COUNT as u32, 20);
    let (head, units) = stream.split_at(48);
    let mut units = units.chunks(44).map(<[u8]>::to_vec);
    let mut steps =
        vec![Step::Write([head.to_vec(), units.next().unwrap()].concat()), Step::Take(frame_bytes)];
    steps.push(Step::say("[h264_nvenc @ 0x5] [error] an error that does no harm"));
    for (n, unit) in (1..COUNT).zip(units) {
        steps.push(Step::Take(frame_bytes));
        if n == 30 {
            steps.push(Step::Wait(AFTER_ERROR + AFTER_ERROR / 2));
        }
        steps.push(Step::Write(unit));
    }
    let scripted = Script::new().encoding(steps).lay_down().unwrap();
    let ffmpeg = Ffmpeg::at(scripted.path(), EncoderType::NVENC, Duration::from_secs(60)).unwrap();
    let config = EncoderConfig {
        resolution: Some(size),
        // At this rate the scripted times are exact.
        frame_rate: "1000/33".parse().unwrap(),
        ..EncoderConfig::default()
    };
    let mut spec = FfmpegSpec::new(EncoderType::NVENC, "h264_nvenc", &config);
    spec.max_delay = 2;
    let mut encoder = HostedEncoder::open(&ffmpeg, spec, &config).unwrap();
    let mut chunks = Vec::new();
    for n in 0..COUNT {
        if n == 10 {
            encoder_testbed::process::until("the error is read", || encoder.log.errors() == 1);
        }
        chunks.extend(encoder.encode_frame(&picture.frame(n)).unwrap());
    }
    assert!(!encoder.errors.may_have_stopped(encoder.log.errors()));
    chunks.extend(encoder.flush().unwrap());
    assert!(chunks.iter().map(|chunk| chunk.pts).eq(0..COUNT));
}
