use std::process::Command;

use super::*;

fn ffmpeg(arguments: &[&str], output: &Path) {
    let status = Command::new("ffmpeg")
        .args(["-hide_banner", "-loglevel", "error", "-nostdin", "-y"])
        .args(arguments)
        .arg(output)
        .status()
        .expect("these tests need ffmpeg on the PATH");
    assert!(status.success(), "{arguments:?}");
}

/// Time, width, height, first sample.
type Shown = (i64, u32, u32, u8);

fn read(path: &Path, options: &SourceOptions) -> (Vec<Shown>, Vec<Warning>) {
    let mut source = VideoSource::open(path, options).unwrap();
    assert!(matches!(source.next_event().unwrap(), Some(Event::Stream(_))));
    let (mut frames, mut warnings) = (Vec::new(), Vec::new());
    while let Some(event) = source.next_event().unwrap() {
        match event {
            Event::Packet(packet) => {
                let Ok(Payload::Raw(image)) = packet.payload else { panic!() };
                frames.push((packet.log_ns, image.width, image.height, image.data[0]));
            }
            Event::Warning(warning) => warnings.push(warning),
            other => panic!("{other:?}"),
        }
    }
    (frames, warnings)
}

#[test]
fn variable_rate_keeps_its_times() {
    let directory = tempfile::tempdir().unwrap();
    // A name that looks like an option and like a protocol.
    let path = directory.path().join("-x:y %d.mp4");
    // Frames 0, 1, 2, 4, 6, 8: two rates in one file.
    let select = "select='lt(n,3)+not(mod(n,2))'";
    let lavfi = ["-f", "lavfi", "-i", "testsrc=size=97x65:rate=10:duration=1", "-vf", select];
    ffmpeg(&[&lavfi[..], &["-fps_mode", "passthrough", "-c:v", "mpeg4"]].concat(), &path);
    let (frames, warnings) = read(&path, &SourceOptions::default());
    let times: Vec<_> = frames.iter().map(|f| f.0 / 100_000_000).collect();
    assert_eq!(times, [0, 1, 2, 4, 6, 8]);
    assert!(frames.iter().all(|f| (f.1, f.2) == (97, 65)));
    assert_eq!(warnings, []);

    use crate::Moment::FromStart;
    let window = SourceOptions {
        start: Some(FromStart(150_000_000)),
        end: Some(FromStart(650_000_000)),
        ..Default::default()
    };
    assert_eq!(read(&path, &window).0.len(), 3);
}

#[test]
fn long_pauses_stay_and_times_that_step_back_are_passed_on() {
    let directory = tempfile::tempdir().unwrap();
    let source = "testsrc=size=64x48:rate=10:duration=1";
    // B-frames are decoded ahead of their times, across the pause.
    for (name, pause_s, options) in [
        ("a.ts", 30i64, ["-bf", "0"]),
        ("b.ts", 30, ["-bf", "2"]),
        ("c.mkv", 40 * 3600, ["-bf", "0"]),
    ] {
        let filter = format!("setpts='PTS+gte(N,5)*{pause_s}/TB'");
        let common = ["-vf", &filter, "-fps_mode", "passthrough", "-c:v", "libx264"];
        let path = video(directory.path(), name, source, &[&common[..], &options].concat());
        let (frames, warnings) = read(&path, &SourceOptions::default());
        let times: Vec<_> = frames.iter().map(|frame| frame.0).collect();
        let time = |n: i64| n * 100_000_000 + if n < 5 { 0 } else { pause_s * 1_000_000_000 };
        assert_eq!(times, (0..10).map(time).collect::<Vec<_>>(), "{name}");
        assert_eq!(warnings, [], "{name}");
    }
    // Two streams one behind the other: the clock starts again, which is no damage.
    let source = "testsrc=size=64x48:rate=25:duration=0.4";
    let path = video(directory.path(), "d.mpg", source, &["-c:v", "mpeg2video", "-bf", "0"]);
    let stream = std::fs::read(&path).unwrap();
    std::fs::write(&path, stream.repeat(2)).unwrap();
    let (frames, warnings) = read(&path, &SourceOptions::default());
    let distances: Vec<_> = frames.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    let jumps: Vec<_> = distances.iter().filter(|&&distance| distance != 40_000_000).collect();
    assert_eq!((frames.len(), jumps), (20, vec![&-360_000_000]), "{distances:?}");
    assert_eq!(warnings, []);
}

#[test]
fn times_that_start_again_after_a_day_are_said() {
    let directory = tempfile::tempdir().unwrap();
    let source = "testsrc=size=64x48:rate=10:duration=3";
    for (hours, is_lost) in [(26, false), (30, true)] {
        let filter = format!("trim=end_frame={hours},setpts=N*3600/TB");
        let options = ["-vf", &filter, "-fps_mode", "passthrough", "-c:v", "libx264", "-bf", "0"];
        let path = video(directory.path(), "a.ts", source, &options);
        let (frames, warnings) = read(&path, &SourceOptions::default());
        assert_eq!(frames.len(), hours);
        let said: Vec<_> = warnings.iter().filter(|w| w.text.contains("26.5 hours")).collect();
        assert_eq!(said.len(), usize::from(is_lost), "{warnings:?}");
        assert!(said.iter().all(|warning| warning.loss));
    }
}

#[test]
fn a_second_video_stream_is_a_loss() {
    let directory = tempfile::tempdir().unwrap();
    let source = "testsrc=size=64x48:rate=10:duration=0.5";
    let one = video(directory.path(), "a.mkv", source, &["-c:v", "ffv1"]);
    let path = directory.path().join("b.mkv");
    let one = one.to_str().unwrap();
    ffmpeg(&["-i", one, "-map", "0:v", "-map", "0:v", "-c", "copy"], &path);
    let (frames, warnings) = read(&path, &SourceOptions::default());
    assert_eq!(frames.len(), 5);
    let [text] = texts(&warnings, true)[..] else { panic!("{warnings:?}") };
    assert!(text.starts_with("the file has 2 video streams, and only the first"), "{text}");
}

#[test]
fn display_times_that_the_container_lacks_are_said() {
    let directory = tempfile::tempdir().unwrap();
    let source = "testsrc=size=64x48:rate=10:duration=2";
    for (codec, b_frames, is_copied, is_guess) in [
        ("libx264", "2", true, true),
        ("libx264", "0", true, false),
        // At a constant rate, the guess is right.
        ("mpeg4", "1", false, false),
    ] {
        let options = ["-c:v", codec, "-bf", b_frames];
        let mut path = video(directory.path(), "a.avi", source, &options);
        if is_copied {
            // The copy has a finer base of times.
            let whole = video(directory.path(), "a.mp4", source, &options);
            path = directory.path().join("b.avi");
            ffmpeg(&["-i", whole.to_str().unwrap(), "-c", "copy"], &path);
        }
        let (frames, warnings) = read(&path, &SourceOptions::default());
        assert_eq!(frames.len(), 20);
        let said = warnings.iter().filter(|w| w.loss && w.text.contains("no display times"));
        assert_eq!(said.count(), usize::from(is_guess), "{codec} {frames:?} {warnings:?}");
    }
}

#[test]
fn full_range_and_bt709_become_limited_bt601() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("colour.mkv");
    // Luma of red is 63 by BT.709 and 81 by BT.601.
    let table = [
        ("white", "scale=out_range=pc,format=yuvj420p", 235u8),
        ("red", "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p", 81),
    ];
    for (colour, filter, luma) in table {
        let lavfi = format!("color={colour}:size=64x48:rate=5:duration=1");
        let matrix = if colour == "red" { "bt709" } else { "smpte170m" };
        let tags = ["-vf", filter, "-colorspace", matrix, "-c:v", "ffv1"];
        ffmpeg(&[&["-f", "lavfi", "-i", &lavfi], &tags[..]].concat(), &path);
        let (frames, _) = read(&path, &SourceOptions::default());
        assert_eq!(frames.len(), 5);
        assert!(frames.iter().all(|f| f.3.abs_diff(luma) <= 2), "{colour} {frames:?}");
    }
}

#[test]
fn an_elementary_stream_has_the_rate_that_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.m4v");
    let source = ["-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=1"];
    ffmpeg(&[&source[..], &["-c:v", "mpeg4", "-f", "m4v"]].concat(), &path);
    let rate = Some("20".parse().unwrap());
    let (frames, _) = read(&path, &SourceOptions { rate, ..Default::default() });
    let times: Vec<_> = frames.iter().map(|f| f.0).collect();
    assert_eq!(times, (0..10).map(|n| n * 50_000_000).collect::<Vec<_>>());
}

#[test]
fn a_cut_file_warns_of_loss() {
    let directory = tempfile::tempdir().unwrap();
    let (whole, cut) = (directory.path().join("a.avi"), directory.path().join("b.avi"));
    let source = ["-f", "lavfi", "-i", "testsrc2=size=320x240:rate=10:duration=2"];
    ffmpeg(&[&source[..], &["-c:v", "mjpeg"]].concat(), &whole);
    let mut bytes = std::fs::read(&whole).unwrap();
    // Zeros within the pictures: FFmpeg must report errors.
    let middle = bytes.len() / 2;
    bytes[middle..middle + 20_000].fill(0);
    std::fs::write(&cut, &bytes).unwrap();
    let (frames, warnings) = read(&cut, &SourceOptions::default());
    assert!(frames.len() < 21);
    assert!(matches!(warnings.as_slice(), [Warning { loss: true, .. }]), "{warnings:?}");
}

/// A program in place of FFmpeg.
#[cfg(unix)]
#[test]
fn a_video_that_breaks_off_is_a_loss_and_a_picture_too_large_is_left_out() {
    use encoder_testbed::scripted::{Script, Step};

    let announce =
        |n, size| Step::say(format!("[Parsed_showinfo_2 @ 0x5] [info] n:{n} pts:{n} s:{size} i:P"));
    let script = Script::new().encoding([
        Step::say(TIME_BASE),
        announce(0, "16x8"),
        Step::Write(vec![7; 192]),
        announce(1, "32x16"),
        Step::Write(vec![8; 768]),
        announce(2, "16x8"),
        Step::Write(vec![9; 100]),
        Step::say("[mov @ 0x5] [error] the disk is gone"),
        Step::Exit(3),
    ]);
    let scripted = script.lay_down().unwrap();
    let minute = std::time::Duration::from_secs(60);
    let ffmpeg = Ffmpeg::at(scripted.path(), READER, minute).unwrap();
    let limits = Limits { pixels: 128, ..Limits::default() };
    let options = SourceOptions { limits, ..SourceOptions::default() };
    let mut source = VideoSource::open_with(&ffmpeg, Path::new("x"), &options).unwrap();
    let mut next = || source.next_event().unwrap();
    assert!(matches!(next(), Some(Event::Stream(_))));
    let Some(Event::Packet(Packet { payload: Ok(Payload::Raw(image)), .. })) = next() else {
        panic!()
    };
    assert_eq!(image.data, [7; 192].as_slice());
    let Some(Event::Packet(Packet { payload: Err(bad), .. })) = next() else { panic!() };
    assert_eq!(bad.reason, "32x16 pixels are more than the limit");
    let Some(Event::Warning(Warning { text, loss: true })) = next() else { panic!() };
    assert_eq!(
        text,
        "frame 2: the video breaks off after 100 of 192 bytes of a picture; FFmpeg ended with \
         exit status 3: [mov] [error] the disk is gone"
    );
    assert!(next().is_none());
}

#[test]
fn errors_have_the_cause_and_a_hint() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.mp4");
    let options = SourceOptions::default();
    let error = VideoSource::open(&path, &options).err().unwrap();
    assert!(matches!(error, SourceError::Io { .. }));
    std::fs::write(&path, "no video").unwrap();
    let error = VideoSource::open(&path, &options).err().unwrap().to_string();
    assert!(error.contains("Invalid data"), "{error}");
}

/// Makes a video of a flat colour, or of another source.
fn video(directory: &Path, name: &str, source: &str, options: &[&str]) -> PathBuf {
    let path = directory.join(name);
    ffmpeg(&[&["-f", "lavfi", "-i", source], options].concat(), &path);
    path
}

fn sizes(frames: &[Shown]) -> Vec<(u32, u32, usize)> {
    let mut sizes: Vec<(u32, u32, usize)> = Vec::new();
    for &(_, width, height, _) in frames {
        match sizes.last_mut() {
            Some((w, h, count)) if (*w, *h) == (width, height) => *count += 1,
            _ => sizes.push((width, height, 1)),
        }
    }
    sizes
}

fn texts(warnings: &[Warning], loss: bool) -> Vec<&str> {
    assert!(warnings.iter().all(|warning| warning.loss == loss), "{warnings:?}");
    warnings.iter().map(|warning| warning.text.as_str()).collect()
}

#[test]
fn pictures_keep_their_sizes_when_these_change() {
    let directory = tempfile::tempdir().unwrap();
    let options = ["-c:v", "libx264", "-preset", "ultrafast", "-f", "h264"];
    let part = |name: &str, size: &str| {
        let source = format!("testsrc=size={size}:rate=25:duration=0.4");
        std::fs::read(video(directory.path(), name, &source, &options)).unwrap()
    };
    let (small, large) = (part("small", "64x48"), part("large", "320x240"));
    for (name, parts, expected) in [
        ("up", [&small, &large, &small], [(64, 48, 10), (320, 240, 10), (64, 48, 10)]),
        ("down", [&large, &small, &large], [(320, 240, 10), (64, 48, 10), (320, 240, 10)]),
    ] {
        let path = directory.path().join(name).with_extension("h264");
        std::fs::write(&path, parts.map(Vec::as_slice).concat()).unwrap();
        let rate = Some("10".parse().unwrap());
        let (frames, warnings) = read(&path, &SourceOptions { rate, ..Default::default() });
        assert_eq!(sizes(&frames), expected, "{name}");
        let times: Vec<_> = frames.iter().map(|frame| frame.0).collect();
        assert_eq!(times, (0..30).map(|n| n * 100_000_000).collect::<Vec<_>>());
        assert_eq!(warnings, [], "{name}");
    }
}

#[test]
fn a_rate_that_no_stream_declares_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let source = "testsrc=size=64x48:rate=10:duration=1";
    // By its name, and by its content alone.
    let stream = video(directory.path(), "a.mjpeg", source, &["-c:v", "mjpeg"]);
    let other = directory.path().join("stream");
    std::fs::copy(&stream, &other).unwrap();
    for path in [stream, other] {
        let mut source = crate::open(&path, &SourceOptions::default()).unwrap();
        let (mut frames, mut warnings) = (0, Vec::new());
        while let Some(event) = source.next_event().unwrap() {
            match event {
                Event::Stream(info) => assert_eq!(info.rate, Some("25".parse().unwrap())),
                Event::Packet(_) => frames += 1,
                Event::Warning(warning) => warnings.push(warning),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(frames, 10);
        let [text] = texts(&warnings, false)[..] else { panic!("{warnings:?}") };
        assert!(text.contains("has no times, and 25 fps is what FFmpeg assumes"), "{text}");
    }
    // A demuxer of a stream without times that is less usual.
    let options = ["-pix_fmt", "yuv422p", "-c:v", "dnxhd", "-profile:v", "dnxhr_lb"];
    let source_of_dnx = "testsrc=size=256x120:rate=10:duration=0.5";
    let path = video(directory.path(), "a.dnxhd", source_of_dnx, &options);
    let (frames, warnings) = read(&path, &SourceOptions::default());
    assert_eq!(frames.last().map(|frame| frame.0), Some(160_000_000));
    assert!(texts(&warnings, false)[0].contains("has no times, and 25 fps"), "{warnings:?}");
    // H.264 declares its rate.
    let options = ["-c:v", "libx264", "-f", "h264"];
    let path = video(directory.path(), "a.h264", source, &options);
    let (frames, warnings) = read(&path, &SourceOptions::default());
    assert_eq!(frames.last().map(|frame| frame.0), Some(900_000_000));
    assert_eq!(warnings, []);
}

#[test]
fn pixels_that_are_not_square_are_scaled() {
    let directory = tempfile::tempdir().unwrap();
    for (aspect, size, said) in [
        ("4/3", (320, 240), true),
        ("3/4", (240, 320), true),
        ("1/1", (240, 240), false),
        ("201/200", (240, 240), false),
    ] {
        let source = "testsrc=size=240x240:rate=5:duration=1";
        let aspect = format!("setsar={aspect}");
        let options = ["-vf", &aspect, "-c:v", "libx264"];
        let path = video(directory.path(), "a.mp4", source, &options);
        let (frames, warnings) = read(&path, &SourceOptions::default());
        assert_eq!(sizes(&frames), [(size.0, size.1, 5)], "{aspect}");
        let texts = texts(&warnings, false);
        assert_eq!(texts.len(), usize::from(said), "{texts:?}");
        assert!(texts.iter().all(|text| text.contains("are not square")), "{texts:?}");
    }
}

/// Luma and chroma of the middle of the first picture.
fn middle(path: &Path) -> [u8; 3] {
    let mut source = VideoSource::open(path, &SourceOptions::default()).unwrap();
    loop {
        if let Some(Event::Packet(packet)) = source.next_event().unwrap() {
            let Ok(Payload::Raw(image)) = packet.payload else { panic!() };
            let (w, h) = (image.width as usize, image.height as usize);
            let chroma = h / 4 * (w / 2) + w / 4;
            let [luma, u, v] = [h / 2 * w + w / 2, w * h + chroma, w * h + w * h / 4 + chroma];
            return [luma, u, v].map(|at| image.data[at]);
        }
    }
}

#[test]
fn a_high_dynamic_range_is_reduced() {
    let directory = tempfile::tempdir().unwrap();
    for (transfer, name) in [("arib-std-b67", "HLG"), ("smpte2084", "PQ")] {
        // Made from linear light, as a camera makes it: a colour, and a grey of a quarter of
        // reference white.
        for (colour, light, expected) in
            [("red", "0xff0000", [65, 100, 212]), ("grey", "0x898989", [124, 128, 128])]
        {
            let filters = format!(
                "format=gbrp,setparams=color_primaries=bt709:color_trc=iec61966-2-1:colorspace=gbr:\
                 range=pc,zscale=t=linear,format=gbrpf32le,zscale=p=bt2020:t={transfer}:m=bt2020nc:\
                 r=tv:npl=203,format=yuv420p10le"
            );
            let options = ["-vf", &filters, "-c:v", "ffv1"];
            let source = format!("color={light}:size=64x48:rate=5:duration=1");
            let path = video(directory.path(), "a.mkv", &source, &options);
            let found = middle(&path);
            let far = found.iter().zip(expected).any(|(found, wanted)| found.abs_diff(wanted) > 14);
            assert!(!far, "{name} {colour}: {found:?}");
            let (frames, warnings) = read(&path, &SourceOptions::default());
            assert_eq!(frames.len(), 5);
            let said = format!("the video is HDR ({name}): its pictures are converted to SDR");
            assert_eq!(texts(&warnings, false), [said]);
        }
    }
    // Ten bits alone are no high dynamic range.
    let options = ["-vf", "format=yuv420p10le", "-c:v", "ffv1"];
    let path = video(directory.path(), "b.mkv", "testsrc=size=64x48:rate=5:duration=1", &options);
    let (frames, warnings) = read(&path, &SourceOptions::default());
    assert_eq!((frames.len(), warnings), (5, Vec::new()));
}

#[test]
fn what_a_player_shows_otherwise_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let source = "testsrc=size=64x48:rate=10:duration=1";
    for (filters, tags, said) in [
        ("setfield=tff", &["-flags", "+ilme+ildct", "-c:v", "mpeg2video"][..], "are interlaced"),
        (
            "setparams=color_primaries=smpte432:color_trc=bt709:colorspace=bt709",
            &["-c:v", "ffv1"],
            "have the primaries smpte432",
        ),
    ] {
        let options = [&["-vf", filters], tags].concat();
        let path = video(directory.path(), "a.mkv", source, &options);
        let (frames, warnings) = read(&path, &SourceOptions::default());
        let [text] = texts(&warnings, false)[..] else { panic!("{warnings:?}") };
        assert!(text.starts_with(&format!("{} frames {said}", frames.len())), "{text}");
    }
}

/// The NAL units of an Annex B stream, with their start codes.
fn nal_units(stream: &[u8]) -> Vec<&[u8]> {
    let starts: Vec<_> =
        (0..stream.len()).filter(|&n| stream[n..].starts_with(b"\0\0\x01")).collect();
    let ends = starts.iter().skip(1).copied().chain([stream.len()]);
    starts.iter().zip(ends).map(|(&start, end)| &stream[start..end]).collect()
}

#[test]
fn pictures_that_a_lost_key_frame_takes_along_are_a_loss() {
    let directory = tempfile::tempdir().unwrap();
    let options = ["-c:v", "libx264", "-g", "10", "-bf", "0", "-f", "h264"];
    let source = "testsrc2=size=64x48:rate=20:duration=2";
    let path = video(directory.path(), "a.h264", source, &options);
    let whole = std::fs::read(&path).unwrap();
    let units = nal_units(&whole);
    let first = units.iter().position(|unit| unit[3] & 31 == 5).unwrap();
    let rest: Vec<_> = units.iter().enumerate().filter(|(n, _)| *n != first).collect();
    std::fs::write(&path, rest.iter().flat_map(|(_, unit)| unit.to_vec()).collect::<Vec<_>>())
        .unwrap();
    let (frames, warnings) = read(&path, &SourceOptions::default());
    assert!(frames.len() < 39);
    let [text] = texts(&warnings, true)[..] else { panic!("{warnings:?}") };
    assert!(text.contains("gave no picture"), "{text}");
}

/// Opens a video of 16x8 that is given by FFmpeg's log: the pictures, and the lines behind them.
#[cfg(unix)]
fn scripted(head: &[&str], pictures: &[&str], end: &[&str]) -> (Vec<Packet>, Vec<Warning>) {
    use encoder_testbed::scripted::{Script, Step};

    let say = |line: &&str| Step::say(*line);
    let pictures = pictures.iter().flat_map(|line| {
        let line = format!("[Parsed_showinfo_2 @ 0x5] [info] {line}");
        [Step::say(line), Step::Write(vec![7; 192])]
    });
    let steps: Vec<_> = head.iter().map(say).chain(pictures).chain(end.iter().map(say)).collect();
    let scripted = Script::new().encoding(steps).lay_down().unwrap();
    let minute = std::time::Duration::from_secs(60);
    let ffmpeg = Ffmpeg::at(scripted.path(), READER, minute).unwrap();
    let options = SourceOptions::default();
    let mut source = VideoSource::open_with(&ffmpeg, Path::new("x"), &options).unwrap();
    let (mut packets, mut warnings) = (Vec::new(), Vec::new());
    while let Some(event) = source.next_event().unwrap() {
        match event {
            Event::Packet(packet) => packets.push(packet),
            Event::Warning(warning) => warnings.push(warning),
            _ => {}
        }
    }
    (packets, warnings)
}

#[cfg(unix)]
const TIME_BASE: &str =
    "[Parsed_showinfo_2 @ 0x5] [info] config in time_base: 1/10, frame_rate: 10/1";

#[cfg(unix)]
const H264_IN_TS: [&str; 4] = [
    "[info] Input #0, mpegts, from 'file:x':",
    "[info]   Stream #0:0: Video: h264, yuv420p, 16x8",
    "[info]   Stream #0:0 -> #0:0 (h264 (native) -> rawvideo (native))",
    TIME_BASE,
];

#[cfg(unix)]
#[test]
fn a_frame_without_a_time_has_no_stamp() {
    let pictures = ["n:0 pts:5 s:16x8 i:P", "n:1 pts:NOPTS s:16x8 i:P", "n:2 pts:7 s:16x8 i:P"];
    let (packets, warnings) = scripted(&H264_IN_TS, &pictures, &[]);
    let stamps: Vec<_> = packets.iter().map(|packet| packet.header_ns).collect();
    assert_eq!(stamps, [Some(0), None, Some(200_000_000)]);
    assert!((1..200_000_000).contains(&packets[1].log_ns));
    // The cause; which frames were estimated is said with the times of each video.
    let text = "the file has no time for 1 of 3 frames";
    let [warning] = &warnings[..] else { panic!("{warnings:?}") };
    assert!(warning.loss && warning.text.contains(text), "{warnings:?}");
    let (_, warnings) = scripted(&H264_IN_TS, &[pictures[0], pictures[2]], &[]);
    assert_eq!(warnings, []);
}

#[cfg(unix)]
#[test]
fn lost_pictures_are_counted_beside_interlaced_ones() {
    let pictures = ["n:0 pts:0 s:16x8 i:T", "n:1 pts:1 s:16x8 i:P", "n:2 pts:2 s:16x8 i:P"];
    for (packets, expected, loss) in [
        (3, None, false),
        // The second field of the first picture.
        (4, None, false),
        (6, Some("2 packets of the video gave no picture, without an error"), true),
    ] {
        let totals = format!(
            "[verbose]   Input stream #0:0 (video): {packets} packets read (9 bytes); 3 frames \
             decoded; "
        );
        let (_, mut warnings) = scripted(&H264_IN_TS, &pictures, &[&totals]);
        warnings.retain(|warning| !warning.text.contains("are interlaced"));
        let said: Vec<_> = warnings.iter().map(|w| (w.text.as_str(), w.loss)).collect();
        assert_eq!(said.len(), usize::from(expected.is_some()), "{said:?}");
        let is_expected = |text: &str| expected.is_some_and(|start| text.starts_with(start));
        assert!(
            said.iter().all(|(text, is_loss)| is_expected(text) && *is_loss == loss),
            "{said:?}"
        );
    }
    let totals =
        "[verbose]   Input stream #0:0 (video): 3 packets read (9 bytes); 2 frames decoded; ";
    let (_, warnings) = scripted(&H264_IN_TS, &["n:0 pts:0 s:16x8 i:T"; 2], &[totals]);
    let said: Vec<_> = warnings.iter().map(|w| w.text.as_str()).collect();
    assert!(said[0].contains("second fields of its interlaced pictures, or"), "{said:?}");
}

#[cfg(unix)]
#[test]
fn hdr_without_the_filters_is_refused() {
    use encoder_testbed::scripted::{Script, Step};

    let script = Script::new().encoding([
        Step::say("[info] Input #0, mov, from 'file:x':"),
        Step::say(
            "[info]   Stream #0:0: Video: hevc, yuv420p10le(tv, bt2020nc/bt2020/smpte2084), 16x8",
        ),
        Step::say("[info]   Stream #0:0 -> #0:0 (hevc (native) -> rawvideo (native))"),
        Step::say("[AVFilterGraph @ 0x5] [error] No such filter: 'zscale'"),
        Step::Exit(8),
    ]);
    let scripted = script.lay_down().unwrap();
    let minute = std::time::Duration::from_secs(60);
    let ffmpeg = Ffmpeg::at(scripted.path(), READER, minute).unwrap();
    let error = VideoSource::open_with(&ffmpeg, Path::new("x"), &SourceOptions::default());
    let error = error.err().unwrap().to_string();
    assert!(error.contains("HDR (PQ)") && error.contains("No such filter: 'zscale'"), "{error}");
    assert!(error.contains("zscale and tonemap"), "{error}");
}
