//! Judges the stamps of one clock over a whole stream, without storing them.
//!
//! A stamp is plausible if it is later than the last good stamp, and not much later than the other
//! clock allows. Frames with an implausible stamp are held until the stream shows what is wrong:
//! - If a later stamp is plausible again, the held stamps were bad. Their frames are placed between
//!   the good frames around them; no other frame moves.
//! - If several held stamps in a row are plausible among themselves, the clock was set. The jump is
//!   closed: all later stamps are shifted by the same amount.

use super::{
    Clock, FrameTimes, SHORTEST_NS,
    repair::{Good, LONGEST_PAUSE_NS, Repairs, Run},
    track::Track,
};

/// Frames from which the usual distance of two frames is computed.
const HEAD: usize = 64;
/// Stamps in a row that are plausible among themselves after a jump: the clock was set.
pub(super) const LINE: usize = 10;
/// The most frames whose stamps are in doubt at a time.
const MOST_HELD: usize = 16_384;
/// The most repairs of a stream.
const MOST_REPAIRS: usize = 10_000;
/// A stamp may be this much later than the other clock allows, or eight usual distances.
const TOLERANCE_NS: i128 = 1_000_000_000;
const SECOND_NS: i128 = 1_000_000_000;

/// The stamp of a frame by the clock that is judged, and by the other clock, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub stamp: Option<i128>,
    pub other: Option<i128>,
}

impl Sample {
    pub fn new(times: &FrameTimes, clock: Clock) -> Self {
        let (header, log) = (times.header_ns.map(i128::from), Some(i128::from(times.log_ns)));
        match clock {
            Clock::Header => Self { stamp: header, other: log },
            Clock::Log => Self { stamp: log, other: header },
        }
    }
}

/// The usual distances of the first frames.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scale {
    /// Median distance of the stamps.
    usual: i128,
    /// The same of the other clock; `None` if the other clock cannot be compared with.
    other: Option<i128>,
    /// Nanoseconds of the judged clock in a nanosecond of the other clock: simulated time may be
    /// slower or faster.
    ratio: f64,
    /// The judged clock is that of the recorder, which may receive a frame at any time later.
    is_receiver: bool,
}

impl Scale {
    /// The scale of clocks of the same speed.
    pub fn even(usual: i128, clock: Clock) -> Self {
        Self { usual, other: Some(usual), ratio: 1.0, is_receiver: clock == Clock::Log }
    }

    fn of(head: &[Sample], clock: Clock) -> Self {
        let gaps = |of: fn(&Sample) -> Option<i128>| {
            let pairs = head.windows(2).filter_map(move |w| Some(of(&w[1])? - of(&w[0])?));
            pairs.collect::<Vec<_>>()
        };
        let median = |mut gaps: Vec<i128>| {
            gaps.retain(|gap| *gap > 0);
            gaps.sort_unstable();
            gaps.get(gaps.len() / 2).copied()
        };
        let others = gaps(|sample| sample.other);
        let rising = others.iter().filter(|gap| **gap > 0).count();
        let is_usable = rising > 0 && 2 * rising >= head.len() - 1;
        let other = median(others).filter(|_| is_usable);
        let usual = median(gaps(|sample| sample.stamp)).or(other).unwrap_or_default();
        // Pauses and jumps tell nothing about the speed of a clock.
        let (mut own_sum, mut other_sum) = (0, 0);
        for w in head.windows(2) {
            let distances = w[1].stamp.zip(w[0].stamp).zip(w[1].other.zip(w[0].other));
            if let Some(((b, a), (d, c))) = distances
                && (1..=8 * usual).contains(&(b - a))
                && d > c
            {
                own_sum += b - a;
                other_sum += d - c;
            }
        }
        let ratio = own_sum as f64 / other_sum as f64;
        let ratio = match ratio {
            // The usual deviation of two clocks over a few frames.
            _ if (0.8..1.25).contains(&ratio) => 1.0,
            ratio if ratio.is_finite() && ratio > 0.0 => ratio,
            _ => 1.0,
        };
        Self { usual, other, ratio, is_receiver: clock == Clock::Log }
    }

    fn tolerance(&self) -> i128 {
        TOLERANCE_NS.max(8 * self.usual)
    }
}

/// The stamps of one clock.
#[derive(Clone, Debug)]
pub(super) struct Judge {
    clock: Clock,
    /// The first frames, until the scale is known.
    head: Vec<Sample>,
    scale: Option<Scale>,
    /// Frames that were judged or are held.
    frames: u64,
    /// The last good frame. Its time is added to the track with the next frame, which may show
    /// that it was bad.
    last: Option<Last>,
    /// The good frame before it, if no other frame is between them.
    before: Option<Last>,
    /// Good frames before this number are in the track.
    flushed: u64,
    /// Frames after the last good frame, whose stamps are in doubt.
    held: Vec<Sample>,
    /// How many of the last held stamps are plausible among themselves.
    line: usize,
    /// The most by which a good stamp was ahead of the other clock.
    lead: Option<f64>,
    shift: i128,
    /// Good frames since the last jump, and the shift with the most good frames so far.
    since: u64,
    best: (u64, i128),
    repairs: Repairs,
    seen: Seen,
    limit: Option<Limit>,
    pub track: Track,
}

/// A limit that ends the repairs of a stream: another clock has to be used.
#[derive(Clone, Copy, Debug)]
enum Limit {
    /// [`MOST_HELD`] frames in a row are in doubt, from this frame on.
    Held(u64),
    /// [`MOST_REPAIRS`].
    Repairs,
}

/// A good frame.
#[derive(Clone, Copy, Debug)]
struct Last {
    index: u64,
    /// As recorded.
    stamp: i128,
    good: Good,
}

impl Last {
    fn sample(&self) -> Sample {
        Sample { stamp: Some(self.stamp), other: self.good.other }
    }
}

/// Counts over all stamps.
#[derive(Clone, Debug, Default)]
struct Seen {
    before: Option<Sample>,
    missing: u64,
    /// Stamps that are equal to the stamp before them.
    equal: u64,
    /// Of these, stamps of frames with different times by the other clock.
    shared: u64,
    /// Stamps that are no whole seconds.
    fractions: u64,
    /// Sum of the distances of rising stamps.
    rise: i128,
    shortest: Option<i128>,
    longest: Option<i128>,
    /// Sum of the differences between the distances of both clocks.
    deviation: f64,
    /// Frames that were repaired.
    bad: u64,
}

/// The judgement over a whole stream.
#[derive(Debug)]
pub(super) struct Judged {
    pub track: Track,
    pub repairs: Repairs,
    /// Why the clock cannot be used; `None` if it can.
    pub doubt: Option<String>,
    /// What was repaired, for the user.
    pub warnings: Vec<String>,
    /// Number of frames and jumps that were repaired.
    pub guessed: u64,
}

impl Judge {
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            head: Vec::new(),
            scale: None,
            frames: 0,
            last: None,
            before: None,
            flushed: 0,
            held: Vec::new(),
            line: 0,
            lead: None,
            shift: 0,
            since: 0,
            best: (0, 0),
            repairs: Repairs::default(),
            seen: Seen::default(),
            limit: None,
            track: Track::default(),
        }
    }

    /// Adds the next frame, in display order.
    pub fn push(&mut self, times: &FrameTimes) {
        let sample = Sample::new(times, self.clock);
        match self.scale {
            Some(scale) => self.judge(sample, &scale),
            None => {
                self.head.push(sample);
                if self.head.len() == HEAD {
                    self.begin();
                }
            }
        }
    }

    fn begin(&mut self) {
        let head = std::mem::take(&mut self.head);
        let scale = Scale::of(&head, self.clock);
        self.scale = Some(scale);
        head.into_iter().for_each(|sample| self.judge(sample, &scale));
    }

    fn judge(&mut self, sample: Sample, scale: &Scale) {
        self.seen.count(sample, scale);
        let index = self.frames;
        self.frames += 1;
        if self.limit.is_some() {
            return;
        }
        match (sample.stamp, self.last.map(|last| last.sample())) {
            (Some(stamp), None) => self.accept(index, stamp, sample.other, scale),
            (Some(stamp), Some(last)) if self.is_plausible(&last, &sample, scale) => {
                self.accept(index, stamp, sample.other, scale);
            }
            (Some(stamp), Some(last)) if self.was_bad(&last, &sample, scale) => {
                self.last = self.before.take();
                self.since = self.since.saturating_sub(1);
                self.held.push(last);
                self.accept(index, stamp, sample.other, scale);
            }
            _ => self.hold(sample, scale),
        }
    }

    /// Whether the last good stamp was bad after all: a stamp that is earlier agrees better with
    /// the other clock.
    fn was_bad(&self, last: &Sample, sample: &Sample, scale: &Scale) -> bool {
        let Some(before) = self.before.filter(|_| self.held.is_empty()) else { return false };
        let before = before.sample();
        is_plausible(&before, sample, scale)
            && deviation(&before, sample, scale) < deviation(&before, last, scale)
    }

    /// Whether the stamp of `sample` may follow the last good one.
    fn is_plausible(&self, before: &Sample, sample: &Sample, scale: &Scale) -> bool {
        is_plausible(before, sample, scale) || self.is_caught_up(before, sample, scale)
    }

    /// Whether the frames before were only received late: no stamp is ahead of the other clock by
    /// more than good stamps were.
    fn is_caught_up(&self, before: &Sample, sample: &Sample, scale: &Scale) -> bool {
        let distance = sample.stamp.zip(before.stamp).map_or(0, |(b, a)| b - a);
        let ahead = sample.ahead(scale).zip(self.lead);
        distance > 0
            && distance <= LONGEST_PAUSE_NS
            && ahead.is_some_and(|(ahead, lead)| ahead <= lead + scale.tolerance() as f64)
    }

    /// A good frame: the held frames before it are bad.
    fn accept(&mut self, index: u64, stamp: i128, other: Option<i128>, scale: &Scale) {
        let good = Good { at: stamp.saturating_add(self.shift), other };
        let held = std::mem::take(&mut self.held);
        self.settle(&held, Some(good), scale);
        self.line = 0;
        self.good(index, stamp, good, scale);
    }

    fn good(&mut self, index: u64, stamp: i128, good: Good, scale: &Scale) {
        self.flush();
        self.before = self.last.filter(|last| last.index + 1 == index);
        self.last = Some(Last { index, stamp, good });
        self.since += 1;
        if self.since > self.best.0 {
            self.best = (self.since, self.shift);
        }
        let sample = Sample { stamp: Some(stamp), other: good.other };
        let ahead = sample.ahead(scale);
        self.lead = self.lead.map_or(ahead, |lead| Some(lead.max(ahead.unwrap_or(lead))));
    }

    /// Adds the last good frame to the track.
    fn flush(&mut self) {
        if let Some(last) = self.last
            && self.flushed <= last.index
        {
            self.track.push(last.good.at);
            self.flushed = last.index + 1;
        }
    }

    /// Places bad frames between the last good frame and `to`.
    fn settle(&mut self, bad: &[Sample], to: Option<Good>, scale: &Scale) {
        if bad.is_empty() {
            return;
        }
        self.flush();
        let first = self.last.map_or(0, |last| last.index + 1);
        let run = Run {
            first,
            end: first + bad.len() as u64,
            from: self.last.map(|last| last.good),
            to,
            usual: scale.usual,
            ratio: scale.other.map(|_| scale.ratio),
        };
        for (index, sample) in (first..).zip(bad) {
            self.track.push(run.place(index, sample.other));
        }
        self.seen.bad += bad.len() as u64;
        self.repairs.runs.push(run);
        self.check_repairs();
    }

    fn check_repairs(&mut self) {
        if self.repairs.len() > MOST_REPAIRS {
            self.limit = Some(Limit::Repairs);
        }
    }

    fn hold(&mut self, sample: Sample, scale: &Scale) {
        let goes_on = self
            .held
            .last()
            .is_some_and(|last| last.stamp != sample.stamp && is_plausible(last, &sample, scale));
        self.line = if goes_on { self.line + 1 } else { usize::from(sample.stamp.is_some()) };
        self.held.push(sample);
        if self.line >= LINE {
            self.close_jump(scale);
        } else if self.held.len() > MOST_HELD {
            self.limit = Some(Limit::Held(self.last.map_or(0, |last| last.index + 1)));
            self.seen.bad += std::mem::take(&mut self.held).len() as u64;
        }
    }

    /// The clock was set: the last held stamps are good, with another shift.
    fn close_jump(&mut self, scale: &Scale) {
        let held = std::mem::take(&mut self.held);
        let (bad, line) = held.split_at(held.len() - std::mem::take(&mut self.line));
        let (Some(last), Some(&Sample { stamp: Some(stamp), other })) = (self.last, line.first())
        else {
            return;
        };
        let first = last.index + 1 + bad.len() as u64;
        let jump = stamp.saturating_sub(last.stamp);
        let tail = Run {
            first: last.index + 1,
            end: first + 1,
            from: Some(last.good),
            to: None,
            usual: scale.usual,
            ratio: scale.other.map(|_| scale.ratio),
        };
        let at = tail.place(first, other);
        self.settle(bad, Some(Good { at, other }), scale);
        self.shift = at.saturating_sub(stamp);
        (self.since, self.lead) = (0, None);
        self.repairs.add_jump(first, jump, self.shift, at.saturating_sub(last.good.at));
        self.check_repairs();
        for (index, sample) in (first..).zip(line) {
            let stamp = sample.stamp.unwrap_or(stamp);
            let good = Good { at: stamp.saturating_add(self.shift), other: sample.other };
            self.good(index, stamp, good, scale);
        }
    }

    /// The judgement of the frames so far.
    pub fn finish(&self) -> Judged {
        let mut all = self.clone();
        if all.scale.is_none() {
            all.begin();
        }
        let scale = all.scale.unwrap_or_default();
        if all.limit.is_none() && !all.held.is_empty() {
            if all.line > 1 && all.last.is_some() {
                all.close_jump(&scale);
            } else {
                let held = std::mem::take(&mut all.held);
                all.settle(&held, None, &scale);
            }
        }
        all.flush();
        let doubt = all.doubt(&scale);
        // Shifts are relative: the stamps of most frames stay as they were recorded.
        all.repairs.base = all.best.1;
        let (warnings, guessed) = all.repairs.describe(self.clock);
        Judged { track: all.track, repairs: all.repairs, doubt, warnings, guessed }
    }

    /// Why this clock cannot be used.
    fn doubt(&self, scale: &Scale) -> Option<String> {
        let (frames, seen) = (self.frames, &self.seen);
        let clock = self.clock.name();
        if frames < 2 && seen.missing == 0 {
            None
        } else if seen.missing == frames {
            Some(format!("no frame has a stamp among the {clock}"))
        } else if seen.missing == 0 && seen.longest == Some(0) {
            Some(format!("the {clock} of all {frames} frames are the same"))
        } else if 2 * seen.equal > frames || (4 * seen.bad > frames && 4 * seen.shared > frames) {
            let equal = seen.equal;
            Some(format!("{equal} of {frames} {clock} are those of the frame before"))
        } else if 4 * seen.missing > frames {
            Some(format!("{} of {frames} frames have no stamp among the {clock}", seen.missing))
        } else if 4 * seen.bad > frames {
            Some(format!("the {clock} cannot be true for more than a quarter of the frames"))
        } else if let Some(limit) = self.limit {
            Some(match limit {
                Limit::Held(first) => format!(
                    "more than {MOST_HELD} {clock} in a row, from frame {first} on, cannot be true, \
                     which is too many to be repaired"
                ),
                Limit::Repairs => format!(
                    "the {clock} cannot be true at more than {MOST_REPAIRS} places, which is too \
                     many to be repaired"
                ),
            })
        } else if seen.has_whole_seconds(frames) {
            Some(format!("the {clock} have whole seconds only"))
        } else if let Some(other) = scale.other.filter(|other| *other >= i128::from(SHORTEST_NS))
            // On average, since messages may be received in bursts.
            && (seen.rise / i128::from(frames) < i128::from(SHORTEST_NS)
                || (scale.usual > 60 * SECOND_NS && scale.usual / 50 > other))
        {
            let (own, other) = (scale.usual as f64 / 1e9, other as f64 / 1e9);
            Some(format!("by the {clock} the frames are {own} s apart, by the other {other} s"))
        } else {
            None
        }
    }
}

impl Sample {
    /// By how much the stamp is ahead of the other clock.
    fn ahead(&self, scale: &Scale) -> Option<f64> {
        scale.other?;
        Some(self.stamp? as f64 - self.other? as f64 * scale.ratio.max(1.0))
    }
}

/// Whether two stamps may follow each other.
pub(super) fn is_plausible(before: &Sample, sample: &Sample, scale: &Scale) -> bool {
    let Some((now, last)) = sample.stamp.zip(before.stamp) else { return false };
    let distance = now - last;
    let other = sample.other.zip(before.other).map(|(now, last)| now - last);
    let other = other.filter(|_| scale.other.is_some());
    if distance == 0 {
        // Both clocks agree, or there is nothing to compare with. Many programs write 0 before they
        // know the time.
        return now != 0 && other.is_none_or(|other| other == 0);
    }
    if distance < 0 {
        return false;
    }
    if distance <= scale.tolerance() {
        return true;
    }
    if distance > LONGEST_PAUSE_NS && distance > 1000 * scale.usual {
        return false;
    }
    // Simulated time may be faster than the other clock.
    let is_confirmed = other.is_some_and(|other| {
        distance - (other as f64 * scale.ratio.max(1.0)) as i128 <= scale.tolerance()
    });
    is_confirmed || (last != 0 && (other.is_none() || scale.is_receiver))
}

/// By how much the distance of two stamps differs from that by the other clock, in nanoseconds.
pub(super) fn deviation(before: &Sample, sample: &Sample, scale: &Scale) -> f64 {
    let own = sample.stamp.zip(before.stamp).map(|(now, last)| (now - last) as f64);
    let other = sample.other.zip(before.other).map(|(now, last)| (now - last) as f64);
    match own.zip(other.filter(|_| scale.other.is_some())) {
        Some((own, other)) => (own - other * scale.ratio).abs(),
        None => f64::INFINITY,
    }
}

impl Seen {
    fn count(&mut self, sample: Sample, scale: &Scale) {
        let before = self.before.replace(sample);
        let Some(stamp) = sample.stamp else {
            self.missing += 1;
            return;
        };
        self.fractions += u64::from(stamp % SECOND_NS != 0);
        let Some(before) = before else { return };
        let Some(distance) = before.stamp.map(|last| stamp - last) else { return };
        self.shortest = Some(self.shortest.map_or(distance, |least| least.min(distance)));
        self.longest = Some(self.longest.map_or(distance, |most| most.max(distance)));
        self.equal += u64::from(distance == 0);
        self.rise += distance.max(0);
        if let Some((now, last)) = sample.other.zip(before.other).filter(|_| scale.other.is_some())
        {
            self.shared += u64::from(distance == 0 && now != last);
            self.deviation += (distance as f64 - (now - last) as f64 * scale.ratio).abs();
        }
    }

    /// Whether the stamps have no fractions of a second that the other clock has.
    fn has_whole_seconds(&self, frames: u64) -> bool {
        let is_uneven = self.shortest != self.longest
            && self.deviation / frames as f64 > 0.1 * SECOND_NS as f64;
        self.fractions == 0 && frames > 2 && (self.shared > 0 || is_uneven)
    }
}
