//! The log of a virtual device: one JSON object per line, by all of its processes.

use std::{fs, io, path::Path};

use serde::de::DeserializeOwned;

/// Reads the log in a device's `folder`; without a log file there are no events.
///
/// # Panics
/// When the log cannot be read.
pub(crate) fn read<T: DeserializeOwned>(folder: &Path) -> Vec<T> {
    let text = match fs::read_to_string(folder.join("log")) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => panic!("the log of the virtual device: {error}"),
    };
    let event = |line: &str| match serde_json::from_str(line) {
        Ok(event) => event,
        Err(error) => panic!("{error} in the log of the virtual device: {line}"),
    };
    text.lines().map(event).collect()
}
