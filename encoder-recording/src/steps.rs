//! Finds where the recorder's clock was set back.
//!
//! Messages of a channel are stored in the order in which they were recorded. If their log times
//! step back, either the clock was set, and the order of the file is right; or the messages were
//! stored in another order, and that of the log times is right. After a step of the clock both
//! periods overlap, or they are far apart; messages that were stored in another order fill each
//! other's gaps.

/// The most periods of a channel that are told apart. With more, messages were stored in another
/// order.
const MOST: usize = 64;
/// The fewest messages of a period behind a step, and of all periods on average. With fewer, messages
/// were stored in another order.
pub(crate) const FEWEST: u64 = 10;

/// A place in the order of the file.
pub(crate) type Place = (u64, u64);

/// From this message of a channel on, the clock was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// The first message after it: offset of its block, and its number among the messages of the
    /// channel in the block.
    pub place: Place,
    /// Number of the message in its channel.
    pub message: u64,
    /// By how much the log times step back, in nanoseconds.
    pub by: i64,
    /// Added to the log times from here on, they continue those before the first step.
    pub shift: i64,
}

impl Step {
    /// The warning about the step in a topic.
    pub(crate) fn warning(&self, topic: &str) -> String {
        format!(
            "{topic}: the log times step back by {:.3} s at message {}, because the clock was set; \
             the messages are in the order of the recording",
            self.by as f64 / 1e9,
            self.message
        )
    }
}

/// How many steps of a channel are reported.
pub(crate) const LISTED: usize = 3;

/// What is added to the log time of the message at `place`, to have the messages of a channel with
/// these steps in the order of the recording.
pub(crate) fn shift(steps: &[Step], place: Place) -> i64 {
    let after = steps.partition_point(|step| step.place <= place);
    after.checked_sub(1).and_then(|n| steps.get(n)).map_or(0, |step| step.shift)
}

/// Messages whose log times rise without a pause.
#[derive(Clone, Copy, Debug)]
struct Period {
    place: Place,
    /// Number of its first message in the channel.
    message: u64,
    first: i64,
    last: i64,
    count: u64,
}

impl Period {
    /// The usual distance of its messages.
    fn distance(&self) -> i64 {
        self.last.saturating_sub(self.first) / (self.count.max(2) - 1) as i64
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// The log times of a channel, in the order of the file.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogTimes {
    periods: Vec<Period>,
    messages: u64,
    is_shuffled: bool,
}

impl LogTimes {
    /// Adds the next message.
    pub(crate) fn push(&mut self, place: Place, time: i64) {
        let message = self.messages;
        self.messages += 1;
        let count = self.periods.len();
        let previous = count.checked_sub(2).and_then(|n| self.periods.get(n)).map(Period::distance);
        if let Some(period) = self.periods.last_mut() {
            // The distance of few messages may be that of a pause.
            let distance = match period.count {
                ..4 => previous,
                _ => Some(period.distance()),
            };
            let is_pause = distance.is_some_and(|distance| {
                time.saturating_sub(period.last) > distance.saturating_mul(8)
            });
            if time >= period.last && !is_pause {
                period.last = time;
                period.count += 1;
                return;
            }
        }
        if self.periods.len() == MOST {
            self.is_shuffled = true;
            return;
        }
        self.periods.push(Period { place, message, first: time, last: time, count: 1 });
    }

    /// Where the clock was set back; empty if it was not, or the messages were stored in another
    /// order.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let periods = &self.periods;
        if self.is_shuffled || self.messages / (periods.len() as u64).max(1) < FEWEST {
            return Vec::new();
        }
        let distance = periods.iter().map(Period::distance).max().unwrap_or(0);
        let mut steps = Vec::new();
        let (mut end, mut shift) = (i64::MIN, 0);
        for (n, period) in periods.iter().enumerate() {
            let before = n.checked_sub(1).and_then(|n| periods.get(n));
            if let Some(before) = before.filter(|before| period.first < before.last) {
                if !is_step(periods, n, distance) {
                    return Vec::new();
                }
                let by = before.last.saturating_sub(period.first);
                shift = end.saturating_add(distance).saturating_sub(period.first);
                steps.push(Step { place: period.place, message: period.message, by, shift });
            }
            end = period.last.saturating_add(shift);
        }
        steps
    }
}

/// Whether the clock was set before period `n`, which begins before the end of the one before it.
fn is_step(periods: &[Period], n: usize, distance: i64) -> bool {
    let Some(period) = periods.get(n).filter(|period| period.count >= FEWEST) else {
        return false;
    };
    let others = || periods.iter().enumerate().filter(|(other, _)| *other != n).map(|(_, p)| p);
    if others().any(|other| other.overlaps(period)) {
        return true;
    }
    // Messages that were stored in another order continue each other.
    let limit = distance.saturating_mul(3);
    !others().any(|other| {
        let gap = if other.first > period.last {
            other.first.saturating_sub(period.last)
        } else {
            period.first.saturating_sub(other.last)
        };
        gap <= limit
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    /// Number of the message, step back, and shift of each step, in ms.
    fn steps(times_ms: impl IntoIterator<Item = i64>) -> Vec<(u64, i64, i64)> {
        let mut times = LogTimes::default();
        for (n, time) in (0..).zip(times_ms) {
            times.push((0, n), time * MS);
        }
        let steps = times.steps();
        steps.iter().map(|step| (step.message, step.by / MS, step.shift / MS)).collect()
    }

    fn period(first: i64, count: i64) -> impl Iterator<Item = i64> + Clone {
        (0..count).map(move |n| first + n * 50)
    }

    #[test]
    fn a_clock_that_is_set_is_told_from_messages_stored_in_another_order() {
        let none: Vec<(u64, i64, i64)> = Vec::new();
        assert_eq!(steps(period(0, 200)), none);
        // Half a distance off, and a multiple of it.
        assert_eq!(steps(period(0, 120).chain(period(975, 80))), [(120, 4975, 5025)]);
        assert_eq!(steps(period(0, 120).chain(period(1000, 80))), [(120, 4950, 5000)]);
        // Twice, and the second step reaches behind the first.
        let twice = period(10_000, 60).chain(period(11_000, 60)).chain(period(9000, 60));
        assert_eq!(steps(twice), [(60, 1950, 2000), (120, 4950, 7000)]);
        // By more than the recording is long.
        let far = period(3_600_000, 40).chain(period(0, 40));
        assert_eq!(steps(far), [(40, 3_601_950, 3_602_000)]);
        // A pause is no step, and does not hide one.
        let pause = period(0, 40).chain(period(9000, 40));
        assert_eq!(steps(pause.clone()), none);
        assert_eq!(steps(pause.chain(period(8975, 40))), [(80, 1975, 2025)]);
        // Blocks that were stored in another order.
        assert_eq!(steps(period(2000, 40).chain(period(0, 40))), none);
        let swapped = period(1000, 20).chain(period(0, 20));
        let swapped = swapped.chain(period(3000, 20)).chain(period(2000, 20));
        assert_eq!(steps(swapped), none);
        // Single messages that were stored late.
        let late = period(1000, 40).chain([0]).chain(period(3000, 40)).chain([50]);
        assert_eq!(steps(late), none);
        assert_eq!(steps(period(0, 40).chain([975]).chain(period(2000, 40))), none);
        // Messages that were shuffled.
        assert_eq!(steps((0..200).map(|n| (n * 7919) % 200 * 50)), none);
        assert_eq!(steps((0..200).map(|n| (n ^ 1) * 50)), none);
        assert_eq!(steps([5, 4, 3]), none);
        assert_eq!(steps([]), none);
    }
}
