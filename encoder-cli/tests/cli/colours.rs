//! Colours survive the conversion: every encoding, decoded by FFmpeg and compared.
#![allow(clippy::unwrap_used)]

use crate::common;

use common::{
    EPOCH, MS,
    decode::{Video, luma},
    mp4,
    picture::{PATCHES, Picture, psnr},
    program::convert,
    recording::{Content, Recording, Serialization, camera},
};
use jpeg_encoder::SamplingFactor;

/// A topic and how its messages are made.
type Kind<'a> = (&'a str, &'a dyn Fn(&Picture) -> Content);

/// One recording with a topic for each of the contents, three frames each; converts it.
fn each(
    name: &str,
    size: (usize, usize),
    kinds: &[Kind<'_>],
    args: &[&str],
) -> Vec<(String, Video)> {
    let directory = tempfile::tempdir().unwrap();
    let mut recording = Recording::create(directory.path().join(format!("{name}.mcap")));
    for n in 0..3 {
        let picture = Picture::stamped(size.0, size.1, n);
        let time = EPOCH + n as i64 * 33 * MS;
        for (topic, content) in kinds {
            recording.write(
                &format!("/{topic}"),
                Serialization::CdrLittle,
                time,
                time,
                &content(&picture),
            );
        }
    }
    let path = recording.finish();
    let converted = convert(&path, &[&["--crf", "10"], args].concat()).expect(0);
    assert_eq!(converted.outputs().len(), kinds.len());
    kinds
        .iter()
        .map(|(topic, _)| {
            let path = converted.path(&format!("{topic}.mp4"));
            let video = common::decode::decode(&path);
            // BT.601 in limited range, also in the container. (Primaries and transfer are not
            // checked: recordings do not contain them.)
            let colour = mp4::colour(&std::fs::read(path).unwrap());
            let (_, _, matrix, full_range) = colour.expect("a colr box");
            assert!(matches!(matrix, 5 | 6) && !full_range, "{topic}: {colour:?}");
            assert_eq!(video.numbers(), [Some(0), Some(1), Some(2)], "{topic}");
            (topic.to_string(), video)
        })
        .collect()
}

fn check(videos: &[(String, Video)], levels: f64) {
    for (topic, video) in videos {
        for frame in &video.frames {
            frame.check_patches(levels, topic);
        }
    }
}

fn raw<'a>(encoding: &'a str, padding: usize) -> impl Fn(&Picture) -> Content + 'a {
    move |picture| Content::raw(picture, encoding, padding)
}

fn jpeg(sampling: SamplingFactor) -> impl Fn(&Picture) -> Content {
    move |picture| Content::compressed("jpeg", picture.jpeg(sampling))
}

#[test]
fn colours_of_raw_encodings() {
    let size = (256, 96);
    let kinds: &[Kind<'_>] = &[
        ("rgb8", &raw("rgb8", 0)),
        ("bgr8", &raw("bgr8", 0)),
        ("bgr8_padded", &raw("bgr8", 13)),
        ("rgba8", &raw("rgba8", 0)),
        ("bgra8", &raw("bgra8", 64)),
        ("yuyv", &raw("yuv422_yuy2", 0)),
        ("uyvy", &raw("yuv422", 6)),
        ("nv12", &raw("nv12", 0)),
        ("nv12_padded", &raw("nv12", 32)),
        ("i420", &raw("i420", 0)),
        ("i420_padded", &raw("i420", 32)),
    ];
    check(&each("raw", size, kinds, &[]), 3.0);
    // The other encoder, run by FFmpeg.
    check(&each("raw", size, &kinds[..3], &["--encoder", "x264"]), 3.0);
}

#[test]
fn colours_of_stills() {
    let png: &dyn Fn(&Picture) -> Content = &|picture| Content::compressed("png", picture.png());
    let kinds: &[Kind<'_>] = &[
        ("jpeg420", &jpeg(SamplingFactor::R_4_2_0)),
        ("jpeg422", &jpeg(SamplingFactor::R_4_2_2)),
        ("jpeg444", &jpeg(SamplingFactor::R_4_4_4)),
        ("png", png),
    ];
    check(&each("stills", (256, 96), kinds, &[]), 3.0);
}

#[test]
fn grey_stays_grey() {
    let kinds: &[Kind<'_>] = &[("mono8", &raw("mono8", 0)), ("mono8_padded", &raw("mono8", 7))];
    for (topic, video) in each("grey", (256, 96), kinds, &[]) {
        for ((name, [r, g, b]), got) in PATCHES.iter().zip(video.frames[0].patches()) {
            let [r, g, b] = [r, g, b].map(|c| f64::from(*c));
            let wanted = 0.299 * r + 0.587 * g + 0.114 * b;
            for got in got {
                assert!((got - wanted).abs() <= 3.0, "{topic} {name}: {got:.1}, not {wanted:.1}");
            }
        }
    }
}

#[test]
fn odd_sizes_and_padded_rows_are_not_skewed() {
    let size = (641, 479);
    let png: &dyn Fn(&Picture) -> Content = &|picture| Content::compressed("png", picture.png());
    let kinds: &[Kind<'_>] = &[
        ("bgr8", &raw("bgr8", 0)),
        ("rgb8_padded", &raw("rgb8", 5)),
        ("jpeg420", &jpeg(SamplingFactor::R_4_2_0)),
        ("png", png),
    ];
    for (topic, video) in each("odd", size, kinds, &[]) {
        assert_eq!((video.width, video.height), (642, 480), "{topic}");
        for (n, frame) in video.frames.iter().enumerate() {
            frame.check_patches(3.0, &topic);
            let sent = Picture::stamped(size.0, size.1, n);
            // A row that is off by one pixel differs by tens of levels at the bar code's edges.
            let mut off = 0u64;
            for y in 0..480 {
                for x in 0..642 {
                    let sent = sent.pixel(x.min(640), y.min(478));
                    let got = frame.pixel(x, y);
                    off +=
                        sent.iter().zip(got).map(|(&a, b)| u64::from(a.abs_diff(b))).sum::<u64>();
                }
            }
            let mean = off as f64 / (642.0 * 480.0 * 3.0);
            assert!(mean < 2.5, "{topic}, frame {n}: {mean:.2} levels off on average");
            // The repeated column and row.
            for y in [10, 200, 479] {
                let (edge, inner) = (frame.pixel(641, y), frame.pixel(639, y));
                assert!(edge.iter().zip(inner).all(|(a, b)| a.abs_diff(b) < 24), "{topic} at {y}");
            }
        }
    }
}

#[test]
fn every_serialisation_gives_the_same_pictures() {
    let directory = tempfile::tempdir().unwrap();
    let mut recording = Recording::create(directory.path().join("serializations.mcap"));
    let serializations = [
        Serialization::CdrLittle,
        Serialization::CdrBig,
        Serialization::Ros1,
        Serialization::Json,
        Serialization::Protobuf,
    ];
    let mut topics = Vec::new();
    for serialization in serializations {
        for n in 0..2 {
            let picture = Picture::stamped(160, 120, n);
            let time = EPOCH + n as i64 * 50 * MS;
            for (kind, content) in
                [("raw", Content::raw(&picture, "bgr8", 0)), ("jpeg", Content::jpeg(&picture))]
            {
                let topic = format!("/{serialization:?}/{kind}");
                recording.write(&topic, serialization, time + 1, time, &content);
                topics.push(format!("{serialization:?}_{kind}.mp4"));
            }
        }
    }
    topics.dedup();
    let converted = convert(&recording.finish(), &["--crf", "10"]).expect(0);
    for topic in topics {
        let video = common::decode::decode(&converted.path(&topic));
        assert_eq!(video.numbers(), [Some(0), Some(1)], "{topic}");
        assert_eq!(video.nanoseconds(), [0, 50_000_000], "{topic}");
        video.frames[1].check_patches(3.0, &topic);
    }
    for output in converted.outputs() {
        assert_eq!(output["first_stamp_ns"], EPOCH + 1);
    }
}

#[test]
fn a_scene_keeps_its_detail() {
    let (width, height, count) = (320, 240, 12);
    let directory = tempfile::tempdir().unwrap();
    let frames: Vec<_> = (0..count)
        .map(|n| {
            let time = EPOCH + n as i64 * 33 * MS;
            (time, time, Content::raw(&Picture::scene(width, height, n), "rgb8", 0))
        })
        .collect();
    let path = camera(directory.path(), &frames);
    for encoder in ["openh264", "x264"] {
        let converted = convert(&path, &["--crf", "18", "--encoder", encoder]).expect(0);
        let decoded = luma(&converted.path("cam.mp4"), width, height);
        let sent: Vec<u8> =
            (0..count).flat_map(|n| Picture::scene(width, height, n).luma()).collect();
        let quality = psnr(&decoded.concat(), &sent);
        assert!(quality > 35.0, "{encoder}: {quality:.1} dB");
        assert!(quality < 60.0, "{encoder}: {quality:.1} dB cannot be the coded picture");
    }
}
