use thiserror::Error;

use crate::{Backend, Codec, Frame, backend::ranked, settings::Settings};

/// Decodes access units, to check the pictures that an encoder returns.
///
/// A decoder is supplied by a backend, see [`Backend::decoder`], and need not belong to the encoder
/// whose output it checks.
pub trait PictureDecoder: Send {
    /// Decodes the next access unit, an Annex B byte stream, and passes its picture to `show`
    /// before the call returns. The pictures are displayed in the order of the access units (no
    /// B-frames), or the access unit is an IDR picture, which resets the decoder.
    ///
    /// # Errors
    /// [`DecodeError`]. `show` has not been called then.
    fn decode(&mut self, unit: &[u8], show: &mut dyn FnMut(&Frame<'_>)) -> Result<(), DecodeError>;
}

/// Why an access unit was not decoded.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The decoder does not support streams of this kind, so nothing is known about the picture.
    #[error("{0}")]
    Unsupported(String),
    /// The access unit is damaged, or has no complete picture.
    #[error("{0}")]
    Broken(String),
}

/// Opens a decoder.
pub type OpenDecoder = fn() -> Result<Box<dyn PictureDecoder>, DecodeError>;

/// The decoder for `codec` of the first backend that has one; `None` if no such backend is compiled
/// in.
pub fn picture_decoder(codec: Codec) -> Option<OpenDecoder> {
    let of = |backend: &&Backend| backend.decoder.filter(|_| backend.codecs.contains(&codec));
    ranked(&Settings::default()).iter().find_map(of)
}
