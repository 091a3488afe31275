//! Maps presentation times back to frame indices.

use std::collections::BTreeSet;

/// Turns presentation times back into frame indices, and checks that each index comes once.
#[derive(Debug, Default)]
pub(crate) struct Order {
    first_ms: Option<i64>,
    /// Every index below has been seen.
    complete: u64,
    /// Indices above `complete` that have been seen: as many as the encoder reorders.
    ahead: BTreeSet<u64>,
    /// How many access units have been seen.
    seen: u64,
}

impl Order {
    /// The index of the frame with the presentation time `pts_ms`, at a rate of `num / den` frames
    /// per second. The first access unit of a stream belongs to its first frame.
    pub(crate) fn index(&mut self, pts_ms: i64, (num, den): (i128, i128)) -> Result<u64, String> {
        let first = *self.first_ms.get_or_insert(pts_ms);
        let scaled = i128::from(pts_ms - first) * num;
        let index = (scaled + 500 * den).div_euclid(1000 * den);
        let index = u64::try_from(index).map_err(|_| {
            format!("an access unit has a time {} ms before the first", first - pts_ms)
        })?;
        if index < self.complete || !self.ahead.insert(index) {
            return Err(format!("two access units for frame {index}"));
        }
        while self.ahead.remove(&self.complete) {
            self.complete += 1;
        }
        self.seen += 1;
        Ok(index)
    }

    /// How many access units have been seen.
    pub(crate) fn seen(&self) -> u64 {
        self.seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_become_every_index_at_every_rate() {
        for (num, den) in [(1, 1), (30, 1), (30000, 1001), (60, 1), (25, 2), (240, 1), (480, 1)] {
            let mut order = Order::default();
            // Two frames of delay, and times rounded as FFmpeg rounds them.
            let ms = |n: i128| ((n * 1000 * den * 2 + num) / (2 * num)) as i64 + 67;
            for group in 0..5_000 {
                let at = group * 4;
                for n in [at, at + 3, at + 1, at + 2] {
                    assert_eq!(order.index(ms(n), (num, den)), Ok(n as u64), "{num}/{den}");
                }
                assert!(order.ahead.is_empty());
            }
            assert_eq!(order.seen(), 20_000);
            for (ms, part) in [(ms(7), "two access units"), (-3_000, "before the first")] {
                let error = order.index(ms, (num, den)).err().unwrap_or_default();
                assert!(error.contains(part), "{error}");
            }
        }
    }
}
