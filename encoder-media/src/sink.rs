use std::{error::Error as StdError, io, sync::Arc, time::Duration};

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
/// the operating system, and [`Other`](Self::Other) holds the error of another crate's sink.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum SinkError {
    /// The operating system, or a server, returned an error.
    #[error("{at}: {error}")]
    Io {
        /// The output that was written.
        at: Location,
        /// The error of the system.
        error: Arc<io::Error>,
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
    /// Any error of a sink outside of these crates: of an upload, or of a callback.
    #[error("{}", whole_text(&**.0))]
    Other(Arc<dyn StdError + Send + Sync>),
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
        move |error| Self::Io { at: at.clone(), error: Arc::new(error) }
    }

    /// An [`Other`](Self::Other) error: of any type, or a text. A `SinkError` is returned as it is.
    pub fn other(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        match error.into().downcast::<Self>() {
            Ok(own) => *own,
            Err(other) => Self::Other(Arc::from(other)),
        }
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
            Self::Other(error) => io_in(&**error),
            Self::Unfinished { error, .. } => error.io_error(),
            _ => None,
        }
    }
}

/// The error of the operating system in a chain of errors.
fn io_in<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a io::Error> {
    std::iter::successors(Some(error), |&error| error.source())
        .find_map(|error| error.downcast_ref::<io::Error>())
}

/// The text of an error and of its causes, each once: some errors contain the text of their cause.
fn whole_text(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
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

/// A sink that passes every access unit to a function: for embedding. The function returns nothing,
/// or a `Result` with an error of any type, which ends the session as [`SinkError::Other`].
///
/// ```
/// # use encoder_media::{AccessUnit, CallbackSink, Sink};
/// # use std::{io, sync::mpsc};
/// let (units, received) = mpsc::sync_channel(8);
/// let sink = CallbackSink(move |unit: AccessUnit| units.send(unit));
/// # let _: (Box<dyn Sink>, mpsc::Receiver<AccessUnit>) = (Box::new(sink), received);
/// ```
pub struct CallbackSink<F>(pub F);

impl<F, R> Sink for CallbackSink<F>
where
    F: FnMut(AccessUnit) -> R + Send,
    R: CallbackResult,
{
    fn write(&mut self, unit: AccessUnit) -> Result<(), SinkError> {
        (self.0)(unit).into_result()
    }

    fn finish(self: Box<Self>, _timeline: &Timeline) -> Result<Finished, SinkError> {
        Ok(Finished::default())
    }
}

/// What the function of a [`CallbackSink`] returns: `()`, or a `Result` with any error.
pub trait CallbackResult {
    /// The result of the write.
    ///
    /// # Errors
    /// [`SinkError::other`] of the function's error.
    fn into_result(self) -> Result<(), SinkError>;
}

impl CallbackResult for () {
    fn into_result(self) -> Result<(), SinkError> {
        Ok(())
    }
}

impl<E: Into<Box<dyn StdError + Send + Sync>>> CallbackResult for Result<(), E> {
    fn into_result(self) -> Result<(), SinkError> {
        self.map_err(SinkError::other)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
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

    /// An error of another crate, with or without the text of its cause in its own text.
    #[derive(Debug, Error)]
    enum Foreign {
        #[error("the upload failed")]
        Silent(#[source] io::Error),
        #[error("the upload failed: {0}")]
        Repeating(#[source] io::Error),
    }

    #[test]
    fn errors_of_other_sinks_keep_their_type_and_are_displayed_once() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        for foreign in [Foreign::Silent(full()), Foreign::Repeating(full())] {
            let error = SinkError::other(foreign);
            assert_eq!(error.to_string(), format!("the upload failed: {}", full()));
            assert!(error.source().is_none());
            assert_eq!(error.io_error().map(io::Error::kind), Some(io::ErrorKind::StorageFull));
            let SinkError::Other(inner) = &error else { panic!("{error:?}") };
            assert!(inner.downcast_ref::<Foreign>().is_some());
        }
        assert_eq!(SinkError::other("no text fits").to_string(), "no text fits");
        let own = SinkError::refused(Path::new("a"), "full");
        assert!(matches!(SinkError::other(own), SinkError::Refused { .. }));
    }

    #[test]
    fn a_callback_may_fail() {
        let unit = || {
            let chunk = EncodedChunk { data: vec![1], pts: 0, dts: 0, keyframe: true };
            AccessUnit::new(chunk, FrameTimes::at(0))
        };
        let mut seen = 0;
        CallbackSink(|_: AccessUnit| seen += 1).write(unit()).unwrap();
        assert_eq!(seen, 1);
        let mut sink = CallbackSink(|_: AccessUnit| Ok::<(), io::Error>(()));
        sink.write(unit()).unwrap();
        let mut sink = CallbackSink(|_: AccessUnit| Err(Foreign::Silent(io::Error::other("gone"))));
        assert_eq!(sink.write(unit()).unwrap_err().to_string(), "the upload failed: gone");
        // The receiver of a channel was dropped.
        let (units, _) = std::sync::mpsc::channel();
        let mut sink = CallbackSink(move |unit: AccessUnit| units.send(unit));
        assert!(matches!(sink.write(unit()), Err(SinkError::Other(_))));
    }
}
