//! Records and the fields of their bodies. Every length is checked against the record before bytes
//! are read.

use std::collections::BTreeMap;

use bytes::Bytes;
use encoder_media::InputReader;

use crate::{Attachment, Limits, Metadata, SourceError};

/// Opcode (1 byte) and length (8 bytes) before each record.
pub(super) const RECORD_HEADER: u64 = 9;

/// How many bytes of a schema or a channel are read if its definition is not needed: enough for its
/// names.
const DEFINITION_START: u64 = 64 << 10;

/// The number of a schema or a channel. A file may have several parts, one behind the other, each of
/// which is a whole MCAP file with definitions of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    /// Number of the part, from 0.
    pub part: usize,
    /// Its number in that part.
    pub number: u16,
}

/// The position of a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub opcode: u8,
    /// Offset of its body.
    pub body: u64,
    /// Length of the body, as claimed by the file.
    pub len: u64,
}

impl Record {
    /// The record at offset `at`, whose body may reach past the end of the file. Returns `None` if
    /// the file ends inside its header.
    pub(super) fn at(input: &mut InputReader, at: u64) -> Result<Option<Self>, SourceError> {
        let Some(body) = at.checked_add(RECORD_HEADER).filter(|body| *body <= input.len()) else {
            return Ok(None);
        };
        let mut header = [0; RECORD_HEADER as usize];
        input.read(at, &mut header)?;
        let [opcode, len @ ..] = header;
        Ok(Some(Self { opcode, body, len: u64::from_le_bytes(len) }))
    }

    /// Offset of the next record.
    pub(super) fn end(&self) -> u64 {
        self.body.saturating_add(self.len)
    }

    /// Reads the body. The inner `Err` is the reason why it cannot be read: it reaches past the end
    /// of the file, or exceeds the limit.
    pub(super) fn read(
        &self,
        input: &mut InputReader,
        limits: &Limits,
    ) -> Result<Result<Vec<u8>, String>, SourceError> {
        if self.end() > input.len() {
            return Ok(Err(format!("it claims {} bytes, and the file ends before", self.len)));
        }
        if self.len > limits.message_bytes {
            return Ok(Err(format!(
                "it claims {} bytes, and the limit is {}; raise `Limits::message_bytes`",
                self.len, limits.message_bytes
            )));
        }
        input.bytes(self.body, self.len).map(Ok)
    }

    /// Reads the body of a schema or a channel: all of it, or only its start.
    pub(super) fn read_definition(
        &self,
        input: &mut InputReader,
        limits: &Limits,
        whole: bool,
    ) -> Result<Result<Vec<u8>, String>, SourceError> {
        let part =
            if whole { *self } else { Self { len: self.len.min(DEFINITION_START), ..*self } };
        if self.end() > input.len() {
            return self.read(input, limits);
        }
        part.read(input, limits)
    }

    /// The first `N` bytes of the body; `None` when it is shorter.
    pub(super) fn start<const N: usize>(
        &self,
        input: &mut InputReader,
    ) -> Result<Option<[u8; N]>, SourceError> {
        if self.len < N as u64 || self.body.saturating_add(N as u64) > input.len() {
            return Ok(None);
        }
        let mut start = [0; N];
        input.read(self.body, &mut start)?;
        Ok(Some(start))
    }
}

/// Reads fields from the front of a body; returns `None` if the body ends too early.
pub(super) struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn string(&mut self) -> Option<String> {
        self.prefixed().map(|text| String::from_utf8_lossy(text).into_owned())
    }

    /// Bytes that follow their length.
    pub(super) fn prefixed(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()?;
        self.bytes(len.into())
    }

    fn bytes(&mut self, len: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(len).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    fn strings(&mut self) -> Option<BTreeMap<String, String>> {
        let mut entries = Fields(self.prefixed()?);
        let mut map = BTreeMap::new();
        while !entries.0.is_empty() {
            map.insert(entries.string()?, entries.string()?);
        }
        Some(map)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }
}

/// A schema.
#[derive(Clone, Debug, Default)]
pub(super) struct Schema {
    pub id: u16,
    pub name: String,
    pub encoding: String,
    /// The definition; empty when it is not needed.
    pub data: Bytes,
}

impl Schema {
    pub(super) fn parse(body: &[u8], whole: bool) -> Option<Self> {
        let mut fields = Fields(body);
        Some(Self {
            id: fields.u16()?,
            name: fields.string()?,
            encoding: fields.string()?,
            data: match whole {
                true => Bytes::copy_from_slice(fields.prefixed()?),
                false => Bytes::new(),
            },
        })
    }
}

/// A channel.
#[derive(Clone, Debug)]
pub(super) struct Channel {
    pub id: u16,
    pub schema: u16,
    pub topic: String,
    pub encoding: String,
    /// Empty when it is not needed.
    pub metadata: BTreeMap<String, String>,
}

impl Channel {
    pub(super) fn parse(body: &[u8], whole: bool) -> Option<Self> {
        let mut fields = Fields(body);
        Some(Self {
            id: fields.u16()?,
            schema: fields.u16()?,
            topic: fields.string()?,
            encoding: fields.string()?,
            metadata: if whole { fields.strings()? } else { BTreeMap::new() },
        })
    }

    /// Whether both describe the same kind of messages.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        (&self.topic, self.schema) == (&other.topic, other.schema)
    }
}

/// The fields of a message record before its data.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct MessageHeader {
    pub channel: u16,
    pub sequence: u32,
    pub log_time: u64,
    pub publish_time: u64,
}

impl MessageHeader {
    /// Length of the fields before the data.
    pub(super) const LEN: usize = 2 + 4 + 8 + 8;

    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        Some(Self {
            channel: fields.u16()?,
            sequence: fields.u32()?,
            log_time: fields.u64()?,
            publish_time: fields.u64()?,
        })
    }
}

/// The position of a chunk, and the channels of its messages.
#[derive(Clone, Debug)]
pub(super) struct ChunkIndex<'a> {
    pub start: u64,
    pub end: u64,
    pub at: u64,
    /// Length of its record with opcode and length.
    pub len: u64,
    /// Length of the message indexes behind it.
    pub indexes_len: u64,
    offsets: &'a [u8],
}

impl<'a> ChunkIndex<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let (start, end) = (fields.u64()?, fields.u64()?);
        let (at, len) = (fields.u64()?, fields.u64()?);
        let offsets = fields.prefixed()?;
        let indexes_len = fields.u64()?;
        Some(Self { start, end, at, len, indexes_len, offsets })
    }

    /// The channels that have a message index; empty where the recorder wrote none.
    pub(super) fn channels(&self) -> impl Iterator<Item = u16> {
        // A channel, and the offset of its index.
        let (entries, _) = self.offsets.as_chunks::<10>();
        entries.iter().map(|[low, high, ..]| u16::from_le_bytes([*low, *high]))
    }
}

/// Totals over the recording.
#[derive(Clone, Debug)]
pub(super) struct Statistics {
    pub messages: u64,
    pub attachments: u32,
    pub metadata: u32,
    pub chunks: u32,
    pub start: u64,
    /// Number of messages by channel; channels without messages may be missing.
    pub by_channel: BTreeMap<u16, u64>,
}

impl Statistics {
    /// Whether it has the number of messages of each channel.
    pub(super) fn has_counts(&self) -> bool {
        self.messages == 0 || !self.by_channel.is_empty()
    }

    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let messages = fields.u64()?;
        let (_schemas, _channels) = (fields.u16()?, fields.u32()?);
        let (attachments, metadata) = (fields.u32()?, fields.u32()?);
        let (chunks, start, _end) = (fields.u32()?, fields.u64()?, fields.u64()?);
        let mut entries = Fields(fields.prefixed()?);
        let mut by_channel = BTreeMap::new();
        while !entries.0.is_empty() {
            by_channel.insert(entries.u16()?, entries.u64()?);
        }
        Some(Self { messages, attachments, metadata, chunks, start, by_channel })
    }
}

/// Reads an attachment, whose data shares the memory of `body`. The error describes the damage.
pub(super) fn attachment(body: Vec<u8>) -> Result<Attachment, String> {
    let body = Bytes::from(body);
    let short = || "its fields end too early".to_string();
    let parse = || {
        let mut fields = Fields(&body);
        let (log_ns, create_ns) = (fields.u64()?, fields.u64()?);
        let (name, media_type) = (fields.string()?, fields.string()?);
        let len = fields.u64()?;
        let data = body.slice_ref(fields.bytes(len)?);
        let covered = body.len() - fields.0.len();
        Some((Attachment { log_ns, create_ns, name, media_type, data }, covered, fields.u32()?))
    };
    let (attachment, covered, crc) = parse().ok_or_else(short)?;
    // Zero stands for "no checksum".
    if crc != 0 && crc32fast::hash(body.get(..covered).unwrap_or_default()) != crc {
        return Err("its checksum is wrong".into());
    }
    Ok(attachment)
}

/// Reads a metadata record; `None` when its fields end too early.
pub(super) fn metadata(body: &[u8]) -> Option<Metadata> {
    let mut fields = Fields(body);
    Some(Metadata { name: fields.string()?, values: fields.strings()? })
}
