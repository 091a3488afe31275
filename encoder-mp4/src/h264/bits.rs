/// Reads the bits of a NAL unit and skips its emulation prevention bytes: `00 00 03` stands for
/// `00 00` (7.3.1).
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Zero bytes right before `at`.
    zeros: u32,
    current: u8,
    /// Number of unread bits of `current`.
    left: u32,
}

impl<'a> Bits<'a> {
    /// Starts at the byte after the NAL unit's header.
    pub fn of(unit: &'a [u8]) -> Self {
        Self { bytes: unit.get(1..).unwrap_or_default(), at: 0, zeros: 0, current: 0, left: 0 }
    }

    pub fn flag(&mut self) -> Option<bool> {
        if self.left == 0 {
            self.current = self.byte()?;
            self.left = 8;
        }
        self.left -= 1;
        Some(self.current >> self.left & 1 == 1)
    }

    fn byte(&mut self) -> Option<u8> {
        let mut byte = *self.bytes.get(self.at)?;
        self.at += 1;
        if self.zeros >= 2 && byte == 3 {
            byte = *self.bytes.get(self.at)?;
            self.at += 1;
            self.zeros = 0;
        }
        self.zeros = if byte == 0 { self.zeros + 1 } else { 0 };
        Some(byte)
    }

    /// A number of up to 32 bits.
    pub fn take(&mut self, count: u32) -> Option<u32> {
        let mut value = 0;
        for _ in 0..count {
            value = value << 1 | u32::from(self.flag()?);
        }
        Some(value)
    }

    pub fn skip(&mut self, count: u32) -> Option<()> {
        (0..count).try_for_each(|_| self.flag().map(drop))
    }

    /// An unsigned Exp-Golomb code (9.1), at most 2^32 - 2.
    pub fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        (1u32 << zeros).checked_sub(1)?.checked_add(self.take(zeros)?)
    }

    /// An unsigned Exp-Golomb code; `None` above `most`.
    pub fn ue_up_to(&mut self, most: u32) -> Option<u32> {
        self.ue().filter(|&value| value <= most)
    }

    /// A signed Exp-Golomb code (9.1.1).
    pub fn se(&mut self) -> Option<i32> {
        let code = i64::from(self.ue()?);
        let value = if code % 2 == 1 { (code + 1) / 2 } else { -(code / 2) };
        i32::try_from(value).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emulation_prevention_bytes_are_skipped() {
        let unit = [0x67, 0, 0, 3, 1, 0, 0, 3, 0, 0, 3];
        let mut bits = Bits::of(&unit);
        let bytes: Vec<_> = std::iter::from_fn(|| bits.take(8)).collect();
        assert_eq!(bytes, [0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(Bits::of(&[]).flag(), None);
    }

    #[test]
    fn exponential_golomb_codes() {
        // 1 010 011 00100 00101 0 …
        let unit = [0x67, 0b1010_0110, 0b0100_0010, 0b1000_0000];
        let mut bits = Bits::of(&unit);
        assert_eq!([(); 5].map(|()| bits.ue()), [0, 1, 2, 3, 4].map(Some));
        let mut bits = Bits::of(&unit);
        assert_eq!([(); 5].map(|()| bits.se()), [0, 1, -1, 2, -2].map(Some));
        // The longest code, and a code that is too long.
        let longest = [0x67, 0, 3, 0, 1, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(
            Bits::of(&[0x67, 0, 0, 3, 0, 1, 0xff, 0xff, 0xff, 0xfe]).ue(),
            Some(u32::MAX - 1)
        );
        assert!(Bits::of(&longest).ue().is_some());
        assert_eq!(Bits::of(&[0x67, 0, 0, 3, 0, 0, 0x80, 0xff, 0xff, 0xff, 0xff]).ue(), None);
        assert_eq!(Bits::of(&[0x67, 0x40]).ue_up_to(0), None);
        assert_eq!(Bits::of(&[0x67, 0]).ue(), None);
    }
}
