//! Tests of directories of pictures.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::Moment;

fn directory(files: &[&str]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for file in files {
        let path = directory.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, file).unwrap();
    }
    directory
}

/// Rates of the streams, and the packets: stream, number, time, stamp, name of the file.
type Read = (Vec<(String, Option<FrameRate>)>, Vec<(usize, u64, i64, Option<i64>, String)>);

fn read(path: &Path, options: &SourceOptions) -> Read {
    let mut source = ImagesSource::open(path, options).unwrap();
    let (mut streams, mut packets) = (Vec::new(), Vec::new());
    while let Some(event) = source.next_event().unwrap() {
        match event {
            Event::Stream(info) => streams.push((info.topic, info.rate)),
            Event::Warning(warning) => assert!(!warning.loss, "{warning:?}"),
            Event::Packet(p) => {
                let Ok(Payload::Compressed { data, format }) = p.payload else { panic!() };
                let name = String::from_utf8(data.to_vec()).unwrap();
                assert_eq!(format == "png", name.to_lowercase().ends_with("png"));
                packets.push((p.stream, p.number, p.log_ns, p.header_ns, name));
            }
            other => panic!("{other:?}"),
        }
    }
    (streams, packets)
}

#[test]
fn pictures_that_are_not_decoded_are_a_loss() {
    for (files, count) in [
        (&["1.jpg", "2.txt", "3.csv"][..], None),
        (&["1.jpg", "2.webp", "3.jfif"], Some("1 picture (2.webp)")),
        (&["1.JPG", "2.BMP", "3.tiff"], Some("2 pictures (2.BMP and others)")),
        (&["left/1.jpg", "left/2.webp"], Some("left: 1 picture (2.webp)")),
        (&["left/1.jpg", "right/1.gif"], Some("right: 1 picture (1.gif)")),
    ] {
        let directory = directory(files);
        let options = SourceOptions { rate: Some(FrameRate::default()), ..Default::default() };
        let mut source = ImagesSource::open(directory.path(), &options).unwrap();
        let event = source.next_event().unwrap();
        match (count, event) {
            (None, Some(Event::Stream(_))) => {}
            (Some(count), Some(Event::Warning(Warning { text, loss: true }))) => {
                assert!(text.contains(count), "{text}");
            }
            other => panic!("{other:?}"),
        }
    }
    for (files, hint) in [
        (&["1.bmp", "2.bmp"][..], "2 pictures (1.bmp and others)"),
        (&["a.txt"], "name the directory"),
    ] {
        let directory = directory(files);
        let error = ImagesSource::open(directory.path(), &SourceOptions::default());
        let error = error.err().unwrap().to_string();
        assert!(error.contains(hint), "{error}");
    }
}

#[test]
fn a_single_directory_is_a_topic_too() {
    let directory = directory(&["1.jpg"]);
    let name = name(directory.path());
    for (topic, opens) in [(name.as_str(), true), ("*", true), ("/cam", false)] {
        let options = SourceOptions { topics: vec![topic.into()], ..Default::default() };
        let source = ImagesSource::open(directory.path(), &options);
        assert_eq!(source.is_ok(), opens, "{topic}");
        if let Err(error) = source {
            assert!(error.to_string().contains(&name), "{error}");
        }
    }
}

#[test]
fn files_in_order_at_a_rate() {
    let directory = directory(&[
        "img10.JPG",
        "img2.jpeg",
        "img1.jpg",
        ".img0.jpg",
        "notes.txt",
        "b.PNG",
        "x/y.png",
    ]);
    let rate: FrameRate = "10".parse().unwrap();
    let options = SourceOptions { rate: Some(rate), ..Default::default() };
    let (streams, packets) = read(directory.path(), &options);
    let name = directory.path().file_name().unwrap().to_str().unwrap();
    assert_eq!(streams, [(name.to_owned(), Some(rate))]);
    let names: Vec<_> = packets.iter().map(|p| (p.2, p.4.as_str())).collect();
    let tenth = 100_000_000;
    let expected =
        [(0, "b.PNG"), (tenth, "img1.jpg"), (2 * tenth, "img2.jpeg"), (3 * tenth, "img10.JPG")];
    assert_eq!(names, expected);
    let window = SourceOptions { start: Some(Moment::FromStart(2 * tenth)), ..options };
    assert_eq!(read(directory.path(), &window).1, packets[2..]);
}

#[test]
fn stamps_are_times_unless_a_rate_is_given() {
    let directory = directory(&["1600000000000000.png", "1600000000500000.jpg", "data.csv"]);
    let (streams, packets) = read(directory.path(), &SourceOptions::default());
    assert_eq!(streams[0].1, None);
    let times: Vec<_> = packets.iter().map(|p| (p.2, p.3)).collect();
    let (a, b) = (1_600_000_000_000_000_000, 1_600_000_000_500_000_000);
    assert_eq!(times, [(a, Some(a)), (b, Some(b))]);
    let rate = Some(FrameRate::default());
    let (streams, packets) = read(directory.path(), &SourceOptions { rate, ..Default::default() });
    assert_eq!((streams[0].1, packets[1].2, packets[1].3), (rate, 33_333_333, None));
}

#[test]
fn times_in_names() {
    // The names in order; their times in milliseconds from the first, and a part of the warning
    // if these are not used.
    let table: &[(&[&str], Result<&[i64], &str>)] = &[
        (
            &["1700000000.5.jpg", "1700000000.55.jpg", "1700000000.6.jpg", "1700000001.0.jpg"],
            Ok(&[0, 50, 100, 500]),
        ),
        (&["f_1700000000.jpg", "f_1700000000.25.jpg", "f_1700000002.jpg"], Ok(&[0, 250, 2000])),
        (&["1700000000040.png", "1700000000080.png"], Ok(&[0, 40])),
        (&["2023-11-15T17-04-30.5Z.jpg", "2023-11-15T17-04-31Z.jpg"], Ok(&[0, 500])),
        (
            &["img1.jpg", "img2.jpg", "img10.jpg"],
            Err("no name states a time; the pictures are put"),
        ),
        (&["0000000001.png", "0000000002.png"], Err("no name states a time")),
        (
            &["1700000000040.png", "1700000000080.png", "cover.png"],
            Err("2 of 3 names state times, but not cover.png; the pictures are put at 30"),
        ),
        (
            &["IMG_20231115_170430.jpg", "IMG_20231115_170431.jpg", "IMG_20231115_170431 (1).jpg"],
            Err("in different forms: IMG_20231115_170430.jpg and IMG_20231115_170431 (1).jpg"),
        ),
        (&["1700000000.jpg", "1700000000.png"], Err("but some of them the same")),
        (&["1700000000.jpg", "1700000001000.jpg"], Err("1700000000.jpg and 1700000001000.jpg")),
        (&["a1700000000.jpg", "b1700000001.jpg"], Err("different forms")),
    ];
    for (files, expected) in table {
        let directory = directory(files);
        let mut options = SourceOptions::default();
        let mut source = ImagesSource::open(directory.path(), &options).unwrap();
        let (mut names, mut times, mut warnings) = (Vec::new(), Vec::new(), String::new());
        while let Some(event) = source.next_event().unwrap() {
            match event {
                Event::Packet(packet) => {
                    let Ok(Payload::Compressed { data, .. }) = packet.payload else { panic!() };
                    names.push(String::from_utf8(data.to_vec()).unwrap());
                    times.push(packet.log_ns);
                }
                Event::Warning(warning) => warnings += &warning.text,
                _ => {}
            }
        }
        assert_eq!(names, *files);
        match expected {
            Ok(expected) => {
                let from_first = times.iter().map(|t| (t - times[0]) / 1_000_000);
                assert_eq!(from_first.collect::<Vec<_>>(), *expected);
                assert_eq!(warnings, "");
            }
            Err(part) => {
                assert_eq!(times[1], 33_333_333, "{files:?}");
                assert!(warnings.contains(part), "{warnings}");
                assert_eq!(warnings.is_empty(), part.is_empty(), "{warnings}");
            }
        }
        // A rate that is given is no guess; the order may be one.
        options.rate = Some("10".parse().unwrap());
        let mut source = ImagesSource::open(directory.path(), &options).unwrap();
        let is_unsure = matches!(expected, Err(part) if ["but not", "form", " and "].iter().any(|p| part.contains(p)));
        match source.next_event().unwrap() {
            Some(Event::Stream(_)) => assert!(!is_unsure, "{files:?}"),
            Some(Event::Warning(Warning { text, .. })) => {
                assert!(is_unsure && text.ends_with("are in the order of their names"), "{text}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_directory_per_camera() {
    let directory = directory(&["left/1.jpg", "left/2.jpg", "right/1.png", "other/x.txt"]);
    let (streams, packets) = read(directory.path(), &SourceOptions::default());
    assert_eq!(streams.iter().map(|s| s.0.as_str()).collect::<Vec<_>>(), ["left", "right"]);
    let order: Vec<_> = packets.iter().map(|p| (p.0, p.1)).collect();
    assert_eq!(order, [(0, 0), (1, 0), (0, 1)]);
    let right = SourceOptions { topics: vec!["r*".into()], ..Default::default() };
    assert_eq!(read(directory.path(), &right).1.len(), 1);
}

#[test]
fn each_directory_is_judged_by_itself() {
    let directory = directory(&[
        "left/1700000000000.jpg",
        "left/1700000000050.jpg",
        "right/1.jpg",
        "right/2.jpg",
        "top/1700000000020.jpg",
        "top/1700000000070.jpg",
    ]);
    let options = SourceOptions::default();
    let (streams, packets) = read(directory.path(), &options);
    let rates: Vec<_> = streams.iter().map(|stream| stream.1).collect();
    assert_eq!(rates, [None, Some(FrameRate::default()), None]);
    let first = 1_700_000_000_000_000_000;
    let times: Vec<_> = packets.iter().map(|p| (p.0, p.2 - first, p.3.is_some())).collect();
    const MS: i64 = 1_000_000;
    let expected = [
        (0, 0, true),
        (1, 0, false),
        (2, 20 * MS, true),
        (1, 33_333_333, false),
        (0, 50 * MS, true),
        (2, 70 * MS, true),
    ];
    assert_eq!(times, expected);
    // The window is the same for all.
    let start = Some(Moment::FromStart(33 * MS));
    let window = SourceOptions { start, ..Default::default() };
    assert_eq!(read(directory.path(), &window).1, packets[3..]);
    // With a rate all have it.
    let rate: FrameRate = "20".parse().unwrap();
    let options = SourceOptions { rate: Some(rate), ..Default::default() };
    let (streams, packets) = read(directory.path(), &options);
    assert!(streams.iter().all(|stream| stream.1 == Some(rate)));
    let times: Vec<_> = packets.iter().map(|p| p.2).collect();
    assert_eq!(times, [0, 0, 0, 50 * MS, 50 * MS, 50 * MS]);
}

#[test]
fn a_picture_that_cannot_be_read_is_counted() {
    let directory = directory(&["1.jpg", "2.jpg"]);
    let limits = Limits { message_bytes: 4, ..Default::default() };
    let rate = Some(FrameRate::default());
    let options = SourceOptions { limits, rate, ..Default::default() };
    let mut source = ImagesSource::open(directory.path(), &options).unwrap();
    source.next_event().unwrap();
    for name in ["1.jpg", "2.jpg"] {
        let Some(Event::Packet(packet)) = source.next_event().unwrap() else { panic!() };
        assert!(packet.payload.unwrap_err().reason.contains(name));
    }
}

#[test]
fn no_pictures() {
    let directory = directory(&["readme.txt", "x/y.txt"]);
    let error = ImagesSource::open(directory.path(), &SourceOptions::default()).err().unwrap();
    assert!(error.to_string().contains("*.jpg"), "{error}");
}
