//! Runs the program and reads its output files.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{
    decode::{Video, decode},
    entries,
};

/// The program with arguments, ready to run.
pub fn command<'a>(args: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_encoder"));
    // Independent of earlier runs, and without effect on later runs.
    command.args(args).env_remove("ENCODER_LOG").env("ENCODER_CACHE", "");
    command
}

/// Runs the program: exit code and output.
pub fn run<'a>(args: impl IntoIterator<Item = &'a str>) -> (i32, String) {
    told(&command(args).output().unwrap())
}

/// Exit code and output.
pub fn told(output: &Output) -> (i32, String) {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let code = output.status.code().expect("no signal");
    assert_ne!(code, 101, "a panic: {}", String::from_utf8_lossy(&text));
    (code, String::from_utf8_lossy(&text).into_owned())
}

/// A conversion and its results.
pub struct Converted {
    /// The directory that contains all paths below.
    pub directory: TempDir,
    pub code: i32,
    pub said: String,
    /// `report.json`; null if it does not exist.
    pub report: Value,
}

/// Converts a recording into a new directory, with OpenH264 unless `args` set another encoder,
/// and checks the invariants of every run.
pub fn convert(recording: &Path, args: &[&str]) -> Converted {
    let directory = tempfile::tempdir().unwrap();
    let mut all = vec!["encode", recording.to_str().unwrap(), "-o"];
    all.push(directory.path().to_str().unwrap());
    all.extend(args);
    if !args.contains(&"--encoder") && !args.contains(&"--config") {
        all.extend(["--encoder", "openh264"]);
    }
    let (code, said) = run(all);
    Converted::check(directory, "report.json", code, said)
}

/// Converts what is written to standard input, with OpenH264. Input that the program does not read
/// is not an error.
pub fn convert_input(bytes: &[u8], args: &[&str]) -> Converted {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().to_str().unwrap();
    let common = ["encode", "-", "--encoder", "openh264", "-o", output];
    let mut child = command([&common[..], args].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(bytes);
    let (code, said) = told(&child.wait_with_output().unwrap());
    Converted::check(directory, "report.json", code, said)
}

impl Converted {
    /// Reads the report and checks the invariants of every run.
    pub fn check(directory: TempDir, report: &str, code: i32, said: String) -> Self {
        let report: Value = match std::fs::read(directory.path().join(report)) {
            Ok(text) => serde_json::from_slice(&text).unwrap(),
            Err(_) => Value::Null,
        };
        let converted = Self { directory, code, said, report };
        if converted.report.is_null() {
            assert_eq!(converted.files(), Vec::<String>::new(), "{}", converted.said);
        } else {
            converted.check_report();
        }
        converted
    }

    fn check_report(&self) {
        let report = &self.report;
        assert_eq!(report["exit"], self.code, "{report}");
        let mut named = Vec::new();
        for output in self.outputs() {
            let count = |key: &str| output[key].as_i64().unwrap_or_else(|| panic!("{key}"));
            if let Some(file) = output["file"].as_str() {
                named.push(file.to_string());
                assert_eq!(
                    count("frames_in"),
                    count("frames_encoded") - count("frames_repeated")
                        + count("frames_failed")
                        + count("frames_dropped")
                        + count("frames_left_out"),
                    "{output}"
                );
                assert!(output["encoder"].is_string(), "{output}");
                assert!(output.get("error").is_none(), "{output}");
            } else {
                assert!(output["error"].is_string(), "{output}");
                assert_eq!(self.code, 1, "{report}");
                named.extend(output["partial"].as_str().map(str::to_owned));
            }
        }
        named.sort();
        // No incomplete files and no temporary files: only the files that the report names.
        let left: Vec<_> =
            self.files().into_iter().filter(|f| !f.ends_with("report.json")).collect();
        assert_eq!(left, named, "{report}");
    }

    /// All names in the directory, including hidden files.
    pub fn files(&self) -> Vec<String> {
        entries(self.directory.path())
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    pub fn outputs(&self) -> Vec<&Value> {
        self.report["outputs"].as_array().into_iter().flatten().collect()
    }

    /// The only output of the report.
    pub fn output(&self) -> &Value {
        match self.outputs()[..] {
            [one] => one,
            _ => panic!("not one output: {}\n{}", self.report, self.said),
        }
    }

    /// The video of the only output.
    pub fn video(&self) -> Video {
        decode(&self.path(self.output()["file"].as_str().unwrap_or_else(|| {
            panic!("no file: {}\n{}", self.report, self.said);
        })))
    }

    /// A counter of the only output.
    pub fn count(&self, key: &str) -> i64 {
        self.output()[key].as_i64().unwrap_or_else(|| panic!("no {key}"))
    }

    /// Fails if the report has another exit code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\n{:#}", self.said, self.report);
        self
    }

    /// Whether any warning of the report contains `part`.
    pub fn warns(&self, part: &str) -> bool {
        let of_outputs = self.outputs().into_iter().map(|o| &o["warnings"]);
        of_outputs
            .chain([&self.report["warnings"]])
            .filter_map(Value::as_array)
            .flatten()
            .any(|w| w.as_str().is_some_and(|w| w.contains(part)))
    }
}
