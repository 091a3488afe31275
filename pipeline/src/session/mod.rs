//! One video: a ring, an encoder behind it, a sink behind that.
//!
//! ```text
//! push / reserve ──► ring ──► encoder ──► sink
//!  caller's threads          a thread of the session
//! ```
//!
//! The encoder's thread takes slots in order, so pictures may be decoded by several workers at
//! once. A slot is committed when the access units of its frame and of all frames shown before it
//! are in the sink.

mod worker;

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
};

use encoder_core::{
    Chain, EncodeError, EncoderType, FrameLayout, OpenError, Plan, Refusal, Resolution, Settings,
};
use encoder_ringbuf::{Producer, RingError, RingOptions, WriteSlot, ring};
use thiserror::Error;
use tracing::{Span, error_span, field::Empty};
use worker::{Parts, Worker};

use crate::{
    metrics::{self, Meter},
    mux::{Sink, SinkError},
    picture::{self, PictureError, PictureOptions},
    source::Payload,
    timeline::{Clock, FrameTimes, Timeline, Timing},
};

/// What to do with a frame that cannot be decoded. It is counted in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnBadFrame {
    /// Show the frame before it again (before the first good frame: that one), so that the number
    /// of frames stays that of the recording.
    #[default]
    Repeat,
    /// Leave it out; the frames behind it keep their times.
    Skip,
    /// End the video with an error.
    Fail,
}

/// How a session works.
#[derive(Clone, Debug)]
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
    /// How to show what is no colour picture.
    pub picture: PictureOptions,
    /// Value of the label `camera` of the session's [metrics](crate::metrics); without one, all
    /// sessions with the same encoder add up.
    pub camera_label: Option<String>,
    /// Which file of its camera this is, for messages.
    pub part: Option<usize>,
}

impl SessionConfig {
    /// Recorded times by the header stamps, bad frames repeated, one encoder thread.
    pub fn new(settings: Settings, plan: Plan) -> Self {
        Self {
            settings,
            plan,
            threads: 1,
            timing: Timing::Recorded(Clock::Header),
            on_bad_frame: OnBadFrame::default(),
            picture: PictureOptions::default(),
            camera_label: None,
            part: None,
        }
    }
}

/// Why a video could not be made.
#[derive(Debug, Error)]
pub enum SessionError {
    /// No encoder opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The ring could not be made.
    #[error("the ring: {0}")]
    Ring(#[from] RingError),
    /// The encoder died.
    #[error(transparent)]
    Encode(#[from] EncodeError),
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
    /// The session has failed before; [`Session::finish`] tells why.
    #[error("the session has ended")]
    Ended,
    /// A thread of the session panicked, or the encoder broke its contract.
    #[error("internal error: {0}; please report it")]
    Internal(String),
}

/// Counts that grow while a session runs.
#[derive(Debug, Default)]
pub struct Counters {
    /// Frames that were handed in, bad ones included.
    pub frames_in: AtomicU64,
    /// Frames that went into the encoder.
    pub frames_encoded: AtomicU64,
    /// Of these, those that show an earlier or later picture again.
    pub frames_repeated: AtomicU64,
    /// Frames that could not be decoded.
    pub frames_failed: AtomicU64,
    /// Bytes of access units.
    pub bytes_out: AtomicU64,
}

/// What became of a session.
#[derive(Clone, Debug)]
pub struct SessionReport {
    /// The encoder that was really used.
    pub encoder: EncoderType,
    /// How it ran.
    pub description: String,
    /// Encoders that were passed over, with reason and cure.
    pub refusals: Vec<Refusal>,
    /// Coded size of the pictures in pixels.
    pub size: Resolution,
    /// The file; `None` where the sink writes none, or no frame was good.
    pub file: Option<PathBuf>,
    /// Frames that were handed in, bad ones included.
    pub frames_in: u64,
    /// Frames in the video.
    pub frames_encoded: u64,
    /// Of these, those that show another picture again.
    pub frames_repeated: u64,
    /// Frames that could not be decoded.
    pub frames_failed: u64,
    /// The first of the bad frames: number and reason.
    pub failures: Vec<(u64, String)>,
    /// Bytes of access units.
    pub bytes_out: u64,
    /// Length of the video in seconds.
    pub duration_s: f64,
    /// Recorded time of the first frame in nanoseconds.
    pub first_ns: Option<i64>,
    /// Recorded time of the last frame in nanoseconds.
    pub last_ns: Option<i64>,
    /// What a user should know.
    pub warnings: Vec<String>,
}

/// What the ring carries beside the picture.
struct Meta {
    times: FrameTimes,
    number: u64,
    copies: u32,
    outcome: Result<(), String>,
}

/// A video that is being made. Dropping it unfinished leaves no file.
pub struct Session {
    // Before the producer: once that is gone, an end of the ring looks like the end of the video.
    running: Closing,
    producer: Producer<Meta>,
    layout: FrameLayout,
    options: PictureOptions,
    encoder: EncoderType,
    next_number: u64,
    /// All messages that concern the session are inside of it.
    span: Span,
}

/// Where the access units go. Who drops a session takes the sink away from its thread, and so the
/// files are gone when the drop returns, whatever the encoder is doing.
type SharedSink = Arc<Mutex<Option<Box<dyn Sink>>>>;

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
        let b_frames = settings.encoder.b_frames;
        let wished =
            if settings.gpu.enable_ring_buffer { settings.gpu.ring_buffer_size } else { 0 };
        let rate = settings.encoder.frame_rate;
        let camera = config.camera_label.as_deref();
        let mut chain = Chain::new(&config.plan, settings, config.threads)?;
        let encoder = chain.open().inspect_err(|error| metrics::not_opened(error, camera))?;
        span.record("encoder", encoder.encoder_type().as_str());
        let meter = Meter::new(encoder.encoder_type(), encoder.load(), camera);
        chain.refusals().iter().for_each(|refusal| meter.refusal(refusal));
        let layout = FrameLayout::new(encoder.pixel_format(), size);
        chain.prefer_format(layout.format);
        // An encoder may hold `max_delay` frames, its B-frames may keep others from being shown,
        // one more is being read, one is kept in case that it must be repeated, one is being
        // written: with these the ring cannot lock, whichever encoder of the chain it comes to.
        let least = chain.max_delay().max(encoder.max_delay()) + usize::from(b_frames) + 3;
        let (producer, consumer) =
            ring(RingOptions { slots: wished.max(least), slot_bytes: layout.bytes() })?;
        let counters = Arc::new(Counters::default());
        let reorder = match b_frames {
            0 => 0,
            n => u32::from(n) + 1,
        };
        let id = encoder.encoder_type();
        let sink: SharedSink = Arc::new(Mutex::new(Some(sink)));
        let worker = Worker::new(Parts {
            consumer,
            chain,
            encoder,
            sink: Arc::clone(&sink),
            layout,
            on_bad_frame: config.on_bad_frame,
            counters: Arc::clone(&counters),
            b_frames: b_frames.into(),
            meter,
        });
        let timing = config.timing;
        let of_thread = span.clone();
        let thread = std::thread::Builder::new()
            .name(format!("encode-{id}"))
            .spawn(move || {
                let _entered = of_thread.enter();
                worker.run(|frames| Timeline::new(timing, frames, rate, reorder))
            })
            .map_err(|e| SessionError::Internal(format!("no thread: {e}")))?;
        drop(entered);
        Ok(Self {
            running: Closing { thread: Some(thread), sink, counters },
            producer,
            layout,
            options: config.picture,
            encoder: id,
            next_number: 0,
            span,
        })
    }

    /// The encoder that was opened first. The one that is really used, should this one refuse its
    /// first frame, is in the report.
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

    /// Takes the place of the next frame, in order. Waits while the ring is full. The picture may
    /// be filled in on another thread.
    ///
    /// # Errors
    /// [`SessionError::Ended`] when the session has failed.
    pub fn reserve(&mut self, times: FrameTimes) -> Result<Slot, SessionError> {
        let slot = self.producer.reserve().map_err(|_| SessionError::Ended)?;
        Ok(self.slot(slot, times))
    }

    fn slot(&mut self, slot: WriteSlot<Meta>, times: FrameTimes) -> Slot {
        self.running.counters.frames_in.fetch_add(1, Relaxed);
        let number = self.next_number;
        self.next_number += 1;
        Slot {
            slot,
            layout: self.layout,
            options: self.options,
            times,
            number,
            copies: 1,
            span: self.span.clone(),
        }
    }

    /// Converts a picture into the ring, on the calling thread. Waits while the ring is full. A
    /// picture that cannot be decoded is treated as [`SessionConfig::on_bad_frame`] says.
    ///
    /// # Errors
    /// [`SessionError::Ended`] when the session has failed.
    pub fn push(&mut self, payload: &Payload, times: FrameTimes) -> Result<(), SessionError> {
        self.reserve(times)?.fill(payload);
        Ok(())
    }

    /// As [`push`](Self::push), waiting for a place without blocking the thread. The conversion
    /// itself runs on the calling task.
    ///
    /// # Errors
    /// [`SessionError::Ended`] when the session has failed.
    pub async fn push_async(
        &mut self,
        payload: &Payload,
        times: FrameTimes,
    ) -> Result<(), SessionError> {
        let slot = self.producer.reserve_async().await.map_err(|_| SessionError::Ended)?;
        self.slot(slot, times).fill(payload);
        Ok(())
    }

    /// Closes the ring, waits until everything is encoded and written, and tells what became of
    /// it.
    ///
    /// # Errors
    /// Why the session failed; then no file stands under the final name.
    pub fn finish(self) -> Result<SessionReport, SessionError> {
        self.close().join()
    }

    /// Closes the ring and lets the rest run on: so that the next segment can begin at once.
    pub fn close(self) -> Closing {
        let Self { running, producer, .. } = self;
        producer.close();
        running
    }
}

/// A session that takes no more frames. Dropping it before it has ended leaves no file.
pub struct Closing {
    thread: Option<JoinHandle<Result<SessionReport, SessionError>>>,
    sink: SharedSink,
    /// Counts that grow until the session has ended.
    pub counters: Arc<Counters>,
}

impl Closing {
    /// Waits for the end.
    ///
    /// # Errors
    /// As [`Session::finish`].
    pub fn join(mut self) -> Result<SessionReport, SessionError> {
        let ended = self.thread.take().and_then(|thread| thread.join().ok());
        ended.unwrap_or_else(|| Err(SessionError::Internal("the encoder's thread panicked".into())))
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        drop(lock(&self.sink).take());
    }
}

/// A sink that panicked is still to be dropped.
fn lock(sink: &SharedSink) -> std::sync::MutexGuard<'_, Option<Box<dyn Sink>>> {
    sink.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The place of one frame in the ring.
pub struct Slot {
    slot: WriteSlot<Meta>,
    layout: FrameLayout,
    options: PictureOptions,
    times: FrameTimes,
    number: u64,
    copies: u32,
    span: Span,
}

impl Slot {
    /// Shows the picture `copies` times in a row: for a constant rate made of a varying one.
    #[must_use]
    pub fn times_in_a_row(mut self, copies: u32) -> Self {
        self.copies = copies;
        self
    }

    /// Names the frame by its number in the recording, for messages.
    #[must_use]
    pub fn numbered(mut self, number: u64) -> Self {
        self.number = number;
        self
    }

    /// Decodes a picture into its place.
    pub fn fill(mut self, payload: &Payload) {
        let (options, layout) = (self.options, self.layout);
        let span = self.span.clone();
        let _entered = span.enter();
        let memory = &mut *self.slot;
        // A decoder from elsewhere that panics costs this frame, not the recording.
        let decoded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            picture::decode(payload, &options, &layout, memory)
        }));
        let outcome = match decoded {
            Ok(outcome) => outcome,
            Err(_) => Err(PictureError::Broken("the decoder panicked".into())),
        };
        self.publish(outcome.map_err(|error| error.to_string()));
    }

    /// Says that there is no picture, and why.
    pub fn fail(self, reason: impl Into<String>) {
        self.publish(Err(reason.into()));
    }

    fn publish(self, outcome: Result<(), String>) {
        let Self { slot, times, number, copies, .. } = self;
        slot.publish(Meta { times, number, copies, outcome });
    }
}
