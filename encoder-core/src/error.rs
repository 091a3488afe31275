use serde::Serialize;
use thiserror::Error;

use crate::{EncoderType, PixelFormat, Refusal};

/// A value of the configuration that is not allowed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// A value outside of what the field allows.
    #[error("{field} = {value}: not allowed; allowed is {allowed}")]
    Value {
        /// The field, with its table: `encoder.crf`.
        field: String,
        /// The value as it was given.
        value: String,
        /// What would be right.
        allowed: String,
    },
    /// A key that nothing reads.
    #[error("unknown key `{key}` in {place}{hint}")]
    UnknownKey {
        /// The key as it was given.
        key: String,
        /// Which table it stands in.
        place: String,
        /// The nearest known key, as text to append; the known ones when none is near.
        hint: String,
    },
    /// Not TOML at all.
    #[error("{0}")]
    Syntax(String),
}

impl ConfigError {
    /// A [`ConfigError::Value`].
    pub fn value(
        field: impl Into<String>,
        value: impl ToString,
        allowed: impl Into<String>,
    ) -> Self {
        Self::Value { field: field.into(), value: value.to_string(), allowed: allowed.into() }
    }
}

/// Why no encoder could be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The configuration is wrong, for every backend.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// This backend cannot run here.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nothing in the plan opened.
    #[error("no encoder could be opened: {}", list(.refusals))]
    NoneLeft {
        /// Each backend that was tried or passed over, with its reason.
        refusals: Vec<Refusal>,
    },
    /// The [`Waiter`](crate::Waiter) was stopped: nobody wants the encoder any more.
    #[error("stopped before an encoder was open")]
    Stopped,
    /// The backend that was required is not compiled in.
    #[error("no encoder `{wanted}` in this build{}", unknown(.wanted, .available))]
    Unknown {
        /// The name that was asked for.
        wanted: String,
        /// The names that are compiled in.
        available: Vec<EncoderType>,
    },
}

fn list(refusals: &[Refusal]) -> String {
    if refusals.is_empty() {
        return "none is compiled in; build with at least one backend feature, such as \
                `openh264`"
            .into();
    }
    refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn unknown(wanted: &str, available: &[EncoderType]) -> String {
    let names: Vec<_> = available.iter().map(|t| t.as_str()).collect();
    match crate::settings::nearest(wanted, &names) {
        Some(name) => format!("; did you mean `{name}`?"),
        None => format!(
            "; it has {}: name one of these, or build with the Cargo feature of the one you want",
            names.join(", ")
        ),
    }
}

/// Why a running encoder could not go on.
#[derive(Debug, Error)]
pub enum EncodeError {
    /// It could not begin: the device refused at the first frame. Nothing was encoded, so another
    /// encoder can be given the same frame.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A frame that is not what the encoder was opened for.
    #[error(
        "frame {index} is {got_format} {got_width}x{got_height}, the encoder was opened for \
         {format} {width}x{height}"
    )]
    Mismatch {
        /// Index of the frame.
        index: u64,
        /// Format of the frame.
        got_format: PixelFormat,
        /// Width of the frame in pixels.
        got_width: u32,
        /// Height of the frame in pixels.
        got_height: u32,
        /// Format of the encoder.
        format: PixelFormat,
        /// Width of the encoder in pixels.
        width: u32,
        /// Height of the encoder in pixels.
        height: u32,
    },
    /// The encoder failed and takes no more frames.
    #[error("encoder {encoder} failed at frame {index}: {message}")]
    Failed {
        /// Which encoder.
        encoder: EncoderType,
        /// Frames that it had taken.
        index: u64,
        /// The kind, for counting.
        kind: FailureKind,
        /// Its own words (for a child process: the tail of its stderr).
        message: String,
    },
}

/// The kinds of ways in which a running encoder is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// It, or the program that hosts it, ended or was killed.
    Died,
    /// It took frames and gave nothing back for too long, or took no more.
    Stalled,
    /// It gave fewer, more or other access units than frames went in.
    WrongOutput,
    /// It said that it failed.
    Failed,
}

impl FailureKind {
    /// The name, as it stands in reports and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Died => "died",
            Self::Stalled => "stalled",
            Self::WrongOutput => "wrong-output",
            Self::Failed => "failed",
        }
    }
}
