//! Reads the log of an FFmpeg that decodes: the stream, size and time of each picture, errors, and
//! what the pictures are marked as.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc::Sender},
    time::Instant,
};

use encoder_core::FrameRate;

use crate::{
    decode_stream::{Hdr, StreamLines, VideoStream, is_square},
    line::{self, Level},
};

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
    /// The stream that is decoded.
    Stream(VideoStream),
    /// The frame rate of the stream.
    Rate(FrameRate),
    /// The filter `showinfo` has seen a picture.
    Picture(PictureInfo),
}

/// Marks of pictures that a player heeds and the conversion does not: how many pictures have them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Marks {
    /// Pictures of two fields.
    pub interlaced: u64,
    /// Pictures that are decoded later than another that is displayed after them.
    pub b_pictures: u64,
    /// Pictures whose pixels are not square, though those of the first picture were, or are so by a
    /// factor that is not believed.
    pub not_square: u64,
    /// Pictures of a high dynamic range, though the stream began without.
    pub hdr: u64,
    /// Pictures with primaries of a wide gamut, and FFmpeg's name of the first of them.
    pub wide_gamut: u64,
    /// See `wide_gamut`.
    pub primaries: String,
}

impl Marks {
    /// Counts the marks in a line of the filter `showinfo`.
    fn count(&mut self, line: &str) {
        /// Primaries that differ little from those of BT.709.
        const NARROW: [&str; 8] = [
            "bt709",
            "unknown",
            "unspecified",
            "reserved",
            "bt470m",
            "bt470bg",
            "smpte170m",
            "smpte240m",
        ];
        if let Some((_, rest)) = line.split_once(" n:") {
            self.interlaced += u64::from(matches!(value(rest, " i:"), Some("T" | "B")));
            self.b_pictures += u64::from(value(rest, " type:") == Some("B"));
            let aspect = value(rest, " sar:").and_then(|sar| sar.split_once('/'));
            let aspect = aspect.and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
            self.not_square += u64::from(aspect.is_some_and(|aspect| !is_square(aspect)));
        } else if let Some(transfer) = value(line, " color_trc:") {
            self.hdr += u64::from(Hdr::of(transfer).is_some());
            if let Some(primaries) =
                value(line, " color_primaries:").filter(|p| !NARROW.contains(p))
            {
                self.wide_gamut += 1;
                if self.primaries.is_empty() {
                    self.primaries = primaries.into();
                }
            }
        }
    }
}

/// What FFmpeg read and decoded of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// Packets that were read.
    pub packets: u64,
    /// Pictures that were decoded from them.
    pub decoded: u64,
    /// Errors of the decoder; 0 where FFmpeg does not count them.
    pub errors: u64,
}

/// The lines of the log that are not events.
#[derive(Debug)]
pub(crate) struct Log {
    lines: VecDeque<String>,
    pub(crate) errors: u64,
    pub(crate) first_error: String,
    pub(crate) marks: Marks,
    pub(crate) totals: Option<Totals>,
    /// When the last byte came.
    pub(crate) last_byte: Instant,
}

impl Default for Log {
    fn default() -> Self {
        let (lines, first_error, marks, totals) = Default::default();
        Self { lines, errors: 0, first_error, marks, totals, last_byte: Instant::now() }
    }
}

impl Log {
    fn keep(&mut self, line: &str) {
        if line.starts_with(SHOWINFO) {
            self.marks.count(line);
            if let Some(message) = foreign(line).filter(|message| is_fault(message)) {
                self.add_error(message.to_owned());
            }
            return;
        }
        let (level, text) = line::split(line);
        // The muxer of raw samples writes them whatever their times are.
        if text.contains("non monotonically increasing dts to muxer") {
            return;
        }
        if level >= Some(Level::Verbose) {
            self.totals = totals(text).or(self.totals);
            return;
        }
        if line.trim().is_empty() {
            return;
        }
        let line: String = line::without_addresses(line).chars().take(SHOWN_CHARS).collect();
        if line::is_error(&line) || is_damage(level, text) {
            self.add_error(line);
        } else if self.errors == 0 {
            // Lines after an error do not explain it.
            self.add_line(line);
        }
    }

    fn add_error(&mut self, line: String) {
        self.errors += 1;
        if self.errors == 1 {
            self.first_error.clone_from(&line);
        }
        self.add_line(line);
    }

    fn add_line(&mut self, line: String) {
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

/// Whether FFmpeg reports broken data in a line that it does not mark as an error.
fn is_damage(level: Option<Level>, text: &str) -> bool {
    text.starts_with("concealing ")
        || (level == Some(Level::Warning) && text.to_ascii_lowercase().contains("corrupt"))
}

/// The message that another thread of FFmpeg wrote into a line of `showinfo`, which `showinfo` writes
/// in pieces. It has no mark of its level, and the word in front of it may be that of `showinfo`.
fn foreign(line: &str) -> Option<&str> {
    const LAST: [&str; 5] =
        [" type:", " color_trc:", " color_primaries:", " color_space:", " color_range:"];
    let (_, rest) = LAST.iter().find_map(|key| line.split_once(key))?;
    rest.contains(' ').then_some(rest)
}

/// Whether a message without a level is about broken data.
fn is_fault(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["error", "corrupt", "conceal", "damaged", "invalid"].iter().any(|word| message.contains(word))
}

/// `Input stream #0:0 (video): 39 packets read (67490 bytes); 31 frames decoded; 0 decode errors; …`
fn totals(text: &str) -> Option<Totals> {
    let (_, rest) = text.split_once("Input stream #0:")?.1.split_once("(video): ")?;
    let (packets, rest) = rest.split_once(" packets read ")?;
    let (decoded, rest) = rest.split_once("; ")?.1.split_once(" frames decoded")?;
    let errors =
        rest.split_once(" decode errors").map(|(errors, _)| errors.trim_start_matches([';', ' ']));
    let errors = errors.and_then(|errors| errors.parse().ok()).unwrap_or(0);
    Some(Totals { packets: packets.parse().ok()?, decoded: decoded.parse().ok()?, errors })
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
        let event = self.parser.line(text);
        if !matches!(event, Some(LogEvent::Stream(_))) {
            self.log.lock().keep(text);
        }
        // The decoder may have been dropped.
        event.into_iter().for_each(|event| drop(self.events.send(event)));
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
    stream: StreamLines,
}

impl Parser {
    fn line(&mut self, line: &str) -> Option<LogEvent> {
        if !line.starts_with(SHOWINFO) {
            let (level, text) = line::split(line);
            let is_listing = level == Some(Level::Info);
            return self.stream.line(text).filter(|_| is_listing).map(LogEvent::Stream);
        }
        if let Some((_, rest)) = line.split_once("config in time_base: ") {
            let (base, rest) = rest.split_once(',')?;
            let (n, d) = base.split_once('/')?;
            self.time_base = Some((n.parse().ok()?, d.parse().ok()?));
            return Some(LogEvent::Rate(value(rest, "frame_rate:")?.parse().ok()?));
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
        let stream =
            VideoStream { demuxer: "h264".into(), codec: "h264".into(), ..VideoStream::default() };
        let table = [
            ("[info] Input #0, h264, from 'file:x':", None),
            ("[info]   Stream #0:0: Video: h264 (High), yuv420p, 64x48", None),
            (
                "[info]   Stream #0:0 -> #0:0 (h264 (native) -> rawvideo (native))",
                Some(LogEvent::Stream(stream)),
            ),
            (
                "[Parsed_showinfo_2 @ 0x5] [info] config in time_base: 1/12800, frame_rate: 25/1",
                Some(LogEvent::Rate(FrameRate::new(25, 1).unwrap())),
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
        reader.push(b"[Parsed_showinfo_2 @ 0x5] [info] n:0 pts:7 s:1");
        reader.push(b"6x8 i:P\n[verbose] chatter\n[info] before\n");
        let picture = PictureInfo { width: 16, height: 8, time_ns: None };
        assert_eq!(received.recv(), Ok(LogEvent::Picture(picture)));
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

    #[test]
    fn marks_of_pictures() {
        let log = SharedLog::default();
        let mut reader = LogReader::new(channel().0, log.clone());
        for line in [
            "n:0 pts:0 sar:1/1 s:16x8 i:P",
            "color_range:tv color_space:smpte170m color_primaries:bt709 color_trc:bt709",
            "n:1 pts:1 sar:4/3 s:16x8 i:T iskey:0 type:B",
            "color_range:tv color_space:bt2020nc color_primaries:bt2020 color_trc:smpte2084",
            "n:2 pts:2 sar:0/1 s:16x8 i:B",
            "color_range:tv color_space:unknown color_primaries:unknown color_trc:unknown",
            "n:3 pts:3 sar:200/201 s:16x8 i:P",
            "color_range:tv color_space:bt709 color_primaries:smpte432 color_trc:bt709",
        ] {
            reader.push(format!("[Parsed_showinfo_2 @ 0x5] [info] {line}\n").as_bytes());
        }
        let (interlaced, b_pictures, not_square, hdr, wide_gamut) = (2, 1, 1, 1, 2);
        let primaries = "bt2020".into();
        let marks = Marks { interlaced, b_pictures, not_square, hdr, wide_gamut, primaries };
        assert_eq!(log.lock().marks, marks);
    }

    #[test]
    fn damage_that_is_not_marked_as_an_error() {
        for (line, errors) in [
            ("[h264 @ 0x5] [info] concealing 153 DC, 153 AC, 153 MV errors in P frame", 1),
            ("[vist#0:0/h264 @ 0x5] [dec:h264 @ 0x6] [warning] corrupt decoded frame", 1),
            ("[warning] a.ts: corrupt input packet in stream 0", 1),
            ("[mpegts @ 0x5] [warning] Packet corrupt (stream = 0, dts = 139500).", 1),
            ("[mjpeg @ 0x5] [warning] EOI missing, emulating", 0),
            ("[info]     title           : Corrupt Files", 0),
            ("[h264 @ 0x5] [error] no frame!", 1),
            // Of another thread, within a line of `showinfo`.
            ("[Parsed_showinfo_2 @ 0x5] [info] n:0 pts:7 s:16x8 i:P type:P concealing 153 DC", 1),
            ("[Parsed_showinfo_2 @ 0x5] [info] color_range:tv color_space:unknownno error?", 1),
            ("[Parsed_showinfo_2 @ 0x5] [info] n:0 pts:7 s:16x8 i:P type:P Reinit context", 0),
            ("[Parsed_showinfo_2 @ 0x5] [info] color_range:tv color_space:bt709", 0),
            (
                "[rawvideo @ 0x5] [error] Application provided invalid, non monotonically \
                 increasing dts to muxer in stream 0: 33 >= 14",
                0,
            ),
        ] {
            let log = SharedLog::default();
            LogReader::new(channel().0, log.clone()).push(format!("{line}\n").as_bytes());
            assert_eq!(log.lock().errors, errors, "{line}");
        }
    }

    #[test]
    fn totals_of_all_versions() {
        for (line, expected) in [
            (
                "[verbose]   Input stream #0:0 (video): 39 packets read (67490 bytes); 31 frames \
                 decoded; ",
                Some((39, 31, 0)),
            ),
            (
                "[in#0/h264 @ 0x5] [verbose]   Input stream #0:1 (video): 40 packets read (72119 \
                 bytes); 40 frames decoded; 2 decode errors; ",
                Some((40, 40, 2)),
            ),
            ("[verbose]   Input stream #0:1 (audio): 9 packets read (9 bytes); ", None),
            ("[verbose]   Input stream #0:1 (video): 0 packets read (0 bytes); ", None),
        ] {
            let log = SharedLog::default();
            LogReader::new(channel().0, log.clone()).push(format!("{line}\n").as_bytes());
            let found = log.lock().totals.map(|t| (t.packets, t.decoded, t.errors));
            assert_eq!(found, expected, "{line}");
        }
    }
}
