//! Pictures: from what was recorded to planar YUV, limited range, in one pass.
//!
//! All output is 8 bit 4:2:0, limited range, matrix BT.601, whatever came in; JPEG keeps its own
//! chroma (its matrix is BT.601 already), so only its range is changed. Coded sizes are even: the
//! last column or row of an odd picture is repeated.

use encoder_core::{FrameLayout, Resolution};
use thiserror::Error;

use crate::source::{Limits, Payload};

/// How to show what is not a colour picture, and what to refuse.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PictureOptions {
    /// Maps depth (16UC1, 32FC1, compressed depth) to grey: the first value is black, the second
    /// white; in the unit of the recording (millimetres for 16UC1, metres for 32FC1). Holes (0,
    /// NaN) are black. `None`: depth is refused.
    pub depth_range: Option<(f32, f32)>,
    /// Against absurd sizes.
    pub limits: Limits,
}

/// Why a picture cannot be shown.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum PictureError {
    /// Never, for this stream: the encoding is unknown or needs an option. The topic is refused.
    #[error("{reason}; {cure}")]
    Unsupported {
        /// What it is, by name.
        reason: String,
        /// What would help.
        cure: String,
    },
    /// This picture is broken; the next one may be right.
    #[error("{0}")]
    Broken(String),
}

/// Reads the size of a picture from its header, without decoding it: cheap enough for the thread
/// that reads the recording. Checks everything that can be checked without decoding: encoding,
/// step, number of bytes, limits.
///
/// # Errors
/// [`PictureError`].
pub fn size(payload: &Payload, options: &PictureOptions) -> Result<Resolution, PictureError> {
    let _ = (payload, options);
    Err(PictureError::Broken("not built yet".into()))
}

/// Decodes and converts a picture into `memory`, which has the given layout.
///
/// # Errors
/// [`PictureError`]; the memory's content is then undefined, but the call never panics. A picture
/// whose size does not fit the layout is [`PictureError::Broken`].
pub fn decode(
    payload: &Payload,
    options: &PictureOptions,
    layout: &FrameLayout,
    memory: &mut [u8],
) -> Result<(), PictureError> {
    let _ = (payload, options, layout, memory);
    Err(PictureError::Broken("not built yet".into()))
}
