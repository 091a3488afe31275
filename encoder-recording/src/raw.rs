//! Raw frames, one after another, without any header.

use std::fmt;
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use bytes::Bytes;
use encoder_core::{EncoderConfig, FrameRate, Resolution};
use thiserror::Error;

use super::filter::{Window, stream_name};
use super::frames::{FrameBuffers, assumed_rate};
use super::{
    Event, Packet, Payload, RawImage, Source, SourceError, SourceOptions, StreamInfo, Warning,
};

/// Pixel formats: the name in FFmpeg, the name in ROS.
const FORMATS: [(&str, &str); 11] = [
    ("rgb24", "rgb8"),
    ("bgr24", "bgr8"),
    ("rgba", "rgba8"),
    ("bgra", "bgra8"),
    ("gray", "mono8"),
    ("gray16le", "mono16"),
    ("yuv420p", "i420"),
    ("nv12", "nv12"),
    ("nv21", "nv21"),
    ("yuyv422", "yuv422_yuy2"),
    ("uyvy422", "yuv422"),
];

/// A description of raw frames: `rgb24:640x480@30`.
///
/// Written `FORMAT:WIDTHxHEIGHT` or `FORMAT:WIDTHxHEIGHT@RATE`. Formats have their names in FFmpeg
/// or in ROS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawSpec {
    /// The encoding, by its ROS name: `rgb8`, `nv12`, `i420` …
    pub encoding: &'static str,
    /// Size of every frame.
    pub resolution: Resolution,
    /// Frames per second, if the description has a rate.
    pub rate: Option<FrameRate>,
}

/// An error in a description of raw frames.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("raw frames `{text}`: {reason}")]
pub struct RawSpecError {
    text: String,
    reason: String,
}

impl RawSpec {
    /// Size of a frame in bytes.
    pub fn frame_bytes(&self) -> u64 {
        let (width, height) = (u64::from(self.resolution.width), u64::from(self.resolution.height));
        let samples = width * height;
        match self.encoding {
            "rgb8" | "bgr8" => samples * 3,
            "rgba8" | "bgra8" => samples * 4,
            "mono16" | "yuv422" | "yuv422_yuy2" => samples * 2,
            "i420" | "nv12" | "nv21" => samples + 2 * width.div_ceil(2) * height.div_ceil(2),
            _ => samples,
        }
    }
}

impl fmt::Display for RawSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.encoding, self.resolution)?;
        self.rate.map_or(Ok(()), |rate| write!(f, "@{rate}"))
    }
}

impl FromStr for RawSpec {
    type Err = RawSpecError;

    fn from_str(text: &str) -> Result<Self, RawSpecError> {
        let wrong = |reason: String| RawSpecError { text: text.into(), reason };
        let (format, rest) = text.split_once(':').ok_or_else(|| {
            wrong("write FORMAT:WIDTHxHEIGHT@RATE, such as rgb24:640x480@30".into())
        })?;
        let encoding = FORMATS.iter().find(|(ffmpeg, ros)| [*ffmpeg, *ros].contains(&format));
        let encoding = encoding.map(|(_, ros)| *ros).ok_or_else(|| {
            let known: Vec<_> = FORMATS.iter().map(|(ffmpeg, _)| *ffmpeg).collect();
            wrong(format!("format `{format}` is unknown; known are {}", known.join(", ")))
        })?;
        let (size, rate) = match rest.split_once('@') {
            Some((size, rate)) => (size, Some(rate.parse().map_err(|e| wrong(format!("{e}")))?)),
            None => (rest, None),
        };
        let resolution: Resolution = size.parse().map_err(|e| wrong(format!("{e}")))?;
        let side = resolution.width.max(resolution.height);
        if side > EncoderConfig::MAX_SIDE {
            let max = EncoderConfig::MAX_SIDE;
            return Err(wrong(format!("size {resolution}: a side may have at most {max} pixels")));
        }
        if encoding.starts_with("yuv422") && resolution.width % 2 == 1 {
            return Err(wrong(format!(
                "size {resolution}: two pixels of {format} share their colour, so the width must \
                 be even"
            )));
        }
        Ok(Self { encoding, resolution, rate })
    }
}

/// Raw frames from a stream.
pub(crate) struct RawSource {
    reader: Box<dyn Read + Send>,
    buffers: FrameBuffers,
    spec: RawSpec,
    rate: FrameRate,
    path: PathBuf,
    wanted: RangeInclusive<i64>,
    /// The warning about a rate that is a guess.
    warning: Option<Warning>,
    announced: bool,
    /// Frames read so far.
    frames: u64,
    ended: bool,
}

impl RawSource {
    /// Frames as `spec` describes them. Their rate is `options.rate`, otherwise that of `spec`,
    /// otherwise 30, with a warning. `path` names the stream in messages.
    pub(crate) fn new(
        reader: Box<dyn Read + Send>,
        spec: &RawSpec,
        path: &Path,
        options: &SourceOptions,
    ) -> Self {
        let (rate, warning) = match options.rate.or(spec.rate) {
            Some(rate) => (rate, None),
            None => {
                let (rate, warning) = assumed_rate(&format!("the raw frames {spec} have no @RATE"));
                (rate, Some(warning))
            }
        };
        Self {
            reader,
            buffers: FrameBuffers::default(),
            spec: *spec,
            rate,
            warning,
            path: path.into(),
            wanted: Window::new(options).bounds(0),
            announced: false,
            frames: 0,
            ended: false,
        }
    }

    /// Reads the next frame, whether it is selected or not; `Err` ends the stream.
    fn frame(&mut self) -> Result<Result<Bytes, Option<Event>>, SourceError> {
        let number = self.frames;
        let size = self.spec.frame_bytes();
        let read = self.buffers.read(&mut self.reader, size, (0, 0));
        Ok(match read.map_err(|e| SourceError::io(self.path.as_path(), e))? {
            Ok(data) => {
                self.frames += 1;
                Ok(data)
            }
            Err(0) => Err(None),
            Err(got) => {
                let text = format!(
                    "the stream ends within frame {number}: {got} of {size} bytes came; the frame \
                     is left out (or the frames are not {})",
                    self.spec
                );
                Err(Some(Event::Warning(Warning { text, loss: true })))
            }
        })
    }
}

impl Source for RawSource {
    fn next_event(&mut self) -> Result<Option<Event>, SourceError> {
        if !self.announced {
            self.announced = true;
            return Ok(Some(Event::Stream(StreamInfo {
                id: 0,
                topic: stream_name(&self.path),
                schema: String::new(),
                messages: None,
                rate: Some(self.rate),
            })));
        }
        if let Some(warning) = self.warning.take() {
            return Ok(Some(Event::Warning(warning)));
        }
        while !self.ended {
            let number = self.frames;
            let log_ns = i64::try_from(self.rate.nanoseconds(number)).unwrap_or(i64::MAX);
            if log_ns > *self.wanted.end() {
                break;
            }
            let data = match self.frame()? {
                Ok(data) => data,
                Err(event) => {
                    self.ended = true;
                    return Ok(event);
                }
            };
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
                    encoding: self.spec.encoding.into(),
                    width: self.spec.resolution.width,
                    height: self.spec.resolution.height,
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Moment;

    #[test]
    fn specs() {
        // Text, encoding, bytes of a frame, rate.
        let table = [
            ("rgb24:640x480@30", "rgb8", 921_600, Some("30")),
            ("bgr8:2x2", "bgr8", 12, None),
            ("rgba:3x1@29.97", "rgba8", 12, Some("30000/1001")),
            ("bgra:3x1", "bgra8", 12, None),
            ("gray:5x3", "mono8", 15, None),
            ("gray16le:5x3", "mono16", 30, None),
            ("yuv420p:3x3", "i420", 17, None),
            ("nv12:320x240@15", "nv12", 115_200, Some("15")),
            ("nv21:4x2", "nv21", 12, None),
            ("yuyv422:4x1", "yuv422_yuy2", 8, None),
            ("uyvy422:4x1", "yuv422", 8, None),
            ("yuv422_yuy2:4x1", "yuv422_yuy2", 8, None),
        ];
        for (text, encoding, bytes, rate) in table {
            let spec: RawSpec = text.parse().unwrap();
            assert_eq!((spec.encoding, spec.frame_bytes()), (encoding, bytes), "{text}");
            assert_eq!(spec.rate, rate.map(|r| r.parse().unwrap()), "{text}");
            assert_eq!(spec.to_string().parse(), Ok(spec));
        }
    }

    #[test]
    fn wrong_specs_name_the_part() {
        let table = [
            ("rgb24", "FORMAT:WIDTHxHEIGHT"),
            ("rgb25:640x480", "`rgb25`"),
            ("rgb24:640", "encoder.resolution = 640"),
            ("rgb24:0x480", "encoder.resolution = 0x480"),
            ("rgb24:640x480@fast", "encoder.frame_rate = fast"),
            ("rgb24:640x99999", "at most 16384"),
            ("yuyv422:5x2", "even"),
        ];
        for (text, part) in table {
            let error = text.parse::<RawSpec>().unwrap_err().to_string();
            assert!(error.contains(part) && error.contains(text), "{error}");
        }
    }

    fn open(bytes: Vec<u8>, spec: &RawSpec, options: &SourceOptions) -> RawSource {
        let reader = Box::new(std::io::Cursor::new(bytes));
        RawSource::new(reader, spec, Path::new("d/frames.raw"), options)
    }

    /// Numbers and times of the frames, and whether there is a warning.
    fn read(source: &mut RawSource) -> (Vec<(u64, i64)>, bool) {
        let (mut frames, mut warned) = (Vec::new(), false);
        while let Some(event) = source.next_event().unwrap() {
            match event {
                Event::Packet(packet) => {
                    let Ok(Payload::Raw(image)) = packet.payload else { panic!() };
                    assert!(image.data.iter().all(|byte| u64::from(*byte) == packet.number));
                    frames.push((packet.number, packet.log_ns));
                }
                Event::Warning(warning) => warned |= warning.loss,
                _ => {}
            }
        }
        assert!(source.next_event().unwrap().is_none());
        (frames, warned)
    }

    #[test]
    fn windows() {
        const TENTH: i64 = 100_000_000;
        let at = |tenths: i64| Some(Moment::FromStart(tenths * TENTH));
        let ten: RawSpec = "gray:2x2@10".parse().unwrap();
        let unrated: RawSpec = "gray:2x2".parse().unwrap();
        let five = Some("5".parse().unwrap());
        // Frames, rate of the options, start, end, the frames that are read, and their distance.
        let table = [
            (&ten, None, None, None, 0..6, TENTH),
            (&ten, None, at(2), at(4), 2..5, TENTH),
            (&ten, None, at(2), None, 2..6, TENTH),
            (&ten, None, None, Some(Moment::Absolute(TENTH)), 0..2, TENTH),
            (&ten, None, at(9), None, 0..0, TENTH),
            (&ten, None, at(4), at(2), 0..0, TENTH),
            // The rate that is asked for counts, as for Y4M.
            (&ten, five, at(2), at(4), 1..3, 2 * TENTH),
            (&unrated, five, at(2), None, 1..6, 2 * TENTH),
        ];
        // Six frames, whose bytes are their numbers.
        let bytes: Vec<u8> = (0..6).flat_map(|n| [n; 4]).collect();
        for (spec, rate, start, end, numbers, distance) in table {
            let options = SourceOptions { rate, start, end, ..Default::default() };
            let expected: Vec<_> = numbers.map(|n| (n, n as i64 * distance)).collect();
            let (frames, warned) = read(&mut open(bytes.clone(), spec, &options));
            assert_eq!((frames, warned), (expected, false), "{spec} {options:?}");
            // A frame that is cut after the window is not read at all.
            let cut = bytes[..bytes.len() - 1].to_vec();
            let warned = read(&mut open(cut, spec, &options)).1;
            assert_eq!(warned, end.is_none(), "{spec} {options:?}");
        }
    }

    #[test]
    fn a_rate_that_is_a_guess_is_said() {
        let twenty = Some("20".parse().unwrap());
        for (spec, rate, said) in [
            ("gray:2x2", None, "the raw frames mono8:2x2 have no @RATE: the frames are put at 30"),
            ("gray:2x2", twenty, ""),
            ("gray:2x2@30", None, ""),
        ] {
            let options = SourceOptions { rate, ..Default::default() };
            let mut source = open(vec![0; 4], &spec.parse().unwrap(), &options);
            let mut warnings = String::new();
            while let Some(event) = source.next_event().unwrap() {
                if let Event::Warning(Warning { text, loss: false }) = event {
                    warnings += &text;
                }
            }
            assert!(warnings.starts_with(said), "{warnings}");
            assert_eq!(warnings.is_empty(), said.is_empty(), "{warnings}");
        }
    }

    #[test]
    fn frames_and_a_cut_one() {
        let bytes: Vec<u8> = (0..30).collect();
        let spec = "gray:4x3@10".parse().unwrap();
        let mut source = open(bytes, &spec, &SourceOptions::default());
        let Some(Event::Stream(info)) = source.next_event().unwrap() else { panic!() };
        assert_eq!((info.topic.as_str(), info.rate), ("frames.raw", spec.rate));
        for n in 0..2u8 {
            let Some(Event::Packet(packet)) = source.next_event().unwrap() else { panic!() };
            assert_eq!((packet.number, packet.log_ns), (n.into(), i64::from(n) * 100_000_000));
            let Ok(Payload::Raw(image)) = packet.payload else { panic!() };
            assert_eq!(image.data, (n * 12..n * 12 + 12).collect::<Vec<u8>>());
        }
        let Some(Event::Warning(warning)) = source.next_event().unwrap() else { panic!() };
        assert!(warning.loss && warning.text.contains("6 of 12 bytes"), "{}", warning.text);
        assert!(source.next_event().unwrap().is_none());
    }
}
