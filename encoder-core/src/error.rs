use std::any::Any;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{EncoderType, PixelFormat, Refusal};

/// A fault of the configuration, of the program that reads it, or of the system.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A value that the field does not allow.
    #[error("{field} = {value}: not allowed; allowed is {allowed}")]
    Value {
        /// The field, with its table: `encoder.crf`.
        field: String,
        /// The value as it was given.
        value: String,
        /// The values that are allowed.
        allowed: String,
    },
    /// Two fields that contradict each other.
    #[error("`{first}` and `{second}` contradict each other: set only one of them")]
    Conflict {
        /// A field, with its table: `encoder.crf`.
        first: String,
        /// The other field, with its table.
        second: String,
    },
    /// A field that has a meaning only beside another field, which is not set.
    #[error("`{field}` needs `{needed}`, which is not set")]
    Needs {
        /// The field that is set, with its table.
        field: String,
        /// The field that is missing, with its table.
        needed: String,
    },
    /// A key that is not known.
    #[error("unknown key `{key}` in {place}{hint}")]
    UnknownKey {
        /// The key as it was given.
        key: String,
        /// The table with the key.
        place: String,
        /// The nearest known key, as text to append; all known keys if none is near.
        hint: String,
    },
    /// Text that is not TOML.
    #[error("{0}")]
    Syntax(String),
    /// Two crates of the program register a backend with the same id.
    #[error(
        "two backends are named `{id}`: one registered at {}, one at {}; a program can contain only \
         one of them",
        .places[0],
        .places[1]
    )]
    DuplicateBackend {
        /// Their name.
        id: EncoderType,
        /// Where they are registered: file, line and column in the source of their crates.
        places: [String; 2],
    },
    /// The system started no thread for a detection, for this reason.
    #[error("the system starts no thread: {0}")]
    Thread(String),
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

    /// A [`ConfigError::Needs`].
    pub fn needs(field: impl Into<String>, needed: impl Into<String>) -> Self {
        Self::Needs { field: field.into(), needed: needed.into() }
    }

    /// A [`ConfigError::Conflict`].
    pub fn conflict(first: impl Into<String>, second: impl Into<String>) -> Self {
        Self::Conflict { first: first.into(), second: second.into() }
    }
}

/// Why no encoder could be opened.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The configuration is wrong, whichever backend is used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// This backend cannot be used on this machine.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No encoder of the plan opened.
    #[error("no encoder could be opened: {}", list(.refusals))]
    NoneLeft {
        /// Each backend that was tried or passed over, with its reason.
        refusals: Vec<Refusal>,
    },
    /// The [`Waiter`](crate::Waiter) was stopped: the encoder is no longer needed.
    #[error("stopped before an encoder was open")]
    Stopped,
    /// The backend that was required is not compiled in.
    #[error("no encoder `{wanted}` in this build{}", unknown(.wanted, .available))]
    Unknown {
        /// The name that was required.
        wanted: String,
        /// The names that are compiled in.
        available: Vec<EncoderType>,
    },
}

fn list(refusals: &[Refusal]) -> String {
    if refusals.is_empty() {
        return "none is compiled in; hint: build with the feature of at least one backend; \
                a static library must call encoder_pipeline::link_backends() first, \
                because the linker of a C or C++ program leaves out what registers the backends"
            .into();
    }
    refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")
}

fn unknown(wanted: &str, available: &[EncoderType]) -> String {
    let names: Vec<_> = available.iter().map(|t| t.as_str()).collect();
    if names.is_empty() {
        return format!(": {}", list(&[]));
    }
    match crate::settings::nearest(wanted, &names) {
        Some(name) => format!("; did you mean `{name}`?"),
        None => format!(
            "; it has {}: name one of these, or build with the Cargo feature of the one you want",
            names.join(", ")
        ),
    }
}

/// Why an encoder returned no access unit.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The device refused at the first frame. Nothing was encoded, so another encoder can take the
    /// same frame.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The frame does not have the format or size for which the encoder was opened.
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
        /// The encoder.
        encoder: EncoderType,
        /// Number of frames that it had taken before.
        index: u64,
        /// The kind, for counting.
        kind: FailureKind,
        /// The message of the encoder (of a child process: the end of its stderr).
        message: String,
    },
}

impl EncodeError {
    /// An [`EncodeError::Failed`]: `index` is the number of frames that the encoder had taken.
    pub fn failed(
        encoder: EncoderType,
        index: u64,
        kind: FailureKind,
        message: impl Into<String>,
    ) -> Self {
        Self::Failed { encoder, index, kind, message: message.into() }
    }
}

/// The text of a panic that [`catch_unwind`](std::panic::catch_unwind) has caught.
pub fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref().copied()).unwrap_or("it has no text")
}

/// The kinds of failures of a running encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FailureKind {
    /// The encoder, or the program that hosts it, ended or was killed.
    Died,
    /// The encoder returned no access unit, or took no frame, for too long.
    Stalled,
    /// The encoder returned too few, too many or wrong access units.
    WrongOutput,
    /// An access unit does not show the picture of its frame.
    WrongPicture,
    /// The encoder reported an error.
    Failed,
}

crate::names! {
    FailureKind, "failure kind":
    Died = "died",
    Stalled = "stalled",
    WrongOutput = "wrong-output",
    WrongPicture = "wrong-picture",
    Failed = "failed",
}
