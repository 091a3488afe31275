//! A video that is being encoded.

use std::sync::{
    Arc,
    atomic::Ordering::{Relaxed, SeqCst},
};

use encoder_core::{EncoderType, FrameLayout, FrameRate, Resolution, Task};
use encoder_media::{Payload, Sink, timeline::FrameTimes};
use encoder_picture::{self as picture, PictureOptions};
use encoder_ringbuf::{Producer, WriteSlot};
use tracing::{Span, debug, warn};

use crate::{
    Closing, OnFull, Panicked, SessionConfig, SessionError, SessionState, Slot, Stats, StatsHandle,
    VideoReport,
    converter::Converter,
    error::panicked,
    opening::Opening,
    slot::{Captured, Meta},
};

/// A video that is being encoded.
///
/// Dropping it before it is finished discards the video and never waits: the encoder's child is
/// killed, no other encoder is opened, and the session's thread ends when its current call of an
/// encoder in this process, or of the sink, returns. The sink is dropped by the drop, or by that
/// thread if it is inside a call of the sink. A drop by a panic keeps what was written, as
/// [`Sink::abandon`] does.
pub struct Session {
    // Dropped before the producer: without the producer, the end of the ring means the end of the
    // video.
    pub(super) running: Closing,
    /// `None` once the session has failed because of a full ring.
    pub(super) producer: Option<Producer<Meta>>,
    /// Started by the first [`push_async`](Self::push_async).
    pub(super) converter: Option<Converter>,
    pub(super) layout: FrameLayout,
    pub(super) options: PictureOptions,
    pub(super) may_share: bool,
    pub(super) encoder: EncoderType,
    pub(super) next_number: u64,
    /// The next frame becomes a key frame.
    pub(super) is_key_due: bool,
    pub(super) on_full: OnFull,
    /// The constant rate, if frames may be dropped: frames are numbered before they are dropped.
    pub(super) spread: Option<FrameRate>,
    pub(super) slots: usize,
    /// The span that contains all log messages of the session.
    pub(super) span: Span,
}

impl Session {
    /// Opens an encoder for pictures of `size` and starts its thread.
    ///
    /// Blocks: while the encoder starts; for up to `session_wait_s` while it has no free session;
    /// and for up to [`SessionConfig::pool_wait`] for a share of the pool.
    ///
    /// # Errors
    /// [`SessionError::Open`], [`SessionError::Ring`], [`SessionError::Pool`] or
    /// [`SessionError::Thread`].
    pub fn open(
        size: Resolution,
        config: &SessionConfig,
        sink: Box<dyn Sink>,
    ) -> Result<Self, SessionError> {
        let opening = Opening::new(size, config)?;
        let share = opening.share_within_wait()?;
        opening.open(share, sink)
    }

    /// As [`open`](Self::open), for a task of any executor: the encoder is opened on a thread of its
    /// own. Waits as long as it takes for a share of the pool, in the order of the calls, whatever
    /// `pool_wait` is; limit that by your executor's timeout.
    ///
    /// Cancel-safe: dropping the future gives up the share and stops the opening, without waiting
    /// for it. The sink is then dropped, at the latest when the current call of the encoder returns.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`PoolError::Full`](crate::PoolError::Full) cannot occur.
    pub fn open_async(
        size: Resolution,
        config: &SessionConfig,
        sink: Box<dyn Sink>,
    ) -> impl Future<Output = Result<Self, SessionError>> + Send + use<> {
        let opening = Opening::new(size, config);
        async move {
            let opening = opening?;
            let share = opening.share().await?;
            let waiter = opening.waiter().clone();
            let task = Task::spawn("open-session", waiter, move || opening.open(share, sink))
                .map_err(SessionError::thread)?;
            task.await.unwrap_or_else(|panic| Err(panicked(Panicked::Worker, &*panic)))
        }
    }

    /// The encoder that was opened first. If it refuses its first frame, another encoder is used;
    /// the report lists it.
    pub fn encoder(&self) -> EncoderType {
        self.encoder
    }

    /// The layout that pictures must have in a slot.
    pub fn layout(&self) -> &FrameLayout {
        &self.layout
    }

    /// The numbers of the session now.
    pub fn stats(&self) -> Stats {
        self.running.stats()
    }

    /// A handle that reads the numbers of the session from any thread, also after its end.
    pub fn stats_handle(&self) -> StatsHandle {
        self.running.stats_handle()
    }

    /// Reserves the slot of the next frame, in order. Waits while the ring is full, or applies
    /// [`SessionConfig::on_full`]; returns `None` if the frame is dropped. The picture may be
    /// written on another thread.
    ///
    /// Blocks: while the ring is full, with [`OnFull::Block`].
    ///
    /// # Errors
    /// [`SessionError::Failed`] with the cause when the session has failed before,
    /// [`SessionError::Full`] if the ring is full and [`OnFull::Error`] is set.
    pub fn reserve(&mut self, times: FrameTimes) -> Result<Option<Slot>, SessionError> {
        let slot = match self.on_full {
            OnFull::Block => {
                let reserved = self.producer()?.reserve();
                Some(reserved.map_err(|_| self.closed())?)
            }
            _ => self.reserve_now()?,
        };
        Ok(self.place(slot, times))
    }

    /// As [`reserve`](Self::reserve), for a task of any executor: waits for a slot without blocking
    /// the thread. Convert the picture where it may take time: any thread may call
    /// [`Slot::fill`].
    ///
    /// Cancel-safe: a future that is dropped before it is ready reserves no slot and counts no frame.
    /// But a `Slot` that is dropped without being filled ends the session with
    /// [`SessionError::SlotDropped`].
    ///
    /// # Errors
    /// As [`reserve`](Self::reserve).
    pub async fn reserve_async(&mut self, times: FrameTimes) -> Result<Option<Slot>, SessionError> {
        let slot = match self.on_full {
            OnFull::Block => {
                let reserved = self.producer()?.reserve_async().await;
                Some(reserved.map_err(|_| self.closed())?)
            }
            _ => self.reserve_now()?,
        };
        Ok(self.place(slot, times))
    }

    fn producer(&mut self) -> Result<&mut Producer<Meta>, SessionError> {
        let Self { producer, running, .. } = self;
        producer.as_mut().ok_or_else(|| running.shared.closed())
    }

    /// The error of a session that accepts no more frames.
    fn closed(&self) -> SessionError {
        self.running.shared.closed()
    }

    /// Reserves a slot without waiting.
    fn reserve_now(&mut self) -> Result<Option<WriteSlot<Meta>>, SessionError> {
        if self.on_full != OnFull::DropOldest {
            let reserved = self.producer()?.try_reserve();
            let slot = reserved.map_err(|_| self.closed())?;
            if slot.is_none() && self.on_full == OnFull::Error {
                return Err(self.overflow());
            }
            return Ok(slot);
        }
        let reserved = self.producer()?.try_reserve_over_oldest();
        let Some(got) = reserved.map_err(|_| self.closed())? else { return Ok(None) };
        if let Some(dropped) = got.dropped {
            // A request for a key frame is not dropped with its frame.
            self.is_key_due |= dropped.as_ref().is_some_and(|meta| meta.is_key);
            self.dropped(dropped.map(|meta| meta.number));
        }
        Ok(Some(got.slot))
    }

    /// Ends the session because the ring is full.
    fn overflow(&mut self) -> SessionError {
        let full = SessionError::Full { number: self.next_number, slots: self.slots };
        self.running.shared.fail(full.clone());
        self.running.shared.is_ending.store(true, SeqCst);
        self.producer = None;
        full
    }

    /// Counts a dropped frame.
    fn dropped(&self, number: Option<u64>) {
        let before = self.running.shared.counters.frames_dropped.fetch_add(1, Relaxed);
        if before == 0 {
            warn!(frame = number, "the encoder does not keep up: frames are dropped");
        } else {
            debug!(frame = number, "frame dropped");
        }
    }

    fn place(&mut self, slot: Option<WriteSlot<Meta>>, times: FrameTimes) -> Option<Slot> {
        self.running.shared.counters.frames_in.fetch_add(1, Relaxed);
        let number = self.next_number;
        self.next_number += 1;
        let Some(slot) = slot else {
            self.dropped(Some(number));
            return None;
        };
        let at = |rate: FrameRate| FrameTimes::at(rate.nanoseconds(number) as i64);
        Some(Slot {
            slot: Some(slot),
            layout: self.layout,
            options: self.options,
            may_share: self.may_share,
            captured: Captured {
                times: self.spread.map_or(times, at),
                reserved: self.running.shared.waiter.now(),
            },
            number,
            copies: 1,
            is_key: std::mem::take(&mut self.is_key_due),
            span: self.span.clone(),
        })
    }

    /// Makes the next frame that is reserved a key frame: an IDR picture with its parameter sets, at
    /// exactly that frame, also if another encoder takes over in between. The next key frame by
    /// [`gop_size`](encoder_core::EncoderConfig::gop_size) is counted from there. If the frame is
    /// dropped or left out, the next frame becomes the key frame.
    ///
    /// An encoder that takes no such requests, such as every encoder in FFmpeg's process, is drained
    /// and opened again at that frame: the picture is exact, and costs as much time as the start of
    /// the encoder (tenths of a second), during which frames wait in the ring.
    pub fn request_key_frame(&mut self) {
        self.is_key_due = true;
    }

    /// Converts a picture into the ring, on the calling thread. Waits while the ring is full, or
    /// applies [`SessionConfig::on_full`]. A picture that has the [`layout`](Self::layout) already
    /// (`i420` or `nv12` without padding) is not copied: its [`Bytes`](bytes::Bytes) are held until
    /// its slot is used again, so they should not be a small part of a large buffer. A picture that
    /// is damaged is handled by [`SessionConfig::on_bad_frame`].
    ///
    /// Blocks: while the picture is decoded and converted, which takes milliseconds; and while the
    /// ring is full, with [`OnFull::Block`].
    ///
    /// # Errors
    /// As [`reserve`](Self::reserve); [`SessionError::Picture`] for a picture that can never be in
    /// this video: it is not pushed, and the session accepts other pictures.
    pub fn push(&mut self, payload: &Payload, times: FrameTimes) -> Result<(), SessionError> {
        self.check(payload)?;
        if let Some(slot) = self.reserve(times)? {
            slot.decode(payload);
        }
        Ok(())
    }

    /// Refuses a picture that can never be in this video, before a slot is reserved for it.
    fn check(&self, payload: &Payload) -> Result<(), SessionError> {
        let checked = picture::check(payload, &self.options, &self.layout);
        checked.map_err(|error| match self.running.shared.failure() {
            Some(cause) => SessionError::Failed(cause),
            None => SessionError::Picture { number: self.next_number, error },
        })
    }

    /// As [`push`](Self::push), for a task of any executor: waits for a slot without blocking the
    /// thread, and converts the picture on a thread of the session, which the first call starts. The
    /// picture's bytes are shared, not copied, until it is converted; at most as many pictures wait
    /// as the ring has slots.
    ///
    /// The frames are in the order of the calls. `Ok` means that this frame is in the video, unless
    /// the session fails, or [`SessionConfig::on_bad_frame`] or [`SessionConfig::on_full`] leave it
    /// out.
    ///
    /// Cancel-safe: a future that is dropped before it is ready has pushed nothing.
    ///
    /// # Errors
    /// As [`push`](Self::push); [`SessionError::Thread`].
    pub async fn push_async(
        &mut self,
        payload: &Payload,
        times: FrameTimes,
    ) -> Result<(), SessionError> {
        self.check(payload)?;
        self.start_converter()?;
        // Nothing waits after the reservation, so a cancelled push has no slot.
        if let (Some(slot), Some(converter)) = (self.reserve_async(times).await?, &self.converter) {
            converter.push(slot, payload.clone());
        }
        Ok(())
    }

    fn start_converter(&mut self) -> Result<(), SessionError> {
        if self.converter.is_none() {
            let shared = Arc::clone(&self.running.shared);
            self.converter = Some(Converter::start(shared).map_err(SessionError::thread)?);
        }
        Ok(())
    }

    /// Closes the ring, waits until everything is encoded and written, and returns the report.
    ///
    /// Blocks: until the frames in the ring are encoded and the sink is finished.
    ///
    /// # Errors
    /// The cause of the failure, the same that a push returns in [`SessionError::Failed`]; no file
    /// exists under the final name then. [`SessionError::Empty`] if the video has no frame.
    pub fn finish(self) -> Result<VideoReport, SessionError> {
        self.close().join()
    }

    /// As [`finish`](Self::finish), for a task of any executor.
    ///
    /// Not cancel-safe: dropping the future discards the video. To wait in a `select!`, call
    /// [`close`](Self::close) and await the [`Closing`] by reference, or give it a deadline:
    /// `session.close().with_deadline(limit).await`.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub async fn finish_async(self) -> Result<VideoReport, SessionError> {
        self.close().await
    }

    /// Discards the video as a drop does. Never waits; [`Closing::wait_ended`] of the returned value
    /// waits until nothing is left.
    pub fn discard(self) -> Closing {
        self.running.discard();
        self.close()
    }

    /// Closes the ring and returns at once, so that the next segment can begin while the rest is
    /// encoded.
    #[must_use = "dropping it discards the video"]
    pub fn close(self) -> Closing {
        let Self { running, producer, converter, .. } = self;
        running.shared.is_ending.store(true, SeqCst);
        running.shared.counters.set_state(SessionState::Closing);
        drop((producer, converter));
        running
    }
}
