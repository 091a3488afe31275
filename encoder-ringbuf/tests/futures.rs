//! Both ends as futures: by hand with a counting waker, and on tokio.
#![cfg(not(ring_loom))]
#![allow(clippy::unwrap_used)]

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use encoder_ringbuf::{Closed, Consumer, Producer, RingOptions, ring};

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Count {
    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

fn counting() -> (Arc<Count>, Waker) {
    let count = Arc::new(Count::default());
    (count.clone(), count.into())
}

fn poll<F: Future>(future: F, waker: &Waker) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(waker))
}

fn full() -> (Producer<u64>, Consumer<u64>) {
    let (mut producer, consumer) = ring(RingOptions { slots: 2, slot_bytes: 8 }).unwrap();
    for seq in 0..2 {
        producer.reserve().unwrap().publish(seq);
    }
    (producer, consumer)
}

#[test]
fn a_future_is_woken_when_it_can_continue() {
    // The producer is woken by a commit, the drop of a late reader, and the end of the consumer.
    let (mut producer, mut consumer) = full();
    let (woken, waker) = counting();
    {
        let mut future = pin!(producer.reserve_async());
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        let slot = consumer.next();
        consumer.commit(1);
        assert_eq!(woken.get(), 0, "the slot is still looked at");
        drop(slot);
        assert_eq!(woken.get(), 1);
        let Poll::Ready(Ok(slot)) = future.poll(&mut Context::from_waker(&waker)) else { panic!() };
        assert_eq!(slot.seq(), 2);
    }
    {
        let mut future = pin!(producer.reserve_async());
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        drop(consumer);
        assert_eq!(woken.get(), 2);
        let Poll::Ready(Err(Closed)) = future.poll(&mut Context::from_waker(&waker)) else {
            panic!()
        };
    }

    // The consumer is woken by a frame and by the end of the producer.
    let (mut producer, mut consumer) = ring(RingOptions { slots: 2, slot_bytes: 8 }).unwrap();
    let (woken, waker) = counting();
    let slot = producer.reserve().unwrap();
    {
        let mut future = pin!(consumer.next_async());
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        slot.publish(5);
        assert_eq!(woken.get(), 1);
        let Poll::Ready(Some(slot)) = future.poll(&mut Context::from_waker(&waker)) else {
            panic!()
        };
        assert_eq!(slot.meta(), Some(&5));
    }
    let mut future = pin!(consumer.next_async());
    assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    drop(producer);
    assert_eq!(woken.get(), 2);
    assert!(matches!(future.poll(&mut Context::from_waker(&waker)), Poll::Ready(None)));
}

#[test]
fn a_dropped_future_takes_nothing_and_is_not_woken() {
    let (mut producer, mut consumer) = full();
    let (woken, waker) = counting();
    assert!(poll(producer.reserve_async(), &waker).is_pending());
    let snapshot = producer.snapshot();
    assert_eq!((snapshot.len, snapshot.producer_waits), (2, 1));
    assert_eq!(producer.snapshot().producer_wait, snapshot.producer_wait, "the wait is over");
    assert_eq!(Arc::strong_count(&woken), 2, "the ring holds no waker");

    drop((consumer.next(), consumer.next()));
    consumer.commit(1);
    assert_eq!(woken.get(), 0);
    assert_eq!(producer.try_reserve().unwrap().unwrap().seq(), 2);

    // One abandoned frame is left. After it the consumer's future waits, and is dropped.
    drop(consumer.next());
    assert!(poll(consumer.next_async(), &waker).is_pending());
    assert_eq!(consumer.snapshot().read, 3);
    assert_eq!(Arc::strong_count(&woken), 2);
    consumer.commit(3);
    producer.reserve().unwrap().publish(3);
    assert_eq!(woken.get(), 0);
    assert_eq!(consumer.next().unwrap().seq(), 3);
}

#[test]
fn the_last_waker_is_woken() {
    let (mut producer, mut consumer) = full();
    let ((first, first_waker), (second, second_waker)) = (counting(), counting());
    let mut future = pin!(producer.reserve_async());
    assert!(future.as_mut().poll(&mut Context::from_waker(&first_waker)).is_pending());
    assert!(future.as_mut().poll(&mut Context::from_waker(&second_waker)).is_pending());
    drop(consumer.next());
    consumer.commit(1);
    assert_eq!((first.get(), second.get()), (0, 1));
}

#[cfg(not(miri))]
mod on_tokio {
    use std::time::Duration;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap()
    }

    #[test]
    fn both_ends_as_tasks() {
        runtime().block_on(async {
            let (mut producer, mut consumer) =
                ring(RingOptions { slots: 2, slot_bytes: 8 }).unwrap();
            let writing = tokio::spawn(async move {
                for seq in 0..1000u64 {
                    let mut slot = producer.reserve_async().await.unwrap();
                    slot.copy_from_slice(&seq.to_le_bytes());
                    slot.publish(seq);
                }
            });
            let reading = tokio::spawn(async move {
                let mut seen = 0u64;
                while let Some(slot) = consumer.next_async().await {
                    assert_eq!((slot.meta(), &*slot), (Some(&seen), &seen.to_le_bytes()[..]));
                    seen += 1;
                    consumer.commit(seen);
                }
                seen
            });
            writing.await.unwrap();
            assert_eq!(reading.await.unwrap(), 1000);
        });
    }

    #[test]
    fn one_end_a_task_and_the_other_a_thread() {
        let (mut producer, mut consumer) = ring(RingOptions { slots: 2, slot_bytes: 8 }).unwrap();
        let writing = std::thread::spawn(move || {
            for seq in 0..500u64 {
                producer.reserve().unwrap().publish(seq);
            }
        });
        let seen = runtime().block_on(async {
            let mut seen = 0;
            while let Some(slot) = consumer.next_async().await {
                assert_eq!(slot.meta(), Some(&seen));
                seen += 1;
                consumer.commit(seen);
            }
            seen
        });
        assert_eq!(seen, 500);
        writing.join().unwrap();
    }

    #[test]
    fn cancellation_loses_no_frame() {
        runtime().block_on(async {
            let (mut producer, mut consumer) = full();
            // Cancelled during the wait, by a time-out and by another branch that is ready.
            let timed = tokio::time::timeout(Duration::ZERO, producer.reserve_async()).await;
            assert!(timed.is_err());
            tokio::select! {
                biased;
                _ = producer.reserve_async() => panic!("the ring is full"),
                () = std::future::ready(()) => {}
            }
            drop((consumer.next_async().await, consumer.next_async().await));
            tokio::select! {
                biased;
                _ = consumer.next_async() => panic!("there is no frame"),
                () = std::future::ready(()) => {}
            }
            consumer.commit(2);
            producer.reserve_async().await.unwrap().publish(2);
            let slot = consumer.next_async().await.unwrap();
            assert_eq!((slot.seq(), slot.meta()), (2, Some(&2)));

            // Aborting a task drops its end of the ring.
            let task = tokio::spawn(async move { consumer.next_async().await.map(|s| s.seq()) });
            task.abort();
            assert!(task.await.unwrap_err().is_cancelled());
            assert_eq!(producer.reserve_async().await.unwrap_err(), Closed);
        });
    }
}
