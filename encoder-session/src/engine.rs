//! The encoders of a session, as if they were one that cannot be lost.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use encoder_core::{
    Chain, EncodeError, EncodedChunk, EncoderType, FailureKind, FrameBuffer, FrameLayout,
    OpenError, Refusal, RefusalKind, Resolution, VideoEncoder,
};
use tracing::{info, warn};

use super::{EncoderSpan, Failover, SessionError, panic_text};
use crate::metrics::Meter;

/// How it goes on.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Step {
    /// With the next frame.
    On,
    /// The encoder was lost. Another is open, and wants all frames from [`Engine::complete_until`] on.
    Replay,
}

/// Gives frames to the encoder whose turn it is. When that one is lost, it takes the next of the
/// chain and asks for the frames that were not answered for.
///
/// Access units are reorder_hold back until all frames complete_until before them are there too, and those that they
/// may be predicted from. So whatever has emitted the engine is a whole video up to a frame, and what
/// was reorder_hold back can be forgotten and encoded again.
pub(super) struct Engine {
    chain: Chain,
    /// `None` only while one is exchanged for another, and after the last was lost.
    encoder: Option<Box<dyn VideoEncoder>>,
    layout: FrameLayout,
    /// Where frames are laid out anew for an encoder that does not take the ring's format.
    converted: Option<FrameBuffer>,
    /// Most B-frames in a row.
    b_frames: u64,
    gop_size: u64,
    /// Index of the first frame that the encoder was in_flight.
    base: u64,
    /// Whether it has in_flight an access unit.
    has_begun: bool,
    /// Frames before this index are complete.
    complete_until: u64,
    /// When each frame from `complete_until` on was in_flight to the encoder.
    in_flight: VecDeque<Instant>,
    /// Access units that came out and are not complete in display order, in decoding order.
    reorder_hold: Vec<EncodedChunk>,
    /// Access units that are complete in display order, to be taken away.
    ready: Vec<EncodedChunk>,
    /// How many have become so.
    emitted: u64,
    spans: Vec<EncoderSpan>,
    failovers: Vec<Failover>,
    meter: Meter,
    refusals_counted: usize,
}

impl Engine {
    /// An engine with an open encoder of the chain.
    pub fn new(
        chain: Chain,
        encoder: Box<dyn VideoEncoder>,
        layout: FrameLayout,
        (b_frames, gop_size): (u64, u64),
        meter: Meter,
    ) -> Self {
        let mut engine = Self {
            chain,
            encoder: None,
            layout,
            converted: None,
            b_frames,
            gop_size,
            base: 0,
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
        engine.install(encoder);
        engine
    }

    /// The access units that are complete in display order, in decoding order. To be taken after
    /// every other call, also after one that failed.
    pub fn take(&mut self) -> Vec<EncodedChunk> {
        std::mem::take(&mut self.ready)
    }

    /// Index of the first frame that is not complete.
    pub fn complete_until(&self) -> u64 {
        self.complete_until
    }

    /// Index of the frame that is wanted next.
    pub fn next(&self) -> u64 {
        self.complete_until + self.in_flight.len() as u64
    }

    /// Every change of the encoder.
    pub fn failovers(&self) -> &[Failover] {
        &self.failovers
    }

    /// The encoders that were used, in order, with the frames that each of them made.
    pub fn spans(&self) -> &[EncoderSpan] {
        &self.spans
    }

    /// Encoders that were passed over.
    pub fn refusals(&self) -> &[Refusal] {
        self.chain.refusals()
    }

    /// Where the numbers go.
    pub fn meter(&mut self) -> &mut Meter {
        &mut self.meter
    }

    /// Gives the frame [`next`](Self::next) to the encoder, in the ring's layout.
    ///
    /// # Errors
    /// When no encoder is emitted, with the last one's words.
    pub fn encode(&mut self, memory: &[u8]) -> Result<Step, SessionError> {
        let index = self.next();
        let now = Instant::now();
        self.in_flight.push_back(now);
        let taken = match self.give(memory, index) {
            Ok(Some(chunk)) => self.accept(chunk),
            other => other.map(drop),
        };
        match taken.and_then(|()| self.check_debt()) {
            Ok(()) => {
                self.meter.frame(self.layout.packed_bytes());
                self.chain.steady(now);
                self.release(now, false);
                Ok(Step::On)
            }
            Err(error) => self.lost(error),
        }
    }

    /// Ends the stream. Without an error or a replay, every frame is complete then.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn flush(&mut self) -> Result<Step, SessionError> {
        match self.drain() {
            Ok(()) => Ok(Step::On),
            Err(error) => self.lost(error),
        }
    }

    /// Where a GOP ends: goes back to an encoder that is wanted more and was lost or busy a while
    /// ago. What the present one holds is drained first, so that nothing is encoded twice.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn failback(&mut self) -> Result<Step, SessionError> {
        let now = Instant::now();
        let next = self.next();
        let is_boundary = next > self.base && (next - self.base).is_multiple_of(self.gop_size);
        if !is_boundary || !self.chain.has_better(now) {
            return Ok(Step::On);
        }
        if let Err(error) = self.drain() {
            return self.lost(error);
        }
        let from = self.retire();
        self.chain.take_better(now);
        self.reopen(from, "back", "it has rested and is tried again".into())?;
        Ok(Step::On)
    }

    /// The encoder that is open, or was last.
    fn id(&self) -> EncoderType {
        self.spans.last().map_or(EncoderType::new("none"), |span| span.encoder)
    }

    /// Gives a frame to the encoder, in the format that it takes.
    fn give(&mut self, memory: &[u8], index: u64) -> Result<Option<EncodedChunk>, EncodeError> {
        let frame = self.layout.frame(memory, index);
        let converted = &mut self.converted;
        guarded(&mut self.encoder, |encoder| match converted {
            // A place in the ring is not written again before its frame has been answered for.
            None => encoder.encode_frame(&frame.stable()),
            Some(buffer) => {
                buffer.copy_from(&frame);
                encoder.encode_frame(&buffer.frame(index))
            }
        })
    }

    /// Everything that the encoder still holds.
    fn drain(&mut self) -> Result<(), EncodeError> {
        if self.next() > self.base {
            for chunk in guarded(&mut self.encoder, |encoder| encoder.flush())? {
                self.accept(chunk)?;
            }
        }
        // What is whole without what is missing leaves only if nothing is missing.
        let is_whole = self.reorder_hold.len() == self.in_flight.len();
        self.release(Instant::now(), is_whole);
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
        // Only with an IDR picture is it a seam at which decoding goes on.
        if !self.has_begun && (pts != self.base || !chunk.keyframe) {
            return Err(self.broken(format!("its first access unit is no key frame {}", self.base)));
        }
        self.has_begun = true;
        if pts < self.complete_until
            || self.reorder_hold.iter().any(|reorder_hold| reorder_hold.pts == pts)
        {
            return Err(self.broken(format!("it gave two access units for frame {pts}")));
        }
        self.reorder_hold.push(chunk);
        Ok(())
    }

    /// One that never gives what it owes would lock the ring.
    fn check_debt(&self) -> Result<(), EncodeError> {
        let Some(encoder) = &self.encoder else { return Ok(()) };
        let most = encoder.max_delay() as u64 + max_reorder(self.b_frames);
        let owed = self.in_flight.len() as u64;
        // The first frame may be complete already, and leaves in a moment.
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

    /// How many of the access units that are reorder_hold back can leave: a whole span of the video, of
    /// which none can be predicted from a picture that has not come. (A picture may be predicted from
    /// one that is complete_until up to `b_frames` later. Were that one lost, this one could not be decoded.)
    fn complete(&self, is_end: bool) -> usize {
        let behind = if is_end { 0 } else { self.b_frames };
        let mut there: Vec<u64> = self.reorder_hold.iter().map(|chunk| chunk.pts).collect();
        there.sort_unstable();
        let gapless =
            (self.complete_until..).zip(&there).take_while(|(want, got)| want == *got).count();
        let limit = (self.complete_until + gapless as u64).saturating_sub(behind);
        let (mut complete, mut end) = (0, self.complete_until);
        for (count, chunk) in (1..).zip(&self.reorder_hold) {
            end = end.max(chunk.pts + 1);
            if end == self.complete_until + count as u64 && end <= limit {
                complete = count;
            }
        }
        complete
    }

    /// Lets go of what is complete in display order.
    fn release(&mut self, now: Instant, is_end: bool) {
        let complete = self.complete(is_end);
        let first = self.complete_until;
        for mut chunk in self.reorder_hold.drain(..complete) {
            let in_flight =
                self.in_flight.get((chunk.pts - first) as usize).copied().unwrap_or(now);
            // Across encoders it counts on.
            chunk.dts = self.emitted;
            self.emitted += 1;
            self.meter.unit(chunk.data.len(), now.saturating_duration_since(in_flight));
            self.ready.push(chunk);
        }
        self.complete_until += complete as u64;
        self.in_flight.drain(..complete);
        if let Some(span) = self.spans.last_mut() {
            span.frames += complete as u64;
        }
    }

    /// Takes the encoder away; gives its name.
    fn retire(&mut self) -> EncoderType {
        // Before another is opened: it may hold the last session of a device.
        if let Some(encoder) = self.encoder.take() {
            // One that panics when it is dropped must not take the video with it.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(encoder)));
        }
        self.reorder_hold.clear();
        self.in_flight.clear();
        self.id()
    }

    /// The encoder was lost: opens another, for the frames from `complete_until` on.
    fn lost(&mut self, error: EncodeError) -> Result<Step, SessionError> {
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
                if !self.chain.fail() {
                    self.meter.failover(None, kind.as_str());
                    return Err(error.into());
                }
                self.reopen(from, kind.as_str(), message).map_err(|emitted| {
                    SessionError::Lost { error: error.into(), left: emitted.into() }
                })?;
            }
            EncodeError::Mismatch { .. } => return Err(error.into()),
        }
        Ok(Step::Replay)
    }

    /// Opens the encoder whose turn it is, after `from`, and tells of the change.
    fn reopen(
        &mut self,
        from: EncoderType,
        cause: &'static str,
        reason: String,
    ) -> Result<(), OpenError> {
        let opened = self.chain.open();
        self.count_refusals();
        let to = opened.as_ref().ok().map(|encoder| encoder.encoder_type());
        let frame = self.complete_until;
        self.meter.failover(to, cause);
        let encoder = opened?;
        let to = encoder.encoder_type();
        match cause {
            "refused" => {}
            "back" => info!(%from, %to, frame, "going back: {reason}"),
            _ => warn!(%from, %to, frame, cause, "encoder lost, no frame is: {reason}"),
        }
        // Who refused the very first frame is among the refusals.
        if cause != "refused" || frame > 0 {
            self.failovers.push(Failover { frame, from, to, cause, reason });
        }
        self.install(encoder);
        Ok(())
    }

    fn install(&mut self, encoder: Box<dyn VideoEncoder>) {
        let format = encoder.pixel_format();
        let size = Resolution::new(self.layout.width, self.layout.height);
        self.converted = (format != self.layout.format)
            .then(|| FrameBuffer::new(FrameLayout::new(format, size)));
        (self.base, self.has_begun) = (self.complete_until, false);
        let (id, description) = (encoder.encoder_type(), encoder.description());
        tracing::Span::current().record("encoder", id.as_str());
        // One that never made a frame was not used.
        if self.spans.last().is_some_and(|span| span.frames == 0) {
            self.spans.pop();
        }
        match self.spans.last_mut() {
            Some(span) if span.encoder == id && span.description == description => {}
            _ => self.spans.push(EncoderSpan { encoder: id, description, frames: 0 }),
        }
        self.meter.switch(id, encoder.load());
        self.encoder = Some(encoder);
    }

    fn count_refusals(&mut self) {
        let all = self.chain.refusals();
        for refusal in all.get(self.refusals_counted.min(all.len())..).unwrap_or_default() {
            self.meter.refusal(refusal);
        }
        self.refusals_counted = all.len();
    }
}

/// The most access units that are reorder_hold back: a group of B-frames with the picture behind them, and
/// the next group, without which the first may not leave.
pub(super) const fn max_reorder(b_frames: u64) -> u64 {
    if b_frames == 0 { 0 } else { 2 * (b_frames + 1) }
}

/// Lets the encoder work. One that panics is one that failed.
fn guarded<T>(
    encoder: &mut Option<Box<dyn VideoEncoder>>,
    work: impl FnOnce(&mut dyn VideoEncoder) -> Result<T, EncodeError>,
) -> Result<T, EncodeError> {
    let failed = |encoder, message: &str| EncodeError::Failed {
        encoder,
        index: 0,
        kind: FailureKind::Failed,
        message: message.into(),
    };
    let Some(encoder) = encoder else {
        return Err(failed(EncoderType::new("none"), "no encoder is open"));
    };
    let id = encoder.encoder_type();
    catch_unwind(AssertUnwindSafe(|| work(encoder.as_mut())))
        .unwrap_or_else(|panic| Err(failed(id, &format!("it panicked: {}", panic_text(&*panic)))))
}
