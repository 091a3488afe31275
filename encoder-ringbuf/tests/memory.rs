//! Rings with their own allocator.
#![cfg(not(ring_loom))]
#![allow(clippy::unwrap_used)]

use std::{
    alloc::{Layout, alloc, dealloc},
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use encoder_ringbuf::{
    Heap, PAGE, Producer, RingError, RingOptions, SlotAllocator, SlotMemory, ring, ring_in,
};

/// Fills its memory with one value and counts the blocks that are in use.
#[derive(Clone, Debug, Default)]
struct Counting {
    blocks: Arc<AtomicUsize>,
    asked: Arc<AtomicUsize>,
    most: Option<usize>,
    /// Bytes by which blocks miss the start of a page.
    shift: usize,
}

struct Block {
    start: NonNull<u8>,
    layout: Layout,
    blocks: Arc<AtomicUsize>,
    shift: usize,
}

impl SlotAllocator for Counting {
    fn allocate(&self, bytes: usize) -> Option<Box<dyn SlotMemory>> {
        self.asked.store(bytes, SeqCst);
        if self.most.is_some_and(|most| bytes > most) {
            return None;
        }
        let layout = Layout::from_size_align(bytes + PAGE, PAGE).unwrap();
        // SAFETY: the size is not 0.
        let start = NonNull::new(unsafe { alloc(layout) }).unwrap();
        // SAFETY: the allocation has `layout.size()` bytes.
        unsafe { start.write_bytes(7, layout.size()) };
        self.blocks.fetch_add(1, SeqCst);
        Some(Box::new(Block { start, layout, blocks: self.blocks.clone(), shift: self.shift }))
    }
}

// SAFETY: unless `shift` breaks the contract on purpose, `start` lies on a page, and the bytes
// after it are initialised, do not move and belong to this value alone.
unsafe impl SlotMemory for Block {
    fn start(&self) -> NonNull<u8> {
        // SAFETY: the allocation is a page longer than requested.
        unsafe { self.start.add(self.shift) }
    }
}

// SAFETY: the value owns its allocation.
unsafe impl Send for Block {}
// SAFETY: `&Block` returns an address only.
unsafe impl Sync for Block {}

impl Drop for Block {
    fn drop(&mut self) {
        self.blocks.fetch_sub(1, SeqCst);
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

#[test]
fn a_ring_has_its_slots_in_the_memory_of_its_allocator() {
    let memory = Counting::default();
    let options = RingOptions { slots: 3, slot_bytes: PAGE + 1 };
    let (mut producer, mut consumer) = ring_in::<u64>(options, &memory).unwrap();
    assert_eq!((memory.blocks.load(SeqCst), memory.asked.load(SeqCst)), (1, 6 * PAGE));
    let mut starts = Vec::new();
    for n in 0..3u8 {
        let mut slot = producer.reserve().unwrap();
        assert_eq!(slot.len(), PAGE + 1);
        assert!(slot.iter().all(|&byte| byte == 7), "the allocator's own bytes");
        starts.push(slot.as_ptr().addr());
        slot.fill(n + 10);
        slot.publish(n.into());
    }
    starts.sort_unstable();
    assert!(starts.iter().all(|start| start.is_multiple_of(PAGE)), "{starts:?}");
    assert_eq!((starts[1] - starts[0], starts[2] - starts[1]), (2 * PAGE, 2 * PAGE));
    let slot = consumer.next().unwrap();
    assert!(slot.iter().all(|&byte| byte == 10));
    // The memory lives as long as the last slot.
    drop((producer, consumer));
    assert_eq!(memory.blocks.load(SeqCst), 1);
    assert!(slot.iter().all(|&byte| byte == 10));
    drop(slot);
    assert_eq!(memory.blocks.load(SeqCst), 0);
}

#[test]
fn an_allocator_without_memory_is_an_error_and_wrong_options_do_not_reach_it() {
    let memory = Counting { most: Some(4 * PAGE), ..Counting::default() };
    let of = |slots, slot_bytes| {
        ring_in::<()>(RingOptions { slots, slot_bytes }, &memory).map(|_| ()).err()
    };
    assert_eq!(of(4, PAGE), None);
    assert_eq!(of(5, PAGE), Some(RingError::OutOfMemory { bytes: 5 * PAGE }));
    assert_eq!(memory.asked.swap(0, SeqCst), 5 * PAGE);
    assert_eq!(of(1, PAGE), Some(RingError::TooFewSlots { slots: 1 }));
    assert_eq!(of(2, 0), Some(RingError::EmptySlots));
    let most = usize::MAX / 4;
    assert_eq!(of(2, most), Some(RingError::TooLarge { slots: 2, slot_bytes: most }));
    assert_eq!((memory.asked.load(SeqCst), memory.blocks.load(SeqCst)), (0, 0));
}

#[test]
#[should_panic(expected = "broke its contract")]
fn memory_that_misses_a_page_is_not_used() {
    let memory = Counting { shift: 64, ..Counting::default() };
    drop(ring_in::<()>(RingOptions { slots: 2, slot_bytes: 1 }, &memory));
}

#[test]
fn the_heap_is_the_default_allocator() {
    let options = RingOptions { slots: 2, slot_bytes: 100 };
    let zeroed = |mut producer: Producer<()>| {
        let slot = producer.reserve().unwrap();
        slot.as_ptr().addr().is_multiple_of(PAGE) && slot.iter().all(|&byte| byte == 0)
    };
    assert!(zeroed(ring(options).unwrap().0));
    assert!(zeroed(ring_in(options, &Heap).unwrap().0));
    assert!(Heap.allocate(usize::MAX - 5).is_none(), "sizes that no layout has");
}
