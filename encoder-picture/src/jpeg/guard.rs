//! A copy of a JPEG in which missing blocks are an error.
//!
//! Decoders fill the blocks that a scan lacks, and report nothing. No Huffman code consists of ones
//! alone (ITU-T T.81, C.2): with enough of them behind the data of a scan, the first missing block
//! is an error. A scan that is complete does not change, since what follows its last block is not
//! read.

use super::{
    MAGIC,
    header::{self, APP0, APP15, COMMENT, DHT, DRI, EOI, Header, Marker, SOI, SOS},
};
use crate::{PictureError, broken, huffman::standard_tables};

/// How the copy of a scan ends.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Ending {
    /// Each part of a scan is followed by 48 ones: the rest of a cut code has at most 16 bits, the
    /// value behind it 15, and the code behind the value, which then does not exist, 16. A decoder
    /// that holds 64 bits still finds the restart marker behind them.
    Ones,
    /// Each part is followed by zeros, which every decoder takes for missing bits.
    Zeros,
    /// As `Ones`, but the last part of the scan of this number lacks its last 5 bytes. The last code
    /// of a scan and its value have at most 31 bits, and at most 7 bits fill the last byte: so the
    /// scan lacks at least its last code, unless there are bytes behind that code.
    Short(usize),
}

impl Ending {
    fn padding(self) -> &'static [u8] {
        match self {
            // FF is followed by 00 where it is no marker.
            Self::Ones | Self::Short(_) => &[0xff, 0, 0xff, 0, 0xff, 0, 0xff, 0, 0xff, 0, 0xff, 0],
            Self::Zeros => &[0; 6],
        }
    }
}

/// A part of a scan without its last 5 bytes. FF and the 00 behind it are one byte.
fn shortened(mut part: &[u8]) -> &[u8] {
    for _ in 0..5 {
        let stuffed = part.ends_with(&[0xff, 0]);
        part = &part[..part.len().saturating_sub(if stuffed { 2 } else { 1 })];
    }
    part
}

/// Runs in the data of a scan, which may have replaced lost data.
#[derive(Clone, Copy, Default)]
struct Runs {
    /// Of equal bytes. Runs of 63 and more are always found, shorter ones than 32 never.
    equal: bool,
    /// Of zeros. Runs of 95 and more are always found, shorter ones than 64 never.
    zeros: bool,
}

impl Runs {
    fn of(part: &[u8]) -> Self {
        let mut runs = Self::default();
        let mut was_zero = false;
        for chunk in part.as_chunks::<32>().0 {
            let is_run = chunk[0] == chunk[31] && chunk.iter().all(|&byte| byte == chunk[0]);
            let is_zero = is_run && chunk[0] == 0;
            runs.equal |= is_run;
            runs.zeros |= is_zero && was_zero;
            was_zero = is_zero;
        }
        runs
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
    /// The scans whose last part contains a run of equal bytes, without those that refine earlier
    /// scans: bits without codes never end in an error.
    pub with_runs: Vec<usize>,
    /// Every bit of every coefficient is in a scan.
    pub is_covered: bool,
}

pub(super) fn guard(data: &[u8], header: &Header, ending: Ending) -> Result<Guarded, PictureError> {
    let cut = || broken(format!("the JPEG ends after {} bytes, in a segment", data.len()));
    let mut coverage = Coverage::new(header);
    let mut zeros = MeaningOfZeros::new();
    let mut interval = 0;
    let (mut frames, mut scans) = (0, 0);
    let mut with_runs = Vec::new();
    let mut has_end = false;
    let mut out = Vec::with_capacity(data.len() + 1024);
    out.extend_from_slice(MAGIC);
    let mut at = MAGIC.len();
    while let Some(marker) = Marker::next(data, at) {
        match marker.code {
            EOI => {
                has_end = true;
                break;
            }
            SOI => return Err(header::second_start()),
            _ => {}
        }
        let segment = marker.segment(data).ok_or_else(cut)?;
        at = marker.segment + segment.len();
        match marker.code {
            APP0..=APP15 | COMMENT => continue,
            SOS if scans == 0 && !header.has_tables => out.extend_from_slice(&standard_tables()),
            DHT => zeros.add(segment),
            DRI => interval = header::interval(segment).ok_or_else(cut)?,
            code if header::is_frame(code) => frames += 1,
            _ => {}
        }
        out.extend_from_slice(&[0xff, marker.code]);
        out.extend_from_slice(segment);
        if marker.code == SOS {
            let refines = coverage.add(segment, header)?;
            let scan = copy_scan(data, at, interval > 0, (scans, ending), &mut out);
            if scan.has_zeros && !header.is_progressive && !zeros.may_be_long(segment) {
                return Err(broken("zeros replaced a part of the JPEG".into()));
            }
            if scan.has_run && !refines {
                with_runs.push(scans);
            }
            at = scan.end;
            scans += 1;
            if scans > MOST_SCANS {
                return Err(broken(format!("the JPEG has more than {MOST_SCANS} scans")));
            }
        }
    }
    if frames > 1 {
        return Err(broken("the JPEG has more than one frame header".into()));
    }
    out.extend_from_slice(&[0xff, EOI]);
    Ok(Guarded { data: out, has_end, scans, with_runs, is_covered: coverage.is_complete() })
}

/// Scans of a JPEG: each takes time, however short it is. Encoders write about ten.
const MOST_SCANS: usize = 256;

/// What was found while the data of a scan was copied.
struct Scan {
    /// Where the scan ends: at the next marker, or at the last bytes FF of the JPEG, which are the
    /// first half of a marker.
    end: usize,
    /// The last part contains a run of equal bytes.
    has_run: bool,
    /// Any part contains a run of zeros.
    has_zeros: bool,
}

/// Copies the data of the scan `number`, which starts at `at`.
fn copy_scan(
    data: &[u8],
    mut at: usize,
    has_restarts: bool,
    (number, ending): (usize, Ending),
    out: &mut Vec<u8>,
) -> Scan {
    let mut has_zeros = false;
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
        let part = &data[start..end];
        let runs = Runs::of(part);
        has_zeros |= runs.zeros;
        match next {
            Some(&code @ 0xd0..=0xd7) if has_restarts => {
                out.extend_from_slice(part);
                out.extend_from_slice(ending.padding());
                out.extend_from_slice(&[0xff, code]);
                at += 1;
            }
            _ => {
                let is_short = ending == Ending::Short(number);
                out.extend_from_slice(if is_short { shortened(part) } else { part });
                out.extend_from_slice(ending.padding());
                return Scan { end, has_run: runs.equal, has_zeros };
            }
        }
    }
}

/// What a run of zeros means in a scan that is not progressive. The Huffman code of zeros alone is
/// that of the first value of a table. If it is the end of a block, then a run of zeros is a flat
/// part of the picture. Otherwise it would be a row of blocks with the same value in each
/// coefficient, which no picture has.
struct MeaningOfZeros {
    /// The first value of each table for coefficients other than the mean.
    first: [u8; 4],
}

impl MeaningOfZeros {
    /// With the standard tables.
    const fn new() -> Self {
        Self { first: [1, 0, 0, 0] }
    }

    /// Adds the tables of a segment. What is wrong with them is an error of the decoder.
    fn add(&mut self, segment: &[u8]) {
        let mut tables = segment.get(2..).unwrap_or_default();
        while let Some((&[id, ref counts @ ..], values)) = tables.split_first_chunk::<17>() {
            let count = counts.iter().map(|&count| usize::from(count)).sum();
            let (Some(&first), Some(rest)) = (values.first(), values.get(count..)) else { return };
            if let Some(known) = self.first.get_mut(usize::from(id & 15)).filter(|_| id >> 4 == 1) {
                *known = first;
            }
            tables = rest;
        }
    }

    /// Whether a scan with this header may contain a long run of zeros.
    fn may_be_long(&self, segment: &[u8]) -> bool {
        let count = segment.get(2).map_or(0, |&count| usize::from(count));
        let tables = segment.get(3..).unwrap_or_default().iter().skip(1).step_by(2).take(count);
        tables.into_iter().all(|table| self.first.get(usize::from(table & 15)) == Some(&0))
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

    /// Adds a scan by its header. Returns whether it refines earlier scans. A scan without new bits
    /// is an error: it could be repeated without end.
    fn add(&mut self, segment: &[u8], header: &Header) -> Result<bool, PictureError> {
        let wrong = || broken("the JPEG has a broken scan header".into());
        let count = usize::from(*segment.get(2).ok_or_else(wrong)?);
        let ids = segment.get(3..3 + 2 * count).ok_or_else(wrong)?.iter().step_by(2);
        let &[first, last, bits] =
            segment.get(3 + 2 * count..).and_then(|rest| rest.first_chunk()).ok_or_else(wrong)?;
        let (range, refines, lowest) = match header.is_progressive {
            true => (usize::from(first)..=usize::from(last), bits >> 4 != 0, bits & 15),
            false => (0..=63, false, 0),
        };
        let mut is_new = false;
        for id in ids {
            let known = header.components.iter().position(|component| component.id == *id);
            let component = &mut self.lowest[known.ok_or_else(wrong)?];
            let coefficients = component.get_mut(range.clone()).ok_or_else(wrong)?;
            is_new |= coefficients.iter().any(|&before| lowest < before);
            coefficients.fill(lowest);
        }
        if is_new { Ok(refines) } else { Err(broken("the JPEG repeats a scan".into())) }
    }

    fn is_complete(&self) -> bool {
        self.lowest.iter().flatten().all(|&lowest| lowest == 0)
    }
}
