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

use crate::{Counters, Panicked, SessionError, SessionState, error::caught};

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
    /// The sink was taken for its last call, which completes the video.
    is_completing: bool,
    has_ended: bool,
}

impl State {
    fn check_wanted(&self) -> Result<(), SessionError> {
        match (self.fate, &self.failure) {
            (Fate::Wanted, _) => Ok(()),
            (Fate::Aborted, Some(error)) => Err((**error).clone()),
            _ => Err(SessionError::Ended),
        }
    }
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
        let sink_file = sink.part_file().map(PathBuf::from);
        let state = State {
            sink: Some(sink),
            fate: Fate::Wanted,
            failure: None,
            is_completing: false,
            has_ended: false,
        };
        Self {
            counters,
            waiter,
            is_ending,
            part_file: sink_file,
            state: Mutex::new(state),
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

    /// Takes the sink to complete the video. From here on a drop or an abort of the session has no
    /// effect.
    ///
    /// # Errors
    /// As [`check_wanted`](Self::check_wanted).
    pub fn take_sink_to_finish(&self) -> Result<Box<dyn Sink>, SessionError> {
        let mut state = self.lock();
        state.check_wanted()?;
        let sink = state.sink.take().ok_or(SessionError::Ended)?;
        state.is_completing = true;
        Ok(sink)
    }

    /// # Errors
    /// If the video is not wanted any more: the error of the abort, [`SessionError::Ended`] if the
    /// session was dropped.
    pub fn check_wanted(&self) -> Result<(), SessionError> {
        self.lock().check_wanted()
    }

    /// The error of the abort, if the session was aborted and `error` can be an effect of that;
    /// otherwise `error`.
    pub fn cause(&self, error: SessionError) -> SessionError {
        let state = self.lock();
        match (state.fate, &state.failure) {
            (Fate::Aborted, Some(abort)) if error.is_by_stop() => (**abort).clone(),
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

    /// Gives up waiting for a worker that does not return from a call of the encoder or the sink.
    /// Keeps what it has written. Returns the error of the deadline, with the location of what is
    /// kept; without a location if the sink completes the video, and moves its file.
    pub fn give_up_waiting(&self, limit: Duration) -> SessionError {
        let (sink, is_completing) = {
            let mut state = self.lock();
            (state.sink.take(), state.is_completing)
        };
        let error = SessionError::Deadline { limit, is_stuck: true, is_completing };
        let kept = match sink {
            Some(sink) => caught(Panicked::Sink, || Ok(sink.abandon())).ok().flatten(),
            None if is_completing => None,
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

#[cfg(test)]
mod tests {
    use encoder_core::{EncodeError, EncoderType, FailureKind, OpenError, Refusal, RefusalKind};
    use encoder_media::{AccessUnit, CallbackSink, SinkError};
    use encoder_ringbuf::RingError;

    use super::*;

    const ID: EncoderType = EncoderType::X264;

    fn shared() -> Shared {
        let counters = Arc::new(Counters::new(ID));
        let sink = Box::new(CallbackSink(|_: AccessUnit| ()));
        Shared::new(sink, Waiter::new(), Arc::default(), counters)
    }

    fn killed() -> EncodeError {
        EncodeError::failed(ID, 3, FailureKind::Died, "it was killed")
    }

    #[test]
    fn an_abort_is_the_cause_of_the_errors_that_it_brings_about_and_of_no_other() {
        let refusal = || Refusal::new(ID, RefusalKind::Missing, "no library", "install it");
        let sink = || SinkError::other("the disk is full");
        let panicked = |place| SessionError::Panicked { place, text: "no".into() };
        // error | whether an abort can be its cause
        let table = [
            (SessionError::from(killed()), true),
            (
                SessionError::Lost {
                    error: Box::new(killed()),
                    left: Box::new(OpenError::Stopped),
                },
                true,
            ),
            (OpenError::Stopped.into(), true),
            (SessionError::Ended, true),
            (OpenError::from(refusal()).into(), false),
            (sink().into(), false),
            (sink().kept(Location::Name("a.part".into())).into(), false),
            (
                SessionError::Kept {
                    error: Box::new(sink().into()),
                    part: Location::Name("a.part".into()),
                },
                false,
            ),
            (panicked(Panicked::Sink), false),
            (panicked(Panicked::Worker), false),
            (SessionError::BadFrame { number: 7, reason: "it ends early".into() }, false),
            (SessionError::SlotDropped { number: 7 }, false),
            (SessionError::Empty(Box::default()), false),
            (RingError::OutOfMemory { bytes: 7 }.into(), false),
            (SessionError::Internal("no time of frame 7".into()), false),
        ];
        for (error, is_by_abort) in table {
            let text = error.to_string();
            for abort in [SessionError::Aborted, SessionError::deadline(Duration::from_secs(3))] {
                let shared = shared();
                assert_eq!(shared.cause(error.clone()).to_string(), text, "it was not aborted");
                shared.abort(abort.clone());
                let expected = if is_by_abort { abort.to_string() } else { text.clone() };
                assert_eq!(shared.cause(error.clone()).to_string(), expected);
            }
        }
    }

    #[test]
    fn a_video_that_is_not_wanted_is_not_completed() {
        let shared_after = |end: fn(&Shared)| {
            let shared = shared();
            end(&shared);
            shared
        };
        type End = fn(&Shared);
        let ends: [(End, &str); 3] = [
            (|shared| shared.abort(SessionError::Aborted), "the session was aborted"),
            (Shared::discard, "the session was dropped before its end"),
            (
                |shared| {
                    shared.discard();
                    shared.abort(SessionError::Aborted);
                },
                "the session was dropped before its end",
            ),
        ];
        for (end, text) in ends {
            let shared = shared_after(end);
            let error = shared.take_sink_to_finish().err().map(|error| error.to_string());
            assert_eq!(error.as_deref(), Some(text));
            let SessionError::Deadline { is_completing, .. } =
                shared.give_up_waiting(Duration::ZERO)
            else {
                panic!("nothing is kept");
            };
            assert!(!is_completing);
        }
    }
}
