//! The message indexes behind a chunk: the channels of its messages, and their log times.

use std::ops::Range;

use encoder_media::InputReader;
use mcap::records::op;

use super::record::Fields;
use crate::SourceError;

/// Larger indexes are not read: a quarter of a million messages in one chunk. Their chunks are
/// read instead.
const MAX_REGION: u64 = 4 << 20;
/// Bytes that are read at once.
const BATCH: u64 = 8 << 20;

/// The messages of a channel in a chunk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Entry {
    pub channel: u16,
    pub messages: u64,
    /// Log time of the first message; meaningless if there is no message.
    pub first: u64,
}

/// The entries of a chunk by its channels; `None` when its message indexes cannot be used.
pub(super) type Entries = Option<Vec<Entry>>;

/// A message in a chunk, in the order of the chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Row {
    /// Offset of its record in the decompressed chunk.
    pub offset: u64,
    pub channel: u16,
    pub log_time: u64,
}

/// The messages of a chunk in its order; `None` when its message indexes cannot be used.
pub(super) type Rows = Option<Vec<Row>>;

/// Reads the message indexes of chunks; the result is `None` for a chunk without usable indexes.
pub(super) fn read(
    input: &InputReader,
    regions: &[Option<Range<u64>>],
) -> Result<Vec<Entries>, SourceError> {
    read_with(input, regions, parse)
}

/// Reads all messages of the indexes of chunks.
pub(super) fn read_rows(
    input: &InputReader,
    regions: &[Option<Range<u64>>],
) -> Result<Vec<Rows>, SourceError> {
    read_with(input, regions, parse_rows)
}

fn read_with<T>(
    input: &InputReader,
    regions: &[Option<Range<u64>>],
    parse: fn(&[u8]) -> Option<T>,
) -> Result<Vec<Option<T>>, SourceError> {
    let mut read = Vec::with_capacity(regions.len());
    let mut batch: Vec<(usize, Range<u64>)> = Vec::new();
    let mut bytes = 0;
    for (place, region) in regions.iter().enumerate() {
        read.push(None);
        let Some(region) = region else { continue };
        let len = region.end.saturating_sub(region.start);
        if len == 0 || len > MAX_REGION || region.end > input.len() {
            continue;
        }
        if bytes + len > BATCH {
            read_batch(input, &mut batch, &mut read, parse)?;
            bytes = 0;
        }
        batch.push((place, region.clone()));
        bytes += len;
    }
    read_batch(input, &mut batch, &mut read, parse)?;
    Ok(read)
}

fn read_batch<T>(
    input: &InputReader,
    batch: &mut Vec<(usize, Range<u64>)>,
    read: &mut [Option<T>],
    parse: fn(&[u8]) -> Option<T>,
) -> Result<(), SourceError> {
    let (places, ranges): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
    if ranges.is_empty() {
        return Ok(());
    }
    for (place, bytes) in places.into_iter().zip(input.ranges(&ranges)?) {
        if let Some(entries) = read.get_mut(place) {
            *entries = parse(&bytes);
        }
    }
    Ok(())
}

/// Parses message index records that follow each other without a gap.
fn parse(bytes: &[u8]) -> Entries {
    let mut entries = Vec::new();
    each_channel(bytes, |channel, rows| {
        let times = rows.iter().filter_map(|row| row.first_chunk().copied());
        let first = times.map(u64::from_le_bytes).min().unwrap_or(u64::MAX);
        entries.push(Entry { channel, messages: rows.len() as u64, first });
    })?;
    Some(entries)
}

fn parse_rows(bytes: &[u8]) -> Rows {
    let mut all = Vec::new();
    each_channel(bytes, |channel, rows| {
        let number = |half: Option<&[u8; 8]>| half.copied().map_or(0, u64::from_le_bytes);
        all.extend(rows.iter().map(|row| {
            let (log_time, offset) = (number(row.first_chunk()), number(row.last_chunk()));
            Row { offset, channel, log_time }
        }));
    })?;
    all.sort_unstable();
    Some(all)
}

/// Calls `row` with the rows of each channel: a log time, and an offset in the decompressed chunk.
fn each_channel(mut bytes: &[u8], mut row: impl FnMut(u16, &[[u8; 16]])) -> Option<()> {
    while let Some((&opcode, rest)) = bytes.split_first() {
        let mut fields = Fields(rest);
        let len = usize::try_from(fields.u64()?).ok()?;
        let (body, rest) = fields.0.split_at_checked(len)?;
        let mut fields = Fields(body);
        let channel = fields.u16()?;
        let (rows, odd) = fields.prefixed()?.as_chunks::<16>();
        if opcode != op::MESSAGE_INDEX || !odd.is_empty() || !fields.0.is_empty() {
            return None;
        }
        row(channel, rows);
        bytes = rest;
    }
    Some(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use bytes::Bytes;

    use super::*;

    fn record(channel: u16, times: &[u64]) -> Vec<u8> {
        let rows: Vec<u8> =
            times.iter().flat_map(|time| [time.to_le_bytes(), [9; 8]].concat()).collect();
        let mut out = vec![op::MESSAGE_INDEX];
        out.extend((rows.len() as u64 + 6).to_le_bytes());
        out.extend(channel.to_le_bytes());
        out.extend((rows.len() as u32).to_le_bytes());
        out.extend(rows);
        out
    }

    #[test]
    fn indexes() {
        let whole = [record(3, &[5, 2, 9]), record(7, &[]), record(1, &[4])].concat();
        let entries = parse(&whole).unwrap();
        let expected = [(3, 3, 2), (7, 0, u64::MAX), (1, 1, 4)];
        let expected =
            expected.map(|(channel, messages, first)| Entry { channel, messages, first });
        assert_eq!(entries, expected);
        for cut in 1..whole.len() {
            let parsed = parse(&whole[..cut]);
            // A cut between records cannot be seen.
            assert!(parsed.is_none_or(|parsed| expected.starts_with(&parsed)), "{cut}");
        }
        let mut other = record(3, &[5]);
        other[0] = op::CHUNK;
        assert_eq!(parse(&other), None);
        let mut longer = record(3, &[5]);
        longer[1] += 1;
        longer.push(0);
        assert_eq!(parse(&longer), None);
    }

    #[test]
    fn claims_are_checked_before_they_are_believed() {
        let index = record(3, &[5, 2, 9]);
        let len = index.len() as u64;
        let input = InputReader::new(Box::new(Bytes::from(index)), Path::new("x"));
        let regions =
            [Some(0..len), None, Some(0..len + 1), Some(0..0), Some(1..len), Some(0..u64::MAX)];
        let known: Vec<_> = read(&input, &regions).unwrap().iter().map(Option::is_some).collect();
        assert_eq!(known, [true, false, false, false, false, false]);
    }
}
