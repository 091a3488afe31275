//! The end of a session.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    thread::{self, ThreadId},
    time::Duration,
};

use encoder_core::Task;

use crate::{
    Panicked, SessionError, Stats, StatsHandle, VideoReport, error::panicked, shared::Shared,
};

/// How long a session may take to end after its encoder was stopped at a deadline.
const GRACE: Duration = Duration::from_secs(1);

type Ended = Result<VideoReport, SessionError>;

/// A session that accepts no more frames, until it has ended. It is also the future of its result,
/// for any executor.
///
/// Dropping it before it has ended discards the video and does not wait: see
/// [`Session`](crate::Session).
///
/// Cancel-safe: poll it by reference (`&mut closing`), and a wait that is cancelled loses nothing:
/// the session goes on, and can be awaited again.
pub struct Closing {
    end: End,
    worker: ThreadId,
    pub(super) shared: Arc<Shared>,
    stats: StatsHandle,
}

impl Closing {
    pub(super) fn new(ended: Task<Ended>, shared: Arc<Shared>, stats: StatsHandle) -> Self {
        let worker = ended.thread_id();
        Self { end: End::Coming(ended), worker, shared, stats }
    }

    /// Whether the session has ended: then [`join`](Self::join) and the future do not wait.
    pub fn is_finished(&self) -> bool {
        match &self.end {
            End::Coming(ended) => ended.is_finished(),
            End::Known(_) | End::Taken => true,
        }
    }

    /// The numbers of the session now.
    pub fn stats(&self) -> Stats {
        self.stats.get()
    }

    /// A handle that reads the numbers of the session from any thread.
    pub fn stats_handle(&self) -> StatsHandle {
        self.stats.clone()
    }

    /// Waits until the session has ended.
    ///
    /// Blocks: until the frames in the ring are encoded and the sink is finished.
    ///
    /// # Errors
    /// As [`Session::finish`](crate::Session::finish).
    pub fn join(mut self) -> Result<VideoReport, SessionError> {
        self.check_thread()?;
        match self.take() {
            End::Coming(ended) => flatten(ended.join()),
            End::Known(ended) => ended,
            End::Taken => Err(self.shared.closed()),
        }
    }

    /// Waits until the session has ended, for at most `limit`; then ends it as
    /// [`abort`](Self::abort) does.
    ///
    /// Blocks: for at most `limit`, and a second more for the end after it.
    ///
    /// # Errors
    /// As [`Session::finish`](crate::Session::finish); after `limit` [`SessionError::Deadline`],
    /// inside [`SessionError::Kept`] if the sink keeps what was written. An error of the sink after
    /// `limit` is returned in place of it.
    pub fn join_within(mut self, limit: Duration) -> Result<VideoReport, SessionError> {
        self.check_thread()?;
        match self.take() {
            End::Coming(ended) => end_within(ended, &self.shared, limit),
            End::Known(ended) => ended,
            End::Taken => Err(self.shared.closed()),
        }
    }

    /// Ends the session as [`abort`](Self::abort) does, if it has not ended within `limit` from now:
    /// the future is then ready, at the latest a second after that, also if the session's thread is
    /// inside a call of an encoder or a sink that does not return. A thread of its own waits for the
    /// deadline, so that no executor is needed.
    ///
    /// The errors are those of [`join_within`](Self::join_within). If the system starts no thread,
    /// the session is ended at once, with [`SessionError::Thread`].
    #[must_use = "dropping it discards the video"]
    pub fn with_deadline(mut self, limit: Duration) -> Self {
        self.end = match self.take() {
            End::Coming(ended) => {
                let shared = Arc::clone(&self.shared);
                let wait = move || end_within(ended, &shared, limit);
                match Task::spawn("deadline", self.shared.waiter.clone(), wait) {
                    Ok(task) => End::Coming(task),
                    Err(error) => {
                        // Without a thread the deadline would not hold.
                        let error = SessionError::thread(error);
                        self.shared.abort(error.clone());
                        End::Known(Err(error))
                    }
                }
            }
            end => end,
        };
        self
    }

    /// Ends the session at once: the encoder is stopped, and its child process killed. Frames whose
    /// access units are not in the sink are lost; the sink keeps what was written, as
    /// [`Sink::abandon`](encoder_media::Sink::abandon) does.
    ///
    /// Never waits. [`join`](Self::join) or the future then returns [`SessionError::Aborted`], inside
    /// [`SessionError::Kept`] if the sink keeps what was written. If the video is already being
    /// completed, it is completed. An error of the sink is returned as it is.
    ///
    /// The first of `abort`, [`discard`](Self::discard) and the drop decides: after an abort, a drop
    /// keeps what was written; after `discard`, an abort has no effect.
    pub fn abort(&self) {
        self.shared.abort(SessionError::Aborted);
    }

    /// Discards the video as a drop does. Never waits; [`wait_ended`](Self::wait_ended) waits until
    /// nothing is left. After an [`abort`](Self::abort) what was written is kept.
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

    fn check_thread(&self) -> Result<(), SessionError> {
        match self.worker == thread::current().id() {
            true => Err(SessionError::OwnThread),
            false => Ok(()),
        }
    }

    fn take(&mut self) -> End {
        std::mem::replace(&mut self.end, End::Taken)
    }
}

impl Future for Closing {
    type Output = Result<VideoReport, SessionError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match self.take() {
            End::Coming(mut ended) => match Pin::new(&mut ended).poll(cx) {
                Poll::Ready(result) => flatten(result),
                Poll::Pending => {
                    self.end = End::Coming(ended);
                    // The session's thread would wait for itself.
                    return match self.check_thread() {
                        Err(own) => Poll::Ready(Err(own)),
                        Ok(()) => Poll::Pending,
                    };
                }
            },
            End::Known(ended) => ended,
            End::Taken => Err(self.shared.closed()),
        })
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.shared.discard();
    }
}

/// The result of a session.
enum End {
    /// The session's thread returns it, or the thread that waits for a deadline.
    Coming(Task<Ended>),
    /// It is here already.
    Known(Ended),
    /// It was returned to an earlier call.
    Taken,
}

fn flatten(ended: thread::Result<Ended>) -> Ended {
    ended.unwrap_or_else(|panic| Err(panicked(Panicked::Worker, &*panic)))
}

fn end_within(mut ended: Task<Ended>, shared: &Shared, limit: Duration) -> Ended {
    if let Some(result) = ended.join_within(limit) {
        return flatten(result);
    }
    shared.abort(SessionError::deadline(limit));
    match ended.join_within(GRACE) {
        Some(result) => flatten(result),
        None => Err(shared.give_up_waiting(limit)),
    }
}
