//! The display time of each frame of a video.
//!
//! A [`TimestampAnalysis`] receives the times of all frames and stores none of them. Its
//! [`Timeline`] maps them to ticks in a second pass. A [`StreamingTimeline`] maps each time
//! immediately, for files that are not changed once they are written.

mod analysis;
mod streaming;

pub use analysis::{TickMapper, Timeline, TimestampAnalysis};
use encoder_core::FrameRate;
pub use streaming::StreamingTimeline;

/// The recorded times of a frame, by the two clocks of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameTimes {
    /// The camera driver's stamp, in nanoseconds; `None` if there is none.
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

    /// The time by a clock, in nanoseconds; the log time if there is no stamp.
    pub const fn by(&self, clock: Clock) -> i64 {
        match (clock, self.header_ns) {
            (Clock::Header, Some(stamp)) => stamp,
            _ => self.log_ns,
        }
    }
}

/// A clock of the recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clock {
    /// The header stamps; the log times if stamps are missing or run backwards.
    #[default]
    Header,
    /// The log times.
    Log,
}

/// How the display times of frames are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// How many frames ahead of its display a picture may be decoded, with that many consecutive
/// B-frames.
pub const fn reorder(b_frames: u8) -> u32 {
    match b_frames {
        0 => 0,
        n => n as u32 + 1,
    }
}

/// Display times in nanoseconds, strictly increasing, and warnings about them.
pub fn stamps(clock: Clock, frames: &[FrameTimes]) -> (Vec<i64>, Vec<String>) {
    let mut analysis = TimestampAnalysis::new(Timing::Recorded(clock), FrameRate::default(), 0);
    frames.iter().for_each(|times| analysis.push(times));
    let (clock, warnings) = analysis.clock(clock);
    let mut rising = Rising::default();
    (frames.iter().map(|times| rising.next(times.by(clock))).collect(), warnings)
}

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
        let frames: Vec<_> = [(Some(9), 1), (Some(9), 2), (Some(5), 40)]
            .map(|(header_ns, log_ns)| FrameTimes { header_ns, log_ns })
            .to_vec();
        let (header, warnings) = stamps(Clock::Header, &frames[..2]);
        assert_eq!(header, [9, 9 + STEP_NS]);
        assert!(warnings[0].starts_with("1 frames have the time"), "{warnings:?}");
        let (log, warnings) = stamps(Clock::Header, &frames);
        assert_eq!(log, [1, 2, 40]);
        assert!(warnings[0].contains("backwards"), "{warnings:?}");
        assert_eq!(stamps(Clock::Log, &[]), (vec![], vec![]));
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
