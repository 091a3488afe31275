//! The program with a virtual device in its environment.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use encoder_testbed::{nvenc::VirtualNvenc, process, qsv::VirtualQsv};
use serde_json::Value;

use super::{
    EPOCH, MS,
    picture::Picture,
    program::{Converted, command, told},
    recording::{Content, camera},
};

/// Frames of the recording: more than in a probe, so that a fault can be limited to a stream.
pub const COUNT: usize = 40;
/// Width and height of the recording in pixels.
pub const SIZE: (usize, usize) = (322, 178);

/// A device that replaces hardware.
pub trait Virtual {
    /// The encoder that runs on it.
    const ENCODER: &'static str;
    /// The environment variables by which a program finds it.
    fn environment(&self) -> Vec<(OsString, OsString)>;
}

impl Virtual for VirtualNvenc {
    const ENCODER: &'static str = "nvenc";
    fn environment(&self) -> Vec<(OsString, OsString)> {
        self.environment()
    }
}

impl Virtual for VirtualQsv {
    const ENCODER: &'static str = "qsv";
    fn environment(&self) -> Vec<(OsString, OsString)> {
        self.environment()
    }
}

/// A device, a cache of probe results, and a recording of one camera.
pub struct Bench<D> {
    pub device: D,
    pub folder: tempfile::TempDir,
    pub recording: PathBuf,
}

/// The device of [`VirtualQsv`], for VA-API.
pub struct VirtualVaapi(pub VirtualQsv);

impl Virtual for VirtualVaapi {
    const ENCODER: &'static str = "vaapi";
    fn environment(&self) -> Vec<(OsString, OsString)> {
        self.0.environment()
    }
}

impl<D: Virtual> Bench<D> {
    pub fn new(device: D) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let frames: Vec<_> = (0..COUNT)
            .map(|n| {
                let time = EPOCH + n as i64 * 40 * MS;
                let picture = Picture::stamped(SIZE.0, SIZE.1, n);
                (time, time, Content::raw(&picture, "rgb8", 0))
            })
            .collect();
        let recording = camera(folder.path(), &frames);
        Self { device, folder, recording }
    }

    pub fn with(self, change: impl FnOnce(D) -> D) -> Self {
        Self { device: change(self.device), ..self }
    }

    pub fn command<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = command(args);
        command.envs(self.device.environment());
        command.env("ENCODER_CACHE", self.folder.path().join("cache"));
        command
    }

    pub fn config(&self, toml: &str) -> PathBuf {
        let path = self.folder.path().join("config.toml");
        std::fs::write(&path, toml).unwrap();
        path
    }

    /// `encoder detect` of its encoder alone.
    pub fn detect(&self, toml: &str) -> Value {
        let config = self.config(toml);
        let args = ["detect", "--encoder", D::ENCODER, "--json", "--config", text(&config)];
        let begun = Instant::now();
        let output = self.command(args).arg("--reprobe").output().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(60), "deadlines hold");
        let (code, said) = told(&output);
        assert_eq!(code, 0, "{said}");
        self.nobody_is_left();
        let all: Value = serde_json::from_slice(&output.stdout).unwrap();
        all[0].clone()
    }

    /// Converts the recording into a new folder.
    pub fn convert(&self, args: &[&str], toml: &str) -> Converted {
        let (config, out) = (self.config(toml), tempfile::tempdir().unwrap());
        let mut all = vec!["encode", text(&self.recording), "-o", text(out.path())];
        all.extend(["--config", text(&config)]);
        all.extend(args);
        let output = self.command(all).output().unwrap();
        let (code, said) = told(&output);
        self.nobody_is_left();
        Converted::check(out, "report.json", code, said)
    }

    /// Checks that no process of this device is alive.
    pub fn nobody_is_left(&self) {
        let environment = self.device.environment();
        let is_spec = |name: &OsString| name.to_string_lossy().starts_with("ENCODER_VIRTUAL");
        let (_, spec) = environment.iter().find(|(name, _)| is_spec(name)).unwrap();
        let mark = spec.to_str().unwrap();
        process::until("everybody is gone", || process::with_environment(mark).is_empty());
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The numbers of all frames of the recording.
pub fn numbers() -> Vec<Option<usize>> {
    (0..COUNT).map(Some).collect()
}

/// The only warning about an encoder that was passed over.
pub fn warning<'a>(said: &'a str, encoder: &str) -> &'a str {
    let of = format!(" {encoder}: encoder passed over: ");
    let is_of = |line: &&str| line.starts_with("warning:") && line.contains(&of);
    let all: Vec<_> = said.lines().filter(is_of).collect();
    assert_eq!(all.len(), 1, "{said}");
    all[0]
}
