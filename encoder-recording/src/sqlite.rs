//! The SQLite databases of rosbag2 (`.db3`).
//!
//! The times of all messages are read first, then the messages in the order of these times. So the
//! order does not depend on the database's index, and all rows of a damaged table are read that can
//! be reached from either of its ends.

mod channels;
mod database;
mod rows;
#[cfg(test)]
pub(super) mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rusqlite::{ErrorCode, OptionalExtension};

use self::channels::Descriptions;
use self::database::Database;
use self::rows::{Rows, Survey};
use super::filter::{TopicFilter, Window};
use super::message::{self, CameraSchema, Serialization};
use super::signature;
use super::zipped;
use super::{
    BadMessage, ChannelId, ChannelInfo, Event, Message, Packet, Source, SourceError, SourceOptions,
    StreamId, StreamInfo, Warning,
};

/// The most topics of a database: each is kept in memory.
const MAX_TOPICS: usize = 1 << 16;

/// A rosbag2 database.
pub(crate) struct SqliteSource {
    database: Database,
    path: PathBuf,
    limit: u64,
    wanted: RangeInclusive<i64>,
    /// Log times of the first and the last message.
    span: Option<(i64, i64)>,
    /// Whether messages of all topics are requested.
    all: bool,
    /// Topics whose messages are selected.
    topics: Vec<Topic>,
    has_cameras: bool,
    /// Number of non-camera messages that cannot be read, and the reason for the first of them.
    broken: Option<(u64, String)>,
    others: BTreeSet<(String, String)>,
    /// Camera topics that were not selected.
    unwanted: BTreeSet<String>,
    /// Selected messages, in order; `None` at the end.
    rows: Option<Rows>,
    ended: bool,
    events: VecDeque<Event>,
}

struct Topic {
    /// Its stream and type; `None` if the topic is not a selected camera.
    camera: Option<(StreamId, CameraSchema)>,
    /// Its number among the channels, if all messages are requested.
    channel: Option<ChannelId>,
    /// Its serialization format in the database; camera messages are read from `cdr` only.
    serialization: String,
    /// Messages so far.
    number: u64,
}

impl SqliteSource {
    /// Opens a database. Writes neither to it nor to its directory.
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
            span: None,
            all: options.all_messages,
            topics: Vec::new(),
            has_cameras: false,
            broken: None,
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
            // SQLite refuses a file that is shorter than its header claims, unless
            // `writable_schema` allows the schema to be wrong.
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
        let (mut wanted, mut names) = (HashMap::new(), HashMap::new());
        let mut infos = Vec::new();
        let mut channels = Vec::new();
        let mut descriptions = self.descriptions();
        // A topic that is listed again, as for a second publisher, is the same stream.
        let mut known = HashMap::new();
        for (id, topic, name, serialization) in topics {
            let camera = match CameraSchema::from_name(&name) {
                Some(schema) if filter.matches(&topic) => Some((infos.len(), schema)),
                Some(_) => {
                    self.unwanted.insert(topic.clone());
                    None
                }
                None => {
                    self.others.insert((topic.clone(), name.clone()));
                    None
                }
            };
            names.insert(id, (topic.clone(), camera.is_some()));
            if camera.is_none() && !self.all {
                continue;
            }
            let next = self.topics.len();
            let key = (topic.clone(), camera.map(|(_, schema)| schema), serialization.clone());
            let number = if camera.is_some() { *known.entry(key).or_insert(next) } else { next };
            wanted.insert(id, number);
            if number < next {
                continue;
            }
            if let Some(descriptions) = &mut descriptions {
                channels.push(ChannelInfo {
                    id: channels.len(),
                    recorded_id: u32::try_from(id).ok(),
                    topic: topic.clone(),
                    encoding: serialization.clone(),
                    schema: Some(descriptions.schema(&name)),
                    metadata: descriptions.metadata(id),
                    stream: camera.map(|(stream, _)| stream),
                });
            }
            let channel = channels.len().checked_sub(1);
            if let Some((id, _)) = camera {
                infos.push(StreamInfo { id, topic, schema: name, messages: Some(0), rate: None });
            }
            self.topics.push(Topic { camera, channel, serialization, number: 0 });
        }
        self.has_cameras = !infos.is_empty();
        let survey = Survey::new(&self.database.connection, &wanted, self.topics.len(), &names);
        if let Some(damage) = &survey.damage {
            let text = format!(
                "the database is damaged ({damage}): {} {} of it can be read, others may be missing",
                survey.total(),
                if self.all { "messages" } else { "camera messages" }
            );
            self.events.push_back(Event::Warning(Warning { text, loss: true }));
        }
        let set = survey.steps.warnings().map(|text| Warning { text, loss: false });
        self.events.extend(set.map(Event::Warning));
        for (topic, count) in self.topics.iter().zip(&survey.counts) {
            if let Some(info) = topic.camera.and_then(|(stream, _)| infos.get_mut(stream)) {
                info.messages = Some(*count);
            }
        }
        self.events.extend(infos.into_iter().map(Event::Stream));
        self.events.extend(channels.into_iter().map(Event::Channel));
        self.span = survey.first.zip(survey.last);
        self.wanted = window.bounds(survey.first.unwrap_or(0));
        self.rows = Some(Rows::new(&survey, wanted));
        Ok(())
    }

    /// Reads the descriptions of the topics, if all messages are requested. Damage there is
    /// reported, and loses only the definitions.
    fn descriptions(&mut self) -> Option<Descriptions> {
        if !self.all {
            return None;
        }
        let (descriptions, text) = match Descriptions::read(&self.database, self.limit) {
            Ok(found) if found.is_cut => {
                (found, "are larger than the limit together (`Limits::message_bytes`)".into())
            }
            Ok(found) => return Some(found),
            Err(error) => (Descriptions::default(), format!("cannot be read: {error}")),
        };
        let text = format!("the definitions of the message types {text}; some are left out");
        self.events.push_back(Event::Warning(Warning { text, loss: true }));
        Some(descriptions)
    }

    /// Number, name, type and serialization of all topics, or the reason why this is not a
    /// recording.
    fn topics(&self) -> rusqlite::Result<Result<Vec<(i64, String, String, String)>, String>> {
        let database = &self.database.connection;
        if let Err(reason) = self.database.check_schema()? {
            return Ok(Err(reason));
        }
        let mut query =
            database.prepare("SELECT id, name, type, serialization_format FROM topics")?;
        // Fails here if a column is missing, however damaged the table is.
        database.prepare("SELECT rowid, topic_id, timestamp, data FROM messages")?;
        let rows = query.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)))?;
        let topics = rows.take(MAX_TOPICS + 1).collect::<rusqlite::Result<Vec<_>>>()?;
        Ok(match topics.len() > MAX_TOPICS {
            true => Err(format!("it has more than {MAX_TOPICS} topics")),
            false => Ok(topics),
        })
    }

    /// The event of a row.
    fn event(&mut self, (log_ns, row, topic): (i64, i64, usize)) -> Option<Event> {
        let topic = self.topics.get_mut(topic)?;
        let number = topic.number;
        topic.number += 1;
        if !self.wanted.contains(&log_ns) {
            return None;
        }
        let (camera, channel) = (topic.camera, topic.channel);
        let is_refused = camera.is_some() && topic.serialization != "cdr";
        let refused = is_refused.then(|| BadMessage {
            reason: format!(
                "row {row}: serialization `{}` cannot be read, only cdr",
                topic.serialization
            ),
        });
        let data = match &refused {
            Some(bad) if !self.all => Err(bad.clone()),
            _ => self.data(row),
        };
        let time = u64::try_from(log_ns).unwrap_or_default();
        let message = data.as_ref().ok().zip(channel).map(|(data, channel)| Message {
            channel,
            sequence: 0,
            log_ns: time,
            publish_ns: time,
            data: data.clone(),
        });
        let Some((stream, schema)) = camera else {
            if let Err(bad) = &data {
                self.broken.get_or_insert_with(|| (0, bad.reason.clone())).0 += 1;
            }
            return message.map(Event::Message);
        };
        let decoded = match refused {
            Some(bad) => Err(bad),
            None => data.and_then(|data| message::decode(schema, Serialization::Cdr, &data)),
        };
        let (header_ns, frame_id, payload) = match decoded {
            Ok(camera) => (camera.header_ns, camera.frame_id, Ok(camera.payload)),
            Err(bad) => (None, None, Err(bad)),
        };
        Some(Event::Packet(Packet {
            stream,
            number,
            log_ns,
            header_ns,
            frame_id,
            payload,
            message,
        }))
    }

    /// The data of a row, decompressed.
    fn data(&self, row: i64) -> Result<Bytes, BadMessage> {
        let bad = |reason: String| BadMessage { reason: format!("row {row}: {reason}") };
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
                    "it has {length} bytes, and the limit is {limit}; raise `Limits::message_bytes`"
                )));
            }
            Some((None, None)) => return Err(bad("it has no data".into())),
            None => return Err(bad("it is missing".into())),
        };
        zipped::unzip(data, self.limit).map_err(|error| bad(error.reason))
    }
}

impl SqliteSource {
    /// The final warnings, after the last message was read; returned once.
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
        while let Some(row) =
            self.rows.as_mut().and_then(|rows| rows.next(&self.database.connection))
        {
            let is_rising = self.rows.as_ref().is_some_and(Rows::is_rising);
            if row.0 > *self.wanted.end() && is_rising {
                self.rows = None;
                break;
            }
            if let Some(event) = self.event(row) {
                return Ok(Some(event));
            }
        }
        if let Some((count, reason)) = self.broken.take() {
            let text = format!("{count} messages cannot be read; the first: {reason}");
            return Ok(Some(Event::Warning(Warning { text, loss: true })));
        }
        if let Some(event) = self.end() {
            return Ok(Some(event));
        }
        match self.has_cameras || self.all {
            true => Ok(None),
            false => Err(signature::no_camera(&self.path, &self.others, &self.unwanted)),
        }
    }

    fn log_span(&self) -> Option<(i64, i64)> {
        self.span
    }

    fn profile(&self) -> &str {
        if self.all { "ros2" } else { "" }
    }

    fn other_topics(&self) -> Vec<(String, String)> {
        self.others.iter().cloned().collect()
    }
}
