//! The worker thread of a session, which runs the encoder.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use encoder_core::{EncodedChunk, FrameLayout, Resolution};
use encoder_ringbuf::{Consumer, Next, ReadSlot};
use tracing::{debug, warn};

use super::{
    OnBadFrame, Panicked, SessionError, VideoReport,
    engine::{Engine, Step},
    error::caught,
    shared::Shared,
    slot::{Captured, ClippedPictures, Meta, NoPicture, picture_of},
};
use encoder_media::{
    AccessUnit, SinkError,
    timeline::{StreamingTimeline, TimestampAnalysis},
};

/// How many bad frames are logged individually.
const NAMED_FAILURES: usize = 10;

/// How many bad frames before the first good frame are replaced by it. Their times are kept until
/// the first good frame arrives, so their number must be bounded.
const MOST_LEADING: usize = 10_000;

/// How often the metrics are updated, and the drop of the session is noticed, while nothing happens.
const IDLE: Duration = Duration::from_millis(200);

/// The parts that a worker is built from.
pub(super) struct Parts {
    pub consumer: Consumer<Meta>,
    pub engine: Engine,
    pub shared: Arc<Shared>,
    pub layout: FrameLayout,
    pub on_bad_frame: OnBadFrame,
    pub analysis: TimestampAnalysis,
    pub timeline: StreamingTimeline,
}

/// Reads frames from the ring, encodes them, and writes the access units to the sink.
///
/// The frames of the video that a slot makes are determined once. The decision is kept until these
/// frames are in the sink, so that slots that are read again after the loss of an encoder make the
/// same frames.
pub(super) struct Worker {
    parts: Parts,
    /// Decisions for slots whose frames are not all in the sink.
    decided: VecDeque<Decision>,
    /// The first slot without a decision.
    undecided: u64,
    /// Times of the frames, starting with the first frame that is not in the sink.
    times: VecDeque<Captured>,
    /// Number of frames for which a decision was made.
    frames: u64,
    leading: Leading,
    /// A key frame was requested: the next frame becomes one.
    is_key_due: bool,
    /// The last good picture.
    last: Option<ReadSlot<Meta>>,
    /// The copy of the last good picture, made when it must be repeated: holding its slot for
    /// longer would deadlock the ring.
    spare: Option<Arc<[u8]>>,
    failures: Vec<(u64, String)>,
    clipped: ClippedPictures,
    /// The warning about frames that were read and that no encoder encoded.
    cut_short: Option<String>,
    /// Frames dropped before the ring that were already counted.
    dropped: u64,
}

/// Bad frames before the first good frame.
#[derive(Default)]
struct Leading {
    times: VecDeque<Captured>,
    /// Earlier bad frames, which are left out of the video.
    left_out: u64,
}

impl Leading {
    fn push(&mut self, times: Captured) {
        if self.times.len() == MOST_LEADING {
            self.times.pop_front();
            self.left_out += 1;
        }
        self.times.push_back(times);
    }

    fn warning(&self) -> Option<String> {
        (self.left_out > 0).then(|| {
            format!(
                "the video shows only the last {MOST_LEADING} of the broken frames before the first \
                 good one, and leaves out {} before them",
                self.left_out
            )
        })
    }
}

/// The frames of the video that a slot makes.
struct Decision {
    slot: u64,
    /// Index after the last of its frames.
    end: u64,
    /// Index of the frame that is to be a key frame.
    key_frame: Option<u64>,
    /// The picture, if it is not the picture of the slot.
    picture: Option<Arc<[u8]>>,
}

impl Worker {
    pub fn new(parts: Parts) -> Self {
        Self {
            parts,
            decided: VecDeque::new(),
            undecided: 0,
            times: VecDeque::new(),
            frames: 0,
            leading: Leading::default(),
            is_key_due: false,
            last: None,
            spare: None,
            failures: Vec::new(),
            clipped: ClippedPictures::default(),
            cut_short: None,
            dropped: 0,
        }
    }

    /// Runs until the ring is closed and empty, then finishes the video.
    ///
    /// Encoders, sinks, wakers and metrics are external code. A panic in any of them is handled as
    /// a failure: what was written is kept, and the error has the panic's text.
    pub fn run(mut self) -> Result<VideoReport, SessionError> {
        let done = caught(Panicked::Worker, || {
            self.work().or_else(|error| self.cut_short(error))?;
            self.finish()
        });
        // After an abort the encoder fails because it was stopped.
        let mut done = done.map_err(|error| self.give_up(self.parts.shared.cause(error)));
        if let Err(error) = &done {
            // Before the ring is closed, so that a push that finds it closed returns this error.
            self.parts.shared.fail(error.clone());
        }
        // Dropped one by one: a second panic during unwinding would abort the process.
        let Self { parts: Parts { consumer, engine, .. }, last, .. } = self;
        for closed in [close(last), close(consumer), close(engine)] {
            let Err(error) = closed else { continue };
            // The video has ended by now and does not depend on the value that panicked.
            let text = format!("the session has ended, and then: {error}");
            warn!("{text}");
            if let Ok(report) = &mut done {
                report.warnings.push(text);
            }
        }
        done
    }

    fn work(&mut self) -> Result<(), SessionError> {
        loop {
            let next = self.parts.consumer.next_timeout(IDLE);
            self.parts.shared.check_wanted()?;
            match next {
                Next::Slot(slot) => self.slot(slot)?,
                Next::TimedOut => {}
                Next::Ended => {
                    // Releases its slot, which frames that are encoded again may need.
                    self.last = None;
                    let step = self.parts.engine.flush();
                    if self.after(step)? == Step::On {
                        return self.fault();
                    }
                }
            }
            self.measure();
        }
    }

    /// Returns why the video is not complete, if it is not.
    fn fault(&self) -> Result<(), SessionError> {
        self.parts.shared.failure().map_or(Ok(()), |error| Err((*error).clone()))
    }

    /// Ends the video before the first frame without an access unit, if the last encoder was lost
    /// and the run has been stopped. The frames that are missing are counted as dropped; a warning
    /// names their number.
    ///
    /// # Errors
    /// `error` in every other case.
    fn cut_short(&mut self, error: SessionError) -> Result<(), SessionError> {
        let is_loss = matches!(
            error,
            SessionError::Encode(_) | SessionError::Lost { .. } | SessionError::Open(_)
        );
        let has_frames = self.parts.analysis.frames() > 0;
        if !(is_loss && has_frames && self.parts.engine.is_interrupted()) {
            return Err(error);
        }
        (self.last, self.spare) = (None, None);
        let mut missing = self.frames - self.parts.engine.complete_until();
        // The source ends by itself, and may be waiting for a free slot.
        self.parts.consumer.rewind();
        loop {
            match self.parts.consumer.next_timeout(IDLE) {
                Next::Slot(slot) => {
                    let next = slot.seq() + 1;
                    missing += u64::from(next > self.undecided);
                    self.undecided = self.undecided.max(next);
                    drop(slot);
                    self.parts.consumer.commit(next);
                }
                Next::TimedOut => self.parts.shared.check_wanted()?,
                Next::Ended => break,
            }
            self.measure();
        }
        self.parts.shared.counters.frames_dropped.fetch_add(missing, Relaxed);
        self.measure();
        if missing > 0 {
            let text = format!(
                "the last {missing} frames that were read are missing, because no encoder worked \
                 after the run was stopped: {error}"
            );
            warn!("{text}");
            self.cut_short = Some(text);
        }
        self.fault()
    }

    fn measure(&mut self) {
        let ring = self.parts.consumer.snapshot();
        let dropped = self.parts.shared.counters.frames_dropped.load(Relaxed);
        let meter = self.parts.engine.meter();
        meter.dropped(dropped - self.dropped);
        meter.tick(Instant::now(), &ring);
        self.dropped = dropped;
        let failovers = self.parts.engine.failovers().iter().map(|failover| failover.count).sum();
        self.parts.shared.counters.set_encoder(self.parts.engine.id(), failovers);
    }

    /// Encodes the frames of a slot that were not encoded before.
    fn slot(&mut self, slot: ReadSlot<Meta>) -> Result<(), SessionError> {
        let seq = slot.seq();
        if seq >= self.undecided {
            self.undecided = seq + 1;
            self.decide(&slot)?;
        }
        let n = self.decided.partition_point(|decision| decision.slot < seq);
        if let Some(decision) = self.decided.get(n).filter(|decision| decision.slot == seq) {
            let (end, key_frame) = (decision.end, decision.key_frame);
            let picture = decision.picture.clone();
            while self.parts.engine.next() < end {
                self.parts.shared.check_wanted()?;
                let is_key = key_frame == Some(self.parts.engine.next());
                let memory = picture.as_deref().unwrap_or(picture_of(&slot));
                let step = self.parts.engine.encode(memory, is_key);
                if self.after(step)? == Step::Replay {
                    return Ok(());
                }
            }
            if picture.is_none() && self.spare.is_none() {
                self.last = Some(slot);
            }
        }
        self.commit(seq + 1);
        Ok(())
    }

    /// Determines which frames a slot makes.
    fn decide(&mut self, slot: &ReadSlot<Meta>) -> Result<(), SessionError> {
        let Some(meta) = slot.meta() else {
            return Err(SessionError::Internal(format!("slot {} is empty", slot.seq())));
        };
        let (times, copies, seq) = (meta.captured, meta.copies, slot.seq());
        self.is_key_due |= meta.is_key;
        match &meta.outcome {
            Ok(clipped) => clipped.iter().for_each(|&found| self.clipped.add(meta.number, found)),
            Err(NoPicture::Bad(reason)) => return self.decide_bad(seq, meta, reason),
            Err(NoPicture::Dropped) => {
                return Err(SessionError::SlotDropped { number: meta.number });
            }
        }
        let leading = std::mem::take(&mut self.leading.times);
        let own = self.frames + leading.len() as u64;
        let repeated = leading.len() as u64 + u64::from(copies.saturating_sub(1));
        let times = leading.into_iter().chain(std::iter::repeat_n(times, copies as usize));
        (self.last, self.spare) = (None, None);
        self.add(seq, own, times, None);
        self.repeated(repeated);
        Ok(())
    }

    fn decide_bad(&mut self, seq: u64, meta: &Meta, reason: &str) -> Result<(), SessionError> {
        let (number, times, copies) = (meta.number, meta.captured, meta.copies);
        self.parts.shared.counters.frames_failed.fetch_add(1, Relaxed);
        self.parts.engine.meter().failed();
        if self.failures.len() < NAMED_FAILURES {
            warn!(frame = number, "frame cannot be decoded: {reason}");
            self.failures.push((number, reason.to_owned()));
        } else {
            debug!(frame = number, "frame cannot be decoded: {reason}");
        }
        match self.parts.on_bad_frame {
            OnBadFrame::Fail => {
                return Err(SessionError::BadFrame { number, reason: reason.to_owned() });
            }
            // A video cannot begin with a gap: at a constant rate, all later frames would move.
            OnBadFrame::Skip if self.frames > 0 || !self.parts.analysis.is_numbered() => {
                self.parts.consumer.discard(seq);
                return Ok(());
            }
            OnBadFrame::Skip | OnBadFrame::Repeat => {}
        }
        if let Some(slot) = self.last.take() {
            self.spare = Some(Arc::from(picture_of(&slot)));
        }
        let times = std::iter::repeat_n(times, copies as usize);
        match self.spare.clone() {
            None => times.for_each(|times| self.leading.push(times)),
            Some(spare) => {
                self.add(seq, self.frames, times, Some(spare));
                self.repeated(copies.into());
            }
        }
        Ok(())
    }

    /// Adds the frames of a slot; the frame `own` is the first one with its times.
    fn add(
        &mut self,
        slot: u64,
        own: u64,
        times: impl Iterator<Item = Captured>,
        picture: Option<Arc<[u8]>>,
    ) {
        let before = self.times.len();
        self.times.extend(times);
        self.frames += (self.times.len() - before) as u64;
        let key_frame = (self.is_key_due && own < self.frames).then_some(own);
        self.is_key_due &= key_frame.is_none();
        self.decided.push_back(Decision { slot, end: self.frames, key_frame, picture });
    }

    fn repeated(&mut self, frames: u64) {
        self.parts.shared.counters.frames_repeated.fetch_add(frames, Relaxed);
        self.parts.engine.meter().repeated(frames);
    }

    /// Called after each step of the engine: writes complete frames to the sink. If the encoder was
    /// lost, the frames without an access unit are encoded again.
    fn after(&mut self, step: Result<Step, SessionError>) -> Result<Step, SessionError> {
        let units = self.parts.engine.take();
        self.hand_over(units)?;
        let step = step?;
        if step == Step::Replay {
            let from = self.parts.consumer.rewind();
            debug!(slot = from, frame = self.parts.engine.complete_until(), "replaying");
        }
        Ok(step)
    }

    fn hand_over(&mut self, units: Vec<EncodedChunk>) -> Result<(), SessionError> {
        let count = units.len();
        let first = self.parts.engine.complete_until() - count as u64;
        let now = self.parts.engine.now();
        // These frames are complete in display order, in which the timeline needs them.
        let mut laid_out = Vec::with_capacity(count);
        for Captured { times, reserved } in self.times.drain(..count.min(self.times.len())) {
            let ticks = self.parts.timeline.next(&times);
            let display_ns = self.parts.timeline.nanoseconds(ticks);
            self.parts.analysis.push(&times);
            laid_out.push((times, display_ns, reserved));
        }
        for chunk in units {
            let frame = laid_out.get((chunk.pts - first) as usize).copied();
            let (times, display_ns, reserved) = frame
                .ok_or_else(|| SessionError::Internal(format!("no time of frame {}", chunk.pts)))?;
            self.parts.shared.counters.bytes_out.fetch_add(chunk.data.len() as u64, Relaxed);
            let unit = AccessUnit::new(chunk, times).with_display_ns(display_ns);
            let unit = unit.with_latency(now.saturating_duration_since(reserved));
            let mut sink = self.parts.shared.take_sink().ok_or(SessionError::Ended)?;
            let written = caught(Panicked::Sink, || Ok(sink.write(unit)?));
            self.parts.shared.put_back(sink);
            written?;
            // Read after the write: the time inside the sink counts.
            let latency = self.parts.engine.now().saturating_duration_since(reserved);
            self.parts.shared.counters.written(latency);
        }
        Ok(())
    }

    /// Commits the slots whose frames are in the sink; `read` is the slot after the last one read.
    fn commit(&mut self, read: u64) {
        let shown = self.parts.engine.complete_until();
        while self.decided.front().is_some_and(|decision| decision.end <= shown) {
            self.decided.pop_front();
        }
        self.parts.consumer.commit(self.decided.front().map_or(read, |decision| decision.slot));
    }

    fn finish(&mut self) -> Result<VideoReport, SessionError> {
        let timeline = self.parts.analysis.timeline();
        let count = self.parts.analysis.frames();
        let sink = self.parts.shared.take_sink_to_finish()?;
        let asked =
            caught(Panicked::Sink, || Ok((sink.has_times(), sink.part_file().map(PathBuf::from))));
        let (has_times, part) = match asked {
            Ok(answers) => answers,
            Err(panic) => {
                self.parts.shared.put_back(sink);
                return Err(panic);
            }
        };
        let finished = match count {
            0 => Default::default(),
            _ => caught(Panicked::Sink, || Ok(sink.finish(&timeline)))
                .map_err(|panic| kept_in(part, panic))??,
        };
        let (mut warnings, guessed) = match has_times {
            true => finished.judgement(&timeline),
            false => Default::default(),
        };
        warnings.extend(finished.warnings);
        warnings.extend(self.clipped.warning());
        warnings.iter().for_each(|text| warn!("{text}"));
        let (counters, engine) = (&self.parts.shared.counters, &self.parts.engine);
        let spans = engine.spans().to_vec();
        let main = spans.iter().max_by_key(|span| span.frames);
        let (encoder, description) = main
            .map(|span| (span.encoder, span.description.clone()))
            .ok_or_else(|| SessionError::Internal("no encoder was open".into()))?;
        let size = Resolution::new(self.parts.layout.width, self.parts.layout.height);
        let mut report = VideoReport::new(encoder, description, size);
        report.spans = spans;
        report.failovers = engine.failovers().to_vec();
        report.refusals = engine.refusals().to_vec();
        report.file = finished.location;
        report.frames_in = counters.frames_in.load(Relaxed);
        report.frames_encoded = count;
        report.frames_repeated = counters.frames_repeated.load(Relaxed);
        report.frames_failed = counters.frames_failed.load(Relaxed);
        report.frames_dropped = counters.frames_dropped.load(Relaxed);
        report.times_guessed = guessed;
        report.failures = std::mem::take(&mut self.failures);
        report.bytes_out = counters.bytes_out.load(Relaxed);
        report.duration_s = timeline.duration_s();
        report.first_ns = timeline.first_ns;
        report.last_ns = timeline.last_ns;
        report.warnings = warnings;
        report.frames_checked = engine.frames_checked();
        report.warnings.extend(self.leading.warning());
        report.warnings.extend_from_slice(engine.warnings());
        report.warnings.extend(self.cut_short.take());
        if count == 0 { Err(SessionError::Empty(Box::new(report))) } else { Ok(report) }
    }

    /// Keeps what was written before an error.
    fn give_up(&mut self, error: SessionError) -> SessionError {
        let sink = self.parts.shared.take_sink();
        match error {
            // With `OnBadFrame::Fail` no file is kept.
            SessionError::BadFrame { .. } | SessionError::Kept { .. } => {
                if let Err(panic) = close(sink) {
                    warn!("the sink could not be dropped: {panic}");
                }
                return error;
            }
            SessionError::Sink(SinkError::Unfinished { error, kept }) => {
                return SessionError::Kept { error: Box::new((*error).into()), part: kept };
            }
            _ => {}
        }
        // A drop of the session takes the sink, unless a panic dropped the session.
        let Some(sink) = sink else { return error };
        let part = caught(Panicked::Sink, || Ok(sink.part_file().map(PathBuf::from)));
        let part = part.unwrap_or_default();
        let error = match caught(Panicked::Sink, || Ok(sink.abandon())) {
            Ok(Some(part)) => SessionError::Kept { error: Box::new(error), part },
            Ok(None) => error,
            Err(panic) => {
                warn!("the file could not be completed: {panic}");
                kept_in(part, error)
            }
        };
        if let (SessionError::Ended, SessionError::Kept { part, .. }) = (error.cause(), &error) {
            warn!("a panic dropped the session; what was written so far is in {part}");
        }
        error
    }
}

/// The error of a session whose sink panicked and left its part file in place.
fn kept_in(part: Option<PathBuf>, error: SessionError) -> SessionError {
    match part.filter(|part| part.exists()) {
        Some(part) => SessionError::Kept { error: Box::new(error), part: part.into() },
        None => error,
    }
}

fn close<T>(closed: T) -> Result<(), SessionError> {
    caught(Panicked::Worker, || {
        drop(closed);
        Ok(())
    })
}
