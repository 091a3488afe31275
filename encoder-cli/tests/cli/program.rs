//! The program from a user's view: files, exit codes, messages.
#![allow(clippy::unwrap_used)]

use crate::common;

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
};

use common::{
    EPOCH, MS,
    decode::{decode, decode_stream},
    entries,
    picture::Picture,
    program::{Converted, command, convert, run, told},
    recording::{Content, Recording, Serialization, camera, cut_jpeg, small, small_jpeg},
};
use serde_json::Value;

/// One camera, `/cam`, with pictures 0 to `count - 1` at 25 fps.
fn one_camera(directory: &Path, count: usize) -> PathBuf {
    let time = |n: usize| EPOCH + n as i64 * 40 * MS;
    let frames: Vec<_> = (0..count).map(|n| (time(n), time(n) + 1, small_jpeg(n))).collect();
    camera(directory, &frames)
}

/// `/left` and `/right`, and a topic that is not a camera.
fn two_cameras(directory: &Path) -> PathBuf {
    let mut recording = Recording::create(directory.join("two.mcap"));
    recording.other("/joints", "sensor_msgs/msg/JointState", "cdr", "ros2msg");
    for n in 0..6 {
        let time = EPOCH + n as i64 * 40 * MS;
        recording.write("/left", Serialization::CdrLittle, time, time, &small(n));
        recording.write("/right", Serialization::CdrLittle, time, time, &small_jpeg(n + 100));
    }
    recording.finish()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

const OPENH264: [&str; 2] = ["--encoder", "openh264"];

#[test]
fn one_file_is_for_one_camera() {
    let directory = tempfile::tempdir().unwrap();
    let two = two_cameras(directory.path());
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("video.mp4");
    let args = ["encode", text(&two), "-o", text(&file)];
    let (code, said) = run([&args[..], &OPENH264].concat());
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("--topic") && said.contains("/left, /right"), "{said}");
    let report = std::fs::read_to_string(out.path().join("video.report.json")).unwrap();
    assert!(report.contains("\"error_kind\": \"output-refused\""), "{report}");
    let converted = Converted::check(out, "video.report.json", code, said);
    assert_eq!(converted.files(), ["video.report.json"]);

    // That run made no file, so the next run may write there.
    let (code, said) = run([&args[..], &OPENH264, &["--topic", "/right"]].concat());
    let converted = Converted::check(converted.directory, "video.report.json", code, said);
    let converted = converted.expect(0);
    assert_eq!(converted.output()["file"], "video.mp4");
    assert_eq!(converted.output()["topic"], "/right");
    assert_eq!(converted.video().numbers(), (100..106).map(Some).collect::<Vec<_>>());
}

#[test]
fn what_exists_is_replaced_only_when_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = one_camera(directory.path(), 3);
    let out = tempfile::tempdir().unwrap();
    let video = out.path().join("cam.mp4");
    std::fs::write(&video, "somebody's video").unwrap();
    let args = [&["encode", text(&path), "-o", text(out.path())][..], &OPENH264].concat();
    let (code, said) = run(args.clone());
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("--overwrite") && said.contains("cam.mp4"), "{said}");
    assert_eq!(std::fs::read(&video).unwrap(), b"somebody's video");
    assert_eq!(entries(out.path()), ["cam.mp4", "report.json"]);

    let (code, said) = run([&args[..], &["--overwrite"]].concat());
    assert_eq!(code, 0, "{said}");
    assert_eq!(decode(&video).frames.len(), 3);
    let (first, report) = (std::fs::read(&video).unwrap(), out.path().join("report.json"));
    let first_report = std::fs::read(&report).unwrap();

    // The result of another run is kept completely.
    let (code, said) = run(args.clone());
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("report.json: the file exists"), "{said}");
    assert_eq!(std::fs::read(&video).unwrap(), first);
    assert_eq!(std::fs::read(&report).unwrap(), first_report);
    // A failure under --overwrite keeps the old video too.
    let broken =
        camera(directory.path(), &[(EPOCH, EPOCH, small(0)), (EPOCH + 1, EPOCH + 1, cut_jpeg(0))]);
    let fail = ["--overwrite", "--on-bad-frame", "fail"];
    let args = [&["encode", text(&broken), "-o", text(out.path())][..], &OPENH264, &fail].concat();
    let (code, said) = run(args);
    assert_eq!(code, 1, "{said}");
    assert_eq!(std::fs::read(&video).unwrap(), first);
    assert_eq!(entries(out.path()), ["cam.mp4", "report.json"]);
}

#[test]
fn topics_with_similar_names_get_files_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let mut recording = Recording::create(directory.path().join("names.mcap"));
    // The second part of /cam would have the same name as the first of /cam_part2.
    let topics = ["/cam", "/cam_part2", "/Cam", "cam"];
    for n in 0..4 {
        let time = EPOCH + n as i64 * 40 * MS;
        for (k, topic) in topics.iter().enumerate() {
            let width = if k == 0 && n >= 2 { 256 } else { 160 };
            let content = Content::jpeg(&Picture::stamped(width, 96, n + 10 * k));
            recording.write(topic, Serialization::CdrLittle, time, time, &content);
        }
    }
    let path = recording.finish();
    for extra in [&[][..], &["--overwrite"]] {
        let converted = convert(&path, extra).expect(0);
        let mut seen = Vec::new();
        for output in converted.outputs() {
            let video = decode(&converted.path(output["file"].as_str().unwrap()));
            assert_eq!(video.frames.len() as u64, output["frames_encoded"].as_u64().unwrap());
            seen.extend(video.numbers().into_iter().flatten());
        }
        seen.sort();
        let wanted: Vec<_> = (0..4).flat_map(|k| (0..4).map(move |n| n + 10 * k)).collect();
        assert_eq!(seen, wanted, "{}", converted.report);
    }
}

#[test]
fn wrong_usage_is_exit_code_2_and_names_the_cure() {
    let directory = tempfile::tempdir().unwrap();
    let path = one_camera(directory.path(), 2);
    let config = directory.path().join("wrong.toml");
    std::fs::write(&config, "[encoder]\ncfr = 20\n").unwrap();
    let sized = directory.path().join("sized.toml");
    std::fs::write(&sized, "[encoder]\nresolution = \"640x480\"\n").unwrap();
    let both = directory.path().join("both.toml");
    std::fs::write(&both, "[encoder]\ncrf = 20\nqp = 20\n").unwrap();
    let table: &[(&[&str], &str)] = &[
        (&["--encoder", "nvidia"], "openh264"),
        (&["--config", text(&config)], "did you mean `crf`?"),
        (&["--config", text(&sized)], "encoder.resolution"),
        (&["--config", "/nowhere.toml"], "/nowhere.toml"),
        (&["--crf", "99"], "0 to 51"),
        (&["--crf", "good"], "good"),
        (&["--bitrate", "0"], "--bitrate = 0: not allowed"),
        (&["--qp", "0"], "--qp = 0: not allowed; allowed is 1 to 51"),
        (&["--crf", "20", "--bitrate", "900"], "--bitrate"),
        (&["--qp", "20", "--bitrate", "900"], "--bitrate"),
        (&["--max-bitrate", "900"], "`--max-bitrate` needs `--bitrate`, which is not set"),
        (
            &["--bitrate", "900", "--max-bitrate", "800"],
            "--max-bitrate = 800: not allowed; allowed is 900 (--bitrate) to 2000000",
        ),
        (&["--config", text(&both)], "`encoder.crf` and `encoder.qp` contradict each other"),
        (&["--gop", "0"], "--gop = 0: not allowed; allowed is 1 to 600"),
        (&["--b-frames", "9"], "--b-frames = 9: not allowed; allowed is 0 to 4"),
        (&["--preset", "warp"], "veryfast"),
        (&["--fps", "0"], "'--fps <FPS>': allowed is a rate such as 30"),
        (&["--fps", "30", "--resample", "30"], "--resample"),
        (&["--on-bad-frame", "ignore"], "repeat"),
        (&["--depth-range", "5:1"], "MIN:MAX"),
        (&["--raw", "rgb24:160x120"], "`-`"),
        (&["--start", "soon"], "@SECONDS"),
        (&["--threads", "0"], "1..=1024"),
        (&["--frobnicate"], "--frobnicate"),
    ];
    for (args, part) in table {
        let out = tempfile::tempdir().unwrap();
        let (code, said) =
            run([&["encode", text(&path), "-o", text(out.path())][..], args].concat());
        assert_eq!(code, 2, "{args:?}: {said}");
        assert!(said.contains(part), "{args:?}: {said}");
        assert_eq!(entries(out.path()), Vec::<String>::new(), "{args:?}");
    }
    assert_eq!(run(["encode", text(&path)]).0, 2, "no -o");
    assert_eq!(run([]).0, 2);
    let (code, said) = run(["--version"]);
    assert_eq!((code, said.trim()), (0, concat!("encoder ", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = one_camera(directory.path(), 2);
    // Not caused by permissions, so that it also works for root.
    let out = path.join("below_a_file");
    for out in [out.clone(), out.join("video.mp4")] {
        let (code, said) =
            run([&["encode", text(&path), "-o", text(&out)][..], &OPENH264].concat());
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("one.mcap/below_a_file") && said.contains("-o"), "{said}");
    }
    assert_eq!(entries(directory.path()), ["one.mcap"]);
}

#[test]
fn a_program_that_is_killed_leaves_no_file_but_a_part() {
    let out = tempfile::tempdir().unwrap();
    let raw = ["--raw", "rgb24:160x120@30"];
    let args = [&["encode", "-", "-o", text(out.path())][..], &raw, &OPENH264].concat();
    let mut child = command(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // More frames than the ring and the pipe hold: once these are written, some are encoded.
    for n in 0..60 {
        stdin.write_all(&Picture::stamped(160, 120, n).rgb).unwrap();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(entries(out.path()), ["stdin.mp4.part"]);
    // The next run is not blocked, and reports the remaining file.
    let directory = tempfile::tempdir().unwrap();
    let path = one_camera(directory.path(), 2);
    let file = out.path().join("stdin.mp4");
    let (code, said) = run([&["encode", text(&path), "-o", text(&file)][..], &OPENH264].concat());
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("stdin.mp4.part") && said.contains("encoder repair"), "{said}");
    assert_eq!(decode(&file).frames.len(), 2);
}

#[test]
fn raw_frames_and_y4m_come_through_standard_input() {
    let pictures: Vec<_> = (0..10).map(|n| Picture::stamped(160, 120, n)).collect();
    let rgb: Vec<u8> = pictures.iter().flat_map(|p| p.rgb.clone()).collect();
    let mut y4m = b"YUV4MPEG2 W160 H120 F30000:1001 Ip A1:1 C420jpeg\n".to_vec();
    for picture in &pictures {
        y4m.extend(b"FRAME\n");
        y4m.extend(picture.raw("i420", 0).0);
    }
    let cut = rgb[..rgb.len() - 1000].to_vec();
    let rgb_args = ["--raw", "rgb24:160x120@25"];
    // Bytes, arguments, frames, rate, exit code.
    type Row<'a> = (&'a [u8], &'a [&'a str], usize, (u64, u64), i32);
    let table: &[Row<'_>] = &[
        (&rgb, &rgb_args, 10, (25, 1), 0),
        (&y4m, &[], 10, (30_000, 1001), 0),
        (&y4m, &["--fps", "10"], 10, (10, 1), 0),
        // A truncated frame is missing from the video, and is reported.
        (&cut, &rgb_args, 9, (25, 1), 3),
    ];
    for (bytes, args, count, (num, den), expected) in table {
        let out = tempfile::tempdir().unwrap();
        let file = out.path().join("in.mp4");
        let all =
            [&["encode", "-", "-o", text(&file), "--crf", "10"][..], args, &OPENH264].concat();
        let mut child = command(all)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(bytes).unwrap();
        let (code, said) = told(&child.wait_with_output().unwrap());
        let converted = Converted::check(out, "in.report.json", code, said).expect(*expected);
        let video = converted.video();
        assert_eq!(video.numbers(), (0..*count).map(Some).collect::<Vec<_>>());
        for (n, pts) in (0..).zip(&video.pts) {
            assert_eq!(pts * num, n * den * video.timescale, "{args:?}");
        }
        video.frames[2].check_patches(3.0, "standard input");
    }
}

#[test]
fn a_directory_of_pictures_is_a_video() {
    let directory = tempfile::tempdir().unwrap();
    let camera = directory.path().join("wrist");
    std::fs::create_dir(&camera).unwrap();
    // Natural order: img2 before img10.
    for n in 0..12 {
        let picture = Picture::stamped(160, 120, n);
        let (name, data) = match n % 2 {
            0 => (format!("img{n}.png"), picture.png()),
            _ => (format!("img{n}.jpg"), picture.jpeg420()),
        };
        std::fs::write(camera.join(name), data).unwrap();
    }
    for (args, rate) in [(&[][..], 30), (&["--fps", "10"], 10)] {
        let converted = convert(&camera, args).expect(0);
        assert_eq!(converted.output()["file"], "wrist.mp4");
        let video = converted.video();
        assert_eq!(video.numbers(), (0..12).map(Some).collect::<Vec<_>>());
        assert!((0..).zip(&video.pts).all(|(n, pts)| pts * rate == n * video.timescale));
    }
}

#[test]
fn annex_b_has_the_same_pictures() {
    let directory = tempfile::tempdir().unwrap();
    let path = one_camera(directory.path(), 12);
    let mp4 = convert(&path, &[]).expect(0);
    let stream = convert(&path, &["--format", "annexb"]).expect(0);
    assert_eq!(stream.output()["file"], "cam.h264");
    let video = decode_stream(&stream.path("cam.h264"));
    assert_eq!(video.numbers(), (0..12).map(Some).collect::<Vec<_>>());
    assert!(video.frames == mp4.video().frames, "the pictures differ");
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("x.h264");
    let args = ["encode", text(&path), "-o", text(&file), "--encoder", "x264", "--b-frames", "2"];
    let (code, said) = run(args);
    assert_eq!(code, 0, "{said}");
    let video = decode_stream(&file);
    assert_eq!(video.numbers(), (0..12).map(Some).collect::<Vec<_>>());
    assert_eq!(entries(out.path()), ["x.h264", "x.report.json"]);
}

#[test]
fn several_recordings_get_a_directory_each_and_the_worst_exit_code() {
    let directory = tempfile::tempdir().unwrap();
    let two = two_cameras(directory.path());
    let one = one_camera(directory.path(), 3);
    let missing = directory.path().join("missing.mcap");
    let repaired = directory.path().join("repaired.mcap");
    let mut recording = Recording::create(&repaired);
    for (n, content) in [small_jpeg(0), cut_jpeg(1)].iter().enumerate() {
        let time = EPOCH + n as i64 * 40 * MS;
        recording.write("/cam", Serialization::CdrLittle, time, time, content);
    }
    recording.finish();
    for (recordings, expected) in
        [(vec![&one, &two], 0), (vec![&one, &repaired], 3), (vec![&missing, &one, &repaired], 1)]
    {
        let out = tempfile::tempdir().unwrap();
        let mut args = vec!["encode", "-o", text(out.path())];
        args.extend(recordings.iter().map(|r| text(r)));
        args.extend(OPENH264);
        let (code, said) = run(args);
        assert_eq!(code, expected, "{said}");
        assert_eq!(decode(&out.path().join("one/cam.mp4")).frames.len(), 3);
    }
    let out = directory.path().join("one.mp4");
    let (code, said) = run(["encode", text(&one), text(&two), "-o", text(&out)]);
    assert_eq!(code, 2, "{said}");
}

#[test]
fn the_report_tells_everything() {
    let directory = tempfile::tempdir().unwrap();
    let path = two_cameras(directory.path());
    // Without --encoder there are refusals to report, unless every encoder works here.
    let config = directory.path().join("c.toml");
    std::fs::write(&config, "[gpu]\npreferred_encoder = \"openh264\"\n").unwrap();
    let converted = convert(&path, &["--config", text(&config)]).expect(0);
    let report = &converted.report;
    assert_eq!(report["recording"], text(&path));
    assert_eq!(report["exit"], 0);
    assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(report["skipped_topics"], Value::Array(vec![]));
    assert_eq!(report["warnings"], Value::Array(vec![]));
    assert!(report["elapsed_s"].as_f64().unwrap() > 0.0);
    assert!(report.get("error").is_none());
    for (output, topic) in converted.outputs().into_iter().zip(["left", "right"]) {
        let file = converted.path(&format!("{topic}.mp4"));
        assert_eq!(output["topic"], format!("/{topic}"));
        assert_eq!(output["file"], format!("{topic}.mp4"));
        assert_eq!(output["encoder"], "openh264");
        assert!(output["encoder_description"].as_str().unwrap().contains("OpenH264"));
        assert_eq!((&output["width"], &output["height"]), (&160.into(), &120.into()));
        assert_eq!(output["frames_in"], 6);
        assert_eq!(output["frames_encoded"], 6);
        for none in ["frames_repeated", "frames_failed", "frames_left_out"] {
            assert_eq!(output[none], 0, "{none}");
        }
        assert_eq!(output["first_stamp_ns"], EPOCH);
        assert_eq!(output["last_stamp_ns"], EPOCH + 200 * MS);
        assert!((output["duration_s"].as_f64().unwrap() - 0.24).abs() < 1e-9);
        let (bytes, whole) = (output["bytes"].as_u64().unwrap(), file.metadata().unwrap().len());
        assert!(bytes > 0 && bytes < whole + 100, "{bytes} of {whole}");
        assert_eq!(output["warnings"], Value::Array(vec![]));
        for refusal in output["refusals"].as_array().unwrap() {
            for field in ["encoder", "kind", "reason", "hint"] {
                assert!(!refusal[field].as_str().unwrap().is_empty(), "{refusal}");
            }
            assert!(refusal["transient"].is_boolean());
        }
    }
    assert!(converted.said.contains("2 videos, 12 frames"), "{}", converted.said);
}

#[test]
fn detect_lists_every_encoder_of_the_build() {
    let (code, said) = run(["detect", "--json"]);
    assert_eq!(code, 0, "{said}");
    let all: Vec<Value> = serde_json::from_str(&said).unwrap();
    let names: Vec<_> = all.iter().map(|d| d["encoder"].as_str().unwrap()).collect();
    let compiled: Vec<_> = encoder_core::backends().iter().map(|b| b.id.as_str()).collect();
    // The library is linked here; it is named so that its backends are linked.
    assert_eq!(encoder_pipeline::passthrough::COPY.as_str(), "copy");
    assert_eq!(names, compiled);
    for found in &all {
        assert!(found["hardware"].is_boolean() && found["probe_ms"].is_u64(), "{found}");
    }
    let last = all.last().unwrap();
    assert_eq!((&last["encoder"], &last["status"]), (&"openh264".into(), &"usable".into()));
    let (code, said) = run(["detect"]);
    assert_eq!(code, 0);
    for name in names {
        assert!(said.lines().any(|l| l.starts_with(name)), "{name}: {said}");
    }
    let line = said.lines().find(|l| l.starts_with("openh264")).unwrap();
    assert!(line.contains("usable") && line.contains("OpenH264"), "{line}");
    for (line, next) in said.lines().zip(said.lines().skip(1)) {
        assert!(!line.contains(" refused ") || next.contains("hint: "), "{said}");
    }
}

#[test]
fn the_documented_configuration_is_right() {
    let page = include_str!("../../../docs/configuration.md");
    let toml = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    // The library is linked here; it is named so that its backends check their tables.
    assert_eq!(encoder_pipeline::passthrough::COPY.as_str(), "copy");
    let settings = encoder_core::Settings::from_toml(toml).unwrap();
    for backend in encoder_core::backends() {
        // VideoToolbox has no options.
        let documented = settings.backend.contains_key(backend.id.as_str());
        assert_eq!(documented, backend.id.as_str() != "videotoolbox", "{}", backend.id);
    }
}

#[test]
fn info_tells_what_is_in_a_recording() {
    let directory = tempfile::tempdir().unwrap();
    let path = two_cameras(directory.path());
    let (code, said) = run(["info", text(&path), "--json"]);
    assert_eq!(code, 0, "{said}");
    let info: Value = serde_json::from_str(&said).unwrap();
    let cameras = info["cameras"].as_array().unwrap();
    assert_eq!(cameras.len(), 2);
    for (camera, (topic, schema, encoding)) in cameras.iter().zip([
        ("/left", "sensor_msgs/msg/Image", "bgr8"),
        ("/right", "sensor_msgs/msg/CompressedImage", "jpeg"),
    ]) {
        assert_eq!(camera["topic"], topic);
        assert_eq!(camera["schema"], schema);
        assert_eq!(camera["encodings"], serde_json::json!([encoding]));
        assert_eq!(camera["sizes"], serde_json::json!(["160x120"]));
        assert_eq!((&camera["frames"], &camera["broken"]), (&6.into(), &0.into()));
        assert_eq!(camera["first_stamp_ns"], EPOCH);
        assert_eq!(camera["last_stamp_ns"], EPOCH + 200 * MS);
        assert!((camera["rate"].as_f64().unwrap() - 25.0).abs() < 1e-6);
    }
    assert_eq!(
        info["other_topics"],
        serde_json::json!([["/joints", "sensor_msgs/msg/JointState"]])
    );
    let (code, said) = run(["info", text(&path)]);
    assert_eq!(code, 0);
    for part in ["/left", "/right", "6 frames", "25.00 fps", "160x120", "bgr8", "/joints"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let (code, said) = run(["info", "/nowhere.mcap"]);
    assert_eq!(code, 1);
    assert!(said.contains("/nowhere.mcap"), "{said}");
}
