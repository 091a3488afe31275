use encoder_core::FrameRate;

use super::{Clock, FrameTimes, Numbers, Rising, Timing, distance, exact, round};

/// Maps the times of frames to ticks one by one, for files that are not changed once they are
/// written.
///
/// The first frame determines the clock. If a later header stamp is missing or runs backwards, the
/// distances of the log times are used from there on.
#[derive(Debug)]
pub struct StreamingTimeline {
    timing: Timing,
    frames: u64,
    numbers: Option<Numbers>,
    rising: Rising,
    origin: i64,
    /// The current clock. After a switch to the log times, they are shifted by `shift`.
    clock: Clock,
    shift: i128,
    before: Option<FrameTimes>,
    last: u64,
    /// The last two distances, in ticks.
    gaps: [u64; 2],
    warnings: Vec<String>,
}

/// Length of a tick for recorded times. 32 bits of these ticks exceed an hour: no pause needs a
/// coarser tick.
const TICK_NS: u64 = 1000;

impl StreamingTimeline {
    /// A timeline without frames. `rate` gives the duration of a single frame.
    pub fn new(timing: Timing, rate: FrameRate) -> Self {
        let (clock, nominal) = match timing {
            Timing::Recorded(clock) => (clock, (rate.nanoseconds(1) / TICK_NS).max(1)),
            Timing::Rate(rate) | Timing::Numbered(rate) => (Clock::Log, exact(rate).1),
        };
        let numbers = match timing {
            Timing::Numbered(rate) => Some(Numbers::new(rate)),
            _ => None,
        };
        Self {
            timing,
            frames: 0,
            numbers,
            rising: Rising::default(),
            origin: 0,
            clock,
            shift: 0,
            before: None,
            last: 0,
            gaps: [nominal; 2],
            warnings: Vec::new(),
        }
    }

    /// Ticks in a second.
    pub fn timescale(&self) -> u32 {
        match self.timing {
            Timing::Recorded(_) => (1_000_000_000 / TICK_NS) as u32,
            Timing::Rate(rate) | Timing::Numbered(rate) => exact(rate).0,
        }
    }

    /// Warnings where the times differ from the requested times, with the reason.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The likely duration of the last frame, in ticks: the shorter of the last two distances, so
    /// that a preceding pause does not count.
    pub fn usual(&self) -> u64 {
        self.gaps[0].min(self.gaps[1])
    }

    /// The display time of the next frame, in ticks from the first frame. Frames must be passed in
    /// display order.
    pub fn next(&mut self, times: &FrameTimes) -> u64 {
        let index = self.frames;
        self.frames += 1;
        if let Timing::Rate(_) | Timing::Numbered(_) = self.timing {
            let number = self.numbers.as_mut().map_or(index, |n| n.next(times.log_ns));
            return number.saturating_mul(self.gaps[0]);
        }
        self.check(index, times);
        let stamp = i128::from(times.by(self.clock)) + self.shift;
        let clamped = stamp.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        let stamp = self.rising.next(clamped);
        self.before = Some(*times);
        if index == 0 {
            self.origin = stamp;
            return 0;
        }
        let tick = round(distance(self.origin, stamp), TICK_NS).max(self.last + 1);
        self.gaps = [self.gaps[1], tick - self.last];
        self.last = tick;
        tick
    }

    /// Switches to the log times if the header stamp is missing or runs backwards.
    fn check(&mut self, index: u64, times: &FrameTimes) {
        if self.clock == Clock::Log {
            return;
        }
        let before = self.before.and_then(|before| Some((before.header_ns?, before.log_ns)));
        let fault = match (times.header_ns, before) {
            (None, _) => format!("the header of frame {index} has no stamp"),
            (Some(now), Some((header, _))) if now < header => format!(
                "the header stamps run backwards by {:.3} s at frame {index}",
                distance(now, header) as f64 / 1e9
            ),
            _ => return,
        };
        self.clock = Clock::Log;
        let goes_on = match (before, self.rising.last) {
            (Some((_, log)), Some(last)) => {
                self.shift = i128::from(last) - i128::from(log);
                "frames before it keep their header stamps, since a fragmented file is never \
                 changed; from there on it has the distances of the log times"
            }
            _ => "the fragmented file has log times",
        };
        self.warnings.push(format!("{fault}: {goes_on}"));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MS: i64 = 1_000_000;

    fn map(timing: Timing, frames: &[(Option<i64>, i64)]) -> (Vec<u64>, Vec<String>) {
        let mut timeline = StreamingTimeline::new(timing, FrameRate::default());
        let ms = |&(header, log): &(Option<i64>, i64)| FrameTimes {
            header_ns: header.map(|ms| ms * MS),
            log_ns: log * MS,
        };
        let ticks = frames.iter().map(|frame| timeline.next(&ms(frame))).collect();
        (ticks, timeline.warnings().to_vec())
    }

    #[test]
    fn times_rise_whatever_the_stamps_do() {
        let header = Timing::Recorded(Clock::Header);
        // Header and log times in ms, ticks in µs, part of the warning.
        type Row<'a> = (Timing, &'a [(Option<i64>, i64)], &'a [u64], &'a str);
        let table: &[Row<'_>] = &[
            (header, &[(Some(100), 0), (Some(140), 50)], &[0, 40_000], ""),
            (Timing::Recorded(Clock::Log), &[(None, 0), (Some(9), 50)], &[0, 50_000], ""),
            (header, &[(None, 7), (Some(100), 17)], &[0, 10_000], "frame 0 has no stamp"),
            (
                header,
                &[(Some(100), 0), (Some(140), 50), (None, 80), (Some(990), 130)],
                &[0, 40_000, 70_000, 120_000],
                "frame 2 has no stamp",
            ),
            (
                header,
                &[(Some(100), 0), (Some(90), 50), (Some(91), 80)],
                &[0, 50_000, 80_000],
                "backwards by 0.010 s at frame 1",
            ),
            (header, &[(Some(100), 0), (Some(100), 1), (Some(100), 2)], &[0, 1000, 2000], ""),
            (Timing::Rate("30".parse().unwrap()), &[(None, 5), (None, 5)], &[0, 512], ""),
            (
                Timing::Numbered("10".parse().unwrap()),
                &[(Some(9), 500), (Some(1), 600), (None, 600), (None, 900)],
                &[0, 1024, 2048, 4096],
                "",
            ),
        ];
        for (timing, frames, expected, warning) in table {
            let (ticks, warnings) = map(*timing, frames);
            assert_eq!(ticks, *expected);
            assert_eq!(warnings.len(), usize::from(!warning.is_empty()), "{warnings:?}");
            assert!(warnings.join(" ").contains(warning), "{warnings:?}");
        }
    }

    #[test]
    fn a_pause_is_not_taken_for_the_usual_distance() {
        let mut timeline =
            StreamingTimeline::new(Timing::Recorded(Clock::Log), FrameRate::default());
        assert_eq!(timeline.usual(), 33_333);
        // Time in ms, and the usual distance at that time.
        for (ms, usual) in [(0, 33_333), (40, 33_333), (80, 40_000), (9000, 40_000), (9050, 50_000)]
        {
            timeline.next(&FrameTimes::at(ms * MS));
            assert_eq!(timeline.usual(), usual, "{ms} ms");
        }
    }

    #[test]
    fn absurd_stamps_do_not_overflow() {
        let mut timeline =
            StreamingTimeline::new(Timing::Recorded(Clock::Header), FrameRate::default());
        let stamps = [Some(i64::MIN), Some(i64::MAX), Some(i64::MIN), None, Some(i64::MAX)];
        let ticks: Vec<_> = stamps
            .into_iter()
            .zip([i64::MAX, i64::MIN, i64::MAX, i64::MAX, i64::MIN])
            .map(|(header_ns, log_ns)| timeline.next(&FrameTimes { header_ns, log_ns }))
            .collect();
        assert!(ticks.windows(2).all(|w| w[0] < w[1]), "{ticks:?}");
    }
}
