//! Takes the messages of a block into the order.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::catalog::Catalog;
use super::plan::Block;
use super::record::{Id, MessageHeader};
use super::signed;
use crate::Attachment;
use crate::order::{Key, MessageOrder};
use crate::steps::{ClockSteps, LogTimes, Origin, Place};

/// An item that waits for its place in the order.
pub(super) enum Waiting {
    /// The data is empty outside of the window.
    Message(MessageHeader, Bytes),
    Attachment(Attachment),
}

/// The result of reading the messages of a block.
pub(super) struct Taken {
    /// The part of the file.
    pub(super) part: usize,
    /// Number of messages by channels that are not defined.
    by_stray: BTreeMap<u16, u64>,
    /// Messages that are shorter than their header.
    pub(super) short: u64,
    /// The log times of the block, if the steps of the clock in it are not known.
    pub(super) times: Option<LogTimes>,
}

impl Taken {
    pub(super) fn new(part: usize) -> Self {
        Self { part, by_stray: BTreeMap::new(), short: 0, times: None }
    }

    pub(super) fn stray(&mut self, channel: u16) {
        *self.by_stray.entry(channel).or_default() += 1;
    }

    /// Number of messages whose channel is not defined.
    pub(super) fn strays(&self) -> u64 {
        self.by_stray.values().sum()
    }

    /// The channels that are not defined.
    pub(super) fn stray_channels(&self) -> impl Iterator<Item = Id> {
        self.by_stray.keys().map(|number| Id { part: self.part, number: *number })
    }

    /// Adds a message to the order, number `number` of the block. A message outside of the window
    /// is added without its data, since it is only counted.
    pub(super) fn message(
        &mut self,
        (catalog, steps): (&mut Catalog, &ClockSteps),
        order: &mut MessageOrder<Block, Waiting>,
        body: &[u8],
        (block, place): (u64, Place),
        number: u64,
    ) {
        let (Some(header), Some(data)) =
            (MessageHeader::parse(body), body.get(MessageHeader::LEN..))
        else {
            self.short += 1;
            return;
        };
        catalog.first_log.get_or_insert(header.log_time);
        match catalog.wants(Id { part: self.part, number: header.channel }) {
            None => self.stray(header.channel),
            Some(false) => {}
            Some(true) => {
                let log_ns = signed(header.log_time);
                let time = log_ns.saturating_add(steps.shift(place));
                if let Some(times) = &mut self.times {
                    let id = Id { part: self.part, number: header.channel };
                    let (topic, is_camera) = catalog.topic(id);
                    let channel = u64::from(id.number);
                    let origin = Origin { topic: &topic, is_camera, part: id.part, channel };
                    times.push(origin, place, time);
                }
                let key = Key { time, block, number };
                if !order.is_wanted(&key) {
                    return;
                }
                let data = match catalog.bounds().contains(&log_ns) {
                    // A slice would keep the whole chunk in memory.
                    true => catalog.buffers.copy(data),
                    false => Bytes::new(),
                };
                let len = data.len() as u64;
                order.push(key, Waiting::Message(header, data), len);
            }
        }
    }
}
