//! Why a run, or a video of it, failed.

use std::{fmt, io};

use encoder_core::OpenError;
use encoder_media::ResampleError;
use serde::{Serialize, Serializer, ser::SerializeStruct};
use thiserror::Error;

use crate::{
    destination::Location, mux::SinkError, session::SessionError, skipped::SkippedTopic,
    source::SourceError,
};

/// Why a run failed as a whole ([`Report::error`](crate::report::Report::error)), or a single
/// video ([`Output::error`](crate::report::Output::error)).
///
/// The text of an error contains that of its cause;
/// [`source`](std::error::Error::source) returns nothing that was displayed already.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RunError {
    /// The recording could not be read, or has no camera topic.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The destination refused, or could not be written.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// A video could not be encoded or written.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The times of a topic do not allow a constant rate.
    #[error("{topic}: {error}")]
    Resample {
        /// The topic.
        topic: String,
        /// What is wrong with its times.
        error: ResampleError,
    },
    /// There are camera topics, and none of them could be converted.
    #[error("{recording}: no camera topic could be converted; {}", list(.skipped))]
    NothingConverted {
        /// The recording, as it was named by the caller.
        recording: String,
        /// The camera topics, and why each of them could not be converted.
        skipped: Vec<SkippedTopic>,
    },
    /// No frame of the video could be decoded.
    #[error("no frame of it can be decoded")]
    NoPicture,
    /// The recording has no message in the part of its time that was chosen.
    #[error("{recording}: {}", outside(*.span))]
    OutsideWindow {
        /// The recording, as it was named by the caller.
        recording: String,
        /// The log times of its first and its last camera message, in nanoseconds since the epoch
        /// (or since the first frame, if it has no clock); `None` if they are not known.
        span: Option<(i64, i64)>,
    },
    /// The run was stopped before any frame was read.
    #[error("{recording}: stopped before any frame was read")]
    Stopped {
        /// The recording, as it was named by the caller.
        recording: String,
    },
    /// The program could not prepare the run.
    #[error("{0}")]
    Setup(String),
}

fn outside(span: Option<(i64, i64)>) -> String {
    let text = "no camera message was logged in the chosen part of its time";
    let Some((first, last)) = span else { return text.into() };
    let length = last.saturating_sub(first) as f64 / 1e9;
    format!(
        "{text}; the recording has camera messages from 0 to {length:.3} s, logged from @{} to @{}",
        Seconds(first),
        Seconds(last)
    )
}

/// Nanoseconds, displayed as decimal seconds.
struct Seconds(i64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, ns) = (if self.0 < 0 { "-" } else { "" }, self.0.unsigned_abs());
        write!(f, "{sign}{}.{:03}", ns / 1_000_000_000, ns % 1_000_000_000 / 1_000_000)
    }
}

fn list(skipped: &[SkippedTopic]) -> String {
    let each = |s: &SkippedTopic| format!("{} [{}]: {}", s.topic, s.schema, s.reason);
    skipped.iter().map(each).collect::<Vec<_>>().join("; ")
}

impl RunError {
    /// The kind of the error, for programs.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Source(error) => of_source(error),
            Self::Sink(error) => of_sink(error),
            Self::Session(error) => of_session(error),
            Self::Resample { error: ResampleError::Gap { .. }, .. } => ErrorKind::RateGap,
            Self::Resample { .. } => ErrorKind::NoCommonTime,
            Self::NothingConverted { .. } => ErrorKind::NothingConverted,
            Self::NoPicture => ErrorKind::NoPicture,
            Self::OutsideWindow { .. } => ErrorKind::OutsideWindow,
            Self::Stopped { .. } => ErrorKind::Stopped,
            Self::Setup(_) => ErrorKind::Setup,
        }
    }

    /// The error of the operating system, if it is the cause.
    pub fn io_error(&self) -> Option<&io::Error> {
        match self {
            Self::Source(SourceError::Io { error, .. }) => Some(error),
            Self::Sink(error) => error.io_error(),
            Self::Session(error) => match error.cause() {
                SessionError::Sink(error) => error.io_error(),
                _ => None,
            },
            _ => None,
        }
    }

    /// The location of everything that was written before the error, if it is kept.
    pub fn kept(&self) -> Option<&Location> {
        match self {
            Self::Session(SessionError::Kept { part, .. }) => Some(part),
            Self::Sink(SinkError::Unfinished { kept, .. })
            | Self::Session(SessionError::Sink(SinkError::Unfinished { kept, .. })) => Some(kept),
            _ => None,
        }
    }
}

/// Serialized as in `report.json`: `error` is the text, `error_kind` the kind.
impl Serialize for RunError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("RunError", 2)?;
        fields.serialize_field("error", &self.to_string())?;
        fields.serialize_field("error_kind", self.kind().as_str())?;
        fields.end()
    }
}

/// The kinds of errors of a run. Their names in `report.json` stay the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// `missing`: the recording does not exist.
    Missing,
    /// `input-permission`: the recording may not be read.
    InputPermission,
    /// `input-io`: the operating system failed to read the recording.
    InputIo,
    /// `broken-input`: the file is not a recording of a known format, or is too damaged to read.
    BrokenInput,
    /// `no-camera`: the recording has no camera topic.
    NoCamera,
    /// `nothing-converted`: no camera topic could be converted.
    NothingConverted,
    /// `rate-gap`: a gap is too long for a constant rate.
    RateGap,
    /// `no-common-time`: the cameras have no time in common for a common grid.
    NoCommonTime,
    /// `output-exists`: the output exists and may not be replaced.
    OutputExists,
    /// `output-permission`: the output may not be written.
    OutputPermission,
    /// `disk-full`: the disk is full, or a quota or the limit of the file size is reached.
    DiskFull,
    /// `output-io`: the operating system failed to write the output.
    OutputIo,
    /// `output-refused`: the destination does not accept this video.
    OutputRefused,
    /// `bad-stream`: the container cannot hold the access units.
    BadStream,
    /// `config`: the configuration of the encoder is wrong.
    Config,
    /// `no-encoder`: no encoder could be opened.
    NoEncoder,
    /// `encoder-lost`: the encoder failed, and no other encoder took over.
    EncoderLost,
    /// `too-slow`: the encoder did not keep up, and frames may not be dropped.
    TooSlow,
    /// `no-memory`: there is no memory for the frames.
    NoMemory,
    /// `bad-frame`: a frame could not be decoded, and no frame may be missing.
    BadFrame,
    /// `no-picture`: no frame of the video could be decoded.
    NoPicture,
    /// `outside-window`: the recording has no message in the chosen part of its time.
    OutsideWindow,
    /// `stopped`: the run was stopped before any frame was read.
    Stopped,
    /// `setup`: the program could not prepare the run.
    Setup,
    /// `internal`: a defect of this library or of a backend.
    Internal,
}

impl ErrorKind {
    /// All kinds.
    pub const ALL: [Self; 25] = [
        Self::Missing,
        Self::InputPermission,
        Self::InputIo,
        Self::BrokenInput,
        Self::NoCamera,
        Self::NothingConverted,
        Self::RateGap,
        Self::NoCommonTime,
        Self::OutputExists,
        Self::OutputPermission,
        Self::DiskFull,
        Self::OutputIo,
        Self::OutputRefused,
        Self::BadStream,
        Self::Config,
        Self::NoEncoder,
        Self::EncoderLost,
        Self::TooSlow,
        Self::NoMemory,
        Self::BadFrame,
        Self::NoPicture,
        Self::OutsideWindow,
        Self::Stopped,
        Self::Setup,
        Self::Internal,
    ];

    /// The name, as in `report.json`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::InputPermission => "input-permission",
            Self::InputIo => "input-io",
            Self::BrokenInput => "broken-input",
            Self::NoCamera => "no-camera",
            Self::NothingConverted => "nothing-converted",
            Self::RateGap => "rate-gap",
            Self::NoCommonTime => "no-common-time",
            Self::OutputExists => "output-exists",
            Self::OutputPermission => "output-permission",
            Self::DiskFull => "disk-full",
            Self::OutputIo => "output-io",
            Self::OutputRefused => "output-refused",
            Self::BadStream => "bad-stream",
            Self::Config => "config",
            Self::NoEncoder => "no-encoder",
            Self::EncoderLost => "encoder-lost",
            Self::TooSlow => "too-slow",
            Self::NoMemory => "no-memory",
            Self::BadFrame => "bad-frame",
            Self::NoPicture => "no-picture",
            Self::OutsideWindow => "outside-window",
            Self::Stopped => "stopped",
            Self::Setup => "setup",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

fn of_source(error: &SourceError) -> ErrorKind {
    match error {
        SourceError::Io { error, .. } => match error.kind() {
            io::ErrorKind::NotFound => ErrorKind::Missing,
            io::ErrorKind::PermissionDenied => ErrorKind::InputPermission,
            _ => ErrorKind::InputIo,
        },
        SourceError::NoCamera { .. } => ErrorKind::NoCamera,
        _ => ErrorKind::BrokenInput,
    }
}

fn of_sink(error: &SinkError) -> ErrorKind {
    match error {
        SinkError::Stream { .. } => return ErrorKind::BadStream,
        SinkError::Refused { .. } => return ErrorKind::OutputRefused,
        SinkError::Unfinished { error, .. } => return of_sink(error),
        _ => {}
    }
    match error.io_error().map(io::Error::kind) {
        Some(io::ErrorKind::AlreadyExists) => ErrorKind::OutputExists,
        Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
            ErrorKind::OutputPermission
        }
        Some(
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge,
        ) => ErrorKind::DiskFull,
        _ => ErrorKind::OutputIo,
    }
}

fn of_session(error: &SessionError) -> ErrorKind {
    match error.cause() {
        SessionError::Open(OpenError::Config(_) | OpenError::Unknown { .. }) => ErrorKind::Config,
        SessionError::Open(_) => ErrorKind::NoEncoder,
        SessionError::Encode(_) | SessionError::Lost { .. } => ErrorKind::EncoderLost,
        SessionError::Ring(_) | SessionError::Pool(_) => ErrorKind::NoMemory,
        SessionError::Sink(error) => of_sink(error),
        SessionError::BadFrame { .. } | SessionError::Picture { .. } => ErrorKind::BadFrame,
        SessionError::Empty(_) => ErrorKind::NoPicture,
        SessionError::Stream(_) => ErrorKind::BadStream,
        SessionError::Full { .. } => ErrorKind::TooSlow,
        _ => ErrorKind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_name_of_its_own_that_is_documented() {
        let page = include_str!("../../docs/report.md");
        let mut names = std::collections::HashSet::new();
        for kind in ErrorKind::ALL {
            assert!(names.insert(kind.as_str()), "{kind}");
            assert!(page.contains(&format!("| `{kind}` |")), "{kind} is missing in report.md");
        }
    }
}
