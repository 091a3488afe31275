//! What the tests have in common: the program, with a virtual device where one is needed.
#![allow(dead_code, unused_imports, unreachable_pub, clippy::unwrap_used)]

#[cfg(target_os = "linux")]
pub mod device;
pub mod program;

pub use encoder_testbed::fixtures::{EPOCH, MS, S, bag, decode, entries, mp4, picture, recording};
