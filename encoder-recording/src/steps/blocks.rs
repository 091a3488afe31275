//! Steps of the clock in recordings whose log times are not known before they are read.

use std::collections::{BTreeMap, HashMap};

use super::{LogTimes, Track};

/// A channel of a part of the file.
type Channel = (String, usize, u64);

/// The first and the last log time of each camera in the blocks that were read, by their offsets.
#[derive(Debug, Default)]
pub(crate) struct BlockTimes {
    channels: HashMap<Channel, BTreeMap<u64, (i64, i64)>>,
}

impl BlockTimes {
    /// Adds the messages of the block at `at`, in the order of the file. Blocks may be added in any
    /// order. Returns the warning about a step back within the block, or between it and another one
    /// of the blocks so far. `name`: that of the block.
    pub(crate) fn add(&mut self, at: u64, name: &str, times: &LogTimes) -> Option<String> {
        let within = times.steps();
        let within = within.steps.first().map(|step| (step.topic.clone(), step.by, "within"));
        let mut between = None;
        for (topic, numbers, part, tracks) in times.channels() {
            for (number, track) in numbers.iter().zip(tracks).filter(|(_, track)| track.is_camera) {
                let Some((first, last)) = track.ends() else { continue };
                let blocks = self.channels.entry((topic.clone(), part, *number)).or_default();
                let before = blocks.range(..at).next_back().map(|(_, (_, end))| *end);
                let behind = blocks.range(at..).next().map(|(_, (start, _))| *start);
                let by =
                    |end: i64, start: i64| Some(end.saturating_sub(start)).filter(|by| *by > 0);
                let step = before.and_then(|end| Some((by(end, first)?, "before")));
                let step = step.or_else(|| Some((by(last, behind?)?, "behind")));
                between = between.or(step.map(|(by, place)| (topic.clone(), by, place)));
                blocks.insert(at, (first, last));
            }
        }
        let (topic, by, place) = within.or(between)?;
        Some(format!(
            "{topic}: the log times step back by {:.3} s {place} {name}, probably because the clock \
             was set; the messages are in the order of the log times, which may mix up those before \
             and after the step",
            by as f64 / 1e9
        ))
    }
}

impl LogTimes {
    /// Topics with the numbers of their channels in the last part, that part, and their tracks.
    fn channels(&self) -> impl Iterator<Item = (&String, &[u64], usize, &[Track])> {
        let topics = self.topics.iter();
        topics.map(|(name, topic)| (name, &*topic.numbers, topic.part, &*topic.channels))
    }
}
