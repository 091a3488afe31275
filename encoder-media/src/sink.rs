use std::path::{Path, PathBuf};

use encoder_core::EncodedChunk;
use thiserror::Error;

use crate::timeline::{FrameTimes, Timeline};

/// Why something could not be written.
#[derive(Debug, Error)]
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
    /// An [`Io`](Self::Io) error of the file `path`, for `map_err`.
    pub fn io(path: &Path) -> impl Fn(std::io::Error) -> Self + '_ {
        move |error| Self::Io { path: path.into(), error }
    }

    /// This error, with the file that holds what was written.
    #[must_use]
    pub fn kept(self, kept: PathBuf) -> Self {
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

/// Receives the access units of one video.
///
/// Dropping a sink that was neither finished nor abandoned leaves no file, unless a panic drops
/// it: then what was written is kept.
pub trait Sink: Send {
    /// Writes the next access unit in decoding order, with the times of the frame that it shows.
    /// With B-frames, access units come in groups that are complete in display order.
    ///
    /// # Errors
    /// [`SinkError`]; the sink accepts nothing more after it.
    fn write(&mut self, chunk: EncodedChunk, times: &FrameTimes) -> Result<(), SinkError>;

    /// Ends the video. `timeline` maps the times of all frames to ticks.
    ///
    /// # Errors
    /// [`SinkError`]; then nothing stands under the final name that was not there before.
    fn finish(self: Box<Self>, timeline: &Timeline) -> Result<Finished, SinkError>;

    /// The video cannot be ended. Keeps what was written, where it is of use, and returns the file
    /// that holds it.
    fn abandon(self: Box<Self>) -> Option<PathBuf> {
        None
    }

    /// Whether the sink keeps the times of the frames. Access units whose order differs from the
    /// display order can be copied only to a sink that does not.
    fn has_times(&self) -> bool {
        true
    }

    /// The file that is being written, where a panic in [`finish`](Self::finish) or
    /// [`abandon`](Self::abandon) leaves it in place: after a panic only its name is left to be
    /// reported.
    fn part_file(&self) -> Option<&Path> {
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

    fn finish(self: Box<Self>, _timeline: &Timeline) -> Result<Finished, SinkError> {
        Ok(Finished::default())
    }
}
