//! Whole runs: the location of the output, errors, and pictures whose size changes.
#![allow(clippy::unwrap_used)]

mod destination;
mod encoder;
mod errors;
mod memory;
mod sizes;
