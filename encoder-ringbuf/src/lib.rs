#![doc = include_str!("../README.md")]

mod block;
mod consumer;
mod producer;
mod shared;
mod snapshot;
mod state;
mod sync;

use thiserror::Error;

pub use consumer::{Consumer, Next, ReadSlot};
pub use producer::{OverOldest, Producer, WriteSlot};
pub(crate) use shared::Side;
pub use snapshot::{Monitor, Snapshot};

/// The size of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingOptions {
    /// Frames that fit in: at least 2.
    pub slots: usize,
    /// Bytes of one frame: at least 1.
    pub slot_bytes: usize,
}

/// Why there is no ring.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RingError {
    /// Fewer than 2 slots.
    #[error("a ring of {slots} slots cannot be filled and read at once; give it at least 2")]
    TooFewSlots {
        /// What was asked for.
        slots: usize,
    },
    /// Slots of no bytes.
    #[error("slots of 0 bytes hold no frame; give them the size of a frame")]
    EmptySlots,
    /// More bytes than the address space has.
    #[error("{slots} slots of {slot_bytes} bytes are more than can be addressed; use fewer slots")]
    TooLarge {
        /// What was asked for.
        slots: usize,
        /// What was asked for.
        slot_bytes: usize,
    },
    /// The system did not give the memory.
    #[error("the system refused {bytes} bytes for the ring; use fewer slots")]
    OutOfMemory {
        /// What was asked of the system.
        bytes: usize,
    },
}

/// The consumer is gone, so frames would go nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the ring was closed by its consumer")]
pub struct Closed;

/// Makes a ring: one zeroed block of memory, in which every slot starts on a page
/// (4096 bytes). It is the only allocation for frames that there ever is.
///
/// `M` is what is told of each frame at its publication. Frames may be held by several readers at
/// once, so it is shared between threads.
///
/// # Errors
/// [`RingError`] for fewer than 2 slots, slots of 0 bytes, or more memory than there is.
pub fn ring<M: Send + Sync>(options: RingOptions) -> Result<(Producer<M>, Consumer<M>), RingError> {
    let ring = sync::Arc::new(shared::Ring::new(&options)?);
    Ok((Producer { ring: ring.clone() }, Consumer { ring }))
}
