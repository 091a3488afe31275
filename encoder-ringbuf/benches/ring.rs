//! What a frame costs to go through the ring, without its pixels: `cargo bench -p encoder-ringbuf`.

use divan::{Bencher, counter::ItemsCount};
use encoder_ringbuf::{Next, RingOptions, ring};

const FRAMES: u64 = 1000;

fn main() {
    divan::main();
}

/// One thread does both sides.
#[divan::bench(args = [4, 16, 64])]
fn one_thread(bencher: Bencher<'_, '_>, slots: usize) {
    let options = || RingOptions { slots, slot_bytes: 64 };
    bencher
        .counter(ItemsCount::new(FRAMES))
        .with_inputs(|| ring::<u64>(options()).ok())
        .bench_values(|pair| {
            let (mut producer, mut consumer) = pair.expect("a small ring");
            for n in 0..FRAMES {
                producer.reserve().expect("the consumer lives").publish(n);
                if let Next::Slot(slot) = consumer.try_next() {
                    let seq = slot.seq();
                    drop(slot);
                    consumer.commit(seq + 1);
                }
            }
        });
}

/// Each side in a thread of its own, which wait for each other.
#[divan::bench(args = [4, 16, 64])]
fn two_threads(bencher: Bencher<'_, '_>, slots: usize) {
    let options = || RingOptions { slots, slot_bytes: 64 };
    bencher
        .counter(ItemsCount::new(FRAMES))
        .with_inputs(|| ring::<u64>(options()).ok())
        .bench_values(|pair| {
            let (mut producer, mut consumer) = pair.expect("a small ring");
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    for n in 0..FRAMES {
                        producer.reserve().expect("the consumer lives").publish(n);
                    }
                    producer.close();
                });
                while let Some(slot) = consumer.next() {
                    let seq = slot.seq();
                    drop(slot);
                    consumer.commit(seq + 1);
                }
            });
        });
}
