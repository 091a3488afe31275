//! Any video file, decoded by FFmpeg in a process of its own.
//!
//! FFmpeg writes the pictures to its standard output and, by its filter `showinfo`, size and time
//! of each to its standard error: the two are put together again here. Times stay fractions of
//! the file's own time base until they become nanoseconds.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use encoder_core::{EncoderType, FrameRate};
use encoder_ffmpeg::{Ffmpeg, Version};

use super::filter::Window;
use super::raw::read_frame;
use super::{
    BadMessage, Event, Limits, Packet, Payload, RawImage, Source, SourceError, SourceOptions,
    StreamInfo, Warning,
};

/// Limited range and BT.601 whatever the file has, as all pictures of this crate.
const FILTER: &str = "scale=out_color_matrix=smpte170m:out_range=tv:\
                      flags=bicubic+accurate_rnd+full_chroma_int,format=yuv420p,showinfo";
/// Who asks for FFmpeg.
const READER: EncoderType = EncoderType::new("video-file");
/// Demuxers of bare elementary streams: their frames have no times.
const WITHOUT_CLOCK: [&str; 10] =
    ["h264", "hevc", "vvc", "mpegvideo", "m4v", "mjpeg", "h263", "h261", "cavsvideo", "obu"];
/// Lines of FFmpeg's that an error shows.
const TAIL: usize = 8;
/// A longer line is cut.
const MAX_LINE: u64 = 1 << 16;

/// A video file.
pub(crate) struct VideoSource {
    path: PathBuf,
    child: Child,
    pictures: ChildStdout,
    /// `None` only while it is dropped.
    told: Option<Receiver<LogEvent>>,
    /// What FFmpeg said; taken at the end.
    log: Option<JoinHandle<Log>>,
    limits: Limits,
    wanted: RangeInclusive<i64>,
    /// Of a file without times.
    rate: Option<FrameRate>,
    /// The first frame, which tells that there is a video at all.
    first: Option<Frame>,
    announced: bool,
    /// Frames so far.
    frames: u64,
    /// Time of the first frame and of the last one, in nanoseconds.
    origin: Option<i64>,
    last: i64,
    ended: bool,
}

/// What the thread that reads FFmpeg's standard error found.
#[derive(Clone, Debug, PartialEq)]
enum LogEvent {
    /// The name of the demuxer.
    Demuxer(String),
    Frame(Frame),
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Frame {
    width: u32,
    height: u32,
    /// Nanoseconds; `None` where the file has no time for it.
    time: Option<i64>,
}

/// The rest of what FFmpeg said.
#[derive(Default)]
struct Log {
    tail: VecDeque<String>,
    errors: u64,
    first_error: String,
}

impl VideoSource {
    /// Opens a file and waits for its first picture. The first video stream is shown, upright
    /// (rotation in the file is applied). A bare elementary stream has `options.rate`, or 30.
    ///
    /// # Errors
    /// [`SourceError`] when FFmpeg is missing or can make no picture of the file; it has FFmpeg's
    /// own words.
    pub(crate) fn open(
        path: &Path,
        options: &SourceOptions,
    ) -> Result<Box<dyn Source>, SourceError> {
        std::fs::File::open(path).map_err(|e| SourceError::io(path, e))?;
        let ffmpeg = Ffmpeg::find(READER).map_err(|refusal| {
            SourceError::invalid(
                path,
                format!("a video file needs FFmpeg to be read: {}", refusal.reason),
                "install FFmpeg 4.4 or later, or set ENCODER_FFMPEG to its path",
            )
        })?;
        Self::open_with(&ffmpeg, path, options)
    }

    fn open_with(
        ffmpeg: &Ffmpeg,
        path: &Path,
        options: &SourceOptions,
    ) -> Result<Box<dyn Source>, SourceError> {
        let mut file = OsString::from("file:");
        file.push(path);
        let mut child = Command::new(&ffmpeg.path)
            .args(["-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+info"])
            // A playlist must not reach out to the network.
            .args(["-protocol_whitelist", "file", "-i"])
            .arg(file)
            .args(["-map", "0:V:0", "-vf", FILTER])
            .args([Version::passthrough(ffmpeg.version), "passthrough"])
            .args(["-f", "rawvideo", "-pix_fmt", "yuv420p", "pipe:1"])
            .env("AV_LOG_FORCE_NOCOLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| SourceError::io(&ffmpeg.path, e))?;
        let (Some(pictures), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            let _ = (child.kill(), child.wait());
            return Err(SourceError::io(path, ErrorKind::BrokenPipe.into()));
        };
        // FFmpeg is never more than some frames ahead of the pictures that were read, so that
        // this does not fill up while FFmpeg waits.
        let (sender, told) = bounded(1024);
        let log = std::thread::spawn(move || read_log(stderr, &sender));
        let mut source = Self {
            path: path.into(),
            child,
            pictures,
            told: Some(told),
            log: Some(log),
            limits: options.limits,
            wanted: Window::new(options).bounds(0),
            rate: None,
            first: None,
            announced: false,
            frames: 0,
            origin: None,
            last: 0,
            ended: false,
        };
        while let Some(told) = source.told() {
            match told {
                LogEvent::Demuxer(name) if WITHOUT_CLOCK.contains(&name.as_str()) => {
                    source.rate = Some(options.rate.unwrap_or_default());
                }
                LogEvent::Demuxer(_) => {}
                LogEvent::Frame(frame) => {
                    source.first = Some(frame);
                    return Ok(Box::new(source));
                }
            }
        }
        let (_, log) = source.finish();
        Err(SourceError::invalid(
            path,
            format!("FFmpeg makes no picture of it: {}", log.tail()),
            "check that it is a video file",
        ))
    }

    fn told(&self) -> Option<LogEvent> {
        self.told.as_ref()?.recv().ok()
    }

    fn next_frame(&mut self) -> Option<Frame> {
        if let Some(frame) = self.first.take() {
            return Some(frame);
        }
        loop {
            if let LogEvent::Frame(frame) = self.told()? {
                return Some(frame);
            }
        }
    }

    /// Waits for FFmpeg, whose output has ended; tells how it ended.
    fn finish(&mut self) -> (String, Log) {
        let status = match self.child.wait() {
            Ok(status) if status.success() => String::new(),
            Ok(status) => format!("FFmpeg ended with {status}"),
            Err(error) => format!("FFmpeg cannot be waited for: {error}"),
        };
        let log = self.log.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        (status, log)
    }

    /// The end of the video; a warning when it is not a good one.
    fn end(&mut self, cut: Option<usize>) -> Option<Event> {
        self.ended = true;
        if cut.is_some() {
            // It may not have ended by itself.
            let _ = self.child.kill();
        }
        let (status, log) = self.finish();
        let text = match cut {
            Some(got) => format!(
                "the video breaks off within frame {}, after {got} bytes: {status}: {}",
                self.frames,
                log.tail()
            ),
            None if !status.is_empty() => format!("{status}: {}", log.tail()),
            None if log.errors > 0 => format!(
                "the video is damaged: FFmpeg reported {} errors, the first is: {}; frames may be \
                 missing or broken",
                log.errors, log.first_error
            ),
            None => return None,
        };
        Some(Event::Warning(Warning { text, loss: true }))
    }

    /// Reads the samples of a frame.
    fn picture(&mut self, frame: Frame) -> std::io::Result<Result<Picture, usize>> {
        let (width, height) = (u64::from(frame.width), u64::from(frame.height));
        let pixels = width * height;
        let size = pixels + 2 * width.div_ceil(2) * height.div_ceil(2);
        if pixels > self.limits.pixels || size > self.limits.message_bytes {
            let passed = std::io::copy(&mut (&mut self.pictures).take(size), &mut std::io::sink())?;
            if passed < size {
                return Ok(Err(usize::try_from(passed).unwrap_or(usize::MAX)));
            }
            let reason = format!("{width}x{height} pixels are more than the limit");
            return Ok(Ok(Err(BadMessage { reason })));
        }
        let data = read_frame(&mut self.pictures, size)?;
        Ok(data.map(|data| {
            Ok(Payload::Raw(RawImage {
                encoding: "i420".into(),
                width: frame.width,
                height: frame.height,
                step: 0,
                is_bigendian: false,
                data,
            }))
        }))
    }

    /// When a frame is shown, from the first one on.
    fn time(&mut self, frame: Frame, number: u64) -> i64 {
        let shown = |rate: FrameRate, n| i64::try_from(rate.nanoseconds(n)).unwrap_or(i64::MAX);
        if let Some(rate) = self.rate {
            return shown(rate, number);
        }
        let next = self.last.saturating_add(shown(FrameRate::default(), 1));
        let time = match (frame.time, number) {
            (Some(time), _) => time.saturating_sub(*self.origin.get_or_insert(time)),
            (None, 0) => 0,
            (None, _) => next,
        };
        self.last = time;
        time
    }
}

type Picture = Result<Payload, BadMessage>;

impl Source for VideoSource {
    fn next_event(&mut self) -> Result<Option<Event>, SourceError> {
        if !self.announced {
            self.announced = true;
            let name = self.path.file_name().unwrap_or(self.path.as_os_str());
            return Ok(Some(Event::Stream(StreamInfo {
                id: 0,
                topic: name.to_string_lossy().into_owned(),
                schema: String::new(),
                messages: None,
                rate: self.rate,
            })));
        }
        while !self.ended {
            let Some(frame) = self.next_frame() else { return Ok(self.end(None)) };
            let picture = self.picture(frame).map_err(|e| SourceError::io(&self.path, e))?;
            let payload = match picture {
                Ok(payload) => payload,
                Err(got) => return Ok(self.end(Some(got))),
            };
            let number = self.frames;
            self.frames += 1;
            let log_ns = self.time(frame, number);
            if log_ns > *self.wanted.end() {
                // Dropping the source ends FFmpeg.
                self.ended = true;
            } else if self.wanted.contains(&log_ns) {
                let header_ns = Some(log_ns);
                let message = None;
                let packet = Packet { stream: 0, number, log_ns, header_ns, payload, message };
                return Ok(Some(Event::Packet(packet)));
            }
        }
        Ok(None)
    }

    fn other_topics(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}

impl Drop for VideoSource {
    fn drop(&mut self) {
        // The thread must not wait for room in the channel.
        self.told = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(thread) = self.log.take() {
            let _ = thread.join();
        }
    }
}

/// Reads FFmpeg's standard error to its end, whatever becomes of the receiver.
fn read_log(stderr: ChildStderr, sender: &Sender<LogEvent>) -> Log {
    let mut log = Log::default();
    let mut reader = BufReader::new(stderr);
    let mut parser = Parser::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return log,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        match parser.line(text) {
            // The source may be gone; FFmpeg must not wait for it.
            Some(told) => drop(sender.send(told)),
            None => log.keep(text),
        }
    }
}

impl Log {
    fn keep(&mut self, line: &str) {
        if line.starts_with("[Parsed_showinfo") || line.trim().is_empty() {
            return;
        }
        if line.contains("[error] ") || line.contains("[fatal] ") {
            self.errors += 1;
            if self.errors == 1 {
                self.first_error = line.into();
            }
        } else if self.errors > 0 {
            // Once there are errors, the rest is no explanation.
            return;
        }
        self.tail.push_back(line.into());
        if self.tail.len() > TAIL {
            self.tail.pop_front();
        }
    }

    /// The last words.
    fn tail(&self) -> String {
        if self.tail.is_empty() {
            return "it said nothing".into();
        }
        self.tail.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" | ")
    }
}

/// Understands the lines that matter.
#[derive(Default)]
struct Parser {
    /// Numerator and denominator of the time base, in seconds.
    time_base: Option<(i64, i64)>,
}

impl Parser {
    fn line(&mut self, line: &str) -> Option<LogEvent> {
        if let Some((_, rest)) = line.split_once("Input #0, ") {
            let (name, _) = rest.split_once(", from ")?;
            return Some(LogEvent::Demuxer(name.into()));
        }
        if !line.starts_with("[Parsed_showinfo") {
            return None;
        }
        if let Some((_, rest)) = line.split_once("config in time_base: ") {
            let (base, _) = rest.split_once(',')?;
            let (n, d) = base.split_once('/')?;
            self.time_base = Some((n.parse().ok()?, d.parse().ok()?));
            return None;
        }
        // `n:   3 pts:   1536 pts_time:0.12 … s:640x272 i:P …`
        let (_, rest) = line.split_once(" n:")?;
        let pts = word(rest, " pts:")?;
        let (width, height) = word(rest, " s:")?.split_once('x')?;
        Some(LogEvent::Frame(Frame {
            width: width.parse().ok()?,
            height: height.parse().ok()?,
            time: pts.parse().ok().and_then(|pts| self.nanoseconds(pts)),
        }))
    }

    fn nanoseconds(&self, pts: i64) -> Option<i64> {
        let (n, d) = self.time_base.filter(|(_, d)| *d > 0)?;
        let ns = i128::from(pts) * i128::from(n) * 1_000_000_000;
        i64::try_from((ns + i128::from(d) / 2).div_euclid(i128::from(d))).ok()
    }
}

/// The word behind `key`, which may be padded.
fn word<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.split_once(key)?.1.split_whitespace().next()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let mut parser = Parser::default();
        let frame = |time| Some(LogEvent::Frame(Frame { width: 640, height: 272, time }));
        let table = [
            ("[info] Input #0, h264, from 'file:x':", Some(LogEvent::Demuxer("h264".into()))),
            (
                "[Parsed_showinfo_2 @ 0x5] [info] config in time_base: 1/12800, frame_rate: 25/1",
                None,
            ),
            ("[Parsed_showinfo_2 @ 0x5] [info] config out time_base: 0/0, frame_rate: 0/0", None),
            (
                "[Parsed_showinfo_2 @ 0x5] [info] n:   3 pts:   1536 pts_time:0.12    pos: 1 \
                 fmt:yuv420p sar:1/1 s:640x272 i:P iskey:0",
                frame(Some(120_000_000)),
            ),
            (
                "[Parsed_showinfo_2 @ 0x5] [info] n:12 pts:-1 duration:1 s:640x272 i:P",
                frame(Some(-78_125)),
            ),
            ("[Parsed_showinfo_2 @ 0x5] [info] n:4 pts:NOPTS s:640x272 i:P", frame(None)),
            ("[Parsed_showinfo_2 @ 0x5] [info] n:4 pts:7 s:640 i:P", None),
            ("[Parsed_showinfo_2 @ 0x5] [info] color_range:tv color_space:unknown", None),
            ("[info]   n: 1 pts: 2 s:1x1", None),
        ];
        for (line, told) in table {
            assert_eq!(parser.line(line), told, "{line}");
        }
    }

    fn ffmpeg(arguments: &[&str], output: &Path) {
        let status = Command::new("ffmpeg")
            .args(["-hide_banner", "-loglevel", "error", "-nostdin", "-y"])
            .args(arguments)
            .arg(output)
            .status()
            .expect("these tests need ffmpeg on the PATH");
        assert!(status.success(), "{arguments:?}");
    }

    /// Time, width, height, first sample.
    type Shown = (i64, u32, u32, u8);

    fn read(path: &Path, options: &SourceOptions) -> (Vec<Shown>, Vec<Warning>) {
        let mut source = VideoSource::open(path, options).unwrap();
        assert!(matches!(source.next_event().unwrap(), Some(Event::Stream(_))));
        let (mut frames, mut warnings) = (Vec::new(), Vec::new());
        while let Some(event) = source.next_event().unwrap() {
            match event {
                Event::Packet(packet) => {
                    let Ok(Payload::Raw(image)) = packet.payload else { panic!() };
                    frames.push((packet.log_ns, image.width, image.height, image.data[0]));
                }
                Event::Warning(warning) => warnings.push(warning),
                other => panic!("{other:?}"),
            }
        }
        (frames, warnings)
    }

    #[test]
    fn variable_rate_keeps_its_times() {
        let directory = tempfile::tempdir().unwrap();
        // A name that looks like an option and like a protocol.
        let path = directory.path().join("-x:y %d.mp4");
        // Frames 0, 1, 2, 4, 6, 8: two rates in one file.
        let select = "select='lt(n,3)+not(mod(n,2))'";
        let lavfi = ["-f", "lavfi", "-i", "testsrc=size=97x65:rate=10:duration=1", "-vf", select];
        ffmpeg(&[&lavfi[..], &["-fps_mode", "passthrough", "-c:v", "mpeg4"]].concat(), &path);
        let (frames, warnings) = read(&path, &SourceOptions::default());
        let times: Vec<_> = frames.iter().map(|f| f.0 / 100_000_000).collect();
        assert_eq!(times, [0, 1, 2, 4, 6, 8]);
        assert!(frames.iter().all(|f| (f.1, f.2) == (97, 65)));
        assert_eq!(warnings, []);

        use crate::Moment::FromStart;
        let window = SourceOptions {
            start: Some(FromStart(150_000_000)),
            end: Some(FromStart(650_000_000)),
            ..Default::default()
        };
        assert_eq!(read(&path, &window).0.len(), 3);
    }

    #[test]
    fn full_range_and_bt709_become_limited_bt601() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("colour.mkv");
        // Luma of red is 63 by BT.709 and 81 by BT.601.
        let table = [
            ("white", "scale=out_range=pc,format=yuvj420p", 235u8),
            ("red", "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p", 81),
        ];
        for (colour, filter, luma) in table {
            let lavfi = format!("color={colour}:size=64x48:rate=5:duration=1");
            let matrix = if colour == "red" { "bt709" } else { "smpte170m" };
            let tags = ["-vf", filter, "-colorspace", matrix, "-c:v", "ffv1"];
            ffmpeg(&[&["-f", "lavfi", "-i", &lavfi], &tags[..]].concat(), &path);
            let (frames, _) = read(&path, &SourceOptions::default());
            assert_eq!(frames.len(), 5);
            assert!(frames.iter().all(|f| f.3.abs_diff(luma) <= 2), "{colour} {frames:?}");
        }
    }

    #[test]
    fn an_elementary_stream_has_the_rate_that_is_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.m4v");
        let source = ["-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=1"];
        ffmpeg(&[&source[..], &["-c:v", "mpeg4", "-f", "m4v"]].concat(), &path);
        let rate = Some("20".parse().unwrap());
        let (frames, _) = read(&path, &SourceOptions { rate, ..Default::default() });
        let times: Vec<_> = frames.iter().map(|f| f.0).collect();
        assert_eq!(times, (0..10).map(|n| n * 50_000_000).collect::<Vec<_>>());
    }

    #[test]
    fn a_cut_file_warns_of_loss() {
        let directory = tempfile::tempdir().unwrap();
        let (whole, cut) = (directory.path().join("a.avi"), directory.path().join("b.avi"));
        let source = ["-f", "lavfi", "-i", "testsrc2=size=320x240:rate=10:duration=2"];
        ffmpeg(&[&source[..], &["-c:v", "mjpeg"]].concat(), &whole);
        let mut bytes = std::fs::read(&whole).unwrap();
        // Zeros within the pictures: FFmpeg must complain.
        let middle = bytes.len() / 2;
        bytes[middle..middle + 20_000].fill(0);
        std::fs::write(&cut, &bytes).unwrap();
        let (frames, warnings) = read(&cut, &SourceOptions::default());
        assert!(frames.len() < 21);
        assert!(matches!(warnings.as_slice(), [Warning { loss: true, .. }]), "{warnings:?}");
    }

    #[test]
    fn dropping_ends_ffmpeg() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("long.mkv");
        let source = ["-f", "lavfi", "-i", "color=size=640x480:rate=25:duration=20"];
        ffmpeg(&[&source[..], &["-c:v", "mpeg4"]].concat(), &path);
        let mut source = VideoSource::open(&path, &SourceOptions::default()).unwrap();
        source.next_event().unwrap();
        source.next_event().unwrap();
        drop(source);
    }

    #[test]
    fn errors_have_the_cause_and_the_cure() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.mp4");
        let options = SourceOptions::default();
        let error = VideoSource::open(&path, &options).err().unwrap();
        assert!(matches!(error, SourceError::Io { .. }));
        std::fs::write(&path, "no video").unwrap();
        let error = VideoSource::open(&path, &options).err().unwrap().to_string();
        assert!(error.contains("Invalid data"), "{error}");
    }
}
