//! Reads the log of an FFmpeg that decodes: the demuxer, size and time of each picture, and errors.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc::Sender},
    time::Instant,
};

use crate::line;

/// Lines that a message shows.
const SHOWN: usize = 8;
/// Characters of a line that a message shows.
const SHOWN_CHARS: usize = 400;
/// The rest of a longer line is dropped.
const MAX_LINE: usize = 1 << 16;

/// Size and time of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureInfo {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// The presentation time in nanoseconds; `None` where the file has no time for the picture.
    pub time_ns: Option<i64>,
}

impl PictureInfo {
    /// Bytes of the samples: the planes Y, U and V, each without padding, with chroma sides rounded
    /// up.
    pub fn bytes(&self) -> u64 {
        let (width, height) = (u64::from(self.width), u64::from(self.height));
        width * height + 2 * width.div_ceil(2) * height.div_ceil(2)
    }
}

/// A line of the log that is about the video.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum LogEvent {
    /// The name of the demuxer.
    Demuxer(String),
    /// The filter `showinfo` has seen a picture.
    Picture(PictureInfo),
}

/// The lines of the log that are not events.
#[derive(Debug)]
pub(crate) struct Log {
    lines: VecDeque<String>,
    pub(crate) errors: u64,
    pub(crate) first_error: String,
    /// When the last byte came.
    pub(crate) last_byte: Instant,
}

impl Default for Log {
    fn default() -> Self {
        let (lines, first_error) = Default::default();
        Self { lines, errors: 0, first_error, last_byte: Instant::now() }
    }
}

impl Log {
    fn keep(&mut self, line: &str) {
        if line.starts_with(SHOWINFO) || line.trim().is_empty() {
            return;
        }
        let line: String = line::without_addresses(line).chars().take(SHOWN_CHARS).collect();
        if line::is_error(&line) {
            self.errors += 1;
            if self.errors == 1 {
                self.first_error.clone_from(&line);
            }
        } else if self.errors > 0 {
            // Lines after an error do not explain it.
            return;
        }
        self.lines.push_back(line);
        if self.lines.len() > SHOWN {
            self.lines.pop_front();
        }
    }

    /// The last lines, for a message.
    pub(crate) fn summary(&self) -> String {
        if self.lines.is_empty() {
            return "without a message".into();
        }
        self.lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" | ")
    }
}

/// A [`Log`] that the thread of the child fills while its owner reads it.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedLog(Arc<Mutex<Log>>);

impl SharedLog {
    /// A poisoned lock is used: a panic leaves no partial change of the [`Log`].
    pub(crate) fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Parses the bytes of the log, sends the events and stores the other lines.
pub(crate) struct LogReader {
    parser: Parser,
    line: Vec<u8>,
    events: Sender<LogEvent>,
    log: SharedLog,
}

impl LogReader {
    pub(crate) fn new(events: Sender<LogEvent>, log: SharedLog) -> Self {
        Self { parser: Parser::default(), line: Vec::new(), events, log }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.log.lock().last_byte = Instant::now();
        for &byte in bytes {
            match byte {
                b'\n' => self.end_line(),
                _ if self.line.len() < MAX_LINE => self.line.push(byte),
                _ => {}
            }
        }
    }

    fn end_line(&mut self) {
        let text = String::from_utf8_lossy(&self.line);
        let text = text.trim_end();
        match self.parser.line(text) {
            // The decoder may have been dropped.
            Some(event) => drop(self.events.send(event)),
            None => self.log.lock().keep(text),
        }
        self.line.clear();
    }
}

impl Drop for LogReader {
    fn drop(&mut self) {
        self.end_line();
    }
}

const SHOWINFO: &str = "[Parsed_showinfo";

/// Finds the lines that are events.
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
        if !line.starts_with(SHOWINFO) {
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
        let pts = value(rest, " pts:")?;
        let (width, height) = value(rest, " s:")?.split_once('x')?;
        Some(LogEvent::Picture(PictureInfo {
            width: width.parse().ok()?,
            height: height.parse().ok()?,
            time_ns: pts.parse().ok().and_then(|pts| self.nanoseconds(pts)),
        }))
    }

    fn nanoseconds(&self, pts: i64) -> Option<i64> {
        let (n, d) = self.time_base.filter(|(_, d)| *d > 0)?;
        let ns = i128::from(pts) * i128::from(n) * 1_000_000_000;
        i64::try_from((ns + i128::from(d) / 2).div_euclid(i128::from(d))).ok()
    }
}

/// The value after `key`, which may be padded.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.split_once(key)?.1.split_whitespace().next()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn lines() {
        let mut parser = Parser::default();
        let picture =
            |time_ns| Some(LogEvent::Picture(PictureInfo { width: 640, height: 272, time_ns }));
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
                picture(Some(120_000_000)),
            ),
            (
                "[Parsed_showinfo_2 @ 0x5] [info] n:12 pts:-1 duration:1 s:640x272 i:P",
                picture(Some(-78_125)),
            ),
            ("[Parsed_showinfo_2 @ 0x5] [info] n:4 pts:NOPTS s:640x272 i:P", picture(None)),
            ("[Parsed_showinfo_2 @ 0x5] [info] n:4 pts:7 s:640 i:P", None),
            ("[Parsed_showinfo_2 @ 0x5] [info] color_range:tv color_space:unknown", None),
            ("[info]   n: 1 pts: 2 s:1x1", None),
        ];
        for (line, event) in table {
            assert_eq!(parser.line(line), event, "{line}");
        }
    }

    #[test]
    fn the_log_is_bounded_and_shows_the_first_errors_cause() {
        let (events, received) = channel();
        let log = SharedLog::default();
        let mut reader = LogReader::new(events, log.clone());
        reader.push(b"[info] Input #0, avi, fr");
        reader.push(b"om 'x':\n[info] before\n");
        assert_eq!(received.recv(), Ok(LogEvent::Demuxer("avi".into())));
        assert_eq!(log.lock().summary(), "[info] before");
        reader.push(b"[mjpeg @ 0x5] [error] the first\n[info] [error] a title\n");
        for n in 0..100 {
            reader.push(format!("[error] {n}").as_bytes());
            reader.push(&vec![b'x'; 100_000]);
            reader.push(b"\n");
        }
        reader.push(b"[fatal] without a line feed");
        drop(reader);
        assert!(received.recv().is_err());
        let log = log.lock();
        assert_eq!((log.errors, log.first_error.as_str()), (102, "[mjpeg] [error] the first"));
        let summary = log.summary();
        assert!(summary.ends_with(" | [fatal] without a line feed"), "{summary}");
        assert_eq!(summary.split(" | ").count(), SHOWN);
        assert!(summary.len() <= SHOWN * (SHOWN_CHARS + 3));
    }
}
