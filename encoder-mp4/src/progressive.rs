//! Writes a progressive file, with its index at the front, from a fragmented file.

use std::{
    collections::HashMap,
    io::{self, Read, Seek, Write},
};

use super::{
    avc::Description,
    boxes::Writer,
    fragment_reader::FragmentReader,
    track::{Movie, file_type},
};
use encoder_media::timeline::Timeline;

/// The index of a file.
#[derive(Default)]
struct Index {
    /// In decoding order.
    samples: Vec<Sample>,
    /// Display times of the frames, in ticks and display order.
    ticks: Vec<u64>,
    descriptions: Vec<Description>,
    /// Parameter sets change between key frames.
    has_late_sets: bool,
}

struct Sample {
    /// Offset in the fragmented file.
    at: u64,
    bytes: u32,
    /// How many of the bytes are parameter sets, in front.
    sets: u32,
    /// Number of the frame in display order.
    pts: u32,
    keyframe: bool,
    /// Number of the sample description, from 1 on.
    description: u16,
}

/// Decoding times of the samples.
struct Decoding {
    /// The delay of the decoding times, in ticks.
    lag: u64,
    /// The decoding time of each sample, and the end of the last sample.
    ticks: Vec<u64>,
}

/// Contiguous samples: a key frame and the samples that follow it.
struct Chunk {
    at: u64,
    samples: u32,
    description: u16,
}

/// Writes the fragments of `fragments` before its current position as a file with the index at the
/// front, at exactly the times of `timeline`. Returns the number of frames.
///
/// If the parameter sets never change, only the sample description holds them. If they change, each
/// version has a description, and the samples carry their own: Chromium reads only the first
/// description.
///
/// # Errors
/// When reading or writing fails, or a value does not fit its field.
pub(super) fn write<R: Read + Seek>(
    fragments: &mut FragmentReader<R>,
    timeline: &Timeline,
    to: &mut impl Write,
) -> io::Result<u64> {
    let index = Index::read(fragments, timeline)?;
    let bytes: u64 = index.samples.iter().map(|sample| u64::from(index.bytes(sample))).sum();
    let (mdat, mdat_head) = match u32::try_from(bytes + 8) {
        Ok(size) => ([&size.to_be_bytes()[..], b"mdat"].concat(), 8),
        Err(_) => {
            let size = (bytes + 16).to_be_bytes();
            ([&1u32.to_be_bytes()[..], b"mdat", &size].concat(), 16)
        }
    };
    let offsets = Offsets::Narrow;
    let mut header = index.header(timeline, offsets)?;
    let end = |header: &[u8]| header.len() as u64 + mdat_head + bytes;
    let offsets = Offsets::up_to(end(&header));
    if offsets == Offsets::Wide {
        header = index.header(timeline, offsets)?;
    }
    let base = header.len() as u64 + mdat_head;
    index.fill_offsets(&mut header, base, offsets)?;
    to.write_all(&header)?;
    to.write_all(&mdat)?;
    index.copy(fragments, to)?;
    Ok(index.samples.len() as u64)
}

/// Width of the chunk offsets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Offsets {
    /// 32 bits.
    Narrow,
    /// 64 bits.
    Wide,
}

impl Offsets {
    /// The width that offsets up to `end` need.
    fn up_to(end: u64) -> Self {
        if u32::try_from(end).is_ok() { Self::Narrow } else { Self::Wide }
    }

    fn bytes(self) -> usize {
        match self {
            Self::Narrow => 4,
            Self::Wide => 8,
        }
    }
}

impl Index {
    fn read<R: Read + Seek>(
        fragments: &mut FragmentReader<R>,
        timeline: &Timeline,
    ) -> io::Result<Self> {
        let mut index = Self::default();
        let mut ticks = timeline.ticks();
        // Number of the description with each version of the parameter sets.
        let mut numbers = HashMap::new();
        let mut number = 0;
        while let Some(fragment) = fragments.next(false)? {
            for n in super::record::display_order(&fragment.samples) {
                index.ticks.push(ticks.next(&fragment.samples[n].times));
            }
            let mut at = fragment.data_at;
            for sample in &fragment.samples {
                if sample.keyframe {
                    let sets = fragments.sets(at, sample)?;
                    number = match numbers.get(&sets) {
                        Some(&number) => number,
                        None => {
                            let number = index.describe(&sets, sample.pts)?;
                            numbers.insert(sets, number);
                            number
                        }
                    };
                }
                index.has_late_sets |= !sample.keyframe && sample.sets > 0;
                index.samples.push(Sample {
                    at,
                    bytes: sample.bytes,
                    sets: sample.sets,
                    pts: u32::try_from(sample.pts).map_err(io::Error::other)?,
                    keyframe: sample.keyframe,
                    description: number,
                });
                at += u64::from(sample.bytes);
            }
        }
        match index.descriptions.is_empty() {
            false => Ok(index),
            true => Err(io::Error::other("there are no parameter sets")),
        }
    }

    /// Adds a description and returns its number.
    fn describe(&mut self, sets: &[u8], pts: u64) -> io::Result<u16> {
        let description = Description::read(sets).ok_or_else(|| {
            let text = format!("the parameter sets of frame {pts} are broken");
            io::Error::new(io::ErrorKind::InvalidData, text)
        })?;
        // Samples carry their parameter sets if there is more than one description, so samples
        // without a numbered description can use any number.
        let Ok(number) = u16::try_from(self.descriptions.len() + 1) else { return Ok(u16::MAX) };
        self.descriptions.push(description);
        Ok(number)
    }

    /// Whether samples carry parameter sets.
    fn in_band(&self) -> bool {
        self.descriptions.len() > 1 || self.has_late_sets || !self.descriptions[0].fits()
    }

    /// Size of a sample in the file that is written, in bytes.
    fn bytes(&self, sample: &Sample) -> u32 {
        if self.in_band() { sample.bytes } else { sample.bytes - sample.sets }
    }

    fn copy<R: Read + Seek>(
        &self,
        fragments: &mut FragmentReader<R>,
        to: &mut impl Write,
    ) -> io::Result<()> {
        let mut run: Option<(u64, u64)> = None;
        for sample in &self.samples {
            let bytes = u64::from(self.bytes(sample));
            let end = sample.at + u64::from(sample.bytes);
            let at = end - bytes;
            run = match run {
                Some((from, until)) if until == at => Some((from, end)),
                Some((from, until)) => {
                    fragments.copy(from, until - from, to)?;
                    Some((at, end))
                }
                None => Some((at, end)),
            };
        }
        run.map_or(Ok(()), |(from, until)| fragments.copy(from, until - from, to))
    }

    fn header(&self, timeline: &Timeline, offsets: Offsets) -> io::Result<Vec<u8>> {
        let mut w = Writer::new();
        let decoding = self.decoding(timeline.duration());
        file_type(&mut w, b"isomiso2avc1mp41");
        let movie = Movie {
            timescale: timeline.timescale(),
            duration: timeline.duration(),
            size: self.descriptions[0].size(),
            start: decoding.lag,
        };
        movie.write(&mut w, |w| self.sample_table(w, &decoding, offsets), |_| {});
        w.finish().map_err(io::Error::other)
    }

    /// Decoding times are delayed by the number of frames that a picture may be decoded ahead of
    /// its display, so that no picture is displayed before it is decoded. `duration` is the
    /// duration of all frames in ticks.
    ///
    /// Negative offsets would need no edit list, but FFmpeg determines the largest offset from all
    /// entries of `ctts` except the last two, and warns if one of these is larger.
    fn decoding(&self, duration: u64) -> Decoding {
        let ahead = |(n, sample): (usize, &Sample)| n.saturating_sub(sample.pts as usize);
        let frames = self.samples.iter().enumerate().map(ahead).max().unwrap_or(0) as u64;
        let usual = duration.saturating_sub(self.ticks.last().copied().unwrap_or(0)).max(1);
        let lag = frames.saturating_mul(usual);
        let begin = (0..frames).map(|n| n.saturating_mul(usual));
        let displayed = self.ticks.iter().copied().chain([duration]);
        let displayed = displayed.map(|tick| tick.saturating_add(lag));
        Decoding { lag, ticks: begin.chain(displayed).take(self.samples.len() + 1).collect() }
    }

    /// Writes the content of `stbl`. Its last box holds the chunk offsets, which are known once the
    /// size of the header is known: `fill_offsets` writes them.
    fn sample_table(&self, w: &mut Writer, decoding: &Decoding, offsets: Offsets) {
        w.full(b"stsd", 0, 0, |w| {
            w.count(self.descriptions.len());
            let kind = if self.in_band() { b"avc3" } else { b"avc1" };
            for description in &self.descriptions {
                description.sample_entry(w, kind);
            }
        });
        let Decoding { lag, ticks } = decoding;
        w.full(b"stts", 0, 0, |w| {
            let durations = ticks.windows(2).map(|w| w[1].saturating_sub(w[0]));
            w.runs(durations.map(|ticks| u32::try_from(ticks).unwrap_or(u32::MAX)));
        });
        if *lag > 0 {
            w.full(b"ctts", 0, 0, |w| {
                let displayed =
                    self.samples.iter().map(|s| lag.saturating_add(self.ticks[s.pts as usize]));
                let ahead = displayed.zip(ticks).map(|(at, decoded)| at.saturating_sub(*decoded));
                w.runs(ahead.map(|ticks| u32::try_from(ticks).unwrap_or(u32::MAX)));
            });
        }
        if self.samples.iter().any(|s| !s.keyframe) {
            w.full(b"stss", 0, 0, |w| {
                let keys: Vec<_> =
                    (1u32..).zip(&self.samples).filter(|(_, s)| s.keyframe).collect();
                w.count(keys.len());
                for (number, _) in keys {
                    w.u32(number);
                }
            });
        }
        w.full(b"stsz", 0, 0, |w| {
            w.u32(0);
            w.count(self.samples.len());
            for sample in &self.samples {
                w.u32(self.bytes(sample));
            }
        });
        let chunks = self.chunks();
        w.full(b"stsc", 0, 0, |w| {
            let mut entries: Vec<(u32, u32, u16)> = Vec::new();
            for (number, chunk) in (1u32..).zip(&chunks) {
                let same = |e: &(u32, u32, u16)| (e.1, e.2) == (chunk.samples, chunk.description);
                if !entries.last().is_some_and(same) {
                    entries.push((number, chunk.samples, chunk.description));
                }
            }
            w.count(entries.len());
            for (first, samples, description) in entries {
                w.u32(first);
                w.u32(samples);
                w.u32(u32::from(description));
            }
        });
        let kind = if offsets == Offsets::Wide { b"co64" } else { b"stco" };
        w.full(kind, 0, 0, |w| {
            w.count(chunks.len());
            w.zeros(chunks.len() * offsets.bytes());
        });
    }

    /// The chunks: each key frame with the samples up to the next key frame.
    fn chunks(&self) -> Vec<Chunk> {
        let mut chunks: Vec<Chunk> = Vec::new();
        let mut at = 0;
        for sample in &self.samples {
            match chunks.last_mut() {
                Some(chunk) if !sample.keyframe => chunk.samples += 1,
                _ => chunks.push(Chunk { at, samples: 1, description: sample.description }),
            }
            at += u64::from(self.bytes(sample));
        }
        chunks
    }

    /// Replaces the chunk offsets at the end of the header, for samples that begin at `base`.
    fn fill_offsets(&self, header: &mut Vec<u8>, base: u64, offsets: Offsets) -> io::Result<()> {
        let chunks = self.chunks();
        header.truncate(header.len() - chunks.len() * offsets.bytes());
        for chunk in chunks {
            let offset = base + chunk.at;
            match offsets {
                Offsets::Wide => header.extend_from_slice(&offset.to_be_bytes()),
                Offsets::Narrow => {
                    let offset = u32::try_from(offset).map_err(io::Error::other)?;
                    header.extend_from_slice(&offset.to_be_bytes());
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::h264::synthetic::Stream, *};

    #[test]
    fn offsets_are_as_wide_as_the_file_needs() {
        let most = u64::from(u32::MAX);
        for (end, offsets) in
            [(0, Offsets::Narrow), (most, Offsets::Narrow), (most + 1, Offsets::Wide)]
        {
            assert_eq!(Offsets::up_to(end), offsets, "{end}");
        }
        let stream = Stream::default();
        let units = [stream.sps(), stream.pps(0)];
        let sets = units.map(|unit| [&(unit.len() as u32).to_be_bytes()[..], &unit].concat());
        let mut index = Index::default();
        assert_eq!(index.describe(&sets.concat(), 0).ok(), Some(1));
        index.samples.push(Sample {
            at: 0,
            bytes: 9,
            sets: 0,
            pts: 0,
            keyframe: true,
            description: 1,
        });
        assert_eq!(index.chunks().len(), 1);
        for (offsets, base, expected) in [
            (Offsets::Narrow, most, Some(vec![7, 0xff, 0xff, 0xff, 0xff])),
            (Offsets::Narrow, most + 1, None),
            (Offsets::Wide, most + 1, Some(vec![7, 0, 0, 0, 1, 0, 0, 0, 0])),
        ] {
            let mut header = vec![7; 1 + offsets.bytes()];
            let filled = index.fill_offsets(&mut header, base, offsets);
            assert_eq!(filled.ok().map(|()| header), expected);
        }
    }
}
