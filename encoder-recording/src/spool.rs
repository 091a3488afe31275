//! Recordings that come through a pipe: they are written to a temporary file, because they need
//! random access.

use std::io::Read;
use std::path::{Path, PathBuf};

use zstd::stream::read::Decoder;

use crate::temporary::{Opened, Room, TemporaryError, renamed};
use crate::warned::warned;
use crate::{Event, Source, SourceError, SourceOptions, Warning, signature};

/// Opens a file, which starts with the given bytes.
type Open<'a> = &'a dyn Fn(&[u8], &Path, &SourceOptions) -> Result<Box<dyn Source>, SourceError>;

/// A recording in a temporary file.
struct Spooled {
    /// The name of the pipe.
    path: PathBuf,
    source: Box<dyn Source>,
    /// Dropped after the source.
    _temporary: Opened,
}

/// Reads `input`, which starts with `head`, to its end, and opens it. `path` names it in messages.
///
/// # Errors
/// [`SourceError`] when it exceeds `options.limits.temporary_bytes`, cannot be written, or is no
/// recording.
pub(crate) fn open(
    path: &Path,
    head: Vec<u8>,
    input: Box<dyn Read + Send>,
    options: &SourceOptions,
    open: Open<'_>,
) -> Result<Box<dyn Source>, SourceError> {
    let io = |error| SourceError::io(path, error);
    let whole = std::io::Cursor::new(head.clone()).chain(input);
    let (mut reader, head): (Box<dyn Read>, _) =
        match signature::Compression::of(&head) == Some(signature::Compression::Zstd) {
            false => (Box::new(whole), head),
            true => {
                let mut reader = Decoder::new(whole).map_err(io)?;
                let mut head = Vec::new();
                reader.by_ref().take(16).read_to_end(&mut head).map_err(io)?;
                (Box::new(std::io::Cursor::new(head.clone()).chain(reader)), head)
            }
        };
    let room = Room::new(options.limits.temporary_bytes);
    let (file, error) = room.fill(&mut reader, None).map_err(|error| refuse(path, &error))?;
    let (source, temporary) = file.open(|file| open(&head, file, options)).map_err(io)?;
    let warning = error.map(|error| Warning {
        text: format!("{}: the input ends with an error: {error}", path.display()),
        loss: true,
    });
    let source = source.map_err(|error| renamed(error, path))?;
    let spooled = Spooled { path: path.into(), source, _temporary: temporary };
    Ok(warned(Box::new(spooled), warning))
}

/// The error for a recording that exceeds the limit or the free space.
fn refuse(path: &Path, error: &TemporaryError) -> SourceError {
    let remedy = error.remedy();
    SourceError::invalid(
        path,
        format!("a recording through a pipe is written to a temporary file first: {error}"),
        format!("{remedy}, or give the recording as a file"),
    )
}

impl Source for Spooled {
    fn next_event(&mut self) -> Result<Option<Event>, SourceError> {
        self.source.next_event().map_err(|error| renamed(error, &self.path))
    }

    fn other_topics(&self) -> Vec<(String, String)> {
        self.source.other_topics()
    }

    fn profile(&self) -> &str {
        self.source.profile()
    }
}
