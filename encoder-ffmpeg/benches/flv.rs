//! The rate at which the child's output is cut into access units: `cargo bench -p encoder-ffmpeg
//! --bench flv`.

use divan::{Bencher, counter::BytesCount};
use encoder_ffmpeg::FlvParser;
use encoder_testbed::flv;

fn main() {
    divan::main();
}

#[divan::bench(args = [1_000, 20_000, 400_000])]
fn access_units(bencher: Bencher<'_, '_>, bytes: usize) {
    let stream = flv::stream(120, bytes);
    bencher.counter(BytesCount::new(stream.len())).bench(|| {
        let mut parser = FlvParser::new();
        let mut units = Vec::new();
        for piece in stream.chunks(64 << 10) {
            parser.push(piece, &mut units).expect("a right stream");
        }
        assert_eq!(units.len(), 120);
        units
    });
}
