use std::{
    fs::File,
    io::{self, BufReader},
    path::{Path, PathBuf},
};

use super::{
    fragment_reader::{FragmentReader, PartError},
    part_file::is_being_written,
    recovery::{STREAM_EXTENSIONS, repaired_name},
};

/// A file that a run writes under another name than its final name. It is left if the run is
/// killed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Leftover {
    /// The file.
    pub path: PathBuf,
    /// A hidden file, for a moment. Usually all of its frames are in a part file as well.
    pub is_temporary: bool,
    /// What is in it.
    pub content: LeftoverContent,
}

/// What a [`Leftover`] has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum LeftoverContent {
    /// No whole frame, or it cannot be read.
    Nothing,
    /// Frames in fragments, which can be made a video.
    Frames,
    /// A raw H.264 stream, which plays as it is.
    Stream,
    /// The fragments of another version of this program.
    OtherVersion,
}

impl Leftover {
    /// The part files and temporary files in a directory, in the order of their names. Files that a
    /// program is writing are left out, and files of other programs, by their name or content.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn find(directory: &Path) -> io::Result<Vec<Self>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                found.extend(Self::at(entry.path()));
            }
        }
        found.sort();
        Ok(found)
    }

    /// As [`find`](Self::find), also in the directories below. Symbolic links are not followed. Also
    /// returns the directories that cannot be read.
    pub fn find_below(directory: &Path) -> (Vec<Self>, Vec<(PathBuf, io::Error)>) {
        let (mut found, mut unread) = (Vec::new(), Vec::new());
        let mut directories = vec![directory.to_owned()];
        while let Some(directory) = directories.pop() {
            match Self::find(&directory).and_then(|here| Ok((here, below(&directory)?))) {
                Ok((here, below)) => {
                    found.extend(here);
                    directories.extend(below);
                }
                Err(error) => unread.push((directory, error)),
            }
        }
        (found, unread)
    }

    /// The final name of the video.
    pub fn video(&self) -> PathBuf {
        repaired_name(&self.path)
    }

    /// The file, if this program has left it.
    fn at(path: PathBuf) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let video = name.ends_with(".part").then(|| repaired_name(&path))?;
        let is_temporary = name.starts_with('.') && !video.file_name()?.to_str()?.starts_with('.');
        let extension = video.extension()?.to_str()?.to_ascii_lowercase();
        let content = match &*extension {
            "mp4" => fragments(&path, is_temporary)?,
            other if STREAM_EXTENSIONS.contains(&other) => stream(&path)?,
            _ => return None,
        };
        (!is_being_written(&path)).then_some(Self { path, is_temporary, content })
    }
}

/// The directories directly below a directory, the first by name at the end.
fn below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut directories = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            directories.push(entry.path());
        }
    }
    directories.sort_by(|a, b| b.cmp(a));
    Ok(directories)
}

/// What a fragmented file has; `None` if it is not of this program. A file that cannot be read may
/// be.
fn fragments(path: &Path, is_temporary: bool) -> Option<LeftoverContent> {
    let Ok(file) = File::open(path) else { return Some(LeftoverContent::Nothing) };
    match FragmentReader::open(BufReader::new(file)) {
        Ok(mut fragments) => match fragments.next(true) {
            Ok(Some(_)) => Some(LeftoverContent::Frames),
            _ => Some(LeftoverContent::Nothing),
        },
        Err(PartError::OtherVersion) => Some(LeftoverContent::OtherVersion),
        Err(PartError::Io(_) | PartError::NoBytes | PartError::Empty) => {
            Some(LeftoverContent::Nothing)
        }
        // The final file while it was written.
        Err(_) => is_temporary.then_some(LeftoverContent::Nothing),
    }
}

/// What the file of a raw H.264 stream has; `None` if it is none.
fn stream(path: &Path) -> Option<LeftoverContent> {
    let Ok(file) = File::open(path) else { return Some(LeftoverContent::Nothing) };
    match FragmentReader::open(BufReader::new(file)) {
        Err(PartError::RawStream) => Some(LeftoverContent::Stream),
        Err(PartError::Io(_) | PartError::NoBytes) => Some(LeftoverContent::Nothing),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{
        super::{output::temporary, part_file::PartFile, recovery::tests::file},
        LeftoverContent::{Frames, Nothing, OtherVersion, Stream},
        *,
    };

    #[test]
    fn files_of_killed_runs_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::create_dir_all(path("drive/b.mp4.part")).unwrap();
        let (frames, ..) = file(false);
        // A download of an MP4 file, and another file of this program.
        let foreign =
            [&32_u32.to_be_bytes()[..], b"ftypisom", &[0; 20], b"\0\0\0\x08moov"].concat();
        let stream = [0, 0, 0, 1, 0x67, 0x42];
        let mut other = frames.clone();
        let name = b"encoder:file\0\0\0";
        let at = other.windows(name.len()).position(|found| found == name).unwrap();
        other[at + name.len()] ^= 3;
        let table: [(&str, &[u8], Option<LeftoverContent>); 16] = [
            (".a.mp4.x7yZ09.part", b"", Some(Nothing)),
            (".b.mp4.x7yZ09.part", &frames, Some(Frames)),
            (".c.mp4.x7yZ09.part", &foreign, Some(Nothing)),
            (".report.x7yZ09.part", b"{", None),
            (".rsync.part", b"", None),
            ("a.mp4", &frames, None),
            ("a.mp4.2.part", &frames, Some(Frames)),
            ("a.mp4.part", b"", Some(Nothing)),
            ("b.h264.part", &stream, Some(Stream)),
            ("c.h264.part", b"text", None),
            ("d.mp4.part", &foreign, None),
            ("d.mp4.3.part", &frames[..frames.len() / 3], Some(Frames)),
            ("d.mp4.4.part", &other, Some(OtherVersion)),
            ("e.pdf.part", b"", None),
            ("e.part", &frames, None),
            ("part", b"", None),
        ];
        table.iter().for_each(|(name, bytes, _)| std::fs::write(path(name), bytes).unwrap());
        std::fs::write(path("drive/c.mp4.2.part"), &frames).unwrap();
        let alive = [PartFile::beside(&path("f.mp4")).unwrap()];
        let hidden = temporary(&path("g.mp4")).unwrap();
        let names = |found: Vec<Leftover>| -> Vec<_> {
            found.into_iter().map(|l| (l.path.clone(), l.is_temporary, l.content)).collect()
        };
        let mut expected: Vec<_> = table
            .iter()
            .filter_map(|(name, _, frames)| Some((path(name), name.starts_with('.'), (*frames)?)))
            .collect();
        expected.sort();
        if cfg!(unix) {
            assert_eq!(names(Leftover::find(directory.path()).unwrap()), expected);
            let below = [&expected[..], &[(path("drive/c.mp4.2.part"), false, Frames)]].concat();
            let (found, unread) = Leftover::find_below(directory.path());
            assert_eq!((names(found), unread.len()), (below, 0));
        }
        drop((alive, hidden));
        assert_eq!(names(Leftover::find(directory.path()).unwrap()), expected);
        assert!(Leftover::find(&path("nowhere")).is_err());
        assert_eq!(Leftover::find_below(&path("nowhere")).1.len(), 1);
    }
}
