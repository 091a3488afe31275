use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::{Serialize, Serializer};

/// The location of an output: a file, or another name, such as the URL of an object. Displayed and
/// serialized as text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Location {
    /// A file or directory.
    File(PathBuf),
    /// A URL, a bucket with a key, or any other name.
    Name(String),
}

impl Location {
    /// The path, if this is a file or directory.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Name(_) => None,
        }
    }

    /// This location relative to `directory`, if it is a file below it; otherwise unchanged.
    #[must_use]
    pub fn relative_to(&self, directory: &Path) -> Self {
        match self.path().and_then(|path| path.strip_prefix(directory).ok()) {
            Some(path) => Self::File(path.into()),
            None => self.clone(),
        }
    }
}

impl From<PathBuf> for Location {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl From<&Path> for Location {
    fn from(path: &Path) -> Self {
        Self::File(path.into())
    }
}

impl From<&PathBuf> for Location {
    fn from(path: &PathBuf) -> Self {
        Self::File(path.clone())
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Name(name) => f.pad(name),
        }
    }
}

impl Serialize for Location {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_below_a_directory_become_relative() {
        let name = Location::Name("https://store/a.mp4".into());
        for (location, expected) in [
            (Location::from(Path::new("out/b/a.mp4")), Location::from(Path::new("b/a.mp4"))),
            (Location::from(Path::new("/out/a.mp4")), Location::from(Path::new("/out/a.mp4"))),
            (name.clone(), name),
        ] {
            assert_eq!(location.relative_to(Path::new("out")), expected);
        }
        assert_eq!(Location::Name("s3://b/k".into()).to_string(), "s3://b/k");
        assert_eq!(Location::from(Path::new("a/b")).path(), Some(Path::new("a/b")));
    }
}
