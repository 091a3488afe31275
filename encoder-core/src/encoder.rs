use std::{fmt, sync::Arc};

use crate::{EncodeError, EncodedChunk, EncoderType, Frame, PixelFormat};

/// A running encoder: pictures in, access units out.
///
/// Frames have rising indices without gaps: from 0 on, or from any other index on if the encoder
/// takes over in mid-stream. The first frame is coded as an IDR picture. An encoder that needs more
/// frames returns `Ok(None)`, which is not an error; it keeps at most as many frames as its backend
/// declares ([`Backend::max_delay`](crate::Backend::max_delay)). After an error the encoder takes no more
/// frames and is to be dropped. Dropping an encoder at any moment frees all that it holds, a child
/// process included.
pub trait VideoEncoder: Send {
    /// Encodes one frame. Returns the next access unit in decoding order if there is one; an
    /// encoder that looks ahead returns `None` for its first frames.
    ///
    /// The frame's memory may be read only during the call, unless [`Frame::is_stable`] is set.
    ///
    /// # Errors
    /// [`EncodeError::Mismatch`] if the frame does not have the size and format for which the
    /// encoder was opened, [`EncodeError::Refused`] if the device refuses at the first frame,
    /// otherwise [`EncodeError::Failed`].
    fn encode_frame(&mut self, frame: &Frame<'_>) -> Result<Option<EncodedChunk>, EncodeError>;

    /// Ends the stream and returns all remaining access units, in decoding order.
    ///
    /// # Errors
    /// [`EncodeError::Failed`], also if fewer access units come out than frames went in.
    fn flush(&mut self) -> Result<Vec<EncodedChunk>, EncodeError>;

    /// The backend of this encoder.
    fn encoder_type(&self) -> EncoderType;

    /// Library and version, for reports: `libx264 164 in process`, `ffmpeg 5.1.9 libx264` …
    fn description(&self) -> String;

    /// The frame format for which it was opened.
    fn pixel_format(&self) -> PixelFormat;

    /// Whether it obeys [`Frame::force_idr`] in the middle of a GOP: the picture of exactly that
    /// frame is an IDR picture, and the next GOP is counted from there. Default false: a session
    /// then ends the encoder at such a frame and opens it again, which takes as long as its start.
    fn can_force_idr(&self) -> bool {
        false
    }

    /// Measures how busy the encoder's device is, if its driver can report that.
    fn load(&self) -> Option<LoadProbe> {
        None
    }
}

impl fmt::Debug for dyn VideoEncoder + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VideoEncoder")
            .field("encoder_type", &self.encoder_type())
            .field("description", &self.description())
            .field("pixel_format", &self.pixel_format())
            .finish_non_exhaustive()
    }
}

/// Measures how busy a device is.
#[derive(Clone)]
pub struct LoadProbe(Arc<dyn Fn() -> Vec<DeviceLoad> + Send + Sync>);

impl LoadProbe {
    /// A probe that calls `ask`.
    pub fn new(ask: impl Fn() -> Vec<DeviceLoad> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    /// The load now, of each engine that reports it. Takes as long as the driver does, which may
    /// hang: call it on a thread of its own.
    pub fn ask(&self) -> Vec<DeviceLoad> {
        (self.0)()
    }
}

impl fmt::Debug for LoadProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadProbe").finish_non_exhaustive()
    }
}

/// How busy an engine of a device is.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceLoad {
    /// The device, by its name in the configuration: `0`.
    pub device: String,
    /// The part of the device: `encoder`, `compute`.
    pub engine: &'static str,
    /// From 0 (idle) to 1 (busy all the time).
    pub ratio: f64,
}
