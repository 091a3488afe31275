//! From full to limited range, exactly rounded.
//!
//! Sixteen-bit arithmetic without a table, so that loops over rows become vector instructions.
//! No value of the two formulas lies half-way between two integers, and 1/256 is fine enough to
//! fall on the right side of every half (a test compares all 256 values).

/// Luma: `16 + y * 219 / 255`.
#[inline]
pub(super) fn luma(full: u8) -> u8 {
    ((scaled(full, 56_284) + (16 << 8) + 128) >> 8) as u8
}

/// Chroma: `128 + (c - 128) * 224 / 255`.
#[inline]
pub(super) fn chroma(full: u8) -> u8 {
    // 128 - 128 * 224 / 255 = 15.5608 = 3983.6 / 256
    ((scaled(full, 57_569) + 3984 + 128) >> 8) as u8
}

/// `value * factor / 65536` in units of 1/256.
#[inline]
fn scaled(value: u8, factor: u32) -> u16 {
    ((u32::from(u16::from(value) << 8) * factor) >> 16) as u16
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
