//! Finds the messages in the file by the summary at its end.

use std::collections::BTreeMap;
use std::ops::Range;

use encoder_media::InputReader;
use mcap::records::op;

use super::record::{Channel, ChunkIndex, Fields, RECORD_HEADER, Record, Schema, Statistics};
use crate::{Limits, SourceError};

/// A part of the file that contains messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    /// None of its messages was logged earlier.
    pub start: u64,
    /// None of its messages was logged later.
    pub end: u64,
    /// Offset of its record.
    pub at: u64,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// A chunk.
    Chunk {
        /// Offset of its end, where its message indexes begin.
        end: u64,
        /// Length of its message indexes; 0 if there are none, or they were already read.
        indexes: u64,
    },
    /// Messages outside chunks, up to this offset.
    Run { end: u64 },
    /// An attachment.
    Attachment,
}

impl Block {
    /// The range of its message indexes.
    pub(super) fn indexes(&self) -> Option<Range<u64>> {
        match self.kind {
            Kind::Chunk { end, indexes: len @ 1.. } => Some(end..end.saturating_add(len)),
            _ => None,
        }
    }

    /// The block, marked as having no more message indexes to read.
    pub(super) fn without_indexes(mut self) -> Self {
        if let Kind::Chunk { indexes, .. } = &mut self.kind {
            *indexes = 0;
        }
        self
    }
}

/// Log times of the first and the last message in some blocks. `first`: that of the first message
/// of the recording, if it is known.
pub(super) fn span(blocks: &[Block], first: Option<u64>) -> Option<(i64, i64)> {
    let messages = || blocks.iter().filter(|block| !matches!(block.kind, Kind::Attachment));
    let last = messages().map(|block| block.end).max()?;
    let start = messages().map(|block| block.start).min().into_iter().chain(first).min()?;
    Some((super::signed(start), super::signed(last)))
}

/// Selects the parts of a recording to read.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// Everything, not only camera messages.
    pub all: bool,
    /// Whether the channel has selected camera messages.
    pub is_camera: &'a dyn Fn(&Channel, &Schema) -> bool,
}

/// A summary section: tables of the contents of the file.
#[derive(Default)]
pub(super) struct Summary {
    /// The first schema of each number.
    pub schemas: BTreeMap<u16, Schema>,
    /// The first channel of each number, and a channel that contradicts it.
    pub channels: BTreeMap<u16, Vec<Channel>>,
    pub statistics: Option<Statistics>,
    /// Offsets of metadata records, if they are requested.
    pub metadata: Vec<u64>,
    /// Chunks that may have selected messages.
    blocks: Vec<Block>,
    attachments: Vec<Block>,
    chunks: Vec<ChunkPlace>,
    /// Offset of the summary.
    start: u64,
    /// Bytes of definitions so far.
    definitions: u64,
    first_log: Option<u64>,
    /// Channels so far, and whether they are cameras.
    cameras: BTreeMap<u16, bool>,
}

struct ChunkPlace {
    at: u64,
    end: u64,
    /// Offset of the end of its message indexes.
    indexes_end: u64,
}

/// Length of a footer's body, and of footer and end magic together.
const FOOTER: u64 = 8 + 8 + 4;
const CLOSING: u64 = RECORD_HEADER + FOOTER + super::MAGIC.len() as u64;

impl Summary {
    /// Reads the summary section. `Ok(None)` if the file is complete and has no summary; the inner
    /// `Err` is the reason why the summary cannot be used.
    pub(super) fn read(
        input: &mut InputReader,
        limits: &Limits,
        wanted: Wanted<'_>,
    ) -> Result<Result<Option<Self>, String>, SourceError> {
        let Some(closing_at) = input.len().checked_sub(CLOSING) else {
            return Ok(Err("the file ends without one".into()));
        };
        let closing = input.bytes(closing_at, CLOSING)?;
        if !closing.ends_with(super::MAGIC) || closing.first() != Some(&op::FOOTER) {
            return Ok(Err("the file ends without one".into()));
        }
        let footer = closing.get(RECORD_HEADER as usize..).unwrap_or_default();
        let start = match Fields(footer).u64() {
            None | Some(0) => return Ok(Ok(None)),
            Some(start) => start,
        };
        let mut summary = Self { start, ..Self::default() };
        let mut at = start;
        while at < closing_at {
            let record = Record::at(input, at)?;
            let Some(record) = record.filter(|record| record.end() <= closing_at) else {
                return Ok(Err(format!("its record at byte {at} reaches past its end")));
            };
            // As in a summary that is not that of this file.
            if matches!(record.opcode, op::HEADER | op::MESSAGE | op::CHUNK | op::DATA_END) {
                return Ok(Err(format!("its record at byte {at} is none of a summary")));
            }
            if let Err(reason) = summary.add(input, record, limits, wanted)? {
                return Ok(Err(format!("its record at byte {at}: {reason}")));
            }
            at = record.end();
        }
        Ok(Ok(Some(summary)))
    }

    fn add(
        &mut self,
        input: &mut InputReader,
        record: Record,
        limits: &Limits,
        wanted: Wanted<'_>,
    ) -> Result<Result<(), String>, SourceError> {
        let body = match record.opcode {
            op::SCHEMA | op::CHANNEL => record.read_definition(input, limits, wanted.all)?,
            op::STATISTICS | op::CHUNK_INDEX => record.read(input, limits)?,
            op::ATTACHMENT_INDEX | op::METADATA_INDEX if wanted.all => {
                record.read(input, limits)?
            }
            _ => return Ok(Ok(())),
        };
        let body = match body {
            Ok(body) => body,
            Err(reason) => return Ok(Err(reason)),
        };
        if matches!(record.opcode, op::SCHEMA | op::CHANNEL) {
            self.definitions = self.definitions.saturating_add(body.len() as u64);
            let limit = limits.message_bytes;
            if self.definitions > limit {
                return Ok(Err(format!("schemas and channels take more than {limit} bytes")));
            }
        }
        let added = match record.opcode {
            op::SCHEMA => Schema::parse(&body, wanted.all).map(|schema| {
                self.schemas.entry(schema.id).or_insert(schema);
            }),
            op::CHANNEL => Channel::parse(&body, wanted.all).map(|channel| {
                if let Some(schema) = self.schemas.get(&channel.schema) {
                    let is_camera = (wanted.is_camera)(&channel, schema);
                    self.cameras.entry(channel.id).or_insert(is_camera);
                }
                let known = self.channels.entry(channel.id).or_default();
                if known.len() < 2 && known.last().is_none_or(|known| !known.is_like(&channel)) {
                    known.push(channel);
                }
            }),
            op::STATISTICS => Statistics::parse(&body).map(|stats| self.statistics = Some(stats)),
            op::ATTACHMENT_INDEX => self.attachment(Fields(&body)),
            op::METADATA_INDEX => Fields(&body).u64().map(|at| self.metadata.push(at)),
            _ => ChunkIndex::parse(&body).map(|index| self.chunk(&index, wanted.all)),
        };
        Ok(added.ok_or_else(|| "its fields end too early".into()))
    }

    fn attachment(&mut self, mut fields: Fields<'_>) -> Option<()> {
        let (at, _len, log_time) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let (start, end) = (log_time, log_time);
        self.attachments.push(Block { start, end, at, kind: Kind::Attachment });
        Some(())
    }

    fn chunk(&mut self, index: &ChunkIndex<'_>, all: bool) {
        let end = index.at.saturating_add(index.len);
        let indexes_end = end.saturating_add(index.indexes_len);
        self.chunks.push(ChunkPlace { at: index.at, end, indexes_end });
        if index.end > 0 {
            self.first_log = Some(self.first_log.map_or(index.start, |log| log.min(index.start)));
        }
        // A chunk without camera messages need not be read, so it is not even listed: in a long
        // recording, the list takes memory.
        let mut others = 0;
        let is_wanted = all
            || index.channels().any(|channel| match self.cameras.get(&channel) {
                Some(is_camera) => {
                    others += u64::from(!is_camera);
                    *is_camera
                }
                None => true,
            });
        if is_wanted || others == 0 {
            let kind = Kind::Chunk { end, indexes: index.indexes_len };
            self.blocks.push(Block { start: index.start, end: index.end, at: index.at, kind });
        }
    }

    /// The blocks of a file with an index, which are moved out of the summary. `Ok(None)` if there
    /// is no index, or it may be incomplete; the inner `Err` describes how it contradicts the file.
    pub(super) fn blocks(
        &mut self,
        input: &mut InputReader,
        wanted: Wanted<'_>,
    ) -> Result<Result<Option<Vec<Block>>, String>, SourceError> {
        match &self.statistics {
            // Nothing states whether attachments and metadata are all listed.
            None if wanted.all => return Ok(Ok(None)),
            Some(stats) if wanted.all => {
                for (listed, number, what) in [
                    (self.attachments.len(), stats.attachments, "attachments"),
                    (self.metadata.len(), stats.metadata, "metadata records"),
                ] {
                    if usize::try_from(number) != Ok(listed) {
                        return Ok(Err(format!("it lists {listed} of {number} {what}")));
                    }
                }
            }
            _ => {}
        }
        let mut blocks = std::mem::take(&mut self.blocks);
        blocks.append(&mut self.attachments);
        if self.chunks.is_empty() {
            let is_empty = self.statistics.as_ref().is_some_and(|stats| stats.messages == 0);
            return Ok(Ok(is_empty.then_some(blocks)));
        }
        if let Some(stats) = &self.statistics
            && usize::try_from(stats.chunks) != Ok(self.chunks.len())
        {
            let listed = self.chunks.len();
            return Ok(Err(format!("it lists {listed} of {} chunks", stats.chunks)));
        }
        self.chunks.sort_unstable_by_key(|chunk| chunk.at);
        let nexts = self.chunks.iter().skip(1).map(|chunk| chunk.at);
        // Otherwise a short file could make a chunk be read any number of times.
        let overlap = self.chunks.iter().zip(nexts).find(|(chunk, next)| chunk.indexes_end > *next);
        if let Some((chunk, next)) = overlap {
            return Ok(Err(format!("it has chunks at bytes {} and {next} that overlap", chunk.at)));
        }
        if let Some(chunk) = self.chunks.last()
            && chunk.indexes_end > input.len()
        {
            return Ok(Err(format!("the file ends inside the chunk at byte {}", chunk.at)));
        }
        // One read is enough to recognise the index of another file, or of a file with bytes
        // inserted at the front. Checking each chunk would need a seek per chunk.
        if let Some(ChunkPlace { at, end, .. }) = self.chunks.first() {
            let record = Record::at(input, *at)?;
            let is_chunk = |record: &Record| record.opcode == op::CHUNK && record.end() == *end;
            if !record.as_ref().is_some_and(is_chunk) {
                return Ok(Err(format!("there is no chunk of its length at byte {at}")));
            }
        }
        if let Some(at) = self.find_unlisted(input)? {
            return Ok(Err(format!("it does not list the messages at byte {at}")));
        }
        Ok(Ok(Some(blocks)))
    }

    /// The offset of the first chunk or message between the listed chunks, or before or behind them.
    fn find_unlisted(&self, input: &mut InputReader) -> Result<Option<u64>, SourceError> {
        let mut at = super::MAGIC.len() as u64;
        let chunks = self.chunks.iter().map(|chunk| (chunk.at, chunk.indexes_end));
        for (next, indexes_end) in chunks.chain([(self.start, self.start)]) {
            while at < next
                && let Some(record) = Record::at(input, at)?
            {
                if matches!(record.opcode, op::CHUNK | op::MESSAGE) {
                    return Ok(Some(at));
                }
                at = record.end();
            }
            at = indexes_end;
        }
        Ok(None)
    }

    /// Whether it lists chunks.
    pub(super) fn has_chunks(&self) -> bool {
        !self.chunks.is_empty()
    }

    /// The offsets of all chunks, which are moved out of the summary.
    pub(super) fn chunks(&mut self) -> impl Iterator<Item = u64> {
        std::mem::take(&mut self.chunks).into_iter().map(|chunk| chunk.at)
    }

    /// Log time of the first message.
    pub(super) fn first_log(&self) -> Option<u64> {
        match &self.statistics {
            Some(statistics) => (statistics.messages > 0).then_some(statistics.start),
            None => self.first_log,
        }
    }
}
