//! The places where the recorder's clock was set back.

use std::collections::BTreeMap;

use encoder_media::InputReader;

use super::{
    catalog::Catalog,
    layout::{self, ChunkAt, Id},
};
use crate::{
    SourceError,
    file_parts::FileParts,
    steps::{self, LogTimes, Place, Step},
};

/// In longer recordings the index records are read only if chunks overlap in time.
const FEW: usize = 256;

/// What is added to the log times of messages to have them in the order of the recording.
#[derive(Default)]
pub(super) struct ClockSteps {
    /// By connection.
    steps: BTreeMap<Id, Vec<Step>>,
}

impl ClockSteps {
    /// Reads the index records, if the clock may have been set. Reports each step, and replaces the
    /// start of each chunk by the least time of its messages with the steps.
    pub(super) fn find(
        input: &mut InputReader,
        catalog: &mut Catalog,
        parts: &FileParts,
        chunks: &mut [ChunkAt],
    ) -> Result<Self, SourceError> {
        chunks.sort_unstable_by_key(|chunk| chunk.position);
        let mut end = i64::MIN;
        let overlap = |chunk: &ChunkAt| {
            let is_earlier = chunk.start < end;
            let last = chunk.indexed.as_ref().map_or(chunk.start, |indexed| indexed.end);
            end = end.max(last);
            is_earlier
        };
        // A step inside a chunk needs some messages before and after it.
        let is_long = |chunk: &ChunkAt| {
            let Some(indexed) = &chunk.indexed else { return true };
            indexed.counts.iter().any(|(_, messages)| u64::from(*messages) > steps::FEWEST)
        };
        let has_step = chunks.len() <= FEW && chunks.iter().any(is_long);
        if !chunks.iter().any(overlap) && !has_step {
            return Ok(Self::default());
        }
        let mut connections: BTreeMap<Id, LogTimes> = BTreeMap::new();
        for chunk in &*chunks {
            let part = parts.of(chunk.position);
            let is_camera = |number| Some(catalog.is_known_camera(Id { part, number }));
            for (number, entries) in layout::times(input, chunk, is_camera)?.unwrap_or_default() {
                let known = connections.entry(Id { part, number }).or_default();
                for (offset, time) in entries {
                    known.push((chunk.position, offset.into()), time);
                }
            }
        }
        let found = connections.into_iter().map(|(id, times)| (id, times.steps()));
        let steps = Self { steps: found.filter(|(_, steps)| !steps.is_empty()).collect() };
        if steps.is_empty() {
            return Ok(steps);
        }
        for (connection, steps) in &steps.steps {
            catalog.was_set(*connection, steps);
        }
        for chunk in chunks {
            let part = parts.of(chunk.position);
            let wants = |number| catalog.wants(Id { part, number });
            let Some(times) = layout::times(input, chunk, wants)? else { continue };
            let all = times.into_iter().flat_map(|(number, entries)| {
                let connection = Id { part, number };
                entries.into_iter().map(move |(offset, time)| (connection, offset, time))
            });
            let earliest = all.map(|(connection, offset, time)| {
                time.saturating_add(steps.shift(connection, (chunk.position, offset.into())))
            });
            if let Some(start) = earliest.min() {
                chunk.start = start;
                chunk.is_refined = true;
            }
        }
        Ok(steps)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// What is added to the log time of a message.
    pub(super) fn shift(&self, connection: Id, place: Place) -> i64 {
        self.steps.get(&connection).map_or(0, |steps| steps::shift(steps, place))
    }
}
