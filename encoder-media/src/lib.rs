#![doc = include_str!("../README.md")]
//!
//! The types shared by recordings, encoders and files.
//!
//! A [`Source`] returns [`Event`]s: camera streams ([`StreamInfo`]) and their messages
//! ([`Packet`]), each with a picture as it was recorded ([`Payload`]). Sources read their input by
//! offset ([`ReadAt`]), from a file or from elsewhere. A [`Sink`] receives the
//! access units of one video with the recorded times of their frames; [`timeline`] maps these times
//! to ticks. A [`Destination`] makes the sinks of a whole recording.
//!
//! # Example
//! The display times of five frames whose stamps come late by up to 2 ms, and of which one was lost:
//! ```
//! use encoder_core::FrameRate;
//! use encoder_media::timeline::{Clock, FrameTimes, TimestampAnalysis, Timing};
//!
//! let rate = FrameRate::default();
//! let mut analysis = TimestampAnalysis::new(Timing::Recorded(Clock::Header), rate, 0);
//! let stamps_ns = [0, 41_000_000, 82_000_000, 160_000_000, 200_000_000].map(FrameTimes::at);
//! stamps_ns.iter().for_each(|times| analysis.push(times));
//!
//! let timeline = analysis.timeline();
//! assert_eq!(timeline.guessed, 0);
//! let mut ticks = timeline.ticks();
//! let seconds = |ticks: u64| ticks as f64 / f64::from(timeline.timescale());
//! let shown_s: Vec<f64> = stamps_ns.iter().map(|times| seconds(ticks.next(times))).collect();
//! assert_eq!(shown_s, [0.0, 0.041, 0.082, 0.16, 0.2]);
//! ```

mod channel;
mod destination;
mod input;
mod location;
mod payload;
mod resample;
mod sink;
mod source;
mod stop;
pub mod timeline;

pub use channel::{Attachment, ChannelId, ChannelInfo, Message, Metadata, Schema};
pub use destination::{Destination, PartInfo};
pub use input::{FileInput, InputReader, ReadAt};
pub use location::Location;
pub use payload::{BadMessage, Payload, RawImage};
pub use resample::{Fit, Grid, GridEnds, ResampleError, check_distances, resample};
pub use sink::{AccessUnit, CallbackResult, CallbackSink, Finished, Sink, SinkError};
pub use source::{
    Event, Limits, Moment, Packet, Source, SourceError, SourceOptions, StreamId, StreamInfo,
    Warning,
};
pub use stop::Stop;

encoder_core::opaque_debug!(
    dyn Source + '_ = "Source",
    dyn Sink + '_ = "Sink",
    dyn Destination + '_ = "Destination",
    {F} CallbackSink<F> = "CallbackSink",
);
