//! Rate control of the software encoders: bit rates and quantisers of real streams.
#![allow(clippy::unwrap_used)]

use std::{
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};

use encoder_core::{
    BackendOptions, ConfigError, EncoderType, OpenError, Plan, RateControl, RefusalKind,
    Resolution, Settings,
};
use encoder_pipeline::{
    mux::{AccessUnit, CallbackSink},
    session::{Session, SessionConfig, SessionError},
    source::{Payload, RawImage},
    timeline::{FrameTimes, Timing},
};

const SIZE: Resolution = Resolution::new(320, 240);
/// Ten seconds at the default rate.
const FRAMES: u64 = 300;

/// A texture that moves, under noise of this strength.
fn picture(n: u64, strength: u64) -> Payload {
    let (width, height) = (SIZE.width as u64, SIZE.height as u64);
    let mut state = n + 1;
    let mut noise = move || {
        // xorshift
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut data = Vec::with_capacity((width * height * 3 / 2) as usize);
    for y in 0..height {
        for x in 0..width {
            let texture = 60 + ((x + 3 * n) * (y + n) / 16) % 100;
            data.push((texture + noise() % strength) as u8);
        }
    }
    data.resize((width * height * 3 / 2) as usize, 128);
    Payload::Raw(RawImage {
        encoding: "i420".into(),
        width: SIZE.width,
        height: SIZE.height,
        step: SIZE.width,
        is_bigendian: false,
        data: data.into(),
    })
}

fn config(encoder: EncoderType, options: &str, rate_control: RateControl) -> SessionConfig {
    let mut settings = Settings::default();
    settings.encoder.rate_control = rate_control;
    let options: BackendOptions = options.parse().unwrap();
    settings.backend.insert(encoder.to_string(), options);
    let rate = settings.encoder.frame_rate;
    SessionConfig::new(settings, Plan::new(vec![encoder], vec![])).with_timing(Timing::Rate(rate))
}

/// The access units of `frames` pictures.
fn encode(config: &SessionConfig, frames: u64) -> Result<Vec<AccessUnit>, SessionError> {
    encode_noise(config, frames, |_| 16)
}

fn encode_noise(
    config: &SessionConfig,
    frames: u64,
    strength: impl Fn(u64) -> u64,
) -> Result<Vec<AccessUnit>, SessionError> {
    let units = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&units);
    let sink = CallbackSink(move |unit| log.lock().unwrap().push(unit));
    let mut session = Session::open(SIZE, config, Box::new(sink))?;
    for n in 0..frames {
        session.push(&picture(n, strength(n)), FrameTimes::at(n as i64))?;
    }
    session.finish()?;
    Ok(std::mem::take(&mut *units.lock().unwrap()))
}

/// The software encoders, with the ways in which this build can run them.
fn encoders() -> Vec<(EncoderType, &'static str)> {
    let mut all = vec![(EncoderType::OPENH264, ""), (EncoderType::X264, "mode = \"ffmpeg\"")];
    if cfg!(feature = "x264-native") {
        all.push((EncoderType::X264, "mode = \"native\""));
    }
    all
}

fn bits(unit: &AccessUnit) -> f64 {
    unit.chunk.data.len() as f64 * 8.0
}

#[test]
fn the_mean_bit_rate_is_the_requested_one() {
    for (encoder, options) in encoders() {
        for kbps in [600, 2400] {
            let config = config(encoder, options, RateControl::bitrate(kbps));
            let units = encode(&config, FRAMES).unwrap();
            let mean = units.iter().map(bits).sum::<f64>() / 10.0 / 1000.0;
            println!("{encoder} {options}: {kbps} kbit/s requested, {mean:.0} produced");
            let off = mean / f64::from(kbps) - 1.0;
            assert!(off.abs() < 0.15, "{encoder} {options}: {mean:.0} instead of {kbps} kbit/s");
        }
    }
}

#[test]
fn a_maximum_never_empties_the_buffer_of_a_decoder() {
    for (encoder, options) in encoders() {
        if encoder == EncoderType::OPENH264 {
            continue;
        }
        for (kbps, max) in [(800, 1000), (800, 800)] {
            let control = RateControl::bitrate_with_max(kbps, max);
            let config = config(encoder, options, control);
            // The second half of the clip has four times as much noise.
            let strength = |n| if n < FRAMES / 2 { 8 } else { 32 };
            let units = encode_noise(&config, FRAMES, strength).unwrap();
            // A buffer of a second that begins nine tenths full, as x264 assumes.
            let (size, refill) = (f64::from(max) * 1000.0, f64::from(max) * 1000.0 / 30.0);
            let (mut level, mut least) = (0.9 * size, size);
            for unit in &units {
                level -= bits(unit);
                least = least.min(level);
                level = (level + refill).min(size);
            }
            println!("{encoder} {options} {control}: {:.2} of the buffer left", least / size);
            assert!(least >= 0.0, "{encoder} {options} {control}: {least}");
        }
    }
}

/// The quantisers of all slices, as FFmpeg reads them.
fn quantisers(path: &Path) -> Vec<i64> {
    let program = std::env::var("ENCODER_FFMPEG").unwrap_or_else(|_| "ffmpeg".into());
    let output = Command::new(program)
        .args(["-nostdin", "-hide_banner", "-f", "h264", "-i", path.to_str().unwrap()])
        .args(["-c", "copy", "-bsf:v", "trace_headers", "-f", "null", "-"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    let value = |line: &str| line.rsplit('=').next().unwrap().trim().parse::<i64>().unwrap();
    let mut initial = 26;
    let mut all = Vec::new();
    for line in text.lines() {
        if line.contains(" pic_init_qp_minus26 ") {
            initial = 26 + value(line);
        } else if line.contains(" slice_qp_delta ") {
            all.push(initial + value(line));
        }
    }
    all
}

#[test]
fn a_constant_quantiser_is_that_of_every_picture() {
    for (encoder, options) in encoders() {
        let mut sizes = Vec::new();
        for (qp, b_frames) in [(20, 0), (33, 0), (33, 2), (51, 0)] {
            let mut config = config(encoder, options, RateControl::ConstantQp(qp));
            config.settings.encoder.b_frames = b_frames;
            let units = encode(&config, 40).unwrap();
            let stream: Vec<u8> = units.iter().flat_map(|unit| unit.chunk.data.clone()).collect();
            sizes.push(stream.len());
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), stream).unwrap();
            let found = quantisers(file.path());
            let name = format!("{encoder} {options} qp {qp}, {b_frames} B-frames");
            assert!(found.len() >= 40, "{name}: {found:?}");
            assert!(found.iter().all(|found| *found == i64::from(qp)), "{name}: {found:?}");
        }
        assert!(sizes[0] > 2 * sizes[1] && sizes[1] > 2 * sizes[3], "{encoder}: {sizes:?}");
    }
}

#[test]
fn x264_in_process_has_the_stream_of_x264_in_ffmpeg() {
    if !cfg!(feature = "x264-native") {
        println!("left out: needs the feature x264-native");
        return;
    }
    for control in [
        RateControl::Crf(23),
        RateControl::ConstantQp(30),
        RateControl::bitrate(900),
        RateControl::bitrate_with_max(900, 1000),
    ] {
        let [hosted, native] = ["ffmpeg", "native"].map(|mode| {
            let options = format!("mode = \"{mode}\"");
            let units = encode(&config(EncoderType::X264, &options, control), 40).unwrap();
            units.iter().map(|unit| unit.chunk.data.len()).sum::<usize>() as f64
        });
        // The text of the settings, at the beginning of the stream, differs; with a bit rate also
        // the times of the frames, which FFmpeg passes to x264.
        let most = if let RateControl::Bitrate { .. } = control { 0.03 * hosted } else { 200.0 };
        assert!((hosted - native).abs() < most, "{control}: {hosted} and {native} bytes");
    }
}

#[test]
fn what_an_encoder_cannot_do_is_refused_by_name() {
    let control = RateControl::bitrate_with_max(900, 1000);
    let error = encode(&config(EncoderType::OPENH264, "", control), 1).unwrap_err();
    let SessionError::Open(OpenError::NoneLeft { refusals }) = error else { panic!("{error}") };
    assert_eq!((refusals.len(), refusals[0].kind), (1, RefusalKind::Unsupported));
    assert!(refusals[0].reason.contains("at most 1000 kbit/s"), "{}", refusals[0]);
    assert!(refusals[0].hint.contains("another encoder"), "{}", refusals[0]);
    // The detection reports the same, before any encode.
    let settings = Settings::from_toml("[encoder]\nbitrate_kbps = 900\nmax_bitrate_kbps = 1000");
    let settings = settings.unwrap();
    let request = encoder_core::OpenRequest::new(&settings, EncoderType::OPENH264, 1);
    let backend = encoder_core::backend(EncoderType::OPENH264).unwrap();
    let Err(OpenError::Refused(refusal)) = backend.find_device(&request) else { panic!() };
    assert_eq!(refusal.reason, refusals[0].reason);

    let options = "quantiser = 20";
    let error = encode(&config(EncoderType::OPENH264, options, RateControl::ConstantQp(9)), 1);
    let error = error.unwrap_err();
    let SessionError::Open(OpenError::Config(conflict)) = error else { panic!("{error}") };
    assert_eq!(conflict, ConfigError::conflict("encoder.qp", "backend.openh264.quantiser"));
}
