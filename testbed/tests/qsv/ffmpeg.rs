//! The FFmpegs of this machine, and their input pictures.

use std::{
    fs::{self, File},
    process::{Child, Command, ExitStatus},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

pub use encoder_testbed::ffmpeg::Ffmpeg;
use encoder_testbed::{ffmpeg, qsv::VirtualQsv};
use tempfile::TempDir;

/// Much longer than any run takes.
const LONG: Duration = Duration::from_secs(60);

/// The FFmpegs that have h264_qsv.
pub fn ffmpegs() -> &'static [Ffmpeg] {
    static FOUND: OnceLock<Vec<Ffmpeg>> = OnceLock::new();
    FOUND.get_or_init(|| ffmpeg::ffmpegs("h264_qsv", |_| true))
}

/// A run of FFmpeg that encodes raw NV12 pictures.
#[derive(Clone)]
pub struct Encode<'a> {
    pub ffmpeg: &'a Ffmpeg,
    pub device: &'a VirtualQsv,
    pub size: (usize, usize),
    pub frames: usize,
    /// The encoder, and the filters that it needs.
    pub codec: &'static str,
    /// Options in front of the input.
    pub global: String,
    pub options: String,
    pub format: &'static str,
}

impl<'a> Encode<'a> {
    pub fn new(ffmpeg: &'a Ffmpeg, device: &'a VirtualQsv) -> Self {
        Self {
            ffmpeg,
            device,
            size: (160, 96),
            frames: 20,
            codec: "-c:v h264_qsv -pix_fmt nv12",
            global: String::new(),
            options: "-global_quality 23 -look_ahead 0 -bf 0".into(),
            format: "h264",
        }
    }

    pub fn options(self, options: &str) -> Self {
        Self { options: options.into(), ..self }
    }

    /// Noise of which a part changes from picture to picture.
    pub fn input(&self) -> Vec<u8> {
        let size = self.size.0 * self.size.1 * 3 / 2;
        let mut state = 1_u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Runs of zeros need escaping in H.264.
            if state >> 30 == 0 { 0 } else { (state >> 24) as u8 }
        };
        let mut pictures: Vec<u8> = (0..size).map(|_| noise()).collect();
        for _ in 1..self.frames {
            let begin = pictures.len();
            pictures.extend_from_within(begin - size..);
            let at = begin + usize::from(noise()) * (size / 300);
            pictures[at..at + size / 16].fill_with(&mut noise);
        }
        pictures
    }

    pub fn start(&self) -> Run {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("in"), self.input()).unwrap();
        let size = format!("{}x{}", self.size.0, self.size.1);
        let mut command = Command::new(&self.ffmpeg.path);
        command
            .args(["-hide_banner", "-nostdin", "-v", "warning"])
            .args(self.global.split_whitespace())
            .args(["-f", "rawvideo", "-pix_fmt", "nv12", "-s", &size, "-framerate", "30", "-i"])
            .args(["in", "-map", "0:v", "-fps_mode", "passthrough"])
            .args(self.codec.split_whitespace())
            .args(self.options.split_whitespace())
            .args(["-f", self.format, "out"])
            .current_dir(folder.path())
            .stderr(File::create(folder.path().join("err")).unwrap());
        let child = self.device.apply(&mut command).spawn().unwrap();
        Run { child, folder }
    }

    pub fn run(&self) -> Ended {
        self.start().end()
    }

    /// Decodes the file that was written.
    pub fn decode(&self, ended: &Ended) -> Vec<u8> {
        let output = Command::new(&self.ffmpeg.path)
            .args(["-hide_banner", "-nostdin", "-v", "error", "-f", self.format, "-i", "out"])
            .args(["-fps_mode", "passthrough", "-pix_fmt", "nv12", "-f", "rawvideo", "pipe:1"])
            .current_dir(ended.folder.path())
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{}", self.what());
        output.stdout
    }

    /// The packets as FFmpeg's `framecrc` writes them: decoding and presentation times.
    pub fn times(&self, ended: &Ended) -> Vec<(i64, i64)> {
        let output = Command::new(&self.ffmpeg.path)
            .args(["-hide_banner", "-nostdin", "-v", "error", "-f", self.format, "-i", "out"])
            .args(["-c", "copy", "-copyts", "-f", "framecrc", "pipe:1"])
            .current_dir(ended.folder.path())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let number = |field: &str| field.trim().parse().unwrap();
        lines
            .map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>())
            .map(|fields| (number(&fields[1]), number(&fields[2])))
            .collect()
    }

    /// Runs, and asserts that every picture is restored and that there are no violations.
    pub fn assert_exact(&self) -> Ended {
        let ended = self.run();
        let what = self.what();
        assert!(ended.status.success(), "{what}: {}: {}", ended.status, ended.stderr());
        assert_eq!(self.device.violations(), [""; 0], "{what}");
        let (input, decoded) = (self.input(), self.decode(&ended));
        assert_eq!(decoded.len(), input.len(), "{what}: bytes");
        assert!(decoded == input, "{what}: the pictures differ");
        ended
    }

    fn what(&self) -> String {
        let Self { ffmpeg, size, global, options, .. } = self;
        format!("{} {size:?} {global} {options} {}", ffmpeg.path.display(), self.format)
    }
}

/// A running FFmpeg.
pub struct Run {
    pub child: Child,
    folder: TempDir,
}

impl Run {
    /// Waits for the end, and kills the program if that takes too long, which its status shows.
    pub fn end(mut self) -> Ended {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if begun.elapsed() > LONG {
                self.child.kill().unwrap();
            }
            thread::sleep(Duration::from_millis(5));
        };
        Ended { status, folder: self.folder }
    }
}

/// Waits until `done` returns true.
pub fn wait_until(done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < LONG, "it did not come");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The result of a run.
pub struct Ended {
    pub status: ExitStatus,
    folder: TempDir,
}

impl Ended {
    pub fn stderr(&self) -> String {
        let bytes = fs::read(self.folder.path().join("err")).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The first line with an error.
    pub fn complaint(&self) -> Option<String> {
        let about = ["h264_qsv @", "h264_vaapi @", "AVHWDeviceContext @", "VAAPI @"];
        let is_error = |line: &&str| about.iter().any(|name| line.contains(name));
        self.stderr().lines().find(is_error).map(String::from)
    }
}
