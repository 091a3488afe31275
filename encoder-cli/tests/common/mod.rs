//! Shared helpers of the tests: the program, with a virtual device if a test needs it.
#![allow(dead_code, unused_imports, unreachable_pub, clippy::unwrap_used)]

#[cfg(target_os = "linux")]
pub mod device;
pub mod program;

pub use encoder_testbed::fixtures::{EPOCH, MS, S, bag, decode, entries, mp4, picture, recording};
