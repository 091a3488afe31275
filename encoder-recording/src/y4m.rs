//! Y4M (YUV4MPEG2): planar 8-bit video with a line of text as header.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use encoder_core::{ConfigError, FrameRate};

use super::filter::{Window, stream_name};
use super::frames::{FrameBuffers, assumed_rate};
use super::{
    Event, Limits, Packet, Payload, RawImage, Source, SourceError, SourceOptions, StreamInfo,
    Warning,
};

/// The first word of a file.
const MAGIC: &str = "YUV4MPEG2";
/// The longest header; a longer line is not a header.
const MAX_LINE: u64 = 4096;

/// How chroma is sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chroma {
    Mono,
    C420,
    C422,
    C444,
}

/// The first line.
#[derive(Clone, Debug, PartialEq)]
struct Header {
    width: u32,
    height: u32,
    /// The value of `F`, or the reason why it cannot be used.
    rate: Option<Result<FrameRate, BadRate>>,
    chroma: Chroma,
    full_range: bool,
    interlaced: bool,
}

/// A rate that cannot be used.
#[derive(Clone, Debug, PartialEq)]
enum BadRate {
    /// It states none, as the word in the header.
    Unknown(String),
    /// It is no rate, or one above the limit.
    Invalid(String),
}

impl Header {
    /// The rate of the frames, and a warning if it is a guess.
    fn frame_rate(
        &self,
        wanted: Option<FrameRate>,
    ) -> Result<(FrameRate, Option<Warning>), String> {
        let assumed = |reason: &str| {
            let (rate, warning) = assumed_rate(reason);
            Ok((rate, Some(warning)))
        };
        match (wanted, &self.rate) {
            (Some(rate), _) => Ok((rate, None)),
            (None, Some(Ok(rate))) => Ok((*rate, None)),
            (None, None) => assumed("the header states no rate"),
            (None, Some(Err(BadRate::Unknown(word)))) => {
                assumed(&format!("the header has the rate `{word}`, which is none"))
            }
            (None, Some(Err(BadRate::Invalid(reason)))) => Err(reason.clone()),
        }
    }

    /// Parses the line, without its end. The error is the reason why the line is not a header.
    fn parse(line: &str) -> Result<Self, String> {
        let mut words = line.split(' ').filter(|word| !word.is_empty());
        if words.next() != Some(MAGIC) {
            return Err(format!("not a Y4M file: it does not start with `{MAGIC}`"));
        }
        let mut header = Self {
            width: 0,
            height: 0,
            rate: None,
            chroma: Chroma::C420,
            full_range: false,
            interlaced: false,
        };
        for word in words {
            let Some((tag, value)) = word.split_at_checked(1) else { continue };
            let wrong = || format!("the header has `{word}`");
            match tag {
                "W" => header.width = value.parse().map_err(|_| wrong())?,
                "H" => header.height = value.parse().map_err(|_| wrong())?,
                "F" => header.rate = Some(rate(word, value)),
                "I" => header.interlaced = matches!(value, "t" | "b" | "m"),
                "C" => {
                    header.chroma = match value {
                        "420" | "420jpeg" | "420mpeg2" | "420paldv" => Chroma::C420,
                        "422" => Chroma::C422,
                        "444" => Chroma::C444,
                        "mono" => Chroma::Mono,
                        _ => {
                            return Err(format!(
                                "colour format `C{value}` cannot be read, only 8 bits as 420, \
                                 422, 444 or mono"
                            ));
                        }
                    }
                }
                "X" => header.full_range |= value == "COLORRANGE=FULL",
                _ => {}
            }
        }
        if header.width == 0 || header.height == 0 {
            return Err("the header has no width or height".into());
        }
        Ok(header)
    }

    /// Bytes of luma, and of both chroma planes together.
    fn planes(&self) -> (u64, u64) {
        let (width, height) = (u64::from(self.width), u64::from(self.height));
        let chroma = match self.chroma {
            Chroma::Mono => 0,
            Chroma::C420 => 2 * width.div_ceil(2) * height.div_ceil(2),
            Chroma::C422 => 2 * width.div_ceil(2) * height,
            Chroma::C444 => 2 * width * height,
        };
        (width * height, chroma)
    }

    /// The encoding of the pictures. `mono8` has full range everywhere, so grey of limited range is
    /// returned as 4:2:0 without colour.
    fn encoding(&self) -> &'static str {
        match (self.chroma, self.full_range) {
            (Chroma::Mono, true) => "mono8",
            (Chroma::Mono | Chroma::C420, false) => "i420",
            (Chroma::C420, true) => "i420_full",
            (Chroma::C422, false) => "i422",
            (Chroma::C422, true) => "i422_full",
            (Chroma::C444, false) => "i444",
            (Chroma::C444, true) => "i444_full",
        }
    }

    /// How many bytes of which value follow the bytes of the file in a picture in
    /// [`encoding`](Self::encoding): the chroma of grey pictures.
    fn padding(&self) -> (u64, u8) {
        match self.chroma == Chroma::Mono && !self.full_range {
            true => (Self { chroma: Chroma::C420, ..self.clone() }.planes().1, 128),
            false => (0, 0),
        }
    }
}

/// A Y4M file or stream.
pub(crate) struct Y4mSource {
    reader: BufReader<Box<dyn Read + Send>>,
    buffers: FrameBuffers,
    path: PathBuf,
    header: Header,
    rate: FrameRate,
    wanted: RangeInclusive<i64>,
    /// Frames so far.
    frames: u64,
    /// Events to return before the next frame, in reverse.
    events: Vec<Event>,
    ended: bool,
}

impl Y4mSource {
    /// Opens a file. `options.rate` takes precedence over the rate in the header.
    ///
    /// # Errors
    /// [`SourceError`] if the file cannot be read, is not Y4M, or has an unsupported format.
    pub(crate) fn open(
        path: &Path,
        options: &SourceOptions,
    ) -> Result<Box<dyn Source>, SourceError> {
        let file = File::open(path).map_err(|e| SourceError::io(path, e))?;
        Ok(Box::new(Self::new(Box::new(file), path, options)?))
    }

    /// Reads a stream; `path` names the stream in messages.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) fn new(
        reader: Box<dyn Read + Send>,
        path: &Path,
        options: &SourceOptions,
    ) -> Result<Self, SourceError> {
        let mut reader = BufReader::with_capacity(1 << 16, reader);
        let invalid = |reason: String| {
            let hint = "convert it: ffmpeg -i FILE -pix_fmt yuv420p OUT.y4m";
            SourceError::invalid(path, reason, hint)
        };
        let line = read_line(&mut reader).map_err(|e| SourceError::io(path, e))?;
        let line = match line {
            Line::Text(line) => line,
            Line::End => return Err(invalid("the file is empty".into())),
            Line::Bad => return Err(invalid("its first line is not a header of Y4M".into())),
        };
        let header = Header::parse(&line).map_err(invalid)?;
        check_size(&header, &options.limits).map_err(invalid)?;
        let (rate, warning) = header.frame_rate(options.rate).map_err(|reason| {
            SourceError::invalid(
                path,
                reason,
                "give the rate of the frames (`SourceOptions::rate`)",
            )
        })?;
        let mut events: Vec<_> = warning.map(Event::Warning).into_iter().collect();
        if header.interlaced {
            events.push(Event::Warning(Warning {
                text: "the video is interlaced; both fields of a frame are shown as one picture"
                    .into(),
                loss: false,
            }));
        }
        events.push(Event::Stream(StreamInfo {
            id: 0,
            topic: stream_name(path),
            schema: String::new(),
            messages: None,
            rate: Some(rate),
        }));
        Ok(Self {
            reader,
            buffers: FrameBuffers::default(),
            path: path.into(),
            header,
            rate,
            wanted: Window::new(options).bounds(0),
            frames: 0,
            events,
            ended: false,
        })
    }

    /// Ends the stream with a warning about the truncated frame.
    fn broken(&mut self, what: &str) -> Option<Event> {
        self.ended = true;
        let text = format!("frame {} {what}; it and what follows is left out", self.frames);
        Some(Event::Warning(Warning { text, loss: true }))
    }

    /// Reads the next frame, whether it is selected or not; `Err` ends the stream.
    fn frame(&mut self) -> Result<Result<Bytes, Option<Event>>, SourceError> {
        let io = |e| SourceError::io(&self.path, e);
        match read_line(&mut self.reader).map_err(io)? {
            Line::Text(line) if line == "FRAME" || line.starts_with("FRAME ") => {}
            Line::End => {
                self.ended = true;
                return Ok(Err(None));
            }
            _ => return Ok(Err(self.broken("does not start with `FRAME`"))),
        }
        let (luma, chroma) = self.header.planes();
        let size = luma + chroma;
        Ok(match self.buffers.read(&mut self.reader, size, self.header.padding()).map_err(io)? {
            Ok(data) => Ok(data),
            Err(got) => Err(self.broken(&format!("is cut: {got} of {size} bytes are there"))),
        })
    }
}

impl Source for Y4mSource {
    fn next_event(&mut self) -> Result<Option<Event>, SourceError> {
        if let Some(event) = self.events.pop() {
            return Ok(Some(event));
        }
        while !self.ended {
            let number = self.frames;
            let log_ns = i64::try_from(self.rate.nanoseconds(number)).unwrap_or(i64::MAX);
            if log_ns > *self.wanted.end() {
                break;
            }
            let data = match self.frame()? {
                Ok(data) => data,
                Err(event) => return Ok(event),
            };
            self.frames += 1;
            if !self.wanted.contains(&log_ns) {
                continue;
            }
            return Ok(Some(Event::Packet(Packet {
                message: None,
                stream: 0,
                number,
                log_ns,
                header_ns: None,
                frame_id: None,
                payload: Ok(Payload::Raw(RawImage {
                    encoding: self.header.encoding().into(),
                    width: self.header.width,
                    height: self.header.height,
                    step: 0,
                    is_bigendian: false,
                    data,
                })),
            })));
        }
        self.ended = true;
        Ok(None)
    }

    fn other_topics(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}

/// The rate in a header. A numerator or denominator of 0 states none.
fn rate(word: &str, value: &str) -> Result<FrameRate, BadRate> {
    let is_zero = |part: &str| !part.is_empty() && part.bytes().all(|b| b == b'0');
    if value.split(':').any(is_zero) {
        return Err(BadRate::Unknown(word.into()));
    }
    value.parse().map_err(|error| {
        let why = match error {
            // The field that the error names is not what the header has.
            ConfigError::Value { allowed, .. } => format!("a rate is {allowed}"),
            other => other.to_string(),
        };
        BadRate::Invalid(format!("the header has `{word}`: {why}"))
    })
}

fn check_size(header: &Header, limits: &Limits) -> Result<(), String> {
    let Header { width, height, .. } = header;
    let pixels = u64::from(*width) * u64::from(*height);
    // Three samples at most for a pixel: no overflow below.
    if pixels > limits.pixels || pixels * 3 > limits.message_bytes {
        return Err(format!(
            "the header claims {width}x{height} pixels, more than the limit (`Limits::pixels`, \
             `Limits::message_bytes`)"
        ));
    }
    Ok(())
}

enum Line {
    Text(String),
    End,
    Bad,
}

/// Reads one line, without its end.
fn read_line(reader: &mut impl BufRead) -> std::io::Result<Line> {
    let mut line = Vec::new();
    reader.take(MAX_LINE).read_until(b'\n', &mut line)?;
    Ok(match line.pop() {
        None => Line::End,
        Some(b'\n') => String::from_utf8(line).map_or(Line::Bad, Line::Text),
        Some(_) => Line::Bad,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Moment;

    fn open(bytes: &[u8], options: &SourceOptions) -> Result<Y4mSource, SourceError> {
        let reader = Box::new(std::io::Cursor::new(bytes.to_vec()));
        Y4mSource::new(reader, Path::new("a.y4m"), options)
    }

    /// The rate, the pictures with their times, the warnings.
    type Read = (FrameRate, Vec<(i64, RawImage)>, Vec<Warning>);

    fn read(bytes: &[u8], options: &SourceOptions) -> Result<Read, SourceError> {
        let mut source = open(bytes, options)?;
        let (mut rate, mut images, mut warnings) = (FrameRate::default(), Vec::new(), Vec::new());
        while let Some(event) = source.next_event()? {
            match event {
                Event::Stream(info) => rate = info.rate.unwrap(),
                Event::Warning(warning) => warnings.push(warning),
                Event::Packet(packet) => {
                    let Ok(Payload::Raw(image)) = packet.payload else { panic!() };
                    images.push((packet.log_ns, image));
                }
                other => panic!("{other:?}"),
            }
        }
        Ok((rate, images, warnings))
    }

    /// A file of `frames` frames, whose bytes are the frame's number.
    fn file(header: &str, frames: u8, bytes: usize) -> Vec<u8> {
        let mut out = format!("YUV4MPEG2 {header}\n").into_bytes();
        for n in 0..frames {
            out.extend(if n == 1 { &b"FRAME Ip XA=1\n"[..] } else { b"FRAME\n" });
            out.extend(vec![n; bytes]);
        }
        out
    }

    #[test]
    fn formats() {
        // Header, encoding, bytes of a frame in the file and as it is returned.
        let table = [
            ("W4 H2", "i420", 12, 12),
            ("W5 H3 F30:1 Ip A1:1 C420jpeg", "i420", 15 + 2 * 6, 27),
            ("W5 H3 C420mpeg2 XYSCSS=420MPEG2", "i420", 27, 27),
            ("H3 W5 C420paldv XCOLORRANGE=FULL", "i420_full", 27, 27),
            ("W5 H3 C422 XCOLORRANGE=LIMITED", "i422", 15 + 2 * 9, 33),
            ("W5 H3 C422 XCOLORRANGE=FULL", "i422_full", 33, 33),
            ("W5 H3 C444", "i444", 45, 45),
            ("W5 H3 XCOLORRANGE=FULL C444", "i444_full", 45, 45),
            ("W5 H3 Cmono", "i420", 15, 27),
            ("W5 H3 Cmono XCOLORRANGE=FULL", "mono8", 15, 15),
        ];
        for (header, encoding, bytes, given) in table {
            let (_, images, warnings) = read(&file(header, 3, bytes), &Default::default()).unwrap();
            let is_said = usize::from(!header.contains(" F"));
            assert_eq!((images.len(), warnings.len()), (3, is_said), "{header}");
            for (n, (_, image)) in images.iter().enumerate() {
                assert_eq!((image.encoding.as_str(), image.data.len()), (encoding, given));
                assert!(image.data[..bytes].iter().all(|b| usize::from(*b) == n), "{header}");
                assert!(image.data[bytes..].iter().all(|b| *b == 128), "{header}");
            }
        }
    }

    #[test]
    fn refusals_name_the_reason() {
        for (bytes, part) in [
            (&b""[..], "empty"),
            (b"RIFF....", "first line"),
            (b"MPEG W1 H1\n", "does not start"),
            (b"YUV4MPEG2 W4\n", "no width or height"),
            (b"YUV4MPEG2 W4 Hx\n", "`Hx`"),
            (b"YUV4MPEG2 W4 H4 F5000:1\n", "`F5000:1`: a rate is more than 0"),
            (b"YUV4MPEG2 W4 H4 F5000:1\n", "at most 2000"),
            (b"YUV4MPEG2 W4 H4 Fx\n", "`SourceOptions::rate`"),
            (b"YUV4MPEG2 W4 H4 C420p10\n", "C420p10"),
            (b"YUV4MPEG2 W4 H4 C411\n", "C411"),
            (b"YUV4MPEG2 W4294967295 H4294967295 C444\n", "limit"),
        ] {
            let error = open(bytes, &Default::default()).err().unwrap().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn rates() {
        let twenty = SourceOptions { rate: Some("20".parse().unwrap()), ..Default::default() };
        let none = SourceOptions::default;
        for (header, options, rate, second, warning) in [
            ("W2 H2 F30000:1001", none(), "30000/1001", 33_366_667, ""),
            ("W2 H2 F1000:1", none(), "1000", 1_000_000, ""),
            ("W2 H2 F0:0", none(), "30", 33_333_333, "`F0:0`"),
            ("W2 H2 F0:1", none(), "30", 33_333_333, "`F0:1`"),
            ("W2 H2 F1:0", none(), "30", 33_333_333, "`F1:0`"),
            ("W2 H2", none(), "30", 33_333_333, "states no rate: the frames are put at 30"),
            ("W2 H2", twenty.clone(), "20", 50_000_000, ""),
            ("W2 H2 F25:1", twenty.clone(), "20", 50_000_000, ""),
            ("W2 H2 F0:1", twenty.clone(), "20", 50_000_000, ""),
            ("W2 H2 F5000:1", twenty.clone(), "20", 50_000_000, ""),
            ("W2 H2 Fx", twenty, "20", 50_000_000, ""),
        ] {
            let (found, images, warnings) = read(&file(header, 2, 6), &options).unwrap();
            let said: String = warnings.iter().map(|warning| warning.text.as_str()).collect();
            assert!(said.contains(warning) && said.is_empty() == warning.is_empty(), "{said}");
            assert_eq!(found, rate.parse().unwrap(), "{header}");
            assert_eq!((images[0].0, images[1].0), (0, second), "{header}");
        }
    }

    #[test]
    fn windows_interlace_and_cuts() {
        let whole = file("W2 H2 F10:1 It", 4, 6);
        let window = SourceOptions {
            start: Some(Moment::FromStart(100_000_000)),
            end: Some(Moment::FromStart(200_000_000)),
            ..Default::default()
        };
        let (_, images, warnings) = read(&whole, &window).unwrap();
        assert_eq!(images.iter().map(|i| i.0).collect::<Vec<_>>(), [100_000_000, 200_000_000]);
        assert!(matches!(warnings.as_slice(), [Warning { loss: false, .. }]));

        let (_, images, warnings) = read(&whole[..whole.len() - 2], &Default::default()).unwrap();
        assert_eq!((images.len(), warnings.len()), (3, 2));
        assert!(warnings[1].loss && warnings[1].text.contains("4 of 6 bytes"), "{warnings:?}");

        let mut damaged = whole;
        let at = damaged.windows(5).rposition(|w| w == b"FRAME").unwrap();
        damaged[at] = b'x';
        let (_, images, warnings) = read(&damaged, &Default::default()).unwrap();
        assert!(images.len() == 3 && warnings[1].loss);
    }

    proptest! {
        #[test]
        fn noise_does_not_panic(
            header in "[WHFICAX0-9: a-z]{0,40}",
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let limits = Limits { pixels: 1 << 16, ..Default::default() };
            let options = SourceOptions { limits, ..Default::default() };
            let _ = read(&[file(&header, 2, 6), bytes.clone()].concat(), &options);
            let _ = read(&bytes, &options);
        }
    }
}
