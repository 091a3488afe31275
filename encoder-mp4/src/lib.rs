//! Writes access units to files: MP4 and raw H.264 streams.
//!
//! A [`Sink`] receives access units in decoding order with the recorded times of their frames. The
//! display times are known at the end, after the whole recording was read
//! ([`encoder_media::timeline`]).
//!
//! An MP4 file is written as a fragmented file, by complete fragments, even if a progressive file
//! is requested: so a file is playable after a crash. It contains the recorded times, and the
//! progressive file is made from it alone: at the end, or after a crash by [`Recovery`].
//!
//! [`FragmentSink`] passes the same fragments to a writer or a function instead of a file. [`avc`]
//! has the parameter sets and samples for other muxers.
//!
//! [`StreamReader`] reads the parameter sets and slice headers of a stream that was recorded as
//! H.264.

mod annexb;
pub mod avc;
mod boxes;
mod fragment;
mod fragment_reader;
mod h264;
mod leftover;
mod mp4;
mod output;
mod part_file;
mod progressive;
mod record;
mod recovery;
mod segment;
mod track;

pub use annexb::AnnexBSink;
pub use encoder_media::{AccessUnit, CallbackSink, Finished, Location, Sink, SinkError};
pub use fragment::FragmentLength;
pub use fragment_reader::PartError;
pub use h264::{CodedPicture, Colour, ReadFrame, Sps, StreamError, StreamReader, UnitSplitter};
pub use leftover::{Leftover, LeftoverContent};
pub use mp4::{Mp4Options, Mp4Sink, OutputMode};
pub use output::OutputFile;
pub use part_file::is_being_written;
pub use recovery::{Recovery, repaired_name};
pub use segment::{FragmentOptions, FragmentSink, InitSegment, MediaSegment, Segment};

encoder_core::opaque_debug!(
    Mp4Sink = "Mp4Sink",
    AnnexBSink = "AnnexBSink",
    {R} Recovery<R> = "Recovery",
);
