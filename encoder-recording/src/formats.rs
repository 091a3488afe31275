//! The formats of this build. A format whose feature is off is recognised, and refused with an
//! error that names it.

use std::path::Path;

use encoder_media::{Location, ReadAt, Source, SourceError, SourceOptions};

#[cfg(feature = "rosbag2")]
use crate::folder::{Found, Place};
#[cfg(feature = "rosbag2")]
use crate::rosbag2::Metadata;
#[cfg(feature = "rosbag2")]
use crate::signature::SQLITE;
use crate::signature::{BAG, MCAP};

type Opened = Result<Box<dyn Source>, SourceError>;

/// Opens a recording that is not a file on disk, by its first bytes: an MCAP file or a ROS 1 bag in
/// memory or in a store. Errors print `location`, so it must not contain credentials.
///
/// # Errors
/// [`SourceError`] when it cannot be read or is of another format.
pub fn open_input(
    input: Box<dyn ReadAt>,
    location: impl Into<Location>,
    options: &SourceOptions,
) -> Result<Box<dyn Source>, SourceError> {
    let location = location.into();
    let longest = BAG.len().max(MCAP.len());
    let mut start = vec![0; usize::try_from(input.len()).unwrap_or(usize::MAX).min(longest)];
    input.read_at(0, &mut start).map_err(|error| SourceError::io(location.clone(), error))?;
    if start.starts_with(MCAP) {
        #[cfg(feature = "mcap")]
        return crate::mcap::McapSource::from_reader(input, location, options);
        #[cfg(not(feature = "mcap"))]
        return not_built(location, options, "an MCAP file", "mcap");
    }
    if start.starts_with(BAG) {
        #[cfg(feature = "rosbag1")]
        return crate::rosbag1::RosbagSource::from_reader(input, location, options);
        #[cfg(not(feature = "rosbag1"))]
        return not_built(location, options, "a ROS 1 bag", "rosbag1");
    }
    let reason = match start.is_empty() {
        true => "it is empty",
        false => "neither an MCAP file nor a ROS 1 bag",
    };
    Err(SourceError::invalid(location, reason, "copy other recordings to a file first"))
}

/// Opens an MCAP file.
pub(crate) fn open_mcap(path: &Path, options: &SourceOptions) -> Opened {
    #[cfg(feature = "mcap")]
    return crate::mcap::McapSource::open(path, options);
    #[cfg(not(feature = "mcap"))]
    not_built(path, options, "an MCAP file", "mcap")
}

/// Opens a ROS 1 bag.
pub(crate) fn open_bag(path: &Path, options: &SourceOptions) -> Opened {
    #[cfg(feature = "rosbag1")]
    return crate::rosbag1::RosbagSource::open(path, options);
    #[cfg(not(feature = "rosbag1"))]
    not_built(path, options, "a ROS 1 bag", "rosbag1")
}

/// Opens a SQLite file of rosbag2.
pub(crate) fn open_sqlite(path: &Path, options: &SourceOptions) -> Opened {
    #[cfg(feature = "sqlite")]
    return crate::sqlite::SqliteSource::open(path, options);
    #[cfg(not(feature = "sqlite"))]
    not_built(path, options, "a SQLite file of rosbag2", "sqlite")
}

/// The storages of rosbag2.
#[cfg(feature = "rosbag2")]
fn storages() -> crate::rosbag2::Storages {
    crate::rosbag2::Storages {
        mcap: Box::new(open_mcap),
        sqlite: Box::new(open_sqlite),
        bag: Box::new(open_bag),
    }
}

/// The opener of the files of a recording.
#[cfg(feature = "rosbag2")]
fn opener(options: &SourceOptions) -> crate::rosbag2::Opener {
    crate::rosbag2::Opener::new(storages(), options.limits.temporary_bytes)
}

/// Finds the recordings in a directory.
#[cfg(feature = "rosbag2")]
pub(crate) fn find(path: &Path, options: &SourceOptions) -> Result<Vec<Found>, SourceError> {
    crate::folder::find(path, options, &opener(options))
}

/// Opens a recording that was found in a directory.
#[cfg(feature = "rosbag2")]
pub(crate) fn open_found(found: &Found, options: &SourceOptions) -> Opened {
    match &found.place {
        Place::Directory(path) => {
            let source = match Metadata::read(path) {
                Ok(metadata) => {
                    crate::rosbag2::open_directory(path, &metadata, options, opener(options))?
                }
                Err(_) => crate::images::ImagesSource::open(path, options)?,
            };
            Ok(crate::folder::warned(source, &found.warnings))
        }
        Place::Files(directory, files) => {
            crate::folder::open(directory, files, &found.warnings, options, opener(options))
        }
    }
}

/// Opens a directory of pictures.
#[cfg(not(feature = "rosbag2"))]
pub(crate) fn open_directory(path: &Path, options: &SourceOptions) -> Opened {
    use crate::signature;

    let entries = std::fs::read_dir(path).map_err(|error| SourceError::io(path, error))?;
    let is_recording = entries.flatten().any(|entry| {
        signature::is_recording_name(&entry.file_name().to_string_lossy()) && !entry.path().is_dir()
    });
    match is_recording || signature::has_rosbag2_metadata(path) {
        true => not_built(path, options, "a directory of recordings", "rosbag2"),
        false => crate::images::ImagesSource::open(path, options),
    }
}

/// Opens a recording that comes through a pipe.
pub(crate) fn open_spooled(
    path: &Path,
    head: Vec<u8>,
    input: Box<dyn std::io::Read + Send>,
    options: &SourceOptions,
) -> Opened {
    #[cfg(feature = "rosbag2")]
    return crate::spool::open(path, head, input, options, &|head, path, options| match () {
        () if head.starts_with(MCAP) => open_mcap(path, options),
        () if head.starts_with(BAG) => open_bag(path, options),
        () if head.starts_with(SQLITE) => open_sqlite(path, options),
        () => Err(SourceError::invalid(
            path,
            "compressed data, and no recording is in it",
            "give an MCAP file, a ROS 1 bag or a database of rosbag2",
        )),
    });
    #[cfg(not(feature = "rosbag2"))]
    {
        let _ = (head, input);
        not_built(path, options, "a recording through a pipe", "rosbag2")
    }
}

/// Opens a recording that is compressed as a whole.
pub(crate) fn open_packed(path: &Path, options: &SourceOptions) -> Opened {
    #[cfg(feature = "rosbag2")]
    return crate::rosbag2::open_packed(path, options, opener(options));
    #[cfg(not(feature = "rosbag2"))]
    not_built(path, options, "a compressed file", "rosbag2")
}

/// Opens a video file.
pub(crate) fn open_video(path: &Path, options: &SourceOptions) -> Opened {
    #[cfg(feature = "video")]
    return crate::video::VideoSource::open(path, options);
    #[cfg(not(feature = "video"))]
    not_built(path, options, "", "video")
}

#[cfg(not(all(
    feature = "mcap",
    feature = "rosbag1",
    feature = "rosbag2",
    feature = "sqlite",
    feature = "video"
)))]
fn not_built(
    location: impl Into<Location>,
    _: &SourceOptions,
    format: &str,
    feature: &str,
) -> Opened {
    // A file of no other kind may be a video; only FFmpeg can determine that.
    let reason = match format {
        "" => "not a recording of a format that this build reads".to_string(),
        format => format!("{format}, which this build does not read"),
    };
    let hint = format!("build with the feature `{feature}` of encoder-recording");
    Err(SourceError::invalid(location, reason, hint))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    #[cfg(not(feature = "rosbag2"))]
    use crate::signature::SQLITE;

    #[test]
    fn input_that_is_not_a_file() {
        let open = |bytes: &'static [u8]| {
            let name = Location::Name("s3://bucket/key".into());
            open_input(Box::new(Bytes::from(bytes)), name, &SourceOptions::default())
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default()
        };
        for (bytes, reason) in [
            (&b""[..], "s3://bucket/key: it is empty"),
            (SQLITE, "s3://bucket/key: neither an MCAP file nor a ROS 1 bag"),
            (b"\x89MCAP0\r\n", ""),
            (b"#ROSBAG V1.2\n", "s3://bucket/key: a bag of an old version"),
        ] {
            let error = open(bytes);
            assert!(error.starts_with(reason) && error.is_empty() == reason.is_empty(), "{error}");
        }
    }

    #[cfg(not(feature = "rosbag2"))]
    #[test]
    fn directories_are_pictures_or_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let error = |path| crate::open(path, &SourceOptions::default()).err().unwrap().to_string();
        assert!(error(directory.path()).contains("picture"), "{}", error(directory.path()));
        std::fs::write(directory.path().join("a.mcap"), MCAP).unwrap();
        assert!(error(directory.path()).contains("`rosbag2`"), "{}", error(directory.path()));
    }
}
