//! Recordings, written through the `mcap` crate; messages by hand.

use std::{
    collections::BTreeMap,
    fs::File,
    io::BufWriter,
    path::{Path, PathBuf},
};

use base64::Engine;
use mcap::{WriteOptions, Writer, records::MessageHeader};

use super::picture::Picture;

/// How messages are serialised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Serialization {
    CdrLittle,
    CdrBig,
    Ros1,
    /// Foxglove's messages.
    Json,
    /// Foxglove's messages.
    Protobuf,
}

/// What a camera message holds.
#[derive(Clone, Debug)]
pub enum Content {
    Image { encoding: String, width: u32, height: u32, step: u32, big: bool, data: Vec<u8> },
    Compressed { format: String, data: Vec<u8> },
    Video { format: String, data: Vec<u8> },
}

impl Content {
    pub fn raw(picture: &Picture, encoding: &str, padding: usize) -> Self {
        let (data, step) = picture.raw(encoding, padding);
        let (width, height) = (picture.width as u32, picture.height as u32);
        Self::Image { encoding: encoding.into(), width, height, step, big: false, data }
    }

    pub fn jpeg(picture: &Picture) -> Self {
        Self::compressed("jpeg", picture.jpeg420())
    }

    pub fn compressed(format: &str, data: Vec<u8>) -> Self {
        Self::Compressed { format: format.into(), data }
    }

    /// The type's name and the channel's and the schema's encoding.
    pub fn names(
        &self,
        serialization: Serialization,
    ) -> (&'static str, &'static str, &'static str) {
        let (ros, foxglove) = match self {
            Self::Image { .. } => ("Image", "foxglove.RawImage"),
            Self::Compressed { .. } => ("CompressedImage", "foxglove.CompressedImage"),
            Self::Video { .. } => ("", "foxglove.CompressedVideo"),
        };
        let cdr = match ros {
            "Image" => "sensor_msgs/msg/Image",
            "CompressedImage" => "sensor_msgs/msg/CompressedImage",
            _ => "foxglove_msgs/msg/CompressedVideo",
        };
        let ros1 = match ros {
            "Image" => "sensor_msgs/Image",
            _ => "sensor_msgs/CompressedImage",
        };
        match serialization {
            Serialization::CdrLittle | Serialization::CdrBig => (cdr, "cdr", "ros2msg"),
            Serialization::Ros1 => (ros1, "ros1", "ros1msg"),
            Serialization::Json => (foxglove, "json", "jsonschema"),
            Serialization::Protobuf => (foxglove, "protobuf", "protobuf"),
        }
    }

    /// The message, with a header stamp (0: none).
    pub fn message(&self, serialization: Serialization, stamp_ns: i64) -> Vec<u8> {
        let (sec, nsec) = (stamp_ns.div_euclid(1_000_000_000), stamp_ns.rem_euclid(1_000_000_000));
        match serialization {
            Serialization::Json => self.json(sec, nsec),
            Serialization::Protobuf => self.protobuf(sec, nsec),
            Serialization::CdrLittle | Serialization::CdrBig | Serialization::Ros1 => {
                let mut out = Fields::new(serialization);
                if serialization == Serialization::Ros1 {
                    out.u32(7);
                }
                out.u32(sec as u32);
                out.u32(nsec as u32);
                out.string("camera");
                match self {
                    Self::Image { encoding, width, height, step, big, data } => {
                        out.u32(*height);
                        out.u32(*width);
                        out.string(encoding);
                        out.bytes.push(u8::from(*big));
                        out.u32(*step);
                        out.blob(data);
                    }
                    Self::Compressed { format, data } => {
                        out.string(format);
                        out.blob(data);
                    }
                    Self::Video { format, data } => {
                        out.blob(data);
                        out.string(format);
                    }
                }
                out.bytes
            }
        }
    }

    fn json(&self, sec: i64, nsec: i64) -> Vec<u8> {
        let base64 = |data: &[u8]| base64::engine::general_purpose::STANDARD.encode(data);
        let timestamp = serde_json::json!({ "sec": sec, "nsec": nsec });
        let value = match self {
            Self::Image { encoding, width, height, step, data, .. } => serde_json::json!({
                "timestamp": timestamp, "frame_id": "camera", "width": width, "height": height,
                "encoding": encoding, "step": step, "data": base64(data),
            }),
            Self::Compressed { format, data } | Self::Video { format, data } => serde_json::json!({
                "timestamp": timestamp, "frame_id": "camera", "format": format,
                "data": base64(data),
            }),
        };
        value.to_string().into_bytes()
    }

    fn protobuf(&self, sec: i64, nsec: i64) -> Vec<u8> {
        let stamp = [field_varint(1, sec as u64), field_varint(2, nsec as u64)].concat();
        let stamp = field_bytes(1, &stamp);
        match self {
            Self::Image { encoding, width, height, step, data, .. } => [
                stamp,
                field_fixed32(2, *width),
                field_fixed32(3, *height),
                field_bytes(4, encoding.as_bytes()),
                field_fixed32(5, *step),
                field_bytes(6, data),
                field_bytes(7, b"camera"),
            ]
            .concat(),
            Self::Compressed { format, data } => {
                [stamp, field_bytes(2, data), field_bytes(3, format.as_bytes())].concat()
            }
            Self::Video { format, data } => [
                stamp,
                field_bytes(2, b"camera"),
                field_bytes(3, data),
                field_bytes(4, format.as_bytes()),
            ]
            .concat(),
        }
    }
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn field_varint(number: u64, value: u64) -> Vec<u8> {
    [varint(number << 3), varint(value)].concat()
}

fn field_fixed32(number: u64, value: u32) -> Vec<u8> {
    [varint(number << 3 | 5), value.to_le_bytes().to_vec()].concat()
}

fn field_bytes(number: u64, value: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}

/// Writes the fields of a ROS message in order.
struct Fields {
    serialization: Serialization,
    bytes: Vec<u8>,
}

impl Fields {
    fn new(serialization: Serialization) -> Self {
        let bytes = match serialization {
            Serialization::CdrLittle => vec![0, 1, 0, 0],
            Serialization::CdrBig => vec![0, 0, 0, 0],
            _ => vec![],
        };
        Self { serialization, bytes }
    }

    fn u32(&mut self, value: u32) {
        if self.serialization != Serialization::Ros1 {
            self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        }
        let big = self.serialization == Serialization::CdrBig;
        self.bytes.extend(if big { value.to_be_bytes() } else { value.to_le_bytes() });
    }

    fn blob(&mut self, data: &[u8]) {
        self.u32(data.len() as u32);
        self.bytes.extend(data);
    }

    fn string(&mut self, text: &str) {
        let nul: &[u8] = if self.serialization == Serialization::Ros1 { b"" } else { b"\0" };
        self.blob(&[text.as_bytes(), nul].concat());
    }
}

/// An MCAP file that is being written.
pub struct Recording {
    path: PathBuf,
    writer: Writer<BufWriter<File>>,
    channels: BTreeMap<String, (u16, Serialization)>,
    next: u32,
}

impl Recording {
    pub fn create(path: impl Into<PathBuf>) -> Self {
        // Small chunks, so that a file that is cut has some whole ones.
        Self::with(path, WriteOptions::new().compression(None).chunk_size(Some(64 << 10)))
    }

    pub fn with(path: impl Into<PathBuf>, options: WriteOptions) -> Self {
        let path = path.into();
        let file = BufWriter::new(File::create(&path).unwrap());
        let writer = options.create(file).unwrap();
        Self { path, writer, channels: BTreeMap::new(), next: 0 }
    }

    /// Announces a topic with the type of `content`; gives its channel.
    pub fn topic(&mut self, topic: &str, serialization: Serialization, content: &Content) -> u16 {
        let (schema, encoding, schema_encoding) = content.names(serialization);
        let channel = self.other(topic, schema, encoding, schema_encoding);
        self.channels.insert(topic.into(), (channel, serialization));
        channel
    }

    /// Announces a topic of any type.
    pub fn other(&mut self, topic: &str, schema: &str, encoding: &str, of_schema: &str) -> u16 {
        let schema = self.writer.add_schema(schema, of_schema, b"x").unwrap();
        self.writer.add_channel(schema, topic, encoding, &BTreeMap::new()).unwrap()
    }

    /// Writes a message; the topic is announced with its first one.
    pub fn write(
        &mut self,
        topic: &str,
        serialization: Serialization,
        header_ns: i64,
        log_ns: i64,
        content: &Content,
    ) {
        let channel = match self.channels.get(topic) {
            Some((channel, _)) => *channel,
            None => self.topic(topic, serialization, content),
        };
        self.bytes(channel, log_ns, &content.message(serialization, header_ns));
    }

    /// Writes any bytes as a message.
    pub fn bytes(&mut self, channel: u16, log_ns: i64, data: &[u8]) {
        let header = MessageHeader {
            channel_id: channel,
            sequence: self.next,
            log_time: log_ns as u64,
            publish_time: log_ns as u64,
        };
        self.next += 1;
        self.writer.write_to_known_channel(&header, data).unwrap();
    }

    pub fn finish(mut self) -> PathBuf {
        self.writer.finish().unwrap();
        self.path
    }
}

/// A recording with one camera, `/cam`, in little-endian CDR: header stamp, log time, content of
/// each message.
pub fn camera(directory: &Path, frames: &[(i64, i64, Content)]) -> PathBuf {
    let mut recording = Recording::create(directory.join("one.mcap"));
    for (header, log, content) in frames {
        recording.write("/cam", Serialization::CdrLittle, *header, *log, content);
    }
    recording.finish()
}

/// Frame `n` of the small camera that most tests use: 160x120, `bgr8`.
pub fn small(n: usize) -> Content {
    Content::raw(&Picture::stamped(160, 120, n), "bgr8", 0)
}

/// As [`small`], as JPEG.
pub fn small_jpeg(n: usize) -> Content {
    Content::jpeg(&Picture::stamped(160, 120, n))
}

/// A JPEG that has a right header and ends in the middle of its samples.
pub fn cut_jpeg(n: usize) -> Content {
    let data = Picture::stamped(160, 120, n).jpeg420();
    let half = data.len() / 2;
    Content::compressed("jpeg", data[..half].to_vec())
}
