//! Finds where the recorder's clock was set back.
//!
//! Messages are stored in the order in which they were recorded. If the log times of a topic step
//! back, either the clock was set, and the order of the file is right; or the messages were stored
//! in another order, and that of the log times is right. After a step of the clock the messages of
//! both periods mix in log-time order, or the periods are far apart; messages that were stored in
//! another order fill each other's gaps.
//!
//! The clock is that of the recorder, so a step is looked for in all topics together, and applies
//! to all of them.

mod track;

use std::collections::HashMap;

use self::track::{Evidence, Track};

/// A place in the order of the file: offset of the block, offset in the block.
pub(crate) type Place = (u64, u64);

/// The most steps of a recording. With more, messages were stored in another order.
const MOST: usize = 64;
/// How many steps back are examined. With more, messages were stored in another order.
const EXAMINED: usize = 256;
/// How many of other topics than cameras are looked at.
const OTHERS: usize = 64;
/// The fewest messages that a step must bring out of order, in all topics together.
pub(crate) const FEWEST: u64 = 3;
/// So many outweigh topics whose log times do not step.
const ENOUGH: u64 = 10;
/// Messages that are later than this, in nanoseconds, are not just out of order.
const USUAL: i64 = 1_000_000_000;

/// From this message on, log times are earlier.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    /// Of the first message after it.
    place: Place,
    topic: String,
    /// Number of the message in its topic.
    message: u64,
    /// By how much the log times step back, in nanoseconds.
    by: i64,
    /// Added to the log times from here on, they continue those before the first step.
    shift: i64,
}

/// Where the clock of a recording was set back.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClockSteps {
    /// In the order of the file.
    steps: Vec<Step>,
    /// Steps that are not applied, although they may be steps of the clock.
    doubts: Vec<Step>,
}

impl ClockSteps {
    /// What is added to the log time of the message at `place`, to have the messages in the order
    /// of the recording.
    #[cfg(any(feature = "mcap", feature = "rosbag1", feature = "sqlite"))]
    pub(crate) fn shift(&self, place: Place) -> i64 {
        let after = self.steps.partition_point(|step| step.place <= place);
        after.checked_sub(1).and_then(|n| self.steps.get(n)).map_or(0, |step| step.shift)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The warning about steps in `part` that were found too late to be applied.
    #[cfg(any(feature = "mcap", feature = "rosbag1"))]
    pub(crate) fn not_applied(&self, part: &str) -> Option<String> {
        let step = self.steps.first()?;
        Some(format!(
            "{}: the log times step back by {:.3} s within {part}, probably because the clock was \
             set; the messages are in the order of the log times, which may mix up those before \
             and after the step",
            step.topic,
            step.by as f64 / 1e9
        ))
    }

    /// The warnings about the steps.
    #[cfg(any(feature = "mcap", feature = "rosbag1", feature = "sqlite"))]
    pub(crate) fn warnings(&self) -> impl Iterator<Item = String> {
        /// How many steps are reported.
        const LISTED: usize = 3;
        let text = |step: &Step, rest: &str| {
            format!(
                "{}: the log times step back by {:.3} s at message {}, {rest}",
                step.topic,
                step.by as f64 / 1e9,
                step.message
            )
        };
        let set = "because the clock was set; the messages of all topics are in the order of the \
                   recording";
        let doubt = "and it is not known whether the clock was set; the messages are in the order \
                     of the log times";
        let steps = self.steps.iter().take(LISTED).map(move |step| text(step, set));
        steps.chain(self.doubts.iter().take(LISTED).map(move |step| text(step, doubt)))
    }
}

/// The log times of a recording, in the order of the file.
#[derive(Debug, Default)]
pub(crate) struct LogTimes {
    tracks: Vec<Track>,
    by_topic: HashMap<String, usize>,
    others: usize,
}

impl LogTimes {
    /// Adds the next message. Channels of one topic count as one.
    pub(crate) fn push(&mut self, topic: &str, is_camera: bool, place: Place, time: i64) {
        let known = self.by_topic.get(topic).copied().unwrap_or_else(|| {
            let new = self.tracks.len();
            self.by_topic.insert(topic.into(), new);
            self.others += usize::from(!is_camera);
            self.tracks.push(Track::new(is_camera, is_camera || self.others <= OTHERS));
            new
        });
        if let Some(track) = self.tracks.get_mut(known) {
            track.push(place, time);
        }
    }

    /// Where the clock was set back; nowhere if the messages were stored in another order.
    pub(crate) fn steps(&self) -> ClockSteps {
        let topics =
            self.by_topic.iter().filter_map(|(topic, n)| Some((topic, self.tracks.get(*n)?)));
        let mut topics: Vec<_> = topics.filter(|(_, track)| !track.is_shuffled()).collect();
        topics.sort_unstable_by_key(|(topic, _)| *topic);
        let places = topics.iter().enumerate().flat_map(|(n, (_, track))| {
            track.steps_back().map(move |(place, index)| (place, n, index))
        });
        let mut places: Vec<_> = places.collect();
        places.sort_unstable();
        // Log times as if the clock had not been set.
        let mut times: Vec<Vec<i64>> = topics.iter().map(|(_, track)| track.times()).collect();
        let (mut found, mut shift) = (ClockSteps::default(), 0i64);
        let (mut examined, mut late) = (0, 0);
        let (mut set, mut stored) = (0, 0);
        for (place, n, index) in places {
            let (Some((topic, track)), Some(of_topic)) = (topics.get(n), times.get(n)) else {
                continue;
            };
            // An earlier step may explain it.
            let is_back = of_topic.get(index) < index.checked_sub(1).and_then(|n| of_topic.get(n));
            let first = Evidence::of(of_topic, index, None).filter(|_| is_back);
            let Some(first) = first else { continue };
            // Single late messages are usual.
            let seen = if first.messages == 1 { &mut late } else { &mut examined };
            *seen += 1;
            if *seen > EXAMINED {
                match first.messages {
                    1 => continue,
                    _ => return ClockSteps::default(),
                }
            }
            let Some((message, by)) = track.step_back(index) else { continue };
            let all = |by| {
                let all = topics.iter().zip(&times);
                all.filter_map(move |((_, track), times)| {
                    Evidence::of(times, track.index(place), by)
                })
            };
            // Most of the time goes into the comparison of distances.
            let messages: u64 = all(None).map(|evidence| evidence.messages).sum();
            if messages < FEWEST && !(track.is_camera && by >= USUAL) {
                continue;
            }
            let votes = Votes::count(all(Some(first.by())));
            let step = |shift| Step { place, topic: (*topic).clone(), message, by, shift };
            if votes.is_step() {
                set += votes.set;
                shift = shift.saturating_add(votes.shift());
                found.steps.push(step(shift));
                for ((_, track), times) in topics.iter().zip(&mut times) {
                    let after = times.get_mut(track.index(place)..).unwrap_or_default();
                    after.iter_mut().for_each(|time| *time = time.saturating_add(votes.shift()));
                }
            } else if votes.stored >= FEWEST {
                stored += votes.stored;
            } else if votes.stored == 0 && votes.against == 0 && track.is_camera && by >= USUAL {
                found.doubts.push(step(0));
            }
        }
        match stored > set || found.steps.len() > MOST {
            true => ClockSteps::default(),
            false => found,
        }
    }
}

/// What the topics show about a step back.
#[derive(Debug, Default)]
struct Votes {
    /// Messages that the clock brought out of order.
    set: u64,
    /// Messages that were stored in another order.
    stored: u64,
    /// Messages of topics whose log times would step as well if the clock was set, and do not.
    against: u64,
    /// The most by which log times step back.
    by: i64,
    /// The least distance of messages.
    distance: Option<i64>,
}

impl Votes {
    fn count(all: impl Iterator<Item = Evidence>) -> Self {
        let mut votes = Self::default();
        for evidence in all {
            match evidence {
                Evidence { is_against: true, messages, .. } => votes.against += messages,
                Evidence { is_stored: true, messages, .. } => votes.stored += messages,
                evidence => {
                    votes.set += evidence.messages;
                    votes.by = votes.by.max(evidence.by());
                    let least = votes.distance.into_iter().chain([evidence.distance]);
                    votes.distance = least.min();
                }
            }
        }
        votes
    }

    fn is_step(&self) -> bool {
        self.set >= FEWEST
            && self.set > self.stored
            && (self.against + self.stored == 0 || self.set >= ENOUGH)
    }

    /// What is added to the log times after the step.
    fn shift(&self) -> i64 {
        self.by.saturating_add(self.distance.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests;
