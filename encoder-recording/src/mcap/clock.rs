//! The places where the recorder's clock was set back.

use std::collections::BTreeMap;

use encoder_media::InputReader;

use super::{catalog::Catalog, index, plan::Block, record::Id, signed};
use crate::{
    SourceError,
    file_parts::FileParts,
    steps::{self, LogTimes, Step},
};

/// In longer recordings the message indexes are read only if chunks overlap in time.
const FEW: usize = 256;
/// Blocks whose message indexes are read at once.
const BATCH: usize = 64;

/// What is added to the log times of messages to have them in the order of the recording.
#[derive(Default)]
pub(super) struct ClockSteps {
    /// By channel.
    steps: BTreeMap<Id, Vec<Step>>,
}

impl ClockSteps {
    /// Reads the message indexes, if the clock may have been set. Reports each step, and replaces
    /// the start of each block by the least time of its messages with the steps.
    pub(super) fn find(
        input: &InputReader,
        catalog: &mut Catalog,
        parts: &FileParts,
        blocks: &mut [Block],
        all: bool,
    ) -> Result<Self, SourceError> {
        blocks.sort_unstable_by_key(|block| block.at);
        let mut end = 0;
        let overlap = |block: &Block| {
            let is_earlier = block.start < end;
            end = end.max(block.end);
            is_earlier
        };
        if !blocks.iter().any(overlap) && blocks.len() > FEW {
            return Ok(Self::default());
        }
        let mut channels: BTreeMap<Id, LogTimes> = BTreeMap::new();
        for batch in blocks.chunks(BATCH) {
            let regions: Vec<_> = batch.iter().map(Block::indexes).collect();
            for (block, times) in batch.iter().zip(index::read_times(input, &regions)?) {
                let part = parts.of(block.at);
                for (number, times) in times.unwrap_or_default() {
                    let channel = Id { part, number };
                    if !catalog.is_known_camera(channel) {
                        continue;
                    }
                    let known = channels.entry(channel).or_default();
                    for (number, time) in (0..).zip(times) {
                        known.push((block.at, number), signed(time));
                    }
                }
            }
        }
        let found = channels.into_iter().map(|(channel, times)| (channel, times.steps()));
        let steps: BTreeMap<_, _> = found.filter(|(_, steps)| !steps.is_empty()).collect();
        let steps = Self { steps };
        if !steps.steps.is_empty() {
            steps.apply(input, catalog, parts, blocks, all)?;
        }
        Ok(steps)
    }

    fn apply(
        &self,
        input: &InputReader,
        catalog: &mut Catalog,
        parts: &FileParts,
        blocks: &mut [Block],
        all: bool,
    ) -> Result<(), SourceError> {
        for (channel, steps) in &self.steps {
            catalog.was_set(*channel, steps);
        }
        for batch in blocks.chunks_mut(BATCH) {
            let regions: Vec<_> = batch.iter().map(Block::indexes).collect();
            for (block, times) in batch.iter_mut().zip(index::read_times(input, &regions)?) {
                let Some(times) = times else { continue };
                let mut start = if all { block.start } else { u64::MAX };
                for (number, times) in times {
                    let channel = Id { part: parts.of(block.at), number };
                    if catalog.wants(channel) == Some(false) {
                        continue;
                    }
                    for (number, time) in (0..).zip(times) {
                        let time =
                            signed(time).saturating_add(self.shift(channel, block.at, number));
                        start = start.min(time.max(0) as u64);
                    }
                }
                if start < u64::MAX {
                    block.start = start;
                    *block = block.without_indexes();
                }
            }
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// What is added to the log time of a message: `number` counts the messages of the channel in
    /// its block.
    pub(super) fn shift(&self, channel: Id, block: u64, number: u64) -> i64 {
        self.steps.get(&channel).map_or(0, |steps| steps::shift(steps, (block, number)))
    }
}
