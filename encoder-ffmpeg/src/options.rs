//! Reads the table of options of a backend.

use std::fmt::Display;

use encoder_core::{
    BackendOptions, ConfigError, EncoderType, OpenError, Refusal, RefusalKind, unknown_key,
};
use serde::de::DeserializeOwned;

/// Reads `[backend.<id>]` into the backend's struct, whose fields are `known`.
///
/// # Errors
/// [`ConfigError::UnknownKey`] with the nearest known key; [`ConfigError::Value`] for a value of a
/// wrong type or name.
pub fn read_options<T: DeserializeOwned>(
    id: EncoderType,
    options: &BackendOptions,
    known: &[&str],
) -> Result<T, ConfigError> {
    let place = format!("[backend.{id}]");
    if let Some(key) = options.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(unknown_key(&place, key, known));
    }
    options
        .clone()
        .try_into()
        .map_err(|error| ConfigError::Syntax(format!("{place}: {}", error.to_string().trim())))
}

/// The refusal that a probe reports for an error before its encode.
pub fn refusal(id: EncoderType, error: OpenError) -> Refusal {
    match error {
        OpenError::Refused(refusal) => refusal,
        other => misconfigured(id, other),
    }
}

/// The refusal of a backend whose options are wrong, for callers that did not check them before.
pub fn misconfigured(id: EncoderType, error: impl Display) -> Refusal {
    Refusal::new(id, RefusalKind::Unsupported, error.to_string(), "correct the configuration")
}
