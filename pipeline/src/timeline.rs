//! When each frame of a video is shown.

use encoder_core::FrameRate;

/// When a frame was recorded, by both clocks of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameTimes {
    /// The camera driver's stamp, in nanoseconds; `None` where there is none.
    pub header_ns: Option<i64>,
    /// When the recorder got it, in nanoseconds.
    pub log_ns: i64,
}

impl FrameTimes {
    /// A frame with one known time, in nanoseconds. A frame that is known by its index alone has
    /// [`FrameRate::nanoseconds`] of it, or any time where [`Timing::Rate`] lays out the frames.
    pub const fn at(ns: i64) -> Self {
        Self { header_ns: Some(ns), log_ns: ns }
    }
}

/// Which clock of the recording counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clock {
    /// The header stamps; the log times where stamps are missing or run backwards.
    #[default]
    Header,
    /// The log times.
    Log,
}

/// How frames are laid out in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// As they were recorded.
    Recorded(Clock),
    /// Frame N at exactly N / rate.
    Rate(FrameRate),
}

/// The time of every frame of a video, relative to its first, in ticks of a timescale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeline {
    timescale: u32,
    ticks: Ticks,
    last_duration: u64,
    /// The recorded time of the first frame, in nanoseconds.
    pub first_ns: Option<i64>,
    /// The recorded time of the last frame, in nanoseconds.
    pub last_ns: Option<i64>,
    /// Where the times are not what was asked for, and why.
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Ticks {
    Every(u64),
    Each(Vec<u64>),
}

/// How far a frame is moved behind one with the same stamp.
const STEP_NS: i64 = 1_000_000;

impl Timeline {
    /// Lays out frames, in presentation order. `rate` is assumed for the duration of a single
    /// frame; `reorder` is how many frames a picture may be decoded ahead of its time.
    pub fn new(timing: Timing, frames: &[FrameTimes], rate: FrameRate, reorder: u32) -> Self {
        match timing {
            Timing::Rate(rate) => Self::constant(rate, frames),
            Timing::Recorded(clock) => Self::recorded(clock, frames, rate, reorder),
        }
    }

    /// Logs the warnings.
    pub(crate) fn log(&self) {
        self.warnings.iter().for_each(|text| tracing::warn!("{text}"));
    }

    /// Ticks in a second.
    pub fn timescale(&self) -> u32 {
        self.timescale
    }

    /// When frame `index` is shown, in ticks from the first.
    pub fn ticks(&self, index: u64) -> u64 {
        match &self.ticks {
            Ticks::Every(step) => index * step,
            // A frame beyond the end cannot come from a session, which counts them; it would
            // stand at the end.
            Ticks::Each(ticks) => {
                ticks.get(index as usize).or(ticks.last()).copied().unwrap_or_default()
            }
        }
    }

    /// How long the first `frames` frames take, in ticks.
    pub fn duration(&self, frames: u64) -> u64 {
        match frames {
            0 => 0,
            n => self.ticks(n - 1) + self.last_duration,
        }
    }

    /// A constant rate in a timescale that makes it exact.
    fn constant(rate: FrameRate, frames: &[FrameTimes]) -> Self {
        let (mut timescale, mut step) = (rate.numerator(), u64::from(rate.denominator()));
        // As fine as players are used to.
        while timescale < 10_000 {
            timescale *= 2;
            step *= 2;
        }
        let stamp = |f: &FrameTimes| f.header_ns.unwrap_or(f.log_ns);
        Self {
            timescale,
            ticks: Ticks::Every(step),
            last_duration: step,
            first_ns: frames.first().map(stamp),
            last_ns: frames.last().map(stamp),
            warnings: Vec::new(),
        }
    }

    /// The times that count, in nanoseconds and rising, and what a user should know about them.
    pub fn stamps(clock: Clock, frames: &[FrameTimes]) -> (Vec<i64>, Vec<String>) {
        let mut warnings = Vec::new();
        let mut stamps = choose(clock, frames, &mut warnings);
        let mut moved = 0;
        for n in 1..stamps.len() {
            if stamps[n] <= stamps[n - 1] {
                stamps[n] = stamps[n - 1].saturating_add(STEP_NS);
                moved += 1;
            }
        }
        if moved > 0 {
            warnings.push(format!(
                "{moved} frames have the time of the frame before them or an earlier one; each was \
                 put 1 ms behind it"
            ));
        }
        (stamps, warnings)
    }

    fn recorded(clock: Clock, frames: &[FrameTimes], rate: FrameRate, reorder: u32) -> Self {
        let (stamps, mut warnings) = Self::stamps(clock, frames);
        let (first_ns, last_ns) = (stamps.first().copied(), stamps.last().copied());
        let origin = first_ns.unwrap_or_default();
        let gaps = || stamps.windows(2).map(|w| (i128::from(w[1]) - i128::from(w[0])) as u64);
        let longest = gaps().max().unwrap_or_default();
        let (timescale, nanoseconds) = resolution(longest, reorder);
        if nanoseconds > 1 {
            let unit = match nanoseconds {
                n if n < 1000 => format!("{n} ns"),
                n if n < 1_000_000 => format!("{} µs", n / 1000),
                n => format!("{} ms", n / 1_000_000),
            };
            warnings.push(format!(
                "a gap of {:.1} s: times are exact to {unit} instead of 1 ns, which is as fine as \
                 MP4 can be with it",
                longest as f64 / 1e9
            ));
        }
        let mut ticks: Vec<u64> = Vec::with_capacity(stamps.len());
        for stamp in &stamps {
            let from_first = (i128::from(*stamp) - i128::from(origin)) as u64;
            let tick = from_first.saturating_add(nanoseconds / 2) / nanoseconds;
            ticks.push(ticks.last().map_or(tick, |last| tick.max(last + 1)));
        }
        let mut sorted: Vec<u64> = ticks.windows(2).map(|w| w[1] - w[0]).collect();
        sorted.sort_unstable();
        let usual = sorted.get(sorted.len() / 2).copied();
        let single = rate.nanoseconds(1) / nanoseconds;
        Self {
            timescale,
            ticks: Ticks::Each(ticks),
            last_duration: usual.unwrap_or(single).max(1),
            first_ns,
            last_ns,
            warnings,
        }
    }
}

/// The stamps of the clock that was asked for, or of the other where that one is broken.
fn choose(clock: Clock, frames: &[FrameTimes], warnings: &mut Vec<String>) -> Vec<i64> {
    let log = || frames.iter().map(|f| f.log_ns).collect();
    if clock == Clock::Log {
        return log();
    }
    if let Some(n) = frames.iter().position(|f| f.header_ns.is_none()) {
        warnings.push(format!("the header of frame {n} has no stamp: log times are used"));
        return log();
    }
    let headers: Vec<i64> = frames.iter().filter_map(|f| f.header_ns).collect();
    if let Some(n) = headers.windows(2).position(|w| w[1] < w[0]) {
        warnings.push(format!(
            "the header stamps run backwards by {:.3} s at frame {}: log times are used",
            (i128::from(headers[n]) - i128::from(headers[n + 1])) as f64 / 1e9,
            n + 1
        ));
        return log();
    }
    headers
}

/// The finest timescale, down to nanoseconds, in which the longest gap still fits the 32 bits that
/// MP4 has for it: ticks in a second, and nanoseconds in a tick.
fn resolution(longest_gap_ns: u64, reorder: u32) -> (u32, u64) {
    let most = |gap: u64| match reorder {
        0 => gap <= u64::from(u32::MAX),
        // Offsets for reordering are signed, and may span several gaps.
        n => gap.saturating_mul(u64::from(n) + 1) <= i32::MAX as u64,
    };
    let mut tick = 1;
    while tick < 1_000_000_000 && !most(longest_gap_ns / tick) {
        tick *= 10;
    }
    ((1_000_000_000 / tick) as u32, tick)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const S: i64 = 1_000_000_000;

    fn rate() -> FrameRate {
        FrameRate::default()
    }

    fn recorded(clock: Clock, frames: &[(Option<i64>, i64)]) -> Timeline {
        let frames: Vec<_> =
            frames.iter().map(|&(header_ns, log_ns)| FrameTimes { header_ns, log_ns }).collect();
        Timeline::new(Timing::Recorded(clock), &frames, rate(), 0)
    }

    fn ticks(timeline: &Timeline, count: u64) -> Vec<u64> {
        (0..count).map(|n| timeline.ticks(n)).collect()
    }

    #[test]
    fn recorded_stamps_are_kept_to_the_nanosecond() {
        let t = recorded(
            Clock::Header,
            &[(Some(7 * S + 1), 0), (Some(7 * S + 33_333_334), 9), (Some(8 * S), 10)],
        );
        assert_eq!(t.timescale(), 1_000_000_000);
        assert_eq!(ticks(&t, 3), [0, 33_333_333, 999_999_999]);
        assert_eq!((t.first_ns, t.last_ns), (Some(7 * S + 1), Some(8 * S)));
        assert_eq!(t.warnings, Vec::<String>::new());
    }

    #[test]
    fn the_clock_falls_back_and_says_so() {
        // Clock, header and log times, ticks, part of the warning.
        type Row<'a> = (Clock, &'a [(Option<i64>, i64)], [u64; 3], &'a str);
        let table: &[Row<'_>] = &[
            (Clock::Log, &[(Some(5), 0), (Some(6), 10), (Some(7), 30)], [0, 10, 30], ""),
            (Clock::Header, &[(Some(5), 0), (None, 10), (Some(7), 30)], [0, 10, 30], "no stamp"),
            (
                Clock::Header,
                &[(Some(50), 0), (Some(40), 10), (Some(70), 30)],
                [0, 10, 30],
                "backwards",
            ),
            (
                Clock::Header,
                &[(Some(5), 0), (Some(5), 1), (Some(7 + STEP_NS), 2)],
                [0, 1_000_000, 1_000_002],
                "1 frames have the time",
            ),
        ];
        for (clock, frames, expected, warning) in table {
            let t = recorded(*clock, frames);
            assert_eq!(ticks(&t, 3), expected);
            assert_eq!(t.warnings.is_empty(), warning.is_empty());
            assert!(t.warnings.join(" ").contains(warning), "{:?}", t.warnings);
        }
    }

    #[test]
    fn a_long_gap_makes_the_ticks_coarser_not_wrong() {
        for (gap, reorder, timescale) in [
            (4 * S, 0, 1_000_000_000),
            (30 * S, 0, 100_000_000),
            (3600 * S, 0, 1_000_000),
            (86_400 * S, 0, 10_000),
            (S, 1, 1_000_000_000),
            (S, 3, 100_000_000),
        ] {
            let frames = [FrameTimes::at(0), FrameTimes::at(gap + 7)];
            let t = Timeline::new(Timing::Recorded(Clock::Header), &frames, rate(), reorder);
            assert_eq!(t.timescale(), timescale, "{gap}");
            let seconds = t.ticks(1) as f64 / f64::from(timescale);
            let off = (seconds - (gap + 7) as f64 / 1e9).abs();
            assert!(off <= 0.51 / f64::from(timescale) + 1e-9, "{gap}: {off}");
        }
    }

    #[test]
    fn absurd_stamps_do_not_overflow() {
        let t = recorded(Clock::Header, &[(Some(i64::MIN), 0), (Some(i64::MAX), 1)]);
        assert!(t.ticks(1) > 0);
        let t = recorded(Clock::Log, &[(None, i64::MAX), (None, i64::MAX), (None, i64::MAX)]);
        assert!(t.ticks(2) > t.ticks(1));
        assert_eq!(recorded(Clock::Header, &[]).duration(0), 0);
    }

    #[test]
    fn a_constant_rate_is_exact() {
        let ntsc: FrameRate = "30000/1001".parse().unwrap();
        for (rate, timescale, step) in [(rate(), 15360, 512), (ntsc, 30000, 1001)] {
            let t = Timeline::new(Timing::Rate(rate), &[], rate, 0);
            assert_eq!((t.timescale(), t.ticks(1)), (timescale, step));
            assert_eq!(t.duration(30), 30 * step);
        }
    }

    #[test]
    fn the_last_frame_lasts_as_long_as_usual() {
        let t =
            recorded(Clock::Log, &[(None, 0), (None, 100), (None, 200), (None, 300), (None, 9000)]);
        assert_eq!(t.duration(5), 9100);
        assert_eq!(recorded(Clock::Log, &[(None, 77)]).duration(1), 33_333_333);
    }
}
