//! From access units to files.
//!
//! A [`Sink`] takes access units in decoding order with the recorded times of their frames. What
//! these come to is known at the end, when the whole recording has been seen
//! ([`crate::timeline`]).
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

use std::path::{Path, PathBuf};

pub use annexb::AnnexBSink;
use encoder_core::EncodedChunk;
pub use fragment_reader::PartError;
pub use mp4::{Mp4Options, Mp4Sink, OutputMode};
pub use output::OutputFile;
pub use part_file::is_being_written;
pub use recovery::{Recovery, repaired_name};
pub use sps::{Colour, Sps};
use thiserror::Error;

use crate::timeline::{FrameTimes, Timeline};

/// Why something could not be written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SinkError {
    /// The operating system refused.
    #[error("{}: {error}{}", path.display(), hint(.error))]
    Io {
        /// Which file.
        path: PathBuf,
        /// Its words.
        #[source]
        error: std::io::Error,
    },
    /// The access units cannot be put into this container.
    #[error("{}: {reason}", path.display())]
    Stream {
        /// Which file.
        path: PathBuf,
        /// What is wrong with the stream.
        reason: String,
    },
    /// The video could not be ended, but all that came is in a file.
    #[error("{error}; what was written is kept in {}", kept.display())]
    Unfinished {
        /// What went wrong.
        #[source]
        error: Box<SinkError>,
        /// The file that has it.
        kept: PathBuf,
    },
}

impl SinkError {
    pub(crate) fn io(path: &Path) -> impl Fn(std::io::Error) -> Self + '_ {
        move |error| Self::Io { path: path.into(), error }
    }

    /// The same, for somebody who wants to know what is left.
    pub(crate) fn kept(self, kept: PathBuf) -> Self {
        Self::Unfinished { error: Box::new(self), kept }
    }
}

fn hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AlreadyExists => "; give another -o, or --overwrite",
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            "; free some space or give another -o"
        }
        std::io::ErrorKind::FileTooLarge => {
            "; raise the limit for files (ulimit -f) or give a file system with larger ones as -o"
        }
        std::io::ErrorKind::PermissionDenied => "; choose a place that you may write to",
        _ => "",
    }
}

/// What came of a video that was ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finished {
    /// The file that was written, where there is one.
    pub file: Option<PathBuf>,
    /// What a user should know about its times, beside what the layout says.
    pub warnings: Vec<String>,
}

/// Takes the access units of one video.
///
/// Dropping a sink that was neither finished nor abandoned leaves nothing behind.
pub trait Sink: Send {
    /// Takes the next access unit in decoding order, with the times of the frame that it shows.
    /// With B-frames, access units come in groups that are complete in display order.
    ///
    /// # Errors
    /// [`SinkError`]; the sink takes nothing more after it.
    fn write(&mut self, chunk: EncodedChunk, times: &FrameTimes) -> Result<(), SinkError>;

    /// Ends the video. `layout` has the times of all frames.
    ///
    /// # Errors
    /// [`SinkError`]; then nothing stands under the final name that was not there before.
    fn finish(self: Box<Self>, layout: &Timeline) -> Result<Finished, SinkError>;

    /// The video cannot be ended. Keeps what was written, where it is of use, and gives the file
    /// that has it.
    fn abandon(self: Box<Self>) -> Option<PathBuf> {
        None
    }
}

/// A sink that hands every access unit to a function: for embedding.
pub struct CallbackSink<F>(pub F);

impl<F: FnMut(EncodedChunk, &FrameTimes) + Send> Sink for CallbackSink<F> {
    fn write(&mut self, chunk: EncodedChunk, times: &FrameTimes) -> Result<(), SinkError> {
        (self.0)(chunk, times);
        Ok(())
    }

    fn finish(self: Box<Self>, _layout: &Timeline) -> Result<Finished, SinkError> {
        Ok(Finished::default())
    }
}
