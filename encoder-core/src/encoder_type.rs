use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{ConfigError, backend::ids};

/// The name of a backend, as users write it: `nvenc`, `x264` …
///
/// An open set: a crate outside this workspace registers a name of its own. When a
/// name is parsed, it must be that of a backend of this workspace or of a registered backend; the
/// error for another name lists them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EncoderType(&'static str);

impl EncoderType {
    /// NVIDIA NVENC.
    pub const NVENC: Self = Self("nvenc");
    /// Intel Quick Sync Video.
    pub const QSV: Self = Self("qsv");
    /// VA-API: AMD and Intel on Linux.
    pub const VAAPI: Self = Self("vaapi");
    /// Apple VideoToolbox.
    pub const VIDEOTOOLBOX: Self = Self("videotoolbox");
    /// x264, hosted by FFmpeg or in process.
    pub const X264: Self = Self("x264");
    /// Embedded OpenH264.
    pub const OPENH264: Self = Self("openh264");

    /// The backends of this workspace, by rank.
    pub const WORKSPACE: [Self; 6] =
        [Self::NVENC, Self::QSV, Self::VAAPI, Self::VIDEOTOOLBOX, Self::X264, Self::OPENH264];

    /// The name of a backend: lower case letters, digits and hyphens.
    ///
    /// # Panics
    /// With another name. In a constant, that is an error of the compiler.
    #[track_caller]
    pub const fn new(name: &'static str) -> Self {
        assert!(
            is_name(name.as_bytes()),
            "a backend is named by lower case letters, digits and hyphens"
        );
        Self(name)
    }

    /// The name as text.
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

/// Whether a backend may have this name.
const fn is_name(name: &[u8]) -> bool {
    let mut n = 0;
    while n < name.len() {
        if !matches!(name[n], b'a'..=b'z' | b'0'..=b'9' | b'-') {
            return false;
        }
        n += 1;
    }
    n > 0
}

impl fmt::Display for EncoderType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0)
    }
}

impl fmt::Debug for EncoderType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl FromStr for EncoderType {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let mut known = Self::WORKSPACE.to_vec();
        for id in ids() {
            if !known.contains(&id) {
                known.push(id);
            }
        }
        let names: Vec<_> = known.iter().map(|id| id.as_str()).collect();
        let found = known.iter().find(|id| id.as_str() == text);
        found
            .copied()
            .ok_or_else(|| ConfigError::value("gpu.preferred_encoder", text, names.join(", ")))
    }
}

impl Serialize for EncoderType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for EncoderType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    #[test]
    fn a_name_has_lower_case_letters_digits_and_hyphens() {
        for (name, is_good) in [
            ("x264", true),
            ("my-encoder-2", true),
            ("", false),
            ("X264", false),
            ("my_encoder", false),
            ("my encoder", false),
            ("a.b", false),
            ("\u{fc}ber", false),
        ] {
            assert_eq!(catch_unwind(|| EncoderType::new(name)).is_ok(), is_good, "{name:?}");
        }
        for id in EncoderType::WORKSPACE {
            assert_eq!(EncoderType::new(id.as_str()), id);
        }
    }
}
