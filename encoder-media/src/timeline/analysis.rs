use std::sync::Arc;

use encoder_core::FrameRate;

use super::{
    Clock, FrameTimes, Numbers, Rising, Timing, distance, exact, exact_up_to,
    judge::{Judge, Judged},
    repair::{Repairer, Repairs, clamp},
    round,
    track::TICKS_NS,
};

/// Chooses the clock and the timescale for a whole recording, and repairs its stamps, without
/// storing the times.
#[derive(Clone, Debug)]
pub struct TimestampAnalysis {
    timing: Timing,
    rate: FrameRate,
    reorder: u32,
    frames: u64,
    header: Judge,
    log: Judge,
    numbered: Option<Numbered>,
    /// Times of the first and the last frame.
    ends: Option<(FrameTimes, FrameTimes)>,
}

/// The numbers of the frames ([`Timing::Numbered`]).
#[derive(Clone, Debug)]
struct Numbered {
    numbers: Numbers,
    last: u64,
    longest_gap: u64,
}

impl TimestampAnalysis {
    /// An analysis without frames. `rate` gives the duration of a single frame; `reorder` is how
    /// many frames ahead of its display a picture may be decoded.
    pub fn new(timing: Timing, rate: FrameRate, reorder: u32) -> Self {
        let (header, log) = (Judge::new(Clock::Header), Judge::new(Clock::Log));
        let numbered = match timing {
            Timing::Numbered(rate) => {
                Some(Numbered { numbers: Numbers::new(rate), last: 0, longest_gap: 0 })
            }
            _ => None,
        };
        Self { timing, rate, reorder, frames: 0, header, log, numbered, ends: None }
    }

    /// Adds the times of the next frame, in display order.
    pub fn push(&mut self, times: &FrameTimes) {
        if let Timing::Recorded(_) = self.timing {
            self.header.push(times);
            self.log.push(times);
        }
        if let Some(numbered) = &mut self.numbered {
            let number = numbered.numbers.next(times.log_ns);
            numbered.longest_gap = numbered.longest_gap.max(number - numbered.last);
            numbered.last = number;
        }
        self.ends = Some((self.ends.map_or(*times, |(first, _)| first), *times));
        self.frames += 1;
    }

    /// Whether frames are at the times of their numbers.
    pub fn is_numbered(&self) -> bool {
        matches!(self.timing, Timing::Numbered(_))
    }

    /// Number of frames so far.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Chooses the clock: `wanted`, or the other clock if `wanted` cannot be used.
    pub(super) fn choose(&self, wanted: Clock) -> Choice {
        let (first, second) = match wanted {
            Clock::Header => (&self.header, &self.log),
            Clock::Log => (&self.log, &self.header),
        };
        let first = first.finish();
        let Some(doubt) = first.doubt.clone() else { return Choice::repaired(wanted, first, None) };
        let second = second.finish();
        let Some(other_doubt) = &second.doubt else {
            return Choice::repaired(wanted.other(), second, Some(doubt));
        };
        let warnings = vec![format!(
            "{doubt}, and {other_doubt}: the frames are put at {} frames per second",
            self.rate
        )];
        let (doubt, guessed) = (Some(doubt), self.frames);
        Choice { clock: None, judged: first, doubt, warnings, guessed }
    }

    /// The timeline of the frames so far.
    pub fn timeline(&self) -> Timeline {
        match self.timing {
            Timing::Rate(rate) => self.constant(exact(rate), self.frames, Pattern::Every),
            Timing::Numbered(rate) => self.numbered(rate),
            Timing::Recorded(clock) => self.recorded(clock),
        }
    }

    /// `frames` is the number of frames if there were no gaps; `pattern` returns the ticks of a
    /// frame.
    fn constant(
        &self,
        (timescale, step): (u32, u64),
        frames: u64,
        pattern: impl FnOnce(u64) -> Pattern,
    ) -> Timeline {
        let stamp = |times: FrameTimes| times.by(Clock::Header);
        Timeline {
            timescale,
            duration: frames.saturating_mul(step),
            pattern: pattern(step),
            first_ns: self.ends.map(|(first, _)| stamp(first)),
            last_ns: self.ends.map(|(_, last)| stamp(last)),
            warnings: Vec::new(),
            guessed: 0,
            doubt: None,
            moved: 0,
        }
    }

    fn numbered(&self, rate: FrameRate) -> Timeline {
        let (last, gap) = self.numbered.as_ref().map_or((0, 0), |n| (n.last, n.longest_gap));
        let longest = longest_step(self.reorder) / gap.max(1);
        let frames = if self.frames > 0 { last + 1 } else { 0 };
        let pattern = |step| Pattern::Numbered { step, rate };
        let mut timeline = self.constant(exact_up_to(rate, longest), frames, pattern);
        let (timescale, step) = (timeline.timescale, timeline.duration / frames.max(1));
        if step > longest {
            timeline.warnings.push(format!(
                "a gap of {:.0} s is longer than MP4 can hold at this rate: it is shorter in the \
                 video",
                gap as f64 * step as f64 / f64::from(timescale)
            ));
        }
        timeline
    }

    fn recorded(&self, wanted: Clock) -> Timeline {
        let Choice { clock, judged, doubt, mut warnings, guessed } = self.choose(wanted);
        let Some(clock) = clock else {
            let timeline = self.constant(exact(self.rate), self.frames, Pattern::Every);
            return Timeline { warnings, guessed, doubt, ..timeline };
        };
        let Judged { track, repairs, .. } = judged;
        let index = resolution(track.longest_gap, self.reorder);
        let tick_ns = TICKS_NS[index];
        let usual = track.usual_gap();
        // Regular frames far apart are no gap.
        if tick_ns > 1 && usual.is_some_and(|usual| track.longest_gap / 3 > usual) {
            let unit = match tick_ns {
                n if n < 1000 => format!("{n} ns"),
                n if n < 1_000_000 => format!("{} µs", n / 1000),
                n => format!("{} ms", n / 1_000_000),
            };
            warnings.push(format!(
                "a gap of {:.1} s: times are exact to {unit} instead of 1 ns, which is as fine as \
                 MP4 can be with it",
                track.longest_gap as f64 / 1e9
            ));
        }
        let usual = usual.map(|gap| round(gap, tick_ns));
        let last = usual.unwrap_or(self.rate.nanoseconds(1) / tick_ns).max(1);
        let absolute = |at: i64| clamp(i128::from(at) - repairs.base);
        Timeline {
            timescale: (1_000_000_000 / tick_ns) as u32,
            duration: if self.frames > 0 { track.ends[index].saturating_add(last) } else { 0 },
            first_ns: track.first.map(absolute),
            last_ns: track.rising.last.map(absolute),
            pattern: Pattern::Recorded { clock, tick_ns, repairs: Arc::new(repairs) },
            warnings,
            guessed,
            doubt,
            moved: track.rising.moved,
        }
    }
}

/// The clock of a recording.
pub(super) struct Choice {
    /// `None` if no clock can be used.
    pub clock: Option<Clock>,
    pub judged: Judged,
    /// Why the wanted clock cannot be used, if it cannot.
    pub doubt: Option<String>,
    pub warnings: Vec<String>,
    pub guessed: u64,
}

impl Choice {
    /// `doubt` is why the other clock cannot be used, if that was wanted.
    fn repaired(clock: Clock, mut judged: Judged, doubt: Option<String>) -> Self {
        let of_doubt = doubt.iter().map(|doubt| format!("{doubt}: {}", clock.is_used()));
        let mut warnings: Vec<_> = of_doubt.collect();
        warnings.append(&mut judged.warnings);
        warnings.extend(judged.track.rising.warning());
        let guessed = judged.guessed;
        Self { clock: Some(clock), judged, doubt, warnings, guessed }
    }
}

/// Index of the shortest tick with which the longest gap fits the 32 bits of MP4.
fn resolution(longest_gap_ns: u64, reorder: u32) -> usize {
    let most = longest_step(reorder);
    let fits = TICKS_NS.iter().position(|tick| longest_gap_ns / tick <= most);
    fits.unwrap_or(TICKS_NS.len() - 1)
}

/// The most ticks from one frame to the next.
fn longest_step(reorder: u32) -> u64 {
    match reorder {
        0 => u32::MAX.into(),
        // Offsets for reordering may span several gaps, and FFmpeg 5.1 accepts none above 2^28.
        n => (1 << 28) / (u64::from(n) + 1),
    }
}

/// The display times of the frames of a whole recording, relative to the first frame.
#[derive(Clone, Debug)]
pub struct Timeline {
    timescale: u32,
    duration: u64,
    pattern: Pattern,
    /// The recorded time of the first frame, in nanoseconds.
    pub first_ns: Option<i64>,
    /// The recorded time of the last frame, in nanoseconds.
    pub last_ns: Option<i64>,
    /// Warnings where the times differ from the requested times, with the reason.
    pub warnings: Vec<String>,
    /// Number of recorded times that cannot be true and were replaced by an estimate: frames, and
    /// jumps of the clock that were closed.
    pub guessed: u64,
    /// Why the clock that was asked for cannot be used, if it cannot.
    pub(super) doubt: Option<String>,
    /// Number of frames that were put behind the one before them.
    pub(super) moved: u64,
}

#[derive(Clone, Debug)]
enum Pattern {
    Every(u64),
    Numbered { step: u64, rate: FrameRate },
    Recorded { clock: Clock, tick_ns: u64, repairs: Arc<Repairs> },
}

impl Timeline {
    /// Ticks in a second.
    pub fn timescale(&self) -> u32 {
        self.timescale
    }

    /// Duration of all frames in ticks.
    pub fn duration(&self) -> u64 {
        self.duration
    }

    /// The repairs of recorded times.
    pub(super) fn repairs(&self) -> Option<&Repairs> {
        match &self.pattern {
            Pattern::Recorded { repairs, .. } => Some(repairs),
            _ => None,
        }
    }

    /// Duration of all frames in seconds.
    pub fn duration_s(&self) -> f64 {
        self.duration as f64 / f64::from(self.timescale)
    }

    /// A mapper that starts at the first frame.
    pub fn ticks(&self) -> TickMapper {
        let kind = match &self.pattern {
            Pattern::Every(step) => Kind::Every(*step),
            Pattern::Numbered { step, rate } => {
                Kind::Numbered { step: *step, numbers: Numbers::new(*rate) }
            }
            Pattern::Recorded { clock, tick_ns, repairs } => Kind::Recorded {
                tick_ns: *tick_ns,
                repairer: Repairer::new(*clock, Arc::clone(repairs)),
                rising: Rising::default(),
                origin: 0,
            },
        };
        TickMapper { kind, frames: 0, last: 0 }
    }
}

/// Maps the times of frames to ticks, in display order.
#[derive(Clone, Debug)]
pub struct TickMapper {
    kind: Kind,
    frames: u64,
    last: u64,
}

#[derive(Clone, Debug)]
enum Kind {
    Every(u64),
    Numbered { step: u64, numbers: Numbers },
    Recorded { tick_ns: u64, repairer: Repairer, rising: Rising, origin: i64 },
}

impl TickMapper {
    /// The display time of the next frame, in ticks from the first frame.
    pub fn next(&mut self, times: &FrameTimes) -> u64 {
        let index = self.frames;
        self.frames += 1;
        self.last = match &mut self.kind {
            Kind::Every(step) => index.saturating_mul(*step),
            Kind::Numbered { step, numbers } => numbers.next(times.log_ns).saturating_mul(*step),
            Kind::Recorded { tick_ns, repairer, rising, origin } => {
                let stamp = rising.next(repairer.next(times));
                if index == 0 {
                    *origin = stamp;
                    return 0;
                }
                round(distance(*origin, stamp), *tick_ns).max(self.last + 1)
            }
        };
        self.last
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
