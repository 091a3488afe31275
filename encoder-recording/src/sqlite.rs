//! The SQLite databases of rosbag2 (`.db3`).
//!
//! The times of all messages are read first, then the messages in the order of these times: so the
//! order does not depend on the database's index, and of a damaged table all is read that can be
//! reached from either of its ends.

mod database;
mod rows;
#[cfg(test)]
pub(super) mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rusqlite::{ErrorCode, OptionalExtension};

use self::database::Database;
use self::rows::{Rows, Survey};
use super::filter::{TopicFilter, Window};
use super::formats;
use super::message::{self, CameraMessage, CameraSchema, Serialization};
use super::{BadMessage, Event, Packet, Source, SourceError, SourceOptions, StreamInfo, Warning};

/// How many topics a database may have: each is kept in memory.
const MAX_TOPICS: usize = 1 << 16;

/// A rosbag2 database.
pub(crate) struct SqliteSource {
    database: Database,
    path: PathBuf,
    limit: u64,
    wanted: RangeInclusive<i64>,
    streams: Vec<Stream>,
    others: BTreeSet<(String, String)>,
    /// Camera topics that were not asked for.
    unwanted: BTreeSet<String>,
    /// Camera messages in order; `None` at the end.
    rows: Option<Rows>,
    ended: bool,
    events: VecDeque<Event>,
}

struct Stream {
    schema: CameraSchema,
    /// Its name in the database; only `cdr` can be read.
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
        let (database, warnings) = Database::open(path, options)?;
        let mut source = Self {
            database,
            path: path.into(),
            limit: options.limits.message_bytes,
            wanted: i64::MIN..=i64::MAX,
            streams: Vec::new(),
            others: BTreeSet::new(),
            unwanted: BTreeSet::new(),
            rows: None,
            ended: false,
            events: warnings.into_iter().map(Event::Warning).collect(),
        };
        source.read_topics(&TopicFilter::new(path, options)?, &Window::new(options))?;
        Ok(Box::new(source))
    }

    fn read_topics(&mut self, filter: &TopicFilter, window: &Window) -> Result<(), SourceError> {
        let topics = match self.topics() {
            // SQLite refuses a file that is shorter than its header promises, unless the schema
            // may be wrong.
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) => self
                .database
                .connection
                .pragma_update(None, "writable_schema", true)
                .and_then(|()| self.topics()),
            other => other,
        };
        let topics = topics.map_err(|error| error.to_string()).flatten().map_err(|error| {
            let reason = format!("not a rosbag2 database, or damaged: {error}");
            SourceError::invalid(self.path.as_path(), reason, "check what it is")
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
        let survey = Survey::new(&self.database.connection, &wanted, self.streams.len());
        if let Some(damage) = &survey.damage {
            let text = format!(
                "the database is damaged ({damage}): {} camera messages of it can be read, others \
                 may be missing",
                survey.total()
            );
            self.events.push_back(Event::Warning(Warning { text, loss: true }));
        }
        for (info, count) in infos.iter_mut().zip(&survey.counts) {
            info.messages = Some(*count);
        }
        self.events.extend(infos.into_iter().map(Event::Stream));
        self.wanted = window.bounds(survey.first.unwrap_or(0));
        self.rows = Some(Rows::new(&survey, wanted));
        Ok(())
    }

    /// Number, name, type and serialization of all topics, or why this is not a recording.
    fn topics(&self) -> rusqlite::Result<Result<Vec<(i64, String, String, String)>, String>> {
        let database = &self.database.connection;
        if let Err(reason) = self.database.check_schema()? {
            return Ok(Err(reason));
        }
        let mut query =
            database.prepare("SELECT id, name, type, serialization_format FROM topics")?;
        // Fails here when a column is missing, however the table is damaged.
        database.prepare("SELECT rowid, topic_id, timestamp, data FROM messages")?;
        let rows = query.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)))?;
        let topics = rows.take(MAX_TOPICS + 1).collect::<rusqlite::Result<Vec<_>>>()?;
        Ok(match topics.len() > MAX_TOPICS {
            true => Err(format!("it has more than {MAX_TOPICS} topics")),
            false => Ok(topics),
        })
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
        // Larger values are not read into memory.
        let found: Option<(Option<i64>, Option<Bytes>)> = self
            .database
            .connection
            .prepare_cached(
                "SELECT length(data), CASE WHEN length(data) <= ?2 THEN data END
                 FROM messages WHERE rowid = ?1",
            )
            .and_then(|mut query| {
                query
                    .query_row([row, limit], |r| {
                        let data = r.get_ref(1)?.as_blob_or_null()?.map(Bytes::copy_from_slice);
                        Ok((r.get(0)?, data))
                    })
                    .optional()
            })
            .map_err(|error| bad(error.to_string()))?;
        let data = match found {
            Some((_, Some(data))) => data,
            Some((Some(length), None)) => {
                return Err(bad(format!(
                    "it has {length} bytes, and the limit is {limit}; raise --max-message-bytes"
                )));
            }
            Some((None, None)) => return Err(bad("it has no data".into())),
            None => return Err(bad("it is missing".into())),
        };
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
            return Err(format!(
                "it has more than {} bytes decompressed, the limit; raise --max-message-bytes",
                self.limit
            ));
        }
        Ok(out.into())
    }
}

impl SqliteSource {
    /// What is to be reported when the last message was read; once.
    fn end(&mut self) -> Option<Event> {
        if std::mem::replace(&mut self.ended, true) {
            return None;
        }
        let missing = self.rows.take().and_then(|mut rows| rows.missing());
        let text = match missing {
            _ if self.database.has_changed() => {
                "the database was written while it was read: messages may be missing or out of \
                 order; convert it when the recorder has ended"
                    .into()
            }
            missing => missing?,
        };
        Some(Event::Warning(Warning { text, loss: true }))
    }
}

impl Source for SqliteSource {
    fn next_event(&mut self) -> Result<Option<Event>, SourceError> {
        if let Some(event) = self.events.pop_front() {
            return Ok(Some(event));
        }
        while let Some((log_ns, row, id)) =
            self.rows.as_mut().and_then(|rows| rows.next(&self.database.connection))
        {
            let Some(stream) = self.streams.get_mut(id) else { continue };
            let number = stream.number;
            stream.number += 1;
            if log_ns > *self.wanted.end() {
                self.rows = None;
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
            let packet = Packet { stream: id, number, log_ns, header_ns, payload };
            return Ok(Some(Event::Packet(packet)));
        }
        if let Some(event) = self.end() {
            return Ok(Some(event));
        }
        match self.streams.as_slice() {
            [] => Err(formats::no_camera(&self.path, &self.others, &self.unwanted)),
            _ => Ok(None),
        }
    }

    fn other_topics(&self) -> Vec<(String, String)> {
        self.others.iter().cloned().collect()
    }
}
