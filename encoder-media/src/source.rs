use std::path::PathBuf;

use thiserror::Error;

use crate::{Attachment, BadMessage, ChannelInfo, Location, Message, Metadata, Payload, Stop};

/// Number of a camera stream inside one source, counted from 0 in order of appearance.
pub type StreamId = usize;

/// An event returned by a [`Source`]. More kinds may be added: ignore unknown kinds.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A camera stream. Returned once, before the first packet of the stream; a stream may have no
    /// packets.
    Stream(StreamInfo),
    /// A message of a camera stream.
    Packet(Packet),
    /// A defect of the recording: a cut file, a missing index, a skipped chunk.
    Warning(Warning),
    /// A channel. Returned once, before its first message, and after the stream that it names.
    /// Only with [`SourceOptions::all_messages`].
    Channel(ChannelInfo),
    /// A message of a channel that is not a camera stream. Only with
    /// [`SourceOptions::all_messages`].
    Message(Message),
    /// A file inside the recording. Only with [`SourceOptions::all_messages`].
    Attachment(Attachment),
    /// Named values inside the recording. Only with [`SourceOptions::all_messages`].
    Metadata(Metadata),
}

/// A camera stream.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamInfo {
    /// Its number.
    pub id: StreamId,
    /// Topic, or the name of the file or directory if there are no topics.
    pub topic: String,
    /// Schema or type name as recorded; empty if there is none.
    pub schema: String,
    /// Number of messages by the recording's index.
    pub messages: Option<u64>,
    /// Frames per second, if the source itself has a constant rate (Y4M, raw, a directory). `None`
    /// for recordings with timestamps.
    pub rate: Option<encoder_core::FrameRate>,
}

/// A message of a camera stream.
#[derive(Debug)]
pub struct Packet {
    /// Its stream.
    pub stream: StreamId,
    /// Number of the message within its stream, counted from 0, before any filter.
    pub number: u64,
    /// When it was recorded, in nanoseconds since the epoch (or since the first frame, if the
    /// source has no clock).
    pub log_ns: i64,
    /// The stamp that the camera's driver wrote into the header, in nanoseconds; `None` if it is
    /// missing. 0 is what a driver writes that does not know the time, and where simulated time
    /// begins.
    pub header_ns: Option<i64>,
    /// The coordinate frame in the header, which names the camera; `None` if it is unknown.
    pub frame_id: Option<String>,
    /// The picture, or the reason why it cannot be read. A message that cannot be read is a lost
    /// frame and must be counted.
    pub payload: Result<Payload, BadMessage>,
    /// The message that contains the picture, to write it back or to replace it. The picture shares
    /// its memory. `None` without [`SourceOptions::all_messages`] and in sources without channels.
    pub message: Option<Message>,
}

/// A defect of a recording that does not end the run.
#[derive(Clone, Debug, PartialEq)]
pub struct Warning {
    /// The defect, its position, and its effect on the output.
    pub text: String,
    /// Messages may be missing because of it: the run ends with exit code 3.
    pub loss: bool,
}

/// The reason why a source cannot be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SourceError {
    /// An error of the operating system.
    #[error("{location}: {error}")]
    Io {
        /// The input.
        location: Location,
        /// The system's error.
        error: std::io::Error,
    },
    /// The input does not match its name or its first bytes, or is too damaged to read.
    #[error("{location}: {reason}; {hint}")]
    Invalid {
        /// The input.
        location: Location,
        /// The defect, and its offset.
        reason: String,
        /// The hint for the user.
        hint: String,
    },
    /// A recording without camera topics.
    #[error("{location}: no camera topic; {}", found(.topics))]
    NoCamera {
        /// The input.
        location: Location,
        /// The topics of the recording: name and schema.
        topics: Vec<(String, String)>,
    },
}

impl SourceError {
    /// An [`Io`](Self::Io) error.
    pub fn io(location: impl Into<Location>, error: std::io::Error) -> Self {
        Self::Io { location: location.into(), error }
    }

    /// An [`Invalid`](Self::Invalid) error.
    pub fn invalid(
        location: impl Into<Location>,
        reason: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self::Invalid { location: location.into(), reason: reason.into(), hint: hint.into() }
    }

    /// A [`NoCamera`](Self::NoCamera) error.
    pub fn no_camera(location: impl Into<Location>, topics: Vec<(String, String)>) -> Self {
        Self::NoCamera { location: location.into(), topics }
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

/// Limits on the sizes that a recording may claim or need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest chunk, message, attachment or schema, decompressed, in bytes. Default 1 GiB.
    pub message_bytes: u64,
    /// Largest picture in pixels. Default 2^27 (a little over 11000×11000).
    pub pixels: u64,
    /// Bytes of messages that a source holds to sort chunks that overlap in time. Default 256 MiB.
    /// Chunks are read again if more would have to be held; if that would take too long, messages
    /// are returned out of order, with a warning.
    pub held_bytes: u64,
    /// Most bytes of temporary files at a time: a compressed recording is unpacked to a temporary
    /// file. Default 16 GiB.
    pub temporary_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 1 << 30,
            pixels: 1 << 27,
            held_bytes: 256 << 20,
            temporary_bytes: 16 << 30,
        }
    }
}

/// Selects what to read.
#[derive(Clone, Debug, Default)]
pub struct SourceOptions {
    /// Globs; a camera topic must match one of them. Empty: all camera topics.
    pub topics: Vec<String>,
    /// Leave out messages that were logged earlier.
    pub start: Option<Moment>,
    /// Leave out messages that were logged later.
    pub end: Option<Moment>,
    /// Rate of sources that have no clock of their own. Default 30.
    pub rate: Option<encoder_core::FrameRate>,
    /// Limits on sizes.
    pub limits: Limits,
    /// The FFmpeg that reads video files. Default: the environment variable `ENCODER_FFMPEG`, else
    /// the first `ffmpeg` on the `PATH` that works.
    pub ffmpeg: Option<PathBuf>,
    /// Also return data that belongs to no camera: channels, messages, attachments and metadata.
    ///
    /// Camera topics that `topics` excludes, or whose messages cannot be read, are returned as
    /// other messages then. Attachments obey `start` and `end` by their log time; metadata has no
    /// time and is always returned. If off, none of this is read. A source without channels (a
    /// video, pictures) has nothing to add.
    pub all_messages: bool,
    /// Ends the reading of standard input or a pipe, also while it waits for the writer.
    pub stop: Option<Stop>,
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
///
/// # Rules
/// Implementations must follow these rules; callers rely on them.
///
/// - **Order**: packets, messages and attachments are returned in the order of their log time, over
///   all streams and channels; in that of the recording where the recorder's clock was set back. In
///   that case, and if the order is not possible, a warning is returned before the first item that
///   is out of order. Metadata has no time and is returned first.
/// - **Streams**: the first [`StreamInfo::id`] is 0, and each further id is one more. A stream is
///   returned before its first packet. Several channels of one topic and type are one stream.
///   [`Packet::number`] grows within a stream, and counts messages that the time window leaves out.
///   [`ChannelInfo::id`] follows the same rules.
/// - **Memory**: bounded by [`Limits`], whatever the length of the recording and whatever it
///   claims: at most [`Limits::held_bytes`] of waiting messages and a few times
///   [`Limits::message_bytes`] for the chunk being read. A list of the recording's chunks may be
///   held, but nothing for each message (but for a bounded number of log times). A size that the
///   recording claims is checked against the limits and against the available bytes before memory
///   is allocated for it.
/// - **Loss**: each message that cannot be returned is covered by a [`Warning`] with `loss`, or, if
///   it is known to be a picture, returned as a packet with [`BadMessage`]. Damage at one place
///   does not lose data that is readable elsewhere. Repeated defects are summed up: the number of
///   warnings does not grow with the number of messages.
/// - **Errors**: an error means that nothing can be read, or that the operating system failed. A
///   truncated recording returns its complete messages, then a warning with `loss`, then the end. A
///   recording without camera streams ends with [`SourceError::NoCamera`] or
///   [`SourceError::Invalid`] instead of the end. With [`SourceOptions::all_messages`] it ends
///   normally, since its messages were returned.
/// - **End**: after `None`, further calls return `None`.
pub trait Source: Send {
    /// The next event; `None` at the end.
    ///
    /// # Errors
    /// [`SourceError`] if nothing at all can be read; before the end of the recording only if the
    /// operating system fails.
    fn next_event(&mut self) -> Result<Option<Event>, SourceError>;

    /// Topics that are not cameras: name and schema. Complete once the source has ended.
    fn other_topics(&self) -> Vec<(String, String)>;

    /// Log times of the first and the last message, if an index has them: no message is read for
    /// this. They may be those of a little more than the selected messages. `None` if unknown.
    fn log_span(&self) -> Option<(i64, i64)> {
        None
    }

    /// The MCAP profile of the channels: `ros1`, `ros2`, or the name in the recording. Empty if
    /// there is none, and without [`SourceOptions::all_messages`].
    fn profile(&self) -> &str {
        ""
    }
}
