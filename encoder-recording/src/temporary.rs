//! Temporary files, bounded in size.
//!
//! On Linux a temporary file has no name while it is written, so that nothing remains of it however
//! the process ends. It has a name only while a reader opens it. If a file cannot be created
//! without a name, the name is removed after the file was read or has failed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile, TempPath};
use thiserror::Error;

use crate::SourceError;

/// Bytes that are written between two checks of the free space.
const STEP: u64 = 64 << 20;
/// The most bytes of a file system that are left free for other programs.
const RESERVE: u64 = 256 << 20;
/// First part of a temporary file's name.
const PREFIX: &str = "encoder-";

/// Space of a file system, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Space {
    pub(crate) total: u64,
    pub(crate) free: u64,
}

impl Space {
    /// Bytes that may be written: a twentieth of the file system stays free, 256 MiB at most.
    fn usable(self) -> u64 {
        self.free.saturating_sub((self.total / 20).min(RESERVE))
    }
}

/// The directory for temporary files, and their size limit.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    pub(crate) directory: PathBuf,
    /// Most bytes of a file.
    pub(crate) limit: u64,
    /// Returns the space of a directory's file system; `None` if the system does not report it.
    pub(crate) space: fn(&Path) -> Option<Space>,
}

/// Why a temporary file could not be filled.
#[derive(Debug, Error)]
pub(crate) enum TemporaryError {
    /// The file exceeds the limit.
    #[error("it has more than {limit} bytes, the limit for temporary files")]
    Limit { limit: u64 },
    /// The file system has too little space.
    #[error("{} has {usable} bytes to spare, and {needed} or more are needed", directory.display())]
    Space { directory: PathBuf, usable: u64, needed: u64 },
    /// The temporary file cannot be made or written.
    #[error("a temporary file in {} cannot be written: {error}", directory.display())]
    Write { directory: PathBuf, error: io::Error },
}

impl TemporaryError {
    /// What helps against it.
    pub(crate) fn remedy(&self) -> &'static str {
        match self {
            Self::Limit { .. } => "raise `Limits::temporary_bytes`",
            Self::Space { .. } | Self::Write { .. } => "set TMPDIR to a directory with more space",
        }
    }
}

/// Turns an error about a temporary file into an error about the input that was written to it.
pub(crate) fn renamed(error: SourceError, path: &Path) -> SourceError {
    match error {
        SourceError::Io { error, .. } => SourceError::io(path, error),
        SourceError::Invalid { reason, hint, .. } => SourceError::invalid(path, reason, hint),
        SourceError::NoCamera { topics, .. } => SourceError::no_camera(path, topics),
        other => other,
    }
}

impl Room {
    /// The system's temporary directory, for files of up to `limit` bytes.
    pub(crate) fn new(limit: u64) -> Self {
        Self { directory: std::env::temp_dir(), limit, space }
    }

    /// Refuses a file of `len` bytes that is above the limit.
    fn check_limit(&self, len: u64) -> Result<(), TemporaryError> {
        match len > self.limit {
            true => Err(TemporaryError::Limit { limit: self.limit }),
            false => Ok(()),
        }
    }

    /// Refuses `more` bytes for which there is no space.
    fn check_space(&self, more: u64) -> Result<(), TemporaryError> {
        match (self.space)(&self.directory).map(Space::usable) {
            Some(usable) if usable < more => {
                let directory = self.directory.clone();
                Err(TemporaryError::Space { directory, usable, needed: more })
            }
            _ => Ok(()),
        }
    }

    /// Writes everything that `reader` returns to a temporary file. `expected` is the expected
    /// number of bytes, if known. If `reader` fails, the file holds the bytes before the error, and
    /// the error is returned with the file.
    ///
    /// # Errors
    /// [`TemporaryError`]; then no file is left.
    pub(crate) fn fill(
        &self,
        reader: &mut dyn Read,
        expected: Option<u64>,
    ) -> Result<(TemporaryFile, Option<io::Error>), TemporaryError> {
        let failed = |error| TemporaryError::Write { directory: self.directory.clone(), error };
        self.check_limit(expected.unwrap_or(0))?;
        self.check_space(expected.unwrap_or(0))?;
        let mut file = TemporaryFile::create(&self.directory).map_err(failed)?;
        let mut buffer = vec![0; 1 << 20];
        // Bytes that may be written before the space is checked again.
        let mut checked = 0;
        loop {
            let read = match reader.read(&mut buffer) {
                Ok(0) => return Ok((file, None)),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Ok((file, Some(error))),
            };
            let bytes = buffer.get(..read).unwrap_or_default();
            let more = bytes.len() as u64;
            self.check_limit(file.len.saturating_add(more))?;
            if checked < more {
                self.check_space(more)?;
                checked = STEP.max(more);
            }
            checked -= more;
            file.file().write_all(bytes).map_err(failed)?;
            file.len += more;
        }
    }
}

/// A temporary file.
#[derive(Debug)]
pub(crate) struct TemporaryFile {
    directory: PathBuf,
    backing: Backing,
    len: u64,
}

#[derive(Debug)]
enum Backing {
    #[cfg(target_os = "linux")]
    Nameless(File),
    Named(NamedTempFile),
}

/// A temporary file that a reader has opened. It is removed when this value is dropped, or before.
#[derive(Debug)]
pub(crate) struct Opened {
    _name: Option<TempPath>,
}

impl TemporaryFile {
    fn create(directory: &Path) -> io::Result<Self> {
        let backing = match nameless(directory) {
            Some(backing) => backing,
            None => Backing::Named(Builder::new().prefix(PREFIX).tempfile_in(directory)?),
        };
        Ok(Self { directory: directory.into(), backing, len: 0 })
    }

    fn file(&mut self) -> &mut File {
        match &mut self.backing {
            #[cfg(target_os = "linux")]
            Backing::Nameless(file) => file,
            Backing::Named(file) => file.as_file_mut(),
        }
    }

    /// Size of the file in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Calls `open` with the path of the file. `open` must keep the file open for as long as it is
    /// needed: on Unix the path is removed before this function returns.
    ///
    /// # Errors
    /// When the file cannot be named.
    pub(crate) fn open<T>(self, open: impl FnOnce(&Path) -> T) -> io::Result<(T, Opened)> {
        let name = match self.backing {
            #[cfg(target_os = "linux")]
            Backing::Nameless(file) => {
                let link = |path: &Path| name(&file, path);
                Builder::new().prefix(PREFIX).make_in(&self.directory, link)?.into_temp_path()
            }
            Backing::Named(file) => file.into_temp_path(),
        };
        let opened = open(&name);
        // On other systems an open file cannot be removed.
        Ok((opened, Opened { _name: (!cfg!(unix)).then_some(name) }))
    }
}

/// A file without a name, where the file system can make one and name it later.
#[cfg(target_os = "linux")]
fn nameless(directory: &Path) -> Option<Backing> {
    use rustix::fs::{Mode, OFlags, open};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = File::from(open(directory, flags, Mode::RUSR | Mode::WUSR).ok()?);
    // The path through which the file is given a name.
    Path::new("/proc/self/fd").exists().then_some(Backing::Nameless(file))
}

#[cfg(not(target_os = "linux"))]
fn nameless(_: &Path) -> Option<Backing> {
    None
}

/// Gives a file without a name the name `path`.
#[cfg(target_os = "linux")]
fn name(file: &File, path: &Path) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD, linkat};
    use std::os::fd::AsRawFd;
    let from = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(linkat(CWD, from, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
}

/// The space of the file system that `directory` is in.
fn space(directory: &Path) -> Option<Space> {
    #[cfg(unix)]
    {
        let found = rustix::fs::statvfs(directory).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Some(Space { total: bytes(found.f_blocks), free: bytes(found.f_bavail) })
    }
    #[cfg(not(unix))]
    {
        let _ = directory;
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn space_is_left_for_others() {
        for (total, free, usable) in [
            (100 * GIB, 50 * GIB, 50 * GIB - RESERVE),
            (100 * GIB, RESERVE, 0),
            (100 * GIB, 0, 0),
            (1000, 500, 450),
            (0, 0, 0),
            (u64::MAX, u64::MAX, u64::MAX - RESERVE),
        ] {
            assert_eq!(Space { total, free }.usable(), usable, "{total} {free}");
        }
    }

    #[test]
    fn limit_and_space() {
        let spacious = |_: &Path| Some(Space { total: 100 * GIB, free: 100 * GIB });
        let narrow = |_: &Path| Some(Space { total: 1000, free: 150 });
        // Bytes that are expected and that come, the limit, the space, part of the refusal.
        let table: &[(Option<u64>, u64, u64, fn(&Path) -> Option<Space>, &str)] = &[
            (None, 5000, 5000, spacious, ""),
            (Some(5000), 5000, 5000, |_| None, ""),
            (None, 5001, 5000, spacious, "more than 5000 bytes"),
            (Some(5001), 0, 5000, |_| None, "more than 5000 bytes"),
            (Some(10), 5001, 5000, |_| None, "more than 5000 bytes"),
            (Some(u64::MAX), 0, 5000, spacious, "more than 5000 bytes"),
            (None, 100, 5000, narrow, ""),
            (Some(101), 0, 5000, narrow, "100 bytes to spare, and 101"),
            (None, 101, 5000, narrow, "100 bytes to spare, and 101"),
        ];
        for (expected, bytes, limit, space, refusal) in table {
            let directory = tempfile::tempdir().unwrap();
            let room = Room { directory: directory.path().into(), limit: *limit, space: *space };
            let filled = room.fill(&mut io::repeat(7).take(*bytes), *expected);
            match filled {
                Ok((file, error)) => {
                    assert!(error.is_none() && refusal.is_empty(), "{refusal}");
                    assert_eq!(file.len(), *bytes);
                    let (read, opened) = file.open(|path| std::fs::read(path).unwrap()).unwrap();
                    assert_eq!(read, vec![7; *bytes as usize]);
                    drop(opened);
                }
                Err(error) => {
                    let text = error.to_string();
                    assert!(!refusal.is_empty() && text.contains(refusal), "{refusal}: {text}");
                }
            }
            assert!(names(directory.path()).is_empty());
        }
    }

    #[test]
    fn space_is_checked_while_it_is_used() {
        /// Falls short once something was written.
        fn space(directory: &Path) -> Option<Space> {
            let written = directory.join("used").exists();
            Some(Space { total: GIB, free: if written { 0 } else { GIB } })
        }
        let directory = tempfile::tempdir().unwrap();
        let room = Room { directory: directory.path().into(), limit: u64::MAX, space };
        let used = directory.path().join("used");
        let mut reader = (&b"start"[..]).chain(Touch(used)).chain(io::repeat(0));
        let error = room.fill(&mut reader, None).unwrap_err();
        assert!(matches!(error, TemporaryError::Space { .. }), "{error}");
        assert_eq!(names(directory.path()), ["used"]);
    }

    /// Makes a file when it is read.
    struct Touch(PathBuf);

    impl Read for Touch {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            std::fs::write(&self.0, "")?;
            Ok(0)
        }
    }

    #[test]
    fn what_came_before_an_error_is_kept() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::InvalidData.into())
            }
        }
        let directory = tempfile::tempdir().unwrap();
        let room = Room { directory: directory.path().into(), ..Room::new(1000) };
        let (file, error) = room.fill(&mut (&b"start"[..]).chain(Broken), None).unwrap();
        assert_eq!(error.unwrap().kind(), io::ErrorKind::InvalidData);
        assert_eq!(file.open(|path| std::fs::read(path).unwrap()).unwrap().0, b"start");
    }

    #[test]
    fn a_directory_that_is_not_there() {
        let room = Room { directory: "/nowhere".into(), ..Room::new(1000) };
        let error = room.fill(&mut io::empty(), None).unwrap_err().to_string();
        assert!(error.contains("/nowhere"), "{error}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn files_have_no_name_but_while_they_are_opened() {
        let directory = tempfile::tempdir().unwrap();
        let room = Room { directory: directory.path().into(), ..Room::new(1000) };
        let (file, _) = room.fill(&mut &b"abc"[..], None).unwrap();
        if matches!(file.backing, Backing::Nameless(_)) {
            assert!(names(directory.path()).is_empty());
        }
        let (mut reader, _opened) = file
            .open(|path| {
                assert_eq!(names(directory.path()).len(), 1);
                File::open(path).unwrap()
            })
            .unwrap();
        assert!(names(directory.path()).is_empty());
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abc");
    }

    #[cfg(unix)]
    #[test]
    fn the_space_of_the_temporary_directory_is_known() {
        let space = space(&std::env::temp_dir()).unwrap();
        assert!(space.total > 0 && space.free <= space.total, "{space:?}");
    }
}
