#![doc = include_str!("../README.md")]

mod block;
mod consumer;
mod memory;
mod producer;
mod shared;
mod snapshot;
mod state;
mod sync;

use thiserror::Error;

pub use consumer::{Consumer, Next, ReadSlot};
pub use memory::{Heap, PAGE, SlotAllocator, SlotMemory};
pub use producer::{OverOldest, Producer, WriteSlot};
pub(crate) use shared::Side;
pub use snapshot::{Monitor, Snapshot};

/// The size of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingOptions {
    /// The number of slots: at least 2.
    pub slots: usize,
    /// Bytes of one frame: at least 1.
    pub slot_bytes: usize,
}

impl RingOptions {
    /// Bytes that one slot takes: those of its frame, up to the next [`PAGE`]. `None` if no address
    /// space has them.
    pub const fn slot_stride(&self) -> Option<usize> {
        self.slot_bytes.checked_next_multiple_of(PAGE)
    }

    /// Bytes that the ring takes from its allocator; the [`Heap`] adds one page. `None` if no
    /// address space has them.
    pub const fn bytes(&self) -> Option<usize> {
        match self.slot_stride() {
            // One page is reserved for allocators that align the block themselves.
            Some(stride) => match stride.checked_mul(self.slots) {
                Some(bytes) if bytes <= isize::MAX as usize - PAGE => Some(bytes),
                _ => None,
            },
            None => None,
        }
    }
}

/// Why a ring could not be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RingError {
    /// Fewer than 2 slots.
    #[error("a ring of {slots} slots cannot be filled and read at once; give it at least 2")]
    TooFewSlots {
        /// Requested slots.
        slots: usize,
    },
    /// Slots of no bytes.
    #[error("slots of 0 bytes hold no frame; give them the size of a frame")]
    EmptySlots,
    /// More bytes than the address space has.
    #[error("{slots} slots of {slot_bytes} bytes are more than can be addressed; use fewer slots")]
    TooLarge {
        /// Requested slots.
        slots: usize,
        /// Requested bytes of a slot.
        slot_bytes: usize,
    },
    /// The allocator does not have enough memory.
    #[error("the system refused {bytes} bytes for the ring; use fewer slots")]
    OutOfMemory {
        /// Requested bytes.
        bytes: usize,
    },
}

/// The consumer was dropped, so further frames would not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the ring was closed by its consumer")]
pub struct Closed;

/// Makes a ring in zeroed memory of the [`Heap`]. Every slot starts on a [`PAGE`]. This is the only
/// allocation for frames; reserving and reading allocate none.
///
/// `M` is the metadata that is published with each frame. Several readers may hold a frame at once,
/// so metadata is shared between threads.
///
/// # Errors
/// [`RingError`] for fewer than 2 slots, slots of 0 bytes, or more memory than there is.
pub fn ring<M: Send + Sync>(options: RingOptions) -> Result<(Producer<M>, Consumer<M>), RingError> {
    ring_in(options, &Heap)
}

/// As [`ring`], in memory of `allocator`: page-locked memory, for example, from which a device reads
/// frames faster.
///
/// # Errors
/// As [`ring`].
///
/// # Panics
/// If the memory does not start on a [`PAGE`], against the contract of [`SlotMemory`].
pub fn ring_in<M: Send + Sync>(
    options: RingOptions,
    allocator: &dyn SlotAllocator,
) -> Result<(Producer<M>, Consumer<M>), RingError> {
    let ring = sync::Arc::new(shared::Ring::new(&options, allocator)?);
    Ok((Producer { ring: ring.clone() }, Consumer { ring }))
}
