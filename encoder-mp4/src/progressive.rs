//! From a fragmented file to one with its index in front.

use std::io::{self, Read, Seek, Write};

use super::{
    avc::ParameterSets,
    boxes::Writer,
    fragment_reader::FragmentReader,
    track::{Movie, file_type},
};
use encoder_media::timeline::Timeline;

/// The index of a file: all that is known of its pictures.
#[derive(Default)]
struct Index {
    samples: Vec<Sample>,
    /// When frames are shown, in ticks.
    ticks: Vec<u64>,
    descriptions: Vec<ParameterSets>,
}

/// A coded picture.
struct Sample {
    /// Where it is in the fragmented file.
    at: u64,
    bytes: u32,
    /// How many of these are parameter sets, in front.
    sets: u32,
    pts: u32,
    keyframe: bool,
    description: u16,
}

/// When pictures are decoded.
struct Decoding {
    /// When the first frame is shown, in ticks from its decoding.
    start: u64,
    /// When each sample is decoded, and where the last one ends.
    ticks: Vec<u64>,
}

/// Pictures one behind the other: a key frame and what follows it.
struct Chunk {
    at: u64,
    samples: u32,
    description: u16,
}

/// Writes the fragments that `part` has before it as a file with the index in front; gives the
/// number of its frames, which are shown at exactly the times of `layout`, from 0 on.
///
/// Parameter sets stand in the sample description alone, as long as there is only one. Where they
/// change, each has a description, and every key frame carries its own: Chromium looks at the first
/// description only.
///
/// # Errors
/// When one side fails.
pub(super) fn write<R: Read + Seek>(
    part: &mut FragmentReader<R>,
    layout: &Timeline,
    to: &mut impl Write,
) -> io::Result<u64> {
    let index = Index::read(part, layout)?;
    let bytes: u64 = index.samples.iter().map(|sample| u64::from(index.bytes(sample))).sum();
    let mut header = index.header(layout, bytes);
    let (mdat, head) = match u32::try_from(bytes + 8) {
        Ok(size) => ([&size.to_be_bytes()[..], b"mdat"].concat(), 8),
        Err(_) => {
            let size = (bytes + 16).to_be_bytes();
            ([&1u32.to_be_bytes()[..], b"mdat", &size].concat(), 16)
        }
    };
    let base = header.len() as u64 + head;
    index.place(&mut header, base, bytes);
    to.write_all(&header)?;
    to.write_all(&mdat)?;
    index.copy(part, to)?;
    Ok(index.samples.len() as u64)
}

impl Index {
    fn read<R: Read + Seek>(part: &mut FragmentReader<R>, layout: &Timeline) -> io::Result<Self> {
        let mut index = Self::default();
        let mut ticks = layout.ticks();
        while let Some(fragment) = part.next(false)? {
            for n in super::record::display_order(&fragment.entries) {
                index.ticks.push(ticks.next(&fragment.entries[n].times));
            }
            let mut at = fragment.data_at;
            for entry in &fragment.entries {
                if entry.keyframe {
                    let sets = part.sets(at, entry)?;
                    if index.descriptions.last() != Some(&sets) {
                        index.descriptions.push(sets);
                    }
                }
                let description = u16::try_from(index.descriptions.len()).unwrap_or(u16::MAX);
                index.samples.push(Sample {
                    at,
                    bytes: entry.bytes,
                    sets: entry.sets,
                    pts: u32::try_from(entry.pts).map_err(io::Error::other)?,
                    keyframe: entry.keyframe,
                    description,
                });
                at += u64::from(entry.bytes);
            }
        }
        match index.descriptions.len() {
            1..=0xffff => Ok(index),
            n => Err(io::Error::other(format!("{n} different parameter sets"))),
        }
    }

    /// Whether parameter sets stay in front of the key frames.
    fn in_band(&self) -> bool {
        self.descriptions.len() > 1
    }

    /// Bytes of a sample in the file that is written.
    fn bytes(&self, sample: &Sample) -> u32 {
        if self.in_band() { sample.bytes } else { sample.bytes - sample.sets }
    }

    fn copy<R: Read + Seek>(
        &self,
        part: &mut FragmentReader<R>,
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
                    part.copy(from, until - from, to)?;
                    Some((at, end))
                }
                None => Some((at, end)),
            };
        }
        run.map_or(Ok(()), |(from, until)| part.copy(from, until - from, to))
    }

    fn header(&self, layout: &Timeline, bytes: u64) -> Vec<u8> {
        let mut w = Writer::new();
        let decoding = self.decoding(layout.duration());
        file_type(&mut w, b"isomiso2avc1mp41");
        let movie = Movie {
            timescale: layout.timescale(),
            duration: layout.duration(),
            size: self.descriptions[0].parsed.size,
            start: decoding.start,
        };
        movie.write(&mut w, |w| self.sample_table(w, &decoding, bytes), |_| {});
        w.0
    }

    /// Decoding lags behind by as many frames as a picture is decoded ahead of its time, so that no
    /// picture is shown before it is decoded. `duration` is that of all frames in ticks.
    ///
    /// Offsets that go back instead would spare the edit list, but FFmpeg looks for the largest one
    /// in all entries of `ctts` but the last two, and finds fault with what is left.
    fn decoding(&self, duration: u64) -> Decoding {
        let ahead = |(n, sample): (usize, &Sample)| n.saturating_sub(sample.pts as usize);
        let lag = self.samples.iter().enumerate().map(ahead).max().unwrap_or(0);
        let usual = duration.saturating_sub(self.ticks.last().copied().unwrap_or(0)).max(1);
        let start = lag as u64 * usual;
        let begin = (0..lag as u64).map(|n| n * usual);
        let shown = self.ticks.iter().copied().chain([duration]).map(|tick| start + tick);
        Decoding { start, ticks: begin.chain(shown).take(self.samples.len() + 1).collect() }
    }

    /// Everything but the chunk offsets, which are known only when the size of all this is; they
    /// are the last box, and `place` fills them in.
    fn sample_table(&self, w: &mut Writer, decoding: &Decoding, bytes: u64) {
        w.full(b"stsd", 0, 0, |w| {
            w.u32(self.descriptions.len() as u32);
            let kind = if self.in_band() { b"avc3" } else { b"avc1" };
            for sets in &self.descriptions {
                sets.sample_entry(w, kind);
            }
        });
        let Decoding { start, ticks } = decoding;
        w.full(b"stts", 0, 0, |w| {
            let durations = ticks.windows(2).map(|w| w[1].saturating_sub(w[0]));
            w.runs(durations.map(|ticks| u32::try_from(ticks).unwrap_or(u32::MAX)));
        });
        if *start > 0 {
            w.full(b"ctts", 0, 0, |w| {
                let shown = self.samples.iter().map(|s| start + self.ticks[s.pts as usize]);
                let offsets =
                    shown.zip(ticks).map(|(shown, decoded)| shown.saturating_sub(*decoded));
                w.runs(offsets.map(|ticks| u32::try_from(ticks).unwrap_or(u32::MAX)));
            });
        }
        if self.samples.iter().any(|s| !s.keyframe) {
            w.full(b"stss", 0, 0, |w| {
                let keys: Vec<_> =
                    (1u32..).zip(&self.samples).filter(|(_, s)| s.keyframe).collect();
                w.u32(keys.len() as u32);
                for (number, _) in keys {
                    w.u32(number);
                }
            });
        }
        w.full(b"stsz", 0, 0, |w| {
            w.u32(0);
            w.u32(self.samples.len() as u32);
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
            w.u32(entries.len() as u32);
            for (first, samples, description) in entries {
                w.u32(first);
                w.u32(samples);
                w.u32(u32::from(description));
            }
        });
        let wide = is_large(bytes);
        w.full(if wide { b"co64" } else { b"stco" }, 0, 0, |w| {
            w.u32(chunks.len() as u32);
            w.zeros(chunks.len() * if wide { 8 } else { 4 });
        });
    }

    /// One chunk for each key frame and what follows it.
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

    /// Puts the chunk offsets, for samples that begin at `base`, to the end of the header.
    fn place(&self, header: &mut Vec<u8>, base: u64, bytes: u64) {
        let chunks = self.chunks();
        let width = if is_large(bytes) { 8 } else { 4 };
        header.truncate(header.len() - chunks.len() * width);
        for chunk in chunks {
            let offset = (base + chunk.at).to_be_bytes();
            header.extend_from_slice(&offset[8 - width..]);
        }
    }
}

/// Whether offsets need 64 bits. Leaves 256 MiB for the header.
fn is_large(bytes: u64) -> bool {
    bytes > u64::from(u32::MAX) - (1 << 28)
}
