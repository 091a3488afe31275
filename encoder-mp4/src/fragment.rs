//! Groups access units into the fragments of an MP4 file.
//!
//! Decoding times are delayed by `reorder` frames, so that no picture is displayed before it is
//! decoded, and an edit list subtracts the delay: FFmpeg and players built on it read wrong times
//! if fragments have negative offsets instead. Every key frame carries its parameter sets, because
//! another encoder may take over with other parameter sets long after the head of the file was
//! written.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use encoder_core::EncodedChunk;

use super::{
    avc::{Description, SampleEntry, SampleWriter},
    boxes::Writer,
    record::{self, CHECKSUM, FragmentSample, Head},
    segment::{InitSegment, MediaSegment, Segment},
    track::{Movie, file_type},
};
use encoder_media::timeline::{FrameTimes, StreamingTimeline, Timeline, Timing};

/// A fragment with this many bytes ends as soon as possible.
const LARGEST: usize = 8 << 20;
/// A fragment with this many samples ends as soon as possible.
const MOST_SAMPLES: usize = 1 << 14;
/// The most bytes of a fragment's samples, and the most samples.
const LIMITS: (usize, usize) = (u32::MAX as usize >> 1, 1 << 20);

/// When a fragment ends. With either value it also ends at 8 MiB and at 16,384 frames, as soon as
/// its pictures are complete in display order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FragmentLength {
    /// After this much video or wall time, and before a key frame after a fifth of it. This is the
    /// longest time that a frame waits for its fragment, as long as further frames come: it is
    /// checked when an access unit is written.
    Duration(Duration),
    /// Before each key frame: each fragment begins with one and is a whole GOP.
    Gop,
}

impl Default for FragmentLength {
    /// Half a second.
    fn default() -> Self {
        Self::Duration(Duration::from_millis(500))
    }
}

impl FragmentLength {
    /// The maximum duration of a fragment in the video, and of gathering it.
    const fn span(self) -> Duration {
        match self {
            Self::Duration(span) => span,
            Self::Gop => Duration::MAX,
        }
    }

    /// A key frame begins a new fragment only after this much video.
    fn least(self) -> Duration {
        match self {
            Self::Duration(span) => span / 5,
            Self::Gop => Duration::ZERO,
        }
    }

    /// A frame that is this much later than the first frame of the fragment begins the next
    /// fragment.
    fn largest(self) -> Duration {
        self.span().saturating_mul(2)
    }
}

/// Makes the fragments of one file.
pub(super) struct Fragmenter {
    head: Head,
    length: FragmentLength,
    timeline: StreamingTimeline,
    samples: SampleWriter,
    /// Parameter sets of the first key frame, until the head of the file is written.
    first: Option<Description>,
    fragments: u32,
    /// Frames in the fragments that were returned.
    frames: u64,
    /// Ticks of the last `reorder` of these frames, in display order.
    recent: VecDeque<i64>,
    /// Recorded times of the last of these frames.
    last_times: Option<FrameTimes>,
    /// Ticks of the frame after them, if known.
    next_ticks: Option<u64>,
    pending: Pending,
    /// A duration or an offset did not fit and was shortened.
    is_clamped: bool,
    /// The delay of the decoding times, in ticks.
    lag: u32,
}

/// The fragment that is being gathered.
#[derive(Default)]
struct Pending {
    samples: Vec<FragmentSample>,
    data: Vec<u8>,
    /// Largest `pts`.
    highest: u64,
    begun: Option<Instant>,
}

impl Fragmenter {
    pub fn new(head: Head, length: FragmentLength) -> Self {
        Self {
            timeline: StreamingTimeline::new(head.timing, head.rate),
            head,
            length,
            samples: SampleWriter::default(),
            first: None,
            fragments: 0,
            frames: 0,
            recent: VecDeque::new(),
            last_times: None,
            next_ticks: None,
            pending: Pending::default(),
            is_clamped: false,
            lag: 0,
        }
    }

    /// Whether no picture was added yet.
    pub fn is_empty(&self) -> bool {
        self.frames == 0 && self.pending.samples.is_empty()
    }

    /// Warnings where the times in the fragments differ from the recorded times, and the number of
    /// times that were estimated. `whole` is the timeline of the same frames.
    pub fn judgement(&self, whole: &Timeline) -> (Vec<String>, u64) {
        let (mut warnings, guessed) = self.timeline.judgement(whole);
        if self.is_clamped {
            warnings.push(
                "a pause among B-frames is longer than half an hour, which a fragmented file \
                 cannot hold: it was shortened"
                    .into(),
            );
        }
        (warnings, guessed)
    }

    /// Frames in the fragments that were returned.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Adds an access unit. Returns the segments to append to the file.
    ///
    /// # Errors
    /// A message, if the stream cannot be stored in this container.
    pub fn push(
        &mut self,
        chunk: &EncodedChunk,
        times: &FrameTimes,
        now: Instant,
    ) -> Result<Vec<Segment>, String> {
        let (sample, data) = self.sample(chunk, times)?;
        let mut out = Vec::new();
        if self.ends_before(&sample, now) {
            // Without B-frames, this frame ends the display of the previous frame.
            let is_next = self.head.reorder == 0 && sample.pts == self.pending.highest + 1;
            self.cut(is_next.then_some(times), &mut out)?;
        }
        let pending = &mut self.pending;
        let (most_bytes, most_samples) = LIMITS;
        if pending.data.len().saturating_add(data.len()) > most_bytes
            || pending.samples.len() >= most_samples
        {
            return Err(format!("the pictures around frame {} are too large", chunk.pts));
        }
        pending.highest = pending.highest.max(sample.pts);
        pending.begun.get_or_insert(now);
        pending.samples.push(sample);
        pending.data.extend_from_slice(&data);
        // The next frame of a slow source is too far away to wait for it.
        if pending.samples.len() == 1
            && self.is_complete()
            && self.span(times) >= self.length.span()
        {
            self.cut(None, &mut out)?;
        }
        Ok(out)
    }

    /// Ends the last fragment, up to where it is complete in display order.
    ///
    /// # Errors
    /// A message, if the fragment cannot be stored in this container.
    pub fn finish(&mut self) -> Result<Vec<Segment>, String> {
        let samples = &mut self.pending.samples;
        samples.truncate(record::complete(self.frames, samples, samples.len()));
        let mut out = Vec::new();
        self.cut(None, &mut out)?;
        Ok(out)
    }

    /// The sample of an access unit.
    fn sample(
        &mut self,
        chunk: &EncodedChunk,
        times: &FrameTimes,
    ) -> Result<(FragmentSample, Vec<u8>), String> {
        let &EncodedChunk { pts, keyframe, .. } = chunk;
        let sample = self.samples.sample(&chunk.data, keyframe);
        let sample = sample.map_err(|text| format!("frame {pts}: {text}"))?;
        if self.first.is_none() && self.fragments == 0 {
            self.first = self.samples.description().cloned();
        }
        match u32::try_from(sample.data.len()) {
            Ok(bytes) if u32::try_from(pts).is_ok() && pts >= self.frames => {
                let (sets, times) = (sample.sets, *times);
                let checksum = crc32fast::hash(&sample.data);
                Ok((FragmentSample { pts, bytes, sets, keyframe, times, checksum }, sample.data))
            }
            _ => Err(format!("frame {pts} has {} bytes", sample.data.len())),
        }
    }

    /// Whether the gathered samples are frames without a gap.
    fn is_complete(&self) -> bool {
        let count = self.pending.samples.len() as u64;
        count > 0 && self.pending.highest + 1 == self.frames + count
    }

    fn ends_before(&self, next: &FragmentSample, now: Instant) -> bool {
        let pending = &self.pending;
        let Some(last) = pending.samples.iter().rev().find(|s| s.pts == pending.highest) else {
            return false;
        };
        let age = pending.begun.map(|begun| now.saturating_duration_since(begun));
        let span = self.span(&last.times);
        self.is_complete()
            && (span >= self.length.span()
                || age >= Some(self.length.span())
                || pending.data.len() >= LARGEST
                || pending.samples.len() >= MOST_SAMPLES
                || (next.keyframe && span >= self.length.least())
                || self.span(&next.times) >= self.length.largest())
    }

    /// The duration of the gathered samples if a frame at `last` ends them: the larger distance of
    /// both clocks, since either clock may stand still.
    fn span(&self, last: &FrameTimes) -> Duration {
        if let Timing::Rate(rate) = self.head.timing {
            return Duration::from_nanos(rate.nanoseconds(self.pending.samples.len() as u64));
        }
        let first = self.last_times.or(self.pending.samples.first().map(|sample| sample.times));
        let Some(first) = first else { return Duration::ZERO };
        let header = match self.head.timing {
            Timing::Numbered(_) => None,
            _ => first.header_ns.zip(last.header_ns),
        };
        let clocks = [header, Some((first.log_ns, last.log_ns))].into_iter().flatten();
        let longest = clocks.map(|(from, to)| to.saturating_sub(from)).max().unwrap_or(0);
        Duration::from_nanos(longest.try_into().unwrap_or(0))
    }

    /// Appends the gathered fragment to `out`. `next` is the time of the frame after it, if known.
    fn cut(&mut self, next: Option<&FrameTimes>, out: &mut Vec<Segment>) -> Result<(), String> {
        let Pending { samples, data, .. } = std::mem::take(&mut self.pending);
        if samples.is_empty() {
            return Ok(());
        }
        let mut ticks = vec![0; samples.len()];
        // Display times: first the last `reorder` frames before the fragment, since a picture is
        // decoded when the picture `reorder` places before it is displayed.
        let mut displayed = Vec::with_capacity(samples.len() + 5);
        for n in record::display_order(&samples) {
            let times = &samples[n].times;
            let next_ticks = self.next_ticks.take();
            ticks[n] = next_ticks.unwrap_or_else(|| self.timeline.next(times)) as i64;
            displayed.push(ticks[n]);
            self.last_times = Some(*times);
        }
        if let Some(description) = self.first.take() {
            let reorder = i64::from(self.head.reorder);
            let step = distance(&displayed).unwrap_or(self.timeline.usual() as i64);
            // The delay must fit 32 bits.
            let step = step.min(i64::from(u32::MAX) / reorder.max(1));
            self.recent = (1..=reorder).rev().map(|n| -n * step).collect();
            self.lag = (reorder * step) as u32;
            let timescale = self.timeline.timescale();
            let data = write_head(&self.head, timescale, self.lag, &description)?;
            let codec = description.codec(SampleEntry::Avc3);
            let size = description.size();
            out.push(Segment::Init(InitSegment { data, timescale, size, codec }));
        }
        let first_tick = displayed[0] as u64;
        displayed.splice(0..0, self.recent.iter().copied());
        self.recent = displayed[samples.len()..].iter().copied().collect();
        self.next_ticks = next.map(|times| self.timeline.next(times));
        let behind = displayed[displayed.len() - 1] + self.timeline.usual() as i64;
        let end_tick = self.next_ticks.map_or(behind, |tick| tick as i64);
        displayed.push(end_tick);
        let timings: Vec<_> = (0..samples.len())
            .map(|n| SampleTiming {
                duration: u32::try_from(displayed[n + 1] - displayed[n]).unwrap_or(u32::MAX),
                offset: (ticks[n] - displayed[n]).clamp(i32::MIN.into(), i32::MAX.into()) as i32,
            })
            .collect();
        let largest = |t: &SampleTiming| t.duration == u32::MAX || t.offset == i32::MAX;
        self.is_clamped |= timings.iter().any(largest);

        self.fragments += 1;
        let decoded_at = (i64::from(self.lag) + displayed[0]) as u64;
        let moof = moof(self.fragments, decoded_at, self.frames, &samples, &timings)?;
        let bytes: u64 = samples.iter().map(|sample| u64::from(sample.bytes)).sum();
        let mdat_size = u32::try_from(bytes + 8).map_err(|_| "a fragment is too large")?;
        let mut piece = Vec::with_capacity(moof.len() + 8 + bytes as usize);
        piece.extend_from_slice(&moof[..moof.len() - CHECKSUM]);
        let checksum = crc32fast::hash(&piece);
        piece.extend_from_slice(&checksum.to_be_bytes());
        piece.extend_from_slice(&mdat_size.to_be_bytes());
        piece.extend_from_slice(b"mdat");
        piece.extend_from_slice(&data[..bytes as usize]);
        let frames = self.frames..self.frames + samples.len() as u64;
        self.frames = frames.end;
        let start_ns = self.timeline.nanoseconds(first_tick);
        out.push(Segment::Media(MediaSegment {
            data: piece,
            sequence: self.fragments,
            frames,
            start_ns,
            duration_ns: self.timeline.nanoseconds(end_tick as u64).saturating_sub(start_ns),
            keyframe: samples[0].keyframe,
        }));
        Ok(())
    }
}

/// The longest distance between frames with these display times that is not a pause: at most twice
/// the median. The decoding delay must be that many ticks for each frame of `reorder`: with a
/// shorter delay, Chromium may seek to the key frame after the requested picture.
fn distance(displayed: &[i64]) -> Option<i64> {
    let mut gaps: Vec<_> = displayed.windows(2).map(|w| w[1] - w[0]).collect();
    gaps.sort_unstable();
    Some((*gaps.last()?).min(2 * gaps[gaps.len() / 2]))
}

/// The decoding and display times of a sample.
struct SampleTiming {
    /// From its decoding to that of the next sample, in ticks.
    duration: u32,
    /// From its decoding to its display, in ticks.
    offset: i32,
}

/// Writes the boxes in front of the fragments.
fn write_head(
    head: &Head,
    timescale: u32,
    lag: u32,
    description: &Description,
) -> Result<Vec<u8>, String> {
    let mut w = Writer::new();
    file_type(&mut w, b"isomiso5iso6avc1mp41");
    head.write(&mut w);
    let movie = Movie { timescale, duration: 0, size: description.size(), start: lag.into() };
    movie.write(
        &mut w,
        |w| {
            w.full(b"stsd", 0, 0, |w| {
                w.u32(1);
                description.sample_entry(w, b"avc3");
            });
            for (kind, empty) in [(b"stts", 4), (b"stsc", 4), (b"stsz", 8), (b"stco", 4)] {
                w.full(kind, 0, 0, |w| w.zeros(empty));
            }
        },
        |w| {
            w.nest(b"mvex", |w| {
                w.full(b"trex", 0, 0, |w| {
                    w.u32(1); // track
                    w.u32(1); // sample description
                    w.zeros(12);
                });
            });
        },
    );
    w.finish()
}

/// The head of a fragment, directly in front of its `mdat`. It ends with zeros as a placeholder for
/// its checksum.
fn moof(
    number: u32,
    decoded_at: u64,
    first: u64,
    samples: &[FragmentSample],
    timings: &[SampleTiming],
) -> Result<Vec<u8>, String> {
    let mut w = Writer::new();
    let mut data_at = 0;
    w.nest(b"moof", |w| {
        w.full(b"mfhd", 0, 0, |w| w.u32(number));
        w.nest(b"traf", |w| {
            // Offsets count from the start of the `moof`.
            w.full(b"tfhd", 0, 0x2_0000, |w| w.u32(1));
            w.full(b"tfdt", 1, 0, |w| w.u64(decoded_at));
            // Offset of the data; duration, size, flags and offset of each sample.
            w.full(b"trun", 1, 0xf01, |w| {
                w.count(samples.len());
                data_at = w.len();
                w.u32(0);
                for (sample, timing) in samples.iter().zip(timings) {
                    w.u32(timing.duration);
                    w.u32(sample.bytes);
                    // Depends on no other sample; or depends on others, and is no sync sample.
                    w.u32(if sample.keyframe { 0x200_0000 } else { 0x101_0000 });
                    w.u32(timing.offset as u32); // signed, in version 1
                }
            });
        });
        record::write(w, first, samples);
    });
    let size = w.narrow(w.len() + 8, "a fragment");
    w.patch(data_at, size);
    w.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_distance_that_is_no_pause() {
        let table: [(&[i64], Option<i64>); 5] = [
            (&[0], None),
            (&[0, 40], Some(40)),
            (&[0, 34, 81, 115], Some(47)),
            (&[0, 40, 80, 900, 940], Some(80)),
            (&[0, 900], Some(900)),
        ];
        for (displayed, expected) in table {
            assert_eq!(distance(displayed), expected, "{displayed:?}");
        }
    }
}
