//! Text for types: the names of enums, and `Debug` without the fields.

/// Gives an enum without data its names: `ALL`, `as_str`, `Display` and `FromStr`. The error of
/// `FromStr` names the field and all names. For the crates of this workspace.
#[doc(hidden)]
#[macro_export]
macro_rules! names {
    ($type:ident, $field:literal: $($variant:ident = $name:literal),+ $(,)?) => {
        impl $type {
            /// All values.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name, as in configuration files and reports.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }
        }

        impl ::std::fmt::Display for $type {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl ::std::str::FromStr for $type {
            type Err = $crate::ConfigError;

            fn from_str(text: &str) -> ::std::result::Result<Self, Self::Err> {
                let found = Self::ALL.iter().find(|value| value.as_str() == text);
                let allowed = || [$($name),+].join(", ");
                found.copied().ok_or_else(|| $crate::ConfigError::value($field, text, allowed()))
            }
        }
    };
}

/// `Debug` for types and trait objects that hold what has no text, such as threads and functions:
/// the name of the type. For the crates of this workspace.
#[doc(hidden)]
#[macro_export]
macro_rules! opaque_debug {
    ($($({$($generic:tt)*})? $type:ty = $name:literal),+ $(,)?) => {$(
        impl $(<$($generic)*>)? ::std::fmt::Debug for $type {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.debug_struct($name).finish_non_exhaustive()
            }
        }
    )+};
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        fmt::{Debug, Display},
        str::FromStr,
    };

    use serde::{Deserialize, Serialize};

    use crate::{
        CheckOutput, Codec, ConfigError, EncoderType, FailureKind, NvencPreset, NvencTune,
        PixelFormat, Preset, RefusalKind, Resolution,
    };

    /// Each value comes back from its text and from its serialized form, which are the same. An
    /// unknown name is an error that names the field and the names.
    fn check<T>(all: &[T], field: &str, part: &str)
    where
        T: Copy + Debug + PartialEq + Display + FromStr<Err = ConfigError>,
        T: Serialize + for<'de> Deserialize<'de>,
    {
        assert!(!all.is_empty());
        for value in all {
            let text = value.to_string();
            assert_eq!(text.parse::<T>().unwrap(), *value);
            assert_eq!(serde_json::to_value(value).unwrap(), text);
            assert_eq!(serde_json::from_value::<T>(text.into()).unwrap(), *value);
        }
        let error = "no such name".parse::<T>().unwrap_err().to_string();
        assert!(error.starts_with(&format!("{field} = no such name")), "{error}");
        assert!(error.contains(part), "{error}");
    }

    #[test]
    fn every_value_is_read_from_its_text() {
        check(Codec::ALL, "encoder.codec", "h264");
        check(&Preset::ALL, "encoder.preset", "ultrafast, superfast, veryfast");
        check(PixelFormat::ALL, "encoder.pixel_format", "yuv420p, nv12");
        check(&NvencPreset::ALL, "gpu.nvenc_preset", "p1, p2");
        check(NvencTune::ALL, "gpu.nvenc_tune", "hq, ll, ull, lossless");
        check(CheckOutput::ALL, "gpu.check_output", "key, all, off");
        check(RefusalKind::ALL, "refusal kind", "driver-too-old");
        check(FailureKind::ALL, "failure kind", "wrong-picture");
        check(&[EncoderType::NVENC, EncoderType::OPENH264], "gpu.preferred_encoder", "nvenc, qsv");
        check(&[Resolution::new(640, 480)], "encoder.resolution", "WIDTHxHEIGHT");
    }
}
