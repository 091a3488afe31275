//! A copy of a JPEG in which missing blocks are an error.
//!
//! Decoders fill the blocks that a scan lacks, and report nothing. No Huffman code consists of ones
//! alone (ITU-T T.81, C.2): with enough of them behind the data of a scan, the first missing block
//! is an error. A scan that is complete does not change, since what follows its last block is not
//! read.

use super::{
    MAGIC,
    header::{self, APP0, APP15, COMMENT, DRI, EOI, Header, Marker, SOS},
};
use crate::{PictureError, broken, huffman::standard_tables};

/// What is put behind each part of a scan.
#[derive(Clone, Copy)]
pub(super) enum Padding {
    /// 48 ones: the rest of a cut code has at most 16 bits, the value behind it 15, and the code
    /// behind the value, which then does not exist, 16. A decoder that holds 64 bits still finds
    /// the restart marker behind them.
    Ones,
    /// Zeros, which every decoder takes for missing bits.
    Zeros,
}

impl Padding {
    fn bytes(self) -> &'static [u8] {
        match self {
            // FF is followed by 00 where it is no marker.
            Self::Ones => &[0xff, 0, 0xff, 0, 0xff, 0, 0xff, 0, 0xff, 0, 0xff, 0],
            Self::Zeros => &[0; 6],
        }
    }
}

/// A JPEG up to its end marker, with padding behind each part of its scans, and with the Huffman
/// tables that its header may lack. It has no segments of applications: the decoder needs none, and
/// some are broken in pictures that are not.
pub(super) struct Guarded {
    pub data: Vec<u8>,
    /// The end marker was there.
    pub has_end: bool,
    /// Number of scans.
    pub scans: usize,
    /// Every bit of every coefficient is in a scan.
    pub is_covered: bool,
}

pub(super) fn guard(
    data: &[u8],
    header: &Header,
    padding: Padding,
) -> Result<Guarded, PictureError> {
    let cut = || broken(format!("the JPEG ends after {} bytes, in a segment", data.len()));
    let mut coverage = Coverage::new(header);
    let mut interval = 0;
    let (mut frames, mut scans) = (0, 0);
    let mut has_end = false;
    let mut out = Vec::with_capacity(data.len() + 1024);
    out.extend_from_slice(MAGIC);
    let mut at = MAGIC.len();
    while let Some(marker) = Marker::next(data, at) {
        if marker.code == EOI {
            has_end = true;
            break;
        }
        let segment = marker.segment(data).ok_or_else(cut)?;
        at = marker.segment + segment.len();
        match marker.code {
            APP0..=APP15 | COMMENT => continue,
            SOS if scans == 0 && !header.has_tables => out.extend_from_slice(&standard_tables()),
            DRI => interval = header::interval(segment).ok_or_else(cut)?,
            code if header::is_frame(code) => frames += 1,
            _ => {}
        }
        out.extend_from_slice(&[0xff, marker.code]);
        out.extend_from_slice(segment);
        if marker.code == SOS {
            scans += 1;
            coverage.add(segment, header)?;
            at = copy_scan(data, at, interval > 0, padding, &mut out);
        }
    }
    if frames > 1 {
        return Err(broken("the JPEG has more than one frame header".into()));
    }
    out.extend_from_slice(&[0xff, EOI]);
    Ok(Guarded { data: out, has_end, scans, is_covered: coverage.is_complete() })
}

/// Copies the data of a scan, which starts at `at`. Returns where it ends: at the next marker, or
/// at the last bytes FF of the JPEG, which are the first half of a marker.
fn copy_scan(
    data: &[u8],
    mut at: usize,
    has_restarts: bool,
    padding: Padding,
    out: &mut Vec<u8>,
) -> usize {
    loop {
        let start = at;
        let (end, next) = loop {
            let Some(found) = data[at..].iter().position(|&byte| byte == 0xff) else {
                break (data.len(), None);
            };
            let marker = at + found;
            let fill = data[marker..].iter().take_while(|&&byte| byte == 0xff).count();
            at = marker + fill;
            match data.get(at) {
                // Stuffed.
                Some(0) => at += 1,
                code => break (marker, code),
            }
        };
        out.extend_from_slice(&data[start..end]);
        out.extend_from_slice(padding.bytes());
        match next {
            Some(&code @ 0xd0..=0xd7) if has_restarts => {
                out.extend_from_slice(&[0xff, code]);
                at += 1;
            }
            _ => return end,
        }
    }
}

/// Which bits of the coefficients have been in a scan.
struct Coverage {
    /// The lowest bit of each coefficient of each component; 255 before its first scan.
    lowest: Vec<[u8; 64]>,
}

impl Coverage {
    fn new(header: &Header) -> Self {
        Self { lowest: vec![[u8::MAX; 64]; header.components.len()] }
    }

    /// Adds a scan by its header.
    fn add(&mut self, segment: &[u8], header: &Header) -> Result<(), PictureError> {
        let wrong = || broken("the JPEG has a broken scan header".into());
        let count = usize::from(*segment.get(2).ok_or_else(wrong)?);
        let ids = segment.get(3..3 + 2 * count).ok_or_else(wrong)?.iter().step_by(2);
        let &[first, last, bits] =
            segment.get(3 + 2 * count..).and_then(|rest| rest.first_chunk()).ok_or_else(wrong)?;
        let (range, lowest) = match header.is_progressive {
            true => (usize::from(first)..=usize::from(last), bits & 15),
            false => (0..=63, 0),
        };
        for id in ids {
            let known = header.components.iter().position(|component| component.id == *id);
            let component = &mut self.lowest[known.ok_or_else(wrong)?];
            component.get_mut(range.clone()).ok_or_else(wrong)?.fill(lowest);
        }
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.lowest.iter().flatten().all(|&lowest| lowest == 0)
    }
}
