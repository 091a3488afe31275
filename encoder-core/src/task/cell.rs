//! One value that a thread puts, and that another thread or task takes.

use std::{
    sync::PoisonError,
    task::{Poll, Waker},
    time::Instant,
};

use super::sync::{Condvar, Mutex, MutexGuard};

pub(super) struct Cell<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

enum State<T> {
    /// Without a value; the waker of the task that waits for it.
    Empty(Option<Waker>),
    Done(T),
    Taken,
    /// The taker was dropped.
    Abandoned,
}

impl<T> Cell<T> {
    pub fn new() -> Self {
        Self { state: Mutex::new(State::Empty(None)), changed: Condvar::new() }
    }

    // No code from outside runs under the lock: values and wakers are dropped after it.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the value. Returns it if the taker was dropped.
    pub fn put(&self, value: T) -> Option<T> {
        let mut state = self.lock();
        if matches!(*state, State::Abandoned) {
            return Some(value);
        }
        let before = std::mem::replace(&mut *state, State::Done(value));
        drop(state);
        self.changed.notify_all();
        if let State::Empty(Some(waker)) = before {
            waker.wake();
        }
        None
    }

    /// Whether the value is there, or was taken.
    pub fn is_done(&self) -> bool {
        matches!(*self.lock(), State::Done(_) | State::Taken)
    }

    /// Takes the value; if it is not there yet, `waker` is woken when it is.
    pub fn poll(&self, waker: &Waker) -> Poll<T> {
        let waker = waker.clone();
        let mut state = self.lock();
        match take(&mut state) {
            Some(value) => Poll::Ready(value),
            None => {
                let mut before = None;
                if let State::Empty(known) = &mut *state {
                    before = known.replace(waker);
                }
                drop(state);
                drop(before);
                Poll::Pending
            }
        }
    }

    /// Blocks until the value is there, and takes it.
    pub fn wait(&self) -> T {
        let mut state = self.lock();
        loop {
            if let Some(value) = take(&mut state) {
                return value;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// As [`wait`](Self::wait), but only until `end`; `None`: an end that no clock reaches.
    pub fn wait_until(&self, end: Option<Instant>) -> Option<T> {
        let Some(end) = end else { return Some(self.wait()) };
        let mut state = self.lock();
        loop {
            if let Some(value) = take(&mut state) {
                return Some(value);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let woken = self.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Ends the wait for the value. Returns the value if it is there, to be dropped by the caller.
    pub fn abandon(&self) -> Option<T> {
        let before = std::mem::replace(&mut *self.lock(), State::Abandoned);
        match before {
            State::Done(value) => Some(value),
            _ => None,
        }
    }
}

fn take<T>(state: &mut State<T>) -> Option<T> {
    match std::mem::replace(state, State::Taken) {
        State::Done(value) => Some(value),
        other => {
            *state = other;
            None
        }
    }
}
