//! Model tests of the value that a task's thread puts and its waiter takes: loom runs each in every
//! interleaving, and reports lost wake-ups (as deadlocks) and leaks.
//!
//! ```text
//! RUSTFLAGS="--cfg ring_loom" CARGO_TARGET_DIR=target/loom \
//!     cargo test -p encoder-core --test loom
//! ```
#![cfg(ring_loom)]
#![allow(clippy::unwrap_used)]

mod sync {
    pub(super) use loom::sync::{Condvar, Mutex, MutexGuard};
}
#[allow(dead_code)] // The model has no time.
#[path = "../src/task/cell.rs"]
mod cell;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Poll, Wake, Waker},
};

use cell::Cell;
use loom::{model, thread};

/// Wakes a thread of the model.
struct Flag {
    is_set: sync::Mutex<bool>,
    changed: sync::Condvar,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        *self.is_set.lock().unwrap() = true;
        self.changed.notify_one();
    }
}

/// Polls a cell until it is ready, and waits for its wake-ups in between.
fn take<T>(cell: &Cell<T>) -> T {
    let flag = Arc::new(Flag { is_set: sync::Mutex::new(false), changed: sync::Condvar::new() });
    let waker = Waker::from(Arc::clone(&flag));
    loop {
        if let Poll::Ready(value) = cell.poll(&waker) {
            return value;
        }
        let mut is_set = flag.is_set.lock().unwrap();
        while !std::mem::take(&mut *is_set) {
            is_set = flag.changed.wait(is_set).unwrap();
        }
    }
}

/// Counts how often it is dropped.
struct Value(Arc<AtomicUsize>);

impl Drop for Value {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// A cell whose value is put by another thread, as a task does it.
fn put() -> (Arc<Cell<Value>>, Arc<AtomicUsize>, thread::JoinHandle<()>) {
    let (cell, drops) = (Arc::new(Cell::new()), Arc::new(AtomicUsize::new(0)));
    let (putting, value) = (Arc::clone(&cell), Value(Arc::clone(&drops)));
    let thread = thread::spawn(move || drop(putting.put(value)));
    (cell, drops, thread)
}

#[test]
fn a_thread_waits_for_the_value() {
    model(|| {
        let (cell, drops, thread) = put();
        let value = cell.wait();
        assert_eq!(drops.load(SeqCst), 0);
        drop(value);
        thread.join().unwrap();
        assert!(cell.is_done());
        assert_eq!(drops.load(SeqCst), 1);
    });
}

#[test]
fn a_task_waits_for_the_value() {
    model(|| {
        let (cell, drops, thread) = put();
        drop(take(&cell));
        thread.join().unwrap();
        assert_eq!(drops.load(SeqCst), 1);
    });
}

#[test]
fn a_wait_goes_from_one_task_to_another() {
    struct Nothing;
    impl Wake for Nothing {
        fn wake(self: Arc<Self>) {}
    }
    model(|| {
        let (cell, drops, thread) = put();
        let first = cell.poll(&Waker::from(Arc::new(Nothing)));
        match first {
            Poll::Ready(value) => drop(value),
            Poll::Pending => drop(take(&cell)),
        }
        thread.join().unwrap();
        assert_eq!(drops.load(SeqCst), 1);
    });
}

#[test]
fn a_value_that_nobody_takes_is_dropped_once() {
    model(|| {
        let (cell, drops, thread) = put();
        drop(cell.abandon());
        thread.join().unwrap();
        assert_eq!(drops.load(SeqCst), 1);
    });
}
