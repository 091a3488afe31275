//! The codec: H.264 whose macroblocks hold the samples themselves (I_PCM).

use encoder_core::{Plane, Resolution};

/// Levels, and the most macroblocks of a picture that each allows.
const LEVELS: [(u32, u64); 3] = [(40, 8_192), (52, 36_864), (62, 139_264)];

pub struct Ipcm {
    size: Resolution,
    level: u32,
    /// Macroblocks in a row and in a column.
    across: u32,
    down: u32,
    /// Pictures since the last IDR picture.
    frame_num: u32,
    /// IDR pictures so far.
    idr_pictures: u32,
}

impl Ipcm {
    /// `None` if the size is beyond the largest level.
    pub fn new(size: Resolution) -> Option<Self> {
        let (across, down) = (size.width.div_ceil(16), size.height.div_ceil(16));
        // A level also bounds the longer side: √(8 × most) macroblocks.
        let (area, long) = (u64::from(across) * u64::from(down), u64::from(across.max(down)));
        let fits = |most: u64| area <= most && long * long <= 8 * most;
        let (level, _) = LEVELS.into_iter().find(|(_, most)| fits(*most))?;
        Some(Self { size, level, across, down, frame_num: 0, idr_pictures: 0 })
    }

    pub fn size(&self) -> Resolution {
        self.size
    }

    /// One access unit in Annex B form; an IDR picture has its parameter sets in front.
    pub fn encode(&mut self, planes: &[Plane<'_>], is_idr: bool) -> Vec<u8> {
        let mut out = Vec::new();
        if is_idr {
            self.frame_num = 0;
            self.idr_pictures += 1;
            append_unit(&mut out, 0x67, &self.sequence_parameters());
            append_unit(&mut out, 0x68, &picture_parameters());
        }
        append_unit(&mut out, if is_idr { 0x65 } else { 0x61 }, &self.slice(planes, is_idr));
        self.frame_num = (self.frame_num + 1) % 16;
        out
    }

    fn sequence_parameters(&self) -> Vec<u8> {
        let mut bits = Bits::default();
        bits.put(8, 66); // Constrained Baseline …
        bits.put(8, 0xc0);
        bits.put(8, self.level); // … at a level in tenths.
        bits.golomb(0); // seq_parameter_set_id
        bits.golomb(0); // frame_num has 4 bits
        bits.golomb(2); // pic_order_cnt_type: pictures are shown in decoding order
        bits.golomb(1); // max_num_ref_frames
        bits.put(1, 0); // gaps_in_frame_num_value_allowed_flag
        bits.golomb(self.across - 1);
        bits.golomb(self.down - 1);
        bits.put(1, 1); // frame_mbs_only_flag
        bits.put(1, 1); // direct_8x8_inference_flag
        bits.put(1, 1); // frame_cropping_flag: left, right, top, bottom, in units of two pixels
        bits.golomb(0);
        bits.golomb((self.across * 16 - self.size.width) / 2);
        bits.golomb(0);
        bits.golomb((self.down * 16 - self.size.height) / 2);
        bits.put(1, 1); // vui_parameters_present_flag
        bits.put(2, 0); // neither aspect ratio nor overscan
        bits.put(1, 1); // video_signal_type_present_flag
        bits.put(3, 5); // video_format: unspecified
        bits.put(1, 0); // limited range
        bits.put(1, 1); // colour_description_present_flag
        bits.put(8, 1); // primaries: BT.709
        bits.put(8, 13); // transfer: sRGB
        bits.put(8, 6); // matrix: BT.601
        bits.put(5, 0); // no chroma location, timing, HRD (two kinds) and pic_struct
        bits.put(1, 1); // bitstream_restriction_flag
        bits.put(1, 1); // motion_vectors_over_pic_boundaries_flag
        bits.golomb(0); // max_bytes_per_pic_denom: no limit
        bits.golomb(0); // max_bits_per_mb_denom: no limit
        bits.golomb(16); // log2_max_mv_length_horizontal
        bits.golomb(16); // log2_max_mv_length_vertical
        bits.golomb(0); // max_num_reorder_frames: a player need not wait
        bits.golomb(1); // max_dec_frame_buffering
        bits.end()
    }

    fn slice(&self, planes: &[Plane<'_>], is_idr: bool) -> Vec<u8> {
        let mut bits = Bits::default();
        bits.golomb(0); // first_mb_in_slice
        bits.golomb(7); // slice_type: I, in the whole picture
        bits.golomb(0); // pic_parameter_set_id
        bits.put(4, self.frame_num);
        if is_idr {
            bits.golomb(self.idr_pictures % 2); // idr_pic_id: not that of the one before
            bits.put(2, 0); // no_output_of_prior_pics_flag, long_term_reference_flag
        } else {
            bits.put(1, 0); // adaptive_ref_pic_marking_mode_flag
        }
        bits.golomb(0); // slice_qp_delta
        for (row, column) in (0..self.down).flat_map(|y| (0..self.across).map(move |x| (y, x))) {
            bits.golomb(25); // mb_type: I_PCM
            bits.align();
            for (plane, side) in planes.iter().zip([16, 8, 8]) {
                append_block(&mut bits.bytes, plane, (row as usize, column as usize), side);
            }
        }
        bits.end()
    }
}

fn picture_parameters() -> Vec<u8> {
    let mut bits = Bits::default();
    bits.golomb(0); // pic_parameter_set_id
    bits.golomb(0); // seq_parameter_set_id
    bits.put(2, 0); // CAVLC, no bottom_field_pic_order_in_frame_present_flag
    bits.golomb(0); // one slice group
    bits.golomb(0); // num_ref_idx_l0_default_active_minus1
    bits.golomb(0); // num_ref_idx_l1_default_active_minus1
    bits.put(3, 0); // no weighted prediction
    bits.golomb(0); // pic_init_qp: 26
    bits.golomb(0); // pic_init_qs: 26
    bits.golomb(0); // chroma_qp_index_offset
    bits.put(3, 0); // no deblocking control, no constrained_intra_pred, no redundant_pic_cnt
    bits.end()
}

/// The samples of one macroblock in one plane. Beyond the picture's edge, the edge is repeated.
fn append_block(out: &mut Vec<u8>, plane: &Plane<'_>, at: (usize, usize), side: usize) {
    for y in at.0 * side..(at.0 + 1) * side {
        let start = y.min(plane.rows - 1) * plane.stride;
        let row = &plane.data[start..start + plane.row_bytes];
        let inside = &row[(at.1 * side).min(row.len())..((at.1 + 1) * side).min(row.len())];
        out.extend_from_slice(inside);
        let edge = row.last().copied().unwrap_or_default();
        out.extend(std::iter::repeat_n(edge, side - inside.len()));
    }
}

/// Appends a NAL unit: start code, header, and a payload in which no start code occurs.
fn append_unit(out: &mut Vec<u8>, header: u8, payload: &[u8]) {
    out.reserve(payload.len() + payload.len() / 64 + 8);
    out.extend([0, 0, 0, 1, header]);
    let mut zeros = 0;
    for &byte in payload {
        if zeros == 2 && byte <= 3 {
            out.push(3);
            zeros = 0;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        out.push(byte);
    }
}

/// Writes bits, the highest first.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    /// Bits that are used in the last byte, 0 if it is full.
    used: u32,
}

impl Bits {
    fn put(&mut self, count: u32, value: u32) {
        for bit in (0..count).rev().map(|n| (value >> n & 1) as u8) {
            match self.bytes.last_mut() {
                Some(last) if self.used > 0 => *last |= bit << (7 - self.used),
                _ => self.bytes.push(bit << 7),
            }
            self.used = (self.used + 1) % 8;
        }
    }

    /// An unsigned Exp-Golomb code. (A signed 0 is the same as an unsigned one.)
    fn golomb(&mut self, value: u32) {
        let length = (value + 1).ilog2();
        self.put(length, 0);
        self.put(length + 1, value + 1);
    }

    /// Zeros up to the next byte.
    fn align(&mut self) {
        self.used = 0;
    }

    /// The end of a payload: a one, and zeros up to the next byte.
    fn end(mut self) -> Vec<u8> {
        self.put(1, 1);
        self.bytes
    }
}
