//! What is where in the file: from the summary at its end, or, where that is missing or wrong,
//! from a walk over the headers of all records.

use std::collections::BTreeMap;

use mcap::records::op;

use super::chunk::ChunkHeader;
use super::file::{File, RECORD_HEADER, Record};
use super::record::{Channel, ChunkIndex, Fields, Message, Schema, Statistics};
use crate::{Limits, SourceError};

/// A part of the file that has messages.
#[derive(Debug)]
pub(super) struct Block {
    /// Log time of its first message.
    pub start: u64,
    /// Log time of its last message.
    pub end: u64,
    /// Where its record begins.
    pub at: u64,
    /// Offsets of its message indexes by channel; empty where there are none.
    pub indexes: BTreeMap<u16, u64>,
}

/// A summary section: tables of what the file has.
#[derive(Default)]
pub(super) struct Summary {
    pub schemas: Vec<Schema>,
    pub channels: Vec<Channel>,
    pub statistics: Option<Statistics>,
    chunks: Vec<ChunkIndex>,
}

/// Length of a footer's body, and of footer and end magic together.
const FOOTER: u64 = 8 + 8 + 4;
const CLOSING: u64 = RECORD_HEADER + FOOTER + super::MAGIC.len() as u64;

impl Summary {
    /// Reads the summary section. `Ok(None)` when the file is complete and has none; the inner
    /// `Err` says why the one it has cannot be used.
    pub(super) fn read(
        file: &mut File,
        limits: &Limits,
    ) -> Result<Result<Option<Self>, String>, SourceError> {
        let Some(closing_at) = file.len().checked_sub(CLOSING) else {
            return Ok(Err("the file ends without one".into()));
        };
        let closing = file.bytes(closing_at, CLOSING)?;
        if !closing.ends_with(super::MAGIC) || closing.first() != Some(&op::FOOTER) {
            return Ok(Err("the file ends without one".into()));
        }
        let footer = closing.get(RECORD_HEADER as usize..).unwrap_or_default();
        let start = match Fields(footer).u64() {
            None | Some(0) => return Ok(Ok(None)),
            Some(start) => start,
        };
        let mut summary = Self::default();
        let mut at = start;
        while at < closing_at {
            let record = file.record(at)?;
            let Some(record) = record.filter(|record| record.end() <= closing_at) else {
                return Ok(Err(format!("its record at byte {at} reaches past its end")));
            };
            if let Err(reason) = summary.add(file, record, limits)? {
                return Ok(Err(format!("its record at byte {at}: {reason}")));
            }
            at = record.end();
        }
        Ok(Ok(Some(summary)))
    }

    fn add(
        &mut self,
        file: &mut File,
        record: Record,
        limits: &Limits,
    ) -> Result<Result<(), String>, SourceError> {
        if !matches!(record.opcode, op::SCHEMA | op::CHANNEL | op::STATISTICS | op::CHUNK_INDEX) {
            return Ok(Ok(()));
        }
        let body = match read_body(file, record, limits)? {
            Ok(body) => body,
            Err(reason) => return Ok(Err(reason)),
        };
        let added = match record.opcode {
            op::SCHEMA => Schema::parse(&body).map(|schema| self.schemas.push(schema)),
            op::CHANNEL => Channel::parse(&body).map(|channel| self.channels.push(channel)),
            op::STATISTICS => Statistics::parse(&body).map(|stats| self.statistics = Some(stats)),
            _ => ChunkIndex::parse(&body).map(|index| self.chunks.push(index)),
        };
        Ok(added.ok_or_else(|| "its fields end too early".into()))
    }

    /// The blocks of a file with an index of its chunks. `Ok(None)` when there is no index; the
    /// inner `Err` says how it contradicts the file. Takes them out of the summary.
    pub(super) fn blocks(
        &mut self,
        file: &mut File,
    ) -> Result<Result<Option<Vec<Block>>, String>, SourceError> {
        if self.chunks.is_empty() {
            let is_empty = self.statistics.as_ref().is_some_and(|stats| stats.messages == 0);
            return Ok(Ok(is_empty.then(Vec::new)));
        }
        if let Some(stats) = &self.statistics
            && usize::try_from(stats.chunks) != Ok(self.chunks.len())
        {
            let listed = self.chunks.len();
            return Ok(Err(format!("it lists {listed} of {} chunks", stats.chunks)));
        }
        for (i, chunk) in self.chunks.iter().enumerate() {
            let end = chunk.at.checked_add(chunk.len);
            let mut fits = end.is_some_and(|end| end <= file.len());
            // One look into the file is enough to tell an index of another file, or of a file
            // that something was put in front of; a look at each would be a seek for each.
            if fits && i == 0 {
                fits = file
                    .record(chunk.at)?
                    .is_some_and(|record| record.opcode == op::CHUNK && Some(record.end()) == end);
            }
            if !fits {
                return Ok(Err(format!(
                    "there is no chunk of {} bytes at byte {}",
                    chunk.len, chunk.at
                )));
            }
        }
        let block = |chunk: ChunkIndex| Block {
            start: chunk.start,
            end: chunk.end,
            at: chunk.at,
            indexes: chunk.indexes,
        };
        Ok(Ok(Some(std::mem::take(&mut self.chunks).into_iter().map(block).collect())))
    }

    /// Log time of the first message.
    pub(super) fn first_log(&self) -> Option<u64> {
        if let Some(statistics) = &self.statistics {
            return (statistics.messages > 0).then_some(statistics.start);
        }
        self.chunks.iter().filter(|chunk| chunk.end > 0).map(|chunk| chunk.start).min()
    }
}

/// Number of messages in the message index at `at`; `None` when it is not the one of `channel`.
pub(super) fn count(file: &mut File, at: u64, channel: u16) -> Result<Option<u64>, SourceError> {
    let Some(record) = file.record(at)? else { return Ok(None) };
    let fits = record.opcode == op::MESSAGE_INDEX && record.end() <= file.len();
    let Some(entries) = record.len.checked_sub(2 + 4).filter(|_| fits) else { return Ok(None) };
    let id = file.bytes(record.body, 2)?;
    Ok((id == channel.to_le_bytes()).then_some(entries / 16))
}

/// What a walk over the file found, other than schemas and channels.
pub(super) struct Walk {
    pub blocks: Vec<Block>,
    /// Log time of the first message.
    pub first_log: Option<u64>,
    /// How the file breaks off; `None` when its data is complete.
    pub cut: Option<String>,
    /// Records that were left out: what, and why.
    pub skipped: Vec<String>,
}

/// Walks over the headers of all records of the data section. Schemas and channels outside
/// chunks go to `visit`, which says for a message whether its channel is wanted.
pub(super) fn walk(
    file: &mut File,
    limits: &Limits,
    mut visit: impl FnMut(Found<'_>) -> bool,
) -> Result<Walk, SourceError> {
    let mut walk = Walk { blocks: Vec::new(), first_log: None, cut: None, skipped: Vec::new() };
    let mut at = super::MAGIC.len() as u64;
    loop {
        if at == file.len() {
            walk.cut = Some(format!("stops at byte {at}, without its closing records"));
            return Ok(walk);
        }
        let Some(record) = file.record(at)? else {
            walk.cut = Some(format!("ends in the middle of a record header at byte {at}"));
            return Ok(walk);
        };
        let is_cut = record.end() > file.len();
        match record.opcode {
            0 => {
                walk.cut = Some(format!("has no record at byte {at}, only zeros"));
                return Ok(walk);
            }
            op::DATA_END | op::FOOTER if !is_cut => return Ok(walk),
            op::SCHEMA | op::CHANNEL if !is_cut => match read_body(file, record, limits)? {
                Ok(body) => {
                    visit(Found::Definition(record.opcode, &body));
                }
                Err(reason) => walk.skipped.push(format!("the record at byte {at}: {reason}")),
            },
            op::CHUNK => match ChunkHeader::read(file, record)? {
                Some(chunk) => {
                    if chunk.end > 0 {
                        walk.saw(chunk.start);
                    }
                    walk.blocks.push(Block {
                        start: chunk.start,
                        // What a cut chunk says about its end need not be true yet.
                        end: if chunk.cut { u64::MAX } else { chunk.end },
                        at,
                        indexes: BTreeMap::new(),
                    });
                }
                None if is_cut => {}
                None => walk.skipped.push(format!("the chunk at byte {at}: its header is damaged")),
            },
            op::MESSAGE if !is_cut => match message_header(file, record)? {
                Some(header) => {
                    walk.saw(header.log_time);
                    if visit(Found::Message(header.channel)) {
                        let (start, end) = (header.log_time, header.log_time);
                        walk.blocks.push(Block { start, end, at, indexes: BTreeMap::new() });
                    }
                }
                None => walk.skipped.push(format!("the message at byte {at}: it has no header")),
            },
            _ => {}
        }
        if is_cut {
            let what = match record.opcode {
                op::CHUNK => "a chunk",
                op::MESSAGE => "a message",
                _ => "a record",
            };
            walk.cut = Some(format!("ends in the middle of {what} at byte {at}"));
            return Ok(walk);
        }
        at = record.end();
    }
}

/// What a walk meets.
pub(super) enum Found<'a> {
    /// A schema or a channel: opcode and body.
    Definition(u8, &'a [u8]),
    /// A message of this channel.
    Message(u16),
}

impl Walk {
    fn saw(&mut self, log_time: u64) {
        self.first_log = Some(self.first_log.map_or(log_time, |first| first.min(log_time)));
    }
}

/// The header of a message record; `None` when the record is too short for one.
pub(super) fn message_header(
    file: &mut File,
    record: Record,
) -> Result<Option<Message>, SourceError> {
    if record.len < Message::HEADER as u64 {
        return Ok(None);
    }
    Ok(Message::parse(&file.bytes(record.body, Message::HEADER as u64)?))
}

/// Reads the body of a record; the inner `Err` says why that cannot be done: it reaches past the
/// end of the file, or is above the limit.
pub(super) fn read_body(
    file: &mut File,
    record: Record,
    limits: &Limits,
) -> Result<Result<Vec<u8>, String>, SourceError> {
    if record.end() > file.len() {
        return Ok(Err(format!("it claims {} bytes, and the file ends before", record.len)));
    }
    if record.len > limits.message_bytes {
        return Ok(Err(format!(
            "it claims {} bytes, and the limit is {}; raise --max-message-bytes",
            record.len, limits.message_bytes
        )));
    }
    file.bytes(record.body, record.len).map(Ok)
}
