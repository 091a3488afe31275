//! A backend outside the workspace: uncompressed H.264, which every decoder takes. Replace `ipcm.rs`
//! by your codec; `docs/add-a-backend.md` explains each part.

mod ipcm;

use encoder_core::{
    Backend, EncodeError, EncodedChunk, EncoderType, Frame, OpenError, OpenRequest, PixelFormat,
    Refusal, RefusalKind, VideoEncoder, inventory,
};
use ipcm::Ipcm;

/// The name of the backend, as users write it.
pub const IPCM: EncoderType = EncoderType::new("ipcm");
/// The backend: one line per value that is not the default.
pub const BACKEND: Backend = Backend::new(IPCM, open);

inventory::submit! { BACKEND }

fn open(request: &OpenRequest<'_>) -> Result<Box<dyn VideoEncoder>, OpenError> {
    let size = request.coded_size()?;
    let Some(codec) = Ipcm::new(size) else {
        let (reason, hint) = (format!("{size} is too large"), "use another encoder");
        return Err(Refusal::new(IPCM, RefusalKind::Unsupported, reason, hint).into());
    };
    Ok(Box::new(Encoder { codec, gop_size: request.config.gop_size.into(), taken: 0, in_gop: 0 }))
}

struct Encoder {
    codec: Ipcm,
    gop_size: u64,
    /// Frames so far, and frames since the last IDR picture, that picture included.
    taken: u64,
    in_gop: u64,
}

impl VideoEncoder for Encoder {
    fn encode_frame(&mut self, frame: &Frame<'_>) -> Result<Option<EncodedChunk>, EncodeError> {
        frame.check(PixelFormat::Yuv420p, self.codec.size())?;
        let keyframe = frame.force_idr || self.in_gop.is_multiple_of(self.gop_size);
        let data = self.codec.encode(frame.planes(), keyframe);
        let dts = self.taken;
        (self.taken, self.in_gop) = (dts + 1, if keyframe { 1 } else { self.in_gop + 1 });
        Ok(Some(EncodedChunk { data, pts: frame.index, dts, keyframe }))
    }
    fn flush(&mut self) -> Result<Vec<EncodedChunk>, EncodeError> {
        Ok(Vec::new())
    }
    fn encoder_type(&self) -> EncoderType {
        IPCM
    }
    fn description(&self) -> String {
        format!("{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
    }
    fn pixel_format(&self) -> PixelFormat {
        PixelFormat::Yuv420p
    }
    fn can_force_idr(&self) -> bool {
        true
    }
}
