use encoder_core::Resolution;

use super::bits::Bits;

/// The fields of a sequence parameter set that a container and slice headers depend on (ITU-T
/// H.264, 7.3.2.1.1 and E.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sps {
    /// `seq_parameter_set_id`.
    pub id: u8,
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
    /// Colour description, if the stream has one.
    pub colour: Option<Colour>,
    /// How pictures are numbered.
    pub(super) numbers: Numbers,
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

/// How the pictures of a stream are numbered, in decoding and in output order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Numbers {
    /// `separate_colour_plane_flag`.
    pub separate_planes: bool,
    /// Bits of `frame_num`.
    pub frame_num_bits: u32,
    /// `gaps_in_frame_num_value_allowed_flag`: pictures may be left out by intention.
    pub gaps_allowed: bool,
    /// `frame_mbs_only_flag`: no fields.
    pub frames_only: bool,
    pub order: OrderCount,
    /// `max_num_reorder_frames` is 0: the stream declares that its pictures are output in the order
    /// in which they are decoded.
    pub declares_no_reorder: bool,
}

/// `pic_order_cnt_type`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OrderCount {
    /// 0: each slice header has the low bits of the count.
    Lsb { bits: u32 },
    /// 1: the count is expected, by a cycle of reference pictures, and corrected in slice headers.
    Cycle {
        /// `delta_pic_order_always_zero_flag`.
        deltas_are_zero: bool,
        /// `offset_for_non_ref_pic`.
        non_reference: i32,
        /// `offset_for_top_to_bottom_field`.
        top_to_bottom: i32,
        /// `offset_for_ref_frame`.
        references: Vec<i32>,
    },
    /// 2: the output order is the decoding order.
    Decoding,
}

/// Profiles whose parameter set carries the chroma format.
pub(crate) const HIGH_PROFILES: [u8; 13] =
    [100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135];

/// Profiles that have only intra pictures with `constraint_set3_flag` (E.2.1).
const INTRA_PROFILES: [u8; 5] = [44, 100, 110, 122, 244];

/// Most bits of a sample.
const MOST_BITS: u32 = 14;

impl Sps {
    /// Reads a NAL unit of type 7, header byte included. `None` if it is truncated or a value is
    /// out of range.
    pub fn parse(unit: &[u8]) -> Option<Self> {
        let mut bits = Bits::of(unit);
        let profile = bits.take(8)? as u8;
        let is_constrained = bits.take(8)? & 0x10 != 0;
        bits.skip(8)?; // level
        let id = bits.ue_up_to(31)? as u8;
        let (mut chroma_format, mut luma_bits, mut chroma_bits, mut separate_planes) =
            (1, 8, 8, false);
        if HIGH_PROFILES.contains(&profile) {
            chroma_format = bits.ue_up_to(3)?;
            if chroma_format == 3 {
                separate_planes = bits.flag()?;
            }
            luma_bits = bits.ue_up_to(MOST_BITS - 8)? + 8;
            chroma_bits = bits.ue_up_to(MOST_BITS - 8)? + 8;
            bits.flag()?;
            if bits.flag()? {
                for list in 0..if chroma_format == 3 { 12 } else { 8 } {
                    if bits.flag()? {
                        skip_scaling_list(&mut bits, if list < 6 { 16 } else { 64 })?;
                    }
                }
            }
        }
        let frame_num_bits = bits.ue_up_to(12)? + 4;
        let order = OrderCount::read(&mut bits)?;
        bits.ue()?; // reference frames
        let gaps_allowed = bits.flag()?;
        let width_mbs = bits.ue()?.checked_add(1)?;
        let height_units = bits.ue()?.checked_add(1)?;
        let frames_only = bits.flag()?;
        if !frames_only {
            bits.flag()?;
        }
        bits.flag()?;
        let crop =
            if bits.flag()? { [bits.ue()?, bits.ue()?, bits.ue()?, bits.ue()?] } else { [0; 4] };
        let field = if frames_only { 1 } else { 2 };
        let (unit_x, unit_y) = match (separate_planes, chroma_format) {
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
        // The usability information is parsed as far as possible: pictures do not depend on it.
        let (mut colour, mut reorder) = (None, None);
        if bits.flag()? {
            usability(&mut bits, &mut colour, &mut reorder);
        }
        let is_intra = is_constrained && INTRA_PROFILES.contains(&profile);
        Some(Self {
            id,
            profile,
            chroma_format: chroma_format as u8,
            luma_bits: luma_bits as u8,
            chroma_bits: chroma_bits as u8,
            size,
            colour,
            numbers: Numbers {
                separate_planes,
                frame_num_bits,
                gaps_allowed,
                frames_only,
                order,
                declares_no_reorder: reorder.map_or(is_intra, |frames| frames == 0),
            },
        })
    }
}

impl OrderCount {
    fn read(bits: &mut Bits<'_>) -> Option<Self> {
        match bits.ue_up_to(2)? {
            0 => Some(Self::Lsb { bits: bits.ue_up_to(12)? + 4 }),
            1 => Some(Self::Cycle {
                deltas_are_zero: bits.flag()?,
                non_reference: bits.se()?,
                top_to_bottom: bits.se()?,
                references: (0..bits.ue_up_to(255)?).map(|_| bits.se()).collect::<Option<_>>()?,
            }),
            _ => Some(Self::Decoding),
        }
    }
}

fn skip_scaling_list(bits: &mut Bits<'_>, count: usize) -> Option<()> {
    let (mut last, mut next) = (8i64, 8i64);
    for _ in 0..count {
        if next != 0 {
            next = (last + i64::from(bits.se()?)).rem_euclid(256);
        }
        if next != 0 {
            last = next;
        }
    }
    Some(())
}

/// The video usability information, up to `max_num_reorder_frames`. `None` if it is truncated; the
/// fields before the truncation are stored.
fn usability(
    bits: &mut Bits<'_>,
    colour: &mut Option<Colour>,
    reorder: &mut Option<u32>,
) -> Option<()> {
    if bits.flag()? && bits.take(8)? == 255 {
        bits.skip(32)?; // aspect ratio
    }
    if bits.flag()? {
        bits.flag()?; // overscan
    }
    if bits.flag()? {
        bits.skip(3)?;
        let full_range = bits.flag()?;
        let described = bits.flag()?;
        let mut code = || if described { bits.take(8).map(|c| c as u8) } else { Some(2) };
        *colour =
            Some(Colour { primaries: code()?, transfer: code()?, matrix: code()?, full_range });
    }
    if bits.flag()? {
        bits.ue()?; // chroma sample location
        bits.ue()?;
    }
    if bits.flag()? {
        bits.skip(65)?; // timing
    }
    let nal_decoder = bits.flag()?;
    if nal_decoder {
        hypothetical_decoder(bits)?;
    }
    let vcl_decoder = bits.flag()?;
    if vcl_decoder {
        hypothetical_decoder(bits)?;
    }
    if nal_decoder || vcl_decoder {
        bits.flag()?; // low delay
    }
    bits.flag()?; // picture structure
    if bits.flag()? {
        bits.flag()?; // motion vectors over picture boundaries
        for _ in 0..4 {
            bits.ue()?;
        }
        *reorder = Some(bits.ue()?);
    }
    Some(())
}

/// Skips `hrd_parameters` (E.1.2).
fn hypothetical_decoder(bits: &mut Bits<'_>) -> Option<()> {
    let last = bits.ue_up_to(31)?;
    bits.skip(8)?;
    for _ in 0..=last {
        bits.ue()?;
        bits.ue()?;
        bits.flag()?;
    }
    bits.skip(20)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_high_profile_set_of_x264() {
        // 1920x1080 with cropping, BT.709 limited; values from FFmpeg's trace_headers.
        let unit = [
            0x67, 0x64, 0x00, 0x28, 0xac, 0xd9, 0x40, 0x78, 0x02, 0x27, 0xe5, 0x9a, 0x80, 0x80,
            0x80, 0xa0, 0x00, 0x00, 0x03, 0x00, 0x20, 0x00, 0x00, 0x07, 0x81, 0xe3, 0x06, 0x32,
            0xc0,
        ];
        let sps = Sps::parse(&unit).unwrap();
        assert_eq!(sps.profile, 100);
        assert_eq!((sps.chroma_format, sps.luma_bits, sps.chroma_bits), (1, 8, 8));
        assert_eq!(sps.size, Resolution::new(1920, 1080));
        assert_eq!((sps.id, sps.numbers.order), (0, OrderCount::Lsb { bits: 6 }));
        assert!(!sps.numbers.declares_no_reorder && sps.numbers.frames_only);
    }

    #[test]
    fn values_out_of_range_are_refused() {
        // Profile 100; then the codes of id, chroma format, depths.
        let unit = |bits: &str| {
            let mut bytes = vec![0x67, 100, 0, 30];
            let padded = format!("{bits}{}", "1".repeat(400));
            let bits: Vec<u8> = padded.bytes().map(|b| b - b'0').collect();
            bytes.extend(
                bits.chunks_exact(8).map(|b| b.iter().fold(0, |byte, bit| byte << 1 | bit)),
            );
            Sps::parse(&bytes)
        };
        assert!(unit("1" /* id 0 */).is_some());
        assert_eq!(unit("00000100001").map(|sps| sps.id), None, "id 32");
        assert_eq!(unit("00000100000").map(|sps| sps.id), Some(31), "id 31");
        assert_eq!(unit("100101" /* chroma format 4 */), None);
        assert_eq!(
            unit("1010 00111 00111".replace(' ', "").as_str()).map(|s| s.luma_bits),
            Some(14)
        );
        assert_eq!(unit("1010 0001000 1".replace(' ', "").as_str()), None, "15 bits");
    }

    #[test]
    fn cut_and_random_sets_are_refused_or_read_without_a_panic() {
        let unit = [0x67, 0x42, 0xc0, 0x1e, 0xd9, 0x00, 0xa0, 0x47, 0xfe, 0x88];
        for end in 0..unit.len() {
            let _ = Sps::parse(&unit[..end]);
        }
        proptest::proptest!(|(bytes: Vec<u8>)| { let _ = Sps::parse(&bytes); });
    }
}
