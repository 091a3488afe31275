//! Input that is read by offset, wherever it is stored.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::{Location, SourceError};

/// Input that is read by offset: a file, an object in a store, memory.
///
/// Its bytes do not change while it is open. Reads have no shared position, so that an
/// implementation may be shared between threads and may read several ranges at once.
pub trait ReadAt: Send + Sync {
    /// Length in bytes, the same on each call.
    fn len(&self) -> u64;

    /// Whether there are no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buffer` with the bytes from `offset` on.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the input ends before the buffer is full, and any
    /// error of the system. The buffer's content is then unspecified.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Reads several ranges; returns their bytes in the same order. An implementation with a high
    /// latency per read should override it and read the ranges in parallel. By default they are
    /// read one after another.
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at), for the first range that fails.
    fn read_ranges(&self, ranges: &[Range<u64>]) -> io::Result<Vec<Bytes>> {
        let read = |range: &Range<u64>| {
            let len = range.end.saturating_sub(range.start);
            let mut buffer = vec![0; usize::try_from(len).map_err(|_| ends_early())?];
            self.read_at(range.start, &mut buffer)?;
            Ok(buffer.into())
        };
        ranges.iter().map(read).collect()
    }
}

impl<T: ReadAt + ?Sized> ReadAt for Arc<T> {
    fn len(&self) -> u64 {
        (**self).len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        (**self).read_at(offset, buffer)
    }

    fn read_ranges(&self, ranges: &[Range<u64>]) -> io::Result<Vec<Bytes>> {
        (**self).read_ranges(ranges)
    }
}

impl ReadAt for Bytes {
    fn len(&self) -> u64 {
        self.as_ref().len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| ends_early())?;
        let rest = self.get(start..).and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(rest.ok_or_else(ends_early)?);
        Ok(())
    }
}

fn ends_early() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

/// A file as input. Its length is the length when it was opened.
#[derive(Debug)]
pub struct FileInput {
    file: File,
    len: u64,
}

impl FileInput {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// The error of the operating system.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Ok(Self { file, len })
    }
}

impl ReadAt for FileInput {
    fn len(&self) -> u64 {
        self.len
    }

    #[cfg(unix)]
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, buffer, offset)
    }

    #[cfg(windows)]
    fn read_at(&self, mut offset: u64, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            match std::os::windows::fs::FileExt::seek_read(&self.file, buffer, offset) {
                Ok(0) => return Err(ends_early()),
                Ok(read) => {
                    buffer = buffer.get_mut(read..).unwrap_or_default();
                    offset = offset.saturating_add(read as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Reads input by offset through a buffer; its errors name the input.
///
/// The buffer is for the small reads of a walk over records. A read that is as large as the buffer
/// bypasses it.
pub struct InputReader {
    input: Box<dyn ReadAt>,
    location: Location,
    len: u64,
    buffer: Vec<u8>,
    /// Offset of the buffer's first byte.
    buffer_at: u64,
}

impl InputReader {
    /// Size of the buffer.
    const BUFFER: usize = 32 << 10;

    /// A reader of `input`. Errors print `location`, so it must not contain credentials.
    pub fn new(input: Box<dyn ReadAt>, location: impl Into<Location>) -> Self {
        let len = input.len();
        Self { input, location: location.into(), len, buffer: Vec::new(), buffer_at: 0 }
    }

    /// A reader of the file at `path`.
    ///
    /// # Errors
    /// [`SourceError::Io`] when it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let input = FileInput::open(path).map_err(|error| SourceError::io(path, error))?;
        Ok(Self::new(Box::new(input), path))
    }

    /// Length of the input in bytes when the reader was created.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the input is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The location of the input.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Fills `out` with the bytes from `offset` on.
    ///
    /// # Errors
    /// [`SourceError::Io`] when the input ends before, has become shorter, or cannot be read.
    pub fn read(&mut self, offset: u64, out: &mut [u8]) -> Result<(), SourceError> {
        self.check(offset, out.len() as u64)?;
        if self.copy_buffered(offset, out) {
            return Ok(());
        }
        if out.len() >= Self::BUFFER {
            return self.input.read_at(offset, out).map_err(|error| self.error(error));
        }
        let rest = usize::try_from(self.len - offset).unwrap_or(usize::MAX);
        self.buffer.resize(rest.min(Self::BUFFER), 0);
        self.buffer_at = offset;
        if let Err(error) = self.input.read_at(offset, &mut self.buffer) {
            self.buffer.clear();
            return Err(self.error(error));
        }
        self.copy_buffered(offset, out);
        Ok(())
    }

    /// The `len` bytes from `offset` on. Nothing is allocated for a range that reaches past the end.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn bytes(&mut self, offset: u64, len: u64) -> Result<Vec<u8>, SourceError> {
        self.check(offset, len)?;
        let len = usize::try_from(len).map_err(|_| self.error(ends_early()))?;
        let mut out = vec![0; len];
        self.read(offset, &mut out)?;
        Ok(out)
    }

    /// The bytes of several ranges, in the same order, bypassing the buffer.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn ranges(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, SourceError> {
        for range in ranges {
            self.check(range.start, range.end.saturating_sub(range.start))?;
        }
        self.input.read_ranges(ranges).map_err(|error| self.error(error))
    }

    fn check(&self, offset: u64, len: u64) -> Result<(), SourceError> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(self.error(ends_early())),
        }
    }

    fn copy_buffered(&self, offset: u64, out: &mut [u8]) -> bool {
        let start = offset.checked_sub(self.buffer_at).and_then(|at| usize::try_from(at).ok());
        let buffered = start
            .and_then(|start| self.buffer.get(start..))
            .and_then(|bytes| bytes.get(..out.len()));
        match buffered {
            Some(bytes) => {
                out.copy_from_slice(bytes);
                true
            }
            None => false,
        }
    }

    fn error(&self, error: io::Error) -> SourceError {
        let error = match error.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::new(
                error.kind(),
                format!("it ends before the {} bytes that it had when it was opened", self.len),
            ),
            _ => error,
        };
        SourceError::io(self.location.clone(), error)
    }
}

impl fmt::Debug for InputReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InputReader")
            .field("location", &self.location)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Memory that lists the reads.
    struct Listed(Bytes, Mutex<Vec<(u64, usize)>>);

    impl ReadAt for Listed {
        fn len(&self) -> u64 {
            ReadAt::len(&self.0)
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
            self.1.lock().unwrap().push((offset, buffer.len()));
            self.0.read_at(offset, buffer)
        }
    }

    fn sample(len: usize) -> Bytes {
        (0..len).map(|i| (i / 7) as u8 ^ i as u8).collect()
    }

    #[test]
    fn every_range_is_read_right() {
        let bytes = sample(3 * InputReader::BUFFER + 5);
        let mut reader = InputReader::new(Box::new(bytes.clone()), Path::new("x"));
        let len = bytes.len() as u64;
        assert_eq!((reader.len(), reader.is_empty()), (len, false));
        let buffer = InputReader::BUFFER as u64;
        let steps = [0, 1, 9, buffer - 1, buffer, buffer + 1, len];
        for at in steps.iter().flat_map(|step| [*step, len - step]) {
            for size in steps.into_iter().filter(|size| at + size <= len) {
                let expected = bytes.slice(at as usize..(at + size) as usize);
                assert_eq!(reader.bytes(at, size).unwrap(), expected, "{at} {size}");
                let ranges = [at..at + size, 0..1];
                let [first, second] = reader.ranges(&ranges).unwrap().try_into().unwrap();
                assert_eq!((first, second), (expected, bytes.slice(..1)), "{at} {size}");
            }
        }
    }

    #[test]
    fn small_reads_share_a_read_of_the_input() {
        let input = Arc::new(Listed(sample(100_000), Mutex::default()));
        let mut reader = InputReader::new(Box::new(Arc::clone(&input)), Path::new("x"));
        for at in (0..9000).step_by(9) {
            reader.bytes(at, 9).unwrap();
        }
        reader.bytes(100, 50_000).unwrap();
        // The buffer is still valid after a large read bypassed it.
        reader.bytes(50, 9).unwrap();
        reader.bytes(99_990, 9).unwrap();
        let reads = std::mem::take(&mut *input.1.lock().unwrap());
        assert_eq!(reads, [(0, InputReader::BUFFER), (100, 50_000), (99_990, 10)]);
        reader.ranges(&[5..10, 20..21]).unwrap();
        assert_eq!(*input.1.lock().unwrap(), [(5, 5), (20, 1)]);
    }

    #[test]
    fn what_is_past_the_end_is_an_error_that_names_the_input() {
        let url = Location::Name("s3://bucket/key".into());
        let mut reader = InputReader::new(Box::new(sample(10)), url.clone());
        for (at, len) in [(0, 11), (10, 1), (11, 0), (u64::MAX, 2), (0, u64::MAX)] {
            let error = reader.bytes(at, len).unwrap_err();
            let SourceError::Io { location, error } = &error else { panic!("{error}") };
            assert_eq!((location, error.kind()), (&url, io::ErrorKind::UnexpectedEof));
            let ranges = [0..1, at..at.saturating_add(len)];
            assert_eq!(reader.ranges(&ranges).is_err(), at.saturating_add(len) > 10);
        }
        let error = reader.bytes(0, 11).unwrap_err().to_string();
        assert!(error.starts_with("s3://bucket/key: it ends before the 10 bytes"), "{error}");
        assert_eq!(reader.bytes(10, 0).unwrap(), b"");
    }

    #[test]
    fn a_file_that_becomes_shorter_is_an_error() {
        let path = std::env::temp_dir().join(format!("encoder-input-{}", std::process::id()));
        std::fs::write(&path, sample(90_000)).unwrap();
        let mut reader = InputReader::open(&path).unwrap();
        assert_eq!(reader.bytes(80_000, 10).unwrap(), sample(90_000)[80_000..80_010]);
        File::options().write(true).open(&path).unwrap().set_len(40_000).unwrap();
        let errors = [
            reader.bytes(30_000, 40_000).unwrap_err(),
            reader.bytes(60_000, 8).unwrap_err(),
            reader.ranges(&[0..1, 39_999..40_001]).unwrap_err(),
        ];
        let before = reader.bytes(0, 8).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(before, sample(8));
        for error in errors {
            let text = error.to_string();
            assert!(text.starts_with(&format!("{}: it ends before", path.display())), "{text}");
        }
        let missing = InputReader::open(&path).unwrap_err().to_string();
        assert!(missing.starts_with(&format!("{}: ", path.display())), "{missing}");
    }
}
