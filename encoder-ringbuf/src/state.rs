//! The cursors and the states of the slots: plain data behind one mutex. Nothing here blocks.

use std::{
    collections::VecDeque,
    mem,
    sync::Arc,
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use crate::{Closed, RingError, Side, Snapshot};

/// The state of a slot, without its bytes.
struct Slot<M> {
    phase: Phase,
    /// `None` if the frame was abandoned. Kept until the slot is reserved again.
    meta: Option<Arc<M>>,
    /// How many `ReadSlot`s hold it.
    readers: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    /// Reserved: a `WriteSlot` owns the bytes.
    Writing,
    /// Readable or, if it was read, not yet committed.
    Published,
    /// Not in the window. The slot is free as soon as it has no readers.
    Done,
}

/// A slot that was reserved.
pub(crate) struct Reserved<M> {
    pub(crate) seq: u64,
    pub(crate) index: usize,
    /// The metadata of the slot's earlier frame, to be dropped without the lock.
    pub(crate) stale: Option<Arc<M>>,
}

/// A slot that was taken to be read.
pub(crate) struct Taken<M> {
    pub(crate) seq: u64,
    pub(crate) index: usize,
    pub(crate) meta: Option<Arc<M>>,
}

/// The wait of one side. Each side has at most one waiter, since waiting needs `&mut` of the end.
#[derive(Default)]
pub(crate) struct Waiter {
    pub(crate) waker: Option<Waker>,
    since: Option<Instant>,
    waits: u64,
    waited: Duration,
}

impl Waiter {
    pub(crate) fn begin(&mut self) {
        if self.since.is_none() {
            self.since = Some(Instant::now());
            self.waits += 1;
        }
    }

    pub(crate) fn end(&mut self) {
        self.waited = self.waited();
        self.since = None;
    }

    /// All the time waited so far, the current wait included.
    fn waited(&self) -> Duration {
        self.waited + self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

pub(crate) struct State<M> {
    capacity: usize,
    slots: Vec<Slot<M>>,
    /// Slots that can be reserved. A stack: the slot that was used last is still in the CPU's
    /// cache, and a ring that never fills uses few pages.
    free: Vec<usize>,
    /// The slot of each frame from `committed` to the last that was reserved; `None` where the
    /// frame was discarded.
    window: VecDeque<Option<usize>>,
    /// How many frames of the window were discarded.
    discarded: usize,
    /// Cursors: the first frame that is not yet published, read, committed.
    written: u64,
    read: u64,
    committed: u64,
    /// The first frame that was never read. Frames before it may be read again after a rewind, so
    /// they are not dropped for a live source.
    fresh: u64,
    producer_closed: bool,
    consumer_closed: bool,
    high_water: usize,
    waiters: [Waiter; 2],
}

impl<M> State<M> {
    pub(crate) fn new(capacity: usize) -> Result<Self, RingError> {
        let out_of_memory = |_| RingError::OutOfMemory {
            bytes: capacity.saturating_mul(mem::size_of::<Slot<M>>()),
        };
        let mut slots = Vec::new();
        slots.try_reserve_exact(capacity).map_err(out_of_memory)?;
        slots.resize_with(capacity, || Slot { phase: Phase::Done, meta: None, readers: 0 });
        let mut free = Vec::new();
        free.try_reserve_exact(capacity).map_err(out_of_memory)?;
        free.extend((0..capacity).rev());
        let mut window = VecDeque::new();
        window.try_reserve_exact(capacity).map_err(out_of_memory)?;
        Ok(Self {
            capacity,
            slots,
            free,
            window,
            discarded: 0,
            written: 0,
            read: 0,
            committed: 0,
            fresh: 0,
            producer_closed: false,
            consumer_closed: false,
            high_water: 0,
            waiters: Default::default(),
        })
    }

    pub(crate) fn waiter(&mut self, side: Side) -> &mut Waiter {
        &mut self.waiters[side as usize]
    }

    /// The first frame that is not yet reserved.
    fn reserved(&self) -> u64 {
        self.committed + self.window.len() as u64
    }

    /// The slot of a frame inside the window.
    fn index(&self, seq: u64) -> Option<usize> {
        self.window.get(seq.checked_sub(self.committed)? as usize).copied().flatten()
    }

    /// Frames in the window that have a slot.
    fn len(&self) -> usize {
        self.window.len() - self.discarded
    }

    /// Frames from `from` to before `to`, both in the window, that have a slot.
    fn count(&self, from: u64, to: u64) -> usize {
        let (skip, take) = ((from - self.committed) as usize, (to - from) as usize);
        self.window.iter().skip(skip).take(take).flatten().count()
    }

    pub(crate) fn reserve(&mut self) -> Poll<Result<Reserved<M>, Closed>> {
        if self.consumer_closed {
            return Poll::Ready(Err(Closed));
        }
        let Some(index) = self.free.pop() else { return Poll::Pending };
        let seq = self.reserved();
        self.window.push_back(Some(index));
        self.high_water = self.high_water.max(self.len());
        let slot = &mut self.slots[index];
        slot.phase = Phase::Writing;
        Poll::Ready(Ok(Reserved { seq, index, stale: slot.meta.take() }))
    }

    /// As [`reserve`](Self::reserve), but drops the oldest frame that was never read if there is no
    /// free slot. Pending if there is no such frame either.
    pub(crate) fn reserve_over_oldest(&mut self) -> Poll<Result<(Reserved<M>, bool), Closed>> {
        let is_full = self.free.is_empty() && !self.consumer_closed;
        if is_full {
            let Some(seq) = (self.fresh..self.written).find(|seq| self.index(*seq).is_some())
            else {
                return Poll::Pending;
            };
            self.remove(seq);
        }
        self.reserve().map_ok(|reserved| (reserved, is_full))
    }

    /// Ends the writing of a slot. Returns whether frames became readable.
    pub(crate) fn publish(&mut self, index: usize, meta: Option<Arc<M>>) -> bool {
        let slot = &mut self.slots[index];
        slot.phase = Phase::Published;
        slot.meta = meta;
        let before = self.written;
        while let Some(next) = self.index(self.written)
            && self.slots[next].phase == Phase::Published
        {
            self.written += 1;
        }
        self.written > before
    }

    pub(crate) fn next(&mut self) -> Poll<Option<Taken<M>>> {
        // Discarded frames lie before the read cursor until it is moved back.
        while self.read < self.written && self.index(self.read).is_none() {
            self.read += 1;
        }
        if self.read < self.written
            && let Some(index) = self.index(self.read)
        {
            let seq = self.read;
            self.read += 1;
            self.fresh = self.fresh.max(self.read);
            let slot = &mut self.slots[index];
            slot.readers += 1;
            Poll::Ready(Some(Taken { seq, index, meta: slot.meta.clone() }))
        } else if self.producer_closed && self.read == self.reserved() {
            Poll::Ready(None)
        } else {
            Poll::Pending
        }
    }

    /// Ends one reader of a slot. Returns whether the slot became free.
    pub(crate) fn release(&mut self, index: usize) -> bool {
        self.slots[index].readers -= 1;
        self.free_if_unused(index)
    }

    /// Returns whether a slot became free.
    pub(crate) fn commit(&mut self, upto: u64) -> bool {
        if upto > self.read {
            return false;
        }
        let mut freed = false;
        while self.committed < upto
            && let Some(slot) = self.window.pop_front()
        {
            self.committed += 1;
            match slot {
                Some(index) => {
                    self.slots[index].phase = Phase::Done;
                    freed |= self.free_if_unused(index);
                }
                None => self.discarded -= 1,
            }
        }
        freed
    }

    /// Returns whether a slot became free.
    pub(crate) fn discard(&mut self, seq: u64) -> bool {
        if seq >= self.read {
            return false;
        }
        self.remove(seq)
    }

    /// Takes a published frame out of the window. Returns whether its slot became free.
    fn remove(&mut self, seq: u64) -> bool {
        let Some(index) = self.index(seq) else { return false };
        self.window[(seq - self.committed) as usize] = None;
        self.discarded += 1;
        self.slots[index].phase = Phase::Done;
        self.free_if_unused(index)
    }

    fn free_if_unused(&mut self, index: usize) -> bool {
        let slot = &self.slots[index];
        let free = slot.phase == Phase::Done && slot.readers == 0;
        if free {
            self.free.push(index);
        }
        free
    }

    pub(crate) fn rewind(&mut self) -> u64 {
        self.read = self.committed;
        self.read
    }

    pub(crate) fn close(&mut self, side: Side) {
        match side {
            Side::Producer => self.producer_closed = true,
            Side::Consumer => self.consumer_closed = true,
        }
    }

    /// Takes all metadata, to be dropped with the ring.
    pub(crate) fn take_metas(&mut self) -> Vec<Option<Arc<M>>> {
        mem::take(&mut self.slots).into_iter().map(|slot| slot.meta).collect()
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let [producer, consumer] = &self.waiters;
        Snapshot {
            capacity: self.capacity,
            len: self.len(),
            readable: self.count(self.read, self.written),
            in_flight: self.count(self.committed, self.read),
            written: self.written,
            read: self.read,
            committed: self.committed,
            high_water: self.high_water,
            producer_waits: producer.waits,
            consumer_waits: consumer.waits,
            producer_wait: producer.waited(),
            consumer_wait: consumer.waited(),
        }
    }
}
