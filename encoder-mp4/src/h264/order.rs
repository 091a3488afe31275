use super::{
    slice::{Field, SliceHeader},
    sps::{Numbers, OrderCount},
};

/// Picture order counts (8.2.1): pictures between two resets are output in the order of their
/// counts.
#[derive(Clone, Debug, Default)]
pub(super) struct PictureOrder {
    /// Type 0: of the previous reference picture.
    msb: i64,
    lsb: i64,
    /// Types 1 and 2: of the previous picture.
    frame_num: i64,
    frame_num_offset: i64,
}

impl PictureOrder {
    /// The count of the next picture in decoding order: that of its first field in output order.
    pub fn next(&mut self, numbers: &Numbers, slice: &SliceHeader) -> i64 {
        let [top, bottom] = match &numbers.order {
            OrderCount::Lsb { bits } => self.by_lsb(1 << bits, slice),
            OrderCount::Cycle { non_reference, top_to_bottom, references, .. } => {
                let number = self.absolute_frame_num(numbers, slice);
                let expected = expected_count(number, slice, references, *non_reference);
                let [first, second] = slice.order_deltas.map(i64::from);
                let top = expected.saturating_add(first);
                let to_bottom = i64::from(*top_to_bottom);
                match slice.field {
                    None => [top, top.saturating_add(to_bottom + second)],
                    Some(_) => [top, top.saturating_add(to_bottom)],
                }
            }
            OrderCount::Decoding => {
                let number = self.absolute_frame_num(numbers, slice);
                [number.saturating_mul(2) - i64::from(!slice.is_reference); 2]
            }
        };
        if slice.resets {
            let is_bottom = slice.field == Some(Field::Bottom);
            let lsb = if is_bottom || slice.field.is_some() { 0 } else { top - top.min(bottom) };
            *self = Self { lsb, ..Self::default() };
            return 0;
        }
        match slice.field {
            None => top.min(bottom),
            Some(Field::Top) => top,
            Some(Field::Bottom) => bottom,
        }
    }

    /// Type 0 (8.2.1.1).
    fn by_lsb(&mut self, most: i64, slice: &SliceHeader) -> [i64; 2] {
        if slice.is_idr {
            (self.msb, self.lsb) = (0, 0);
        }
        let lsb = i64::from(slice.order_lsb);
        let msb = match lsb - self.lsb {
            change if change <= -most / 2 => self.msb.saturating_add(most),
            change if change > most / 2 => self.msb.saturating_sub(most),
            _ => self.msb,
        };
        if slice.is_reference {
            (self.msb, self.lsb) = (msb, lsb);
        }
        let count = msb.saturating_add(lsb);
        [count, count.saturating_add(slice.order_bottom.into())]
    }

    /// `FrameNumOffset + frame_num` of types 1 and 2 (8.2.1.2, 8.2.1.3).
    fn absolute_frame_num(&mut self, numbers: &Numbers, slice: &SliceHeader) -> i64 {
        let frame_num = i64::from(slice.frame_num);
        let most = 1i64 << numbers.frame_num_bits;
        // FFmpeg counts up over the pictures of a gap, without their offset.
        let is_gap = frame_num != self.frame_num && frame_num != (self.frame_num + 1) % most;
        let before = if is_gap { (frame_num + most - 1) % most } else { self.frame_num };
        if slice.is_idr {
            self.frame_num_offset = 0;
        } else if before > frame_num {
            self.frame_num_offset = self.frame_num_offset.saturating_add(most);
        }
        self.frame_num = frame_num;
        self.frame_num_offset.saturating_add(frame_num)
    }
}

/// `expectedPicOrderCnt` of type 1.
fn expected_count(
    frame_num: i64,
    slice: &SliceHeader,
    references: &[i32],
    non_reference: i32,
) -> i64 {
    let number = match references.len() {
        0 => 0,
        _ if !slice.is_reference => frame_num.saturating_sub(1).max(0),
        _ => frame_num,
    };
    let mut expected = 0i64;
    if number > 0 {
        let (length, before) = (references.len() as i64, number - 1);
        let sum = |offsets: &[i32]| offsets.iter().copied().map(i64::from).sum::<i64>();
        let in_cycle = (before % length) as usize;
        expected = (before / length).saturating_mul(sum(references));
        expected = expected.saturating_add(sum(&references[..=in_cycle]));
    }
    if !slice.is_reference {
        expected = expected.saturating_add(non_reference.into());
    }
    expected
}
