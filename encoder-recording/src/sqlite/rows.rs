//! Returns rows of camera messages in log-time order, without a list of all rows.
//!
//! Rows are stored in the order in which they were recorded, which is nearly that of their log
//! times. A first pass determines how late a row is at most, compared with the rows before it. The
//! second pass holds rows back for that long, so memory depends on how far rows are out of order,
//! not on their number.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::ops::RangeInclusive;

use rusqlite::{Connection, ffi};

use crate::StreamId;
use crate::steps::{ClockSteps, LogTimes, Origin, Place};

/// Rows that are read at a time.
const BATCH: usize = 1024;

/// Log time, number of the row, stream.
pub(super) type Row = (i64, i64, StreamId);

/// The result of a first pass over all rows.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Log time of the earliest message of any topic.
    pub(super) first: Option<i64>,
    /// Log time of the latest message of any topic.
    pub(super) last: Option<i64>,
    /// Number of messages of each selected stream.
    pub(super) counts: Vec<u64>,
    /// The most by which a message is earlier than a preceding message, in nanoseconds.
    late: u64,
    /// Where the clock was set back.
    pub(super) steps: ClockSteps,
    /// Ranges of the row numbers that can be read, in order.
    ranges: Vec<RangeInclusive<i64>>,
    /// A description of the damage to the table.
    pub(super) damage: Option<String>,
}

impl Survey {
    /// Reads times and topics of all rows. `wanted` has the stream of each topic that is wanted,
    /// of `streams`. `names`: the name of each topic, and whether it is a selected camera.
    ///
    /// A damaged table is read from both of its ends.
    pub(super) fn new(
        connection: &Connection,
        wanted: &HashMap<i64, StreamId>,
        streams: usize,
        names: &HashMap<i64, (String, bool)>,
    ) -> Self {
        let mut survey = Self { counts: vec![0; streams], ..Self::default() };
        let mut times = LogTimes::default();
        let (mut ids, mut latest) = (None, i64::MIN);
        let done = rows(connection, "ASC", |id, topic, time| {
            ids = Some((ids.map_or(id, |(first, _): (i64, i64)| first), id));
            if survey.count(topic, time, wanted).is_some() {
                survey.late = survey.late.max(lateness(latest, time));
                latest = latest.max(time);
            }
            let unnamed;
            let (topic, is_camera) = match names.get(&topic) {
                Some((name, is_camera)) => (name, *is_camera),
                None => {
                    unnamed = format!("topic {topic}");
                    (&unnamed, true)
                }
            };
            times.push(Origin { topic, is_camera, part: 0, channel: 0 }, place(id), time);
            true
        });
        survey.ranges.extend(ids.map(|(first, last)| first..=last));
        survey.steps = times.steps();
        let Err(error) = done else { return survey };
        survey.damage = Some(error.to_string());
        let last_good = ids.map(|(_, last)| last);
        let (mut ids, mut earliest) = (None, i64::MAX);
        // An error here has the same cause as the damage.
        let _ = rows(connection, "DESC", |id, topic, time| {
            if last_good.is_some_and(|last| id <= last) {
                return false;
            }
            ids = Some((id, ids.map_or(id, |(_, last): (i64, i64)| last)));
            if survey.count(topic, time, wanted).is_some() {
                survey.late = survey.late.max(lateness(time, earliest));
                earliest = earliest.min(time);
            }
            true
        });
        survey.late = survey.late.max(lateness(latest, earliest));
        survey.ranges.extend(ids.map(|(first, last)| first..=last));
        survey
    }

    /// Counts a row; returns its stream, if it is wanted.
    fn count(
        &mut self,
        topic: i64,
        time: i64,
        wanted: &HashMap<i64, StreamId>,
    ) -> Option<StreamId> {
        self.first = Some(self.first.map_or(time, |first| first.min(time)));
        self.last = self.last.max(Some(time));
        let stream = wanted.get(&topic).copied()?;
        *self.counts.get_mut(stream)? += 1;
        Some(stream)
    }

    /// Messages of all wanted streams.
    pub(super) fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// The place of a row in the order of the table.
fn place(id: i64) -> Place {
    (0, id.abs_diff(i64::MIN))
}

/// How much earlier `time` is than `before`.
fn lateness(before: i64, time: i64) -> u64 {
    if time < before { before.abs_diff(time) } else { 0 }
}

/// Calls `row` with number, topic and time of each row until it returns `false`.
fn rows(
    connection: &Connection,
    order: &str,
    mut row: impl FnMut(i64, i64, i64) -> bool,
) -> rusqlite::Result<()> {
    let mut query = connection.prepare(&format!(
        "SELECT rowid, topic_id, timestamp FROM messages NOT INDEXED ORDER BY rowid {order}"
    ))?;
    let mut found = query.query([])?;
    let mut before = None;
    while let Some(next) = found.next()? {
        let id = next.get(0)?;
        check_order(before, id, order == "ASC")?;
        before = Some(id);
        if !row(id, next.get(1)?, next.get(2)?) {
            break;
        }
    }
    Ok(())
}

/// Refuses rows that are out of order: pages of a damaged table may have several parents, and the
/// same rows would be returned without end.
fn check_order(before: Option<i64>, id: i64, rising: bool) -> rusqlite::Result<()> {
    match before {
        Some(before) if (rising && id <= before) || (!rising && id >= before) => {
            let corrupt = ffi::Error::new(ffi::SQLITE_CORRUPT);
            Err(rusqlite::Error::SqliteFailure(corrupt, Some(format!("row {id} is out of order"))))
        }
        _ => Ok(()),
    }
}

/// The wanted rows in log-time order, then in that of their numbers.
#[derive(Debug)]
pub(super) struct Rows {
    wanted: HashMap<i64, StreamId>,
    /// The ranges that were not read yet.
    ranges: VecDeque<RangeInclusive<i64>>,
    late: u64,
    steps: ClockSteps,
    /// The latest time that was read, as if the clock had not been set back.
    latest: i64,
    /// Rows that are held back, because earlier rows may follow: first their times as if the clock
    /// had not been set back.
    held: BinaryHeap<Reverse<(i64, Row)>>,
    /// Number of rows counted by the first pass that were not returned.
    left: u64,
    damage: Option<String>,
}

impl Rows {
    pub(super) fn new(survey: &Survey, wanted: HashMap<i64, StreamId>) -> Self {
        Self {
            wanted,
            ranges: survey.ranges.iter().cloned().collect(),
            late: survey.late,
            steps: survey.steps.clone(),
            latest: i64::MIN,
            held: BinaryHeap::new(),
            left: survey.total(),
            damage: None,
        }
    }

    /// The next row.
    pub(super) fn next(&mut self, connection: &Connection) -> Option<Row> {
        loop {
            let certain = self.latest.saturating_sub_unsigned(self.late);
            let is_certain = |row: &Reverse<(i64, Row)>| row.0.0 <= certain;
            if self.ranges.is_empty() || self.held.peek().is_some_and(is_certain) {
                let (_, row) = self.held.pop()?.0;
                self.left = self.left.saturating_sub(1);
                return Some(row);
            }
            let Some(range) = self.ranges.pop_front() else { continue };
            match self.read(connection, &range) {
                Ok(Some(rest)) => self.ranges.push_front(rest),
                Ok(None) => {}
                Err(error) => self.damage = Some(error.to_string()),
            }
        }
    }

    /// Reads rows of a range; returns the rest of it.
    fn read(
        &mut self,
        connection: &Connection,
        range: &RangeInclusive<i64>,
    ) -> rusqlite::Result<Option<RangeInclusive<i64>>> {
        let mut query = connection.prepare_cached(
            "SELECT rowid, topic_id, timestamp FROM messages NOT INDEXED
             WHERE rowid >= ?1 AND rowid <= ?2 ORDER BY rowid LIMIT ?3",
        )?;
        let mut found = query.query((range.start(), range.end(), BATCH as i64))?;
        let (mut count, mut last) = (0, None);
        while let Some(row) = found.next()? {
            let (id, topic, time): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            check_order(last.or(range.start().checked_sub(1)), id, true)?;
            (count, last) = (count + 1, Some(id));
            if let Some(stream) = self.wanted.get(&topic) {
                let at = time.saturating_add(self.steps.shift(place(id)));
                self.held.push(Reverse((at, (time, id, *stream))));
                self.latest = self.latest.max(at);
            }
        }
        let next = last.filter(|_| count == BATCH).and_then(|last: i64| last.checked_add(1));
        Ok(next.filter(|next| next <= range.end()).map(|next| next..=*range.end()))
    }

    /// Whether no row after one at the end of the window is in it.
    pub(super) fn is_rising(&self) -> bool {
        self.steps.is_empty()
    }

    /// A description of the damage, if fewer rows were returned than the first pass counted.
    pub(super) fn missing(&mut self) -> Option<String> {
        let left = std::mem::take(&mut self.left);
        let damage = self.damage.take().unwrap_or_else(|| "they were there before".into());
        (left > 0).then(|| format!("{left} messages can no longer be read ({damage})"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A table with these rows: number, topic, time.
    fn database(rows: &[(i64, i64, i64)]) -> Connection {
        let database = Connection::open_in_memory().unwrap();
        database
            .execute_batch(
                "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER)",
            )
            .unwrap();
        for row in rows {
            let insert = "INSERT INTO messages VALUES (?1, ?2, ?3)";
            database.execute(insert, [row.0, row.1, row.2]).unwrap();
        }
        database
    }

    /// All rows, the most that were held, and the survey.
    fn read(rows: &[(i64, i64, i64)]) -> (Vec<Row>, usize, Survey) {
        let database = database(rows);
        let wanted = HashMap::from([(1, 0), (2, 1)]);
        let survey = Survey::new(&database, &wanted, 2, &HashMap::new());
        assert_eq!(survey.damage, None);
        let mut source = Rows::new(&survey, wanted);
        let (mut found, mut held) = (Vec::new(), 0);
        while let Some(row) = source.next(&database) {
            held = held.max(source.held.len());
            found.push(row);
        }
        assert_eq!(source.missing(), None);
        (found, held, survey)
    }

    #[test]
    fn rows_in_order_are_not_held() {
        let rows: Vec<_> = (0..20_000).map(|n| (n, n % 3, n * 10)).collect();
        let (found, held, survey) = read(&rows);
        assert_eq!((survey.first, survey.late), (Some(0), 0));
        assert_eq!(survey.counts, [6667, 6666]);
        assert_eq!(found.len(), 13_333);
        assert!(held <= BATCH, "{held}");
        // Each pair of rows is mixed up.
        let rows: Vec<_> = (0..20_000).map(|n| (n, 1, (n ^ 1) * 10)).collect();
        let (found, held, survey) = read(&rows);
        assert_eq!((survey.first, survey.late), (Some(0), 10));
        assert!(found.iter().map(|row| row.0).eq((0..20_000).map(|n| n * 10)));
        assert!(held <= BATCH + 2, "{held}");
    }

    #[test]
    fn numbers_and_times_at_their_limits() {
        let rows = [
            (i64::MIN, 1, i64::MAX),
            (-1, 2, 0),
            (0, 1, 0),
            (i64::MAX - 1, 1, 7),
            (i64::MAX, 2, i64::MIN),
        ];
        let expected = [
            (i64::MIN, i64::MAX, 1),
            (0, -1, 1),
            (0, 0, 0),
            (7, i64::MAX - 1, 0),
            (i64::MAX, i64::MIN, 0),
        ];
        let (found, _, survey) = read(&rows);
        assert_eq!(found, expected);
        assert_eq!((survey.first, survey.late), (Some(i64::MIN), u64::MAX));
        assert_eq!(read(&[]).0, []);
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_interleave_rows() {
        let at = |n: i64| n * 50 - if n < 120 { 0 } else { 4975 };
        let rows: Vec<_> = (0..200).map(|n| (n, 1, at(n))).collect();
        let (found, _, survey) = read(&rows);
        assert!(found.iter().map(|row| row.1).eq(0..200), "{found:?}");
        assert!(found.iter().map(|row| row.0).eq((0..200).map(at)), "the times of the recording");
        assert_eq!(survey.steps.warnings().count(), 1);
    }

    #[test]
    fn the_clock_is_that_of_all_topics() {
        // The second topic is slow, the third is not wanted.
        let at = |n: i64| (n * 50 - if n < 120 { 0 } else { 4975 }) * 1_000_000;
        let topic = |n: i64| if n % 40 == 7 { 2 } else { 1 + n % 2 * 2 };
        let rows: Vec<_> = (0..240).map(|n| (n, topic(n), at(n))).collect();
        let (found, _, survey) = read(&rows);
        assert!(found.iter().map(|row| row.1).is_sorted(), "{found:?}");
        assert_eq!(survey.steps.warnings().count(), 1);
    }

    #[test]
    fn rows_that_vanish_are_reported() {
        let rows: Vec<_> = (0..10).map(|n| (n, 1, n)).collect();
        let database = database(&rows);
        let wanted = HashMap::from([(1, 0)]);
        let survey = Survey::new(&database, &wanted, 1, &HashMap::new());
        let mut rows = Rows::new(&survey, wanted);
        database.execute("DELETE FROM messages WHERE id >= 7", []).unwrap();
        while rows.next(&database).is_some() {}
        let missing = rows.missing().unwrap();
        assert!(missing.starts_with("3 messages"), "{missing}");
        assert_eq!(rows.missing(), None);
    }

    proptest! {
        #[test]
        fn order_is_that_of_sorting(
            times in prop::collection::vec((1i64..4, prop_oneof![0i64..50, any::<i64>()]), 0..200),
        ) {
            let rows: Vec<_> =
                (0..).zip(&times).map(|(n, (topic, time))| (n, *topic, *time)).collect();
            let mut expected: Vec<Row> = rows
                .iter()
                .filter(|row| row.1 < 3)
                .map(|(id, topic, time)| (*time, *id, *topic as usize - 1))
                .collect();
            expected.sort_unstable();
            let (found, _, survey) = read(&rows);
            // Few messages may look like a step of the clock.
            prop_assume!(survey.steps.is_empty());
            prop_assert_eq!(found, expected);
        }
    }
}
