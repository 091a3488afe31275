//! From full to limited range, exactly rounded.
//!
//! Sixteen-bit arithmetic without a table, so that loops over rows become vector instructions.
//! No value of the two formulas lies half-way between two integers.

/// Luma: `16 + y * 219 / 255`.
#[inline]
pub(super) fn luma(full: u8) -> u8 {
    16 + by_255(u16::from(full) * 219)
}

/// Chroma: `128 + (c - 128) * 224 / 255`.
#[inline]
pub(super) fn chroma(full: u8) -> u8 {
    by_255(u16::from(full) * 224 + 128 * (255 - 224))
}

/// Divided by 255 and rounded; exact up to 65150.
#[inline]
fn by_255(value: u16) -> u8 {
    let value = value + 128;
    ((value + (value >> 8)) >> 8) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_values_are_rounded_exactly() {
        for v in 0..=255u8 {
            let y = 16.0 + f64::from(v) * 219.0 / 255.0;
            let c = 128.0 + (f64::from(v) - 128.0) * 224.0 / 255.0;
            assert_eq!(luma(v), y.round() as u8, "luma {v}");
            assert_eq!(chroma(v), c.round() as u8, "chroma {v}");
        }
    }
}
