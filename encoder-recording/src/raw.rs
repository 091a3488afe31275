//! Raw frames, one after another, without any header.

use std::fmt;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use bytes::Bytes;
use encoder_core::{EncoderConfig, FrameRate, Resolution};
use thiserror::Error;

use super::{Event, Packet, Payload, RawImage, Source, SourceError, StreamInfo, Warning};

/// Pixel formats: the name of FFmpeg, the name that the recording world has for it.
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

/// What raw frames look like: `rgb24:640x480@30`.
///
/// Written `FORMAT:WIDTHxHEIGHT`, then perhaps `@RATE`. Formats are those of FFmpeg or of ROS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawSpec {
    /// The encoding, by its ROS name: `rgb8`, `nv12`, `i420` …
    pub encoding: &'static str,
    /// Size of every frame.
    pub resolution: Resolution,
    /// Frames per second; `None` where it is not written.
    pub rate: Option<FrameRate>,
}

/// A description of raw frames that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("raw frames `{text}`: {reason}")]
pub struct RawSpecError {
    text: String,
    reason: String,
}

impl RawSpec {
    /// Bytes of one frame.
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
    spec: RawSpec,
    rate: FrameRate,
    name: PathBuf,
    /// Frames so far; `None` before the stream has been announced.
    frames: Option<u64>,
    ended: bool,
}

impl RawSource {
    /// Frames as `spec` describes them, 30 in a second when it has no rate. `name` stands for the
    /// stream in messages.
    pub(crate) fn new(reader: Box<dyn Read + Send>, spec: RawSpec, name: impl AsRef<Path>) -> Self {
        let rate = spec.rate.unwrap_or_default();
        let name = name.as_ref().into();
        Self { reader, spec, rate, name, frames: None, ended: false }
    }
}

impl Source for RawSource {
    fn next_event(&mut self) -> Result<Option<Event>, SourceError> {
        let Some(number) = self.frames else {
            self.frames = Some(0);
            return Ok(Some(Event::Stream(StreamInfo {
                id: 0,
                topic: self.name.display().to_string(),
                schema: String::new(),
                messages: None,
                rate: Some(self.rate),
            })));
        };
        if self.ended {
            return Ok(None);
        }
        let size = self.spec.frame_bytes();
        let data =
            read_frame(&mut self.reader, size).map_err(|e| SourceError::io(&self.name, e))?;
        let data = match data {
            Ok(data) => data,
            Err(0) => {
                self.ended = true;
                return Ok(None);
            }
            Err(got) => {
                self.ended = true;
                let text = format!(
                    "the stream ends within frame {number}: {got} of {size} bytes came; the frame \
                     is left out (or the frames are not {})",
                    self.spec
                );
                return Ok(Some(Event::Warning(Warning { text, loss: true })));
            }
        };
        self.frames = Some(number + 1);
        Ok(Some(Event::Packet(Packet {
            message: None,
            stream: 0,
            number,
            log_ns: i64::try_from(self.rate.nanoseconds(number)).unwrap_or(i64::MAX),
            header_ns: None,
            payload: Ok(Payload::Raw(RawImage {
                encoding: self.spec.encoding.into(),
                width: self.spec.resolution.width,
                height: self.spec.resolution.height,
                step: 0,
                is_bigendian: false,
                data,
            })),
        })))
    }

    fn other_topics(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}

/// Reads exactly one frame; the inner error is the number of bytes that came instead.
pub(super) fn read_frame(
    reader: &mut dyn Read,
    size: u64,
) -> std::io::Result<Result<Bytes, usize>> {
    let capacity = usize::try_from(size).map_err(|_| ErrorKind::OutOfMemory)?;
    let mut data = Vec::new();
    data.try_reserve_exact(capacity).map_err(|_| ErrorKind::OutOfMemory)?;
    reader.take(size).read_to_end(&mut data)?;
    Ok(if data.len() == capacity { Ok(data.into()) } else { Err(data.len()) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

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
            ("rgb24:640", "resolution = 640"),
            ("rgb24:0x480", "resolution = 0x480"),
            ("rgb24:640x480@fast", "frame rate = fast"),
            ("rgb24:640x99999", "at most 16384"),
            ("yuyv422:5x2", "even"),
        ];
        for (text, part) in table {
            let error = text.parse::<RawSpec>().unwrap_err().to_string();
            assert!(error.contains(part) && error.contains(text), "{error}");
        }
    }

    #[test]
    fn frames_and_a_cut_one() {
        let bytes: Vec<u8> = (0..30).collect();
        let spec = "gray:4x3@10".parse().unwrap();
        let mut source = RawSource::new(Box::new(std::io::Cursor::new(bytes)), spec, "-");
        let Some(Event::Stream(info)) = source.next_event().unwrap() else { panic!() };
        assert_eq!((info.topic.as_str(), info.rate), ("-", spec.rate));
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
