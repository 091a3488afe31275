//! MCAP recordings.
//!
//! A file is read in blocks: chunks, runs of messages outside chunks, and attachments. The blocks
//! are listed by the index at the end of the file. If the index is missing or wrong, a walk over
//! the headers of all records finds them, so that a truncated recording is read like a complete
//! recording. [`MessageOrder`] returns the messages in log-time order.
//!
//! Only selected messages are read. A chunk whose index lists none is skipped. If a chunk overlaps
//! in time with waiting messages, its message indexes are read first: otherwise a late message of
//! another channel would make many chunks wait.

mod catalog;
mod chunk;
mod clock;
mod index;
mod plan;
mod record;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use ::mcap::records::op;
use bytes::Bytes;
use encoder_media::{InputReader, Location, ReadAt};

use self::catalog::Catalog;
use self::chunk::ChunkHeader;
use self::clock::ClockSteps;
use self::plan::{Block, Found, Kind, Summary, Wanted};
use self::record::{Fields, MessageHeader, Record};
use super::order::{Key, MessageOrder, Next};
use super::{Attachment, Event, Limits, Source, SourceError, SourceOptions};

/// The magic bytes of an MCAP file.
pub const MAGIC: &[u8] = ::mcap::MAGIC;

/// Blocks whose message indexes are read at once.
const BATCH: usize = 64;

/// An MCAP file that is being read.
pub struct McapSource {
    input: InputReader,
    limits: Limits,
    all: bool,
    profile: String,
    catalog: Catalog,
    order: MessageOrder<Block, Waiting>,
    steps: ClockSteps,
    /// Chunks whose definitions were not read.
    unread: BTreeSet<u64>,
    /// Offsets of metadata records that were not yet returned.
    metadata: VecDeque<u64>,
    /// Blocks whose defects were already reported. A block may be read more than once.
    broken: BTreeSet<u64>,
    /// How the file is truncated; reported at the end.
    cut: Option<String>,
    /// Log times of the first and the last message by the index.
    span: Option<(i64, i64)>,
    warned_of_order: bool,
    ended: bool,
}

/// An item that waits for its place in the order.
enum Waiting {
    /// The data is empty outside of the window.
    Message(MessageHeader, Bytes),
    Attachment(Attachment),
}

impl McapSource {
    /// Opens the recording at `path`. Reads its index, or searches for its chunks if there is no
    /// index.
    ///
    /// # Errors
    /// [`SourceError::Io`]; [`SourceError::Invalid`] when it is not an MCAP file or a topic
    /// pattern cannot be parsed.
    pub fn open(path: &Path, options: &SourceOptions) -> Result<Box<dyn Source>, SourceError> {
        Ok(Box::new(Self::new(InputReader::open(path)?, options)?))
    }

    /// Opens a recording that is not a file on disk, such as an object in a store. Errors print
    /// `location`, so it must not contain credentials.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_reader(
        input: Box<dyn ReadAt>,
        location: impl Into<Location>,
        options: &SourceOptions,
    ) -> Result<Box<dyn Source>, SourceError> {
        Ok(Box::new(Self::new(InputReader::new(input, location), options)?))
    }

    fn new(mut input: InputReader, options: &SourceOptions) -> Result<Self, SourceError> {
        check_magic(&mut input)?;
        let all = options.all_messages;
        let mut source = Self {
            catalog: Catalog::new(input.location(), options)?,
            profile: if all { profile(&mut input, &options.limits)? } else { String::new() },
            input,
            limits: options.limits,
            all,
            order: MessageOrder::new(options.limits.held_bytes),
            steps: ClockSteps::default(),
            unread: BTreeSet::new(),
            metadata: VecDeque::new(),
            broken: BTreeSet::new(),
            cut: None,
            span: None,
            warned_of_order: false,
            ended: false,
        };
        let mut blocks = match source.by_summary()? {
            Ok(blocks) => {
                source.span = plan::span(&blocks, source.catalog.first_log);
                source.within_window(blocks)?
            }
            Err(unusable) => {
                let blocks = source.by_walk(unusable)?;
                source.span = plan::span(&blocks, source.catalog.first_log);
                blocks
            }
        };
        source.catalog.announce();
        let (input, catalog) = (&source.input, &mut source.catalog);
        source.steps = ClockSteps::find(input, catalog, &mut blocks, all)?;
        source.queue(blocks);
        Ok(source)
    }

    /// Blocks that the summary lists. The inner `Err` is returned if there is no list: the reason
    /// to report, or `None`.
    fn by_summary(&mut self) -> Result<Result<Vec<Block>, Option<String>>, SourceError> {
        let Self { input, catalog, .. } = self;
        let is_camera = |channel: &_, schema: &_| catalog.is_camera(channel, schema);
        let wanted = Wanted { all: self.all, is_camera: &is_camera };
        let mut summary = match Summary::read(input, &self.limits, wanted)? {
            Ok(Some(summary)) => summary,
            Ok(None) => return Ok(Err(None)),
            Err(reason) => return Ok(Err(Some(reason))),
        };
        let blocks = summary.blocks(input, wanted)?;
        self.catalog.first_log = summary.first_log();
        let blocks = match blocks {
            Ok(Some(blocks)) => {
                self.unread = summary.chunks().collect();
                self.metadata = std::mem::take(&mut summary.metadata).into();
                Ok(blocks)
            }
            Ok(None) => Err(None),
            Err(reason) => Err(Some(reason)),
        };
        self.catalog.summary(summary);
        Ok(blocks)
    }

    /// Blocks that a walk over the file finds.
    fn by_walk(&mut self, unusable: Option<String>) -> Result<Vec<Block>, SourceError> {
        let Self { input, catalog, .. } = self;
        let mut walk = plan::walk(input, &self.limits, self.all, |found| match found {
            Found::Definition(opcode, body) => {
                catalog.definition(opcode, body);
                false
            }
            Found::Message(channel) => catalog.wants(channel).unwrap_or_else(|| {
                catalog.stray(1);
                false
            }),
        })?;
        catalog.first_log = catalog.first_log.or(walk.first_log);
        catalog.skipped(&mut walk);
        self.cut = walk.cut;
        // A truncated file is reported at its end; it has no index anyway.
        if let (Some(reason), None) = (unusable, &self.cut) {
            catalog.warn(format!(
                "the index of the recording cannot be used ({reason}), so the file was searched \
                 from front to back; its messages are complete"
            ));
        }
        let is_chunk = |block: &&Block| matches!(block.kind, Kind::Chunk { .. });
        self.unread = walk.blocks.iter().filter(is_chunk).map(|block| block.at).collect();
        self.metadata = walk.metadata.into();
        Ok(walk.blocks)
    }

    /// Removes the blocks before the window, and counts their messages by their indexes.
    fn within_window(&mut self, blocks: Vec<Block>) -> Result<Vec<Block>, SourceError> {
        let bounds = self.catalog.bounds();
        let (before, mut wanted): (Vec<_>, Vec<_>) =
            blocks.into_iter().partition(|block| signed(block.end) < *bounds.start());
        for batch in before.chunks(BATCH) {
            for (block, entries) in batch.iter().zip(self.indexes(batch)?) {
                match entries {
                    _ if matches!(block.kind, Kind::Attachment) => {}
                    Some(entries) if self.catalog.first_wanted(&entries).is_some() => {
                        self.catalog.pass_by(&entries);
                    }
                    _ => wanted.push(*block),
                }
            }
        }
        Ok(wanted)
    }

    /// Queues the blocks that do not start after the window.
    fn queue(&mut self, mut blocks: Vec<Block>) {
        blocks.sort_unstable_by_key(|block| (block.start, block.at));
        let bounds = self.catalog.bounds();
        // At least one block is read if no channel is known yet.
        let keep = usize::from(self.catalog.is_empty());
        // After a step of the clock, the start of a block is no log time.
        if self.catalog.first_log.is_some() && self.steps.is_empty() {
            let wanted = blocks.partition_point(|block| signed(block.start) <= *bounds.end());
            blocks.truncate(wanted.max(keep));
        }
        for block in blocks {
            // All messages count, so the chunk's start time is the one in its header.
            let block = if self.all { block.without_indexes() } else { block };
            self.order.add(signed(block.start), block.at, block);
        }
    }

    fn indexes(&self, blocks: &[Block]) -> Result<Vec<index::Entries>, SourceError> {
        let regions: Vec<_> = blocks.iter().map(Block::indexes).collect();
        index::read(&self.input, &regions)
    }

    /// For blocks that are due while messages wait, looks up the log time of the first selected
    /// message. Returns whether there were such blocks.
    fn refine(&mut self) -> Result<bool, SourceError> {
        let due = self.order.take_due(BATCH, |block| block.indexes().is_none());
        let blocks: Vec<Block> = due.iter().map(|(_, block)| *block).collect();
        let indexes = self.indexes(&blocks)?;
        for ((start, block), entries) in due.into_iter().zip(indexes) {
            // A chunk whose message indexes list no selected message is read all the same: it needs
            // no memory, and a damaged index loses nothing.
            let first = entries.and_then(|entries| self.catalog.first_wanted(&entries)).flatten();
            self.order.requeue(first.map_or(start, signed), block.at, block.without_indexes());
        }
        Ok(!blocks.is_empty())
    }

    /// Performs one step: reads a block, or returns the next item as events.
    fn step(&mut self) -> Result<(), SourceError> {
        if let Some(at) = self.metadata.pop_front() {
            return self.read_metadata(at);
        }
        if self.refine()? {
            return Ok(());
        }
        let next = self.order.next();
        let is_disordered = self.order.is_disordered();
        if is_disordered && !std::mem::replace(&mut self.warned_of_order, true) {
            self.catalog.warn(super::order::warning(&self.limits));
        }
        match next {
            Next::Block { block, is_again } => {
                self.load(&block, is_again)?;
                self.catalog.announce();
            }
            Next::Message(_, Waiting::Message(header, data)) => {
                self.catalog.message(header, data, is_disordered);
            }
            Next::Message(key, Waiting::Attachment(attachment)) => {
                if self.catalog.bounds().contains(&key.time) {
                    self.catalog.events.push_back(Event::Attachment(attachment));
                }
            }
            Next::End => {
                self.ended = true;
                self.catalog.finish(self.cut.take(), self.input.len());
            }
        }
        Ok(())
    }

    /// Reads the messages of a block. `is_again`: the block was read before, and messages without a
    /// channel were counted.
    fn load(&mut self, block: &Block, is_again: bool) -> Result<(), SourceError> {
        let at = block.at;
        let broken = match block.kind {
            Kind::Chunk { .. } => self.load_chunk(at, is_again)?,
            Kind::Run { end } => self.load_run(at, end)?,
            Kind::Attachment => self.load_attachment(at)?,
        };
        if let Some(broken) = broken
            && self.broken.insert(at)
        {
            self.catalog.lost(broken);
        }
        Ok(())
    }

    fn load_chunk(&mut self, at: u64, is_again: bool) -> Result<Option<String>, SourceError> {
        self.unread.remove(&at);
        let lost = |what: String| Some(format!("{what}; the messages in it are lost"));
        let record = Record::at(&mut self.input, at)?;
        let Some(record) = record.filter(|record| record.opcode == op::CHUNK) else {
            return Ok(lost(format!("the index points to byte {at}, where no chunk is")));
        };
        let Some(chunk) = ChunkHeader::read(&mut self.input, record)? else {
            return Ok(lost(format!("the chunk at byte {at}: its header is damaged")));
        };
        let (mut taken, mut done) = self.read_chunk(at, &chunk)?;
        // Definitions stand before the messages in the file, but not always in log time.
        if taken.strays > 0 && self.read_definitions_before(at)? {
            (taken, done) = self.read_chunk(at, &chunk)?;
        }
        if !is_again {
            self.catalog.stray(taken.strays);
            if taken.short > 0 {
                self.catalog.lost(format!(
                    "{} messages in the chunk at byte {at} are too short; they are lost",
                    taken.short
                ));
            }
        }
        // Damage at the end of a truncated chunk is reported with the truncation.
        let broken = done.err().filter(|_| !chunk.cut);
        Ok(broken.and_then(|error| lost(format!("the chunk at byte {at}: {error}"))))
    }

    fn read_chunk(
        &mut self,
        at: u64,
        chunk: &ChunkHeader,
    ) -> Result<(Counts, Result<(), String>), SourceError> {
        let Self { input, catalog, order, limits, steps, .. } = self;
        let mut taken = Taken::new(steps);
        let mut number = 0;
        let done = chunk.records(input, limits, |opcode, body| {
            match opcode {
                op::MESSAGE => taken.message(catalog, order, body, at, number),
                _ => catalog.definition(opcode, body),
            }
            number += 1;
        })?;
        Ok((taken.counts, done))
    }

    /// Reads the schemas and channels of all unread chunks before `at` in the file. Returns whether
    /// there were such chunks.
    fn read_definitions_before(&mut self, at: u64) -> Result<bool, SourceError> {
        let after = self.unread.split_off(&at);
        let chunks = std::mem::replace(&mut self.unread, after);
        for chunk in &chunks {
            let Some(record) = Record::at(&mut self.input, *chunk)? else { continue };
            if record.opcode != op::CHUNK {
                continue;
            }
            let Some(chunk) = ChunkHeader::read(&mut self.input, record)? else { continue };
            let catalog = &mut self.catalog;
            // Damage in the chunk is reported when its messages are read.
            let _broken = chunk.records(&mut self.input, &self.limits, |opcode, body| {
                catalog.definition(opcode, body);
            })?;
        }
        Ok(!chunks.is_empty())
    }

    /// Reads the messages of a run. The walk that found the run reported the messages that it left
    /// out.
    fn load_run(&mut self, at: u64, end: u64) -> Result<Option<String>, SourceError> {
        let Self { input, catalog, order, limits, steps, .. } = self;
        let mut taken = Taken::new(steps);
        let (mut broken, mut more) = (None, 0);
        let (mut next, mut number) = (at, 0);
        while next < end
            && let Some(record) = Record::at(input, next)?
        {
            let place = next;
            next = record.end();
            if record.opcode != op::MESSAGE {
                continue;
            }
            number += 1;
            let start = record.start::<{ MessageHeader::LEN }>(input)?;
            let header = start.and_then(|start| MessageHeader::parse(&start));
            if header.is_none_or(|header| catalog.wants(header.channel) != Some(true)) {
                continue;
            }
            match record.read(input, limits)? {
                Ok(body) => taken.message(catalog, order, &body, at, number),
                Err(_) if broken.is_some() => more += 1,
                Err(reason) => broken = Some(format!("the message at byte {place}: {reason}")),
            }
        }
        Ok(broken.map(|broken| match more {
            0 => format!("{broken}; it is lost"),
            more => format!("{broken}; it is lost, and {more} more after it"),
        }))
    }

    fn load_attachment(&mut self, at: u64) -> Result<Option<String>, SourceError> {
        let lost =
            |reason: &str| Some(format!("the attachment at byte {at}: {reason}; it is lost"));
        let record = match Record::at(&mut self.input, at)? {
            Some(record) if record.opcode == op::ATTACHMENT => record,
            _ => return Ok(lost("the index points there, but there is none")),
        };
        let body = match record.read(&mut self.input, &self.limits)? {
            Ok(body) => body,
            Err(reason) => return Ok(lost(&reason)),
        };
        match record::attachment(body) {
            Ok(attachment) => {
                let len = attachment.data.len() as u64;
                let key = Key { time: signed(attachment.log_ns), block: at, number: 0 };
                self.order.push(key, Waiting::Attachment(attachment), len);
                Ok(None)
            }
            Err(reason) => Ok(lost(&reason)),
        }
    }

    fn read_metadata(&mut self, at: u64) -> Result<(), SourceError> {
        let reason = match Record::at(&mut self.input, at)? {
            Some(record) if record.opcode == op::METADATA => {
                match record.read(&mut self.input, &self.limits)? {
                    Ok(body) => match record::metadata(&body) {
                        Some(metadata) => {
                            self.catalog.events.push_back(Event::Metadata(metadata));
                            return Ok(());
                        }
                        None => "its fields end too early".into(),
                    },
                    Err(reason) => reason,
                }
            }
            _ => "the index points there, but there is none".into(),
        };
        self.catalog.lost(format!("the metadata at byte {at}: {reason}; it is lost"));
        Ok(())
    }
}

/// Reads the messages of a block.
struct Taken<'a> {
    counts: Counts,
    steps: &'a ClockSteps,
    /// Number of messages of each channel so far.
    numbers: BTreeMap<u16, u64>,
}

/// Messages of a block that cannot be used.
#[derive(Default)]
struct Counts {
    /// Messages whose channel is not defined.
    strays: u64,
    /// Messages that are shorter than their header.
    short: u64,
}

impl<'a> Taken<'a> {
    fn new(steps: &'a ClockSteps) -> Self {
        Self { counts: Counts::default(), steps, numbers: BTreeMap::new() }
    }

    /// Adds a message to the order. A message outside of the window is added without its data,
    /// since it is only counted.
    fn message(
        &mut self,
        catalog: &mut Catalog,
        order: &mut MessageOrder<Block, Waiting>,
        body: &[u8],
        block: u64,
        number: u64,
    ) {
        let (Some(header), Some(data)) =
            (MessageHeader::parse(body), body.get(MessageHeader::LEN..))
        else {
            self.counts.short += 1;
            return;
        };
        catalog.first_log.get_or_insert(header.log_time);
        match catalog.wants(header.channel) {
            None => self.counts.strays += 1,
            Some(false) => {}
            Some(true) => {
                let log_ns = signed(header.log_time);
                let in_channel = self.numbers.entry(header.channel).or_default();
                let shift = self.steps.shift(header.channel, block, *in_channel);
                *in_channel += 1;
                let key = Key { time: log_ns.saturating_add(shift), block, number };
                if !order.is_wanted(&key) {
                    return;
                }
                let data = match catalog.bounds().contains(&log_ns) {
                    // A slice would keep the whole chunk in memory.
                    true => Bytes::copy_from_slice(data),
                    false => Bytes::new(),
                };
                let len = data.len() as u64;
                order.push(key, Waiting::Message(header, data), len);
            }
        }
    }
}

impl Source for McapSource {
    fn next_event(&mut self) -> Result<Option<Event>, SourceError> {
        loop {
            if let Some(event) = self.catalog.events.pop_front() {
                return Ok(Some(event));
            }
            if self.ended {
                return self.catalog.nothing(self.input.location()).map_or(Ok(None), Err);
            }
            self.step()?;
        }
    }

    fn other_topics(&self) -> Vec<(String, String)> {
        self.catalog.other_topics()
    }

    fn log_span(&self) -> Option<(i64, i64)> {
        self.span
    }

    fn profile(&self) -> &str {
        &self.profile
    }
}

/// The profile that the header names; empty where the header cannot be read.
fn profile(input: &mut InputReader, limits: &Limits) -> Result<String, SourceError> {
    let record = Record::at(input, MAGIC.len() as u64)?;
    let Some(record) = record.filter(|record| record.opcode == op::HEADER) else {
        return Ok(String::new());
    };
    let body = record.read_definition(input, limits, false)?.unwrap_or_default();
    Ok(Fields(&body).string().unwrap_or_default())
}

fn check_magic(input: &mut InputReader) -> Result<(), SourceError> {
    let len = input.len().min(MAGIC.len() as u64);
    let start = input.bytes(0, len)?;
    if start == MAGIC {
        return Ok(());
    }
    let (reason, hint) = if start.is_empty() {
        ("the file is empty".into(), "was the recorder stopped before it wrote anything?")
    } else if MAGIC.starts_with(&start) {
        ("the file ends inside its first 8 bytes".into(), "there is nothing to read in it")
    } else {
        let start = start.escape_ascii();
        (format!("not an MCAP file: it begins with \"{start}\""), "check the path")
    };
    Err(SourceError::invalid(input.location().clone(), reason, hint))
}

/// Log times are unsigned in MCAP; no real log time exceeds the largest signed value.
fn signed(log_time: u64) -> i64 {
    i64::try_from(log_time).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
