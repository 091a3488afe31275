//! Makes a constant rate from a variable rate.

use encoder_core::FrameRate;
use thiserror::Error;

/// A gap that a constant rate cannot fill: one picture would be repeated for more than an hour.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
#[error(
    "the gap beside frame {frame} is longer than an hour, and one picture would be repeated {copies} \
     times"
)]
pub struct ResampleError {
    /// The frame next to the gap.
    pub frame: u64,
    /// The least number of repetitions of its picture.
    pub copies: u32,
}

/// The longest time for which one picture is repeated, in seconds.
const LONGEST_S: u64 = 3600;

/// Returns how often each frame is repeated in a video with a constant rate: each tick N / `rate`
/// after the first frame displays the nearest frame in time (of two equally near frames, the
/// earlier).
///
/// `stamps` are in nanoseconds and do not run backwards.
///
/// # Errors
/// [`ResampleError`] if one picture would be repeated for more than an hour.
pub fn resample(stamps: &[i64], rate: FrameRate) -> Result<Vec<u32>, ResampleError> {
    let mut copies = vec![0u32; stamps.len()];
    let Some(&first) = stamps.first() else { return Ok(copies) };
    let most = LONGEST_S as f64 * rate.as_f64();
    let mut tick = 0u64;
    for (n, count) in copies.iter_mut().enumerate() {
        // Ticks up to the middle between this frame and the next belong to this frame; the last
        // frame has the ticks up to its own time.
        let end = match stamps.get(n + 1) {
            Some(next) => i128::midpoint(i128::from(stamps[n]), i128::from(*next)),
            None => i128::from(stamps[n]),
        };
        let end = end - i128::from(first);
        while i128::from(rate.nanoseconds(tick)) <= end {
            *count += 1;
            tick += 1;
            if f64::from(*count) > most {
                return Err(ResampleError { frame: n as u64, copies: *count });
            }
        }
    }
    Ok(copies)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MS: i64 = 1_000_000;

    fn copies(stamps_ms: &[i64], rate: &str) -> Vec<u32> {
        let stamps: Vec<_> = stamps_ms.iter().map(|s| s * MS).collect();
        resample(&stamps, rate.parse().unwrap()).unwrap()
    }

    #[test]
    fn the_nearest_frame_is_shown_at_each_tick() {
        assert_eq!(copies(&[], "10"), Vec::<u32>::new());
        assert_eq!(copies(&[7], "10"), [1]);
        assert_eq!(copies(&[0, 100, 200], "10"), [1, 1, 1]);
        // Ticks at 0, 100, 200, 300 ms.
        assert_eq!(copies(&[0, 90, 110, 320], "10"), [1, 1, 1, 1]);
        assert_eq!(copies(&[0, 300], "10"), [2, 2]);
        assert_eq!(copies(&[0, 20, 40, 60, 80, 100], "10"), [1, 0, 0, 0, 0, 1]);
        // Half the rate leaves out every second frame, twice the rate doubles each.
        assert_eq!(copies(&[0, 50, 100, 150, 200], "10"), [1, 0, 1, 0, 1]);
        assert_eq!(copies(&[0, 100, 200], "20"), [2, 2, 1]);
        // Two frames with one stamp: the second has no duration except at the end.
        assert_eq!(copies(&[0, 100, 100, 200], "10"), [1, 1, 0, 1]);
    }

    #[test]
    fn an_absurd_gap_is_refused() {
        let year = 365 * 86_400_000i64;
        let error = resample(&[0, year * MS], "30".parse().unwrap()).unwrap_err();
        assert_eq!((error.frame, error.copies), (0, 108_001));
        assert!(error.to_string().contains("frame 0"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn the_length_is_kept(mut stamps in proptest::collection::vec(0..20_000i64, 1..50)) {
            stamps.sort_unstable();
            let total: u32 = copies(&stamps, "30").iter().sum();
            let span = (stamps[stamps.len() - 1] - stamps[0]) as f64 / 1000.0;
            let length = f64::from(total) / 30.0;
            proptest::prop_assert!((length - span - 1.0 / 60.0).abs() <= 1.0 / 30.0);
        }
    }
}
