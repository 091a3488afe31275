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

#[cfg(any(feature = "mcap", feature = "rosbag1"))]
mod blocks;
mod track;

use std::collections::HashMap;

#[cfg(any(feature = "mcap", feature = "rosbag1"))]
pub(crate) use self::blocks::BlockTimes;
use self::track::{Evidence, Finding, Track};

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
/// In recordings of more chunks the log times are read only if chunks overlap in time.
#[cfg(any(feature = "mcap", feature = "rosbag1"))]
pub(crate) const FEW_CHUNKS: usize = 256;
/// Bytes of chunks without an index that are read twice, because only their messages state the log
/// times.
#[cfg(any(feature = "mcap", feature = "rosbag1"))]
pub(crate) const READ_TWICE: u64 = 256 << 20;
/// Messages that are later than this, in nanoseconds, are not just out of order.
const USUAL: i64 = 1_000_000_000;

/// From this message on, log times are earlier.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    /// Of the first message after it.
    place: Place,
    topic: String,
    /// Number of the message in its track.
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

    /// The warnings about the steps.
    #[cfg(any(feature = "mcap", feature = "rosbag1", feature = "sqlite"))]
    pub(crate) fn warnings(&self) -> impl Iterator<Item = String> {
        /// How many steps are reported.
        const LISTED: usize = 3;
        let list = |steps: &[Step], rest: &str| {
            let text = |step: &Step| {
                format!(
                    "{}: the log times step back by {:.3} s at message {}, {rest}",
                    step.topic,
                    step.by as f64 / 1e9,
                    step.message
                )
            };
            let mut texts: Vec<_> = steps.iter().take(LISTED).map(text).collect();
            if let (Some(last), more @ 1..) = (texts.last_mut(), steps.len().saturating_sub(LISTED))
            {
                last.push_str(&format!("; and {more} more steps like this"));
            }
            texts
        };
        let set = "because the clock was set; the messages of all topics are in the order of the \
                   recording";
        let doubt = "and it is not known whether the clock was set; the messages are in the order \
                     of the log times: if it was set, those before and after the step are mixed up";
        list(&self.steps, set).into_iter().chain(list(&self.doubts, doubt))
    }
}

/// Where a message comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin<'a> {
    pub(crate) topic: &'a str,
    /// Whether its messages may be decoded to packets.
    pub(crate) is_camera: bool,
    /// The part of the file, if it consists of several recordings.
    pub(crate) part: usize,
    /// The number of its channel in the part.
    pub(crate) channel: u64,
}

/// The messages of a topic. Each publisher has a channel.
#[derive(Debug, Default)]
struct Topic {
    /// The tracks of its channels. A channel of another part is taken for the one that came as the
    /// same of its part.
    channels: Vec<Track>,
    /// The channels of the last part.
    numbers: Vec<u64>,
    part: usize,
    /// All channels together: `None` with one channel, or if their messages were not stored in the
    /// order in which they came, as those of writers that keep runs of each publisher.
    joined: Option<Track>,
}

impl Topic {
    /// `new`: makes the track of a channel.
    fn push(&mut self, origin: Origin<'_>, place: Place, time: i64, new: impl FnOnce() -> Track) {
        if self.part != origin.part {
            (self.part, self.numbers) = (origin.part, Vec::new());
        }
        let known = self.numbers.iter().position(|number| *number == origin.channel);
        let channel = known.unwrap_or_else(|| {
            self.numbers.push(origin.channel);
            self.numbers.len() - 1
        });
        if channel == self.channels.len() {
            self.channels.push(new());
            if channel == 1 {
                self.joined = self.channels.first().cloned();
            }
        }
        let Some(track) = self.channels.get_mut(channel) else { return };
        let is_back = track.push(origin.part, place, time);
        if let Some(joined) = &mut self.joined
            && joined.push(origin.part, place, time)
            && !is_back
        {
            self.joined = None;
        }
    }

    fn tracks(&self) -> &[Track] {
        self.joined.as_ref().map_or(&self.channels, std::slice::from_ref)
    }
}

/// The log times of a recording, in the order of the file.
#[derive(Debug, Default)]
pub(crate) struct LogTimes {
    topics: HashMap<String, Topic>,
    /// Number of channels that are no cameras.
    others: usize,
}

impl LogTimes {
    /// Adds the next message.
    pub(crate) fn push(&mut self, origin: Origin<'_>, place: Place, time: i64) {
        let Self { topics, others } = self;
        let is_camera = origin.is_camera;
        let new = || {
            *others += usize::from(!is_camera);
            Track::new(is_camera, is_camera || *others <= OTHERS)
        };
        if let Some(topic) = topics.get_mut(origin.topic) {
            topic.push(origin, place, time, new);
        } else {
            topics.entry(origin.topic.into()).or_default().push(origin, place, time, new);
        }
    }

    /// Where the clock was set back; nowhere if the messages were stored in another order.
    pub(crate) fn steps(&self) -> ClockSteps {
        let mut topics = Vec::new();
        for (name, topic) in &self.topics {
            let tracks = topic.tracks().iter().filter(|track| !track.is_shuffled());
            topics.extend(tracks.map(|track| (name, track)));
        }
        topics.sort_by_key(|(topic, _)| *topic);
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
                    _ => return ClockSteps { steps: Vec::new(), ..found },
                }
            }
            let Some((message, by)) = track.step_back(index) else { continue };
            let all = |by| {
                let all = topics.iter().zip(&times);
                all.filter_map(move |((_, track), times)| {
                    Some((track.is_camera, Evidence::of(times, track.index(place), by)?))
                })
            };
            // Most of the time goes into the comparison of distances.
            let messages: u64 = all(None).map(|(_, evidence)| evidence.messages).sum();
            if messages < FEWEST && !(track.is_camera && by >= USUAL) {
                continue;
            }
            let is_border = track.is_border(index);
            let votes = Votes::count(all(Some(first.by())), is_border);
            let step = |shift| Step { place, topic: (*topic).clone(), message, by, shift };
            if votes.is_step() {
                set += votes.set;
                shift = shift.saturating_add(votes.shift());
                found.steps.push(step(shift));
                for ((_, track), times) in topics.iter().zip(&mut times) {
                    let after = times.get_mut(track.index(place)..).unwrap_or_default();
                    after.iter_mut().for_each(|time| *time = time.saturating_add(votes.shift()));
                }
                continue;
            }
            if votes.stored >= FEWEST && !is_border {
                stored += votes.stored;
            }
            let is_open = votes.stored == votes.continues && votes.against == 0;
            if is_open && track.is_camera && by >= USUAL {
                found.doubts.push(step(0));
            }
        }
        if stored > set || found.steps.len() > MOST {
            found.steps.clear();
        }
        found
    }
}

/// What the topics show about a step back.
#[derive(Debug, Default)]
struct Votes {
    /// Messages that the clock brought out of order, and those of cameras among them.
    set: u64,
    set_of_cameras: u64,
    /// Messages that were stored in another order, and those among them that may not have been.
    stored: u64,
    continues: u64,
    /// Messages of topics whose log times would step as well if the clock was set, and do not, and
    /// those of cameras among them.
    against: u64,
    against_of_cameras: u64,
    /// The most by which log times step back.
    by: i64,
    /// The least distance of messages.
    distance: Option<i64>,
}

impl Votes {
    /// Counts what topics show, and whether they are cameras. `is_border`: another part of the file
    /// begins behind the step.
    fn count(all: impl Iterator<Item = (bool, Evidence)>, is_border: bool) -> Self {
        let mut votes = Self::default();
        for (is_camera, evidence) in all {
            let messages = evidence.messages;
            let of_camera = if is_camera { messages } else { 0 };
            match evidence.finding {
                Finding::Against => {
                    votes.against += messages;
                    votes.against_of_cameras += of_camera;
                }
                // Recordings may be one behind the other in any order.
                Finding::Set { mixes: false } | Finding::Continues if is_border => {
                    votes.stored += messages;
                }
                Finding::Stored => votes.stored += messages,
                Finding::Continues => {
                    votes.stored += messages;
                    votes.continues += messages;
                }
                Finding::Set { .. } => {
                    votes.set += messages;
                    votes.set_of_cameras += of_camera;
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
            && self.set > self.stored.max(self.against)
            && (self.set_of_cameras > 0 || self.against_of_cameras == 0)
            && (self.against + self.stored == 0 || self.set >= ENOUGH)
    }

    /// What is added to the log times after the step.
    fn shift(&self) -> i64 {
        self.by.saturating_add(self.distance.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests;
