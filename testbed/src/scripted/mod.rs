//! A program in place of FFmpeg that follows a script: it hangs, floods, writes wrong output or
//! crashes in mid-stream.
//!
//! A [`Script`] defines the behaviour of the program when it lists its encoders, when it encodes
//! and when it decodes: each is a list of [`Step`]s, executed one after the other; after the last
//! step the program ends with status 0. [`Script::lay_down`] makes it a file named `ffmpeg`.

mod shell;
mod vendors;

use std::{
    ffi::OsString,
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

pub use vendors::{VENDORS, Vendor};

/// A step of the program.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Prints the banner on stderr and the encoders on stdout, as `ffmpeg -encoders` does.
    List,
    /// Prints this text and a line feed on stderr.
    Say(String),
    /// Writes these bytes to stdout.
    Write(Vec<u8>),
    /// Reads this many bytes of stdin, or fewer if it ends before, and discards them.
    Take(u64),
    /// Reads stdin to its end.
    TakeAll,
    /// Waits.
    Wait(Duration),
    /// Writes warnings to stderr: this many bytes, or without an end.
    FloodStderr(Option<u64>),
    /// Writes text to stdout: this many bytes, or without an end.
    FloodStdout(Option<u64>),
    /// From now on ignores the signals TERM, INT and HUP.
    IgnoreSignals,
    /// Leaves a process behind that keeps stdin, stdout and stderr open, and continues.
    HoldPipes,
    /// As [`HoldPipes`](Self::HoldPipes), but stdout alone: stderr ends with the program.
    HoldStdout,
    /// Runs a real FFmpeg. As the last step the program is replaced by it, with the same process id
    /// and exit; otherwise the next step follows when it has ended, with any status.
    Real(Real),
    /// Hangs, for longer than any test.
    Hang,
    /// Ends with this status.
    Exit(u8),
    /// Ends by this signal, without its `SIG`: `KILL`, `SEGV`.
    Die(&'static str),
}

impl Step {
    /// [`Step::Say`].
    pub fn say(text: impl Into<String>) -> Self {
        Self::Say(text.into())
    }

    /// [`Step::Real`], with unlimited input and output.
    pub fn real(program: impl Into<PathBuf>) -> Self {
        Self::Real(Real::new(program))
    }
}

/// A real FFmpeg behind the scripted one, called with the same arguments.
#[derive(Clone, Debug, PartialEq)]
pub struct Real {
    program: PathBuf,
    input: Input,
    output: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Input {
    All,
    First(u32, u64),
    Slowly(u64, Duration),
}

impl Real {
    /// The program at this path, or with this name on the `PATH`.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), input: Input::All, output: None }
    }

    /// Passes only the first `count` frames of `bytes` each to it, each as soon as it is complete,
    /// then the end of the stream; the rest stays unread.
    #[must_use]
    pub fn taking(mut self, count: u32, bytes: u64) -> Self {
        self.input = Input::First(count, bytes);
        self
    }

    /// Passes the input to it in pieces of `bytes`, with a pause after each.
    #[must_use]
    pub fn slowly(mut self, bytes: u64, pause: Duration) -> Self {
        self.input = Input::Slowly(bytes, pause);
        self
    }

    /// Passes on only the first `bytes` of its output; the rest is discarded.
    #[must_use]
    pub fn cut(mut self, bytes: u64) -> Self {
        self.output = Some(bytes);
        self
    }
}

/// The behaviour of a scripted FFmpeg.
#[derive(Clone, Debug)]
pub struct Script {
    banner: String,
    encoders: Vec<String>,
    listing: Vec<Step>,
    decoding: Vec<Step>,
    first: Vec<(u32, Vec<Step>)>,
    encoding: Vec<Step>,
}

impl Default for Script {
    fn default() -> Self {
        Self::new()
    }
}

impl Script {
    /// An FFmpeg 6.0 that lists `h264_nvenc`, reads all of its input, and writes nothing.
    pub fn new() -> Self {
        let script = Self {
            banner: String::new(),
            encoders: vec!["h264_nvenc".into()],
            listing: vec![Step::List],
            decoding: vec![Step::TakeAll],
            first: Vec::new(),
            encoding: vec![Step::TakeAll],
        };
        script.version("6.0-scripted")
    }

    /// The FFmpeg at `real`, in every step that is not set.
    pub fn over(real: impl Into<PathBuf>) -> Self {
        let real = vec![Step::real(real)];
        let (listing, decoding) = (real.clone(), real.clone());
        Self { listing, decoding, encoding: real, ..Self::new() }
    }

    /// Sets the version in the banner that [`Step::List`] prints, in FFmpeg's format.
    #[must_use]
    pub fn version(self, text: &str) -> Self {
        self.banner(format!(
            "ffmpeg version {text} Copyright (c) 2000-2026 the FFmpeg developers\n  \
             built with gcc 12 (Debian 12.2.0-14+deb12u1)\n  \
             configuration: --enable-gpl --enable-libx264 --enable-nvenc\n  \
             libavutil      57. 28.100 / 57. 28.100"
        ))
    }

    /// Sets the whole text that [`Step::List`] prints on stderr.
    #[must_use]
    pub fn banner(mut self, text: impl Into<String>) -> Self {
        self.banner = text.into();
        self
    }

    /// Sets the video encoders that [`Step::List`] prints.
    #[must_use]
    pub fn encoders(mut self, names: &[&str]) -> Self {
        self.encoders = names.iter().map(|&name| name.to_owned()).collect();
        self
    }

    /// Sets the steps of a call with `-encoders`.
    #[must_use]
    pub fn listing(mut self, steps: impl Into<Vec<Step>>) -> Self {
        self.listing = steps.into();
        self
    }

    /// Sets the steps of a call with `-f h264 -i`.
    #[must_use]
    pub fn decoding(mut self, steps: impl Into<Vec<Step>>) -> Self {
        self.decoding = steps.into();
        self
    }

    /// Sets the steps of every other call.
    #[must_use]
    pub fn encoding(mut self, steps: impl Into<Vec<Step>>) -> Self {
        self.encoding = steps.into();
        self
    }

    /// Sets the steps of the first `times` encodes only; a further call sets those of the encodes
    /// after them. A probe is an encode too.
    #[must_use]
    pub fn first(mut self, times: u32, steps: impl Into<Vec<Step>>) -> Self {
        self.first.push((times, steps.into()));
        self
    }

    /// Writes it as a program in its own folder.
    ///
    /// # Errors
    /// The error of the system if the files cannot be written.
    pub fn lay_down(&self) -> io::Result<Scripted> {
        let folder = tempfile::Builder::new().prefix("scripted-ffmpeg-").tempdir()?;
        let path = folder.path().join("ffmpeg");
        let text = shell::program(self, folder.path())?;
        // Another process writes the file: a file that this process has open for writing while
        // another thread forks could not be executed (ETXTBSY).
        let mut writer = Command::new("sh")
            .args(["-c", "cat >\"$0\" && chmod 755 \"$0\""])
            .arg(&path)
            .stdin(Stdio::piped())
            .spawn()?;
        let written = writer.stdin.take().map(|mut stdin| stdin.write_all(text.as_bytes()));
        if !writer.wait()?.success() {
            return Err(io::Error::other(format!("{} cannot be written", path.display())));
        }
        written.transpose()?;
        Ok(Scripted { folder, path })
    }
}

/// The kind of a call of a scripted FFmpeg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To list its encoders.
    Listing,
    /// To encode.
    Encoding,
    /// To decode.
    Decoding,
}

/// One call of a scripted FFmpeg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The kind of the call.
    pub kind: Kind,
    /// The number of the call among those of its kind, from 1.
    pub number: u32,
    /// Its process id.
    pub process: u32,
    /// Its arguments.
    pub arguments: Vec<String>,
}

impl Call {
    /// The argument after the option `name`.
    pub fn option(&self, name: &str) -> Option<&str> {
        let at = self.arguments.iter().position(|argument| argument == name)?;
        self.arguments.get(at + 1).map(String::as_str)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_terminator('\0');
        let kind = match words.next()? {
            "listing" => Kind::Listing,
            "encoding" => Kind::Encoding,
            "decoding" => Kind::Decoding,
            _ => return None,
        };
        let (number, process) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Self { kind, number, process, arguments: words.map(str::to_owned).collect() })
    }
}

/// A scripted FFmpeg in its own folder, which is removed when this is dropped.
#[derive(Debug)]
pub struct Scripted {
    folder: tempfile::TempDir,
    path: PathBuf,
}

impl Scripted {
    /// The program.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The environment variables that make this workspace use it, with their values.
    pub fn environment(&self) -> [(&'static str, OsString); 1] {
        [("ENCODER_FFMPEG", self.path.clone().into())]
    }

    /// Its calls so far, in their order.
    pub fn calls(&self) -> Vec<Call> {
        (1..)
            .map(|n| self.folder.path().join(format!("call.{n}")))
            .take_while(|call| call.is_dir())
            // A call that was killed at once may have written nothing.
            .filter_map(|call| fs::read(call.join("said")).ok())
            .filter_map(|said| Call::parse(&String::from_utf8_lossy(&said)))
            .collect()
    }

    /// Its calls of one kind so far, in their order.
    pub fn calls_for(&self, kind: Kind) -> Vec<Call> {
        self.calls().into_iter().filter(|call| call.kind == kind).collect()
    }
}
