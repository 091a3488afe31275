//! What a fragmented file carries beside the boxes that players read, so that the final file can
//! be made from it alone: how its frames are to be laid out, and the recorded times of each.

use encoder_core::FrameRate;

use super::boxes::{Fields, Writer};
use encoder_media::timeline::{Clock, FrameTimes, Timing};

/// Type of the box behind `ftyp`.
const HEAD: [u8; 16] = *b"encoder:file\0\0\0\x01";
/// Type of the last box in each `moof`.
const FRAGMENT: [u8; 16] = *b"encoder:frames\0\x01";

/// How the frames are to be laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub timing: Timing,
    pub rate: FrameRate,
    pub reorder: u32,
}

/// A coded picture of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FragmentSample {
    /// Number of the frame that it shows, in display order.
    pub pts: u64,
    pub bytes: u32,
    /// How many of the bytes are parameter sets, in front.
    pub sets: u32,
    pub keyframe: bool,
    pub times: FrameTimes,
}

/// Bytes of an entry.
const ENTRY: usize = 29;

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

    /// Reads the content of a `uuid` box; `None` where it is another one.
    pub fn read(mut content: &[u8]) -> Option<Self> {
        if content.array()? != HEAD {
            return None;
        }
        let kind = content.u8()?;
        let mut rate = || FrameRate::new(content.u32()?, content.u32()?).ok();
        let (laid, rate) = (rate()?, rate()?);
        let timing = match kind {
            0 => Timing::Recorded(Clock::Header),
            1 => Timing::Recorded(Clock::Log),
            2 => Timing::Rate(laid),
            3 => Timing::Numbered(laid),
            _ => return None,
        };
        Some(Self { timing, rate, reorder: content.u32()? })
    }
}

/// Writes the box of a fragment. The checksum of the fragment is its end, and left open.
pub(super) fn write(w: &mut Writer, first: u64, entries: &[FragmentSample]) {
    w.nest(b"uuid", |w| {
        w.bytes(&FRAGMENT);
        w.u64(first);
        w.u32(entries.len() as u32);
        for entry in entries {
            w.u32((entry.pts - first) as u32);
            w.u32(entry.bytes);
            w.u32(entry.sets);
            w.u8(u8::from(entry.keyframe) | u8::from(entry.times.header_ns.is_some()) << 1);
            w.bytes(&entry.times.header_ns.unwrap_or_default().to_be_bytes());
            w.bytes(&entry.times.log_ns.to_be_bytes());
        }
        w.zeros(CHECKSUM);
    });
}

/// Bytes of the checksum: CRC-32 of the `moof` in front of it and of the whole `mdat`.
pub(super) const CHECKSUM: usize = 4;

/// Reads the content of a `uuid` box of a fragment: the number of its first frame, and its coded
/// pictures in decoding order, which show that frame and those behind it, each once. `None` where
/// it says anything else.
pub(super) fn read(mut content: &[u8]) -> Option<(u64, Vec<FragmentSample>)> {
    if content.array()? != FRAGMENT {
        return None;
    }
    let (first, count) = (content.u64()?, content.u32()?);
    let mut table = content.front(usize::try_from(count).ok()?.checked_mul(ENTRY)?)?;
    if content.len() != CHECKSUM || count == 0 {
        return None;
    }
    let mut seen = vec![false; count as usize];
    let mut entries = Vec::with_capacity(count as usize);
    while !table.is_empty() {
        let offset = table.u32()?;
        if std::mem::replace(seen.get_mut(offset as usize)?, true) {
            return None;
        }
        let (bytes, sets, flags) = (table.u32()?, table.u32()?, table.u8()?);
        let (header, log_ns) = (table.i64()?, table.i64()?);
        let header_ns = (flags & 2 != 0).then_some(header);
        let keyframe = flags & 1 != 0;
        if sets >= bytes || (sets == 0) == keyframe {
            return None;
        }
        let pts = first.checked_add(offset.into())?;
        entries.push(FragmentSample {
            pts,
            bytes,
            sets,
            keyframe,
            times: FrameTimes { header_ns, log_ns },
        });
    }
    Some((first, entries))
}

/// Indices of entries in display order.
pub(super) fn display_order(entries: &[FragmentSample]) -> Vec<usize> {
    let mut order: Vec<_> = (0..entries.len()).collect();
    order.sort_unstable_by_key(|&n| entries[n].pts);
    order
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn content(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut w = Writer::new();
        write(&mut w);
        assert_eq!((w.0.len() as u32).to_be_bytes(), w.0[..4]);
        assert_eq!(&w.0[4..8], b"uuid");
        w.0.split_off(8)
    }

    #[test]
    fn heads_come_back() {
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
            for end in 0..bytes.len() {
                assert_eq!(Head::read(&bytes[..end]), None, "{end} bytes");
            }
        }
    }

    #[test]
    fn only_whole_groups_are_read() {
        let entry = |pts, keyframe| FragmentSample {
            pts,
            bytes: 9,
            sets: u32::from(keyframe),
            keyframe,
            times: FrameTimes { header_ns: (pts % 2 == 0).then_some(-7), log_ns: pts as i64 },
        };
        let good = [entry(5, true), entry(7, false), entry(6, false)];
        let bytes = content(|w| write(w, 5, &good));
        assert_eq!(read(&bytes), Some((5, good.to_vec())));
        assert_eq!(display_order(&good), [0, 2, 1]);
        for end in 0..bytes.len() {
            assert_eq!(read(&bytes[..end]), None, "{end} bytes");
        }
        for bad in [
            &[][..],
            &[entry(5, true), entry(5, false)],
            &[entry(5, true), entry(7, false)],
            &[FragmentSample { sets: 9, ..entry(5, true) }],
            &[FragmentSample { sets: 0, ..entry(5, true) }],
            &[FragmentSample { sets: 1, ..entry(5, false) }],
        ] {
            assert_eq!(read(&content(|w| write(w, 5, bad))), None, "{bad:?}");
        }
    }
}
