//! The FFmpeg child process that hosts encoder backends: find it, know its version and encoders,
//! run it hygienically, cut its output into access units, probe an encoder by a real encode, and
//! put a name to its failures.
//!
//! A backend describes what it wants as a [`FfmpegSpec`] and calls [`open`] and [`test_encode`]. Frames
//! go in as raw video on stdin; access units come back as FLV on stdout, because FLV frames each
//! access unit with its length and its presentation time, so that nothing has to be guessed from
//! the bit stream.

mod args;
mod child;
mod classify;
mod find;
mod flv;
mod hosted;
mod options;
mod probe;
pub mod render;
mod run;
mod sys;
mod tail;

pub use args::{FfmpegSpec, PROBE_SIZE, STALL, START, TAG_COLOURS, arguments};
pub use child::Exit;
pub use classify::{classify, not_listed};
pub use find::{ENV, Ffmpeg, OLDEST, Version};
pub use flv::{AccessUnit, FlvError, FlvParser};
pub use hosted::{HostedEncoder, open};
pub use options::{misconfigured, read_options};
pub use probe::{Feature, identity, test_encode, test_encode_features, test_encode_with};
