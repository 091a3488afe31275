//! What the tests have in common: pictures that say which frame they are, recordings made of
//! them, the program, and a decoder from elsewhere.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod bag;
pub mod decode;
#[cfg(target_os = "linux")]
pub mod device;
pub mod mp4;
pub mod picture;
pub mod program;
pub mod recording;

/// A second in nanoseconds.
pub const S: i64 = 1_000_000_000;
/// A millisecond in nanoseconds.
pub const MS: i64 = 1_000_000;
/// A plausible moment for a recording to start, in nanoseconds since the epoch.
pub const EPOCH: i64 = 1_760_000_000 * S;
