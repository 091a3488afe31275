use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    BackendOptions, CheckOutput, ConfigError, EncoderConfig, GpuEncoderConfig, NvencTune,
    RateControl, backend::check_ids, backends,
};

/// The whole configuration of an encode. In a TOML file:
///
/// ```toml
/// [encoder]                 # EncoderConfig
/// preset = "veryfast"
/// crf = 23
///
/// [gpu]                     # GpuEncoderConfig
/// preferred_encoder = "nvenc"
///
/// [ffmpeg]                  # FfmpegConfig
/// path = "/opt/ffmpeg/bin/ffmpeg"
///
/// [backend.openh264]        # options of one backend, documented in its crate
/// complexity = "medium"
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Table `[encoder]`.
    pub encoder: EncoderConfig,
    /// Table `[gpu]`.
    pub gpu: GpuEncoderConfig,
    /// Table `[ffmpeg]`.
    pub ffmpeg: FfmpegConfig,
    /// Tables `[backend.<name>]`.
    pub backend: BTreeMap<String, BackendOptions>,
}

/// Which FFmpeg hosts encoders and reads video files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FfmpegConfig {
    /// The program; a relative path begins at the current directory. Default: the environment
    /// variable `ENCODER_FFMPEG`, else the first `ffmpeg` on the `PATH` that works.
    pub path: Option<PathBuf>,
}

impl FfmpegConfig {
    const KEYS: &[&str] = &["path"];

    /// Checks every value. Whether the program exists is found out by the backends that use it.
    ///
    /// # Errors
    /// [`ConfigError::Value`] for an empty path.
    pub fn check(&self) -> Result<(), ConfigError> {
        match &self.path {
            Some(path) if path.as_os_str().is_empty() => {
                Err(ConfigError::value("ffmpeg.path", "\"\"", "the path of a program"))
            }
            _ => Ok(()),
        }
    }
}

impl Settings {
    /// Reads and checks a TOML document.
    ///
    /// # Errors
    /// [`ConfigError`], with the field and what is allowed, or the unknown key and the nearest
    /// known one.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let table: toml::Table =
            text.parse().map_err(|e: toml::de::Error| ConfigError::Syntax(e.to_string()))?;
        check_keys("the configuration", &table, &["encoder", "gpu", "ffmpeg", "backend"])?;
        for (name, known) in [
            ("encoder", EncoderConfig::KEYS),
            ("gpu", GpuEncoderConfig::KEYS),
            ("ffmpeg", FfmpegConfig::KEYS),
        ] {
            match table.get(name) {
                Some(toml::Value::Table(inner)) => check_keys(&format!("[{name}]"), inner, known)?,
                Some(other) => return Err(ConfigError::value(name, other, "a table")),
                None => {}
            }
        }
        if let Some(toml::Value::Table(encoder)) = table.get("encoder") {
            RateControl::check_keys(encoder)?;
        }
        let settings: Self =
            toml::from_str(text).map_err(|e| ConfigError::Syntax(e.to_string()))?;
        settings.check()?;
        Ok(settings)
    }

    /// Checks every value, and that the backends of the program have different names.
    ///
    /// # Errors
    /// The first value that is not allowed, or [`ConfigError::DuplicateBackend`].
    pub fn check(&self) -> Result<(), ConfigError> {
        check_ids()?;
        self.encoder.check()?;
        self.gpu.check()?;
        self.ffmpeg.check()?;
        if self.gpu.check_output == CheckOutput::All && self.encoder.b_frames > 0 {
            let allowed = "key or off; all needs b_frames = 0";
            return Err(ConfigError::value("gpu.check_output", "all", allowed));
        }
        let rate_control = self.encoder.rate_control;
        if self.gpu.nvenc_tune == NvencTune::Lossless
            && !matches!(rate_control, RateControl::Crf(_))
        {
            // Not a contradiction with `crf`, which always has a value.
            return Err(ConfigError::conflict(rate_control.field(), "gpu.nvenc_tune = lossless"));
        }
        let all = backends();
        for (name, options) in &self.backend {
            // A table for a backend that is not in this build is ignored, so that one file serves
            // every build.
            if let Some(backend) = all.iter().find(|b| b.id.as_str() == name) {
                backend.check(options)?;
            }
        }
        Ok(())
    }
}

/// Refuses the first key of `table` that is not in `known`.
fn check_keys(place: &str, table: &toml::Table, known: &[&str]) -> Result<(), ConfigError> {
    match table.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(unknown_key(place, key, known)),
        None => Ok(()),
    }
}

/// The error for an unknown key: names the nearest known key, or all if none is near.
pub fn unknown_key(place: &str, key: &str, known: &[&str]) -> ConfigError {
    let hint = match nearest(key, known) {
        None if known.is_empty() => "; it has no keys".to_owned(),
        Some(name) => format!("; did you mean `{name}`?"),
        None => format!("; known are {}", known.join(", ")),
    };
    ConfigError::UnknownKey { key: key.into(), place: place.into(), hint }
}

/// The known name that is most like `word`, if any is similar.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let likeness = |name: &&str| strsim::normalized_damerau_levenshtein(word, name);
    let best = known.iter().copied().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(&best) > 0.5).then_some(best)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{NvencPreset, PixelFormat, Preset};

    /// Each key, with a value that is not its default.
    const EVERY_KEY: &str = r#"
            [encoder]
            codec = "h264"
            preset = "medium"
            crf = 20
            gop_size = 15
            pixel_format = "nv12"
            resolution = "640x480"
            frame_rate = "30000/1001"
            b_frames = 2
            [gpu]
            preferred_encoder = "nvenc"
            require_hardware = true
            enable_ring_buffer = false
            ring_buffer_size = 32
            nvenc_preset = "p5"
            nvenc_tune = "ll"
            check_output = "off"
            [ffmpeg]
            path = "/opt/ffmpeg"
            [backend.nowhere]
            anything = 1
            "#;

    #[test]
    fn every_key_is_read() {
        let settings = Settings::from_toml(EVERY_KEY).expect("valid");
        assert_eq!(settings.encoder.preset, Preset::Medium);
        assert_eq!(settings.encoder.rate_control, RateControl::Crf(20));
        assert_eq!(settings.encoder.pixel_format, PixelFormat::Nv12);
        assert_eq!(settings.encoder.frame_rate.to_string(), "30000/1001");
        assert_eq!(settings.gpu.nvenc_preset, NvencPreset::P5);
        assert_eq!(settings.gpu.nvenc_tune, NvencTune::Ll);
        assert_eq!(settings.gpu.ring_buffer_size, 32);
        assert!(!settings.gpu.enable_ring_buffer);
        assert_eq!(settings.ffmpeg.path.as_deref(), Some(Path::new("/opt/ffmpeg")));
        assert_eq!(settings.gpu.check_output, CheckOutput::Off);
        assert_eq!(Settings::from_toml(""), Ok(Settings::default()));
    }

    #[test]
    fn settings_come_back_from_toml() {
        for text in ["", EVERY_KEY] {
            let settings = Settings::from_toml(text).expect("valid");
            let written = toml::to_string(&settings).expect("a table");
            assert_eq!(Settings::from_toml(&written), Ok(settings.clone()), "{written}");
            let json = serde_json::to_string(&settings).expect("an object");
            assert_eq!(serde_json::from_str::<Settings>(&json).expect("settings"), settings);
            let encoder = toml::to_string(&settings.encoder).expect("a table");
            assert_eq!(toml::from_str(&encoder), Ok(settings.encoder));
            let gpu = toml::to_string(&settings.gpu).expect("a table");
            assert_eq!(toml::from_str(&gpu), Ok(settings.gpu));
        }
    }

    #[test]
    fn keys_keep_working_under_their_old_names() {
        let read = |text| Settings::from_toml(text).map(|settings| settings.gpu.failback_after_s);
        assert_eq!(read("[gpu]\ncomeback_s = 7"), Ok(7));
        assert_eq!(read("[gpu]\nfailback_after_s = 7"), Ok(7));
    }

    #[test]
    fn errors_name_the_field_the_value_and_the_hint() {
        let table = [
            ("[encoder]\ncrf = 52", "encoder.crf = 52: not allowed; allowed is 0 to 51"),
            ("[encoder]\ngop_size = 0", "encoder.gop_size = 0: not allowed; allowed is 1 to 600"),
            ("[encoder]\nb_frames = 9", "encoder.b_frames = 9"),
            ("[encoder]\nframe_rate = 0", "encoder.frame_rate = 0: not allowed"),
            ("[encoder]\nframe_rate = \"x\"", "encoder.frame_rate = x: not allowed"),
            ("[encoder]\nresolution = \"640\"", "encoder.resolution = 640: not allowed"),
            (
                "[encoder]\npreset = \"warp\"",
                "encoder.preset = warp: not allowed; allowed is ultrafast, superfast, veryfast",
            ),
            ("[encoder]\ncfr = 20", "unknown key `cfr` in [encoder]; did you mean `crf`?"),
            ("[gpu]\nring_bufer_size = 3", "did you mean `ring_buffer_size`?"),
            (
                "[gpu]\nring_buffer_size = 1",
                "gpu.ring_buffer_size = 1: not allowed; allowed is 2 to 4096",
            ),
            ("[gpu]\nsession_wait_s = 3601", "allowed is 0 to 3600 seconds"),
            ("[gpu]\nprobe_timeout_s = 0", "gpu.probe_timeout_s = 0"),
            ("[gpu]\nstall_timeout_s = 0", "gpu.stall_timeout_s = 0"),
            ("[gpu]\ncheck_output = \"some\"", "expected one of `key`, `all`, `off`"),
            (
                "[encoder]\nb_frames = 1\n[gpu]\ncheck_output = \"all\"",
                "gpu.check_output = all: not allowed; allowed is key or off; all needs b_frames = 0",
            ),
            (
                "[encoder]\nqp = 9\n[gpu]\nnvenc_tune = \"lossless\"",
                "`encoder.qp` and `gpu.nvenc_tune = lossless` contradict each other",
            ),
            ("[gpu]\nmax_sessions = 65", "gpu.max_sessions = 65: not allowed; allowed is 1 to 64"),
            ("[gpu]\nnvenc_preset = \"p9\"", "p7"),
            ("[gpu]\nnvenc_tune = \"fast\"", "ull"),
            (
                "[gpu]\npreferred_encoder = \"nvnec\"",
                "gpu.preferred_encoder = nvnec: not allowed; allowed is nvenc, qsv, vaapi, videotoolbox, x264, openh264",
            ),
            ("[ffmpeg]\npath = \"\"", "ffmpeg.path = \"\": not allowed"),
            ("[ffmpeg]\npaht = \"a\"", "did you mean `path`?"),
            ("[gup]\n", "unknown key `gup` in the configuration; did you mean `gpu`?"),
            ("gpu = 3", "a table"),
            ("[encoder]\nzzz = 3", "known are codec, preset, crf"),
            ("crf", "expected"),
        ];
        for (text, expected) in table {
            let error = Settings::from_toml(text).expect_err(text).to_string();
            assert!(error.contains(expected), "{text:?} gave {error:?}");
        }
    }
}
