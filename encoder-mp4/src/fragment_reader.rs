//! Reading a fragmented file of this program, whole or cut.

use std::io::{self, Read, Seek, SeekFrom};

use thiserror::Error;

use super::{
    avc::ParameterSets,
    boxes::Fields,
    record::{self, CHECKSUM, FragmentSample, Head},
};

/// Why there is nothing to read.
#[derive(Debug, Error)]
pub enum PartError {
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Another program wrote it, or nothing of this one is in it.
    #[error(
        "not a file that this program was writing; only what `encoder` leaves (NAME.mp4.part, or a \
         fragmented file) can be repaired"
    )]
    Foreign,
    /// There is an index, and what it speaks of.
    #[error("the file is whole, with its index in front")]
    Progressive,
    /// There is an index, and less behind it.
    #[error(
        "the index of the file is whole, but {missing} bytes of video at its end are missing: they \
         cannot be made up; copy the file again from where it came"
    )]
    Cut {
        /// How many.
        missing: u64,
    },
    /// It ends before the first fragment does.
    #[error("nothing was written that can be shown: not one fragment is whole")]
    Empty,
}

/// The fragments of a file, one after another.
pub(super) struct FragmentReader<R> {
    file: Boxes<R>,
    head: Head,
    /// Behind the head.
    begins: u64,
    at: u64,
    frames: u64,
    /// Fragments beyond this are not looked at.
    ends: u64,
}

/// A fragment.
pub(super) struct Fragment {
    /// Where its pictures begin, in bytes from the start of the file.
    pub data_at: u64,
    /// Its pictures, in decoding order, one behind the other.
    pub entries: Vec<FragmentSample>,
}

impl<R: Read + Seek> FragmentReader<R> {
    /// Reads the head of a file.
    ///
    /// # Errors
    /// Why it is none that can be read, or needs no repair.
    pub fn open(mut reader: R) -> Result<Self, PartError> {
        let length = reader.seek(SeekFrom::End(0))?;
        let mut file = Boxes { reader, length };
        let file_type = file.kind(0, b"ftyp")?.ok_or(PartError::Foreign)?;
        let second = file.at(file_type.size)?.ok_or(PartError::Foreign)?;
        let behind = file_type.size.saturating_add(second.size);
        if &second.kind == b"moov" {
            return Err(file.progressive(behind)?);
        }
        let content = file.content(file_type.size, &second)?;
        let head = content.filter(|_| &second.kind == b"uuid").and_then(|c| Head::read(&c));
        let head = head.ok_or(PartError::Foreign)?;
        let movie = file.kind(behind, b"moov")?.ok_or(PartError::Empty)?;
        let begins = behind.saturating_add(movie.size);
        Ok(Self { file, head, begins, at: begins, frames: 0, ends: length })
    }

    /// How the frames are to be laid out.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Begins again with the first fragment, and ends where it is now.
    pub fn again(&mut self) {
        (self.ends, self.at, self.frames) = (self.at, self.begins, 0);
    }

    /// Bytes behind the last fragment that was read.
    pub fn rest(&self) -> u64 {
        self.file.length.saturating_sub(self.at)
    }

    /// The next fragment; `None` where there is none that is whole. With `check`, every byte of it
    /// must be as it was written.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn next(&mut self, check: bool) -> io::Result<Option<Fragment>> {
        if self.at >= self.ends {
            return Ok(None);
        }
        let Some(moof) = self.file.kind(self.at, b"moof")? else { return Ok(None) };
        let Some(content) = self.file.content(self.at, &moof)? else { return Ok(None) };
        let data_at = self.at + moof.size;
        let Some(mdat) = self.file.kind(data_at, b"mdat")? else { return Ok(None) };
        let end = data_at.saturating_add(mdat.size);
        let entries = last_box(&content).and_then(record::read);
        let Some((first, entries)) = entries.filter(|_| end <= self.file.length) else {
            return Ok(None);
        };
        let bytes: u64 = entries.iter().map(|entry| u64::from(entry.bytes)).sum();
        let begins_with_key = first > 0 || entries.first().is_some_and(|entry| entry.keyframe);
        if first != self.frames || bytes != mdat.size - mdat.bytes || !begins_with_key {
            return Ok(None);
        }
        // A fuzzer would never get past a checksum.
        if check && !self.is_as_written(&moof, &content, data_at, mdat.size)? && !cfg!(fuzzing) {
            return Ok(None);
        }
        self.at = end;
        self.frames += entries.len() as u64;
        Ok(Some(Fragment { data_at: data_at + mdat.bytes, entries }))
    }

    /// Whether the checksum at the end of `moof` is right.
    fn is_as_written(
        &mut self,
        moof: &BoxHead,
        content: &[u8],
        data_at: u64,
        size: u64,
    ) -> io::Result<bool> {
        let (checked, checksum) = content.split_at(content.len() - CHECKSUM);
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&(moof.size as u32).to_be_bytes());
        hasher.update(&moof.kind);
        hasher.update(checked);
        self.file.reader.seek(SeekFrom::Start(data_at))?;
        let mut buffer = [0; 1 << 14];
        let mut left = size;
        while left > 0 {
            let most = left.min(buffer.len() as u64) as usize;
            let part = &mut buffer[..most];
            self.file.reader.read_exact(part)?;
            hasher.update(part);
            left -= most as u64;
        }
        Ok(hasher.finalize().to_be_bytes() == *checksum)
    }

    /// The parameter sets in front of a key frame that begins at `at`.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn sets(&mut self, at: u64, entry: &FragmentSample) -> io::Result<ParameterSets> {
        let bytes = self.file.bytes(at, entry.sets.into())?;
        bytes.as_deref().and_then(ParameterSets::read).ok_or_else(|| {
            let text = format!("the parameter sets of frame {} are broken", entry.pts);
            io::Error::new(io::ErrorKind::InvalidData, text)
        })
    }

    /// Copies bytes out of the file.
    ///
    /// # Errors
    /// When one side fails, or the file has become shorter.
    pub fn copy(&mut self, at: u64, count: u64, to: &mut impl io::Write) -> io::Result<()> {
        self.file.reader.seek(SeekFrom::Start(at))?;
        match io::copy(&mut self.file.reader.by_ref().take(count), to)? {
            copied if copied == count => Ok(()),
            copied => Err(io::Error::other(format!("{copied} of {count} bytes came back"))),
        }
    }
}

/// The boxes of a file.
struct Boxes<R> {
    reader: R,
    length: u64,
}

/// The head of a box.
struct BoxHead {
    kind: [u8; 4],
    /// Of the head.
    bytes: u64,
    /// Of the whole box; more than there may be.
    size: u64,
}

impl<R: Read + Seek> Boxes<R> {
    /// What a file with the index in front of `at` is.
    fn progressive(&mut self, at: u64) -> io::Result<PartError> {
        let media = self.kind(at, b"mdat")?;
        Ok(match media.map(|media| at.saturating_add(media.size)) {
            Some(end) if end <= self.length => PartError::Progressive,
            Some(end) => PartError::Cut { missing: end - self.length },
            None => PartError::Foreign,
        })
    }

    /// The box at a place, if it is of this kind.
    fn kind(&mut self, at: u64, kind: &[u8; 4]) -> io::Result<Option<BoxHead>> {
        Ok(self.at(at)?.filter(|head| &head.kind == kind))
    }

    fn at(&mut self, at: u64) -> io::Result<Option<BoxHead>> {
        let Some(bytes) = self.bytes(at, 8)? else { return Ok(None) };
        let mut fields = &bytes[..];
        let (Some(size), Some(kind)) = (fields.u32(), fields.array()) else { return Ok(None) };
        let (bytes, size) = match size {
            1 => match self.bytes(at + 8, 8)?.and_then(|wide| (&wide[..]).u64()) {
                Some(size) => (16, size),
                None => return Ok(None),
            },
            size => (8, u64::from(size)),
        };
        Ok((size >= bytes).then_some(BoxHead { kind, bytes, size }))
    }

    fn content(&mut self, at: u64, head: &BoxHead) -> io::Result<Option<Vec<u8>>> {
        self.bytes(at.saturating_add(head.bytes), head.size - head.bytes)
    }

    /// Bytes of the file; `None` where there are not as many.
    fn bytes(&mut self, at: u64, count: u64) -> io::Result<Option<Vec<u8>>> {
        if at.checked_add(count).is_none_or(|end| end > self.length) {
            return Ok(None);
        }
        self.reader.seek(SeekFrom::Start(at))?;
        let mut bytes = Vec::new();
        let read = self.reader.by_ref().take(count).read_to_end(&mut bytes)?;
        Ok((read as u64 == count).then_some(bytes))
    }
}

/// The content of the last of some boxes, which must be a `uuid` box.
fn last_box(mut boxes: &[u8]) -> Option<&[u8]> {
    loop {
        let (size, kind) = (boxes.u32()?, boxes.array::<4>()?);
        let content = boxes.front(usize::try_from(size.checked_sub(8)?).ok()?)?;
        if boxes.is_empty() {
            return (&kind == b"uuid").then_some(content);
        }
    }
}
