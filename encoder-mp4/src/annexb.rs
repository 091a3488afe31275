use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use super::{
    AccessUnit, Finished, Location, Sink, SinkError,
    output::{check_free, give_name},
    part_file::PartFile,
};
use encoder_media::timeline::Timeline;

/// Writes the access units one after another: a raw H.264 stream, which has no timestamps.
///
/// The file grows as `NAME.part`, by complete access units, and is renamed when it is finished.
pub struct AnnexBSink {
    path: PathBuf,
    overwrite: bool,
    part: PartFile,
}

impl AnnexBSink {
    /// Begins a file.
    ///
    /// # Errors
    /// When `path` exists and may not be overwritten, or nothing can be written there.
    pub fn create(path: &Path, overwrite: bool) -> Result<Self, SinkError> {
        check_free(path, overwrite)?;
        Ok(Self { path: path.into(), overwrite, part: PartFile::beside(path)? })
    }
}

impl Sink for AnnexBSink {
    fn write(&mut self, unit: AccessUnit) -> Result<(), SinkError> {
        self.part.append(&unit.chunk.data, Instant::now()).map_err(SinkError::io(self.part.path()))
    }

    fn finish(self: Box<Self>, _timeline: &Timeline) -> Result<Finished, SinkError> {
        let Self { path, overwrite, part } = *self;
        let warning = part.warning();
        let Some(kept) = part.keep() else {
            return Err(SinkError::stream(path, "no picture to write"));
        };
        match give_name(&kept, &path, overwrite) {
            Ok(()) => Ok(Finished::at(path).with_warnings(warning)),
            Err(error) => Err(SinkError::io(&path)(error).kept(kept)),
        }
    }

    fn abandon(self: Box<Self>) -> Option<Location> {
        self.part.keep().map(Location::from)
    }

    fn has_times(&self) -> bool {
        false
    }

    fn part_file(&self) -> Option<&Path> {
        (!self.part.is_empty()).then(|| self.part.path())
    }
}
