//! Encodes one video: a ring of frames, an encoder that reads from it, and a sink for the access
//! units.
//!
//! ```text
//! push / reserve ──► ring ──► encoder ──► sink
//!  caller's threads          a thread of the session
//! ```
//!
//! The encoder's thread reads slots in order, so several workers may decode pictures at once. A
//! slot is committed when the access units of its frame and of all frames displayed before it are
//! in the sink. When the encoder is lost, the next encoder of the plan, or the same encoder opened
//! again, encodes the frames without an access unit in the sink: they are still in the ring.

mod active;
mod engine;
mod fingerprint;
pub mod metrics;
mod output_check;
mod report;
mod setters;
mod slot;
mod worker;

use std::{
    any::Any,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    thread::JoinHandle,
};

use encoder_core::{
    Chain, EncodeError, EncoderType, FrameLayout, FrameRate, OpenError, Plan, Resolution, Settings,
    Waiter,
};
use encoder_ringbuf::{Closed, Heap, Producer, RingError, RingOptions, WriteSlot, ring_in};
use engine::Engine;
use output_check::OutputCheck;
pub use report::VideoReport;
use serde::Serialize;
use setters::Allocators;
use slot::Meta;
pub use slot::Slot;
use thiserror::Error;
use tracing::{Span, debug, error_span, field::Empty, warn};
use worker::{Parts, Worker};

use encoder_media::{
    Location, Payload, Sink, SinkError,
    timeline::{self, Clock, FrameTimes, TimestampAnalysis, Timing},
};
use encoder_picture::PictureOptions;
use metrics::Meter;

/// What to do with a frame that cannot be decoded. It is counted in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnBadFrame {
    /// Repeat the previous frame (before the first good frame: repeat that frame), so that the
    /// number of frames stays that of the recording.
    #[default]
    Repeat,
    /// Leave the frame out; later frames keep their times.
    Skip,
    /// End the video with an error.
    Fail,
}

/// What to do with a frame when the ring is full. All variants but the first are for live sources,
/// which cannot wait; each dropped frame is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFull {
    /// Wait for a free slot.
    #[default]
    Block,
    /// Drop the oldest frame that the encoder has not read; if it has read all, drop the new frame.
    DropOldest,
    /// Drop the new frame.
    DropNewest,
    /// End with [`SessionError::Full`].
    Error,
}

/// How a session works.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SessionConfig {
    /// The encoder's configuration; `encoder.resolution` is set from the size at opening.
    pub settings: Settings,
    /// Which encoders to try, in order.
    pub plan: Plan,
    /// Threads that a software encoder may use.
    pub threads: usize,
    /// How the frames are laid out in time.
    pub timing: Timing,
    /// What to do with frames that cannot be decoded.
    pub on_bad_frame: OnBadFrame,
    /// What to do with frames when the ring is full.
    pub on_full: OnFull,
    /// How to display pictures without colours, such as depth images.
    pub picture: PictureOptions,
    /// Value of the label `camera` of the session's [metrics]. Without it, the values of all
    /// sessions with the same encoder are added up.
    pub camera_label: Option<String>,
    /// Number of this file among those of its camera, for messages.
    pub part: Option<usize>,
    /// The clock of sessions, and the means to end their waits for a busy encoder: interrupting it
    /// ends the waits, stopping it ends the sessions that have no encoder at that time. A `Run`
    /// sets it to the waiter of its `Stop`.
    pub waiter: Waiter,
    allocators: Allocators,
}

impl SessionConfig {
    /// Recorded times from the header stamps, bad frames repeated, one encoder thread.
    pub fn new(settings: Settings, plan: Plan) -> Self {
        Self {
            settings,
            plan,
            threads: 1,
            timing: Timing::Recorded(Clock::Header),
            on_bad_frame: OnBadFrame::default(),
            on_full: OnFull::default(),
            picture: PictureOptions::default(),
            camera_label: None,
            part: None,
            waiter: Waiter::new(),
            allocators: Allocators::new(),
        }
    }
}

impl SessionConfig {
    /// How frames are laid out in time, and the constant rate that their numbers are computed from.
    /// A dropped frame leaves its time empty, also at a constant rate.
    pub fn spread(&self) -> (Timing, Option<FrameRate>) {
        match self.timing {
            Timing::Rate(rate) if self.on_full != OnFull::Block => {
                (Timing::Numbered(rate), Some(rate))
            }
            timing => (timing, None),
        }
    }
}

/// Why a video could not be made.
///
/// The text of an error contains that of its cause;
/// [`source`](std::error::Error::source) returns nothing that was displayed already.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SessionError {
    /// No encoder opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The ring could not be allocated.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The encoder failed repeatedly, with no fallback left.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The encoder failed, and no other took over.
    #[error("{error}; no other encoder took over: {left}")]
    Lost {
        /// How it failed.
        error: Box<EncodeError>,
        /// Why no other encoder took over.
        left: Box<OpenError>,
    },
    /// The output could not be written.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// A bad frame, and [`OnBadFrame::Fail`].
    #[error("frame {number} cannot be decoded: {reason}")]
    BadFrame {
        /// Number of the frame in its stream.
        number: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The ring is full, and [`OnFull::Error`].
    #[error(
        "the encoder does not keep up: its ring of {slots} frames is full at frame {number}; use a \
         faster preset or a larger gpu.ring_buffer_size, or let frames be dropped"
    )]
    Full {
        /// Number of the frame in its stream.
        number: u64,
        /// Frames in the ring.
        slots: usize,
    },
    /// The session failed; what was written before the error is kept.
    #[error("{error}; what was written so far is in {part}")]
    Kept {
        /// What went wrong.
        error: Box<SessionError>,
        /// The output that is playable up to the error.
        part: Location,
    },
    /// A recorded H.264 stream that is copied cannot be continued, for this reason.
    #[error("the H.264 stream cannot be copied: {0}")]
    Stream(String),
    /// The session has failed before; [`Session::finish`] returns the cause.
    #[error("the session has ended")]
    Ended,
    /// A thread of the session panicked, or the encoder broke its contract.
    #[error("internal error: {0}; please report it")]
    Internal(String),
}

/// Counts that grow while a session runs.
#[derive(Debug, Default)]
pub struct Counters {
    /// Frames that were pushed, including bad frames.
    pub frames_in: AtomicU64,
    /// Frames that are in the video together with all frames displayed before them.
    pub frames_encoded: AtomicU64,
    /// Frames of the video that repeat an earlier or later picture.
    pub frames_repeated: AtomicU64,
    /// Frames that could not be decoded.
    pub frames_failed: AtomicU64,
    /// Frames that were dropped because the ring was full, or because the run was stopped and no
    /// encoder worked.
    pub frames_dropped: AtomicU64,
    /// Bytes of access units.
    pub bytes_out: AtomicU64,
}

/// Consecutive frames encoded by the same encoder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EncoderSpan {
    /// Which encoder.
    pub encoder: EncoderType,
    /// How the encoder ran.
    pub description: String,
    /// Number of frames.
    pub frames: u64,
}

/// Changes of the encoder in mid-stream with the same encoders and cause. All of them share one
/// entry, so that the list stays short however long the stream is. No frame is lost by a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failover {
    /// The first frame that the new encoder encoded, at the first change.
    pub frame: u64,
    /// The same at the latest change.
    pub last_frame: u64,
    /// How many changes there were.
    pub count: u64,
    /// The encoder before the change.
    pub from: EncoderType,
    /// The encoder after the change; the same if it was opened again.
    pub to: EncoderType,
    /// `died`, `stalled`, `wrong-output`, `wrong-picture`, `failed`, `refused`, or `failback` for the return to a
    /// better encoder.
    pub cause: &'static str,
    /// The error of the encoder before, at the latest change.
    pub reason: String,
}

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
    on_full: OnFull,
    /// The constant rate, if frames may be dropped: frames are numbered before they are dropped.
    spread: Option<FrameRate>,
    slots: usize,
    /// The span that contains all log messages of the session.
    span: Span,
}

fn ended(_: Closed) -> SessionError {
    SessionError::Ended
}

/// Holds the sink of a session. Dropping a session removes the sink from the worker thread, so that
/// its files are deleted when the drop returns, whatever the encoder is doing.
type SharedSink = Arc<Mutex<Option<Box<dyn Sink>>>>;

/// Why the frames ended, if the video is not complete.
type Fault = Arc<Mutex<Option<SessionError>>>;

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
        let least = chain.max_delay().max(encoder.max_delay()) + held + 3;
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
            times: self.spread.map_or(times, at),
            number,
            copies: 1,
            span: self.span.clone(),
        })
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

/// A session that accepts no more frames. Dropping it before it has ended leaves no file.
pub struct Closing {
    thread: Option<JoinHandle<Result<VideoReport, SessionError>>>,
    sink: SharedSink,
    fault: Fault,
    /// Stopped when the session is dropped, so that its thread ends its wait for an encoder.
    waiter: Waiter,
    /// Whether the ring has been closed.
    is_ending: Arc<AtomicBool>,
    /// Counts that grow until the session has ended.
    pub counters: Arc<Counters>,
}

impl Closing {
    /// Waits until the session has ended.
    ///
    /// # Errors
    /// As [`Session::finish`].
    pub fn join(mut self) -> Result<VideoReport, SessionError> {
        let ended = self.thread.take().map(JoinHandle::join);
        ended.map_or(Err(SessionError::Ended), |ended| {
            ended.unwrap_or_else(|panic| Err(panicked(&*panic)))
        })
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.is_ending.store(true, SeqCst);
        self.waiter.stop();
        drop(lock(&self.sink).take());
    }
}

/// A panic of the encoder's thread, with its text.
fn panicked(panic: &(dyn Any + Send)) -> SessionError {
    SessionError::Internal(format!("the encoder's thread panicked: {}", panic_text(panic)))
}

/// The text of a panic.
fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref().copied()).unwrap_or("it has no text")
}

/// Locks the sink, also after a panic under the lock: the sink can still be abandoned or dropped.
fn lock(sink: &SharedSink) -> std::sync::MutexGuard<'_, Option<Box<dyn Sink>>> {
    sink.lock().unwrap_or_else(PoisonError::into_inner)
}
