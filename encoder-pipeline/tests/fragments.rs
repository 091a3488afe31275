//! Videos as fragments for a writer or a function, and parameter sets for other muxers: read by
//! FFmpeg.
#![allow(clippy::unwrap_used)]

use std::{
    io::{self, Write},
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};

use encoder_core::{EncoderType, Plan, Resolution, Settings};
use encoder_pipeline::{
    mux::{
        AccessUnit, CallbackSink, FragmentLength, FragmentOptions, FragmentSink, MediaSegment,
        Mp4Options, Mp4Sink, OutputMode, Segment, Sink,
        avc::{DecoderRecord, SampleEntry, sample},
    },
    session::{Session, SessionConfig, SessionError},
    source::{Payload, RawImage},
    timeline::FrameTimes,
};
use encoder_testbed::fixtures::{
    EPOCH, MS,
    decode::{decode_fragmented, decode_stream},
    picture::Picture,
};

const SIZE: Resolution = Resolution::new(160, 120);
const FRAMES: usize = 45;

/// 25 fps with a jitter, and a pause.
fn at(n: usize) -> FrameTimes {
    let pause = if n < 20 { 0 } else { 3000 };
    FrameTimes::at(EPOCH + (n as i64 * 40 + pause) * MS + (n as i64 * 7919 % 1000) * 1000)
}

fn config(encoder: EncoderType, b_frames: u8) -> SessionConfig {
    let mut settings = Settings::default();
    (settings.encoder.gop_size, settings.encoder.b_frames) = (10, b_frames);
    SessionConfig::new(settings, Plan::new(vec![encoder], vec![]))
}

fn encode(config: &SessionConfig, sink: Box<dyn Sink>) -> Result<(), SessionError> {
    let mut session = Session::open(SIZE, config, sink)?;
    for n in 0..FRAMES {
        let (data, step) = Picture::stamped(160, 120, n).raw("rgb8", 0);
        let image = RawImage {
            encoding: "rgb8".into(),
            width: SIZE.width,
            height: SIZE.height,
            step,
            is_bigendian: false,
            data: data.into(),
        };
        if session.push(&Payload::Raw(image), at(n)).is_err() {
            break;
        }
    }
    session.finish().map(drop)
}

/// A writer whose bytes stay readable.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn fragments_are_the_video_of_the_file() {
    let directory = tempfile::tempdir().unwrap();
    for (encoder, b_frames) in [(EncoderType::OPENH264, 0), (EncoderType::X264, 2)] {
        let config = config(encoder, b_frames);
        let options = FragmentOptions::new(config.timing, &config.settings.encoder);
        // The file.
        let path = directory.path().join(format!("{encoder}.mp4"));
        let mode = OutputMode::Fragmented;
        let file = Mp4Options { mode, ..Mp4Options::new(config.timing, &config.settings.encoder) };
        encode(&config, Box::new(Mp4Sink::create(&path, &file).unwrap())).unwrap();
        let expected = decode_fragmented(&path);
        assert_eq!(expected.numbers(), (0..FRAMES).map(Some).collect::<Vec<_>>());
        for length in [FragmentLength::default(), FragmentLength::Gop] {
            let options = options.clone().with_length(length);
            // A writer.
            let written = Shared::default();
            encode(&config, Box::new(FragmentSink::new(written.clone(), &options))).unwrap();
            let bytes = std::mem::take(&mut *written.0.lock().unwrap());
            let copy = directory.path().join("copy.mp4");
            std::fs::write(&copy, &bytes).unwrap();
            let video = decode_fragmented(&copy);
            assert_eq!(video.numbers(), expected.numbers(), "{encoder} {length:?}");
            assert_eq!((video.timescale, &video.pts), (expected.timescale, &expected.pts));
            // A function.
            let segments = Arc::new(Mutex::new(Vec::new()));
            let log = Arc::clone(&segments);
            let put = move |segment| {
                log.lock().unwrap().push(segment);
                Ok(())
            };
            encode(&config, Box::new(FragmentSink::with_function(put, &options))).unwrap();
            let segments = segments.lock().unwrap();
            if length == FragmentLength::Gop {
                let all: Vec<u8> = segments.iter().flat_map(|s| s.data().to_vec()).collect();
                assert_eq!(all, bytes, "{encoder}");
            }
            check(&segments, length, &expected.pts, directory.path());
        }
    }
}

/// Segments are numbered and cover all frames at their times. A segment that begins with a key frame
/// plays directly after the initialization segment.
fn check(segments: &[Segment], length: FragmentLength, pts: &[u64], directory: &Path) {
    let Segment::Init(init) = &segments[0] else { panic!("the first is no init segment") };
    assert_eq!((init.size, init.timescale), (SIZE, 1_000_000));
    let (mut next, mut sequence) = (0, 0);
    for segment in &segments[1..] {
        let Segment::Media(media) = segment else { panic!("a second init segment") };
        let MediaSegment { frames, start_ns, duration_ns, keyframe, .. } = media;
        sequence += 1;
        assert_eq!((media.sequence, frames.start), (sequence, next));
        next = frames.end;
        // FFmpeg counts microseconds, which are the ticks.
        let of = |n: u64| pts.get(n as usize).map(|ticks| (ticks - pts[0]) * 1000);
        assert_eq!(Some(*start_ns), of(frames.start));
        let end = start_ns + duration_ns;
        assert!(of(frames.end - 1).is_some_and(|last| last < end), "{media:?}");
        if length == FragmentLength::Gop {
            assert!(*keyframe && frames.start % 10 == 0, "{frames:?}");
        }
        // A later one, alone.
        if *keyframe && frames.start == 20 {
            let path = directory.join("segment.mp4");
            std::fs::write(&path, [&init.data[..], &media.data].concat()).unwrap();
            let numbers: Vec<_> = decode_fragmented(&path).numbers();
            let expected: Vec<_> = frames.clone().map(|n| Some(n as usize)).collect();
            assert_eq!(numbers, expected);
        }
    }
    assert_eq!(next, FRAMES as u64);
}

#[test]
fn a_writer_that_fails_ends_the_session() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let config = config(EncoderType::OPENH264, 0);
    let options = FragmentOptions::new(config.timing, &config.settings.encoder);
    let error = encode(&config, Box::new(FragmentSink::new(Full, &options))).unwrap_err();
    let SessionError::Sink(error) = error else { panic!("{error}") };
    assert_eq!(error.io_error().map(io::Error::kind), Some(io::ErrorKind::StorageFull));
}

/// The record and the samples of both encoders, in a file that FFmpeg reads.
#[test]
fn the_record_and_the_samples_are_those_of_the_stream() {
    for encoder in [EncoderType::OPENH264, EncoderType::X264] {
        let units = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&units);
        let sink = CallbackSink(move |AccessUnit { chunk, .. }| log.lock().unwrap().push(chunk));
        encode(&config(encoder, 0), Box::new(sink)).unwrap();
        let units = units.lock().unwrap();
        let record = DecoderRecord::from_access_unit(&units[0].data).unwrap();
        assert_eq!(record.size(), SIZE);
        let codec = record.codec(SampleEntry::Avc1);
        assert!(codec.starts_with("avc1.64"), "{encoder}: {codec}");
        assert!(DecoderRecord::from_access_unit(&units[1].data).is_err(), "no key frame");
        // The samples with start codes again, behind the parameter sets of the record.
        let mut stream = record.to_annex_b();
        for unit in units.iter() {
            let sample = sample(&unit.data, SampleEntry::Avc1).unwrap();
            let mut rest = &sample[..];
            while let Some((length, tail)) = rest.split_first_chunk::<4>() {
                let (unit, tail) = tail.split_at(u32::from_be_bytes(*length) as usize);
                assert!(!matches!(unit[0] & 0x1f, 7..=9), "{encoder}");
                stream.extend([0, 0, 0, 1]);
                stream.extend(unit);
                rest = tail;
            }
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), stream).unwrap();
        let numbers = decode_stream(file.path()).numbers();
        assert_eq!(numbers, (0..FRAMES).map(Some).collect::<Vec<_>>(), "{encoder}");
        // FFmpeg's own record of the same stream.
        let directory = tempfile::tempdir().unwrap();
        let copy = directory.path().join("copy.mp4");
        let program = std::env::var("ENCODER_FFMPEG").unwrap_or_else(|_| "ffmpeg".into());
        let status = Command::new(program)
            .args(["-nostdin", "-v", "error", "-f", "h264", "-i", file.path().to_str().unwrap()])
            .args(["-c", "copy", copy.to_str().unwrap()])
            .status()
            .unwrap();
        assert!(status.success());
        let copy = std::fs::read(&copy).unwrap();
        let at = copy.windows(4).position(|bytes| bytes == b"avcC").unwrap() - 4;
        let size = u32::from_be_bytes(copy[at..at + 4].try_into().unwrap()) as usize;
        let (found, bytes) = (&copy[at + 8..at + size], record.as_bytes());
        // FFmpeg 5.1 adds the first zero of a start code to the set in front of it.
        let sps = record.sequence_parameter_sets().next().unwrap();
        let pps = record.picture_parameter_sets().next().unwrap();
        let front = 8 + sps.len() + 1;
        assert_eq!(found[..front], bytes[..front], "{encoder}");
        assert_eq!(found[front + 2..][..pps.len()], bytes[front + 2..][..pps.len()], "{encoder}");
        assert_eq!(found[found.len() - 4..], bytes[bytes.len() - 4..], "{encoder}");
    }
}
