//! Camera topics without a video, and why.

use std::fmt;

use encoder_media::ResampleError;
use serde::{Serialize, Serializer, ser::SerializeStruct};

/// A camera topic without a video.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct SkippedTopic {
    /// The topic.
    pub topic: String,
    /// Its schema or type.
    pub schema: String,
    /// Number of its messages.
    pub frames_in: u64,
    /// Why there is no video. In JSON `reason`, and the kind as `reason_kind`.
    #[serde(flatten)]
    pub reason: SkipReason,
}

/// Why a camera topic has no video.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SkipReason {
    /// The topic has no messages.
    NoMessages,
    /// None of its frames could be decoded.
    NothingDecoded {
        /// How many frames there are.
        frames: u64,
        /// Number of the first of these frames.
        number: u64,
        /// Why the first of these frames could not be decoded.
        reason: String,
    },
    /// The run ended before the first frame of the topic was read.
    NothingRead,
    /// The encoding of its pictures is not supported, or only with an option.
    Unsupported {
        /// What is not supported.
        reason: String,
        /// The hint for the user.
        hint: String,
    },
    /// The topic is a video that is not H.264, or of a type that is not read; only H.264 is copied.
    Codec {
        /// The format as recorded; empty if it is unknown.
        format: String,
    },
    /// The topic is an H.264 video, and copying cannot make a constant rate.
    FixedRate,
    /// The times of the topic do not allow the constant rate, or its common grid.
    Rate {
        /// What is wrong with them.
        error: ResampleError,
    },
    /// The topic had no picture when the times of the recording were read for a constant rate.
    Unplanned,
    /// The topic is an H.264 video that cannot be copied as recorded.
    CannotCopy {
        /// The reason, and the hint for the user.
        reason: String,
    },
    /// The topic is an H.264 video with B-frames: its recorded times are those of another order.
    Reordered {
        /// Number of the first frame that is displayed before a frame that precedes it.
        frame: u64,
    },
}

impl SkipReason {
    /// The kind, as in `report.json`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::NoMessages => "no-messages",
            Self::NothingDecoded { .. } => "nothing-decoded",
            Self::NothingRead => "nothing-read",
            Self::Unsupported { .. } => "unsupported",
            Self::Codec { .. } => "codec",
            Self::FixedRate => "fixed-rate",
            Self::Rate { error: ResampleError::Gap { .. } } => "rate-gap",
            Self::Rate { .. } => "no-common-time",
            Self::Unplanned => "unplanned",
            Self::CannotCopy { .. } => "cannot-copy",
            Self::Reordered { .. } => "reordered",
        }
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMessages => f.write_str("the topic has no messages"),
            Self::NothingDecoded { frames, number, reason } => {
                write!(f, "none of its {frames} frames can be decoded; frame {number}: {reason}")
            }
            Self::NothingRead => f.write_str("no frame of it was read"),
            Self::Unsupported { reason, hint } => write!(f, "{reason}; {hint}"),
            Self::Codec { format } if format.is_empty() => f.write_str(
                "a video topic of a type that is not converted: republish it as images first",
            ),
            Self::Codec { format } => write!(
                f,
                "a video topic in format \"{format}\", which is not converted; only h264 in \
                 CompressedVideo and CompressedImage is copied: republish the topic as images first"
            ),
            Self::FixedRate => {
                f.write_str("an H.264 topic is copied as recorded, which cannot change its rate")
            }
            Self::Rate { error } => write!(f, "{error}"),
            Self::Unplanned => f.write_str(
                "it had no picture when the times of the recording were read for the constant rate: \
                 the recording has changed since",
            ),
            Self::CannotCopy { reason } => f.write_str(reason),
            Self::Reordered { frame } => write!(
                f,
                "frame {frame} is displayed before a frame that precedes it (B-frames), so the \
                 recorded times cannot be kept; record the topic without B-frames, or copy it \
                 without times"
            ),
        }
    }
}

impl Serialize for SkipReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("SkipReason", 2)?;
        fields.serialize_field("reason", &self.to_string())?;
        fields.serialize_field("reason_kind", self.kind())?;
        fields.end()
    }
}
