//! The grammar of a bag: records, their header fields, and chunk compression.
//!
//! A record is a header and data, each behind its length (`u32`, little-endian). A header is a
//! row of fields, each behind its length: `name=value`.

use std::io::{ErrorKind, Read};

use encoder_media::InputReader;

use crate::SourceError;

/// The first bytes of a bag.
pub(super) const MAGIC: &[u8] = b"#ROSBAG V2.0\n";

/// The longest header; that of a real record is much shorter, and a longer header is damage.
const MAX_HEADER: u32 = 1 << 20;

/// The kind of a record: the value of its field `op`.
pub(super) mod op {
    pub(crate) const MESSAGE: u8 = 2;
    pub(crate) const BAG_HEADER: u8 = 3;
    pub(crate) const INDEX: u8 = 4;
    pub(crate) const CHUNK: u8 = 5;
    pub(crate) const CHUNK_INFO: u8 = 6;
    pub(crate) const CONNECTION: u8 = 7;
}

/// A row of fields whose lengths have been checked.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// `None` when the lengths do not add up.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (field, next) = sized(rest)?;
            field.contains(&b'=').then_some(())?;
            rest = next;
        }
        Some(Self(bytes))
    }

    /// The value of a field.
    pub(super) fn get(self, name: &str) -> Option<&'a [u8]> {
        let mut rest = self.0;
        while let Some((field, next)) = sized(rest) {
            if let Some(value) =
                field.strip_prefix(name.as_bytes()).and_then(|v| v.strip_prefix(b"="))
            {
                return Some(value);
            }
            rest = next;
        }
        None
    }

    /// Names and values of all fields.
    pub(super) fn iter(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (field, next) = sized(rest)?;
            rest = next;
            let (name, value) = field.split_at(field.iter().position(|byte| *byte == b'=')?);
            Some((name, value.get(1..)?))
        })
    }

    /// The kind of record.
    pub(super) fn op(self) -> Option<u8> {
        self.get("op")?.first().copied()
    }

    pub(super) fn u32(self, name: &str) -> Option<u32> {
        Some(u32::from_le_bytes(self.get(name)?.try_into().ok()?))
    }

    pub(super) fn u64(self, name: &str) -> Option<u64> {
        Some(u64::from_le_bytes(self.get(name)?.try_into().ok()?))
    }

    /// A time in nanoseconds since the epoch.
    pub(super) fn time(self, name: &str) -> Option<i64> {
        time(self.get(name)?)
    }

    /// Text; invalid UTF-8 is replaced.
    pub(super) fn text(self, name: &str) -> Option<String> {
        Some(String::from_utf8_lossy(self.get(name)?).into_owned())
    }
}

/// A time as bags write it: seconds, then nanoseconds, each `u32`.
pub(super) fn time(bytes: &[u8]) -> Option<i64> {
    let (seconds, nanoseconds) = (bytes.get(..4)?, bytes.get(4..8)?);
    let number = |b: &[u8]| Some(i64::from(u32::from_le_bytes(b.try_into().ok()?)));
    Some(number(seconds)? * 1_000_000_000 + number(nanoseconds)?)
}

/// Splits off the bytes that follow their own length.
fn sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

/// Splits the next record off a decompressed chunk: header, data, rest. `None` if it is cut or
/// damaged.
pub(super) fn split(bytes: &[u8]) -> Option<(Fields<'_>, &[u8], &[u8])> {
    let (header, rest) = sized(bytes)?;
    let (data, rest) = sized(rest)?;
    Some((Fields::parse(header)?, data, rest))
}

/// A record in the file, without its data.
pub(super) struct Record {
    header: Vec<u8>,
    /// Offset of its data.
    pub(super) data: u64,
    /// Length of its data, as claimed by the file.
    pub(super) len: u32,
}

impl Record {
    /// The record at `position`, without its data, which may be cut. Returns `None` if there is no
    /// complete header.
    pub(super) fn at(input: &mut InputReader, position: u64) -> Result<Option<Self>, SourceError> {
        let Some(len) = number(input, position)?.filter(|len| *len <= MAX_HEADER) else {
            return Ok(None);
        };
        let header = up_to(input, position + 4, len.into())?;
        let data = position + 4 + u64::from(len);
        if header.len() < len as usize || Fields::parse(&header).and_then(Fields::op).is_none() {
            return Ok(None);
        }
        let Some(len) = number(input, data)? else { return Ok(None) };
        Ok(Some(Self { header, data: data + 4, len }))
    }

    pub(super) fn fields(&self) -> Fields<'_> {
        Fields(&self.header)
    }

    /// Whether it is a chunk, with all fields that a chunk's header must have.
    pub(super) fn is_chunk(&self) -> bool {
        let fields = self.fields();
        fields.op() == Some(op::CHUNK)
            && fields.get("compression").is_some()
            && fields.u32("size").is_some()
    }

    /// Offset of the next record; may lie behind the end of the file.
    pub(super) fn end(&self) -> u64 {
        self.data + u64::from(self.len)
    }

    /// The earliest time in an index record; `None` when it has no entry or is cut.
    pub(super) fn earliest(&self, input: &mut InputReader) -> Result<Option<i64>, SourceError> {
        let mut earliest = None;
        let is_whole = self.each_entry(input, |_, time| {
            earliest = Some(earliest.map_or(time, |earliest: i64| earliest.min(time)));
        })?;
        Ok(earliest.filter(|_| is_whole))
    }

    /// Calls `entry` with the entries of an index record: an offset in the decompressed chunk, and
    /// a time. Returns whether the record is whole.
    pub(super) fn each_entry(
        &self,
        input: &mut InputReader,
        mut entry: impl FnMut(u32, i64),
    ) -> Result<bool, SourceError> {
        /// A time, and an offset.
        const ENTRY: usize = 12;
        const ENTRIES: usize = 1 << 12;
        let mut rest = u64::from(self.len);
        if self.end() > input.len() || rest % ENTRY as u64 != 0 {
            return Ok(false);
        }
        while rest > 0 {
            let bytes = up_to(input, self.end() - rest, rest.min((ENTRIES * ENTRY) as u64))?;
            let (entries, _) = bytes.as_chunks::<ENTRY>();
            for row in entries {
                let offset = row.last_chunk().copied().map_or(0, u32::from_le_bytes);
                if let Some(time) = time(row) {
                    entry(offset, time);
                }
            }
            rest -= bytes.len() as u64;
        }
        Ok(true)
    }
}

/// Whether a bag starts at `position`.
pub(super) fn is_magic(input: &mut InputReader, position: u64) -> Result<bool, SourceError> {
    Ok(up_to(input, position, MAGIC.len() as u64)? == MAGIC)
}

/// Up to `len` bytes from `position`; fewer at the end of the file.
pub(super) fn up_to(
    input: &mut InputReader,
    position: u64,
    len: u64,
) -> Result<Vec<u8>, SourceError> {
    match len.min(input.len().saturating_sub(position)) {
        0 => Ok(Vec::new()),
        len => input.bytes(position, len),
    }
}

fn number(input: &mut InputReader, position: u64) -> Result<Option<u32>, SourceError> {
    let mut bytes = [0; 4];
    if position.checked_add(4).is_none_or(|end| end > input.len()) {
        return Ok(None);
    }
    input.read(position, &mut bytes)?;
    Ok(Some(u32::from_le_bytes(bytes)))
}

/// Finds the next chunk record at or after `from`, by the bytes of a chunk's header, or the start of
/// another bag. Used to continue behind damage.
pub(super) fn find_next(input: &mut InputReader, from: u64) -> Result<Option<u64>, SourceError> {
    const STEP: usize = 1 << 16;
    // Length of the header, length of its first field, start of that field.
    const LOOKS: usize = 4 + 4 + 12;
    let mut at = from;
    while at < input.len() {
        let bytes = up_to(input, at, (STEP + LOOKS) as u64)?;
        for (position, looks) in (at..).zip(bytes.windows(LOOKS).take(STEP)) {
            if looks.starts_with(MAGIC) {
                return Ok(Some(position));
            }
            // Three short fields, in any order.
            let [30..=128, 0, 0, 0, _, 0, 0, 0, first @ ..] = looks else { continue };
            let field = [&b"compression="[..], b"op=\x05", b"size="];
            if field.iter().any(|field| first.starts_with(field))
                && let Some(record) = Record::at(input, position)?
                && record.is_chunk()
            {
                return Ok(Some(position));
            }
        }
        at += STEP as u64;
    }
    Ok(None)
}

/// Decompresses a chunk, up to its claimed size. Returns the decompressed bytes, and an error if
/// these are not complete.
pub(super) fn decompress(
    compression: &[u8],
    data: Vec<u8>,
    size: u32,
) -> (Vec<u8>, Option<String>) {
    let mut out = Vec::new();
    let result = match compression {
        b"none" => {
            out = data;
            Ok(0)
        }
        b"bz2" => {
            bzip2::read::BzDecoder::new(data.as_slice()).take(u64::from(size)).read_to_end(&mut out)
        }
        b"lz4" => lz4::Decoder::new(data.as_slice())
            .and_then(|decoder| decoder.take(u64::from(size)).read_to_end(&mut out)),
        other => Err(std::io::Error::new(
            ErrorKind::Unsupported,
            format!(
                "compression `{}` is unknown; bags have none, bz2 or lz4",
                String::from_utf8_lossy(other)
            ),
        )),
    };
    let damage = match result {
        Err(error) => Some(error.to_string()),
        Ok(_) if out.len() < size as usize => {
            Some(format!("{} bytes came out of it where {size} are promised", out.len()))
        }
        Ok(_) => None,
    };
    (out, damage)
}
