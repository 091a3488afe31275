//! Topics that are already H.264 are copied.
#![allow(clippy::unwrap_used)]

use crate::common;

use std::sync::{Arc, Mutex};

use common::{
    EPOCH, MS,
    decode::{self, decode_stream},
    picture::Picture,
    program::convert,
    recording::{Content, Recording, Serialization},
};
use encoder_core::{EncoderType, Plan, Resolution, Settings, nal_units};
use encoder_pipeline::{
    mux::{AccessUnit, CallbackSink},
    session::{OnBadFrame, Session, SessionConfig},
    source::{Payload, RawImage},
    timeline::FrameTimes,
};

/// Access units of pictures `first` to `first + count - 1`, a key frame every 5.
fn access_units(width: usize, height: usize, first: usize, count: usize) -> Vec<Vec<u8>> {
    let units = Arc::new(Mutex::new(Vec::new()));
    let sink = CallbackSink({
        let units = Arc::clone(&units);
        move |AccessUnit { chunk, .. }: AccessUnit| units.lock().unwrap().push(chunk.data)
    });
    let mut settings = Settings::default();
    settings.encoder.gop_size = 5;
    let plan = Plan::new(vec![EncoderType::OPENH264], vec![]);
    let config = SessionConfig::new(settings, plan).with_on_bad_frame(OnBadFrame::Fail);
    let size = Resolution::new(width as u32, height as u32);
    let mut session = Session::open(size, &config, Box::new(sink)).unwrap();
    for n in first..first + count {
        let (data, step) = Picture::stamped(width, height, n).raw("rgb8", 0);
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
    Arc::try_unwrap(units).unwrap().into_inner().unwrap()
}

fn video(format: &str, data: &[u8]) -> Content {
    Content::Video { format: format.into(), data: data.to_vec() }
}

fn time(n: usize) -> i64 {
    EPOCH + n as i64 * 40 * MS + (n as i64 * 7919) % 1000
}

#[test]
fn a_video_topic_is_copied_with_its_pictures_and_times() {
    let units = access_units(160, 120, 0, 14);
    let directory = tempfile::tempdir().unwrap();
    let stream = directory.path().join("all.h264");
    std::fs::write(&stream, units.concat()).unwrap();
    let sent = decode_stream(&stream);
    assert_eq!(sent.numbers(), (0..14).map(Some).collect::<Vec<_>>());
    let mut recording = Recording::create(directory.path().join("video.mcap"));
    let serializations = [Serialization::Json, Serialization::Protobuf, Serialization::CdrLittle];
    for (n, unit) in units.iter().enumerate() {
        for serialization in serializations {
            let topic = format!("/{serialization:?}");
            recording.write(&topic, serialization, time(n) + 5, time(n), &video("h264", unit));
        }
    }
    let path = recording.finish();
    let converted = convert(&path, &[]).expect(0);
    for output in converted.outputs() {
        assert_eq!(output["encoder"], "copy");
        assert_eq!((&output["width"], &output["height"]), (&160.into(), &120.into()));
        assert_eq!((&output["frames_in"], &output["frames_encoded"]), (&14.into(), &14.into()));
        let video = common::decode::decode(&converted.path(output["file"].as_str().unwrap()));
        assert!(video.frames == sent.frames, "other pictures: {:?}", video.numbers());
        let stamps: Vec<_> = (0..14).map(|n| (time(n) - time(0)) as u64).collect();
        assert_eq!(video.nanoseconds(), stamps);
    }
    assert_eq!(converted.outputs().len(), 3);
    let converted = convert(&path, &["--fps", "30", "--topic", "/Json"]).expect(0);
    let video = converted.video();
    assert!((0..).zip(&video.pts).all(|(n, pts)| pts * 30 == n * video.timescale));
    let converted = convert(&path, &["--topic", "/Json", "--format", "annexb"]).expect(0);
    assert!(decode_stream(&converted.path("Json.h264")).frames == sent.frames);
    // A constant rate cannot be made without encoding.
    let converted = convert(&path, &["--resample", "30"]).expect(1);
    assert!(converted.said.contains("leave out --resample"), "{}", converted.said);
}

#[test]
fn a_copy_begins_at_a_key_frame_and_counts_what_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let units = access_units(160, 120, 0, 12);
    let mut recording = Recording::create(directory.path().join("late.mcap"));
    for (n, unit) in units.iter().enumerate().skip(3) {
        // One message without a picture, at the end of a group.
        let data = if n == 9 { b"no access unit".to_vec() } else { unit.clone() };
        recording.write("/cam", Serialization::Protobuf, time(n), time(n), &video("h264", &data));
    }
    let path = recording.finish();
    let converted = convert(&path, &[]).expect(3);
    assert_eq!(converted.video().numbers(), [5, 6, 7, 8, 10, 11].map(Some));
    assert_eq!(converted.count("frames_in"), 9);
    assert_eq!(converted.count("frames_failed"), 3);
    assert_eq!(converted.count("frames_encoded"), 6);
    assert_eq!(converted.output()["first_stamp_ns"], time(5));
    assert!(converted.warns("before the first key frame"), "{}", converted.report);
    let converted = convert(&path, &["--on-bad-frame", "fail"]).expect(1);
    assert!(converted.said.contains("key frame"), "{}", converted.said);
}

#[test]
fn a_copy_whose_size_changes_goes_on_in_a_new_file() {
    let directory = tempfile::tempdir().unwrap();
    let units = [access_units(160, 120, 0, 5), access_units(256, 96, 5, 4)].concat();
    let mut recording = Recording::create(directory.path().join("sizes.mcap"));
    for (n, unit) in units.iter().enumerate() {
        recording.write("/cam", Serialization::Json, time(n), time(n), &video("H264", unit));
    }
    let converted = convert(&recording.finish(), &[]).expect(0);
    for (file, numbers) in [("cam.mp4", 0..5), ("cam_part2.mp4", 5..9)] {
        let video = common::decode::decode(&converted.path(file));
        assert_eq!(video.numbers(), numbers.map(Some).collect::<Vec<_>>(), "{file}");
    }
    let sizes: Vec<_> = converted.outputs().iter().map(|o| o["width"].as_u64()).collect();
    assert_eq!(sizes, [Some(160), Some(256)]);
}

fn annex_b(units: &[&[u8]]) -> Vec<u8> {
    units.iter().flat_map(|unit| [&[0, 0, 0, 1], *unit].concat()).collect()
}

fn behind_lengths(units: &[&[u8]]) -> Vec<u8> {
    units.iter().flat_map(|unit| [&(unit.len() as u32).to_be_bytes(), *unit].concat()).collect()
}

#[test]
fn a_topic_is_copied_however_its_frames_are_laid_out_in_messages() {
    let directory = tempfile::tempdir().unwrap();
    let units = access_units(160, 120, 0, 14);
    let stream = directory.path().join("all.h264");
    std::fs::write(&stream, units.concat()).unwrap();
    let sent = decode_stream(&stream);
    let split: Vec<Vec<&[u8]>> = units.iter().map(|unit| nal_units(unit).collect()).collect();
    const DELIMITER: &[u8] = &[0x09, 0xf0];
    // The messages with their times in frames, and whether times must be guessed.
    type Message = (usize, Vec<u8>);
    let each = |message: &dyn Fn(&[&[u8]]) -> Vec<u8>| -> Vec<Message> {
        split.iter().enumerate().map(|(n, units)| (n, message(units))).collect()
    };
    let single: Vec<Message> = split
        .iter()
        .enumerate()
        .flat_map(|(n, units)| units.iter().map(move |unit| (n, annex_b(&[*unit]))))
        .collect();
    let pairs: Vec<_> =
        split.chunks(2).enumerate().map(|(n, pair)| (2 * n, annex_b(&pair.concat()))).collect();
    let behind = |units: &[&[u8]]| annex_b(&[units, &[DELIMITER]].concat());
    let layouts: Vec<(&str, Vec<Message>, bool)> = vec![
        ("one NAL unit", single, false),
        ("two frames", pairs, true),
        ("delimiter in front", each(&|units| annex_b(&[&[DELIMITER], units].concat())), false),
        ("delimiter behind", each(&behind), false),
        ("lengths", each(&behind_lengths), false),
    ];
    for (name, messages, is_guess) in layouts {
        let mut recording = Recording::create(directory.path().join("layout.mcap"));
        for (n, data) in &messages {
            let at = EPOCH + *n as i64 * 40 * MS;
            recording.write("/cam", Serialization::Protobuf, at, at, &video("h264", data));
        }
        let path = recording.finish();
        let converted = convert(&path, &[]).expect(if is_guess { 3 } else { 0 });
        let copy = converted.video();
        assert!(copy.frames == sent.frames, "{name}: {:?}", copy.numbers());
        let stamps: Vec<_> = (0..14).map(|n| n * 40 * MS as u64).collect();
        assert_eq!(copy.nanoseconds(), stamps, "{name}");
        assert_eq!(converted.count("times_guessed"), if is_guess { 7 } else { 0 }, "{name}");
        assert_eq!(converted.warns("in one message with frames before them"), is_guess, "{name}");
        // At a constant rate, and without times, nothing is guessed.
        let converted = convert(&path, &["--fps", "30"]).expect(0);
        let video = converted.video();
        assert!((0..).zip(&video.pts).all(|(n, pts)| pts * 30 == n * video.timescale), "{name}");
        let converted = convert(&path, &["--format", "annexb"]).expect(0);
        assert!(decode_stream(&converted.path("cam.h264")).frames == sent.frames, "{name}");
        let info = common::program::run(["info", "--json", path.to_str().unwrap()]);
        let info: serde_json::Value = serde_json::from_str(&info.1).unwrap();
        assert_eq!(info["cameras"][0]["frames"], 14, "{name}: {info}");
    }
}

#[test]
fn pictures_that_a_player_does_not_show_after_a_lost_key_frame_are_left_out_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let units = access_units(160, 120, 0, 30);
    // Messages that are lost. Of the last two, only the ids of the key frames show it.
    let lost: [&[usize]; 5] =
        [&[12], &[10], &[8, 9, 10, 11], &[18, 19, 20, 21, 22], &[20, 21, 22, 23, 24]];
    for lost in lost {
        let mut recording = Recording::create(directory.path().join("lost.mcap"));
        for (n, unit) in units.iter().enumerate().filter(|(n, _)| !lost.contains(n)) {
            recording.write("/cam", Serialization::Json, time(n), time(n), &video("h264", unit));
        }
        let converted = convert(&recording.finish(), &[]);
        let (copied, failed) =
            (converted.count("frames_encoded"), converted.count("frames_failed"));
        let shown = decode::count(&converted.path("cam.mp4"));
        assert_eq!(copied, shown as i64, "{lost:?}: {}", converted.report);
        assert_eq!(converted.code, 3, "{lost:?}: {}", converted.report);
        assert!(failed > 0 && converted.warns("missing in the recording"), "{lost:?}");
        let messages = 30 - lost.len() as i64;
        assert!(copied <= messages && copied + failed >= messages, "{lost:?}: {copied} {failed}");
    }
}

#[test]
fn another_codec_is_left_out_with_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let mut recording = Recording::create(directory.path().join("h265.mcap"));
    for n in 0..3 {
        let data = b"\0\0\0\x01\x40\x01\x0c";
        recording.write("/hevc", Serialization::Protobuf, time(n), time(n), &video("h265", data));
        let good = Content::jpeg(&Picture::stamped(160, 120, n));
        recording.write("/cam", Serialization::Protobuf, time(n), time(n), &good);
    }
    let converted = convert(&recording.finish(), &[]).expect(3);
    assert_eq!(converted.video().frames.len(), 3);
    let skipped = &converted.report["skipped_topics"][0];
    assert_eq!(skipped["topic"], "/hevc");
    assert!(skipped["reason"].as_str().unwrap().contains("h265"), "{skipped}");
}
