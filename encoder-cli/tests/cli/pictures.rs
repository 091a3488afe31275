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
fn depth_that_begins_after_the_video_is_shown_as_depth() {
    let directory = tempfile::tempdir().unwrap();
    let (width, height) = SIZE;
    let data = vec![64; (width * height) as usize];
    let grey =
        Content::Image { encoding: "mono8".into(), width, height, step: 0, big: false, data };
    let depth = wide("mono16", [0, 500, 2250, 4000]);
    let mut recording = Recording::create(directory.path().join("x.mcap"));
    for n in 0..5 {
        let content = if n < 2 { &grey } else { &depth };
        let time = EPOCH + n * 40 * MS;
        recording.write("/depth", Serialization::CdrLittle, time, time, content);
    }
    let options = ["--crf", "10", "--depth-range", "500:4000"];
    let converted = convert(&recording.finish(), &options).expect(0);
    assert!(converted.warns("from frame 2 on: "), "{}", converted.report);
    let video = converted.video();
    for (frame, wanted) in [(1, 64.0), (2, 127.5), (4, 127.5)] {
        let found = video.frames[frame].mean(36..44, 8..40)[1];
        assert!((found - wanted).abs() < 6.0, "frame {frame}: {found}");
    }
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

#[test]
fn values_above_the_bits_are_counted_wherever_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let mut recording = Recording::create(directory.path().join("x.mcap"));
    for n in 0..40 {
        let time = EPOCH + n * 40 * MS;
        let highest = if n < 35 { 1023 } else { 1500 };
        let content = wide("mono16", [0, 341, 682, highest]);
        recording.write("/infrared", Serialization::CdrLittle, time, time, &content);
    }
    let path = recording.finish();
    let converted = convert(&path, &["--bits", "10"]).expect(0);
    let said = "the values of 5 pictures, from frame 35 on, reach 1500, which is more than 10 bits";
    assert!(converted.warns(said), "{:#}", converted.report);
    assert_eq!(converted.said.matches(said).count(), 1, "{}", converted.said);
}

#[test]
fn an_orientation_that_comes_late_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let plain = Picture::of(64, 32, |_, _| [90; 3]).jpeg420();
    let exif =
        b"\xff\xe1\0\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let mut turned = plain.clone();
    turned.splice(2..2, *exif);
    let mut recording = Recording::create(directory.path().join("x.mcap"));
    for n in 0..40 {
        let time = EPOCH + n * 40 * MS;
        let data = if n < 38 { plain.clone() } else { turned.clone() };
        let content = Content::compressed("bgr8; jpeg compressed", data);
        recording.write("/cam", Serialization::CdrLittle, time, time, &content);
    }
    let converted = convert(&recording.finish(), &[]).expect(0);
    for said in [
        "the format `bgr8; jpeg compressed` does not say whether red and blue are exchanged",
        "from frame 38 on: the pictures lie on their side",
        "2 of the 40 pictures have an EXIF orientation",
    ] {
        assert!(converted.warns(said), "{said}: {:#}", converted.report);
        assert_eq!(converted.said.matches(said).count(), 1, "{}", converted.said);
    }
}

#[test]
fn pauses_and_steps_of_the_clock_in_a_transport_stream() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.ts");
    let status = std::process::Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-f", "lavfi", "-i"])
        .args(["testsrc=size=64x48:rate=10:duration=2", "-vf", "setpts='PTS+gte(N,10)*30/TB'"])
        .args(["-fps_mode", "passthrough", "-c:v", "libx264", "-bf", "0"])
        .arg(&path)
        .status();
    assert!(status.expect("this test needs ffmpeg on the PATH").success());
    // A pause is a pause.
    let video = convert(&path, &[]).expect(0).video();
    let tenths: Vec<_> = video.pts.iter().map(|pts| pts * 10 / video.timescale).collect();
    assert_eq!(tenths, (0..10).chain(310..320).collect::<Vec<_>>());
    // Where the clock starts again, the jump is closed.
    let stream = std::fs::read(&path).unwrap();
    std::fs::write(&path, stream.repeat(2)).unwrap();
    let converted = convert(&path, &[]).expect(3);
    assert!(converted.warns("step back by 31.900 s at frame 20"), "{:#}", converted.report);
    assert_eq!(converted.count("times_guessed"), 1);
    let video = converted.video();
    let tenths: Vec<_> = video.pts.iter().map(|pts| pts * 10 / video.timescale).collect();
    assert_eq!(tenths.len(), 40);
    assert_eq!(tenths[19..31], [319, 320, 321, 322, 323, 324, 325, 326, 327, 328, 329, 630]);
}
