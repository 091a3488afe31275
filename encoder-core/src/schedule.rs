//! Decides which encoder of a chain is active and when failed encoders may be tried again: a pure
//! function of what happened, and when.

use std::time::{Duration, Instant};

/// An encoder is given up after this many failures in a row, without quiet time between them.
const MAX_FAILURES: u32 = 3;
/// The quiet time: after this long without a failure, earlier failures of the active encoder no
/// longer count.
const QUIET_TIME: Duration = Duration::from_secs(30);
/// The first retry delay of a busy encoder.
const BUSY_DELAY: Duration = Duration::from_secs(30);
/// The longest retry delay: each failed attempt doubles the delay.
const MAX_DELAY: Duration = Duration::from_secs(3600);
/// The pause before an encoder is opened again after its first failure; the second is twice as
/// long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// A failure of the active encoder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Failure {
    /// It made no progress, so the failure was noticed late. It is given up one failure earlier if
    /// another encoder is left.
    pub(crate) is_hang: bool,
    /// The run has been stopped, so that little time is left: an encoder that hangs is given up one
    /// failure earlier.
    pub(crate) is_stopped: bool,
}

/// The encoders of a chain by their place, the most preferred first.
#[derive(Debug)]
pub(crate) struct FallbackSchedule {
    members: Vec<Member>,
    active: Option<usize>,
    /// The first retry delay of an encoder that was given up; `None`: it is never tried again.
    failback_after: Option<Duration>,
    /// When the active encoder last changed or failed.
    changed_at: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Member {
    /// Failures in a row.
    failures: u32,
    state: State,
    /// It was busy, and was made active again because no other encoder was left.
    is_last_resort: bool,
    /// Failed attempts since it last ran for the quiet time.
    attempts: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Ready,
    /// It was busy. It is not tried before this time, unless no other encoder is left.
    Busy(Option<Instant>),
    /// It is not tried before this time; `None`: it is never tried again.
    GivenUp(Option<Instant>),
}

impl FallbackSchedule {
    pub(crate) fn new(count: usize, failback_after: Option<Duration>) -> Self {
        let member =
            Member { failures: 0, state: State::Ready, is_last_resort: false, attempts: 0 };
        let active = (count > 0).then_some(0);
        Self { members: vec![member; count], active, failback_after, changed_at: None }
    }

    /// The active encoder; `None` when none is left.
    pub(crate) fn active(&self) -> Option<usize> {
        self.active
    }

    /// Whether no other encoder could replace the active one now.
    pub(crate) fn is_alone(&self, now: Instant) -> bool {
        let is_there =
            |member: &Member| member.is_ready(now) || matches!(member.state, State::Busy(_));
        let others = (0..).zip(&self.members).filter(|(n, _)| Some(*n) != self.active);
        self.active.is_some() && !others.map(|(_, member)| member).any(is_there)
    }

    /// The active encoder failed in mid-stream. Returns the pause after which it is opened again;
    /// `None` if it failed too often, and another one is active.
    pub(crate) fn fail(&mut self, failure: Failure, now: Instant) -> Option<Duration> {
        let active = self.active?;
        let most = match failure.is_hang {
            true => MAX_FAILURES - u32::from(!self.is_alone(now)) - u32::from(failure.is_stopped),
            false => MAX_FAILURES,
        };
        let member = self.members.get_mut(active)?;
        member.failures += 1;
        self.changed_at = Some(now);
        if member.failures < most {
            return Some(FIRST_PAUSE * 2u32.pow(member.failures - 1));
        }
        self.leave(false, now);
        None
    }

    /// Whether the encoder at `place` has failed since its last quiet time, and another encoder
    /// could replace it.
    pub(crate) fn is_suspect(&self, place: usize, now: Instant) -> bool {
        let has_failed = self.members.get(place).is_some_and(|member| member.failures > 0);
        has_failed && !(self.active == Some(place) && self.is_alone(now))
    }

    /// The active encoder refused to open: another one becomes active.
    pub(crate) fn pass(&mut self, is_transient: bool, now: Instant) {
        self.leave(is_transient, now);
    }

    /// An attempt to go back to the encoder at `place` failed: it gets a retry delay, and the
    /// active encoder stays active.
    pub(crate) fn put_off(&mut self, place: usize, is_transient: bool, now: Instant) {
        let failback_after = self.failback_after;
        let Some(member) = self.members.get_mut(place) else { return };
        let first = match is_transient {
            true => failback_after.map(|failback_after| failback_after.min(BUSY_DELAY)),
            false => failback_after,
        };
        let until = first.map(|first| now + doubled(first, member.attempts));
        member.attempts = member.attempts.saturating_add(1);
        if !is_transient {
            // When it is active again, its first failure gives it up again.
            member.failures = MAX_FAILURES - 1;
        }
        member.state = match is_transient && !member.is_last_resort {
            true => State::Busy(until),
            false => State::GivenUp(until),
        };
    }

    fn leave(&mut self, is_transient: bool, now: Instant) {
        let Some(left) = self.active.take() else { return };
        self.put_off(left, is_transient, now);
        if let Some(ready) = self.members.iter().position(|member| member.is_ready(now)) {
            return self.take(ready, now);
        }
        // A busy encoder, except the encoder that has just refused.
        let is_busy = |member: &Member| matches!(member.state, State::Busy(_));
        let busy = (0..).zip(&self.members).find(|(n, m)| is_busy(m) && *n != left);
        if let Some((busy, _)) = busy {
            self.take(busy, now);
            self.members[busy].is_last_resort = true;
        }
    }

    /// The active encoder has taken a frame. After quiet time, its failures no longer count.
    pub(crate) fn steady(&mut self, now: Instant) {
        let is_quiet =
            |changed_at: Instant| now.saturating_duration_since(changed_at) >= QUIET_TIME;
        if !self.changed_at.is_none_or(is_quiet) {
            return;
        }
        if let Some(member) = self.active.and_then(|active| self.members.get_mut(active)) {
            (member.failures, member.attempts, member.is_last_resort) = (0, 0, false);
        }
    }

    /// The most preferred encoder before the active one that can be tried again.
    pub(crate) fn better(&self, now: Instant) -> Option<usize> {
        let active = self.active?;
        self.members.iter().take(active).position(|member| member.is_ready(now))
    }

    /// Makes the encoder at `place` the active one.
    pub(crate) fn take(&mut self, place: usize, now: Instant) {
        self.active = Some(place);
        self.changed_at = Some(now);
        if let Some(member) = self.members.get_mut(place) {
            member.state = State::Ready;
        }
    }
}

/// The retry delay after `attempts` earlier attempts: each doubles it, up to [`MAX_DELAY`].
fn doubled(first: Duration, attempts: u32) -> Duration {
    first.saturating_mul(2u32.saturating_pow(attempts)).min(MAX_DELAY.max(first))
}

impl Member {
    fn is_ready(&self, now: Instant) -> bool {
        match self.state {
            State::Ready => true,
            State::Busy(until) | State::GivenUp(until) => until.is_some_and(|until| now >= until),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Plays a script on three encoders. The active encoder: `f` fails, `h` hangs, `H` hangs after
    /// the run was stopped, `r` refuses for good, `b` is busy, `s` takes a frame. The better
    /// encoder, if it can be tried again: `t` is taken, `B` is busy, `R` refuses for good; `n`
    /// asserts that there is none. `+N` lets N seconds pass. Returns the active encoder after each
    /// word but the last kind.
    fn play(failback_after: Option<u64>, script: &str) -> String {
        let mut now = Instant::now();
        let mut schedule = FallbackSchedule::new(3, failback_after.map(Duration::from_secs));
        let mut active = String::new();
        for word in script.split_whitespace() {
            match word {
                "f" => drop(schedule.fail(Failure::default(), now)),
                "h" | "H" => {
                    let failure = Failure { is_hang: true, is_stopped: word == "H" };
                    let _ = schedule.fail(failure, now);
                }
                "r" => schedule.pass(false, now),
                "b" => schedule.pass(true, now),
                "s" => schedule.steady(now),
                "t" => {
                    if let Some(better) = schedule.better(now) {
                        schedule.take(better, now);
                    }
                }
                "B" | "R" => schedule.put_off(schedule.better(now).unwrap(), word == "B", now),
                "n" => assert_eq!(schedule.better(now), None, "{script}"),
                seconds => now += Duration::from_secs(seconds[1..].parse().unwrap()),
            }
            if !word.starts_with('+') {
                active.push(schedule.active().map_or('-', |n| char::from(b'0' + n as u8)));
            }
        }
        active
    }

    #[test]
    fn scripts_of_failures_and_retries() {
        let five = Some(300);
        let table: &[(Option<u64>, &str, &str)] = &[
            // After three failures in a row the next encoder is active.
            (five, "f", "0"),
            (five, "f f", "00"),
            (five, "f f f", "001"),
            (five, "f f f f f f", "001112"),
            (five, "f f f f f f f f f", "00111222-"),
            // Quiet time between failures resets the count; time without frames does not.
            (five, "f f +30 s f f", "00000"),
            (five, "f f +29 s f", "0001"),
            (five, "f f +100 f", "001"),
            // Each failure restarts the quiet time.
            (five, "f +20 s f +20 s f", "00001"),
            // An encoder that hangs is given up earlier if another is left.
            (five, "h h", "01"),
            (five, "f h", "01"),
            (five, "h f f", "001"),
            (five, "h +30 s h h", "0001"),
            (five, "h h h h h h h", "011222-"),
            (five, "r r h h h", "1222-"),
            (five, "b r h h h h h", "122000-"),
            // After a stop, one failure earlier than that.
            (five, "H", "1"),
            (five, "h H", "01"),
            (five, "H H H H", "122-"),
            (five, "r r H H", "122-"),
            // After one refusal the next encoder is active.
            (five, "r", "1"),
            (five, "r r r", "12-"),
            (five, "b", "1"),
            (five, "b b b", "120"),
            (five, "b b b b b b", "12012-"),
            // A busy encoder is tried again when all others have failed, with no failure counted.
            (five, "b r f f f", "12220"),
            (five, "b r r", "120"),
            (five, "b r r r", "120-"),
            (five, "b r r f f", "12000"),
            // An encoder is tried again after its retry delay; the delay of a busy encoder is
            // shorter.
            (five, "r +299 t", "11"),
            (five, "r +300 t", "10"),
            (five, "b +29 t", "11"),
            (five, "b +30 t", "10"),
            (five, "f f f +300 t", "0010"),
            // Its first failure then gives it up again, and doubles the retry delay.
            (five, "f f f +300 t f", "00101"),
            (five, "f f f +300 t f +599 t", "001011"),
            (five, "f f f +300 t f +600 t", "001010"),
            // After quiet time, earlier failures and attempts no longer count.
            (five, "r +300 t +30 s f f", "10000"),
            (five, "r +300 t +30 s r +300 t", "10010"),
            // The most preferred encoder whose retry delay is over.
            (five, "r r +300 t", "120"),
            (five, "r +150 r +150 t", "120"),
            (five, "r +250 r +50 r", "120"),
            (five, "t", "0"),
            // A failed attempt keeps the active encoder, and doubles the retry delay.
            (five, "b +30 B +59 n +1 t", "1110"),
            (five, "b +30 B +60 B +120 B +239 n +1 t", "111110"),
            (five, "r +300 R +599 n +1 R +1199 n +1 t", "111110"),
            // The reason of the latest attempt decides.
            (five, "b +30 R +599 n +1 B +119 n +1 t", "111110"),
            // Only the quiet time resets the retry delay.
            (five, "b +30 B +60 t b +119 n +1 t", "110110"),
            (five, "b +30 B +60 t +30 s b +29 n +1 t", "1100110"),
            // During the delay of one preferred encoder, the others are tried.
            (five, "b b +30 B t +29 n +31 t", "122110"),
            // An encoder that was busy in a failback attempt remains a last resort.
            (five, "b +30 B r r", "1120"),
            (five, "b +30 R r r", "112-"),
            // A short retry delay, and no failback at all.
            (Some(1), "b +1 t", "10"),
            (None, "r +9999 t", "11"),
            (None, "b +9999 t", "11"),
            (None, "b r r", "120"),
        ];
        for (failback_after, script, expected) in table {
            assert_eq!(play(*failback_after, script), *expected, "{failback_after:?} {script}");
        }
    }

    #[test]
    fn an_encoder_is_alone_if_no_other_could_replace_it() {
        let now = Instant::now();
        let mut schedule = FallbackSchedule::new(3, Some(Duration::from_secs(300)));
        assert!(!schedule.is_alone(now));
        schedule.pass(false, now);
        schedule.pass(true, now);
        // The second encoder was busy.
        assert!(!schedule.is_alone(now));
        schedule.pass(false, now);
        assert_eq!(schedule.active(), Some(1));
        assert!(schedule.is_alone(now));
        // The retry delay of the first encoder is over.
        assert!(!schedule.is_alone(now + Duration::from_secs(300)));
        schedule.pass(false, now);
        assert!(!schedule.is_alone(now), "no encoder is active");
    }

    #[test]
    fn pauses_grow() {
        let now = Instant::now();
        let mut schedule = FallbackSchedule::new(1, None);
        let fail = |schedule: &mut FallbackSchedule| schedule.fail(Failure::default(), now);
        assert_eq!(fail(&mut schedule), Some(FIRST_PAUSE));
        assert_eq!(fail(&mut schedule), Some(2 * FIRST_PAUSE));
        assert_eq!((fail(&mut schedule), schedule.active()), (None, None));
        assert_eq!((fail(&mut schedule), schedule.better(now)), (None, None));
    }

    #[test]
    fn each_failed_attempt_delays_the_next() {
        let begun = Instant::now();
        for (is_transient, expected) in [(true, 29), (false, 26)] {
            let mut schedule = FallbackSchedule::new(2, Some(Duration::from_secs(300)));
            schedule.pass(is_transient, begun);
            let mut attempts = 0;
            for second in 0..24 * 3600 {
                let now = begun + Duration::from_secs(second);
                schedule.steady(now);
                if let Some(better) = schedule.better(now) {
                    schedule.put_off(better, is_transient, now);
                    attempts += 1;
                }
            }
            assert_eq!((attempts, schedule.active()), (expected, Some(1)), "{is_transient}");
        }
        // A retry delay that is configured longer than an hour is not shortened.
        let long = Duration::from_secs(86_400);
        assert_eq!((doubled(long, 0), doubled(long, 40)), (long, long));
    }

    #[test]
    fn the_longest_retry_delay() {
        let mut now = Instant::now();
        let mut schedule = FallbackSchedule::new(2, Some(Duration::from_secs(300)));
        for _ in 0..40 {
            schedule.pass(false, now);
            assert_eq!(schedule.active(), Some(1));
            now += MAX_DELAY;
            assert_eq!(schedule.better(now), Some(0));
            schedule.take(0, now);
        }
        assert_eq!(FallbackSchedule::new(0, None).active(), None);
    }
}
