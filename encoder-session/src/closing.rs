//! The end of a session.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
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
#[must_use = "dropping it discards the video"]
pub struct Closing {
    /// `None` after it was awaited.
    ended: Option<Task<Ended>>,
    /// The result, while the session's other thread ends.
    result: Option<Ended>,
    /// The thread that converts pictures.
    converter: Option<Task<()>>,
    worker: ThreadId,
    pub(super) shared: Arc<Shared>,
    stats: StatsHandle,
}

impl Closing {
    pub(super) fn new(ended: Task<Ended>, shared: Arc<Shared>, stats: StatsHandle) -> Self {
        let worker = ended.thread_id();
        Self { ended: Some(ended), result: None, converter: None, worker, shared, stats }
    }

    pub(super) fn set_converter(&mut self, converter: Task<()>) {
        self.converter = Some(converter);
    }

    /// Whether the session has ended: then [`join`](Self::join) and the future do not wait.
    pub fn is_finished(&self) -> bool {
        self.ended.as_ref().is_none_or(Task::is_finished)
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
        let Some(ended) = self.ended.take() else { return Err(self.shared.closed()) };
        let ended = flatten(ended.join());
        self.join_converter();
        ended
    }

    /// Waits until the session has ended, for at most `limit`; then ends it as
    /// [`abort`](Self::abort) does.
    ///
    /// Blocks: for at most `limit`, and a second more for the end after it.
    ///
    /// # Errors
    /// As [`Session::finish`](crate::Session::finish); after `limit` [`SessionError::Deadline`],
    /// inside [`SessionError::Kept`] if the sink keeps what was written.
    pub fn join_within(mut self, limit: Duration) -> Result<VideoReport, SessionError> {
        self.check_thread()?;
        let Some(ended) = self.ended.take() else { return Err(self.shared.closed()) };
        let ended = end_within(ended, &self.shared, limit);
        self.join_converter();
        ended
    }

    /// Ends the session as [`abort`](Self::abort) does, if it has not ended within `limit` from now:
    /// the future is then ready, at the latest a second after that, also if the session's thread is
    /// inside a call of an encoder or a sink that does not return. A thread of its own waits for the
    /// deadline, so that no executor is needed.
    ///
    /// The error is [`SessionError::Deadline`], inside [`SessionError::Kept`] if the sink keeps what
    /// was written.
    pub fn with_deadline(mut self, limit: Duration) -> Self {
        let Some(ended) = self.ended.take() else { return self };
        let shared = Arc::clone(&self.shared);
        let wait = move || end_within(ended, &shared, limit);
        match Task::spawn("deadline", self.shared.waiter.clone(), wait) {
            Ok(task) => self.ended = Some(task),
            Err(error) => {
                // Without a thread the deadline would not hold.
                let error = SessionError::Internal(format!("no thread: {error}"));
                self.shared.abort(error.clone());
                self.result = Some(Err(error));
            }
        }
        self
    }

    /// Ends the session at once: the encoder is stopped, and its child process killed. Frames whose
    /// access units are not in the sink are lost; the sink keeps what was written, as
    /// [`Sink::abandon`](encoder_media::Sink::abandon) does.
    ///
    /// Never waits. [`join`](Self::join) or the future then returns [`SessionError::Aborted`], inside
    /// [`SessionError::Kept`] if the sink keeps what was written. If the video is already being
    /// completed, it is completed.
    pub fn abort(&self) {
        self.shared.abort(SessionError::Aborted);
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

    fn check_thread(&self) -> Result<(), SessionError> {
        match self.worker == thread::current().id() {
            true => Err(SessionError::OwnThread),
            false => Ok(()),
        }
    }

    /// The converter has no more pictures that matter, and ends after its current one.
    fn join_converter(&mut self) {
        if let Some(converter) = self.converter.take() {
            // A panic while it converted is the failure of that frame.
            drop(converter.join());
        }
    }
}

impl Future for Closing {
    type Output = Result<VideoReport, SessionError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(ended) = &mut this.ended {
            let result = ready!(Pin::new(ended).poll(cx));
            (this.ended, this.result) = (None, Some(flatten(result)));
        }
        if let Some(converter) = &mut this.converter {
            drop(ready!(Pin::new(converter).poll(cx)));
            this.converter = None;
        }
        Poll::Ready(this.result.take().unwrap_or_else(|| Err(this.shared.closed())))
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.shared.discard();
    }
}

fn flatten(ended: thread::Result<Ended>) -> Ended {
    ended.unwrap_or_else(|panic| Err(panicked(Panicked::Worker, &*panic)))
}

fn end_within(mut ended: Task<Ended>, shared: &Shared, limit: Duration) -> Ended {
    if let Some(result) = ended.join_within(limit) {
        return flatten(result);
    }
    shared.abort(SessionError::Deadline { limit, is_stuck: false });
    match ended.join_within(GRACE) {
        Some(result) => flatten(result),
        None => Err(shared.keep(SessionError::Deadline { limit, is_stuck: true })),
    }
}
