//! The end of a session.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{Counters, Panicked, SessionError, VideoReport, error::panicked, shared::Shared};

/// A session that accepts no more frames.
///
/// Dropping it before it has ended discards the video and does not wait: see
/// [`Session`](crate::Session).
pub struct Closing {
    thread: Option<JoinHandle<Result<VideoReport, SessionError>>>,
    pub(super) shared: Arc<Shared>,
    /// Counts that grow until the session has ended.
    pub counters: Arc<Counters>,
}

impl Closing {
    pub(super) fn new(
        thread: JoinHandle<Result<VideoReport, SessionError>>,
        shared: Arc<Shared>,
    ) -> Self {
        let counters = Arc::clone(&shared.counters);
        Self { thread: Some(thread), shared, counters }
    }

    /// Waits until the session has ended.
    ///
    /// Blocks: until the frames in the ring are encoded and the sink is finished.
    ///
    /// # Errors
    /// As [`Session::finish`](crate::Session::finish).
    pub fn join(mut self) -> Result<VideoReport, SessionError> {
        let Some(thread) = self.thread.take() else { return Err(self.shared.closed()) };
        if thread.thread().id() == thread::current().id() {
            return Err(SessionError::OwnThread);
        }
        thread.join().unwrap_or_else(|panic| Err(panicked(Panicked::Worker, &*panic)))
    }

    /// Discards the video as a drop does. Never waits; [`wait_ended`](Self::wait_ended) waits until
    /// nothing is left.
    pub fn discard(&self) {
        self.shared.discard();
    }

    /// Waits until the session's thread has ended, and its encoder and its sink are gone. Returns
    /// whether that happened within `limit`.
    ///
    /// Blocks: for at most `limit`.
    pub fn wait_ended(&self, limit: Duration) -> bool {
        self.shared.wait_ended(limit)
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.shared.discard();
    }
}
