//! Messages in the two ROS serialisations: fields in order, no tags.
//!
//! CDR differs from ROS 1 in four things: a header of 4 bytes that tells the byte order, numbers
//! aligned to their size, strings with a final NUL, and no `seq` in `std_msgs/Header`.

use bytes::Bytes;

use super::{CameraMessage, CameraSchema, bad, stamp};
use crate::{BadMessage, Payload, RawImage};

pub(super) fn decode(
    schema: CameraSchema,
    mut fields: Fields,
) -> Result<CameraMessage, BadMessage> {
    let has_header = matches!(
        schema,
        CameraSchema::RosImage | CameraSchema::RosCompressedImage | CameraSchema::FfmpegPacket
    );
    if has_header && !fields.is_cdr {
        fields.u32("header.seq")?;
    }
    let header_ns = fields.time()?;
    let frame_id = Some(fields.string("frame_id")?);

    let payload = match schema {
        CameraSchema::RosImage => {
            let (height, width) = (fields.u32("height")?, fields.u32("width")?);
            Payload::Raw(RawImage {
                width,
                height,
                encoding: fields.string("encoding")?,
                is_bigendian: fields.u8("is_bigendian")? != 0,
                step: fields.u32("step")?,
                data: fields.bytes("data")?,
            })
        }
        CameraSchema::FoxgloveRawImage => Payload::Raw(RawImage {
            width: fields.u32("width")?,
            height: fields.u32("height")?,
            encoding: fields.string("encoding")?,
            step: fields.u32("step")?,
            data: fields.bytes("data")?,
            is_bigendian: false,
        }),
        CameraSchema::RosCompressedImage => {
            Payload::Compressed { format: fields.string("format")?, data: fields.bytes("data")? }
        }
        CameraSchema::FoxgloveCompressedImage => {
            let data = fields.bytes("data")?;
            Payload::Compressed { format: fields.string("format")?, data }
        }
        CameraSchema::FoxgloveCompressedVideo => {
            let data = fields.bytes("data")?;
            Payload::Video { format: fields.string("format")?, data }
        }
        CameraSchema::FfmpegPacket => {
            fields.u32("width")?;
            fields.u32("height")?;
            let encoding = fields.string("encoding")?;
            // Newer recorders add the formats of the pictures: `h264;yuv420p;bgr8;bgr8`.
            let codec = encoding.split(';').next().unwrap_or_default();
            Payload::Video { format: format!("{codec} in FFMPEGPacket"), data: fields.data }
        }
        CameraSchema::OtherVideo => return Err(bad("a type whose fields are not read")),
    };
    Ok(CameraMessage { header_ns, frame_id, payload })
}

/// Reads the fields of a message one after another.
pub(super) struct Fields {
    /// The whole message; positions in errors count from its first byte.
    data: Bytes,
    at: usize,
    is_cdr: bool,
    is_bigendian: bool,
}

/// Length of the CDR encapsulation header; alignment counts from its end.
const CDR_HEADER: usize = 4;

impl Fields {
    pub(super) fn ros1(data: &Bytes) -> Self {
        Self { data: data.clone(), at: 0, is_cdr: false, is_bigendian: false }
    }

    pub(super) fn cdr(data: &Bytes) -> Result<Self, BadMessage> {
        let Some(&[high, low, _, _]) = data.first_chunk::<CDR_HEADER>() else {
            return Err(bad(format!(
                "a message of {} bytes is too short for its CDR header of 4",
                data.len()
            )));
        };
        // Plain CDR, and plain XCDR2 under its two numbers: they differ only for 8-byte numbers,
        // of which these messages have none. The kinds between are lists of tagged fields.
        let kind = u16::from_be_bytes([high, low]);
        let is_bigendian = match kind {
            0x00 | 0x06 | 0x10 => true,
            0x01 | 0x07 | 0x11 => false,
            _ => return Err(bad(format!("CDR kind {kind:#06x} at byte 0 is not plain CDR"))),
        };
        Ok(Self { data: data.clone(), at: CDR_HEADER, is_cdr: true, is_bigendian })
    }

    fn take(&mut self, length: usize, field: &str) -> Result<Bytes, BadMessage> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.data.len());
        let Some(end) = end else {
            return Err(bad(format!(
                "the message ends at byte {} inside `{field}`, which is {length} bytes from byte {}",
                self.data.len(),
                self.at
            )));
        };
        let taken = self.data.slice(self.at..end);
        self.at = end;
        Ok(taken)
    }

    fn u8(&mut self, field: &str) -> Result<u8, BadMessage> {
        Ok(self.take(1, field)?.first().copied().unwrap_or_default())
    }

    fn u32(&mut self, field: &str) -> Result<u32, BadMessage> {
        if self.is_cdr {
            let padding = (self.at - CDR_HEADER).next_multiple_of(4) - (self.at - CDR_HEADER);
            self.take(padding, field)?;
        }
        let four = self.take(4, field)?.first_chunk().copied().unwrap_or_default();
        Ok(if self.is_bigendian { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) })
    }

    fn bytes(&mut self, field: &str) -> Result<Bytes, BadMessage> {
        let length = self.u32(field)?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX), field)
    }

    fn string(&mut self, field: &str) -> Result<String, BadMessage> {
        let bytes = self.bytes(field)?;
        let text = match bytes.split_last() {
            Some((0, text)) if self.is_cdr => text,
            _ => &bytes,
        };
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    fn time(&mut self) -> Result<Option<i64>, BadMessage> {
        let seconds = self.u32("stamp.sec")?;
        let nanoseconds = self.u32("stamp.nanosec")?;
        // Signed in ROS 2, unsigned in ROS 1.
        let seconds = if self.is_cdr { i64::from(seconds as i32) } else { i64::from(seconds) };
        Ok(stamp(seconds, i64::from(nanoseconds)))
    }
}
