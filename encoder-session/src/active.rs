//! An open encoder, fed from the ring.

use std::panic::{AssertUnwindSafe, catch_unwind};

use encoder_core::{
    EncodeError, EncodedChunk, EncoderType, FailureKind, FrameBuffer, FrameLayout, Resolution,
    VideoEncoder, panic_text,
};

/// An open encoder. A panic in the encoder is reported as an error of the encoder.
pub(super) struct Active {
    pub encoder: Box<dyn VideoEncoder>,
    /// The layout of the frames in the ring.
    layout: FrameLayout,
    /// The frame converted to the encoder's format, if that differs from the format of the ring.
    converted: Option<FrameBuffer>,
}

impl Active {
    pub fn new(encoder: Box<dyn VideoEncoder>, layout: FrameLayout) -> Self {
        let format = encoder.pixel_format();
        let size = Resolution::new(layout.width, layout.height);
        let converted =
            (format != layout.format).then(|| FrameBuffer::new(FrameLayout::new(format, size)));
        Self { encoder, layout, converted }
    }

    pub fn id(&self) -> EncoderType {
        self.encoder.encoder_type()
    }

    /// Encodes the frame in this slot of the ring. The slot is not reused before the access unit of
    /// its frame has been committed. With `is_key` the frame becomes an IDR picture, if the encoder
    /// can be told.
    pub fn encode(
        &mut self,
        memory: &[u8],
        index: u64,
        is_key: bool,
    ) -> Result<Option<EncodedChunk>, EncodeError> {
        let mut frame = self.layout.frame(memory, index).stable();
        if let Some(buffer) = &mut self.converted {
            buffer.copy_from(&frame);
            frame = buffer.frame(index);
        }
        frame.force_idr = is_key && self.encoder.can_force_idr();
        guarded(&mut self.encoder, |encoder| encoder.encode_frame(&frame))
    }

    /// Ends the stream of this encoder.
    pub fn flush(&mut self) -> Result<Vec<EncodedChunk>, EncodeError> {
        guarded(&mut self.encoder, |encoder| encoder.flush())
    }

    /// Drops the encoder.
    pub fn discard(self) {
        // A panic while the encoder is dropped must not end the video.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(self)));
    }
}

fn guarded<T>(
    encoder: &mut Box<dyn VideoEncoder>,
    work: impl FnOnce(&mut dyn VideoEncoder) -> Result<T, EncodeError>,
) -> Result<T, EncodeError> {
    let id = encoder.encoder_type();
    catch_unwind(AssertUnwindSafe(|| work(encoder.as_mut()))).unwrap_or_else(|panic| {
        let message = format!("it panicked: {}", panic_text(&*panic));
        let kind = FailureKind::Failed;
        Err(EncodeError::Failed { encoder: id, index: 0, kind, message })
    })
}
