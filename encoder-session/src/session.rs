//! A video that is being encoded.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::Ordering::{Relaxed, SeqCst},
};

use encoder_core::{Chain, EncoderType, FrameLayout, FrameRate, Resolution};
use encoder_media::{
    Payload, Sink,
    timeline::{self, FrameTimes, StreamingTimeline, TimestampAnalysis},
};
use encoder_picture::PictureOptions;
use encoder_ringbuf::{Heap, Producer, RingOptions, WriteSlot, ring_in};
use tracing::{Span, debug, error_span, field::Empty, warn};

use crate::{
    Closing, Counters, OnFull, SessionConfig, SessionError, Slot, VideoReport,
    closing::{Fault, SharedSink},
    engine::{self, Engine},
    error::ended,
    metrics::{self, Meter},
    output_check::OutputCheck,
    slot::{Captured, Meta},
    worker::{Parts, Worker},
};

/// A video that is being encoded. Dropping it before it is finished leaves no file.
pub struct Session {
    // Dropped before the producer: without the producer, the end of the ring means the end of the
    // video.
    running: Closing,
    /// `None` once the session has failed because of a full ring.
    producer: Option<Producer<Meta>>,
    layout: FrameLayout,
    options: PictureOptions,
    may_share: bool,
    encoder: EncoderType,
    next_number: u64,
    /// The next frame becomes a key frame.
    is_key_due: bool,
    on_full: OnFull,
    /// The constant rate, if frames may be dropped: frames are numbered before they are dropped.
    spread: Option<FrameRate>,
    slots: usize,
    /// The span that contains all log messages of the session.
    span: Span,
}

impl Session {
    /// Opens an encoder for pictures of `size` and starts its thread.
    ///
    /// # Errors
    /// [`SessionError::Open`] or [`SessionError::Ring`].
    pub fn open(
        size: Resolution,
        config: &SessionConfig,
        sink: Box<dyn Sink>,
    ) -> Result<Self, SessionError> {
        let span = error_span!("session", encoder = Empty, size = %size, part = config.part);
        let entered = span.enter();
        let mut settings = config.settings.clone();
        settings.encoder.resolution = Some(size);
        let (b_frames, gop_size) = (settings.encoder.b_frames, settings.encoder.gop_size);
        let check = OutputCheck::new(settings.gpu.check_output, settings.encoder.codec, size);
        let wished =
            if settings.gpu.enable_ring_buffer { settings.gpu.ring_buffer_size } else { 0 };
        let rate = settings.encoder.frame_rate;
        let camera = config.camera_label.as_deref();
        let waiter = config.waiter.child();
        let mut chain =
            Chain::new(&config.plan, settings, config.threads)?.with_waiter(waiter.clone());
        let is_ending = chain.ending_flag();
        let encoder = chain.open().inspect_err(|error| metrics::not_opened(error, camera))?;
        let meter = Meter::new(encoder.encoder_type(), encoder.load(), camera);
        let layout = FrameLayout::new(encoder.pixel_format(), size);
        chain.prefer_format(layout.format);
        // The ring cannot deadlock with this number of slots, whichever encoder of the chain is
        // active: an encoder may hold `max_delay` frames, and B-frames delay the emission of other
        // access units. Beyond that, one frame is being read, one is kept for repetition, and one
        // is being written.
        let held = engine::max_reorder(b_frames.into()) as usize + check.delay();
        let least = chain.max_delay() + held + 3;
        let slots = wished.max(least);
        let options = RingOptions { slots, slot_bytes: layout.bytes() };
        let allocator = config.allocator(encoder.encoder_type());
        let (producer, consumer) = ring_in(options, allocator.unwrap_or(&Heap))?;
        let counters = Arc::new(Counters::default());
        let id = encoder.encoder_type();
        let sink: SharedSink = Arc::new(Mutex::new(Some(sink)));
        let fault = Fault::default();
        let (timing, spread) = config.spread();
        let worker = Worker::new(Parts {
            consumer,
            engine: Engine::new(
                chain,
                encoder,
                layout,
                (b_frames.into(), gop_size.into()),
                check,
                meter,
            ),
            sink: Arc::clone(&sink),
            fault: Arc::clone(&fault),
            layout,
            on_bad_frame: config.on_bad_frame,
            counters: Arc::clone(&counters),
            analysis: TimestampAnalysis::new(timing, rate, timeline::reorder(b_frames)),
            timeline: StreamingTimeline::new(timing, rate),
        });
        let of_thread = span.clone();
        let thread = std::thread::Builder::new()
            .name(format!("encode-{id}"))
            .spawn(move || {
                let _entered = of_thread.enter();
                worker.run()
            })
            .map_err(|e| SessionError::Internal(format!("no thread: {e}")))?;
        drop(entered);
        Ok(Self {
            running: Closing { thread: Some(thread), sink, counters, fault, waiter, is_ending },
            producer: Some(producer),
            layout,
            options: config.picture,
            may_share: allocator.is_none(),
            encoder: id,
            next_number: 0,
            is_key_due: false,
            on_full: config.on_full,
            spread,
            slots,
            span,
        })
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

    /// Counts that grow while the session runs.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.running.counters
    }

    /// Reserves the slot of the next frame, in order. Waits while the ring is full, or applies
    /// [`SessionConfig::on_full`]; returns `None` if the frame is dropped. The picture may be
    /// written on another thread.
    ///
    /// # Errors
    /// [`SessionError::Ended`] when the session has failed, [`SessionError::Full`] if the ring is
    /// full and [`OnFull::Error`] is set.
    pub fn reserve(&mut self, times: FrameTimes) -> Result<Option<Slot>, SessionError> {
        let slot = match self.on_full {
            OnFull::Block => Some(self.producer()?.reserve().map_err(ended)?),
            _ => self.reserve_now()?,
        };
        Ok(self.place(slot, times))
    }

    fn producer(&mut self) -> Result<&mut Producer<Meta>, SessionError> {
        self.producer.as_mut().ok_or(SessionError::Ended)
    }

    /// Reserves a slot without waiting.
    fn reserve_now(&mut self) -> Result<Option<WriteSlot<Meta>>, SessionError> {
        if self.on_full != OnFull::DropOldest {
            let slot = self.producer()?.try_reserve().map_err(ended)?;
            if slot.is_none() && self.on_full == OnFull::Error {
                return Err(self.overflow());
            }
            return Ok(slot);
        }
        let Some(got) = self.producer()?.try_reserve_over_oldest().map_err(ended)? else {
            return Ok(None);
        };
        if let Some(dropped) = got.dropped {
            // A request for a key frame is not dropped with its frame.
            self.is_key_due |= dropped.as_ref().is_some_and(|meta| meta.is_key);
            self.dropped(dropped.map(|meta| meta.number));
        }
        Ok(Some(got.slot))
    }

    /// Ends the session because the ring is full.
    fn overflow(&mut self) -> SessionError {
        let full = || SessionError::Full { number: self.next_number, slots: self.slots };
        *self.running.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(full());
        let full = full();
        self.running.is_ending.store(true, SeqCst);
        self.producer = None;
        full
    }

    /// Counts a dropped frame.
    fn dropped(&self, number: Option<u64>) {
        let before = self.running.counters.frames_dropped.fetch_add(1, Relaxed);
        if before == 0 {
            warn!(frame = number, "the encoder does not keep up: frames are dropped");
        } else {
            debug!(frame = number, "frame dropped");
        }
    }

    fn place(&mut self, slot: Option<WriteSlot<Meta>>, times: FrameTimes) -> Option<Slot> {
        self.running.counters.frames_in.fetch_add(1, Relaxed);
        let number = self.next_number;
        self.next_number += 1;
        let Some(slot) = slot else {
            self.dropped(Some(number));
            return None;
        };
        let at = |rate: FrameRate| FrameTimes::at(rate.nanoseconds(number) as i64);
        Some(Slot {
            slot,
            layout: self.layout,
            options: self.options,
            may_share: self.may_share,
            captured: Captured {
                times: self.spread.map_or(times, at),
                reserved: self.running.waiter.now(),
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
    /// cannot be decoded is handled by [`SessionConfig::on_bad_frame`].
    ///
    /// # Errors
    /// As [`reserve`](Self::reserve).
    pub fn push(&mut self, payload: &Payload, times: FrameTimes) -> Result<(), SessionError> {
        if let Some(slot) = self.reserve(times)? {
            slot.fill(payload);
        }
        Ok(())
    }

    /// Like [`push`](Self::push), but waits for a slot without blocking the thread. The conversion
    /// itself runs on the calling task.
    ///
    /// # Errors
    /// As [`reserve`](Self::reserve).
    pub async fn push_async(
        &mut self,
        payload: &Payload,
        times: FrameTimes,
    ) -> Result<(), SessionError> {
        let slot = match self.on_full {
            OnFull::Block => Some(self.producer()?.reserve_async().await.map_err(ended)?),
            _ => self.reserve_now()?,
        };
        if let Some(slot) = self.place(slot, times) {
            slot.fill(payload);
        }
        Ok(())
    }

    /// Closes the ring, waits until everything is encoded and written, and returns the report.
    ///
    /// # Errors
    /// The cause of the failure; no file exists under the final name then.
    pub fn finish(self) -> Result<VideoReport, SessionError> {
        self.close().join()
    }

    /// Closes the ring and returns at once, so that the next segment can begin while the rest is
    /// encoded.
    pub fn close(self) -> Closing {
        let Self { running, producer, .. } = self;
        running.is_ending.store(true, SeqCst);
        drop(producer);
        running
    }
}
