//! Where the chunks of a bag are: from its index, or from a walk over the file.

use std::collections::HashSet;

use super::record::{BagFile, Fields, op};
use crate::{SourceError, Warning};

/// A chunk in the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ChunkAt {
    /// Where its record starts.
    pub(super) position: u64,
    /// No message in it is older; guessed for a chunk that nothing tells about.
    pub(super) start: i64,
    /// The recorder was killed while it wrote it: its length is zero, its data goes on to the end.
    pub(super) open: bool,
    /// Times and counts are the index's, so that a chunk may be passed over unread.
    pub(super) indexed: Option<Indexed>,
}

/// What the index tells about a chunk.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Indexed {
    /// No message in it is younger.
    pub(super) end: i64,
    /// Connection, and how many of its messages are in the chunk.
    pub(super) counts: Vec<(u32, u32)>,
}

/// A connection: a topic as one publisher wrote it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Connection {
    pub(super) id: u32,
    pub(super) topic: String,
    pub(super) schema: String,
}

impl Connection {
    /// From a connection record. `None` when something in it is missing.
    pub(super) fn parse(fields: Fields<'_>, data: &[u8]) -> Option<Self> {
        let inner = Fields::parse(data)?;
        Some(Self {
            id: fields.u32("conn")?,
            // The record's own topic is the one after remapping.
            topic: fields.text("topic").or_else(|| inner.text("topic"))?,
            schema: inner.text("type")?,
        })
    }
}

/// What a bag consists of.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// In log-time order.
    pub(super) chunks: Vec<ChunkAt>,
    pub(super) connections: Vec<Connection>,
    /// Why the index was of no use, or what is damaged.
    pub(super) warning: Option<Warning>,
}

impl Layout {
    fn sorted(mut self) -> Self {
        self.chunks.sort_by_key(|chunk| (chunk.start, chunk.position));
        self
    }
}

/// The bag header: where the index is, how much is in it, and where the records begin.
struct BagHeader {
    index: u64,
    connections: u32,
    chunks: u32,
    encryptor: Option<String>,
}

/// Finds the chunks: by the index when it is whole, else by a walk over the file.
pub(super) fn read(file: &mut BagFile, magic: u64, limit: u64) -> Result<Layout, SourceError> {
    let header = match file.record(magic)? {
        Some(record) if record.fields().op() == Some(op::BAG_HEADER) => {
            let fields = record.fields();
            Some(BagHeader {
                index: fields.u64("index_pos").unwrap_or(0),
                connections: fields.u32("conn_count").unwrap_or(0),
                chunks: fields.u32("chunk_count").unwrap_or(0),
                encryptor: fields.text("encryptor").filter(|name| !name.is_empty()),
            })
        }
        _ => None,
    };
    if let Some(name) = header.as_ref().and_then(|h| h.encryptor.as_ref()) {
        return Err(SourceError::invalid(
            file.path(),
            format!("the bag is encrypted by {name}"),
            "decrypt it where the key is: rosbag decompress",
        ));
    }
    let reason = match &header {
        None => "its bag header is damaged",
        Some(header) if header.index == 0 => {
            "it has no index (the recorder was stopped before it could write one)"
        }
        Some(header) => match by_index(file, header, limit)? {
            Some(layout) => return Ok(layout),
            None => "its index is missing or damaged",
        },
    };
    walk(file, magic, reason, limit)
}

/// The layout as the index tells it; `None` when the index is not whole.
fn by_index(
    file: &mut BagFile,
    header: &BagHeader,
    limit: u64,
) -> Result<Option<Layout>, SourceError> {
    let mut layout = Layout::default();
    let mut position = header.index;
    while position < file.len() {
        let Some(record) = file.record(position)? else { return Ok(None) };
        if record.end() > file.len() || u64::from(record.len) > limit {
            return Ok(None);
        }
        let data = file.read(record.data, u64::from(record.len))?;
        let fields = record.fields();
        match fields.op() {
            Some(op::CONNECTION) => match Connection::parse(fields, &data) {
                Some(connection) => layout.connections.push(connection),
                None => return Ok(None),
            },
            Some(op::CHUNK_INFO) => match chunk_info(fields, &data) {
                Some(chunk) if chunk.position < header.index => layout.chunks.push(chunk),
                _ => return Ok(None),
            },
            _ => return Ok(None),
        }
        position = record.end();
    }
    let mut seen = HashSet::new();
    let whole = layout.connections.len() == header.connections as usize
        && layout.chunks.len() == header.chunks as usize
        && layout.chunks.iter().all(|chunk| seen.insert(chunk.position));
    Ok(whole.then(|| layout.sorted()))
}

fn chunk_info(fields: Fields<'_>, data: &[u8]) -> Option<ChunkAt> {
    let (pairs, _) = data.as_chunks::<8>();
    let counts = pairs.iter().map(|[a, b, c, d, e, f, g, h]| {
        (u32::from_le_bytes([*a, *b, *c, *d]), u32::from_le_bytes([*e, *f, *g, *h]))
    });
    Some(ChunkAt {
        position: fields.u64("chunk_pos")?,
        start: fields.time("start_time")?,
        open: false,
        indexed: Some(Indexed { end: fields.time("end_time")?, counts: counts.collect() }),
    })
}

/// Walks over all records from `magic` on, and finds its way behind damaged ones.
pub(super) fn walk(
    file: &mut BagFile,
    magic: u64,
    reason: &str,
    limit: u64,
) -> Result<Layout, SourceError> {
    let mut layout = Layout::default();
    let mut damage: Option<String> = None;
    let mut position = magic;
    // Where to look on when the next record is no record: behind the last sound header.
    let mut sound = magic;
    // An index record belongs to the chunk before it.
    let mut times: Option<i64> = None;
    while position < file.len() {
        let record = file.record(position)?;
        let open = match &record {
            Some(r) if r.len == 0 && r.is_chunk() => {
                // An empty chunk is followed by what follows chunks.
                let next = file.record(r.end())?;
                !matches!(next.and_then(|n| n.fields().op()), Some(op::INDEX | op::CHUNK))
            }
            _ => false,
        };
        let cut = match &record {
            None => Some(format!("the record at offset {position} is damaged or cut")),
            Some(r) if r.end() > file.len() => {
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
                Some(op::CHUNK) => {
                    let start = layout.chunks.last().map_or(i64::MIN, |chunk| chunk.start);
                    layout.chunks.push(ChunkAt { position, start, open, indexed: None });
                    times = None;
                }
                Some(op::INDEX) if cut.is_none() && u64::from(record.len) <= limit => {
                    let data = file.read(record.data, u64::from(record.len))?;
                    let (entries, _) = data.as_chunks::<12>();
                    times =
                        entries.iter().filter_map(|e| super::record::time(e)).chain(times).min();
                    if let (Some(chunk), Some(start)) = (layout.chunks.last_mut(), times) {
                        chunk.start = start;
                    }
                }
                Some(op::CONNECTION) if cut.is_none() && u64::from(record.len) <= limit => {
                    let data = file.read(record.data, u64::from(record.len))?;
                    layout.connections.extend(Connection::parse(record.fields(), &data));
                }
                _ => {}
            }
            sound = record.data;
        }
        match (cut, record) {
            (None, Some(record)) => position = record.end(),
            (cut, _) => {
                damage = damage.or(cut);
                match file.find_chunk(sound.max(magic + 1))? {
                    Some(next) => position = next,
                    None => break,
                }
            }
        }
    }
    let text = match &damage {
        None => format!("the bag was read from its start to its end, because {reason}"),
        Some(damage) => {
            format!("{damage}; all that is whole is read, what is not is missing ({reason})")
        }
    };
    layout.warning = Some(Warning { text, loss: damage.is_some() });
    Ok(layout.sorted())
}
