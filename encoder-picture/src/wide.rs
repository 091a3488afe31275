//! Samples of 16 bits.

use super::{Clipped, planar::Samples, target::Target};

/// The value that marks holes.
pub(super) const HOLE: u16 = u16::MAX;
/// Of this many values, a single one with more bits than the others does not count.
pub(super) const FEW: usize = 2000;

/// Samples of 16 bits, wherever they lie.
#[derive(Clone, Copy)]
pub(super) struct Wide<'a> {
    /// From the first sample on; long enough for all rows.
    pub data: &'a [u8],
    /// Bytes from one row to the next.
    pub stride: usize,
    /// Bytes from one sample to the next.
    pub step: usize,
    /// Samples in a row, at least 1.
    pub width: usize,
    /// Rows, at least 1.
    pub height: usize,
    pub is_bigendian: bool,
}

impl<'a> Wide<'a> {
    /// Passes on samples of 8 bits, with the target: the high bytes, or the upper 8 of the lowest
    /// `bits` bits, which are white where the value has more. These are noted in the target.
    pub fn narrow<R>(
        &self,
        bits: Option<u8>,
        target: &mut Target<'_>,
        write: impl FnOnce(Samples<'_>, &mut Target<'_>) -> R,
    ) -> R {
        let Self { data, stride, step, width, height, is_bigendian } = *self;
        let Some(bits) = bits.filter(|bits| (8..16).contains(bits)) else {
            let data = &data[usize::from(!is_bigendian)..];
            return write(Samples { data, stride, step, width, height }, target);
        };
        let (mut above, mut highest) = (0, 0);
        let narrowed = (0..height).flat_map(|y| self.row(y)).map(|value| {
            u8::try_from(value >> (bits - 8)).unwrap_or_else(|_| {
                if value != HOLE {
                    above += 1;
                    highest = highest.max(value);
                }
                u8::MAX
            })
        });
        let data: Vec<_> = narrowed.collect();
        target.clipped = (above > data.len() / FEW).then_some(Clipped { bits, highest });
        write(Samples { data: &data, stride: width, step: 1, width, height }, target)
    }

    /// The values of row `y`.
    pub fn row(&self, y: usize) -> impl Iterator<Item = u16> + 'a {
        let Self { step, width, is_bigendian, .. } = *self;
        let row = &self.data[y * self.stride..];
        (0..width).map(move |x| {
            let bytes = [row[x * step], row[x * step + 1]];
            if is_bigendian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
        })
    }
}
