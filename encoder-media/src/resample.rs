//! Makes a constant rate from a variable rate.

use encoder_core::FrameRate;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a constant rate cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ResampleError {
    /// Two frames that are more than an hour apart.
    #[error(
        "the gap of {seconds} s after frame {frame} is too long: a constant rate fills gaps of up \
         to {LONGEST_S} s"
    )]
    Gap {
        /// The frame before the gap.
        frame: u64,
        /// The length of the gap, in seconds.
        seconds: u64,
    },
    /// The cameras have no time in common.
    #[error("the camera has no frame in the time that all cameras have in common")]
    Apart,
    /// No frame of the camera is within an hour of the cameras that share the grid.
    #[error(
        "the camera's frames are {seconds} s from those of the other cameras, and the limit is \
         {LONGEST_S} s"
    )]
    Far {
        /// The time between the camera and the cameras that share the grid, in seconds.
        seconds: u64,
    },
}

/// The longest gap between two frames of a camera, or between cameras, in seconds.
const LONGEST_S: u64 = 3600;

/// Where a grid that several cameras share begins and ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GridEnds {
    /// With the first camera that begins and the last that ends. The first and the last picture of
    /// the other cameras are repeated.
    #[default]
    Pad,
    /// With the last camera that begins and the first that ends. Frames of the other cameras before
    /// and after that are left out.
    Trim,
}

encoder_core::names! {
    GridEnds, "grid ends":
    Pad = "pad",
    Trim = "trim",
}

/// The times of the frames of a constant rate: frame N is displayed N / rate after the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// The time of frame 0 in nanoseconds.
    pub origin_ns: i64,
    /// Number of frames.
    pub frames: u64,
    /// Frames per second.
    pub rate: FrameRate,
}

/// The time that the frames of a camera are displayed.
#[derive(Clone, Copy)]
struct Span {
    first: i128,
    last: i128,
    /// The last frame is displayed as long as a frame usually is.
    end: i128,
}

impl Span {
    fn of(stamps: &[i64]) -> Option<Self> {
        let (first, last) = (i128::from(*stamps.first()?), i128::from(*stamps.last()?));
        Some(Self { first, last, end: last + i128::from(usual_gap(stamps)) })
    }
}

/// The median distance of the frames, in nanoseconds; 0 for fewer than two.
fn usual_gap(stamps: &[i64]) -> u64 {
    let mut gaps: Vec<_> = stamps.windows(2).map(|w| w[1].abs_diff(w[0])).collect();
    gaps.sort_unstable();
    gaps.get(gaps.len() / 2).copied().unwrap_or(0)
}

impl Grid {
    /// The grid of one camera, from its first frame on. `None` without frames. `stamps` are in
    /// nanoseconds and do not run backwards.
    pub fn of(stamps: &[i64], rate: FrameRate) -> Option<Self> {
        Self::common(&[stamps], rate, GridEnds::default())
    }

    /// The common grid of several cameras, so that frame N of each is the same moment. `None` if
    /// no camera has frames, or they have no time in common and [`GridEnds::Trim`] is set. Cameras
    /// without frames are ignored, and those with a single frame if others have more: one picture
    /// has no length, and is shown on the whole grid.
    pub fn common(cameras: &[&[i64]], rate: FrameRate, ends: GridEnds) -> Option<Self> {
        let has_length = cameras.iter().any(|stamps| stamps.len() > 1);
        let cameras = cameras.iter().filter(|stamps| stamps.len() > 1 || !has_length);
        let joined = cameras.filter_map(|stamps| Span::of(stamps)).reduce(|a, b| match ends {
            GridEnds::Pad => Span {
                first: a.first.min(b.first),
                last: a.last.max(b.last),
                end: a.end.max(b.end),
            },
            GridEnds::Trim => Span {
                first: a.first.max(b.first),
                last: a.last.min(b.last),
                end: a.end.min(b.end),
            },
        })?;
        let (num, den) = (i128::from(rate.numerator()), i128::from(rate.denominator()));
        let unit = den * 1_000_000_000;
        // Each frame up to the last is displayed, and the last for its whole duration.
        let up_to_last = (joined.last - joined.first) * num;
        let whole = ((joined.end - joined.first) * num + unit / 2).div_euclid(unit);
        let frames = up_to_last.div_euclid(unit).saturating_add(1).max(whole);
        (frames > 0 && joined.end >= joined.first).then(|| Self {
            // The first frame of a camera.
            origin_ns: joined.first as i64,
            frames: u64::try_from(frames).unwrap_or(u64::MAX),
            rate,
        })
    }
}

/// Checks that cameras can share a grid: that no hour without a frame lies between them. Of several
/// groups, that with the most frames shares the grid, and each other camera has an error.
pub fn check_distances(cameras: &[&[i64]]) -> Vec<Result<(), ResampleError>> {
    let longest = i128::from(LONGEST_S) * 1_000_000_000;
    let mut spans: Vec<_> =
        (0..).zip(cameras).filter_map(|(n, stamps)| Some((Span::of(stamps)?, n))).collect();
    spans.sort_by_key(|(span, _)| span.first);
    // Joined spans, number of frames, numbers of the cameras.
    let mut groups: Vec<(Span, usize, Vec<usize>)> = Vec::new();
    for (span, n) in spans {
        let frames = cameras[n].len();
        match groups.last_mut() {
            Some((joined, sum, members)) if span.first - joined.last <= longest => {
                joined.last = joined.last.max(span.last);
                *sum += frames;
                members.push(n);
            }
            _ => groups.push((span, frames, vec![n])),
        }
    }
    let mut checked = vec![Ok(()); cameras.len()];
    let most = groups.iter().map(|(_, frames, _)| *frames).max();
    let Some(main) = groups.iter().position(|(_, frames, _)| Some(*frames) == most) else {
        return checked;
    };
    let joined = groups[main].0;
    for (group, (_, _, members)) in groups.iter().enumerate() {
        for &n in members.iter().filter(|_| group != main) {
            let Some(span) = Span::of(cameras[n]) else { continue };
            let distance = (span.first - joined.last).max(joined.first - span.last);
            let seconds = u64::try_from(distance / 1_000_000_000).unwrap_or(u64::MAX);
            checked[n] = Err(ResampleError::Far { seconds });
        }
    }
    checked
}

/// Returns how often each frame is repeated: each time of the grid displays the nearest frame (of
/// two equally near frames, the earlier). Before the first frame and after the last, these are
/// repeated up to the ends of the grid.
///
/// `stamps` are in nanoseconds and do not run backwards.
///
/// # Errors
/// [`ResampleError::Gap`] if two frames are more than an hour apart; [`ResampleError::Far`] if the
/// grid repeats a picture more than `u32::MAX` times.
pub fn resample(stamps: &[i64], grid: &Grid) -> Result<Vec<u32>, ResampleError> {
    let seconds = |pair: &[i64]| pair[1].abs_diff(pair[0]).div_ceil(1_000_000_000);
    if let Some((frame, pair)) =
        (0..).zip(stamps.windows(2)).find(|(_, pair)| seconds(pair) > LONGEST_S)
    {
        return Err(ResampleError::Gap { frame, seconds: seconds(pair) });
    }
    let mut copies = vec![0u32; stamps.len()];
    let mut tick = 0u64;
    for (n, count) in copies.iter_mut().enumerate() {
        // Ticks up to the middle between this frame and the next belong to this frame; the last
        // frame has the remaining ticks.
        let end = stamps.get(n + 1).map(|next| {
            i128::midpoint(i128::from(stamps[n]), i128::from(*next)) - i128::from(grid.origin_ns)
        });
        while tick < grid.frames
            && end.is_none_or(|end| i128::from(grid.rate.nanoseconds(tick)) <= end)
        {
            *count = count.checked_add(1).ok_or_else(|| ResampleError::Far {
                seconds: grid.rate.nanoseconds(u64::from(u32::MAX)) / 1_000_000_000,
            })?;
            tick += 1;
        }
    }
    Ok(copies)
}

/// How the frames of a camera fit the grid that it shares with other cameras.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fit {
    /// Frames of the grid before the first frame of the camera.
    pub padded_before: u64,
    /// Frames of the grid after the last frame of the camera has been displayed for as long as
    /// usual.
    pub padded_after: u64,
    /// Frames of the camera that lie before the grid, and after it.
    pub trimmed: u64,
}

impl Fit {
    /// Compares a camera with a grid: its times, and the result of [`resample`].
    pub fn of(stamps: &[i64], copies: &[u32], grid: &Grid) -> Self {
        let Some(span) = Span::of(stamps) else { return Self::default() };
        let origin = i128::from(grid.origin_ns);
        let half = i128::from(grid.rate.nanoseconds(1) / 2);
        // Number of ticks that are earlier than a moment.
        let ticks = |moment: i128| {
            let (num, den) = (grid.rate.numerator(), grid.rate.denominator());
            let ticks =
                (moment - origin).max(0) * i128::from(num) / (i128::from(den) * 1_000_000_000);
            u64::try_from(ticks).unwrap_or(u64::MAX).min(grid.frames)
        };
        let is_used = |count: &u32| *count > 0;
        let before = copies.iter().position(is_used).unwrap_or(copies.len());
        let after = copies.iter().rev().position(is_used).unwrap_or(0);
        let is_inside = |n: usize| {
            let at = i128::from(stamps[n]) - origin;
            let end = i128::from(grid.rate.nanoseconds(grid.frames));
            at > -half && at < end - half
        };
        let outside = (0..before).chain(stamps.len() - after..stamps.len());
        Self {
            padded_before: ticks(span.first - half),
            padded_after: grid.frames - ticks(span.end + half),
            trimmed: outside.filter(|n| !is_inside(*n)).count() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MS: i64 = 1_000_000;

    fn rate(rate: &str) -> FrameRate {
        rate.parse().unwrap()
    }

    fn ns(stamps_ms: &[i64]) -> Vec<i64> {
        stamps_ms.iter().map(|s| s * MS).collect()
    }

    fn copies(stamps_ms: &[i64], fps: &str) -> Vec<u32> {
        let stamps = ns(stamps_ms);
        Grid::of(&stamps, rate(fps)).map_or(Vec::new(), |grid| resample(&stamps, &grid).unwrap())
    }

    #[test]
    fn the_nearest_frame_is_shown_at_each_tick() {
        assert_eq!(copies(&[], "10"), Vec::<u32>::new());
        assert_eq!(copies(&[7], "10"), [1]);
        assert_eq!(copies(&[0, 100, 200], "10"), [1, 1, 1]);
        // Ticks at 0, 100, 200, 300 ms.
        assert_eq!(copies(&[0, 90, 110, 320], "10"), [1, 1, 1, 1]);
        assert_eq!(copies(&[0, 20, 40, 60, 80, 100], "10"), [1, 0, 0, 0, 0, 1]);
        // Half the rate leaves out every second frame, twice the rate doubles each.
        assert_eq!(copies(&[0, 50, 100, 150, 200], "10"), [1, 0, 1, 0, 1]);
        assert_eq!(copies(&[0, 100, 200], "20"), [2, 2, 2]);
        // Two frames with one stamp: the second has no duration except at the end.
        assert_eq!(copies(&[0, 100, 100, 200], "10"), [1, 1, 0, 1]);
    }

    #[test]
    fn at_the_recorded_rate_each_frame_is_shown_once() {
        for (period, fps, jitter) in [
            (33_333_333, "30", 0),
            (33_333_334, "30", 0),
            (33_366_667, "29.97", 0),
            (33_333_333, "30", 9 * MS),
            (1_000_000, "1000", 100_000),
        ] {
            for phase in 0..7 {
                let off = |n: i64| (n + phase) * 3_141_593 % (2 * jitter + 1) - jitter;
                let stamps: Vec<_> = (0..150).map(|n| n * period + off(n)).collect();
                let grid = Grid::of(&stamps, rate(fps)).unwrap();
                let total: u32 = resample(&stamps, &grid).unwrap().iter().sum();
                assert_eq!(total, 150, "{period} ns at {fps}, jitter {jitter}");
            }
        }
        // 60 frames at 20 fps are 3 s.
        let stamps: Vec<_> = (0..60).map(|n| n * 50).collect();
        assert_eq!(copies(&stamps, "30").iter().sum::<u32>(), 90);
    }

    #[test]
    fn frame_n_of_all_cameras_is_the_same_moment() {
        // 20 fps for 2 s, and the same 250 ms later for 1.75 s.
        let first = ns(&(0..40).map(|n| n * 50).collect::<Vec<_>>());
        let second = ns(&(0..35).map(|n| 250 + n * 50).collect::<Vec<_>>());
        let table = [
            (GridEnds::Pad, 0, 40, Fit::default(), Fit { padded_before: 4, ..Fit::default() }),
            (GridEnds::Trim, 250, 35, Fit { trimmed: 5, ..Fit::default() }, Fit::default()),
        ];
        for (ends, origin, frames, of_first, of_second) in table {
            let grid = Grid::common(&[&first, &second, &[]], rate("20"), ends).unwrap();
            assert_eq!((grid.origin_ns, grid.frames), (origin * MS, frames), "{ends:?}");
            for (stamps, fit) in [(&first, of_first), (&second, of_second)] {
                let copies = resample(stamps, &grid).unwrap();
                assert_eq!(copies.iter().map(|n| u64::from(*n)).sum::<u64>(), frames);
                assert_eq!(Fit::of(stamps, &copies, &grid), fit, "{ends:?}");
                // The frame of each tick.
                let shown = (0..).zip(&copies).flat_map(|(n, count)| vec![n; *count as usize]);
                for (tick, n) in shown.enumerate() {
                    let at = origin * MS + tick as i64 * 50 * MS;
                    let nearest = stamps.iter().map(|s| s.abs_diff(at)).min().unwrap();
                    assert_eq!(stamps[n as usize].abs_diff(at), nearest, "{ends:?} {tick}");
                }
            }
        }
        let later = ns(&[10_000, 10_050]);
        assert_eq!(Grid::common(&[&first, &later], rate("20"), GridEnds::Trim), None);
        let grid = Grid::common(&[&first, &later], rate("20"), GridEnds::Pad).unwrap();
        let copies = resample(&first, &grid).unwrap();
        assert_eq!(Fit::of(&first, &copies, &grid).padded_after, grid.frames - 40);
        assert_eq!(Grid::common(&[], rate("20"), GridEnds::Pad), None);
    }

    #[test]
    fn a_single_picture_does_not_determine_the_grid() {
        let camera = ns(&(0..20).map(|n| n * 50).collect::<Vec<_>>());
        for early in [-90, -900_000] {
            let single = ns(&[early]);
            for ends in [GridEnds::Pad, GridEnds::Trim] {
                let grid = Grid::common(&[&single, &camera], rate("20"), ends).unwrap();
                assert_eq!((grid.origin_ns, grid.frames), (0, 20), "{early} {ends:?}");
                assert_eq!(resample(&single, &grid).unwrap(), [20]);
            }
        }
        let grid = Grid::common(&[&ns(&[0]), &ns(&[100])], rate("20"), GridEnds::Pad).unwrap();
        assert_eq!(grid.frames, 3);
    }

    #[test]
    fn cameras_far_apart_share_no_grid() {
        const HOUR: i64 = 3_600_000;
        let far = |seconds| Err(ResampleError::Far { seconds });
        // Times in ms, and what the check returns.
        type Row<'a> = (&'a [&'a [i64]], &'a [Result<(), ResampleError>]);
        let table: [Row<'_>; 6] = [
            (&[], &[]),
            (&[&[], &[0]], &[Ok(()), Ok(())]),
            (&[&[0, 9], &[9 + HOUR, 10 + HOUR]], &[Ok(()), Ok(())]),
            // A chain of cameras; the frames of a group count together.
            (
                &[&[0, 50], &[HOUR], &[2 * HOUR], &[4 * HOUR, 4 * HOUR + 1, 4 * HOUR + 2]],
                &[Ok(()), Ok(()), Ok(()), far(7200)],
            ),
            (&[&[-5 * HOUR], &[0, 50, 100], &[10, 60]], &[far(18_000), Ok(()), Ok(())]),
            (&[&[0], &[2 * HOUR]], &[Ok(()), far(7200)]),
        ];
        for (cameras, expected) in table {
            let stamps: Vec<_> = cameras.iter().map(|stamps| ns(stamps)).collect();
            let stamps: Vec<_> = stamps.iter().map(Vec::as_slice).collect();
            assert_eq!(check_distances(&stamps), expected, "{cameras:?}");
        }
    }

    #[test]
    fn only_gaps_between_two_frames_of_a_camera_are_limited() {
        const HOUR: i64 = 3_600_000;
        for (stamps, expected) in [
            (vec![0, HOUR], Ok(())),
            (vec![0, 50, HOUR + 51], Err(ResampleError::Gap { frame: 1, seconds: 3601 })),
            (vec![0, 365 * 24 * HOUR], Err(ResampleError::Gap { frame: 0, seconds: 31_536_000 })),
        ] {
            let stamps = ns(&stamps);
            let grid = Grid::of(&stamps, rate("30")).unwrap();
            assert_eq!(resample(&stamps, &grid).map(drop), expected, "{stamps:?}");
        }
        let absurd = [i64::MIN, i64::MAX];
        let grid = Grid::of(&absurd, rate("30")).unwrap();
        assert!(resample(&absurd, &grid).is_err());

        // A camera records for three hours; the short ones have a single picture or end early.
        let long = ns(&(0..10_800).map(|s| s * 1000).collect::<Vec<_>>());
        for short in [ns(&[0]), ns(&[2 * HOUR, 2 * HOUR + 1000]), ns(&[0, 1000, 2000])] {
            assert_eq!(check_distances(&[&long, &short]), [Ok(()), Ok(())]);
            let grid = Grid::common(&[&long, &short], rate("1"), GridEnds::Pad).unwrap();
            let copies = resample(&short, &grid).unwrap();
            assert_eq!(copies.iter().sum::<u32>(), 10_800, "{short:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn the_length_is_kept(mut stamps in proptest::collection::vec(0..20_000i64, 1..50)) {
            stamps.sort_unstable();
            let total: u32 = copies(&stamps, "30").iter().sum();
            let span = (stamps[stamps.len() - 1] - stamps[0]) as f64 / 1000.0;
            let usual = usual_gap(&ns(&stamps)) as f64 / 1e9;
            let length = f64::from(total) / 30.0;
            // Half a frame more or less, or one frame for the last picture.
            proptest::prop_assert!(length - span - usual >= -1.0 / 60.0 - 1e-9);
            proptest::prop_assert!(length - span <= (usual + 1.0 / 60.0).max(1.0 / 30.0) + 1e-9);
        }
    }
}
