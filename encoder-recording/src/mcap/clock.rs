//! Looks for the places where the recorder's clock was set back.

use mcap::records::op;

use super::chunk::ChunkHeader;
use super::index::{self, Rows};
use super::plan::{Block, Kind};
use super::record::{Id, MessageHeader, Record};
use super::{BATCH, McapSource, signed};
use crate::SourceError;
use crate::steps::{FEW_CHUNKS, LogTimes, Origin, Place, READ_TWICE};

/// Place, channel and log time of messages, in the order of the file.
type Messages = Vec<(Place, u16, u64)>;

impl McapSource {
    /// Reads the log times of all messages, if the clock may have been set. Reports each step, and
    /// shifts the starts of the blocks.
    pub(super) fn find_steps(&mut self, blocks: &mut [Block]) -> Result<(), SourceError> {
        blocks.sort_unstable_by_key(|block| block.at);
        let mut end = 0;
        let is_of_use = |block: &Block| {
            let is_earlier = block.start < end || matches!(block.kind, Kind::Run { .. });
            end = end.max(block.end);
            is_earlier
        };
        if !blocks.iter().any(is_of_use) && blocks.len() > FEW_CHUNKS {
            return Ok(());
        }
        let (times, is_unnamed) = self.log_times(blocks)?;
        self.steps = times.steps();
        // The channels of a truncated file are defined in its chunks.
        if is_unnamed && self.steps.warnings().next().is_some() {
            let mut is_read = false;
            for block in blocks.iter().rev() {
                is_read |= self.read_definitions_before(block.at.saturating_add(1))?;
            }
            if is_read {
                self.steps = self.log_times(blocks)?.0.steps();
            }
        }
        self.catalog.was_set(&self.steps);
        for block in blocks {
            // Later messages of the block may be shifted by more, but not by less.
            let shift = self.steps.shift((block.at, 0));
            block.start = block.start.saturating_add_signed(shift);
        }
        Ok(())
    }

    /// The log times of all messages, and whether channels of some are not defined yet.
    fn log_times(&mut self, blocks: &[Block]) -> Result<(LogTimes, bool), SourceError> {
        self.knows_steps = true;
        let mut is_unnamed = false;
        let (mut times, mut left) = (LogTimes::default(), READ_TWICE);
        for batch in blocks.chunks(BATCH) {
            let regions: Vec<_> = batch.iter().map(Block::indexes).collect();
            for (block, rows) in batch.iter().zip(index::read_rows(&self.input, &regions)?) {
                let Some(messages) = self.messages(block, rows, &mut left)? else {
                    self.knows_steps = false;
                    continue;
                };
                let part = self.part(block.at);
                for (place, number, log_time) in messages {
                    let id = Id { part, number };
                    is_unnamed |= self.catalog.wants(id).is_none();
                    let (topic, is_camera) = self.catalog.topic(id);
                    let origin =
                        Origin { topic: &topic, is_camera, part, channel: u64::from(number) };
                    times.push(origin, place, signed(log_time));
                }
            }
        }
        Ok((times, is_unnamed))
    }

    /// The messages of a block. `left`: bytes of chunks that may still be read for it; `None` if
    /// these are not enough.
    fn messages(
        &mut self,
        block: &Block,
        rows: Rows,
        left: &mut u64,
    ) -> Result<Option<Messages>, SourceError> {
        let at = block.at;
        let part_end = self.part_end(at);
        match (block.kind, rows) {
            (Kind::Attachment, _) => Ok(Some(Messages::new())),
            (Kind::Run { end }, _) => self.messages_of_run(at, end.min(part_end)).map(Some),
            (Kind::Chunk { .. }, Some(rows)) => {
                let place = |row: &index::Row| ((at, row.offset), row.channel, row.log_time);
                Ok(Some(rows.iter().map(place).collect()))
            }
            (Kind::Chunk { end, .. }, None) => {
                let Some(rest) = left.checked_sub(end.min(part_end).saturating_sub(at)) else {
                    return Ok(None);
                };
                *left = rest;
                self.messages_of_chunk(at, part_end).map(Some)
            }
        }
    }

    /// Damage in the chunk is reported when its messages are read.
    fn messages_of_chunk(&mut self, at: u64, part_end: u64) -> Result<Messages, SourceError> {
        let mut messages = Messages::new();
        let record = Record::at(&mut self.input, at)?;
        let Some(record) = record.filter(|record| record.opcode == op::CHUNK) else {
            return Ok(messages);
        };
        if let Some(chunk) = ChunkHeader::read(&mut self.input, record, part_end)? {
            let _broken =
                chunk.records(&mut self.input, &self.limits, |offset, opcode, body| {
                    if let Some(header) =
                        MessageHeader::parse(body).filter(|_| opcode == op::MESSAGE)
                    {
                        messages.push(((at, offset), header.channel, header.log_time));
                    }
                })?;
        }
        Ok(messages)
    }

    fn messages_of_run(&mut self, at: u64, end: u64) -> Result<Messages, SourceError> {
        let (mut messages, mut next) = (Messages::new(), at);
        while next < end
            && let Some(record) = Record::at(&mut self.input, next)?
        {
            if record.opcode == op::MESSAGE
                && let Some(start) = record.start::<{ MessageHeader::LEN }>(&mut self.input)?
                && let Some(header) = MessageHeader::parse(&start)
            {
                messages.push(((next, 0), header.channel, header.log_time));
            }
            next = record.end();
        }
        Ok(messages)
    }
}
