//! Encodes test pictures with the backend.

use std::ops::Range;

use crate::{
    ConfigError, DecodeError, EncodeError, EncodedChunk, EncoderConfig, Frame, FrameBuffer,
    FrameLayout, OpenError, OpenRequest, PixelFormat, Plane, Preset, RateControl, Refusal,
    RefusalKind, Resolution, Settings, VideoEncoder, mean_absolute_difference, testing::Suite,
};

/// The mean error in levels from which a picture counts as wrong. Small pictures lose most; another
/// picture, or Cb in place of Cr, is at least 16 levels off.
const TOLERANCE: f64 = 10.0;

/// A stream to encode.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub size: Resolution,
    pub format: PixelFormat,
    pub gop_size: u32,
    pub b_frames: u8,
    pub preset: Preset,
    pub rate_control: RateControl,
    pub threads: usize,
    /// The indices of the frames.
    pub frames: Range<u64>,
    /// The frame that is to be an IDR picture.
    pub forced: Option<u64>,
    /// Whether frames are stable: each keeps its memory to the end. Otherwise all frames share one
    /// buffer, so that the samples of a frame are gone at the next.
    pub is_stable: bool,
}

/// An encoded stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub case: Case,
    pub layout: FrameLayout,
    pub chunks: Vec<EncodedChunk>,
    /// The most frames that the encoder kept after a call.
    pub kept: u64,
}

/// Why a stream was not encoded.
pub(super) enum Failure {
    /// The encoder was not opened, or refused its first frame.
    Refused(Refusal),
    /// The settings were refused.
    Config(ConfigError),
    /// The encoder returned an error for a frame.
    Encode(u64, EncodeError),
    /// Anything else.
    Wrong(String),
}

impl Failure {
    /// The text of a failure, where a refusal is one too.
    pub fn text(self) -> String {
        match self {
            Self::Refused(refusal) => format!("it was refused: {refusal}"),
            Self::Config(error) => format!("it did not open: {error}"),
            Self::Encode(frame, error) => format!("frame {frame}: {error}"),
            Self::Wrong(text) => text,
        }
    }
}

impl Suite {
    /// A stream of 9 frames at the size of the probe, which every rule can rely on.
    pub(super) fn usual(&self) -> Case {
        Case {
            size: self.backend.probe_size,
            format: self.settings.encoder.pixel_format,
            gop_size: 4,
            b_frames: 0,
            preset: self.settings.encoder.preset,
            rate_control: self.settings.encoder.rate_control,
            threads: 2,
            frames: 0..9,
            forced: None,
            is_stable: true,
        }
    }

    /// The settings for a stream.
    pub(super) fn settings(&self, case: &Case) -> Settings {
        let mut settings = self.settings.clone();
        settings.encoder = EncoderConfig {
            resolution: Some(case.size),
            pixel_format: case.format,
            gop_size: case.gop_size,
            b_frames: case.b_frames,
            preset: case.preset,
            rate_control: case.rate_control,
            ..settings.encoder
        };
        settings
    }

    /// Passes the request for a stream to `work`.
    pub(super) fn request<T>(&self, case: &Case, work: impl FnOnce(&OpenRequest<'_>) -> T) -> T {
        let settings = self.settings(case);
        work(&OpenRequest::new(&settings, self.backend.id, case.threads))
    }

    /// The most frames that an encoder for this stream may keep.
    pub(super) fn max_delay(&self, case: &Case) -> u64 {
        self.request(case, |request| (self.backend.max_delay)(request)) as u64
    }

    /// Opens an encoder.
    pub(super) fn open(&self, case: &Case) -> Result<Box<dyn VideoEncoder>, Failure> {
        match self.request(case, |request| self.backend.open_encoder(request)) {
            Ok(encoder) => Ok(encoder),
            Err(OpenError::Refused(refusal)) => Err(Failure::Refused(refusal)),
            Err(OpenError::Config(error)) => Err(Failure::Config(error)),
            Err(error) => Err(Failure::Wrong(format!("it did not open: {error}"))),
        }
    }

    /// Encodes a whole stream.
    pub(super) fn encode(&self, case: Case) -> Result<Stream, Failure> {
        let mut encoding = Encoding::new(self, case)?;
        while encoding.step()? {}
        encoding.finish()
    }

    /// Decodes a stream without B-frames and compares its pictures. `Ok(false)` if there is no
    /// decoder for it.
    pub(super) fn compare(&self, stream: &Stream) -> Result<bool, String> {
        let Some(open) = self.decoder else { return Ok(false) };
        let layout = stream.layout;
        let size = Resolution::new(layout.width, layout.height);
        let unable = |error| match error {
            DecodeError::Unsupported(_) => Ok(false),
            DecodeError::Broken(text) => Err(format!("it does not decode: {text}")),
        };
        let mut decoder = match open(size) {
            Ok(decoder) => decoder,
            Err(error) => return unable(error),
        };
        let (mut shown, mut difference) = (0, None);
        let mut show = |picture: &Frame<'_>| {
            let sent = FrameBuffer::test_picture(layout, shown);
            difference = difference.take().or_else(|| unlike(picture, &sent, shown));
            shown += 1;
        };
        let units = stream.chunks.iter().try_for_each(|unit| decoder.decode(&unit.data, &mut show));
        if let Err(error) = units.and_then(|()| decoder.flush(&mut show)) {
            return unable(error);
        }
        let count = stream.chunks.len() as u64;
        match difference {
            Some(text) => Err(text),
            None if shown != count => Err(format!("{count} access units give {shown} pictures")),
            None => Ok(true),
        }
    }
}

/// How a decoded picture differs from the picture that was encoded.
fn unlike(picture: &Frame<'_>, sent: &FrameBuffer, index: u64) -> Option<String> {
    let layout = sent.layout();
    if (picture.width, picture.height) != (layout.width, layout.height) {
        return Some(format!(
            "picture {index} is {}x{}, it was {}x{}",
            picture.width, picture.height, layout.width, layout.height
        ));
    }
    // The format of decoders.
    let planar = |frame: &Frame<'_>| {
        let size = Resolution::new(layout.width, layout.height);
        let mut planar = FrameBuffer::new(FrameLayout::new(PixelFormat::Yuv420p, size));
        planar.copy_from(frame);
        planar
    };
    let (got, sent) = (planar(picture), planar(&sent.frame(index)));
    let (got, sent) = (got.frame(index), sent.frame(index));
    let planes = got.planes().iter().zip(sent.planes());
    let named = planes.zip(["luma", "Cb", "Cr"]);
    named.into_iter().find_map(|((got, sent), plane)| {
        let samples = |plane: &Plane<'_>| plane.rows().flatten().copied().collect::<Vec<_>>();
        let error = mean_absolute_difference(&samples(got), &samples(sent));
        (error > TOLERANCE)
            .then(|| format!("picture {index} is {error:.1} levels off on average in {plane}"))
    })
}

/// A stream that is being encoded.
pub(super) struct Encoding {
    encoder: Box<dyn VideoEncoder>,
    stream: Stream,
    next: u64,
    /// The memory of the frames so far.
    memory: Vec<FrameBuffer>,
}

impl Encoding {
    /// Opens the encoder.
    pub fn new(suite: &Suite, case: Case) -> Result<Self, Failure> {
        let encoder = suite.open(&case)?;
        let layout = FrameLayout::new(encoder.pixel_format(), case.size);
        let next = case.frames.start;
        let stream = Stream { case, layout, chunks: Vec::new(), kept: 0 };
        Ok(Self { encoder, stream, next, memory: Vec::new() })
    }

    /// Encodes the next frame. Returns whether there was one.
    pub fn step(&mut self) -> Result<bool, Failure> {
        let Stream { case, layout, chunks, kept } = &mut self.stream;
        let first = case.frames.start;
        if self.next == case.frames.end {
            return Ok(false);
        }
        let picture = FrameBuffer::test_picture(*layout, self.next - first);
        match self.memory.first_mut().filter(|_| !case.is_stable) {
            Some(buffer) => buffer.memory_mut().copy_from_slice(picture.memory()),
            None => self.memory.push(picture),
        }
        let Some(buffer) = self.memory.last() else { return Ok(false) };
        let mut frame = buffer.frame(self.next);
        frame.is_stable = case.is_stable;
        frame.force_idr = case.forced == Some(self.next);
        match self.encoder.encode_frame(&frame) {
            Ok(chunk) => chunks.extend(chunk),
            Err(EncodeError::Refused(refusal)) if self.next == first => {
                return Err(Failure::Refused(refusal));
            }
            Err(error) => return Err(Failure::Encode(self.next, error)),
        }
        self.next += 1;
        *kept = (*kept).max((self.next - first).saturating_sub(chunks.len() as u64));
        Ok(true)
    }

    /// Encodes another frame.
    pub fn encode(&mut self, frame: &Frame<'_>) -> Result<Option<EncodedChunk>, EncodeError> {
        self.encoder.encode_frame(frame)
    }

    /// Ends the stream.
    pub fn finish(mut self) -> Result<Stream, Failure> {
        let rest = self.encoder.flush();
        let rest = rest.map_err(|error| Failure::Wrong(format!("the flush failed: {error}")))?;
        self.stream.chunks.extend(rest);
        Ok(self.stream)
    }
}

/// Whether a refusal is that of a request which the encoder does not support.
pub(super) fn is_unsupported(refusal: &Refusal) -> bool {
    refusal.kind == RefusalKind::Unsupported
}
