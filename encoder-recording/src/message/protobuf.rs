//! Foxglove's messages as Protocol Buffers. Only the fields that are used; others are skipped.

use bytes::Bytes;
use prost::Message;

use super::{CameraMessage, CameraSchema, Serialization, bad, no_mapping, stamp};
use crate::{BadMessage, Payload, RawImage as Raw};

#[derive(Clone, PartialEq, prost::Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RawImage {
    #[prost(message, optional, tag = "1")]
    timestamp: Option<Timestamp>,
    #[prost(fixed32, tag = "2")]
    width: u32,
    #[prost(fixed32, tag = "3")]
    height: u32,
    #[prost(string, tag = "4")]
    encoding: String,
    #[prost(fixed32, tag = "5")]
    step: u32,
    #[prost(bytes = "bytes", tag = "6")]
    data: Bytes,
    #[prost(string, tag = "7")]
    frame_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CompressedImage {
    #[prost(message, optional, tag = "1")]
    timestamp: Option<Timestamp>,
    #[prost(bytes = "bytes", tag = "2")]
    data: Bytes,
    #[prost(string, tag = "3")]
    format: String,
    #[prost(string, tag = "4")]
    frame_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CompressedVideo {
    #[prost(message, optional, tag = "1")]
    timestamp: Option<Timestamp>,
    #[prost(string, tag = "2")]
    frame_id: String,
    #[prost(bytes = "bytes", tag = "3")]
    data: Bytes,
    #[prost(string, tag = "4")]
    format: String,
}

pub(super) fn decode(schema: CameraSchema, data: &Bytes) -> Result<CameraMessage, BadMessage> {
    let (timestamp, frame_id, payload) = match schema {
        CameraSchema::FoxgloveRawImage => {
            let RawImage { timestamp, width, height, encoding, step, data, frame_id } = read(data)?;
            let image = Raw { encoding, width, height, step, is_bigendian: false, data };
            (timestamp, frame_id, Payload::Raw(image))
        }
        CameraSchema::FoxgloveCompressedImage => {
            let CompressedImage { timestamp, data, format, frame_id } = read(data)?;
            (timestamp, frame_id, Payload::Compressed { format, data })
        }
        CameraSchema::FoxgloveCompressedVideo => {
            let CompressedVideo { timestamp, frame_id, data, format } = read(data)?;
            (timestamp, frame_id, Payload::Video { format, data })
        }
        CameraSchema::RosImage
        | CameraSchema::RosCompressedImage
        | CameraSchema::FfmpegPacket
        | CameraSchema::OtherVideo => {
            return Err(no_mapping(schema, Serialization::Protobuf));
        }
    };
    let header_ns = timestamp.and_then(|t| stamp(t.seconds, i64::from(t.nanos)));
    Ok(CameraMessage { header_ns, frame_id: Some(frame_id), payload })
}

/// The decoder takes `bytes` fields out of `data` without a copy, since it reads from [`Bytes`].
fn read<M: Message + Default>(data: &Bytes) -> Result<M, BadMessage> {
    M::decode(data.clone())
        .map_err(|error| bad(format!("a message of {} bytes: {error}", data.len())))
}
