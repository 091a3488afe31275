//! Reads the messages of a block.

use ::mcap::records::op;

use super::chunk::ChunkHeader;
use super::plan::{Block, Kind};
use super::record::{self, Id, MessageHeader, Record};
use super::taken::{Taken, Waiting};
use super::{McapSource, signed};
use crate::SourceError;
use crate::order::Key;
use crate::steps::LogTimes;

impl McapSource {
    /// Reads the messages of a block. `is_again`: the block was read before, and messages without a
    /// channel were counted.
    pub(super) fn load(&mut self, block: &Block, is_again: bool) -> Result<(), SourceError> {
        let at = block.at;
        let broken = match block.kind {
            Kind::Chunk { .. } => self.load_chunk(at, is_again)?,
            Kind::Run { end } => self.load_run(at, end, is_again)?,
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
        let part_end = self.part_end(at);
        let Some(chunk) = ChunkHeader::read(&mut self.input, record, part_end)? else {
            return Ok(lost(format!("the chunk at byte {at}: its header is damaged")));
        };
        let (mut taken, mut done) = self.read_chunk(at, &chunk)?;
        if self.find_definitions(at, &taken)? {
            (taken, done) = self.read_chunk(at, &chunk)?;
        }
        if !is_again {
            self.catalog.stray(taken.strays());
            self.report_steps(at, &taken);
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
    ) -> Result<(Taken, Result<(), String>), SourceError> {
        let mut taken = Taken::new(self.part(at));
        taken.times = (!self.knows_steps).then(LogTimes::default);
        let Self { input, catalog, order, limits, steps, .. } = self;
        let mut number = 0;
        let done = chunk.records(input, limits, |offset, opcode, body| {
            match opcode {
                op::MESSAGE => {
                    let place = (at, (at, offset));
                    taken.message((catalog, steps), order, body, place, number);
                }
                _ => catalog.definition(taken.part, opcode, body),
            }
            number += 1;
        })?;
        Ok((taken, done))
    }

    /// Reports that the clock was set back within a chunk or between chunks, whose messages are in
    /// log-time order already.
    fn report_steps(&mut self, at: u64, taken: &Taken) {
        let Some(times) = &taken.times else { return };
        if let Some(text) = self.block_times.add(at, &format!("the chunk at byte {at}"), times)
            && !std::mem::replace(&mut self.warned_of_steps, true)
        {
            self.catalog.lost(text);
        }
    }

    /// Looks for the definitions of channels that the block at `at` has messages of. Returns whether
    /// any may have been found.
    ///
    /// Definitions stand before the messages in the file, but not always in log time.
    fn find_definitions(&mut self, at: u64, taken: &Taken) -> Result<bool, SourceError> {
        if taken.strays() == 0 {
            return Ok(false);
        }
        let is_read = self.read_definitions_before(at)?;
        Ok(self.catalog.settle(taken.stray_channels()) || is_read)
    }

    /// Reads the schemas and channels of all unread chunks before `at` in the same part. Returns
    /// whether there were such chunks.
    pub(super) fn read_definitions_before(&mut self, at: u64) -> Result<bool, SourceError> {
        let part = self.part(at);
        let start = self.parts.start(part);
        let chunks: Vec<u64> = self.unread.range(start..at).copied().collect();
        for at in &chunks {
            self.unread.remove(at);
            let Some(record) = Record::at(&mut self.input, *at)? else { continue };
            if record.opcode != op::CHUNK {
                continue;
            }
            let part_end = self.part_end(*at);
            let Some(chunk) = ChunkHeader::read(&mut self.input, record, part_end)? else {
                continue;
            };
            let catalog = &mut self.catalog;
            // Damage in the chunk is reported when its messages are read.
            let _broken = chunk.records(&mut self.input, &self.limits, |_, opcode, body| {
                catalog.definition(part, opcode, body);
            })?;
        }
        Ok(!chunks.is_empty())
    }

    fn load_run(
        &mut self,
        at: u64,
        end: u64,
        is_again: bool,
    ) -> Result<Option<String>, SourceError> {
        let (mut taken, mut broken) = self.read_run(at, end)?;
        if self.find_definitions(at, &taken)? {
            (taken, broken) = self.read_run(at, end)?;
        }
        if !is_again {
            self.catalog.stray(taken.strays());
        }
        Ok(broken)
    }

    /// Reads the messages of a run. The walk that found the run reported the messages that it left
    /// out. The inner result describes messages that cannot be read.
    fn read_run(&mut self, at: u64, end: u64) -> Result<(Taken, Option<String>), SourceError> {
        let mut taken = Taken::new(self.part(at));
        let part_end = self.part_end(at);
        let Self { input, catalog, order, limits, steps, .. } = self;
        let (mut broken, mut more) = (None, 0);
        let (mut next, mut number) = (at, 0);
        while next < end
            && let Some(record) = Record::at(input, next)?
            && record.end() <= part_end
        {
            let place = next;
            next = record.end();
            if record.opcode != op::MESSAGE {
                continue;
            }
            number += 1;
            let start = record.start::<{ MessageHeader::LEN }>(input)?;
            let Some(header) = start.and_then(|start| MessageHeader::parse(&start)) else {
                continue;
            };
            match catalog.wants(Id { part: taken.part, number: header.channel }) {
                Some(true) => {}
                Some(false) => continue,
                None => {
                    taken.stray(header.channel);
                    continue;
                }
            }
            match record.read(input, limits)? {
                Ok(body) => {
                    let place = (at, (place, 0));
                    taken.message((catalog, steps), order, &body, place, number);
                }
                Err(_) if broken.is_some() => more += 1,
                Err(reason) => broken = Some(format!("the message at byte {place}: {reason}")),
            }
        }
        let broken = broken.map(|broken| match more {
            0 => format!("{broken}; it is lost"),
            more => format!("{broken}; it is lost, and {more} more after it"),
        });
        Ok((taken, broken))
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
                let time = signed(attachment.log_ns).saturating_add(self.steps.shift((at, 0)));
                let key = Key { time, block: at, number: 0 };
                self.order.push(key, Waiting::Attachment(attachment), len);
                Ok(None)
            }
            Err(reason) => Ok(lost(&reason)),
        }
    }
}
