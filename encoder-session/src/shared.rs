//! The state that the ends of a session share: the session or its `Closing`, and the worker thread.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use encoder_core::Waiter;
use encoder_media::Sink;
use tracing::warn;

use crate::{Counters, Panicked, SessionError, error::caught};

/// Shared by a session and its worker thread.
///
/// No code from outside, such as a sink, runs under the lock.
pub(super) struct Shared {
    pub counters: Arc<Counters>,
    /// The waiter of the session's chain. Stopped when the session is dropped: the encoder's child
    /// is killed, and no encoder is opened.
    pub waiter: Waiter,
    /// Whether the ring has been closed.
    pub is_ending: Arc<AtomicBool>,
    state: Mutex<State>,
    /// Notified when the worker has ended.
    ended: Condvar,
}

struct State {
    /// `None` during a call of the sink, and after its last call.
    sink: Option<Box<dyn Sink>>,
    fate: Fate,
    failure: Option<Arc<SessionError>>,
    has_ended: bool,
}

/// What becomes of the video.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    /// It is made.
    Wanted,
    /// The session was dropped: the sink is dropped, and with it its files.
    Discarded,
    /// The session was dropped by a panic: the sink keeps what was written.
    Kept,
}

impl Shared {
    pub fn new(sink: Box<dyn Sink>, waiter: Waiter, is_ending: Arc<AtomicBool>) -> Self {
        let (fate, failure, has_ended) = (Fate::Wanted, None, false);
        Self {
            counters: Arc::default(),
            waiter,
            is_ending,
            state: Mutex::new(State { sink: Some(sink), fate, failure, has_ended }),
            ended: Condvar::new(),
        }
    }

    /// Nothing panics under the lock, so even a poisoned state is consistent.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the sink for a call; `None` if it was dropped with the session.
    pub fn take_sink(&self) -> Option<Box<dyn Sink>> {
        self.lock().sink.take()
    }

    /// Puts the sink back after a call. Drops it if the session was dropped during the call.
    pub fn put_back(&self, sink: Box<dyn Sink>) {
        let mut state = self.lock();
        match state.fate {
            Fate::Discarded => {
                drop(state);
                drop(sink);
            }
            Fate::Wanted | Fate::Kept => state.sink = Some(sink),
        }
    }

    /// # Errors
    /// [`SessionError::Ended`] if the session was dropped: the video is not wanted any more.
    pub fn check_wanted(&self) -> Result<(), SessionError> {
        match self.lock().fate {
            Fate::Wanted => Ok(()),
            Fate::Discarded | Fate::Kept => Err(SessionError::Ended),
        }
    }

    /// The session is being dropped. Ends its worker without waiting for it: a call of the sink may
    /// never return, and this may be the thread of that call.
    pub fn discard(&self) {
        self.is_ending.store(true, SeqCst);
        let sink = {
            let mut state = self.lock();
            if state.fate == Fate::Wanted {
                state.fate = if thread::panicking() { Fate::Kept } else { Fate::Discarded };
            }
            if state.fate == Fate::Discarded { state.sink.take() } else { None }
        };
        self.waiter.stop();
        let dropped = caught(Panicked::Sink, || {
            drop(sink);
            Ok(())
        });
        if let Err(error) = dropped {
            warn!("the sink of a dropped session: {error}");
        }
    }

    /// Sets why the session has failed. Later errors replace earlier ones.
    pub fn fail(&self, error: SessionError) {
        self.lock().failure = Some(Arc::new(error));
    }

    /// Why the session has failed, if it has.
    pub fn failure(&self) -> Option<Arc<SessionError>> {
        self.lock().failure.clone()
    }

    /// The error of a call on a session that accepts no more frames.
    pub fn closed(&self) -> SessionError {
        self.failure().map_or(SessionError::Ended, SessionError::Failed)
    }

    /// Waits until the worker has ended, for at most `limit`. Returns whether it has.
    pub fn wait_ended(&self, limit: Duration) -> bool {
        let state = self.lock();
        let waited = self.ended.wait_timeout_while(state, limit, |state| !state.has_ended);
        waited.unwrap_or_else(PoisonError::into_inner).0.has_ended
    }
}

/// Marks the worker as ended when it is dropped, the last step of its thread.
pub(super) struct EndOfWorker(pub Arc<Shared>);

impl Drop for EndOfWorker {
    fn drop(&mut self) {
        self.0.lock().has_ended = true;
        self.0.ended.notify_all();
    }
}
