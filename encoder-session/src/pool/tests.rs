#![allow(clippy::unwrap_used)]

use std::{
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    task::Wake,
};

use encoder_ringbuf::{Heap, RingOptions, ring_in};

use super::*;

const MB: u64 = 1_000_000;

/// A session of slots of 1 MB, which copies a frame of 1 MB, and whose encoder uses 3 MB.
fn demand(least: usize, slots: usize, threads: usize) -> Demand {
    let size = Resolution::new(1920, 1080);
    let needed = Needed {
        size,
        slots: least,
        slot_bytes: MB,
        copied_bytes: MB,
        encoder_bytes: 3 * MB,
        threads: 1,
    };
    Demand { camera: Some("front".into()), needed, slots, threads }
}

fn limits(memory: u64, threads: usize, sessions: usize) -> PoolLimits {
    let limit = |number: usize| (number < usize::MAX).then_some(number);
    PoolLimits {
        memory: (memory < u64::MAX).then_some(memory),
        threads: limit(threads),
        sessions: limit(sessions),
    }
}

const ANY: usize = usize::MAX;

#[test]
fn shares_of_what_is_free() {
    // limits | least, wished slots, threads | shares (slots, threads), until none is left
    let table: [(PoolLimits, (usize, usize, usize), &[(usize, usize)]); 9] = [
        // Each gets what it wants, while there is enough, and the last one less.
        (limits(30 * MB, ANY, ANY), (3, 8, 2), &[(8, 2), (8, 2)]),
        (limits(31 * MB, ANY, ANY), (3, 8, 2), &[(8, 2), (8, 2), (3, 2)]),
        (limits(34 * MB, ANY, ANY), (3, 8, 2), &[(8, 2), (8, 2), (6, 2)]),
        // With a number of sessions, memory and threads are divided evenly.
        (limits(30 * MB, ANY, 3), (3, 8, 2), &[(6, 2), (6, 2), (6, 2)]),
        (limits(32 * MB, 5, 3), (3, 8, 4), &[(6, 1), (7, 2), (7, 2)]),
        // What one does not want is for the others.
        (limits(100 * MB, ANY, 3), (3, 8, 1), &[(8, 1), (8, 1), (8, 1)]),
        // At least what is needed, also if that is more than an even part.
        (limits(20 * MB, ANY, 4), (3, 8, 1), &[(3, 1), (3, 1)]),
        (limits(u64::MAX, 3, ANY), (3, 8, 2), &[(8, 2), (8, 1)]),
        (limits(u64::MAX, ANY, 1), (3, 8, 2), &[(8, 2)]),
    ];
    for (limits, (least, slots, threads), expected) in table {
        let pool = Pool::new(limits);
        let demand = demand(least, slots, threads);
        let mut shares = Vec::new();
        let refused = loop {
            match pool.try_share(&demand) {
                Ok(share) => shares.push(share),
                Err(error) => break error,
            }
        };
        let got: Vec<_> = shares.iter().map(|share| (share.slots, share.threads)).collect();
        assert_eq!(got, expected, "{limits:?}");
        assert!(matches!(refused, PoolError::Full { waiting: 0, .. }), "{refused}");
        let stats = pool.stats();
        assert_eq!(stats.holders.len(), expected.len());
        let memory: u64 = stats.holders.iter().map(Holder::memory).sum();
        assert_eq!(stats.free.memory, limits.memory.map(|limit| limit - memory));
        // Everything comes back.
        drop(shares);
        assert_eq!(pool.stats().free, Free::of(&limits), "{limits:?}");
        assert!(pool.stats().holders.is_empty());
    }
}

#[test]
fn a_pool_that_is_too_small_is_an_error_at_once() {
    for limits in [limits(7 * MB - 1, ANY, ANY), limits(u64::MAX, 0, ANY), limits(u64::MAX, ANY, 0)]
    {
        let pool = Pool::new(limits);
        let demand = demand(3, 8, 1);
        let expected = PoolError::TooSmall { needed: Box::new(demand.needed), limits };
        assert_eq!(pool.try_share(&demand).unwrap_err(), expected);
        assert_eq!(
            poll(&mut pin!(pool.share(&demand))).map(Result::unwrap_err),
            Poll::Ready(expected)
        );
    }
}

#[test]
fn errors_name_what_is_needed_what_is_free_and_who_has_it() {
    let pool = Pool::new(PoolLimits::new().with_memory(20 * MB).with_threads(4).with_sessions(8));
    let _share = pool.try_share(&demand(12, 12, 1)).unwrap();
    let waiting_demand = demand(3, 8, 1);
    let mut waiting = pin!(pool.share(&waiting_demand));
    assert!(poll(&mut waiting).is_pending());
    let error = pool.try_share(&waiting_demand).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the pool is full: a session of 1920x1080 needs at least 7.0 MB (3 slots of 1.0 MB, 1.0 \
         MB for copies of frames, and 3.0 MB for the encoder) and 1 encoder thread; free are 4.0 MB, 3 encoder threads, 7 \
         sessions; in use by front (1920x1080): 16.0 MB and 1 thread; waiting before it: 1 session"
    );
    let error = pool.try_share(&demand(30, 30, 1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the pool is too small for a session: a session of 1920x1080 needs at least 34.0 MB (30 \
         slots of 1.0 MB, 1.0 MB for copies of frames, and 3.0 MB for the encoder) and 1 encoder thread; the whole pool has \
         20.0 MB, 4 encoder threads, 8 sessions"
    );
}

/// Polls a future once.
fn poll<F: Future + ?Sized>(future: &mut Pin<&mut F>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn waits_end_in_their_order_and_a_small_session_overtakes_no_large_one() {
    let pool = Pool::new(PoolLimits::new().with_memory(20 * MB));
    let (small, large) = (demand(2, 2, 1), demand(16, 16, 1));
    let first = pool.try_share(&small).unwrap();
    let wakes = [(); 2].map(|()| Arc::new(Wakes::default()));
    let wakers = wakes.clone().map(Waker::from);
    let mut waiting_large = Box::pin(pool.share(&large));
    let mut waiting_small = Box::pin(pool.share(&small));
    assert!(waiting_large.as_mut().poll(&mut Context::from_waker(&wakers[0])).is_pending());
    // It would fit, but waits behind the large one, as does a session that does not wait.
    assert!(waiting_small.as_mut().poll(&mut Context::from_waker(&wakers[1])).is_pending());
    assert!(matches!(pool.try_share(&small), Err(PoolError::Full { waiting: 2, .. })));
    let counts = || [wakes[0].0.load(SeqCst), wakes[1].0.load(SeqCst)];
    assert_eq!(counts(), [0, 0]);
    drop(first);
    assert_eq!(counts(), [1, 0]);
    let share = poll(&mut waiting_large.as_mut());
    let Poll::Ready(Ok(share)) = share else { panic!("{share:?}") };
    assert_eq!((share.slots, counts()), (16, [1, 1]));
    // The large one has everything.
    assert!(waiting_small.as_mut().poll(&mut Context::from_waker(&wakers[1])).is_pending());
    drop(share);
    assert_eq!(counts(), [1, 2]);
    assert!(poll(&mut waiting_small.as_mut()).is_ready());
    drop((waiting_small, waiting_large));
    assert_eq!(pool.stats().free.memory, Some(20 * MB));
}

#[test]
fn a_wait_that_is_given_up_lets_the_next_one_pass() {
    let pool = Pool::new(PoolLimits::new().with_memory(20 * MB));
    let (small, large) = (demand(2, 2, 1), demand(16, 16, 1));
    let _first = pool.try_share(&small).unwrap();
    let mut waiting_large = Box::pin(pool.share(&large));
    let mut waiting_small = Box::pin(pool.share(&small));
    let wakes = Arc::new(Wakes::default());
    assert!(poll(&mut waiting_large.as_mut()).is_pending());
    let waker = Waker::from(wakes.clone());
    assert!(waiting_small.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    drop(waiting_large);
    assert_eq!((wakes.0.load(SeqCst), pool.stats().waiting), (1, 1));
    assert!(poll(&mut waiting_small.as_mut()).is_ready());
    assert_eq!(pool.stats().waiting, 0);
}

#[test]
fn a_share_is_fitted_to_the_encoder_that_opened() {
    let pool = Pool::new(PoolLimits::new().with_memory(30 * MB));
    let demand = demand(3, 8, 1);
    let share = pool.try_share(&demand).unwrap();
    let other = pool.try_share(&demand).unwrap();
    // Smaller slots: the rest is free.
    let smaller = Needed { slot_bytes: MB / 2, ..demand.needed };
    assert_eq!(share.fit(smaller, 8), Ok(8));
    assert_eq!(pool.stats().free.memory, Some(10 * MB));
    // More slots than it asked for, which are free.
    let more = Needed { slots: 14, ..demand.needed };
    assert_eq!(share.fit(more, 8), Ok(14));
    assert_eq!(pool.stats().free.memory, Some(0));
    let full = share.fit(Needed { slots: 15, ..demand.needed }, 8).unwrap_err();
    assert!(matches!(&full, PoolError::Full { holders, .. } if holders.len() == 1), "{full}");
    let too_small = share.fit(Needed { slots: 27, ..demand.needed }, 8).unwrap_err();
    assert!(matches!(too_small, PoolError::TooSmall { .. }), "{too_small}");
    drop((share, other));
    assert_eq!(pool.stats().free.memory, Some(30 * MB));
}

#[test]
fn only_software_encoders_need_threads() {
    let pool = Pool::new(limits(u64::MAX, 2, ANY));
    let software = demand(3, 8, 2);
    let mut hardware = demand(3, 8, 0);
    hardware.needed.threads = 0;
    let share = pool.try_share(&software).unwrap();
    let error = pool.try_share(&software).unwrap_err();
    assert!(error.to_string().contains("for the encoder) and 1 encoder thread;"), "{error}");
    // A hardware encoder opens although there is no thread.
    let other = pool.try_share(&hardware).unwrap();
    assert_eq!((other.threads, pool.stats().free.threads), (0, Some(0)));
    // The encoder that opened is a hardware encoder: the threads are returned, and wake a session
    // that waits for them.
    let wakes = Arc::new(Wakes::default());
    let mut waiting = pin!(pool.share(&software));
    let waker = Waker::from(wakes.clone());
    assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    share.fit(hardware.needed, 8).unwrap();
    assert_eq!((pool.stats().holders[0].threads, pool.stats().free.threads), (0, Some(2)));
    assert_eq!(wakes.0.load(SeqCst), 1);
    assert!(poll(&mut waiting).is_ready());
    drop((share, other));
    assert_eq!(pool.stats().free.threads, Some(2));
    let none = Pool::new(limits(u64::MAX, 0, ANY));
    assert!(matches!(none.try_share(&software), Err(PoolError::TooSmall { .. })));
    let error = Pool::new(limits(MB, 0, ANY)).try_share(&hardware).unwrap_err();
    assert!(error.to_string().contains("for the encoder); the whole pool has"), "{error}");
    assert!(none.try_share(&hardware).is_ok());
}

#[test]
fn the_memory_of_a_ring_keeps_its_share() {
    let pool = Pool::new(PoolLimits::new().with_memory(30 * MB));
    let share = pool.try_share(&demand(3, 3, 1)).unwrap();
    let allocator = SharedAllocator { inner: &Heap, share };
    let options = RingOptions { slots: 3, slot_bytes: 100 };
    let (mut producer, mut consumer) = ring_in::<u8>(options, &allocator).unwrap();
    drop(allocator);
    let mut slot = producer.reserve().unwrap();
    slot.fill(7);
    slot.publish(1);
    let read = consumer.next().unwrap();
    drop((producer, consumer));
    // The last slot still holds the memory.
    assert_eq!((read[99], pool.stats().holders.len()), (7, 1));
    drop(read);
    assert!(pool.stats().holders.is_empty());
}

/// Random sessions against a plain model: no share is lost, no limit is exceeded, and the order of
/// the waits is kept.
#[test]
fn many_sessions_come_and_go() {
    let mut random = 1u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) as usize % below
    };
    let limits = PoolLimits::new().with_memory(60 * MB).with_threads(6).with_sessions(5);
    let pool = Pool::new(limits);
    let mut open: Vec<Arc<Share>> = Vec::new();
    let mut waiting: VecDeque<(usize, Pin<Box<dyn Future<Output = Arc<Share>>>>)> = VecDeque::new();
    let mut overtaken = 0;
    for step in 0..20_000 {
        match next(4) {
            0 if !open.is_empty() => drop(open.remove(next(open.len()))),
            1 if !waiting.is_empty() => drop(waiting.remove(next(waiting.len()))),
            _ if waiting.len() < 6 => {
                let least = 2 + next(20);
                let demand = demand(least, least + next(10), 1 + next(4));
                let pool = pool.clone();
                let wait = async move { pool.share(&demand).await.unwrap() };
                waiting.push_back((step, Box::pin(wait)));
            }
            _ => {}
        }
        // Polled from the last to the first: only the first may get a share.
        for place in (0..waiting.len()).rev() {
            if let Poll::Ready(share) = poll(&mut waiting[place].1.as_mut()) {
                overtaken += usize::from(place > 0);
                waiting.remove(place);
                open.push(share);
            }
        }
        let stats = pool.stats();
        assert_eq!((stats.holders.len(), stats.waiting), (open.len(), waiting.len()), "{step}");
        let sum = |of: fn(&Holder) -> u64| stats.holders.iter().map(of).sum::<u64>();
        let memory = sum(Holder::memory);
        let threads = sum(|it| it.threads as u64);
        assert!(memory <= 60 * MB && threads <= 6 && open.len() <= 5, "{step}: {stats:?}");
        assert_eq!(stats.free.memory, Some(60 * MB - memory));
        assert_eq!(stats.free.threads, Some(6 - threads as usize));
    }
    assert_eq!(overtaken, 0);
    drop((open, waiting));
    assert_eq!(pool.stats().free, Free::of(&limits));
}
