//! The bodies of the records that are needed, without what is not used of them. Every length is
//! checked against the record before anything is taken.

use std::collections::BTreeMap;

/// Takes fields off the front of a body; `None` when it ends too early.
pub(super) struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn u16(&mut self) -> Option<u16> {
        self.chunk().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.chunk().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.chunk().map(u64::from_le_bytes)
    }

    fn string(&mut self) -> Option<String> {
        self.prefixed().map(|text| String::from_utf8_lossy(text).into_owned())
    }

    /// A map from channel to a number.
    fn map(&mut self) -> Option<BTreeMap<u16, u64>> {
        let mut entries = Fields(self.prefixed()?);
        let mut map = BTreeMap::new();
        while !entries.0.is_empty() {
            map.insert(entries.u16()?, entries.u64()?);
        }
        Some(map)
    }

    fn prefixed(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.u32()?).ok()?;
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }
}

/// A schema; its definition is not needed.
#[derive(Clone, Debug, Default)]
pub(super) struct Schema {
    pub id: u16,
    pub name: String,
    pub encoding: String,
}

impl Schema {
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        Some(Self { id: fields.u16()?, name: fields.string()?, encoding: fields.string()? })
    }
}

/// A channel; its metadata is not needed.
#[derive(Clone, Debug)]
pub(super) struct Channel {
    pub id: u16,
    pub schema: u16,
    pub topic: String,
    pub encoding: String,
}

impl Channel {
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        Some(Self {
            id: fields.u16()?,
            schema: fields.u16()?,
            topic: fields.string()?,
            encoding: fields.string()?,
        })
    }
}

/// What a message record has before its data.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message {
    pub channel: u16,
    pub log_time: u64,
}

impl Message {
    /// Length of the fields before the data: channel, sequence, log time, publish time.
    pub(super) const HEADER: usize = 2 + 4 + 8 + 8;

    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body.get(..Self::HEADER)?);
        let channel = fields.u16()?;
        let _sequence = fields.u32()?;
        Some(Self { channel, log_time: fields.u64()? })
    }
}

/// Where a chunk is, and what is in it.
#[derive(Clone, Debug)]
pub(super) struct ChunkIndex {
    pub start: u64,
    pub end: u64,
    pub at: u64,
    /// Length of its record with opcode and length.
    pub len: u64,
    /// Offsets of its message indexes by channel.
    pub indexes: BTreeMap<u16, u64>,
}

impl ChunkIndex {
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        Some(Self {
            start: fields.u64()?,
            end: fields.u64()?,
            at: fields.u64()?,
            len: fields.u64()?,
            indexes: fields.map()?,
        })
    }
}

/// Totals over the recording.
#[derive(Clone, Debug)]
pub(super) struct Statistics {
    pub messages: u64,
    pub chunks: u32,
    pub start: u64,
    /// Messages by channel; may leave out channels without any.
    pub by_channel: BTreeMap<u16, u64>,
}

impl Statistics {
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let messages = fields.u64()?;
        let _schemas = fields.u16()?;
        let (_channels, _attachments, _metadata) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let chunks = fields.u32()?;
        let start = fields.u64()?;
        let _end = fields.u64()?;
        Some(Self { messages, chunks, start, by_channel: fields.map()? })
    }
}
