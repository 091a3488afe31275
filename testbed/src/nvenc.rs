//! The virtual NVENC device.
