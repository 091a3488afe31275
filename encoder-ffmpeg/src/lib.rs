#![doc = include_str!("../README.md")]
//!
//! FFmpeg children: find FFmpeg, read its version and encoders, host an encoder in it, cut its output
//! into access units, probe an encoder by a real encode, name the causes of its failures, and decode
//! video files.
//!
//! A backend describes its encoder as an [`FfmpegSpec`] and calls [`open`] and [`test_encode`].
//! Frames go in as raw video on stdin; access units come out as FLV on stdout, because FLV carries
//! the length and the presentation time of each access unit, so that nothing has to be guessed from
//! the bit stream. The backend's [`Rule`]s define the meaning of lines of FFmpeg's log.
//!
//! [`VideoDecoder`] decodes a video file. [`process`] runs any other child.
//!
//! # Example
//! The command line of a backend's encoder:
//! ```
//! use encoder_core::{EncoderConfig, EncoderType, FrameRate, Resolution};
//! use encoder_ffmpeg::{FfmpegSpec, Version, arguments};
//!
//! let spec = FfmpegSpec::new(EncoderType::new("mine"), "h264_mine", &EncoderConfig::default())
//!     .with_options("-quality 23 -g 30");
//! let version = Version::parse("ffmpeg version 5.1.6-0+deb12u1 Copyright (c) the FFmpeg developers");
//! let all = arguments(&spec, version, Resolution::new(640, 480), FrameRate::default()).join(" ");
//! assert!(all.contains("-s 640x480 -framerate 30"));
//! assert!(all.contains("-c:v h264_mine -quality 23 -g 30"));
//! ```

mod args;
mod classify;
mod decode;
mod decode_log;
mod decode_stream;
mod error_watch;
mod find;
mod flv;
mod guard;
pub mod helper;
mod hosted;
mod line;
mod options;
mod order;
mod probe;
pub mod process;
pub mod render;
mod rule;
mod sys;
mod tail;
mod version;
mod wait;

pub use args::{
    EQUAL_QUANTISERS, FfmpegSpec, PROBE_SIZE, STALL, START, TAG_COLOURS, arguments, bit_rate,
};
pub use classify::classify;
pub use decode::{DECODE_STALL, DecodeError, Ending, VideoDecoder};
pub use decode_log::{Marks, PictureInfo, Totals};
pub use decode_stream::{Hdr, VideoStream};
pub use find::{ENV, Ffmpeg, OLDEST, Search, not_listed};
pub use flv::{AccessUnit, FlvError, FlvParser};
pub use hosted::{HostedEncoder, open};
pub use options::{misconfigured, read_options, refusal};
pub use probe::{
    Feature, identity, test_encode, test_encode_b_frames, test_encode_features, test_encode_with,
};
pub use process::Exit;
pub use render::LIBRARY_FOLDERS;
pub use rule::{Rule, hints};
pub use version::Version;

encoder_core::opaque_debug!(HostedEncoder = "HostedEncoder");
