use std::ops::Range;

use encoder_core::FrameRate;

use super::{
    Clock, FrameTimes, Numbers, Rising, Timeline, Timing, distance, exact,
    judge::{LINE, Sample, Scale, deviation, is_plausible},
    repair::{LISTED, LONGEST_PAUSE_NS, Repairs, clamp, name, seconds, step},
    round,
};

/// Maps the times of frames to ticks one by one, for files that are not changed once they are
/// written.
///
/// A stamp that cannot be true, by the frames before it, is replaced by the distance of the other
/// clock. If the frames after it agree with it, the clock was set, and the jump stays closed.
#[derive(Debug)]
pub struct StreamingTimeline {
    timing: Timing,
    frames: u64,
    numbers: Option<Numbers>,
    rising: Rising,
    origin: i64,
    clock: Clock,
    /// The last good frame, and what is added to its stamp and those after it.
    good: Option<(Sample, i128)>,
    /// The same before the clock was set, for as long as it may be set back.
    set: Option<(Sample, i128, usize)>,
    before: Option<Sample>,
    /// The frame before this one had no usable stamp.
    is_off: bool,
    last: u64,
    /// The last two distances, in ticks.
    gaps: [u64; 2],
    /// Frames without a usable stamp, and their number.
    off: Vec<Range<u64>>,
    guessed: u64,
    /// Frames whose stamps were shifted, compared with the first ones.
    shifts: Vec<Shift>,
    /// What is added to the first stamps.
    base: i128,
    /// Frames after the first that have their own stamps.
    stamped: u64,
}

/// Consecutive frames whose times differ from their stamps by the same amount.
#[derive(Debug)]
struct Shift {
    first: u64,
    /// The frame after them; `None` while the shift lasts.
    end: Option<u64>,
    /// How much later than their stamps the frames are.
    later: i128,
    /// The frame at which the clock was set.
    origin: u64,
    /// From the last good stamp to that of the first frame; `None` if an earlier setting of the
    /// clock counts again.
    jump: Option<i128>,
}

/// The most entries of a list of frames.
const MOST_KEPT: usize = 10_000;

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
            good: None,
            set: None,
            before: None,
            is_off: false,
            last: 0,
            gaps: [nominal; 2],
            off: Vec::new(),
            guessed: 0,
            shifts: Vec::new(),
            base: 0,
            stamped: 0,
        }
    }

    /// Ticks in a second.
    pub fn timescale(&self) -> u32 {
        match self.timing {
            Timing::Recorded(_) => (1_000_000_000 / TICK_NS) as u32,
            Timing::Rate(rate) | Timing::Numbered(rate) => exact(rate).0,
        }
    }

    /// These ticks in nanoseconds, rounded.
    pub fn nanoseconds(&self, ticks: u64) -> u64 {
        let scale = u128::from(self.timescale());
        let ns = (u128::from(ticks) * 1_000_000_000 + scale / 2) / scale;
        ns.try_into().unwrap_or(u64::MAX)
    }

    /// Warnings where the times differ from the requested times, with the reason, and the number of
    /// times that were estimated. `whole` is the timeline of the same frames, which were judged over
    /// the whole stream.
    pub fn judgement(&self, whole: &Timeline) -> (Vec<String>, u64) {
        let Some(doubt) = &whole.doubt else {
            let none = Repairs::default();
            return self.compared(whole.repairs().unwrap_or(&none), whole.moved);
        };
        if self.stamped == 0 && whole.guessed == 0 {
            // All distances are those of the other clock.
            return (vec![format!("{doubt}: {}", self.clock.other().is_used())], 0);
        }
        let clock = self.clock.name();
        let late = format!(
            "{doubt}, as only the whole stream shows: the fragmented file, which is never changed, \
             has the {clock} nevertheless, unless the frames before contradict them"
        );
        let guessed = if self.guessed > 0 { self.guessed } else { self.frames };
        (std::iter::once(late).chain(self.differences()).collect(), guessed)
    }

    /// [`judgement`](Self::judgement) if the whole stream has the same clock: with these repairs,
    /// and `moved` frames put behind the one before them.
    fn compared(&self, whole: &Repairs, moved: u64) -> (Vec<String>, u64) {
        let mut warnings = self.differences();
        let clock = self.clock.name();
        let is_jump = |frame| whole.jumps.binary_search_by_key(&frame, |jump| jump.frame).is_ok();
        let mut guessed = self.guessed + self.rising.moved.saturating_sub(moved);
        for shift in &self.shifts {
            guessed += match is_jump(shift.origin) {
                true => u64::from(shift.jump.is_some()),
                false if shift.later == 0 => 0,
                false => shift.end.unwrap_or(self.frames) - shift.first,
            };
        }
        let has_stamp = |frame: &u64| {
            !self.is_off_at(*frame)
                && self
                    .shift_at(*frame)
                    .is_none_or(|shift| shift.later == 0 || is_jump(shift.origin))
        };
        let as_recorded: Vec<u64> =
            whole.runs.iter().flat_map(|run| run.first..run.end).filter(has_stamp).collect();
        if !as_recorded.is_empty() {
            guessed += as_recorded.len() as u64;
            warnings.push(format!(
                "as only the whole stream shows, these frames have {clock} that cannot be true: {}; \
                 the fragmented file, which is never changed, has them nevertheless",
                list(as_recorded.into_iter())
            ));
        }
        let is_pause = |frame| !self.is_off_at(frame) && self.shift_at(frame).is_none();
        let pauses: Vec<_> = whole.jumps.iter().filter(|jump| is_pause(jump.frame)).collect();
        guessed += pauses.len() as u64;
        for jump in pauses.into_iter().take(LISTED) {
            warnings.push(format!(
                "the {clock} {} at frame {}, which is no pause, as only the whole stream shows: the \
                 fragmented file, which is never changed, has it nevertheless",
                step(jump.by),
                jump.frame
            ));
        }
        (warnings, guessed.min(self.frames))
    }

    /// Whether a frame had no usable stamp.
    fn is_off_at(&self, frame: u64) -> bool {
        let after = self.off.partition_point(|frames| frames.start <= frame);
        after > 0 && self.off[after - 1].contains(&frame)
    }

    /// The shift of a frame, if the clock was set before.
    fn shift_at(&self, frame: u64) -> Option<&Shift> {
        let after = self.shifts.partition_point(|shift| shift.first <= frame);
        self.shifts[..after].last().filter(|shift| shift.end.is_none_or(|end| frame < end))
    }

    /// How the times differ from the stamps.
    fn differences(&self) -> Vec<String> {
        let mut warnings: Vec<_> = self.off_warning().into_iter().collect();
        let clock = self.clock.name();
        let shifts: Vec<_> = self.shifts.iter().filter(|shift| shift.later != 0).collect();
        for Shift { first, end, later, jump, .. } in shifts.iter().take(LISTED) {
            let set = jump.map_or(String::new(), |by| {
                format!("the {clock} {} at frame {first}: in the fragmented file, ", step(by))
            });
            let which = match end {
                None => format!("from frame {first} on, all frames"),
                Some(end) => format!("frames {}", name(*first, *end)),
            };
            let (by, how) = (seconds(later.abs()), if *later < 0 { "earlier" } else { "later" });
            warnings.push(format!("{set}{which} are {by:.3} s {how} than their stamps"));
        }
        if shifts.len() > LISTED {
            let more = shifts.len() - LISTED;
            warnings.push(format!("{more} more such jumps shift the frames behind them"));
        }
        warnings.extend(self.rising.warning());
        warnings
    }

    fn off_warning(&self) -> Option<String> {
        if self.guessed == 0 {
            return None;
        }
        Some(format!(
            "{} of {} frames ({}) have {} that cannot be true by the frames before them: in \
             the fragmented file, which is never changed, they have the distances of the other \
             clock",
            self.guessed,
            self.frames,
            list(self.off.iter().cloned().flatten()),
            self.clock.name()
        ))
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
        let stamp = clamp(self.place(index, times));
        self.stamped += u64::from(index > 0 && !self.is_off);
        let stamp = self.rising.next(stamp);
        if index == 0 {
            self.origin = stamp;
            return 0;
        }
        let tick = round(distance(self.origin, stamp), TICK_NS).max(self.last + 1);
        self.gaps = [self.gaps[1], tick - self.last];
        self.last = tick;
        tick
    }

    /// The time of the next frame.
    fn place(&mut self, index: u64, times: &FrameTimes) -> i128 {
        let sample = Sample::new(times, self.clock);
        let usual = i128::from(self.usual().saturating_mul(TICK_NS));
        let scale = Scale::even(usual, self.clock);
        let before = self.before.replace(sample);
        let was_off = std::mem::replace(&mut self.is_off, false);
        let expected = i128::from(self.rising.last.unwrap_or_default())
            + before
                .and_then(|before| Some(sample.other? - before.other?))
                .filter(|distance| (1..=LONGEST_PAUSE_NS).contains(distance))
                .unwrap_or(usual);
        if let Some(stamp) = sample.stamp {
            let Some((good, shift)) = self.good else {
                let shift = if index == 0 { 0 } else { expected - stamp };
                self.base = shift;
                self.good = Some((sample, shift));
                return stamp + shift;
            };
            if let Some((old, old_shift, left)) = self.set.take()
                && left > 0
            {
                if is_plausible(&old, &sample, &scale)
                    && deviation(&old, &sample, &scale) < deviation(&good, &sample, &scale)
                {
                    self.shift(index, old_shift, None);
                    self.good = Some((sample, old_shift));
                    return stamp + old_shift;
                }
                self.set = Some((old, old_shift, left - 1));
            }
            if is_plausible(&good, &sample, &scale) {
                self.good = Some((sample, shift));
                return stamp + shift;
            }
            if let Some(last) = before.and_then(|before| before.stamp).filter(|_| was_off)
                && last != stamp
                && before.is_some_and(|before| is_plausible(&before, &sample, &scale))
            {
                self.set = Some((good, shift, LINE));
                let shift = i128::from(self.rising.last.unwrap_or_default()) - last;
                self.take_off(index - 1);
                self.shift(index - 1, shift, good.stamp.map(|good| last - good));
                self.good = Some((sample, shift));
                return stamp + shift;
            }
        }
        self.is_off = true;
        self.guessed += 1;
        let is_full = self.off.len() == MOST_KEPT;
        match self.off.last_mut() {
            Some(frames) if frames.end == index => frames.end += 1,
            _ if is_full => {}
            _ => self.off.push(index..index + 1),
        }
        if index == 0 { sample.other.unwrap_or_default() } else { expected }
    }

    /// Takes back that the last frame has no usable stamp.
    fn take_off(&mut self, index: u64) {
        self.guessed -= 1;
        if let Some(frames) = self.off.pop_if(|frames| frames.end == index + 1)
            && frames.start < index
        {
            self.off.push(frames.start..index);
        }
    }

    /// From this frame on, `shift` is added to the stamps.
    fn shift(&mut self, first: u64, shift: i128, jump: Option<i128>) {
        if self.shifts.len() == MOST_KEPT {
            return;
        }
        let later = shift - self.base;
        let earlier = self.shifts.iter().rev().find(|shift| jump.is_none() && shift.later == later);
        let origin = earlier.map_or(first, |shift| shift.origin);
        if let Some(last) = self.shifts.last_mut() {
            last.end.get_or_insert(first);
        }
        self.shifts.push(Shift { first, end: None, later, origin, jump });
    }
}

/// The numbers of the first frames, for messages.
fn list(frames: impl Iterator<Item = u64>) -> String {
    let mut listed: Vec<_> = frames.take(LISTED + 1).map(|frame| frame.to_string()).collect();
    if listed.len() > LISTED {
        listed[LISTED] = "…".into();
    }
    listed.join(", ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{super::TimestampAnalysis, *};

    const MS: i64 = 1_000_000;

    /// The ticks of the frames, and the judgement. Times are in ms.
    fn map(timing: Timing, frames: &[(Option<i64>, i64)]) -> (Vec<u64>, (Vec<String>, u64)) {
        let mut timeline = StreamingTimeline::new(timing, FrameRate::default());
        let mut analysis = TimestampAnalysis::new(timing, FrameRate::default(), 0);
        let ms = |&(header, log): &(Option<i64>, i64)| FrameTimes {
            header_ns: header.map(|ms| ms * MS),
            log_ns: log * MS,
        };
        let mut next = |frame| {
            analysis.push(&ms(frame));
            timeline.next(&ms(frame))
        };
        let ticks = frames.iter().map(&mut next).collect();
        (ticks, timeline.judgement(&analysis.timeline()))
    }

    #[test]
    fn the_warnings_are_about_the_clock_of_the_file() {
        let header = Timing::Recorded(Clock::Header);
        type Frames = Vec<(Option<i64>, i64)>;
        let frames = |stamp: fn(i64) -> Option<i64>| -> Frames {
            (0..40).map(|n| (stamp(n), 5000 + n * 50)).collect()
        };
        // Stamps; the distance of the last frames in ms, parts of the warnings, and the number of
        // estimates.
        type Row = (Frames, u64, &'static [&'static str], u64);
        let table: [Row; 5] = [
            (frames(|n| Some(77 + n * 51)), 51, &[], 0),
            // The log times are used from the first frame on.
            (frames(|_| None), 50, &["no frame has a stamp", "log times are used"], 0),
            (frames(|_| Some(0)), 50, &["are the same: log times are used"], 0),
            // The stamps were written before it showed that they cannot be used.
            (
                frames(|n| Some(if n < 20 { 1000 + n * 51 } else { 0 })),
                50,
                &[
                    "19 of 40 header stamps are those",
                    "has the header stamps nevertheless",
                    "20 of 40",
                ],
                20,
            ),
            // A pause that MP4 with its index in front could not hold in nanoseconds.
            (frames(|n| Some(77 + n * 51 + if n < 20 { 0 } else { 9000 })), 51, &["jump"], 1),
        ];
        for (frames, distance, parts, guessed) in table {
            let (ticks, (warnings, count)) = map(header, &frames);
            assert_eq!(ticks[39] - ticks[38], distance * 1000, "{warnings:?}");
            let said = warnings.join("\n");
            assert!(parts.iter().all(|part| said.contains(part)), "{parts:?}: {said}");
            assert_eq!(said.is_empty(), parts.is_empty(), "{said}");
            assert_eq!(count, guessed, "{said}");
            let is_used = said.contains("log times are used");
            assert_eq!(is_used, parts.concat().contains("log times are used"), "{said}");
        }
        // Numbers of frames: nothing is guessed, and no time is right.
        let numbers: Vec<_> =
            (0..40).map(|n| FrameTimes { header_ns: Some(n), log_ns: n * 50 * MS }).collect();
        let mut timeline = StreamingTimeline::new(header, FrameRate::default());
        let mut analysis = TimestampAnalysis::new(header, FrameRate::default(), 0);
        for times in &numbers {
            timeline.next(times);
            analysis.push(times);
        }
        let (warnings, guessed) = timeline.judgement(&analysis.timeline());
        assert!(warnings[0].contains("has the header stamps nevertheless"), "{warnings:?}");
        assert_eq!((warnings.len(), guessed), (1, 40));
    }

    #[test]
    fn the_judgement_of_the_whole_stream_is_compared_with_the_times_of_the_file() {
        // The stamps of frames at 20 fps; how far their times are from those of a whole judgement
        // at the end, in ms, the warnings, and the number of estimates.
        type Row = (fn(i64) -> i64, i64, &'static [&'static str], u64);
        let table: [Row; 6] = [
            // Frame 40 is taken as good, and those after it are not.
            (
                |n| n * 50 + if n == 40 { 700 } else { 0 },
                700,
                &[
                    "the header stamps step back by 0.650 s at frame 41: in the fragmented file, \
                     from frame 41 on, all frames are 0.700 s later than their stamps",
                    "stamps that cannot be true: 40; the fragmented file",
                ],
                40,
            ),
            // A jump that both judgements close; then the same jump, followed by its reverse.
            (
                |n| n * 50 + if n < 40 { 0 } else { 8000 },
                0,
                &["jump ahead by 8.050 s at frame 40: in the fragmented file, from frame 40 on"],
                1,
            ),
            (
                |n| n * 50 + if (40..60).contains(&n) { 8000 } else { 0 },
                0,
                &["frames 40 to 59 are 8.000 s earlier than their stamps"],
                2,
            ),
            // The clock is set for less than what the whole judgement takes for a setting.
            (
                |n| n * 50 + if (40..45).contains(&n) { 8000 } else { 0 },
                0,
                &["frames 40 to 44 are 8.000 s earlier than their stamps"],
                5,
            ),
            (
                |n| if n == 40 { 0 } else { n * 50 },
                0,
                &["1 of 80 frames (40) have header stamps that cannot be true"],
                1,
            ),
            (|n| n * 50, 0, &[], 0),
        ];
        for (stamp, late, parts, guessed) in table {
            let frames: Vec<_> = (0..80).map(|n| (Some(100 + stamp(n)), 5000 + n * 50)).collect();
            let (ticks, (warnings, count)) = map(Timing::Recorded(Clock::Header), &frames);
            assert_eq!(ticks[79] as i64, (79 * 50 + late) * 1000, "{warnings:?}");
            assert_eq!((warnings.len(), count), (parts.len(), guessed), "{warnings:?}");
            for (warning, part) in warnings.iter().zip(parts) {
                assert!(warning.contains(part), "{part}: {warning}");
            }
        }
    }

    #[test]
    fn times_rise_whatever_the_stamps_do() {
        let header = Timing::Recorded(Clock::Header);
        // Header and log times in ms, ticks in µs, part of the warning.
        type Row<'a> = (Timing, &'a [(Option<i64>, i64)], &'a [u64], &'a str);
        let table: &[Row<'_>] = &[
            (header, &[(Some(100), 0), (Some(140), 50)], &[0, 40_000], ""),
            (Timing::Recorded(Clock::Log), &[(None, 0), (Some(9), 50)], &[0, 50_000], ""),
            (header, &[(None, 7), (Some(100), 17)], &[0, 10_000], "1 of 2 frames (0)"),
            // One bad stamp, two in a row, and a clock that is set.
            (
                header,
                &[(Some(100), 0), (Some(9), 40), (Some(180), 81), (Some(220), 120)],
                &[0, 40_000, 80_000, 120_000],
                "(1)",
            ),
            (
                header,
                &[(Some(300), 0), (Some(190), 40), (Some(230), 80), (Some(420), 120)],
                &[0, 40_000, 80_000, 120_000],
                "frames 1 to 2 are 0.150 s later",
            ),
            (
                header,
                &[(Some(36), 0), (Some(90_000_000), 50), (Some(90_000_051), 99)],
                &[0, 50_000, 101_000],
                "from frame 1 on, all frames are 89999.914 s earlier than their stamps",
            ),
            (
                header,
                &[(Some(5), 0), (Some(5), 50), (Some(5), 99)],
                &[0, 50_000, 99_000],
                "of all 3 frames are the same: log times are used",
            ),
            (
                header,
                &[(Some(100), 0), (Some(140), 50), (None, 80), (Some(990), 130)],
                &[0, 40_000, 70_000, 890_000],
                "1 of 4 frames (2)",
            ),
            (
                header,
                &[(Some(100), 0), (Some(90), 50), (Some(91), 80)],
                &[0, 50_000, 51_000],
                "from frame 1 on, all frames are 0.060 s later than their stamps",
            ),
            (
                header,
                &[(Some(100), 0), (Some(100), 0), (Some(100), 0)],
                &[0, 1000, 2000],
                "are the same",
            ),
            (Timing::Rate("30".parse().unwrap()), &[(None, 5), (None, 5)], &[0, 512], ""),
            (
                Timing::Numbered("10".parse().unwrap()),
                &[(Some(9), 500), (Some(1), 600), (None, 600), (None, 900)],
                &[0, 1024, 2048, 4096],
                "",
            ),
        ];
        for (timing, frames, expected, warning) in table {
            let (ticks, (warnings, _)) = map(*timing, frames);
            assert_eq!(ticks, *expected);
            assert_eq!(warnings.is_empty(), warning.is_empty(), "{warnings:?}");
            assert!(warnings.join(" ").contains(warning), "{warnings:?}");
        }
    }

    #[test]
    fn ticks_in_nanoseconds() {
        let rate = |text: &str| Timing::Rate(text.parse().unwrap());
        for (timing, ticks, expected) in [
            (Timing::Recorded(Clock::Log), 40_001, 40_001_000),
            (Timing::Recorded(Clock::Log), u64::MAX, u64::MAX),
            (rate("30"), 512, 33_333_333),
            (rate("30"), 1024, 66_666_667),
            (rate("10"), 1024 * 3, 300_000_000),
        ] {
            let timeline = StreamingTimeline::new(timing, FrameRate::default());
            assert_eq!(timeline.nanoseconds(ticks), expected, "{timing:?} {ticks}");
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
