//! Tests of the timeline of a whole recording.
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

/// Frames of a camera at 20 fps: header stamps and log times.
fn camera(count: i64) -> Vec<(Option<i64>, i64)> {
    let log = |n: i64| 7 * MS + n * 50 * MS + (n * 3_141_593) % (9 * MS);
    (0..count).map(|n| (Some(EPOCH + n * 50 * MS), EPOCH + log(n))).collect()
}

const MS: i64 = 1_000_000;
const EPOCH: i64 = 1_760_000_000 * S;

/// Names what is wrong, changes the stamps of a camera, and returns the frames whose times are
/// estimates, with the number of repairs and a part of the warning.
type Fault =
    (&'static str, fn(usize, &mut (Option<i64>, i64)), &'static [usize], u64, &'static str);

#[test]
fn a_bad_stamp_moves_no_other_frame() {
    let table: &[Fault] = &[
        ("none", |_, _| {}, &[], 0, ""),
        (
            "missing",
            |n, f| {
                if n == 7 {
                    f.0 = None
                }
            },
            &[7],
            1,
            "frame 7 has no usable stamp",
        ),
        (
            "zero",
            |n, f| {
                if n == 7 {
                    f.0 = Some(0)
                }
            },
            &[7],
            1,
            "frame 7 has",
        ),
        (
            "backwards",
            |n, f| {
                if n == 7 {
                    add(f, -150)
                }
            },
            &[7],
            1,
            "frame 7 has",
        ),
        (
            "a little early",
            |n, f| {
                if n == 7 {
                    add(f, -60)
                }
            },
            &[7],
            1,
            "frame 7 has",
        ),
        (
            "a little late",
            |n, f| {
                if n == 7 {
                    add(f, 400)
                }
            },
            &[7],
            1,
            "frame 7 has",
        ),
        (
            "far ahead",
            |n, f| {
                if n == 7 {
                    add(f, 900_000)
                }
            },
            &[7],
            1,
            "frame 7 has",
        ),
        (
            "some",
            |n, f| {
                if n % 9 == 2 {
                    add(f, -170)
                }
            },
            &[2, 11, 20, 29, 38],
            5,
            "2, 11, 20, 29, 38",
        ),
        (
            "a run",
            |n, f| {
                if (4..7).contains(&n) {
                    f.0 = None
                }
            },
            &[4, 5, 6],
            3,
            "4 to 6 have",
        ),
        (
            "held for a third of a second",
            |n, f| {
                if (9..16).contains(&n) {
                    f.0 = Some(EPOCH + 8 * 50 * MS)
                }
            },
            &[9, 10, 11, 12, 13, 14, 15],
            7,
            "9 to 15 have",
        ),
        (
            "the first",
            |n, f| {
                if n == 0 {
                    f.0 = Some(36 * S)
                }
            },
            &[0],
            1,
            "at frame 1",
        ),
        (
            "the first is zero",
            |n, f| {
                if n == 0 {
                    f.0 = Some(0)
                }
            },
            &[0],
            1,
            "at frame 1",
        ),
        (
            "the first is missing",
            |n, f| {
                if n == 0 {
                    f.0 = None
                }
            },
            &[0],
            1,
            "frame 0 has",
        ),
        (
            "the last",
            |n, f| {
                if n == 39 {
                    f.0 = None
                }
            },
            &[39],
            1,
            "frame 39 has",
        ),
        (
            "set ahead",
            |n, f| {
                if n >= 20 {
                    add(f, 3_600_000)
                }
            },
            &[20],
            1,
            "ahead by 3600.050 s",
        ),
        (
            "set back",
            |n, f| {
                if n >= 20 {
                    add(f, -5000)
                }
            },
            &[20],
            1,
            "back by 4.950 s at frame 20",
        ),
        (
            "set back, both clocks",
            |n, f| {
                if n >= 20 {
                    (f.0, f.1) = (f.0.map(|t| t - 5 * S), f.1 - 5 * S)
                }
            },
            &[20],
            1,
            "back by 4.950 s at frame 20",
        ),
        (
            "both clocks are from the boot, and then set",
            |n, f| {
                if n < 5 {
                    (f.0, f.1) = (f.0.map(|t| t - EPOCH), f.1 - EPOCH)
                }
            },
            &[5],
            1,
            "at frame 5",
        ),
        (
            "received late",
            |n, f| {
                if n > 9 {
                    f.1 = EPOCH + 30 * S + n as i64
                }
            },
            &[],
            0,
            "",
        ),
        (
            "a pause",
            |n, f| {
                if n > 9 {
                    (f.0, f.1) = (f.0.map(|t| t + S * 40), f.1 + S * 40)
                }
            },
            &[],
            0,
            "a gap of 40.0 s",
        ),
        ("one log time for all", |_, f| f.1 = EPOCH, &[], 0, ""),
    ];
    let good = camera(40);
    for (name, change, estimated, guessed, warning) in table {
        let mut frames = good.clone();
        frames.iter_mut().enumerate().for_each(|(n, frame)| change(n, frame));
        let (t, ticks) = recorded(Clock::Header, &frames);
        let ns = 1_000_000_000 / i64::from(t.timescale());
        let pause = if *name == "a pause" { 40 * S } else { 0 };
        for (n, tick) in ticks.iter().enumerate() {
            let right = n as i64 * 50 * MS + if n > 9 { pause } else { 0 };
            let off = (*tick as i64 * ns - right).abs();
            // An estimate is as good as the log times.
            let allowed = if estimated.is_empty() { 0 } else { 30 * MS };
            assert!(
                off <= allowed,
                "{name} {}: frame {n} is off by {off}: {:?}",
                t.timescale(),
                t.warnings
            );
            // All others keep their distances to each other to the nanosecond.
            if !estimated.contains(&n) && !estimated.contains(&(n + 1)) && n + 1 < ticks.len() {
                let distance = (ticks[n + 1] - tick) as i64 * ns;
                let expected = 50 * MS + if n == 9 { pause } else { 0 };
                assert_eq!(distance, expected, "{name}: frame {n} {:?}", t.warnings);
            }
        }
        assert_eq!(t.guessed, *guessed, "{name}: {:?}", t.warnings);
        assert_eq!(t.warnings.is_empty(), warning.is_empty(), "{name}: {:?}", t.warnings);
        assert!(t.warnings.join(" ").contains(warning), "{name}: {:?}", t.warnings);
    }
}

fn add(frame: &mut (Option<i64>, i64), ms: i64) {
    frame.0 = frame.0.map(|stamp| stamp + ms * MS);
}

fn zero(frame: &mut (Option<i64>, i64), n: i64, range: std::ops::Range<i64>) {
    if range.contains(&n) {
        frame.0 = Some(0);
    }
}

#[test]
fn the_better_clock_is_used() {
    // What is wrong with the stamps, and a part of the warning if the log times are used.
    type Row = (&'static str, fn(i64, &mut (Option<i64>, i64)), &'static str);
    let table: &[Row] = &[
        ("missing", |_, f| f.0 = None, "no frame has a stamp among the header stamps"),
        ("zero", |_, f| f.0 = Some(0), "the header stamps of all 60 frames are the same"),
        ("the same", |_, f| f.0 = Some(EPOCH - 5 * S), "of all 60 frames are the same"),
        ("two values", |n, f| f.0 = Some(n / 30 * S), "58 of 60 header stamps are those"),
        ("whole seconds", |_, f| f.0 = f.0.map(|t| t / S * S), "header stamps are those of the"),
        (
            "a second of them",
            |n, f| {
                if (20..40).contains(&n) {
                    f.0 = Some(EPOCH + S)
                }
            },
            "19 of 60 header stamps",
        ),
        (
            "half of them missing",
            |n, f| {
                if n % 2 == 0 {
                    f.0 = None
                }
            },
            "30 of 60 frames have no",
        ),
        ("noise", |n, f| f.0 = Some(n * n * 7919 % 1013 * S), "more than a quarter"),
        ("frame numbers", |n, f| f.0 = Some(n), "by the header stamps the frames are"),
        // Times of a simulation, of a device, of a file.
        ("half speed", |n, f| f.0 = Some(n * 25 * MS), ""),
        ("double speed", |n, f| f.0 = Some(n * 100 * MS), ""),
        ("a thousandth", |n, f| f.1 = EPOCH + n * 50_000, ""),
        ("since the boot", |n, f| f.0 = Some(36 * S + n * 50 * MS), ""),
    ];
    for (name, change, warning) in table {
        let mut frames = camera(60);
        (0..).zip(&mut frames).for_each(|(n, frame)| change(n, frame));
        let (t, ticks) = recorded(Clock::Header, &frames);
        let stamp = |n: usize| if warning.is_empty() { frames[n].0.unwrap() } else { frames[n].1 };
        let expected: Vec<_> = (0..60).map(|n| (stamp(n) - stamp(0)) as u64).collect();
        assert_eq!(ticks, expected, "{name}: {:?}", t.warnings);
        assert_eq!(t.warnings.is_empty(), warning.is_empty(), "{name}: {:?}", t.warnings);
        let said = t.warnings.join(" ");
        assert!(said.contains(warning), "{name}: {said}");
        assert_eq!(said.contains("log times are used"), !warning.is_empty(), "{name}: {said}");
        assert_eq!(t.guessed, 0, "{name}");
    }
}

#[test]
fn log_times_of_bursts_are_used_if_they_are_wanted() {
    // Ten messages at once, every half second.
    let frames: Vec<_> = (0..60)
        .map(|n| (Some(EPOCH + n * 50 * MS), EPOCH + n / 10 * 500 * MS + n * 1000))
        .collect();
    let (t, ticks) = recorded(Clock::Log, &frames);
    assert_eq!(ticks[59], (frames[59].1 - frames[0].1) as u64);
    assert_eq!((t.warnings.len(), t.guessed), (0, 0), "{:?}", t.warnings);
}

#[test]
fn whole_seconds_of_a_slow_camera() {
    let at = |ms: i64| EPOCH + ms * MS;
    // Whether the stamps are used: cut to seconds, or one frame in each.
    for (period, cut, speed, is_used) in
        [(1000, 0, 1, true), (1300, 1, 1, false), (1000, 0, 2, true), (2000, 0, 1, true)]
    {
        let frames: Vec<_> = (0..30)
            .map(|n| n * period + if n > 20 { 3 * period } else { 0 })
            .map(|ms| (Some(if cut > 0 { at(ms) / S * S } else { at(ms) }), at(ms / speed + 40)))
            .collect();
        let (t, ticks) = recorded(Clock::Header, &frames);
        let end = if is_used { frames[29].0.unwrap() } else { frames[29].1 };
        let begin = if is_used { frames[0].0.unwrap() } else { frames[0].1 };
        assert_eq!(ticks[29] as i64, (end - begin) / (S / i64::from(t.timescale())), "{period}");
        assert_eq!(t.warnings.join(" ").contains("whole seconds"), !is_used, "{:?}", t.warnings);
    }
}

#[test]
fn log_times_before_a_simulated_clock_starts() {
    // 0 until the clock starts, then seconds of the simulation; header stamps of none, or good.
    for has_stamps in [false, true] {
        let frames: Vec<_> = (0..60)
            .map(|n| {
                let log = if n < 8 { 0 } else { 1234 * S + n * 50 * MS };
                (has_stamps.then_some(EPOCH + n * 50 * MS), log)
            })
            .collect();
        for clock in [Clock::Header, Clock::Log] {
            let (t, ticks) = recorded(clock, &frames);
            let off = |n: usize| ticks[n].abs_diff(n as u64 * 50_000_000);
            assert!((0..60).all(|n| off(n) < 60_000_000), "{ticks:?}");
            assert!((8..59).all(|n| ticks[n + 1] - ticks[n] == 50_000_000), "{ticks:?}");
            let is_said = has_stamps && clock == Clock::Header || t.guessed > 0;
            assert!(is_said, "{:?}", t.warnings);
        }
    }
}

#[test]
fn without_any_clock_the_frames_are_at_the_rate() {
    let frames = vec![(None, 5); 60];
    let (t, ticks) = recorded(Clock::Header, &frames);
    assert_eq!(t.duration_s(), 2.0);
    assert_eq!((ticks[1], t.guessed), (t.timescale() as u64 / 30, 60));
    assert!(t.warnings[0].contains("at 30 frames per second"), "{:?}", t.warnings);
}

#[test]
fn frames_with_one_time_by_both_clocks_follow_each_other() {
    let (t, ticks) = recorded(Clock::Header, &[(Some(5), 0), (Some(5), 0), (Some(7 + STEP_NS), 2)]);
    assert_eq!(ticks, [0, 1_000_000, 1_000_002]);
    assert!(t.warnings[0].contains("1 frames have the time"), "{:?}", t.warnings);
    assert_eq!(t.guessed, 0);
}

#[test]
fn repairs_are_bounded_and_the_reason_is_true() {
    // What is wrong, and a part of the warning if the log times are used.
    type Row = (&'static str, fn(i64, &mut (Option<i64>, i64)), &'static str);
    let table: [Row; 5] = [
        ("now and then", |n, f| add(f, if n % 25 == 7 { -700 } else { 0 }), ""),
        ("set again and again", |n, f| add(f, if n < 30_000 { n / 12 * 5000 } else { 0 }), ""),
        ("zeros for a minute", |n, f| zero(f, n, 2000..3200), ""),
        (
            "every fifth stamp",
            |n, f| add(f, if n % 5 == 0 { -700 } else { 0 }),
            "the header stamps cannot be true at more than 10000 places",
        ),
        (
            "zeros for too long",
            |n, f| zero(f, n, 2000..18_800),
            "more than 16384 header stamps in a row, from frame 2000 on, cannot be true",
        ),
    ];
    let good = camera(70_000);
    for (name, change, warning) in table {
        let mut frames = good.clone();
        (0..).zip(&mut frames).for_each(|(n, frame)| change(n, frame));
        let (t, ticks) = recorded(Clock::Header, &frames);
        let said = t.warnings.join(" ");
        assert!(said.contains(warning), "{name}: {said}");
        assert_eq!(said.contains("log times are used"), !warning.is_empty(), "{name}: {said}");
        let end = if warning.is_empty() { good[69_999].0.unwrap() } else { good[69_999].1 };
        let begin = if warning.is_empty() { good[0].0.unwrap() } else { good[0].1 };
        // The jumps of a clock are closed by the log times.
        let allowed = if name.contains("again") { 60 * S } else { 0 };
        assert!(ticks[69_999].abs_diff((end - begin) as u64) <= allowed as u64, "{name}");
    }
}

#[test]
fn jumps_are_bounded_too() {
    // Each jump of the clock counts, also without a bad stamp.
    let mut judge = super::Judge::new(Clock::Header);
    let jumps = |n: i64| n / 11 * 5 * S;
    for n in 0..11 * 10_100 {
        let log_ns = EPOCH + n * 50 * MS;
        judge.push(&FrameTimes { header_ns: Some(log_ns + jumps(n)), log_ns });
    }
    let doubt = judge.finish().doubt.unwrap();
    assert!(doubt.contains("at more than 10000 places"), "{doubt}");
}

#[test]
fn a_regular_stream_has_no_gap() {
    for (ms, b_frames, is_gap) in [(50, 4, false), (200, 4, false), (9000, 0, false), (50, 4, true)]
    {
        let frames: Vec<_> = (0..40)
            .map(|n| n * ms * MS + if is_gap && n > 20 { S } else { 0 })
            .map(|ns| (Some(ns), ns))
            .collect();
        let (t, _) = map(Timing::Recorded(Clock::Header), reorder(b_frames), &frames);
        assert_eq!(t.warnings.len(), usize::from(is_gap), "{:?}", t.warnings);
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
    let (_, ticks) = recorded(Clock::Log, &[(None, i64::MAX), (None, i64::MAX), (None, i64::MAX)]);
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
