//! The headers of an H.264 stream: parameter sets and slice headers (ITU-T H.264, 7.3).
//!
//! The bytes come from recordings and are untrusted: every reader returns `None` or an error if
//! they end early or are invalid.

mod bits;
mod frame;
mod keyframes;
mod order;
mod pps;
mod sets;
mod slice;
mod split;
mod sps;
mod stream;
#[cfg(test)]
pub(crate) mod synthetic;
#[cfg(test)]
mod tests;

pub(crate) use pps::Pps;
pub(crate) use sets::ParameterSets;
pub(crate) use slice::picture_parameter_set;
pub use split::UnitSplitter;
pub(crate) use sps::HIGH_PROFILES;
pub use sps::{Colour, Sps};
pub use stream::{CodedPicture, ReadFrame, StreamError, StreamReader};

/// NAL unit types that the readers distinguish (Table 7-1).
pub(crate) mod nal {
    /// Slice of a picture that is not an IDR picture.
    pub(crate) const SLICE: u8 = 1;
    /// Slice data partition A, with the slice header.
    pub(crate) const PARTITION_A: u8 = 2;
    /// Slice of an IDR picture.
    pub(crate) const IDR: u8 = 5;
    /// Sequence parameter set.
    pub(crate) const SPS: u8 = 7;
    /// Picture parameter set.
    pub(crate) const PPS: u8 = 8;
    /// Access unit delimiter.
    pub(crate) const DELIMITER: u8 = 9;

    /// The type of a NAL unit, by its first byte.
    pub(crate) fn kind(unit: &[u8]) -> u8 {
        unit.first().map_or(0, |header| header & 0x1f)
    }

    /// Whether a NAL unit of this type, which is no slice, belongs to the picture in front of it:
    /// data partitions, end of sequence and of stream, filler data, auxiliary and extension slices.
    /// Others begin the next access unit (7.4.1.2.3).
    pub(crate) fn follows_slices(kind: u8) -> bool {
        matches!(kind, 3 | 4 | 10..=12 | 19..=21)
    }

    /// Whether a NAL unit begins with a slice header.
    pub(crate) fn is_slice(unit: &[u8]) -> bool {
        matches!(kind(unit), SLICE | PARTITION_A | IDR)
    }
}
