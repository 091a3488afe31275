//! The memory of a ring and its allocators.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    fmt,
    ptr::NonNull,
};

/// Alignment of a ring's memory and of every slot in it, in bytes.
pub const PAGE: usize = 4096;

/// Allocates the memory of a ring.
///
/// A ring calls its allocator once, when it is made, and frees the memory when the last end and the
/// last slot are dropped. Frames cause no calls.
pub trait SlotAllocator: fmt::Debug + Send + Sync {
    /// Allocates one block of at least `bytes` bytes; `bytes` is a multiple of [`PAGE`]. `None` if
    /// there is not enough memory, which [`ring_in`](crate::ring_in) reports as
    /// [`RingError::OutOfMemory`](crate::RingError::OutOfMemory).
    fn allocate(&self, bytes: usize) -> Option<Box<dyn SlotMemory>>;
}

/// One block of memory from a [`SlotAllocator`]. Dropping it frees the block.
///
/// # Safety
/// [`start`](Self::start) returns the same address at every call, also after the value was moved.
/// The bytes that [`SlotAllocator::allocate`] was called for start at that address. They are
/// initialised, the CPU can read and write them from any thread, they start on a multiple of
/// [`PAGE`], and nothing else reads or writes them until the value is dropped.
pub unsafe trait SlotMemory: Send + Sync {
    /// The first byte.
    fn start(&self) -> NonNull<u8>;
}

/// The allocator of [`ring`](crate::ring): zeroed memory of the program's global allocator.
///
/// The system provides each page when it is first written, so a large ring costs no time to make,
/// and slots that are never used cost no memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heap;

impl SlotAllocator for Heap {
    fn allocate(&self, bytes: usize) -> Option<Box<dyn SlotMemory>> {
        Some(Box::new(HeapBlock::new(bytes)?))
    }
}

/// With this alignment, global allocators return zeroed memory without writing to it. With a larger
/// one they allocate and then write zeros.
const UNTOUCHED: usize = 16;

/// A zeroed allocation that is one page longer than requested, so that it contains the start of a
/// page.
struct HeapBlock {
    allocation: NonNull<u8>,
    layout: Layout,
    start: NonNull<u8>,
}

impl HeapBlock {
    fn new(bytes: usize) -> Option<Self> {
        let layout = Layout::from_size_align(bytes.checked_add(PAGE)?, UNTOUCHED).ok()?;
        // SAFETY: the size is at least `PAGE`, so it is not 0.
        let allocation = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        let to_page = allocation.addr().get().wrapping_neg() % PAGE;
        // SAFETY: `to_page` is less than `PAGE`, and the allocation is `PAGE` bytes longer than
        // `bytes`.
        let start = unsafe { allocation.add(to_page) };
        Some(Self { allocation, layout, start })
    }
}

// SAFETY: `start` lies on a page and is followed by the requested `bytes`, all zeroed. The
// allocation belongs to this value alone and does not move with it.
unsafe impl SlotMemory for HeapBlock {
    fn start(&self) -> NonNull<u8> {
        self.start
    }
}

// SAFETY: the value owns its allocation, which has no thread affinity.
unsafe impl Send for HeapBlock {}
// SAFETY: `&HeapBlock` hands out an address and reads or writes nothing.
unsafe impl Sync for HeapBlock {}

impl Drop for HeapBlock {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and freed once, here. By the contract of
        // `SlotMemory` nothing uses the bytes after the drop.
        unsafe { dealloc(self.allocation.as_ptr(), self.layout) }
    }
}
