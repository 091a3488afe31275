use crate::{ConfigError, Preset, Settings};

/// The presets of a backend, by their names: a comparison of speeds measures each of them.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Presets {
    /// All names, the fastest first. Empty: the backend has no presets.
    pub all: &'static [&'static str],
    /// The names that are worth comparing, because their results differ.
    pub usual: &'static [&'static str],
    /// Writes one of `all` to the field of the settings that this backend reads.
    ///
    /// # Errors
    /// For a name that is not in `all`.
    pub choose: fn(&mut Settings, &str) -> Result<(), ConfigError>,
}

impl Presets {
    /// For a backend without presets.
    pub const NONE: Self = Self {
        all: &[],
        usual: &[],
        choose: |_, name| {
            Err(ConfigError::value("encoder.preset", name, "none: it has no presets"))
        },
    };

    /// For a backend with presets of its own, whose fields have these values.
    pub const fn new(
        all: &'static [&'static str],
        usual: &'static [&'static str],
        choose: fn(&mut Settings, &str) -> Result<(), ConfigError>,
    ) -> Self {
        Self { all, usual, choose }
    }

    /// For a backend that reads [`EncoderConfig::preset`](crate::EncoderConfig::preset).
    pub const fn common(usual: &'static [&'static str]) -> Self {
        Self { all: &Preset::NAMES, usual, choose }
    }
}

fn choose(settings: &mut Settings, name: &str) -> Result<(), ConfigError> {
    settings.encoder.preset = name.parse()?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_preset_is_written_to_the_field_that_its_backend_reads() {
        let presets = Presets::common(&["fast"]);
        let mut settings = Settings::default();
        for name in presets.all {
            (presets.choose)(&mut settings, name).unwrap();
            assert_eq!(settings.encoder.preset.as_str(), *name);
        }
        let error = (presets.choose)(&mut settings, "p1").unwrap_err().to_string();
        assert!(error.contains("ultrafast"), "{error}");
        let error = (Presets::NONE.choose)(&mut settings, "fast").unwrap_err().to_string();
        assert!(error.contains("no presets"), "{error}");
    }
}
