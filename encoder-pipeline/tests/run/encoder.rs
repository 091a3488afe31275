//! An encoder that is registered like one in an external crate. Its access units name their frame,
//! and the number of open encoders is counted.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use encoder_core::{
    Backend, Caps, EncodeError, EncodedChunk, EncoderType, FailureKind, Frame, OpenRequest,
    PixelFormat, Plan, ProbeResult, Refusal, RefusalKind, Resolution, Settings, VideoEncoder,
};
use encoder_pipeline::{
    session::SessionConfig,
    source::{Payload, RawImage},
};

/// Never fails.
pub const NAMING: EncoderType = EncoderType::new("naming");
/// Like [`NAMING`], but the number of open encoders is counted for a single test.
pub const COUNTED: EncoderType = EncoderType::new("counted");
/// Fails at its fourth frame, after each opening.
pub const LOST: EncoderType = EncoderType::new("lost");
/// Does not open.
pub const ABSENT: EncoderType = EncoderType::new("absent");

macro_rules! register {
    ($($id:ident),*) => {$(
        encoder_core::inventory::submit! {
            Backend::new($id, |request| Naming::open($id, request))
                .rank(|_| 1000)
                .check_options(|_| Ok(()))
                .probe(|_, _| ProbeResult::Usable(Caps::default()))
        }
    )*};
}
register!(NAMING, COUNTED, LOST, ABSENT);

static OPEN: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

/// The most [`COUNTED`] encoders that were open at once, since the last call.
pub fn most_open() -> usize {
    MOST.swap(OPEN.load(SeqCst), SeqCst)
}

struct Naming {
    id: EncoderType,
    taken: u64,
}

impl Naming {
    fn open(
        id: EncoderType,
        _request: &OpenRequest<'_>,
    ) -> Result<Box<dyn VideoEncoder>, encoder_core::OpenError> {
        if id == ABSENT {
            let kind = RefusalKind::Unsupported;
            return Err(Refusal::new(id, kind, "there is no device", "plug one in").into());
        }
        if id == COUNTED {
            MOST.fetch_max(OPEN.fetch_add(1, SeqCst) + 1, SeqCst);
        }
        Ok(Box::new(Self { id, taken: 0 }))
    }
}

impl Drop for Naming {
    fn drop(&mut self) {
        if self.id == COUNTED {
            OPEN.fetch_sub(1, SeqCst);
        }
    }
}

impl VideoEncoder for Naming {
    fn encode_frame(&mut self, frame: &Frame<'_>) -> Result<Option<EncodedChunk>, EncodeError> {
        self.taken += 1;
        if self.id == LOST && self.taken == 4 {
            return Err(EncodeError::Failed {
                encoder: self.id,
                index: frame.index,
                kind: FailureKind::Failed,
                message: "the device was unplugged".into(),
            });
        }
        // The number of the frame is in its first bytes.
        let data = frame.planes()[0].rows().next().unwrap()[..4].to_vec();
        let (pts, keyframe) = (frame.index, self.taken == 1);
        Ok(Some(EncodedChunk { data, pts, dts: pts, keyframe }))
    }

    fn flush(&mut self) -> Result<Vec<EncodedChunk>, EncodeError> {
        Ok(Vec::new())
    }

    fn encoder_type(&self) -> EncoderType {
        self.id
    }

    fn description(&self) -> String {
        "a test".into()
    }

    fn pixel_format(&self) -> PixelFormat {
        PixelFormat::Yuv420p
    }
}

/// A picture that the encoders above recognise: `n` in its first bytes.
pub fn picture(n: u32, size: Resolution) -> Payload {
    let (width, height) = (size.width, size.height);
    let mut data = vec![128; (width * height * 3 / 2) as usize];
    data[..4].copy_from_slice(&n.to_be_bytes());
    let (encoding, data) = ("i420".into(), data.into());
    Payload::Raw(RawImage { encoding, width, height, step: 0, is_bigendian: false, data })
}

/// The number that [`picture`] put into the frame of an access unit.
pub fn number(data: &[u8]) -> Option<u32> {
    data.try_into().ok().map(u32::from_be_bytes)
}

/// Sessions with these encoders, and the smallest rings.
pub fn config(order: &[EncoderType]) -> SessionConfig {
    let mut settings = Settings::default();
    settings.gpu.enable_ring_buffer = false;
    SessionConfig::new(settings, Plan::new(order.to_vec(), vec![]))
}
