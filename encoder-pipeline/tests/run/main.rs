//! Whole runs: the location of the output, errors, pictures whose size changes, constant rates.
#![allow(clippy::unwrap_used)]

mod destination;
mod encoder;
mod errors;
mod memory;
mod resample;
mod sizes;
