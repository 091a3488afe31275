//! Files that are compressed as a whole: by rosbag2 (`compression_mode: FILE`), or by hand.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

use tracing::info;
use zstd::zstd_safe::get_frame_content_size;

use crate::signature::Compression;
use crate::temporary::{Room, TemporaryError, TemporaryFile};
use crate::{SourceError, Warning, signature};

/// Bytes that the header of a frame has at most.
const FRAME_HEADER: u64 = 18;

/// Opens a file, decompressed.
fn open(path: &Path, compression: Compression) -> io::Result<Box<dyn Read>> {
    let file = File::open(path)?;
    Ok(match compression {
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::new(file)?),
        // Files that were compressed in several pieces are one file, decompressed.
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(file)),
        Compression::Bzip2 => Box::new(bzip2::read::MultiBzDecoder::new(file)),
        Compression::Lz4 => Box::new(Lz4Frames::new(file)?),
        Compression::Xz | Compression::Zip => return Err(io::ErrorKind::Unsupported.into()),
    })
}

/// Reads all frames of an LZ4 file; the decoder of the library ends with the first.
struct Lz4Frames {
    /// `None` at the end.
    decoder: Option<lz4::Decoder<File>>,
    len: u64,
}

impl Lz4Frames {
    fn new(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self { decoder: Some(lz4::Decoder::new(file)?), len })
    }
}

impl Read for Lz4Frames {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(decoder) = &mut self.decoder {
            let read = decoder.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let Some((mut file, done)) = self.decoder.take().map(lz4::Decoder::finish) else {
                break;
            };
            if done.is_err() {
                let text = "the file ends inside an LZ4 frame";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
            }
            if file.stream_position()? < self.len {
                self.decoder = Some(lz4::Decoder::new(file)?);
            }
        }
        Ok(0)
    }
}

/// Returns the first `count` decompressed bytes of a file, or fewer. Other errors are left to
/// [`unpack`].
///
/// # Errors
/// If these bytes do not belong to a recording; the rest is not decompressed then.
pub(super) fn head(
    path: &Path,
    compression: Compression,
    count: u64,
) -> Result<Vec<u8>, SourceError> {
    let mut head = Vec::new();
    let read = open(path, compression).and_then(|reader| reader.take(count).read_to_end(&mut head));
    let known = [signature::MCAP, signature::BAG, signature::SQLITE];
    let is_known = known.iter().any(|magic| head.starts_with(magic));
    match read {
        Ok(_) if !is_known => Err(SourceError::invalid(
            path,
            format!(
                "a file compressed as {}, and neither an MCAP file nor a bag nor a database of \
                 rosbag2 is in it",
                compression.name()
            ),
            format!("decompress it first: {} {}", compression.command(), name(path)),
        )),
        _ => Ok(head),
    }
}

/// Decompresses a file to a temporary file, because the readers of recordings need random access. If
/// the file is truncated, the decompressible part is returned, with a warning.
pub(super) fn unpack(
    path: &Path,
    compression: Compression,
    room: &Room,
) -> Result<(TemporaryFile, Option<Warning>), SourceError> {
    let head = signature::head(path, FRAME_HEADER)?;
    // Size of the first frame; most writers write a single frame, with its size in the header.
    let expected = match compression {
        Compression::Zstd => get_frame_content_size(&head).ok().flatten(),
        _ => None,
    };
    let io = |error| SourceError::io(path, error);
    let mut reader = open(path, compression).map_err(io)?;
    info!(
        file = %path.display(),
        bytes = expected,
        "decompressing to a temporary file in {}",
        room.directory.display()
    );
    let (file, error) =
        room.fill(&mut *reader, expected).map_err(|error| refuse(path, compression, &error))?;
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
fn refuse(path: &Path, compression: Compression, error: &TemporaryError) -> SourceError {
    let remedy = error.remedy();
    SourceError::invalid(
        path,
        format!("the file cannot be decompressed: {error}"),
        format!("{remedy}, or decompress the file first: {} {}", compression.command(), name(path)),
    )
}

fn name(path: &Path) -> impl std::fmt::Display {
    path.file_name().unwrap_or(path.as_os_str()).display()
}
