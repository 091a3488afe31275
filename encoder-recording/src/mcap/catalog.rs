//! The known channels of a recording, and how their messages are handled.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::RangeInclusive;

use bytes::Bytes;
use encoder_media::Location;
use mcap::records::op;

use super::index::Entry;
use super::plan::Summary;
use super::record::{Channel, Id, MessageHeader, Schema, Statistics};
use super::signed;
use super::walk::Walk;
use crate::filter::{TopicFilter, Window};
use crate::frames::FrameBuffers;
use crate::message::{self, CameraSchema, Serialization};
use crate::signature;
use crate::steps::ClockSteps;
use crate::zipped;
use crate::{
    BadMessage, ChannelId, ChannelInfo, Event, Message, Packet, SourceError, SourceOptions,
    StreamId, StreamInfo, Warning,
};

/// Schemas, channels and streams of a recording.
pub(super) struct Catalog {
    filter: TopicFilter,
    window: Window,
    /// Whether messages of all channels are requested.
    all: bool,
    pub first_log: Option<u64>,
    /// The recorder's clock was set back: log times may be earlier than the one before.
    was_set: bool,
    schemas: BTreeMap<Id, Schema>,
    channels: BTreeMap<Id, Known>,
    /// Channels whose schema is not known yet.
    pending: BTreeMap<Id, Channel>,
    streams: Vec<Stream>,
    /// Streams by topic, with their types.
    by_topic: BTreeMap<String, Vec<(CameraSchema, StreamId)>>,
    /// Channels that were not yet returned as events.
    new_channels: Vec<Id>,
    next_channel: ChannelId,
    /// Messages by channel, from the statistics.
    promised: Option<BTreeMap<Id, u64>>,
    other_topics: BTreeSet<(String, String)>,
    /// Channels with two contradicting definitions.
    ambiguous: BTreeSet<Id>,
    /// Camera topics that the filter excludes.
    unwanted: BTreeSet<String>,
    /// Camera topics in encodings that are not supported.
    unreadable: BTreeSet<String>,
    /// Messages whose channel was never defined.
    strays: u64,
    /// Number of messages of other topics that cannot be decompressed, and the reason for the first.
    broken: Option<(u64, String)>,
    /// The largest message, in bytes.
    limit: u64,
    /// Memory for the messages that wait.
    pub buffers: FrameBuffers,
    /// Bytes of definitions that may still be kept.
    room: u64,
    /// Events to return before any other event.
    pub events: VecDeque<Event>,
}

/// A channel.
struct Known {
    channel: Channel,
    /// Its number among the returned channels; `None` before the channel is returned.
    id: Option<ChannelId>,
    /// How its messages are decoded to packets; `None` if the channel is not a selected camera.
    role: Option<Role>,
    /// Its messages may be CDR.
    is_cdr: bool,
    progress: Progress,
}

/// How the messages of a camera channel are read.
#[derive(Clone, Copy)]
struct Role {
    stream: StreamId,
    schema: CameraSchema,
    serialization: Serialization,
    /// The fallback for messages that cannot be read as `serialization`.
    alternative: Option<Serialization>,
}

struct Stream {
    info: StreamInfo,
    announced: bool,
    progress: Progress,
}

/// The progress of a stream or a channel.
#[derive(Default)]
struct Progress {
    /// Messages so far.
    messages: u64,
    last_log: u64,
    went_back: bool,
}

impl Catalog {
    pub(super) fn new(location: &Location, options: &SourceOptions) -> Result<Self, SourceError> {
        Ok(Self {
            filter: TopicFilter::new(location.clone(), options)?,
            window: Window::new(options),
            all: options.all_messages,
            first_log: None,
            was_set: false,
            schemas: BTreeMap::new(),
            channels: BTreeMap::new(),
            pending: BTreeMap::new(),
            streams: Vec::new(),
            by_topic: BTreeMap::new(),
            new_channels: Vec::new(),
            next_channel: 0,
            promised: None,
            other_topics: BTreeSet::new(),
            ambiguous: BTreeSet::new(),
            unwanted: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            strays: 0,
            broken: None,
            buffers: FrameBuffers::default(),
            limit: options.limits.message_bytes,
            room: options.limits.message_bytes,
            events: VecDeque::new(),
        })
    }

    pub(super) fn warn(&mut self, text: String) {
        self.events.push_back(Event::Warning(Warning { text, loss: false }));
    }

    pub(super) fn lost(&mut self, text: String) {
        self.events.push_back(Event::Warning(Warning { text, loss: true }));
    }

    /// Adds the definitions of the summary of a file with one part.
    pub(super) fn summary(&mut self, summary: Summary) {
        self.promised = summary.statistics.filter(Statistics::has_counts).map(|stats| {
            let counts = stats.by_channel.into_iter();
            counts.map(|(number, count)| (Id { part: 0, number }, count)).collect()
        });
        for schema in summary.schemas.into_values() {
            self.schema(0, schema);
        }
        for channel in summary.channels.into_values().flatten() {
            self.channel(0, channel);
        }
    }

    /// Sets the number of messages of all channels, if the file states it; returns whether it does.
    pub(super) fn promise(&mut self, promised: Option<BTreeMap<Id, u64>>) -> bool {
        self.promised = promised;
        self.promised.is_some()
    }

    /// Reports the damage that a walk found.
    pub(super) fn skipped(&mut self, walk: &mut Walk) {
        for skipped in walk.skipped.drain(..) {
            self.lost(format!("{skipped}; it is left out"));
        }
        if walk.more_skipped > 0 {
            self.lost(format!("{} more records are damaged and left out", walk.more_skipped));
        }
    }

    /// A schema or a channel of a part of the file, as a record.
    pub(super) fn definition(&mut self, part: usize, opcode: u8, body: &[u8]) {
        if opcode == op::SCHEMA {
            if let Some(schema) = Schema::parse(body, self.all) {
                self.schema(part, schema);
            }
        } else if opcode == op::CHANNEL
            && let Some(channel) = Channel::parse(body, self.all)
        {
            self.channel(part, channel);
        }
    }

    /// Schemas are repeated: the first schema of each number is used.
    fn schema(&mut self, part: usize, mut schema: Schema) {
        let id = Id { part, number: schema.id };
        if self.schemas.contains_key(&id) {
            return;
        }
        match self.room.checked_sub(schema.data.len() as u64) {
            Some(room) => self.room = room,
            None => {
                schema.data = Bytes::new();
                self.lost(format!(
                    "the schemas are larger than the limit together (`Limits::message_bytes`): the \
                     definition of {} is left out",
                    schema.name
                ));
            }
        }
        self.schemas.insert(id, schema);
        let of_part = Id { part, number: 0 }..=Id { part, number: u16::MAX };
        let pending =
            self.pending.range(of_part).filter(|(_, channel)| channel.schema == id.number);
        for id in pending.map(|(id, _)| *id).collect::<Vec<_>>() {
            if let Some(channel) = self.pending.remove(&id) {
                self.add(id, channel);
            }
        }
    }

    /// Determines how a channel is handled, once its schema is known. The first channel of each
    /// number is used.
    fn channel(&mut self, part: usize, channel: Channel) {
        let id = Id { part, number: channel.id };
        let known = self.channels.get(&id).map(|known| &known.channel);
        if let Some(known) = known.or_else(|| self.pending.get(&id)) {
            if !known.is_like(&channel) && self.ambiguous.insert(id) {
                let text = format!(
                    "channel {} is first {} and then {}; all its messages are taken for the \
                     first",
                    channel.id, known.topic, channel.topic
                );
                self.lost(text);
            }
            return;
        }
        // 0 stands for "no schema".
        if channel.schema == 0 || self.schemas.contains_key(&Id { part, number: channel.schema }) {
            self.add(id, channel);
        } else {
            self.pending.insert(id, channel);
        }
    }

    /// Gives up the search for the schemas of channels that have messages. Returns whether a channel
    /// became known by that.
    pub(super) fn settle(&mut self, channels: impl Iterator<Item = Id>) -> bool {
        let mut any = false;
        for id in channels {
            let Some(channel) = self.pending.remove(&id) else { continue };
            any = true;
            self.lost(format!(
                "{}: the file does not describe schema {} of this topic; its messages are {}",
                channel.topic,
                channel.schema,
                if self.all { "passed on as they are" } else { "left out" }
            ));
            self.add(id, channel);
        }
        any
    }

    fn add(&mut self, id: Id, channel: Channel) {
        let schema = self.schemas.get(&Id { number: channel.schema, ..id });
        let schema = schema.cloned().unwrap_or_default();
        let role = match CameraSchema::from_name(&schema.name) {
            Some(camera) => self.camera(&channel, &schema, camera),
            None => {
                self.other_topics.insert((channel.topic.clone(), schema.name));
                None
            }
        };
        if self.all {
            self.new_channels.push(id);
        }
        let (first, second) = message::serializations(&channel.encoding, &schema.encoding);
        let is_cdr = [first, second].contains(&Some(Serialization::Cdr));
        let progress = Progress::default();
        let known = Known { channel, id: None, role, is_cdr, progress };
        self.channels.insert(id, known);
    }

    /// Whether a channel's messages are decoded to packets.
    pub(super) fn is_camera(&self, channel: &Channel, schema: &Schema) -> bool {
        CameraSchema::from_name(&schema.name).is_some_and(|camera| {
            self.filter.matches(&channel.topic)
                && message::serializations(&channel.encoding, &schema.encoding)
                    .0
                    .is_some_and(|serialization| camera.supports(serialization))
        })
    }

    fn camera(&mut self, channel: &Channel, schema: &Schema, camera: CameraSchema) -> Option<Role> {
        if !self.filter.matches(&channel.topic) {
            self.unwanted.insert(channel.topic.clone());
            return None;
        }
        let (serialization, alternative) =
            message::serializations(&channel.encoding, &schema.encoding);
        let Some(serialization) =
            serialization.filter(|serialization| camera.supports(*serialization))
        else {
            let topic = format!("{} [{}] as \"{}\"", channel.topic, schema.name, channel.encoding);
            let rest = match self.all {
                true => "its messages are passed on without their pictures",
                false => "the topic is left out",
            };
            let text = format!(
                "{topic}: this encoding of messages is not read (cdr, ros1, protobuf and json \
                 are); {rest}"
            );
            self.events.push_back(Event::Warning(Warning { text, loss: !self.all }));
            self.unreadable.insert(topic);
            return None;
        };
        let of_topic = self.by_topic.entry(channel.topic.clone()).or_default();
        let known = of_topic.iter().find(|(known, _)| *known == camera);
        let stream = known.map_or(self.streams.len(), |(_, stream)| *stream);
        if stream == self.streams.len() {
            of_topic.push((camera, stream));
            let (topic, schema) = (channel.topic.clone(), schema.name.clone());
            let info = StreamInfo { id: stream, topic, schema, messages: None, rate: None };
            let progress = Progress::default();
            self.streams.push(Stream { info, announced: false, progress });
        }
        Some(Role { stream, schema: camera, serialization, alternative })
    }

    /// Returns new streams and channels as events. Called after a whole block of definitions, since
    /// a stream may have several channels.
    pub(super) fn announce(&mut self) {
        if self.streams.last().is_some_and(|stream| !stream.announced) {
            let mut counts = vec![0u64; self.streams.len()];
            for (id, known) in &self.channels {
                let count = self.promised.as_ref().and_then(|promised| promised.get(id));
                if let Some(sum) = known.role.and_then(|role| counts.get_mut(role.stream)) {
                    *sum = sum.saturating_add(count.copied().unwrap_or_default());
                }
            }
            for (stream, count) in self.streams.iter_mut().zip(counts) {
                if !std::mem::replace(&mut stream.announced, true) {
                    stream.info.messages = self.promised.is_some().then_some(count);
                    self.events.push_back(Event::Stream(stream.info.clone()));
                }
            }
        }
        for id in std::mem::take(&mut self.new_channels) {
            let Some(known) = self.channels.get_mut(&id) else { continue };
            known.id = Some(self.next_channel);
            let schema = self.schemas.get(&Id { number: known.channel.schema, ..id });
            let info = known.info(self.next_channel, schema);
            self.next_channel += 1;
            self.events.push_back(Event::Channel(info));
        }
    }

    /// The window of log time to read.
    pub(super) fn bounds(&self) -> RangeInclusive<i64> {
        self.window.bounds(signed(self.first_log.unwrap_or_default()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    /// Whether messages of a channel are selected; `None` if the channel is not defined.
    pub(super) fn wants(&self, channel: Id) -> Option<bool> {
        self.channels.get(&channel).map(|known| self.all || known.role.is_some())
    }

    /// The topic of a channel, and whether its messages may be decoded to packets.
    pub(super) fn topic(&self, channel: Id) -> (Cow<'_, str>, bool) {
        match self.channels.get(&channel) {
            Some(known) => (known.channel.topic.as_str().into(), known.role.is_some()),
            None => {
                let Id { part, number } = channel;
                let text = match part {
                    0 => format!("channel {number}"),
                    _ => format!("channel {number} of recording {}", part + 1),
                };
                (text.into(), true)
            }
        }
    }

    /// Reports that the recorder's clock was set back.
    pub(super) fn was_set(&mut self, steps: &ClockSteps) {
        self.was_set = !steps.is_empty();
        steps.warnings().for_each(|text| self.warn(text));
    }

    /// Counts messages whose channel is not defined.
    pub(super) fn stray(&mut self, messages: u64) {
        self.strays = self.strays.saturating_add(messages);
    }

    /// Log time of the first selected message, by the message indexes of a chunk. `None` if the
    /// indexes cannot be used; the inner `None` if no message is selected.
    pub(super) fn first_wanted(&self, part: usize, entries: &[Entry]) -> Option<Option<u64>> {
        let mut first = None;
        for entry in entries.iter().filter(|entry| entry.messages > 0) {
            if self.wants(Id { part, number: entry.channel })? {
                first = Some(first.unwrap_or(u64::MAX).min(entry.first));
            }
        }
        Some(first)
    }

    /// Counts the messages of a chunk that is not read.
    pub(super) fn pass_by(&mut self, part: usize, entries: &[Entry]) {
        for entry in entries {
            let id = Id { part, number: entry.channel };
            let Some(known) = self.channels.get_mut(&id) else { continue };
            let stream = known.role.and_then(|role| self.streams.get_mut(role.stream));
            let progress = stream.map_or(&mut known.progress, |stream| &mut stream.progress);
            progress.messages = progress.messages.saturating_add(entry.messages);
        }
    }

    /// Returns a message, after a warning if it is late. A message outside of the window is only
    /// counted. `is_disordered`: a warning about the order was already returned.
    pub(super) fn message(
        &mut self,
        part: usize,
        header: MessageHeader,
        data: Bytes,
        is_disordered: bool,
    ) {
        let is_wanted = self.bounds().contains(&signed(header.log_time));
        let id = Id { part, number: header.channel };
        let Some(known) = self.channels.get_mut(&id) else { return };
        let mut stream = known.role.and_then(|role| self.streams.get_mut(role.stream));
        let progress = match &mut stream {
            Some(stream) => &mut stream.progress,
            None => &mut known.progress,
        };
        let number = progress.messages;
        progress.messages += 1;
        let before = std::mem::replace(&mut progress.last_log, header.log_time);
        let is_late = header.log_time < before && !self.was_set;
        if is_late && !progress.went_back && !is_disordered {
            progress.went_back = true;
            let text = format!(
                "{}: message {number} was logged {} ns before the one that came before it, \
                 against what its chunk claims; the order of the messages is that of the file",
                known.channel.topic,
                before - header.log_time
            );
            self.events.push_back(Event::Warning(Warning { text, loss: false }));
        }
        if !is_wanted {
            return;
        }
        let data = match known.is_cdr {
            true => zipped::unzip(data, self.limit),
            false => Ok(data),
        };
        let message = data.as_ref().ok().zip(known.id).map(|(data, channel)| Message {
            channel,
            sequence: header.sequence,
            log_ns: header.log_time,
            publish_ns: header.publish_time,
            data: data.clone(),
        });
        if let (Err(bad), None) = (&data, known.role) {
            self.broken.get_or_insert_with(|| (0, bad.reason.clone())).0 += 1;
        }
        let event = match (known.role, message) {
            (Some(role), message) => {
                let (header_ns, frame_id, payload) = match data.and_then(|data| role.decode(&data))
                {
                    Ok(camera) => (camera.header_ns, camera.frame_id, Ok(camera.payload)),
                    Err(bad) => (None, None, Err(bad)),
                };
                let (stream, log_ns) = (role.stream, signed(header.log_time));
                Event::Packet(Packet {
                    stream,
                    number,
                    log_ns,
                    header_ns,
                    frame_id,
                    payload,
                    message,
                })
            }
            (None, Some(message)) => Event::Message(message),
            (None, None) => return,
        };
        self.events.push_back(event);
    }

    /// Reports missing messages at the end.
    pub(super) fn finish(&mut self, cuts: &[String], len: u64) {
        if let Some(cut) = cuts.first() {
            let more = match cuts.len() - 1 {
                0 => String::new(),
                more => format!(", and {more} more recordings in it are not complete either"),
            };
            let messages: u64 = self.streams.iter().map(|stream| stream.progress.messages).sum();
            self.lost(format!(
                "the recording {cut} (the file has {len} bytes){more}: {messages} camera messages were \
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
        if let Some((count, reason)) = self.broken.take() {
            self.lost(format!(
                "{count} messages of other topics cannot be read; the first: {reason}"
            ));
        }
        if self.window.has_end() {
            return;
        }
        let mut missing = Vec::new();
        for Stream { info: StreamInfo { topic, messages, .. }, progress, .. } in &self.streams {
            missing.extend(progress.missing(topic, *messages));
        }
        let others = self.channels.iter().filter(|(_, known)| self.all && known.role.is_none());
        for (id, Known { channel, progress, .. }) in others {
            let promised = self.promised.as_ref().and_then(|promised| promised.get(id));
            missing.extend(progress.missing(&channel.topic, promised.copied()));
        }
        for text in missing {
            self.lost(text);
        }
    }

    /// Returns why the recording cannot be used, if it cannot.
    pub(super) fn nothing(&self, location: &Location) -> Option<SourceError> {
        if !self.streams.is_empty() || self.all {
            return None;
        }
        Some(if !self.unreadable.is_empty() {
            let topics: Vec<_> = self.unreadable.iter().map(String::as_str).collect();
            let topics = topics.join(", ");
            SourceError::invalid(
                location.clone(),
                format!("its camera topics are in encodings that are not read: {topics}"),
                "cdr, ros1, protobuf and json are read",
            )
        } else {
            signature::no_camera(location.clone(), &self.other_topics, &self.unwanted)
        })
    }

    pub(super) fn other_topics(&self) -> Vec<(String, String)> {
        self.other_topics.iter().cloned().collect()
    }
}

impl Known {
    fn info(&self, id: ChannelId, schema: Option<&Schema>) -> ChannelInfo {
        ChannelInfo {
            id,
            recorded_id: Some(self.channel.id.into()),
            topic: self.channel.topic.clone(),
            encoding: self.channel.encoding.clone(),
            schema: schema.map(|schema| crate::Schema {
                recorded_id: Some(schema.id.into()),
                name: schema.name.clone(),
                encoding: schema.encoding.clone(),
                data: schema.data.clone(),
            }),
            metadata: self.channel.metadata.clone(),
            stream: self.role.map(|role| role.stream),
        }
    }
}

impl Progress {
    fn missing(&self, topic: &str, promised: Option<u64>) -> Option<String> {
        let found = self.messages;
        let promised = promised.filter(|promised| found < *promised)?;
        Some(format!("{topic}: the index promises {promised} messages, {found} were found"))
    }
}

impl Role {
    fn decode(&self, data: &Bytes) -> Result<message::CameraMessage, BadMessage> {
        let decoded = message::decode(self.schema, self.serialization, data);
        decoded.or_else(|bad| match self.alternative {
            Some(serialization) => {
                message::decode(self.schema, serialization, data).map_err(|_| bad)
            }
            None => Err(bad),
        })
    }
}
