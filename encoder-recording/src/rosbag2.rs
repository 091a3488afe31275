//! rosbag2 directories: `metadata.yaml` and the files that it lists, joined to one recording.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tempfile::NamedTempFile;

use super::formats::{self, ROSBAG2_METADATA as METADATA};
use super::joined::JoinedChannels;
use super::{
    Event, Moment, Source, SourceError, SourceOptions, StreamId, StreamInfo, Warning, images,
};

/// A longer description is none.
const MAX_METADATA: u64 = 16 << 20;

/// The part of `metadata.yaml` that is needed to read the recording.
#[derive(Debug, Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    storage_identifier: String,
    #[serde(default)]
    relative_file_paths: Vec<String>,
    starting_time: Option<StartingTime>,
    #[serde(default)]
    topics_with_message_count: Vec<TopicCount>,
}

#[derive(Debug, Deserialize)]
struct StartingTime {
    nanoseconds_since_epoch: i64,
}

#[derive(Debug, Deserialize)]
struct TopicCount {
    message_count: u64,
    topic_metadata: TopicName,
}

#[derive(Debug, Deserialize)]
struct TopicName {
    name: String,
}

/// Opens an MCAP file.
type OpenMcap = Box<dyn Fn(&Path, &SourceOptions) -> Result<Box<dyn Source>, SourceError> + Send>;

/// A rosbag2 directory.
pub(crate) struct Rosbag2Source {
    directory: PathBuf,
    metadata: Metadata,
    options: SourceOptions,
    open_mcap: OpenMcap,
    files: VecDeque<PathBuf>,
    current: Option<Part>,
    /// Whether any file could be opened.
    opened: bool,
    /// Why the first file that gave nothing, did not.
    first_error: Option<SourceError>,
    streams: Vec<Stream>,
    channels: JoinedChannels,
    profile: String,
    others: BTreeSet<(String, String)>,
    events: VecDeque<Event>,
}

/// A file that is being read.
struct Part {
    name: String,
    source: Box<dyn Source>,
    /// Number of each of its streams in the recording.
    streams: Vec<(StreamId, StreamId)>,
    /// What was decompressed for it, deleted with it.
    _temporary: Option<NamedTempFile>,
}

/// A stream of the recording.
struct Stream {
    topic: String,
    schema: String,
    /// Messages in the files before the current one.
    before: u64,
    /// Messages up to the end of the current one.
    after: u64,
}

impl Rosbag2Source {
    /// Opens a directory. `open_mcap` opens an MCAP file; databases are opened here. The window
    /// of `options` counts from the recording's start, not from that of each file.
    ///
    /// # Errors
    /// [`SourceError`] when the directory cannot be read or has no recording in it.
    pub(crate) fn open(
        directory: &Path,
        options: &SourceOptions,
        open_mcap: impl Fn(&Path, &SourceOptions) -> Result<Box<dyn Source>, SourceError>
        + Send
        + 'static,
    ) -> Result<Box<dyn Source>, SourceError> {
        let mut events = VecDeque::new();
        let mut warn = |text: String, loss| {
            events.push_back(Event::Warning(Warning { text, loss }));
        };
        let metadata = read_metadata(&directory.join(METADATA)).unwrap_or_else(|reason| {
            warn(
                format!("{METADATA} {reason}: the recordings in the directory are read, by name"),
                false,
            );
            Metadata::default()
        });
        let mut files = VecDeque::new();
        for listed in &metadata.relative_file_paths {
            match locate(directory, listed) {
                Some(path) => files.push_back(path),
                None => {
                    warn(format!("{listed}, listed in {METADATA}, is not there"), true);
                }
            }
        }
        if metadata.relative_file_paths.is_empty() {
            files = images::entries(directory)?.into_iter().filter(|p| is_recording(p)).collect();
        }
        if files.is_empty() {
            return Err(SourceError::invalid(
                directory,
                "a rosbag2 directory without any of its recordings (*.mcap, *.db3)",
                format!("bring the files that {METADATA} lists into the directory"),
            ));
        }
        let mut source = Self {
            directory: directory.into(),
            metadata,
            options: options.clone(),
            open_mcap: Box::new(open_mcap),
            files,
            current: None,
            opened: false,
            first_error: None,
            streams: Vec::new(),
            channels: JoinedChannels::default(),
            profile: String::new(),
            others: BTreeSet::new(),
            events,
        };
        source.fix_window()?;
        source.next_file();
        match source.first_error.take() {
            Some(error) if !source.opened && source.files.is_empty() => return Err(error),
            error => source.first_error = error,
        }
        Ok(Box::new(source))
    }

    /// Makes the moments of the window absolute, so that they mean the same in every file.
    fn fix_window(&mut self) -> Result<(), SourceError> {
        let relative = |moment| matches!(moment, Some(Moment::FromStart(_)));
        if !relative(self.options.start) && !relative(self.options.end) {
            return Ok(());
        }
        let start = match (&self.metadata.starting_time, self.files.front().cloned()) {
            (Some(time), _) => time.nanoseconds_since_epoch,
            (None, Some(first)) => self.first_packet(&first)?,
            (None, None) => return Ok(()),
        };
        for moment in [&mut self.options.start, &mut self.options.end] {
            if let Some(Moment::FromStart(ns)) = *moment {
                *moment = Some(Moment::Absolute(start.saturating_add(ns)));
            }
        }
        Ok(())
    }

    /// When the first message of a file was logged.
    fn first_packet(&self, path: &Path) -> Result<i64, SourceError> {
        let whole = SourceOptions { start: None, end: None, ..self.options.clone() };
        let (mut source, _temporary) = self.open_file(path, &whole)?;
        while let Some(event) = source.next_event()? {
            match event {
                Event::Packet(packet) => return Ok(packet.log_ns),
                Event::Message(message) => {
                    return Ok(i64::try_from(message.log_ns).unwrap_or(i64::MAX));
                }
                _ => {}
            }
        }
        Ok(0)
    }

    /// Opens a file by its first bytes.
    fn open_file(
        &self,
        path: &Path,
        options: &SourceOptions,
    ) -> Result<(Box<dyn Source>, Option<NamedTempFile>), SourceError> {
        let io = |error| SourceError::io(path, error);
        let mut start = Vec::new();
        let file = File::open(path).map_err(io)?;
        (&file).take(formats::SQLITE.len() as u64).read_to_end(&mut start).map_err(io)?;
        if start == formats::SQLITE {
            return Ok((formats::open_sqlite(path, options)?, None));
        }
        if !start.starts_with(formats::ZSTD) {
            // Whatever it is, or is not: the reader of MCAP files says what is wrong with it.
            return match self.metadata.storage_identifier.as_str() {
                "sqlite3" => Ok((formats::open_sqlite(path, options)?, None)),
                _ => Ok(((self.open_mcap)(path, options)?, None)),
            };
        }
        // Compressed as a whole: `compression_mode: FILE`.
        let mut temporary = NamedTempFile::new().map_err(io)?;
        let compressed = BufReader::new(File::open(path).map_err(io)?);
        zstd::stream::copy_decode(compressed, temporary.as_file_mut()).map_err(|error| {
            let reason =
                format!("cannot be decompressed to {}: {error}", temporary.path().display());
            SourceError::invalid(path, reason, "decompress it first: zstd -d FILE")
        })?;
        let unpacked = temporary.path();
        let mut start = Vec::new();
        File::open(unpacked)
            .and_then(|file| file.take(formats::SQLITE.len() as u64).read_to_end(&mut start))
            .map_err(io)?;
        let source = match start == formats::SQLITE {
            true => formats::open_sqlite(unpacked, options)?,
            false => (self.open_mcap)(unpacked, options)?,
        };
        Ok((source, Some(temporary)))
    }

    /// Goes on to the next file that can be opened.
    fn next_file(&mut self) {
        for stream in &mut self.streams {
            stream.before = stream.after;
        }
        while let Some(path) = self.files.pop_front() {
            let name = path.strip_prefix(&self.directory).unwrap_or(&path).display().to_string();
            match self.open_file(&path, &self.options) {
                Ok((source, temporary)) => {
                    self.opened = true;
                    self.profile = source.profile().into();
                    self.channels.next_file();
                    self.current =
                        Some(Part { name, source, streams: Vec::new(), _temporary: temporary });
                    return;
                }
                Err(error) => {
                    let text = format!("{error}; the recording goes on without this file");
                    self.events.push_back(Event::Warning(Warning { text, loss: true }));
                    self.first_error.get_or_insert(error);
                }
            }
        }
    }

    /// Why the recording gave nothing.
    fn nothing(&mut self) -> SourceError {
        match self.first_error.take() {
            Some(error @ (SourceError::Io { .. } | SourceError::Invalid { .. })) => error,
            _ => SourceError::no_camera(&self.directory, self.other_topics()),
        }
    }

    /// Joins a stream of the current file with the recording's.
    fn join(&mut self, info: StreamInfo) -> Option<Event> {
        let known =
            self.streams.iter().position(|s| s.topic == info.topic && s.schema == info.schema);
        let id = known.unwrap_or(self.streams.len());
        if let Some(part) = &mut self.current {
            part.streams.push((info.id, id));
        }
        let promised = info.messages.unwrap_or(0);
        if let Some(stream) = self.streams.get_mut(id) {
            stream.after = stream.before + promised;
            return None;
        }
        let counts = &self.metadata.topics_with_message_count;
        let mut listed = counts.iter().filter(|t| t.topic_metadata.name == info.topic);
        let messages = match (listed.next(), self.files.is_empty()) {
            (Some(topic), _) => Some(topic.message_count),
            (None, true) => info.messages,
            (None, false) => None,
        };
        let (topic, schema) = (info.topic.clone(), info.schema.clone());
        self.streams.push(Stream { topic, schema, before: 0, after: promised });
        Some(Event::Stream(StreamInfo { id, messages, ..info }))
    }
}

impl Source for Rosbag2Source {
    fn next_event(&mut self) -> Result<Option<Event>, SourceError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            let Some(part) = &mut self.current else {
                // Without a camera, all messages are of use.
                let is_useful = self.options.all_messages && !self.channels.is_empty();
                return match self.streams.as_slice() {
                    [] if !is_useful => Err(self.nothing()),
                    _ => Ok(None),
                };
            };
            let event = match part.source.next_event() {
                // A part of a recording may be without pictures.
                Err(error @ (SourceError::NoCamera { .. } | SourceError::Invalid { .. })) => {
                    self.first_error.get_or_insert(error);
                    None
                }
                other => other?,
            };
            match event {
                Some(Event::Stream(info)) => {
                    let event = self.join(info);
                    self.events.extend(event);
                }
                Some(Event::Packet(mut packet)) => {
                    let global = part.streams.iter().find(|(local, _)| *local == packet.stream);
                    let Some((_, global)) = global else { continue };
                    let Some(stream) = self.streams.get_mut(*global) else { continue };
                    packet.stream = *global;
                    packet.number += stream.before;
                    stream.after = stream.after.max(packet.number + 1);
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

/// Reads the description; the error says what is wrong with it.
fn read_metadata(path: &Path) -> Result<Metadata, String> {
    #[derive(Deserialize)]
    struct Document {
        rosbag2_bagfile_information: Metadata,
    }
    let mut text = String::new();
    File::open(path).and_then(|file| file.take(MAX_METADATA).read_to_string(&mut text)).map_err(
        |error| match error.kind() {
            std::io::ErrorKind::NotFound => "is missing".to_owned(),
            _ => format!("cannot be read ({error})"),
        },
    )?;
    let document: Document =
        serde_saphyr::from_str(&text).map_err(|error| format!("cannot be understood ({error})"))?;
    let metadata = document.rosbag2_bagfile_information;
    if metadata.relative_file_paths.is_empty() {
        return Err("lists no files".into());
    }
    Ok(metadata)
}

/// A listed file. Paths are relative to the directory; the first versions of rosbag2 wrote them
/// with the directory's name in front.
fn locate(directory: &Path, listed: &str) -> Option<PathBuf> {
    let listed = Path::new(listed);
    [directory.join(listed), directory.join(listed.file_name()?)].into_iter().find(|p| p.is_file())
}

/// By its name, also when it is compressed.
fn is_recording(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(".zstd").unwrap_or(&name);
    (name.ends_with(".mcap") || name.ends_with(".db3")) && path.is_file()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Payload;
    use crate::sqlite::tests::write;

    /// Stands for the reader of MCAP files: opens databases, whatever their name.
    fn open(directory: &Path, options: &SourceOptions) -> Result<Box<dyn Source>, SourceError> {
        Rosbag2Source::open(directory, options, |path, _| {
            Err(SourceError::invalid(path, "not an MCAP file", "check what it is"))
        })
    }

    #[derive(Debug, Default, PartialEq)]
    struct Read {
        streams: Vec<Option<u64>>,
        /// Number of the message, number in the picture.
        frames: Vec<(u64, u32)>,
        warnings: Vec<Warning>,
    }

    fn read(directory: &Path, options: &SourceOptions) -> Result<Read, SourceError> {
        let mut source = open(directory, options)?;
        let mut read = Read::default();
        while let Some(event) = source.next_event()? {
            match event {
                Event::Stream(info) => {
                    assert_eq!(info.id, read.streams.len());
                    read.streams.push(info.messages);
                }
                Event::Warning(warning) => read.warnings.push(warning),
                Event::Packet(packet) => {
                    assert_eq!(packet.stream, 0);
                    let Ok(Payload::Compressed { data, .. }) = packet.payload else { panic!() };
                    read.frames.push((packet.number, data[0].into()));
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(source.other_topics(), [("/imu".into(), "sensor_msgs/msg/Imu".into())]);
        Ok(read)
    }

    fn metadata(files: &[&str], start: &str, compression: &str) -> String {
        let files: String = files.iter().map(|file| format!("    - {file}\n")).collect();
        format!(
            "rosbag2_bagfile_information:
  version: 5
  storage_identifier: sqlite3
  duration:
    nanoseconds: 29000000
{start}  message_count: 60
  topics_with_message_count:
    - topic_metadata:
        name: /cam
        type: sensor_msgs/msg/CompressedImage
        serialization_format: cdr
        offered_qos_profiles: \"- history: 3\\n  depth: 0\"
      message_count: 30
  compression_format: {compression}
  compression_mode: {compression}
  relative_file_paths:
{files}  custom_data: ~
"
        )
    }

    const START: &str = "  starting_time:\n    nanoseconds_since_epoch: 0\n";

    /// Three files of ten frames each.
    fn recording() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, frames) in [("x_0.db3", 0..10), ("x_2.db3", 10..20), ("x_10.db3", 20..30)] {
            drop(write(&directory.path().join(name), frames, false));
        }
        directory
    }

    fn expected(numbers: std::ops::Range<u32>) -> Vec<(u64, u32)> {
        numbers.map(|n| (n.into(), n)).collect()
    }

    #[test]
    fn files_are_joined() {
        let directory = recording();
        let yaml = directory.path().join(METADATA);
        // As written today, and as first versions wrote it.
        for files in [["x_0.db3", "x_2.db3", "x_10.db3"], ["d/x_0.db3", "d/x_2.db3", "d/x_10.db3"]]
        {
            std::fs::write(&yaml, metadata(&files, START, "\"\"")).unwrap();
            let read = read(directory.path(), &SourceOptions::default()).unwrap();
            assert_eq!(
                read,
                Read { streams: vec![Some(30)], frames: expected(0..30), warnings: vec![] }
            );
        }
    }

    #[test]
    fn windows_count_from_the_recording() {
        let directory = recording();
        let yaml = directory.path().join(METADATA);
        let window = SourceOptions {
            start: Some(Moment::FromStart(8_000_000)),
            end: Some(Moment::FromStart(21_000_000)),
            ..Default::default()
        };
        for start in [START, ""] {
            let files = ["x_0.db3", "x_2.db3", "x_10.db3"];
            std::fs::write(&yaml, metadata(&files, start, "\"\"")).unwrap();
            assert_eq!(read(directory.path(), &window).unwrap().frames, expected(8..22));
        }
    }

    #[test]
    fn without_metadata_the_files_are_found() {
        let directory = recording();
        for text in [None, Some("rosbag2_bagfile_information: [1, 2"), Some("x: 1")] {
            if let Some(text) = text {
                std::fs::write(directory.path().join(METADATA), text).unwrap();
            }
            // Without the metadata, only the first bytes tell what the files are.
            let read = read(directory.path(), &SourceOptions::default()).unwrap();
            assert_eq!(read.frames, expected(0..30));
            assert!(matches!(read.warnings.as_slice(), [Warning { loss: false, .. }]), "{read:?}");
        }
    }

    #[test]
    fn files_that_are_missing_or_broken() {
        let directory = recording();
        let files = ["x_0.db3", "x_1.db3", "x_2.db3", "x_10.db3"];
        std::fs::write(directory.path().join(METADATA), metadata(&files, START, "\"\"")).unwrap();
        std::fs::write(directory.path().join("x_2.db3"), "").unwrap();
        let all = read(directory.path(), &SourceOptions::default()).unwrap();
        assert_eq!(
            all.frames.iter().map(|f| f.1).collect::<Vec<_>>(),
            (0..10).chain(20..30).collect::<Vec<_>>()
        );
        assert_eq!(all.warnings.iter().filter(|w| w.loss).count(), 2, "{:?}", all.warnings);
        assert!(all.warnings[0].text.contains("x_1.db3"));
        assert!(all.warnings[1].text.contains("x_2.db3"));
        for name in files {
            let _ = std::fs::write(directory.path().join(name), "");
        }
        let error = read(directory.path(), &SourceOptions::default()).unwrap_err().to_string();
        assert!(error.contains("x_0.db3"), "{error}");
        for name in files {
            std::fs::remove_file(directory.path().join(name)).unwrap();
        }
        let error = read(directory.path(), &SourceOptions::default()).unwrap_err().to_string();
        assert!(error.contains("without any of its recordings"), "{error}");
    }

    #[test]
    fn compressed_files() {
        let directory = recording();
        for name in ["x_0.db3", "x_2.db3", "x_10.db3"] {
            let path = directory.path().join(name);
            let bytes = std::fs::read(&path).unwrap();
            let zipped = zstd::encode_all(bytes.as_slice(), 1).unwrap();
            std::fs::write(directory.path().join(format!("{name}.zstd")), zipped).unwrap();
            std::fs::remove_file(path).unwrap();
        }
        let files = ["x_0.db3.zstd", "x_2.db3.zstd", "x_10.db3.zstd"];
        std::fs::write(directory.path().join(METADATA), metadata(&files, START, "zstd")).unwrap();
        let all = read(directory.path(), &SourceOptions::default()).unwrap();
        assert_eq!((all.frames, all.warnings), (expected(0..30), vec![]));
        // Cut within the compressed data.
        let path = directory.path().join("x_2.db3.zstd");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let part = read(directory.path(), &SourceOptions::default()).unwrap();
        assert!(part.warnings[0].loss && part.warnings[0].text.contains("zstd -d"), "{part:?}");
    }

    #[test]
    fn parts_without_a_camera() {
        let directory = recording();
        let strip = |name: &str| {
            let path = directory.path().join(name);
            std::fs::remove_file(&path).unwrap();
            let database = write(&path, 10..20, false);
            database.execute("DELETE FROM topics WHERE id = 2", []).unwrap();
        };
        let files = ["x_0.db3", "x_2.db3", "x_10.db3"];
        std::fs::write(directory.path().join(METADATA), metadata(&files, START, "\"\"")).unwrap();
        strip("x_2.db3");
        let part = read(directory.path(), &SourceOptions::default()).unwrap();
        assert_eq!((part.frames.len(), part.warnings), (20, vec![]));
        strip("x_0.db3");
        strip("x_10.db3");
        let error = read(directory.path(), &SourceOptions::default()).unwrap_err();
        let SourceError::NoCamera { topics, locator } = error else { panic!("{error}") };
        assert_eq!((topics.len(), locator.as_path()), (1, Some(directory.path())));
    }

    #[test]
    fn other_files_go_to_the_reader_of_mcap() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("x.mcap"), b"\x89MCAP0\r\n").unwrap();
        let error = open(directory.path(), &SourceOptions::default()).err().unwrap().to_string();
        assert!(error.contains("x.mcap: not an MCAP file"), "{error}");
    }
}
