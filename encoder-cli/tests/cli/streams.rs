//! H.264 topics from other encoders: parameter sets anywhere, B-frames, missing pictures.
#![allow(clippy::unwrap_used)]

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::common::{
    EPOCH, MS,
    decode::{Video, decode_fragmented, decode_stream},
    picture::Picture,
    program::{Converted, convert},
    recording::{Content, Recording, Serialization},
};
use encoder_core::{NalKind, nal_units};

/// Access units of pictures `first` to `first + count - 1`, by x264 with these parameters.
fn x264(first: usize, count: usize, params: &str) -> Vec<Vec<u8>> {
    let mut child = Command::new("ffmpeg")
        .args(["-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "160x120", "-r", "25"])
        .args(["-i", "pipe:0", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-preset", "veryfast"])
        .args(["-x264-params", &format!("aud=1:threads=1:{params}")])
        .args(["-f", "h264", "pipe:1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let pictures = std::thread::spawn(move || {
        for n in first..first + count {
            input.write_all(&Picture::stamped(160, 120, n).raw("rgb8", 0).0).unwrap();
        }
    });
    let output = child.wait_with_output().unwrap();
    pictures.join().unwrap();
    assert!(output.status.success(), "x264 with {params}");
    let mut units: Vec<Vec<u8>> = Vec::new();
    for nal in nal_units(&output.stdout) {
        match NalKind::of(nal[0]) {
            NalKind::Aud => units.push(Vec::new()),
            _ => put(units.last_mut().unwrap(), nal),
        }
    }
    assert_eq!(units.len(), count, "access units with {params}");
    units
}

fn put(unit: &mut Vec<u8>, nal: &[u8]) {
    unit.extend([0, 0, 0, 1]);
    unit.extend(nal);
}

fn is_set(nal: &[u8]) -> bool {
    matches!(NalKind::of(nal[0]), NalKind::Sps | NalKind::Pps)
}

/// The NAL units of an access unit for which `choose` is true.
fn only(unit: &[u8], choose: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut out = Vec::new();
    nal_units(unit).filter(|nal| choose(nal)).for_each(|nal| put(&mut out, nal));
    out
}

fn time(n: usize) -> i64 {
    EPOCH + n as i64 * 40 * MS + (n as i64 * 7919) % 1000
}

/// A recording with a message for each access unit.
fn record(directory: &Path, units: &[Vec<u8>]) -> PathBuf {
    let mut recording = Recording::create(directory.join("video.mcap"));
    for (n, unit) in units.iter().enumerate() {
        let content = Content::Video { format: "h264".into(), data: unit.clone() };
        recording.write("/cam", Serialization::Protobuf, time(n), time(n), &content);
    }
    recording.finish()
}

/// The pictures that FFmpeg decodes from a stream as it was recorded.
fn as_recorded(directory: &Path, units: &[Vec<u8>]) -> Video {
    let path = directory.join("recorded.h264");
    std::fs::write(&path, units.concat()).unwrap();
    decode_stream(&path)
}

/// Copies a stream; the copy must have the same pictures and times.
fn copied(units: &[Vec<u8>], numbers: impl Iterator<Item = usize>, args: &[&str]) -> Converted {
    let directory = tempfile::tempdir().unwrap();
    let recorded = as_recorded(directory.path(), units);
    assert_eq!(recorded.numbers(), numbers.map(Some).collect::<Vec<_>>());
    let converted = convert(&record(directory.path(), units), args).expect(0);
    let video = if args.contains(&"fragmented") {
        decode_fragmented(&converted.path("cam.mp4"))
    } else {
        converted.video()
    };
    assert!(video.frames == recorded.frames, "other pictures: {:?}", video.numbers());
    converted
}

#[test]
fn parameter_sets_before_the_key_frame_that_needs_them_are_used() {
    // The ids of the second encoder are 1. Its parameter sets are in an access unit of the first
    // encoder, before the slice and after it, or in a message of their own.
    let first = x264(0, 6, "bframes=0:keyint=100:sps-id=0");
    let second = x264(6, 6, "bframes=0:keyint=100:sps-id=1:qp=30:cabac=0");
    let sets = only(&second[0], is_set);
    let bare: Vec<_> = second.iter().map(|unit| only(unit, |nal| !is_set(nal))).collect();
    for place in ["front", "back", "alone"] {
        let mut units = first.clone();
        let last = units.last_mut().unwrap();
        match place {
            "front" => *last = [&sets[..], last].concat(),
            "back" => last.extend(&sets),
            _ => units.push(sets.clone()),
        }
        units.extend(bare.clone());
        for mode in ["progressive", "fragmented"] {
            let converted = copied(&units, 0..12, &["--output-mode", mode]);
            assert_eq!(converted.count("frames_in"), 12, "{place}");
        }
    }
    // Before all pictures, in a message of their own.
    let converted = copied(&[&[sets], &bare[..]].concat(), 6..12, &[]);
    assert_eq!((converted.count("frames_in"), converted.count("frames_encoded")), (6, 6));
}

#[test]
fn a_key_frame_with_a_picture_parameter_set_alone_changes_it() {
    let main = "bframes=0:keyint=100:weightp=1:8x8dct=0:qp=24";
    let first = x264(0, 5, &format!("{main}:cabac=1"));
    let second = x264(5, 5, &format!("{main}:cabac=0"));
    let sps = |unit: &[u8]| only(unit, |nal| NalKind::of(nal[0]) == NalKind::Sps);
    let pps = |unit: &[u8]| only(unit, |nal| NalKind::of(nal[0]) == NalKind::Pps);
    assert_eq!(sps(&first[0]), sps(&second[0]));
    assert_ne!(pps(&first[0]), pps(&second[0]));
    let without = only(&second[0], |nal| NalKind::of(nal[0]) != NalKind::Sps);
    let units = [&first[..], &[without], &second[1..]].concat();
    for mode in ["progressive", "fragmented"] {
        copied(&units, 0..10, &["--output-mode", mode]);
    }
}

#[test]
fn a_picture_parameter_set_that_changes_between_key_frames_is_used_from_there() {
    // Lossless, so that the pictures of one encoder can be references for the other's.
    let lossless = "qp=0:bframes=0:keyint=100:ref=1:weightp=0";
    let first = x264(0, 12, &format!("{lossless}:cabac=1"));
    let second = x264(0, 12, &format!("{lossless}:cabac=0"));
    let pps = only(&second[0], |nal| NalKind::of(nal[0]) == NalKind::Pps);
    assert_eq!(only(&first[0], is_set).len(), only(&second[0], is_set).len());
    for is_in_front in [true, false] {
        let mut units = [&first[..5], &second[5..]].concat();
        match is_in_front {
            true => units[5] = [&pps[..], &units[5]].concat(),
            false => units[4].extend(&pps),
        }
        for mode in ["progressive", "fragmented"] {
            copied(&units, 0..12, &["--output-mode", mode]);
        }
    }
}

#[test]
fn more_parameter_sets_than_a_sample_description_can_hold() {
    // An encoder that uses another id for each key frame.
    let mut units = Vec::new();
    for n in 0..34 {
        units.extend(x264(2 * n, 2, &format!("bframes=0:keyint=100:sps-id={}", n % 32)));
    }
    for mode in ["progressive", "fragmented"] {
        copied(&units, 0..68, &["--output-mode", mode]);
    }
}

#[test]
fn streams_in_display_order_are_copied_whatever_their_tools() {
    for params in [
        "bframes=0:keyint=4:slices=4",
        "bframes=0:keyint=100:ref=4:weightp=2:cabac=0",
        "bframes=0:interlaced=1",
        "bframes=0:nal-hrd=vbr:vbv-maxrate=900:vbv-bufsize=900:pic-struct=1",
        "bframes=0:intra-refresh=1",
        "bframes=0:keyint=1",
    ] {
        copied(&x264(0, 12, params), 0..12, &[]);
    }
}

#[test]
fn b_frames_are_refused_by_name() {
    for params in [
        "bframes=1:b-adapt=0:keyint=10",
        "bframes=3:b-adapt=0:b-pyramid=normal:weightb=1",
        "bframes=2:b-adapt=0:interlaced=1",
        "bframes=2:b-adapt=0:slices=3:open-gop=1:keyint=6",
    ] {
        let directory = tempfile::tempdir().unwrap();
        let units = x264(0, 14, params);
        let path = record(directory.path(), &units);
        let converted = convert(&path, &[]).expect(1);
        let said = &converted.said;
        assert!(said.contains("frame 2 is displayed before"), "{params}: {said}");
        assert!(said.contains("B-frames") && said.contains("--format annexb"), "{said}");
        assert_eq!(converted.files(), ["report.json"], "{params}");
        // A raw stream has no times.
        let recorded = as_recorded(directory.path(), &units);
        let converted = convert(&path, &["--format", "annexb"]).expect(0);
        assert!(decode_stream(&converted.path("cam.h264")).frames == recorded.frames);
    }
}

#[test]
fn a_topic_with_b_frames_does_not_keep_others_from_being_converted() {
    let directory = tempfile::tempdir().unwrap();
    let mut recording = Recording::create(directory.path().join("two.mcap"));
    for (n, unit) in x264(0, 10, "bframes=2:b-adapt=0").into_iter().enumerate() {
        let content = Content::Video { format: "h264".into(), data: unit };
        recording.write("/b", Serialization::Json, time(n), time(n), &content);
        let good = Content::jpeg(&Picture::stamped(160, 120, n));
        recording.write("/cam", Serialization::Json, time(n), time(n), &good);
    }
    let converted = convert(&recording.finish(), &[]).expect(3);
    assert_eq!(converted.video().frames.len(), 10);
    let skipped = &converted.report["skipped_topics"][0];
    assert_eq!((&skipped["topic"], &skipped["frames_in"]), (&"/b".into(), &10.into()));
    assert!(skipped["reason"].as_str().unwrap().contains("B-frames"), "{skipped}");
}

#[test]
fn what_was_copied_before_the_first_b_frame_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let units = [x264(0, 40, "bframes=0:keyint=10"), x264(40, 10, "bframes=2:b-adapt=0")].concat();
    let converted = convert(&record(directory.path(), &units), &[]).expect(1);
    let output = converted.output();
    assert!(output["error"].as_str().unwrap().contains("frame 42 is displayed"), "{output}");
    let numbers = decode_fragmented(&converted.path("cam.mp4.part")).numbers();
    assert_eq!(numbers[..40], (0..40).map(Some).collect::<Vec<_>>());
}

#[test]
fn pictures_that_are_missing_in_the_recording_are_reported() {
    let units = x264(0, 20, "bframes=0:keyint=10:min-keyint=10:scenecut=0");
    // A picture, several, and several at the end of a group.
    for (missing, warnings) in [(4..5, 1), (6..9, 1), (7..10, 0)] {
        let directory = tempfile::tempdir().unwrap();
        let mut left = units.clone();
        left.drain(missing.clone());
        let path = record(directory.path(), &left);
        let code = if warnings > 0 { 3 } else { 0 };
        let converted = convert(&path, &[]).expect(code);
        assert_eq!(converted.count("frames_encoded"), left.len() as i64, "{missing:?}");
        assert_eq!(converted.count("frames_failed"), warnings, "{missing:?}");
        let first = missing.start;
        if warnings > 0 {
            let text = format!("frame {first}: pictures before it are missing");
            assert!(converted.warns(&text), "{}", converted.report);
            let converted = convert(&path, &["--on-bad-frame", "fail"]).expect(1);
            assert!(converted.said.contains("are missing"), "{}", converted.said);
        }
    }
}
