//! Reads the contents of a chunk.

use encoder_media::InputReader;
use mcap::records::op;
use mcap::sans_io::{LinearReadEvent, LinearReader, LinearReaderOptions};

use super::record::{Fields, RECORD_HEADER, Record};
use crate::{Limits, SourceError};

/// Fixed part of a chunk's header before the name of the compression: start and end time,
/// uncompressed size, CRC, length of the name.
const FIXED: u64 = 8 + 8 + 8 + 4 + 4;
/// Names of compressions are short; a longer name is damage.
const MAX_NAME: u64 = 64;

/// The header of a chunk, and the position of its data.
#[derive(Debug)]
pub(super) struct ChunkHeader {
    /// Log times of the first and the last message; 0 in a chunk that was never finished.
    pub start: u64,
    pub end: u64,
    uncompressed: u64,
    crc: u32,
    compression: Vec<u8>,
    compressed: u64,
    /// Offset of the data.
    data: u64,
    /// The part of the file ends inside the chunk.
    pub cut: bool,
}

impl ChunkHeader {
    /// Reads the header of the chunk `record`, in a part of the file that ends at `end`. Returns
    /// `None` if the header is invalid or the part ends inside it.
    pub(super) fn read(
        input: &mut InputReader,
        record: Record,
        end: u64,
    ) -> Result<Option<Self>, SourceError> {
        let cut = record.end() > end;
        let available = record.len.min(end.saturating_sub(record.body));
        if available < FIXED {
            return Ok(None);
        }
        let fixed = input.bytes(record.body, FIXED)?;
        let mut fields = Fields(&fixed);
        let (Some(start), Some(end), Some(uncompressed), Some(crc), Some(name)) =
            (fields.u64(), fields.u64(), fields.u64(), fields.u32(), fields.u32())
        else {
            return Ok(None);
        };
        let name = u64::from(name);
        if name > MAX_NAME || available < FIXED + name + 8 {
            return Ok(None);
        }
        let rest = input.bytes(record.body + FIXED, name + 8)?;
        let Some((compression, compressed)) = rest.split_last_chunk() else { return Ok(None) };
        let compressed = u64::from_le_bytes(*compressed);
        let available = available - FIXED - name - 8;
        if !cut && compressed > available {
            return Ok(None);
        }
        Ok(Some(Self {
            start,
            end,
            uncompressed,
            crc,
            compression: compression.into(),
            compressed: compressed.min(available),
            data: record.body + FIXED + name + 8,
            cut,
        }))
    }

    /// Reads and decompresses the chunk and calls `visit` with offset, opcode and body of each
    /// record inside. The inner `Err` describes the damage; the records before it are valid. If a
    /// complete chunk has a wrong CRC, no record is visited.
    pub(super) fn records(
        &self,
        input: &mut InputReader,
        limits: &Limits,
        mut visit: impl FnMut(u64, u8, &[u8]),
    ) -> Result<Result<(), String>, SourceError> {
        let limit = limits.message_bytes;
        // The recorder writes the sizes when it finishes the chunk.
        let uncompressed = if self.cut { self.uncompressed.min(limit) } else { self.uncompressed };
        let claim = uncompressed.max(self.compressed);
        if claim > limit {
            return Ok(Err(format!(
                "it claims {claim} bytes, and the limit is {limit}; raise `Limits::message_bytes`"
            )));
        }
        if self.compression.is_empty() && !self.cut && self.compressed != self.uncompressed {
            return Ok(Err(format!(
                "it is not compressed, but {} bytes are said to become {}",
                self.compressed, self.uncompressed
            )));
        }
        let mut reader = LinearReader::new_with_options(
            LinearReaderOptions::default()
                .with_skip_start_magic(true)
                .with_skip_end_magic(true)
                .with_prevalidate_chunk_crcs(!self.cut)
                // No record is longer than its chunk; the minimum leaves room for the header.
                .with_record_length_limit(usize::try_from(claim.max(4096)).unwrap_or(usize::MAX)),
        );
        // The reader counts the remaining bytes. So it receives a chunk with the actual sizes, and
        // without the padding that a chunk may have.
        let header_len = FIXED + self.compression.len() as u64 + 8;
        let mut header = vec![op::CHUNK];
        header.extend((header_len + self.compressed).to_le_bytes());
        header.extend(self.start.to_le_bytes());
        header.extend(self.end.to_le_bytes());
        header.extend(uncompressed.to_le_bytes());
        header.extend(self.crc.to_le_bytes());
        header.extend((self.compression.len() as u32).to_le_bytes());
        header.extend(&self.compression);
        header.extend(self.compressed.to_le_bytes());
        insert(&mut reader, header.len(), |buffer| {
            buffer.copy_from_slice(&header);
            Ok(())
        })?;
        if let Ok(len @ 1..) = usize::try_from(self.compressed) {
            insert(&mut reader, len, |buffer| input.read(self.data, buffer))?;
        }
        let mut offset = 0;
        loop {
            match reader.next_event() {
                Some(Ok(LinearReadEvent::Record { data, opcode })) => {
                    visit(offset, opcode, data);
                    offset += RECORD_HEADER + data.len() as u64;
                }
                // All bytes were inserted: this is the end, or the last record is cut.
                Some(Ok(LinearReadEvent::ReadRequest(_))) => reader.notify_read(0),
                Some(Err(mcap::McapError::UnexpectedEof)) => {
                    return Ok(Err("it ends inside a record".into()));
                }
                Some(Err(error)) => return Ok(Err(error.to_string())),
                None => return Ok(Ok(())),
            }
        }
    }
}

fn insert(
    reader: &mut LinearReader,
    len: usize,
    fill: impl FnOnce(&mut [u8]) -> Result<(), SourceError>,
) -> Result<(), SourceError> {
    let buffer = reader.insert(len);
    // The slice may be longer than requested.
    fill(buffer.get_mut(..len).unwrap_or_default())?;
    reader.notify_read(len);
    Ok(())
}
