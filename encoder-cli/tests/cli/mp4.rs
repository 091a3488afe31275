//! MP4 files with access units of real encoders: both layouts, and parameter sets that change.
#![allow(clippy::unwrap_used)]

use crate::common;

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use common::{
    EPOCH, MS, S,
    decode::{Video, decode, decode_fragmented, seek},
    entries, mp4,
    picture::Picture,
    program::convert,
    recording::{Content, camera, small},
};
use encoder_core::{EncodedChunk, EncoderType, FrameRate, Plan, Resolution, Settings};
use encoder_pipeline::{
    mux::{
        AccessUnit, CallbackSink, Finished, Location, Mp4Options, Mp4Sink, OutputMode, Recovery,
        Sink,
    },
    session::{Session, SessionConfig},
    source::{Payload, RawImage},
    timeline::{Clock, FrameTimes, TimestampAnalysis, Timing, reorder},
};

/// Access units of pictures `first` to `first + count - 1` by an encoder, with continuous frame
/// numbers.
fn access_units(
    encoder: EncoderType,
    b_frames: u8,
    first: usize,
    count: usize,
) -> Vec<EncodedChunk> {
    let chunks = Arc::new(Mutex::new(Vec::new()));
    let sink = CallbackSink({
        let chunks = Arc::clone(&chunks);
        move |AccessUnit { chunk, .. }: AccessUnit| {
            let pts = chunk.pts + first as u64;
            chunks.lock().unwrap().push(EncodedChunk { pts, ..chunk });
        }
    });
    let mut settings = Settings::default();
    settings.encoder.gop_size = 8;
    settings.encoder.b_frames = b_frames;
    let config = SessionConfig::new(settings, Plan::new(vec![encoder], vec![]));
    let size = Resolution::new(160, 120);
    let mut session = Session::open(size, &config, Box::new(sink)).unwrap();
    for n in first..first + count {
        let (data, step) = Picture::stamped(160, 120, n).raw("rgb8", 0);
        let image = RawImage {
            encoding: "rgb8".into(),
            width: size.width,
            height: size.height,
            step,
            is_bigendian: false,
            data: data.into(),
        };
        session.push(&Payload::Raw(image), FrameTimes::at(n as i64)).unwrap();
    }
    session.finish().unwrap();
    std::mem::take(&mut *chunks.lock().unwrap())
}

/// 10 fps with a jitter of nanoseconds.
fn at(n: u64) -> FrameTimes {
    let n = n as i64;
    FrameTimes::at(EPOCH + n * 100 * MS + n * 7919 % 1000)
}

fn options(mode: OutputMode, b_frames: u8) -> Mp4Options {
    Mp4Options { mode, reorder: reorder(b_frames), ..Mp4Options::default() }
}

fn write(
    path: &Path,
    options: &Mp4Options,
    chunks: &[EncodedChunk],
    times: impl Fn(u64) -> FrameTimes,
) -> Finished {
    let mut sink = Mp4Sink::create(path, options).unwrap();
    let mut analysis = TimestampAnalysis::new(options.timing, options.rate, options.reorder);
    for chunk in chunks {
        sink.write(AccessUnit::new(chunk.clone(), times(chunk.pts))).unwrap();
    }
    (0..chunks.len() as u64).for_each(|n| analysis.push(&times(n)));
    Box::new(sink).finish(&analysis.timeline()).unwrap()
}

/// Display times of the frames, in microseconds.
fn microseconds(video: &Video) -> Vec<u64> {
    video.pts.iter().map(|pts| (pts * 1_000_000 + video.timescale / 2) / video.timescale).collect()
}

fn numbers(count: usize) -> Vec<Option<usize>> {
    (0..count).map(Some).collect()
}

#[test]
fn parameter_sets_that_change_play_from_start_to_end_in_both_kinds_of_file() {
    let chunks = [
        access_units(EncoderType::X264, 2, 0, 21),
        access_units(EncoderType::OPENH264, 0, 21, 20),
        access_units(EncoderType::X264, 2, 41, 19),
    ]
    .concat();
    let directory = tempfile::tempdir().unwrap();
    let wanted: Vec<_> =
        (0..60u64).map(|n| (n * 100_000_000 + n * 7919 % 1000 + 500) / 1000).collect();
    for mode in [OutputMode::Progressive, OutputMode::Fragmented] {
        let path = directory.path().join(format!("{mode:?}.mp4"));
        let finished = write(&path, &options(mode, 2), &chunks, at);
        let expected = match mode {
            OutputMode::Progressive => Finished::at(&path),
            _ => Finished::at(&path).with_guessed_times(0),
        };
        assert_eq!(finished, expected);
        let file = std::fs::read(&path).unwrap();
        let stsd = mp4::find(&file, "moov/trak/mdia/minf/stbl/stsd").unwrap();
        let kinds: Vec<_> = mp4::boxes(&stsd[8..]).into_iter().map(|(kind, _)| kind).collect();
        let video = match mode {
            OutputMode::Progressive => {
                // The first parameter sets are repeated, and share a description.
                assert_eq!(kinds, ["avc3"; 2]);
                decode(&path)
            }
            _ => {
                assert_eq!(kinds, ["avc3"]);
                decode_fragmented(&path)
            }
        };
        assert_eq!(video.numbers(), numbers(60), "{mode:?}");
        assert_eq!(microseconds(&video), wanted, "{mode:?}");
        // Into each part, and after a key frame that is not its first.
        for n in [0, 5, 17, 22, 38, 43, 59] {
            assert_eq!(seek(&path, n as f64 / 10.0 - 0.05), Some(n), "{mode:?}: frame {n}");
        }
        let found = Recovery::find(std::fs::File::open(&path).unwrap());
        assert_eq!(found.is_ok(), mode == OutputMode::Fragmented);
    }
}

#[test]
fn one_set_of_parameters_stands_in_the_description_alone() {
    let chunks = access_units(EncoderType::OPENH264, 0, 0, 20);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.mp4");
    write(&path, &options(OutputMode::Progressive, 0), &chunks, at);
    let file = std::fs::read(&path).unwrap();
    let stsd = mp4::find(&file, "moov/trak/mdia/minf/stbl/stsd").unwrap();
    let (kind, _) = mp4::boxes(&stsd[8..]).remove(0);
    assert_eq!(kind, "avc1");
    // Kinds of the NAL units of all pictures.
    let mut media = mp4::find(&file, "mdat").unwrap();
    let mut kinds = Vec::new();
    while let Some((length, rest)) = media.split_first_chunk() {
        let (unit, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        kinds.push(unit[0] & 0x1f);
        media = rest;
    }
    assert!(kinds.contains(&5) && !kinds.contains(&7) && !kinds.contains(&8), "{kinds:?}");
    assert_eq!(entries(directory.path()), ["a.mp4"]);
}

#[test]
fn a_fragmented_file_has_all_frames_in_order_at_their_times() {
    let directory = tempfile::tempdir().unwrap();
    // A pause of two hours in the middle, and two frames with one stamp.
    let time = |n: usize| {
        let pause = if n >= 25 { 7200 * S } else { 0 };
        EPOCH + n as i64 * 40 * MS + pause - if n == 31 { 40 * MS } else { 0 }
    };
    let frames: Vec<_> = (0..50).map(|n| (time(n), time(n) + 3, small(n))).collect();
    let recording = camera(directory.path(), &frames);
    for extra in [
        &["--encoder", "openh264"][..],
        &["--encoder", "x264", "--gop", "10"],
        &["--encoder", "x264", "--fps", "29.97", "--b-frames", "3", "--gop", "12"],
    ] {
        let args = [&["--output-mode", "fragmented"][..], extra].concat();
        let converted = convert(&recording, &args).expect(0);
        let video = decode_fragmented(&converted.path("cam.mp4"));
        assert_eq!(video.numbers(), numbers(50), "{extra:?}");
        let wanted: Vec<_> = (0..50)
            .map(|n| match extra.contains(&"--fps") {
                true => (n as u64 * 1_001_000_000 + 15_000) / 30_000,
                false => (time(n) - EPOCH + if n == 31 { MS } else { 0 }) as u64 / 1000,
            })
            .collect();
        assert_eq!(microseconds(&video), wanted, "{extra:?}");
    }
}

#[test]
fn a_fragmented_file_goes_on_when_header_stamps_end_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let frames: Vec<(i64, i64, Content)> = (0..20)
        .map(|n| {
            let log = EPOCH + n * 50 * MS;
            (if n < 10 { log - 7 * S + n * MS } else { 0 }, log, small(n as usize))
        })
        .collect();
    let converted =
        convert(&camera(directory.path(), &frames), &["--output-mode", "fragmented"]).expect(3);
    assert!(converted.warns("10 of 20 frames (10, 11, "), "{}", converted.report);
    assert_eq!(converted.count("times_guessed"), 10);
    let video = decode_fragmented(&converted.path("cam.mp4"));
    let wanted = (0..20u64).map(|n| n * 50_000 + n.min(9) * 1000).collect::<Vec<_>>();
    assert_eq!(microseconds(&video), wanted);
}

#[test]
fn an_older_file_is_kept_until_the_new_one_plays_and_nothing_is_left_of_one_that_is_dropped() {
    let chunks = access_units(EncoderType::OPENH264, 0, 0, 20);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.mp4");
    std::fs::write(&path, "old").unwrap();
    let mode = OutputMode::Fragmented;
    assert!(Mp4Sink::create(&path, &options(mode, 0)).is_err());
    let options = Mp4Options { overwrite: true, ..options(mode, 0) };
    let mut sink = Mp4Sink::create(&path, &options).unwrap();
    sink.write(AccessUnit::new(chunks[0].clone(), at(0))).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(Box::new(sink).abandon(), Some(Location::from(&path)), "one frame is worth keeping");
    assert_eq!(decode_fragmented(&path).numbers(), numbers(1));

    let mut sink = Mp4Sink::create(&path, &options).unwrap();
    for chunk in &chunks {
        sink.write(AccessUnit::new(chunk.clone(), at(chunk.pts))).unwrap();
    }
    // All access units that were pushed are there, except those of half a second.
    assert!(decode_fragmented(&path).frames.len() >= 15);
    drop(sink);
    assert_eq!(entries(directory.path()), Vec::<String>::new());

    let sink = Mp4Sink::create(&path, &options).unwrap();
    assert_eq!(Box::new(sink).abandon(), None);
    assert_eq!(entries(directory.path()), Vec::<String>::new());
}

#[test]
fn what_was_abandoned_is_recovered_with_its_exact_times() {
    let chunks = access_units(EncoderType::X264, 2, 0, 30);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.mp4");
    for (timing, times) in [
        (Timing::Recorded(Clock::Header), at as fn(u64) -> FrameTimes),
        (Timing::Recorded(Clock::Header), |n| FrameTimes { header_ns: None, ..at(n) }),
        (Timing::Rate("30000/1001".parse::<FrameRate>().unwrap()), at),
        (Timing::Numbered("10".parse::<FrameRate>().unwrap()), at),
    ] {
        let options = Mp4Options { timing, ..options(OutputMode::Progressive, 2) };
        let mut sink = Mp4Sink::create(&path, &options).unwrap();
        for chunk in &chunks {
            sink.write(AccessUnit::new(chunk.clone(), times(chunk.pts))).unwrap();
        }
        let part = Box::new(sink).abandon().unwrap();
        let part = part.path().unwrap();
        assert_eq!(part, directory.path().join("a.mp4.part"));
        assert_eq!(decode_fragmented(part).numbers(), numbers(30));
        let found = Recovery::find(std::fs::File::open(part).unwrap()).unwrap();
        assert_eq!((found.frames(), found.rest()), (30, 0));
        let mut recovered = Vec::new();
        found.write(&mut recovered).unwrap();
        std::fs::remove_file(part).unwrap();
        // Identical to the output of the sink, byte by byte.
        write(&path, &options, &chunks, times);
        assert_eq!(recovered, std::fs::read(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
    }
}
