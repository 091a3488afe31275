//! Recorded pictures to planar YUV, limited range, in one pass.
//!
//! Output is always 8 bit 4:2:0, limited range, matrix BT.601. JPEG uses that matrix already: its
//! chroma is kept, and only the range changes. Coded sizes are even: the
//! last column or row of an odd picture is repeated.
//!
//! - Raw YUV (`yuv422`, `nv12`, `i420` …) is taken as limited range BT.601, as cameras produce it,
//!   and copied; encodings whose names end in `_full` are converted from full range.
//! - Of samples with 16 bits (`mono16`, `bayer_…16`, PNG) the high byte is shown, or the upper 8 of
//!   the lowest [bits](PictureOptions::bits). [`Levels`] shows how many they use.
//! - Depth (`16UC1`, `32FC1`, compressed depth) is shown only with a
//!   [range](PictureOptions::depth_range).
//! - The names of encodings are those of ROS. These names of FFmpeg are understood too: `rgb24`,
//!   `bgr24`, `rgba`, `bgra`, `gray`, `gray8`, `yuyv422`, `uyvy422`, `yuv420p`, `yuv422p`, `yuv444p`,
//!   and `yuvj420p`, `yuvj422p`, `yuvj444p` of full range.
//! - The `format` of a compressed picture names the encoding of its source, as
//!   `compressed_image_transport` writes it: a JPEG or PNG of one channel whose source is Bayer
//!   (`bayer_rggb8; jpeg compressed`) is demosaiced, and where the file is said to hold RGB in the
//!   place of BGR (`rgb8; jpeg compressed rgb8`), red and blue are exchanged.
//! - Alpha is ignored.

mod bayer;
mod compressed;
mod depth;
mod huffman;
mod jpeg;
mod levels;
mod planar;
mod png;
mod range;
mod raw;
mod rgb;
mod target;
#[cfg(test)]
mod tests;
mod upright;
mod wide;

use std::cell::Cell;

use bytes::Bytes;
use encoder_core::{FrameLayout, Resolution};
use thiserror::Error;

pub use self::levels::Levels;
use self::target::Target;
use encoder_media::{Limits, Payload};

/// How pictures without colour are shown, and which sizes are refused.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PictureOptions {
    /// Maps depth (16UC1, 32FC1, compressed depth) to grey: the first value is black, the second
    /// white; in the unit of the recording (millimetres for 16UC1, metres for 32FC1). Holes (0,
    /// NaN) are black. `None`: depth is refused.
    pub depth_range: Option<(f32, f32)>,
    /// Takes every picture as depth, whatever its encoding: `mono16`, `mono8`, or a grey PNG of 16
    /// bits. Others are refused.
    pub is_depth: bool,
    /// How many bits the samples of 16 bits use (`mono16`, `bayer_…16`, grey PNG), 8 to 16; higher
    /// values are white. `None`: all 16.
    pub bits: Option<u8>,
    /// Turns JPEG and PNG upright, by the orientation in their EXIF data. If not, they are shown as
    /// they are stored.
    pub turn_upright: bool,
    /// Largest sizes that are accepted.
    pub limits: Limits,
}

/// Why a picture cannot be decoded.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum PictureError {
    /// The encoding is unknown or needs an option, for every picture of the stream. The topic is
    /// refused.
    #[error("{reason}; {hint}")]
    Unsupported {
        /// The encoding, by name.
        reason: String,
        /// What would help.
        hint: String,
    },
    /// The fields of an uncompressed picture contradict each other or its bytes: a step smaller than
    /// a row, too few bytes, no pixels.
    #[error("{reason}")]
    Malformed {
        /// What contradicts what.
        reason: String,
        /// The fields to look at.
        hint: String,
    },
    /// The picture has another size than the frame.
    #[error("the picture has {size} pixels, the frame {frame}")]
    Size {
        /// Size of the picture.
        size: Resolution,
        /// Size of the frame: even.
        frame: Resolution,
    },
    /// This picture is broken. The next picture of the stream may be decodable.
    #[error("{0}")]
    Broken(String),
}

impl PictureError {
    /// What would help, if anything would.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Unsupported { hint, .. } | Self::Malformed { hint, .. } => Some(hint),
            Self::Size { .. } => Some("pictures of another size need a video of their own"),
            Self::Broken(_) => None,
        }
    }
}

/// Reads the size of a picture from its header, without decoding it: cheap enough for the thread
/// that reads the recording. Checks everything that can be checked without decoding: encoding,
/// step, number of bytes, limits.
///
/// # Errors
/// [`PictureError`].
pub fn size(payload: &Payload, options: &PictureOptions) -> Result<Resolution, PictureError> {
    match payload {
        Payload::Raw(image) => raw::size(image, options),
        Payload::Compressed { format, data } => compressed::size(format, data, options),
        Payload::Video { format, .. } => Err(video(format)),
        _ => Err(unknown()),
    }
}

/// Checks everything that can be checked without decoding, for a frame of this layout: whether a
/// picture with such a header can ever be decoded into it. A compressed picture that is damaged
/// passes: [`decode`] reports that.
///
/// # Errors
/// Every [`PictureError`] but [`PictureError::Broken`].
pub fn check(
    payload: &Payload,
    options: &PictureOptions,
    layout: &FrameLayout,
) -> Result<(), PictureError> {
    match size(payload, options) {
        Ok(size) => check_fits(size, layout),
        Err(PictureError::Broken(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether a picture of this size has the size of the frame.
fn check_fits(size: Resolution, layout: &FrameLayout) -> Result<(), PictureError> {
    let frame = Resolution::new(layout.width, layout.height);
    if size.even() == frame { Ok(()) } else { Err(PictureError::Size { size, frame }) }
}

/// Values of a picture that need more bits than are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clipped {
    /// The bits that are shown: [`PictureOptions::bits`].
    pub bits: u8,
    /// The highest value, except 65535, which marks holes.
    pub highest: u16,
}

/// Decodes and converts a picture into `memory`, which has the given layout. Returns which values
/// are shown as white because they need more bits than [`PictureOptions::bits`], if they are more
/// than a few in ten thousand.
///
/// # Errors
/// [`PictureError`]; the memory's content is then undefined, but the call never panics.
pub fn decode(
    payload: &Payload,
    options: &PictureOptions,
    layout: &FrameLayout,
    memory: &mut [u8],
) -> Result<Option<Clipped>, PictureError> {
    let size = size(payload, options)?;
    let mut target = Target::new(layout, memory, size)?;
    match payload {
        Payload::Raw(image) => raw::decode(image, options, &mut target)?,
        Payload::Compressed { format, data } => {
            compressed::decode(format, data, options, &mut target)?;
        }
        Payload::Video { format, .. } => return Err(video(format)),
        _ => return Err(unknown()),
    }
    Ok(target.clipped)
}

/// The bytes of a picture that has the layout as it is, such as `i420` without padding: it need not
/// be decoded. `None` for every other picture, also for a broken one.
pub fn ready(payload: &Payload, options: &PictureOptions, layout: &FrameLayout) -> Option<Bytes> {
    match payload {
        Payload::Raw(image) => raw::ready(image, options, layout),
        _ => None,
    }
}

/// What is guessed or ignored in a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remark {
    /// The format does not state whether red and blue are exchanged in the file.
    UnknownOrder,
    /// The orientation in the EXIF data, 2 to 8, which is not applied.
    Orientation(u8),
}

/// What is guessed or ignored in a picture, read from its header.
pub fn remarks(payload: &Payload, options: &PictureOptions) -> Vec<Remark> {
    match payload {
        Payload::Compressed { format, data } => compressed::remarks(format, data, options),
        _ => Vec::new(),
    }
}

fn video(format: &str) -> PictureError {
    unsupported(format!("{format} is a video stream, not a picture"), "it is copied, not decoded")
}

fn unknown() -> PictureError {
    unsupported("a payload of an unknown kind", "use crates of this workspace of one version")
}

fn broken(reason: String) -> PictureError {
    PictureError::Broken(reason)
}

fn unsupported(reason: impl Into<String>, hint: impl Into<String>) -> PictureError {
    PictureError::Unsupported { reason: reason.into(), hint: hint.into() }
}

/// Refuses pictures without pixels and absurd ones.
fn check_size(
    width: u32,
    height: u32,
    options: &PictureOptions,
) -> Result<Resolution, PictureError> {
    let size = Resolution::new(width, height);
    if width == 0 || height == 0 {
        return Err(broken(format!("a picture of {size} has no pixels")));
    }
    let (pixels, limit) = (u64::from(width) * u64::from(height), options.limits.pixels);
    // A side of all 32 bits has no even size above it.
    if pixels > limit || width == u32::MAX || height == u32::MAX {
        return Err(broken(format!(
            "{size} is more than the limit of {limit} pixels (`--max-pixels`)"
        )));
    }
    Ok(size)
}

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Lends `length` bytes of any content, which the thread keeps for the next picture.
fn with_scratch<R>(length: usize, function: impl FnOnce(&mut [u8]) -> R) -> R {
    let mut memory = SCRATCH.take();
    if memory.len() < length {
        memory.resize(length, 0);
    }
    let result = function(&mut memory[..length]);
    SCRATCH.set(memory);
    result
}

/// Overwrites the scratch memory of this thread. For tests: a picture must not depend on it.
#[doc(hidden)]
pub fn spoil_scratch(rubbish: u8) {
    let mut memory = SCRATCH.take();
    memory.fill(rubbish);
    SCRATCH.set(memory);
}
