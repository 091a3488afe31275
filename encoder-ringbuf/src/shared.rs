//! The state that both ends share: its lock, the waits for it, and the memory.

use std::{
    future::poll_fn,
    sync::PoisonError,
    task::Poll,
    time::{Duration, Instant},
};

use crate::{
    RingError, RingOptions, SlotAllocator, Snapshot,
    block::Block,
    state::State,
    sync::{Arc, Condvar, Mutex, MutexGuard},
};

/// An end of the ring; also its place in arrays.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    Producer,
    Consumer,
}

/// The state, and the wake-up of the two ends that wait for it to change.
///
/// No code from outside runs under the lock: wakers are woken, and wakers and metadata dropped,
/// after the lock is released.
pub(crate) struct Shared<M> {
    state: Mutex<State<M>>,
    changed: [Condvar; 2],
}

impl<M> Shared<M> {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State<M>> {
        // Nothing panics under the lock, so even a poisoned state is consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Releases the lock and wakes the waiter of one side: a thread, a task, or both.
    fn wake(&self, mut state: MutexGuard<'_, State<M>>, side: Side) {
        let waker = state.waiter(side).waker.take();
        drop(state);
        self.changed[side as usize].notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Changes the state; wakes `side` if `change` returns true.
    pub(crate) fn change(&self, side: Side, change: impl FnOnce(&mut State<M>) -> bool) {
        let mut state = self.lock();
        if change(&mut state) {
            self.wake(state, side);
        }
    }

    /// Closes an end and wakes the other.
    pub(crate) fn close(&self, side: Side) {
        let other = match side {
            Side::Producer => Side::Consumer,
            Side::Consumer => Side::Producer,
        };
        self.change(other, |state| {
            state.close(side);
            true
        });
    }

    /// Blocks until `attempt` is ready; `None` when the deadline passes first.
    pub(crate) fn wait<T>(
        &self,
        side: Side,
        deadline: Option<Instant>,
        mut attempt: impl FnMut(&mut State<M>) -> Poll<T>,
    ) -> Option<T> {
        let changed = &self.changed[side as usize];
        let mut state = self.lock();
        loop {
            if let Poll::Ready(value) = attempt(&mut state) {
                state.waiter(side).end();
                return Some(value);
            }
            state = match deadline {
                None => {
                    state.waiter(side).begin();
                    changed.wait(state).unwrap_or_else(PoisonError::into_inner)
                }
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        state.waiter(side).end();
                        return None;
                    }
                    state.waiter(side).begin();
                    changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// As [`wait`](Self::wait), for a task. Cancel-safe: the poll in which `attempt` takes a slot
    /// from the state returns that slot.
    pub(crate) async fn wait_async<T>(
        &self,
        side: Side,
        mut attempt: impl FnMut(&mut State<M>) -> Poll<T>,
    ) -> T {
        let _end = EndOfWait { shared: self, side };
        poll_fn(move |cx| {
            let mut waker = Some(cx.waker().clone());
            let mut state = self.lock();
            let result = attempt(&mut state);
            if result.is_pending() {
                let waiter = state.waiter(side);
                waiter.begin();
                std::mem::swap(&mut waiter.waker, &mut waker);
            }
            drop(state);
            drop(waker);
            result
        })
        .await
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.lock().snapshot()
    }
}

/// Ends a task's wait, also when the future is dropped before it is ready.
struct EndOfWait<'a, M> {
    shared: &'a Shared<M>,
    side: Side,
}

impl<M> Drop for EndOfWait<'_, M> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let waiter = state.waiter(self.side);
        waiter.end();
        let waker = waiter.waker.take();
        drop(state);
        drop(waker);
    }
}

/// The ring, dropped with the last of its ends and slots. A [`Monitor`](crate::Monitor) holds
/// `shared` only, so it keeps neither frames nor metadata alive.
pub(crate) struct Ring<M> {
    pub(crate) shared: Arc<Shared<M>>,
    pub(crate) block: Block,
}

impl<M> Ring<M> {
    pub(crate) fn new(
        options: &RingOptions,
        allocator: &dyn SlotAllocator,
    ) -> Result<Self, RingError> {
        // This comes first, because it checks the options.
        let block = Block::new(options, allocator)?;
        let state = Mutex::new(State::new(options.slots)?);
        let changed = [Condvar::new(), Condvar::new()];
        Ok(Self { shared: Arc::new(Shared { state, changed }), block })
    }
}

impl<M> Drop for Ring<M> {
    fn drop(&mut self) {
        let metas = self.shared.lock().take_metas();
        drop(metas);
    }
}

/// The moment at which a wait times out; `None` if an `Instant` cannot represent it.
pub(crate) fn deadline(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}
