//! Opens the files of a recording by their first bytes, and surveys them.

use std::collections::BTreeSet;
use std::path::Path;

use super::packed;
use crate::signature::Compression;
use crate::survey::Survey;
use crate::temporary::{Opened, Room, renamed};
use crate::{Event, Source, SourceError, SourceOptions, Warning, message, signature};

/// Number of leading bytes that are used to detect the kind of a file.
const HEAD: u64 = 128;

/// Opens a file.
type Open = Box<dyn Fn(&Path, &SourceOptions) -> Result<Box<dyn Source>, SourceError> + Send>;

/// The readers of the files that a recording may have.
pub(crate) struct Storages {
    pub mcap: Open,
    pub sqlite: Open,
    pub bag: Open,
}

/// Opens files by their first bytes.
pub(crate) struct Opener {
    storages: Storages,
    pub(super) room: Room,
    /// Files of no known kind are refused by the reader of databases.
    pub(super) is_sqlite: bool,
}

/// An opened file.
pub(super) struct OpenFile {
    pub(super) source: Box<dyn Source>,
    /// The file that it was decompressed to.
    pub(super) temporary: Option<Opened>,
    pub(super) warning: Option<Warning>,
}

impl Opener {
    /// `limit`: the most bytes of a temporary file.
    pub(crate) fn new(storages: Storages, limit: u64) -> Self {
        Self { storages, room: Room::new(limit), is_sqlite: false }
    }

    pub(super) fn open(
        &self,
        path: &Path,
        options: &SourceOptions,
    ) -> Result<OpenFile, SourceError> {
        let head = signature::head(path, HEAD)?;
        let compression = Compression::of(&head).filter(|compression| compression.is_supported());
        let Some(compression) = compression else {
            let source = self.open_plain(path, &head, options)?;
            return Ok(OpenFile { source, temporary: None, warning: None });
        };
        let head = packed::head(path, compression, HEAD)?;
        let (file, warning) = packed::unpack(path, compression, &self.room)?;
        let (source, temporary) =
            file.open(|unpacked| self.open_plain(unpacked, &head, options))
                .map_err(|error| SourceError::io(self.room.directory.as_path(), error))?;
        let source = source.map_err(|error| renamed(error, path))?;
        Ok(OpenFile { source, temporary: Some(temporary), warning })
    }

    /// Opens a file that is not compressed, and starts with `head`.
    fn open_plain(
        &self,
        path: &Path,
        head: &[u8],
        options: &SourceOptions,
    ) -> Result<Box<dyn Source>, SourceError> {
        if head.starts_with(signature::SQLITE) {
            return (self.storages.sqlite)(path, options);
        }
        if head.starts_with(signature::MCAP) {
            return (self.storages.mcap)(path, options);
        }
        if head.starts_with(signature::BAG) {
            return (self.storages.bag)(path, options);
        }
        let refused = signature::packed(path, head).or_else(|| signature::pointer(path, head));
        if let Some(error) = refused {
            return Err(error);
        }
        // For other files, the error is that of the reader for the storage.
        match signature::split_name(&path.to_string_lossy()).1 {
            ".bag" => (self.storages.bag)(path, options),
            ".db3" => (self.storages.sqlite)(path, options),
            _ if self.is_sqlite => (self.storages.sqlite)(path, options),
            _ => (self.storages.mcap)(path, options),
        }
    }

    /// Reads what shows which recording a file belongs to. Messages are read only where the file
    /// has no index of their times. A file without a selected camera topic has no camera in it; it
    /// is read to its end, to see whether it is damaged.
    ///
    /// # Errors
    /// When the file cannot be read, or not to its end and no camera topic was found before.
    pub(crate) fn survey(
        &self,
        path: &Path,
        options: &SourceOptions,
    ) -> Result<Survey, SourceError> {
        let options = SourceOptions { start: None, end: None, ..options.clone() };
        // The file is dropped last: it may be temporary.
        let OpenFile { warning, temporary, mut source } = match self.open(path, &options) {
            Ok(file) => file,
            Err(error) if is_without_cameras(&error) => {
                return Ok(Survey { path: path.into(), ..Survey::default() });
            }
            Err(error) => return Err(error),
        };
        let is_left_out = |cameras: &BTreeSet<_>| cameras.is_empty() && !options.all_messages;
        let known = source.log_span();
        let mut span = known;
        let (mut cameras, mut least) = (BTreeSet::new(), u64::MAX);
        let mut damage = warning.filter(|warning| warning.loss).map(|warning| warning.text);
        loop {
            match source.next_event() {
                Ok(Some(Event::Stream(info))) => {
                    least = least.min(info.messages.filter(|n| *n > 1).unwrap_or(u64::MAX));
                    cameras.insert((info.topic, message::plain_type(&info.schema)));
                }
                Ok(Some(Event::Packet(_) | Event::Message(_))) if known.is_some() => break,
                Ok(Some(Event::Packet(packet))) => extend(&mut span, packet.log_ns),
                Ok(Some(Event::Message(message))) => {
                    extend(&mut span, i64::try_from(message.log_ns).unwrap_or(i64::MAX));
                }
                // A file of which no message was counted is not damaged: it was read to its end.
                Ok(Some(Event::Warning(Warning { text, loss: true })))
                    if !text.ends_with(signature::UNCOUNTED) =>
                {
                    damage.get_or_insert(text);
                }
                Ok(Some(_)) => {}
                // Its cameras are known, and were not asked for.
                Err(error) if is_unselected(&error) => {
                    damage = None;
                    break;
                }
                Err(error) if !is_without_cameras(&error) && is_left_out(&cameras) => {
                    return Err(match temporary {
                        Some(_) => renamed(error, path),
                        None => error,
                    });
                }
                // Another error is reported when the file is read.
                Ok(None) | Err(_) => break,
            }
        }
        let damage = damage.filter(|_| cameras.is_empty());
        let length = span.map_or(0, |(first, last)| last.saturating_sub(first));
        let count = i64::try_from(least.saturating_sub(1)).unwrap_or(i64::MAX).max(1);
        Ok(Survey { path: path.into(), span, cameras, interval: length / count, damage })
    }
}

fn extend(span: &mut Option<(i64, i64)>, time: i64) {
    let (first, last) = span.unwrap_or((time, time));
    *span = Some((first.min(time), last.max(time)));
}

/// Whether a file has no camera topic, or no selected camera topic.
pub(super) fn is_without_cameras(error: &SourceError) -> bool {
    matches!(error, SourceError::NoCamera { .. }) || is_unselected(error)
}

/// Whether a file has camera topics, and none of them is selected.
fn is_unselected(error: &SourceError) -> bool {
    matches!(error, SourceError::Invalid { reason, .. } if reason == signature::NO_TOPIC_MATCHES)
}
