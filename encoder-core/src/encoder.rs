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
}
