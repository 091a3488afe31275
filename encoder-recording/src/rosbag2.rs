//! rosbag2 directories: `metadata.yaml` and the files that it lists, joined into one recording.

mod files;
mod metadata;
mod packed;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::path::{Path, PathBuf};

use self::files::Files;
use self::metadata::Metadata;
use super::joined::JoinedChannels;
use super::signature::{self, Compression, ROSBAG2_METADATA};
use super::temporary::{Opened, Room};
use super::{Event, Moment, Source, SourceError, SourceOptions, StreamId, StreamInfo, Warning};

/// Number of leading bytes that are used to detect the kind of a file.
const HEAD: u64 = 16;

/// Opens an MCAP file.
type Open = Box<dyn Fn(&Path, &SourceOptions) -> Result<Box<dyn Source>, SourceError> + Send>;

/// The readers of the storages that a directory may have, and of bags, which may be compressed as
/// well.
pub(crate) struct Storages {
    pub mcap: Open,
    pub sqlite: Open,
    pub bag: Open,
}

/// A rosbag2 directory, or one compressed file of one.
pub(crate) struct Rosbag2Source {
    /// The directory or the file.
    path: PathBuf,
    metadata: Metadata,
    options: SourceOptions,
    room: Room,
    storages: Storages,
    /// The files that have not been opened yet.
    files: VecDeque<PathBuf>,
    current: Option<Part>,
    /// Whether any file could be opened.
    opened: bool,
    /// The error of the first file that could not be read, or of the first file without cameras.
    first_error: Option<SourceError>,
    streams: Vec<Stream>,
    /// Numbers of the streams by topic and schema.
    ids: HashMap<(String, String), StreamId>,
    channels: JoinedChannels,
    profile: String,
    others: BTreeSet<(String, String)>,
    events: VecDeque<Event>,
}

/// A file that is being read.
struct Part {
    path: PathBuf,
    /// Its name, for messages.
    name: String,
    source: Box<dyn Source>,
    /// Number of each of its streams in the recording.
    streams: HashMap<StreamId, StreamId>,
    /// The file that it was decompressed to. Dropped after the source.
    temporary: Option<Opened>,
}

/// A stream of the recording.
#[derive(Default)]
struct Stream {
    /// Messages in the files before the current one.
    before: u64,
    /// Messages up to the end of the current one.
    after: u64,
}

/// An opened file.
struct OpenFile {
    source: Box<dyn Source>,
    temporary: Option<Opened>,
    warning: Option<Warning>,
}

impl Rosbag2Source {
    /// Opens a directory, with the readers of its storages. The window
    /// of `options` counts from the recording's start, not from that of each file.
    ///
    /// # Errors
    /// [`SourceError`] when the directory cannot be read or has no recording in it.
    pub(crate) fn open(
        directory: &Path,
        options: &SourceOptions,
        storages: Storages,
    ) -> Result<Box<dyn Source>, SourceError> {
        let mut warnings = Vec::new();
        let (metadata, files) = match Metadata::read(directory) {
            Ok(metadata) => {
                let files = files::listed(directory, &metadata.relative_file_paths)?;
                (metadata, files)
            }
            Err(reason) => {
                let text = format!(
                    "{ROSBAG2_METADATA} {reason}: the recordings in the directory are read, by name"
                );
                warnings.push(Warning { text, loss: false });
                (Metadata::default(), files::unlisted(directory)?)
            }
        };
        let Files { paths, warnings: found } = files;
        if paths.is_empty() {
            let mut reason =
                String::from("a rosbag2 directory without any of its recordings (*.mcap, *.db3)");
            if let Some(Warning { text, .. }) = found.first() {
                reason.push_str(&format!(": {text}"));
            }
            let hint = format!("bring the files that {ROSBAG2_METADATA} lists into the directory");
            return Err(SourceError::invalid(directory, reason, hint));
        }
        warnings.extend(found);
        let room = Room::new(options.limits.temporary_bytes);
        Self::open_files(directory, metadata, paths, warnings, options, room, storages)
    }

    /// Opens a single file that is compressed as a whole.
    ///
    /// # Errors
    /// [`SourceError`] when it cannot be decompressed or read.
    pub(crate) fn open_packed(
        path: &Path,
        options: &SourceOptions,
        storages: Storages,
    ) -> Result<Box<dyn Source>, SourceError> {
        let (metadata, files) = (Metadata::default(), VecDeque::from([path.to_owned()]));
        let room = Room::new(options.limits.temporary_bytes);
        Self::open_files(path, metadata, files, Vec::new(), options, room, storages)
    }

    fn open_files(
        path: &Path,
        metadata: Metadata,
        files: VecDeque<PathBuf>,
        warnings: Vec<Warning>,
        options: &SourceOptions,
        room: Room,
        storages: Storages,
    ) -> Result<Box<dyn Source>, SourceError> {
        let mut source = Self {
            path: path.into(),
            metadata,
            options: options.clone(),
            room,
            storages,
            files,
            current: None,
            opened: false,
            first_error: None,
            streams: Vec::new(),
            ids: HashMap::new(),
            channels: JoinedChannels::default(),
            profile: String::new(),
            others: BTreeSet::new(),
            events: warnings.into_iter().map(Event::Warning).collect(),
        };
        source.fix_window();
        source.next_file();
        match source.first_error.take() {
            Some(error) if !source.opened && source.files.is_empty() => return Err(error),
            error => source.first_error = error,
        }
        Ok(Box::new(source))
    }

    /// Makes the bounds of the window absolute, so that they are the same for every file.
    fn fix_window(&mut self) {
        let relative = |moment| matches!(moment, Some(Moment::FromStart(_)));
        if !relative(self.options.start) && !relative(self.options.end) {
            return;
        }
        let start = match self.metadata.start() {
            Some(start) => Some(start),
            // The window of a single file counts from its own start anyway.
            None if self.files.len() == 1 => None,
            // A file that cannot be read is reported when it is opened.
            None => self.files.iter().find_map(|path| self.first_packet(path)),
        };
        let Some(start) = start else { return };
        for moment in [&mut self.options.start, &mut self.options.end] {
            if let Some(Moment::FromStart(ns)) = *moment {
                *moment = Some(Moment::Absolute(start.saturating_add(ns)));
            }
        }
    }

    /// The log time of the first message of a file.
    fn first_packet(&self, path: &Path) -> Option<i64> {
        let whole = SourceOptions { start: None, end: None, ..self.options.clone() };
        let mut file = self.open_file(path, &whole).ok()?;
        while let Ok(Some(event)) = file.source.next_event() {
            match event {
                Event::Packet(packet) => return Some(packet.log_ns),
                Event::Message(message) => return i64::try_from(message.log_ns).ok(),
                _ => {}
            }
        }
        None
    }

    /// Opens a file by its first bytes.
    fn open_file(&self, path: &Path, options: &SourceOptions) -> Result<OpenFile, SourceError> {
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
        if head.starts_with(signature::BAG) {
            return (self.storages.bag)(path, options);
        }
        if let Some(error) = signature::packed(path, head) {
            return Err(error);
        }
        // For other files, the error is that of the reader for the storage in the metadata.
        match self.metadata.storage_identifier.as_str() {
            "sqlite3" => (self.storages.sqlite)(path, options),
            _ => (self.storages.mcap)(path, options),
        }
    }

    /// Opens the next file that can be opened.
    fn next_file(&mut self) {
        for stream in &mut self.streams {
            stream.before = stream.after;
        }
        while let Some(path) = self.files.pop_front() {
            match self.open_file(&path, &self.options) {
                Ok(OpenFile { source, temporary, warning }) => {
                    self.opened = true;
                    self.profile = source.profile().into();
                    self.channels.next_file();
                    let name = match path == self.path {
                        true => path.file_name().unwrap_or_default().display().to_string(),
                        false => {
                            path.strip_prefix(&self.path).unwrap_or(&path).display().to_string()
                        }
                    };
                    let named = |Warning { text, loss }| {
                        Event::Warning(Warning { text: format!("{name}: {text}"), loss })
                    };
                    self.events.extend(warning.map(named));
                    let streams = HashMap::new();
                    self.current = Some(Part { path, name, source, streams, temporary });
                    return;
                }
                Err(error) => {
                    let text = format!("{error}; the file is left out");
                    self.events.push_back(Event::Warning(Warning { text, loss: true }));
                    self.remember(error);
                }
            }
        }
    }

    /// Ends the current file because of an error.
    fn fail(&mut self, error: SourceError) {
        let Some(part) = &self.current else { return };
        let error = match part.temporary {
            Some(_) => renamed(error, &part.path),
            None => error,
        };
        // A part of a recording may have no pictures, or none of the selected topics.
        if !(part.streams.is_empty() && is_without_cameras(&error)) {
            let text = match self.files.is_empty() {
                true => format!("{error}; the rest of this file is missing"),
                false => {
                    format!("{error}; the rest of this file is missing, the next ones are read")
                }
            };
            self.events.push_back(Event::Warning(Warning { text, loss: true }));
        }
        self.remember(error);
    }

    /// Keeps an error, for a recording that turns out to have nothing to read.
    fn remember(&mut self, error: SourceError) {
        if self.first_error.as_ref().is_none_or(is_without_cameras) {
            self.first_error = Some(error);
        }
    }

    /// The error for a recording that has nothing to read.
    fn nothing(&mut self) -> SourceError {
        match self.first_error.take() {
            Some(error @ (SourceError::Io { .. } | SourceError::Invalid { .. })) => error,
            _ => SourceError::no_camera(&self.path, self.other_topics()),
        }
    }

    /// Joins a stream of the current file with the recording's.
    fn join(&mut self, info: StreamInfo) -> Option<Event> {
        let new = self.streams.len();
        let id = *self.ids.entry((info.topic.clone(), info.schema.clone())).or_insert(new);
        if let Some(part) = &mut self.current {
            part.streams.insert(info.id, id);
        }
        let promised = info.messages.unwrap_or(0);
        if let Some(stream) = self.streams.get_mut(id) {
            stream.after = stream.before.saturating_add(promised);
            return None;
        }
        let messages = match (self.metadata.messages(&info.topic), self.files.is_empty()) {
            (Some(messages), _) => Some(messages),
            (None, true) => info.messages,
            (None, false) => None,
        };
        self.streams.push(Stream { before: 0, after: promised });
        Some(Event::Stream(StreamInfo { id, messages, ..info }))
    }
}

/// Whether a file has no camera topic, or no selected camera topic.
fn is_without_cameras(error: &SourceError) -> bool {
    match error {
        SourceError::NoCamera { .. } => true,
        SourceError::Invalid { reason, .. } => reason == signature::NO_TOPIC_MATCHES,
        _ => false,
    }
}

/// Turns an error about a temporary file into an error about the file that was decompressed to it.
fn renamed(error: SourceError, path: &Path) -> SourceError {
    match error {
        SourceError::Io { error, .. } => SourceError::io(path, error),
        SourceError::Invalid { reason, hint, .. } => SourceError::invalid(path, reason, hint),
        other => other,
    }
}

impl Source for Rosbag2Source {
    fn next_event(&mut self) -> Result<Option<Event>, SourceError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            let Some(part) = &mut self.current else {
                // Without a camera, the other messages are returned.
                let is_useful = self.options.all_messages && !self.channels.is_empty();
                return match self.streams.as_slice() {
                    [] if !is_useful => Err(self.nothing()),
                    _ => Ok(None),
                };
            };
            let event = match part.source.next_event() {
                Ok(event) => event,
                Err(error) => {
                    self.fail(error);
                    None
                }
            };
            let Some(part) = &mut self.current else { continue };
            match event {
                Some(Event::Stream(info)) => {
                    let event = self.join(info);
                    self.events.extend(event);
                }
                Some(Event::Packet(mut packet)) => {
                    let Some(id) = part.streams.get(&packet.stream) else { continue };
                    let Some(stream) = self.streams.get_mut(*id) else { continue };
                    packet.stream = *id;
                    packet.number = packet.number.saturating_add(stream.before);
                    stream.after = stream.after.max(packet.number.saturating_add(1));
                    packet.message = packet.message.and_then(|message| self.channels.of(message));
                    return Ok(Some(Event::Packet(packet)));
                }
                Some(Event::Warning(Warning { text, loss })) => {
                    let text = format!("{}: {text}", part.name);
                    return Ok(Some(Event::Warning(Warning { text, loss })));
                }
                Some(other) => {
                    if let Some(event) = self.channels.event(other, &part.streams) {
                        return Ok(Some(event));
                    }
                }
                None => {
                    self.others.extend(part.source.other_topics());
                    self.current = None;
                    self.next_file();
                }
            }
        }
    }

    fn other_topics(&self) -> Vec<(String, String)> {
        self.others.iter().cloned().collect()
    }

    fn profile(&self) -> &str {
        &self.profile
    }
}
