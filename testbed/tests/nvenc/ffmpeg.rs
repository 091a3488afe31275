//! The FFmpegs of this machine, and their input pictures.

use std::{
    io::{Read, Write},
    process::{Child, Command, Output, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

pub use encoder_testbed::ffmpeg::Ffmpeg;
use encoder_testbed::{ffmpeg, nvenc::VirtualNvenc};

/// Much longer than any run takes.
pub const LONG: Duration = Duration::from_secs(60);

/// The FFmpegs that have h264_nvenc and use an API that the device supports.
pub fn ffmpegs() -> &'static [Ffmpeg] {
    static FOUND: OnceLock<Vec<Ffmpeg>> = OnceLock::new();
    FOUND.get_or_init(|| ffmpeg::ffmpegs("h264_nvenc", is_known))
}

fn is_known(ffmpeg: &Ffmpeg) -> bool {
    let Ok(device) = VirtualNvenc::new() else { return false };
    let output = Encode::new(ffmpeg, &device).run();
    let known = output.status.success() || !stderr(&output).contains("invalid version (15)");
    if !known {
        eprintln!("left out: {} speaks an encode API without a header", ffmpeg.path.display());
    }
    known
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The first line of h264_nvenc with an error.
pub fn complaint(output: &Output) -> Option<String> {
    stderr(output).lines().find(|line| line.contains("h264_nvenc @")).map(String::from)
}

/// A run of FFmpeg that encodes raw pictures from its standard input to its standard output.
#[derive(Clone)]
pub struct Encode<'a> {
    ffmpeg: &'a Ffmpeg,
    device: &'a VirtualNvenc,
    pub pixels: &'static str,
    pub size: (usize, usize),
    pub frames: usize,
    pub options: Vec<String>,
    pub format: &'static str,
}

impl<'a> Encode<'a> {
    pub fn new(ffmpeg: &'a Ffmpeg, device: &'a VirtualNvenc) -> Self {
        Self {
            ffmpeg,
            device,
            pixels: "nv12",
            size: (160, 96),
            frames: 12,
            options: Vec::new(),
            format: "h264",
        }
    }

    pub fn options(self, options: &str) -> Self {
        Self { options: options.split_whitespace().map(String::from).collect(), ..self }
    }

    /// The bytes of one picture.
    pub fn picture(&self) -> usize {
        let (width, height) = self.size;
        if self.pixels == "yuv444p" { width * height * 3 } else { width * height * 3 / 2 }
    }

    /// Noise of which a part changes from picture to picture.
    pub fn input(&self) -> Vec<u8> {
        let picture = self.picture();
        let mut state = 1_u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Runs of zeros need escaping in H.264.
            if state >> 30 == 0 { 0 } else { (state >> 24) as u8 }
        };
        let mut pictures: Vec<u8> = (0..picture).map(|_| noise()).collect();
        for _ in 1..self.frames {
            let begin = pictures.len();
            pictures.extend_from_within(begin - picture..);
            let at = begin + noise() as usize * (picture / 300);
            pictures[at..at + picture / 16].fill_with(&mut noise);
        }
        pictures
    }

    /// Starts it, with standard input, output and error as pipes.
    pub fn spawn(&self) -> Child {
        pipes(&mut self.command()).spawn().unwrap()
    }

    /// Starts it and writes its input, for a run that does not end by itself; its output is not
    /// read.
    pub fn leave(&self) -> Child {
        let mut command = self.command();
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let (mut stdin, input) = (child.stdin.take().unwrap(), self.input());
        // Input that it does not read is lost when it is killed.
        thread::spawn(move || drop(stdin.write_all(&input)));
        child
    }

    fn command(&self) -> Command {
        let size = format!("{}x{}", self.size.0, self.size.1);
        let mut command = Command::new(&self.ffmpeg.path);
        command
            .args(["-hide_banner", "-v", "warning", "-f", "rawvideo", "-r", "30"])
            .args(["-pix_fmt", self.pixels, "-s", &size, "-i", "pipe:0", "-c:v", "h264_nvenc"])
            .args(&self.options)
            .args(["-f", self.format, "pipe:1"]);
        self.device.apply(&mut command);
        command
    }

    /// Runs it to its end.
    pub fn run(&self) -> Output {
        feed(self.spawn(), self.input(), LONG)
    }

    /// Decodes `encoded`.
    pub fn decode(&self, encoded: Vec<u8>) -> Output {
        let mut command = Command::new(&self.ffmpeg.path);
        command
            .args(["-hide_banner", "-v", "error", "-f", self.format, "-i", "pipe:0"])
            .args(["-fps_mode", "passthrough", "-pix_fmt", self.pixels, "-f", "rawvideo"])
            .arg("pipe:1");
        feed(pipes(&mut command).spawn().unwrap(), encoded, LONG)
    }

    /// The packets' presentation times in `encoded`, as FFmpeg's `framecrc` writes them.
    pub fn times(&self, encoded: Vec<u8>) -> Vec<i64> {
        let mut command = Command::new(&self.ffmpeg.path);
        command
            .args(["-hide_banner", "-v", "error", "-f", self.format, "-i", "pipe:0"])
            .args(["-c", "copy", "-f", "framecrc", "pipe:1"]);
        let output = feed(pipes(&mut command).spawn().unwrap(), encoded, LONG);
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.split(',').nth(2).unwrap().trim().parse().unwrap()).collect()
    }

    /// Runs, and asserts that every picture is restored.
    pub fn assert_exact(&self) -> Vec<u8> {
        let what = format!(
            "{} {} {:?} {:?} {:?}",
            self.ffmpeg.path.display(),
            self.pixels,
            self.size,
            self.options,
            self.format
        );
        let output = self.run();
        assert!(output.status.success(), "{what}: {}: {}", output.status, stderr(&output));
        let encoded = output.stdout;
        let decoded = self.decode(encoded.clone());
        assert_eq!(stderr(&decoded), "", "{what}");
        let input = self.input();
        assert_eq!(decoded.stdout.len(), input.len(), "{what}: bytes");
        assert!(decoded.stdout == input, "{what}: the pictures differ");
        encoded
    }
}

pub fn pipes(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped())
}

/// Writes to the program while reading from it, and kills it if it takes longer than `deadline`,
/// which its status shows.
pub fn feed(mut child: Child, input: Vec<u8>, deadline: Duration) -> Output {
    let begun = Instant::now();
    let mut stdin = child.stdin.take().unwrap();
    // A program that ends early closes the pipe.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let reader = |mut pipe: Box<dyn Read + Send>| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.read_to_end(&mut bytes).unwrap();
            bytes
        })
    };
    let stdout = reader(Box::new(child.stdout.take().unwrap()));
    let stderr = reader(Box::new(child.stderr.take().unwrap()));
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begun.elapsed() > deadline {
            child.kill().unwrap();
        }
        thread::sleep(Duration::from_millis(5));
    };
    writer.join().unwrap();
    Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}
