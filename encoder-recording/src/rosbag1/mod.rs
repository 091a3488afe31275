//! ROS 1 bags, version 2.0.
//!
//! A bag is a sequence of chunks, each with the messages of some time and possibly compressed,
//! followed by an index. Chunks are read whole; [`MessageOrder`] returns the messages of
//! overlapping chunks in log-time order. If the index is not valid, the file is walked over from
//! its start.
//!
//! Only selected messages are read. A chunk without any is skipped. If a chunk overlaps in time
//! with waiting messages, its index records are read first.

mod catalog;
mod clock;
mod layout;
mod record;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::ops::RangeInclusive;
use std::path::Path;

use bytes::Bytes;
use encoder_media::{InputReader, Location, ReadAt};

use self::catalog::Catalog;
use self::layout::{ChunkAt, Connection, Id, Layout, Wanted};
use self::record::{MAGIC, Record, op};
use super::file_parts::FileParts;
use super::filter::Window;
use super::frames::FrameBuffers;
use super::order::{Key, MessageOrder, Next};
use super::steps::{BlockTimes, ClockSteps, LogTimes, Origin};
use super::{Event, Limits, Source, SourceError, SourceOptions};

/// Chunks whose index records are read at once.
const BATCH: usize = 64;

/// A ROS 1 bag.
pub struct RosbagSource {
    input: InputReader,
    limits: Limits,
    all: bool,
    window: Window,
    catalog: Catalog,
    /// Log times of the first and the last message by the index.
    span: Option<(i64, i64)>,
    /// The window of log time to read, once the time of the first message is known.
    bounds: Option<RangeInclusive<i64>>,
    /// Time of the oldest message so far.
    oldest: i64,
    /// Time of the last message that was returned.
    last: i64,
    order: MessageOrder<ChunkAt, Waiting>,
    steps: ClockSteps,
    /// Whether the clock was not set but for `steps`.
    knows_steps: bool,
    /// The log times that were read, where steps are not known.
    block_times: BlockTimes,
    /// Memory for the messages that wait.
    buffers: FrameBuffers,
    parts: FileParts,
    /// Chunks that a walk found and whose connections were not read, by position.
    unread: BTreeMap<u64, ChunkAt>,
    /// Positions of chunks that were read.
    done: HashSet<u64>,
    /// Positions of chunks whose damage was already reported. A chunk may be read more than once.
    damaged: HashSet<u64>,
    /// Number of chunks in the index.
    promised: usize,
    /// The chunks were found by a walk over the file.
    walked: bool,
    warned_of_order: bool,
    warned_of_steps: bool,
    warned_of_unknown: bool,
}

/// A message that waits for its place in the order.
struct Waiting {
    connection: Id,
    /// When it was logged; its place in the order is later if the clock was set back.
    time: i64,
    /// Empty if the message is known to be outside of the window.
    data: Bytes,
}

/// What came out of a chunk besides its messages.
struct Unpacked {
    /// Number of messages whose connection is not described.
    unknown: u64,
    /// A description of the damage.
    damage: Option<String>,
    /// Log times, if the steps of the clock are not known.
    times: Option<LogTimes>,
}

impl RosbagSource {
    /// Opens a bag.
    ///
    /// # Errors
    /// [`SourceError`] when it cannot be read, or is not a bag of version 2.0.
    pub fn open(path: &Path, options: &SourceOptions) -> Result<Box<dyn Source>, SourceError> {
        Ok(Box::new(Self::new(InputReader::open(path)?, options)?))
    }

    /// Opens a bag that is not a file on disk, such as an object in a store. Errors print
    /// `location`, so it must not contain credentials.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_reader(
        input: Box<dyn ReadAt>,
        location: impl Into<Location>,
        options: &SourceOptions,
    ) -> Result<Box<dyn Source>, SourceError> {
        Ok(Box::new(Self::new(InputReader::new(input, location), options)?))
    }

    fn new(mut input: InputReader, options: &SourceOptions) -> Result<Self, SourceError> {
        check_magic(&mut input)?;
        let all = options.all_messages;
        let catalog = Catalog::new(input.location(), options)?;
        let is_camera = |connection: &_| catalog.is_camera(connection);
        let wanted = Wanted { limit: options.limits.message_bytes, all, is_camera: &is_camera };
        let layout = layout::read(&mut input, MAGIC.len() as u64, wanted)?;
        let mut source = Self {
            input,
            limits: options.limits,
            all,
            window: Window::new(options),
            catalog,
            span: None,
            bounds: None,
            oldest: i64::MAX,
            last: i64::MIN,
            order: MessageOrder::new(options.limits.held_bytes),
            steps: ClockSteps::default(),
            knows_steps: false,
            block_times: BlockTimes::default(),
            buffers: FrameBuffers::default(),
            parts: FileParts::default(),
            unread: BTreeMap::new(),
            done: HashSet::new(),
            damaged: HashSet::new(),
            promised: layout.listed,
            walked: layout.warning.is_some(),
            warned_of_order: false,
            warned_of_steps: false,
            warned_of_unknown: false,
        };
        source.take(layout)?;
        Ok(source)
    }

    fn take(&mut self, mut layout: Layout) -> Result<(), SourceError> {
        self.span = layout.span();
        self.parts = FileParts::new(layout.parts);
        if layout.warning.is_none() {
            self.catalog.learn_index(&layout.connections, &layout.counts);
            self.bounds = layout.first.map(|first| self.window.bounds(first));
        } else {
            for connection in &layout.connections {
                self.catalog.learn(connection);
            }
        }
        if let Some(warning) = layout.warning {
            self.catalog.warning(warning);
        }
        self.find_steps(&mut layout.chunks)?;
        self.queue(layout.chunks);
        Ok(())
    }

    fn queue(&mut self, chunks: Vec<ChunkAt>) {
        for chunk in chunks {
            // An index describes all connections.
            if self.walked {
                self.unread.insert(chunk.position, chunk.clone());
            }
            self.order.add(chunk.start, chunk.position, chunk);
        }
    }

    /// The number of the part that the byte at `position` belongs to.
    fn part(&self, position: u64) -> usize {
        self.parts.of(position)
    }

    /// Where the part ends that the byte at `position` belongs to.
    fn part_end(&self, position: u64) -> u64 {
        self.parts.end(self.part(position), self.input.len())
    }

    /// For chunks that are due while messages wait, looks up the log time of the first selected
    /// message. Returns whether there were such chunks.
    fn refine(&mut self) -> Result<bool, SourceError> {
        let due = self.order.take_due(BATCH, |chunk| chunk.is_refined);
        let any = !due.is_empty();
        for (start, mut chunk) in due {
            let part = self.part(chunk.position);
            let wants = |number| self.catalog.wants(Id { part, number });
            let first = layout::first_wanted(&mut self.input, &chunk, wants)?;
            chunk.is_refined = true;
            let shift = self.steps.shift((chunk.position, 0));
            let first = first.map(|first| first.saturating_add(shift));
            self.order.requeue(first.unwrap_or(start), chunk.position, chunk);
        }
        Ok(any)
    }

    /// Reads a chunk, unless the index lists no selected message in it. `is_again`: it was read
    /// before.
    fn load(&mut self, chunk: &ChunkAt, is_again: bool) -> Result<(), SourceError> {
        // After a step of the clock, the start of a chunk is no log time.
        if let (Some(indexed), Some(bounds)) = (&chunk.indexed, &self.bounds)
            && self.steps.is_empty()
            && (indexed.end < *bounds.start() || chunk.start > *bounds.end())
        {
            for (number, count) in indexed.counts.iter() {
                self.catalog.pass_by(Id { part: 0, number: *number }, u64::from(*count));
            }
            return Ok(());
        }
        let record = Record::at(&mut self.input, chunk.position)?;
        let Some(record) = record.filter(Record::is_chunk) else {
            if is_again {
                self.damaged(chunk, "its header is not whole any more");
                return Ok(());
            }
            return self.recover(chunk);
        };
        self.done.insert(chunk.position);
        self.unread.remove(&chunk.position);
        let (records, mut damage) = match self.records(chunk, &record)? {
            Ok(records) => records,
            Err(reason) => {
                self.damaged(chunk, &reason);
                return Ok(());
            }
        };
        let mut unpacked = self.unpack(chunk, &records);
        if unpacked.unknown > 0 && self.read_connections_before(chunk.position)? {
            unpacked = self.unpack(chunk, &records);
        }
        self.report_unknown(chunk, unpacked.unknown);
        self.report_steps(chunk, unpacked.times);
        damage = unpacked.damage.or(damage);
        // The walk has already reported the truncation.
        let is_reported =
            self.walked && (chunk.open || record.end() > self.part_end(chunk.position));
        if let Some(damage) = damage.filter(|_| !is_reported) {
            self.damaged(chunk, &damage);
        }
        Ok(())
    }

    /// Reads and decompresses a chunk. Returns its records, and an error if these are not complete;
    /// the inner `Err` is the reason why it cannot be read at all.
    fn records(
        &mut self,
        chunk: &ChunkAt,
        record: &Record,
    ) -> Result<Result<(Vec<u8>, Option<String>), String>, SourceError> {
        let rest = self.part_end(chunk.position).saturating_sub(record.data);
        let len = if chunk.open { rest } else { u64::from(record.len).min(rest) };
        let size = match record.fields().u32("size") {
            _ if chunk.open => u32::MAX,
            Some(size) => size,
            None => return Ok(Err("its header has no size".into())),
        };
        let limit = self.limits.message_bytes;
        if len > limit || (!chunk.open && u64::from(size) > limit) {
            let claim = len.max(u64::from(size));
            return Ok(Err(format!("it claims {claim} bytes, the limit is {limit}")));
        }
        let size = size.min(u32::try_from(limit).unwrap_or(u32::MAX));
        let data = record::up_to(&mut self.input, record.data, len)?;
        let compression = record.fields().get("compression").unwrap_or(b"none");
        Ok(Ok(record::decompress(compression, data, size)))
    }

    /// Reads the connections of all unread chunks before `position` in the same part: a connection
    /// stands before its messages in the file, but not always in log time. Returns whether there
    /// were such chunks.
    pub(super) fn read_connections_before(&mut self, position: u64) -> Result<bool, SourceError> {
        let part = self.part(position);
        let start = self.parts.start(part);
        let chunks: Vec<_> = self.unread.range(start..position).map(|(at, _)| *at).collect();
        for at in &chunks {
            let Some(chunk) = self.unread.remove(at) else { continue };
            let record = Record::at(&mut self.input, *at)?;
            let Some(record) = record.filter(Record::is_chunk) else { continue };
            // Damage in the chunk is reported when its messages are read.
            let Ok((records, _)) = self.records(&chunk, &record)? else { continue };
            let mut rest = records.as_slice();
            while let Some((fields, data, next)) = record::split(rest) {
                rest = next;
                if fields.op() == Some(op::CONNECTION)
                    && let Some(connection) = Connection::parse(part, fields, data, self.all)
                {
                    self.catalog.learn(&connection);
                }
            }
        }
        Ok(!chunks.is_empty())
    }

    /// Takes the messages of a decompressed chunk.
    fn unpack(&mut self, chunk: &ChunkAt, records: &[u8]) -> Unpacked {
        let part = self.part(chunk.position);
        let mut rest = records;
        let mut unknown = 0;
        let mut damage = None;
        let mut times = (!self.knows_steps).then(LogTimes::default);
        while !rest.is_empty() {
            let offset = records.len() - rest.len();
            let Some((fields, data, next)) = record::split(rest) else {
                damage = Some(format!("the record at its byte {offset} is damaged or cut"));
                break;
            };
            rest = next;
            match fields.op() {
                Some(op::CONNECTION) => match Connection::parse(part, fields, data, self.all) {
                    Some(connection) => self.catalog.learn(&connection),
                    None => {
                        damage = Some(format!("the connection at its byte {offset} is damaged"))
                    }
                },
                Some(op::MESSAGE) => {
                    let (Some(number), Some(time)) = (fields.u32("conn"), fields.time("time"))
                    else {
                        damage = Some(format!("the message at its byte {offset} is damaged"));
                        continue;
                    };
                    let connection = Id { part, number };
                    self.oldest = self.oldest.min(time);
                    match self.catalog.wants(connection) {
                        Some(true) => {
                            let place = (chunk.position, offset as u64);
                            let at = time.saturating_add(self.steps.shift(place));
                            if let Some(times) = &mut times {
                                let (topic, is_camera) = self.catalog.topic(connection);
                                let channel = u64::from(number);
                                let origin = Origin { topic: &topic, is_camera, part, channel };
                                times.push(origin, place, at);
                            }
                            let key = Key { time: at, block: place.0, number: place.1 };
                            self.hold(key, connection, time, data);
                        }
                        Some(false) => {}
                        None => unknown += 1,
                    }
                }
                _ => damage = Some(format!("the record at its byte {offset} is of no known kind")),
            }
        }
        Unpacked { unknown, damage, times }
    }

    /// Reports that the clock was set back within a chunk or between chunks, whose messages are in
    /// log-time order already.
    fn report_steps(&mut self, chunk: &ChunkAt, times: Option<LogTimes>) {
        let (Some(times), at) = (times, chunk.position) else { return };
        if let Some(text) = self.block_times.add(at, &format!("the chunk at offset {at}"), &times)
            && !std::mem::replace(&mut self.warned_of_steps, true)
        {
            self.catalog.warn(text, true);
        }
    }

    fn report_unknown(&mut self, chunk: &ChunkAt, unknown: u64) {
        if unknown > 0 && !self.warned_of_unknown {
            self.warned_of_unknown = true;
            self.catalog.warn(
                format!(
                    "the chunk at offset {} has {unknown} messages whose connection record is \
                     missing: their topic is unknown, and they are left out",
                    chunk.position
                ),
                true,
            );
        }
    }

    fn hold(&mut self, key: Key, connection: Id, time: i64, data: &[u8]) {
        if !self.order.is_wanted(&key) {
            return;
        }
        let is_outside = self.bounds.as_ref().is_some_and(|bounds| !bounds.contains(&time));
        let data = match is_outside {
            true => Bytes::new(),
            // A slice would keep the whole chunk in memory.
            false => self.buffers.copy(data),
        };
        let len = data.len() as u64;
        self.order.push(key, Waiting { connection, time, data }, len);
    }

    fn damaged(&mut self, chunk: &ChunkAt, what: &str) {
        if self.damaged.insert(chunk.position) {
            self.catalog.warn(
                format!(
                    "the chunk at offset {} is damaged: {what}; its whole messages are read, the \
                     others are missing",
                    chunk.position
                ),
                true,
            );
        }
    }

    /// Called if there is no chunk at a position from the index: walks over the file, and continues
    /// with the chunks that exist.
    fn recover(&mut self, chunk: &ChunkAt) -> Result<(), SourceError> {
        if self.walked {
            // A chunk that exists only in the index was reported when the walk reached the damage.
            if chunk.indexed.is_none() {
                self.damaged(chunk, "its header is not whole");
            }
            return Ok(());
        }
        self.walked = true;
        let reason = format!("its index has a chunk at offset {}, where none is", chunk.position);
        let catalog = &self.catalog;
        let is_camera = |connection: &_| catalog.is_camera(connection);
        let limit = self.limits.message_bytes;
        let wanted = Wanted { limit, all: self.all, is_camera: &is_camera };
        let found = layout::walk(&mut self.input, MAGIC.len() as u64, &reason, wanted)?;
        let mut chunks = found.chunks;
        if let Some(mut warning) = found.warning {
            warning.loss |= chunks.len() < self.promised;
            self.catalog.warning(warning);
        }
        let unread = self.order.take_unread();
        if self.catalog.lost {
            // The walk may miss chunks behind damage that the index lists.
            let known: HashSet<u64> = chunks.iter().map(|c| c.position).collect();
            let unread = unread.into_iter().map(|(_, chunk)| chunk);
            chunks.extend(unread.filter(|c| !known.contains(&c.position)));
        }
        chunks.retain(|c| !self.done.contains(&c.position));
        self.parts = FileParts::new(found.parts);
        for connection in &found.connections {
            self.catalog.learn(connection);
        }
        self.queue(chunks);
        Ok(())
    }

    /// Returns a message, after a warning if it is late. A message outside of the window is only
    /// counted.
    fn message(&mut self, at: i64, Waiting { connection, time, data }: Waiting) {
        if self.order.is_disordered() {
            if !std::mem::replace(&mut self.warned_of_order, true) {
                self.catalog.warn(super::order::warning(&self.limits), false);
            }
        } else if at < self.last && !std::mem::replace(&mut self.warned_of_order, true) {
            let text = format!(
                "a message was logged {} ns before the one that came before it, against what its \
                 chunk claims: messages may come out of order",
                self.last.saturating_sub(at)
            );
            self.catalog.warn(text, false);
        }
        self.last = at;
        let bounds = self.bounds.get_or_insert_with(|| self.window.bounds(self.oldest));
        match bounds.contains(&time) {
            true => self.catalog.message(connection, time, &data),
            false => self.catalog.pass_by(connection, 1),
        }
    }
}

impl Source for RosbagSource {
    fn next_event(&mut self) -> Result<Option<Event>, SourceError> {
        loop {
            if let Some(event) = self.catalog.events.pop_front() {
                return Ok(Some(event));
            }
            if self.refine()? {
                continue;
            }
            match self.order.next() {
                Next::Block { block, is_again } => self.load(&block, is_again)?,
                Next::Message(key, waiting) => self.message(key.time, waiting),
                Next::End => {
                    if !self.walked {
                        self.catalog.settle();
                    }
                    if self.catalog.events.is_empty() {
                        return self.catalog.nothing(self.input.location()).map_or(Ok(None), Err);
                    }
                }
            }
        }
    }

    fn other_topics(&self) -> Vec<(String, String)> {
        self.catalog.other_topics()
    }

    fn log_span(&self) -> Option<(i64, i64)> {
        self.span
    }

    fn profile(&self) -> &str {
        if self.all { "ros1" } else { "" }
    }
}

/// Refuses a file that is not a bag of version 2.0; the error names the version if the file has
/// one.
fn check_magic(input: &mut InputReader) -> Result<(), SourceError> {
    let start = record::up_to(input, 0, MAGIC.len() as u64)?;
    let (reason, hint) = if start == MAGIC {
        return Ok(());
    } else if start.is_empty() {
        ("the file is empty".into(), "nothing was recorded; record again")
    } else if start.starts_with(b"#ROSBAG V") || start.starts_with(b"#ROSRECORD V") {
        let version = String::from_utf8_lossy(&start).trim().to_owned();
        (
            format!("a bag of an old version ({version}), only version 2.0 can be read"),
            "rewrite it with ROS 1: rosbag filter OLD.bag NEW.bag True",
        )
    } else {
        ("not a ROS 1 bag: it does not start with `#ROSBAG V2.0`".into(), "check what it is")
    };
    Err(SourceError::invalid(input.location().clone(), reason, hint))
}
