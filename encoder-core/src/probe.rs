use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    EncodedChunk, EncoderConfig, EncoderType, FrameBuffer, FrameLayout, NalKind, OpenError,
    PixelFormat, Resolution, VideoEncoder, nal_units,
};

/// What a backend that works can do here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caps {
    /// What runs: library and version, `ffmpeg 5.1.9 h264_nvenc`.
    pub library: String,
    /// The version of the program that hosts it, in that program's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Frame formats with which it was probed; an encoder may take more.
    pub pixel_formats: Vec<PixelFormat>,
    /// What else was probed, each by a real encode: `b-frames`, `lossless`.
    #[serde(default)]
    pub features: Vec<String>,
    /// Remarks that a user should know, such as "built without nasm: three times slower".
    pub notes: Vec<String>,
}

/// The kinds of reasons for which a backend is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalKind {
    /// Not compiled in, or not listed by the program that hosts it.
    NotBuilt,
    /// The host program or a library is missing.
    Missing,
    /// No such device, or one without this encoder.
    NoDevice,
    /// There, but this user may not open it.
    Permission,
    /// The driver is too old for the host program.
    DriverTooOld,
    /// All sessions are in use: try again later.
    Busy,
    /// The device cannot do what the configuration asks.
    Unsupported,
    /// It ran and gave a wrong or no picture.
    WrongOutput,
    /// It did not answer in time.
    Timeout,
    /// Anything else.
    Failed,
}

impl RefusalKind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::NotBuilt,
        Self::Missing,
        Self::NoDevice,
        Self::Permission,
        Self::DriverTooOld,
        Self::Busy,
        Self::Unsupported,
        Self::WrongOutput,
        Self::Timeout,
        Self::Failed,
    ];

    /// Its name, as it stands in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotBuilt => "not-built",
            Self::Missing => "missing",
            Self::NoDevice => "no-device",
            Self::Permission => "permission",
            Self::DriverTooOld => "driver-too-old",
            Self::Busy => "busy",
            Self::Unsupported => "unsupported",
            Self::WrongOutput => "wrong-output",
            Self::Timeout => "timeout",
            Self::Failed => "failed",
        }
    }
}

/// Whose sessions make a device busy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Holders {
    /// Not known: the driver does not report it.
    #[default]
    Unknown,
    /// Sessions of this process alone.
    ThisProcess,
    /// Sessions of other processes, beside those of this one.
    Others,
}

/// Why a backend is passed over, and what a user can do about it.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize)]
pub struct Refusal {
    /// Which backend.
    pub encoder: EncoderType,
    /// The kind, for counting.
    pub kind: RefusalKind,
    /// What is wrong.
    pub reason: String,
    /// What would help.
    pub hint: String,
    /// Worth another try by itself: a session limit, a busy device.
    pub transient: bool,
    /// Of a busy device: whose sessions make it busy.
    #[serde(skip)]
    pub holders: Holders,
    /// How often it was refused for a reason of this kind. Reason and hint are the latest.
    pub count: u64,
}

impl Refusal {
    /// A lasting refusal.
    pub fn new(
        encoder: EncoderType,
        kind: RefusalKind,
        reason: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        let (reason, hint, holders) = (reason.into(), hint.into(), Holders::default());
        Self { encoder, kind, reason, hint, transient: false, holders, count: 1 }
    }

    /// Logs it: one `WARN` with reason and hint.
    pub(crate) fn warn(&self) {
        tracing::warn!(
            encoder = %self.encoder,
            hint = self.hint,
            transient = self.transient,
            "encoder passed over: {}",
            self.reason
        );
    }

    /// Whether all sessions are in use, so that a wait may help. (A missed deadline may pass too,
    /// but each further try costs the whole deadline.)
    pub fn is_busy(&self) -> bool {
        self.kind == RefusalKind::Busy
    }

    /// The same refusal, marked as passing.
    pub fn transient(mut self) -> Self {
        self.transient = true;
        self
    }

    /// The same refusal, with the holders of the sessions that are missing.
    pub fn held_by(mut self, holders: Holders) -> Self {
        self.holders = holders;
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.encoder, self.reason, self.hint)
    }
}

impl Serialize for EncoderType {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The outcome of a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "status")]
pub enum ProbeResult {
    /// A picture went in and came out right.
    Usable(Caps),
    /// It cannot be used here.
    Refused(#[serde(serialize_with = "nameless")] Refusal),
}

/// A refusal without the encoder, whose probe result it is part of.
fn nameless<S: serde::Serializer>(refusal: &Refusal, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Nameless<'a> {
        kind: RefusalKind,
        reason: &'a str,
        hint: &'a str,
        transient: bool,
    }
    let Refusal { kind, reason, hint, transient, .. } = refusal;
    Nameless { kind: *kind, reason, hint, transient: *transient }.serialize(serializer)
}

impl ProbeResult {
    /// Whether the backend can be used.
    pub const fn is_usable(&self) -> bool {
        matches!(self, Self::Usable(_))
    }
}

/// Decodes an Annex B stream to its luma planes, packed, in display order.
pub type DecodeLuma<'a> = &'a dyn Fn(&[u8]) -> Result<Vec<Vec<u8>>, String>;

/// Probes an encoder that runs inside this process: opens it with `config` at 640x360, encodes a few pictures, checks that
/// there is one access unit per picture and that the first is an IDR picture with its parameter
/// sets, and compares the pictures through `decode`, the backend's own decoder, where it has one.
pub fn probe_in_process(
    encoder: EncoderType,
    caps: Caps,
    config: &EncoderConfig,
    open: impl FnOnce(&EncoderConfig) -> Result<Box<dyn VideoEncoder>, OpenError>,
    decode: Option<DecodeLuma<'_>>,
) -> ProbeResult {
    const PICTURES: u64 = 3;
    let wrong = |reason: String| {
        ProbeResult::Refused(Refusal::new(
            encoder,
            RefusalKind::WrongOutput,
            reason,
            "report it: the encoder inside this program is broken",
        ))
    };
    let config = EncoderConfig { resolution: Some(Resolution::new(640, 360)), ..config.clone() };
    let mut session = match open(&config) {
        Ok(session) => session,
        Err(OpenError::Refused(refusal)) => return ProbeResult::Refused(refusal),
        Err(error) => return wrong(error.to_string()),
    };
    let layout = FrameLayout::new(session.pixel_format(), Resolution::new(640, 360));
    let pictures: Vec<_> = (0..PICTURES).map(|n| FrameBuffer::test_picture(layout, n)).collect();
    let mut chunks: Vec<EncodedChunk> = Vec::new();
    for (n, picture) in (0..).zip(&pictures) {
        match session.encode_frame(&picture.frame(n)) {
            Ok(chunk) => chunks.extend(chunk),
            Err(error) => return wrong(error.to_string()),
        }
    }
    match session.flush() {
        Ok(rest) => chunks.extend(rest),
        Err(error) => return wrong(error.to_string()),
    }
    if chunks.len() as u64 != PICTURES {
        return wrong(format!("{PICTURES} pictures went in, {} came out", chunks.len()));
    }
    let kinds: Vec<_> = nal_units(&chunks[0].data).map(|unit| NalKind::of(unit[0])).collect();
    if ![NalKind::Sps, NalKind::Pps, NalKind::Idr].iter().all(|kind| kinds.contains(kind)) {
        return wrong(format!("the first access unit has only {kinds:?}"));
    }
    if let Some(decode) = decode {
        let stream: Vec<u8> = chunks.iter().flat_map(|c| c.data.iter().copied()).collect();
        let decoded = match decode(&stream) {
            Ok(decoded) => decoded,
            Err(error) => return wrong(format!("its output does not decode: {error}")),
        };
        if decoded.len() != pictures.len() {
            return wrong(format!("{PICTURES} pictures went in, {} decode", decoded.len()));
        }
        for (n, (luma, picture)) in decoded.iter().zip(&pictures).enumerate() {
            let sent: Vec<u8> = picture.frame(0).planes()[0].rows().flatten().copied().collect();
            let error = mean_absolute_difference(luma, &sent);
            if error > 6.0 {
                return wrong(format!("picture {n} came back {error:.1} levels off on average"));
            }
        }
    }
    ProbeResult::Usable(caps)
}

/// Mean absolute difference of two planes in levels; infinite where their sizes differ.
pub fn mean_absolute_difference(a: &[u8], b: &[u8]) -> f64 {
    if a.len() != b.len() || a.is_empty() {
        return f64::INFINITY;
    }
    let sum: u64 = a.iter().zip(b).map(|(&a, &b)| u64::from(a.abs_diff(b))).sum();
    sum as f64 / a.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_refusals_have_one_name() {
        for kind in RefusalKind::ALL {
            assert_eq!(serde_json::json!(kind), kind.as_str());
        }
    }
}
