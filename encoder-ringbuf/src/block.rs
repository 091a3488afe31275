//! The memory of the slots.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    ptr::NonNull,
    slice,
};

use crate::{RingError, RingOptions, sync::Access};

/// Alignment of the block and of every slot in it.
pub(crate) const PAGE: usize = 4096;

/// What any allocator gives zeroed without touching it: the memory comes when a slot is first
/// written, and a large ring costs no time to make.
const UNTOUCHED: usize = 16;

/// One zeroed allocation, cut into slots that each start on a page.
pub(crate) struct Block {
    allocation: NonNull<u8>,
    layout: Layout,
    /// The first page that begins in the allocation.
    start: NonNull<u8>,
    /// Bytes from one slot to the next.
    stride: usize,
    slot_bytes: usize,
    access: Vec<Access>,
}

// SAFETY: the block owns its memory, which has no thread affinity.
unsafe impl Send for Block {}
// SAFETY: `&Block` reaches the memory through `bytes` and `bytes_mut` only, whose callers promise
// that nobody else writes to the same slot.
unsafe impl Sync for Block {}

impl Block {
    pub(crate) fn new(options: &RingOptions) -> Result<Self, RingError> {
        let RingOptions { slots, slot_bytes } = *options;
        if slots < 2 {
            return Err(RingError::TooFewSlots { slots });
        }
        if slot_bytes == 0 {
            return Err(RingError::EmptySlots);
        }
        let (stride, layout) = slot_bytes
            .checked_next_multiple_of(PAGE)
            .and_then(|stride| Some((stride, stride.checked_mul(slots)?)))
            .and_then(|(stride, total)| Some((stride, total.checked_add(PAGE)?)))
            .and_then(|(stride, total)| {
                Some((stride, Layout::from_size_align(total, UNTOUCHED).ok()?))
            })
            .ok_or(RingError::TooLarge { slots, slot_bytes })?;
        let out_of_memory = || RingError::OutOfMemory { bytes: layout.size() - PAGE };

        let mut access = Vec::new();
        access.try_reserve_exact(slots).map_err(|_| out_of_memory())?;
        access.resize_with(slots, Access::default);
        // SAFETY: the size is not 0, since neither `slots` nor `slot_bytes` is.
        let allocation = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(out_of_memory)?;
        let to_page = allocation.addr().get().wrapping_neg() % PAGE;
        // SAFETY: less than a page, and the allocation is a page longer than the slots.
        let start = unsafe { allocation.add(to_page) };
        Ok(Self { allocation, layout, start, stride, slot_bytes, access })
    }

    fn slot(&self, index: usize) -> *mut u8 {
        assert!(index < self.access.len(), "slot {index} of {}", self.access.len());
        // SAFETY: index < slots, so the offset stays inside the slots × stride bytes from `start` on.
        unsafe { self.start.as_ptr().add(index * self.stride) }
    }

    /// The bytes of a slot, to read.
    ///
    /// # Safety
    /// Nobody writes to this slot while the result is alive.
    pub(crate) unsafe fn bytes(&self, index: usize) -> &[u8] {
        let start = self.slot(index);
        self.access[index].read();
        // SAFETY: `slot_bytes` ≤ stride, so the slice lies inside the slot; it was zeroed, so it is
        // initialised; the caller rules out writers.
        unsafe { slice::from_raw_parts(start, self.slot_bytes) }
    }

    /// The bytes of a slot, to write.
    ///
    /// # Safety
    /// Nobody else reads or writes this slot while the result is alive.
    #[allow(clippy::mut_from_ref)] // The caller's promise stands in for the exclusive reference.
    pub(crate) unsafe fn bytes_mut(&self, index: usize) -> &mut [u8] {
        let start = self.slot(index);
        self.access[index].write();
        // SAFETY: as in `bytes`; the caller rules out readers and other writers.
        unsafe { slice::from_raw_parts_mut(start, self.slot_bytes) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout; the last owner is gone, and every reference
        // to the bytes borrowed from an owner.
        unsafe { dealloc(self.allocation.as_ptr(), self.layout) }
    }
}
