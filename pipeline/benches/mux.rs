//! What access units cost to become an MP4 file: `cargo bench -p encoder-pipeline --bench mux`.

use divan::{Bencher, counter::BytesCount};
use encoder_core::{EncodedChunk, EncoderConfig, FrameRate};
use encoder_pipeline::{
    mux::{Mp4Options, Mp4Sink, OutputMode, Sink},
    timeline::{Clock, FrameTimes, Survey, Timing},
};

const COUNT: u64 = 300;

fn main() {
    divan::main();
}

/// Parameter sets of 640×480, Baseline.
const SETS: [&[u8]; 2] = [
    &[0, 0, 0, 1, 0x67, 0x42, 0xc0, 0x1e, 0xda, 0x02, 0x80, 0xf6, 0x80, 0x6d, 0x0a, 0x13, 0x50],
    &[0, 0, 0, 1, 0x68, 0xce, 0x3c, 0x80],
];

fn unit(n: u64, bytes: usize) -> EncodedChunk {
    let keyframe = n.is_multiple_of(30);
    let mut data = if keyframe { SETS.concat() } else { Vec::new() };
    data.extend([0, 0, 0, 1, if keyframe { 0x65 } else { 0x41 }]);
    data.resize(data.len() + bytes, 0x5a);
    EncodedChunk { data, pts: n, dts: n, keyframe }
}

#[divan::bench(args = [2_000, 20_000], consts = [false, true])]
fn ten_seconds<const FRAGMENTED: bool>(bencher: Bencher<'_, '_>, bytes: usize) {
    let units: Vec<EncodedChunk> = (0..COUNT).map(|n| unit(n, bytes)).collect();
    let mode = if FRAGMENTED { OutputMode::Fragmented } else { OutputMode::Progressive };
    let timing = Timing::Recorded(Clock::Log);
    let options = Mp4Options { mode, ..Mp4Options::new(timing, &EncoderConfig::default()) };
    bencher
        .counter(BytesCount::new(bytes * COUNT as usize))
        .with_inputs(|| (units.clone(), tempfile::tempdir().expect("a folder")))
        .bench_values(|(units, folder)| {
            let path = folder.path().join("a.mp4");
            let mut sink = Mp4Sink::create(&path, &options).expect("a file");
            let mut survey = Survey::new(timing, FrameRate::default(), 0);
            for unit in units {
                let times = FrameTimes::at(unit.pts as i64 * 33_333_333);
                sink.write(unit, &times).expect("room");
                survey.push(&times);
            }
            Box::new(sink).finish(&survey.layout()).expect("a whole file");
            folder
        });
}
