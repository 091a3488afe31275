//! The end of a session.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::JoinHandle,
};

use encoder_core::Waiter;
use encoder_media::Sink;

use crate::{Counters, SessionError, VideoReport, error::panicked};

/// Holds the sink of a session. Dropping a session removes the sink from the worker thread, so that
/// its files are deleted when the drop returns, whatever the encoder is doing.
pub(super) type SharedSink = Arc<Mutex<Option<Box<dyn Sink>>>>;

/// Why the frames ended, if the video is not complete.
pub(super) type Fault = Arc<Mutex<Option<SessionError>>>;

/// A session that accepts no more frames. Dropping it before it has ended leaves no file.
pub struct Closing {
    pub(super) thread: Option<JoinHandle<Result<VideoReport, SessionError>>>,
    pub(super) sink: SharedSink,
    pub(super) fault: Fault,
    /// Stopped when the session is dropped, so that its thread ends its wait for an encoder.
    pub(super) waiter: Waiter,
    /// Whether the ring has been closed.
    pub(super) is_ending: Arc<AtomicBool>,
    /// Counts that grow until the session has ended.
    pub(super) counters: Arc<Counters>,
}

impl Closing {
    /// Waits until the session has ended.
    ///
    /// # Errors
    /// As [`Session::finish`].
    pub fn join(mut self) -> Result<VideoReport, SessionError> {
        let ended = self.thread.take().map(JoinHandle::join);
        ended.map_or(Err(SessionError::Ended), |ended| {
            ended.unwrap_or_else(|panic| Err(panicked(&*panic)))
        })
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.is_ending.store(true, SeqCst);
        self.waiter.stop();
        drop(lock(&self.sink).take());
    }
}

/// Locks the sink, also after a panic under the lock: the sink can still be abandoned or dropped.
pub(super) fn lock(sink: &SharedSink) -> std::sync::MutexGuard<'_, Option<Box<dyn Sink>>> {
    sink.lock().unwrap_or_else(PoisonError::into_inner)
}
