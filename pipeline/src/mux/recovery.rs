use std::{
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use super::{
    part::{Part, PartError},
    progressive, record,
};
use crate::timeline::{Layout, Survey};

/// What is of use in a file that this program was writing when it was cut off.
pub struct Recovery<R> {
    part: Part<R>,
    layout: Layout,
    frames: u64,
    rest: u64,
}

impl<R: Read + Seek> Recovery<R> {
    /// Reads a file up to its first byte that is not as it was written. Needs memory for one
    /// fragment.
    ///
    /// # Errors
    /// [`PartError`]: there is nothing that can be, or must be, recovered.
    pub fn find(reader: R) -> Result<Self, PartError> {
        let mut part = Part::open(reader)?;
        let head = part.head();
        let mut survey = Survey::new(head.timing, head.rate, head.reorder);
        while let Some(fragment) = part.next(true)? {
            for n in record::display_order(&fragment.entries) {
                survey.push(&fragment.entries[n].times);
            }
        }
        let (frames, rest) = (survey.frames(), part.rest());
        if frames == 0 {
            return Err(PartError::Empty);
        }
        part.again();
        Ok(Self { part, layout: survey.layout(), frames, rest })
    }

    /// Frames that can be recovered.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Bytes at the end of the file that are of no use.
    pub fn rest(&self) -> u64 {
        self.rest
    }

    /// Where the frames lie in time.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Writes the MP4 file that the program would have written, had the recording ended there.
    ///
    /// # Errors
    /// When one side fails.
    pub fn write(mut self, to: &mut impl Write) -> io::Result<()> {
        progressive::write(&mut self.part, &self.layout, to)
    }
}

/// What a repaired file is called unless told: `NAME.mp4` for a part of it, otherwise
/// `NAME.repaired.mp4`.
pub fn repaired_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = match name.strip_suffix(".part") {
        Some(whole) => match whole.rsplit_once('.') {
            Some((whole, number)) if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) => whole,
            _ => whole,
        }
        .to_owned(),
        None => format!("{}.repaired.mp4", name.strip_suffix(".mp4").unwrap_or(&name)),
    };
    path.with_file_name(name)
}
