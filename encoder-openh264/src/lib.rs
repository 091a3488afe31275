//! OpenH264, built from source into the program: the encoder that is always available.
//!
//! Constant quality (with a quantiser that depends on the motion), constant quantiser, or a mean bit
//! rate; no B-frames, no look-ahead, one thread. It keeps a maximum bit rate only by leaving out
//! pictures, so it is refused with `max_bitrate_kbps`. Registers itself as `openh264`; a program names the crate once: `use encoder_openh264 as
//! _;`.
//!
//! Its decoder checks the pictures of hardware encoders ([`encoder_core::PictureDecoder`]).
//!
//! Options, in `[backend.openh264]`: `complexity` = `low`, `medium`, `cabac` = true or false, and
//! `quantiser` = 0 to 51. Without them preset and CRF decide: see [`Options`].

mod decoder;
mod quality;
mod raw;

use std::time::Duration;

use encoder_core::{
    Backend, BackendOptions, Caps, ConfigError, Device, EncodeError, EncodedChunk, EncoderConfig,
    EncoderType, FailureKind, Frame, OpenError, OpenRequest, PixelFormat, Preset, Presets,
    ProbeResult, RateControl, Refusal, RefusalKind, Resolution, VideoEncoder, inventory,
    probe_in_process, unknown_key,
};
use quality::Quality;
use raw::{Parameters, Rate, RawEncoder};
use serde::Deserialize;

/// The backend, as it registers itself; for [`encoder_core::register`].
pub const BACKEND: Backend =
    Backend::new(EncoderType::OPENH264, |request| Ok(Box::new(OpenH264::open(request)?)))
        .rank(rank)
        .presets(Presets::common(&["ultrafast", "veryfast", "medium"]))
        .check_options(|table| Options::read(table).map(drop))
        .inspect(inspect)
        .probe(probe)
        .memory_estimate(memory_estimate)
        .decoder(|size| Ok(Box::new(decoder::Decoder::open(size)?)));

inventory::submit! { BACKEND }

/// At the fastest preset this encoder makes the smallest files for about the same CPU time; but it
/// has one thread, where others have several, and no B-frames.
fn rank(request: &OpenRequest<'_>) -> u16 {
    const FEW: usize = 4;
    let config = request.config;
    let is_fast = config.preset == Preset::Ultrafast && config.b_frames == 0;
    if is_fast && request.threads <= FEW { 55 } else { 90 }
}

/// Measured from 640x480 to 3840x2160: 6.4 frames, and 1 MiB.
fn memory_estimate(request: &OpenRequest<'_>) -> u64 {
    (1 << 20) + request.frame_bytes().saturating_mul(68) / 10
}

/// Largest longer side, in pixels.
const MAX_LONG: u32 = 3840;
/// Largest shorter side, in pixels.
const MAX_SHORT: u32 = 2160;
/// Smallest side, in pixels: one macroblock.
const MIN_SIDE: u32 = 16;

/// The options of `[backend.openh264]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Options {
    /// Effort of the mode decision. Default: `low` up to the preset `veryfast`, then `medium`.
    pub complexity: Option<Complexity>,
    /// Entropy coding by CABAC (High profile): about a tenth smaller, a little slower. Default:
    /// true, except with the preset `ultrafast`.
    pub cabac: Option<bool>,
    /// The quantiser of all pictures, 0 (best) to 51, in place of `crf`; `qp` and `bitrate_kbps` of
    /// `[encoder]` contradict it. Default: computed from CRF and motion.
    pub quantiser: Option<u8>,
}

/// Effort of the mode decision. (`high` would be the same as `medium`: the output is identical.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Complexity {
    Low,
    Medium,
}

impl Options {
    fn read(table: &BackendOptions) -> Result<Self, ConfigError> {
        const KEYS: &[&str] = &["complexity", "cabac", "quantiser"];
        if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(unknown_key("[backend.openh264]", key, KEYS));
        }
        let options: Self = table.clone().try_into().map_err(|error: toml::de::Error| {
            ConfigError::Syntax(format!("[backend.openh264]: {}", error.message()))
        })?;
        match options.quantiser {
            Some(q @ 52..) => Err(ConfigError::value("backend.openh264.quantiser", q, "0 to 51")),
            _ => Ok(options),
        }
    }
}

/// How the library gets the quantisers; and the CRF, if they are computed from it.
fn rate(control: RateControl, options: &Options) -> Result<(Rate, Option<u8>), OpenError> {
    let constant = |quantiser: u8| Rate::Quantiser(i32::from(quantiser));
    Ok(match (control, options.quantiser) {
        (RateControl::Crf(_), Some(quantiser)) => (constant(quantiser), None),
        (RateControl::Crf(crf), None) => (constant(crf), Some(crf)),
        (other, Some(_)) => {
            let field = "backend.openh264.quantiser";
            return Err(ConfigError::conflict(other.field(), field).into());
        }
        (RateControl::ConstantQp(quantiser), None) => (constant(quantiser), None),
        (RateControl::Bitrate { kbps, max_kbps: None, .. }, None) => {
            let bits = i32::try_from(u64::from(kbps) * 1000).unwrap_or(i32::MAX);
            (Rate::BitRate(bits), None)
        }
        (other, None) => {
            let why = "OpenH264 keeps a maximum bit rate only by leaving out pictures";
            return Err(other.refused_by(EncoderType::OPENH264, why).into());
        }
    })
}

/// A running OpenH264 encoder.
struct OpenH264 {
    raw: RawEncoder,
    /// `None` if the quantiser is constant, or the library chooses it.
    quality: Option<Quality>,
    width: u32,
    height: u32,
    gop_size: u64,
    /// Number of the frame that was the last IDR picture.
    last_idr: u64,
    taken: u64,
    failed: bool,
}

impl OpenH264 {
    fn open(request: &OpenRequest<'_>) -> Result<Self, OpenError> {
        let config = request.config;
        let options = Options::read(request.options)?;
        let size = request.coded_size()?;
        let (rate, crf) = rate(config.rate_control, &options)?;
        let (long, short) = (size.width.max(size.height), size.width.min(size.height));
        if long > MAX_LONG || !(MIN_SIDE..=MAX_SHORT).contains(&short) {
            return Err(Refusal::new(
                EncoderType::OPENH264,
                RefusalKind::Unsupported,
                format!(
                    "OpenH264 takes {MIN_SIDE}x{MIN_SIDE} to {MAX_LONG}x{MAX_SHORT}, the pictures \
                     are {size}"
                ),
                "use another encoder",
            )
            .into());
        }
        let parameters = Parameters {
            width: size.width as i32,
            height: size.height as i32,
            frame_rate: config.frame_rate.as_f64() as f32,
            rate,
            gop_size: config.gop_size,
            medium: options
                .complexity
                .map_or(config.preset > Preset::Veryfast, |c| c == Complexity::Medium),
            cabac: options.cabac.unwrap_or(config.preset > Preset::Ultrafast),
        };
        let raw = RawEncoder::new(&parameters).map_err(|reason| {
            Refusal::new(
                EncoderType::OPENH264,
                RefusalKind::Unsupported,
                format!("OpenH264 refused {size}: {reason}"),
                "use another encoder",
            )
        })?;
        let quality = crf.map(|crf| Quality::new(crf, size));
        Ok(Self {
            raw,
            quality,
            width: size.width,
            height: size.height,
            gop_size: u64::from(config.gop_size),
            last_idr: 0,
            taken: 0,
            failed: false,
        })
    }

    fn failure(&mut self, message: impl Into<String>) -> EncodeError {
        self.failed = true;
        EncodeError::failed(EncoderType::OPENH264, self.taken, FailureKind::Failed, message)
    }
}

impl VideoEncoder for OpenH264 {
    fn encode_frame(&mut self, frame: &Frame<'_>) -> Result<Option<EncodedChunk>, EncodeError> {
        frame.check(PixelFormat::Yuv420p, Resolution::new(self.width, self.height))?;
        if self.failed {
            return Err(self.failure("it failed before and takes no more frames"));
        }
        // The library's own period counts from the last IDR picture, a forced one included; so
        // does every other backend here.
        let since = self.taken - self.last_idr;
        if frame.force_idr && self.taken > 0 && since < self.gop_size {
            self.raw.force_idr().map_err(|e| self.failure(e))?;
        }
        if let Some(quality) = &mut self.quality {
            let quantiser = quality.quantiser(frame);
            self.raw.set_quantiser(quantiser).map_err(|e| self.failure(e))?;
        }
        let (data, keyframe) = match self.raw.encode(frame) {
            Ok(coded) => coded,
            Err(message) => return Err(self.failure(message)),
        };
        if keyframe {
            self.last_idr = self.taken;
        }
        let chunk = EncodedChunk { data, pts: frame.index, dts: self.taken, keyframe };
        self.taken += 1;
        Ok(Some(chunk))
    }

    fn flush(&mut self) -> Result<Vec<EncodedChunk>, EncodeError> {
        Ok(Vec::new())
    }

    fn encoder_type(&self) -> EncoderType {
        EncoderType::OPENH264
    }

    fn description(&self) -> String {
        format!("{} in process", raw::version())
    }

    fn pixel_format(&self) -> PixelFormat {
        PixelFormat::Yuv420p
    }

    fn can_force_idr(&self) -> bool {
        true
    }
}

fn inspect(request: &OpenRequest<'_>) -> Result<Device, OpenError> {
    let options = Options::read(request.options)?;
    rate(request.config.rate_control, &options)?;
    // The library is part of this program, so no file has to be inspected.
    let identity = vec![raw::version(), format!("{options:?} {:?}", request.config)];
    Ok(Device::default().with_identity(identity))
}

/// The quantiser of the probe.
const PROOF: u8 = 20;

fn probe(request: &OpenRequest<'_>, _deadline: Duration) -> ProbeResult {
    let mut notes = Vec::new();
    if !raw::has_assembly() {
        notes.push(
            "built without its assembly, about three times slower: install nasm and build again"
                .to_string(),
        );
    }
    let caps =
        Caps::new(raw::version()).with_pixel_formats([PixelFormat::Yuv420p]).with_notes(notes);
    // The probe compares pictures, so it uses a quality at which they are similar.
    let mut options = request.options.clone();
    if let RateControl::Crf(_) = request.config.rate_control {
        options.insert("quantiser".into(), PROOF.into());
    }
    let open = |config: &EncoderConfig| -> Result<Box<dyn VideoEncoder>, OpenError> {
        let request = request.clone().with_config(config).with_options(&options);
        Ok(Box::new(OpenH264::open(&request)?))
    };
    let decode = Some(&raw::decode_luma as _);
    probe_in_process(EncoderType::OPENH264, caps, request.config, open, decode)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use encoder_core::{
        FrameBuffer, FrameLayout, NalKind, Settings, mean_absolute_difference, nal_units,
    };

    use super::*;

    fn open(config: &EncoderConfig, options: &str) -> Result<OpenH264, OpenError> {
        let backend = [("openh264".to_owned(), options.parse().unwrap())].into();
        let settings = Settings { encoder: config.clone(), backend, ..Settings::default() };
        OpenH264::open(&OpenRequest::new(&settings, EncoderType::OPENH264, 1))
    }

    fn config(width: u32, height: u32) -> EncoderConfig {
        EncoderConfig {
            resolution: Some(Resolution::new(width, height)),
            gop_size: 4,
            ..EncoderConfig::default()
        }
    }

    fn run(encoder: &mut OpenH264, count: u64, idr_at: Option<u64>) -> Vec<EncodedChunk> {
        let size = Resolution::new(encoder.width, encoder.height);
        let layout = FrameLayout::new(PixelFormat::Yuv420p, size);
        let mut chunks: Vec<_> = (0..count)
            .filter_map(|n| {
                let picture = FrameBuffer::test_picture(layout, n);
                let mut frame = picture.frame(n);
                frame.force_idr = idr_at == Some(n);
                encoder.encode_frame(&frame).unwrap()
            })
            .collect();
        chunks.extend(encoder.flush().unwrap());
        chunks
    }

    #[test]
    fn each_frame_has_one_access_unit_and_decodes() {
        for (width, height, options) in [
            (640, 360, ""),
            (641, 479, "cabac = false"),
            (848, 480, "complexity = \"medium\""),
            (16, 16, ""),
            (17, 33, ""),
        ] {
            let mut encoder = open(&config(width, height), options).unwrap();
            let chunks = run(&mut encoder, 9, None);
            assert_eq!(chunks.len(), 9);
            for (n, chunk) in (0..).zip(&chunks) {
                assert_eq!((chunk.pts, chunk.dts), (n, n));
                assert_eq!(chunk.keyframe, n % 4 == 0, "frame {n}");
                assert!(chunk.data.starts_with(&[0, 0, 0, 1]));
                let kinds: Vec<_> = nal_units(&chunk.data).map(|u| NalKind::of(u[0])).collect();
                assert_eq!(kinds.contains(&NalKind::Sps), chunk.keyframe);
                assert_eq!(kinds.contains(&NalKind::Pps), chunk.keyframe);
            }
            let stream: Vec<u8> = chunks.iter().flat_map(|c| c.data.clone()).collect();
            let decoded = raw::decode_luma(&stream).unwrap();
            assert_eq!(decoded.len(), 9);
            let layout = FrameLayout::new(
                PixelFormat::Yuv420p,
                Resolution::new(encoder.width, encoder.height),
            );
            for (n, luma) in (0..).zip(&decoded) {
                let picture = FrameBuffer::test_picture(layout, n);
                let sent: Vec<u8> =
                    picture.frame(n).planes()[0].rows().flatten().copied().collect();
                assert!(mean_absolute_difference(luma, &sent) < 6.0, "{width}x{height} {n}");
            }
        }
    }

    #[test]
    fn an_idr_picture_can_be_forced() {
        let mut encoder = open(&config(64, 64), "").unwrap();
        let keys: Vec<_> = run(&mut encoder, 6, Some(2)).iter().map(|c| c.keyframe).collect();
        assert_eq!(keys, [true, false, true, false, false, false]);
    }

    #[test]
    fn unsupported_settings_and_frames_are_refused_with_a_reason() {
        let refused = open(&config(4000, 2000), "").err().unwrap().to_string();
        assert!(refused.contains("3840x2160") && refused.contains("another encoder"), "{refused}");
        let small = open(&config(640, 8), "").err().unwrap().to_string();
        assert!(small.contains("16x16"), "{small}");
        let unknown = open(&config(64, 64), "complex = \"low\"").err().unwrap().to_string();
        assert!(unknown.contains("did you mean `complexity`"), "{unknown}");
        let value = open(&config(64, 64), "complexity = \"huge\"").err().unwrap().to_string();
        assert!(value.contains("low") && value.contains("medium"), "{value}");
        let range = open(&config(64, 64), "quantiser = 52").err().unwrap().to_string();
        assert!(range.contains("0 to 51"), "{range}");
        let mut encoder = open(&config(64, 64), "").unwrap();
        let layout = FrameLayout::new(PixelFormat::Nv12, Resolution::new(64, 64));
        let error = encoder.encode_frame(&FrameBuffer::new(layout).frame(0)).unwrap_err();
        assert!(error.to_string().contains("nv12 64x64"), "{error}");
    }

    #[test]
    fn the_probe_passes_at_every_quality() {
        let settings = Settings {
            backend: [("openh264".to_string(), "quantiser = 51".parse().unwrap())].into(),
            ..Settings::default()
        };
        let request = OpenRequest::new(&settings, EncoderType::OPENH264, 1);
        assert!(inspect(&request).unwrap().identity[0].starts_with("OpenH264 "));
        let result = probe(&request, Duration::from_secs(10));
        let ProbeResult::Usable(caps) = result else { panic!("{result:?}") };
        assert!(caps.library.starts_with("OpenH264 "), "{}", caps.library);
        assert_eq!(caps.notes.is_empty(), raw::has_assembly());
    }

    #[test]
    fn a_better_quality_gives_a_larger_stream() {
        let size = |crf| {
            let mut config = config(320, 240);
            config.rate_control = RateControl::Crf(crf);
            let mut encoder = open(&config, "").unwrap();
            run(&mut encoder, 8, None).iter().map(|c| c.data.len()).sum::<usize>()
        };
        let sizes: Vec<_> = [0, 10, 18, 23, 28, 40, 51].map(size).to_vec();
        assert!(sizes.windows(2).all(|w| w[0] >= w[1]), "{sizes:?}");
        assert!(sizes[0] > 2 * sizes[6], "{sizes:?}");
    }

    #[test]
    fn the_quantiser_can_be_set() {
        let stream = |crf, options: &str| {
            let config = EncoderConfig { rate_control: RateControl::Crf(crf), ..config(64, 64) };
            run(&mut open(&config, options).unwrap(), 3, None)
        };
        // The whole test picture moves.
        assert_eq!(stream(40, "quantiser = 24"), stream(23, ""));
        assert_ne!(stream(40, "quantiser = 24"), stream(40, ""));
    }

    /// A new quantiser starts neither a new stream nor a new GOP, and is used for the pictures.
    #[test]
    fn the_quantiser_can_change_from_picture_to_picture() {
        let layout = FrameLayout::new(PixelFormat::Yuv420p, Resolution::new(64, 64));
        let sizes = |quantisers: &[i32]| {
            let mut encoder = open(&config(64, 64), "quantiser = 30").unwrap();
            let chunks = (0..).zip(quantisers).map(|(n, quantiser)| {
                encoder.raw.set_quantiser(*quantiser).unwrap();
                let picture = FrameBuffer::test_picture(layout, n);
                encoder.encode_frame(&picture.frame(n)).unwrap().unwrap()
            });
            let chunks: Vec<_> = chunks.collect();
            assert!(chunks.iter().all(|chunk| chunk.keyframe == chunk.pts.is_multiple_of(4)));
            let stream: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.data.clone()).collect();
            assert_eq!(raw::decode_luma(&stream).unwrap().len(), quantisers.len());
            chunks.iter().map(|chunk| chunk.data.len()).collect::<Vec<_>>()
        };
        let (high, low) = (sizes(&[30; 6]), sizes(&[30, 30, 30, 12, 12, 12]));
        assert_eq!(high[..3], low[..3]);
        assert!((3..6).all(|n| low[n] > high[n] * 3 / 2), "{high:?} {low:?}");
    }

    #[test]
    fn it_ranks_first_if_it_is_the_best_fast_encoder() {
        for (preset, b_frames, threads, expected) in [
            (Preset::Ultrafast, 0, 2, 55),
            (Preset::Ultrafast, 0, 4, 55),
            (Preset::Ultrafast, 0, 5, 90),
            (Preset::Ultrafast, 1, 2, 90),
            (Preset::Superfast, 0, 2, 90),
        ] {
            let mut settings = Settings::default();
            (settings.encoder.preset, settings.encoder.b_frames) = (preset, b_frames);
            let request = OpenRequest::new(&settings, EncoderType::OPENH264, threads);
            assert_eq!(rank(&request), expected, "{preset} {b_frames} {threads}");
        }
    }
}
