//! Waits for a child, which end early when the run is stopped.

use std::time::{Duration, Instant};

use encoder_core::{Waited, Waiter};

/// The longest wait for a child after the run was stopped. Service managers kill a program about 30 s
/// after the signal to end, and another encoder may have to take over before that.
pub(crate) const AFTER_STOP: Duration = Duration::from_secs(5);

/// The time between two checks whether the run was stopped, or the session dropped.
pub(crate) const CHECK: Duration = Duration::from_millis(50);

/// A wait for a child, with a limit.
#[derive(Debug)]
pub(crate) struct Wait {
    waiter: Waiter,
    limit: Duration,
    begun: Instant,
    end: Instant,
    /// The stop that was noticed during the wait.
    stop: Waited,
}

impl Wait {
    /// A wait of at most `limit` that begins now.
    pub(crate) fn new(waiter: &Waiter, limit: Duration) -> Self {
        let begun = Instant::now();
        let (waiter, end) = (waiter.clone(), begun + limit);
        Self { waiter, limit, begun, end, stop: Waited::Elapsed }
    }

    /// Begins again: the child has made progress.
    pub(crate) fn restart(&mut self) {
        self.begun = Instant::now();
        self.end = self.begun + self.limit;
        self.stop = Waited::Elapsed;
    }

    /// How long to wait until the next call; `None` when the wait is over.
    pub(crate) fn next(&mut self) -> Option<Duration> {
        self.next_at(Instant::now(), self.waiter.state())
    }

    fn next_at(&mut self, now: Instant, state: Waited) -> Option<Duration> {
        if state > self.stop {
            self.stop = state;
            let left = if state == Waited::Stopped { Duration::ZERO } else { AFTER_STOP };
            self.end = self.end.min(now + left);
        }
        let left = self.end.saturating_duration_since(now);
        (!left.is_zero()).then(|| left.min(CHECK))
    }

    /// The time since the beginning.
    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// How long the whole wait may take: less than its limit after a stop.
    pub(crate) fn length(&self) -> Duration {
        self.end.saturating_duration_since(self.begun)
    }

    /// The length as text: `60 s`.
    pub(crate) fn said(&self) -> String {
        let seconds = (self.length().as_secs_f64() * 10.0).round() / 10.0;
        match self.stop {
            Waited::Elapsed => format!("{seconds} s"),
            _ => format!("{seconds} s (the run was stopped)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_shortens_a_wait() {
        use Waited::{Elapsed, Interrupted, Stopped};
        let seconds = Duration::from_secs;
        // limit | checks: second and state | seconds left at each check | text at the end
        type Row<'a> = (u64, &'a [(u64, Waited)], &'a [u64], &'a str);
        let table: &[Row<'_>] = &[
            (60, &[(0, Elapsed), (59, Elapsed), (60, Elapsed)], &[60, 1, 0], "60 s"),
            // The time after a stop counts from the moment at which it is noticed.
            (
                60,
                &[(10, Elapsed), (20, Interrupted), (24, Interrupted), (25, Interrupted)],
                &[50, 5, 1, 0],
                "25 s (the run was stopped)",
            ),
            // A stop lengthens nothing.
            (60, &[(58, Interrupted), (60, Interrupted)], &[2, 0], "60 s (the run was stopped)"),
            (3, &[(0, Interrupted), (3, Interrupted)], &[3, 0], "3 s (the run was stopped)"),
            (60, &[(7, Stopped)], &[0], "7 s (the run was stopped)"),
            (60, &[(6, Interrupted), (7, Stopped)], &[5, 0], "7 s (the run was stopped)"),
        ];
        for (limit, checks, left, said) in table {
            let mut wait = Wait::new(&Waiter::new(), seconds(*limit));
            let begun = wait.begun;
            for ((second, state), left) in checks.iter().zip(*left) {
                let next = wait.next_at(begun + seconds(*second), *state);
                let end = begun + seconds(second + left);
                assert_eq!((wait.end, next.is_none()), (end, *left == 0), "{checks:?}");
                assert!(next.is_none_or(|next| next <= CHECK));
            }
            assert_eq!(wait.said(), *said);
            wait.restart();
            assert_eq!(wait.length(), seconds(*limit));
        }
        let short = Wait::new(&Waiter::new(), Duration::from_millis(300));
        assert_eq!(short.said(), "0.3 s");
    }
}
