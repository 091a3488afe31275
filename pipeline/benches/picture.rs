//! From recorded pictures to planar YUV: `cargo bench -p encoder-pipeline --bench picture`.

use divan::{Bencher, counter::ItemsCount};
use encoder_core::{FrameLayout, PixelFormat, Resolution};
use encoder_pipeline::{
    picture::{self, PictureOptions},
    source::{Payload, RawImage},
};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

const SIZES: [(u32, u32); 2] = [(640, 480), (1920, 1080)];

fn main() {
    divan::main();
}

/// Bytes that are neither all the same nor noise.
fn texture(count: usize, width: usize) -> Vec<u8> {
    (0..count).map(|n| ((n % width) / 3 + (n / width) / 2 + n % 7) as u8).collect()
}

fn raw(encoding: &str, (width, height): (u32, u32)) -> Payload {
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

fn jpeg(sampling: SamplingFactor, (width, height): (u32, u32)) -> Payload {
    let mut data = Vec::new();
    let mut encoder = Encoder::new(&mut data, 90);
    encoder.set_sampling_factor(sampling);
    let rgb = texture((width * height * 3) as usize, width as usize * 3);
    encoder.encode(&rgb, width as u16, height as u16, ColorType::Rgb).expect("a right picture");
    Payload::Compressed { format: "jpeg".into(), data: data.into() }
}

fn decode(bencher: Bencher<'_, '_>, payload: Payload, (width, height): (u32, u32)) {
    let layout = FrameLayout::new(PixelFormat::Yuv420p, Resolution::new(width, height));
    let mut memory = vec![0; layout.bytes()];
    let options = PictureOptions::default();
    bencher.counter(ItemsCount::new(1usize)).bench_local(|| {
        picture::decode(&payload, &options, &layout, &mut memory).expect("a right picture");
    });
}

#[divan::bench(args = SIZES)]
fn rgb(bencher: Bencher<'_, '_>, size: (u32, u32)) {
    decode(bencher, raw("rgb8", size), size);
}

#[divan::bench(args = SIZES)]
fn rgba(bencher: Bencher<'_, '_>, size: (u32, u32)) {
    decode(bencher, raw("rgba8", size), size);
}

#[divan::bench(args = SIZES)]
fn grey(bencher: Bencher<'_, '_>, size: (u32, u32)) {
    decode(bencher, raw("mono8", size), size);
}

#[divan::bench(args = SIZES)]
fn bayer(bencher: Bencher<'_, '_>, size: (u32, u32)) {
    decode(bencher, raw("bayer_rggb8", size), size);
}

#[divan::bench(args = SIZES)]
fn yuyv(bencher: Bencher<'_, '_>, size: (u32, u32)) {
    decode(bencher, raw("yuv422_yuy2", size), size);
}

#[divan::bench(args = SIZES)]
fn nv12(bencher: Bencher<'_, '_>, size: (u32, u32)) {
    decode(bencher, raw("nv12", size), size);
}

#[divan::bench(args = SIZES)]
fn jpeg_420(bencher: Bencher<'_, '_>, size: (u32, u32)) {
    decode(bencher, jpeg(SamplingFactor::F_2_2, size), size);
}

#[divan::bench(args = SIZES)]
fn jpeg_422(bencher: Bencher<'_, '_>, size: (u32, u32)) {
    decode(bencher, jpeg(SamplingFactor::F_2_1, size), size);
}

#[divan::bench(args = SIZES)]
fn jpeg_444(bencher: Bencher<'_, '_>, size: (u32, u32)) {
    decode(bencher, jpeg(SamplingFactor::F_1_1, size), size);
}
