use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    Backend, Device, EncodeError, EncodedChunk, EncoderConfig, EncoderType, FailureKind, Frame,
    FrameBuffer, FrameLayout, NalKind, OpenError, OpenRequest, PixelFormat, Resolution,
    VideoEncoder, nal_units,
};

/// The capabilities of a backend that works on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Caps {
    /// Library and version: `ffmpeg 5.1.9 h264_nvenc`.
    pub library: String,
    /// The version of the program that hosts the encoder, as that program prints it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The file of the program that hosts the encoder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_file: Option<PathBuf>,
    /// The options of the backend that the probe chose where the configuration leaves them open,
    /// such as `device`. They are also used when the encoder is opened.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub chosen: BTreeMap<String, String>,
    /// The device on which it was probed, if the probe chose among several. [`Detection`] moves it
    /// to [`Detected::device`].
    ///
    /// [`Detection`]: crate::Detection
    /// [`Detected::device`]: crate::Detected::device
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
    /// Frame formats with which it was probed; an encoder may take more.
    pub pixel_formats: Vec<PixelFormat>,
    /// Further abilities that were probed, each by a real encode: `b-frames`, `lossless`.
    #[serde(default)]
    pub features: Vec<String>,
    /// Remarks for the user, such as "built without nasm: three times slower".
    pub notes: Vec<String>,
}

impl Caps {
    /// Capabilities with only the name of the library.
    pub fn new(library: impl Into<String>) -> Self {
        Self { library: library.into(), ..Self::default() }
    }

    /// Sets the version of the program that hosts the encoder.
    #[must_use]
    pub fn with_host(mut self, host: impl Into<String>) -> Self {
        self.host = Some(host.into());
        self
    }

    /// Sets the file of the program that hosts the encoder.
    #[must_use]
    pub fn with_host_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.host_file = Some(file.into());
        self
    }

    /// Sets an option of the backend that the probe chose.
    #[must_use]
    pub fn with_chosen(mut self, option: &str, value: impl Into<String>) -> Self {
        self.chosen.insert(option.into(), value.into());
        self
    }

    /// Sets the device that the probe chose.
    #[must_use]
    pub fn with_device(mut self, device: Device) -> Self {
        self.device = Some(device);
        self
    }

    /// Sets the frame formats with which it was probed.
    #[must_use]
    pub fn with_pixel_formats(mut self, formats: impl Into<Vec<PixelFormat>>) -> Self {
        self.pixel_formats = formats.into();
        self
    }

    /// Sets the further abilities that were probed.
    #[must_use]
    pub fn with_features(mut self, features: Vec<String>) -> Self {
        self.features = features;
        self
    }

    /// Sets the remarks for the user.
    #[must_use]
    pub fn with_notes(mut self, notes: Vec<String>) -> Self {
        self.notes = notes;
        self
    }
}

/// The kinds of reasons for which a backend is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RefusalKind {
    /// The program that hosts the encoder was built without it.
    NotBuilt,
    /// The host program or a library is missing.
    Missing,
    /// No such device, or one without this encoder.
    NoDevice,
    /// This user may not open the device.
    Permission,
    /// The driver is too old for the host program.
    DriverTooOld,
    /// All sessions of the device are in use; a later attempt may succeed.
    Busy,
    /// The device does not support the configuration.
    Unsupported,
    /// The encoder ran and returned wrong or no pictures.
    WrongOutput,
    /// The encoder did not answer in time.
    Timeout,
    /// Any other reason.
    Failed,
}

crate::names! {
    RefusalKind, "refusal kind":
    NotBuilt = "not-built",
    Missing = "missing",
    NoDevice = "no-device",
    Permission = "permission",
    DriverTooOld = "driver-too-old",
    Busy = "busy",
    Unsupported = "unsupported",
    WrongOutput = "wrong-output",
    Timeout = "timeout",
    Failed = "failed",
}

/// The processes whose sessions make a device busy.
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
///
/// Its text is one line: `nvenc: there is no NVIDIA driver; hint: install it`.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize)]
#[non_exhaustive]
pub struct Refusal {
    /// The backend.
    pub encoder: EncoderType,
    /// The kind, for counting.
    pub kind: RefusalKind,
    /// The reason.
    pub reason: String,
    /// The action that helps. Empty if there is none.
    pub hint: String,
    /// Whether a later attempt may succeed without any change: a session limit, a busy device.
    pub transient: bool,
    /// Whether this machine has no device of the backend's kind: nothing is broken, and there is
    /// nothing to repair.
    #[serde(skip)]
    pub absent: bool,
    /// For a busy device: the processes whose sessions make it busy.
    #[serde(skip)]
    pub holders: Holders,
    /// How often it was refused for a reason of this kind. Reason and hint are the latest.
    pub count: u64,
}

impl Refusal {
    /// A refusal that is not transient.
    pub fn new(
        encoder: EncoderType,
        kind: RefusalKind,
        reason: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        let (reason, hint, holders) = (reason.into(), hint.into(), Holders::default());
        Self { encoder, kind, reason, hint, transient: false, absent: false, holders, count: 1 }
    }

    /// Logs the refusal: one `WARN` with reason and hint.
    pub(crate) fn warn(&self) {
        tracing::warn!(
            encoder = %self.encoder,
            hint = self.hint,
            transient = self.transient,
            "encoder passed over: {}",
            self.reason
        );
    }

    /// Whether all sessions are in use, so that a wait may help. (A retry after a missed deadline
    /// may also succeed, but each one costs the whole deadline.)
    pub fn is_busy(&self) -> bool {
        self.kind == RefusalKind::Busy
    }

    /// The same refusal, marked as transient.
    #[must_use]
    pub fn transient(mut self) -> Self {
        self.transient = true;
        self
    }

    /// The same refusal, marked as that of a machine without such a device.
    #[must_use]
    pub fn absent(mut self) -> Self {
        self.absent = true;
        self
    }

    /// The same refusal, with the holders of the sessions in use.
    #[must_use]
    pub fn held_by(mut self, holders: Holders) -> Self {
        self.holders = holders;
        self
    }

    /// The same refusal of another backend, which uses the same program or device.
    #[must_use]
    pub fn with_encoder(mut self, encoder: EncoderType) -> Self {
        self.encoder = encoder;
        self
    }

    /// The same refusal with another reason.
    #[must_use]
    pub fn with_reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }

    /// The same refusal with another hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.encoder, self.reason)?;
        match self.hint.as_str() {
            "" => Ok(()),
            hint => write!(f, "; hint: {hint}"),
        }
    }
}

/// The result of a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "status")]
pub enum ProbeResult {
    /// Pictures were encoded, and the result is right.
    Usable(Caps),
    /// The backend cannot be used on this machine.
    Refused(#[serde(serialize_with = "nameless")] Refusal),
}

/// Serializes a refusal without its encoder, which is serialized beside the probe result.
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

/// The usual size of the pictures of a probe: smaller pictures are refused by devices that work.
pub(crate) const PROBE_SIZE: Resolution = Resolution::new(640, 360);

/// Decodes an Annex B stream to its luma planes, without padding, in display order.
pub type DecodeLuma<'a> = &'a dyn Fn(&[u8]) -> Result<Vec<Vec<u8>>, crate::DecodeError>;

/// Probes an encoder that runs inside this process.
///
/// Opens it with `config`, at 640x360 if that has no size, and encodes a few pictures. There must be
/// one access unit for each, the first an IDR picture with its parameter sets. With `decode`, the
/// backend's own decoder, the decoded pictures must look like the originals. If `caps` has no
/// library or no formats, they are those of the encoder.
pub fn probe_in_process(
    encoder: EncoderType,
    caps: Caps,
    config: &EncoderConfig,
    open: impl FnOnce(&EncoderConfig) -> Result<Box<dyn VideoEncoder>, OpenError>,
    decode: Option<DecodeLuma<'_>>,
) -> ProbeResult {
    probe_with(PICTURES, encoder, caps, config, open, decode)
}

/// The number of pictures of a probe.
const PICTURES: u64 = 3;

/// The most pictures of a probe.
const MOST_PICTURES: u64 = 32;

/// [`probe_in_process`] with so many pictures.
fn probe_with(
    count: u64,
    encoder: EncoderType,
    mut caps: Caps,
    config: &EncoderConfig,
    open: impl FnOnce(&EncoderConfig) -> Result<Box<dyn VideoEncoder>, OpenError>,
    decode: Option<DecodeLuma<'_>>,
) -> ProbeResult {
    let wrong = |reason: String| {
        ProbeResult::Refused(Refusal::new(
            encoder,
            RefusalKind::WrongOutput,
            reason,
            "report it: the encoder inside this program is broken",
        ))
    };
    let size = config.resolution.unwrap_or(PROBE_SIZE).even();
    let config = EncoderConfig { resolution: Some(size), ..config.clone() };
    let mut session = match open(&config) {
        Ok(session) => session,
        Err(OpenError::Refused(refusal)) => return ProbeResult::Refused(refusal),
        Err(error) => return wrong(error.to_string()),
    };
    if caps.library.is_empty() {
        caps.library = session.description();
    }
    if caps.pixel_formats.is_empty() {
        caps.pixel_formats.push(session.pixel_format());
    }
    let layout = FrameLayout::new(session.pixel_format(), size);
    let pictures: Vec<_> = (0..count).map(|n| FrameBuffer::test_picture(layout, n)).collect();
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
    if chunks.len() as u64 != count {
        return wrong(format!("{count} pictures went in, {} came out", chunks.len()));
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
            return wrong(format!("{count} pictures went in, {} decode", decoded.len()));
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

/// The probe of a backend without its own probe: [`probe_in_process`] on the encoder that it opens,
/// on a thread that is abandoned if it hangs.
pub(crate) fn probe_opened(
    backend: &Backend,
    request: &OpenRequest<'_>,
    deadline: Duration,
) -> ProbeResult {
    let (id, open, max_delay) = (backend.id, backend.open, backend.max_delay);
    let resolution = Some(request.config.resolution.unwrap_or(backend.probe_size));
    let config = EncoderConfig { resolution, ..request.config.clone() };
    let gpu = request.gpu.clone();
    let (options, threads) = (request.options.clone(), request.threads);
    let ffmpeg = request.ffmpeg.map(Path::to_owned);
    let waiter = request.waiter.cloned();
    let (sender, answer) = mpsc::channel();
    let probing = move || {
        let request = OpenRequest {
            config: &config,
            gpu: &gpu,
            options: &options,
            ffmpeg: ffmpeg.as_deref(),
            threads,
            probe: None,
            waiter: waiter.as_ref(),
            max_delay: None,
        };
        let declared = max_delay(&request);
        let request = OpenRequest { max_delay: Some(declared), ..request };
        let count = (declared as u64 + 1).clamp(PICTURES, MOST_PICTURES);
        let open = |config: &EncoderConfig| -> Result<Box<dyn VideoEncoder>, OpenError> {
            let inner = open(&request.clone().with_config(config))?;
            Ok(Box::new(Counted { inner, declared, kept: 0 }))
        };
        // Nobody receives the result after the deadline.
        let _ = sender.send(probe_with(count, id, Caps::default(), &config, open, None));
    };
    let refused = |kind, reason: String| Refusal::new(id, kind, reason, REPORT);
    let thread = thread::Builder::new().name(format!("probe-{id}")).spawn(probing);
    ProbeResult::Refused(match thread.map(|_| answer.recv_timeout(deadline)) {
        Ok(Ok(result)) => return result,
        Ok(Err(mpsc::RecvTimeoutError::Timeout)) => {
            let reason = format!("it did not answer within {} s", deadline.as_secs_f32());
            refused(RefusalKind::Timeout, reason).transient()
        }
        Ok(Err(mpsc::RecvTimeoutError::Disconnected)) => panicked(id),
        Err(error) => refused(RefusalKind::Failed, format!("no thread for its probe: {error}")),
    })
}

/// An encoder that fails if it keeps more frames than its backend declares: the ring in front of it
/// would be too small.
struct Counted {
    inner: Box<dyn VideoEncoder>,
    declared: usize,
    kept: usize,
}

impl VideoEncoder for Counted {
    fn encode_frame(&mut self, frame: &Frame<'_>) -> Result<Option<EncodedChunk>, EncodeError> {
        let chunk = self.inner.encode_frame(frame)?;
        self.kept = (self.kept + 1).saturating_sub(usize::from(chunk.is_some()));
        let Self { declared, kept, .. } = *self;
        if kept <= declared {
            return Ok(chunk);
        }
        let message = format!("it keeps {kept} frames, its backend declares {declared}");
        Err(EncodeError::failed(self.encoder_type(), frame.index, FailureKind::Failed, message))
    }

    fn flush(&mut self) -> Result<Vec<EncodedChunk>, EncodeError> {
        self.inner.flush()
    }

    fn encoder_type(&self) -> EncoderType {
        self.inner.encoder_type()
    }

    fn description(&self) -> String {
        self.inner.description()
    }

    fn pixel_format(&self) -> PixelFormat {
        self.inner.pixel_format()
    }
}

/// The hint for faults of a backend itself.
pub(crate) const REPORT: &str = "report it with the results of `Detection::run`";

/// The refusal of a backend whose probe panicked.
pub(crate) fn panicked(id: EncoderType) -> Refusal {
    Refusal::new(id, RefusalKind::Failed, "its probe panicked", REPORT)
}

/// Mean absolute difference of two planes in levels; infinite if their sizes differ.
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

    #[test]
    fn a_refusal_is_one_line_with_its_hint_at_the_end() {
        let refusal = Refusal::new(EncoderType::NVENC, RefusalKind::Missing, "no driver", "get it");
        assert_eq!(refusal.to_string(), "nvenc: no driver; hint: get it");
        let other = refusal.clone().with_encoder(EncoderType::QSV).with_hint("").with_reason("no");
        assert_eq!(other.to_string(), "qsv: no");
        let list = OpenError::NoneLeft { refusals: vec![refusal, other] }.to_string();
        assert_eq!(list, "no encoder could be opened: nvenc: no driver; hint: get it | qsv: no");
    }
}
