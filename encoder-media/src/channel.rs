//! What a recording holds besides camera pictures.
//!
//! A source returns it when [`SourceOptions::all_messages`](crate::SourceOptions::all_messages) is
//! set. Numbers are those of the recording, so that a writer can make an equal one.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::StreamId;

/// Number of a channel inside one source, counted from 0 in order of appearance.
pub type ChannelId = usize;

/// A channel: the messages of one topic by one writer.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelInfo {
    /// Its number in this source.
    pub id: ChannelId,
    /// Its number in the recording; `None` where the format has none. Several files of one
    /// recording may use a number for different channels.
    pub recorded_id: Option<u32>,
    /// Its topic.
    pub topic: String,
    /// How its messages are serialised, by MCAP's names: `cdr`, `ros1`, `protobuf`, `json` …
    pub encoding: String,
    /// The type of its messages, where the recording has one.
    pub schema: Option<Schema>,
    /// What else the recording has about it: `callerid`, `offered_qos_profiles` …
    pub metadata: BTreeMap<String, String>,
    /// The camera stream that its messages are packets of; `None` when they come as
    /// [`Event::Message`](crate::Event::Message).
    pub stream: Option<StreamId>,
}

/// A message type.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schema {
    /// Its number in the recording; `None` where the format has none.
    pub recorded_id: Option<u32>,
    /// Its name, such as `sensor_msgs/msg/Imu`.
    pub name: String,
    /// The language of the definition, by MCAP's names: `ros1msg`, `ros2msg`, `protobuf` …
    pub encoding: String,
    /// The definition. Channels of one type share the memory.
    pub data: Bytes,
}

/// A message as it was recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Its channel.
    pub channel: ChannelId,
    /// Its number as the recording has it; 0 where the format has none.
    pub sequence: u32,
    /// When it was recorded, in nanoseconds since the epoch. Unsigned as in MCAP, so that each
    /// value of an MCAP file can be written back; 0 for a time before the epoch.
    pub log_ns: u64,
    /// When it was published, in nanoseconds since the epoch; the log time where the format has no
    /// such time.
    pub publish_ns: u64,
    /// The serialised message.
    pub data: Bytes,
}

/// A file inside a recording.
#[derive(Clone, Debug, PartialEq)]
pub struct Attachment {
    /// When it was recorded, in nanoseconds since the epoch.
    pub log_ns: u64,
    /// When it was made, in nanoseconds since the epoch; 0 when unknown.
    pub create_ns: u64,
    /// Its name.
    pub name: String,
    /// Its media type, such as `text/plain`.
    pub media_type: String,
    /// Its content.
    pub data: Bytes,
}

/// Named values inside a recording.
#[derive(Clone, Debug, PartialEq)]
pub struct Metadata {
    /// Name of the record.
    pub name: String,
    /// The values.
    pub values: BTreeMap<String, String>,
}
