//! The SQLite databases of rosbag2 (`.db3`).
//!
//! The times of all messages are read first and put into order, then the messages one by one: so
//! nothing depends on the database's index, and what is readable of a damaged table is found from
//! both of its ends.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fs::File;
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};
use tempfile::TempDir;

use super::filter::{TopicFilter, Window, no_stream};
use super::formats;
use super::message::{self, CameraMessage, CameraSchema, Serialization};
use super::{
    BadMessage, Event, Packet, Source, SourceError, SourceOptions, StreamId, StreamInfo, Warning,
};

/// A rosbag2 database.
pub(crate) struct SqliteSource {
    database: Connection,
    /// Where the database lies when it had to be copied. Dropped after the connection.
    _copy: Option<TempDir>,
    path: PathBuf,
    limit: u64,
    wanted: RangeInclusive<i64>,
    streams: Vec<Stream>,
    others: BTreeSet<(String, String)>,
    /// Camera topics that were not asked for.
    unwanted: BTreeSet<String>,
    /// Camera messages in order: time, row, stream.
    messages: std::vec::IntoIter<Row>,
    events: VecDeque<Event>,
}

type Row = (i64, i64, StreamId);

struct Stream {
    schema: CameraSchema,
    /// As the database names it; only `cdr` can be read.
    serialization: String,
    /// Messages so far.
    number: u64,
}

impl SqliteSource {
    /// Opens a database, without writing to it or next to it.
    ///
    /// # Errors
    /// [`SourceError`] when it cannot be read or is not of rosbag2.
    pub(crate) fn open(
        path: &Path,
        options: &SourceOptions,
    ) -> Result<Box<dyn Source>, SourceError> {
        check_magic(path)?;
        let (database, copy) = connect(path)?;
        let mut source = Self {
            database,
            _copy: copy,
            path: path.into(),
            limit: options.limits.message_bytes,
            wanted: i64::MIN..=i64::MAX,
            streams: Vec::new(),
            others: BTreeSet::new(),
            unwanted: BTreeSet::new(),
            messages: Vec::new().into_iter(),
            events: VecDeque::new(),
        };
        source.read_topics(&TopicFilter::new(path, options)?, &Window::new(options))?;
        Ok(Box::new(source))
    }

    fn read_topics(&mut self, filter: &TopicFilter, window: &Window) -> Result<(), SourceError> {
        let topics = match self.topics() {
            // SQLite refuses a file that is shorter than its header says, unless told that the
            // schema may be wrong.
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) => self
                .database
                .pragma_update(None, "writable_schema", true)
                .and_then(|()| self.topics()),
            other => other,
        };
        let topics = topics.map_err(|error| {
            let reason = format!("not a rosbag2 database, or damaged: {error}");
            SourceError::invalid(&self.path, reason, "check what it is")
        })?;
        let mut wanted = HashMap::new();
        let mut infos = Vec::new();
        for (id, topic, name, serialization) in topics {
            let schema = CameraSchema::from_name(&name);
            let Some(schema) = schema else {
                self.others.insert((topic, name));
                continue;
            };
            if filter.matches(&topic) {
                wanted.insert(id, self.streams.len());
                infos.push(StreamInfo {
                    id: self.streams.len(),
                    topic,
                    schema: name,
                    messages: Some(0),
                    rate: None,
                });
                self.streams.push(Stream { schema, serialization, number: 0 });
            } else {
                self.unwanted.insert(topic);
            }
        }
        let (mut rows, first, damage) = self.rows(&wanted);
        if let Some(damage) = damage {
            let text = format!(
                "the database is damaged ({damage}): {} camera messages of it can be read, others \
                 may be missing",
                rows.len()
            );
            self.events.push_back(Event::Warning(Warning { text, loss: true }));
        }
        rows.sort_unstable();
        for (_, _, stream) in &rows {
            if let Some(info) = infos.get_mut(*stream) {
                info.messages = info.messages.map(|count| count + 1);
            }
        }
        self.events.extend(infos.into_iter().map(Event::Stream));
        self.messages = rows.into_iter();
        self.wanted = window.bounds(first);
        Ok(())
    }

    /// Number, name, type and serialization of all topics.
    fn topics(&self) -> rusqlite::Result<Vec<(i64, String, String, String)>> {
        let mut query =
            self.database.prepare("SELECT id, name, type, serialization_format FROM topics")?;
        // Fails here when it is not a recording, however it is damaged.
        self.database.prepare("SELECT id, topic_id, timestamp, data FROM messages")?;
        let rows = query.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)))?;
        rows.collect()
    }

    /// Messages of the wanted topics, the first time in the recording, and what is wrong.
    fn rows(&self, wanted: &HashMap<i64, StreamId>) -> (Vec<Row>, i64, Option<String>) {
        let mut rows = Vec::new();
        let (mut first, mut last_id) = (i64::MAX, i64::MIN);
        let mut scan = |order: &str, after: &mut i64| -> rusqlite::Result<()> {
            let mut query = self.database.prepare(&format!(
                "SELECT id, topic_id, timestamp FROM messages NOT INDEXED ORDER BY id {order}"
            ))?;
            let mut found = query.query([])?;
            while let Some(row) = found.next()? {
                let (id, topic, time): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
                if order == "DESC" && id <= *after {
                    break;
                }
                if order == "ASC" {
                    *after = id;
                }
                first = first.min(time);
                if let Some(stream) = wanted.get(&topic) {
                    rows.push((time, id, *stream));
                }
            }
            Ok(())
        };
        let damage = scan("ASC", &mut last_id).err().map(|error| {
            // From the end backwards, down to the damage.
            let _ = scan("DESC", &mut last_id);
            error.to_string()
        });
        (rows, if first == i64::MAX { 0 } else { first }, damage)
    }

    fn message(&self, row: i64, stream: &Stream) -> Result<CameraMessage, BadMessage> {
        let bad = |reason: String| BadMessage { reason: format!("row {row}: {reason}") };
        if stream.serialization != "cdr" {
            return Err(bad(format!(
                "serialization `{}` cannot be read, only cdr",
                stream.serialization
            )));
        }
        let limit = i64::try_from(self.limit).unwrap_or(i64::MAX);
        let data: Option<Option<Bytes>> = self
            .database
            .prepare_cached(
                "SELECT CASE WHEN length(data) <= ?2 THEN data END FROM messages WHERE id = ?1",
            )
            .and_then(|mut query| {
                query
                    .query_row([row, limit], |r| {
                        Ok(r.get_ref(0)?.as_blob_or_null()?.map(Bytes::copy_from_slice))
                    })
                    .optional()
            })
            .map_err(|error| bad(error.to_string()))?;
        let data = data.ok_or_else(|| bad("it is missing".into()))?;
        let data = data.ok_or_else(|| bad(format!("no data, or more than {limit} bytes")))?;
        let data =
            if data.starts_with(formats::ZSTD) { self.unzip(&data).map_err(bad)? } else { data };
        message::decode(stream.schema, Serialization::Cdr, &data)
    }

    /// Decompresses a message that was compressed on its own.
    fn unzip(&self, data: &[u8]) -> Result<Bytes, String> {
        let mut out = Vec::new();
        zstd::stream::read::Decoder::new(data)
            .and_then(|zip| zip.take(self.limit.saturating_add(1)).read_to_end(&mut out))
            .map_err(|error| format!("zstd: {error}"))?;
        if out.len() as u64 > self.limit {
            return Err(format!("more than {} bytes come out of zstd", self.limit));
        }
        Ok(out.into())
    }
}

impl Source for SqliteSource {
    fn next_event(&mut self) -> Result<Option<Event>, SourceError> {
        if let Some(event) = self.events.pop_front() {
            return Ok(Some(event));
        }
        while let Some((log_ns, row, id)) = self.messages.next() {
            let Some(stream) = self.streams.get_mut(id) else { continue };
            let number = stream.number;
            stream.number += 1;
            if log_ns > *self.wanted.end() {
                break;
            }
            if !self.wanted.contains(&log_ns) {
                continue;
            }
            let Some(stream) = self.streams.get(id) else { continue };
            let (header_ns, payload) = match self.message(row, stream) {
                Ok(camera) => (camera.header_ns, Ok(camera.payload)),
                Err(error) => (None, Err(error)),
            };
            let packet = Packet { stream: id, number, log_ns, header_ns, payload, message: None };
            return Ok(Some(Event::Packet(packet)));
        }
        self.messages = Vec::new().into_iter();
        match self.streams.as_slice() {
            [] => Err(no_stream(&self.path, &self.others, &self.unwanted)),
            _ => Ok(None),
        }
    }

    fn other_topics(&self) -> Vec<(String, String)> {
        self.others.iter().cloned().collect()
    }
}

fn check_magic(path: &Path) -> Result<(), SourceError> {
    let mut start = Vec::new();
    File::open(path)
        .and_then(|file| file.take(formats::SQLITE.len() as u64).read_to_end(&mut start))
        .map_err(|e| SourceError::io(path, e))?;
    match start.as_slice() {
        formats::SQLITE => Ok(()),
        [] => Err(SourceError::invalid(path, "the file is empty", "record again")),
        _ => Err(SourceError::invalid(path, "not an SQLite database", "check what it is")),
    }
}

/// Opens the database read-only and leaves no file next to it. What the recorder has not yet
/// moved from its write-ahead log (`-wal`) into the database is only seen by a connection that
/// may write, so such a database is copied.
fn connect(path: &Path) -> Result<(Connection, Option<TempDir>), SourceError> {
    let sqlite = |error: rusqlite::Error| {
        SourceError::invalid(path, format!("cannot be opened: {error}"), "check the file")
    };
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    if std::fs::metadata(&log).is_ok_and(|meta| meta.len() > 0) {
        let io = |error| SourceError::io(path, error);
        let copy = TempDir::new().map_err(io)?;
        let target = copy.path().join("copy.db3");
        std::fs::copy(path, &target).map_err(io)?;
        std::fs::copy(&log, copy.path().join("copy.db3-wal")).map_err(io)?;
        // The copy of a read-only file is read-only as well.
        let mut permissions = std::fs::metadata(&target).map_err(io)?.permissions();
        if permissions.readonly() {
            #[allow(clippy::permissions_set_readonly_false)]
            permissions.set_readonly(false);
            std::fs::set_permissions(&target, permissions).map_err(io)?;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        return Ok((Connection::open_with_flags(target, flags).map_err(sqlite)?, Some(copy)));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Ok((Connection::open_with_flags(immutable(path), flags).map_err(sqlite)?, None))
}

/// The address of a database that nobody else writes: no lock, no shared memory, no log.
fn immutable(path: &Path) -> String {
    let mut uri = String::from("file:");
    if cfg!(windows) && path.is_absolute() {
        uri.push('/');
    }
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'\\' if cfg!(windows) => uri.push('/'),
            b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*byte)),
            b':' if cfg!(windows) => uri.push(':'),
            b if b.is_ascii_alphanumeric() => uri.push(char::from(*b)),
            b => uri.push_str(&format!("%{b:02X}")),
        }
    }
    uri.push_str("?immutable=1");
    uri
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Moment, Payload};

    /// A `sensor_msgs/msg/CompressedImage` in CDR that carries its number.
    fn image(number: u32) -> Vec<u8> {
        let mut out = vec![0, 1, 0, 0];
        out.extend(7u32.to_le_bytes());
        out.extend(number.to_le_bytes());
        for text in [&b"cam\0"[..], b"jpeg\0\0\0\0"] {
            out.extend((if text.len() == 8 { 5u32 } else { 4 }).to_le_bytes());
            out.extend(text);
        }
        out.extend(3000u32.to_le_bytes());
        out.extend([number as u8; 3000]);
        out
    }

    /// Writes a recording: frames with their numbers, one in a millisecond, the later row first.
    pub(crate) fn write(path: &Path, frames: std::ops::Range<u32>, zip: bool) -> Connection {
        let database = Connection::open(path).unwrap();
        database
            .execute_batch(
                "PRAGMA synchronous=OFF; BEGIN;
                 CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL,
                     serialization_format TEXT NOT NULL, offered_qos_profiles TEXT NOT NULL);
                 CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL,
                     timestamp INTEGER NOT NULL, data BLOB NOT NULL);
                 CREATE INDEX timestamp_idx ON messages (timestamp ASC);
                 INSERT INTO topics VALUES (1, '/imu', 'sensor_msgs/msg/Imu', 'cdr', ''),
                     (2, '/cam', 'sensor_msgs/msg/CompressedImage', 'cdr', '');",
            )
            .unwrap();
        for number in frames.rev() {
            let data = image(number);
            let data = if zip { zstd::encode_all(data.as_slice(), 1).unwrap() } else { data };
            for (topic, data) in [(2, data.as_slice()), (1, &[1, 2, 3])] {
                let row = rusqlite::params![topic, i64::from(number) * 1_000_000, data];
                let insert = "INSERT INTO messages(topic_id, timestamp, data) VALUES (?, ?, ?)";
                database.execute(insert, row).unwrap();
            }
        }
        database.execute_batch("COMMIT").unwrap();
        database
    }

    /// Numbers of the frames, how many are bad, the warnings.
    type Read = (Vec<u32>, usize, Vec<Warning>);

    fn read(path: &Path, options: &SourceOptions) -> Result<Read, SourceError> {
        let mut source = SqliteSource::open(path, options)?;
        let (mut numbers, mut bad, mut warnings) = (Vec::new(), 0, Vec::new());
        while let Some(event) = source.next_event()? {
            match event {
                Event::Stream(info) => assert_eq!((info.id, info.topic.as_str()), (0, "/cam")),
                Event::Warning(warning) => warnings.push(warning),
                Event::Packet(packet) => match packet.payload {
                    Ok(Payload::Compressed { data, .. }) => {
                        assert_eq!(packet.log_ns, i64::from(data[0]) * 1_000_000);
                        numbers.push(data[0].into());
                    }
                    _ => bad += 1,
                },
                other => panic!("{other:?}"),
            }
        }
        Ok((numbers, bad, warnings))
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        let mut names: Vec<_> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn messages_in_order() {
        let directory = tempfile::tempdir().unwrap();
        // A name that an address must escape.
        let path = directory.path().join("a b%20?é.db3");
        drop(write(&path, 0..20, false));
        let before = std::fs::read(&path).unwrap();
        let options = SourceOptions::default();
        assert_eq!(read(&path, &options).unwrap(), ((0..20).collect(), 0, vec![]));
        let window = SourceOptions {
            start: Some(Moment::FromStart(5_000_000)),
            end: Some(Moment::Absolute(7_000_000)),
            ..Default::default()
        };
        assert_eq!(read(&path, &window).unwrap().0, [5, 6, 7]);
        assert_eq!(std::fs::read(&path).unwrap(), before);
        assert_eq!(names(directory.path()).len(), 1);
        let source = SqliteSource::open(&path, &options).unwrap();
        assert_eq!(source.other_topics(), [("/imu".into(), "sensor_msgs/msg/Imu".into())]);
    }

    #[test]
    fn compressed_messages_and_limits() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.db3");
        drop(write(&path, 0..5, true));
        let options = SourceOptions::default();
        assert_eq!(read(&path, &options).unwrap(), ((0..5).collect(), 0, vec![]));
        let limits = crate::Limits { message_bytes: 1000, ..Default::default() };
        let small = SourceOptions { limits, ..Default::default() };
        assert_eq!(read(&path, &small).unwrap(), (vec![], 5, vec![]));
    }

    #[test]
    fn the_write_ahead_log_is_read_and_nothing_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.db3");
        let database = write(&path, 0..3, false);
        let mode: String =
            database.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0)).unwrap();
        assert_eq!(mode, "wal");
        let insert = "INSERT INTO messages(topic_id, timestamp, data) VALUES (2, 3000000, ?)";
        database.execute(insert, [image(3)]).unwrap();
        // As a recorder leaves it that was killed.
        let dead = tempfile::tempdir().unwrap();
        let copy = dead.path().join("a.db3");
        std::fs::copy(&path, &copy).unwrap();
        std::fs::copy(directory.path().join("a.db3-wal"), dead.path().join("a.db3-wal")).unwrap();
        drop(database);
        let options = SourceOptions::default();
        assert_eq!(read(&copy, &options).unwrap().0, [0, 1, 2, 3]);
        assert_eq!(names(dead.path()), ["a.db3", "a.db3-wal"]);
        // Closed well, but still in that mode; the log is gone.
        assert_eq!(names(directory.path()), ["a.db3"]);
        assert_eq!(read(&path, &options).unwrap().0, [0, 1, 2, 3]);
        assert_eq!(names(directory.path()), ["a.db3"]);
    }

    #[test]
    fn a_cut_database_gives_what_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.db3");
        drop(write(&path, 0..100, false));
        let bytes = std::fs::read(&path).unwrap();
        for part in [9, 7, 5, 3] {
            std::fs::write(&path, &bytes[..bytes.len() * part / 10]).unwrap();
            let (numbers, bad, warnings) = read(&path, &SourceOptions::default()).unwrap();
            // Rows were written from the last frame to the first.
            assert!(
                numbers.len() > part * 10 - 20 && numbers.ends_with(&[99]),
                "{part} {numbers:?}"
            );
            assert!(warnings.iter().any(|w| w.loss) || bad > 0, "{part} {bad} {warnings:?}");
        }
    }

    #[test]
    fn what_is_no_recording() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.db3");
        let options = SourceOptions::default();
        let error = || SqliteSource::open(&path, &options).err().unwrap().to_string();
        std::fs::write(&path, "").unwrap();
        assert!(error().contains("empty"));
        std::fs::write(&path, "text").unwrap();
        assert!(error().contains("not an SQLite database"));
        std::fs::remove_file(&path).unwrap();
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE x(y)").unwrap();
        assert!(error().contains("not a rosbag2 database"), "{}", error());
    }

    #[test]
    fn no_camera() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.db3");
        let database = write(&path, 0..3, false);
        let other = SourceOptions { topics: vec!["/x".into()], ..Default::default() };
        let error = read(&path, &other).unwrap_err().to_string();
        assert!(error.contains("its camera topics are: /cam"), "{error}");
        database.execute("DELETE FROM topics WHERE id = 2", []).unwrap();
        drop(database);
        let error = read(&path, &SourceOptions::default()).unwrap_err();
        let SourceError::NoCamera { topics, .. } = error else { panic!("{error}") };
        assert_eq!(topics, [("/imu".into(), "sensor_msgs/msg/Imu".into())]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn noise_does_not_panic(
            len in 1usize..60_000,
            noise in prop::collection::vec((0usize..60_000, any::<u8>()), 0..30),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("a.db3");
            drop(write(&path, 0..10, false));
            let mut bytes = std::fs::read(&path).unwrap();
            for (at, value) in noise {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            bytes.truncate(len);
            std::fs::write(&path, bytes).unwrap();
            if let Ok(mut source) = SqliteSource::open(&path, &SourceOptions::default()) {
                while let Ok(Some(_)) = source.next_event() {}
            }
        }
    }
}
