//! Work on a thread of its own, for callers that may not block.

mod cell;
mod sync {
    pub(super) use std::sync::{Condvar, Mutex, MutexGuard};
}

use std::{
    fmt,
    future::Future,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, JoinHandle, Thread, ThreadId},
    time::{Duration, Instant},
};

use crate::Waiter;
use cell::Cell;

/// Work that runs on a thread of its own, and the future of its result. Needs no executor: any
/// executor can await it, and [`join`](Self::join) blocks a thread for it.
///
/// The result is `Err` with the payload of the panic if the work panicked.
///
/// Dropping a task that is not finished stops its [`Waiter`], which ends the work if the work waits
/// by that waiter. The drop does not wait: the thread ends by itself, and drops the result.
#[must_use = "dropping a task stops its work"]
pub struct Task<T> {
    cell: Arc<Cell<thread::Result<T>>>,
    thread: Option<JoinHandle<()>>,
    id: ThreadId,
    waiter: Waiter,
}

impl<T: Send + 'static> Task<T> {
    /// Starts `work` on a thread called `name`. `waiter` is stopped if the task is dropped before
    /// it is finished.
    ///
    /// # Errors
    /// When the system starts no thread.
    pub fn spawn(
        name: &str,
        waiter: Waiter,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<Self> {
        let cell = Arc::new(Cell::new());
        let result = Arc::clone(&cell);
        let run = move || {
            let value = catch_unwind(AssertUnwindSafe(work));
            // Returned if nobody takes it. Dropped here, so that a slow drop blocks no other thread.
            drop(result.put(value));
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(Self { cell, id: thread.thread().id(), thread: Some(thread), waiter })
    }
}

impl<T> Task<T> {
    /// Whether the result is there: then neither [`join`](Self::join) nor the future waits.
    pub fn is_finished(&self) -> bool {
        self.cell.is_done()
    }

    /// The thread of the work, which must not wait for its own result.
    pub fn thread_id(&self) -> ThreadId {
        self.id
    }

    /// Waits for the result. Blocks until the work has ended.
    ///
    /// # Errors
    /// The payload of the panic, if the work panicked.
    pub fn join(mut self) -> thread::Result<T> {
        let value = self.cell.wait();
        self.end_thread();
        value
    }

    /// Waits for the result for at most `timeout`; `None` if the work has not ended by then. Blocks
    /// for at most `timeout`. After `Some` the task is used up: awaiting it again never ends.
    pub fn join_within(&mut self, timeout: Duration) -> Option<thread::Result<T>> {
        let value = self.cell.wait_until(Instant::now().checked_add(timeout))?;
        self.end_thread();
        Some(value)
    }

    /// Waits for the thread, which only has to return: its result has been taken.
    fn end_thread(&mut self) {
        if let Some(thread) = self.thread.take()
            // The task may have been moved to its own thread.
            && self.id != thread::current().id()
        {
            // It fails if a waker panicked. The result is there all the same.
            drop(thread.join());
        }
    }
}

/// Cancel-safe: a task that was polled and is not ready can be polled again. When it is ready, its
/// thread has nothing left to do but to end.
impl<T> Future for Task<T> {
    type Output = thread::Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let value = self.cell.poll(cx.waker());
        if value.is_ready() {
            // Not joined: the thread may be inside `wake`, which may wait for the end of this poll.
            self.thread = None;
        }
        value
    }
}

// The result is moved out of its cell, never pinned.
impl<T> Unpin for Task<T> {}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        let was_done = self.cell.is_done();
        // Before the stop, so that a result that comes after it is dropped by its own thread.
        let result = self.cell.abandon();
        if !was_done && result.is_none() {
            self.waiter.stop();
        }
        drop(result);
    }
}

impl<T> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.thread.as_ref().and_then(|thread| thread.thread().name());
        f.debug_struct("Task").field("name", &name).field("finished", &self.is_finished()).finish()
    }
}

/// Blocks the thread until the future is ready, for at most `timeout` if there is one: then `None`.
/// The future is dropped on return.
pub fn block_on<F: Future>(future: F, timeout: Option<Duration>) -> Option<F::Output> {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(value);
        }
        match end {
            None => thread::park(),
            Some(end) => match end.saturating_duration_since(Instant::now()) {
                Duration::ZERO => return None,
                left => thread::park_timeout(left),
            },
        }
    }
}

#[cfg(test)]
#[path = "task/tests.rs"]
mod tests;
