//! The repairs of a stream's stamps, and how they are applied in the second pass.

use std::sync::Arc;

use super::{Clock, FrameTimes};

/// How many frames or jumps are listed individually.
pub(super) const LISTED: usize = 10;

/// A longer pause inside a recording is not believed, whatever both clocks state.
pub(super) const LONGEST_PAUSE_NS: i128 = 7 * 86_400 * 1_000_000_000;

/// A frame whose time is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Good {
    /// Its time by the clock in use, after repairs.
    pub at: i128,
    /// Its stamp by the other clock.
    pub other: Option<i128>,
}

/// Consecutive frames whose stamps cannot be true.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub first: u64,
    /// The frame after them.
    pub end: u64,
    /// The good frames before and after them.
    pub from: Option<Good>,
    pub to: Option<Good>,
    /// The usual distance of two frames.
    pub usual: i128,
    /// The speed of the clock compared with the other clock, if they can be compared.
    pub ratio: Option<f64>,
}

impl Run {
    /// The time of a frame: between the good frames around it as by the other clock, or evenly.
    pub fn place(&self, index: u64, other: Option<i128>) -> i128 {
        let number = i128::from(index - self.first) + 1;
        let left = i128::from(self.end - index);
        // From a good frame to this frame by the other clock.
        let distance = |good: Good, sign: i128| {
            let distance = (other? - good.other?) * sign;
            let scaled = (distance as f64 * self.ratio?) as i128;
            Some(scaled).filter(|distance| (1..=LONGEST_PAUSE_NS).contains(distance))
        };
        match (self.from, self.to) {
            (Some(from), Some(to)) => {
                let even = number as f64 / (number + left) as f64;
                let by_other = other.zip(from.other).zip(to.other).and_then(|((now, a), b)| {
                    let is_between = a <= now && now <= b && a < b && self.ratio.is_some();
                    is_between.then(|| (now - a) as f64 / (b - a) as f64)
                });
                // Not at the time of a good frame, which would have to move.
                let part = by_other.unwrap_or(even).clamp(0.01 * even, 0.99 + 0.01 * even);
                from.at + ((to.at - from.at) as f64 * part) as i128
            }
            (Some(from), None) => from.at + distance(from, 1).unwrap_or(self.usual * number),
            (None, Some(to)) => to.at - distance(to, -1).unwrap_or(self.usual * left),
            (None, None) => other.unwrap_or_default(),
        }
    }
}

/// A change of the clock that was taken back.
#[derive(Clone, Debug)]
pub(super) struct Jump {
    /// The first frame after it.
    pub frame: u64,
    /// From the last good stamp to that of the frame, as recorded.
    pub by: i128,
    /// Added to the stamps from this frame on.
    shift: i128,
    /// The distance of the frame from the frame before it, after the repair.
    distance: i128,
}

/// All repairs of a stream, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Repairs {
    pub runs: Vec<Run>,
    pub jumps: Vec<Jump>,
    /// Subtracted from all times: the stamps of most frames are not changed.
    pub base: i128,
}

impl Repairs {
    pub fn len(&self) -> usize {
        self.runs.len() + self.jumps.len()
    }

    pub fn add_jump(&mut self, frame: u64, by: i128, shift: i128, distance: i128) {
        self.jumps.push(Jump { frame, by, shift, distance });
    }

    /// Warnings about the repairs, and the number of repaired frames and jumps.
    pub fn describe(&self, clock: Clock) -> (Vec<String>, u64) {
        let mut warnings = Vec::new();
        let clock = clock.name();
        let frames: u64 = self.runs.iter().map(|run| run.end - run.first).sum();
        if frames > 0 {
            let mut list: Vec<_> = self.runs.iter().take(LISTED).map(Run::name).collect();
            if self.runs.len() > LISTED {
                list.push("…".into());
            }
            let (subject, have) = if frames == 1 { ("frame", "has") } else { ("frames", "have") };
            warnings.push(format!(
                "{subject} {} {have} no usable stamp among the {clock}: the time was estimated \
                 from the frames around and the other clock, no other frame was moved",
                list.join(", ")
            ));
        }
        for Jump { frame, by, distance, .. } in self.jumps.iter().take(LISTED) {
            warnings.push(format!(
                "the {clock} {} at frame {frame}, which is no pause: the frame was put {:.3} s \
                 behind the frame before it, and the distances after it are kept",
                step(*by),
                seconds(*distance)
            ));
        }
        if self.jumps.len() > LISTED {
            let more = self.jumps.len() - LISTED;
            warnings.push(format!("the {clock} have {more} more such jumps"));
        }
        (warnings, frames + self.jumps.len() as u64)
    }
}

/// How a clock is set, for messages.
pub(super) fn step(by: i128) -> String {
    let how = if by < 0 { "step back" } else { "jump ahead" };
    format!("{how} by {:.3} s", seconds(by.abs()))
}

pub(super) fn seconds(ns: i128) -> f64 {
    ns as f64 / 1e9
}

impl Run {
    fn name(&self) -> String {
        name(self.first, self.end)
    }
}

/// The numbers of the frames from `first` up to the one before `end`.
pub(super) fn name(first: u64, end: u64) -> String {
    match end - 1 {
        last if last == first => last.to_string(),
        last => format!("{first} to {last}"),
    }
}

/// Applies repairs to the frames of a stream, in order.
#[derive(Clone, Debug)]
pub(super) struct Repairer {
    clock: Clock,
    repairs: Arc<Repairs>,
    frames: u64,
    /// Runs and jumps that are over or have begun.
    runs: usize,
    jumps: usize,
    shift: i128,
}

impl Repairer {
    pub fn new(clock: Clock, repairs: Arc<Repairs>) -> Self {
        Self { clock, repairs, frames: 0, runs: 0, jumps: 0, shift: 0 }
    }

    /// The time of the next frame, in nanoseconds.
    pub fn next(&mut self, times: &FrameTimes) -> i64 {
        let index = self.frames;
        self.frames += 1;
        let repairs = &*self.repairs;
        if let Some(jump) = repairs.jumps.get(self.jumps).filter(|jump| jump.frame == index) {
            self.jumps += 1;
            self.shift = jump.shift;
        }
        while repairs.runs.get(self.runs).is_some_and(|run| run.end <= index) {
            self.runs += 1;
        }
        let other = match self.clock {
            Clock::Header => Some(times.log_ns),
            Clock::Log => times.header_ns,
        };
        let at = match repairs.runs.get(self.runs).filter(|run| run.first <= index) {
            Some(run) => run.place(index, other.map(i128::from)),
            None => i128::from(times.stamp(self.clock)).saturating_add(self.shift),
        };
        clamp(at - repairs.base)
    }
}

/// The nearest value of 64 bits.
pub(super) fn clamp(ns: i128) -> i64 {
    ns.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}
