//! What the program prints, and where: standard output that is closed or full, `-q`, messages, the
//! argument of `-o`, and a report for each way out.
#![allow(clippy::unwrap_used)]

use crate::common;

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use common::{
    EPOCH, MS,
    decode::decode,
    entries,
    picture::Picture,
    program::{command, convert, run, told},
    recording::{Recording, Serialization, cut_jpeg, small_jpeg},
};
use serde_json::Value;

/// `NAME.mcap` with `count` pictures of a topic at 25 fps.
fn recording(directory: &Path, name: &str, topic: &str, count: usize) -> PathBuf {
    let mut recording = Recording::create(directory.join(name));
    for n in 0..count {
        let time = EPOCH + n as i64 * 40 * MS;
        recording.write(topic, Serialization::CdrLittle, time, time, &small_jpeg(n));
    }
    recording.finish()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn report(path: &Path) -> Value {
    let text = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).unwrap()
}

const OPENH264: [&str; 2] = ["--encoder", "openh264"];

/// Three recordings, and the arguments that convert them.
struct Three {
    directory: tempfile::TempDir,
    args: Vec<String>,
}

impl Three {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut args = vec!["encode".to_owned(), "-o".into()];
        args.push(text(&directory.path().join("out")).into());
        args.extend(OPENH264.map(str::to_owned));
        for name in ["a.mcap", "b.mcap", "c.mcap"] {
            args.push(text(&recording(directory.path(), name, "/cam", 2)).into());
        }
        Self { directory, args }
    }

    fn run(&self, stdout: impl Into<Stdio>) -> Output {
        command(self.args.iter().map(String::as_str))
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
            .wait_with_output()
            .unwrap()
    }

    /// Checks that each recording has its video and its report.
    fn check(&self) {
        for name in ["a", "b", "c"] {
            let out = self.directory.path().join("out").join(name);
            assert_eq!(decode(&out.join("cam.mp4")).frames.len(), 2);
            assert_eq!(report(&out.join("report.json"))["exit"], 0);
        }
    }
}

#[test]
fn a_reader_that_closed_the_pipe_ends_nothing() {
    let three = Three::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = three.run(writer);
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
    three.check();
}

#[cfg(target_os = "linux")]
#[test]
fn a_standard_output_that_is_full_is_an_error_at_the_end() {
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let three = Three::new();
    let output = three.run(full());
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).starts_with("error: standard output cannot be written: "));
    assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
    three.check();
    let path = three.directory.path().join("a.mcap");
    for args in [&["detect"][..], &["detect", "--json"], &["info", text(&path)]] {
        let output = command(args.iter().copied()).stdout(full()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(stderr(&output).contains("standard output"), "{}", stderr(&output));
    }
}

#[cfg(unix)]
#[test]
fn a_standard_output_that_does_not_exist_is_no_error() {
    let three = Three::new();
    let status = std::process::Command::new("sh")
        .args(["-c", "exec \"$@\" >&-", "sh", env!("CARGO_BIN_EXE_encoder")])
        .args(&three.args)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(0));
    three.check();
}

#[test]
fn a_run_that_went_well_prints_one_line_and_quietly_none() {
    let directory = tempfile::tempdir().unwrap();
    let path = recording(directory.path(), "a.mcap", "/cam", 1);
    let encode = |extra: &[&str]| {
        let out = tempfile::tempdir().unwrap();
        let args = ["encode", text(&path), "-o", text(out.path())];
        command([&args[..], &OPENH264, extra].concat()).output().unwrap()
    };
    let output = encode(&[]);
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
    let line = stdout(&output).strip_prefix(text(&path)).unwrap();
    assert!(line.starts_with(": 1 video, 1 frame in ") && line.ends_with(" s\n"), "{line}");
    let output = encode(&["-q"]);
    assert_eq!((output.status.code(), stdout(&output), stderr(&output)), (Some(0), "", ""));
    // Errors are printed, and nothing but errors.
    let output = command(["encode", "-q", "/nowhere.mcap", "-o", text(directory.path())]).output();
    let output = output.unwrap();
    assert_eq!((output.status.code(), stdout(&output)), (Some(1), ""));
    assert!(stderr(&output).starts_with("error: /nowhere.mcap: "), "{}", stderr(&output));
    // What was asked for is printed.
    assert!(run(["info", "-q", text(&path)]).1.contains("1 frame, "));
}

#[test]
fn messages_are_plain_or_a_log() {
    let directory = tempfile::tempdir().unwrap();
    let mut recording = Recording::create(directory.path().join("a.mcap"));
    for (n, content) in [small_jpeg(0), cut_jpeg(1)].iter().enumerate() {
        let time = EPOCH + n as i64 * 40 * MS;
        recording.write("/cam", Serialization::CdrLittle, time, time, content);
    }
    let path = recording.finish();
    let out = directory.path().join("out");
    let encode = |extra: &[&str]| {
        let args = ["encode", text(&path), "-o", text(&out), "--overwrite"];
        command([&args[..], &OPENH264, extra].concat()).output().unwrap()
    };
    let output = encode(&[]);
    assert_eq!(output.status.code(), Some(3));
    let line = stderr(&output).strip_prefix("warning: /cam: frame cannot be decoded: ");
    assert!(line.is_some_and(|line| line.ends_with(" (frame 1)\n")), "{}", stderr(&output));
    let output = encode(&["--log", "text"]);
    assert!(stderr(&output).contains("Z  WARN camera{topic="), "{}", stderr(&output));
    assert!(stderr(&output).ends_with(" frame=1\n"), "{}", stderr(&output));
    // An error, and its hint on a line of its own.
    let (_, said) = run([&["encode", text(&path), "-o", text(&out)][..], &OPENH264].concat());
    let mut lines = said.lines();
    assert!(lines.next().unwrap().starts_with("error: "), "{said}");
    assert!(lines.next().unwrap().starts_with("hint: give another -o, or --overwrite"), "{said}");
    assert_eq!(lines.next(), None);
}

#[test]
fn control_characters_are_never_printed() {
    let directory = tempfile::tempdir().unwrap();
    let name = "a\u{1b}]0;owned\u{7}\u{9b}31m.mcap";
    let mut recording = Recording::create(directory.path().join(name));
    for (n, content) in [small_jpeg(0), cut_jpeg(1)].iter().enumerate() {
        let time = EPOCH + n as i64 * 40 * MS;
        let topic = "/cam\u{1b}[2J\r\u{85}\u{202e}";
        recording.write(topic, Serialization::CdrLittle, time, time, content);
    }
    let path = recording.finish();
    let out = directory.path().join("out");
    let encode = ["encode", text(&path), "-o", text(&out), "--overwrite", OPENH264[0], OPENH264[1]];
    let broken = directory.path().join("b\u{1b}[31m.mcap");
    std::fs::write(&broken, "nothing").unwrap();
    let safe = |text: &str| {
        let is_raw = |c: &char| (c.is_control() && *c != '\n') || *c == '\u{202e}';
        assert_eq!(text.chars().find(is_raw), None, "{text:?}");
    };
    for (args, code) in [
        (&encode[..], 3),
        (&["info", text(&path)], 0),
        (&["info", text(&path), "--json"], 0),
        (&["info", text(&broken)], 1),
        (&["repair", text(&broken)], 1),
    ] {
        for log in ["plain", "text", "json"] {
            let output = command([args, &["--log", log]].concat()).output().unwrap();
            assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
            safe(stdout(&output));
            safe(stderr(&output));
            let said = format!("{}{}", stdout(&output), stderr(&output));
            assert!(said.contains("1b") || args[0] == "repair", "{args:?}: {said}");
        }
    }
    safe(&std::fs::read_to_string(out.join("report.json")).unwrap());
    let topic = &report(&out.join("report.json"))["outputs"][0]["topic"];
    assert_eq!(topic, "/cam\u{1b}[2J\r\u{85}\u{202e}");
}

#[test]
fn an_output_that_cannot_be_meant_is_wrong_usage() {
    let directory = tempfile::tempdir().unwrap();
    let path = recording(directory.path(), "a.mcap", "/cam", 2);
    let inside = |name: &str| text(&directory.path().join(name)).to_owned();
    for (output, extra, parts) in [
        (inside("v.mkv"), &[][..], &["not as .mkv", "v.mp4", "put / behind it"][..]),
        (inside("v.MOV"), &[], &["not as .mov"]),
        ("-".into(), &[], &["standard output"]),
        (inside("z.mp4"), &["--format", "annexb"], &["--format", "z.h264"]),
        (inside("z.h264"), &["--format", "mp4"], &["--format", "z.mp4"]),
        (inside("v"), &["--topic", "/cam["], &["/cam[", "--topic"]),
    ] {
        let args = [&["encode", text(&path), "-o", &output][..], &OPENH264, extra].concat();
        let (code, said) = run(args);
        assert_eq!(code, 2, "{output}: {said}");
        parts.iter().for_each(|part| assert!(said.contains(part), "{output}: {said}"));
        assert_eq!(entries(directory.path()), ["a.mcap"], "{output}");
    }
    assert_eq!(run(["info", text(&path), "--topic", "/cam["]).0, 2);
    // A directory by its end, and formats that agree.
    for (output, extra, file) in [
        (inside("v.mkv/"), &[][..], "v.mkv/cam.mp4"),
        (inside("w.mp4/"), &[], "w.mp4/cam.mp4"),
        (inside("x.mp4"), &["--format", "mp4"], "x.mp4"),
        (inside("x.264"), &["--format", "annexb", "--overwrite"], "x.264"),
    ] {
        let args = [&["encode", text(&path), "-o", &output][..], &OPENH264, extra].concat();
        let (code, said) = run(args);
        assert_eq!(code, 0, "{output}: {said}");
        assert!(directory.path().join(file).is_file(), "{output}");
    }
}

#[test]
fn a_file_for_many_topics_names_all_of_them() {
    let directory = tempfile::tempdir().unwrap();
    let mut recording = Recording::create(directory.path().join("a.mcap"));
    for (n, topic) in ["/a", "/b", "/c", "/d"].into_iter().enumerate() {
        let time = EPOCH + n as i64 * 40 * MS;
        recording.write(topic, Serialization::CdrLittle, time, time, &small_jpeg(n));
    }
    let path = recording.finish();
    let out = directory.path().join("v.mp4");
    let (code, said) = run([&["encode", text(&path), "-o", text(&out)][..], &OPENH264].concat());
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("(/a, /b, /c, /d)") && said.contains("--topic"), "{said}");
    assert!(!said.contains("0 videos"), "{said}");
    let report = report(&directory.path().join("v.report.json"));
    assert_eq!(report["error_kind"], "output-refused", "{report}");
}

#[test]
fn each_way_out_leaves_a_report() {
    let directory = tempfile::tempdir().unwrap();
    let good = recording(directory.path(), "good.mcap", "/cam", 2);
    let broken = directory.path().join("broken.mcap");
    std::fs::write(&broken, "nothing").unwrap();
    let missing = directory.path().join("missing.mcap");
    let nowhere = directory.path().join("nowhere/metrics.prom");
    // Recording, arguments, kind of the error, message.
    let table: &[(&Path, &[&str], &str, &str)] = &[
        (&missing, &OPENH264, "missing", "hint: check the name: the directory "),
        (&broken, &OPENH264, "broken-input", "hint: "),
        // ENCODER_FFMPEG names no program.
        (&good, &["--encoder", "x264"], "no-encoder", "hint: "),
        #[cfg(feature = "prometheus")]
        (&good, &["--metrics-file", text(&nowhere)], "setup", "--metrics-file"),
    ];
    for (recording, args, kind, part) in table {
        let out = directory.path().join("out");
        let file = directory.path().join("v.mp4");
        for (output, report_path) in
            [(&out, out.join("report.json")), (&file, file.with_extension("report.json"))]
        {
            let all = [&["encode", text(recording), "-o", text(output)][..], args].concat();
            let output = command(all).env("ENCODER_FFMPEG", "/nowhere/ffmpeg").output().unwrap();
            let (code, said) = told(&output);
            assert_eq!(code, 1, "{kind}: {said}");
            assert!(said.contains(part), "{kind}: {said}");
            assert_eq!(stdout(&output), "", "{kind}");
            let report = report(&report_path);
            assert_eq!((&report["exit"], &report["error_kind"]), (&1.into(), &(*kind).into()));
            assert_eq!(report["recording"], text(recording));
            assert!(!file.exists());
        }
        std::fs::remove_dir_all(&out).unwrap();
        std::fs::remove_file(file.with_extension("report.json")).unwrap();
    }
    // One for each recording, also if none could be begun.
    let out = directory.path().join("out");
    let args = ["encode", text(&good), text(&missing), "-o", text(&out), "--encoder", "x264"];
    let output = command(args).env("ENCODER_FFMPEG", "/nowhere/ffmpeg").output().unwrap();
    assert_eq!(told(&output).0, 1);
    for name in ["good", "missing"] {
        let report = report(&out.join(name).join("report.json"));
        assert_eq!(report["error_kind"], "no-encoder", "{report}");
    }
    // The report of a run that made a video is kept.
    assert_eq!(convert(&good, &[]).expect(0).report["exit"], 0);
    let made = out.join("x");
    let args = ["encode", text(&good), "-o", text(&made)];
    assert_eq!(run([&args[..], &OPENH264].concat()).0, 0);
    let (code, said) = run([&args[..], &OPENH264].concat());
    assert_eq!(code, 1, "{said}");
    assert_eq!(report(&out.join("x/report.json"))["exit"], 0);
    // Also with --overwrite, as long as its video is not replaced.
    for (recording, encoder) in [(&good, "x264"), (&missing, "openh264")] {
        let args = ["encode", text(recording), "-o", text(&made), "--overwrite"];
        let mut command = command([&args[..], &["--encoder", encoder]].concat());
        let output = command.env("ENCODER_FFMPEG", "/nowhere/ffmpeg").output().unwrap();
        let (code, said) = told(&output);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("still the report of an earlier run"), "{said}");
        assert_eq!(report(&out.join("x/report.json"))["exit"], 0);
        assert_eq!(entries(&made), ["cam.mp4", "report.json"]);
    }
}

#[test]
fn a_start_behind_the_end_is_answered_with_the_span() {
    let directory = tempfile::tempdir().unwrap();
    let path = recording(directory.path(), "a.mcap", "/cam", 26);
    let pictures = directory.path().join("pictures");
    std::fs::create_dir(&pictures).unwrap();
    for n in 0..5 {
        let picture = Picture::stamped(160, 120, n);
        std::fs::write(pictures.join(format!("{n}.png")), picture.png()).unwrap();
    }
    let first = format!("@{}.{:03}", EPOCH / 1_000_000_000, EPOCH % 1_000_000_000 / 1_000_000);
    for (recording, args, parts) in [
        (&path, &["--start", "100"][..], ["from 0 to 1.000 s", first.as_str()]),
        (&path, &["--end", "@5"], ["from 0 to 1.000 s", first.as_str()]),
        (&pictures, &["--fps", "10", "--start", "9"], ["from 0 to 0.400 s", "@0.000"]),
    ] {
        let converted = convert(recording, args).expect(1);
        assert_eq!(converted.report["error_kind"], "outside-window", "{}", converted.report);
        for part in parts.into_iter().chain(["hint: --start and --end"]) {
            assert!(converted.said.contains(part), "{part}: {}", converted.said);
        }
        assert!(!converted.said.contains("0 videos"), "{}", converted.said);
    }
    // The part that was chosen is left, and an empty topic has no messages anywhere.
    assert_eq!(convert(&path, &["--start", "0.9"]).expect(0).count("frames_in"), 3);
    // Standard input cannot be read again.
    let out = tempfile::tempdir().unwrap();
    let raw = ["encode", "-", "--raw", "rgb24:16x16@10", "--start", "9", "-o", text(out.path())];
    let mut child = command([&raw[..], &OPENH264].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&[0; 16 * 16 * 3 * 4]).unwrap();
    let (code, said) = told(&child.wait_with_output().unwrap());
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("no camera message was logged in the chosen part"), "{said}");
    assert_eq!(report(&out.path().join("report.json"))["error_kind"], "outside-window");
}

/// FFmpeg waits for ten bytes before it looks at a stream, and a frame of 2x2 pixels has six.
#[test]
fn pictures_of_2x2_are_refused_at_once_and_larger_ones_are_encoded() {
    for (size, bytes) in [("2x2", 12), ("2x4", 24), ("4x4", 48)] {
        let out = tempfile::tempdir().unwrap();
        let raw = format!("rgb24:{size}@10");
        let file = out.path().join("v.mp4");
        let args = ["encode", "-", "--raw", &raw, "-o", text(&file), "--encoder", "x264"];
        let mut child = command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&vec![90; bytes * 5]).unwrap();
        let (code, said) = told(&child.wait_with_output().unwrap());
        match bytes {
            12 => {
                assert_eq!(code, 1, "{size}: {said}");
                assert!(said.contains("x264: FFmpeg takes no pictures as small as 2x2"), "{said}");
            }
            _ => {
                assert_eq!(code, 0, "{size}: {said}");
                assert_eq!(decode(&file).frames.len(), 5);
            }
        }
    }
}
