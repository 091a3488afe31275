use super::{
    bits::Bits,
    nal,
    pps::Pps,
    sps::{OrderCount, Sps},
};

/// A slice header up to the reference picture marking (7.3.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SliceHeader {
    pub first_macroblock: u32,
    /// A slice predicted from two lists. This alone does not imply another output order.
    pub is_b: bool,
    pub pps: u8,
    pub colour_plane: u8,
    pub frame_num: u32,
    /// The field that the slice belongs to; `None` in a frame.
    pub field: Option<Field>,
    pub is_idr: bool,
    pub idr_id: u32,
    /// `pic_order_cnt_lsb`.
    pub order_lsb: u32,
    /// `delta_pic_order_cnt_bottom`.
    pub order_bottom: i32,
    /// `delta_pic_order_cnt`.
    pub order_deltas: [i32; 2],
    /// `redundant_pic_cnt`: above 0 the slice repeats a part of the primary picture.
    pub redundant: u32,
    /// `nal_ref_idc` is not 0.
    pub is_reference: bool,
    /// Memory management control operation 5: the picture resets frame numbers and order counts,
    /// as an IDR picture does.
    pub resets: bool,
}

/// A field of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Top,
    Bottom,
}

/// The id of the picture parameter set that a slice refers to. Can be read without any parameter
/// set.
pub(crate) fn picture_parameter_set(unit: &[u8]) -> Option<u8> {
    start(&mut Bits::of(unit)).map(|(.., pps)| pps)
}

/// The number of the first macroblock of a slice. Can be read without any parameter set.
pub(super) fn first_macroblock(unit: &[u8]) -> Option<u32> {
    Bits::of(unit).ue()
}

/// `first_mb_in_slice`, `slice_type`, `pic_parameter_set_id`.
fn start(bits: &mut Bits<'_>) -> Option<(u32, u32, u8)> {
    Some((bits.ue()?, bits.ue_up_to(9)? % 5, u8::try_from(bits.ue()?).ok()?))
}

impl SliceHeader {
    /// Reads the header of a NAL unit of type 1, 2 or 5, which refers to these parameter sets.
    /// `None` if it is truncated or a value is out of range.
    pub fn parse(unit: &[u8], sps: &Sps, pps: &Pps) -> Option<Self> {
        let numbers = &sps.numbers;
        let is_idr = nal::kind(unit) == nal::IDR;
        let is_reference = unit.first()? >> 5 & 3 != 0;
        let mut bits = Bits::of(unit);
        let (first_macroblock, kind, _) = start(&mut bits)?;
        // P, B, I, SP, SI
        let (is_b, is_intra) = (kind == 1, kind == 2 || kind == 4);
        let colour_plane = if numbers.separate_planes { bits.take(2)? as u8 } else { 0 };
        let frame_num = bits.take(numbers.frame_num_bits)?;
        let field = match !numbers.frames_only && bits.flag()? {
            false => None,
            true if bits.flag()? => Some(Field::Bottom),
            true => Some(Field::Top),
        };
        let idr_id = if is_idr { bits.ue_up_to(65_535)? } else { 0 };
        let (mut order_lsb, mut order_bottom, mut order_deltas) = (0, 0, [0; 2]);
        let has_second = pps.bottom_field_order && field.is_none();
        match &numbers.order {
            OrderCount::Lsb { bits: width } => {
                order_lsb = bits.take(*width)?;
                if has_second {
                    order_bottom = bits.se()?;
                }
            }
            OrderCount::Cycle { deltas_are_zero: false, .. } => {
                order_deltas[0] = bits.se()?;
                if has_second {
                    order_deltas[1] = bits.se()?;
                }
            }
            OrderCount::Cycle { .. } | OrderCount::Decoding => {}
        }
        let redundant = if pps.redundant_pictures { bits.ue_up_to(127)? } else { 0 };
        if is_b {
            bits.flag()?; // direct prediction
        }
        let mut references = pps.references;
        if !is_intra && bits.flag()? {
            references[0] = bits.ue_up_to(31)?;
            if is_b {
                references[1] = bits.ue_up_to(31)?;
            }
        }
        let lists = if is_intra { 0 } else { 1 + usize::from(is_b) };
        for _ in 0..lists {
            skip_list_modification(&mut bits)?;
        }
        let is_weighted = if is_b { pps.weighted_bipred == 1 } else { pps.weighted && !is_intra };
        if is_weighted {
            let has_chroma = sps.chroma_format != 0 && !numbers.separate_planes;
            skip_weights(&mut bits, &references[..lists], has_chroma)?;
        }
        let resets = is_reference && marking_resets(&mut bits, is_idr)?;
        Some(Self {
            first_macroblock,
            is_b,
            pps: pps.id,
            colour_plane,
            frame_num,
            field,
            is_idr,
            idr_id,
            order_lsb,
            order_bottom,
            order_deltas,
            redundant,
            is_reference,
            resets,
        })
    }

    /// Whether two slices belong to the same primary picture (7.4.1.2.4).
    pub fn is_same_picture(&self, other: &Self) -> bool {
        self.frame_num == other.frame_num
            && self.field == other.field
            && self.is_reference == other.is_reference
            && (self.is_idr, self.idr_id) == (other.is_idr, other.idr_id)
            && self.order_lsb == other.order_lsb
            && self.order_bottom == other.order_bottom
            && self.order_deltas == other.order_deltas
    }
}

/// `ref_pic_list_modification` of one list.
fn skip_list_modification(bits: &mut Bits<'_>) -> Option<()> {
    if bits.flag()? {
        while bits.ue_up_to(3)? != 3 {
            bits.ue()?;
        }
    }
    Some(())
}

/// `pred_weight_table`. `references` has the index of the last reference of each list.
fn skip_weights(bits: &mut Bits<'_>, references: &[u32], has_chroma: bool) -> Option<()> {
    bits.ue_up_to(7)?;
    if has_chroma {
        bits.ue_up_to(7)?;
    }
    for last in references {
        for _ in 0..=*last {
            let values = [2, if has_chroma { 4 } else { 0 }];
            for count in values.into_iter().filter(|&count| count > 0) {
                if bits.flag()? {
                    for _ in 0..count {
                        bits.se()?;
                    }
                }
            }
        }
    }
    Some(())
}

/// `dec_ref_pic_marking`: whether it contains operation 5.
fn marking_resets(bits: &mut Bits<'_>, is_idr: bool) -> Option<bool> {
    if is_idr {
        bits.skip(2)?;
        return Some(false);
    }
    let mut resets = false;
    if bits.flag()? {
        loop {
            match bits.ue_up_to(6)? {
                0 => break,
                3 => {
                    bits.ue()?;
                    bits.ue()?;
                }
                5 => resets = true,
                _ => drop(bits.ue()?),
            }
        }
    }
    Some(resets)
}
