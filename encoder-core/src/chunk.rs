/// One access unit: a coded picture with everything that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedChunk {
    /// The access unit as an Annex B byte stream. Every NAL unit starts with the four bytes
    /// `00 00 00 01`; a key frame carries its parameter sets in front.
    pub data: Vec<u8>,
    /// Presentation order: the index of the frame that this picture shows.
    pub pts: u64,
    /// Decoding order: counts the chunks from 0; with B-frames it differs from `pts`.
    pub dts: u64,
    /// An IDR picture: decoding can start here.
    pub keyframe: bool,
}

/// The kinds of H.264 NAL units that a muxer distinguishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NalKind {
    /// Slice of an IDR picture (type 5).
    Idr,
    /// Slice of another picture (types 1 to 4).
    Slice,
    /// Sequence parameter set (7).
    Sps,
    /// Picture parameter set (8).
    Pps,
    /// Access unit delimiter (9).
    Aud,
    /// Anything else: SEI, filler …
    Other,
}

impl NalKind {
    /// The kind of a NAL unit that starts with `header`.
    pub const fn of(header: u8) -> Self {
        match header & 0x1f {
            1..=4 => Self::Slice,
            5 => Self::Idr,
            7 => Self::Sps,
            8 => Self::Pps,
            9 => Self::Aud,
            _ => Self::Other,
        }
    }
}

/// The NAL units of an Annex B byte stream, without start codes (of three or four bytes) and
/// without trailing zero bytes. Bytes before the first start code are passed over.
pub fn nal_units(stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = after_start_code(stream, 0).map(|(_, start)| &stream[start..]);
    std::iter::from_fn(move || {
        let current = rest?;
        let (unit, next) = match after_start_code(current, 0) {
            Some((end, start)) => (&current[..end], Some(&current[start..])),
            None => (current, None),
        };
        rest = next;
        let len = unit.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
        Some(&unit[..len])
    })
    .filter(|unit| !unit.is_empty())
}

/// Position of the next start code `00 00 01` at or after `from`, and of the byte behind it.
fn after_start_code(bytes: &[u8], from: usize) -> Option<(usize, usize)> {
    let mut at = from;
    // The third byte decides how far the window may move: a start code contains only 0 and 1.
    while at + 3 <= bytes.len() {
        match bytes[at + 2] {
            0 => at += 1,
            1 if bytes[at] == 0 && bytes[at + 1] == 0 => return Some((at, at + 3)),
            _ => at += 3,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nal_units_of_a_table_of_streams() {
        let table: &[(&[u8], &[&[u8]])] = &[
            (&[], &[]),
            (&[1, 2, 3], &[]),
            (&[0, 0, 1], &[]),
            (&[0, 0, 0, 1, 0x67, 9], &[&[0x67, 9]]),
            (&[0, 0, 1, 0x67, 9, 0, 0, 0, 1, 0x68, 0, 0, 1, 0x65], &[&[0x67, 9], &[0x68], &[0x65]]),
            (&[7, 0, 0, 1, 0x41, 0, 0, 3, 1, 0, 0], &[&[0x41, 0, 0, 3, 1]]),
            (&[0, 0, 1, 0, 0, 1, 0x41], &[&[0x41]]),
            (&[0, 0, 1, 1, 1, 0, 0, 1, 5], &[&[1, 1], &[5]]),
        ];
        for (stream, units) in table {
            assert_eq!(nal_units(stream).collect::<Vec<_>>(), *units, "{stream:?}");
        }
    }

    #[test]
    fn kinds() {
        for (header, kind) in [
            (0x65, NalKind::Idr),
            (0x41, NalKind::Slice),
            (0x67, NalKind::Sps),
            (0x68, NalKind::Pps),
            (0x09, NalKind::Aud),
            (0x06, NalKind::Other),
        ] {
            assert_eq!(NalKind::of(header), kind);
        }
    }
}
