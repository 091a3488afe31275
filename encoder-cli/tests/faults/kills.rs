//! Kills the child process at random moments while the program runs.

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

/// A recording, and a cache with the probe of its encoder, so that the only child process encodes.
pub struct Range {
    folder: tempfile::TempDir,
    recording: PathBuf,
    random: u64,
    /// How long a child process lives without a fault.
    life: Duration,
    /// The most memory of a run without a fault, in KiB.
    pub usual_memory: u64,
}

/// The result of a run in which the child was killed.
#[derive(Default)]
pub struct Death {
    pub frames_out: usize,
    pub lost: usize,
    pub repeated: usize,
    pub failovers: usize,
    pub memory: u64,
    /// How long the first child process lived.
    life: Duration,
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
            Self { folder, recording, random: seed, life: Duration::ZERO, usual_memory: 0 };
        let (code, said) = told(&range.command(&["detect", "--encoder", "x264"]).output().unwrap());
        assert_eq!(code, 0, "{said}");
        let undisturbed = range.run(None);
        assert_eq!((undisturbed.wrong.as_str(), undisturbed.failovers), ("", 0));
        assert!(undisturbed.life > Duration::ZERO, "it has no child");
        range.life = undisturbed.life;
        range.usual_memory = undisturbed.memory;
        range
    }

    fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = command(args.iter().copied());
        command.env("ENCODER_CACHE", self.folder.path().join("cache"));
        // An encoder in this process has no child.
        let config = self.folder.path().join("config.toml");
        std::fs::write(&config, "[backend.x264]\nmode = \"ffmpeg\"\n").unwrap();
        command.arg("--config").arg(config);
        command
    }

    /// One run whose child process is killed at a random moment. `None` if it had ended before.
    pub fn death(&mut self) -> Option<Death> {
        // A sufficient generator: it must reach every phase, but need not be unpredictable.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let after = self.life.mul_f64((self.random % 1000) as f64 / 1000.0);
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
        let mut memory = 0;
        // The first child process: its number, its start and, while it was seen, its lifetime.
        let mut first: Option<(u32, Instant, Duration)> = None;
        let mut is_killed = kill_after.is_none();
        while program.try_wait().unwrap().is_none() {
            memory = memory.max(peak(program.id()));
            let now = child(&program);
            match (now, &mut first) {
                (Some(id), None) => first = Some((id, Instant::now(), Duration::ZERO)),
                (Some(id), Some((of, born, life))) if id == *of => *life = born.elapsed(),
                _ => {}
            }
            if let Some((id, _, life)) = first
                && kill_after.is_some_and(|after| life >= after)
                && !is_killed
            {
                // It may have ended by itself in the meantime.
                let kill = ["-KILL".to_string(), id.to_string()];
                let _ =
                    std::process::Command::new("kill").args(kill).stderr(Stdio::null()).status();
                is_killed = true;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let (code, said) = told(&program.wait_with_output().unwrap());
        let death = judge(out, code, said, memory, first.map(|(id, ..)| id));
        Death { life: first.map_or(Duration::ZERO, |(.., life)| life), ..death }
    }
}

/// The FFmpeg that encodes for the program, not an FFmpeg that prints its version.
fn child(program: &Child) -> Option<u32> {
    let encodes = |id: u32| {
        let line = std::fs::read(Path::new("/proc").join(id.to_string()).join("cmdline"));
        line.is_ok_and(|line| String::from_utf8_lossy(&line).contains("libx264"))
    };
    let all = process::children_of(program.id());
    all.into_iter().find(|child| !child.zombie && encodes(child.id)).map(|c| c.id)
}

/// The most memory of a process so far, in KiB.
pub fn peak(id: u32) -> u64 {
    let status = std::fs::read_to_string(Path::new("/proc").join(id.to_string()).join("status"));
    let status = status.unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

fn judge(
    out: tempfile::TempDir,
    code: i32,
    said: String,
    memory: u64,
    child: Option<u32>,
) -> Death {
    let converted = Converted::check(out, "report.json", code, said);
    let mut wrong = String::new();
    if code != 0 {
        wrong = format!("exit {code}: {}", converted.said);
        return Death { lost: COUNT, memory, wrong, ..Death::default() };
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
    if let Some(child) = child.filter(|id| !process::is_gone(*id)) {
        wrong.push_str(&format!("; process {child} is left"));
    }
    let failovers = converted.output()["failovers"].as_array().map_or(0, Vec::len);
    let frames_out = numbers.len();
    Death { frames_out, lost, repeated, failovers, memory, wrong, ..Death::default() }
}
