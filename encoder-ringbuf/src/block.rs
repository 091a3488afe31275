//! The slots in the memory of a ring.

use std::{ptr::NonNull, slice};

use crate::{
    RingError, RingOptions,
    memory::{PAGE, SlotAllocator, SlotMemory},
    sync::Access,
};

/// One block of memory, cut into slots that each start on a page.
pub(crate) struct Block {
    /// Owns the bytes behind `start`.
    _memory: Box<dyn SlotMemory>,
    /// The result of [`SlotMemory::start`], stored so that access to a slot needs no virtual call.
    start: NonNull<u8>,
    /// Bytes from one slot to the next.
    stride: usize,
    slot_bytes: usize,
    access: Vec<Access>,
}

// SAFETY: the block owns its memory, which is `Send`.
unsafe impl Send for Block {}
// SAFETY: `&Block` reaches the memory through `bytes` and `bytes_mut` only, whose callers guarantee
// that nothing else writes to the same slot.
unsafe impl Sync for Block {}

impl Block {
    pub(crate) fn new(
        options: &RingOptions,
        allocator: &dyn SlotAllocator,
    ) -> Result<Self, RingError> {
        let RingOptions { slots, slot_bytes } = *options;
        if slots < 2 {
            return Err(RingError::TooFewSlots { slots });
        }
        if slot_bytes == 0 {
            return Err(RingError::EmptySlots);
        }
        let too_large = || RingError::TooLarge { slots, slot_bytes };
        let stride = options.slot_stride().ok_or_else(too_large)?;
        let bytes = options.bytes().ok_or_else(too_large)?;
        let out_of_memory = || RingError::OutOfMemory { bytes };

        let mut access = Vec::new();
        access.try_reserve_exact(slots).map_err(|_| out_of_memory())?;
        access.resize_with(slots, Access::default);
        let memory = allocator.allocate(bytes).ok_or_else(out_of_memory)?;
        let start = memory.start();
        assert!(start.addr().get() % PAGE == 0, "{allocator:?} broke its contract: no page");
        Ok(Self { _memory: memory, start, stride, slot_bytes, access })
    }

    fn slot(&self, index: usize) -> *mut u8 {
        assert!(index < self.access.len(), "slot {index} of {}", self.access.len());
        // SAFETY: index < slots, so the offset lies inside the requested slots × stride bytes.
        unsafe { self.start.as_ptr().add(index * self.stride) }
    }

    /// The bytes of a slot, to read.
    ///
    /// # Safety
    /// Nothing writes to this slot while the result is alive.
    pub(crate) unsafe fn bytes(&self, index: usize) -> &[u8] {
        let start = self.slot(index);
        self.access[index].read();
        // SAFETY: `slot_bytes` ≤ stride, so the slice lies inside the slot; the contract of
        // `SlotMemory` makes it initialised; the caller rules out writers.
        unsafe { slice::from_raw_parts(start, self.slot_bytes) }
    }

    /// The bytes of a slot, to write.
    ///
    /// # Safety
    /// Nothing else reads or writes this slot while the result is alive.
    #[allow(clippy::mut_from_ref)] // The caller's promise stands in for the exclusive reference.
    pub(crate) unsafe fn bytes_mut(&self, index: usize) -> &mut [u8] {
        let start = self.slot(index);
        self.access[index].write();
        // SAFETY: as in `bytes`; the caller rules out readers and other writers.
        unsafe { slice::from_raw_parts_mut(start, self.slot_bytes) }
    }
}
