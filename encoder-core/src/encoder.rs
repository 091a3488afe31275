use std::{fmt, sync::Arc};

use crate::{EncodeError, EncodedChunk, EncoderType, Frame, PixelFormat};

/// A running encoder: pictures in, access units out.
///
/// Frames come with rising indices, without gaps: from 0 on, or, where it takes over in mid-stream,
/// from the index of its first frame on. That frame is coded as an IDR picture. "Needs more input" is `Ok(None)`, not an
/// error. After an error the encoder takes nothing more; drop it. Dropping an encoder at any
/// moment frees all it holds, a child process included.
pub trait VideoEncoder: Send {
    /// Encodes one frame. Gives the next access unit in decoding order when there is one; an
    /// encoder that looks ahead gives `None` for its first frames.
    ///
    /// The frame's memory may be read only during the call.
    ///
    /// # Errors
    /// [`EncodeError::Mismatch`] when the frame is not of the opened size and format, otherwise
    /// [`EncodeError::Failed`].
    fn encode_frame(&mut self, frame: &Frame<'_>) -> Result<Option<EncodedChunk>, EncodeError>;

    /// Ends the stream and gives all access units that are still inside, in decoding order.
    ///
    /// # Errors
    /// [`EncodeError::Failed`], also when fewer access units came out than frames went in.
    fn flush(&mut self) -> Result<Vec<EncodedChunk>, EncodeError>;

    /// Which backend this is.
    fn encoder_type(&self) -> EncoderType;

    /// How it is done, for reports: `libx264 164 in process`, `ffmpeg 5.1.9 libx264` …
    fn description(&self) -> String;

    /// The frame format it was opened for.
    fn pixel_format(&self) -> PixelFormat;

    /// The most frames that it takes before the first access unit must come out.
    fn max_delay(&self) -> usize;

    /// Asks how busy the device is that it runs on, where that can be asked.
    fn load(&self) -> Option<LoadProbe> {
        None
    }
}

/// Asks a driver how busy a device is.
#[derive(Clone)]
pub struct LoadProbe(Arc<dyn Fn() -> Vec<DeviceLoad> + Send + Sync>);

impl LoadProbe {
    /// Asks by `ask`.
    pub fn new(ask: impl Fn() -> Vec<DeviceLoad> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    /// The load now, for each engine that can tell it; nothing where none can. Takes as long as
    /// the driver does, which may hang: for a thread of its own.
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
    /// Which device, as the configuration calls it: `0`.
    pub device: String,
    /// Which part of it: `encoder`, `compute`.
    pub engine: &'static str,
    /// From 0 (idle) to 1 (busy all the time).
    pub ratio: f64,
}
