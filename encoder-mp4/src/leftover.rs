use std::{
    io,
    path::{Path, PathBuf},
};

use super::part_file::is_being_written;

/// A file that a run writes under another name than its final name. It is left if the run is
/// killed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Leftover {
    /// The file.
    pub path: PathBuf,
    /// A hidden file, for a moment: all of its frames are in a part file as well.
    pub is_temporary: bool,
}

impl Leftover {
    /// The part files and temporary files in a directory, in the order of their names. Files that a
    /// program is writing are left out.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn find(directory: &Path) -> io::Result<Vec<Self>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let path = entry.path();
            if name.ends_with(".part") && entry.file_type()?.is_file() && !is_being_written(&path) {
                found.push(Self { path, is_temporary: name.starts_with('.') });
            }
        }
        found.sort();
        Ok(found)
    }

    /// As [`find`](Self::find), also in the directories below. Symbolic links are not followed.
    ///
    /// # Errors
    /// When the directory, or a directory below it, cannot be read.
    pub fn find_below(directory: &Path) -> io::Result<Vec<Self>> {
        let mut found = Self::find(directory)?;
        let mut directories = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                directories.push(entry.path());
            }
        }
        directories.sort();
        for directory in directories {
            found.extend(Self::find_below(&directory)?);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{
        super::{output::temporary, part_file::PartFile},
        *,
    };

    #[test]
    fn files_of_killed_runs_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::create_dir_all(path("drive/b.part")).unwrap();
        let files = ["a.mp4.part", ".a.mp4.x7.part", "a.mp4", "part", "drive/c.mp4.2.part"];
        files.iter().for_each(|name| std::fs::write(path(name), "x").unwrap());
        let alive = [PartFile::beside(&path("d.mp4")).unwrap()];
        let hidden = temporary(&path("e.mp4")).unwrap();
        let names = |found: Vec<Leftover>| -> Vec<_> {
            found.into_iter().map(|found| (found.path, found.is_temporary)).collect()
        };
        let expected = [(path(".a.mp4.x7.part"), true), (path("a.mp4.part"), false)];
        if cfg!(unix) {
            assert_eq!(names(Leftover::find(directory.path()).unwrap()), expected);
            let below = [&expected[..], &[(path("drive/c.mp4.2.part"), false)]].concat();
            assert_eq!(names(Leftover::find_below(directory.path()).unwrap()), below);
        }
        drop((alive, hidden));
        assert_eq!(names(Leftover::find(directory.path()).unwrap()), expected);
        assert!(Leftover::find(&path("nowhere")).is_err());
    }
}
