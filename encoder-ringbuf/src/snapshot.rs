use std::{fmt, time::Duration};

use crate::{shared::Shared, sync::Arc};

/// Fill level, cursors and waits of a ring at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Slots in the ring.
    pub capacity: usize,
    /// Frames that are reserved and not committed.
    pub len: usize,
    /// Frames that are published, with all before them, and not read: `written - read`.
    pub readable: usize,
    /// Frames that are read and not committed: `read - committed`. After a rewind they are read
    /// again.
    pub in_flight: usize,
    /// Write cursor: the first frame that is not published.
    pub written: u64,
    /// Read cursor: the frame that is read next.
    pub read: u64,
    /// Commit cursor: the first frame that is not committed.
    pub committed: u64,
    /// The largest `len` so far.
    pub high_water: usize,
    /// How often the producer had to wait for a free slot, because the consumer is slower.
    pub producer_waits: u64,
    /// How often the consumer had to wait for a frame, because the producer is slower.
    pub consumer_waits: u64,
    /// How long the producer waited, the current wait included.
    pub producer_wait: Duration,
    /// How long the consumer waited, the current wait included.
    pub consumer_wait: Duration,
}

/// Takes snapshots from any thread, for metrics. Cheap to clone. Keeps neither the frames' memory
/// nor the metadata alive: after the end of the ring it returns the last state.
pub struct Monitor<M> {
    pub(crate) shared: Arc<Shared<M>>,
}

impl<M> Monitor<M> {
    /// Fill level, cursors and waits at this moment.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.snapshot()
    }
}

impl<M> Clone for Monitor<M> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<M> fmt::Debug for Monitor<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Monitor").field(&self.snapshot()).finish()
    }
}
