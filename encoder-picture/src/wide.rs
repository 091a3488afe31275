//! Samples of 16 bits.

use super::planar::Samples;

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
    /// Passes on samples of 8 bits: the high bytes, or the upper 8 of the lowest `bits` bits, which
    /// are white where the value has more.
    pub fn narrow<R>(&self, bits: Option<u8>, use_samples: impl FnOnce(Samples<'_>) -> R) -> R {
        let Self { data, stride, step, width, height, is_bigendian } = *self;
        let Some(bits) = bits.filter(|bits| (8..16).contains(bits)) else {
            let data = &data[usize::from(!is_bigendian)..];
            return use_samples(Samples { data, stride, step, width, height });
        };
        let shift = bits - 8;
        let rows = (0..height).flat_map(|y| self.row(y));
        let data: Vec<_> = rows.map(|v| u8::try_from(v >> shift).unwrap_or(u8::MAX)).collect();
        use_samples(Samples { data: &data, stride: width, step: 1, width, height })
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
