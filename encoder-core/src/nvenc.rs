use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use crate::ConfigError;

/// Preset of NVENC: `p1` (fastest) to `p7` (best).
///
/// `"p4".into()` takes any text; a text that is no preset is an error of
/// [`GpuEncoderConfig::check`](crate::GpuEncoderConfig::check), and is not serialized. [`FromStr`]
/// checks at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NvencPreset(&'static str);

#[allow(missing_docs)]
impl NvencPreset {
    pub const P1: Self = Self("p1");
    pub const P2: Self = Self("p2");
    pub const P3: Self = Self("p3");
    pub const P4: Self = Self("p4");
    pub const P5: Self = Self("p5");
    pub const P6: Self = Self("p6");
    pub const P7: Self = Self("p7");
}

impl NvencPreset {
    /// All of them, the fastest first.
    pub const ALL: [Self; 7] =
        [Self::P1, Self::P2, Self::P3, Self::P4, Self::P5, Self::P6, Self::P7];
    /// Their names, the fastest first.
    pub const NAMES: [&str; 7] = ["p1", "p2", "p3", "p4", "p5", "p6", "p7"];

    /// The name.
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl Default for NvencPreset {
    fn default() -> Self {
        Self::P4
    }
}

impl From<&'static str> for NvencPreset {
    fn from(name: &'static str) -> Self {
        Self(name)
    }
}

impl fmt::Display for NvencPreset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0)
    }
}

impl FromStr for NvencPreset {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        Self::ALL
            .into_iter()
            .find(|p| p.as_str() == text)
            .ok_or_else(|| ConfigError::value("gpu.nvenc_preset", text, Self::NAMES.join(", ")))
    }
}

impl Serialize for NvencPreset {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let known = self.0.parse::<Self>().map_err(ser::Error::custom)?;
        serializer.serialize_str(known.0)
    }
}

impl<'de> Deserialize<'de> for NvencPreset {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Tuning of NVENC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NvencTune {
    /// High quality.
    #[default]
    Hq,
    /// Low latency.
    Ll,
    /// Ultra low latency.
    Ull,
    /// Lossless, if the device can: `crf` has no effect; `qp` and `bitrate_kbps` are refused.
    Lossless,
}

crate::names! {
    NvencTune, "gpu.nvenc_tune":
    Hq = "hq",
    Ll = "ll",
    Ull = "ull",
    Lossless = "lossless",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_preset_is_serialized() {
        assert_eq!(serde_json::to_string(&NvencPreset::from("p4")).ok().as_deref(), Some("\"p4\""));
        let error = serde_json::to_string(&NvencPreset::from("p9")).map_err(|e| e.to_string());
        assert!(error.is_err_and(|text| text.contains("gpu.nvenc_preset = p9: not allowed")));
    }
}
