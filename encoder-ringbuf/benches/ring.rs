//! The time that a frame takes to pass through the ring, without its pixels: `cargo bench -p
//! encoder-ringbuf`.

use divan::{Bencher, counter::ItemsCount};
use encoder_ringbuf::{Consumer, Next, Producer, ReadSlot, RingOptions, ring};

const FRAMES: u64 = 1000;

fn main() {
    divan::main();
}

fn measure(bencher: Bencher<'_, '_>, slots: usize, work: fn(Producer<u64>, Consumer<u64>)) {
    bencher
        .counter(ItemsCount::new(FRAMES))
        .with_inputs(|| ring(RingOptions { slots, slot_bytes: 64 }).expect("a small ring"))
        .bench_values(|(producer, consumer)| work(producer, consumer));
}

fn answer(consumer: &mut Consumer<u64>, slot: ReadSlot<u64>) {
    let seq = slot.seq();
    drop(slot);
    consumer.commit(seq + 1);
}

/// One thread does both sides.
#[divan::bench(args = [4, 16, 64])]
fn one_thread(bencher: Bencher<'_, '_>, slots: usize) {
    measure(bencher, slots, |mut producer, mut consumer| {
        for n in 0..FRAMES {
            producer.reserve().expect("the consumer lives").publish(n);
            if let Next::Slot(slot) = consumer.try_next() {
                answer(&mut consumer, slot);
            }
        }
    });
}

/// Each side in a thread of its own, which wait for each other.
#[divan::bench(args = [4, 16, 64])]
fn two_threads(bencher: Bencher<'_, '_>, slots: usize) {
    measure(bencher, slots, |mut producer, mut consumer| {
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for n in 0..FRAMES {
                    producer.reserve().expect("the consumer lives").publish(n);
                }
                producer.close();
            });
            while let Some(slot) = consumer.next() {
                answer(&mut consumer, slot);
            }
        });
    });
}
