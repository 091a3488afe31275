//! MCAP recordings.
//!
//! A file is read in blocks: chunks, runs of messages outside chunks, and attachments. The blocks
//! are listed by the index at the end of the file. If the index is missing or wrong, a walk over
//! the headers of all records finds them, so that a truncated recording, or several recordings one
//! behind the other, are read like a complete recording. [`MessageOrder`] returns the messages in
//! log-time order.
//!
//! Only selected messages are read. A chunk whose index lists none is skipped. If a chunk overlaps
//! in time with waiting messages, its message indexes are read first: otherwise a late message of
//! another channel would make many chunks wait.

mod catalog;
mod chunk;
mod clock;
mod index;
mod load;
mod plan;
mod record;
mod taken;
mod walk;

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::path::Path;

use ::mcap::records::op;
use encoder_media::{InputReader, Location, ReadAt};

use self::catalog::Catalog;
use self::plan::{Block, Kind, Summary, Wanted};
use self::record::{Fields, Id, Record};
use self::taken::Waiting;
use self::walk::Found;
use super::file_parts::FileParts;
use super::order::{MessageOrder, Next};
use super::signature::UNCOUNTED;
use super::steps::{BlockTimes, ClockSteps};
use super::{Event, Limits, Source, SourceError, SourceOptions};

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
    /// Whether the clock was not set but for `steps`.
    knows_steps: bool,
    /// The log times that were read, where steps are not known.
    block_times: BlockTimes,
    parts: FileParts,
    /// Chunks whose definitions were not read.
    unread: BTreeSet<u64>,
    /// Offsets of metadata records that were not yet returned.
    metadata: VecDeque<u64>,
    /// Blocks whose defects were already reported. A block may be read more than once.
    broken: BTreeSet<u64>,
    /// How parts of the file are truncated; reported at the end.
    cuts: Vec<String>,
    /// Log times of the first and the last message by the index.
    span: Option<(i64, i64)>,
    warned_of_order: bool,
    warned_of_steps: bool,
    ended: bool,
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
            knows_steps: false,
            block_times: BlockTimes::default(),
            parts: FileParts::default(),
            unread: BTreeSet::new(),
            metadata: VecDeque::new(),
            broken: BTreeSet::new(),
            cuts: Vec::new(),
            span: None,
            warned_of_order: false,
            warned_of_steps: false,
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
        source.find_steps(&mut blocks)?;
        source.queue(blocks);
        Ok(source)
    }

    /// Blocks that the summary lists.
    fn by_summary(&mut self) -> Result<Result<Vec<Block>, NoIndex>, SourceError> {
        let Self { input, catalog, .. } = self;
        let is_camera = |channel: &_, schema: &_| catalog.is_camera(channel, schema);
        let wanted = Wanted { all: self.all, is_camera: &is_camera };
        let mut summary = match Summary::read(input, &self.limits, wanted)? {
            Ok(Some(summary)) => summary,
            Ok(None) => return Ok(Err(NoIndex::default())),
            Err(reason) => {
                return Ok(Err(NoIndex { reason: Some(reason), lists_chunks: false }));
            }
        };
        let lists_chunks = summary.has_chunks();
        let blocks = match summary.blocks(input, wanted)? {
            Ok(Some(blocks)) => blocks,
            Ok(None) => return Ok(Err(NoIndex { reason: None, lists_chunks })),
            Err(reason) => return Ok(Err(NoIndex { reason: Some(reason), lists_chunks })),
        };
        self.catalog.first_log = summary.first_log();
        self.unread = summary.chunks().collect();
        self.metadata = std::mem::take(&mut summary.metadata).into();
        self.catalog.summary(summary);
        Ok(Ok(blocks))
    }

    /// Blocks that a walk over the file finds.
    fn by_walk(&mut self, no_index: NoIndex) -> Result<Vec<Block>, SourceError> {
        let Self { input, catalog, .. } = self;
        let mut walk = walk::walk(input, &self.limits, self.all, |part, found| match found {
            Found::Definition(opcode, body) => {
                catalog.definition(part, opcode, body);
                false
            }
            // The channel may be defined in a chunk, which is not read yet.
            Found::Message(number) => catalog.wants(Id { part, number }) != Some(false),
        })?;
        catalog.first_log = walk.first_log;
        catalog.skipped(&mut walk);
        let has_counts = catalog.promise(walk.promised());
        let parts = walk.parts.len();
        if parts > 1 {
            catalog.warn(format!(
                "the file consists of {parts} recordings, one behind the other: all are read"
            ));
        }
        // A truncated file is reported at its end; it has no index anyway.
        if walk.cuts.is_empty() {
            let why = match (&no_index.reason, parts) {
                (Some(reason), 1) => {
                    format!("the index of the recording cannot be used ({reason})")
                }
                _ => "the recording has no index".into(),
            };
            let searched = "the file was searched from front to back";
            if !has_counts && (no_index.reason.is_some() || !no_index.lists_chunks) {
                catalog.lost(format!("{why}: {searched}, and {UNCOUNTED}"));
            } else if no_index.reason.is_some() && parts == 1 {
                catalog.warn(format!("{why}: {searched}"));
            }
        }
        let is_chunk = |block: &&Block| matches!(block.kind, Kind::Chunk { .. });
        self.unread = walk.blocks.iter().filter(is_chunk).map(|block| block.at).collect();
        self.metadata = walk.metadata.into();
        self.parts = FileParts::new(walk.parts);
        self.cuts = walk.cuts;
        if let Some(rest) = walk.rest {
            self.report_rest(rest)?;
        }
        Ok(walk.blocks)
    }

    /// Reports bytes that belong to no recording. Zeros, which preallocation leaves behind the end,
    /// are no loss.
    fn report_rest(&mut self, rest: Range<u64>) -> Result<(), SourceError> {
        const STEP: u64 = 1 << 16;
        let mut at = rest.start;
        while at < rest.end {
            let bytes = self.input.bytes(at, STEP.min(rest.end - at))?;
            if bytes.iter().any(|byte| *byte != 0) {
                self.catalog.lost(format!(
                    "{} bytes behind the closing records, from byte {} on, are no recording, and \
                     are not read",
                    rest.end - rest.start,
                    rest.start
                ));
                return Ok(());
            }
            at += bytes.len() as u64;
        }
        Ok(())
    }

    /// The number of the part that the byte at `at` belongs to.
    fn part(&self, at: u64) -> usize {
        self.parts.of(at)
    }

    /// Where the part ends that the byte at `at` belongs to.
    fn part_end(&self, at: u64) -> u64 {
        self.parts.end(self.part(at), self.input.len())
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
                    // The index is that of the only part.
                    Some(entries) if self.catalog.first_wanted(0, &entries).is_some() => {
                        self.catalog.pass_by(0, &entries);
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
            let part = self.part(block.at);
            let first = entries.and_then(|entries| self.catalog.first_wanted(part, &entries));
            let shift = self.steps.shift((block.at, 0));
            let first = first.flatten().map(|first| signed(first).saturating_add(shift));
            self.order.requeue(first.unwrap_or(start), block.at, block.without_indexes());
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
            Next::Message(key, Waiting::Message(header, data)) => {
                let part = self.part(key.block);
                self.catalog.message(part, header, data, is_disordered);
            }
            Next::Message(_, Waiting::Attachment(attachment)) => {
                if self.catalog.bounds().contains(&signed(attachment.log_ns)) {
                    self.catalog.events.push_back(Event::Attachment(attachment));
                }
            }
            Next::End => {
                self.ended = true;
                self.catalog.finish(&std::mem::take(&mut self.cuts), self.input.len());
            }
        }
        Ok(())
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

/// Why the index is not used.
#[derive(Default)]
struct NoIndex {
    /// What is wrong with it; `None` if there is none, or it is not complete.
    reason: Option<String>,
    /// The summary lists chunks.
    lists_chunks: bool,
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
