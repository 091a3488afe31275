//! The virtual Quick Sync runtime.
