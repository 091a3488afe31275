#![allow(clippy::unwrap_used)]

use std::sync::{
    atomic::{AtomicUsize, Ordering::SeqCst},
    mpsc::{Receiver, Sender, channel},
};

use super::*;
use crate::Waited;

/// Only a bound against hanging.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends when it is dropped.
struct Dropped(Sender<thread::ThreadId>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.send(thread::current().id());
    }
}

/// A task that ends when the sender sends.
fn gated() -> (Task<u32>, Sender<u32>) {
    let (go, gate) = channel();
    (Task::spawn("gated", Waiter::new(), move || gate.recv().unwrap()).unwrap(), go)
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn the_result_is_there_for_each_way_to_wait_for_it() {
    let ways: [fn(Task<u32>) -> thread::Result<u32>; 3] = [
        |task| task.join(),
        |mut task| task.join_within(PATIENCE).unwrap(),
        |task| block_on(task, None).unwrap(),
    ];
    for (number, way) in (0..).zip(ways) {
        let (task, go) = gated();
        assert!(!task.is_finished());
        go.send(number).unwrap();
        assert_eq!(way(task).unwrap(), number);
        // A panic is a result with its payload.
        let task = Task::spawn("panics", Waiter::new(), move || panic!("of {number}")).unwrap();
        let payload = way(task).unwrap_err();
        assert_eq!(payload.downcast_ref::<String>().unwrap(), &format!("of {number}"));
    }
}

#[test]
fn a_wait_that_is_too_short_keeps_the_task() {
    let (mut task, go) = gated();
    assert!(task.join_within(Duration::ZERO).is_none());
    assert!(block_on(&mut task, Some(Duration::from_millis(1))).is_none());
    go.send(3).unwrap();
    assert_eq!(task.join_within(PATIENCE).unwrap().unwrap(), 3);
}

#[test]
fn the_latest_waker_is_woken_once() {
    let (mut task, go) = gated();
    let wakes = [(); 2].map(|()| Arc::new(Wakes::default()));
    for wakes in &wakes {
        let waker = Waker::from(Arc::clone(wakes));
        assert!(Pin::new(&mut task).poll(&mut Context::from_waker(&waker)).is_pending());
    }
    // The first waker is not kept.
    assert_eq!(Arc::strong_count(&wakes[0]), 1);
    go.send(1).unwrap();
    assert_eq!(task.join().unwrap(), 1);
    assert_eq!(wakes.map(|wakes| wakes.0.load(SeqCst)), [0, 1]);
}

#[test]
fn a_drop_stops_the_waiter_and_leaves_nothing() {
    let waiter = Waiter::new();
    let ((send, dropped), (begun, has_begun)) = (channel(), channel());
    let waiting = waiter.child();
    let work = move || {
        begun.send(thread::current().id()).unwrap();
        assert_eq!(waiting.wait(Duration::from_secs(3600)), Waited::Stopped);
        Dropped(send)
    };
    let task = Task::spawn("dropped", waiter, work).unwrap();
    let thread: thread::ThreadId = has_begun.recv_timeout(PATIENCE).unwrap();
    drop(task);
    // The result is dropped on its own thread.
    assert_eq!(dropped.recv_timeout(PATIENCE).unwrap(), thread);
}

#[test]
fn a_result_that_nobody_took_is_dropped_with_the_task_and_stops_nothing() {
    let waiter = Waiter::new();
    let (send, dropped): (_, Receiver<_>) = channel();
    let task = Task::spawn("done", waiter.clone(), move || Dropped(send)).unwrap();
    while !task.is_finished() {
        thread::yield_now();
    }
    drop(task);
    assert_eq!(dropped.recv_timeout(PATIENCE).unwrap(), thread::current().id());
    assert_eq!(waiter.state(), Waited::Elapsed);
}

#[test]
fn a_waker_may_poll_on_the_thread_of_the_task() {
    // An executor that polls inside `wake`.
    struct Inline(std::sync::Mutex<Option<Task<u32>>>, Sender<u32>);
    impl Wake for Inline {
        fn wake(self: Arc<Self>) {
            let mut task = self.0.lock().unwrap().take().unwrap();
            match Pin::new(&mut task).poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(value) => self.1.send(value.unwrap()).unwrap(),
                Poll::Pending => panic!("woken without a result"),
            }
        }
    }
    let (mut task, go) = gated();
    let (send, result) = channel();
    let inline = Arc::new(Inline(std::sync::Mutex::new(None), send));
    let waker = Waker::from(Arc::clone(&inline));
    assert!(Pin::new(&mut task).poll(&mut Context::from_waker(&waker)).is_pending());
    *inline.0.lock().unwrap() = Some(task);
    go.send(9).unwrap();
    assert_eq!(result.recv_timeout(PATIENCE).unwrap(), 9);
}

#[test]
fn a_waker_may_wait_for_the_end_of_a_poll() {
    // An executor that holds a lock while it polls, and takes it to wake.
    struct Locked(std::sync::Mutex<Option<Task<u32>>>, Sender<()>, std::sync::Mutex<Sender<u32>>);
    impl Locked {
        fn poll(self: &Arc<Self>) {
            let waker = Waker::from(Arc::clone(self));
            let mut locked = self.0.lock().unwrap();
            let Some(task) = &mut *locked else { return };
            if let Poll::Ready(value) = Pin::new(task).poll(&mut Context::from_waker(&waker)) {
                *locked = None;
                self.2.lock().unwrap().send(value.unwrap()).unwrap();
            }
        }
    }
    impl Wake for Locked {
        fn wake(self: Arc<Self>) {
            // The other thread polls from now on.
            self.1.send(()).unwrap();
            self.poll();
        }
    }
    let (task, go) = gated();
    let ((woken, is_woken), (send, result)) = (channel(), channel());
    let locked = Arc::new(Locked(Some(task).into(), woken, send.into()));
    locked.poll();
    go.send(4).unwrap();
    is_woken.recv_timeout(PATIENCE).unwrap();
    locked.poll();
    assert_eq!(result.recv_timeout(PATIENCE).unwrap(), 4);
}
