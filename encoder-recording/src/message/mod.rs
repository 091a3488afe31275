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
}

impl CameraSchema {
    /// The type that a recording calls `name`, in any of the usual spellings:
    /// `sensor_msgs/msg/Image`, `sensor_msgs/Image`, `sensor_msgs::msg::dds_::Image_`,
    /// `foxglove.RawImage`, `foxglove_msgs/msg/RawImage` …; `None` when it is no camera type.
    pub fn from_name(name: &str) -> Option<Self> {
        let parts: Vec<&str> = name
            .split(['/', '.', ':'])
            .filter(|part| !matches!(*part, "" | "msg" | "dds_"))
            .collect();
        let [package, name] = parts.as_slice() else { return None };
        match (*package, name.strip_suffix('_').unwrap_or(name)) {
            ("sensor_msgs", "Image") => Some(Self::RosImage),
            ("sensor_msgs", "CompressedImage") => Some(Self::RosCompressedImage),
            ("foxglove" | "foxglove_msgs", "RawImage") => Some(Self::FoxgloveRawImage),
            ("foxglove" | "foxglove_msgs", "CompressedImage") => {
                Some(Self::FoxgloveCompressedImage)
            }
            ("foxglove" | "foxglove_msgs", "CompressedVideo") => {
                Some(Self::FoxgloveCompressedVideo)
            }
            _ => None,
        }
    }

    /// Whether [`decode`] reads this type in this serialisation: all but the ROS types as
    /// Protocol Buffers or JSON, for which there is no agreed mapping.
    pub fn supports(self, serialization: Serialization) -> bool {
        match serialization {
            Serialization::Cdr | Serialization::Ros1 => true,
            Serialization::Protobuf | Serialization::Json => {
                !matches!(self, Self::RosImage | Self::RosCompressedImage)
            }
        }
    }
}

/// A decoded camera message.
#[derive(Clone, Debug, PartialEq)]
pub struct CameraMessage {
    /// The stamp that the camera's driver set, in nanoseconds; `None` when absent or zero.
    pub header_ns: Option<i64>,
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
    match serialization {
        Serialization::Cdr => ros::decode(schema, ros::Fields::cdr(data)?),
        Serialization::Ros1 => ros::decode(schema, ros::Fields::ros1(data)),
        Serialization::Protobuf => protobuf::decode(schema, data),
        Serialization::Json => json::decode(schema, data),
    }
}

fn bad(reason: impl Into<String>) -> BadMessage {
    BadMessage { reason: reason.into() }
}

/// The error of the ROS types in a serialisation that they do not have.
fn no_mapping(schema: CameraSchema, serialization: Serialization) -> BadMessage {
    bad(format!("{schema:?} is not read from {serialization:?}"))
}

/// Seconds and nanoseconds as one number; `None` for zero, which drivers write when they do not
/// know, and for what 64 bits do not hold.
fn stamp(seconds: i64, nanoseconds: i64) -> Option<i64> {
    seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds).filter(|ns| *ns != 0)
}

#[cfg(test)]
mod tests;
