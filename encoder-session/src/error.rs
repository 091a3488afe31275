use std::any::Any;

use encoder_core::{EncodeError, OpenError};
use encoder_media::{Location, SinkError};
use encoder_ringbuf::{Closed, RingError};
use thiserror::Error;

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

pub(super) fn ended(_: Closed) -> SessionError {
    SessionError::Ended
}

/// A panic of the encoder's thread, with its text.
pub(super) fn panicked(panic: &(dyn Any + Send)) -> SessionError {
    SessionError::Internal(format!("the encoder's thread panicked: {}", panic_text(panic)))
}

/// The text of a panic.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref().copied()).unwrap_or("it has no text")
}
