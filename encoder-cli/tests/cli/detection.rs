//! Detection by the program: which results are cached, which are probed again, their cost, and the
//! report on a machine without hardware encoders.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use crate::common;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use common::{
    EPOCH, MS,
    program::{Converted, command, told},
    recording::{camera, small_jpeg},
};
use encoder_testbed::scripted::{Kind, Real, Script, Scripted, Step};
use serde_json::Value;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn real() -> PathBuf {
    std::env::var_os("ENCODER_FFMPEG").unwrap_or_else(|| "ffmpeg".into()).into()
}

/// The program with a scripted FFmpeg and a cache of its own.
struct Bench {
    ffmpeg: Scripted,
    folder: tempfile::TempDir,
}

impl Bench {
    fn new(script: Script) -> Self {
        let ffmpeg = script.lay_down().unwrap();
        Self { ffmpeg, folder: tempfile::tempdir().unwrap() }
    }

    fn command<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = command(args);
        command.envs(self.ffmpeg.environment());
        command.env("ENCODER_CACHE", self.folder.path());
        command
    }

    /// `encoder detect`, x264 alone.
    fn x264(&self, args: &[&str]) -> Value {
        let args = [&["detect", "--json", "--encoder", "x264"], args].concat();
        let output = self.command(args).output().unwrap();
        let (code, said) = told(&output);
        assert_eq!(code, 0, "{said}");
        let all: Value = serde_json::from_slice(&output.stdout).unwrap();
        all[0].clone()
    }

    fn encodes(&self) -> usize {
        self.ffmpeg.calls_for(Kind::Encoding).len()
    }

    fn config(&self, toml: &str) -> String {
        let path = self.folder.path().join("c.toml");
        std::fs::write(&path, toml).unwrap();
        text(&path).to_owned()
    }
}

#[test]
fn a_proof_is_remembered_until_something_changes() {
    let bench = Bench::new(Script::over(real()));
    let first = bench.x264(&[]);
    assert_eq!((&first["status"], bench.encodes()), (&"usable".into(), 1), "{first}");
    assert!(first.get("cached_s").is_none());
    let calls = bench.ffmpeg.calls().len();
    let second = bench.x264(&[]);
    assert!(second["cached_s"].is_u64(), "{second}");
    assert_eq!((&second["status"], &second["library"]), (&first["status"], &first["library"]));
    // FFmpeg was not even started.
    assert_eq!(bench.ffmpeg.calls().len(), calls);
    // Options are part of the cache key, quality is not.
    bench.x264(&["--config", &bench.config("[encoder]\ncrf = 40")]);
    assert_eq!(bench.encodes(), 1);
    bench.x264(&["--config", &bench.config("[encoder]\nb_frames = 1")]);
    assert_eq!(bench.encodes(), 2);
    bench.x264(&["--reprobe"]);
    assert_eq!(bench.encodes(), 3);
    // A different file under the same name.
    let program = std::fs::read(bench.ffmpeg.path()).unwrap();
    std::fs::write(bench.ffmpeg.path(), [&program[..], b"\n# changed\n"].concat()).unwrap();
    bench.x264(&[]);
    assert_eq!(bench.encodes(), 4);
    bench.x264(&[]);
    assert_eq!(bench.encodes(), 4);
}

#[test]
fn what_may_pass_is_not_remembered_and_is_asked_twice() {
    let words = "[libx264] [error] Cannot allocate memory";
    let busy = [Step::TakeAll, Step::say(words), Step::Exit(1)];
    let bench = Bench::new(Script::over(real()).first(3, busy));
    let refused = bench.x264(&[]);
    assert_eq!((&refused["kind"], &refused["transient"]), (&"busy".into(), &true.into()));
    assert_eq!(bench.encodes(), 2);
    // The third probe fails and the fourth succeeds: the second attempt decides.
    assert_eq!(bench.x264(&[])["status"], "usable");
    assert_eq!(bench.encodes(), 4);
}

#[test]
fn a_probe_that_hangs_floods_or_crashes_costs_its_deadline_and_nothing_else() {
    let hang = vec![Step::IgnoreSignals, Step::Hang];
    let flood = vec![Step::IgnoreSignals, Step::FloodStderr(None)];
    // encode | list | kind
    let table = [
        (hang.clone(), vec![Step::List], "timeout"),
        (flood, vec![Step::List], "timeout"),
        (vec![Step::IgnoreSignals, Step::FloodStdout(None)], vec![Step::List], "failed"),
        (vec![Step::Take(1000), Step::Die("SEGV")], vec![Step::List], "failed"),
        (vec![Step::HoldPipes, Step::Exit(1)], vec![Step::List], "timeout"),
        (vec![], vec![Step::List], "wrong-output"),
        (vec![Step::Real(Real::new(real()).cut(3000))], vec![Step::List], "wrong-output"),
        (vec![], vec![Step::Exit(1)], "failed"),
        (vec![], hang, "timeout"),
    ];
    for (encoding, listing, kind) in table {
        let script = Script::over(real()).encoders(&["libx264"]);
        let bench = Bench::new(script.encoding(encoding.clone()).listing(listing));
        // A real FFmpeg may need seconds on a busy machine.
        let deadline = if kind == "timeout" { 1 } else { 60 };
        let config = bench.config(&format!("[gpu]\nprobe_timeout_s = {deadline}"));
        let begun = Instant::now();
        let found = bench.x264(&["--config", &config]);
        assert_eq!(found["kind"], kind, "{encoding:?}: {found}");
        // The deadline, plus the time to end a child process on a busy machine.
        assert!(begun.elapsed() < Duration::from_secs(deadline + 40), "{encoding:?}");
        #[cfg(target_os = "linux")]
        for call in bench.ffmpeg.calls() {
            encoder_testbed::process::assert_group_gone(call.process);
        }
    }
}

/// A recording of five frames.
fn recording(folder: &Path) -> PathBuf {
    let frames: Vec<_> = (0..5)
        .map(|n| {
            let time = EPOCH + n as i64 * 40 * MS;
            (time, time, small_jpeg(n))
        })
        .collect();
    camera(folder, &frames)
}

/// The probe's result is reused when the encoder is opened.
#[test]
fn a_run_whose_proof_is_remembered_starts_ffmpeg_once() {
    let bench = Bench::new(Script::over(real()));
    let recording = recording(bench.folder.path());
    let encode = || {
        let out = tempfile::tempdir().unwrap();
        let args = ["encode", text(&recording), "-o", text(out.path()), "--encoder", "x264"];
        let (code, said) = told(&bench.command(args).output().unwrap());
        let done = Converted::check(out, "report.json", code, said).expect(0);
        done.output()["encoder_description"].clone()
    };
    let first = encode();
    let calls = bench.ffmpeg.calls().len();
    assert!(calls > 1);
    assert_eq!(encode(), first);
    assert_eq!(bench.ffmpeg.calls().len(), calls + 1);
    assert_eq!(bench.encodes(), 3);
}

#[test]
fn a_machine_without_hardware_says_so_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let recording = recording(folder.path());
    let output = command(["detect", "--json"]).output().unwrap();
    let all: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let refused: Vec<_> =
        all.iter().filter(|d| d["hardware"] == true && d["status"] == "refused").collect();
    for found in &refused {
        assert!(!found["reason"].as_str().unwrap().is_empty(), "{found}");
        assert!(!found["hint"].as_str().unwrap().is_empty(), "{found}");
    }
    let usable = |d: &&Value| d["hardware"] == true && d["status"] == "usable";
    if let Some(found) = all.iter().find(usable) {
        println!("left out: {} works here", found["encoder"]);
        return;
    }
    let convert = |args: &[&str]| {
        let out = tempfile::tempdir().unwrap();
        let all = [&["encode", text(&recording), "-o", text(out.path())], args].concat();
        let (code, said) = told(&command(all).output().unwrap());
        Converted::check(out, "report.json", code, said)
    };
    let done = convert(&[]).expect(0);
    assert_eq!(done.output()["encoder"], "x264");
    // A device that is here and does not work has a warning of its own.
    let is_absent = |found: &&&Value| found["kind"] == "no-device";
    if !refused.is_empty() && refused.iter().filter(is_absent).count() == refused.len() {
        let note = "note: software encoding by x264; no hardware encoder here: see `encoder \
                    detect`\n";
        assert_eq!(done.said.matches(note).count(), 1, "{}", done.said);
        assert_eq!(done.said.lines().count(), 2, "{}", done.said);
        // If software was asked for, there is no note.
        let asked = convert(&["--encoder", "openh264"]).expect(0);
        assert_eq!(asked.said.lines().count(), 1, "{}", asked.said);
    }
    for found in &refused {
        // An encoder that was requested by name causes an error with the same text.
        let failed = convert(&["--encoder", found["encoder"].as_str().unwrap()]).expect(1);
        for words in ["reason", "hint"] {
            assert!(failed.said.contains(found[words].as_str().unwrap()), "{}", failed.said);
        }
    }
    let config = folder.path().join("c.toml");
    std::fs::write(&config, "[gpu]\nrequire_hardware = true\n").unwrap();
    let failed = convert(&["--config", text(&config)]).expect(1);
    assert!(failed.said.contains("no encoder could be opened"), "{}", failed.said);
    assert!(failed.said.contains("a software encoder, and hardware is required"));
}

#[test]
fn an_encoder_that_is_not_in_the_build_is_wrong_usage() {
    let (code, said) = told(&command(["detect", "--encoder", "nvnc"]).output().unwrap());
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("no encoder `nvnc` in this build; did you mean `nvenc`?"), "{said}");
}
