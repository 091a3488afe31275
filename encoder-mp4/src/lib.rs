//! Writes access units to files: MP4 and raw H.264 streams.
//!
//! A [`Sink`] receives access units in decoding order with the recorded times of their frames. When
//! each frame is displayed is known at the end, when the whole recording was seen
//! ([`encoder_media::timeline`]).
//!
//! An MP4 file grows as a fragmented one, by whole fragments, also where a progressive file is
//! wanted: so what a crash leaves of it plays. It carries the recorded times, and the progressive
//! file is made from it alone: at the end, or after a crash by [`Recovery`].
//!
//! [`StreamReader`] reads the parameter sets and slice headers of a stream that was recorded as
//! H.264.

mod annexb;
mod avc;
mod boxes;
mod fragment;
mod fragment_reader;
mod h264;
mod mp4;
mod output;
mod part_file;
mod progressive;
mod record;
mod recovery;
mod track;

pub use annexb::AnnexBSink;
pub use encoder_media::{CallbackSink, Finished, Location, Sink, SinkError};
pub use fragment_reader::PartError;
pub use h264::{CodedPicture, Colour, Content, Sps, StreamError, StreamReader};
pub use mp4::{Mp4Options, Mp4Sink, OutputMode};
pub use output::OutputFile;
pub use part_file::is_being_written;
pub use recovery::{Recovery, repaired_name};
