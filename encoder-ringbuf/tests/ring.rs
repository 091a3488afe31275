//! Every operation of the ring, one by one. Tests detect a waiting thread by the ring's own count
//! of waits, so no test depends on the speed of the machine.
#![cfg(not(ring_loom))]
#![allow(clippy::unwrap_used)]

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use encoder_ringbuf::{
    Closed, Consumer, Monitor, Next, Producer, ReadSlot, RingError, RingOptions, Snapshot,
    WriteSlot, ring,
};

const TINY: Duration = Duration::from_nanos(1);

fn small<M: Send + Sync>(slots: usize) -> (Producer<M>, Consumer<M>) {
    ring(RingOptions { slots, slot_bytes: 16 }).unwrap()
}

/// Writes a frame whose bytes and metadata are its number.
fn put(producer: &mut Producer<u64>) -> u64 {
    let mut slot = producer.try_reserve().unwrap().unwrap();
    let seq = slot.seq();
    slot.fill(seq as u8);
    slot.publish(seq);
    seq
}

fn put_many(producer: &mut Producer<u64>, frames: usize) {
    for _ in 0..frames {
        put(producer);
    }
}

/// Reads the next frame, which must be published, and checks its content.
fn take(consumer: &mut Consumer<u64>) -> ReadSlot<u64> {
    let Next::Slot(slot) = consumer.try_next() else { panic!("no frame: {consumer:?}") };
    assert_eq!(slot.meta(), Some(&slot.seq()));
    assert!(slot.iter().all(|&byte| byte == slot.seq() as u8), "{:?}", &*slot);
    slot
}

fn until<M>(monitor: &Monitor<M>, condition: impl Fn(&Snapshot) -> bool) {
    while !condition(&monitor.snapshot()) {
        thread::yield_now();
    }
}

#[test]
fn ends_and_slots_can_be_sent_to_other_threads() {
    fn send<T: Send>() {}
    fn sync<T: Sync>() {}
    send::<Producer<u64>>();
    send::<Consumer<u64>>();
    send::<WriteSlot<u64>>();
    send::<ReadSlot<u64>>();
    send::<Monitor<u64>>();
    sync::<Monitor<u64>>();
}

#[test]
fn impossible_sizes_are_errors() {
    let table = [
        (0, 1, RingError::TooFewSlots { slots: 0 }),
        (1, 1, RingError::TooFewSlots { slots: 1 }),
        (2, 0, RingError::EmptySlots),
        (2, usize::MAX, RingError::TooLarge { slots: 2, slot_bytes: usize::MAX }),
        (2, usize::MAX / 2, RingError::TooLarge { slots: 2, slot_bytes: usize::MAX / 2 }),
        (usize::MAX, 1, RingError::TooLarge { slots: usize::MAX, slot_bytes: 1 }),
    ];
    for (slots, slot_bytes, error) in table {
        assert_eq!(ring::<()>(RingOptions { slots, slot_bytes }).unwrap_err(), error);
    }
}

// (Miri ends the program where a system would refuse.)
#[test]
#[cfg(all(target_pointer_width = "64", not(miri)))]
fn missing_memory_is_an_error() {
    // The size fits a layout, but not the address space of any current machine.
    let options = RingOptions { slots: 2, slot_bytes: 1 << 61 };
    assert_eq!(ring::<()>(options).unwrap_err(), RingError::OutOfMemory { bytes: 1 << 62 });
}

#[test]
fn slots_start_zeroed_on_a_page_and_have_their_exact_size() {
    for slot_bytes in [1, 4095, 4096, 4097] {
        let (mut producer, _consumer) = ring::<()>(RingOptions { slots: 3, slot_bytes }).unwrap();
        let slots: Vec<_> = (0..3).map(|_| producer.reserve().unwrap()).collect();
        for slot in &slots {
            assert_eq!(slot.as_ptr() as usize % 4096, 0);
            assert_eq!(slot.len(), slot_bytes);
            assert!(slot.iter().all(|&byte| byte == 0));
        }
    }
}

#[test]
fn frames_come_in_order_and_are_drained_after_a_close() {
    let (mut producer, mut consumer) = small(4);
    for seq in 0..3 {
        assert_eq!(put(&mut producer), seq);
    }
    producer.close();
    for seq in 0..3 {
        assert_eq!(take(&mut consumer).seq(), seq);
    }
    assert!(consumer.next().is_none());
    assert!(matches!(consumer.try_next(), Next::Ended));
    // After a rewind there are frames again, for the next encoder.
    consumer.commit(1);
    assert_eq!(consumer.rewind(), 1);
    assert_eq!(consumer.next().unwrap().seq(), 1);
    assert_eq!(consumer.next().unwrap().seq(), 2);
    assert!(consumer.next().is_none());
}

#[test]
fn a_closed_producer_still_waits_for_its_workers() {
    let (mut producer, mut consumer) = small(2);
    let slot = producer.reserve().unwrap();
    drop(producer);
    assert!(matches!(consumer.try_next(), Next::TimedOut));
    slot.publish(7);
    assert_eq!(consumer.next().unwrap().meta(), Some(&7));
    assert!(consumer.next().is_none());
}

#[test]
fn waits_end_at_their_timeout() {
    let (mut producer, mut consumer) = small(2);
    for timeout in [Duration::ZERO, TINY] {
        assert!(matches!(consumer.next_timeout(timeout), Next::TimedOut));
    }
    put(&mut producer);
    put(&mut producer);
    assert!(producer.try_reserve().unwrap().is_none());
    for timeout in [Duration::ZERO, TINY] {
        assert!(producer.reserve_timeout(timeout).unwrap().is_none());
    }
    assert!(matches!(consumer.next_timeout(Duration::ZERO), Next::Slot(_)));
    consumer.commit(1);
    // A time-out that no `Instant` can represent is no time-out.
    assert_eq!(producer.reserve_timeout(Duration::MAX).unwrap().unwrap().seq(), 2);
}

#[test]
fn frames_are_readable_only_in_order() {
    let (mut producer, mut consumer) = small(3);
    let [first, second, third] = [(); 3].map(|()| producer.reserve().unwrap());
    third.publish(2);
    second.publish(1);
    assert!(matches!(consumer.try_next(), Next::TimedOut));
    assert_eq!(consumer.snapshot().readable, 0);
    first.publish(0);
    assert_eq!(consumer.snapshot().readable, 3);
    for seq in 0..3 {
        let slot = consumer.next().unwrap();
        assert_eq!((slot.seq(), slot.meta()), (seq, Some(&seq)));
    }
}

#[test]
fn an_abandoned_slot_does_not_block_later_frames() {
    let (mut producer, mut consumer) = small(3);
    let slot = producer.reserve().unwrap();
    let panicking = thread::spawn(move || {
        let _slot = slot;
        std::panic::resume_unwind(Box::new("a worker dies"));
    });
    assert!(panicking.join().is_err());
    put(&mut producer);
    let abandoned = consumer.next().unwrap();
    assert_eq!((abandoned.seq(), abandoned.meta()), (0, None));
    assert_eq!(take(&mut consumer).seq(), 1);
    // After a rewind it is returned again like any other frame.
    consumer.rewind();
    assert_eq!(consumer.next().unwrap().meta(), None);
}

#[test]
fn slots_are_free_only_after_commit() {
    let (mut producer, mut consumer) = small(2);
    put(&mut producer);
    put(&mut producer);
    drop((take(&mut consumer), take(&mut consumer)));
    assert!(producer.try_reserve().unwrap().is_none());
    consumer.commit(1);
    assert_eq!(put(&mut producer), 2);
    assert!(producer.try_reserve().unwrap().is_none());
    consumer.commit(2);
    assert_eq!(put(&mut producer), 3);
}

#[test]
fn commit_moves_neither_back_nor_beyond_the_frames_that_were_read() {
    let (mut producer, mut consumer) = small(4);
    put_many(&mut producer, 4);
    drop((take(&mut consumer), take(&mut consumer), take(&mut consumer)));
    // (upto, cursor after it)
    for (upto, committed) in [(0, 0), (2, 2), (1, 2), (2, 2), (4, 2), (u64::MAX, 2), (3, 3)] {
        consumer.commit(upto);
        assert_eq!(consumer.snapshot().committed, committed, "commit({upto})");
    }
}

#[test]
fn a_late_commit_after_a_rewind_is_ignored() {
    let (mut producer, mut consumer) = small(4);
    put_many(&mut producer, 4);
    drop((take(&mut consumer), take(&mut consumer)));
    assert_eq!(consumer.rewind(), 0);
    consumer.commit(2);
    assert_eq!(consumer.snapshot().committed, 0);
    assert_eq!(take(&mut consumer).seq(), 0);
}

#[test]
fn rewind_returns_the_same_frames_again() {
    let (mut producer, mut consumer) = small(4);
    put_many(&mut producer, 4);
    let held: Vec<_> = (0..3).map(|_| take(&mut consumer)).collect();
    consumer.commit(1);
    for _ in 0..2 {
        assert_eq!(consumer.rewind(), 1);
        assert_eq!(consumer.snapshot().in_flight, 0);
        for seq in 1..4 {
            assert_eq!(take(&mut consumer).seq(), seq);
        }
    }
    // The same bytes, not a copy of them.
    consumer.rewind();
    let again = take(&mut consumer);
    assert_eq!((again.seq(), again.as_ptr()), (1, held[1].as_ptr()));
    assert!(std::ptr::eq(again.meta().unwrap(), held[1].meta().unwrap()));
}

#[test]
fn the_slot_of_a_discarded_frame_is_free_before_earlier_frames_are_committed() {
    let (mut producer, mut consumer) = small(3);
    put_many(&mut producer, 3);
    let first = take(&mut consumer);
    // However many frames are discarded after an uncommitted frame, slots become free.
    for seq in 1..20 {
        assert_eq!(take(&mut consumer).seq(), seq);
        consumer.discard(seq);
        assert_eq!(consumer.snapshot().len, 2);
        put(&mut producer);
    }
    assert_eq!(first.seq(), 0);
    // They are not returned again.
    assert_eq!(consumer.rewind(), 0);
    let seqs: Vec<_> = (0..3).map(|_| take(&mut consumer).seq()).collect();
    assert_eq!(seqs, [0, 20, 21]);
    consumer.commit(22);
    assert_eq!(consumer.snapshot().len, 0);
    // Before they are read, and after they are committed, discards have no effect.
    consumer.discard(22);
    consumer.discard(3);
    assert_eq!(put(&mut producer), 22);
    assert_eq!(take(&mut consumer).seq(), 22);
}

#[test]
fn only_the_oldest_unread_frame_is_dropped_for_a_new_one() {
    let (mut producer, mut consumer) = small::<u64>(3);
    put_many(&mut producer, 3);
    let dropped = |producer: &mut Producer<u64>| {
        let mut got = producer.try_reserve_over_oldest().unwrap()?;
        let seq = got.slot.seq();
        got.slot.fill(seq as u8);
        got.slot.publish(seq);
        Some(got.dropped.map(|meta| *meta.unwrap()))
    };
    drop(take(&mut consumer));
    // Frame 0 was read, so frame 1 is dropped.
    assert_eq!(dropped(&mut producer), Some(Some(1)));
    // The same after a rewind.
    consumer.rewind();
    assert_eq!(dropped(&mut producer), Some(Some(2)));
    assert_eq!(take(&mut consumer).seq(), 0);
    assert_eq!(take(&mut consumer).seq(), 3);
    assert_eq!(take(&mut consumer).seq(), 4);
    // All frames were read, so none can be dropped.
    assert_eq!(dropped(&mut producer), None);
    consumer.commit(1);
    // If a slot is free, no frame is dropped.
    assert_eq!(dropped(&mut producer), Some(None));
    assert_eq!(dropped(&mut producer), Some(Some(5)));
    drop(consumer);
    assert!(producer.try_reserve_over_oldest().is_err());
}

#[test]
fn a_held_frame_keeps_only_its_own_slot() {
    let (mut producer, mut consumer) = small(3);
    put(&mut producer);
    let first = take(&mut consumer);
    consumer.rewind();
    let second = take(&mut consumer);
    consumer.commit(1);
    // The other two slots are reused in turn.
    for seq in 1..8 {
        assert_eq!(put(&mut producer), seq);
        drop(take(&mut consumer));
        consumer.commit(seq + 1);
    }
    put(&mut producer);
    put(&mut producer);
    assert!(producer.try_reserve().unwrap().is_none());
    drop(first);
    assert!(producer.try_reserve().unwrap().is_none());
    assert_eq!((second.meta(), &*second), (Some(&0), &[0; 16][..]));
    drop(second);
    assert_eq!(put(&mut producer), 10);
}

#[test]
fn a_blocked_producer_continues_when_a_slot_is_free() {
    for held in [false, true] {
        let (mut producer, mut consumer) = small(2);
        let monitor = producer.monitor();
        put(&mut producer);
        put(&mut producer);
        let slot = take(&mut consumer);
        if held {
            consumer.commit(1);
        }
        let thread = thread::spawn(move || producer.reserve().map(|slot| slot.seq()));
        until(&monitor, |s| s.producer_waits == 1);
        if held {
            drop(slot);
        } else {
            drop(slot);
            consumer.commit(1);
        }
        assert_eq!(thread.join().unwrap(), Ok(2));
    }
}

#[test]
fn a_blocked_consumer_continues_at_the_next_frame_or_the_end() {
    for publish in [true, false] {
        let (mut producer, mut consumer) = small(2);
        let monitor = consumer.monitor();
        let thread = thread::spawn(move || consumer.next().map(|slot| slot.seq()));
        until(&monitor, |s| s.consumer_waits == 1);
        if publish {
            put(&mut producer);
        } else {
            producer.close();
        }
        assert_eq!(thread.join().unwrap(), publish.then_some(0));
    }
}

#[test]
fn dropping_the_consumer_closes_the_ring_at_once() {
    // While there is room …
    let (mut producer, consumer) = small(2);
    let slot = producer.reserve().unwrap();
    consumer.close();
    assert_eq!(producer.try_reserve().unwrap_err(), Closed);
    assert_eq!(producer.reserve_timeout(TINY).unwrap_err(), Closed);
    assert_eq!(producer.reserve().unwrap_err(), Closed);
    slot.publish(0);

    // … and while the producer waits.
    let (mut producer, consumer) = small(2);
    put(&mut producer);
    put(&mut producer);
    let monitor = producer.monitor();
    let thread = thread::spawn(move || producer.reserve().map(|slot| slot.seq()));
    until(&monitor, |s| s.producer_waits == 1);
    drop(consumer);
    assert_eq!(thread.join().unwrap(), Err(Closed));
}

#[test]
fn every_order_of_dropping_is_safe() {
    type Part = Box<dyn std::any::Any>;
    // Every permutation of the four parts, by Lehmer codes.
    for code in 0..24 {
        let (mut producer, mut consumer) = small(3);
        put(&mut producer);
        let read = take(&mut consumer);
        consumer.commit(code % 2);
        let mut write = producer.reserve().unwrap();
        write.fill(9);
        let mut parts: Vec<Part> =
            vec![Box::new(producer), Box::new(consumer), Box::new(write), Box::new(read)];
        let mut rest = code as usize;
        while !parts.is_empty() {
            let at = rest % parts.len();
            rest /= parts.len();
            drop(parts.remove(at));
            // The remaining parts can still be used.
            for part in &mut parts {
                if let Some(read) = part.downcast_ref::<ReadSlot<u64>>() {
                    assert_eq!((&**read, read.meta()), (&[0; 16][..], Some(&0)));
                }
                if let Some(write) = part.downcast_mut::<WriteSlot<u64>>() {
                    write.fill(8);
                }
            }
        }
    }
}

/// Counts how often it is dropped.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn metadata_is_dropped_when_its_slot_is_reused_or_the_ring_is_dropped() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let count = || dropped.load(Ordering::Relaxed);
    let (mut producer, mut consumer) = small(2);
    let monitor = consumer.monitor();
    for _ in 0..2 {
        producer.reserve().unwrap().publish(Counted(dropped.clone()));
    }
    drop(consumer.next());
    consumer.commit(1);
    assert_eq!(count(), 0);
    let slot = producer.reserve().unwrap();
    assert_eq!(count(), 1);
    slot.publish(Counted(dropped.clone()));
    let held = consumer.next();
    drop((producer, consumer));
    assert_eq!(count(), 1);
    drop(held);
    assert_eq!(count(), 3);
    // A monitor keeps only the numbers.
    assert_eq!(monitor.snapshot().written, 3);
}

#[test]
fn metadata_that_panics_when_dropped_loses_only_one_frame() {
    struct Bomb(bool);
    impl Drop for Bomb {
        fn drop(&mut self) {
            if self.0 {
                std::panic::resume_unwind(Box::new("bang"));
            }
        }
    }
    let (mut producer, mut consumer) = small(2);
    producer.reserve().unwrap().publish(Bomb(true));
    drop(consumer.next());
    consumer.commit(1);
    assert!(catch_unwind(AssertUnwindSafe(|| producer.reserve().is_ok())).is_err());
    producer.reserve().unwrap().publish(Bomb(false));
    let abandoned = consumer.next().unwrap();
    assert_eq!((abandoned.seq(), abandoned.meta().is_none()), (1, true));
    let next = consumer.next().unwrap();
    assert_eq!((next.seq(), next.meta().is_some()), (2, true));
}

#[test]
fn snapshots_contain_cursors_and_waits() {
    let (mut producer, mut consumer) = small(4);
    let monitor = producer.monitor().clone();
    assert_eq!(monitor.snapshot(), Snapshot { capacity: 4, ..Snapshot::default() });
    let [a, b, c] = [(); 3].map(|()| producer.reserve().unwrap());
    a.publish(0);
    c.publish(2);
    drop(consumer.next());
    let expected = Snapshot {
        capacity: 4,
        len: 3,
        readable: 0,
        in_flight: 1,
        written: 1,
        read: 1,
        high_water: 3,
        ..Snapshot::default()
    };
    assert_eq!(monitor.snapshot(), expected);
    b.publish(1);
    consumer.commit(1);
    let expected =
        Snapshot { len: 2, readable: 2, in_flight: 0, written: 3, committed: 1, ..expected };
    assert_eq!(producer.snapshot(), expected);
    assert_eq!(consumer.snapshot(), expected);

    // A wait is counted when it begins; its time is counted during the wait and after it.
    let thread = thread::spawn(move || {
        while let Some(slot) = consumer.next() {
            consumer.commit(slot.seq() + 1);
        }
    });
    until(&monitor, |s| s.consumer_waits == 1 && s.consumer_wait > Duration::ZERO);
    drop(producer);
    thread.join().unwrap();
    let last = monitor.snapshot();
    assert_eq!((last.committed, last.consumer_waits, last.producer_waits), (3, 1, 0));
    assert_eq!(monitor.snapshot(), last, "no wait goes on");
}

#[test]
fn many_workers_fill_one_ring() {
    const FRAMES: u64 = if cfg!(miri) { 12 } else { 500 };
    let (mut producer, mut consumer) = small(4);
    let (jobs, queue) = std::sync::mpsc::channel::<WriteSlot<u64>>();
    let queue = Arc::new(std::sync::Mutex::new(queue));
    let workers: Vec<_> = (0..3)
        .map(|_| {
            let queue = queue.clone();
            thread::spawn(move || {
                loop {
                    let Ok(mut slot) = queue.lock().unwrap().recv() else { return };
                    let seq = slot.seq();
                    slot.fill(seq as u8);
                    slot.publish(seq);
                }
            })
        })
        .collect();
    let reader = thread::spawn(move || {
        for _ in 0..FRAMES {
            jobs.send(producer.reserve().unwrap()).unwrap();
        }
    });
    // At every fifth frame the encoder fails, with up to three frames in flight.
    let mut expected = 0;
    let mut reads = 0;
    while let Some(slot) = consumer.next() {
        assert_eq!((slot.seq(), slot.meta()), (expected, Some(&expected)));
        assert!(slot.iter().all(|&byte| byte == expected as u8));
        expected += 1;
        reads += 1;
        if reads % 5 == 0 {
            expected = consumer.rewind();
        } else {
            consumer.commit(expected.saturating_sub(2));
        }
    }
    assert_eq!(expected, FRAMES);
    reader.join().unwrap();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
}
