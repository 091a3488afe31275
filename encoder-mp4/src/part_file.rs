use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tracing::warn;

use super::{SinkError, output::sync_directory};

/// A file that can be read by others while it grows, by whole pieces.
///
/// Dropped, it goes, unless it was told to stay.
#[derive(Debug)]
pub(super) struct PartFile {
    file: File,
    path: PathBuf,
    /// Bytes of whole pieces.
    length: u64,
    syncs: Syncs,
    stays: bool,
}

impl PartFile {
    /// Begins a file beside `path`, with `.part` behind its name. One that is there is left alone,
    /// and a number taken.
    ///
    /// # Errors
    /// When nothing can be written there.
    pub fn beside(path: &Path) -> Result<Self, SinkError> {
        let mut taken: Option<PathBuf> = None;
        for number in 1..10_000 {
            let part = part_name(path, number);
            match OpenOptions::new().read(true).write(true).create_new(true).open(&part) {
                Ok(file) => {
                    if let Some(taken) = &taken {
                        warn_of(taken, &part);
                    }
                    return Ok(Self::new(file, part, 0));
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    taken.get_or_insert(part);
                }
                Err(e) => return Err(SinkError::io(&part)(e)),
            }
        }
        let error = io::Error::new(io::ErrorKind::AlreadyExists, "there are 10000 part files");
        Err(SinkError::io(path)(error))
    }

    /// Goes on with a file that has its name, and one piece.
    pub fn new(file: File, path: PathBuf, length: u64) -> Self {
        // Others see by the lock that somebody writes here. Where there are no locks, or they
        // would keep players out, they do not.
        if cfg!(unix) {
            let _ = file.try_lock();
        }
        Self { file, path, length, syncs: Syncs::default(), stays: false }
    }

    /// Its name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file itself.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Appends a piece: all of it, or nothing.
    ///
    /// # Errors
    /// As the system says.
    pub fn append(&mut self, piece: &[u8], now: Instant) -> io::Result<()> {
        let synced = self.syncs.due(now);
        let written = self.file.write_all(piece).and_then(|()| match synced {
            Due::No => Ok(()),
            Due::Data => self.file.sync_data(),
            Due::Name => self.file.sync_data().map(|()| sync_directory(&self.path)),
        });
        if let Err(error) = written {
            // What cannot be cut off is found by the reader.
            let _ = self.file.set_len(self.length);
            let _ = self.file.seek(SeekFrom::Start(self.length));
            return Err(error);
        }
        self.length += piece.len() as u64;
        Ok(())
    }

    /// Syncs the file and lets it stay; gives its name. `None`, and no file, where it is empty.
    pub fn keep(mut self) -> Option<PathBuf> {
        if self.is_empty() {
            return None;
        }
        // It stays, synced or not.
        let _ = self.file.sync_all();
        self.stays = true;
        Some(self.path.clone())
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if !self.stays {
            let _ = std::fs::remove_file(&self.path);
        }
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

/// Says that a part file is there that this run did not make.
fn warn_of(taken: &Path, ours: &Path) {
    let is_alive = is_being_written(taken);
    let (taken, ours) = (taken.display(), ours.display());
    if is_alive {
        warn!("another run is writing {taken}; this one writes {ours}");
    } else {
        warn!(
            "{taken} is what a run left that was cut off: `encoder repair {taken}` makes a video \
             of it, or delete it; this run writes {ours}"
        );
    }
}

/// Whether a program writes this file now.
pub fn is_being_written(path: &Path) -> bool {
    let locked = |file: File| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
    cfg!(unix) && File::open(path).is_ok_and(locked)
}

/// When a file that grows is to be forced onto the disk: at once with the first piece, so that its
/// name is safe, and then at most so often that a power cut costs half a second.
#[derive(Debug, Default)]
struct Syncs {
    last: Option<Instant>,
}

/// What is to be forced onto the disk.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    No,
    Data,
    /// The data, and the directory.
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
    fn a_piece_is_there_when_it_was_appended_and_the_file_goes_unless_it_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.mp4");
        let part = directory.path().join("a.mp4.part");
        let mut growing = PartFile::beside(&path).unwrap();
        growing.append(b"one", Instant::now()).unwrap();
        assert_eq!(std::fs::read(&part).unwrap(), b"one");
        growing.append(b"two", Instant::now()).unwrap();
        assert_eq!(std::fs::read(&part).unwrap(), b"onetwo");
        assert_eq!(is_being_written(&part), cfg!(unix));
        drop(growing);
        assert!(!part.exists());
        assert_eq!(PartFile::beside(&path).unwrap().keep(), None);
        assert!(!part.exists());

        let mut growing = PartFile::beside(&path).unwrap();
        growing.append(b"one", Instant::now()).unwrap();
        assert_eq!(growing.keep(), Some(part.clone()));
        assert!(!is_being_written(&part));
        // What is there is never touched.
        let second = PartFile::beside(&path).unwrap();
        assert_eq!(second.path(), directory.path().join("a.mp4.2.part"));
        drop(second);
        assert_eq!(std::fs::read(&part).unwrap(), b"one");
    }
}
