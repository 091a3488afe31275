//! The known connections of a bag, and how their messages are handled.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use bytes::Bytes;
use encoder_media::Location;

use super::layout::{Connection, Id};
use crate::filter::TopicFilter;
use crate::message::{self, CameraSchema, Serialization};
use crate::signature;
use crate::steps::ClockSteps;
use crate::{
    ChannelId, ChannelInfo, Event, Message, Packet, Schema, SourceError, SourceOptions, StreamId,
    StreamInfo, Warning,
};

/// The most connections of a bag. A real bag has some hundred.
const MAX_CONNECTIONS: usize = 1 << 16;

/// Connections and streams of a bag.
pub(super) struct Catalog {
    topics: TopicFilter,
    /// Whether messages of all connections are requested.
    all: bool,
    connections: HashMap<Id, Known>,
    streams: Vec<Stream>,
    /// Streams by topic, with their types.
    by_topic: BTreeMap<String, Vec<(CameraSchema, StreamId)>>,
    next_channel: ChannelId,
    others: BTreeSet<(String, String)>,
    /// Camera topics that the filter excludes.
    unwanted: BTreeSet<String>,
    /// Bytes of definitions that may still be kept.
    room: u64,
    has_too_many: bool,
    /// Connections with two contradicting definitions.
    ambiguous: HashSet<Id>,
    /// A loss has been reported.
    pub(super) lost: bool,
    /// Events to return before any other event.
    pub(super) events: VecDeque<Event>,
}

/// A connection.
struct Known {
    topic: String,
    /// The name of its type.
    schema: String,
    /// Its stream; `None` if the connection is not a selected camera.
    stream: Option<StreamId>,
    /// Its number among the returned channels; `None` if it is not returned.
    channel: Option<ChannelId>,
    /// Number of messages so far, if the connection has no stream.
    number: u64,
    /// Number of messages by the index, if the connection has no stream.
    promised: u64,
}

struct Stream {
    topic: String,
    name: String,
    schema: CameraSchema,
    /// Messages so far.
    number: u64,
    /// Messages by the index.
    promised: u64,
}

impl Catalog {
    pub(super) fn new(location: &Location, options: &SourceOptions) -> Result<Self, SourceError> {
        Ok(Self {
            topics: TopicFilter::new(location.clone(), options)?,
            all: options.all_messages,
            connections: HashMap::new(),
            streams: Vec::new(),
            by_topic: BTreeMap::new(),
            next_channel: 0,
            others: BTreeSet::new(),
            unwanted: BTreeSet::new(),
            room: options.limits.message_bytes,
            has_too_many: false,
            ambiguous: HashSet::new(),
            lost: false,
            events: VecDeque::new(),
        })
    }

    pub(super) fn warn(&mut self, text: String, loss: bool) {
        self.warning(Warning { text, loss });
    }

    pub(super) fn warning(&mut self, warning: Warning) {
        self.lost |= warning.loss;
        self.events.push_back(Event::Warning(warning));
    }

    /// Whether a connection's messages are decoded to packets.
    pub(super) fn is_camera(&self, connection: &Connection) -> bool {
        camera(&connection.schema).is_some() && self.topics.matches(&connection.topic)
    }

    /// Whether messages of a connection are selected; `None` if the connection is not described.
    pub(super) fn wants(&self, connection: Id) -> Option<bool> {
        let known = self.connections.get(&connection)?;
        Some(self.all || known.stream.is_some())
    }

    /// Adds the connections of an index, and returns their streams with the number of messages in
    /// `counts`.
    pub(super) fn learn_index(&mut self, connections: &[Connection], counts: &HashMap<Id, u64>) {
        let new: Vec<_> = connections.iter().filter(|connection| self.take(connection)).collect();
        for connection in &new {
            let count = counts.get(&connection.id).copied().unwrap_or(0);
            let Some(known) = self.connections.get_mut(&connection.id) else { continue };
            let stream = known.stream.and_then(|stream| self.streams.get_mut(stream));
            let promised =
                stream.map_or(&mut known.promised, |stream: &mut Stream| &mut stream.promised);
            *promised = promised.saturating_add(count);
        }
        for id in 0..self.streams.len() {
            self.announce(id, self.streams.get(id).map(|stream| stream.promised));
        }
        for connection in new {
            self.announce_channel(connection);
        }
    }

    /// Adds a connection that a chunk or a walk describes.
    pub(super) fn learn(&mut self, connection: &Connection) {
        let streams = self.streams.len();
        if self.take(connection) {
            if self.streams.len() > streams {
                self.announce(streams, None);
            }
            self.announce_channel(connection);
        }
    }

    /// Determines how a connection is handled; returns whether it is new. Connections with the same
    /// topic and type are one stream.
    fn take(&mut self, connection: &Connection) -> bool {
        let Connection { id, topic, schema: name, .. } = connection;
        if let Some(known) = self.connections.get(id) {
            let is_like = (&known.topic, &known.schema) == (topic, name);
            if !is_like && self.ambiguous.insert(*id) {
                let text = format!(
                    "connection {} is first {} and then {topic}; all its messages are taken for \
                     the first",
                    id.number, known.topic
                );
                self.warn(text, true);
            }
            return false;
        }
        if self.connections.len() >= MAX_CONNECTIONS {
            if !std::mem::replace(&mut self.has_too_many, true) {
                let text = format!(
                    "the bag has more than {MAX_CONNECTIONS} connections; the others are left out"
                );
                self.warn(text, true);
            }
            return false;
        }
        let mut stream = None;
        match camera(name) {
            None => {
                self.others.insert((topic.clone(), name.clone()));
            }
            Some(_) if !self.topics.matches(topic) => {
                self.unwanted.insert(topic.clone());
            }
            Some(schema) => {
                let of_topic = self.by_topic.entry(topic.clone()).or_default();
                let known = of_topic.iter().find(|(known, _)| *known == schema);
                let id = known.map_or(self.streams.len(), |(_, stream)| *stream);
                if id == self.streams.len() {
                    of_topic.push((schema, id));
                    let (topic, name) = (topic.clone(), name.clone());
                    self.streams.push(Stream { topic, name, schema, number: 0, promised: 0 });
                }
                stream = Some(id);
            }
        }
        let (topic, schema) = (topic.clone(), name.clone());
        let known = Known { topic, schema, stream, channel: None, number: 0, promised: 0 };
        self.connections.insert(*id, known);
        true
    }

    fn announce(&mut self, id: StreamId, messages: Option<u64>) {
        if let Some(Stream { topic, name, .. }) = self.streams.get(id) {
            let (topic, schema) = (topic.clone(), name.clone());
            let info = StreamInfo { id, topic, schema, messages, rate: None };
            self.events.push_back(Event::Stream(info));
        }
    }

    fn announce_channel(&mut self, connection: &Connection) {
        if !self.all {
            return;
        }
        let mut data = connection.definition.clone();
        match self.room.checked_sub(data.len() as u64) {
            Some(room) => self.room = room,
            None => {
                data = Bytes::new();
                self.warn(
                    format!(
                        "the message definitions are larger than the limit together \
                         (`Limits::message_bytes`): that of {} is left out",
                        connection.topic
                    ),
                    true,
                );
            }
        }
        let Some(known) = self.connections.get_mut(&connection.id) else { return };
        known.channel = Some(self.next_channel);
        let info = ChannelInfo {
            id: self.next_channel,
            recorded_id: Some(connection.id.number),
            topic: connection.topic.clone(),
            encoding: "ros1".into(),
            schema: Some(Schema {
                recorded_id: None,
                name: connection.schema.clone(),
                encoding: "ros1msg".into(),
                data,
            }),
            metadata: connection.metadata.clone(),
            stream: known.stream,
        };
        self.next_channel += 1;
        self.events.push_back(Event::Channel(info));
    }

    /// The topic of a connection, and whether its messages may be decoded to packets.
    pub(super) fn topic(&self, connection: Id) -> (Cow<'_, str>, bool) {
        match self.connections.get(&connection) {
            Some(known) => (known.topic.as_str().into(), known.stream.is_some()),
            None => {
                let Id { part, number } = connection;
                let text = match part {
                    0 => format!("connection {number}"),
                    _ => format!("connection {number} of recording {}", part + 1),
                };
                (text.into(), true)
            }
        }
    }

    /// Reports that the recorder's clock was set back.
    pub(super) fn was_set(&mut self, steps: &ClockSteps) {
        steps.warnings().for_each(|text| self.warn(text, false));
    }

    /// Counts messages that are not read, or outside of the window.
    pub(super) fn pass_by(&mut self, connection: Id, messages: u64) {
        self.count(connection, messages);
    }

    /// Counts messages; returns the number of the first one.
    fn count(&mut self, connection: Id, messages: u64) -> Option<u64> {
        let known = self.connections.get_mut(&connection)?;
        let stream = known.stream.and_then(|stream| self.streams.get_mut(stream));
        let number = stream.map_or(&mut known.number, |stream| &mut stream.number);
        let first = *number;
        *number = number.saturating_add(messages);
        Some(first)
    }

    /// Returns a message.
    pub(super) fn message(&mut self, connection: Id, time: i64, data: &Bytes) {
        let Some(number) = self.count(connection, 1) else { return };
        let Some(known) = self.connections.get(&connection) else { return };
        let log_ns = u64::try_from(time).unwrap_or_default();
        // A bag has neither numbers nor times of publication.
        let message = known.channel.map(|channel| Message {
            channel,
            sequence: 0,
            log_ns,
            publish_ns: log_ns,
            data: data.clone(),
        });
        let stream = known.stream.and_then(|id| Some((id, self.streams.get(id)?.schema)));
        let event = match (stream, message) {
            (Some((stream, schema)), message) => {
                let (header_ns, frame_id, payload) =
                    match message::decode(schema, Serialization::Ros1, data) {
                        Ok(camera) => (camera.header_ns, camera.frame_id, Ok(camera.payload)),
                        Err(bad) => (None, None, Err(bad)),
                    };
                Event::Packet(Packet {
                    stream,
                    number,
                    log_ns: time,
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

    /// Reports at the end the messages that the index lists and the bag does not contain, unless a
    /// loss was already reported.
    pub(super) fn settle(&mut self) {
        let streams = self.streams.iter_mut().map(|s| (&s.topic, s.number, &mut s.promised));
        let others =
            self.connections.values_mut().filter(|known| self.all && known.stream.is_none());
        let others = others.map(|known| (&known.topic, known.number, &mut known.promised));
        let mut missing = Vec::new();
        for (topic, number, promised) in streams.chain(others) {
            let promised = std::mem::take(promised);
            if number < promised && !self.lost {
                missing.push(format!(
                    "{topic}: the index promises {promised} messages, {number} are there"
                ));
            }
        }
        for text in missing {
            self.warn(text, true);
        }
    }

    /// Returns why the bag cannot be used, if it cannot.
    pub(super) fn nothing(&self, location: &Location) -> Option<SourceError> {
        let is_empty = self.streams.is_empty() && !self.all;
        is_empty.then(|| signature::no_camera(location.clone(), &self.others, &self.unwanted))
    }

    pub(super) fn other_topics(&self) -> Vec<(String, String)> {
        self.others.iter().cloned().collect()
    }
}

/// The camera type that a bag calls `name`.
fn camera(name: &str) -> Option<CameraSchema> {
    CameraSchema::from_name(name).filter(|schema| schema.supports(Serialization::Ros1))
}
