//! The synchronisation primitives: those of `std`, or those of `loom` for the model tests.

#[cfg(not(ring_loom))]
pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard};

#[cfg(ring_loom)]
pub(crate) use loom::sync::{Arc, Condvar, Mutex, MutexGuard};

/// Reports every access to the bytes of one slot to loom, which cannot see accesses through raw
/// pointers. Compiles to nothing without loom.
#[derive(Default)]
pub(crate) struct Access {
    #[cfg(ring_loom)]
    cell: loom::cell::UnsafeCell<()>,
}

impl Access {
    #[inline]
    pub(crate) fn read(&self) {
        #[cfg(ring_loom)]
        self.cell.with(|_| ());
    }

    #[inline]
    pub(crate) fn write(&self) {
        #[cfg(ring_loom)]
        self.cell.with_mut(|_| ());
    }
}
