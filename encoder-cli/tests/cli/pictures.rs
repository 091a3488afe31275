//! Pictures whose encoding does not say everything: depth, few bits, mosaics; and video files.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use crate::common;

use common::{
    EPOCH, MS,
    decode::decode,
    picture::Picture,
    program::convert,
    recording::{Content, Recording, Serialization},
};

const SIZE: (u32, u32) = (64, 48);

/// Grey of 16 bits in four columns.
fn wide(encoding: &str, columns: [u16; 4]) -> Content {
    let (width, height) = SIZE;
    let value = |n: u32| columns[(n % width / 16) as usize];
    let data = (0..width * height).flat_map(|n| value(n).to_le_bytes()).collect();
    Content::Image { encoding: encoding.into(), width, height, step: width * 2, big: false, data }
}

fn recorded(directory: &Path, topics: &[(&str, &Content)]) -> PathBuf {
    let mut recording = Recording::create(directory.join("x.mcap"));
    for n in 0..3 {
        let time = EPOCH + n * 40 * MS;
        for (topic, content) in topics {
            recording.write(topic, Serialization::CdrLittle, time, time, content);
        }
    }
    recording.finish()
}

/// The grey of the four columns of a video's first picture.
fn columns(path: &Path) -> Vec<f64> {
    let video = decode(path);
    (0..4).map(|n| video.frames[0].mean(n * 16 + 4..n * 16 + 12, 8..40)[1]).collect()
}

fn near(found: &[f64], wanted: [f64; 4]) -> bool {
    found.iter().zip(wanted).all(|(found, wanted)| (found - wanted).abs() < 4.0)
}

#[test]
fn depth_and_few_bits_in_pictures_of_16_bits() {
    const DEPTH: [u16; 4] = [0, 500, 2250, 4000];
    const SHOWN: [f64; 4] = [0.0, 0.0, 127.5, 255.0];
    let directory = tempfile::tempdir().unwrap();
    let (depth, infrared, full) = (
        wide("mono16", DEPTH),
        wide("mono16", [1, 341, 682, 1023]),
        wide("mono16", [0, 21845, 43690, 65535]),
    );
    let path =
        recorded(directory.path(), &[("/tof", &depth), ("/infrared", &infrared), ("/full", &full)]);
    // Without an option, the two that are nearly black are named, each once.
    let converted = convert(&path, &["--crf", "10"]).expect(0);
    let said = |option: &str| converted.said.matches(option).count();
    assert_eq!(said("--depth-range /tof=MIN:MAX shows depth"), 1, "{}", converted.said);
    assert_eq!(said("--bits /infrared=10 shows a camera of 10 bits"), 1, "{}", converted.said);
    assert_eq!(said("/full=") + said("--bits /tof=10"), 0, "{}", converted.said);
    assert!(near(&columns(&converted.path("full.mp4")), [0.0, 85.0, 170.0, 255.0]));

    // By the topic, and for everything that looks like depth.
    for (range, is_guess) in [("/tof=500:4000", false), ("500:4000", true)] {
        let options = ["--crf", "10", "--depth-range", range, "--bits", "/infrared=10"];
        let converted = convert(&path, &options).expect(0);
        for (file, wanted) in [
            ("tof.mp4", SHOWN),
            ("infrared.mp4", [0.0, 85.0, 170.0, 255.0]),
            ("full.mp4", [0.0, 85.0, 170.0, 255.0]),
        ] {
            let found = columns(&converted.path(file));
            assert!(near(&found, wanted), "{range} {file}: {found:?}");
        }
        assert_eq!(converted.said.contains("taken as depth"), is_guess, "{}", converted.said);
    }
    let converted = convert(&path, &["--topic", "/full", "--bits", "/other=12"]).expect(0);
    assert!(converted.said.contains("the topic /other are configured"), "{}", converted.said);
}

#[test]
fn a_mosaic_in_jpeg_has_its_colours() {
    let directory = tempfile::tempdir().unwrap();
    let picture = Picture::of(64, 48, |x, _| if x < 32 { [220, 40, 40] } else { [40, 40, 220] });
    let channel = |x: usize, y: usize| [[0, 1], [1, 2]][y % 2][x % 2];
    let samples: Vec<u8> =
        (0..64 * 48).map(|n| picture.pixel(n % 64, n / 64)[channel(n % 64, n / 64)]).collect();
    let mut jpeg = Vec::new();
    let encoder = jpeg_encoder::Encoder::new(&mut jpeg, 100);
    encoder.encode(&samples, 64, 48, jpeg_encoder::ColorType::Luma).unwrap();
    let content = Content::compressed("bayer_rggb8; jpeg compressed ", jpeg);
    let path = recorded(directory.path(), &[("/cam", &content)]);
    let video = convert(&path, &["--crf", "10"]).expect(0).video();
    for (x, wanted) in [(4, [220.0, 40.0, 40.0]), (36, [40.0, 40.0, 220.0])] {
        let found = video.frames[0].mean(x..x + 24, 8..40);
        let far = found.iter().zip(wanted).any(|(found, wanted)| (found - wanted).abs() > 8.0);
        assert!(!far, "{found:?}");
    }
}

#[test]
fn pictures_are_turned_upright_by_an_option() {
    let directory = tempfile::tempdir().unwrap();
    let pictures = directory.path().join("photos");
    std::fs::create_dir(&pictures).unwrap();
    // Black on top; shown, it is turned to the right.
    let picture = Picture::of(64, 32, |_, y| if y < 16 { [0; 3] } else { [255; 3] });
    let mut jpeg = picture.jpeg420();
    let exif =
        b"\xff\xe1\0\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    jpeg.splice(2..2, *exif);
    for n in 0..2 {
        std::fs::write(pictures.join(format!("{n}.jpg")), &jpeg).unwrap();
    }
    let converted = convert(&pictures, &[]).expect(0);
    assert!(converted.said.contains("--exif-orientation apply"), "{}", converted.said);
    assert_eq!((converted.video().width, converted.video().height), (64, 32));
    let converted = convert(&pictures, &["--exif-orientation", "apply"]).expect(0);
    assert!(!converted.said.contains("EXIF"), "{}", converted.said);
    let video = converted.video();
    assert_eq!((video.width, video.height), (32, 64));
    assert!(video.frames[0].mean(2..14, 4..60)[1] > 250.0);
    assert!(video.frames[0].mean(18..30, 4..60)[1] < 5.0);
}

#[test]
fn a_video_file_whose_size_changes_is_a_video_for_each() {
    let directory = tempfile::tempdir().unwrap();
    let mut stream = Vec::new();
    for (size, first) in [((320, 240), 0), ((128, 96), 20), ((320, 240), 30)] {
        for n in first..first + if first == 0 { 20 } else { 10 } {
            stream.extend(Picture::stamped(size.0, size.1, n).jpeg420());
        }
    }
    let path = directory.path().join("stream.mjpeg");
    std::fs::write(&path, stream).unwrap();
    let converted = convert(&path, &["--fps", "20"]).expect(0);
    let files = converted.files();
    assert_eq!(files, ["report.json", "stream.mjpeg.mp4", "stream.mjpeg_part2.mp4"], "{files:?}");
    for (file, numbers) in [
        ("stream.mjpeg.mp4", (0..20).chain(30..40).collect::<Vec<_>>()),
        ("stream.mjpeg_part2.mp4", (20..30).collect()),
    ] {
        let video = decode(&converted.path(file));
        assert_eq!(video.numbers(), numbers.iter().copied().map(Some).collect::<Vec<_>>());
        let times: Vec<_> = numbers.iter().map(|n| (n - numbers[0]) as u64).collect();
        let ticks: Vec<_> = video.pts.iter().map(|pts| pts * 20 / video.timescale).collect();
        assert_eq!(ticks, times, "{file}");
    }
}
