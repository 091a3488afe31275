//! The log times of a channel or of a topic.

use super::Place;

/// How many messages of a camera, and of another topic, are kept. Of more, every second, fourth …
/// is kept, and those where the log times step back.
const KEPT: usize = 1 << 17;
const KEPT_OF_OTHERS: usize = 1 << 14;
/// The fewest messages between steps back, on average. With fewer, messages were stored in another
/// order.
const RUN: u64 = 6;
/// The fewest messages of a topic whose log times do not step that are evidence.
const AGAINST: u64 = 4;
/// So many messages in a row that are in order end the search for those that are not.
const QUIET: usize = 64;
/// Messages up to so many distances apart are neighbours.
const NEAR: i64 = 8;
/// How many messages are counted for and against a step.
const COUNTED: usize = 16;
/// How many distances are compared.
const DISTANCES: usize = 256;

/// A message.
#[derive(Clone, Copy, Debug)]
struct Entry {
    place: Place,
    time: i64,
    /// Its number in the track.
    message: u64,
    /// The part of the file.
    part: usize,
}

/// The messages of a channel or of a topic, in the order of the file.
#[derive(Clone, Debug)]
pub(super) struct Track {
    pub(super) is_camera: bool,
    entries: Vec<Entry>,
    last: Option<Entry>,
    messages: u64,
    /// How often the log times step back.
    back: u64,
    /// One in so many messages is kept.
    stride: u64,
    most: usize,
}

impl Track {
    /// `is_kept`: its messages are of use.
    pub(super) fn new(is_camera: bool, is_kept: bool) -> Self {
        let most = if is_camera { KEPT } else { KEPT_OF_OTHERS };
        let most = if is_kept { most } else { 0 };
        Self { is_camera, entries: Vec::new(), last: None, messages: 0, back: 0, stride: 1, most }
    }

    /// Adds the next message. Returns whether the log times step back.
    pub(super) fn push(&mut self, part: usize, place: Place, time: i64) -> bool {
        let entry = Entry { place, time, message: self.messages, part };
        let before = self.last.replace(entry).filter(|before| time < before.time);
        self.messages += 1;
        if let Some(before) = before {
            self.back += 1;
            if self.entries.last().is_none_or(|last| last.message < before.message) {
                self.keep(before);
            }
        }
        if before.is_some() || entry.message.is_multiple_of(self.stride) {
            self.keep(entry);
        }
        before.is_some()
    }

    fn keep(&mut self, entry: Entry) {
        if self.entries.len() >= self.most {
            self.thin_out();
        }
        if self.entries.len() < self.most {
            self.entries.push(entry);
        }
    }

    fn thin_out(&mut self) {
        self.stride = self.stride.saturating_mul(2);
        let time = |n: Option<usize>| n.and_then(|n| self.entries.get(n)).map(|entry| entry.time);
        let is_kept = |(n, entry): &(usize, &Entry)| {
            let (before, after) = (time(n.checked_sub(1)), time(n.checked_add(1)));
            before.is_some_and(|before| entry.time < before)
                || after.is_some_and(|after| after < entry.time)
                || entry.message.is_multiple_of(self.stride)
        };
        let kept = self.entries.iter().enumerate().filter(is_kept).map(|(_, entry)| *entry);
        self.entries = kept.collect();
        if self.entries.len() > self.most / 4 * 3 {
            // The log times step back all the time.
            (self.entries, self.most) = (Vec::new(), 0);
        }
    }

    /// Whether its messages were stored in any order.
    pub(super) fn is_shuffled(&self) -> bool {
        self.most == 0 || self.back.saturating_mul(RUN) > self.messages
    }

    /// Where the log times step back: place and index of each first message after it.
    pub(super) fn steps_back(&self) -> impl Iterator<Item = (Place, usize)> {
        let pairs = self.entries.iter().zip(self.entries.iter().skip(1)).zip(1..);
        let back = pairs.filter(|((before, after), _)| after.time < before.time);
        back.map(|((_, after), index)| (after.place, index))
    }

    /// Whether another part of the file begins with the message at an index.
    pub(super) fn is_border(&self, index: usize) -> bool {
        let part = |index: Option<usize>| self.entries.get(index?).map(|entry| entry.part);
        part(Some(index)) != part(index.checked_sub(1))
    }

    /// Number of the message at an index, and by how much the log times step back to it.
    pub(super) fn step_back(&self, index: usize) -> Option<(u64, i64)> {
        let (before, after) = (self.entries.get(index.checked_sub(1)?)?, self.entries.get(index)?);
        Some((after.message, before.time.saturating_sub(after.time)))
    }

    /// The index of the first message at or behind a place.
    pub(super) fn index(&self, place: Place) -> usize {
        self.entries.partition_point(|entry| entry.place < place)
    }

    /// The log times of the first and the last message.
    #[cfg(any(feature = "mcap", feature = "rosbag1"))]
    pub(super) fn ends(&self) -> Option<(i64, i64)> {
        Some((self.entries.first()?.time, self.last?.time))
    }

    pub(super) fn times(&self) -> Vec<i64> {
        self.entries.iter().map(|entry| entry.time).collect()
    }
}

/// What the log times of a topic show about a step back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// The clock was set. `mixes`: the log times of both periods mix.
    Set { mixes: bool },
    /// Messages were stored in another order.
    Stored,
    /// Messages were probably stored in another order: they continue those before them or those
    /// behind them, but do not fill a gap.
    Continues,
    /// The log times do not step, and would if the clock was set.
    Against,
}

/// What the log times of a topic show about a step of the clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evidence {
    /// Number of messages behind the step that are out of order, or of those before it if these are
    /// fewer. Of a topic that does not step: of messages that would be.
    pub(super) messages: u64,
    pub(super) finding: Finding,
    /// The usual distance of the messages.
    pub(super) distance: i64,
    /// The first log time behind the step, and the last before it.
    first: i64,
    latest: i64,
}

impl Evidence {
    /// Examines a step back in `times` before the message at `index`. `by`: how far the clock would
    /// have been set; without it, only the messages are counted. `None` if nothing is out of order.
    pub(super) fn of(times: &[i64], index: usize, by: Option<i64>) -> Option<Self> {
        let (before, after) = times.split_at_checked(index)?;
        let first = *after.first()?;
        let near = by.map_or(0, |by| near(before, after, by));
        let is_against = |messages: u64| near >= AGAINST && messages.saturating_mul(4) <= near;
        let finding = Finding::Against;
        let against = Self { messages: near, finding, distance: 0, first, latest: first };
        let (mut earlier, mut latest, mut quiet) = (0u64, i64::MIN, 0);
        for time in before.iter().rev() {
            if *time > first {
                (earlier, latest, quiet) = (earlier + 1, latest.max(*time), 0);
            } else {
                quiet += 1;
            }
            if quiet == QUIET {
                break;
            }
        }
        if earlier == 0 {
            return is_against(0).then_some(against);
        }
        let most = earlier.saturating_mul(2).saturating_add(8);
        let Period { times: later, len, top, end } = period(after, latest, most);
        let messages = earlier.min(later.len() as u64);
        if is_against(messages) {
            return Some(against);
        }
        let distance = distance(before, &later);
        let (within, behind) = after.split_at_checked(end).unwrap_or((after, &[]));
        // The rest of the period is no other message.
        let within = within.iter().filter(|time| **time >= latest);
        let others = before.iter().chain(within).chain(behind).copied();
        // Messages that were stored late have others between them and behind them.
        let last = later.last().copied().unwrap_or(first);
        let jump = after.get(len).map_or(0, |time| time.saturating_sub(last));
        let is_late =
            later.len() * 2 < len || (later.len() == 1 && jump > distance.saturating_mul(NEAR));
        let finding = match by {
            None => Finding::Set { mixes: true },
            Some(_) if is_late => Finding::Stored,
            Some(_) => meet(&later, top, others, distance),
        };
        Some(Self { messages, finding, distance, first, latest })
    }

    /// By how much the log times step back.
    pub(super) fn by(&self) -> i64 {
        self.latest.saturating_sub(self.first)
    }
}

/// How many messages are within `by` before and behind a place, the fewer of both.
fn near(before: &[i64], after: &[i64], by: i64) -> u64 {
    let (Some(last), Some(first)) = (before.last(), after.first()) else { return 0 };
    let (start, end) = (last.saturating_sub(by), first.saturating_add(by));
    let before = before.iter().rev().take(COUNTED).take_while(|time| **time > start).count();
    let after = after.iter().take(COUNTED).take_while(|time| **time < end).count();
    before.min(after) as u64
}

/// The messages behind a step, up to the next step.
struct Period {
    /// The log times before `latest`, in their order, at most `most`.
    times: Vec<i64>,
    /// Number of these messages with the others between them.
    len: usize,
    /// The greatest of all log times before `latest`.
    top: i64,
    /// Number of all messages.
    end: usize,
}

fn period(after: &[i64], latest: i64, most: u64) -> Period {
    let mut last = i64::MIN;
    let is_step = |(n, time): (usize, &i64)| {
        // A single late message is no step.
        let is_back = |time: &i64| *time < last;
        let is_step = is_back(time) && after.get(n + 1).is_some_and(is_back);
        last = last.max(*time);
        is_step
    };
    let end = after.iter().enumerate().position(is_step).unwrap_or(after.len());
    let (mut times, mut len, mut top, mut quiet) = (Vec::new(), 0, i64::MIN, 0);
    for (n, time) in after.iter().enumerate().take(end) {
        if *time < latest {
            (top, quiet) = (top.max(*time), 0);
            if (times.len() as u64) < most {
                times.push(*time);
                len = n + 1;
            }
        } else {
            quiet += 1;
        }
        if quiet == QUIET {
            break;
        }
    }
    times.sort_unstable();
    Period { times, len, top, end }
}

/// The usual distance of the messages around a step.
fn distance(before: &[i64], later: &[i64]) -> i64 {
    let nearest = before.get(before.len().saturating_sub(DISTANCES)..).unwrap_or_default();
    let later = later.get(..later.len().min(DISTANCES)).unwrap_or_default();
    let pairs = nearest.windows(2).chain(later.windows(2));
    let distance = |pair: &[i64]| match pair {
        [a, b] if a <= b => Some(b.saturating_sub(*a)),
        _ => None,
    };
    let mut distances: Vec<_> = pairs.filter_map(distance).collect();
    distances.sort_unstable();
    distances.get(distances.len() / 2).copied().unwrap_or(0)
}

/// How messages meet others in log-time order: if they were stored in another order, they are in the
/// gaps of the others, and their distances are the usual ones where they meet. `times` rise, and are
/// the first of those up to `top`.
fn meet(times: &[i64], top: i64, others: impl Iterator<Item = i64>, distance: i64) -> Finding {
    let is_set = Finding::Set { mixes: false };
    let (Some(first), Some(last)) = (times.first(), times.last()) else { return is_set };
    let (mut below, mut above) = (None, None);
    let mut all: Vec<(i64, bool)> = times.iter().map(|time| (*time, true)).collect();
    for time in others {
        if time < *first {
            below = below.max(Some(time));
        } else if time > *last {
            above = above.into_iter().chain([time]).min();
        } else {
            all.push((time, false));
        }
    }
    let is_apart = all.len() == times.len();
    all.extend((top > *last).then_some((top, true)));
    let above = above.filter(|above| *above > top);
    all.extend(below.into_iter().chain(above).map(|time| (time, false)));
    all.sort_unstable();
    let pairs = all.iter().zip(all.iter().skip(1)).filter(|(a, b)| a.1 != b.1);
    let gaps: Vec<_> = pairs.map(|(a, b)| b.0.saturating_sub(a.0)).collect();
    let longest = distance.saturating_mul(NEAR);
    let stored = |is_stored: bool, mixes: bool| match is_stored {
        true => Finding::Stored,
        false => Finding::Set { mixes },
    };
    if let ([below, above], 1) = (gaps.as_slice(), times.len()) {
        // Two distances, if the message is missing there.
        let gap = below.saturating_add(*above);
        let two = (distance / 2).saturating_mul(3);
        return stored(gap > two && below.min(above) <= &longest, !is_apart);
    }
    if is_apart {
        let near = gaps.iter().filter(|gap| **gap <= longest).count();
        return match near {
            0 => is_set,
            2 => Finding::Stored,
            _ => Finding::Continues,
        };
    }
    // Whole blocks meet at few places only.
    let shortest = if gaps.len() * 2 <= times.len() { 0 } else { distance / 8 * 5 };
    let usual = gaps.iter().filter(|gap| (shortest..=longest).contains(*gap)).count();
    stored(usual * 4 > gaps.len() * 3, true)
}
