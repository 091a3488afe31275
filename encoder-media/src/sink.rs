use std::{io, time::Duration};

use encoder_core::EncodedChunk;
use thiserror::Error;

use crate::{
    Location,
    timeline::{FrameTimes, Timeline},
};

/// The reason why an output could not be written.
///
/// The text of an error contains that of its cause, so [`source`](std::error::Error::source)
/// returns nothing that was displayed already; [`io_error`](Self::io_error) returns the error of
/// the operating system.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SinkError {
    /// The operating system, or a server, returned an error.
    #[error("{at}: {error}")]
    Io {
        /// The output that was written.
        at: Location,
        /// The error of the system.
        error: io::Error,
    },
    /// The access units cannot be stored in this container.
    #[error("{at}: {reason}")]
    Stream {
        /// The output that was written.
        at: Location,
        /// What is wrong with the stream.
        reason: String,
    },
    /// The destination does not accept this video.
    #[error("{at}: {reason}")]
    Refused {
        /// The destination.
        at: Location,
        /// The reason for the refusal.
        reason: String,
    },
    /// The video could not be completed, but everything that was encoded is kept.
    #[error("{error}; what was written is kept in {kept}")]
    Unfinished {
        /// What went wrong.
        error: Box<SinkError>,
        /// The location of the access units.
        kept: Location,
    },
}

impl SinkError {
    /// An [`Io`](Self::Io) error for the output `at`, for `map_err`.
    pub fn io(at: impl Into<Location>) -> impl Fn(io::Error) -> Self {
        let at = at.into();
        move |error| Self::Io { at: at.clone(), error }
    }

    /// A [`Stream`](Self::Stream) error.
    pub fn stream(at: impl Into<Location>, reason: impl Into<String>) -> Self {
        Self::Stream { at: at.into(), reason: reason.into() }
    }

    /// A [`Refused`](Self::Refused) error.
    pub fn refused(at: impl Into<Location>, reason: impl Into<String>) -> Self {
        Self::Refused { at: at.into(), reason: reason.into() }
    }

    /// This error, with the location where the access units are kept.
    #[must_use]
    pub fn kept(self, kept: impl Into<Location>) -> Self {
        Self::Unfinished { error: Box::new(self), kept: kept.into() }
    }

    /// The error of the operating system, if it is the cause.
    pub fn io_error(&self) -> Option<&io::Error> {
        match self {
            Self::Io { error, .. } => Some(error),
            Self::Unfinished { error, .. } => error.io_error(),
            _ => None,
        }
    }
}

/// The output of a video, or of a destination as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finished {
    /// The location of the output, if it has its own.
    pub location: Option<Location>,
    /// Warnings for the user, besides those of the timeline.
    pub warnings: Vec<String>,
    /// Number of times that were estimated, if the sink does not use those of the [`Timeline`]. The
    /// warnings of the timeline are about other times then, and are not reported.
    pub times_guessed: Option<u64>,
}

impl Finished {
    /// An output at `location`, without warnings.
    pub fn at(location: impl Into<Location>) -> Self {
        Self { location: Some(location.into()), ..Self::default() }
    }

    /// The warnings about the times of the video, and the number of times that were estimated:
    /// those of `timeline`, unless the sink laid out the frames itself.
    pub fn judgement(&self, timeline: &Timeline) -> (Vec<String>, u64) {
        match self.times_guessed {
            Some(guessed) => (Vec::new(), guessed),
            None => (timeline.warnings.clone(), timeline.guessed),
        }
    }

    /// Adds warnings.
    #[must_use]
    pub fn with_warnings(mut self, warnings: impl IntoIterator<Item = String>) -> Self {
        self.warnings.extend(warnings);
        self
    }

    /// Sets the number of times that were estimated: for a sink that lays out the frames itself.
    #[must_use]
    pub fn with_guessed_times(mut self, times: u64) -> Self {
        self.times_guessed = Some(times);
        self
    }
}

/// An access unit, as a [`Sink`] receives it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AccessUnit {
    /// The coded picture, its place in display order and in decoding order.
    pub chunk: EncodedChunk,
    /// When the frame was captured, by both clocks, as recorded.
    pub times: FrameTimes,
    /// When the picture is displayed, in nanoseconds from the first picture of the video, as far as
    /// it can be known before the end of the stream: the time that a fragmented MP4 file has for
    /// it. The [`Timeline`] at the end may differ where only the whole stream shows which stamps
    /// cannot be true. `None` for a frame that was not encoded here, but copied.
    pub display_ns: Option<u64>,
    /// The time from the reservation of the frame's slot until the access unit was complete.
    /// `None` for a frame that was not encoded here, but copied.
    pub latency: Option<Duration>,
}

impl AccessUnit {
    /// An access unit of a frame with these recorded times; `display_ns` and `latency` are `None`.
    pub const fn new(chunk: EncodedChunk, times: FrameTimes) -> Self {
        Self { chunk, times, display_ns: None, latency: None }
    }

    /// Sets when the picture is displayed.
    #[must_use]
    pub const fn with_display_ns(mut self, ns: u64) -> Self {
        self.display_ns = Some(ns);
        self
    }

    /// Sets the time from the reservation of the slot to the access unit.
    #[must_use]
    pub const fn with_latency(mut self, latency: Duration) -> Self {
        self.latency = Some(latency);
        self
    }
}

/// Receives the access units of one video.
///
/// Dropping a sink that was neither finished nor abandoned leaves no file, unless a panic drops
/// it: then what was written is kept.
pub trait Sink: Send {
    /// Writes the next access unit in decoding order. With B-frames, access units are written in
    /// groups that are complete in display order.
    ///
    /// # Errors
    /// [`SinkError`]; the sink accepts no access units after an error.
    fn write(&mut self, unit: AccessUnit) -> Result<(), SinkError>;

    /// Completes the video. `timeline` maps the times of all frames to ticks.
    ///
    /// # Errors
    /// [`SinkError`]; then the final name holds only a file that existed before.
    fn finish(self: Box<Self>, timeline: &Timeline) -> Result<Finished, SinkError>;

    /// Called if the video cannot be completed. Keeps what was written, if it is useful, and
    /// returns its location.
    fn abandon(self: Box<Self>) -> Option<Location> {
        None
    }

    /// Whether the sink stores the times of the frames. Access units whose order differs from the
    /// display order can be copied only to a sink that does not store times.
    fn has_times(&self) -> bool {
        true
    }

    /// The file that is being written, if a panic in [`finish`](Self::finish) or
    /// [`abandon`](Self::abandon) leaves it in place: after a panic only its name can be reported.
    fn part_file(&self) -> Option<&std::path::Path> {
        None
    }
}

/// A sink that passes every access unit to a function: for embedding.
pub struct CallbackSink<F>(pub F);

impl<F: FnMut(AccessUnit) + Send> Sink for CallbackSink<F> {
    fn write(&mut self, unit: AccessUnit) -> Result<(), SinkError> {
        (self.0)(unit);
        Ok(())
    }

    fn finish(self: Box<Self>, _timeline: &Timeline) -> Result<Finished, SinkError> {
        Ok(Finished::default())
    }
}

#[cfg(test)]
mod tests {
    use std::{error::Error, path::Path};

    use super::*;

    #[test]
    fn an_error_names_its_cause_once() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let error = SinkError::io(Path::new("a.mp4.part"))(full()).kept(Path::new("a.mp4.part"));
        let text = error.to_string();
        assert_eq!(text.matches(&full().to_string()).count(), 1, "{text}");
        assert!(text.ends_with("; what was written is kept in a.mp4.part"), "{text}");
        assert!(error.source().is_none());
        assert_eq!(error.io_error().map(io::Error::kind), Some(io::ErrorKind::StorageFull));
        assert!(SinkError::refused(Path::new("a"), "full").io_error().is_none());
    }
}
