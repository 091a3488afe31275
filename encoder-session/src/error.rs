use std::{
    any::Any,
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use encoder_core::{EncodeError, OpenError, panic_text};
use encoder_media::{Location, SinkError};
use encoder_picture::PictureError;
use encoder_ringbuf::RingError;
use thiserror::Error;

use crate::{PoolError, VideoReport};

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
    /// A bad frame, and [`OnBadFrame::Fail`](crate::OnBadFrame::Fail).
    #[error("frame {number} cannot be decoded: {reason}")]
    BadFrame {
        /// Number of the frame in its stream.
        number: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A picture that can never be in this video, whatever its pixels: of an unknown encoding, of
    /// another size, with too few bytes. It was not pushed, and the session accepts other pictures.
    #[error("frame {number}: {}", with_hint(.error))]
    Picture {
        /// Number that the frame would have had in its stream.
        number: u64,
        /// What does not fit, and a hint.
        error: PictureError,
    },
    /// The video has no frame: none was pushed, or none could be decoded, or all were dropped. There
    /// is no file. The report has the counts and the first reasons.
    #[error("the video has no frame: {}", reasons(.0))]
    Empty(Box<VideoReport>),
    /// The ring is full, and [`OnFull::Error`](crate::OnFull::Error).
    #[error(
        "the encoder does not keep up: its ring of {slots} frames is full at frame {number}; use a \
         faster encoder.preset or a larger gpu.ring_buffer_size, or let frames be dropped"
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
    #[error(
        "the session did not end within {} s{}",
        .limit.as_secs_f64(),
        stuck(*.is_stuck, *.is_completing)
    )]
    Deadline {
        /// The time that it had to end.
        limit: Duration,
        /// Whether its thread is still inside a call of an encoder or a sink of this process.
        is_stuck: bool,
        /// Whether the sink had begun to complete the video: then the video is completed all the
        /// same, unless the sink fails. [`StatsHandle`](crate::StatsHandle) shows when the session
        /// has ended.
        is_completing: bool,
    },
    /// A [`Slot`](crate::Slot) was dropped neither filled nor failed.
    #[error("the slot of frame {number} was dropped: it was neither filled nor failed")]
    SlotDropped {
        /// Number of the frame in its stream.
        number: u64,
    },
    /// The system started no thread.
    #[error("the system starts no thread: {0}")]
    Thread(Arc<io::Error>),
    /// The session was dropped or discarded before its end.
    #[error("the session was dropped before its end")]
    Ended,
    /// The sink of a session called `finish` or `join` of the same session, or awaited it, which
    /// would wait for itself. The session is dropped, unless it was awaited by reference.
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
    pub(crate) fn thread(error: io::Error) -> Self {
        Self::Thread(Arc::new(error))
    }

    /// The deadline of a session that can be stopped.
    pub(crate) fn deadline(limit: Duration) -> Self {
        Self::Deadline { limit, is_stuck: false, is_completing: false }
    }

    /// Whether an abort can be its cause: the encoder was stopped, and no other is opened.
    pub(crate) fn is_by_stop(&self) -> bool {
        match self {
            Self::Encode(_) | Self::Lost { .. } | Self::Ended => true,
            Self::Open(error) => matches!(error, OpenError::Stopped),
            _ => false,
        }
    }

    /// The error itself, without [`Failed`](Self::Failed) and [`Kept`](Self::Kept) around it.
    pub fn cause(&self) -> &Self {
        match self {
            Self::Failed(error) => error.cause(),
            Self::Kept { error, .. } => error.cause(),
            error => error,
        }
    }
}

fn stuck(is_stuck: bool, is_completing: bool) -> &'static str {
    match (is_stuck, is_completing) {
        (false, _) => "",
        (true, false) => ", and does not return from a call of its encoder or its sink",
        (true, true) => "; its sink is still completing the video",
    }
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

/// The text of an error with its hint, which some errors display themselves.
fn with_hint(error: &PictureError) -> String {
    let text = error.to_string();
    match error.hint() {
        Some(hint) if !text.contains(hint) => format!("{text}; {hint}"),
        _ => text,
    }
}

/// Why a video has no frame.
fn reasons(report: &VideoReport) -> String {
    /// How many reasons are displayed.
    const SHOWN: usize = 3;
    let VideoReport { frames_in, frames_failed, frames_dropped, failures, .. } = report;
    if *frames_in == 0 {
        return "no picture was accepted".into();
    }
    let mut text = format!(
        "of {frames_in} pushed, {frames_failed} cannot be decoded and {frames_dropped} were dropped"
    );
    for (number, reason) in failures.iter().take(SHOWN) {
        text = format!("{text}; frame {number}: {reason}");
    }
    text
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

#[cfg(test)]
mod tests {
    use std::{error::Error, io};

    use encoder_core::{
        ConfigError, EncoderType, FailureKind, PixelFormat, Refusal, RefusalKind, Resolution,
    };

    use super::*;

    const ID: EncoderType = EncoderType::X264;

    fn refusal() -> Refusal {
        Refusal::new(ID, RefusalKind::Missing, "no library", "install it")
    }

    fn open_errors() -> Vec<OpenError> {
        vec![
            ConfigError::value("encoder.crf", 99, "0 to 51").into(),
            refusal().into(),
            OpenError::NoneLeft { refusals: vec![refusal()] },
            OpenError::Stopped,
            OpenError::Unknown { wanted: "x265".into(), available: vec![ID] },
        ]
    }

    fn encode_errors() -> Vec<EncodeError> {
        vec![
            refusal().into(),
            EncodeError::Mismatch {
                index: 1,
                got_format: PixelFormat::Nv12,
                got_width: 2,
                got_height: 4,
                format: PixelFormat::Yuv420p,
                width: 6,
                height: 8,
            },
            EncodeError::failed(ID, 3, FailureKind::Died, "it was killed"),
        ]
    }

    /// An error of another crate whose text has that of its cause.
    #[derive(Debug, Error)]
    #[error("the upload failed: {0}")]
    struct Upload(#[source] io::Error);

    fn sink_errors() -> Vec<SinkError> {
        let at = || Location::Name("bucket/a".into());
        let io_error = || io::Error::from(io::ErrorKind::StorageFull);
        vec![
            SinkError::io(at())(io_error()),
            SinkError::io(at())(io::Error::other(Upload(io_error()))),
            SinkError::stream(at(), "no parameter sets"),
            SinkError::refused(at(), "it exists"),
            SinkError::other(Upload(io_error())),
            SinkError::other(Upload(io_error())).kept(Location::Name("bucket/a.part".into())),
        ]
    }

    fn picture_errors() -> Vec<PictureError> {
        let (size, frame) = (Resolution::new(2, 4), Resolution::new(6, 8));
        vec![
            PictureError::Unsupported { reason: "no `rgb`".into(), hint: "take rgb8".into() },
            PictureError::Malformed { reason: "2 bytes".into(), hint: "check data".into() },
            PictureError::Size { size, frame },
            PictureError::Broken("it ends early".into()),
        ]
    }

    fn errors() -> Vec<SessionError> {
        let picture = |error| SessionError::Picture { number: 7, error };
        let mut report = VideoReport { frames_in: 2, frames_failed: 2, ..VideoReport::default() };
        report.failures = vec![(0, "it ends early".into()), (1, "no header".into())];
        let mut all = vec![
            SessionError::Ring(RingError::OutOfMemory { bytes: 7 }),
            SessionError::Lost {
                error: Box::new(EncodeError::failed(ID, 3, FailureKind::Died, "killed")),
                left: Box::new(refusal().into()),
            },
            SessionError::BadFrame { number: 7, reason: "it ends early".into() },
            SessionError::Empty(Box::default()),
            SessionError::Empty(Box::new(report)),
            SessionError::Full { number: 7, slots: 16 },
            SessionError::Stream("in another order".into()),
            SessionError::Ended,
            SessionError::OwnThread,
            SessionError::Panicked { place: Panicked::Sink, text: "no disk".into() },
            SessionError::Internal("no time of frame 7".into()),
            SessionError::Aborted,
            SessionError::deadline(Duration::from_secs(3)),
            SessionError::Deadline {
                limit: Duration::from_secs(3),
                is_stuck: true,
                is_completing: true,
            },
            SessionError::SlotDropped { number: 7 },
            SessionError::thread(io::ErrorKind::WouldBlock.into()),
        ];
        all.extend(open_errors().into_iter().map(SessionError::from));
        all.extend(encode_errors().into_iter().map(SessionError::from));
        all.extend(sink_errors().into_iter().map(SessionError::from));
        all.extend(picture_errors().into_iter().map(picture));
        let part = Location::Name("a.part".into());
        let kept = |error| SessionError::Kept { error: Box::new(error), part: part.clone() };
        let wrapped: Vec<_> = all.iter().cloned().map(kept).collect();
        all.extend(wrapped);
        let failed: Vec<_> = all.iter().cloned().map(Arc::new).map(SessionError::Failed).collect();
        all.extend(failed);
        all
    }

    #[test]
    fn no_error_is_displayed_twice() {
        for error in errors() {
            let text = error.to_string();
            let mut cause = error.source();
            while let Some(inner) = cause {
                assert!(!text.contains(&inner.to_string()), "{text}: {inner}");
                cause = inner.source();
            }
            // The text of each part is there once.
            for part in ["it was killed", "no library", "it ends early", "take rgb8", "check data"]
                .into_iter()
                .chain(["no space left", "the upload failed", "what was written so far"])
            {
                assert!(text.to_lowercase().matches(part).count() <= 1, "{part}: {text}");
            }
            // A library knows no options of a program.
            assert!(!text.contains("--"), "{text}");
        }
    }

    #[test]
    fn the_cause_is_the_error_without_what_is_around_it() {
        for error in errors() {
            let cause = error.cause();
            assert!(!matches!(cause, SessionError::Failed(_) | SessionError::Kept { .. }));
            assert!(error.to_string().starts_with(&cause.to_string()), "{error}");
        }
    }

    #[test]
    fn texts_of_pictures_and_of_empty_videos() {
        let texts: Vec<_> = errors().iter().map(ToString::to_string).collect();
        for text in [
            "frame 7: no `rgb`; take rgb8",
            "frame 7: 2 bytes; check data",
            "frame 7: the picture has 2x4 pixels, the frame 6x8; pictures of another size need a \
             video of their own",
            "the video has no frame: no picture was accepted",
            "the video has no frame: of 2 pushed, 2 cannot be decoded and 0 were dropped; \
             frame 0: it ends early; frame 1: no header",
        ] {
            assert!(texts.iter().any(|known| known == text), "{text}: {texts:#?}");
        }
    }
}
