//! The virtual NVENC device with the real FFmpeg: in each version that there is, every setting
//! comes back bit for bit, arrives as it was asked for, and every fault looks as it should.
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

/// A healthy device, where one can be made.
fn device() -> Option<VirtualNvenc> {
    or_left_out(VirtualNvenc::new())
}
