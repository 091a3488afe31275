//! Files that are compressed as a whole: `compression_mode: FILE`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use tracing::info;
use zstd::stream::read::Decoder;
use zstd::zstd_safe::get_frame_content_size;

use crate::temporary::{Room, TemporaryError, TemporaryFile};
use crate::{SourceError, Warning, signature};

/// Bytes that the header of a frame has at most.
const FRAME_HEADER: u64 = 18;

/// Returns the first `count` decompressed bytes of a file, or fewer. Other errors are left to
/// [`unpack`].
///
/// # Errors
/// If these bytes do not belong to an MCAP file or a database; the rest is not decompressed then.
pub(super) fn head(path: &Path, count: u64) -> Result<Vec<u8>, SourceError> {
    let mut head = Vec::new();
    let read = File::open(path)
        .and_then(Decoder::new)
        .and_then(|reader| reader.take(count).read_to_end(&mut head));
    let known = [signature::MCAP, signature::SQLITE, signature::BAG];
    let is_known = known.iter().any(|magic| head.starts_with(magic));
    match read {
        Ok(_) if !is_known => Err(SourceError::invalid(
            path,
            "a file compressed as Zstandard, and neither an MCAP file nor a ROS 1 bag nor a \
             database of rosbag2 is in it",
            format!("decompress it first: zstd -d {}", name(path)),
        )),
        _ => Ok(head),
    }
}

/// Decompresses a file to a temporary file, because the readers of databases and of MCAP files need
/// random access. If the file is truncated, the decompressible part is returned, with a warning.
pub(super) fn unpack(
    path: &Path,
    room: &Room,
) -> Result<(TemporaryFile, Option<Warning>), SourceError> {
    let head = signature::head(path, FRAME_HEADER)?;
    // Size of the first frame; most writers write a single frame, with its size in the header.
    let expected = get_frame_content_size(&head).ok().flatten();
    let io = |error| SourceError::io(path, error);
    let mut reader = Decoder::new(File::open(path).map_err(io)?).map_err(io)?;
    info!(
        file = %path.display(),
        bytes = expected,
        "decompressing to a temporary file in {}",
        room.directory.display()
    );
    let (file, error) = room.fill(&mut reader, expected).map_err(|error| refuse(path, &error))?;
    let Some(error) = error else { return Ok((file, None)) };
    if file.len() > 0 {
        let text = format!(
            "the file cannot be decompressed to its end ({error}): what is behind its first {} \
             bytes, decompressed, is missing",
            file.len()
        );
        return Ok((file, Some(Warning { text, loss: true })));
    }
    match error.raw_os_error() {
        Some(_) => Err(io(error)),
        None => Err(SourceError::invalid(
            path,
            format!("the file cannot be decompressed: {error}"),
            "copy or record it again",
        )),
    }
}

/// The error for a file that exceeds the limit or the free space.
fn refuse(path: &Path, error: &TemporaryError) -> SourceError {
    let remedy = match error {
        TemporaryError::Limit { .. } => "raise --max-temporary-bytes",
        TemporaryError::Space { .. } | TemporaryError::Write { .. } => {
            "set TMPDIR to a directory with more space"
        }
    };
    SourceError::invalid(
        path,
        format!("the file cannot be decompressed: {error}"),
        format!("{remedy}, or decompress the file first: zstd -d {}", name(path)),
    )
}

fn name(path: &Path) -> impl std::fmt::Display {
    path.file_name().unwrap_or(path.as_os_str()).display()
}
