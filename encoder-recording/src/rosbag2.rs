//! rosbag2 directories: `metadata.yaml` and the files that it lists. Also joins files of any kind
//! into one recording.

mod adopt;
mod files;
mod metadata;
mod opener;
mod packed;
mod parts;
mod sequence;
#[cfg(test)]
mod tests;

use std::path::Path;

pub(crate) use self::files::{Inside, Notes, Refused, identity, inside, listed_files};
pub(crate) use self::metadata::Metadata;
pub(crate) use self::opener::{Opener, Storages};
pub(crate) use self::parts::{Description, PartsSource, Planned};
use super::signature::ROSBAG2_METADATA;
use super::{Source, SourceError, SourceOptions, Warning};

/// Opens a directory with a `metadata.yaml` that can be read.
///
/// # Errors
/// [`SourceError`] when the directory cannot be read or has no recording in it.
pub(crate) fn open_directory(
    directory: &Path,
    metadata: &Metadata,
    options: &SourceOptions,
    mut opener: Opener,
) -> Result<Box<dyn Source>, SourceError> {
    opener.is_sqlite = metadata.storage_identifier == "sqlite3";
    let listed = files::listed(directory, &metadata.relative_file_paths)?;
    let adopted = adopt::adopt(listed, metadata, options, &opener);
    if adopted.files.is_empty() {
        let mut reason =
            String::from("a rosbag2 directory without any of its recordings (*.mcap, *.db3)");
        if let Some(Warning { text, .. }) = adopted.warnings.first() {
            reason.push_str(&format!(": {text}"));
        }
        let hint = format!("bring the files that {ROSBAG2_METADATA} lists into the directory");
        return Err(SourceError::invalid(directory, reason, hint));
    }
    let description = Description {
        path: directory.into(),
        start: metadata.start(),
        messages: if adopted.is_larger { Default::default() } else { metadata.counts() },
        warnings: adopted.warnings,
    };
    PartsSource::open(description, adopted.files, options, opener)
}

/// Opens a single file that is compressed as a whole.
///
/// # Errors
/// [`SourceError`] when it cannot be decompressed or read.
pub(crate) fn open_packed(
    path: &Path,
    options: &SourceOptions,
    opener: Opener,
) -> Result<Box<dyn Source>, SourceError> {
    let description = Description { path: path.into(), ..Description::default() };
    PartsSource::open(description, vec![Planned { path: path.into(), span: None }], options, opener)
}
