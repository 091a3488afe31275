use encoder_core::FrameRate;

use super::{Clock, FrameTimes, Numbers, Rising, Timing, distance, exact, exact_up_to, round};

/// Chooses the clock and the timescale for a whole recording, without storing the times.
#[derive(Clone, Debug)]
pub struct TimestampAnalysis {
    timing: Timing,
    rate: FrameRate,
    reorder: u32,
    frames: u64,
    /// The header stamps, up to the first stamp that is missing or runs backwards.
    header: Track,
    log: Track,
    fault: Option<Fault>,
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

/// The reason why the header stamps cannot be used.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Missing { frame: u64 },
    Backwards { frame: u64, by_ns: u64 },
}

/// The stamps of one clock.
#[derive(Clone, Debug, Default)]
struct Track {
    rising: Rising,
    first: Option<i64>,
    /// The last stamp, as recorded.
    raw: i64,
    longest_gap: u64,
    /// The first gaps between stamps, for their median.
    gaps: Vec<u64>,
    /// Time of the last frame in ticks, for each length of a tick.
    ends: [u64; TICKS_NS.len()],
}

/// Possible lengths of a tick, in nanoseconds.
const TICKS_NS: [u64; 10] =
    [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];

/// How many gaps the median is computed from.
const GAPS: usize = 1024;

impl Track {
    fn push(&mut self, stamp: i64) {
        let before = self.rising.last;
        let now = self.rising.next(stamp);
        self.raw = stamp;
        let first = *self.first.get_or_insert(now);
        let Some(before) = before else { return };
        let gap = distance(before, now);
        self.longest_gap = self.longest_gap.max(gap);
        if self.gaps.len() < GAPS {
            self.gaps.push(gap);
        }
        for (end, tick_ns) in self.ends.iter_mut().zip(TICKS_NS) {
            *end = round(distance(first, now), tick_ns).max(*end + 1);
        }
    }

    fn usual_gap(&self) -> Option<u64> {
        let mut gaps = self.gaps.clone();
        gaps.sort_unstable();
        gaps.get(gaps.len() / 2).copied()
    }
}

impl TimestampAnalysis {
    /// An analysis without frames. `rate` gives the duration of a single frame; `reorder` is how
    /// many frames ahead of its display a picture may be decoded.
    pub fn new(timing: Timing, rate: FrameRate, reorder: u32) -> Self {
        let (header, log) = (Track::default(), Track::default());
        let numbered = match timing {
            Timing::Numbered(rate) => {
                Some(Numbered { numbers: Numbers::new(rate), last: 0, longest_gap: 0 })
            }
            _ => None,
        };
        Self { timing, rate, reorder, frames: 0, header, log, fault: None, numbered, ends: None }
    }

    /// Adds the times of the next frame, in display order.
    pub fn push(&mut self, times: &FrameTimes) {
        match (times.header_ns, self.fault) {
            // A missing stamp is reported in preference to a stamp that runs backwards.
            (_, Some(Fault::Missing { .. })) => {}
            (None, _) => self.fault = Some(Fault::Missing { frame: self.frames }),
            (Some(_), Some(_)) => {}
            (Some(stamp), None) if self.frames > 0 && stamp < self.header.raw => {
                let by_ns = distance(stamp, self.header.raw);
                self.fault = Some(Fault::Backwards { frame: self.frames, by_ns });
            }
            (Some(stamp), None) => self.header.push(stamp),
        }
        self.log.push(times.log_ns);
        if let Some(numbered) = &mut self.numbered {
            let number = numbered.numbers.next(times.log_ns);
            numbered.longest_gap = numbered.longest_gap.max(number - numbered.last);
            numbered.last = number;
        }
        self.ends = Some((self.ends.map_or(*times, |(first, _)| first), *times));
        self.frames += 1;
    }

    /// Number of frames so far.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Returns `wanted`, or the log times if the header stamps cannot be used; and warnings.
    pub(super) fn clock(&self, wanted: Clock) -> (Clock, Vec<String>) {
        let mut warnings = Vec::new();
        let clock = match (wanted, self.fault) {
            (Clock::Header, Some(fault)) => {
                warnings.push(match fault {
                    Fault::Missing { frame } => {
                        format!("the header of frame {frame} has no stamp: log times are used")
                    }
                    Fault::Backwards { frame, by_ns } => format!(
                        "the header stamps run backwards by {:.3} s at frame {frame}: log times \
                         are used",
                        by_ns as f64 / 1e9
                    ),
                });
                Clock::Log
            }
            (clock, _) => clock,
        };
        let moved = self.track(clock).rising.moved;
        if moved > 0 {
            warnings.push(format!(
                "{moved} frames have the time of the frame before them or an earlier one; each was \
                 put 1 ms behind it"
            ));
        }
        (clock, warnings)
    }

    fn track(&self, clock: Clock) -> &Track {
        match clock {
            Clock::Header => &self.header,
            Clock::Log => &self.log,
        }
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
        let (clock, mut warnings) = self.clock(wanted);
        let track = self.track(clock);
        let index = resolution(track.longest_gap, self.reorder);
        let tick_ns = TICKS_NS[index];
        if tick_ns > 1 {
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
        let usual = track.usual_gap().map(|gap| round(gap, tick_ns));
        let last = usual.unwrap_or(self.rate.nanoseconds(1) / tick_ns).max(1);
        Timeline {
            timescale: (1_000_000_000 / tick_ns) as u32,
            duration: if self.frames > 0 { track.ends[index].saturating_add(last) } else { 0 },
            pattern: Pattern::Recorded { clock, tick_ns },
            first_ns: track.first,
            last_ns: track.rising.last,
            warnings,
        }
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
}

#[derive(Clone, Copy, Debug)]
enum Pattern {
    Every(u64),
    Numbered { step: u64, rate: FrameRate },
    Recorded { clock: Clock, tick_ns: u64 },
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

    /// Duration of all frames in seconds.
    pub fn duration_s(&self) -> f64 {
        self.duration as f64 / f64::from(self.timescale)
    }

    /// A mapper that starts at the first frame.
    pub fn ticks(&self) -> TickMapper {
        let numbers = match self.pattern {
            Pattern::Numbered { rate, .. } => Some(Numbers::new(rate)),
            _ => None,
        };
        TickMapper {
            pattern: self.pattern,
            frames: 0,
            numbers,
            rising: Rising::default(),
            origin: 0,
            last: 0,
        }
    }

    /// Logs the warnings.
    pub fn log(&self) {
        self.warnings.iter().for_each(|text| tracing::warn!("{text}"));
    }
}

/// Maps the times of frames to ticks, in display order.
#[derive(Clone, Debug)]
pub struct TickMapper {
    pattern: Pattern,
    frames: u64,
    numbers: Option<Numbers>,
    rising: Rising,
    origin: i64,
    last: u64,
}

impl TickMapper {
    /// The display time of the next frame, in ticks from the first frame.
    pub fn next(&mut self, times: &FrameTimes) -> u64 {
        let index = self.frames;
        self.frames += 1;
        self.last = match self.pattern {
            Pattern::Every(step) => index.saturating_mul(step),
            Pattern::Numbered { step, .. } => {
                let number = self.numbers.as_mut().map_or(index, |n| n.next(times.log_ns));
                number.saturating_mul(step)
            }
            Pattern::Recorded { clock, tick_ns } => {
                let stamp = self.rising.next(times.by(clock));
                if index == 0 {
                    self.origin = stamp;
                    return 0;
                }
                round(distance(self.origin, stamp), tick_ns).max(self.last + 1)
            }
        };
        self.last
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{
        super::{STEP_NS, reorder},
        *,
    };

    const S: i64 = 1_000_000_000;

    fn rate() -> FrameRate {
        FrameRate::default()
    }

    /// The timeline of frames, and their ticks.
    fn map(timing: Timing, reorder: u32, frames: &[(Option<i64>, i64)]) -> (Timeline, Vec<u64>) {
        let mut analysis = TimestampAnalysis::new(timing, rate(), reorder);
        let frames: Vec<_> =
            frames.iter().map(|&(header_ns, log_ns)| FrameTimes { header_ns, log_ns }).collect();
        frames.iter().for_each(|times| analysis.push(times));
        assert_eq!(analysis.frames(), frames.len() as u64);
        let timeline = analysis.timeline();
        let mut ticks = timeline.ticks();
        (timeline, frames.iter().map(|times| ticks.next(times)).collect())
    }

    fn recorded(clock: Clock, frames: &[(Option<i64>, i64)]) -> (Timeline, Vec<u64>) {
        map(Timing::Recorded(clock), 0, frames)
    }

    #[test]
    fn recorded_stamps_are_kept_to_the_nanosecond() {
        let (t, ticks) = recorded(
            Clock::Header,
            &[(Some(7 * S + 1), 0), (Some(7 * S + 33_333_334), 9), (Some(8 * S), 10)],
        );
        assert_eq!(t.timescale(), 1_000_000_000);
        assert_eq!(ticks, [0, 33_333_333, 999_999_999]);
        assert_eq!((t.first_ns, t.last_ns), (Some(7 * S + 1), Some(8 * S)));
        assert_eq!(t.warnings, Vec::<String>::new());
    }

    #[test]
    fn the_clock_falls_back_with_a_warning() {
        // Clock, header and log times, ticks, part of the warning.
        type Row<'a> = (Clock, &'a [(Option<i64>, i64)], [u64; 3], &'a str);
        let table: &[Row<'_>] = &[
            (Clock::Log, &[(Some(5), 0), (Some(6), 10), (Some(7), 30)], [0, 10, 30], ""),
            (Clock::Header, &[(Some(5), 0), (None, 10), (Some(7), 30)], [0, 10, 30], "frame 1 has"),
            (
                Clock::Header,
                &[(Some(50), 0), (Some(40), 10), (Some(70), 30)],
                [0, 10, 30],
                "backwards by 0.000 s at frame 1",
            ),
            (
                Clock::Header,
                &[(Some(50), 0), (Some(40), 10), (None, 30)],
                [0, 10, 30],
                "frame 2 has no stamp",
            ),
            (
                Clock::Header,
                &[(Some(5), 0), (Some(5), 1), (Some(7 + STEP_NS), 2)],
                [0, 1_000_000, 1_000_002],
                "1 frames have the time",
            ),
        ];
        for (clock, frames, expected, warning) in table {
            let (t, ticks) = recorded(*clock, frames);
            assert_eq!(ticks, expected);
            assert_eq!(t.warnings.is_empty(), warning.is_empty());
            assert!(t.warnings.join(" ").contains(warning), "{:?}", t.warnings);
        }
    }

    #[test]
    fn a_long_gap_makes_the_ticks_coarser_not_wrong() {
        for (gap, b_frames, timescale) in [
            (4 * S, 0, 1_000_000_000),
            (30 * S, 0, 100_000_000),
            (3600 * S, 0, 1_000_000),
            (86_400 * S, 0, 10_000),
            (S / 25, 4, 1_000_000_000),
            (S / 10, 2, 100_000_000),
            (S, 2, 10_000_000),
        ] {
            let frames = [(Some(0), 0), (Some(gap + 7), gap + 7)];
            let (t, ticks) = map(Timing::Recorded(Clock::Header), reorder(b_frames), &frames);
            assert_eq!(t.timescale(), timescale, "{gap}");
            let seconds = ticks[1] as f64 / f64::from(timescale);
            let off = (seconds - (gap + 7) as f64 / 1e9).abs();
            assert!(off <= 0.51 / f64::from(timescale) + 1e-9, "{gap}: {off}");
        }
    }

    #[test]
    fn absurd_stamps_do_not_overflow() {
        let (_, ticks) = recorded(Clock::Header, &[(Some(i64::MIN), 0), (Some(i64::MAX), 1)]);
        assert!(ticks[1] > 0);
        let (_, ticks) =
            recorded(Clock::Log, &[(None, i64::MAX), (None, i64::MAX), (None, i64::MAX)]);
        assert!(ticks[2] > ticks[1]);
        assert_eq!(recorded(Clock::Header, &[]).0.duration(), 0);
    }

    #[test]
    fn a_constant_rate_is_exact() {
        let ntsc: FrameRate = "30000/1001".parse().unwrap();
        for (rate, timescale, step) in [(rate(), 15360, 512), (ntsc, 30000, 1001)] {
            let (t, ticks) = map(Timing::Rate(rate), 0, &[(None, 7), (None, 9), (None, 8)]);
            assert_eq!((t.timescale(), t.duration()), (timescale, 3 * step));
            assert_eq!(ticks, [0, step, 2 * step]);
        }
    }

    #[test]
    fn numbered_frames_are_exact_and_missing_ones_leave_their_time_free() {
        let ntsc: FrameRate = "30000/1001".parse().unwrap();
        let at = |n: u64| (Some(7), ntsc.nanoseconds(n) as i64);
        let (t, ticks) =
            map(Timing::Numbered(ntsc), 0, &[at(10), at(11), at(11), at(14), at(1_000_000)]);
        assert_eq!(t.timescale(), 30_000);
        assert_eq!(ticks, [0, 1001, 2 * 1001, 4 * 1001, 999_990 * 1001]);
        assert_eq!(t.duration(), 999_991 * 1001);
        assert_eq!((t.first_ns, t.last_ns), (Some(7), Some(7)), "the recorded times");
        assert_eq!(t.warnings, Vec::<String>::new());
        assert_eq!(map(Timing::Numbered(ntsc), 0, &[]).0.duration(), 0);

        // A gap that exceeds MP4's 32 bits makes the ticks coarser; its length stays exact.
        let (t, ticks) = map(Timing::Numbered(rate()), 0, &[(None, 0), (None, 1_000_000 * S)]);
        assert_eq!((t.timescale(), ticks[1]), (3840, 30_000_000 * 128));
        assert_eq!(t.warnings, Vec::<String>::new());
        let (t, ticks) = map(Timing::Numbered(rate()), 2, &[(None, 0), (None, 1_000_000 * S)]);
        assert_eq!((t.timescale(), ticks[1]), (60, 30_000_000 * 2));
        assert_eq!(t.warnings, Vec::<String>::new());
        let fine = FrameRate::new(999_999_937, 4_000_003).unwrap();
        let (t, _) = map(Timing::Numbered(fine), 0, &[(None, 0), (None, 5000 * S)]);
        assert!(t.warnings[0].contains("a gap of 5000 s"), "{:?}", t.warnings);
    }

    #[test]
    fn the_last_frame_lasts_as_long_as_usual() {
        let frames = [(None, 0), (None, 100), (None, 200), (None, 300), (None, 9000)];
        assert_eq!(recorded(Clock::Log, &frames).0.duration(), 9100);
        assert_eq!(recorded(Clock::Log, &[(None, 77)]).0.duration(), 33_333_333);
    }

    proptest::proptest! {
        #[test]
        fn ticks_rise_and_end_before_the_duration(
            frames in proptest::collection::vec(
                (proptest::option::weighted(0.9, 0..20 * S), -S..3000 * S),
                1..40,
            ),
            reorder in 0..6u32,
        ) {
            let timings = [
                Timing::Recorded(Clock::Header),
                Timing::Recorded(Clock::Log),
                Timing::Numbered(rate()),
            ];
            for timing in timings {
                let (t, ticks) = map(timing, reorder, &frames);
                proptest::prop_assert!(ticks.windows(2).all(|w| w[0] < w[1]), "{ticks:?}");
                proptest::prop_assert!(ticks[ticks.len() - 1] < t.duration());
            }
        }
    }
}
