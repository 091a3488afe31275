//! MCAP recordings.
//!
//! A file is read in blocks, which are chunks or single messages, in the order of their first log
//! time; the messages of the blocks that were read so far wait until no other block can have
//! earlier ones. So messages come in log-time order, whatever their order in the file, and as
//! many chunks are in memory as overlap in time. Where the blocks are says the index at the end
//! of the file, or, when there is none, a walk over the headers of its records: a recording that
//! breaks off is read in the same way as a complete one.

mod chunk;
mod file;
mod plan;
mod record;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use ::mcap::records::op;
use bytes::Bytes;

use self::chunk::ChunkHeader;
use self::file::File;
use self::plan::{Block, Found, Summary};
use self::record::{Channel, Message, Schema};
use super::filter::{TopicFilter, Window};
use super::message::{self, CameraSchema, Serialization};
use super::{
    BadMessage, Event, Limits, Packet, Source, SourceError, SourceOptions, StreamId, StreamInfo,
    Warning,
};

/// What an MCAP file begins with.
pub const MAGIC: &[u8] = ::mcap::MAGIC;

/// An MCAP file that is being read.
pub struct McapSource {
    file: File,
    reader: Reader,
    /// Blocks not yet read, the earliest first.
    blocks: VecDeque<Block>,
    /// How the file breaks off, to be told at the end.
    cut: Option<String>,
    ended: bool,
}

/// What is known so far, apart from the file.
struct Reader {
    limits: Limits,
    filter: TopicFilter,
    window: Window,
    first_log: Option<u64>,
    schemas: BTreeMap<u16, Schema>,
    channels: BTreeMap<u16, Channel>,
    /// Channels that are defined in two ways.
    conflicts: BTreeSet<u16>,
    /// What to do with the messages of a channel; none for those that are not wanted.
    roles: BTreeMap<u16, Role>,
    streams: Vec<Stream>,
    /// Messages by channel, as the statistics say.
    promised: Option<BTreeMap<u16, u64>>,
    other_topics: BTreeSet<(String, String)>,
    /// Camera topics that the filter left out.
    unwanted: BTreeSet<String>,
    /// Camera topics in encodings that are not read.
    unreadable: BTreeSet<String>,
    /// Messages whose channel was never defined.
    strays: u64,
    /// Messages that were read but whose turn has not come, by log time and place in the file.
    pending: BTreeMap<(u64, u64, u64), (Role, Bytes)>,
    events: VecDeque<Event>,
}

/// A channel that is wanted.
#[derive(Clone, Copy)]
struct Role {
    stream: StreamId,
    schema: CameraSchema,
    serialization: Serialization,
    /// To be tried when a message does not read as `serialization`.
    other_wire: Option<Serialization>,
}

struct Stream {
    info: StreamInfo,
    announced: bool,
    /// Messages so far.
    messages: u64,
    last_log: u64,
    went_back: bool,
}

impl McapSource {
    /// Opens the recording at `path`. Reads its index, or looks for its chunks when there is none.
    ///
    /// # Errors
    /// [`SourceError::Io`]; [`SourceError::Invalid`] when it is not an MCAP file or a topic
    /// pattern is none.
    pub fn open(path: &Path, options: &SourceOptions) -> Result<Box<dyn Source>, SourceError> {
        let mut file = File::open(path)?;
        check_magic(&mut file)?;
        let mut reader = Reader {
            limits: options.limits,
            filter: TopicFilter::new(path, options)?,
            window: Window::new(options),
            first_log: None,
            schemas: BTreeMap::new(),
            channels: BTreeMap::new(),
            conflicts: BTreeSet::new(),
            roles: BTreeMap::new(),
            streams: Vec::new(),
            promised: None,
            other_topics: BTreeSet::new(),
            unwanted: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            strays: 0,
            pending: BTreeMap::new(),
            events: VecDeque::new(),
        };

        let mut blocks = None;
        let mut unusable = None;
        match Summary::read(&mut file, &options.limits)? {
            Ok(None) => {}
            Ok(Some(mut summary)) => {
                reader.first_log = summary.first_log();
                match summary.blocks(&mut file)? {
                    Ok(found) => blocks = found,
                    Err(reason) => unusable = Some(reason),
                }
                reader.summary(summary);
            }
            Err(reason) => unusable = Some(reason),
        }
        let mut cut = None;
        let mut blocks = match blocks {
            Some(blocks) => reader.wanted(&mut file, blocks)?,
            None => {
                let walk = plan::walk(&mut file, &options.limits, |found| reader.found(found))?;
                reader.first_log = reader.first_log.or(walk.first_log);
                for skipped in walk.skipped {
                    reader.lost(format!("{skipped}; it is left out"));
                }
                cut = walk.cut;
                // A file that breaks off says so at its end, and has no index anyway.
                if let (Some(reason), None) = (unusable, &cut) {
                    reader.warn(format!(
                        "the index of the recording cannot be used ({reason}), so the file was \
                         searched from front to back; its messages are complete"
                    ));
                }
                walk.blocks
            }
        };
        reader.announce();
        let bounds = reader.bounds();
        blocks.sort_by_key(|block| (block.start, block.at));
        // What is after the window is not read, but something must be where no channel is known.
        let keep = usize::from(reader.channels.is_empty());
        if reader.first_log.is_some() {
            let wanted = blocks.partition_point(|block| signed(block.start) <= *bounds.end());
            blocks.truncate(wanted.max(keep));
        }
        Ok(Box::new(Self { file, reader, blocks: blocks.into(), cut, ended: false }))
    }

    /// The next step: a message, or nothing yet.
    fn step(&mut self) -> Result<Option<Packet>, SourceError> {
        let next = self.reader.pending.first_key_value().map(|((log, ..), _)| *log);
        let is_due = |block: &Block| next.is_none_or(|log| block.start <= log);
        if self.blocks.front().is_some_and(is_due)
            && let Some(block) = self.blocks.pop_front()
        {
            self.load(&block)?;
            self.reader.announce();
            return Ok(None);
        }
        match self.reader.pending.pop_first() {
            Some(((log, ..), (role, data))) => Ok(self.reader.packet(log, role, &data)),
            None => {
                self.ended = true;
                self.reader.finish(self.cut.take(), self.file.len());
                Ok(None)
            }
        }
    }

    /// Reads the messages of a block.
    fn load(&mut self, block: &Block) -> Result<(), SourceError> {
        let Self { file, reader, .. } = self;
        let at = block.at;
        let record = file.record(at)?;
        let broken = match record {
            Some(record) if record.opcode == op::MESSAGE => {
                match plan::read_body(file, record, &reader.limits)? {
                    Ok(body) => {
                        reader.message(&body, (at, 0));
                        None
                    }
                    Err(reason) => Some(format!("the message at byte {at}: {reason}")),
                }
            }
            Some(record) if record.opcode == op::CHUNK => match ChunkHeader::read(file, record)? {
                Some(chunk) => {
                    let limits = reader.limits;
                    let mut number = 0;
                    let done = chunk.records(file, &limits, |opcode, body| {
                        reader.record(opcode, body, (at, number));
                        number += 1;
                    })?;
                    // That a cut chunk is broken at its end is told with the cut.
                    done.err()
                        .filter(|_| !chunk.cut)
                        .map(|e| format!("the chunk at byte {at}: {e}"))
                }
                None => Some(format!("the chunk at byte {at}: its header is damaged")),
            },
            _ => Some(format!("the index points to byte {at}, where no chunk is")),
        };
        if let Some(broken) = broken {
            reader.lost(format!("{broken}; the messages in it are lost"));
        }
        Ok(())
    }

    /// Why a recording gave nothing, if so.
    fn nothing(&self) -> Option<SourceError> {
        let reader = &self.reader;
        if !reader.streams.is_empty() {
            return None;
        }
        let list =
            |topics: &BTreeSet<String>| topics.iter().cloned().collect::<Vec<_>>().join(", ");
        let path = self.file.path();
        Some(if !reader.unreadable.is_empty() {
            SourceError::invalid(
                path,
                format!(
                    "its camera topics are in encodings that are not read: {}",
                    list(&reader.unreadable)
                ),
                "cdr, ros1, protobuf and json are read",
            )
        } else if !reader.unwanted.is_empty() {
            SourceError::invalid(
                path,
                "no camera topic matches the topics that were asked for",
                format!("its camera topics are: {}", list(&reader.unwanted)),
            )
        } else {
            SourceError::NoCamera {
                path: path.into(),
                topics: reader.other_topics.iter().cloned().collect(),
            }
        })
    }
}

impl Source for McapSource {
    fn next_event(&mut self) -> Result<Option<Event>, SourceError> {
        loop {
            if let Some(event) = self.reader.events.pop_front() {
                return Ok(Some(event));
            }
            if self.ended {
                return self.nothing().map_or(Ok(None), Err);
            }
            if let Some(packet) = self.step()? {
                return Ok(Some(Event::Packet(packet)));
            }
        }
    }

    fn other_topics(&self) -> Vec<(String, String)> {
        self.reader.other_topics.iter().cloned().collect()
    }
}

impl Reader {
    fn warn(&mut self, text: String) {
        self.events.push_back(Event::Warning(Warning { text, loss: false }));
    }

    fn lost(&mut self, text: String) {
        self.events.push_back(Event::Warning(Warning { text, loss: true }));
    }

    fn summary(&mut self, summary: Summary) {
        self.promised = summary
            .statistics
            .filter(|stats| stats.messages == 0 || !stats.by_channel.is_empty())
            .map(|stats| stats.by_channel);
        for schema in summary.schemas {
            self.schemas.entry(schema.id).or_insert(schema);
        }
        for channel in summary.channels {
            self.channel(channel);
        }
    }

    /// Leaves out the blocks that cannot have a message that is wanted, and counts the messages
    /// in those before the window.
    fn wanted(&mut self, file: &mut File, blocks: Vec<Block>) -> Result<Vec<Block>, SourceError> {
        let bounds = self.bounds();
        let mut wanted = Vec::with_capacity(blocks.len());
        for mut block in blocks {
            // They are large in a long recording, and not needed any more.
            let indexes = std::mem::take(&mut block.indexes);
            let is_known = indexes.keys().all(|id| self.channels.contains_key(id));
            if indexes.is_empty() || !is_known {
                wanted.push(block);
                continue;
            }
            let cameras = indexes.iter().filter(|(id, _)| self.roles.contains_key(id));
            let is_before = signed(block.end) < *bounds.start();
            if !is_before {
                if cameras.count() > 0 {
                    wanted.push(block);
                }
                continue;
            }
            let mut counts = Vec::new();
            for (id, at) in cameras {
                counts.push((*id, plan::count(file, *at, *id)?));
            }
            if counts.iter().any(|(_, count)| count.is_none()) {
                wanted.push(block);
                continue;
            }
            for (id, count) in counts {
                if let Some(stream) = self.stream_of(id) {
                    stream.messages = stream.messages.saturating_add(count.unwrap_or_default());
                }
            }
        }
        Ok(wanted)
    }

    fn stream_of(&mut self, channel: u16) -> Option<&mut Stream> {
        let role = self.roles.get(&channel)?;
        self.streams.get_mut(role.stream)
    }

    /// What a walk over the file meets; whether a message is wanted.
    fn found(&mut self, found: Found<'_>) -> bool {
        match found {
            Found::Definition(opcode, body) => {
                self.record(opcode, body, (0, 0));
                false
            }
            Found::Message(channel) => {
                if !self.channels.contains_key(&channel) {
                    self.strays += 1;
                }
                self.roles.contains_key(&channel)
            }
        }
    }

    /// A record inside a chunk, or a definition outside.
    fn record(&mut self, opcode: u8, body: &[u8], place: (u64, u64)) {
        match opcode {
            op::SCHEMA => {
                if let Some(schema) = Schema::parse(body) {
                    self.schemas.entry(schema.id).or_insert(schema);
                }
            }
            op::CHANNEL => {
                if let Some(channel) = Channel::parse(body) {
                    self.channel(channel);
                }
            }
            op::MESSAGE => self.message(body, place),
            _ => {}
        }
    }

    /// Decides what to do with a channel. Channels come again and again: the first counts.
    fn channel(&mut self, channel: Channel) {
        if let Some(known) = self.channels.get(&channel.id) {
            let is_same = (&known.topic, known.schema) == (&channel.topic, channel.schema);
            if !is_same && self.conflicts.insert(channel.id) {
                self.lost(format!(
                    "channel {} is first {} and then {}; all its messages are taken for the \
                     first",
                    channel.id, known.topic, channel.topic
                ));
            }
            return;
        }
        let schema = self.schemas.get(&channel.schema).cloned().unwrap_or_default();
        if let Some(camera) = CameraSchema::from_name(&schema.name) {
            self.camera(&channel, schema, camera);
        } else {
            self.other_topics.insert((channel.topic.clone(), schema.name));
        }
        self.channels.insert(channel.id, channel);
    }

    fn camera(&mut self, channel: &Channel, schema: Schema, camera: CameraSchema) {
        if !self.filter.matches(&channel.topic) {
            self.unwanted.insert(channel.topic.clone());
            return;
        }
        let (serialization, other_wire) = serializations(&channel.encoding, &schema.encoding);
        let Some(serialization) =
            serialization.filter(|serialization| camera.supports(*serialization))
        else {
            let what = format!("{} [{}] as \"{}\"", channel.topic, schema.name, channel.encoding);
            self.lost(format!(
                "{what}: this encoding of messages is not read (cdr, ros1, protobuf and json \
                 are); the topic is left out"
            ));
            self.unreadable.insert(what);
            return;
        };
        let same = |s: &&Stream| s.info.topic == channel.topic && s.info.schema == schema.name;
        let stream = match self.streams.iter().find(same) {
            Some(stream) => stream.info.id,
            None => self.streams.len(),
        };
        let role = Role { stream, schema: camera, serialization, other_wire };
        self.roles.insert(channel.id, role);
        if stream == self.streams.len() {
            let (topic, schema) = (channel.topic.clone(), schema.name);
            let info = StreamInfo { id: stream, topic, schema, messages: None, rate: None };
            let (messages, last_log) = (0, 0);
            self.streams.push(Stream {
                info,
                announced: false,
                messages,
                last_log,
                went_back: false,
            });
        }
    }

    /// Tells of the streams that are new. After a whole block of definitions, since a stream may
    /// have several channels.
    fn announce(&mut self) {
        for stream in self.streams.iter_mut().filter(|stream| !stream.announced) {
            stream.announced = true;
            stream.info.messages = self.promised.as_ref().map(|promised| {
                let channels = self.roles.iter().filter(|(_, r)| r.stream == stream.info.id);
                let counts = channels.filter_map(|(id, _)| promised.get(id));
                counts.fold(0, |sum: u64, count| sum.saturating_add(*count))
            });
            self.events.push_back(Event::Stream(stream.info.clone()));
        }
    }

    fn bounds(&self) -> std::ops::RangeInclusive<i64> {
        self.window.bounds(signed(self.first_log.unwrap_or_default()))
    }

    /// Keeps a message until its turn; without its data when it is outside of the window, where
    /// it only counts.
    fn message(&mut self, body: &[u8], (block, number): (u64, u64)) {
        let (Some(message), Some(data)) = (Message::parse(body), body.get(Message::HEADER..))
        else {
            self.lost(format!("a message in the record at byte {block} is too short; it is lost"));
            return;
        };
        self.first_log.get_or_insert(message.log_time);
        let Some(role) = self.roles.get(&message.channel) else {
            if !self.channels.contains_key(&message.channel) {
                self.strays += 1;
            }
            return;
        };
        let is_wanted = self.bounds().contains(&signed(message.log_time));
        let data = if is_wanted { Bytes::copy_from_slice(data) } else { Bytes::new() };
        self.pending.insert((message.log_time, block, number), (*role, data));
    }

    /// The message whose turn it is; `None` when it is outside of the window.
    fn packet(&mut self, log: u64, role: Role, data: &Bytes) -> Option<Packet> {
        let is_wanted = self.bounds().contains(&signed(log));
        let stream = self.streams.get_mut(role.stream)?;
        let number = stream.messages;
        stream.messages += 1;
        let before = std::mem::replace(&mut stream.last_log, log);
        if log < before && !stream.went_back {
            stream.went_back = true;
            let text = format!(
                "{}: message {number} was logged {} ns before the one that came before it, \
                 against what its chunk says; the order of the frames is that of the file",
                stream.info.topic,
                before - log
            );
            self.events.push_back(Event::Warning(Warning { text, loss: false }));
        }
        if !is_wanted {
            return None;
        }
        let (header_ns, payload) = match role.decode(data) {
            Ok(message) => (message.header_ns, Ok(message.payload)),
            Err(bad) => (None, Err(bad)),
        };
        let (stream, log_ns) = (stream.info.id, signed(log));
        Some(Packet { stream, number, log_ns, header_ns, payload })
    }

    /// Tells at the end what is missing.
    fn finish(&mut self, cut: Option<String>, len: u64) {
        if let Some(cut) = cut {
            let messages: u64 = self.streams.iter().map(|stream| stream.messages).sum();
            self.lost(format!(
                "the recording {cut} (the file has {len} bytes): {messages} camera messages were \
                 read; a recorder that was stopped hard leaves this, and what it had not yet \
                 written is lost"
            ));
        }
        if self.strays > 0 {
            self.lost(format!(
                "{} messages belong to channels that the file does not describe, and are left out",
                self.strays
            ));
        }
        if self.window.has_end() {
            return;
        }
        for stream in &self.streams {
            let StreamInfo { topic, messages: Some(promised), .. } = &stream.info else { continue };
            if stream.messages < *promised {
                let found = stream.messages;
                let text =
                    format!("{topic}: the index promises {promised} messages, {found} were found");
                self.events.push_back(Event::Warning(Warning { text, loss: true }));
            }
        }
    }
}

impl Role {
    fn decode(&self, data: &Bytes) -> Result<message::CameraMessage, BadMessage> {
        message::decode(self.schema, self.serialization, data).or_else(|bad| {
            match self.other_wire {
                Some(serialization) => {
                    message::decode(self.schema, serialization, data).map_err(|_| bad)
                }
                None => Err(bad),
            }
        })
    }
}

/// How the messages of a channel are serialised, and what to try when they are not.
fn serializations(
    message_encoding: &str,
    schema_encoding: &str,
) -> (Option<Serialization>, Option<Serialization>) {
    let schema = match schema_encoding {
        "ros1msg" => Some(Serialization::Ros1),
        "ros2msg" | "ros2idl" => Some(Serialization::Cdr),
        "protobuf" => Some(Serialization::Protobuf),
        "jsonschema" => Some(Serialization::Json),
        _ => None,
    };
    let message = match message_encoding {
        "ros1" => Some(Serialization::Ros1),
        "cdr" => Some(Serialization::Cdr),
        "protobuf" => Some(Serialization::Protobuf),
        "json" => Some(Serialization::Json),
        "" => schema,
        _ => None,
    };
    match (message, schema) {
        // Converters from ROS 1 are known to write "cdr" and keep the messages as they are.
        (
            Some(Serialization::Cdr | Serialization::Ros1),
            Some(Serialization::Cdr | Serialization::Ros1),
        ) if message != schema => (schema, message),
        _ => (message, None),
    }
}

fn check_magic(file: &mut File) -> Result<(), SourceError> {
    let len = file.len().min(MAGIC.len() as u64);
    let start = file.bytes(0, len)?;
    if start == MAGIC {
        return Ok(());
    }
    let (reason, hint) = if start.is_empty() {
        ("the file is empty".into(), "was the recorder stopped before it wrote anything?")
    } else if MAGIC.starts_with(&start) {
        ("the file ends inside its first 8 bytes".into(), "there is nothing to read in it")
    } else {
        let start = start.escape_ascii();
        (format!("not an MCAP file: it begins with \"{start}\""), "check the path")
    };
    Err(SourceError::invalid(file.path(), reason, hint))
}

/// Log times are unsigned in MCAP; none that is real is above the largest signed one.
fn signed(log_time: u64) -> i64 {
    i64::try_from(log_time).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
