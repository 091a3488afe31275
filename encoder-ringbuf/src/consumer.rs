use std::{fmt, ops::Deref, time::Duration};

use crate::{
    Monitor, Snapshot,
    shared::{Ring, Side, deadline},
    state::{State, Taken},
    sync::Arc,
};

/// The end that reads frames, strictly in the order of reservation, and commits them.
///
/// When it is dropped the producer gets [`Closed`](crate::Closed) at once.
pub struct Consumer<M> {
    pub(crate) ring: Arc<Ring<M>>,
}

/// What there is to read.
#[derive(Debug)]
pub enum Next<M> {
    /// The next frame.
    Slot(ReadSlot<M>),
    /// The producer is closed, and every frame was read.
    Ended,
    /// Nothing yet.
    TimedOut,
}

impl<M> Consumer<M> {
    /// The next frame; blocks until it is published. `None` when the producer is closed and every
    /// frame was read; after a [`rewind`](Self::rewind) there are frames again.
    // Not an iterator: reading goes on after an end, and a `for` loop could not commit.
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

    /// As [`next`](Self::next), but never waits: [`Next::TimedOut`] if the next frame is not there.
    pub fn try_next(&mut self) -> Next<M> {
        self.next_timeout(Duration::ZERO)
    }

    /// As [`next`](Self::next), for a task of any executor. Cancel-safe: a future that is dropped
    /// before it is ready has read nothing.
    pub async fn next_async(&mut self) -> Option<ReadSlot<M>> {
        let taken = self.ring.shared.wait_async(Side::Consumer, State::next).await;
        taken.map(|taken| self.read_slot(taken))
    }

    fn read_slot(&self, taken: Taken<M>) -> ReadSlot<M> {
        let Taken { seq, index, meta } = taken;
        ReadSlot { ring: self.ring.clone(), seq, index, meta }
    }

    /// All frames before `upto` are done for good: their slots become free as soon as no
    /// [`ReadSlot`] looks at them.
    ///
    /// The cursor never moves back, and never beyond what was read: an `upto` of either kind
    /// changes nothing at all. (The late answer of an encoder that was given up before a
    /// [`rewind`](Self::rewind) is such a one.)
    pub fn commit(&mut self, upto: u64) {
        self.ring.shared.change(Side::Producer, |state| state.commit(upto));
    }

    /// A frame that was read and shall not come again, such as one without a picture: its slot
    /// becomes free as soon as no [`ReadSlot`] looks at it, wherever the commit cursor is. Without
    /// this, frames that no encoder is given could fill the ring while the encoder still waits for
    /// more. A frame that was not read, or is committed, is left as it is.
    pub fn discard(&mut self, seq: u64) {
        self.ring.shared.change(Side::Producer, |state| state.discard(seq));
    }

    /// Moves the read cursor back to the commit cursor and returns it: the frames that were read
    /// but not committed come again, with the same bytes and metadata.
    pub fn rewind(&mut self) -> u64 {
        self.ring.shared.lock().rewind()
    }

    /// No more frames are read; the producer gets [`Closed`](crate::Closed), also where it waits.
    /// The same as to drop the consumer.
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

/// A frame to read. As long as it is held its bytes do not change, also after they were committed
/// and after both ends are gone; but a slot that is held is one slot less for the producer.
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

    /// What was given at publication; `None` if the frame was abandoned, and then the bytes mean
    /// nothing.
    pub fn meta(&self) -> Option<&M> {
        self.meta.as_deref()
    }
}

impl<M> Deref for ReadSlot<M> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: this reader was counted when the slot was published, and a slot with readers is
        // not reserved, so nobody writes to it.
        unsafe { self.ring.block.bytes(self.index) }
    }
}

impl<M> Drop for ReadSlot<M> {
    fn drop(&mut self) {
        // First: metadata ends where the slot is reused, never here, unless the ring is dying.
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
