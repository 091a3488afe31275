use encoder_core::Resolution;

/// What a container must know of a sequence parameter set (ITU-T H.264, 7.3.2.1.1 and E.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sps {
    /// `profile_idc`.
    pub profile: u8,
    /// `chroma_format_idc`: 1 is 4:2:0.
    pub chroma_format: u8,
    /// Bits of a luma sample.
    pub luma_bits: u8,
    /// Bits of a chroma sample.
    pub chroma_bits: u8,
    /// Size of the pictures after cropping.
    pub size: Resolution,
    /// Colour description, where the stream has one.
    pub colour: Option<Colour>,
}

/// Colour description, in the code points of ITU-T H.273.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colour {
    /// Colour primaries.
    pub primaries: u8,
    /// Transfer characteristics.
    pub transfer: u8,
    /// Matrix coefficients.
    pub matrix: u8,
    /// Full range samples.
    pub full_range: bool,
}

/// Profiles whose parameter set carries the chroma format.
pub(super) const HIGH_PROFILES: [u8; 13] =
    [100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135];

impl Sps {
    /// Reads a NAL unit of type 7, header byte included. `None` where it is cut or absurd.
    pub fn parse(unit: &[u8]) -> Option<Self> {
        let payload = unescape(unit.get(1..)?);
        let mut bits = Bits { bytes: &payload, at: 0 };
        let profile = bits.take(8)? as u8;
        bits.take(16)?; // constraint flags, level
        bits.ue()?; // id
        let (mut chroma_format, mut luma_bits, mut chroma_bits, mut separate) = (1, 8, 8, false);
        if HIGH_PROFILES.contains(&profile) {
            chroma_format = bits.ue()?;
            if chroma_format == 3 {
                separate = bits.flag()?;
            }
            luma_bits = bits.ue()?.checked_add(8)?;
            chroma_bits = bits.ue()?.checked_add(8)?;
            bits.flag()?;
            if bits.flag()? {
                for list in 0..if chroma_format == 3 { 12 } else { 8 } {
                    if bits.flag()? {
                        bits.skip_scaling_list(if list < 6 { 16 } else { 64 })?;
                    }
                }
            }
        }
        bits.ue()?; // log2_max_frame_num
        match bits.ue()? {
            0 => {
                bits.ue()?;
            }
            1 => {
                bits.flag()?;
                bits.ue()?;
                bits.ue()?;
                for _ in 0..bits.ue()?.min(255) {
                    bits.ue()?;
                }
            }
            _ => {}
        }
        bits.ue()?; // reference frames
        bits.flag()?;
        let width_mbs = bits.ue()?.checked_add(1)?;
        let height_units = bits.ue()?.checked_add(1)?;
        let frame_mbs_only = bits.flag()?;
        if !frame_mbs_only {
            bits.flag()?;
        }
        bits.flag()?;
        let crop =
            if bits.flag()? { [bits.ue()?, bits.ue()?, bits.ue()?, bits.ue()?] } else { [0; 4] };
        let field = if frame_mbs_only { 1 } else { 2 };
        let (unit_x, unit_y) = match (separate, chroma_format) {
            (false, 1) => (2, 2 * field),
            (false, 2) => (2, field),
            _ => (1, field),
        };
        let side = |units: u32, first: u32, second: u32, unit: u32| {
            let cut = first.checked_add(second)?.checked_mul(unit)?;
            units.checked_mul(16)?.checked_sub(cut).filter(|&s| s > 0)
        };
        let size = Resolution::new(
            side(width_mbs, crop[0], crop[1], unit_x)?,
            side(height_units.checked_mul(field)?, crop[2], crop[3], unit_y)?,
        );
        let colour = if bits.flag()? { bits.colour() } else { None };
        Some(Self {
            profile,
            chroma_format: u8::try_from(chroma_format).ok().filter(|&c| c <= 3)?,
            luma_bits: u8::try_from(luma_bits).ok()?,
            chroma_bits: u8::try_from(chroma_bits).ok()?,
            size,
            colour,
        })
    }
}

/// Takes the emulation prevention bytes out: `00 00 03` stands for `00 00`.
fn unescape(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut zeros = 0;
    for &byte in bytes {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        out.push(byte);
    }
    out
}

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> Option<u32> {
        let mut value = 0;
        for _ in 0..count {
            let byte = *self.bytes.get(self.at / 8)?;
            value = value << 1 | u32::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Some(value)
    }

    fn flag(&mut self) -> Option<bool> {
        Some(self.take(1)? == 1)
    }

    /// Exp-Golomb code, unsigned; codes of more than 32 bits are refused.
    fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        (1u32 << zeros).checked_sub(1)?.checked_add(self.take(zeros)?)
    }

    fn skip_scaling_list(&mut self, count: usize) -> Option<()> {
        let (mut last, mut next) = (8i64, 8i64);
        for _ in 0..count {
            if next != 0 {
                let code = i64::from(self.ue()?);
                let delta = if code % 2 == 1 { (code + 1) / 2 } else { -(code / 2) };
                next = (last + delta).rem_euclid(256);
            }
            if next != 0 {
                last = next;
            }
        }
        Some(())
    }

    /// The colour description at the head of the VUI.
    fn colour(&mut self) -> Option<Colour> {
        if self.flag()? && self.take(8)? == 255 {
            self.take(32)?;
        }
        if self.flag()? {
            self.flag()?;
        }
        if !self.flag()? {
            return None;
        }
        self.take(3)?;
        let full_range = self.flag()?;
        let described = self.flag()?;
        let mut code = || if described { self.take(8).map(|c| c as u8) } else { Some(2) };
        Some(Colour { primaries: code()?, transfer: code()?, matrix: code()?, full_range })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_high_profile_set_of_x264() {
        // 1920x1080 with cropping, BT.709 limited; taken apart with FFmpeg's trace_headers.
        let unit = [
            0x67, 0x64, 0x00, 0x28, 0xac, 0xd9, 0x40, 0x78, 0x02, 0x27, 0xe5, 0x9a, 0x80, 0x80,
            0x80, 0xa0, 0x00, 0x00, 0x03, 0x00, 0x20, 0x00, 0x00, 0x07, 0x81, 0xe3, 0x06, 0x32,
            0xc0,
        ];
        let sps = Sps::parse(&unit).unwrap();
        assert_eq!(sps.profile, 100);
        assert_eq!((sps.chroma_format, sps.luma_bits, sps.chroma_bits), (1, 8, 8));
        assert_eq!(sps.size, Resolution::new(1920, 1080));
    }

    #[test]
    fn cut_and_random_sets_are_refused_or_read_without_a_panic() {
        let unit = [0x67, 0x42, 0xc0, 0x1e, 0xd9, 0x00, 0xa0, 0x47, 0xfe, 0x88];
        for end in 0..unit.len() {
            let _ = Sps::parse(&unit[..end]);
        }
        proptest::proptest!(|(bytes: Vec<u8>)| { let _ = Sps::parse(&bytes); });
    }

    #[test]
    fn emulation_prevention_bytes_go() {
        assert_eq!(unescape(&[0, 0, 3, 1, 0, 0, 3, 0, 0, 3]), [0, 0, 1, 0, 0, 0, 0]);
    }
}
