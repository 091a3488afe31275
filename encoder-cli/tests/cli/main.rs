//! The program, as its users run it. One test program for all of it, because linking is slow.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod bad_input;
mod bench;
mod colours;
mod copy;
mod crash;
mod detection;
mod folders;
mod frames;
mod messages;
mod mp4;
mod orphans;
mod output;
mod pictures;
mod program;
mod prometheus;
mod publishers;
mod recordings;
mod signals;
mod streams;
mod times;
