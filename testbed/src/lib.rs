//! Test doubles for hardware and FFmpeg: virtual encoder devices, which the real FFmpeg drives, and
//! a scripted program in place of FFmpeg.
//!
//! The devices are C libraries that are compiled when a test first asks for them, with the C
//! compiler and the vendors' public headers that `cargo xtask setup` provides.

mod compile;
pub mod ffmpeg;
pub mod fixtures;
pub mod flv;
mod log;
pub mod nvenc;
#[cfg(target_os = "linux")]
pub mod process;
pub mod qsv;
#[cfg(unix)]
pub mod scripted;
pub mod source;
#[cfg(target_os = "linux")]
pub mod stuck;

pub use compile::{Missing, or_left_out};
