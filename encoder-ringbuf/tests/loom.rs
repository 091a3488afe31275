//! Model tests: loom runs each of these in every interleaving of its threads (up to a bound on
//! preemptions), and reports lost wake-ups (as deadlocks), leaks, and bytes that are read and
//! written at once. It does not model time, so the waits with time-outs are not here.
//!
//! ```text
//! RUSTFLAGS="--cfg ring_loom" CARGO_TARGET_DIR=target/loom \
//!     cargo test -p encoder-ringbuf --test loom
//! ```
//!
//! A separate target directory avoids a rebuild of everything else afterwards.
#![cfg(ring_loom)]
#![allow(clippy::unwrap_used)]

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake},
};

use encoder_ringbuf::{Closed, Consumer, Producer, ReadSlot, RingOptions, WriteSlot, ring};
use loom::{
    model::Builder,
    sync::{Condvar, Mutex},
    thread,
};

/// Explores all interleavings in which threads are preempted at most five times where they could
/// have continued. Errors of this kind nearly always occur with two; without a bound the larger
/// tests take minutes.
fn explore(test: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(5);
    builder.check(test);
}

fn two() -> (Producer<u64>, Consumer<u64>) {
    ring(RingOptions { slots: 2, slot_bytes: 8 }).unwrap()
}

fn full() -> (Producer<u64>, Consumer<u64>) {
    let (mut producer, consumer) = two();
    fill(producer.reserve().unwrap());
    fill(producer.reserve().unwrap());
    (producer, consumer)
}

fn fill(mut slot: WriteSlot<u64>) {
    let seq = slot.seq();
    slot.copy_from_slice(&seq.to_le_bytes());
    slot.publish(seq);
}

fn check(slot: &ReadSlot<u64>, seq: u64) {
    assert_eq!((slot.seq(), slot.meta()), (seq, Some(&seq)));
    assert_eq!(**slot, seq.to_le_bytes());
}

/// Runs a future on this thread, which sleeps on loom's own condition variable.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Signal(Mutex<bool>, Condvar);
    impl Wake for Signal {
        fn wake(self: Arc<Self>) {
            *self.0.lock().unwrap() = true;
            self.1.notify_one();
        }
    }
    let signal = Arc::new(Signal(Mutex::new(false), Condvar::new()));
    let waker = signal.clone().into();
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        let mut woken = signal.0.lock().unwrap();
        while !*woken {
            woken = signal.1.wait(woken).unwrap();
        }
        *woken = false;
    }
}

#[test]
fn handover_through_a_ring_that_is_too_small() {
    explore(|| {
        let (mut producer, mut consumer) = two();
        let writing = thread::spawn(move || {
            for _ in 0..3 {
                fill(producer.reserve().unwrap());
            }
        });
        for seq in 0..3 {
            let slot = consumer.next().unwrap();
            check(&slot, seq);
            consumer.commit(seq + 1);
        }
        assert!(consumer.next().is_none());
        writing.join().unwrap();
    });
}

#[test]
fn handover_between_futures() {
    explore(|| {
        let (mut producer, mut consumer) = two();
        let writing = thread::spawn(move || {
            for _ in 0..3 {
                fill(block_on(producer.reserve_async()).unwrap());
            }
        });
        for seq in 0..3 {
            let slot = block_on(consumer.next_async()).unwrap();
            check(&slot, seq);
            consumer.commit(seq + 1);
        }
        assert!(block_on(consumer.next_async()).is_none());
        writing.join().unwrap();
    });
}

#[test]
fn two_workers_publish_in_any_order() {
    explore(|| {
        let (mut producer, mut consumer) = two();
        let (first, second) = (producer.reserve().unwrap(), producer.reserve().unwrap());
        drop(producer);
        let workers = [first, second].map(|slot| thread::spawn(move || fill(slot)));
        check(&consumer.next().unwrap(), 0);
        check(&consumer.next().unwrap(), 1);
        assert!(consumer.next().is_none());
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
}

#[test]
fn a_worker_abandons_while_the_consumer_waits() {
    explore(|| {
        let (mut producer, mut consumer) = two();
        let (first, second) = (producer.reserve().unwrap(), producer.reserve().unwrap());
        let workers = [thread::spawn(move || drop(first)), thread::spawn(move || fill(second))];
        assert_eq!(consumer.next().unwrap().meta(), None);
        check(&consumer.next().unwrap(), 1);
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
}

#[test]
fn the_producer_closes_while_the_consumer_waits() {
    explore(|| {
        let (producer, mut consumer) = two();
        let closing = thread::spawn(move || producer.close());
        assert!(consumer.next().is_none());
        closing.join().unwrap();
    });
    explore(|| {
        let (producer, mut consumer) = two();
        let closing = thread::spawn(move || producer.close());
        assert!(block_on(consumer.next_async()).is_none());
        closing.join().unwrap();
    });
}

#[test]
fn the_producer_closes_before_its_last_slot_is_published() {
    explore(|| {
        let (mut producer, mut consumer) = two();
        let slot = producer.reserve().unwrap();
        let worker = thread::spawn(move || fill(slot));
        let closing = thread::spawn(move || producer.close());
        check(&consumer.next().unwrap(), 0);
        assert!(consumer.next().is_none());
        worker.join().unwrap();
        closing.join().unwrap();
    });
}

#[test]
fn the_consumer_closes_while_the_producer_waits() {
    explore(|| {
        let (mut producer, consumer) = full();
        let closing = thread::spawn(move || consumer.close());
        assert_eq!(producer.reserve().unwrap_err(), Closed);
        closing.join().unwrap();
    });
    explore(|| {
        let (mut producer, consumer) = full();
        let closing = thread::spawn(move || consumer.close());
        assert_eq!(block_on(producer.reserve_async()).unwrap_err(), Closed);
        closing.join().unwrap();
    });
}

#[test]
fn a_commit_frees_a_slot_for_a_blocked_producer() {
    explore(|| {
        let (mut producer, mut consumer) = full();
        let writing = thread::spawn(move || fill(producer.reserve().unwrap()));
        drop(consumer.next());
        consumer.commit(1);
        writing.join().unwrap();
        check(&consumer.next().unwrap(), 1);
        check(&consumer.next().unwrap(), 2);
    });
}

#[test]
fn a_late_reader_in_another_thread_frees_a_slot_for_a_blocked_producer() {
    explore(|| {
        let (mut producer, mut consumer) = full();
        let slot = consumer.next().unwrap();
        let late = thread::spawn(move || check(&slot, 0));
        let writing = thread::spawn(move || fill(producer.reserve().unwrap()));
        consumer.commit(1);
        check(&consumer.next().unwrap(), 1);
        check(&consumer.next().unwrap(), 2);
        late.join().unwrap();
        writing.join().unwrap();
    });
}

#[test]
fn rewind_while_the_producer_is_blocked() {
    explore(|| {
        let (mut producer, mut consumer) = full();
        let writing = thread::spawn(move || fill(producer.reserve().unwrap()));
        // The encoder fails with two frames in flight, and the next encoder with one.
        let held = consumer.next().unwrap();
        check(&consumer.next().unwrap(), 1);
        assert_eq!(consumer.rewind(), 0);
        let again = consumer.next().unwrap();
        consumer.commit(1);
        check(&held, 0);
        check(&again, 0);
        drop((held, again));
        check(&consumer.next().unwrap(), 1);
        assert_eq!(consumer.rewind(), 1);
        check(&consumer.next().unwrap(), 1);
        check(&consumer.next().unwrap(), 2);
        writing.join().unwrap();
    });
}

#[test]
fn a_cancelled_future_loses_no_frame_and_no_wake_up() {
    explore(|| {
        let (mut producer, mut consumer) = two();
        let writing = thread::spawn(move || fill(producer.reserve().unwrap()));
        let waker = std::task::Waker::noop();
        let polled = pin!(consumer.next_async()).poll(&mut Context::from_waker(waker));
        match polled {
            Poll::Ready(slot) => check(&slot.unwrap(), 0),
            Poll::Pending => check(&consumer.next().unwrap(), 0),
        }
        writing.join().unwrap();
    });
}

#[test]
fn a_live_source_drops_the_oldest_unread_frame_while_the_consumer_reads() {
    explore(|| {
        let (mut producer, mut consumer) = full();
        let writing = thread::spawn(move || {
            let mut dropped = Vec::new();
            for _ in 0..2 {
                // While both slots are being read, no frame can be dropped, so the source drops its
                // new frame.
                if let Some(got) = producer.try_reserve_over_oldest().unwrap() {
                    dropped.extend(got.dropped.map(|meta| *meta.unwrap()));
                    fill(got.slot);
                }
            }
            dropped
        });
        let mut seen = Vec::new();
        while let Some(slot) = consumer.next() {
            check(&slot, slot.seq());
            seen.push(slot.seq());
            drop(slot);
            consumer.commit(seen.last().unwrap() + 1);
        }
        let dropped = writing.join().unwrap();
        let mut all = [seen.clone(), dropped].concat();
        assert!(seen.is_sorted());
        all.sort_unstable();
        assert_eq!(all, (0..all.len() as u64).collect::<Vec<_>>(), "each is seen or dropped, once");
    });
}
