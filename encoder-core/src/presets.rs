use crate::{ConfigError, Preset, Settings};

/// The presets of a backend, as its users name them: what a comparison of speeds goes through.
#[derive(Clone, Copy, Debug)]
pub struct Presets {
    /// All that it knows, the fastest first. Empty: it has none.
    pub all: &'static [&'static str],
    /// Those that are worth comparing: it tells them apart.
    pub usual: &'static [&'static str],
    /// Writes one of `all` into the settings where this backend looks for it.
    ///
    /// # Errors
    /// For a name that is not among them.
    pub choose: fn(&mut Settings, &str) -> Result<(), ConfigError>,
}

impl Presets {
    /// Of a backend that has no presets.
    pub const NONE: Self = Self {
        all: &[],
        usual: &[],
        choose: |_, name| Err(ConfigError::value("preset", name, "none: it has no presets")),
    };

    /// Of a backend that follows [`EncoderConfig::preset`](crate::EncoderConfig::preset).
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
    fn a_preset_is_written_where_its_backend_looks() {
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
