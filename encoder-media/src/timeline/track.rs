//! The times of a stream by one clock, after repairs.

use super::{Rising, distance, repair::clamp, round};

/// Possible lengths of a tick, in nanoseconds.
pub(super) const TICKS_NS: [u64; 10] =
    [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];

/// How many gaps the median is computed from.
const GAPS: usize = 1024;

/// The times of a stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Track {
    pub rising: Rising,
    pub first: Option<i64>,
    pub longest_gap: u64,
    /// The first gaps between frames, for their median.
    gaps: Vec<u64>,
    /// Time of the last frame in ticks, for each length of a tick.
    pub ends: [u64; TICKS_NS.len()],
}

impl Track {
    pub fn push(&mut self, at: i128) {
        let before = self.rising.last;
        let now = self.rising.next(clamp(at));
        let first = *self.first.get_or_insert(now);
        let Some(before) = before else { return };
        let gap = distance(before, now);
        self.longest_gap = self.longest_gap.max(gap);
        if self.gaps.len() < GAPS {
            self.gaps.push(gap);
        }
        for (end, tick_ns) in self.ends.iter_mut().zip(TICKS_NS) {
            *end = round(distance(first, now), tick_ns).max(*end + 1);
        }
    }

    pub fn usual_gap(&self) -> Option<u64> {
        let mut gaps = self.gaps.clone();
        gaps.sort_unstable();
        gaps.get(gaps.len() / 2).copied()
    }
}
