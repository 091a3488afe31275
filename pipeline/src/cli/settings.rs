//! What both `encode` and `detect` are told.

use std::path::Path;

use encoder_core::{Cache, Detection, Settings};

use super::args::ProbeArgs;

/// What cannot be started: exit code 2 for what was said wrongly, 1 for the rest.
pub struct Refused {
    pub usage: bool,
    pub text: String,
}

impl Refused {
    pub fn usage(text: impl ToString) -> Self {
        Self { usage: true, text: text.to_string() }
    }

    /// What the system refused.
    pub fn failed(text: impl ToString) -> Self {
        Self { usage: false, text: text.to_string() }
    }

    pub fn code(&self) -> u8 {
        if self.usage { 2 } else { 1 }
    }
}

/// The configuration file, or the defaults where there is none.
pub fn load(path: Option<&Path>) -> Result<Settings, Refused> {
    let Some(path) = path else { return Ok(Settings::default()) };
    let wrong =
        |error: &dyn ToString| Refused::usage(format!("{}: {}", path.display(), error.to_string()));
    let text = std::fs::read_to_string(path).map_err(|e| wrong(&e))?;
    Settings::from_toml(&text).map_err(|e| wrong(&e))
}

impl ProbeArgs {
    /// A detection with the user's cache.
    pub fn detection<'a>(&self, settings: &'a Settings) -> Detection<'a> {
        Detection::new(settings).cache(Cache::of_user()).reprobe(self.reprobe)
    }
}
