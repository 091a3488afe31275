//! The encoder's side of a session.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use encoder_core::{
    Chain, EncodeError, EncodedChunk, FrameBuffer, FrameLayout, Refusal, Resolution, VideoEncoder,
};
use encoder_ringbuf::{Consumer, Next, ReadSlot};
use tracing::{Span, debug, warn};

use super::{Counters, Meta, OnBadFrame, SessionError, SessionReport, SharedSink, lock};
use crate::{
    metrics::Meter,
    timeline::{FrameTimes, Timeline},
};

/// How many bad frames are named one by one.
const NAMED_FAILURES: usize = 10;

/// How often metrics are brought up to date while there are no frames.
const TICK: Duration = Duration::from_millis(500);

/// What a worker is made of.
pub(super) struct Parts {
    pub consumer: Consumer<Meta>,
    /// Where the next encoder comes from when this one refuses its first frame.
    pub chain: Chain,
    pub encoder: Box<dyn VideoEncoder>,
    pub sink: SharedSink,
    pub layout: FrameLayout,
    pub on_bad_frame: OnBadFrame,
    pub counters: Arc<Counters>,
    /// Most B-frames in a row.
    pub b_frames: u64,
    pub meter: Meter,
}

/// Takes frames out of the ring, through the encoder, to the sink.
pub(super) struct Worker {
    parts: Parts,
    /// Where frames are laid out anew for an encoder that does not take the ring's format.
    converted: Option<FrameBuffer>,
    /// Times of all frames that were given to the encoder, by index.
    frames: Vec<FrameTimes>,
    /// Slots of the frames from index `shown` on, and when the encoder got them.
    pending: VecDeque<(u64, Instant)>,
    /// Indices beyond `shown` whose access units are in the sink.
    done: BTreeSet<u64>,
    /// Frames before this index are in the sink, all of them.
    shown: u64,
    /// Bad frames before the first good one.
    leading: Vec<FrameTimes>,
    /// The last good picture.
    last: Option<ReadSlot<Meta>>,
    /// Its copy, once it must be repeated: holding its slot for longer would lock the ring.
    spare: Option<Vec<u8>>,
    failures: Vec<(u64, String)>,
}

impl Worker {
    pub fn new(parts: Parts) -> Self {
        Self {
            parts,
            converted: None,
            frames: Vec::new(),
            pending: VecDeque::new(),
            done: BTreeSet::new(),
            shown: 0,
            leading: Vec::new(),
            last: None,
            spare: None,
            failures: Vec::new(),
        }
    }

    /// Runs until the ring is closed and empty. `timeline` lays out the frames, by index.
    pub fn run(
        mut self,
        timeline: impl FnOnce(&[FrameTimes]) -> Timeline,
    ) -> Result<SessionReport, SessionError> {
        loop {
            let next = self.parts.consumer.next_timeout(TICK);
            self.parts.meter.tick(Instant::now(), &self.parts.consumer.snapshot());
            let slot = match next {
                Next::Slot(slot) => slot,
                Next::TimedOut => continue,
                Next::Ended => break,
            };
            let seq = slot.seq();
            let Some(meta) = slot.meta() else {
                return Err(SessionError::Internal("a decoder dropped its frame".into()));
            };
            let (times, number, copies) = (meta.times, meta.number, meta.copies);
            match meta.outcome.clone() {
                Ok(()) => self.good(slot, times, copies)?,
                Err(reason) => self.bad(seq, number, times, copies, reason)?,
            }
            self.commit(seq + 1);
        }
        self.last = None;
        for chunk in self.parts.encoder.flush()? {
            self.take(chunk)?;
        }
        if self.shown != self.frames.len() as u64 {
            return Err(SessionError::Internal(format!(
                "{} took {} frames and gave {}",
                self.parts.encoder.encoder_type(),
                self.frames.len(),
                self.shown
            )));
        }
        let timeline = timeline(&self.frames);
        timeline.log();
        let count = self.frames.len() as u64;
        // Locked to the end, so that a drop cannot return in the middle of it.
        let mut sink = lock(&self.parts.sink);
        let file = match sink.take().ok_or(SessionError::Ended)? {
            sink if count > 0 => sink.finish(&timeline)?,
            _ => None,
        };
        drop(sink);
        let counters = &self.parts.counters;
        Ok(SessionReport {
            encoder: self.parts.encoder.encoder_type(),
            description: self.parts.encoder.description(),
            refusals: self.parts.chain.refusals().to_vec(),
            size: Resolution::new(self.parts.layout.width, self.parts.layout.height),
            file,
            frames_in: counters.frames_in.load(Relaxed),
            frames_encoded: count,
            frames_repeated: counters.frames_repeated.load(Relaxed),
            frames_failed: counters.frames_failed.load(Relaxed),
            failures: self.failures,
            bytes_out: counters.bytes_out.load(Relaxed),
            duration_s: timeline.duration(count) as f64 / f64::from(timeline.timescale()),
            first_ns: timeline.first_ns,
            last_ns: timeline.last_ns,
            warnings: timeline.warnings,
        })
    }

    fn good(
        &mut self,
        slot: ReadSlot<Meta>,
        times: FrameTimes,
        copies: u32,
    ) -> Result<(), SessionError> {
        self.last = None;
        self.spare = None;
        let leading = std::mem::take(&mut self.leading);
        for time in &leading {
            self.encode(&slot, slot.seq(), *time)?;
        }
        for _ in 0..copies {
            self.encode(&slot, slot.seq(), times)?;
        }
        let repeated = leading.len() as u64 + u64::from(copies.saturating_sub(1));
        self.parts.counters.frames_repeated.fetch_add(repeated, Relaxed);
        self.parts.meter.repeated(repeated);
        self.last = Some(slot);
        Ok(())
    }

    fn bad(
        &mut self,
        seq: u64,
        number: u64,
        times: FrameTimes,
        copies: u32,
        reason: String,
    ) -> Result<(), SessionError> {
        self.parts.counters.frames_failed.fetch_add(1, Relaxed);
        self.parts.meter.failed();
        if self.failures.len() < NAMED_FAILURES {
            warn!(frame = number, "frame cannot be decoded: {reason}");
            self.failures.push((number, reason.clone()));
        } else {
            debug!(frame = number, "frame cannot be decoded: {reason}");
        }
        match self.parts.on_bad_frame {
            OnBadFrame::Fail => return Err(SessionError::BadFrame { number, reason }),
            OnBadFrame::Skip => {
                self.parts.consumer.discard(seq);
                return Ok(());
            }
            OnBadFrame::Repeat => {}
        }
        if let Some(slot) = self.last.take() {
            self.spare = Some(slot.to_vec());
        }
        let Some(spare) = self.spare.take() else {
            self.leading.extend(std::iter::repeat_n(times, copies as usize));
            return Ok(());
        };
        for _ in 0..copies {
            self.encode(&spare, seq, times)?;
        }
        self.parts.counters.frames_repeated.fetch_add(u64::from(copies), Relaxed);
        self.parts.meter.repeated(copies.into());
        self.spare = Some(spare);
        Ok(())
    }

    fn encode(&mut self, memory: &[u8], seq: u64, times: FrameTimes) -> Result<(), SessionError> {
        let index = self.frames.len() as u64;
        self.frames.push(times);
        self.pending.push_back((seq, Instant::now()));
        let chunk = match self.give(memory, index) {
            Err(EncodeError::Refused(refusal)) if index == 0 => {
                self.begin_again(refusal, memory)?
            }
            chunk => chunk?,
        };
        self.parts.counters.frames_encoded.fetch_add(1, Relaxed);
        chunk.map_or(Ok(()), |chunk| self.take(chunk))?;
        let held = self.frames.len() as u64 - self.shown;
        // Those in the encoder, and those that wait to be shown until one of them comes out.
        let most = self.parts.encoder.max_delay() as u64 + self.parts.b_frames;
        if held > most {
            // One that never comes would lock the ring.
            let lost = self.shown;
            let message = match self.done.len() {
                0 => format!(
                    "it owes the access units of {held} frames, the first is frame {lost}; it \
                     may owe {most}"
                ),
                n => format!("it lost frame {lost}: the access units of {n} later ones came"),
            };
            let encoder = self.parts.encoder.encoder_type();
            return Err(EncodeError::Failed { encoder, index, message }.into());
        }
        Ok(())
    }

    /// The encoder could not begin: gives frame 0 to those behind it in the chain.
    fn begin_again(
        &mut self,
        mut refusal: Refusal,
        memory: &[u8],
    ) -> Result<Option<EncodedChunk>, SessionError> {
        loop {
            let (from, known) = (refusal.encoder, self.parts.chain.refusals().len());
            self.parts.chain.refuse(refusal);
            let opened = self.parts.chain.open();
            let meter = &mut self.parts.meter;
            self.parts.chain.refusals()[known..].iter().for_each(|new| meter.refusal(new));
            let to = opened.as_ref().ok().map(|encoder| encoder.encoder_type());
            if to != Some(from) {
                meter.failover(to, "refused");
            }
            self.parts.encoder = opened?;
            let encoder = self.parts.encoder.encoder_type();
            meter.switch(encoder, self.parts.encoder.load());
            Span::current().record("encoder", encoder.as_str());
            let (layout, format) = (self.parts.layout, self.parts.encoder.pixel_format());
            let size = Resolution::new(layout.width, layout.height);
            self.converted =
                (format != layout.format).then(|| FrameBuffer::new(FrameLayout::new(format, size)));
            match self.give(memory, 0) {
                Err(EncodeError::Refused(next)) => refusal = next,
                chunk => return Ok(chunk?),
            }
        }
    }

    /// Gives a frame to the encoder, in the format that it takes.
    fn give(&mut self, memory: &[u8], index: u64) -> Result<Option<EncodedChunk>, EncodeError> {
        let frame = self.parts.layout.frame(memory, index);
        self.parts.meter.frame(self.parts.layout.packed_bytes());
        if let Some((_, given)) = self.pending.back_mut() {
            *given = Instant::now();
        }
        match &mut self.converted {
            None => self.parts.encoder.encode_frame(&frame),
            Some(buffer) => {
                buffer.copy_from(&frame);
                self.parts.encoder.encode_frame(&buffer.frame(index))
            }
        }
    }

    fn take(&mut self, chunk: EncodedChunk) -> Result<(), SessionError> {
        let pts = chunk.pts;
        let times = usize::try_from(pts).ok().and_then(|n| self.frames.get(n)).copied();
        let Some(times) = times else {
            return Err(SessionError::Internal(format!("an access unit for frame {pts}")));
        };
        if pts < self.shown || !self.done.insert(pts) {
            return Err(SessionError::Internal(format!("two access units for frame {pts}")));
        }
        let bytes = chunk.data.len();
        self.parts.counters.bytes_out.fetch_add(bytes as u64, Relaxed);
        let ahead = usize::try_from(pts - self.shown).unwrap_or(usize::MAX);
        if let Some((_, given)) = self.pending.get(ahead) {
            self.parts.meter.unit(bytes, given.elapsed());
        }
        lock(&self.parts.sink).as_mut().ok_or(SessionError::Ended)?.write(chunk, &times)?;
        while self.done.remove(&self.shown) {
            self.shown += 1;
            self.pending.pop_front();
        }
        Ok(())
    }

    /// Commits what is complete in display order; `read` is the slot behind the last one read.
    fn commit(&mut self, read: u64) {
        self.parts.consumer.commit(self.pending.front().map_or(read, |(seq, _)| *seq));
    }
}
