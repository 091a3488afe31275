//! The virtual Quick Sync device with the real FFmpeg: with each installed version, pictures are
//! restored bit for bit at every setting, settings reach the device, and faults have their expected
//! effect.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod config;
mod exact;
mod faults;
mod ffmpeg;
mod node;
mod vaapi;

use encoder_testbed::{or_left_out, qsv::VirtualQsv};

/// A device without faults, if one can be made.
fn device() -> Option<VirtualQsv> {
    or_left_out(VirtualQsv::new())
}
