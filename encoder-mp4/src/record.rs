//! Private boxes in a fragmented file, which players skip: the timing of its frames, and the
//! recorded times of each frame. They allow making the progressive file from the fragmented file
//! alone.

use encoder_core::FrameRate;

use super::boxes::{Fields, Writer};
use encoder_media::timeline::{Clock, FrameTimes, Timing};

/// Type of the box after `ftyp`. The last byte is the version, here and below.
const HEAD: [u8; 16] = *b"encoder:file\0\0\0\x01";
/// Type of the last box in each `moof`.
const FRAGMENT: [u8; 16] = *b"encoder:frames\0\x02";

/// Whether the content of a `uuid` box has one of these types in another version.
pub(super) fn is_of_other_version(content: &[u8]) -> bool {
    /// Anything else is damage.
    const VERSIONS: std::ops::Range<u8> = 1..16;
    [HEAD, FRAGMENT].iter().any(|known| {
        let (name, version) = known.split_at(known.len() - 1);
        let found = content.strip_prefix(name).and_then(<[u8]>::first);
        found.is_some_and(|found| VERSIONS.contains(found) && *found != version[0])
    })
}

/// The timing of the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub timing: Timing,
    pub rate: FrameRate,
    pub reorder: u32,
}

/// A coded picture of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FragmentSample {
    /// Number of the frame in display order.
    pub pts: u64,
    pub bytes: u32,
    /// How many of the bytes are parameter sets, in front. Every key frame has some.
    pub sets: u32,
    pub keyframe: bool,
    pub times: FrameTimes,
    /// CRC-32 of the bytes.
    pub checksum: u32,
}

/// Bytes of a sample in the table.
const SAMPLE: usize = 33;

impl Head {
    pub fn write(&self, w: &mut Writer) {
        w.nest(b"uuid", |w| {
            w.bytes(&HEAD);
            let (kind, rate) = match self.timing {
                Timing::Recorded(Clock::Header) => (0, self.rate),
                Timing::Recorded(Clock::Log) => (1, self.rate),
                Timing::Rate(rate) => (2, rate),
                Timing::Numbered(rate) => (3, rate),
            };
            w.u8(kind);
            for rate in [rate, self.rate] {
                w.u32(rate.numerator());
                w.u32(rate.denominator());
            }
            w.u32(self.reorder);
        });
    }

    /// Reads the content of a `uuid` box; `None` for a box of another kind.
    pub fn read(mut content: &[u8]) -> Option<Self> {
        if content.array()? != HEAD {
            return None;
        }
        let kind = content.u8()?;
        let mut rate = || FrameRate::new(content.u32()?, content.u32()?).ok();
        let (constant, rate) = (rate()?, rate()?);
        let timing = match kind {
            0 => Timing::Recorded(Clock::Header),
            1 => Timing::Recorded(Clock::Log),
            2 => Timing::Rate(constant),
            3 => Timing::Numbered(constant),
            _ => return None,
        };
        Some(Self { timing, rate, reorder: content.u32()? })
    }
}

/// Writes the box of a fragment whose first frame in display order is `first`. It ends with zeros
/// as a placeholder for the checksum of the `moof`.
pub(super) fn write(w: &mut Writer, first: u64, samples: &[FragmentSample]) {
    w.nest(b"uuid", |w| {
        w.bytes(&FRAGMENT);
        w.u64(first);
        w.count(samples.len());
        for sample in samples {
            let offset = w.narrow(sample.pts - first, "a frame number");
            w.u32(offset);
            w.u32(sample.bytes);
            w.u32(sample.sets);
            w.u8(u8::from(sample.keyframe) | u8::from(sample.times.header_ns.is_some()) << 1);
            w.bytes(&sample.times.header_ns.unwrap_or_default().to_be_bytes());
            w.bytes(&sample.times.log_ns.to_be_bytes());
            w.u32(sample.checksum);
        }
        w.zeros(CHECKSUM);
    });
}

/// Bytes of the checksum: CRC-32 of the `moof` in front of it. The table has the checksums of the
/// samples.
pub(super) const CHECKSUM: usize = 4;

/// Reads the content of a fragment's `uuid` box: the number of its first frame in display order,
/// and its samples in decoding order. `None` unless the samples are that frame and the frames after
/// it, each exactly once.
pub(super) fn read(mut content: &[u8]) -> Option<(u64, Vec<FragmentSample>)> {
    if content.array()? != FRAGMENT {
        return None;
    }
    let (first, count) = (content.u64()?, content.u32()?);
    let mut table = content.front(usize::try_from(count).ok()?.checked_mul(SAMPLE)?)?;
    if content.len() != CHECKSUM || count == 0 {
        return None;
    }
    let mut seen = vec![false; count as usize];
    let mut samples = Vec::with_capacity(count as usize);
    while !table.is_empty() {
        let offset = table.u32()?;
        if std::mem::replace(seen.get_mut(offset as usize)?, true) {
            return None;
        }
        let (bytes, sets, flags) = (table.u32()?, table.u32()?, table.u8()?);
        let (header, log_ns, checksum) = (table.i64()?, table.i64()?, table.u32()?);
        let header_ns = (flags & 2 != 0).then_some(header);
        let keyframe = flags & 1 != 0;
        if sets >= bytes || (keyframe && sets == 0) {
            return None;
        }
        let pts = first.checked_add(offset.into())?;
        samples.push(FragmentSample {
            pts,
            bytes,
            sets,
            keyframe,
            times: FrameTimes { header_ns, log_ns },
            checksum,
        });
    }
    Some((first, samples))
}

/// How many of the samples, which begin with frame `first`, can be displayed if only the first
/// `whole` of them are there: those up to where no frame is missing in display order.
pub(super) fn complete(first: u64, samples: &[FragmentSample], whole: usize) -> usize {
    let (mut highest, mut complete) = (first, 0);
    for (n, sample) in (1u64..).zip(&samples[..whole]) {
        highest = highest.max(sample.pts + 1);
        if highest == first + n {
            complete = n as usize;
        }
    }
    complete
}

/// Indices of samples in display order.
pub(super) fn display_order(samples: &[FragmentSample]) -> Vec<usize> {
    let mut order: Vec<_> = (0..samples.len()).collect();
    order.sort_unstable_by_key(|&n| samples[n].pts);
    order
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn content(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut w = Writer::new();
        write(&mut w);
        let mut bytes = w.finish().unwrap();
        assert_eq!((bytes.len() as u32).to_be_bytes(), bytes[..4]);
        assert_eq!(&bytes[4..8], b"uuid");
        bytes.split_off(8)
    }

    #[test]
    fn a_head_is_read_as_it_was_written() {
        let ntsc: FrameRate = "30000/1001".parse().unwrap();
        for timing in [
            Timing::Recorded(Clock::Header),
            Timing::Recorded(Clock::Log),
            Timing::Rate(ntsc),
            Timing::Numbered(ntsc),
        ] {
            let head = Head { timing, rate: FrameRate::default(), reorder: 3 };
            let bytes = content(|w| head.write(w));
            assert_eq!(Head::read(&bytes), Some(head));
            assert!(!is_of_other_version(&bytes));
            for end in 0..bytes.len() {
                assert_eq!(Head::read(&bytes[..end]), None, "{end} bytes");
                assert!(!is_of_other_version(&bytes[..end]));
            }
        }
    }

    #[test]
    fn only_complete_tables_are_read() {
        let sample = |pts, keyframe| FragmentSample {
            pts,
            bytes: 9,
            sets: u32::from(keyframe),
            keyframe,
            times: FrameTimes { header_ns: (pts % 2 == 0).then_some(-7), log_ns: pts as i64 },
            checksum: pts as u32 ^ 0xffff_0000,
        };
        let with_sets = FragmentSample { sets: 3, ..sample(7, false) };
        let good = [sample(5, true), with_sets, sample(6, false)];
        let bytes = content(|w| write(w, 5, &good));
        assert_eq!(read(&bytes), Some((5, good.to_vec())));
        assert_eq!(display_order(&good), [0, 2, 1]);
        for end in 0..bytes.len() {
            assert_eq!(read(&bytes[..end]), None, "{end} bytes");
        }
        for bad in [
            &[][..],
            &[sample(5, true), sample(5, false)],
            &[sample(5, true), sample(7, false)],
            &[FragmentSample { sets: 9, ..sample(5, true) }],
            &[FragmentSample { sets: 0, ..sample(5, true) }],
        ] {
            assert_eq!(read(&content(|w| write(w, 5, bad))), None, "{bad:?}");
        }
    }
}
