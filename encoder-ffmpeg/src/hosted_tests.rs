#![allow(clippy::unwrap_used)]

use std::time::Instant;

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

#[test]
fn a_spec_with_another_delay_than_its_backend_is_refused() {
    let mut settings = encoder_core::Settings::default();
    settings.encoder.resolution = Some(Resolution::new(64, 64));
    settings.ffmpeg.path = Some("/nowhere/ffmpeg".into());
    let mut request = OpenRequest::new(&settings, EncoderType::X264, 1);
    // declared by the backend | by the spec | the reason of the refusal
    for (declared, of_spec, reason) in [
        (Some(3), 2, "keeps 3 frames, its FfmpegSpec 2"),
        (Some(2), 3, "keeps 2 frames, its FfmpegSpec 3"),
        (Some(2), 2, "/nowhere/ffmpeg"),
        (None, 2, "/nowhere/ffmpeg"),
    ] {
        let mut spec = FfmpegSpec::new(EncoderType::X264, "libx264", &settings.encoder);
        (spec.max_delay, request.max_delay) = (of_spec, declared);
        let Err(OpenError::Refused(refusal)) = open(spec, &request) else { panic!() };
        assert!(refusal.reason.contains(reason), "{refusal}");
    }
}

#[cfg(unix)]
mod scripted {
    use encoder_core::Waiter;
    use encoder_testbed::scripted::{Script, Scripted, Step};

    use super::*;

    const COUNT: u64 = 40;
    const SIZE: Resolution = Resolution::new(64, 64);
    const FRAME_BYTES: u64 = 64 * 64 * 3 / 2;
    /// Longer than any test takes.
    const LONG: Duration = Duration::from_secs(600);

    /// An encoder in an FFmpeg that follows this script.
    fn open(steps: Vec<Step>, limit: Duration, waiter: &Waiter) -> (HostedEncoder, Scripted) {
        let scripted = Script::new().encoding(steps).lay_down().unwrap();
        let ffmpeg =
            Ffmpeg::at(scripted.path(), EncoderType::NVENC, Duration::from_secs(60)).unwrap();
        let config = EncoderConfig {
            resolution: Some(SIZE),
            // At this rate the scripted times are exact.
            frame_rate: "1000/33".parse().unwrap(),
            ..EncoderConfig::default()
        };
        let mut spec = FfmpegSpec::new(EncoderType::NVENC, "h264_nvenc", &config);
        spec.max_delay = 2;
        (spec.start, spec.stall, spec.waiter) = (limit, limit, waiter.clone());
        (HostedEncoder::open(&ffmpeg, spec, &config).unwrap(), scripted)
    }

    /// Encodes frames until all are encoded or the encoder fails.
    fn encode(encoder: &mut HostedEncoder) -> Result<Vec<EncodedChunk>, EncodeError> {
        let picture = FrameBuffer::test_picture(FrameLayout::new(PixelFormat::Yuv420p, SIZE), 0);
        let mut chunks = Vec::new();
        for n in 0..COUNT {
            chunks.extend(encoder.encode_frame(&picture.frame(n))?);
        }
        chunks.extend(encoder.flush()?);
        Ok(chunks)
    }

    /// The steps of an FFmpeg that takes and returns this many frames.
    fn encoding(frames: u64) -> Vec<Step> {
        let stream = encoder_testbed::flv::stream(COUNT as u32, 20);
        let (head, units) = stream.split_at(48);
        let mut steps = vec![Step::Take(FRAME_BYTES), Step::Write(head.to_vec())];
        for (n, unit) in (0..frames).zip(units.chunks(44)) {
            steps.push(Step::Write(unit.to_vec()));
            if n + 1 < frames {
                steps.push(Step::Take(FRAME_BYTES));
            }
        }
        steps
    }

    /// FFmpeg reports an error that the encoder survives, and much later has no output for longer
    /// than [`AFTER_ERROR`]: its input is not closed.
    #[test]
    fn an_error_that_was_survived_does_not_end_the_stream() {
        let mut steps = encoding(COUNT);
        steps.insert(3, Step::say("[h264_nvenc @ 0x5] [error] an error that does no harm"));
        steps.insert(60, Step::Wait(AFTER_ERROR + AFTER_ERROR / 2));
        let (mut encoder, _scripted) = open(steps, LONG, &Waiter::new());
        let picture = FrameBuffer::test_picture(FrameLayout::new(PixelFormat::Yuv420p, SIZE), 0);
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

    #[test]
    fn a_child_that_hangs_after_its_last_access_unit_loses_nothing() {
        let steps = [encoding(COUNT), vec![Step::IgnoreSignals, Step::TakeAll, Step::Hang]];
        let begun = Instant::now();
        let (mut encoder, _scripted) = open(steps.concat(), LONG, &Waiter::new());
        let chunks = encode(&mut encoder).unwrap();
        assert!(chunks.iter().map(|chunk| chunk.pts).eq(0..COUNT));
        assert!(begun.elapsed() < LONG);
        encoder_testbed::process::assert_gone(encoder.child_id());
    }

    /// A further access unit, or another exit status, is still an error.
    #[test]
    fn what_a_child_does_after_its_last_access_unit_is_checked() {
        for (steps, expected) in [
            (vec![Step::TakeAll, Step::Exit(1)], "failed at the end of the stream"),
            (
                vec![Step::TakeAll, Step::Write(encoder_testbed::flv::stream(1, 20)[48..].into())],
                "time",
            ),
        ] {
            let steps = [encoding(COUNT), steps].concat();
            let (mut encoder, _scripted) = open(steps, LONG, &Waiter::new());
            let error = encode(&mut encoder).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_stop_ends_every_wait_for_a_child_that_hangs() {
        let hang = || vec![Step::IgnoreSignals, Step::TakeAll, Step::Hang];
        // It does not open; it hangs in mid-stream; it hangs at the end.
        for (steps, expected) in [
            (hang(), "gave no answer in "),
            ([encoding(9), hang()].concat(), "gave no output for "),
            ([encoding(COUNT - 1), hang()].concat(), "gave no output for "),
        ] {
            for (end, expected) in [
                (Waiter::interrupt as fn(&Waiter), expected),
                (Waiter::stop, "the run was stopped"),
            ] {
                let waiter = Waiter::new();
                let begun = Instant::now();
                let (mut encoder, scripted) = open(steps.clone(), LONG, &waiter.child());
                let thread = std::thread::spawn(move || {
                    // The stop may come before a wait or during it.
                    encoder_testbed::process::until("it runs", || scripted.calls().len() > 1);
                    end(&waiter);
                    scripted
                });
                let error = encode(&mut encoder).unwrap_err().to_string();
                assert!(error.contains(expected), "{error}");
                assert!(begun.elapsed() < LONG);
                drop(thread.join().unwrap());
                encoder_testbed::process::assert_gone(encoder.child_id());
            }
        }
    }

    #[test]
    fn an_encoder_that_works_continues_after_a_stop() {
        let waiter = Waiter::new();
        waiter.interrupt();
        let (mut encoder, _scripted) = open(encoding(COUNT), LONG, &waiter);
        assert_eq!(encode(&mut encoder).unwrap().len() as u64, COUNT);
    }
}
