use thiserror::Error;

use crate::{Backend, Codec, Frame, Resolution, backend::ranked, settings::Settings};

/// Decodes access units, to check the pictures that an encoder returns.
///
/// A decoder is supplied by a backend, see [`Backend::decoder`], and need not belong to the encoder
/// whose output it checks.
pub trait PictureDecoder: Send {
    /// Decodes the next access unit, an Annex B byte stream without B-frames. Passes pictures to
    /// `show`, in order; a picture may come [`MAX_DECODE_DELAY`] access units late.
    ///
    /// # Errors
    /// [`DecodeError`]. The decoder cannot be used any further then.
    fn decode(&mut self, unit: &[u8], show: &mut dyn FnMut(&Frame<'_>)) -> Result<(), DecodeError>;

    /// Passes the pictures to `show` that have not come yet. The next access unit must be a key
    /// frame.
    ///
    /// # Errors
    /// [`DecodeError`].
    fn flush(&mut self, show: &mut dyn FnMut(&Frame<'_>)) -> Result<(), DecodeError>;
}

/// How many access units late a picture may come from [`PictureDecoder::decode`].
pub const MAX_DECODE_DELAY: usize = 1;

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

/// Opens a decoder for pictures of a coded size. Returns [`DecodeError::Unsupported`] if the decoder
/// does not take pictures of that size.
pub type OpenDecoder = fn(Resolution) -> Result<Box<dyn PictureDecoder>, DecodeError>;

/// The decoder for `codec` of the first backend that has one; `None` if no such backend is compiled
/// in.
pub fn picture_decoder(codec: Codec) -> Option<OpenDecoder> {
    let of = |backend: &&Backend| backend.decoder.filter(|_| backend.codecs.contains(&codec));
    ranked(&Settings::default()).iter().find_map(of)
}
