//! ROS 1 bags, version 2.0.
//!
//! A bag is a row of chunks, each with the messages of some time and perhaps compressed, and an
//! index behind them. Chunks are read whole, in order of their first message; messages of chunks
//! that overlap are merged. Without a sound index the file is walked over from its start.

mod layout;
mod record;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet, VecDeque};
use std::ops::RangeInclusive;
use std::path::Path;

use bytes::Bytes;

use self::layout::{ChunkAt, Connection, Layout};
use self::record::{BagFile, MAGIC, op};
use super::filter::{TopicFilter, Window};
use super::message::{self, CameraSchema, Serialization};
use super::{
    BadMessage, Event, Limits, Packet, Source, SourceError, SourceOptions, StreamId, StreamInfo,
    Warning,
};

/// Bytes of messages that are held back to bring overlapping chunks into order.
const HELD: u64 = 256 << 20;

/// A ROS 1 bag.
pub struct RosbagSource {
    file: BagFile,
    limits: Limits,
    topics: TopicFilter,
    window: Window,
    /// What of log time is wanted, once the first message's time is known.
    bounds: Option<RangeInclusive<i64>>,
    /// The oldest message seen.
    oldest: i64,
    /// Chunks to read, in order.
    chunks: VecDeque<ChunkAt>,
    /// Positions of chunks that are read.
    done: HashSet<u64>,
    /// How many chunks the index has.
    promised: usize,
    /// The chunks are those of a walk over the file.
    walked: bool,
    /// Stream of each connection; `None`: not wanted.
    connections: HashMap<u32, Option<StreamId>>,
    streams: Vec<Stream>,
    others: BTreeSet<(String, String)>,
    /// Camera topics that were not asked for.
    unwanted: BTreeSet<String>,
    /// Messages of the chunks that are read, the oldest on top.
    messages: BinaryHeap<Reverse<Message>>,
    held: u64,
    /// A loss has been reported.
    lost: bool,
    told_overlap: bool,
    told_unknown: bool,
    events: VecDeque<Event>,
}

struct Stream {
    topic: String,
    name: String,
    schema: CameraSchema,
    /// Messages so far.
    number: u64,
    /// Messages that the index promises.
    promised: u64,
}

/// A message in a chunk, ordered by time, then by place.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Message {
    time: i64,
    chunk: u64,
    offset: usize,
    stream: StreamId,
    data: Bytes,
}

impl RosbagSource {
    /// Opens a bag.
    ///
    /// # Errors
    /// [`SourceError`] when it cannot be read, or is not a bag of version 2.0.
    pub fn open(path: &Path, options: &SourceOptions) -> Result<Box<dyn Source>, SourceError> {
        let mut file = BagFile::open(path)?;
        check_magic(&mut file)?;
        let layout = layout::read(&mut file, MAGIC.len() as u64, options.limits.message_bytes)?;
        let mut source = Self {
            file,
            limits: options.limits,
            topics: TopicFilter::new(path, options)?,
            window: Window::new(options),
            bounds: None,
            oldest: i64::MAX,
            chunks: VecDeque::new(),
            done: HashSet::new(),
            promised: layout.chunks.len(),
            walked: layout.warning.is_some(),
            connections: HashMap::new(),
            streams: Vec::new(),
            others: BTreeSet::new(),
            unwanted: BTreeSet::new(),
            messages: BinaryHeap::new(),
            held: 0,
            lost: false,
            told_overlap: false,
            told_unknown: false,
            events: VecDeque::new(),
        };
        source.take(layout);
        Ok(Box::new(source))
    }

    fn take(&mut self, layout: Layout) {
        let mut counts: HashMap<u32, u64> = HashMap::new();
        for indexed in layout.chunks.iter().filter_map(|chunk| chunk.indexed.as_ref()) {
            for (connection, count) in &indexed.counts {
                *counts.entry(*connection).or_default() += u64::from(*count);
            }
        }
        let by_index = layout.warning.is_none();
        for connection in &layout.connections {
            self.learn(
                connection,
                by_index.then(|| counts.get(&connection.id).copied().unwrap_or(0)),
            );
        }
        if by_index {
            for id in 0..self.streams.len() {
                self.announce(id, self.streams.get(id).map(|stream| stream.promised));
            }
        }
        if let (true, Some(first)) = (by_index, layout.chunks.first()) {
            self.bounds = Some(self.window.bounds(first.start));
        }
        self.events.extend(layout.warning.map(Event::Warning));
        self.chunks = layout.chunks.into();
    }

    /// Takes up a connection; those of one topic and type are one stream.
    fn learn(&mut self, connection: &Connection, messages: Option<u64>) {
        if self.connections.contains_key(&connection.id) {
            return;
        }
        let Connection { id, topic, schema: name } = connection;
        let Some(schema) =
            CameraSchema::from_name(name).filter(|s| s.supports(Serialization::Ros1))
        else {
            self.others.insert((topic.clone(), name.clone()));
            self.connections.insert(*id, None);
            return;
        };
        if !self.topics.matches(topic) {
            self.unwanted.insert(topic.clone());
            self.connections.insert(*id, None);
            return;
        }
        let known = self.streams.iter().position(|s| s.topic == *topic && s.name == *name);
        let stream = known.unwrap_or(self.streams.len());
        self.connections.insert(*id, Some(stream));
        if let Some(stream) = self.streams.get_mut(stream) {
            stream.promised += messages.unwrap_or(0);
        } else {
            let (topic, name) = (topic.clone(), name.clone());
            let promised = messages.unwrap_or(0);
            self.streams.push(Stream { topic, name, schema, number: 0, promised });
            // A stream that turns up within the chunks has no promise.
            if messages.is_none() {
                self.announce(stream, None);
            }
        }
    }

    fn announce(&mut self, id: StreamId, messages: Option<u64>) {
        if let Some(Stream { topic, name, .. }) = self.streams.get(id) {
            let (topic, schema) = (topic.clone(), name.clone());
            let info = StreamInfo { id, topic, schema, messages, rate: None };
            self.events.push_back(Event::Stream(info));
        }
    }

    /// At the end: whether all came that the index promised.
    fn settle(&mut self) {
        for stream in &mut self.streams {
            let Stream { topic, number, promised, .. } = stream;
            if !self.walked && !self.lost && number < promised {
                self.events.push_back(Event::Warning(Warning {
                    text: format!(
                        "{topic}: the index promises {promised} messages, {number} are there"
                    ),
                    loss: true,
                }));
            }
            *promised = 0;
        }
    }

    /// Reads a chunk, unless the index says that nothing in it is wanted.
    fn load(&mut self, chunk: &ChunkAt) -> Result<(), SourceError> {
        if let (Some(indexed), Some(bounds)) = (&chunk.indexed, &self.bounds)
            && (indexed.end < *bounds.start() || chunk.start > *bounds.end())
        {
            for (connection, count) in &indexed.counts {
                if let Some(Some(stream)) = self.connections.get(connection)
                    && let Some(stream) = self.streams.get_mut(*stream)
                {
                    stream.number += u64::from(*count);
                }
            }
            return Ok(());
        }
        let record = self.file.record(chunk.position)?;
        let Some(record) = record.filter(record::Record::is_chunk) else {
            return self.recover(chunk);
        };
        self.done.insert(chunk.position);
        let rest = self.file.len().saturating_sub(record.data);
        let len = if chunk.open { rest } else { u64::from(record.len).min(rest) };
        let size = match record.fields().u32("size") {
            _ if chunk.open => u32::MAX,
            Some(size) => size,
            None => return self.damaged(chunk, "its header has no size"),
        };
        let limit = self.limits.message_bytes;
        if len > limit || (!chunk.open && u64::from(size) > limit) {
            let text =
                format!("it claims {} bytes, the limit is {limit}", len.max(u64::from(size)));
            return self.damaged(chunk, &text);
        }
        let size = size.min(u32::try_from(limit).unwrap_or(u32::MAX));
        let data = self.file.read(record.data, len)?;
        let compression = record.fields().get("compression").unwrap_or(b"none");
        let (records, damage) = record::decompress(compression, data, size);
        let damage = self.unpack(chunk, &records).or(damage);
        // The walk has told about what is cut already.
        let told = self.walked && (chunk.open || record.end() > self.file.len());
        match damage {
            Some(damage) if !told => self.damaged(chunk, &damage),
            _ => Ok(()),
        }
    }

    /// Takes the messages out of a decompressed chunk; tells what is wrong with it.
    fn unpack(&mut self, chunk: &ChunkAt, records: &[u8]) -> Option<String> {
        let mut rest = records;
        let mut unknown = 0u64;
        let mut damage = None;
        while !rest.is_empty() {
            let offset = records.len() - rest.len();
            let Some((fields, data, next)) = record::split(rest) else {
                damage = Some(format!("the record at its byte {offset} is damaged or cut"));
                break;
            };
            rest = next;
            match fields.op() {
                Some(op::CONNECTION) => match Connection::parse(fields, data) {
                    Some(connection) => self.learn(&connection, None),
                    None => {
                        damage = Some(format!("the connection at its byte {offset} is damaged"))
                    }
                },
                Some(op::MESSAGE) => {
                    let (Some(connection), Some(time)) = (fields.u32("conn"), fields.time("time"))
                    else {
                        damage = Some(format!("the message at its byte {offset} is damaged"));
                        continue;
                    };
                    self.oldest = self.oldest.min(time);
                    match self.connections.get(&connection) {
                        Some(Some(stream)) => {
                            self.held += data.len() as u64;
                            self.messages.push(Reverse(Message {
                                time,
                                chunk: chunk.position,
                                offset,
                                stream: *stream,
                                // A slice would keep the whole chunk.
                                data: Bytes::copy_from_slice(data),
                            }));
                        }
                        Some(None) => {}
                        None => unknown += 1,
                    }
                }
                _ => damage = Some(format!("the record at its byte {offset} is of no known kind")),
            }
        }
        if unknown > 0 && !self.told_unknown {
            self.told_unknown = true;
            self.warn(
                format!(
                    "the chunk at offset {} has {unknown} messages whose connection record is \
                     missing: nobody knows their topic, and they are left out",
                    chunk.position
                ),
                true,
            );
        }
        damage
    }

    fn warn(&mut self, text: String, loss: bool) {
        self.lost |= loss;
        self.events.push_back(Event::Warning(Warning { text, loss }));
    }

    fn damaged(&mut self, chunk: &ChunkAt, what: &str) -> Result<(), SourceError> {
        self.warn(
            format!(
                "the chunk at offset {} is damaged: {what}; its whole messages are read, the \
                 others are missing",
                chunk.position
            ),
            true,
        );
        Ok(())
    }

    /// There is no chunk where the index has one: walks over the file, and goes on with the
    /// chunks that are really there.
    fn recover(&mut self, chunk: &ChunkAt) -> Result<(), SourceError> {
        if self.walked {
            // What only the index knew of was reported when the walk met the damage.
            return match chunk.indexed {
                Some(_) => Ok(()),
                None => self.damaged(chunk, "its header is not whole"),
            };
        }
        self.walked = true;
        let reason = format!("its index has a chunk at offset {}, where none is", chunk.position);
        let magic = MAGIC.len() as u64;
        let found = layout::walk(&mut self.file, magic, &reason, self.limits.message_bytes)?;
        let mut chunks = found.chunks;
        let mut warning = found.warning;
        if let Some(warning) = &mut warning {
            warning.loss |= chunks.len() < self.promised;
            self.lost |= warning.loss;
        }
        if self.lost {
            // Damage hides chunks from the walk that the index may know.
            let known: HashSet<u64> = chunks.iter().map(|c| c.position).collect();
            chunks.extend(self.chunks.drain(..).filter(|c| !known.contains(&c.position)));
            chunks.sort_by_key(|c| (c.start, c.position));
        }
        chunks.retain(|c| !self.done.contains(&c.position));
        self.events.extend(warning.map(Event::Warning));
        for connection in &found.connections {
            self.learn(connection, None);
        }
        self.chunks = chunks.into();
        Ok(())
    }

    /// Whether the next chunk must be read before the oldest message may go out.
    fn chunk_is_due(&mut self) -> bool {
        let (Some(chunk), next) = (self.chunks.front(), self.messages.peek()) else { return false };
        let Some(Reverse(message)) = next else { return true };
        if chunk.start > message.time {
            return false;
        }
        if self.held > HELD && !self.told_overlap {
            self.told_overlap = true;
            self.warn(
                format!(
                    "chunks overlap in time by more than {} MiB: messages may come out of order",
                    HELD >> 20
                ),
                false,
            );
        }
        self.held <= HELD
    }

    /// The packet of a message; `None` when it lies outside of the window.
    fn packet(&mut self, message: Message) -> Option<Packet> {
        self.held = self.held.saturating_sub(message.data.len() as u64);
        let bounds = self.bounds.get_or_insert_with(|| self.window.bounds(self.oldest));
        let wanted = bounds.contains(&message.time);
        let stream = self.streams.get_mut(message.stream)?;
        let number = stream.number;
        stream.number += 1;
        if !wanted {
            return None;
        }
        let (header_ns, payload) =
            match message::decode(stream.schema, Serialization::Ros1, &message.data) {
                Ok(camera) => (camera.header_ns, Ok(camera.payload)),
                Err(BadMessage { reason }) => (None, Err(BadMessage { reason })),
            };
        Some(Packet { stream: message.stream, number, log_ns: message.time, header_ns, payload })
    }
}

impl Source for RosbagSource {
    fn next_event(&mut self) -> Result<Option<Event>, SourceError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            if self.chunk_is_due() {
                if let Some(chunk) = self.chunks.pop_front() {
                    self.load(&chunk)?;
                }
            } else if let Some(Reverse(message)) = self.messages.pop() {
                if let Some(packet) = self.packet(message) {
                    return Ok(Some(Event::Packet(packet)));
                }
            } else {
                self.settle();
                if self.events.is_empty() {
                    return match self.streams.as_slice() {
                        [] => Err(no_stream(self.file.path(), &self.others, &self.unwanted)),
                        _ => Ok(None),
                    };
                }
            }
        }
    }

    fn other_topics(&self) -> Vec<(String, String)> {
        self.others.iter().cloned().collect()
    }
}

/// Why a recording that was read to its end gave no stream.
pub(super) fn no_stream(
    path: &Path,
    others: &BTreeSet<(String, String)>,
    unwanted: &BTreeSet<String>,
) -> SourceError {
    if unwanted.is_empty() {
        return SourceError::NoCamera {
            path: path.into(),
            topics: others.iter().cloned().collect(),
        };
    }
    let topics: Vec<_> = unwanted.iter().map(String::as_str).collect();
    SourceError::invalid(
        path,
        "no camera topic matches the topics that were asked for",
        format!("its camera topics are: {}", topics.join(", ")),
    )
}

/// Refuses what is no bag of version 2.0, by name where it has one.
fn check_magic(file: &mut BagFile) -> Result<(), SourceError> {
    let start = file.read(0, MAGIC.len() as u64)?;
    let (reason, hint) = if start == MAGIC {
        return Ok(());
    } else if start.is_empty() {
        ("the file is empty".into(), "nothing was recorded; record again")
    } else if start.starts_with(b"#ROSBAG V") || start.starts_with(b"#ROSRECORD V") {
        let version = String::from_utf8_lossy(&start).trim().to_owned();
        (
            format!("a bag of an old version ({version}), only version 2.0 can be read"),
            "rewrite it with ROS 1: rosbag filter OLD.bag NEW.bag True",
        )
    } else {
        ("not a ROS 1 bag: it does not start with `#ROSBAG V2.0`".into(), "check what it is")
    };
    Err(SourceError::invalid(file.path(), reason, hint))
}
