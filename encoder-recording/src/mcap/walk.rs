//! Finds the messages of a file whose summary is missing or wrong, by a walk over the headers of
//! all records.
//!
//! A file may have several parts: MCAP files that were written one behind the other. Each part has
//! its own definitions, and perhaps a summary, whose offsets count from the start of the part.

use std::collections::BTreeMap;
use std::ops::Range;

use encoder_media::InputReader;
use mcap::records::op;

use super::MAGIC;
use super::chunk::ChunkHeader;
use super::plan::{Block, Kind};
use super::record::{Id, MessageHeader, Record, Statistics};
use crate::{Limits, SourceError};

/// Bytes and messages of a run, at most.
const RUN_BYTES: u64 = 1 << 20;
const RUN_MESSAGES: u64 = 1 << 12;

/// The most parts of a file.
const MAX_PARTS: usize = 1000;

/// How many damaged records are listed individually.
const LISTED: u64 = 100;

/// The findings of a walk over the file, other than schemas and channels.
#[derive(Default)]
pub(super) struct Walk {
    pub blocks: Vec<Block>,
    /// Offsets at which the parts start.
    pub parts: Vec<u64>,
    /// Offsets of metadata records, if they are requested.
    pub metadata: Vec<u64>,
    /// Log time of the first message.
    pub first_log: Option<u64>,
    /// How each part that is truncated ends.
    pub cuts: Vec<String>,
    /// The first bytes that belong to no part.
    pub rest: Option<Range<u64>>,
    /// The first damaged records: kind and reason.
    pub skipped: Vec<String>,
    /// Number of damaged records that are not listed.
    pub more_skipped: u64,
    /// Number of messages in the last block, if it is a run that may grow.
    run: u64,
    /// Number of messages by channel, from the statistics of the parts.
    counts: BTreeMap<Id, u64>,
    /// Number of parts with statistics.
    counted: usize,
}

/// An item that a walk visits.
pub(super) enum Found<'a> {
    /// A schema or a channel: opcode and body.
    Definition(u8, &'a [u8]),
    /// A message of this channel.
    Message(u16),
}

/// The section of a part.
#[derive(Clone, Copy, PartialEq)]
enum Section {
    Data,
    Summary,
    /// Behind the last record.
    End,
}

/// Walks over the headers of all records. Calls `visit` with the number of the part and with each
/// schema and channel outside chunks, and each message outside chunks; `visit` returns whether a
/// message may be selected.
pub(super) fn walk(
    input: &mut InputReader,
    limits: &Limits,
    all: bool,
    mut visit: impl FnMut(usize, Found<'_>) -> bool,
) -> Result<Walk, SourceError> {
    let mut walk = Walk { parts: vec![0], ..Walk::default() };
    let mut at = MAGIC.len() as u64;
    let mut section = Section::Data;
    // Where to search for another part if the records of this part do not continue: the last records
    // may have been no records, but bytes of the next part.
    let (mut sound, mut last) = (at, at);
    // Whether the part has a header.
    let mut has_header = false;
    loop {
        if at >= input.len() {
            if section == Section::Data {
                walk.cuts.push(unclosed(at));
            }
            return Ok(walk);
        }
        let record = Record::at(input, at)?;
        // The magic of another part may be the end of a record that was cut.
        let is_second = has_header
            && record.is_some_and(|record| record.opcode == op::HEADER)
            && is_magic(input, at - MAGIC.len() as u64)?;
        if walk.parts.len() < MAX_PARTS && (is_second || is_part(input, at, record)?) {
            let start = if is_second { at - MAGIC.len() as u64 } else { at };
            if section == Section::Data {
                walk.cuts.push(unclosed(start));
            }
            walk.parts.push(start);
            walk.run = 0;
            at = start + MAGIC.len() as u64;
            (section, has_header) = (Section::Data, false);
            (sound, last) = (at, at);
            continue;
        }
        let record = record.filter(|_| section != Section::End);
        let is_whole = |record: &Record| record.opcode != 0 && record.end() <= input.len();
        let whole = record.filter(is_whole);
        match (section, record, whole) {
            (Section::Data, Some(record), _) => {
                section = walk.data(input, limits, all, at, &record, &mut visit)?;
            }
            (Section::Summary, _, Some(record)) => {
                walk.summary(input, limits, all, &record, &mut visit)?;
            }
            _ => {}
        }
        let Some(record) = whole else {
            if section == Section::Data {
                walk.cuts.push(cut(at, record));
            }
            let next = next_part(input, sound, limits)?.filter(|_| walk.parts.len() < MAX_PARTS);
            let end = next.unwrap_or(input.len());
            // A summary that is cut is no loss of messages.
            if section == Section::End && end > at {
                walk.rest.get_or_insert(at..end);
            }
            let Some(next) = next else { return Ok(walk) };
            walk.blocks.retain(|block| block.at < next);
            walk.metadata.retain(|at| *at < next);
            (at, section) = (next, Section::End);
            continue;
        };
        has_header |= record.opcode == op::HEADER;
        if is_known(record.opcode) {
            (sound, last) = (last, at);
        }
        at = record.end();
        if record.opcode == op::FOOTER {
            section = Section::End;
            let left = input.len().saturating_sub(at);
            if left < MAGIC.len() as u64 {
                // The file ends inside the closing magic.
                at += left;
            } else if is_magic(input, at)? {
                at += MAGIC.len() as u64;
                (sound, last) = (at, at);
            }
        }
    }
}

/// Whether the format defines records with this opcode.
fn is_known(opcode: u8) -> bool {
    (op::HEADER..=op::DATA_END).contains(&opcode)
}

/// How a part ends that has no closing records.
fn unclosed(at: u64) -> String {
    format!("stops at byte {at}, without its closing records")
}

/// How a part ends whose next record, at `at`, is not complete.
fn cut(at: u64, record: Option<Record>) -> String {
    let Some(record) = record else {
        return format!("ends in the middle of a record header at byte {at}");
    };
    let what = match record.opcode {
        0 => return format!("has no record at byte {at}, only zeros"),
        op::CHUNK => "a chunk",
        op::MESSAGE => "a message",
        op::ATTACHMENT => "an attachment",
        _ => "a record",
    };
    format!("ends in the middle of {what} at byte {at}")
}

/// Whether the magic of MCAP stands at `at`.
fn is_magic(input: &mut InputReader, at: u64) -> Result<bool, SourceError> {
    let mut bytes = [0; MAGIC.len()];
    if at.checked_add(MAGIC.len() as u64).is_none_or(|end| end > input.len()) {
        return Ok(false);
    }
    input.read(at, &mut bytes)?;
    Ok(bytes == MAGIC)
}

/// Whether a part starts at `at`: the magic, and a header record. `record`: the magic, read as a
/// record.
fn is_part(input: &mut InputReader, at: u64, record: Option<Record>) -> Result<bool, SourceError> {
    if record.is_none_or(|record| Some(&record.opcode) != MAGIC.first()) || !is_magic(input, at)? {
        return Ok(false);
    }
    let header = Record::at(input, at + MAGIC.len() as u64)?;
    Ok(header.is_some_and(|header| header.opcode == op::HEADER))
}

/// Finds the next part that starts at or behind `from`, within the length of the largest record.
fn next_part(
    input: &mut InputReader,
    from: u64,
    limits: &Limits,
) -> Result<Option<u64>, SourceError> {
    const STEP: u64 = 1 << 16;
    let end = input.len().min(from.saturating_add(limits.message_bytes));
    let mut at = from;
    while at < end {
        let len = (STEP + MAGIC.len() as u64 - 1).min(input.len() - at);
        let bytes = input.bytes(at, len)?;
        for (place, window) in (at..).zip(bytes.windows(MAGIC.len())) {
            if window == MAGIC {
                let record = Record::at(input, place)?;
                if is_part(input, place, record)? {
                    return Ok(Some(place));
                }
            }
        }
        at += STEP;
    }
    Ok(None)
}

impl Walk {
    /// Number of messages by channel; `None` if a part does not state it.
    pub(super) fn promised(&mut self) -> Option<BTreeMap<Id, u64>> {
        (self.counted == self.parts.len()).then(|| std::mem::take(&mut self.counts))
    }

    /// Takes a record of the data section. Returns the section behind it.
    fn data(
        &mut self,
        input: &mut InputReader,
        limits: &Limits,
        all: bool,
        at: u64,
        record: &Record,
        visit: &mut impl FnMut(usize, Found<'_>) -> bool,
    ) -> Result<Section, SourceError> {
        let is_cut = record.end() > input.len();
        let part = self.parts.len() - 1;
        match record.opcode {
            op::DATA_END | op::FOOTER if !is_cut => return Ok(Section::Summary),
            op::SCHEMA | op::CHANNEL if !is_cut => {
                match record.read_definition(input, limits, all)? {
                    Ok(body) => {
                        visit(part, Found::Definition(record.opcode, &body));
                    }
                    Err(reason) => self.skip(format!("the record at byte {at}: {reason}")),
                }
            }
            op::CHUNK => match ChunkHeader::read(input, *record, input.len())? {
                Some(chunk) => self.chunk(at, record, &chunk),
                None if is_cut => {}
                None => self.skip(format!("the chunk at byte {at}: its header is damaged")),
            },
            op::MESSAGE_INDEX if !is_cut => self.message_index(at, record),
            op::MESSAGE if !is_cut => match record.start::<{ MessageHeader::LEN }>(input)? {
                Some(start) => {
                    if let Some(header) = MessageHeader::parse(&start) {
                        self.saw(header.log_time);
                        if visit(part, Found::Message(header.channel)) {
                            self.message(at, record.end(), header.log_time);
                        }
                    }
                }
                None => self.skip(format!("the message at byte {at}: it has no header")),
            },
            op::ATTACHMENT if all && !is_cut => match record.start::<8>(input)? {
                Some(log_time) => {
                    let start = u64::from_le_bytes(log_time);
                    self.block(Block { start, end: start, at, kind: Kind::Attachment });
                }
                None => self.skip(format!("the attachment at byte {at}: it has no header")),
            },
            op::METADATA if all && !is_cut => self.metadata.push(at),
            _ => {}
        }
        Ok(Section::Data)
    }

    /// Takes a record of a summary section: definitions, and numbers of messages.
    fn summary(
        &mut self,
        input: &mut InputReader,
        limits: &Limits,
        all: bool,
        record: &Record,
        visit: &mut impl FnMut(usize, Found<'_>) -> bool,
    ) -> Result<(), SourceError> {
        let part = self.parts.len() - 1;
        match record.opcode {
            op::SCHEMA | op::CHANNEL => {
                if let Ok(body) = record.read_definition(input, limits, all)? {
                    visit(part, Found::Definition(record.opcode, &body));
                }
            }
            op::STATISTICS => {
                let body = record.read(input, limits)?.ok();
                let statistics = body.and_then(|body| Statistics::parse(&body));
                if let Some(statistics) = statistics.filter(Statistics::has_counts)
                    && self.counted == part
                {
                    self.counted += 1;
                    let counts = statistics.by_channel.into_iter();
                    self.counts.extend(counts.map(|(number, count)| (Id { part, number }, count)));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn saw(&mut self, log_time: u64) {
        self.first_log = Some(self.first_log.map_or(log_time, |first| first.min(log_time)));
    }

    fn skip(&mut self, what: String) {
        match self.skipped.len() as u64 {
            LISTED.. => self.more_skipped += 1,
            _ => self.skipped.push(what),
        }
    }

    fn block(&mut self, block: Block) {
        self.run = 0;
        self.blocks.push(block);
    }

    fn chunk(&mut self, at: u64, record: &Record, chunk: &ChunkHeader) {
        if chunk.end > 0 {
            self.saw(chunk.start);
        }
        self.block(Block {
            start: chunk.start,
            // The end time in the header of a truncated chunk may not be final.
            end: if chunk.cut { u64::MAX } else { chunk.end },
            at,
            kind: Kind::Chunk { end: record.end(), indexes: 0 },
        });
    }

    /// Message indexes belong to the chunk that is right before them.
    fn message_index(&mut self, at: u64, record: &Record) {
        if let Some(Block { kind: Kind::Chunk { end, indexes }, .. }) = self.blocks.last_mut()
            && end.checked_add(*indexes) == Some(at)
        {
            *indexes = record.end() - *end;
        }
    }

    /// Adds a message outside chunks to the last run, or begins a new run: a block per message
    /// would need memory in proportion to the length of the file.
    fn message(&mut self, at: u64, record_end: u64, log_time: u64) {
        if let (run @ 1..RUN_MESSAGES, Some(block)) = (&mut self.run, self.blocks.last_mut())
            && record_end - block.at <= RUN_BYTES
        {
            *run += 1;
            block.start = block.start.min(log_time);
            block.end = block.end.max(log_time);
            block.kind = Kind::Run { end: record_end };
            return;
        }
        let (start, end) = (log_time, log_time);
        self.block(Block { start, end, at, kind: Kind::Run { end: record_end } });
        self.run = 1;
    }
}
