//! Where frames come from: recordings, directories, streams.
//!
//! A [`Source`] gives [`Event`]s one after another, in log-time order where the recording allows
//! it, and holds a bounded amount of memory. It opens containers and messages but no pictures:
//! what is inside a [`Payload`] is the business of [`crate::picture`].

#[cfg(test)]
mod corpus;
mod detect;
mod filter;
mod images;
pub(crate) mod mcap;
pub(crate) mod message;
mod raw;
pub(crate) mod rosbag1;
mod rosbag2;
mod sqlite;
mod video;
mod y4m;

pub use detect::{open, open_raw, open_stdin};
pub use encoder_media::{
    BadMessage, Event, Limits, Moment, Packet, Payload, RawImage, Source, SourceError,
    SourceOptions, StreamId, StreamInfo, Warning,
};
pub use raw::RawSpec;
