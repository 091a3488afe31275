//! Reads the fragmented files of this program, complete or truncated.

use std::io::{self, Read, Seek, SeekFrom};

use thiserror::Error;

use super::{
    boxes::Fields,
    record::{self, CHECKSUM, FragmentSample, Head},
};

/// Why a file cannot be recovered.
#[derive(Debug, Error)]
pub enum PartError {
    /// The operating system returned an error.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file was not written by this crate.
    #[error(
        "not written by this software: only its part files (NAME.mp4.part) and its fragmented files \
         can be repaired"
    )]
    Foreign,
    /// The file was written by a version of this crate with another form of part files.
    #[error(
        "another version of this software wrote the file, which this version cannot repair: repair \
         it with the version that wrote it, or copy what it plays with `ffmpeg -i FILE -c copy \
         OUT.mp4`"
    )]
    OtherVersion,
    /// The file has an index at the front, and all of its samples.
    #[error("the file is whole, with its index in front")]
    Progressive,
    /// The file has an index at the front, and its end is missing.
    #[error(
        "the index of the file is whole, but {missing} bytes of video at its end are missing: they \
         cannot be made up; copy the file again from where it came"
    )]
    Cut {
        /// Bytes that the index refers to.
        missing: u64,
    },
    /// The file has no bytes.
    #[error(
        "the file is empty (0 bytes): the program ended before it wrote the first frames; nothing \
         can be recovered, delete the file"
    )]
    NoBytes,
    /// The file is a raw H.264 stream.
    #[error(
        "the file is a raw H.264 stream, which plays as it is; give it a name that ends in .h264"
    )]
    RawStream,
    /// The file ends before the end of its first frame.
    #[error("nothing was written that can be shown: not one frame is whole")]
    Empty,
}

/// The fragments of a file, one after another.
pub(super) struct FragmentReader<R> {
    file: Boxes<R>,
    head: Head,
    /// Offset of the first fragment.
    begin: u64,
    /// Offset of the next fragment.
    at: u64,
    /// Frames of the fragments before `at`.
    frames: u64,
    /// Fragments from this offset on are not read.
    end: u64,
    /// The fragment that is damaged or cut off: its offset, and how many of its samples are whole.
    torn: Option<(u64, usize)>,
}

/// A fragment.
pub(super) struct Fragment {
    /// Offset of the first sample in the file.
    pub data_at: u64,
    /// The samples in decoding order, contiguous in the file.
    pub samples: Vec<FragmentSample>,
}

impl<R: Read + Seek> FragmentReader<R> {
    /// Reads the head of a file.
    ///
    /// # Errors
    /// [`PartError`]: the file cannot be recovered, or needs no recovery.
    pub fn open(mut reader: R) -> Result<Self, PartError> {
        let length = reader.seek(SeekFrom::End(0))?;
        let mut file = Boxes { reader, length };
        if length == 0 {
            return Err(PartError::NoBytes);
        }
        if file.bytes(0, 4)?.is_some_and(|bytes| bytes == [0, 0, 0, 1]) && file.is_stream()? {
            return Err(PartError::RawStream);
        }
        let file_type = file.kind(0, b"ftyp")?.ok_or(PartError::Foreign)?;
        let second = file.at(file_type.size)?.ok_or(PartError::Foreign)?;
        let behind = file_type.size.saturating_add(second.size);
        if &second.kind == b"moov" {
            return Err(file.progressive(behind)?);
        }
        let content = file.content(file_type.size, &second)?;
        let content = content.filter(|_| &second.kind == b"uuid").ok_or(PartError::Foreign)?;
        let head = Head::read(&content).ok_or(match record::is_of_other_version(&content) {
            true => PartError::OtherVersion,
            false => PartError::Foreign,
        })?;
        let movie = file.kind(behind, b"moov")?.ok_or(PartError::Empty)?;
        let begin = behind.saturating_add(movie.size);
        if let Some(moof) = file.kind(begin, b"moof")?
            && let Some(content) = file.content(begin, &moof)?
            && last_box(&content).is_some_and(record::is_of_other_version)
        {
            return Err(PartError::OtherVersion);
        }
        Ok(Self { file, head, begin, at: begin, frames: 0, end: length, torn: None })
    }

    /// How the frames are timed.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Returns to the first fragment. Reading will end at the current position.
    pub fn rewind(&mut self) {
        (self.end, self.at, self.frames) = (self.at, self.begin, 0);
    }

    /// Number of bytes after the last fragment that was read.
    pub fn unread(&self) -> u64 {
        self.file.length.saturating_sub(self.at)
    }

    /// Returns the next fragment; `None` if it is missing or invalid. With `check`, the checksums
    /// must also be correct; of a fragment that is cut off or damaged, the samples in front of the
    /// damage are returned, and no fragment after it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn next(&mut self, check: bool) -> io::Result<Option<Fragment>> {
        let at = self.at;
        if at >= self.end {
            return Ok(None);
        }
        let Some(moof) = self.file.kind(at, b"moof")? else { return Ok(None) };
        let Some(content) = self.file.content(at, &moof)? else { return Ok(None) };
        let data_at = at + moof.size;
        let Some(mdat) = self.file.kind(data_at, b"mdat")? else { return Ok(None) };
        let Some((first, mut samples)) = last_box(&content).and_then(record::read) else {
            return Ok(None);
        };
        let bytes: u64 = samples.iter().map(|sample| u64::from(sample.bytes)).sum();
        let begins_with_key = first > 0 || samples.first().is_some_and(|sample| sample.keyframe);
        if first != self.frames || bytes != mdat.size - mdat.bytes || !begins_with_key {
            return Ok(None);
        }
        // Not checked while fuzzing: a fuzzer cannot guess a checksum.
        if check && !has_checksum(&moof, &content) && !cfg!(fuzzing) {
            return Ok(None);
        }
        let mut data_end = data_at + mdat.bytes;
        if check {
            let whole = self.whole_samples(data_end, &samples)?;
            if whole < samples.len() {
                let complete = record::complete(first, &samples, whole);
                self.torn = Some((at, complete));
            }
        }
        if let Some((_, whole)) = self.torn.filter(|&(torn, _)| torn == at) {
            samples.truncate(whole);
        }
        data_end += samples.iter().map(|sample| u64::from(sample.bytes)).sum::<u64>();
        if samples.is_empty() || data_end > self.file.length {
            return Ok(None);
        }
        self.at = data_end;
        self.frames += samples.len() as u64;
        if self.torn.is_some_and(|(torn, _)| torn == at) {
            self.end = self.at;
        }
        Ok(Some(Fragment { data_at: data_at + mdat.bytes, samples }))
    }

    /// How many samples from the first on, which begins at `at`, are as they were written.
    fn whole_samples(&mut self, mut at: u64, samples: &[FragmentSample]) -> io::Result<usize> {
        for (n, sample) in samples.iter().enumerate() {
            match self.file.checksum(at, sample.bytes.into())? {
                Some(checksum) if checksum == sample.checksum || cfg!(fuzzing) => {}
                _ => return Ok(n),
            }
            at += u64::from(sample.bytes);
        }
        Ok(samples.len())
    }

    /// How many frames of the last fragment that was read are whole, if the fragment is cut off or
    /// damaged and has such frames.
    pub fn torn(&self) -> Option<usize> {
        self.torn.map(|(_, frames)| frames).filter(|&frames| frames > 0)
    }

    /// Reads the parameter sets in front of a sample that begins at `at`.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn sets(&mut self, at: u64, sample: &FragmentSample) -> io::Result<Vec<u8>> {
        let bytes = self.file.bytes(at, sample.sets.into())?;
        bytes.ok_or_else(|| io::Error::other("the file became shorter"))
    }

    /// Copies bytes out of the file.
    ///
    /// # Errors
    /// When reading or writing fails, or the file has become shorter.
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
    /// Bytes of the head.
    bytes: u64,
    /// Size of the whole box in bytes, which may exceed the file.
    size: u64,
}

impl<R: Read + Seek> Boxes<R> {
    /// The reason why a file with an index that ends at `at` is not recovered.
    fn progressive(&mut self, at: u64) -> io::Result<PartError> {
        let media = self.kind(at, b"mdat")?;
        Ok(match media.map(|media| at.saturating_add(media.size)) {
            Some(end) if end <= self.length => PartError::Progressive,
            Some(end) => PartError::Cut { missing: end - self.length },
            None => PartError::Foreign,
        })
    }

    /// Whether the file begins with the NAL units of an H.264 stream: behind a start code, a
    /// delimiter, a parameter set or a note.
    fn is_stream(&mut self) -> io::Result<bool> {
        let first = self.bytes(4, 1)?.and_then(|bytes| bytes.first().copied());
        Ok(first.is_some_and(|header| header & 0x80 == 0 && matches!(header & 0x1f, 6..=9)))
    }

    /// CRC-32 of bytes of the file; `None` if the file ends before.
    fn checksum(&mut self, at: u64, count: u64) -> io::Result<Option<u32>> {
        if at.checked_add(count).is_none_or(|end| end > self.length) {
            return Ok(None);
        }
        self.reader.seek(SeekFrom::Start(at))?;
        let mut hasher = crc32fast::Hasher::new();
        let mut buffer = [0; 1 << 14];
        let mut left = count;
        while left > 0 {
            let most = left.min(buffer.len() as u64) as usize;
            let piece = &mut buffer[..most];
            self.reader.read_exact(piece)?;
            hasher.update(piece);
            left -= most as u64;
        }
        Ok(Some(hasher.finalize()))
    }

    /// The box at an offset, if it is of this kind.
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

    /// Reads bytes of the file; `None` if the file ends before.
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

/// Whether the checksum at the end of `moof` is correct.
fn has_checksum(moof: &BoxHead, content: &[u8]) -> bool {
    let (checked, checksum) = content.split_at(content.len() - CHECKSUM);
    // A fragment of this program never needs the long form of a box's size.
    let Ok(moof_size) = u32::try_from(moof.size) else { return false };
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&moof_size.to_be_bytes());
    hasher.update(&moof.kind);
    hasher.update(checked);
    hasher.finalize().to_be_bytes() == *checksum
}

/// The content of the last box, which must be a `uuid` box.
fn last_box(mut boxes: &[u8]) -> Option<&[u8]> {
    loop {
        let (size, kind) = (boxes.u32()?, boxes.array::<4>()?);
        let content = boxes.front(usize::try_from(size.checked_sub(8)?).ok()?)?;
        if boxes.is_empty() {
            return (&kind == b"uuid").then_some(content);
        }
    }
}
