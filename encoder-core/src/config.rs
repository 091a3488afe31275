use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::{ConfigError, EncoderType, NvencPreset, NvencTune, PixelFormat, RateControl};

/// The table `[backend.<name>]` of the configuration, which the backend reads.
pub type BackendOptions = toml::Table;

/// Video codec of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Codec {
    /// H.264 / AVC.
    #[default]
    H264,
}

crate::names! {
    Codec, "encoder.codec":
    H264 = "h264",
}

/// Speed against size, by the names of x264. Each backend maps them to its own scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Preset {
    Ultrafast,
    Superfast,
    #[default]
    Veryfast,
    Faster,
    Fast,
    Medium,
    Slow,
    Slower,
    Veryslow,
}

impl Preset {
    /// All of them, the fastest first.
    pub const ALL: [Self; 9] = [
        Self::Ultrafast,
        Self::Superfast,
        Self::Veryfast,
        Self::Faster,
        Self::Fast,
        Self::Medium,
        Self::Slow,
        Self::Slower,
        Self::Veryslow,
    ];

    /// Their names, the fastest first.
    pub const NAMES: [&str; 9] = [
        "ultrafast",
        "superfast",
        "veryfast",
        "faster",
        "fast",
        "medium",
        "slow",
        "slower",
        "veryslow",
    ];

    /// The name.
    pub const fn as_str(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Preset {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        Self::ALL
            .into_iter()
            .find(|p| p.as_str() == text)
            .ok_or_else(|| ConfigError::value("encoder.preset", text, Self::NAMES.join(", ")))
    }
}

impl<'de> Deserialize<'de> for Preset {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Width and height in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Resolution {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl Resolution {
    /// A size.
    pub const fn new(width: u32, height: u32) -> Self {
        Self { width, height }
    }

    /// The next even size, as 4:2:0 needs it. The largest odd side, `u32::MAX`, stays the same.
    pub const fn even(self) -> Self {
        Self {
            width: self.width.saturating_add(self.width % 2),
            height: self.height.saturating_add(self.height % 2),
        }
    }
}

impl fmt::Display for Resolution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

impl FromStr for Resolution {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        text.split_once('x')
            .and_then(|(w, h)| Some(Self::new(w.parse().ok()?, h.parse().ok()?)))
            .filter(|r| r.width > 0 && r.height > 0)
            .ok_or_else(|| {
                ConfigError::value(
                    "encoder.resolution",
                    text,
                    "WIDTHxHEIGHT in pixels, such as 640x480",
                )
            })
    }
}

impl Serialize for Resolution {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Resolution {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Frames per second, as an exact fraction in lowest terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrameRate {
    numerator: u32,
    denominator: u32,
}

impl FrameRate {
    /// The highest rate that is accepted, in frames per second.
    pub const MAX: u32 = 2000;

    /// `numerator / denominator` frames per second: more than 0 and at most [`Self::MAX`].
    ///
    /// # Errors
    /// [`ConfigError::Value`] outside of this range.
    pub fn new(numerator: u32, denominator: u32) -> Result<Self, ConfigError> {
        let wrong = || {
            ConfigError::value(
                "encoder.frame_rate",
                format!("{numerator}/{denominator}"),
                format!("more than 0 and at most {}: 30, 29.97 or 30000/1001", Self::MAX),
            )
        };
        if numerator == 0 || denominator == 0 || numerator / Self::MAX > denominator {
            return Err(wrong());
        }
        let divisor = gcd(numerator, denominator);
        let rate = Self { numerator: numerator / divisor, denominator: denominator / divisor };
        if rate.as_f64() > f64::from(Self::MAX) { Err(wrong()) } else { Ok(rate) }
    }

    /// Frames in [`denominator`](Self::denominator) seconds.
    pub const fn numerator(self) -> u32 {
        self.numerator
    }

    /// Seconds for [`numerator`](Self::numerator) frames.
    pub const fn denominator(self) -> u32 {
        self.denominator
    }

    /// Frames per second.
    pub fn as_f64(self) -> f64 {
        f64::from(self.numerator) / f64::from(self.denominator)
    }

    /// When frame `index` is shown, in nanoseconds from frame 0, rounded.
    pub fn nanoseconds(self, index: u64) -> u64 {
        let n = u128::from(index) * 1_000_000_000 * u128::from(self.denominator);
        ((n + u128::from(self.numerator) / 2) / u128::from(self.numerator)) as u64
    }
}

impl Default for FrameRate {
    fn default() -> Self {
        Self { numerator: 30, denominator: 1 }
    }
}

impl fmt::Display for FrameRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.denominator {
            1 => write!(f, "{}", self.numerator),
            d => write!(f, "{}/{d}", self.numerator),
        }
    }
}

impl FromStr for FrameRate {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let wrong = || {
            let most = Self::MAX;
            ConfigError::value(
                "encoder.frame_rate",
                text,
                format!("a rate such as 30, 29.97 or 30000/1001, at most {most}"),
            )
        };
        if let Some((n, d)) = text.split_once(['/', ':']) {
            let (n, d) = (n.trim().parse(), d.trim().parse());
            return Self::new(n.map_err(|_| wrong())?, d.map_err(|_| wrong())?);
        }
        let value: f64 = text.trim().parse().map_err(|_| wrong())?;
        if !value.is_finite() || value <= 0.0 || value > f64::from(Self::MAX) {
            return Err(wrong());
        }
        // 23.976, 29.97, 59.94 and the like are short for the NTSC fractions.
        for whole in [24u32, 30, 48, 60, 120, 240] {
            let ntsc = f64::from(whole) * 1000.0 / 1001.0;
            if (value - ntsc).abs() < 0.005 && value.fract() != 0.0 {
                return Self::new(whole * 1000, 1001);
            }
        }
        Self::new((value * 1000.0).round() as u32, 1000)
    }
}

impl Serialize for FrameRate {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FrameRate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Rate {
            Number(f64),
            Text(String),
        }
        let text = match Rate::deserialize(deserializer)? {
            Rate::Number(number) => number.to_string(),
            Rate::Text(text) => text,
        };
        text.parse().map_err(de::Error::custom)
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The properties of the stream. Plain data; [`check`](Self::check) checks every value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EncoderConfig {
    /// Codec of the output. Default `h264`.
    pub codec: Codec,
    /// Speed against size. Default `veryfast`.
    pub preset: Preset,
    /// How bits are distributed: by a constant quality, a constant quantiser, or a bit rate.
    /// Default: CRF 23.
    #[serde(flatten)]
    pub rate_control: RateControl,
    /// Frames from one IDR picture to the next, 1 to 600. Default 30.
    pub gop_size: u32,
    /// Sample layout of the encoder's frames, if the encoder can choose. Default `yuv420p`.
    pub pixel_format: PixelFormat,
    /// Size of the pictures; `None` until the first picture is there.
    pub resolution: Option<Resolution>,
    /// Rate that the encoder assumes for its decisions; timestamps do not depend on it.
    /// Default 30.
    pub frame_rate: FrameRate,
    /// Most B-frames in a row, 0 to 4. Backends without B-frames make none. Default 0.
    pub b_frames: u8,
}

impl Default for EncoderConfig {
    fn default() -> Self {
        Self {
            codec: Codec::H264,
            preset: Preset::default(),
            rate_control: RateControl::default(),
            gop_size: 30,
            pixel_format: PixelFormat::Yuv420p,
            resolution: None,
            frame_rate: FrameRate::default(),
            b_frames: 0,
        }
    }
}

impl EncoderConfig {
    /// The largest width or height in pixels.
    pub const MAX_SIDE: u32 = 16384;
    pub(crate) const KEYS: &[&str] = &[
        "codec",
        "preset",
        "crf",
        "qp",
        "bitrate_kbps",
        "max_bitrate_kbps",
        "gop_size",
        "pixel_format",
        "resolution",
        "frame_rate",
        "b_frames",
    ];

    /// Checks every value.
    ///
    /// # Errors
    /// The first value that is not allowed, with the field and what is allowed.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.rate_control.check()?;
        if !(1..=600).contains(&self.gop_size) {
            return Err(ConfigError::value("encoder.gop_size", self.gop_size, "1 to 600"));
        }
        if self.b_frames > 4 {
            return Err(ConfigError::value("encoder.b_frames", self.b_frames, "0 to 4"));
        }
        if let Some(size) = self.resolution {
            let side = 2..=Self::MAX_SIDE;
            if !side.contains(&size.width) || !side.contains(&size.height) {
                return Err(ConfigError::value(
                    "encoder.resolution",
                    size,
                    format!("sides of 2 to {} pixels", Self::MAX_SIDE),
                ));
            }
        }
        Ok(())
    }
}

/// Which pictures of a hardware encoder are decoded and compared with their frames while it
/// encodes. A picture that is wrong is encoded again, by the next encoder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckOutput {
    /// The key frames.
    #[default]
    Key,
    /// All pictures. Needs `b_frames = 0`.
    All,
    /// None.
    Off,
}

crate::names! {
    CheckOutput, "gpu.check_output":
    Key = "key",
    All = "all",
    Off = "off",
}

/// The choice of the encoder, the ring in front of it, and the settings of hardware encoders.
///
/// ```
/// use encoder_core::{EncoderType, GpuEncoderConfig};
///
/// let config = GpuEncoderConfig {
///     preferred_encoder: Some(EncoderType::NVENC),
///     nvenc_preset: "p4".into(),
///     ..Default::default()
/// };
/// assert!(config.check().is_ok());
///
/// let wrong = GpuEncoderConfig { nvenc_preset: "p9".into(), ..config };
/// let error = wrong.check().unwrap_err().to_string();
/// assert!(error.starts_with("gpu.nvenc_preset = p9: not allowed"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GpuEncoderConfig {
    /// Backend to try first if it is usable. Default: by rank.
    pub preferred_encoder: Option<EncoderType>,
    /// Refuse to run on a software encoder. Default false.
    pub require_hardware: bool,
    /// Put a ring of `ring_buffer_size` frames between decoding and encoding, so that both run at
    /// the same time. Without it the ring is as small as the encoder allows. Default true.
    pub enable_ring_buffer: bool,
    /// Frames in the ring, 2 to 4096; raised to what the encoder's look-ahead needs. Default 16.
    pub ring_buffer_size: usize,
    /// Preset of NVENC. Default `p4`.
    pub nvenc_preset: NvencPreset,
    /// Tuning of NVENC. Default `hq`.
    pub nvenc_tune: NvencTune,
    /// Most encode sessions on one GPU at the same time, of all programs of this user together: 1
    /// to 64. Default: as many as the driver allows.
    pub max_sessions: Option<u32>,
    /// Seconds to wait for a free session when all are in use, 0 to 3600, before the next encoder
    /// is taken. The wait is for sessions of other programs, and for sessions of this process whose
    /// input has ended. Default 0: no wait.
    pub session_wait_s: u32,
    /// Seconds that an encoder may take to pass its probe, and to open, 1 to 120. Default 10.
    pub probe_timeout_s: u32,
    /// Seconds without progress after which a running encoder counts as hung, 1 to 3600.
    /// Default 60.
    pub stall_timeout_s: u32,
    /// Seconds after which an encoder that was passed over or given up in mid-stream is tried
    /// again, 0 (never) to 86400; each failed attempt doubles them, up to an hour. Default 300.
    #[serde(alias = "comeback_s")]
    pub failback_after_s: u32,
    /// Which pictures of a hardware encoder are checked. Default `key`.
    pub check_output: CheckOutput,
}

impl Default for GpuEncoderConfig {
    fn default() -> Self {
        Self {
            preferred_encoder: None,
            require_hardware: false,
            enable_ring_buffer: true,
            ring_buffer_size: 16,
            nvenc_preset: NvencPreset::default(),
            nvenc_tune: NvencTune::default(),
            max_sessions: None,
            session_wait_s: 0,
            probe_timeout_s: 10,
            stall_timeout_s: 60,
            failback_after_s: 300,
            check_output: CheckOutput::default(),
        }
    }
}

impl GpuEncoderConfig {
    pub(crate) const KEYS: &[&str] = &[
        "preferred_encoder",
        "require_hardware",
        "enable_ring_buffer",
        "ring_buffer_size",
        "nvenc_preset",
        "nvenc_tune",
        "max_sessions",
        "session_wait_s",
        "probe_timeout_s",
        "stall_timeout_s",
        "failback_after_s",
        "check_output",
        // The name before version 0.1 is still read.
        "comeback_s",
    ];

    /// Checks every value.
    ///
    /// # Errors
    /// The first value that is not allowed, with the field and what is allowed.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.nvenc_preset.as_str().parse::<NvencPreset>()?;
        if !(2..=4096).contains(&self.ring_buffer_size) {
            return Err(ConfigError::value(
                "gpu.ring_buffer_size",
                self.ring_buffer_size,
                "2 to 4096",
            ));
        }
        if let Some(n) = self.max_sessions.filter(|n| !(1..=64).contains(n)) {
            return Err(ConfigError::value("gpu.max_sessions", n, "1 to 64"));
        }
        for (name, value, least, most) in [
            ("session_wait_s", self.session_wait_s, 0, 3600),
            ("probe_timeout_s", self.probe_timeout_s, 1, 120),
            ("stall_timeout_s", self.stall_timeout_s, 1, 3600),
            ("failback_after_s", self.failback_after_s, 0, 86_400),
        ] {
            if !(least..=most).contains(&value) {
                let allowed = format!("{least} to {most} seconds");
                return Err(ConfigError::value(format!("gpu.{name}"), value, allowed));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_sizes() {
        let most = u32::MAX;
        for (side, expected) in
            [(0, 0), (1, 2), (2, 2), (641, 642), (most - 1, most - 1), (most, most)]
        {
            let even = Resolution::new(side, 2).even();
            assert_eq!(even, Resolution::new(expected, 2), "{side}");
            assert_eq!(Resolution::new(2, side).even(), Resolution::new(2, expected), "{side}");
        }
    }

    #[test]
    fn frame_rates() {
        let table = [
            ("30", Some((30, 1))),
            ("29.97", Some((30000, 1001))),
            ("23.976", Some((24000, 1001))),
            ("30000/1001", Some((30000, 1001))),
            ("30000:1001", Some((30000, 1001))),
            ("12.5", Some((25, 2))),
            ("0.5", Some((1, 2))),
            ("60/2", Some((30, 1))),
            ("0", None),
            ("-3", None),
            ("1000", Some((1000, 1))),
            ("2000:1", Some((2000, 1))),
            ("2001", None),
            ("2001:1", None),
            ("4294967295/1", None),
            ("1/0", None),
            ("nan", None),
            ("x", None),
        ];
        for (text, expected) in table {
            let got = text.parse::<FrameRate>().ok().map(|r| (r.numerator(), r.denominator()));
            assert_eq!(got, expected, "{text}");
        }
    }

    #[test]
    fn frame_times_do_not_drift() {
        let ntsc: FrameRate = "30000/1001".parse().expect("valid");
        assert_eq!(ntsc.nanoseconds(30000), 1_001_000_000_000);
        assert_eq!(FrameRate::default().nanoseconds(1), 33_333_333);
        assert_eq!(FrameRate::default().nanoseconds(3), 100_000_000);
    }
}
