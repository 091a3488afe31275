#![doc = include_str!("../README.md")]
//!
//! Reads camera frames from recordings, directories and streams.
//!
//! [`open`] recognises a recording by its first bytes and returns a [`Source`], which returns
//! [`Event`]s in log-time order where the recording allows it and holds a bounded amount of memory.
//! A source opens containers and messages but no pictures: a [`Payload`] is decoded by the crate
//! `encoder-picture`.
//!
//! # Example
//! ```
//! use encoder_recording::{Event, Payload, SourceOptions, open};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("front.y4m");
//! // Two frames of 2x2 pixels, grey and black.
//! let frames = "YUV4MPEG2 W2 H2 F25:1\nFRAME\n\x7d\x7d\x7d\x7d\x7f\x7fFRAME\n\x10\x10\x10\x10\x7f\x7f";
//! std::fs::write(&path, frames)?;
//!
//! let mut source = open(&path, &SourceOptions::default())?;
//! let mut times_ns = Vec::new();
//! while let Some(event) = source.next_event()? {
//!     match event {
//!         Event::Stream(stream) => assert_eq!(stream.topic, "front.y4m"),
//!         Event::Packet(packet) => {
//!             assert!(matches!(packet.payload, Ok(Payload::Raw(_))));
//!             times_ns.push(packet.log_ns);
//!         }
//!         Event::Warning(warning) => eprintln!("{}", warning.text),
//!         _ => {}
//!     }
//! }
//! assert_eq!(times_ns, [0, 40_000_000]);
//! # Ok(())
//! # }
//! ```

#[cfg(all(test, feature = "mcap", feature = "rosbag1", feature = "sqlite"))]
mod corpus;
#[cfg(all(test, any(feature = "mcap", feature = "rosbag1")))]
mod counted;
mod detect;
#[cfg(any(feature = "mcap", feature = "rosbag1"))]
mod file_parts;
mod filter;
#[cfg(feature = "rosbag2")]
mod folder;
mod formats;
mod frames;
mod images;
#[cfg(feature = "rosbag2")]
mod joined;
#[cfg(feature = "mcap")]
mod mcap;
#[cfg(feature = "messages")]
#[doc(hidden)]
pub mod message;
mod named_times;
mod names;
#[cfg(any(feature = "mcap", feature = "rosbag1"))]
mod order;
mod raw;
#[cfg(feature = "rosbag1")]
mod rosbag1;
#[cfg(feature = "rosbag2")]
mod rosbag2;
mod signature;
#[cfg(feature = "rosbag2")]
mod spool;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(any(feature = "mcap", feature = "rosbag1", feature = "rosbag2"))]
mod steps;
#[cfg(feature = "rosbag2")]
mod survey;
#[cfg(feature = "rosbag2")]
mod temporary;
#[cfg(feature = "video")]
mod video;
#[cfg(feature = "rosbag2")]
mod warned;
mod y4m;
#[cfg(any(feature = "mcap", feature = "sqlite"))]
mod zipped;

pub use detect::{Recording, is_pipe, open, open_raw, open_stdin, recordings};
pub use encoder_media::{
    Attachment, BadMessage, ChannelId, ChannelInfo, Event, Limits, Location, Message, Metadata,
    Moment, Packet, Payload, RawImage, ReadAt, Schema, Source, SourceError, SourceOptions,
    StreamId, StreamInfo, Warning,
};
pub use filter::{TopicGlobError, check_topic_glob};
pub use formats::open_input;
#[cfg(feature = "mcap")]
pub use mcap::McapSource;
pub use raw::RawSpec;
#[cfg(feature = "rosbag1")]
pub use rosbag1::RosbagSource;

#[cfg(feature = "mcap")]
encoder_core::opaque_debug!(McapSource = "McapSource");
#[cfg(feature = "rosbag1")]
encoder_core::opaque_debug!(RosbagSource = "RosbagSource");
