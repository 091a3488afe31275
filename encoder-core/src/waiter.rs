//! The clock of a chain, and waits that another thread can end.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering::SeqCst},
    },
    task::{Poll, Waker},
    time::{Duration, Instant},
};

/// Reads the time and waits, for a [`Chain`](crate::Chain). Clones are the same waiter.
///
/// Another thread can end a wait in two ways. [`interrupt`](Self::interrupt) ends all waits, and
/// the work continues without waiting: a run that a signal stops still encodes what it has read.
/// [`stop`](Self::stop) ends all waits, and the work ends too: its result is no longer needed.
///
/// A [child](Self::child) is interrupted and stopped with its parent, and can be stopped alone.
#[derive(Clone, Debug)]
pub struct Waiter(Arc<Node>);

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Waited {
    /// The time is over.
    Elapsed,
    /// The waiter was interrupted: continue without waiting.
    Interrupted,
    /// The waiter was stopped: end the work.
    Stopped,
}

#[derive(Debug)]
struct Node {
    parent: Option<Waiter>,
    /// A [`Waited`] as a number. Changed only while the clock is locked.
    state: AtomicU8,
    clock: Arc<Clock>,
}

/// The clock that a waiter and all its children share.
#[derive(Debug)]
struct Clock {
    /// The time of a manual clock; `None`: the system's clock. Its lock also guards the states, so
    /// that no change is missed between the check of a state and the wait for a change.
    now: Mutex<Option<Instant>>,
    changed: Condvar,
    /// The tasks that wait for a stop.
    wakers: Mutex<BTreeMap<u64, Waker>>,
    next_waker: AtomicU64,
}

impl Clock {
    fn wakers(&self) -> MutexGuard<'_, BTreeMap<u64, Waker>> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Waiter {
    fn default() -> Self {
        Self::new()
    }
}

impl Waiter {
    /// Waits by the system's clock.
    pub fn new() -> Self {
        Self::root(None)
    }

    /// Never blocks: a wait moves the clock and returns, and otherwise the clock stands still. For
    /// tests, and for simulations that are faster than time.
    pub fn manual() -> Self {
        Self::root(Some(Instant::now()))
    }

    fn root(now: Option<Instant>) -> Self {
        let clock = Clock {
            now: Mutex::new(now),
            changed: Condvar::new(),
            wakers: Mutex::default(),
            next_waker: AtomicU64::new(0),
        };
        Self(Arc::new(Node { parent: None, state: AtomicU8::new(0), clock: Arc::new(clock) }))
    }

    /// A waiter with the same clock, which is interrupted and stopped with this one.
    #[must_use]
    pub fn child(&self) -> Self {
        let clock = Arc::clone(&self.0.clock);
        Self(Arc::new(Node { parent: Some(self.clone()), state: AtomicU8::new(0), clock }))
    }

    /// The time.
    pub fn now(&self) -> Instant {
        self.lock().unwrap_or_else(Instant::now)
    }

    /// Moves a manual clock forward. Has no effect on the system's clock.
    pub fn advance(&self, time: Duration) {
        if let Some(now) = &mut *self.lock() {
            *now += time;
        }
    }

    /// Blocks for `time`, or until the waiter is interrupted or stopped.
    pub fn wait(&self, time: Duration) -> Waited {
        let mut now = self.lock();
        match &mut *now {
            Some(now) if self.state() == Waited::Elapsed => *now += time,
            Some(_) => {}
            None => {
                let wait = |_: &mut Option<Instant>| self.state() == Waited::Elapsed;
                let woken = self.0.clock.changed.wait_timeout_while(now, time, wait);
                drop(woken.unwrap_or_else(PoisonError::into_inner));
            }
        }
        self.state()
    }

    /// Returns what [`wait`](Self::wait) would return now, without blocking.
    pub fn state(&self) -> Waited {
        let own = match self.0.state.load(SeqCst) {
            0 => Waited::Elapsed,
            1 => Waited::Interrupted,
            _ => Waited::Stopped,
        };
        self.0.parent.as_ref().map_or(own, |parent| parent.state().max(own))
    }

    /// Waits until the waiter is stopped, without blocking: for a task of any executor.
    pub async fn stopped(&self) {
        /// Removes the waker when the wait ends.
        struct Place<'a>(&'a Clock, u64);
        impl Drop for Place<'_> {
            fn drop(&mut self) {
                let waker = self.0.wakers().remove(&self.1);
                drop(waker);
            }
        }
        let clock = &*self.0.clock;
        let place = Place(clock, clock.next_waker.fetch_add(1, SeqCst));
        poll_fn(|cx| {
            let waker = cx.waker().clone();
            let before = clock.wakers().insert(place.1, waker);
            drop(before);
            // Checked after the waker is known, so that no stop is missed.
            match self.state() {
                Waited::Stopped => Poll::Ready(()),
                Waited::Elapsed | Waited::Interrupted => Poll::Pending,
            }
        })
        .await;
    }

    /// Ends all waits, the present and later ones, also those of the children. Chains then open
    /// encoders without waiting.
    pub fn interrupt(&self) {
        self.set(Waited::Interrupted);
    }

    /// Ends all waits, the present and later ones, also those of the children. Chains then open no
    /// encoder any more.
    pub fn stop(&self) {
        self.set(Waited::Stopped);
    }

    fn set(&self, state: Waited) {
        let locked = self.lock();
        self.0.state.fetch_max(state as u8, SeqCst);
        self.0.clock.changed.notify_all();
        drop(locked);
        let wakers = std::mem::take(&mut *self.0.clock.wakers());
        wakers.into_values().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.clock.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{sync::mpsc::channel, thread};

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn a_wait_ends_when_its_time_is_over() {
        let waiter = Waiter::new();
        let begun = waiter.now();
        let pause = Duration::from_millis(20);
        assert_eq!(waiter.wait(pause), Waited::Elapsed);
        assert!(waiter.now() - begun >= pause);
        waiter.advance(LONG);
        assert!(waiter.now() - begun < LONG);
    }

    #[test]
    fn another_thread_ends_a_wait_of_an_hour() {
        type End = fn(&Waiter);
        let ends: [(End, Waited); 2] =
            [(Waiter::interrupt, Waited::Interrupted), (Waiter::stop, Waited::Stopped)];
        for (end, expected) in ends {
            let parent = Waiter::new();
            let (child, other) = (parent.child().child(), parent.child());
            let (send, ended) = channel();
            let waiting = child.clone();
            thread::spawn(move || send.send(waiting.wait(LONG)).unwrap());
            end(&parent);
            assert_eq!(ended.recv_timeout(Duration::from_secs(60)).unwrap(), expected);
            // Later waits end at once, also those of all children.
            assert_eq!((parent.wait(LONG), other.wait(LONG)), (expected, expected));
            assert_eq!(parent.child().state(), expected);
        }
    }

    #[test]
    fn a_child_is_stopped_alone() {
        let parent = Waiter::new();
        let (child, other) = (parent.child(), parent.child());
        child.stop();
        assert_eq!(child.wait(LONG), Waited::Stopped);
        assert_eq!((parent.state(), other.state()), (Waited::Elapsed, Waited::Elapsed));
        // An interrupt does not undo a stop.
        parent.interrupt();
        assert_eq!((child.state(), other.state()), (Waited::Stopped, Waited::Interrupted));
    }

    #[test]
    fn a_task_waits_for_a_stop() {
        let parent = Waiter::new();
        let (child, waited) = (parent.child(), parent.child());
        let none = Some(Duration::ZERO);
        assert!(crate::block_on(waited.stopped(), none).is_none());
        // No waker is left.
        assert!(parent.0.clock.wakers().is_empty());
        child.stop();
        parent.interrupt();
        assert!(crate::block_on(waited.stopped(), none).is_none());
        assert!(crate::block_on(child.stopped(), none).is_some());
        let (send, ended) = channel();
        let waiting = waited.clone();
        thread::spawn(move || {
            crate::block_on(waiting.stopped(), None);
            send.send(()).unwrap();
        });
        parent.stop();
        ended.recv_timeout(Duration::from_secs(60)).unwrap();
        assert!(parent.0.clock.wakers().is_empty());
    }

    #[test]
    fn a_manual_clock_moves_by_waits() {
        let waiter = Waiter::manual();
        let child = waiter.child();
        let begun = waiter.now();
        assert_eq!(child.wait(LONG), Waited::Elapsed);
        waiter.advance(LONG);
        assert_eq!(waiter.now() - begun, 2 * LONG);
        child.interrupt();
        assert_eq!((child.wait(LONG), child.now() - begun), (Waited::Interrupted, 2 * LONG));
    }
}
