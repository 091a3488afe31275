//! What the benchmarks work on.

// Each benchmark takes a part of it.
#![allow(dead_code)]

use std::path::Path;

use encoder_core::{EncodedChunk, EncoderConfig, FrameLayout, FrameRate, PixelFormat, Resolution};
use encoder_pipeline::{
    mux::{AccessUnit, Mp4Options, Mp4Sink, OutputMode, Sink},
    picture::{self, PictureOptions},
    source::{Payload, RawImage},
    timeline::{Clock, FrameTimes, TimestampAnalysis, Timing},
};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

/// Bytes that are neither all the same nor noise.
fn texture(count: usize, width: usize) -> Vec<u8> {
    (0..count).map(|n| ((n % width) / 3 + (n / width) / 2 + n % 7) as u8).collect()
}

/// A raw picture.
pub fn raw(encoding: &str, (width, height): (u32, u32)) -> Payload {
    let pixels = (width * height) as usize;
    let (bytes, step) = match encoding {
        "rgb8" | "bgr8" => (pixels * 3, width * 3),
        "rgba8" => (pixels * 4, width * 4),
        "yuv422_yuy2" => (pixels * 2, width * 2),
        "nv12" | "i420" => (pixels * 3 / 2, width),
        _ => (pixels, width),
    };
    Payload::Raw(RawImage {
        encoding: encoding.into(),
        width,
        height,
        step,
        is_bigendian: false,
        data: texture(bytes, step as usize).into(),
    })
}

/// A picture as JPEG.
pub fn jpeg(sampling: SamplingFactor, (width, height): (u32, u32)) -> Payload {
    let mut data = Vec::new();
    let mut encoder = Encoder::new(&mut data, 90);
    encoder.set_sampling_factor(sampling);
    let rgb = texture((width * height * 3) as usize, width as usize * 3);
    encoder.encode(&rgb, width as u16, height as u16, ColorType::Rgb).expect("a right picture");
    Payload::Compressed { format: "jpeg".into(), data: data.into() }
}

/// Decodes pictures of one size to planar YUV.
pub struct Decoder {
    layout: FrameLayout,
    memory: Vec<u8>,
}

impl Decoder {
    pub fn new((width, height): (u32, u32)) -> Self {
        let layout = FrameLayout::new(PixelFormat::Yuv420p, Resolution::new(width, height));
        Self { memory: vec![0; layout.bytes()], layout }
    }

    pub fn decode(&mut self, payload: &Payload) {
        let options = PictureOptions::default();
        picture::decode(payload, &options, &self.layout, &mut self.memory).expect("a picture");
    }
}

/// Parameter sets of 640×480, Baseline.
const SETS: [&[u8]; 2] = [
    &[0, 0, 0, 1, 0x67, 0x42, 0xc0, 0x1e, 0xda, 0x02, 0x80, 0xf6, 0x80, 0x6d, 0x0a, 0x13, 0x50],
    &[0, 0, 0, 1, 0x68, 0xce, 0x3c, 0x80],
];

/// Ten seconds of access units.
pub fn units(bytes: usize) -> Vec<EncodedChunk> {
    (0..300).map(|n| unit(n, bytes)).collect()
}

fn unit(n: u64, bytes: usize) -> EncodedChunk {
    let keyframe = n.is_multiple_of(30);
    let mut data = if keyframe { SETS.concat() } else { Vec::new() };
    data.extend([0, 0, 0, 1, if keyframe { 0x65 } else { 0x41 }]);
    data.resize(data.len() + bytes, 0x5a);
    EncodedChunk { data, pts: n, dts: n, keyframe }
}

/// Makes an MP4 file of access units.
pub fn mux(units: Vec<EncodedChunk>, path: &Path, mode: OutputMode) {
    let timing = Timing::Recorded(Clock::Log);
    let overwrite = true;
    let options =
        Mp4Options { mode, overwrite, ..Mp4Options::new(timing, &EncoderConfig::default()) };
    let mut sink = Mp4Sink::create(path, &options).expect("a file");
    let mut analysis = TimestampAnalysis::new(timing, FrameRate::default(), 0);
    for unit in units {
        let times = FrameTimes::at(unit.pts as i64 * 33_333_333);
        sink.write(AccessUnit::new(unit, times)).expect("room");
        analysis.push(&times);
    }
    Box::new(sink).finish(&analysis.timeline()).expect("a whole file");
}
