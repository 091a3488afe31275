//! Log-time order within a bound on memory.
//!
//! A recording is a list of blocks (chunks, runs of messages), each with a lower bound of the log
//! times of its messages. A block is read once no waiting message is certain to precede its
//! messages. Where blocks overlap in time, messages wait. If more bytes wait than the limit allows,
//! the latest messages are dropped and their blocks are queued again, from the first dropped
//! message on: order costs time instead of memory. A budget bounds that time: once it is used up,
//! nothing is dropped any more, and blocks wait until there is room, at the cost of the order.

use std::collections::{BTreeMap, HashMap};

use crate::Limits;

/// Place in the order: log time, then place in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub time: i64,
    /// Offset of the message's block in the file.
    pub block: u64,
    /// Number of the message in its block.
    pub number: u64,
}

/// Approximate memory of a waiting message besides its data.
const OVERHEAD: u64 = 128;

/// Reads of a block that was read before, per block. Enough for blocks that overlap with many
/// others in a few messages; little enough that a shuffled file is read at a reasonable speed.
const REREADS: u64 = 4;
/// Added to the budget, so that a short recording has enough as well.
const MORE_REREADS: u64 = 16;

/// The text of a source's warning if [`MessageOrder::is_disordered`].
pub(crate) fn warning(limits: &Limits) -> String {
    format!(
        "chunks overlap in time by more than the {} bytes of messages that are held to sort them, \
         and were read again several times already: messages may come out of order",
        limits.held_bytes
    )
}

/// Blocks to read and messages that wait.
pub(crate) struct MessageOrder<B, M> {
    /// Blocks to read, by the least key that their messages may have.
    blocks: BTreeMap<Key, Queued<B>>,
    messages: BTreeMap<Key, Waiting<M>>,
    /// Blocks of which messages wait, and the one being read, by offset.
    open: HashMap<u64, Open<B>>,
    /// Offset of the block being read.
    loading: Option<u64>,
    held: u64,
    most_held: u64,
    limit: u64,
    rereads: u64,
    is_disordered: bool,
}

struct Queued<B> {
    block: B,
    /// First message that is still needed; `None` if the block was not read yet.
    from: Option<Key>,
}

struct Waiting<M> {
    message: M,
    bytes: u64,
}

struct Open<B> {
    block: B,
    from: Option<Key>,
    /// Number of its messages that wait.
    messages: u64,
    /// The message from which the block will be read again.
    queued: Option<Key>,
}

/// The next step of a source.
#[derive(Debug, PartialEq)]
pub(crate) enum Next<B, M> {
    /// Read this block and push its messages. `is_again`: the block was read before, so its defects
    /// were already reported.
    Block { block: B, is_again: bool },
    /// Return this message.
    Message(Key, M),
    /// The end.
    End,
}

impl<B: Clone, M> MessageOrder<B, M> {
    /// An order that holds about `limit` bytes at most, plus the largest message.
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            blocks: BTreeMap::new(),
            messages: BTreeMap::new(),
            open: HashMap::new(),
            loading: None,
            held: 0,
            most_held: 0,
            limit,
            rereads: MORE_REREADS,
            is_disordered: false,
        }
    }

    /// Queues a block that has not been read: none of its messages is earlier than `start`. A file
    /// has at most one block at an offset.
    pub(crate) fn add(&mut self, start: i64, at: u64, block: B) {
        self.rereads = self.rereads.saturating_add(REREADS);
        self.requeue(start, at, block);
    }

    /// Queues a block again that [`take_due`](Self::take_due) returned, perhaps with a better
    /// `start`.
    pub(crate) fn requeue(&mut self, start: i64, at: u64, block: B) {
        let key = Key { time: start, block: at, number: 0 };
        self.blocks.insert(key, Queued { block, from: None });
    }

    /// Removes all blocks that have not been read.
    #[cfg(feature = "rosbag1")]
    pub(crate) fn take_unread(&mut self) -> Vec<(i64, B)> {
        let unread = self.blocks.iter().filter(|(_, queued)| queued.from.is_none());
        let keys: Vec<_> = unread.map(|(key, _)| *key).collect();
        self.take(keys)
    }

    /// Removes up to `most` blocks from the front that are to be read before the first waiting
    /// message, were not read before, and are not yet `is_ready`. Empty when no message waits.
    pub(crate) fn take_due(&mut self, most: usize, is_ready: impl Fn(&B) -> bool) -> Vec<(i64, B)> {
        let Some((next, _)) = self.messages.first_key_value() else { return Vec::new() };
        let is_wanted = |queued: &Queued<B>| queued.from.is_none() && !is_ready(&queued.block);
        let due = self.blocks.range(..*next).take_while(|(_, queued)| is_wanted(queued));
        let keys: Vec<_> = due.map(|(key, _)| *key).take(most).collect();
        self.take(keys)
    }

    fn take(&mut self, keys: Vec<Key>) -> Vec<(i64, B)> {
        let take = |key| self.blocks.remove(&key).map(|queued| (key.time, queued.block));
        keys.into_iter().filter_map(take).collect()
    }

    /// Returns the next step.
    pub(crate) fn next(&mut self) -> Next<B, M> {
        if let Some(at) = self.loading.take()
            && self.open.get(&at).is_some_and(|open| open.messages == 0)
        {
            self.open.remove(&at);
        }
        let message = self.messages.first_key_value().map(|(key, _)| *key);
        let block = self.blocks.first_key_value().map(|(key, _)| *key);
        if let Some(block) = block
            && message.is_none_or(|message| block < message)
        {
            if self.held <= self.limit || self.rereads > 0 || message.is_none() {
                return self.start(block);
            }
            self.is_disordered = true;
        }
        match self.messages.pop_first() {
            Some((key, Waiting { message, bytes })) => {
                self.release(&key, bytes);
                Next::Message(key, message)
            }
            None => Next::End,
        }
    }

    fn start(&mut self, key: Key) -> Next<B, M> {
        let Some(Queued { block, from }) = self.blocks.remove(&key) else { return Next::End };
        if from.is_some() {
            self.rereads = self.rereads.saturating_sub(1);
        }
        let open = Open { block: block.clone(), from, messages: 0, queued: None };
        self.open.insert(key.block, open);
        self.loading = Some(key.block);
        Next::Block { block, is_again: from.is_some() }
    }

    /// Whether [`push`](Self::push) keeps the message with this key. It does not if the message was
    /// already returned, or will be read again.
    pub(crate) fn is_wanted(&self, key: &Key) -> bool {
        self.open.get(&key.block).is_some_and(|open| {
            open.from.is_none_or(|from| from <= *key)
                && open.queued.is_none_or(|queued| *key < queued)
        })
    }

    /// Adds a message of the block being read, which has `len` bytes.
    pub(crate) fn push(&mut self, key: Key, message: M, len: u64) {
        if !self.is_wanted(&key) {
            return;
        }
        let bytes = len.saturating_add(OVERHEAD);
        if let Some(open) = self.open.get_mut(&key.block) {
            open.messages += 1;
        }
        self.held += bytes;
        if let Some(before) = self.messages.insert(key, Waiting { message, bytes }) {
            self.release(&key, before.bytes);
        }
        self.most_held = self.most_held.max(self.held);
        while self.held > self.limit && self.messages.len() > 1 && self.rereads > 0 {
            self.drop_last();
        }
    }

    /// Drops the latest message and queues its block to be read again from there on.
    fn drop_last(&mut self) {
        let Some((key, Waiting { bytes, .. })) = self.messages.pop_last() else { return };
        if let Some(open) = self.open.get_mut(&key.block) {
            if let Some(queued) = open.queued.replace(key) {
                self.blocks.remove(&queued);
            }
            let queued = Queued { block: open.block.clone(), from: Some(key) };
            self.blocks.insert(key, queued);
        }
        self.release(&key, bytes);
    }

    /// Removes a message that no longer waits from the counts.
    fn release(&mut self, key: &Key, bytes: u64) {
        self.held = self.held.saturating_sub(bytes);
        let Some(open) = self.open.get_mut(&key.block) else { return };
        open.messages = open.messages.saturating_sub(1);
        if open.messages == 0 && self.loading != Some(key.block) {
            self.open.remove(&key.block);
        }
    }

    /// Whether the limit caused messages to be returned before earlier messages.
    pub(crate) fn is_disordered(&self) -> bool {
        self.is_disordered
    }

    /// The most bytes that waited at a time, including bookkeeping.
    #[cfg(test)]
    pub(crate) fn most_held(&self) -> u64 {
        self.most_held
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The result of reading some blocks.
    struct Played {
        /// Time, block and number of each message.
        messages: Vec<(i64, u64, u64)>,
        most_held: u64,
        is_disordered: bool,
        /// Blocks may still be read again.
        has_budget: bool,
        reads: usize,
    }

    /// Plays blocks, which are lists of times, each message with 100 bytes. `early` is how much a
    /// block's start is before its first message.
    fn play(blocks: &[Vec<i64>], limit: u64, early: i64) -> Played {
        let mut order = MessageOrder::new(limit);
        for (at, times) in (0..).zip(blocks) {
            let start = times.iter().min().map_or(0, |first| first - early);
            order.add(start, at, at);
        }
        let (mut messages, mut reads) = (Vec::new(), 0);
        loop {
            match order.next() {
                Next::Block { block, .. } => {
                    reads += 1;
                    for (number, time) in (0..).zip(&blocks[block as usize]) {
                        let key = Key { time: *time, block, number };
                        if order.is_wanted(&key) {
                            order.push(key, (*time, block, number), 100);
                        }
                    }
                }
                Next::Message(key, message) => {
                    assert_eq!((key.time, key.block, key.number), message);
                    messages.push(message);
                }
                Next::End => break,
            }
        }
        assert_eq!((order.held, order.open.len(), order.blocks.len()), (0, 0, 0));
        let (most_held, is_disordered) = (order.most_held(), order.is_disordered());
        let has_budget = order.rereads > 0;
        Played { messages, most_held, is_disordered, has_budget, reads }
    }

    fn sorted(blocks: &[Vec<i64>]) -> Vec<(i64, u64, u64)> {
        let rows = (0..).zip(blocks).flat_map(|(at, times)| {
            (0..).zip(times).map(move |(number, time)| (*time, at, number))
        });
        let mut rows: Vec<_> = rows.collect();
        rows.sort_unstable();
        rows
    }

    const EACH: u64 = 100 + OVERHEAD;

    #[test]
    fn blocks_one_after_another_are_read_once_and_held_one_at_a_time() {
        let blocks: Vec<Vec<i64>> = (0..50).map(|b| (b * 10..b * 10 + 10).collect()).collect();
        let played = play(&blocks, 20 * EACH, 0);
        assert_eq!(played.messages, sorted(&blocks));
        assert_eq!((played.reads, played.is_disordered), (50, false));
        assert_eq!(played.most_held, 10 * EACH);
    }

    #[test]
    fn an_early_message_in_each_block_costs_a_second_read_and_no_memory() {
        let blocks: Vec<Vec<i64>> =
            (0..50).map(|b| (b * 10..b * 10 + 10).chain([-50 + b]).collect()).collect();
        let played = play(&blocks, 20 * EACH, 0);
        assert_eq!(played.messages, sorted(&blocks));
        assert!(!played.is_disordered && played.most_held <= 21 * EACH, "{}", played.most_held);
        assert!(played.reads <= 110, "{}", played.reads);
    }

    #[test]
    fn shuffled_blocks_end_with_the_budget_and_lose_nothing() {
        let blocks: Vec<Vec<i64>> =
            (0..100).map(|b| (0..100).map(|n| (n * 7919 + b * 31) % 1000).collect()).collect();
        let played = play(&blocks, 20 * EACH, 0);
        assert!(played.is_disordered);
        // When the budget is used up, each block may be queued once more.
        assert!(played.reads as u64 <= 100 * (REREADS + 2) + MORE_REREADS, "{}", played.reads);
        // The limit, and a block that was begun below it.
        assert!(played.most_held <= 121 * EACH, "{}", played.most_held);
        let mut messages = played.messages;
        messages.sort_unstable();
        assert_eq!(messages, sorted(&blocks));
    }

    #[test]
    fn equal_times_do_not_read_in_circles() {
        let blocks = vec![vec![5; 40]; 8];
        let played = play(&blocks, 10 * EACH, 0);
        assert_eq!(played.messages, sorted(&blocks));
        assert!(!played.is_disordered && played.most_held <= 11 * EACH);
    }

    #[test]
    fn messages_that_are_larger_than_the_limit_pass() {
        let blocks = vec![vec![3, 1, 2], vec![2, 4]];
        let played = play(&blocks, 1, 0);
        assert_eq!(played.messages, sorted(&blocks));
        assert!(played.most_held <= 2 * EACH);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_order_is_kept_where_it_is_promised(
            blocks in prop::collection::vec(prop::collection::vec(0i64..60, 0..12), 0..12),
            limit in 1..3000u64,
            early in 0..20i64,
        ) {
            let played = play(&blocks, limit, early);
            let expected = sorted(&blocks);
            if !played.is_disordered {
                prop_assert_eq!(&played.messages, &expected);
            }
            // Without a budget, a block that was begun is held as a whole.
            let largest = blocks.iter().map(Vec::len).max().unwrap_or(0) as u64;
            let extra = if played.has_budget { 1 } else { largest };
            prop_assert!(played.most_held <= limit.max(EACH) + extra * EACH);
            let mut messages = played.messages;
            messages.sort_unstable();
            prop_assert_eq!(messages, expected);
        }
    }
}
