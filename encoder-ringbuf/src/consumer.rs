use std::{fmt, ops::Deref, time::Duration};

use crate::{
    Monitor, Snapshot,
    shared::{Ring, Side, deadline},
    state::{State, Taken},
    sync::Arc,
};

/// The end that reads frames, strictly in the order of reservation, and commits them.
///
/// Dropping it closes the ring: the producer gets [`Closed`](crate::Closed) at once.
pub struct Consumer<M> {
    pub(crate) ring: Arc<Ring<M>>,
}

/// The result of [`Consumer::next_timeout`].
#[derive(Debug)]
pub enum Next<M> {
    /// The next frame.
    Slot(ReadSlot<M>),
    /// The producer is closed, and every frame was read.
    Ended,
    /// No frame became readable in time.
    TimedOut,
}

impl<M> Consumer<M> {
    /// Returns the next frame; blocks until it is published. `None` when the producer is closed and
    /// every frame was read; after a [`rewind`](Self::rewind) there are frames again.
    // Not an iterator: frames can follow after `None`, and a `for` loop could not commit.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Option<ReadSlot<M>> {
        let taken = self.ring.shared.wait(Side::Consumer, None, State::next);
        taken.flatten().map(|taken| self.read_slot(taken))
    }

    /// As [`next`](Self::next), but waits no longer than `timeout`: then [`Next::TimedOut`].
    pub fn next_timeout(&mut self, timeout: Duration) -> Next<M> {
        match self.ring.shared.wait(Side::Consumer, deadline(timeout), State::next) {
            Some(Some(taken)) => Next::Slot(self.read_slot(taken)),
            Some(None) => Next::Ended,
            None => Next::TimedOut,
        }
    }

    /// As [`next`](Self::next), but never waits: [`Next::TimedOut`] if the next frame is not
    /// published.
    pub fn try_next(&mut self) -> Next<M> {
        self.next_timeout(Duration::ZERO)
    }

    /// As [`next`](Self::next), for a task of any executor. Cancel-safe: a future that is dropped
    /// before it is ready reads no frame.
    pub async fn next_async(&mut self) -> Option<ReadSlot<M>> {
        let taken = self.ring.shared.wait_async(Side::Consumer, State::next).await;
        taken.map(|taken| self.read_slot(taken))
    }

    fn read_slot(&self, taken: Taken<M>) -> ReadSlot<M> {
        let Taken { seq, index, meta } = taken;
        ReadSlot { ring: self.ring.clone(), seq, index, meta }
    }

    /// Commits all frames before `upto`: they are not returned again, and their slots become free
    /// as soon as no [`ReadSlot`] holds them.
    ///
    /// The cursor never moves back, and never beyond the frames that were read: such an `upto` has
    /// no effect. (An example is a late access unit of an encoder that was replaced before a
    /// [`rewind`](Self::rewind).)
    pub fn commit(&mut self, upto: u64) {
        self.ring.shared.change(Side::Producer, |state| state.commit(upto));
    }

    /// Discards a frame that was read, such as one without a picture: it is not returned again, and
    /// its slot becomes free as soon as no [`ReadSlot`] holds it, wherever the commit cursor is.
    /// Otherwise frames that no encoder gets could fill the ring while the encoder waits for more
    /// frames. Does nothing for a frame that was not read or is committed.
    pub fn discard(&mut self, seq: u64) {
        self.ring.shared.change(Side::Producer, |state| state.discard(seq));
    }

    /// Moves the read cursor back to the commit cursor and returns it: the frames that were read
    /// but not committed are returned again, with the same bytes and metadata.
    pub fn rewind(&mut self) -> u64 {
        self.ring.shared.lock().rewind()
    }

    /// Ends reading; the producer gets [`Closed`](crate::Closed), also while it waits. The same as
    /// dropping the consumer.
    pub fn close(self) {}

    /// Fill level, cursors and waits at this moment.
    pub fn snapshot(&self) -> Snapshot {
        self.ring.shared.snapshot()
    }

    /// A handle that takes snapshots, for metrics.
    pub fn monitor(&self) -> Monitor<M> {
        Monitor { shared: self.ring.shared.clone() }
    }
}

impl<M> Drop for Consumer<M> {
    fn drop(&mut self) {
        self.ring.shared.close(Side::Consumer);
    }
}

impl<M> fmt::Debug for Consumer<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Consumer").field(&self.snapshot()).finish()
    }
}

/// A frame to read. Its bytes do not change while it is held, even after it was committed and both
/// ends were dropped. Until then the producer cannot use the slot.
pub struct ReadSlot<M> {
    ring: Arc<Ring<M>>,
    seq: u64,
    index: usize,
    meta: Option<std::sync::Arc<M>>,
}

impl<M> ReadSlot<M> {
    /// The frame's number, counted from 0 in the order of reservation.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// The metadata that was published with the frame; `None` if the frame was abandoned: then its
    /// bytes are no picture.
    pub fn meta(&self) -> Option<&M> {
        self.meta.as_deref()
    }
}

impl<M> Deref for ReadSlot<M> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: this reader was counted when the slot was published, and a slot with readers is
        // not reserved, so nothing writes to it.
        unsafe { self.ring.block.bytes(self.index) }
    }
}

impl<M> Drop for ReadSlot<M> {
    fn drop(&mut self) {
        // This reference is dropped first, so that the metadata itself is dropped when the slot is
        // reused and not here, unless the ring is dropped.
        self.meta = None;
        self.ring.shared.change(Side::Producer, |state| state.release(self.index));
    }
}

impl<M: fmt::Debug> fmt::Debug for ReadSlot<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadSlot")
            .field("seq", &self.seq)
            .field("meta", &self.meta())
            .finish_non_exhaustive()
    }
}
