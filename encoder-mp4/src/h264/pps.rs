use super::bits::Bits;

/// The fields of a picture parameter set that slice headers depend on (7.3.2.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pps {
    /// `pic_parameter_set_id`.
    pub id: u8,
    /// `seq_parameter_set_id`.
    pub sps: u8,
    /// `bottom_field_pic_order_in_frame_present_flag`: frames have a count for their bottom field.
    pub(super) bottom_field_order: bool,
    /// `num_ref_idx_l0_default_active_minus1` and the same for list 1.
    pub(super) references: [u32; 2],
    /// `weighted_pred_flag`.
    pub(super) weighted: bool,
    /// `weighted_bipred_idc`.
    pub(super) weighted_bipred: u32,
    /// `redundant_pic_cnt_present_flag`.
    pub(super) redundant_pictures: bool,
}

impl Pps {
    /// Reads a NAL unit of type 8, header byte included. `None` if it is truncated or a value is
    /// out of range.
    pub fn parse(unit: &[u8]) -> Option<Self> {
        let mut bits = Bits::of(unit);
        let id = u8::try_from(bits.ue()?).ok()?;
        let sps = bits.ue_up_to(31)? as u8;
        bits.flag()?; // entropy coding
        let bottom_field_order = bits.flag()?;
        slice_groups(&mut bits)?;
        let references = [bits.ue_up_to(31)?, bits.ue_up_to(31)?];
        let weighted = bits.flag()?;
        let weighted_bipred = bits.take(2)?;
        bits.se()?; // quantiser
        bits.se()?;
        bits.se()?; // chroma
        bits.flag()?; // deblocking
        bits.flag()?; // constrained intra prediction
        let redundant_pictures = bits.flag()?;
        Some(Self {
            id,
            sps,
            bottom_field_order,
            references,
            weighted,
            weighted_bipred,
            redundant_pictures,
        })
    }
}

/// Skips the map of slice groups.
fn slice_groups(bits: &mut Bits<'_>) -> Option<()> {
    let last = bits.ue_up_to(7)?;
    if last == 0 {
        return Some(());
    }
    match bits.ue_up_to(6)? {
        0 => {
            for _ in 0..=last {
                bits.ue()?;
            }
        }
        2 => {
            for _ in 0..last {
                bits.ue()?;
                bits.ue()?;
            }
        }
        3..=5 => {
            bits.flag()?;
            bits.ue()?;
        }
        6 => {
            let width = u32::BITS - last.leading_zeros();
            // A map that is longer than its NAL unit ends with the NAL unit.
            for _ in 0..=bits.ue()? {
                bits.skip(width)?;
            }
        }
        _ => {}
    }
    Some(())
}
