//! Settings that several commands share.

use std::path::Path;

use encoder_core::{Cache, ConfigError, Detection, RateControl, Settings};

use crate::{
    hints::{Message, missing},
    options::{ProbeArgs, VideoArgs},
};

/// An error before the work starts: exit code 2 for wrong usage, 1 for all others.
pub struct Refused {
    pub usage: bool,
    pub message: Message,
}

impl Refused {
    pub fn usage(text: impl ToString) -> Self {
        Self { usage: true, message: Message::new(text) }
    }

    /// An error that is not wrong usage, such as an error of the system.
    pub fn failed(text: impl ToString) -> Self {
        Self { usage: false, message: Message::new(text) }
    }

    /// The same error with a hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.message.hints.push(hint.into());
        self
    }

    pub fn code(&self) -> u8 {
        if self.usage { 2 } else { 1 }
    }
}

/// The configuration file, or the defaults if none is named.
pub fn load(path: Option<&Path>) -> Result<Settings, Refused> {
    let Some(path) = path else { return Ok(Settings::default()) };
    let wrong =
        |error: &dyn ToString| Refused::usage(format!("{}: {}", path.display(), error.to_string()));
    let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => wrong(&error).hint(missing(path)),
        _ => wrong(&error),
    })?;
    Settings::from_toml(&text).map_err(|e| wrong(&e))
}

impl VideoArgs {
    /// The configuration file, overridden by the command line.
    pub fn settings(&self) -> Result<Settings, Refused> {
        let mut settings = load(self.config.as_deref())?;
        let encoder = &mut settings.encoder;
        encoder.rate_control = self.rate_control(encoder.rate_control)?;
        encoder.gop_size = self.gop.unwrap_or(encoder.gop_size);
        encoder.b_frames = self.b_frames.unwrap_or(encoder.b_frames);
        settings.check().map_err(|error| Refused::usage(self.with_options(&error)))?;
        if let Some(size) = settings.encoder.resolution {
            return Err(Refused::usage(ConfigError::value(
                "encoder.resolution",
                size,
                "nothing here: the size is that of the recorded pictures, which are not scaled",
            )));
        }
        Ok(settings)
    }

    /// The rate control of the command line, which replaces that of the configuration file as a
    /// whole. A maximum alone is added to the bit rate of the file.
    fn rate_control(&self, of_file: RateControl) -> Result<RateControl, Refused> {
        let Self { crf, qp, bitrate, max_bitrate, .. } = *self;
        if crf.is_some() || qp.is_some() || bitrate.is_some() {
            return RateControl::from_keys(crf, qp, bitrate, max_bitrate).map_err(Refused::usage);
        }
        match (of_file, max_bitrate) {
            (other, None) => Ok(other),
            (RateControl::Bitrate { kbps, .. }, Some(max)) => {
                Ok(RateControl::bitrate_with_max(kbps, max))
            }
            (_, Some(_)) => Err(Refused::usage(ConfigError::needs("--max-bitrate", "--bitrate"))),
        }
    }

    /// The text of an error with the options that were given in place of their fields.
    fn with_options(&self, error: &ConfigError) -> String {
        let options = [
            (self.crf.is_some(), "encoder.crf", "--crf"),
            (self.qp.is_some(), "encoder.qp", "--qp"),
            (self.bitrate.is_some(), "encoder.bitrate_kbps", "--bitrate"),
            (self.max_bitrate.is_some(), "encoder.max_bitrate_kbps", "--max-bitrate"),
            (self.gop.is_some(), "encoder.gop_size", "--gop"),
            (self.b_frames.is_some(), "encoder.b_frames", "--b-frames"),
        ];
        let given = options.into_iter().filter(|(is_given, ..)| *is_given);
        given.fold(error.to_string(), |text, (_, field, option)| text.replace(field, option))
    }

    /// Threads for decoding and encoding, all cameras together.
    pub fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(2, usize::from);
        self.threads.map_or_else(cores, usize::from)
    }
}

impl ProbeArgs {
    /// A detection with the user's cache.
    pub fn detection<'a>(&self, settings: &'a Settings) -> Detection<'a> {
        Detection::new(settings).cache(Cache::of_user()).reprobe(self.reprobe)
    }
}
