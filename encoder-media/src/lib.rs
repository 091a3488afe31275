//! The types shared by recordings, encoders and files.
//!
//! A [`Source`] returns [`Event`]s: camera streams ([`StreamInfo`]) and their messages
//! ([`Packet`]), each with a picture as it was recorded ([`Payload`]). Sources read their input by
//! offset ([`ReadAt`]), from a file or from elsewhere. A [`Sink`] receives the
//! access units of one video with the recorded times of their frames; [`timeline`] maps these times
//! to ticks. A [`Destination`] makes the sinks of a whole recording.

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
