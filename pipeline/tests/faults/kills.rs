//! Random deaths of the child, from outside, while the program works.

use std::{
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use encoder_testbed::process;

use super::common::{
    EPOCH, MS,
    picture::Picture,
    program::{Converted, command, told},
    recording::{Content, camera},
};

/// Frames of the recording.
const COUNT: usize = 120;

/// A recording, and a cache with the proof of its encoder, so that the only child is the encode.
pub struct Range {
    folder: tempfile::TempDir,
    recording: PathBuf,
    random: u64,
    /// How long an undisturbed run takes.
    usual: Duration,
    /// The most memory of an undisturbed run in KiB.
    pub usual_memory: u64,
}

/// What a run with a death in it showed.
pub struct Death {
    pub frames_out: usize,
    pub lost: usize,
    pub repeated: usize,
    pub failovers: usize,
    pub memory: u64,
    pub wrong: String,
}

impl Range {
    pub fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let frames: Vec<_> = (0..COUNT)
            .map(|n| {
                let time = EPOCH + n as i64 * 40 * MS;
                (time, time, Content::raw(&Picture::stamped(320, 192, n), "bgr8", 0))
            })
            .collect();
        let recording = camera(folder.path(), &frames);
        let mut range =
            Self { folder, recording, random: seed, usual: Duration::ZERO, usual_memory: 0 };
        let (code, said) = told(&range.command(&["detect", "--encoder", "x264"]).output().unwrap());
        assert_eq!(code, 0, "{said}");
        let begun = Instant::now();
        let undisturbed = range.run(None);
        assert_eq!((undisturbed.wrong.as_str(), undisturbed.failovers), ("", 0));
        range.usual = begun.elapsed();
        range.usual_memory = undisturbed.memory;
        range
    }

    fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = command(args.iter().copied());
        command.env("ENCODER_CACHE", self.folder.path().join("cache"));
        command
    }

    /// One run, whose child is killed at a random moment. `None` where it had ended before.
    pub fn death(&mut self) -> Option<Death> {
        // A good enough generator: it has to miss no phase, not to be unpredictable.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let after = self.usual.mul_f64((self.random % 1000) as f64 / 1000.0);
        let death = self.run(Some(after));
        (death.failovers > 0 || !death.wrong.is_empty()).then_some(death)
    }

    fn run(&self, kill_after: Option<Duration>) -> Death {
        let out = tempfile::tempdir().unwrap();
        let paths = [&self.recording, out.path()].map(|path| path.to_str().unwrap());
        let args =
            ["encode", paths[0], "-o", paths[1], "--encoder", "x264", "--b-frames", "2", "-q"];
        let mut command = self.command(&args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut program = command.spawn().unwrap();
        let begun = Instant::now();
        let mut to_kill = kill_after;
        let mut memory = 0;
        let mut orphans = Vec::new();
        while program.try_wait().unwrap().is_none() {
            memory = memory.max(peak(program.id()));
            if let Some(after) = to_kill
                && begun.elapsed() >= after
                && let Some(child) = child(&program)
            {
                orphans.push(child);
                // It may have gone by itself in between.
                let kill = ["-KILL".to_string(), child.to_string()];
                let _ =
                    std::process::Command::new("kill").args(kill).stderr(Stdio::null()).status();
                to_kill = None;
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        let (code, said) = told(&program.wait_with_output().unwrap());
        judge(out, code, said, memory, &orphans)
    }
}

/// The FFmpeg that the program has started.
fn child(program: &Child) -> Option<u32> {
    let all = process::children_of(program.id());
    all.into_iter().find(|child| !child.zombie && child.name.starts_with("ffmpeg")).map(|c| c.id)
}

/// The most memory of a process so far in KiB.
pub fn peak(id: u32) -> u64 {
    let status = std::fs::read_to_string(Path::new("/proc").join(id.to_string()).join("status"));
    let status = status.unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

fn judge(out: tempfile::TempDir, code: i32, said: String, memory: u64, children: &[u32]) -> Death {
    let converted = Converted::check(out, "report.json", code, said);
    let mut wrong = String::new();
    if code != 0 {
        wrong = format!("exit {code}: {}", converted.said);
        return Death { frames_out: 0, lost: COUNT, repeated: 0, failovers: 0, memory, wrong };
    }
    let video = converted.video();
    let numbers = video.numbers();
    let shown: Vec<usize> = numbers.iter().flatten().copied().collect();
    let lost = (0..COUNT).filter(|n| !shown.contains(n)).count();
    let repeated = shown.len() - (COUNT - lost).min(shown.len());
    if numbers != (0..COUNT).map(Some).collect::<Vec<_>>() {
        wrong = format!("pictures {numbers:?}");
    }
    if video.nanoseconds() != (0..COUNT as u64).map(|n| n * 40_000_000).collect::<Vec<_>>() {
        wrong.push_str("; wrong times");
    }
    if let Some(child) = children.iter().find(|id| !process::is_gone(**id)) {
        wrong.push_str(&format!("; process {child} is left"));
    }
    let failovers = converted.output()["failovers"].as_array().map_or(0, Vec::len);
    Death { frames_out: numbers.len(), lost, repeated, failovers, memory, wrong }
}
