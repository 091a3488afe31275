//! The virtual NVENC device with the real FFmpeg: with each installed version, pictures are
//! restored bit for bit at every setting, settings reach the device, and faults have their expected
//! effect.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod config;
mod exact;
mod faults;
mod ffmpeg;
mod nvml;
mod sessions;
mod strict;
mod wrong;

use encoder_testbed::{nvenc::VirtualNvenc, or_left_out};

/// A device without faults, if one can be made.
fn device() -> Option<VirtualNvenc> {
    or_left_out(VirtualNvenc::new())
}
