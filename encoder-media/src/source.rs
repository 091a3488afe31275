use std::path::PathBuf;

use thiserror::Error;

use crate::{BadMessage, Payload};

/// Number of a camera stream inside one source, counted from 0 in order of appearance.
pub type StreamId = usize;

/// What a source tells, in order.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A camera stream that will (or, if it stays empty, will not) give packets. Comes once and
    /// before the first packet of the stream.
    Stream(StreamInfo),
    /// One message of a camera stream.
    Packet(Packet),
    /// Something that a user must know: a cut file, a missing index, a skipped chunk.
    Warning(Warning),
}

/// A camera stream.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamInfo {
    /// Its number.
    pub id: StreamId,
    /// Topic, or the file's or directory's name where there are no topics.
    pub topic: String,
    /// Schema or type name as the recording writes it; empty where there is none.
    pub schema: String,
    /// Messages that the recording's index promises.
    pub messages: Option<u64>,
    /// Frames per second, where the source itself has a constant rate (Y4M, raw, a directory).
    /// `None` for recordings with timestamps.
    pub rate: Option<encoder_core::FrameRate>,
}

/// One message of a camera stream.
#[derive(Debug)]
pub struct Packet {
    /// Which stream.
    pub stream: StreamId,
    /// Number of the message within its stream, counted from 0, before any filter.
    pub number: u64,
    /// When the recorder got it, in nanoseconds since the epoch (or since the first frame, where
    /// the source has no clock).
    pub log_ns: i64,
    /// The stamp that the camera's driver put into the header, in nanoseconds; `None` where there
    /// is none or it is zero.
    pub header_ns: Option<i64>,
    /// The picture, or why there is none: a message that cannot be read is a frame that is lost,
    /// and must be counted.
    pub payload: Result<Payload, BadMessage>,
}

/// Something that a user must know about a recording, but that does not end the run.
#[derive(Clone, Debug, PartialEq)]
pub struct Warning {
    /// What, where, and what it means for the output.
    pub text: String,
    /// Frames may be missing because of it: the run ends with exit code 3.
    pub loss: bool,
}

/// What a source could not do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The operating system refused.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Its words.
        error: std::io::Error,
    },
    /// Not what its name or its first bytes say, or broken beyond reading.
    #[error("{}: {reason}; {hint}", path.display())]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and at which offset.
        reason: String,
        /// What a user can do.
        hint: String,
    },
    /// A recording without camera topics.
    #[error("{}: no camera topic; {}", path.display(), found(.topics))]
    NoCamera {
        /// Which file.
        path: PathBuf,
        /// Topics that are there: name and schema.
        topics: Vec<(String, String)>,
    },
}

impl SourceError {
    /// An [`Io`](Self::Io) error.
    pub fn io(path: impl Into<PathBuf>, error: std::io::Error) -> Self {
        Self::Io { path: path.into(), error }
    }

    /// An [`Invalid`](Self::Invalid) error.
    pub fn invalid(
        path: impl Into<PathBuf>,
        reason: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self::Invalid { path: path.into(), reason: reason.into(), hint: hint.into() }
    }
}

fn found(topics: &[(String, String)]) -> String {
    if topics.is_empty() {
        return "the recording has no topics at all".into();
    }
    let list: Vec<_> = topics.iter().map(|(topic, schema)| format!("{topic} [{schema}]")).collect();
    format!(
        "camera topics are those of type sensor_msgs Image or CompressedImage, foxglove RawImage, \
         CompressedImage or CompressedVideo; the recording has: {}",
        list.join(", ")
    )
}

/// Limits against input that claims absurd sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest chunk or message, decompressed, in bytes. Default 1 GiB.
    pub message_bytes: u64,
    /// Largest picture in pixels. Default 2^27 (a little over 11000×11000).
    pub pixels: u64,
    /// Most bytes of temporary files at a time: a compressed recording is unpacked to one. Default
    /// 16 GiB.
    pub temporary_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { message_bytes: 1 << 30, pixels: 1 << 27, temporary_bytes: 16 << 30 }
    }
}

/// What to read.
#[derive(Clone, Debug, Default)]
pub struct SourceOptions {
    /// Globs; a topic must match one of them. Empty: all topics.
    pub topics: Vec<String>,
    /// Leave out what was logged earlier.
    pub start: Option<Moment>,
    /// Leave out what was logged later.
    pub end: Option<Moment>,
    /// Rate of sources that have no clock of their own. Default 30.
    pub rate: Option<encoder_core::FrameRate>,
    /// Against absurd sizes.
    pub limits: Limits,
}

/// A moment of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Nanoseconds from the first message of the recording.
    FromStart(i64),
    /// Nanoseconds since the epoch.
    Absolute(i64),
}

/// A recording that is being read.
pub trait Source: Send {
    /// The next event; `None` at the end. A recording that breaks off gives a
    /// [`Event::Warning`] with `loss` and then ends.
    ///
    /// # Errors
    /// [`SourceError`] where nothing at all can be read; before the end of the recording only
    /// when the operating system fails.
    fn next_event(&mut self) -> Result<Option<Event>, SourceError>;

    /// Topics that are not cameras: name and schema. Complete once the source has ended.
    fn other_topics(&self) -> Vec<(String, String)>;
}
