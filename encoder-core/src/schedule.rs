//! Whose turn it is in a chain of encoders: a pure function of what happened, and when.

use std::time::{Duration, Instant};

/// So many failures in a row, with no quiet time between them, are too many.
const IN_A_ROW: u32 = 3;
/// An encoder that ran for so long without a failure is whole again.
const QUIET: Duration = Duration::from_secs(30);
/// One that was only busy is asked again after this.
const BUSY: Duration = Duration::from_secs(30);
/// The longest rest: each one that was of no use doubles the next.
const LONGEST: Duration = Duration::from_secs(3600);
/// The pause before an encoder is begun again after its first failure; it doubles.
const PAUSE: Duration = Duration::from_millis(50);

/// The encoders of a chain by their place, the most wanted first.
#[derive(Debug)]
pub(crate) struct FallbackSchedule {
    members: Vec<Member>,
    current: Option<usize>,
    /// How long one that was given up rests at first; `None`: for ever.
    failback_after: Option<Duration>,
    /// Since when nothing has gone wrong.
    quiet: Instant,
}

#[derive(Clone, Debug)]
struct Member {
    failures: u32,
    rest: Rest,
    /// It was busy, and asked again because nothing else was left.
    is_last_resort: bool,
    /// How long it rests when it is given up.
    next: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Rest {
    Ready,
    /// Busy with others: can be asked again at any time where nothing else is left.
    Passing(Option<Instant>),
    GivenUp(Option<Instant>),
}

impl FallbackSchedule {
    pub(crate) fn new(count: usize, failback_after: Option<Duration>, now: Instant) -> Self {
        let member =
            Member { failures: 0, rest: Rest::Ready, is_last_resort: false, next: failback_after };
        let current = (count > 0).then_some(0);
        Self { members: vec![member; count], current, failback_after, quiet: now }
    }

    /// Whose turn it is; `None` when nobody is left.
    pub(crate) fn current(&self) -> Option<usize> {
        self.current
    }

    /// Whether there is nobody but the current one to turn to.
    pub(crate) fn is_alone(&self, now: Instant) -> bool {
        let is_there =
            |member: &Member| member.is_ready(now) || matches!(member.rest, Rest::Passing(_));
        let others = (0..).zip(&self.members).filter(|(n, _)| Some(*n) != self.current);
        self.current.is_some() && !others.map(|(_, member)| member).any(is_there)
    }

    /// The current one failed in mid-stream. Gives the pause after which it is begun again; `None`
    /// where it failed too often, and the turn is another's.
    pub(crate) fn fail(&mut self, now: Instant) -> Option<Duration> {
        let member = self.member()?;
        member.failures += 1;
        let failures = member.failures;
        self.quiet = now;
        if failures < IN_A_ROW {
            return Some(PAUSE * 2u32.pow(failures - 1));
        }
        self.give_up(now);
        None
    }

    /// The current one refused to begin: the turn is another's. Who is only busy is not blamed.
    pub(crate) fn pass(&mut self, is_transient: bool, now: Instant) {
        if !is_transient {
            return self.give_up(now);
        }
        let until = self.failback_after.map(|failback_after| now + failback_after.min(BUSY));
        let is_last = self.member().is_some_and(|member| member.is_last_resort);
        let rest = if is_last { Rest::GivenUp(until) } else { Rest::Passing(until) };
        self.leave(rest, now);
    }

    fn give_up(&mut self, now: Instant) {
        let Some(member) = self.member() else { return };
        // One that is taken up again is on probation.
        member.failures = IN_A_ROW - 1;
        let until = member.next.map(|rest| now + rest);
        member.next = member.next.map(|rest| (rest * 2).min(LONGEST.max(rest)));
        self.leave(Rest::GivenUp(until), now);
    }

    fn member(&mut self) -> Option<&mut Member> {
        self.members.get_mut(self.current?)
    }

    fn leave(&mut self, rest: Rest, now: Instant) {
        let left = self.current.take();
        if let Some(member) = left.and_then(|n| self.members.get_mut(n)) {
            member.rest = rest;
        }
        if let Some(ready) = self.members.iter().position(|member| member.is_ready(now)) {
            return self.take(ready, now);
        }
        // Not the one that has just said no.
        let is_busy = |member: &Member| matches!(member.rest, Rest::Passing(_));
        let busy = (0..).zip(&self.members).find(|(n, m)| is_busy(m) && Some(*n) != left);
        if let Some((busy, _)) = busy {
            self.take(busy, now);
            self.members[busy].is_last_resort = true;
        }
    }

    /// Nothing has gone wrong up to now.
    pub(crate) fn steady(&mut self, now: Instant) {
        if now.saturating_duration_since(self.quiet) < QUIET {
            return;
        }
        let failback_after = self.failback_after;
        if let Some(member) = self.member() {
            (member.failures, member.next, member.is_last_resort) = (0, failback_after, false);
        }
    }

    /// One that is wanted more than the current one, and has rested.
    pub(crate) fn better(&self, now: Instant) -> Option<usize> {
        let current = self.current?;
        self.members.iter().take(current).position(|member| member.is_ready(now))
    }

    /// Makes it `member`'s turn.
    pub(crate) fn take(&mut self, member: usize, now: Instant) {
        self.current = Some(member);
        self.quiet = now;
        if let Some(member) = self.member() {
            member.rest = Rest::Ready;
        }
    }
}

impl Member {
    fn is_ready(&self, now: Instant) -> bool {
        match self.rest {
            Rest::Ready => true,
            Rest::Passing(until) | Rest::GivenUp(until) => until.is_some_and(|until| now >= until),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Plays a script on three encoders: `f` fails, `r` refuses for good, `b` is busy, `s` says
    /// that all is well, `t` takes the better one where there is one, `+N` lets N seconds pass.
    /// Gives whose turn it is after each word.
    fn play(failback_after: Option<u64>, script: &str) -> String {
        let mut now = Instant::now();
        let mut schedule = FallbackSchedule::new(3, failback_after.map(Duration::from_secs), now);
        let mut turns = String::new();
        for word in script.split_whitespace() {
            match word {
                "f" => drop(schedule.fail(now)),
                "r" => schedule.pass(false, now),
                "b" => schedule.pass(true, now),
                "s" => schedule.steady(now),
                "t" => {
                    if let Some(better) = schedule.better(now) {
                        schedule.take(better, now);
                    }
                }
                seconds => now += Duration::from_secs(seconds[1..].parse().unwrap()),
            }
            let turn = schedule.current().map_or('-', |n| char::from(b'0' + n as u8));
            if !word.starts_with('+') {
                turns.push(turn);
            }
        }
        turns
    }

    #[test]
    fn the_table() {
        let five = Some(300);
        let table: &[(Option<u64>, &str, &str)] = &[
            // One failure demotes nobody, nor do two; three in a row do.
            (five, "f", "0"),
            (five, "f f", "00"),
            (five, "f f f", "001"),
            (five, "f f f f f f", "001112"),
            (five, "f f f f f f f f f", "00111222-"),
            // Quiet time between them makes them single ones; without it they are in a row.
            (five, "f f +30 s f f", "00000"),
            (five, "f f +29 s f", "0001"),
            (five, "f f +100 f", "001"),
            // It is quiet only for as long as nothing happened.
            (five, "f +20 s f +20 s f", "00001"),
            // Refusals pass on at once.
            (five, "r", "1"),
            (five, "r r r", "12-"),
            (five, "b", "1"),
            (five, "b b b", "120"),
            (five, "b b b b b b", "12012-"),
            // Who was busy is asked again when all others have failed, and is not demoted.
            (five, "b r f f f", "12220"),
            (five, "b r r", "120"),
            (five, "b r r r", "120-"),
            (five, "b r r f f", "12000"),
            // It comes back after a rest, a busy one sooner.
            (five, "r +299 t", "11"),
            (five, "r +300 t", "10"),
            (five, "b +29 t", "11"),
            (five, "b +30 t", "10"),
            (five, "f f f +300 t", "0010"),
            // On probation: one failure is enough, and the next rest is twice as long.
            (five, "f f f +300 t f", "00101"),
            (five, "f f f +300 t f +599 t", "001011"),
            (five, "f f f +300 t f +600 t", "001010"),
            // Once it has run quietly, it is as it was.
            (five, "r +300 t +30 s f f", "10000"),
            (five, "r +300 t +30 s r +300 t", "10010"),
            // The best one that has rested.
            (five, "r r +300 t", "120"),
            (five, "r +150 r +150 t", "120"),
            (five, "r +250 r +50 r", "120"),
            (five, "t", "0"),
            // A short rest, and none at all.
            (Some(1), "b +1 t", "10"),
            (None, "r +9999 t", "11"),
            (None, "b +9999 t", "11"),
            (None, "b r r", "120"),
        ];
        for (failback_after, script, expected) in table {
            // The turns in the table are those after each word; letters only.
            assert_eq!(play(*failback_after, script), *expected, "{failback_after:?} {script}");
        }
    }

    #[test]
    fn alone_is_who_has_nobody_to_turn_to() {
        let now = Instant::now();
        let mut schedule = FallbackSchedule::new(3, Some(Duration::from_secs(300)), now);
        assert!(!schedule.is_alone(now));
        schedule.pass(false, now);
        schedule.pass(true, now);
        // The second one was only busy.
        assert!(!schedule.is_alone(now));
        schedule.pass(false, now);
        assert_eq!(schedule.current(), Some(1));
        assert!(schedule.is_alone(now));
        // The first one has rested.
        assert!(!schedule.is_alone(now + Duration::from_secs(300)));
        schedule.pass(false, now);
        assert!(!schedule.is_alone(now), "nobody is there");
    }

    #[test]
    fn pauses_grow() {
        let now = Instant::now();
        let mut schedule = FallbackSchedule::new(1, None, now);
        assert_eq!(schedule.fail(now), Some(PAUSE));
        assert_eq!(schedule.fail(now), Some(2 * PAUSE));
        assert_eq!((schedule.fail(now), schedule.current()), (None, None));
        assert_eq!((schedule.fail(now), schedule.better(now)), (None, None));
    }

    #[test]
    fn the_longest_rest() {
        let mut now = Instant::now();
        let mut schedule = FallbackSchedule::new(2, Some(Duration::from_secs(300)), now);
        for _ in 0..10 {
            schedule.pass(false, now);
            assert_eq!(schedule.current(), Some(1));
            now += LONGEST;
            assert_eq!(schedule.better(now), Some(0));
            schedule.take(0, now);
        }
        assert_eq!(FallbackSchedule::new(0, None, now).current(), None);
    }
}
