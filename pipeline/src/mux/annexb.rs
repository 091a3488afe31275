use std::{io::Write, path::Path};

use encoder_core::EncodedChunk;

use super::{Finished, OutputFile, Sink, SinkError};
use crate::timeline::{FrameTimes, Layout};

/// Writes the access units one after another: a raw H.264 stream, which has no timestamps.
pub struct AnnexBSink {
    file: OutputFile,
}

impl AnnexBSink {
    /// Begins a file.
    ///
    /// # Errors
    /// See [`OutputFile::create`].
    pub fn create(path: &Path, overwrite: bool) -> Result<Self, SinkError> {
        Ok(Self { file: OutputFile::create(path, overwrite)? })
    }
}

impl Sink for AnnexBSink {
    fn write(&mut self, chunk: EncodedChunk, _times: &FrameTimes) -> Result<(), SinkError> {
        let path = self.file.path().to_path_buf();
        self.file.write_all(&chunk.data).map_err(SinkError::io(&path))
    }

    fn finish(self: Box<Self>, _layout: &Layout) -> Result<Finished, SinkError> {
        Ok(Finished { file: Some(self.file.commit()?), warnings: Vec::new() })
    }
}
