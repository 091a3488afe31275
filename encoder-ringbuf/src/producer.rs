use std::{
    fmt,
    ops::{Deref, DerefMut},
    time::Duration,
};

use crate::{
    Closed, Monitor, Snapshot,
    shared::{Ring, Side, deadline},
    state::{Reserved, State},
    sync::Arc,
};

/// The end that reserves slots. The order of reservation is the order of the frames, so there is
/// one producer; several threads may fill and publish its slots, in any order.
///
/// Dropping it ends the stream: the consumer reads the frames that are in the ring, then `None`.
pub struct Producer<M> {
    pub(crate) ring: Arc<Ring<M>>,
}

impl<M> Producer<M> {
    /// Reserves the slot of the next frame; blocks while no slot is free.
    ///
    /// # Errors
    /// [`Closed`] as soon as the consumer is dropped, also during the wait.
    pub fn reserve(&mut self) -> Result<WriteSlot<M>, Closed> {
        match self.ring.shared.wait(Side::Producer, None, State::reserve) {
            Some(reserved) => reserved.map(|reserved| self.write_slot(reserved)),
            // Without a deadline the wait always returns a slot or an error.
            None => Err(Closed),
        }
    }

    /// As [`reserve`](Self::reserve), but waits no longer than `timeout`: then `None`.
    ///
    /// # Errors
    /// As [`reserve`](Self::reserve).
    pub fn reserve_timeout(&mut self, timeout: Duration) -> Result<Option<WriteSlot<M>>, Closed> {
        let reserved = self.ring.shared.wait(Side::Producer, deadline(timeout), State::reserve);
        reserved.map(|reserved| reserved.map(|reserved| self.write_slot(reserved))).transpose()
    }

    /// As [`reserve`](Self::reserve), but never waits: `None` if there is no free slot.
    ///
    /// # Errors
    /// As [`reserve`](Self::reserve).
    pub fn try_reserve(&mut self) -> Result<Option<WriteSlot<M>>, Closed> {
        self.reserve_timeout(Duration::ZERO)
    }

    /// As [`try_reserve`](Self::try_reserve), but drops the oldest frame that is published and was
    /// never read if there is no free slot: for live sources, whose newest frames matter most.
    /// [`OverOldest::dropped`] is the metadata of the dropped frame, if there was one (`Some(None)`
    /// if that frame was abandoned).
    ///
    /// `None` if all frames in the ring are being written or were read: none can be dropped.
    ///
    /// # Errors
    /// As [`reserve`](Self::reserve).
    pub fn try_reserve_over_oldest(&mut self) -> Result<Option<OverOldest<M>>, Closed> {
        let now = deadline(Duration::ZERO);
        let shared = &self.ring.shared;
        match shared.wait(Side::Producer, now, State::reserve_over_oldest).transpose()? {
            None => Ok(None),
            Some((mut reserved, is_over)) => {
                // The slot of the dropped frame was the next free slot, so it is the reserved slot.
                let dropped = is_over.then(|| reserved.stale.take());
                Ok(Some(OverOldest { slot: self.write_slot(reserved), dropped }))
            }
        }
    }

    /// As [`reserve`](Self::reserve), for a task of any executor. Cancel-safe: a future that is
    /// dropped before it is ready reserves no slot.
    ///
    /// # Errors
    /// As [`reserve`](Self::reserve).
    pub async fn reserve_async(&mut self) -> Result<WriteSlot<M>, Closed> {
        let reserved = self.ring.shared.wait_async(Side::Producer, State::reserve).await;
        reserved.map(|reserved| self.write_slot(reserved))
    }

    fn write_slot(&self, reserved: Reserved<M>) -> WriteSlot<M> {
        let Reserved { seq, index, stale } = reserved;
        let slot = WriteSlot { ring: self.ring.clone(), seq, index, meta: None };
        // The old metadata is dropped only now: if its drop panics, the slot is abandoned instead
        // of leaked.
        drop(stale);
        slot
    }

    /// Ends the stream: the consumer reads the frames that are in the ring, and waits for slots
    /// that are still being filled. The same as dropping the producer.
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

impl<M> Drop for Producer<M> {
    fn drop(&mut self) {
        self.ring.shared.close(Side::Producer);
    }
}

impl<M> fmt::Debug for Producer<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Producer").field(&self.snapshot()).finish()
    }
}

/// The result of [`Producer::try_reserve_over_oldest`].
#[derive(Debug)]
pub struct OverOldest<M> {
    /// The slot of the next frame.
    pub slot: WriteSlot<M>,
    /// The metadata of the frame that was dropped for it, if there was one.
    pub dropped: Option<Option<std::sync::Arc<M>>>,
}

/// A slot to fill. It contains the bytes of an earlier frame, or zeros.
///
/// Dropping a slot unpublished (its worker failed or panicked) publishes it as *abandoned*, so that
/// the frames behind it become readable.
pub struct WriteSlot<M> {
    ring: Arc<Ring<M>>,
    seq: u64,
    index: usize,
    meta: Option<std::sync::Arc<M>>,
}

impl<M> WriteSlot<M> {
    /// The frame's number, counted from 0 in the order of reservation.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Makes the frame readable as soon as all frames before it are.
    pub fn publish(mut self, meta: M) {
        self.meta = Some(std::sync::Arc::new(meta));
    }
}

impl<M> Deref for WriteSlot<M> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: from reservation to publication the slot belongs to this value alone, and
        // `deref_mut` needs it mutable.
        unsafe { self.ring.block.bytes(self.index) }
    }
}

impl<M> DerefMut for WriteSlot<M> {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: from reservation to publication the slot belongs to this value alone.
        unsafe { self.ring.block.bytes_mut(self.index) }
    }
}

impl<M> Drop for WriteSlot<M> {
    fn drop(&mut self) {
        let meta = self.meta.take();
        self.ring.shared.change(Side::Consumer, |state| state.publish(self.index, meta));
    }
}

impl<M> fmt::Debug for WriteSlot<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteSlot").field("seq", &self.seq).finish_non_exhaustive()
    }
}
