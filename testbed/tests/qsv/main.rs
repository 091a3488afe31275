//! The virtual Quick Sync device with the real FFmpeg: in each version that there is, every
//! setting comes back bit for bit, arrives as it was asked for, and every fault looks as it should.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod config;
mod exact;
mod faults;
mod ffmpeg;
mod node;
mod vaapi;

use encoder_testbed::{or_left_out, qsv::VirtualQsv};

/// A healthy device, where one can be made.
fn device() -> Option<VirtualQsv> {
    or_left_out(VirtualQsv::new())
}
