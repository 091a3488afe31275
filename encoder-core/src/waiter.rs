//! The clock of a chain, and waits that another thread can end.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
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
    /// What wakes at a stop: the waiter, and its waker.
    wakers: Mutex<Wakers>,
    next_waker: AtomicU64,
}

type Wakers = BTreeMap<u64, (Weak<Node>, Waker)>;

impl Clock {
    fn wakers(&self) -> MutexGuard<'_, Wakers> {
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
        let mut registered = None;
        poll_fn(|cx| {
            registered = Some(self.register(cx.waker().clone()));
            // Checked after the waker is known, so that no stop is missed.
            match self.state() {
                Waited::Stopped => Poll::Ready(()),
                Waited::Elapsed | Waited::Interrupted => Poll::Pending,
            }
        })
        .await;
    }

    /// Wakes `waker` once when the waiter is stopped, on the thread that stops it; at once if it is
    /// stopped already. Until then the waker is kept as long as the returned value.
    ///
    /// With a [`Wake`](std::task::Wake) of its own the waker is a function that is called at the
    /// stop. The function must not block: it delays the thread that calls [`stop`](Self::stop), or
    /// drops a [`Task`](crate::Task).
    #[must_use = "dropping the value removes the waker"]
    pub fn on_stop(&self, waker: Waker) -> OnStop {
        let registered = self.register(waker);
        // Checked after the waker is known, so that no stop is missed.
        if self.state() == Waited::Stopped {
            let waker = self.0.clock.wakers().remove(&registered.id);
            if let Some((_, waker)) = waker {
                waker.wake();
            }
        }
        registered
    }

    fn register(&self, waker: Waker) -> OnStop {
        let clock = &self.0.clock;
        let id = clock.next_waker.fetch_add(1, SeqCst);
        clock.wakers().insert(id, (Arc::downgrade(&self.0), waker));
        OnStop { waiter: self.clone(), id }
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
        let mut all = self.0.clock.wakers();
        let is_stopped = |node: &Weak<Node>| {
            node.upgrade().is_some_and(|node| Self(node).state() == Waited::Stopped)
        };
        let stopped = all.iter().filter(|(_, (node, _))| is_stopped(node));
        let ids: Vec<_> = stopped.map(|(id, _)| *id).collect();
        let wakers: Vec<_> = ids.iter().filter_map(|id| all.remove(id)).collect();
        // Wakers are code of others, so they run without the lock.
        drop(all);
        wakers.into_iter().for_each(|(_, waker)| waker.wake());
    }

    fn set(&self, state: Waited) {
        let locked = self.lock();
        self.0.state.fetch_max(state as u8, SeqCst);
        self.0.clock.changed.notify_all();
        drop(locked);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.clock.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A waker that a [`Waiter`] wakes when it is stopped: see [`Waiter::on_stop`]. Dropping it removes
/// the waker.
#[derive(Debug)]
pub struct OnStop {
    waiter: Waiter,
    id: u64,
}

impl Drop for OnStop {
    fn drop(&mut self) {
        let waker = self.waiter.0.clock.wakers().remove(&self.id);
        drop(waker);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{sync::mpsc::channel, task::Wake, thread};

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
    fn a_waker_is_woken_once_by_the_stop_of_its_own_waiter() {
        #[derive(Default)]
        struct Count(AtomicU64);
        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, SeqCst);
            }
        }
        let count = || Arc::new(Count::default());
        let woken = |count: &Arc<Count>| count.0.load(SeqCst);
        let parent = Waiter::new();
        let (child, other) = (parent.child(), parent.child());
        let (of_child, of_other, removed) = (count(), count(), count());
        let _child = child.on_stop(of_child.clone().into());
        let _other = other.on_stop(of_other.clone().into());
        drop(parent.on_stop(removed.clone().into()));
        parent.interrupt();
        assert_eq!((woken(&of_child), woken(&of_other)), (0, 0));
        child.stop();
        child.stop();
        assert_eq!((woken(&of_child), woken(&of_other)), (1, 0));
        parent.stop();
        assert_eq!((woken(&of_child), woken(&of_other), woken(&removed)), (1, 1, 0));
        // The waiter is stopped already.
        let late = count();
        let _late = parent.child().on_stop(late.clone().into());
        assert_eq!(woken(&late), 1);
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
