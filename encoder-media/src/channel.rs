//! The contents of a recording besides camera pictures.
//!
//! A source returns them if [`SourceOptions::all_messages`](crate::SourceOptions::all_messages) is
//! set. Numbers are those of the recording, so that a writer can reproduce it.

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
    /// Its number in the recording; `None` if the format has no numbers. Several files of one
    /// recording may use a number for different channels.
    pub recorded_id: Option<u32>,
    /// Its topic.
    pub topic: String,
    /// How its messages are serialised, by MCAP's names: `cdr`, `ros1`, `protobuf`, `json` …
    pub encoding: String,
    /// The type of its messages, if the recording states it.
    pub schema: Option<Schema>,
    /// Other properties in the recording: `callerid`, `offered_qos_profiles` …
    pub metadata: BTreeMap<String, String>,
    /// The camera stream that its messages belong to as packets; `None` if they are returned as
    /// [`Event::Message`](crate::Event::Message).
    pub stream: Option<StreamId>,
}

/// A message type.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schema {
    /// Its number in the recording; `None` if the format has no numbers.
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
    /// Its number in the recording; 0 if the format has no numbers.
    pub sequence: u32,
    /// When it was recorded, in nanoseconds since the epoch. Unsigned as in MCAP, so that each
    /// value of an MCAP file can be written back; 0 for a time before the epoch.
    pub log_ns: u64,
    /// When it was published, in nanoseconds since the epoch; the log time if the format has no
    /// publish time.
    pub publish_ns: u64,
    /// The serialised message.
    pub data: Bytes,
}

/// A file inside a recording.
#[derive(Clone, Debug, PartialEq)]
pub struct Attachment {
    /// When it was recorded, in nanoseconds since the epoch.
    pub log_ns: u64,
    /// When it was created, in nanoseconds since the epoch; 0 if unknown.
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
