//! Finds the chunks of a bag: by its index, or by a walk over the file.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use encoder_media::InputReader;

use super::record::{self, Fields, Record, op};
use crate::{SourceError, Warning};

/// A chunk in the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ChunkAt {
    /// Where its record starts.
    pub(super) position: u64,
    /// No message in it is older. If nothing is known, the time of the previous chunk.
    pub(super) start: i64,
    /// The recorder was killed while it wrote the chunk: its length is zero, its data reaches to
    /// the end of the file.
    pub(super) open: bool,
    /// Its index records have no more information.
    pub(super) is_refined: bool,
    /// Times and counts are from the index, so the chunk may be skipped unread.
    pub(super) indexed: Option<Indexed>,
}

/// The index entry of a chunk.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Indexed {
    /// No message in it is younger.
    pub(super) end: i64,
    /// Selected or unknown connections, and the number of their messages in the chunk.
    pub(super) counts: Arc<[(u32, u32)]>,
}

/// The number of a connection. A file may have several parts: bags that were written one behind the
/// other, each with connections of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id {
    /// Number of the part, from 0.
    pub(super) part: usize,
    /// Its number in that part.
    pub(super) number: u32,
}

/// A connection: a topic as one publisher wrote it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Connection {
    pub(super) id: Id,
    pub(super) topic: String,
    pub(super) schema: String,
    /// The definition of the type; empty when it is not needed.
    pub(super) definition: Bytes,
    /// The other fields: `md5sum`, `callerid`, `latching`; empty when they are not needed.
    pub(super) metadata: BTreeMap<String, String>,
}

impl Connection {
    /// Parses a connection record of a part, `whole` with all its fields. Returns `None` if a field
    /// is missing.
    pub(super) fn parse(part: usize, fields: Fields<'_>, data: &[u8], whole: bool) -> Option<Self> {
        let inner = Fields::parse(data)?;
        let (mut definition, mut metadata) = (Bytes::new(), BTreeMap::new());
        for (name, value) in inner.iter().filter(|_| whole) {
            match name {
                b"topic" | b"type" => {}
                b"message_definition" => definition = Bytes::copy_from_slice(value),
                _ => {
                    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                    metadata.insert(text(name), text(value));
                }
            }
        }
        Some(Self {
            id: Id { part, number: fields.u32("conn")? },
            // The record's own topic is the one after remapping.
            topic: fields.text("topic").or_else(|| inner.text("topic"))?,
            schema: inner.text("type")?,
            definition,
            metadata,
        })
    }
}

/// Selects the parts of a bag to read.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// Largest record, in bytes.
    pub(super) limit: u64,
    /// Everything, not only camera messages.
    pub(super) all: bool,
    /// Whether a connection has selected camera messages.
    pub(super) is_camera: &'a dyn Fn(&Connection) -> bool,
}

/// The contents of a bag.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// Chunks that may have selected messages, in log-time order.
    pub(super) chunks: Vec<ChunkAt>,
    /// Number of chunks.
    pub(super) listed: usize,
    /// Offsets at which the parts start. A complete bag has one.
    pub(super) parts: Vec<u64>,
    /// Log time of the first message.
    pub(super) first: Option<i64>,
    pub(super) connections: Vec<Connection>,
    /// Messages by connection.
    pub(super) counts: HashMap<Id, u64>,
    /// Why the index could not be used, or a description of the damage.
    pub(super) warning: Option<Warning>,
}

impl Layout {
    /// Log times of the first message and of the last selected message, by the index.
    pub(super) fn span(&self) -> Option<(i64, i64)> {
        let ends = self.chunks.iter().map(|chunk| Some(chunk.indexed.as_ref()?.end));
        let last = ends.collect::<Option<Vec<_>>>()?.into_iter().max()?;
        Some((self.first?, last))
    }

    fn sorted(mut self) -> Self {
        self.chunks.sort_by_key(|chunk| (chunk.start, chunk.position));
        self
    }
}

/// The bag header: the position of the index, and its size.
#[derive(Default)]
struct BagHeader {
    index: u64,
    connections: u32,
    chunks: u32,
    encryptor: Option<String>,
}

impl BagHeader {
    fn parse(fields: Fields<'_>) -> Self {
        Self {
            index: fields.u64("index_pos").unwrap_or(0),
            connections: fields.u32("conn_count").unwrap_or(0),
            chunks: fields.u32("chunk_count").unwrap_or(0),
            encryptor: fields.text("encryptor").filter(|name| !name.is_empty()),
        }
    }
}

/// Finds the chunks: by the index if it is complete, otherwise by a walk over the file.
pub(super) fn read(
    input: &mut InputReader,
    magic: u64,
    wanted: Wanted<'_>,
) -> Result<Layout, SourceError> {
    let header = match Record::at(input, magic)? {
        Some(record) if record.fields().op() == Some(op::BAG_HEADER) => {
            Some(BagHeader::parse(record.fields()))
        }
        _ => None,
    };
    if let Some(name) = header.as_ref().and_then(|h| h.encryptor.as_ref()) {
        return Err(SourceError::invalid(
            input.location().clone(),
            format!("the bag is encrypted by {name}"),
            "decrypt it where the key is: rosbag decompress",
        ));
    }
    let reason = match &header {
        None => "its bag header is damaged",
        Some(header) if header.index == 0 => {
            "it has no index (the recorder was stopped before it could write one)"
        }
        Some(header) => match by_index(input, header, wanted)? {
            Some(layout) => return Ok(layout),
            None => "its index is missing or damaged",
        },
    };
    walk(input, magic, reason, wanted)
}

/// The layout by the index; `None` if the index is incomplete.
fn by_index(
    input: &mut InputReader,
    header: &BagHeader,
    wanted: Wanted<'_>,
) -> Result<Option<Layout>, SourceError> {
    let mut layout = Layout { parts: vec![0], ..Layout::default() };
    // Whether connections are cameras.
    let mut cameras: HashMap<u32, bool> = HashMap::new();
    let mut seen = HashSet::new();
    let mut definitions = 0;
    let mut position = header.index;
    while position < input.len() {
        let Some(record) = Record::at(input, position)? else { return Ok(None) };
        if record.end() > input.len() || u64::from(record.len) > wanted.limit {
            return Ok(None);
        }
        let data = input.bytes(record.data, record.len.into())?;
        let fields = record.fields();
        match fields.op() {
            Some(op::CONNECTION) => match Connection::parse(0, fields, &data, wanted.all) {
                Some(connection) => {
                    definitions += connection.definition.len() as u64;
                    if definitions > wanted.limit {
                        return Ok(None);
                    }
                    cameras.insert(connection.id.number, (wanted.is_camera)(&connection));
                    layout.connections.push(connection);
                }
                None => return Ok(None),
            },
            Some(op::CHUNK_INFO) => {
                let (Some(chunk), Some(start), Some(end)) =
                    (fields.u64("chunk_pos"), fields.time("start_time"), fields.time("end_time"))
                else {
                    return Ok(None);
                };
                if chunk >= header.index || !seen.insert(chunk) {
                    return Ok(None);
                }
                layout.listed += 1;
                layout.first = Some(layout.first.map_or(start, |first| first.min(start)));
                let (pairs, _) = data.as_chunks::<8>();
                let counts = pairs.iter().map(|[a, b, c, d, e, f, g, h]| {
                    (u32::from_le_bytes([*a, *b, *c, *d]), u32::from_le_bytes([*e, *f, *g, *h]))
                });
                let mut kept = Vec::new();
                for (connection, count) in counts {
                    let id = Id { part: 0, number: connection };
                    *layout.counts.entry(id).or_default() += u64::from(count);
                    let is_wanted = wanted.all || cameras.get(&connection) != Some(&false);
                    if is_wanted && count > 0 {
                        kept.push((connection, count));
                    }
                }
                // A chunk without camera messages need not be read, so it is not even listed: in a
                // long recording, the list takes memory.
                if !kept.is_empty() || pairs.is_empty() {
                    layout.chunks.push(ChunkAt {
                        position: chunk,
                        start,
                        open: false,
                        is_refined: wanted.all,
                        indexed: Some(Indexed { end, counts: kept.into() }),
                    });
                }
            }
            _ => return Ok(None),
        }
        position = record.end();
    }
    let whole = layout.connections.len() == header.connections as usize
        && layout.listed == header.chunks as usize;
    Ok(whole.then(|| layout.sorted()))
}

/// Offset, connection and log time of messages of a chunk, in its order.
pub(super) type Messages = Vec<(u64, u32, i64)>;

/// The messages of a chunk by its index records; `None` if these cannot be used.
pub(super) fn messages(
    input: &mut InputReader,
    chunk: &ChunkAt,
) -> Result<Option<Messages>, SourceError> {
    let Some(record) = Record::at(input, chunk.position)? else { return Ok(None) };
    let mut position = record.end();
    let mut messages = Messages::new();
    while let Some(record) = Record::at(input, position)?
        && record.fields().op() == Some(op::INDEX)
    {
        position = record.end();
        let Some(connection) = record.fields().u32("conn") else { return Ok(None) };
        let is_whole = record.each_entry(input, |offset, time| {
            messages.push((offset.into(), connection, time));
        })?;
        if !is_whole {
            return Ok(None);
        }
    }
    messages.sort_unstable();
    Ok((!messages.is_empty()).then_some(messages))
}

/// The log time of the first selected message, by the index records behind a chunk; `None` if they
/// cannot be used.
pub(super) fn first_wanted(
    input: &mut InputReader,
    chunk: &ChunkAt,
    is_wanted: impl Fn(u32) -> Option<bool>,
) -> Result<Option<i64>, SourceError> {
    let Some(record) = Record::at(input, chunk.position)? else { return Ok(None) };
    let mut position = record.end();
    let (mut first, mut found) = (None, HashSet::new());
    while let Some(record) = Record::at(input, position)?
        && record.fields().op() == Some(op::INDEX)
    {
        position = record.end();
        let connection = record.fields().u32("conn");
        match connection.and_then(|connection| Some((connection, is_wanted(connection)?))) {
            None => return Ok(None),
            Some((_, false)) => {}
            Some((connection, true)) => {
                let Some(earliest) = record.earliest(input)? else { return Ok(None) };
                first = Some(first.unwrap_or(i64::MAX).min(earliest));
                found.insert(connection);
            }
        }
    }
    // A connection whose index record is missing may have an earlier message.
    let counts = chunk.indexed.iter().flat_map(|indexed| indexed.counts.iter());
    let mut wanted = counts.filter(|(id, _)| is_wanted(*id) != Some(false));
    Ok(first.filter(|_| wanted.all(|(id, _)| found.contains(id))))
}

/// What a part of the file states about its chunks.
#[derive(Default)]
struct Promise {
    header: Option<BagHeader>,
    /// Chunks in the index.
    infos: usize,
    /// Chunks that were found.
    found: usize,
}

impl Promise {
    /// Describes what is missing.
    fn missing(&self) -> Option<String> {
        let header = self.header.as_ref();
        let promised = self.infos.max(header.map_or(0, |header| header.chunks as usize));
        match promised.checked_sub(self.found) {
            Some(missing @ 1..) => Some(format!("{missing} of {promised} chunks are missing")),
            // The recorder writes these numbers at the end.
            _ if promised == 0 && header.is_none_or(|header| header.index == 0) => {
                Some("what the recorder had not yet written is lost".into())
            }
            _ => None,
        }
    }
}

/// Walks over all records from `magic` on; behind a damaged one it searches for the next chunk.
pub(super) fn walk(
    input: &mut InputReader,
    magic: u64,
    reason: &str,
    wanted: Wanted<'_>,
) -> Result<Layout, SourceError> {
    let mut layout = Layout { parts: vec![0], ..Layout::default() };
    let mut damage: Option<String> = None;
    let mut promise = Promise::default();
    let mut missing: Option<String> = None;
    let mut position = magic;
    let mut definitions = 0;
    // Where to continue the search if there is no record: after the last header of a whole record.
    let mut sound = magic;
    // From the index records of the last chunk so far.
    let mut times: Option<i64> = None;
    while position < input.len() {
        if record::is_magic(input, position)? {
            missing = missing.or(std::mem::take(&mut promise).missing());
            layout.parts.push(position);
            position += record::MAGIC.len() as u64;
            (sound, times) = (position, None);
            continue;
        }
        let part = layout.parts.len() - 1;
        let record = Record::at(input, position)?;
        let open = match &record {
            Some(r) if r.len == 0 && r.is_chunk() => {
                // An empty chunk is followed directly by the next record.
                let next = Record::at(input, r.end())?;
                !matches!(next.and_then(|n| n.fields().op()), Some(op::INDEX | op::CHUNK))
            }
            _ => false,
        };
        let cut = match &record {
            None => Some(format!("the record at offset {position} is damaged or cut")),
            Some(r) if r.end() > input.len() => {
                Some(format!("the file ends within the record at offset {position}"))
            }
            Some(r) if !matches!(r.fields().op(), Some(op::BAG_HEADER..=op::CONNECTION)) => {
                Some(format!("the record at offset {position} is of no known kind"))
            }
            Some(_) if open => Some(format!("the chunk at offset {position} was never closed")),
            Some(_) => None,
        };
        if let Some(record) = &record {
            let fields = record.fields();
            match fields.op() {
                Some(op::BAG_HEADER) if cut.is_none() => {
                    // The magic of another bag may be the end of a record that was cut.
                    let start = position.saturating_sub(record::MAGIC.len() as u64);
                    if promise.header.is_some() && record::is_magic(input, start)? {
                        let text = format!("the bag before offset {start} ends within a record");
                        damage.get_or_insert(text);
                        missing = missing.or(std::mem::take(&mut promise).missing());
                        layout.parts.push(start);
                    }
                    promise.header = Some(BagHeader::parse(fields));
                }
                Some(op::CHUNK_INFO) if cut.is_none() => promise.infos += 1,
                Some(op::CHUNK) => {
                    let before = layout.chunks.last().filter(|_| promise.found > 0);
                    let start = before.map_or(i64::MIN, |chunk| chunk.start);
                    promise.found += 1;
                    layout.listed += 1;
                    layout.chunks.push(ChunkAt {
                        position,
                        start,
                        open,
                        is_refined: wanted.all,
                        indexed: None,
                    });
                    times = None;
                }
                Some(op::INDEX) if cut.is_none() => {
                    times = record.earliest(input)?.into_iter().chain(times).min();
                    if let (Some(chunk), Some(start)) = (layout.chunks.last_mut(), times) {
                        chunk.start = start;
                    }
                }
                Some(op::CONNECTION) if cut.is_none() && u64::from(record.len) <= wanted.limit => {
                    let data = input.bytes(record.data, record.len.into())?;
                    let connection = Connection::parse(part, record.fields(), &data, wanted.all);
                    definitions += connection.as_ref().map_or(0, |c| c.definition.len() as u64);
                    if definitions <= wanted.limit {
                        layout.connections.extend(connection);
                    }
                }
                _ => {}
            }
            if cut.is_none() {
                sound = record.data;
            }
        }
        match (cut, record) {
            (None, Some(record)) => position = record.end(),
            (cut, _) => {
                damage = damage.or(cut);
                // The last record may be cut, so that another bag begins inside its claimed data.
                let mut next = record::find_next(input, sound.max(magic + 1))?;
                if next == Some(position) {
                    next = record::find_next(input, position + 1)?;
                }
                match next {
                    Some(next) => (position, sound) = (next, next),
                    None => break,
                }
            }
        }
    }
    let missing = missing.or(promise.missing());
    let mut text = match (&damage, layout.parts.len()) {
        (Some(damage), _) => {
            format!("{damage}; all that is whole is read, what is not is missing ({reason})")
        }
        (None, 1) => format!("the bag was read from its start to its end, because {reason}"),
        (None, parts) => {
            format!("the file consists of {parts} bags, one behind the other: all are read")
        }
    };
    if let (Some(missing), None) = (&missing, &damage) {
        text.push_str(&format!("; {missing}"));
    }
    layout.warning = Some(Warning { text, loss: damage.is_some() || missing.is_some() });
    Ok(layout.sorted())
}
