use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use tempfile::{NamedTempFile, TempPath};

use super::SinkError;

/// A file that gets its final name only when it is finished.
///
/// It is written under a temporary name in the same directory, synced, and renamed. A file that is
/// dropped before [`commit`](Self::commit) is removed.
#[derive(Debug)]
pub struct OutputFile {
    path: PathBuf,
    overwrite: bool,
    file: BufWriter<NamedTempFile>,
}

impl OutputFile {
    /// Creates the temporary file; `path` is its final name.
    ///
    /// # Errors
    /// When `path` exists and may not be overwritten, or nothing can be written there.
    pub fn create(path: &Path, overwrite: bool) -> Result<Self, SinkError> {
        check_free(path, overwrite)?;
        let file = temporary(path).map_err(SinkError::io(path))?;
        Ok(Self { path: path.into(), overwrite, file: BufWriter::with_capacity(1 << 18, file) })
    }

    /// The final name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Syncs the file and renames it.
    ///
    /// # Errors
    /// When the disk is full, or the name was created in the meantime.
    pub fn commit(self) -> Result<PathBuf, SinkError> {
        let path = self.path;
        let error = SinkError::io(&path);
        let file = self.file.into_inner().map_err(|e| error(e.into_error()))?;
        file.as_file().sync_all().map_err(&error)?;
        let persisted =
            if self.overwrite { file.persist(&path) } else { file.persist_noclobber(&path) };
        persisted.map_err(|e| error(e.error))?;
        sync_directory(&path);
        drop(error);
        Ok(path)
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Checks that `path` does not exist, or is a file that may be overwritten.
///
/// # Errors
/// When `path` exists and may not be overwritten, or is a directory.
pub(super) fn check_free(path: &Path, overwrite: bool) -> Result<(), SinkError> {
    let Ok(found) = path.symlink_metadata() else { return Ok(()) };
    if found.is_dir() {
        let error = io::Error::new(io::ErrorKind::IsADirectory, "a directory has this name");
        return Err(SinkError::io(path)(error));
    }
    if overwrite {
        return Ok(());
    }
    let error = io::Error::new(io::ErrorKind::AlreadyExists, "the file exists");
    Err(SinkError::io(path)(error))
}

/// Renames a finished file to its final name.
///
/// # Errors
/// When the name exists and may not be overwritten, or the operating system returns an error. The
/// file then keeps its old name.
pub(super) fn give_name(file: &Path, name: &Path, overwrite: bool) -> io::Result<()> {
    let file = TempPath::try_from_path(file)?;
    let named = if overwrite { file.persist(name) } else { file.persist_noclobber(name) };
    named.map_err(|e| match e.path.keep() {
        Ok(_) => e.error,
        Err(worse) => worse.error,
    })?;
    sync_directory(name);
    Ok(())
}

/// Syncs the directory of a file, so that its name is on the disk. Not every system supports that.
pub(super) fn sync_directory(path: &Path) {
    if let Ok(dir) = File::open(directory(path)) {
        let _ = dir.sync_all();
    }
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A hidden file beside `path`, removed when it is dropped.
///
/// # Errors
/// When nothing can be written there.
pub(super) fn temporary(path: &Path) -> io::Result<NamedTempFile> {
    let mut prefix = std::ffi::OsString::from(".");
    prefix.push(path.file_name().unwrap_or_default());
    prefix.push(".");
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(".part");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // The same permissions as any other new file, by the umask.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let file = builder.tempfile_in(directory(path))?;
    // The lock marks a file that is being written, as that of a part file does.
    if cfg!(unix) {
        let _ = file.as_file().try_lock();
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn entries(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_only_when_it_is_finished() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.mp4");
        let mut file = OutputFile::create(&path, false).unwrap();
        file.write_all(b"half").unwrap();
        assert!(!path.exists());
        drop(file);
        assert_eq!(entries(dir.path()), Vec::<String>::new());

        let mut file = OutputFile::create(&path, false).unwrap();
        file.write_all(b"whole").unwrap();
        assert_eq!(file.commit().unwrap(), path);
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(entries(dir.path()), ["a.mp4"]);
    }

    #[test]
    fn a_file_that_exists_is_replaced_only_with_overwrite() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.mp4");
        let late = OutputFile::create(&path, false).unwrap();
        std::fs::write(&path, "old").unwrap();
        for error in [OutputFile::create(&path, false).unwrap_err(), late.commit().unwrap_err()] {
            let kind = error.io_error().map(io::Error::kind);
            assert_eq!(kind, Some(io::ErrorKind::AlreadyExists), "{error}");
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        let mut file = OutputFile::create(&path, true).unwrap();
        file.write_all(b"new").unwrap();
        file.commit().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(entries(dir.path()), ["a.mp4"]);
    }

    #[test]
    fn a_directory_under_the_name_is_noticed_before_anything_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.mp4");
        std::fs::create_dir(&path).unwrap();
        for overwrite in [false, true] {
            let error = OutputFile::create(&path, overwrite).unwrap_err();
            let kind = error.io_error().map(io::Error::kind);
            assert_eq!(kind, Some(io::ErrorKind::IsADirectory), "{error}");
        }
        assert_eq!(entries(dir.path()), ["a.mp4"]);
    }

    #[test]
    fn a_directory_that_does_not_exist_is_named_in_the_error() {
        let error = OutputFile::create(Path::new("/nowhere/at/all.mp4"), false).unwrap_err();
        assert!(error.to_string().contains("/nowhere/at/all.mp4"), "{error}");
    }
}
