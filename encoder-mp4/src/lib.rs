//! From access units to files.
//!
//! A [`Sink`] takes access units in decoding order with the recorded times of their frames. What
//! these come to is known at the end, when the whole recording has been seen
//! ([`encoder_media::timeline`]).
//!
//! An MP4 file grows as a fragmented one, by whole fragments, whatever it is to become: so what is
//! left of it after a crash plays. It carries the recorded times, and the final file is made from
//! it alone: at the end, or by [`Recovery`] from what a crash left.

mod annexb;
mod avc;
mod boxes;
mod fragment;
mod fragment_reader;
mod mp4;
mod output;
mod part_file;
mod progressive;
mod record;
mod recovery;
mod sps;
mod track;

pub use annexb::AnnexBSink;
pub use encoder_media::{CallbackSink, Finished, Location, Sink, SinkError};
pub use fragment_reader::PartError;
pub use mp4::{Mp4Options, Mp4Sink, OutputMode};
pub use output::OutputFile;
pub use part_file::is_being_written;
pub use recovery::{Recovery, repaired_name};
pub use sps::{Colour, Sps};
