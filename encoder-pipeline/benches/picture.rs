//! From recorded pictures to planar YUV: `cargo bench -p encoder-pipeline --bench picture`.

mod work;

use divan::{Bencher, counter::ItemsCount};
use encoder_pipeline::source::Payload;
use jpeg_encoder::SamplingFactor;
use work::{Decoder, jpeg, raw};

const SIZES: [(u32, u32); 2] = [(640, 480), (1920, 1080)];

fn main() {
    divan::main();
}

fn decode(bencher: Bencher<'_, '_>, payload: Payload, size: (u32, u32)) {
    let mut decoder = Decoder::new(size);
    bencher.counter(ItemsCount::new(1usize)).bench_local(|| decoder.decode(&payload));
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
