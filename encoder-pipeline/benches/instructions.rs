//! What is counted by `cargo xtask instructions`: it runs this program under valgrind, once for a
//! few times of a work and once for more. Times are not steady on a shared machine; these are.

mod work;

use std::{env, process::ExitCode};

use encoder_ffmpeg::FlvParser;
use encoder_pipeline::mux::OutputMode;
use encoder_ringbuf::{Next, RingOptions, ring};
use encoder_testbed::flv;
use jpeg_encoder::SamplingFactor;
use work::{Decoder, jpeg, raw};

const SIZE: (u32, u32) = (640, 480);
const RING_FRAMES: u64 = 1000;

/// A work, made ready to be done again and again.
type Work = Box<dyn FnMut()>;

const ALL: [(&str, fn() -> Work); 10] = [
    ("jpeg 4:2:0, 640x480", || decode(jpeg(SamplingFactor::F_2_2, SIZE))),
    ("jpeg 4:2:2, 640x480", || decode(jpeg(SamplingFactor::F_2_1, SIZE))),
    ("jpeg 4:4:4, 640x480", || decode(jpeg(SamplingFactor::F_1_1, SIZE))),
    ("rgb8, 640x480", || decode(raw("rgb8", SIZE))),
    ("bayer_rggb8, 640x480", || decode(raw("bayer_rggb8", SIZE))),
    ("yuv422_yuy2, 640x480", || decode(raw("yuv422_yuy2", SIZE))),
    ("ring, 1000 frames", || Box::new(through_the_ring)),
    ("FLV, 120 access units of 20 kB", parse_flv),
    ("MP4, 300 access units of 2 kB", || write_mp4(OutputMode::Progressive)),
    ("fragmented MP4, 300 access units of 2 kB", || write_mp4(OutputMode::Fragmented)),
];

fn decode(payload: encoder_pipeline::source::Payload) -> Work {
    let mut decoder = Decoder::new(SIZE);
    Box::new(move || decoder.decode(&payload))
}

fn through_the_ring() {
    let options = RingOptions { slots: 16, slot_bytes: 64 };
    let (mut producer, mut consumer) = ring(options).expect("a small ring");
    for n in 0..RING_FRAMES {
        producer.reserve().expect("the consumer lives").publish(n);
        if let Next::Slot(slot) = consumer.try_next() {
            let seq = slot.seq();
            drop(slot);
            consumer.commit(seq + 1);
        }
    }
}

fn parse_flv() -> Work {
    let stream = flv::stream(120, 20_000);
    Box::new(move || {
        let mut units = Vec::new();
        let mut parser = FlvParser::new();
        for piece in stream.chunks(64 << 10) {
            parser.push(piece, &mut units).expect("a right stream");
        }
        assert_eq!(units.len(), 120);
    })
}

fn write_mp4(mode: OutputMode) -> Work {
    let units = work::units(2_000);
    let folder = tempfile::tempdir().expect("a folder");
    Box::new(move || work::mux(units.clone(), &folder.path().join("a.mp4"), mode))
}

/// Without arguments: the names. `NAME TIMES`: does it so often.
fn main() -> ExitCode {
    // `cargo bench` adds an option of its own.
    let words: Vec<String> = env::args().skip(1).filter(|word| word != "--bench").collect();
    let [name, times] = words.as_slice() else {
        ALL.iter().for_each(|(name, _)| println!("{name}"));
        return ExitCode::SUCCESS;
    };
    let work = ALL.iter().find(|(known, _)| known == name);
    let (Some((_, work)), Ok(times)) = (work, times.parse::<u32>()) else {
        eprintln!("no work `{name}`, or `{times}` is no number");
        return ExitCode::FAILURE;
    };
    let mut work = work();
    (0..times).for_each(|_| work());
    ExitCode::SUCCESS
}
