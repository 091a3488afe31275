//! Records of a file by offset.

use std::fs;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::SourceError;

/// Opcode (1 byte) and length (8 bytes) before each record.
pub(super) const RECORD_HEADER: u64 = 9;

/// A file that is read by offset.
pub(super) struct File {
    path: PathBuf,
    reader: BufReader<fs::File>,
    /// Where `reader` stands.
    at: u64,
    len: u64,
}

/// A record's place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub opcode: u8,
    /// Where its body begins.
    pub body: u64,
    /// Length of the body, as the file claims it.
    pub len: u64,
}

impl Record {
    /// Where the next record begins.
    pub(super) fn end(&self) -> u64 {
        self.body.saturating_add(self.len)
    }
}

impl File {
    pub(super) fn open(path: &Path) -> Result<Self, SourceError> {
        let file = fs::File::open(path).map_err(|error| SourceError::io(path, error))?;
        let meta = file.metadata().map_err(|error| SourceError::io(path, error))?;
        Ok(Self { path: path.into(), reader: BufReader::new(file), at: 0, len: meta.len() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Length of the file when it was opened.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Fills `buffer` from offset `at`.
    pub(super) fn read(&mut self, at: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        // A relative seek keeps what is buffered where it can.
        let moved = match i64::try_from(i128::from(at) - i128::from(self.at)) {
            Ok(offset) => self.reader.seek_relative(offset),
            Err(_) => self.reader.seek(SeekFrom::Start(at)).map(drop),
        };
        let done = moved.and_then(|()| self.reader.read_exact(buffer));
        self.at = at.saturating_add(buffer.len() as u64);
        done.map_err(|error| SourceError::io(&self.path, error))
    }

    /// `len` bytes from offset `at`. The caller has checked `len` against the file's length.
    pub(super) fn bytes(&mut self, at: u64, len: u64) -> Result<Vec<u8>, SourceError> {
        let mut buffer = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        self.read(at, &mut buffer)?;
        Ok(buffer)
    }

    /// The record at offset `at`, whose body may reach past the end of the file; `None` when the
    /// file ends before its header does.
    pub(super) fn record(&mut self, at: u64) -> Result<Option<Record>, SourceError> {
        let Some(body) = at.checked_add(RECORD_HEADER).filter(|body| *body <= self.len) else {
            return Ok(None);
        };
        let mut header = [0; RECORD_HEADER as usize];
        self.read(at, &mut header)?;
        let [opcode, len @ ..] = header;
        Ok(Some(Record { opcode, body, len: u64::from_le_bytes(len) }))
    }
}
