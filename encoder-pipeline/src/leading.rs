//! Broken messages before the first message with a picture.

use std::{borrow::Cow, collections::VecDeque};

use crate::timeline::FrameTimes;

/// How many are kept, to be replaced by the first good picture. Without a bound, the list would
/// grow with the recording.
const MOST: usize = 10_000;

/// How many reasons are kept: a topic may have a million broken messages, and the first few reasons
/// are enough.
const NAMED: u64 = 10;

/// A message without a picture.
pub(crate) struct Broken {
    pub number: u64,
    pub times: FrameTimes,
    pub copies: u32,
    pub reason: Cow<'static, str>,
}

/// Broken messages before the first message with a picture. The latest are kept, all are counted.
#[derive(Default)]
pub(crate) struct Leading {
    kept: VecDeque<Broken>,
    count: u64,
    /// Number and reason of the first broken message.
    first: Option<(u64, String)>,
}

impl Leading {
    pub fn push(&mut self, number: u64, times: FrameTimes, copies: u32, reason: String) {
        if self.first.is_none() {
            self.first = Some((number, reason.clone()));
        }
        let reason = match self.count {
            ..NAMED => Cow::Owned(reason),
            _ => Cow::Borrowed("as those before it"),
        };
        self.count += 1;
        if self.kept.len() == MOST {
            self.kept.pop_front();
        }
        self.kept.push_back(Broken { number, times, copies, reason });
    }

    /// Number of broken messages.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Number and reason of the first broken message.
    pub fn first(&self) -> Option<(u64, &str)> {
        self.first.as_ref().map(|(number, reason)| (*number, reason.as_str()))
    }

    /// Removes the kept messages and returns them in order, with the number of those that were not
    /// kept.
    pub fn take(&mut self) -> (VecDeque<Broken>, u64) {
        let kept = std::mem::take(&mut self.kept);
        let dropped = self.count - kept.len() as u64;
        *self = Self::default();
        (kept, dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_broken_messages_are_counted_and_the_last_are_kept() {
        let mut leading = Leading::default();
        for n in 0..1_000_000 {
            leading.push(n, FrameTimes::at(n as i64), 1, format!("broken {n}"));
        }
        assert_eq!(leading.count(), 1_000_000);
        assert_eq!(leading.first(), Some((0, "broken 0")));
        let (kept, dropped) = leading.take();
        assert_eq!((kept.len(), dropped), (MOST, 990_000));
        assert_eq!(kept.front().map(|broken| broken.number), Some(990_000));
        assert_eq!((leading.count(), leading.take().1), (0, 0));
    }
}
