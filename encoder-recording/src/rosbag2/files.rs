//! The files of a recording: the files that `metadata.yaml` lists, and others beside them.
//!
//! No file outside the directory is read, whatever the list or a link names.

use std::collections::HashSet;
use std::io::{
    self,
    ErrorKind::{NotADirectory, NotFound},
};
use std::path::{Component, Path, PathBuf};

use thiserror::Error;

use super::metadata::Metadata;
use crate::signature::{self, ROSBAG2_METADATA};
use crate::{SourceError, Warning, images};

/// How many files are named individually in each kind of warning.
const NAMED: usize = 10;

/// The files of a recording.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// The listed files, in order.
    pub(super) paths: Vec<PathBuf>,
    /// Files that are not listed, in natural order.
    pub(super) unlisted: Vec<PathBuf>,
    /// Listed files that do not exist, each with the text of the warning.
    pub(super) missing: Vec<(String, String)>,
    /// Other listed files that are not read.
    pub(super) lost: Notes,
    pub(super) notes: Notes,
}

/// A file in the directory.
#[derive(Debug, PartialEq)]
pub(crate) struct Inside {
    /// The path as it was listed.
    pub(crate) path: PathBuf,
    /// The path with links resolved.
    pub(crate) real: PathBuf,
}

/// The reason why a file is not read.
#[derive(Debug, Error)]
pub(crate) enum Refused {
    #[error("is not there")]
    Missing,
    /// A link to a file that is not there.
    #[error("{0}")]
    Dangling(String),
    #[error("is not there, only a DVC pointer to it; fetch it: dvc pull")]
    Dvc,
    #[error("is outside the directory of the recording")]
    Outside,
    #[error("is a link to {}, outside the directory of the recording", .0.display())]
    Link(PathBuf),
    #[error("is not a file")]
    NoFile,
    #[error("cannot be read ({0})")]
    Io(#[from] io::Error),
}

/// Finds a file by its path in `directory`. Links are followed as long as they stay inside.
pub(crate) fn inside(directory: &Path, path: &Path) -> Result<Inside, Refused> {
    let real_path = |path: &Path| match path.canonicalize() {
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => {
            Err(match signature::dangling(path) {
                Some(text) => Refused::Dangling(text),
                None if signature::has_dvc_pointer(path) => Refused::Dvc,
                None => Refused::Missing,
            })
        }
        other => Ok(other?),
    };
    let path = directory.join(relative(path).ok_or(Refused::Outside)?);
    let real = real_path(&path)?;
    if !real.starts_with(real_path(directory)?) {
        return Err(Refused::Link(real));
    }
    match real.is_file() {
        true => Ok(Inside { path, real }),
        false => Err(Refused::NoFile),
    }
}

/// A relative path without `.`; `None` where it is absolute or leads out of its directory.
fn relative(path: &Path) -> Option<PathBuf> {
    let mut depth = 0_u32;
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => continue,
            Component::Normal(_) => depth += 1,
            Component::ParentDir => depth = depth.checked_sub(1)?,
            Component::RootDir | Component::Prefix(_) => return None,
        }
        // `..` is kept: after a link it leads elsewhere.
        plain.push(component);
    }
    (depth > 0).then_some(plain)
}

/// Whether a path that was perhaps written on Windows is absolute or leads out of its directory.
fn leads_out(listed: &str) -> bool {
    let unified = listed.replace('\\', "/");
    let has_drive =
        matches!(unified.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic());
    has_drive || relative(Path::new(&unified)).is_none()
}

/// The last part of a path that was perhaps written on Windows.
fn last_part(listed: &str) -> Option<&str> {
    listed.rsplit(['/', '\\']).next().filter(|part| !["", ".", ".."].contains(part))
}

/// A file by its listed path, or the same file decompressed or compressed in the meantime.
fn find(directory: &Path, listed: &Path) -> Result<Inside, Refused> {
    let name = listed.file_name().unwrap_or_default().to_string_lossy();
    let unpacked = signature::unpacked_name(&name);
    let candidates = match unpacked == name {
        true => {
            let packed = signature::PACKED_ENDINGS.map(|ending| format!("{name}{ending}"));
            let packed = packed.map(|name| listed.with_file_name(name));
            Vec::from_iter([listed.to_owned()].into_iter().chain(packed))
        }
        false => vec![listed.with_file_name(unpacked), listed.to_owned()],
    };
    let mut refused = Refused::Missing;
    for path in candidates {
        match inside(directory, &path) {
            Ok(file) => return Ok(file),
            Err(Refused::Missing) => {}
            Err(other) => refused = other,
        }
    }
    Err(refused)
}

/// The path of the decompressed file: two files with the same decompressed path are one recording.
pub(crate) fn identity(file: &Inside) -> PathBuf {
    let name = file.real.file_name().unwrap_or_default().to_string_lossy();
    file.real.with_file_name(signature::unpacked_name(&name))
}

/// The decompressed paths of the files that `metadata.yaml` lists, as far as they are there.
pub(crate) fn listed_files(directory: &Path, metadata: &Metadata) -> Vec<PathBuf> {
    let names = metadata.relative_file_paths.iter();
    names.filter_map(|name| find(directory, Path::new(name)).ok().as_ref().map(identity)).collect()
}

/// Finds the files that `metadata.yaml` lists.
///
/// Paths are relative to the directory. The first versions of rosbag2 wrote them with the
/// directory's name in front, or absolute. For such a path, and for a path that leads out of the
/// directory, its last part is searched for in the directory.
///
/// # Errors
/// [`SourceError`] when the directory cannot be read.
pub(super) fn listed(directory: &Path, names: &[String]) -> Result<Files, SourceError> {
    let (mut paths, mut unlisted, mut missing) = (Vec::new(), Vec::new(), Vec::new());
    let mut known = HashSet::new();
    let (mut lost, mut notes) = (Notes::default(), Notes::default());
    for listed in names {
        let mut found = find(directory, Path::new(listed));
        if matches!(found, Err(Refused::Missing | Refused::Outside))
            && let Some(last) = last_part(listed)
        {
            let out = leads_out(listed);
            match find(directory, Path::new(last)) {
                Err(Refused::Missing) if out => found = Err(Refused::Outside),
                Ok(file) if out => {
                    notes.push(format!(
                        "{listed}, listed in {ROSBAG2_METADATA}, is outside the directory of the \
                         recording: {last} in the directory is read instead"
                    ));
                    found = Ok(file);
                }
                other => found = other,
            }
        }
        match found {
            Err(refused) => {
                let text = format!("{listed}, listed in {ROSBAG2_METADATA}, {refused}");
                match refused {
                    Refused::Missing => missing.push((listed.clone(), text)),
                    _ => lost.push(text),
                }
            }
            Ok(file) if known.insert(identity(&file)) => paths.push(file.path),
            Ok(_) => notes.push(format!(
                "{listed} is listed more than once in {ROSBAG2_METADATA}: it is read once"
            )),
        }
    }
    let listed: HashSet<_> = names.iter().filter_map(|listed| last_part(listed)).collect();
    for path in images::entries(directory)? {
        let name = path.file_name().unwrap_or_default();
        let text = name.to_string_lossy();
        // Directories are searched for further recordings.
        if !signature::is_recording_name(&text) || path.is_dir() {
            continue;
        }
        match inside(directory, Path::new(name)) {
            Ok(file) if known.insert(identity(&file)) => unlisted.push(file.path),
            Err(refused) if !listed.contains(&*text) => {
                lost.push(format!("{text}, not listed in {ROSBAG2_METADATA}, {refused}"));
            }
            _ => {}
        }
    }
    Ok(Files { paths, unlisted, missing, lost, notes })
}

/// Warnings of one kind; the first of them are kept.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    texts: Vec<String>,
    others: u64,
}

impl Notes {
    pub(crate) fn push(&mut self, text: String) {
        match self.texts.len() < NAMED {
            true => self.texts.push(text),
            false => self.others += 1,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    pub(crate) fn into_warnings(mut self, loss: bool) -> Vec<Warning> {
        if self.others > 0 {
            self.texts.push(format!("and {} more such files", self.others));
        }
        self.texts.into_iter().map(|text| Warning { text, loss }).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_stay_inside() {
        for (path, expected) in [
            ("x.db3", Some("x.db3")),
            ("./x.db3", Some("x.db3")),
            ("d/./x.db3", Some("d/x.db3")),
            ("d//x.db3", Some("d/x.db3")),
            ("d/../x.db3", Some("d/../x.db3")),
            ("...", Some("...")),
            ("", None),
            (".", None),
            ("d/..", None),
            ("..", None),
            ("../x.db3", None),
            ("d/../../d/x.db3", None),
            ("/x.db3", None),
            ("/", None),
        ] {
            assert_eq!(relative(Path::new(path)).as_deref(), expected.map(Path::new), "{path}");
        }
    }

    #[test]
    fn paths_that_lead_out_on_any_system() {
        for (path, out, last) in [
            ("x.db3", false, Some("x.db3")),
            ("d/x.db3", false, Some("x.db3")),
            (r"d\x.db3", false, Some("x.db3")),
            (r".\x.db3", false, Some("x.db3")),
            ("../x.db3", true, Some("x.db3")),
            (r"..\x.db3", true, Some("x.db3")),
            (r"d\..\..\x.db3", true, Some("x.db3")),
            ("/rec/x.db3", true, Some("x.db3")),
            (r"C:\rec\x.db3", true, Some("x.db3")),
            ("c:x.db3", true, Some("c:x.db3")),
            (r"\\host\rec\x.db3", true, Some("x.db3")),
            ("d/", false, None),
            ("..", true, None),
            ("", true, None),
        ] {
            assert_eq!((leads_out(path), last_part(path)), (out, last), "{path}");
        }
    }

    /// A directory with these files (`a -> b` is a link), beside it `other/x_9.db3`.
    fn directory(files: &[&str]) -> (tempfile::TempDir, PathBuf) {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("rec");
        let other = parent.path().join("other");
        for directory in [&directory, &other] {
            std::fs::create_dir(directory).unwrap();
        }
        std::fs::write(other.join("x_9.db3"), "").unwrap();
        for file in files {
            let (name, target) = file.split_once(" -> ").unwrap_or((file, ""));
            let path = directory.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            match target {
                "" => std::fs::write(path, "").unwrap(),
                #[cfg(unix)]
                target => std::os::unix::fs::symlink(target, path).unwrap(),
                #[cfg(not(unix))]
                _ => unreachable!("links are tested on Unix"),
            }
        }
        (parent, directory)
    }

    /// The files that were found, relative to the directory, and parts of the warnings. A file that
    /// is not listed is a note.
    fn check(found: Files, directory: &Path, paths: &[&str], losses: &[&str], notes: &[&str]) {
        let relative = |path: &PathBuf| {
            path.strip_prefix(directory).unwrap().to_str().unwrap().replace('\\', "/")
        };
        assert_eq!(found.paths.iter().map(relative).collect::<Vec<_>>(), paths, "{found:?}");
        let Files { unlisted, missing, mut lost, notes: mut noted, .. } = found;
        unlisted.iter().for_each(|path| noted.push(format!("{} is not listed", relative(path))));
        missing.into_iter().for_each(|(_, text)| lost.push(text));
        let mut found = lost.into_warnings(true);
        found.extend(noted.into_warnings(false));
        let of = |loss| found.iter().filter(move |w| w.loss == loss);
        for (parts, loss) in [(losses, true), (notes, false)] {
            assert_eq!(of(loss).count(), parts.len(), "{found:?}");
            for (part, warning) in parts.iter().zip(of(loss)) {
                assert!(warning.text.contains(part), "{part}: {found:?}");
            }
        }
    }

    #[test]
    fn listed_files() {
        // Files of the directory, what is listed, what is read, losses, notes.
        let table: &[(&[&str], &[&str], &[&str], &[&str], &[&str])] = &[
            (&["x_0.db3"], &["x_0.db3"], &["x_0.db3"], &[], &[]),
            (&["x_0.db3"], &["./x_0.db3"], &["x_0.db3"], &[], &[]),
            // With the directory's name in front, as the first versions wrote it.
            (&["x_0.db3"], &["rec/x_0.db3"], &["x_0.db3"], &[], &[]),
            (&["x_0.db3"], &[r"rec\x_0.db3"], &["x_0.db3"], &[], &[]),
            (&["d/x_0.db3"], &["d/x_0.db3"], &["d/x_0.db3"], &[], &[]),
            (&["d/y", "x_0.db3"], &["d/../x_0.db3"], &["d/../x_0.db3"], &[], &[]),
            (
                &["x_0.db3"],
                &["x_1.db3"],
                &[],
                &["x_1.db3, listed in metadata.yaml, is not"],
                &["x_0.db3 is not listed"],
            ),
            // A moved recording.
            (&["x_0.db3"], &["/rec/x_0.db3"], &["x_0.db3"], &[], &["/rec/x_0.db3, listed"]),
            (&["x_0.db3"], &[r"C:\r\x_0.db3"], &["x_0.db3"], &[], &[r"C:\r\x_0.db3, listed"]),
            (
                &[],
                &["../other/x_9.db3"],
                &[],
                &["../other/x_9.db3, listed in metadata.yaml, is outside"],
                &[],
            ),
            (&["d/y"], &["d/../../other/x_9.db3"], &[], &["is outside"], &[]),
            (
                &[],
                &["/etc/hostname"],
                &[],
                &["/etc/hostname, listed in metadata.yaml, is outside"],
                &[],
            ),
            (&[], &[r"..\other\x_9.db3"], &[], &["is outside"], &[]),
            (&[], &["", "..", "/", "a\0b"], &[], &["outside", "outside", "outside", "a\0b"], &[]),
            (
                &["d.db3/y"],
                &["d.db3"],
                &[],
                &["d.db3, listed in metadata.yaml, is not a file"],
                &[],
            ),
            // Compressed or decompressed by hand.
            (&["x.db3"], &["x.db3.zstd"], &["x.db3"], &[], &[]),
            (&["x.db3", "x.db3.zstd"], &["x.db3.zstd"], &["x.db3"], &[], &[]),
            (&["x.mcap.zst"], &["x.mcap"], &["x.mcap.zst"], &[], &[]),
            (&["x_0.db3"], &["x_0.db3", "./x_0.db3"], &["x_0.db3"], &[], &["more than once"]),
            (
                &["x_0.db3", "x_1.db3.zstd"],
                &["x_0.db3"],
                &["x_0.db3"],
                &[],
                &["x_1.db3.zstd is not listed"],
            ),
        ];
        for (files, names, paths, losses, notes) in table {
            let (_parent, directory) = directory(files);
            let names: Vec<_> = names.iter().map(|name| name.to_string()).collect();
            check(listed(&directory, &names).unwrap(), &directory, paths, losses, notes);
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_must_stay_inside() {
        let table: &[(&[&str], &[&str], &[&str], &[&str])] = &[
            (&["data/x_0.db3", "x_0.db3 -> data/x_0.db3"], &["x_0.db3"], &["x_0.db3"], &[]),
            (&["data/x_0.db3", "d -> data"], &["d/x_0.db3"], &["d/x_0.db3"], &[]),
            (
                &["x_9.db3 -> ../other/x_9.db3"],
                &["x_9.db3"],
                &[],
                &["x_9.db3, listed in metadata.yaml, is a link to"],
            ),
            (&["d -> ../other"], &["d/x_9.db3"], &[], &["is a link to"]),
            // Behind a link, `..` leads elsewhere.
            (&["d -> ../other"], &["d/../other/x_9.db3"], &[], &["is a link to"]),
            (&["x_1.db3 -> nowhere"], &["x_1.db3"], &[], &["is not there"]),
        ];
        for (files, names, paths, losses) in table {
            let (_parent, directory) = directory(files);
            let names: Vec<_> = names.iter().map(|name| name.to_string()).collect();
            check(listed(&directory, &names).unwrap(), &directory, paths, losses, &[]);
        }
        // The directory itself may be a link.
        let (parent, target) = directory(&["x_0.db3"]);
        let link = parent.path().join("link");
        std::os::unix::fs::symlink(target, &link).unwrap();
        check(listed(&link, &["x_0.db3".into()]).unwrap(), &link, &["x_0.db3"], &[], &[]);
    }

    #[test]
    fn long_lists_have_short_warnings() {
        let mut notes = Notes::default();
        (0..1000).for_each(|n| notes.push(format!("x_{n}.db3")));
        let warnings = notes.into_warnings(true);
        assert_eq!(warnings.len(), NAMED + 1);
        assert!(warnings[NAMED].text.contains("990 more"), "{warnings:?}");
    }
}
