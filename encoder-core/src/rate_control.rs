use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{ConfigError, EncoderType, Refusal, RefusalKind};

/// How an encoder distributes bits over the pictures.
///
/// In TOML, keys of the table `[encoder]`: `crf`, or `qp`, or `bitrate_kbps` with or without
/// `max_bitrate_kbps`. Keys of two kinds in one table are [`ConfigError::Conflict`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Keys", into = "Keys")]
#[non_exhaustive]
pub enum RateControl {
    /// Constant quality, 0 (best) to 51, on the scale of x264; other backends map it to about the
    /// same picture.
    Crf(u8),
    /// Constant quantiser, 1 (best) to 51: every picture is coded with this quantiser. A backend
    /// that cannot do that is refused.
    ConstantQp(u8),
    /// A bit rate. A backend that cannot keep the maximum is refused.
    #[non_exhaustive]
    Bitrate {
        /// The mean bit rate, in kilobits (1000 bits) per second at the encoder's
        /// [`frame_rate`](crate::EncoderConfig::frame_rate): 1 to 2,000,000.
        kbps: u32,
        /// The largest bit rate, in kilobits per second: at least the mean. It fills a decoder's
        /// buffer that holds a second of it, and which never runs empty. Equal to the mean, it makes
        /// the bit rate constant. Default: none.
        max_kbps: Option<u32>,
    },
}

impl RateControl {
    const MOST_KBPS: u32 = 2_000_000;

    /// A mean bit rate in kilobits per second, without a maximum.
    pub const fn bitrate(kbps: u32) -> Self {
        Self::Bitrate { kbps, max_kbps: None }
    }

    /// Sets the maximum of a bit rate, in kilobits per second. Another kind is returned unchanged.
    #[must_use]
    pub const fn with_max_kbps(self, max: u32) -> Self {
        match self {
            Self::Bitrate { kbps, .. } => Self::Bitrate { kbps, max_kbps: Some(max) },
            other => other,
        }
    }

    /// The rate control for these keys, as they are called in TOML; the default if none is given.
    ///
    /// # Errors
    /// [`ConfigError::Conflict`] if two kinds are given, [`ConfigError::Needs`] for a maximum
    /// without a bit rate. The values themselves are checked by [`check`](Self::check).
    pub fn from_keys(
        crf: Option<u8>,
        qp: Option<u8>,
        bitrate_kbps: Option<u32>,
        max_bitrate_kbps: Option<u32>,
    ) -> Result<Self, ConfigError> {
        Keys { crf, qp, bitrate_kbps, max_bitrate_kbps }.try_into()
    }

    /// Checks which keys of the table `[encoder]` are given. Values of a wrong type are reported where
    /// the whole table is read.
    pub(crate) fn check_keys(table: &toml::Table) -> Result<(), ConfigError> {
        table.clone().try_into::<Keys>().map_or(Ok(()), |keys| Self::try_from(keys).map(drop))
    }

    /// The key in TOML that selects this kind, with its table.
    pub const fn field(self) -> &'static str {
        match self {
            Self::Crf(_) => "encoder.crf",
            Self::ConstantQp(_) => "encoder.qp",
            Self::Bitrate { .. } => "encoder.bitrate_kbps",
        }
    }

    /// Checks the values.
    ///
    /// # Errors
    /// [`ConfigError::Value`], with the field and what is allowed.
    pub fn check(self) -> Result<(), ConfigError> {
        let most = Self::MOST_KBPS;
        match self {
            Self::Crf(crf) if crf > 51 => Err(ConfigError::value(self.field(), crf, "0 to 51")),
            Self::ConstantQp(qp) if !(1..=51).contains(&qp) => {
                Err(ConfigError::value(self.field(), qp, "1 to 51"))
            }
            Self::Bitrate { kbps, .. } if !(1..=most).contains(&kbps) => {
                Err(ConfigError::value(self.field(), kbps, format!("1 to {most}")))
            }
            Self::Bitrate { kbps, max_kbps: Some(max) } if !(kbps..=most).contains(&max) => {
                let allowed = format!("{kbps} (encoder.bitrate_kbps) to {most}");
                Err(ConfigError::value("encoder.max_bitrate_kbps", max, allowed))
            }
            _ => Ok(()),
        }
    }

    /// The refusal of a backend that does not have this kind of rate control, for `why`.
    pub fn refused_by(self, encoder: EncoderType, why: &str) -> Refusal {
        let hint = "set another rate control (crf, qp, bitrate_kbps), or use another encoder";
        Refusal::new(encoder, RefusalKind::Unsupported, format!("it cannot do {self}: {why}"), hint)
    }

    /// The same kind for a probe, which compares pictures: with values of its own, at which the
    /// pictures are similar.
    pub(crate) const fn of_probe(self) -> Self {
        const ENOUGH: u32 = 20_000;
        match self {
            Self::Crf(_) => Self::Crf(23),
            Self::ConstantQp(_) => Self::ConstantQp(23),
            Self::Bitrate { max_kbps: None, .. } => Self::bitrate(ENOUGH),
            Self::Bitrate { max_kbps: Some(_), .. } => {
                Self::bitrate(ENOUGH).with_max_kbps(2 * ENOUGH)
            }
        }
    }
}

impl Default for RateControl {
    /// CRF 23.
    fn default() -> Self {
        Self::Crf(23)
    }
}

impl fmt::Display for RateControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crf(crf) => write!(f, "crf {crf}"),
            Self::ConstantQp(qp) => write!(f, "qp {qp}"),
            Self::Bitrate { kbps, max_kbps: None } => write!(f, "{kbps} kbit/s"),
            Self::Bitrate { kbps, max_kbps: Some(max) } => {
                write!(f, "{kbps} kbit/s, at most {max} kbit/s")
            }
        }
    }
}

/// The keys in TOML.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
struct Keys {
    #[serde(skip_serializing_if = "Option::is_none")]
    crf: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    qp: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bitrate_kbps: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_bitrate_kbps: Option<u32>,
}

impl TryFrom<Keys> for RateControl {
    type Error = ConfigError;

    fn try_from(keys: Keys) -> Result<Self, ConfigError> {
        let kinds = [
            keys.crf.map(Self::Crf),
            keys.qp.map(Self::ConstantQp),
            keys.bitrate_kbps.map(Self::bitrate),
        ];
        let mut kinds = kinds.into_iter().flatten();
        let kind = kinds.next();
        if let (Some(one), Some(other)) = (kind, kinds.next()) {
            return Err(ConfigError::conflict(one.field(), other.field()));
        }
        match (kind, keys.max_bitrate_kbps) {
            (kind, None) => Ok(kind.unwrap_or_default()),
            (Some(kind @ Self::Bitrate { .. }), Some(max)) => Ok(kind.with_max_kbps(max)),
            (Some(kind), Some(_)) => {
                Err(ConfigError::conflict(kind.field(), "encoder.max_bitrate_kbps"))
            }
            (None, Some(_)) => {
                Err(ConfigError::needs("encoder.max_bitrate_kbps", "encoder.bitrate_kbps"))
            }
        }
    }
}

impl From<RateControl> for Keys {
    fn from(rate_control: RateControl) -> Self {
        let mut keys = Self::default();
        match rate_control {
            RateControl::Crf(crf) => keys.crf = Some(crf),
            RateControl::ConstantQp(qp) => keys.qp = Some(qp),
            RateControl::Bitrate { kbps, max_kbps } => {
                (keys.bitrate_kbps, keys.max_bitrate_kbps) = (Some(kbps), max_kbps);
            }
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EncoderConfig, Settings};

    fn read(keys: &str) -> Result<RateControl, ConfigError> {
        Settings::from_toml(&format!("[encoder]\n{keys}")).map(|s| s.encoder.rate_control)
    }

    #[test]
    fn keys_are_read_and_written() {
        for (keys, expected, shown) in [
            ("", RateControl::Crf(23), "crf 23"),
            ("crf = 0", RateControl::Crf(0), "crf 0"),
            ("qp = 30", RateControl::ConstantQp(30), "qp 30"),
            ("bitrate_kbps = 800", RateControl::bitrate(800), "800 kbit/s"),
            (
                "bitrate_kbps = 800\nmax_bitrate_kbps = 900",
                RateControl::bitrate(800).with_max_kbps(900),
                "800 kbit/s, at most 900 kbit/s",
            ),
        ] {
            assert_eq!(read(keys), Ok(expected));
            assert_eq!(expected.to_string(), shown);
            let written = toml::to_string(&expected).expect("a table");
            assert_eq!(read(&written), Ok(expected), "{written}");
            let direct: EncoderConfig = toml::from_str(&written).expect("the same keys");
            assert_eq!(direct.rate_control, expected);
        }
    }

    #[test]
    fn two_kinds_are_an_error_that_names_both() {
        let conflict = |a: &str, b: &str| {
            Err(ConfigError::Conflict {
                first: format!("encoder.{a}"),
                second: format!("encoder.{b}"),
            })
        };
        for (keys, expected) in [
            ("crf = 20\nqp = 20", conflict("crf", "qp")),
            ("bitrate_kbps = 800\ncrf = 20", conflict("crf", "bitrate_kbps")),
            ("bitrate_kbps = 800\nqp = 20", conflict("qp", "bitrate_kbps")),
            ("max_bitrate_kbps = 800\nqp = 20", conflict("qp", "max_bitrate_kbps")),
        ] {
            assert_eq!(read(keys), expected, "{keys}");
            let error = toml::from_str::<EncoderConfig>(keys).expect_err(keys).to_string();
            assert!(error.contains("contradict each other"), "{error}");
        }
    }

    #[test]
    fn wrong_values_are_errors_that_name_the_field() {
        for (keys, expected) in [
            ("crf = 52", "encoder.crf = 52: not allowed; allowed is 0 to 51"),
            ("qp = 0", "encoder.qp = 0: not allowed; allowed is 1 to 51"),
            ("qp = 52", "encoder.qp = 52"),
            ("qp = 300", "u8"),
            ("bitrate_kbps = 0", "encoder.bitrate_kbps = 0: not allowed; allowed is 1 to 2000000"),
            ("bitrate_kbps = 2000001", "encoder.bitrate_kbps = 2000001"),
            (
                "bitrate_kbps = 800\nmax_bitrate_kbps = 799",
                "encoder.max_bitrate_kbps = 799: not allowed; allowed is 800",
            ),
            (
                "max_bitrate_kbps = 800",
                "`encoder.max_bitrate_kbps` needs `encoder.bitrate_kbps`, which is not set",
            ),
            ("bit_rate_kbps = 800", "did you mean `bitrate_kbps`?"),
        ] {
            let error = read(keys).expect_err(keys).to_string();
            assert!(error.contains(expected), "{keys}: {error}");
        }
        // An unknown key is refused by every way of reading.
        assert!(toml::from_str::<EncoderConfig>("crff = 3").is_err());
    }

    #[test]
    fn a_probe_has_the_same_kind_and_values_of_its_own() {
        for (kind, expected) in [
            (RateControl::Crf(51), RateControl::Crf(23)),
            (RateControl::ConstantQp(51), RateControl::ConstantQp(23)),
            (RateControl::bitrate(1), RateControl::bitrate(20_000)),
            (
                RateControl::bitrate(1).with_max_kbps(1),
                RateControl::bitrate(20_000).with_max_kbps(40_000),
            ),
        ] {
            assert_eq!(kind.of_probe(), expected);
        }
    }
}
