use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{SinkError, output::sync_directory};

/// A file that grows by complete pieces and can be read while it grows.
///
/// It is removed when it is dropped, unless it was [kept](Self::keep) or is dropped by a panic:
/// then it is the only copy of the written data.
#[derive(Debug)]
pub(super) struct PartFile {
    file: File,
    path: PathBuf,
    /// Number of bytes in complete pieces.
    length: u64,
    syncs: Syncs,
    is_kept: bool,
    /// Why the name has a number, if another run is writing the file without it.
    warning: Option<String>,
}

impl PartFile {
    /// Creates `NAME.part` beside `path`. If that file exists, it is left unchanged and the name
    /// gets a number: `NAME.2.part`. A file that a run has left is found by
    /// [`Leftover`](super::Leftover).
    ///
    /// # Errors
    /// When nothing can be written there.
    pub fn beside(path: &Path) -> Result<Self, SinkError> {
        let mut taken: Option<PathBuf> = None;
        for number in 1..10_000 {
            let part = part_name(path, number);
            match OpenOptions::new().read(true).write(true).create_new(true).open(&part) {
                Ok(file) => {
                    let mut file = Self::new(file, part, 0);
                    if let Some(taken) = taken.filter(|taken| is_being_written(taken)) {
                        file.warning = Some(format!(
                            "another run was writing the same video ({}): only one of the two gets \
                             its name",
                            taken.display()
                        ));
                    }
                    return Ok(file);
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    if !part.is_dir() {
                        taken.get_or_insert(part);
                    }
                }
                Err(e) => return Err(SinkError::io(&part)(e)),
            }
        }
        let error = io::Error::new(io::ErrorKind::AlreadyExists, "there are 10000 part files");
        Err(SinkError::io(path)(error))
    }

    /// Continues an existing file of `length` bytes.
    pub fn new(file: File, path: PathBuf, length: u64) -> Self {
        // The lock marks a file that is being written. On Windows it would block players.
        if cfg!(unix) {
            let _ = file.try_lock();
        }
        Self { file, path, length, syncs: Syncs::default(), is_kept: false, warning: None }
    }

    /// A warning for the report of the video.
    pub fn warning(&self) -> Option<String> {
        self.warning.clone()
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file itself.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether nothing was appended.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Appends a piece: all of it, or nothing.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn append(&mut self, piece: &[u8], now: Instant) -> io::Result<()> {
        let synced = self.syncs.due(now);
        let written = self.file.write_all(piece).and_then(|()| match synced {
            Due::No => Ok(()),
            Due::Data => self.file.sync_data(),
            Due::Name => self.file.sync_data().map(|()| sync_directory(&self.path)),
        });
        if let Err(error) = written {
            // If this also fails, readers stop at the truncated piece.
            let _ = self.file.set_len(self.length);
            let _ = self.file.seek(SeekFrom::Start(self.length));
            return Err(error);
        }
        self.length += piece.len() as u64;
        Ok(())
    }

    /// Syncs and closes the file and returns its path. An empty file is removed: `None`.
    pub fn keep(mut self) -> Option<PathBuf> {
        if self.is_empty() {
            return None;
        }
        // The file is kept even where it cannot be synced.
        let _ = self.file.sync_all();
        self.is_kept = true;
        Some(self.path.clone())
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if self.is_kept || (std::thread::panicking() && !self.is_empty()) {
            return;
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

fn part_name(path: &Path, number: u32) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(match number {
        1 => ".part".into(),
        n => format!(".{n}.part"),
    });
    path.with_file_name(name)
}

/// Whether a process is writing this part file. Always false on systems without such locks.
pub fn is_being_written(path: &Path) -> bool {
    let locked = |file: File| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
    // A named pipe would be waited for.
    cfg!(unix) && path.is_file() && File::open(path).is_ok_and(locked)
}

/// Decides when to sync a part file: at the first piece, so that its name is on the disk; then
/// every half second, so that a power failure loses at most that much.
#[derive(Debug, Default)]
struct Syncs {
    last: Option<Instant>,
}

/// The scope of a sync.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    No,
    Data,
    /// The data and the directory.
    Name,
}

impl Syncs {
    const EVERY: Duration = Duration::from_millis(500);

    fn due(&mut self, now: Instant) -> Due {
        match self.last {
            Some(last) if now.saturating_duration_since(last) < Self::EVERY => Due::No,
            last => {
                self.last = Some(now);
                if last.is_some() { Due::Data } else { Due::Name }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_power_cut_costs_half_a_second() {
        let begin = Instant::now();
        let mut syncs = Syncs::default();
        for (ms, due) in [
            (0, Due::Name),
            (1, Due::No),
            (499, Due::No),
            (500, Due::Data),
            (501, Due::No),
            (2000, Due::Data),
            (2499, Due::No),
            (2500, Due::Data),
        ] {
            assert_eq!(syncs.due(begin + Duration::from_millis(ms)), due, "{ms} ms");
        }
    }

    #[test]
    fn appended_pieces_are_in_the_file_and_a_file_that_is_not_kept_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.mp4");
        let part = directory.path().join("a.mp4.part");
        let mut part_file = PartFile::beside(&path).unwrap();
        part_file.append(b"one", Instant::now()).unwrap();
        assert_eq!(std::fs::read(&part).unwrap(), b"one");
        part_file.append(b"two", Instant::now()).unwrap();
        assert_eq!(std::fs::read(&part).unwrap(), b"onetwo");
        assert_eq!(is_being_written(&part), cfg!(unix));
        drop(part_file);
        assert!(!part.exists());
        assert_eq!(PartFile::beside(&path).unwrap().keep(), None);
        assert!(!part.exists());

        let mut part_file = PartFile::beside(&path).unwrap();
        part_file.append(b"one", Instant::now()).unwrap();
        assert_eq!(part_file.keep(), Some(part.clone()));
        assert!(!is_being_written(&part));
        // An existing file is never touched. Another run that writes is named.
        let second = PartFile::beside(&path).unwrap();
        assert_eq!(second.path(), directory.path().join("a.mp4.2.part"));
        assert_eq!(second.warning(), None);
        let other = directory.path().join("b.mp4");
        let (first, also) = (PartFile::beside(&other).unwrap(), PartFile::beside(&other).unwrap());
        assert_eq!((first.warning(), also.warning().is_some()), (None, cfg!(unix)));
        drop((first, also, second));
        assert_eq!(std::fs::read(&part).unwrap(), b"one");
    }

    #[test]
    fn a_panic_keeps_what_was_written() {
        let directory = tempfile::tempdir().unwrap();
        for (name, piece, is_left) in [("a.mp4", &b"one"[..], true), ("b.mp4", b"", false)] {
            let path = directory.path().join(name);
            let panicked = std::panic::catch_unwind(|| {
                let mut part_file = PartFile::beside(&path).unwrap();
                part_file.append(piece, Instant::now()).unwrap();
                panic!("a test panics");
            });
            assert!(panicked.is_err());
            let part = directory.path().join(format!("{name}.part"));
            assert_eq!(part.exists(), is_left, "{name}");
            assert!(!is_being_written(&part));
        }
    }
}
