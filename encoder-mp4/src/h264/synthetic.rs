//! Parameter sets and slices of streams that no available encoder writes.

use super::nal;

/// Writes a NAL unit bit by bit.
pub(crate) struct Unit {
    header: u8,
    bits: Vec<bool>,
}

impl Unit {
    pub fn new(header: u8) -> Self {
        Self { header, bits: Vec::new() }
    }

    pub fn u(mut self, count: u32, value: u32) -> Self {
        self.bits.extend((0..count).rev().map(|bit| value >> bit & 1 == 1));
        self
    }

    pub fn flag(self, value: bool) -> Self {
        self.u(1, value.into())
    }

    pub fn ue(self, value: u32) -> Self {
        let length = (value + 1).ilog2();
        self.u(length, 0).u(length + 1, value + 1)
    }

    pub fn se(self, value: i32) -> Self {
        let code = if value > 0 { 2 * value - 1 } else { -2 * value };
        self.ue(code as u32)
    }

    /// The bytes, with emulation prevention.
    pub fn bytes(self) -> Vec<u8> {
        let mut unit = self.flag(true);
        unit.bits.resize(unit.bits.len().next_multiple_of(8), false);
        let bytes = unit.bits.chunks(8);
        let mut out = vec![unit.header];
        for bits in bytes {
            let byte = bits.iter().fold(0, |byte, &bit| byte << 1 | u8::from(bit));
            if out.ends_with(&[0, 0]) && byte <= 3 {
                out.push(3);
            }
            out.push(byte);
        }
        out
    }
}

/// How pictures are numbered.
#[derive(Clone)]
pub(crate) enum Order {
    Lsb(u32),
    Cycle { non_reference: i32, top_to_bottom: i32, references: Vec<i32> },
    Decoding,
}

/// A stream: its sequence parameter set, and the slices that refer to it.
#[derive(Clone)]
pub(crate) struct Stream {
    pub id: u32,
    /// Width and height in macroblocks.
    pub size: (u32, u32),
    pub order: Order,
    pub frames_only: bool,
    pub gaps_allowed: bool,
    /// `max_num_reorder_frames`.
    pub reorder: Option<u32>,
}

/// Bits of `frame_num`.
pub(crate) const FRAME_NUM_BITS: u32 = 4;

impl Default for Stream {
    fn default() -> Self {
        Self {
            id: 0,
            size: (10, 8),
            order: Order::Lsb(6),
            frames_only: true,
            gaps_allowed: false,
            reorder: None,
        }
    }
}

/// A slice of a stream.
#[derive(Clone, Debug)]
pub(crate) struct Slice {
    pub first: u32,
    /// 0 is P, 1 B, 2 I.
    pub kind: u32,
    pub pps: u32,
    pub is_idr: bool,
    pub idr_id: u32,
    pub is_reference: bool,
    pub frame_num: u32,
    pub field: Option<bool>,
    pub lsb: u32,
    pub deltas: [i32; 2],
    pub resets: bool,
}

impl Slice {
    /// An IDR picture.
    pub fn idr() -> Self {
        Self { kind: 2, is_idr: true, ..Self::p(0, 0) }
    }

    pub fn p(frame_num: u32, lsb: u32) -> Self {
        Self {
            first: 0,
            kind: 0,
            pps: 0,
            is_idr: false,
            idr_id: 0,
            is_reference: true,
            frame_num,
            field: None,
            lsb,
            deltas: [0; 2],
            resets: false,
        }
    }

    /// A B picture that no other picture refers to.
    pub fn b(frame_num: u32, lsb: u32) -> Self {
        Self { kind: 1, is_reference: false, ..Self::p(frame_num, lsb) }
    }
}

impl Stream {
    /// A Main profile sequence parameter set.
    pub fn sps(&self) -> Vec<u8> {
        let mut unit = Unit::new(0x67).u(8, 77).u(8, 0).u(8, 30).ue(self.id).ue(FRAME_NUM_BITS - 4);
        unit = match &self.order {
            Order::Lsb(bits) => unit.ue(0).ue(bits - 4),
            Order::Cycle { non_reference, top_to_bottom, references } => {
                let unit = unit.ue(1).flag(false).se(*non_reference).se(*top_to_bottom);
                let unit = unit.ue(references.len() as u32);
                references.iter().fold(unit, |unit, offset| unit.se(*offset))
            }
            Order::Decoding => unit.ue(2),
        };
        let (width, height) = self.size;
        let height = if self.frames_only { height } else { height / 2 };
        unit = unit.ue(4).flag(self.gaps_allowed).ue(width - 1).ue(height - 1);
        unit = unit.flag(self.frames_only);
        unit = if self.frames_only { unit } else { unit.flag(false) };
        unit = unit.flag(true).flag(false).flag(self.reorder.is_some());
        if let Some(frames) = self.reorder {
            // Only the bitstream restrictions.
            unit = unit.u(8, 0).flag(true).flag(true).ue(2).ue(1).ue(16).ue(16).ue(frames).ue(16);
        }
        unit.bytes()
    }

    /// A picture parameter set with this id.
    pub fn pps(&self, id: u32) -> Vec<u8> {
        self.pps_with(id, 26)
    }

    /// A picture parameter set with this id and quantiser.
    pub fn pps_with(&self, id: u32, quantiser: i32) -> Vec<u8> {
        let unit = Unit::new(0x68).ue(id).ue(self.id).flag(true).flag(true).ue(0).ue(0).ue(0);
        let unit = unit.flag(false).u(2, 0).se(quantiser - 26).se(0).se(0);
        unit.flag(true).flag(false).flag(false).bytes()
    }

    /// A slice, with bytes after its header.
    pub fn slice(&self, slice: &Slice) -> Vec<u8> {
        let kind = if slice.is_idr { nal::IDR } else { nal::SLICE };
        let unit = Unit::new(kind | if slice.is_reference { 0x60 } else { 0 });
        let mut unit = unit.ue(slice.first).ue(slice.kind).ue(slice.pps);
        unit = unit.u(FRAME_NUM_BITS, slice.frame_num);
        if !self.frames_only {
            unit = unit.flag(slice.field.is_some());
            if let Some(is_bottom) = slice.field {
                unit = unit.flag(is_bottom);
            }
        }
        if slice.is_idr {
            unit = unit.ue(slice.idr_id);
        }
        let is_frame = slice.field.is_none();
        unit = match self.order {
            Order::Lsb(bits) if is_frame => unit.u(bits, slice.lsb).se(slice.deltas[1]),
            Order::Lsb(bits) => unit.u(bits, slice.lsb),
            Order::Cycle { .. } if is_frame => unit.se(slice.deltas[0]).se(slice.deltas[1]),
            Order::Cycle { .. } => unit.se(slice.deltas[0]),
            Order::Decoding => unit,
        };
        if slice.kind == 1 {
            unit = unit.flag(true);
        }
        if slice.kind != 2 {
            unit = unit.flag(false).flag(false);
        }
        if slice.kind == 1 {
            unit = unit.flag(false);
        }
        if slice.is_reference {
            unit = match (slice.is_idr, slice.resets) {
                (true, _) => unit.u(2, 0),
                (false, true) => unit.flag(true).ue(5).ue(0),
                (false, false) => unit.flag(false),
            };
        }
        unit.u(24, 0xa5_5a5a).bytes()
    }

    /// An access unit of these slices; an IDR picture with the parameter sets in front.
    pub fn unit(&self, slices: &[Slice]) -> Vec<u8> {
        let mut units = Vec::new();
        if slices.iter().any(|slice| slice.is_idr) {
            units.extend([self.sps(), self.pps(slices[0].pps)]);
        }
        units.extend(slices.iter().map(|slice| self.slice(slice)));
        annex_b(&units)
    }
}

/// NAL units behind start codes.
pub(crate) fn annex_b(units: &[Vec<u8>]) -> Vec<u8> {
    units.iter().flat_map(|unit| [&[0, 0, 0, 1], &unit[..]].concat()).collect()
}
