//! The state that the ends of a session share: the session or its `Closing`, and the worker thread.

use std::{
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use encoder_core::Waiter;
use encoder_media::{Location, Sink};
use tracing::warn;

use crate::{
    Counters, Panicked, SessionError, SessionState, error::caught, slot::KeyFrameRequests,
};

/// Shared by a session and its worker thread.
///
/// No code from outside, such as a sink, runs under the lock.
pub(super) struct Shared {
    pub counters: Arc<Counters>,
    /// The waiter of the session's chain. Stopped when the session is dropped: the encoder's child
    /// is killed, and no encoder is opened.
    pub waiter: Waiter,
    pub key_frames: Arc<KeyFrameRequests>,
    /// Whether the ring has been closed.
    pub is_ending: Arc<AtomicBool>,
    /// The file that the sink writes, if it leaves it in place when it is abandoned.
    part_file: Option<PathBuf>,
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
    /// The session was aborted: the sink keeps what was written. The failure says why.
    Aborted,
    /// The session was dropped: the sink is dropped, and with it its files.
    Discarded,
    /// The session was dropped by a panic: the sink keeps what was written.
    Kept,
}

impl Shared {
    pub fn new(
        sink: Box<dyn Sink>,
        waiter: Waiter,
        is_ending: Arc<AtomicBool>,
        counters: Arc<Counters>,
    ) -> Self {
        let (fate, failure, has_ended) = (Fate::Wanted, None, false);
        Self {
            counters,
            waiter,
            key_frames: Arc::default(),
            is_ending,
            part_file: sink.part_file().map(PathBuf::from),
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
            Fate::Wanted | Fate::Kept | Fate::Aborted => state.sink = Some(sink),
        }
    }

    /// # Errors
    /// [`SessionError::Ended`] if the session was dropped: the video is not wanted any more.
    pub fn check_wanted(&self) -> Result<(), SessionError> {
        let state = self.lock();
        match (state.fate, &state.failure) {
            (Fate::Wanted, _) => Ok(()),
            (Fate::Aborted, Some(error)) => Err((**error).clone()),
            _ => Err(SessionError::Ended),
        }
    }

    /// The error of the abort, if the session was aborted; otherwise `error`.
    pub fn cause(&self, error: SessionError) -> SessionError {
        let state = self.lock();
        match (state.fate, &state.failure) {
            (Fate::Aborted, Some(abort)) => (**abort).clone(),
            _ => error,
        }
    }

    /// Ends the worker without waiting for it, with `error`. The sink keeps what was written. Has no
    /// effect on a session that was dropped or aborted before.
    pub fn abort(&self, error: SessionError) {
        self.is_ending.store(true, SeqCst);
        let mut state = self.lock();
        if state.fate == Fate::Wanted {
            state.fate = Fate::Aborted;
            state.failure = Some(Arc::new(error));
        }
        drop(state);
        self.waiter.stop();
    }

    /// Keeps what was written by a worker that does not return from a call of the encoder or the
    /// sink. Returns `error`, with the location of what is kept.
    pub fn keep(&self, error: SessionError) -> SessionError {
        let kept = match self.take_sink() {
            Some(sink) => caught(Panicked::Sink, || Ok(sink.abandon())).ok().flatten(),
            // It is inside a call of the sink.
            None => self.part_file.clone().filter(|part| part.exists()).map(Location::from),
        };
        match kept {
            Some(part) => SessionError::Kept { error: Box::new(error), part },
            None => error,
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
        self.0.counters.set_state(SessionState::Ended);
        self.0.lock().has_ended = true;
        self.0.ended.notify_all();
    }
}
