//! Camera messages: from the bytes of one message to a [`Payload`].
//!
//! The same five message types are recorded in four serialisations, inside MCAP files, ROS 1 bags
//! and rosbag2 databases; every container uses this one decoder.

mod json;
mod protobuf;
mod ros;

use bytes::Bytes;

use super::{BadMessage, Payload};

/// How a message is serialised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serialization {
    /// DDS common data representation, as ROS 2 writes it.
    Cdr,
    /// ROS 1.
    Ros1,
    /// Protocol Buffers.
    Protobuf,
    /// JSON, with bytes as base64.
    Json,
}

/// A camera message type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CameraSchema {
    /// `sensor_msgs/Image`.
    RosImage,
    /// `sensor_msgs/CompressedImage`.
    RosCompressedImage,
    /// `foxglove.RawImage`.
    FoxgloveRawImage,
    /// `foxglove.CompressedImage`.
    FoxgloveCompressedImage,
    /// `foxglove.CompressedVideo`.
    FoxgloveCompressedVideo,
    /// `ffmpeg_image_transport_msgs/FFMPEGPacket`.
    FfmpegPacket,
    /// A video in messages whose fields are not read, such as `theora_image_transport/Packet`.
    OtherVideo,
}

/// Parts of the names of packages and types that hold encoded video.
const CODECS: [&str; 5] = ["264", "265", "hevc", "theora", "ffmpeg"];
/// Endings of the names of their types; their other types describe settings and states.
const UNITS: [&str; 8] = ["packet", "frame", "image", "video", "stream", "264", "265", "unit"];
/// Types of any package that hold encoded video.
const VIDEOS: [&str; 6] = [
    "compressedvideo",
    "encodedframe",
    "encodedimage",
    "encodedvideo",
    "videoframe",
    "videopacket",
];

/// Formats of compressed pictures that are videos, in the spellings of recorders, and the name of
/// the codec.
const VIDEO_FORMATS: [(&str, &str); 13] = [
    ("h264", "h264"),
    ("x264", "h264"),
    ("avc", "h264"),
    ("avc1", "h264"),
    ("h265", "h265"),
    ("x265", "h265"),
    ("hevc", "h265"),
    ("av1", "av1"),
    ("vp8", "vp8"),
    ("vp9", "vp9"),
    ("mpeg4", "mpeg4"),
    ("mpeg2video", "mpeg2"),
    ("theora", "theora"),
];

/// The codec of a compressed picture whose `format` names a video; `None` for stills.
fn video_format(format: &str) -> Option<&'static str> {
    let format = format.to_ascii_lowercase().replace("h.26", "h26");
    let words = || format.split(|c: char| !c.is_ascii_alphanumeric());
    // Encoders are named by their library: `libx265`.
    let of = |word: &str| {
        let word = word.strip_prefix("lib").unwrap_or(word);
        VIDEO_FORMATS.iter().find(|(name, _)| *name == word)
    };
    words().find_map(of).map(|(_, codec)| *codec)
}

/// Whether a type holds encoded video.
fn is_video(package: &str, name: &str) -> bool {
    let (package, name) = (package.to_ascii_lowercase(), name.to_ascii_lowercase());
    let names_codec = CODECS.iter().any(|codec| package.contains(codec) || name.contains(codec));
    let is_unit = UNITS.iter().any(|unit| name.ends_with(unit));
    (names_codec && is_unit) || VIDEOS.contains(&name.as_str())
}

/// The package and the name of a type, in any of the spellings of recorders.
fn package_and_type(name: &str) -> Option<(&str, &str)> {
    let parts: Vec<&str> =
        name.split(['/', '.', ':']).filter(|part| !matches!(*part, "" | "msg" | "dds_")).collect();
    let [package, name] = parts.as_slice() else { return None };
    let package = if *package == "foxglove_msgs" { "foxglove" } else { package };
    Some((package, name.strip_suffix('_').unwrap_or(name)))
}

/// The name of a type in one spelling, to compare types of several files.
#[cfg(feature = "rosbag2")]
pub(crate) fn plain_type(name: &str) -> String {
    match package_and_type(name) {
        Some((package, name)) => format!("{package}/{name}"),
        None => name.to_owned(),
    }
}

impl CameraSchema {
    /// The type that a recording calls `name`, in any of the usual spellings:
    /// `sensor_msgs/msg/Image`, `sensor_msgs/Image`, `sensor_msgs::msg::dds_::Image_`,
    /// `foxglove.RawImage`, `foxglove_msgs/msg/RawImage` …; `None` when it is no camera type.
    pub fn from_name(name: &str) -> Option<Self> {
        match package_and_type(name)? {
            ("sensor_msgs", "Image") => Some(Self::RosImage),
            ("sensor_msgs", "CompressedImage") => Some(Self::RosCompressedImage),
            ("foxglove", "RawImage") => Some(Self::FoxgloveRawImage),
            ("foxglove", "CompressedImage") => Some(Self::FoxgloveCompressedImage),
            ("foxglove", "CompressedVideo") => Some(Self::FoxgloveCompressedVideo),
            ("ffmpeg_image_transport_msgs", "FFMPEGPacket") => Some(Self::FfmpegPacket),
            (package, name) if is_video(package, name) => Some(Self::OtherVideo),
            _ => None,
        }
    }

    /// Whether [`decode`] reads this type in this serialisation: all but the ROS types as
    /// Protocol Buffers or JSON, for which there is no agreed mapping.
    pub fn supports(self, serialization: Serialization) -> bool {
        match serialization {
            Serialization::Cdr | Serialization::Ros1 => true,
            Serialization::Protobuf | Serialization::Json => {
                !matches!(self, Self::RosImage | Self::RosCompressedImage | Self::FfmpegPacket)
            }
        }
    }
}

/// A decoded camera message.
#[derive(Clone, Debug, PartialEq)]
pub struct CameraMessage {
    /// The stamp that the camera's driver set, in nanoseconds; `None` when absent.
    pub header_ns: Option<i64>,
    /// The coordinate frame of the camera; `None` if the type has none.
    pub frame_id: Option<String>,
    /// The picture.
    pub payload: Payload,
}

/// Decodes one message. `data` is shared: pictures are slices of it and not copies, except in
/// JSON, where they are base64. Bytes after the message are ignored; whether there are enough
/// samples for the picture's size is not looked at.
///
/// # Errors
/// [`BadMessage`] when the message ends too early or is not of this type and serialisation.
pub fn decode(
    schema: CameraSchema,
    serialization: Serialization,
    data: &Bytes,
) -> Result<CameraMessage, BadMessage> {
    if schema == CameraSchema::OtherVideo {
        let payload = Payload::Video { format: String::new(), data: data.clone() };
        return Ok(CameraMessage { header_ns: None, frame_id: None, payload });
    }
    let mut message = match serialization {
        Serialization::Cdr => ros::decode(schema, ros::Fields::cdr(data)?),
        Serialization::Ros1 => ros::decode(schema, ros::Fields::ros1(data)),
        Serialization::Protobuf => protobuf::decode(schema, data),
        Serialization::Json => json::decode(schema, data),
    }?;
    if let Payload::Compressed { format, data } = &message.payload
        && let Some(codec) = video_format(format)
        && !is_still(data)
    {
        message.payload = Payload::Video { format: codec.into(), data: data.clone() };
    }
    Ok(message)
}

/// Whether data is a JPEG or a PNG, whatever its format is called.
fn is_still(data: &[u8]) -> bool {
    data.starts_with(b"\xff\xd8\xff") || data.starts_with(b"\x89PNG")
}

fn bad(reason: impl Into<String>) -> BadMessage {
    BadMessage { reason: reason.into() }
}

/// The error of the ROS types in a serialisation that they do not have.
fn no_mapping(schema: CameraSchema, serialization: Serialization) -> BadMessage {
    bad(format!("{schema:?} is not read from {serialization:?}"))
}

/// Seconds and nanoseconds as one number; `None` for what 64 bits do not hold.
fn stamp(seconds: i64, nanoseconds: i64) -> Option<i64> {
    seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

/// The serialisation of a channel's messages, and the fallback if they cannot be read that way.
#[cfg(feature = "mcap")]
pub(crate) fn serializations(
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
        // Some converters from ROS 1 write "cdr" but do not convert the messages.
        (
            Some(Serialization::Cdr | Serialization::Ros1),
            Some(Serialization::Cdr | Serialization::Ros1),
        ) if message != schema => (schema, message),
        _ => (message, None),
    }
}

#[cfg(test)]
mod tests;
