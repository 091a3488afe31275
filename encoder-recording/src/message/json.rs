//! Foxglove's messages as JSON: bytes are base64, a timestamp is `{"sec": …, "nsec": …}`.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use serde::Deserialize;

use super::{CameraMessage, CameraSchema, Serialization, bad, no_mapping, stamp};
use crate::{BadMessage, Payload, RawImage as Raw};

#[derive(Deserialize)]
struct Timestamp {
    sec: i64,
    #[serde(alias = "nanosec")]
    nsec: i64,
}

#[derive(Deserialize)]
struct RawImage<'a> {
    timestamp: Option<Timestamp>,
    frame_id: Option<String>,
    width: u32,
    height: u32,
    #[serde(borrow)]
    encoding: Cow<'a, str>,
    step: u32,
    /// Borrowed from the message, so that the text is not held twice.
    #[serde(borrow)]
    data: Cow<'a, str>,
}

/// A compressed picture or an access unit: the same fields.
#[derive(Deserialize)]
struct Compressed<'a> {
    timestamp: Option<Timestamp>,
    frame_id: Option<String>,
    #[serde(borrow)]
    format: Cow<'a, str>,
    #[serde(borrow)]
    data: Cow<'a, str>,
}

pub(super) fn decode(schema: CameraSchema, data: &Bytes) -> Result<CameraMessage, BadMessage> {
    let (timestamp, frame_id, payload) = match schema {
        CameraSchema::FoxgloveRawImage => {
            let image: RawImage<'_> = read(data)?;
            let raw = Raw {
                encoding: image.encoding.into_owned(),
                width: image.width,
                height: image.height,
                step: image.step,
                is_bigendian: false,
                data: base64(&image.data)?,
            };
            (image.timestamp, image.frame_id, Payload::Raw(raw))
        }
        CameraSchema::FoxgloveCompressedImage | CameraSchema::FoxgloveCompressedVideo => {
            let message: Compressed<'_> = read(data)?;
            let format = message.format.into_owned();
            let data = base64(&message.data)?;
            let payload = if schema == CameraSchema::FoxgloveCompressedVideo {
                Payload::Video { format, data }
            } else {
                Payload::Compressed { format, data }
            };
            (message.timestamp, message.frame_id, payload)
        }
        CameraSchema::RosImage
        | CameraSchema::RosCompressedImage
        | CameraSchema::FfmpegPacket
        | CameraSchema::OtherVideo => {
            return Err(no_mapping(schema, Serialization::Json));
        }
    };
    let header_ns = timestamp.and_then(|t| stamp(t.sec, t.nsec));
    Ok(CameraMessage { header_ns, frame_id, payload })
}

fn read<'a, M: Deserialize<'a>>(data: &'a Bytes) -> Result<M, BadMessage> {
    let mut json = serde_json::Deserializer::from_slice(data);
    M::deserialize(&mut json)
        .map_err(|error| bad(format!("a message of {} bytes of JSON: {error}", data.len())))
}

/// Padding may be missing: some writers leave it out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

fn base64(text: &str) -> Result<Bytes, BadMessage> {
    let data =
        BASE64.decode(text).map_err(|error| bad(format!("`data` is not base64: {error}")))?;
    Ok(data.into())
}
