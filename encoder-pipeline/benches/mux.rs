//! What access units cost to become an MP4 file: `cargo bench -p encoder-pipeline --bench mux`.

mod work;

use divan::{Bencher, counter::BytesCount};
use encoder_pipeline::mux::OutputMode;

fn main() {
    divan::main();
}

#[divan::bench(args = [2_000, 20_000], consts = [false, true])]
fn ten_seconds<const FRAGMENTED: bool>(bencher: Bencher<'_, '_>, bytes: usize) {
    let units = work::units(bytes);
    let mode = if FRAGMENTED { OutputMode::Fragmented } else { OutputMode::Progressive };
    bencher
        .counter(BytesCount::new(bytes * units.len()))
        .with_inputs(|| (units.clone(), tempfile::tempdir().expect("a folder")))
        .bench_values(|(units, folder)| {
            work::mux(units, &folder.path().join("a.mp4"), mode);
            folder
        });
}
