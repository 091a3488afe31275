//! The display time of each frame of a video.
//!
//! A [`TimestampAnalysis`] receives the times of all frames and stores none of them. Its
//! [`Timeline`] maps them to ticks in a second pass. A [`StreamingTimeline`] maps each time
//! immediately, for files that are not changed once they are written.

mod analysis;
mod judge;
mod repair;
mod streaming;
mod track;

use std::{fmt, str::FromStr, sync::Arc};

use analysis::Choice;
pub use analysis::{TickMapper, Timeline, TimestampAnalysis};
use encoder_core::{ConfigError, FrameRate};
use repair::Repairer;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
pub use streaming::StreamingTimeline;

/// The recorded times of a frame, by the two clocks of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameTimes {
    /// The camera driver's stamp, in nanoseconds; `None` if there is none. 0 is what a driver
    /// writes that does not know the time, and where simulated time begins.
    pub header_ns: Option<i64>,
    /// When the recorder received it, in nanoseconds.
    pub log_ns: i64,
}

impl FrameTimes {
    /// A frame with one known time, in nanoseconds. For a frame that has only an index, pass
    /// [`FrameRate::nanoseconds`] of the index, or any time if [`Timing::Rate`] determines the
    /// display times.
    pub const fn at(ns: i64) -> Self {
        Self { header_ns: Some(ns), log_ns: ns }
    }

    /// The time by a clock, in nanoseconds; the log time if there is no stamp, or it is 0.
    pub const fn by(&self, clock: Clock) -> i64 {
        match (clock, self.header_ns) {
            (Clock::Header, Some(stamp)) if stamp != 0 => stamp,
            _ => self.log_ns,
        }
    }

    /// The stamp of a clock as recorded; the log time if there is no stamp.
    const fn stamp(&self, clock: Clock) -> i64 {
        match (clock, self.header_ns) {
            (Clock::Header, Some(stamp)) => stamp,
            _ => self.log_ns,
        }
    }
}

/// A clock of the recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Clock {
    /// The header stamps; the log times if most of the stamps cannot be true.
    #[default]
    Header,
    /// The log times.
    Log,
}

encoder_core::names! {
    Clock, "clock":
    Header = "header",
    Log = "log",
}

impl Clock {
    /// What its times are called in messages.
    const fn name(self) -> &'static str {
        match self {
            Self::Header => "header stamps",
            Self::Log => "log times",
        }
    }

    /// The clock that is used if this one cannot be.
    const fn other(self) -> Self {
        match self {
            Self::Header => Self::Log,
            Self::Log => Self::Header,
        }
    }

    /// What messages say if it is used instead of the other clock.
    const fn is_used(self) -> &'static str {
        match self {
            Self::Header => "the header stamps are used",
            Self::Log => "log times are used",
        }
    }
}

/// How the display times of frames are chosen.
///
/// As text: `header` or `log`, a rate such as `30`, and `numbered 30`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Timing {
    /// As they were recorded.
    Recorded(Clock),
    /// Frame N at exactly N / rate.
    Rate(FrameRate),
    /// At exactly N / rate, where N is the number of the frame in its stream: `log_ns` is
    /// [`FrameRate::nanoseconds`] of N. A missing number leaves its time empty. The times count
    /// from the first frame; frames with the same number follow each other.
    Numbered(FrameRate),
}

impl fmt::Display for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recorded(clock) => clock.fmt(f),
            Self::Rate(rate) => rate.fmt(f),
            Self::Numbered(rate) => write!(f, "numbered {rate}"),
        }
    }
}

impl FromStr for Timing {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let wrong = |_| ConfigError::value("timing", text, "header, log, RATE or numbered RATE");
        match (text.parse(), text.strip_prefix("numbered ")) {
            (Ok(clock), _) => Ok(Self::Recorded(clock)),
            (_, Some(rate)) => rate.parse().map(Self::Numbered).map_err(wrong),
            _ => text.parse().map(Self::Rate).map_err(wrong),
        }
    }
}

impl Serialize for Timing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timing {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// How many frames ahead of its display a picture may be decoded, with that many consecutive
/// B-frames.
pub const fn reorder(b_frames: u8) -> u32 {
    match b_frames {
        0 => 0,
        n => n as u32 + 1,
    }
}

/// Display times of all frames of a stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stamps {
    /// In nanoseconds, strictly increasing.
    pub times: Vec<i64>,
    /// Warnings where the times are not those of the recording.
    pub warnings: Vec<String>,
    /// Number of times that were estimated, as [`Timeline::guessed`].
    pub guessed: u64,
}

/// The display times of frames in nanoseconds. Without a usable clock they are at `rate`, from the
/// log time of the first frame on.
pub fn stamps(clock: Clock, rate: FrameRate, frames: &[FrameTimes]) -> Stamps {
    let mut analysis = TimestampAnalysis::new(Timing::Recorded(clock), rate, 0);
    frames.iter().for_each(|times| analysis.push(times));
    let Choice { clock, judged, warnings, guessed, .. } = analysis.choose(clock);
    let times = match clock {
        Some(clock) => {
            let mut rising = Rising::default();
            let mut repairer = Repairer::new(clock, Arc::new(judged.repairs));
            frames.iter().map(|times| rising.next(repairer.next(times))).collect()
        }
        None => {
            let first = frames.first().map_or(0, |times| times.log_ns);
            let at = |n| i64::try_from(rate.nanoseconds(n)).unwrap_or(i64::MAX);
            (0..frames.len() as u64).map(|n| first.saturating_add(at(n))).collect()
        }
    };
    Stamps { times, warnings, guessed }
}

/// The shortest distance between two frames of a camera, in nanoseconds: 2000 frames per second.
pub const SHORTEST_NS: i64 = 500_000;

/// By how much a frame is moved behind another frame with the same stamp.
const STEP_NS: i64 = 1_000_000;

/// Makes stamps increase strictly.
#[derive(Clone, Debug, Default)]
struct Rising {
    last: Option<i64>,
    /// Number of stamps that were moved.
    moved: u64,
}

impl Rising {
    fn next(&mut self, stamp: i64) -> i64 {
        let stamp = match self.last {
            Some(last) if stamp <= last => {
                self.moved += 1;
                last.saturating_add(STEP_NS)
            }
            _ => stamp,
        };
        self.last = Some(stamp);
        stamp
    }

    fn warning(&self) -> Option<String> {
        let moved = self.moved;
        (moved > 0).then(|| {
            format!(
                "{moved} frames have the time of the frame before them or an earlier one; each was \
                 put 1 ms behind it"
            )
        })
    }
}

/// From one stamp to a later one, in nanoseconds.
fn distance(from: i64, to: i64) -> u64 {
    u64::try_from(i128::from(to) - i128::from(from)).unwrap_or(0)
}

/// The tick nearest to a distance.
fn round(distance_ns: u64, tick_ns: u64) -> u64 {
    distance_ns.saturating_add(tick_ns / 2) / tick_ns
}

/// A timescale in which a constant rate is exact, of at least 10 kHz as is usual in MP4: ticks per
/// second, and ticks per frame.
fn exact(rate: FrameRate) -> (u32, u64) {
    exact_up_to(rate, u64::MAX)
}

/// Like [`exact`], with at most `longest` ticks per frame if the rate allows that.
fn exact_up_to(rate: FrameRate, longest: u64) -> (u32, u64) {
    let (mut timescale, mut step) = (rate.numerator(), u64::from(rate.denominator()));
    while timescale < 10_000 && step.saturating_mul(2) <= longest {
        timescale *= 2;
        step *= 2;
    }
    (timescale, step)
}

/// Recovers the numbers of frames from their times ([`Timing::Numbered`]), from the first one on.
#[derive(Clone, Debug)]
struct Numbers {
    rate: FrameRate,
    origin: Option<i128>,
    last: u64,
}

impl Numbers {
    const fn new(rate: FrameRate) -> Self {
        Self { rate, origin: None, last: 0 }
    }

    /// The number of the next frame. Numbers increase.
    fn next(&mut self, log_ns: i64) -> u64 {
        let (num, den) = (self.rate.numerator(), self.rate.denominator());
        // The nearest multiple of the frame duration.
        let unit = i128::from(den) * 1_000_000_000;
        let number = (i128::from(log_ns) * i128::from(num) + unit / 2).div_euclid(unit);
        let Some(origin) = self.origin else {
            self.origin = Some(number);
            return 0;
        };
        let number = u64::try_from(number - origin).unwrap_or(0);
        self.last = number.max(self.last + 1);
        self.last
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn stamps_of_a_recording_rise_by_the_clock_that_can_be_trusted() {
        let rate = FrameRate::default();
        let times = |frames: &[(i64, i64)]| {
            let at = |&(header, log_ns)| FrameTimes { header_ns: Some(header), log_ns };
            frames.iter().map(at).collect::<Vec<_>>()
        };
        let found = stamps(Clock::Header, rate, &times(&[(9, 1), (9, 1), (STEP_NS * 9, 9)]));
        assert_eq!(found.times, [9, 9 + STEP_NS, STEP_NS * 9]);
        assert!(found.warnings[0].starts_with("1 frames have the time"), "{found:?}");
        let found = stamps(Clock::Header, rate, &times(&[(9, 1), (9, 2), (9, 40)]));
        assert_eq!(found.times, [1, 2, 40]);
        assert!(found.warnings[0].contains("are the same"), "{found:?}");
        let found = stamps(Clock::Log, rate, &times(&[(9, 5), (9, 5), (9, 5)]));
        assert_eq!((found.times, found.guessed), (vec![5, 33_333_338, 66_666_672], 3));
        assert_eq!(stamps(Clock::Log, rate, &[]), Stamps::default());
    }

    #[test]
    fn numbers_are_recovered_exactly_and_rise() {
        for rate in ["30000/1001", "30", "1/7", "480", "59.94"] {
            let rate: FrameRate = rate.parse().unwrap();
            let mut numbers = Numbers::new(rate);
            let wanted = [5u64, 6, 9, 1_000_000, 1_000_001, 40_000_000];
            for n in wanted {
                let log_ns = rate.nanoseconds(n) as i64;
                assert_eq!(numbers.next(log_ns), n - 5, "{rate}");
            }
            // A picture that is displayed twice has its number twice.
            let last = rate.nanoseconds(40_000_000) as i64;
            assert_eq!(numbers.next(last), 40_000_000 - 5 + 1, "{rate}");
            assert_eq!(numbers.next(i64::MIN), 40_000_000 - 5 + 2, "{rate}");
        }
        let mut numbers = Numbers::new(FrameRate::default());
        assert_eq!([i64::MIN, 0, i64::MAX].map(|ns| numbers.next(ns) > 0), [false, true, true]);
    }

    #[test]
    fn a_picture_is_decoded_ahead_of_the_b_frames_before_it() {
        assert_eq!([0, 1, 4].map(reorder), [0, 2, 5]);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod text_tests {
    use super::*;

    #[test]
    fn timings_are_read_from_their_text() {
        let ntsc: FrameRate = "29.97".parse().unwrap();
        for (timing, text) in [
            (Timing::Recorded(Clock::Header), "header"),
            (Timing::Recorded(Clock::Log), "log"),
            (Timing::Rate(FrameRate::default()), "30"),
            (Timing::Rate(ntsc), "30000/1001"),
            (Timing::Numbered(ntsc), "numbered 30000/1001"),
        ] {
            assert_eq!(timing.to_string(), text);
            assert_eq!(text.parse(), Ok(timing));
        }
        for wrong in ["", "heads", "0", "numbered", "numbered log"] {
            let error = wrong.parse::<Timing>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("timing = {wrong}: not allowed")), "{error}");
        }
    }
}
