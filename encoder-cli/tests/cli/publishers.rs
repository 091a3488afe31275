//! Several publishers on one topic, and topics of video types that are not converted.

use crate::common;

use common::{
    EPOCH, MS,
    decode::decode,
    picture::Picture,
    program::convert,
    recording::{Content, Recording, Serialization, small_jpeg},
};
use serde_json::Value;

/// A recording of the topic `/cam` at 20 fps: the frame id and the content of each message.
fn recording(directory: &std::path::Path, messages: &[(&str, Content)]) -> std::path::PathBuf {
    let mut recording = Recording::create(directory.join("a.mcap"));
    let channel = recording.topic("/cam", Serialization::CdrLittle, &small_jpeg(0));
    for (n, (frame_id, content)) in messages.iter().enumerate() {
        let time = EPOCH + n as i64 * 50 * MS;
        let message = content.message_from(frame_id, Serialization::CdrLittle, time);
        recording.bytes(channel, time, &message);
    }
    recording.finish()
}

#[test]
fn two_cameras_on_one_topic_are_two_videos() {
    let directory = tempfile::tempdir().unwrap();
    let messages: Vec<_> =
        (0..40).map(|n| (if n % 2 == 0 { "left" } else { "right" }, small_jpeg(n))).collect();
    let path = recording(directory.path(), &messages);
    for args in [&[][..], &["--resample", "10", "--grid", "camera"], &["--fps", "10"]] {
        let converted = convert(&path, args).expect(0);
        let outputs = converted.outputs();
        let of = |key: &str| outputs.iter().map(|o| o[key].clone()).collect::<Vec<Value>>();
        assert_eq!(of("frame_id"), ["left", "right"]);
        assert_eq!(of("file"), ["cam.mp4", "cam_right.mp4"]);
        for (output, parity) in outputs.iter().zip(0..) {
            let video = decode(&converted.path(output["file"].as_str().unwrap()));
            let expected: Vec<_> = (0..20).map(|n| Some(2 * n + parity)).collect();
            assert_eq!(video.numbers(), expected, "{args:?}");
        }
        let text = "the frame ids \"left\", \"right\" alternate";
        assert_eq!(converted.said.matches(text).count(), 1, "{}", converted.said);
    }
}

#[test]
fn a_frame_id_that_changes_once_is_one_camera() {
    let directory = tempfile::tempdir().unwrap();
    let messages: Vec<_> =
        (0..20).map(|n| (if n < 2 { "" } else { "camera" }, small_jpeg(n))).collect();
    let converted = convert(&recording(directory.path(), &messages), &[]).expect(0);
    assert_eq!(converted.video().numbers(), (0..20).map(Some).collect::<Vec<_>>());
    assert!(converted.output().get("frame_id").is_none(), "{}", converted.report);
    assert_eq!(converted.said.matches("WARN").count(), 0, "{}", converted.said);
}

#[test]
fn a_picture_with_an_empty_frame_id_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let messages: Vec<_> =
        (0..20).map(|n| (if n == 15 { "" } else { "left" }, small_jpeg(n))).collect();
    let converted = convert(&recording(directory.path(), &messages), &[]).expect(0);
    assert_eq!(converted.video().numbers(), (0..20).map(Some).collect::<Vec<_>>());
    let text = "message 15 has an empty frame id and is taken for a picture of \"left\"";
    assert_eq!(converted.said.matches(text).count(), 1, "{}", converted.said);
}

#[test]
fn sizes_that_alternate_are_one_warning() {
    let directory = tempfile::tempdir().unwrap();
    let large = |n| Content::jpeg(&Picture::stamped(320, 240, n));
    let messages: Vec<_> =
        (0..60).map(|n| ("camera", if n % 2 == 0 { small_jpeg(n) } else { large(n) })).collect();
    let converted = convert(&recording(directory.path(), &messages), &[]).expect(0);
    for (output, parity) in converted.outputs().into_iter().zip(0..) {
        let video = decode(&converted.path(output["file"].as_str().unwrap()));
        assert_eq!(video.numbers(), (0..30).map(|n| Some(2 * n + parity)).collect::<Vec<_>>());
    }
    assert_eq!(converted.outputs().len(), 2);
    assert_eq!(converted.said.matches("the pictures change").count(), 1, "{}", converted.said);
}

#[test]
fn videos_in_types_that_are_not_converted_are_skipped_topics() {
    let directory = tempfile::tempdir().unwrap();
    let mut recording = Recording::create(directory.path().join("a.mcap"));
    for n in 0..10 {
        let time = EPOCH + n as i64 * 50 * MS;
        recording.write("/cam", Serialization::CdrLittle, time, time, &small_jpeg(n));
        let hevc = Content::compressed("h265", vec![0, 0, 0, 1, 0x40]);
        recording.write("/hevc", Serialization::CdrLittle, time, time, &hevc);
    }
    let types = [
        ("/theora", "theora_image_transport/msg/Packet"),
        ("/ffmpeg", "ffmpeg_image_transport_msgs/msg/FFMPEGPacket"),
        ("/h264", "h264_msgs/msg/Packet"),
    ];
    for (topic, schema) in types {
        let channel = recording.other(topic, schema, "cdr", "ros2msg");
        let mut message = vec![0, 1, 0, 0];
        message.extend([0; 40]);
        recording.bytes(channel, EPOCH, &message);
    }
    let path = recording.finish();
    let converted = convert(&path, &[]).expect(3);
    assert_eq!(converted.video().numbers().len(), 10);
    let skipped = converted.report["skipped_topics"].as_array().unwrap();
    let topics: Vec<_> = skipped.iter().map(|s| s["topic"].as_str().unwrap()).collect();
    assert_eq!(topics, ["/hevc", "/theora", "/ffmpeg", "/h264"]);
    for topic in skipped {
        assert_eq!(topic["reason_kind"], "codec", "{topic}");
    }
    assert_eq!((&skipped[0]["frames_in"], &skipped[1]["frames_in"]), (&10.into(), &1.into()));
    // Topics that are not asked for are not missed.
    convert(&path, &["--topic", "/cam"]).expect(0);
}

#[test]
fn h264_in_compressed_images_is_copied() {
    let directory = tempfile::tempdir().unwrap();
    // Access units of a video that the program itself makes.
    let messages: Vec<_> = (0..5).map(|n| ("camera", small_jpeg(n))).collect();
    let source = recording(directory.path(), &messages);
    let converted = convert(&source, &["--format", "annexb", "--gop", "1"]).expect(0);
    let stream = std::fs::read(converted.path("cam.h264")).unwrap();
    let mut units: Vec<Vec<u8>> = Vec::new();
    for unit in encoder_core::nal_units(&stream) {
        // Each access unit begins with its parameter sets.
        if unit[0] & 31 == 7 {
            units.push(Vec::new());
        }
        let last = units.last_mut().unwrap();
        last.extend([0, 0, 0, 1]);
        last.extend(unit);
    }
    assert_eq!(units.len(), 5);
    let messages: Vec<_> =
        units.into_iter().map(|unit| ("camera", Content::compressed("h264", unit))).collect();
    let converted = convert(&recording(directory.path(), &messages), &[]).expect(0);
    assert_eq!(converted.output()["encoder"], "copy");
    assert_eq!(converted.video().numbers(), (0..5).map(Some).collect::<Vec<_>>());
}
