use std::{
    any::Any,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use encoder_core::{EncodeError, OpenError, panic_text};
use encoder_media::{Location, SinkError};
use encoder_ringbuf::RingError;
use thiserror::Error;

use crate::PoolError;

/// Why a video could not be made.
///
/// The text of an error contains that of its cause;
/// [`source`](std::error::Error::source) returns nothing that was displayed already.
#[derive(Clone, Debug, Error)]
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
    /// The session has failed before, with this error. No more frames are accepted.
    #[error("{0}")]
    Failed(Arc<SessionError>),
    /// The session got no share of its pool.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// [`Closing::abort`](crate::Closing::abort) ended the session.
    #[error("the session was aborted")]
    Aborted,
    /// The session did not end before its deadline, and was stopped.
    #[error("the session did not end within {} s{}", .limit.as_secs_f64(), stuck(*.is_stuck))]
    Deadline {
        /// The time that it had to end.
        limit: Duration,
        /// Whether its thread is still inside a call of an encoder or a sink of this process.
        is_stuck: bool,
    },
    /// The session was dropped or discarded before its end.
    #[error("the session was dropped before its end")]
    Ended,
    /// The sink of a session called `finish` or `join` of the same session, which would wait for
    /// itself. The session is dropped.
    #[error("a sink cannot wait for the end of its own session")]
    OwnThread,
    /// Code outside of this crate panicked: a sink, an encoder, a waker, a recorder of metrics.
    #[error("{place} panicked: {text}")]
    Panicked {
        /// The code that panicked.
        place: Panicked,
        /// The text of the panic.
        text: String,
    },
    /// An encoder or a user of the session broke its contract.
    #[error("internal error: {0}; please report it")]
    Internal(String),
}

impl SessionError {
    /// The error itself, without [`Failed`](Self::Failed) and [`Kept`](Self::Kept) around it.
    pub fn cause(&self) -> &Self {
        match self {
            Self::Failed(error) => error.cause(),
            Self::Kept { error, .. } => error.cause(),
            error => error,
        }
    }
}

fn stuck(is_stuck: bool) -> &'static str {
    if is_stuck { ", and does not return from a call of its encoder or its sink" } else { "" }
}

/// The code that panicked on the thread of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Panicked {
    /// The sink: a callback, for example.
    Sink,
    /// Anything else that the session's thread calls: an encoder, a waker, a recorder of metrics.
    Worker,
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sink => "the sink",
            Self::Worker => "the encoder's thread",
        })
    }
}

/// The error for a panic.
pub(super) fn panicked(place: Panicked, panic: &(dyn Any + Send)) -> SessionError {
    SessionError::Panicked { place, text: panic_text(panic).to_owned() }
}

/// The result of `work`; a panic is an error with its text.
pub(super) fn caught<T>(
    place: Panicked,
    work: impl FnOnce() -> Result<T, SessionError>,
) -> Result<T, SessionError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panicked(place, &*panic)))
}
