//! Looks for the places where the recorder's clock was set back.

use super::RosbagSource;
use super::layout::{self, ChunkAt, Id, Messages};
use super::record::{self, Record, op};
use crate::SourceError;
use crate::steps::{FEW_CHUNKS, FEWEST, LogTimes, Origin, READ_TWICE};

impl RosbagSource {
    /// Reads the log times of all messages, if the clock may have been set. Reports each step, and
    /// shifts the starts of the chunks.
    pub(super) fn find_steps(&mut self, chunks: &mut [ChunkAt]) -> Result<(), SourceError> {
        chunks.sort_unstable_by_key(|chunk| chunk.position);
        let mut end = i64::MIN;
        let overlap = |chunk: &ChunkAt| {
            let is_earlier = chunk.start < end;
            let last = chunk.indexed.as_ref().map_or(chunk.start, |indexed| indexed.end);
            end = end.max(last);
            is_earlier
        };
        let has_overlap = chunks.iter().any(overlap);
        if !has_overlap && chunks.len() > FEW_CHUNKS {
            return Ok(());
        }
        self.knows_steps = true;
        // A step inside a chunk needs some messages before and after it.
        let is_long = |chunk: &ChunkAt| {
            let Some(indexed) = &chunk.indexed else { return true };
            let messages = indexed.counts.iter().map(|(_, messages)| u64::from(*messages));
            messages.sum::<u64>() > FEWEST
        };
        if !has_overlap && !chunks.iter().any(is_long) {
            return Ok(());
        }
        let (times, is_unnamed) = self.log_times(chunks)?;
        self.steps = times.steps();
        // The connections of a bag that was not closed are described in its chunks.
        if is_unnamed && self.walked && self.steps.warnings().next().is_some() {
            self.unread.extend(chunks.iter().map(|chunk| (chunk.position, chunk.clone())));
            for chunk in chunks.iter().rev() {
                self.read_connections_before(chunk.position.saturating_add(1))?;
            }
            self.steps = self.log_times(chunks)?.0.steps();
        }
        self.catalog.was_set(&self.steps);
        for chunk in chunks {
            // Later messages of the chunk may be shifted by more, but not by less.
            let shift = self.steps.shift((chunk.position, 0));
            chunk.start = chunk.start.saturating_add(shift);
        }
        Ok(())
    }

    /// The log times of all messages, and whether connections of some are not described yet.
    fn log_times(&mut self, chunks: &[ChunkAt]) -> Result<(LogTimes, bool), SourceError> {
        self.knows_steps = true;
        let mut is_unnamed = false;
        let (mut times, mut left) = (LogTimes::default(), READ_TWICE);
        for chunk in chunks {
            let Some(messages) = self.messages(chunk, &mut left)? else {
                self.knows_steps = false;
                continue;
            };
            let part = self.part(chunk.position);
            for (offset, number, time) in messages {
                let id = Id { part, number };
                is_unnamed |= self.catalog.wants(id).is_none();
                let (topic, is_camera) = self.catalog.topic(id);
                let origin = Origin { topic: &topic, is_camera, part, channel: u64::from(number) };
                times.push(origin, (chunk.position, offset), time);
            }
        }
        Ok((times, is_unnamed))
    }

    /// The messages of a chunk. `left`: bytes of chunks that may still be read for it; `None` if
    /// these are not enough. Damage in the chunk is reported when its messages are read.
    fn messages(
        &mut self,
        chunk: &ChunkAt,
        left: &mut u64,
    ) -> Result<Option<Messages>, SourceError> {
        if let Some(messages) = layout::messages(&mut self.input, chunk)? {
            return Ok(Some(messages));
        }
        let record = Record::at(&mut self.input, chunk.position)?;
        let Some(record) = record.filter(Record::is_chunk) else { return Ok(Some(Vec::new())) };
        let end = if chunk.open { u64::MAX } else { record.end() };
        let len = end.min(self.part_end(chunk.position)).saturating_sub(chunk.position);
        let Some(rest) = left.checked_sub(len) else { return Ok(None) };
        *left = rest;
        let mut messages = Messages::new();
        let Ok((records, _)) = self.records(chunk, &record)? else { return Ok(Some(messages)) };
        let mut rest = records.as_slice();
        while let Some((fields, _, next)) = record::split(rest) {
            let offset = (records.len() - rest.len()) as u64;
            if fields.op() == Some(op::MESSAGE)
                && let (Some(number), Some(time)) = (fields.u32("conn"), fields.time("time"))
            {
                messages.push((offset, number, time));
            }
            rest = next;
        }
        Ok(Some(messages))
    }
}
