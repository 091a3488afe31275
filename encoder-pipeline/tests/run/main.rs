//! Whole runs: where the output goes, what errors there are, pictures whose size changes.
#![allow(clippy::unwrap_used)]

mod destination;
mod encoder;
mod errors;
mod memory;
mod sizes;
