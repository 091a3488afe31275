use std::{
    fs::File,
    io::{self, BufWriter, Seek, Write},
    path::{Path, PathBuf},
};

use encoder_core::{EncodedChunk, EncoderConfig, FrameRate, NalKind, nal_units};

use super::{
    Finished, OutputFile, Sink, SinkError, Sps,
    boxes::Writer,
    output::{check_free, scratch},
    sps::HIGH_PROFILES,
};
use crate::timeline::{self, Clock, FrameTimes, Layout, Timing};

/// What an MP4 file is while it is written, and when it is whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputMode {
    /// Written as `NAME.mp4.part`; when it is whole, the index goes in front and the file gets its
    /// name.
    #[default]
    Progressive,
    /// A fragmented file under its own name, which plays while it grows.
    Fragmented,
}

/// How an MP4 file is written.
#[derive(Clone, Copy, Debug)]
pub struct Mp4Options {
    /// Replace a file that exists.
    pub overwrite: bool,
    /// What the file is while it is written, and when it is whole.
    pub mode: OutputMode,
    /// How the frames are laid out in time.
    pub timing: Timing,
    /// Assumed for the duration of a single frame.
    pub rate: FrameRate,
    /// How many frames a picture may be decoded ahead of its time.
    pub reorder: u32,
}

impl Mp4Options {
    /// A progressive file that replaces none, of a stream as `encoder` describes it.
    pub fn new(timing: Timing, encoder: &EncoderConfig) -> Self {
        Self {
            timing,
            rate: encoder.frame_rate,
            reorder: timeline::reorder(encoder.b_frames),
            ..Self::default()
        }
    }
}

impl Default for Mp4Options {
    /// A progressive file that replaces none, at the recorded times, without B-frames.
    fn default() -> Self {
        Self {
            overwrite: false,
            mode: OutputMode::default(),
            timing: Timing::Recorded(Clock::default()),
            rate: FrameRate::default(),
            reorder: 0,
        }
    }
}

/// Writes one H.264 track as an MP4 with the index in front ("fast start").
///
/// Pictures are shown at exactly the times of the timeline, in its timescale, from 0 on; there is
/// no edit list. Parameter sets stand in sample descriptions: each time they change at an IDR
/// picture, a new description begins.
///
/// The coded pictures wait in a file without a name; the named file is written at the end.
pub struct Mp4Sink {
    path: PathBuf,
    overwrite: bool,
    spool: BufWriter<File>,
    samples: Vec<Sample>,
    times: Vec<FrameTimes>,
    descriptions: Vec<Description>,
    bytes: u64,
}

/// A coded picture in the spool.
#[derive(Clone)]
struct Sample {
    bytes: u32,
    pts: u32,
    keyframe: bool,
    description: u16,
}

/// Parameter sets, as one `avc1` sample entry.
#[derive(PartialEq)]
struct Description {
    sps: Vec<Vec<u8>>,
    pps: Vec<Vec<u8>>,
    parsed: Sps,
}

impl Mp4Sink {
    /// Begins a file.
    ///
    /// # Errors
    /// See [`OutputFile::create`].
    pub fn create(path: &Path, options: &Mp4Options) -> Result<Self, SinkError> {
        let overwrite = options.overwrite;
        check_free(path, overwrite)?;
        Ok(Self {
            path: path.into(),
            overwrite,
            spool: BufWriter::with_capacity(1 << 18, scratch(path)?),
            samples: Vec::new(),
            times: Vec::new(),
            descriptions: Vec::new(),
            bytes: 0,
        })
    }

    fn wrong(&self, reason: impl Into<String>) -> SinkError {
        SinkError::Stream { path: self.path.clone(), reason: reason.into() }
    }

    /// The description that a key frame's parameter sets ask for; the last one where it has none.
    fn describe(&mut self, sps: Vec<Vec<u8>>, pps: Vec<Vec<u8>>) -> Result<u16, SinkError> {
        if !sps.is_empty() && !pps.is_empty() {
            let parsed = Sps::parse(&sps[0])
                .ok_or_else(|| self.wrong("the sequence parameter set cannot be read"))?;
            let description = Description { sps, pps, parsed };
            if self.descriptions.last() != Some(&description) {
                self.descriptions.push(description);
            }
        }
        u16::try_from(self.descriptions.len())
            .ok()
            .filter(|&n| n > 0)
            .ok_or_else(|| self.wrong("no parameter sets before the first picture"))
    }

    fn header(&self, timeline: &Layout) -> Vec<u8> {
        let first = &self.descriptions[0].parsed;
        let mut order = self.times.clone();
        for (s, t) in self.samples.iter().zip(&self.times) {
            order[s.pts as usize] = *t;
        }
        let mut all = timeline.ticks();
        let all: Vec<u64> = order.iter().map(|t| all.next(t)).collect();
        let ticks = |frame: u64| all[frame as usize];
        let duration = timeline.duration();
        let mut w = Writer::new();
        w.nest(b"ftyp", |w| {
            w.bytes(b"isom");
            w.u32(0x200);
            w.bytes(b"isomiso2avc1mp41");
        });
        w.nest(b"moov", |w| {
            w.full(b"mvhd", 1, 0, |w| {
                w.zeros(16);
                w.u32(timeline.timescale());
                w.u64(duration);
                w.u32(0x10000); // rate
                w.u16(0x100); // volume
                w.zeros(10);
                w.matrix();
                w.zeros(24);
                w.u32(2); // next track
            });
            w.nest(b"trak", |w| {
                w.full(b"tkhd", 1, 3, |w| {
                    w.zeros(16);
                    w.u32(1);
                    w.zeros(4);
                    w.u64(duration);
                    w.zeros(16);
                    w.matrix();
                    w.u32(first.size.width << 16);
                    w.u32(first.size.height << 16);
                });
                w.nest(b"mdia", |w| {
                    w.full(b"mdhd", 1, 0, |w| {
                        w.zeros(16);
                        w.u32(timeline.timescale());
                        w.u64(duration);
                        w.u16(0x55c4); // language "und"
                        w.u16(0);
                    });
                    w.full(b"hdlr", 0, 0, |w| {
                        w.zeros(4);
                        w.bytes(b"vide");
                        w.zeros(12);
                        w.bytes(b"VideoHandler\0");
                    });
                    w.nest(b"minf", |w| {
                        w.full(b"vmhd", 0, 1, |w| w.zeros(8));
                        w.nest(b"dinf", |w| {
                            w.full(b"dref", 0, 0, |w| {
                                w.u32(1);
                                w.full(b"url ", 0, 1, |_| {});
                            });
                        });
                        w.nest(b"stbl", |w| self.sample_table(w, &ticks, duration));
                    });
                });
            });
        });
        w.0
    }

    /// Everything but the chunk offsets, which are known only when the size of all this is; they
    /// are the last box, and `place` fills them in.
    fn sample_table(&self, w: &mut Writer, ticks: &dyn Fn(u64) -> u64, duration: u64) {
        let count = self.samples.len() as u64;
        w.full(b"stsd", 0, 0, |w| {
            w.u32(self.descriptions.len() as u32);
            for description in &self.descriptions {
                description.write(w);
            }
        });
        // Decoding times are the presentation times in order; what is shown out of order is
        // moved by `ctts`, whose version 1 may go back.
        w.full(b"stts", 0, 0, |w| {
            w.runs((0..count).map(|n| {
                let end = if n + 1 < count { ticks(n + 1) } else { duration };
                u32::try_from(end.saturating_sub(ticks(n))).unwrap_or(u32::MAX)
            }));
        });
        if self.samples.iter().zip(0u32..).any(|(s, n)| s.pts != n) {
            w.full(b"ctts", 1, 0, |w| {
                w.runs(self.samples.iter().zip(0u64..).map(|(s, n)| {
                    (ticks(u64::from(s.pts)) as i64 - ticks(n) as i64) as i32 as u32
                }));
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
                w.u32(sample.bytes);
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
        let wide = self.is_large();
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
            at += u64::from(sample.bytes);
        }
        chunks
    }

    /// Whether offsets need 64 bits. Leaves 256 MiB for the header.
    fn is_large(&self) -> bool {
        self.bytes > u64::from(u32::MAX) - (1 << 28)
    }

    /// Puts the chunk offsets, for samples that begin at `base`, to the end of the header.
    fn place(&self, header: &mut Vec<u8>, base: u64) {
        let chunks = self.chunks();
        let width = if self.is_large() { 8 } else { 4 };
        header.truncate(header.len() - chunks.len() * width);
        for chunk in chunks {
            let offset = (base + chunk.at).to_be_bytes();
            header.extend_from_slice(&offset[8 - width..]);
        }
    }

    fn write_file(&mut self, output: &mut OutputFile, timeline: &Layout) -> io::Result<()> {
        let mut header = self.header(timeline);
        let (mdat, size) = match u32::try_from(self.bytes + 8) {
            Ok(size) => ([&size.to_be_bytes()[..], b"mdat"].concat(), 8),
            Err(_) => {
                let size = (self.bytes + 16).to_be_bytes();
                ([&1u32.to_be_bytes()[..], b"mdat", &size].concat(), 16)
            }
        };
        let base = header.len() as u64 + size;
        self.place(&mut header, base);
        output.write_all(&header)?;
        output.write_all(&mdat)?;
        self.spool.flush()?;
        let spool = self.spool.get_mut();
        spool.rewind()?;
        let copied = io::copy(spool, output)?;
        if copied == self.bytes {
            return Ok(());
        }
        Err(io::Error::other(format!("{copied} of {} bytes came back from the disk", self.bytes)))
    }
}

struct Chunk {
    at: u64,
    samples: u32,
    description: u16,
}

impl Sink for Mp4Sink {
    fn write(&mut self, chunk: EncodedChunk, times: &FrameTimes) -> Result<(), SinkError> {
        let (mut sps, mut pps, mut bytes) = (Vec::new(), Vec::new(), 0u64);
        let mut units = Vec::with_capacity(8);
        for unit in nal_units(&chunk.data) {
            match NalKind::of(unit[0]) {
                NalKind::Sps => sps.push(unit.to_vec()),
                NalKind::Pps => pps.push(unit.to_vec()),
                NalKind::Aud => {}
                _ => {
                    bytes += 4 + unit.len() as u64;
                    units.push(unit);
                }
            }
        }
        let description =
            if chunk.keyframe { self.describe(sps, pps)? } else { self.descriptions.len() as u16 };
        if description == 0 {
            return Err(self.wrong("the first picture is no key frame"));
        }
        let (bytes, pts) = match (u32::try_from(bytes), u32::try_from(chunk.pts)) {
            (Ok(bytes), Ok(pts)) if bytes > 0 => (bytes, pts),
            _ => return Err(self.wrong(format!("frame {} has {bytes} bytes", chunk.pts))),
        };
        for unit in units {
            let length = (unit.len() as u32).to_be_bytes();
            self.spool
                .write_all(&length)
                .and_then(|()| self.spool.write_all(unit))
                .map_err(SinkError::io(&self.path))?;
        }
        self.times.push(*times);
        self.samples.push(Sample { bytes, pts, keyframe: chunk.keyframe, description });
        self.bytes += u64::from(bytes);
        Ok(())
    }

    fn finish(mut self: Box<Self>, timeline: &Layout) -> Result<Finished, SinkError> {
        if self.samples.is_empty() {
            return Err(self.wrong("no picture to write"));
        }
        let mut output = OutputFile::create(&self.path, self.overwrite)?;
        let written = self.write_file(&mut output, timeline);
        written.map_err(SinkError::io(&self.path))?;
        Ok(Finished { file: Some(output.commit()?), warnings: Vec::new() })
    }
}

impl Description {
    fn write(&self, w: &mut Writer) {
        let sps = &self.parsed;
        w.nest(b"avc1", |w| {
            w.zeros(6);
            w.u16(1);
            w.zeros(16);
            w.u16(sps.size.width as u16);
            w.u16(sps.size.height as u16);
            w.u32(0x48_0000); // 72 dpi
            w.u32(0x48_0000);
            w.u32(0);
            w.u16(1);
            w.zeros(32);
            w.u16(24);
            w.u16(0xffff);
            w.nest(b"avcC", |w| {
                w.u8(1);
                w.bytes(&self.sps[0][1..4]);
                w.u8(0xff); // lengths of four bytes
                for (sets, reserved) in [(&self.sps, 0xe0), (&self.pps, 0)] {
                    w.u8(reserved | sets.len() as u8);
                    for set in sets {
                        w.u16(set.len() as u16);
                        w.bytes(set);
                    }
                }
                if HIGH_PROFILES.contains(&sps.profile) {
                    w.u8(0xfc | sps.chroma_format);
                    w.u8(0xf8 | (sps.luma_bits - 8));
                    w.u8(0xf8 | (sps.chroma_bits - 8));
                    w.u8(0);
                }
            });
            if let Some(colour) = sps.colour {
                w.nest(b"colr", |w| {
                    w.bytes(b"nclx");
                    w.u16(u16::from(colour.primaries));
                    w.u16(u16::from(colour.transfer));
                    w.u16(u16::from(colour.matrix));
                    w.u8(u8::from(colour.full_range) << 7);
                });
            }
        });
    }
}
