//! From access units to the pieces of a fragmented file.
//!
//! Decoding times lag behind by `reorder` frames, so that no picture is shown before it is
//! decoded, and an edit list takes that back: FFmpeg and what is made of it get times wrong where
//! fragments have negative offsets instead. Every key frame carries its parameter sets, because
//! another encoder may go on with others when the head is long written.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use encoder_core::EncodedChunk;

use super::{
    avc::{ParameterSets, Parts},
    boxes::Writer,
    record::{self, CHECKSUM, FragmentSample, Head},
    track::{Movie, file_type},
};
use encoder_media::timeline::{FrameTimes, StreamingTimeline, Timing};

/// How much video, and how much time, a fragment gathers.
const SPAN: Duration = Duration::from_millis(500);
/// How much before it is ended for a key frame.
const LEAST_SPAN: Duration = Duration::from_millis(100);
/// A frame that is further behind the first one begins the next fragment.
const LARGEST_SPAN: Duration = Duration::from_secs(1);
/// A fragment of so many bytes ends as soon as it can.
const LARGEST: usize = 8 << 20;

/// Makes the pieces of one file.
pub(super) struct Fragmenter {
    head: Head,
    running: StreamingTimeline,
    /// Those of the last key frame that had some.
    sets: Option<ParameterSets>,
    /// The head was handed out.
    begun: bool,
    fragments: u32,
    /// Frames in fragments that were handed out.
    frames: u64,
    /// Ticks of the last `reorder` of these, in display order.
    recent: VecDeque<i64>,
    /// Their last time.
    shown: Option<FrameTimes>,
    /// Ticks of the frame behind them, where they are known.
    next: Option<u64>,
    pending: Pending,
    /// A distance did not fit.
    clamped: bool,
    /// How far decoding lags behind, in ticks.
    start: u32,
}

/// The fragment that is being gathered.
#[derive(Default)]
struct Pending {
    entries: Vec<FragmentSample>,
    data: Vec<u8>,
    /// Largest `pts`.
    highest: u64,
    begun: Option<Instant>,
}

impl Fragmenter {
    pub fn new(head: Head) -> Self {
        let running = StreamingTimeline::new(head.timing, head.rate);
        Self {
            head,
            running,
            sets: None,
            begun: false,
            fragments: 0,
            frames: 0,
            recent: VecDeque::new(),
            shown: None,
            next: None,
            pending: Pending::default(),
            clamped: false,
            start: 0,
        }
    }

    /// Whether there was a picture.
    pub fn is_empty(&self) -> bool {
        self.frames == 0 && self.pending.entries.is_empty()
    }

    /// What a user should know about the times in the fragments.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.running.warnings().to_vec();
        if self.clamped {
            warnings.push(
                "a pause among B-frames is longer than half an hour, which a fragmented file \
                 cannot hold: it was shortened"
                    .into(),
            );
        }
        warnings
    }

    /// Frames in what was handed out.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Takes an access unit; gives what is to be written now.
    ///
    /// # Errors
    /// In words, when the stream is not one for this container.
    pub fn push(
        &mut self,
        chunk: &EncodedChunk,
        times: &FrameTimes,
        now: Instant,
    ) -> Result<Vec<u8>, String> {
        let (entry, data) = self.picture(chunk, times)?;
        let mut out = Vec::new();
        if self.ends_before(&entry, now) {
            // Without B-frames, it tells how long the last picture is shown.
            let is_next = self.head.reorder == 0 && entry.pts == self.pending.highest + 1;
            self.cut(is_next.then_some(times), &mut out);
        }
        let pending = &mut self.pending;
        if pending.data.len() + data.len() > u32::MAX as usize >> 1 {
            return Err(format!("the pictures around frame {} are too large", chunk.pts));
        }
        pending.highest = pending.highest.max(entry.pts);
        pending.begun.get_or_insert(now);
        pending.entries.push(entry);
        pending.data.extend_from_slice(&data);
        // The next frame of a slow source is too far away to wait for.
        if pending.entries.len() == 1 && self.is_complete() && self.span(times) >= SPAN {
            self.cut(None, &mut out);
        }
        Ok(out)
    }

    /// Ends the last fragment, as far as it is complete in display order.
    pub fn finish(&mut self) -> Result<Vec<u8>, String> {
        let (mut highest, mut whole) = (0, 0);
        for (n, entry) in self.pending.entries.iter().enumerate() {
            highest = highest.max(entry.pts);
            if highest + 1 == self.frames + n as u64 + 1 {
                whole = n + 1;
            }
        }
        self.pending.entries.truncate(whole);
        let mut out = Vec::new();
        self.cut(None, &mut out);
        Ok(out)
    }

    /// The picture of an access unit, a key frame with its parameter sets in front.
    fn picture(
        &mut self,
        chunk: &EncodedChunk,
        times: &FrameTimes,
    ) -> Result<(FragmentSample, Vec<u8>), String> {
        let mut parts = Parts::of(&chunk.data);
        let mut data = Vec::new();
        if chunk.keyframe {
            if let Some(sets) = parts.sets()? {
                self.sets = Some(sets);
            }
            let sets = self.sets.as_ref();
            data = sets.ok_or("no parameter sets before the first picture")?.in_band();
        } else if self.sets.is_none() {
            return Err("the first picture is no key frame".into());
        }
        let sets = data.len() as u32;
        let pts = chunk.pts;
        data.append(&mut parts.units);
        match u32::try_from(data.len()) {
            Ok(bytes) if bytes > sets && u32::try_from(pts).is_ok() && pts >= self.frames => {
                let keyframe = chunk.keyframe;
                Ok((FragmentSample { pts, bytes, sets, keyframe, times: *times }, data))
            }
            _ => Err(format!("frame {pts} has {} bytes", data.len())),
        }
    }

    /// Whether what is gathered shows frames without a gap.
    fn is_complete(&self) -> bool {
        let count = self.pending.entries.len() as u64;
        count > 0 && self.pending.highest + 1 == self.frames + count
    }

    fn ends_before(&self, next: &FragmentSample, now: Instant) -> bool {
        let pending = &self.pending;
        let Some(last) = pending.entries.iter().rev().find(|e| e.pts == pending.highest) else {
            return false;
        };
        let age = pending.begun.map(|begun| now.saturating_duration_since(begun));
        let span = self.span(&last.times);
        self.is_complete()
            && (span >= SPAN
                || age >= Some(SPAN)
                || pending.data.len() >= LARGEST
                || (next.keyframe && span >= LEAST_SPAN)
                || self.span(&next.times) >= LARGEST_SPAN)
    }

    /// How much video is not handed out yet, with a frame at `last` as its end. The larger one of
    /// what the clocks say, since either may stand still.
    fn span(&self, last: &FrameTimes) -> Duration {
        if let Timing::Rate(rate) = self.head.timing {
            return Duration::from_nanos(rate.nanoseconds(self.pending.entries.len() as u64));
        }
        let first = self.shown.or(self.pending.entries.first().map(|entry| entry.times));
        let Some(first) = first else { return Duration::ZERO };
        let header = first.header_ns.zip(last.header_ns);
        let clocks = [header, Some((first.log_ns, last.log_ns))].into_iter().flatten();
        let longest = clocks.map(|(from, to)| to.saturating_sub(from)).max().unwrap_or(0);
        Duration::from_nanos(longest.try_into().unwrap_or(0))
    }

    /// Hands out what is gathered. `next` is the time of the frame behind it, where that is known.
    fn cut(&mut self, next: Option<&FrameTimes>, out: &mut Vec<u8>) {
        let Pending { entries, data, .. } = std::mem::take(&mut self.pending);
        let Some(sets) = self.sets.as_ref().filter(|_| !entries.is_empty()) else { return };
        let mut ticks = vec![0; entries.len()];
        let mut shown = Vec::with_capacity(entries.len() + 5);
        for n in record::display_order(&entries) {
            let times = &entries[n].times;
            ticks[n] = self.next.take().unwrap_or_else(|| self.running.next(times)) as i64;
            shown.push(ticks[n]);
            self.shown = Some(*times);
        }
        if !self.begun {
            self.begun = true;
            let step = distance(&shown).unwrap_or(self.running.usual() as i64);
            self.recent = (1..=i64::from(self.head.reorder)).rev().map(|n| -n * step).collect();
            self.start = u32::try_from(i64::from(self.head.reorder) * step).unwrap_or(u32::MAX);
            beginning(&self.head, self.running.timescale(), self.start, sets, out);
        }
        // From `reorder` frames ago on: a picture is decoded when the one so many places before it
        // is shown.
        shown.splice(0..0, self.recent.iter().copied());
        self.recent = shown[entries.len()..].iter().copied().collect();
        self.next = next.map(|times| self.running.next(times));
        let behind = shown[shown.len() - 1] + self.running.usual() as i64;
        shown.push(self.next.map_or(behind, |tick| tick as i64));
        let samples: Vec<_> = (0..entries.len())
            .map(|n| Sample {
                duration: u32::try_from(shown[n + 1] - shown[n]).unwrap_or(u32::MAX),
                offset: (ticks[n] - shown[n]).clamp(i32::MIN.into(), i32::MAX.into()) as i32,
            })
            .collect();
        let largest = |s: &Sample| s.duration == u32::MAX || s.offset == i32::MAX;
        self.clamped |= samples.iter().any(largest);

        self.fragments += 1;
        let decoded_at = (i64::from(self.start) + shown[0]) as u64;
        let begins = out.len();
        moof(self.fragments, decoded_at, self.frames, &entries, &samples, out);
        let checksum_at = out.len() - CHECKSUM;
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&out[begins..checksum_at]);
        let mdat = out.len();
        let bytes: u32 = entries.iter().map(|entry| entry.bytes).sum();
        out.extend_from_slice(&(bytes + 8).to_be_bytes());
        out.extend_from_slice(b"mdat");
        out.extend_from_slice(&data[..bytes as usize]);
        checksum.update(&out[mdat..]);
        out[checksum_at..mdat].copy_from_slice(&checksum.finalize().to_be_bytes());
        self.frames += entries.len() as u64;
    }
}

/// How far apart frames with these ticks are at most, as a rule: where decoding begins earlier than
/// a picture is shown by less than the frames in between take, Chromium may go to the key frame
/// behind the picture that it was to show.
fn distance(shown: &[i64]) -> Option<i64> {
    let mut gaps: Vec<_> = shown.windows(2).map(|w| w[1] - w[0]).collect();
    gaps.sort_unstable();
    // A pause is no rule.
    Some((*gaps.last()?).min(2 * gaps[gaps.len() / 2]))
}

/// When a coded picture is shown.
struct Sample {
    /// From its decoding to that of the next, in ticks.
    duration: u32,
    /// From its decoding to when it is shown, in ticks.
    offset: i32,
}

/// What stands in front of the fragments.
fn beginning(head: &Head, timescale: u32, start: u32, sets: &ParameterSets, out: &mut Vec<u8>) {
    let mut w = Writer::new();
    file_type(&mut w, b"isomiso5iso6avc1mp41");
    head.write(&mut w);
    let movie = Movie { timescale, duration: 0, size: sets.parsed.size, start: start.into() };
    movie.write(
        &mut w,
        |w| {
            w.full(b"stsd", 0, 0, |w| {
                w.u32(1);
                sets.sample_entry(w, b"avc3");
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
    out.extend_from_slice(&w.0);
}

/// The head of a fragment; its `mdat` comes right behind it.
fn moof(
    number: u32,
    decoded_at: u64,
    first: u64,
    entries: &[FragmentSample],
    samples: &[Sample],
    out: &mut Vec<u8>,
) {
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
                w.u32(entries.len() as u32);
                data_at = w.0.len();
                w.u32(0);
                for (entry, sample) in entries.iter().zip(samples) {
                    w.u32(sample.duration);
                    w.u32(entry.bytes);
                    // Depends on no other, or on others and is no place to begin.
                    w.u32(if entry.keyframe { 0x200_0000 } else { 0x101_0000 });
                    w.u32(sample.offset as u32);
                }
            });
        });
        record::write(w, first, entries);
    });
    let size = w.0.len() as u32 + 8;
    w.0[data_at..data_at + 4].copy_from_slice(&size.to_be_bytes());
    out.extend_from_slice(&w.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_of_frames_is_their_longest_but_no_pause() {
        let table: [(&[i64], Option<i64>); 5] = [
            (&[0], None),
            (&[0, 40], Some(40)),
            (&[0, 34, 81, 115], Some(47)),
            (&[0, 40, 80, 900, 940], Some(80)),
            (&[0, 900], Some(900)),
        ];
        for (shown, expected) in table {
            assert_eq!(distance(shown), expected, "{shown:?}");
        }
    }
}
