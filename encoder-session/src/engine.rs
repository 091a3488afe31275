//! Presents the encoders of a chain as a single encoder that survives the loss of each of them.

mod key_frames;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use encoder_core::{
    Chain, EncodeError, EncodedChunk, EncoderType, FailureKind, FrameLayout, OpenError, Refusal,
    RefusalKind, VideoEncoder, backend,
};
use tracing::{info, warn};

use super::{
    EncoderSpan, Failover, SessionError,
    active::Active,
    output_check::{Finding, OutputCheck},
};
use crate::metrics::Meter;

/// What the caller does next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Step {
    /// Encode the next frame.
    On,
    /// The encoder was lost and another is open: encode all frames from [`Engine::complete_until`]
    /// on again.
    Replay,
}

/// Sends frames to the active encoder of a chain. When that encoder is lost, the engine opens the
/// next one and requests the frames whose access units were not emitted.
///
/// An access unit is held back until the access units of all earlier frames have been returned, and
/// those of all frames that it may be predicted from. So the access units emitted so far form a
/// decodable prefix of the video; all others can be dropped and encoded again.
pub(super) struct Engine {
    chain: Chain,
    /// `None` only while one encoder replaces another, and after the last one was lost.
    active: Option<Active>,
    layout: FrameLayout,
    check: OutputCheck,
    /// How many of the checked pictures are in the metrics.
    frames_checked: u64,
    warnings: Vec<String>,
    /// Most consecutive B-frames.
    b_frames: u64,
    gop_size: u64,
    /// Index of the first frame of the active encoder.
    base: u64,
    /// Index of the frame from which the active encoder counts its GOPs.
    gop_start: u64,
    /// Whether the active encoder has returned an access unit.
    has_begun: bool,
    /// All frames before this index are complete: their access units have been emitted.
    complete_until: u64,
    /// The frames from `complete_until` on that the encoder has.
    in_flight: VecDeque<InFlight>,
    /// Access units that the encoder returned and that are held back, in decoding order.
    reorder_hold: Vec<EncodedChunk>,
    /// Access units that [`Self::take`] will return.
    ready: Vec<EncodedChunk>,
    /// Number of access units emitted.
    emitted: u64,
    spans: Vec<EncoderSpan>,
    failovers: Vec<Failover>,
    meter: Meter,
    refusals_counted: usize,
}

/// A frame that the active encoder has.
struct InFlight {
    /// When the frame was passed to the encoder.
    given: Instant,
    /// Its picture must be an IDR picture.
    is_key: bool,
}

/// From this number of spans on, further frames of an encoder are added to its latest span.
pub(super) const MOST_SPANS: usize = 64;

impl Engine {
    /// An engine with an open encoder of the chain.
    pub fn new(
        chain: Chain,
        encoder: Box<dyn VideoEncoder>,
        layout: FrameLayout,
        (b_frames, gop_size): (u64, u64),
        check: OutputCheck,
        meter: Meter,
    ) -> Self {
        let mut engine = Self {
            chain,
            active: None,
            layout,
            check,
            frames_checked: 0,
            warnings: Vec::new(),
            b_frames,
            gop_size,
            base: 0,
            gop_start: 0,
            has_begun: false,
            complete_until: 0,
            in_flight: VecDeque::new(),
            reorder_hold: Vec::new(),
            ready: Vec::new(),
            emitted: 0,
            spans: Vec::new(),
            failovers: Vec::new(),
            meter,
            refusals_counted: 0,
        };
        engine.count_refusals();
        engine.install(Active::new(encoder, layout));
        engine
    }

    /// Returns the access units emitted since the last call, in decoding order. Must be called
    /// after every other call, also after an error.
    pub fn take(&mut self) -> Vec<EncodedChunk> {
        std::mem::take(&mut self.ready)
    }

    /// Index of the first frame that is not complete.
    pub fn complete_until(&self) -> u64 {
        self.complete_until
    }

    /// Index of the frame to be encoded next.
    pub fn next(&self) -> u64 {
        self.complete_until + self.in_flight.len() as u64
    }

    /// The changes of the encoder: one entry for all changes with the same encoders and cause.
    pub fn failovers(&self) -> &[Failover] {
        &self.failovers
    }

    /// The encoders that were used, in order, with the number of frames that each of them encoded.
    pub fn spans(&self) -> &[EncoderSpan] {
        &self.spans
    }

    /// Encoders that were passed over.
    pub fn refusals(&self) -> &[Refusal] {
        self.chain.refusals()
    }

    /// How many pictures were decoded and compared with their frames.
    pub fn frames_checked(&self) -> u64 {
        self.frames_checked
    }

    /// Frames whose pictures may be wrong.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Whether the run has been stopped: the frames read so far are still encoded.
    pub fn is_interrupted(&self) -> bool {
        self.chain.is_interrupted()
    }

    /// The time of the chain.
    pub fn now(&self) -> Instant {
        self.chain.now()
    }

    /// The metrics of the session.
    pub fn meter(&mut self) -> &mut Meter {
        &mut self.meter
    }

    /// Encodes the frame [`next`](Self::next), which has the layout of the ring; with `is_key` as
    /// an IDR picture. At the end of a GOP the frame may be passed to a better encoder, which then
    /// replaces the active one.
    ///
    /// # Errors
    /// When no encoder is left, with the error of the last encoder.
    pub fn encode(&mut self, memory: &[u8], is_key: bool) -> Result<Step, SessionError> {
        self.check.frame(&self.layout.frame(memory, self.next()), self.complete_until);
        let encoded = match self.failback(memory, is_key) {
            Ok(true) => Ok(()),
            Ok(false) if is_key && self.must_restart() => match self.drain() {
                Ok(()) => {
                    self.restart()?;
                    self.give(memory, is_key)
                }
                Err(error) => Err(error),
            },
            Ok(false) => self.give(memory, is_key),
            Err(error) => Err(error),
        };
        self.meter.check_time(self.check.take_time());
        match encoded.and_then(|()| self.check_debt()) {
            Ok(()) => {
                self.meter.frame(self.layout.packed_bytes());
                self.chain.steady();
                self.release(false);
                Ok(Step::On)
            }
            Err(error) => self.lost(error),
        }
    }

    /// Ends the stream. If it returns [`Step::On`], every frame is complete.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn flush(&mut self) -> Result<Step, SessionError> {
        let drained = self.drain();
        self.meter.check_time(self.check.take_time());
        match drained {
            Ok(()) => Ok(Step::On),
            Err(error) => self.lost(error),
        }
    }

    /// At the end of a GOP, passes the frame to a better encoder, if one can be retried. Returns
    /// whether that encoder accepted the frame.
    ///
    /// An encoder in a child process is known to work only when it has accepted a frame. Until then
    /// the active encoder stays open; after that it is drained and dropped. If the better encoder
    /// does not open, the active encoder continues and its stream is not interrupted.
    fn failback(&mut self, memory: &[u8], is_key: bool) -> Result<bool, EncodeError> {
        let index = self.next();
        let is_boundary = index > self.base && (is_key || self.is_gop_start(index));
        if !is_boundary || !self.chain.has_better() {
            return Ok(false);
        }
        let better = self.chain.open_better();
        self.count_refusals();
        let Some(better) = better else { return Ok(false) };
        let mut better = Active::new(better, self.layout);
        let given = self.chain.now();
        let first = match better.encode(memory, index, is_key) {
            Ok(first) => first,
            Err(error) => {
                let id = better.id();
                better.discard();
                self.chain.refuse_better(refusal(id, error));
                self.count_refusals();
                return Ok(false);
            }
        };
        if let Err(error) = self.drain() {
            // The frames that the active encoder lost precede those of the better encoder.
            better.discard();
            return Err(error);
        }
        let from = self.retire();
        self.chain.take_better();
        let reason = "it can be opened again".into();
        self.changed(from, better.id(), "failback", reason);
        self.install(better);
        self.accept_frame(InFlight { given, is_key }, first).map(|()| true)
    }

    /// The active encoder, or the last active encoder.
    pub fn id(&self) -> EncoderType {
        self.spans.last().map_or(EncoderType::new("none"), |span| span.encoder)
    }

    /// Passes the next frame to the active encoder.
    fn give(&mut self, memory: &[u8], is_key: bool) -> Result<(), EncodeError> {
        let (index, given) = (self.next(), self.chain.now());
        let Some(active) = &mut self.active else { return Err(self.none_open()) };
        let chunk = active.encode(memory, index, is_key)?;
        if is_key {
            self.gop_start = index;
        }
        self.accept_frame(InFlight { given, is_key }, chunk)
    }

    /// Records that the active encoder accepted the next frame and returned an access unit or
    /// `None`.
    fn accept_frame(
        &mut self,
        frame: InFlight,
        chunk: Option<EncodedChunk>,
    ) -> Result<(), EncodeError> {
        self.in_flight.push_back(frame);
        chunk.map_or(Ok(()), |chunk| self.accept(chunk))
    }

    fn none_open(&self) -> EncodeError {
        let (encoder, index) = (self.id(), self.next());
        let message = "no encoder is open".into();
        EncodeError::Failed { encoder, index, kind: FailureKind::Failed, message }
    }

    /// Drains the active encoder.
    fn drain(&mut self) -> Result<(), EncodeError> {
        if self.next() > self.base {
            let Some(active) = &mut self.active else { return Err(self.none_open()) };
            for chunk in active.flush()? {
                self.accept(chunk)?;
            }
            let checked = self.check.finish();
            self.checked(checked)?;
        }
        // Access units whose references may be lost are emitted only if no access unit is missing.
        let is_whole = self.reorder_hold.len() == self.in_flight.len();
        self.release(is_whole);
        match self.in_flight.len() {
            0 => Ok(()),
            missing => Err(self.broken(format!(
                "it ended without the access units of {missing} frames, the first is frame {}",
                self.complete_until
            ))),
        }
    }

    fn accept(&mut self, chunk: EncodedChunk) -> Result<(), EncodeError> {
        let pts = chunk.pts;
        if pts >= self.next() {
            return Err(self.broken(format!("it gave an access unit for frame {pts}, unasked")));
        }
        // A decoder can continue only at an IDR picture.
        if !self.has_begun && (pts != self.base || !chunk.keyframe) {
            return Err(self.broken(format!("its first access unit is no key frame {}", self.base)));
        }
        self.has_begun = true;
        if pts < self.complete_until || self.reorder_hold.iter().any(|known| known.pts == pts) {
            return Err(self.broken(format!("it gave two access units for frame {pts}")));
        }
        let frame = self.in_flight.get((pts - self.complete_until) as usize);
        if !chunk.keyframe && frame.is_some_and(|frame| frame.is_key) {
            return Err(self.broken(format!("frame {pts} is no key frame, which was requested")));
        }
        let checked = self.check.unit(&chunk);
        self.checked(checked)?;
        self.reorder_hold.push(chunk);
        Ok(())
    }

    /// Handles the result of a check of pictures, some of which were compared.
    fn checked(&mut self, result: Result<(), Finding>) -> Result<(), EncodeError> {
        let compared = self.check.count() - self.frames_checked;
        self.frames_checked += compared;
        self.meter.checked(compared, result.is_ok());
        let (frame, why) = match result {
            Ok(()) => return Ok(()),
            Err(Finding::Unable(why)) => {
                info!(encoder = %self.id(), "its pictures are not checked: {why}");
                return Ok(());
            }
            Err(Finding::Wrong(frame, why)) => (frame, why),
        };
        let (encoder, index) = (self.id(), self.next());
        let (from, to) = (self.check.right_until(), self.complete_until);
        if from < to {
            let warning = format!(
                "{encoder} returned a wrong picture for frame {frame}; frames {from} to {} before \
                 it are from the same encoder and were not checked",
                to - 1
            );
            warn!("{warning}");
            self.warnings.push(warning);
        }
        let kind = FailureKind::WrongPicture;
        let message = format!("the picture of frame {frame} is wrong: {why}");
        Err(EncodeError::Failed { encoder, index, kind, message })
    }

    /// Fails if the active encoder holds more frames than it may: the ring would stay full forever.
    fn check_debt(&self) -> Result<(), EncodeError> {
        let Some(active) = &self.active else { return Ok(()) };
        let held = max_reorder(self.b_frames) + self.check.delay() as u64;
        let most = self.chain.max_delay_of(active.id()) as u64 + held;
        let owed = self.in_flight.len() as u64;
        // Access units that can be emitted do not count: the next `release` emits them.
        if owed <= most + self.complete(false) as u64 {
            return Ok(());
        }
        let first = self.complete_until;
        Err(match self.reorder_hold.len() {
            0 => EncodeError::Failed {
                encoder: self.id(),
                index: self.next(),
                kind: FailureKind::Stalled,
                message: format!(
                    "it owes the access units of {owed} frames, the first is frame {first}; it \
                     may owe {most}"
                ),
            },
            n => self
                .broken(format!("it lost frame {first}: the access units of {n} later ones came")),
        })
    }

    fn broken(&self, message: String) -> EncodeError {
        let (encoder, index) = (self.id(), self.next());
        EncodeError::Failed { encoder, index, kind: FailureKind::WrongOutput, message }
    }

    /// How many of the access units that are held back can be emitted: those of a span of frames
    /// without a gap, none of which can be predicted from a picture whose access unit is missing.
    /// (A picture may be predicted from a picture that is displayed up to `b_frames` later. If that
    /// reference is lost, the picture cannot be decoded.)
    fn complete(&self, is_end: bool) -> usize {
        let behind = if is_end { 0 } else { self.b_frames };
        let mut there: Vec<u64> = self.reorder_hold.iter().map(|chunk| chunk.pts).collect();
        there.sort_unstable();
        let gapless =
            (self.complete_until..).zip(&there).take_while(|(want, got)| want == *got).count();
        let limit = (self.complete_until + gapless as u64).saturating_sub(behind);
        let limit = limit.min(self.check.limit());
        let (mut complete, mut end) = (0, self.complete_until);
        for (count, chunk) in (1..).zip(&self.reorder_hold) {
            end = end.max(chunk.pts + 1);
            if end == self.complete_until + count as u64 && end <= limit {
                complete = count;
            }
        }
        complete
    }

    /// Emits the access units that can be emitted.
    fn release(&mut self, is_end: bool) {
        let complete = self.complete(is_end);
        if complete == 0 {
            return;
        }
        let (first, now) = (self.complete_until, self.chain.now());
        for mut chunk in self.reorder_hold.drain(..complete) {
            let frame = self.in_flight.get((chunk.pts - first) as usize);
            let latency =
                frame.map_or(Duration::ZERO, |frame| now.saturating_duration_since(frame.given));
            // The decoding order is numbered continuously across encoders.
            chunk.dts = self.emitted;
            self.emitted += 1;
            self.meter.unit(chunk.data.len(), latency);
            self.ready.push(chunk);
        }
        self.complete_until += complete as u64;
        self.in_flight.drain(..complete);
        if let Some(span) = self.spans.last_mut() {
            span.frames += complete as u64;
        }
    }

    /// Drops the active encoder and the access units that it held. Returns its name.
    fn retire(&mut self) -> EncoderType {
        if let Some(active) = self.active.take() {
            active.discard();
        }
        self.reorder_hold.clear();
        self.in_flight.clear();
        self.id()
    }

    /// The active encoder was lost: opens another, for the frames from `complete_until` on.
    fn lost(&mut self, error: EncodeError) -> Result<Step, SessionError> {
        // Dropped before another encoder is opened: it may hold the last free session of a device.
        let from = self.retire();
        match error {
            EncodeError::Refused(refusal) => {
                let (kind, reason) = (refusal.kind, refusal.reason.clone());
                let is_passed = self.chain.refuse(refusal);
                let is_stall = kind == RefusalKind::Timeout && !is_passed;
                let cause = if is_stall { FailureKind::Stalled.as_str() } else { "refused" };
                self.reopen(from, cause, reason)?;
            }
            EncodeError::Failed { kind, ref message, .. } => {
                let message = message.clone();
                if !self.chain.fail(kind) {
                    self.meter.failover(None, kind.as_str());
                    return Err(error.into());
                }
                self.reopen(from, kind.as_str(), message).map_err(|left| SessionError::Lost {
                    error: error.into(),
                    left: left.into(),
                })?;
            }
            _ => return Err(error.into()),
        }
        Ok(Step::Replay)
    }

    /// Opens an encoder in place of `from`, which was lost.
    fn reopen(
        &mut self,
        from: EncoderType,
        cause: &'static str,
        reason: String,
    ) -> Result<(), OpenError> {
        let opened = self.chain.open();
        self.count_refusals();
        let encoder = opened.inspect_err(|error| {
            if !matches!(error, OpenError::Stopped) {
                self.meter.failover(None, cause);
            }
        })?;
        self.changed(from, encoder.encoder_type(), cause, reason);
        self.install(Active::new(encoder, self.layout));
        Ok(())
    }

    /// Logs and counts a change of the encoder at the frame `complete_until`.
    fn changed(&mut self, from: EncoderType, to: EncoderType, cause: &'static str, reason: String) {
        let frame = self.complete_until;
        self.meter.failover(Some(to), cause);
        match cause {
            "refused" => {}
            "failback" => info!(%from, %to, frame, "going back to a better encoder: {reason}"),
            _ => warn!(%from, %to, frame, cause, "encoder lost, no frame is: {reason}"),
        }
        // An encoder that refused the very first frame is listed among the refusals.
        if cause == "refused" && frame == 0 {
            return;
        }
        let is_same =
            |known: &&mut Failover| (known.from, known.to, known.cause) == (from, to, cause);
        match self.failovers.iter_mut().find(is_same) {
            Some(known) => {
                known.count += 1;
                (known.last_frame, known.reason) = (frame, reason);
            }
            None => {
                let (last_frame, count) = (frame, 1);
                self.failovers.push(Failover { frame, last_frame, count, from, to, cause, reason });
            }
        }
    }

    /// Makes an encoder the active one, from the frame `complete_until` on.
    fn install(&mut self, active: Active) {
        (self.base, self.has_begun) = (self.complete_until, false);
        self.gop_start = self.base;
        let (id, description) = (active.id(), active.encoder.description());
        self.check.restart(backend(id).is_ok_and(|backend| backend.hardware), self.base);
        tracing::Span::current().record("encoder", id.as_str());
        // An encoder that encoded no frame was not used.
        if self.spans.last().is_some_and(|span| span.frames == 0) {
            self.spans.pop();
        }
        let is_same = |span: &EncoderSpan| span.encoder == id && span.description == description;
        if !self.spans.last().is_some_and(is_same) {
            let known = self.spans.iter().rposition(is_same);
            let span = match known.filter(|_| self.spans.len() >= MOST_SPANS) {
                Some(known) => self.spans.remove(known),
                None => EncoderSpan { encoder: id, description, frames: 0 },
            };
            self.spans.push(span);
        }
        self.meter.switch(id, active.encoder.load());
        self.active = Some(active);
    }

    fn count_refusals(&mut self) {
        let all = self.chain.refusals();
        for refusal in all.get(self.refusals_counted.min(all.len())..).unwrap_or_default() {
            self.meter.refusal(refusal);
        }
        self.refusals_counted = all.len();
    }
}

/// Why the failback to an encoder did not happen.
fn refusal(encoder: EncoderType, error: EncodeError) -> Refusal {
    match error {
        EncodeError::Refused(refusal) => refusal,
        error => {
            let kind = match &error {
                EncodeError::Failed {
                    kind: FailureKind::WrongOutput | FailureKind::WrongPicture,
                    ..
                } => RefusalKind::WrongOutput,
                EncodeError::Failed { kind: FailureKind::Stalled, .. } => RefusalKind::Timeout,
                _ => RefusalKind::Failed,
            };
            let reason = match error {
                EncodeError::Failed { message, .. } => message,
                error => error.to_string(),
            };
            Refusal::new(encoder, kind, reason, "it is tried again later")
        }
    }
}

/// The most access units that are held back: a group of B-frames with the picture that follows it,
/// and the next group, which the first group may be predicted from.
pub(super) const fn max_reorder(b_frames: u64) -> u64 {
    if b_frames == 0 { 0 } else { 2 * (b_frames + 1) }
}
