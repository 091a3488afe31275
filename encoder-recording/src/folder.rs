//! Which recordings are in a directory, and what in it is not read.

mod reports;

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::filter::{TopicFilter, stream_name};
use crate::images::{self, entries};
use crate::rosbag2::{
    Description, Inside, Metadata, Notes, Opener, PartsSource, Planned, Refused, identity, inside,
    listed_files,
};
use crate::signature::{self, ROSBAG2_METADATA};
use crate::survey::{Group, Survey, common_name, group, stem};
use crate::{Source, SourceError, SourceOptions, Warning, is_pipe};

/// How deep directories are searched.
const DEPTH: usize = 32;
/// How many recordings are named in a warning.
const NAMED: usize = 10;

/// A recording in a folder.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// A name that is unique in the folder, as a relative path.
    pub name: PathBuf,
    pub place: Place,
    pub warnings: Vec<Warning>,
}

/// Where a recording is.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// A rosbag2 directory, or a directory of pictures.
    Directory(PathBuf),
    /// Files in a directory, in order.
    Files(PathBuf, Vec<Planned>),
}

impl Place {
    /// Whether the recording is the directory at `path` itself.
    pub(crate) fn is(&self, path: &Path) -> bool {
        matches!(self, Self::Directory(directory) if directory == path)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => path.display().fmt(f),
            Self::Files(directory, files) => {
                let name = |file: Option<&Planned>| {
                    let path = file.map(|file| file.path.as_path()).unwrap_or(Path::new(""));
                    path.strip_prefix(directory).unwrap_or(path).display().to_string()
                };
                let first = directory.join(name(files.first()));
                match files.len() {
                    0 | 1 => first.display().fmt(f),
                    _ => write!(f, "{} to {}", first.display(), name(files.last())),
                }
            }
        }
    }
}

/// Opens files of a folder as one recording.
///
/// # Errors
/// [`SourceError`] when none of the files can be read.
pub(crate) fn open(
    directory: &Path,
    files: &[Planned],
    warnings: &[Warning],
    options: &SourceOptions,
    opener: Opener,
) -> Result<Box<dyn Source>, SourceError> {
    let path = match files {
        // The name of the file in messages is that of the recording.
        [one] if warnings.is_empty() => one.path.clone(),
        _ => directory.to_owned(),
    };
    let description = Description { path, warnings: warnings.to_vec(), ..Default::default() };
    PartsSource::open(description, files.to_vec(), options, opener)
}

/// Finds the recordings in a directory and in the directories below it. A directory of pictures, and
/// a directory without recordings, is returned as it is. What is not read is named in the warnings
/// of the first recording.
///
/// # Errors
/// [`SourceError`] when the directory cannot be read, or there are recordings in it and none of
/// them can be read.
pub(crate) fn find(
    root: &Path,
    options: &SourceOptions,
    opener: &Opener,
) -> Result<Vec<Found>, SourceError> {
    let real = root.canonicalize().map_err(|error| SourceError::io(root, error))?;
    let mut search = Search {
        root,
        options,
        opener,
        found: Vec::new(),
        without_cameras: Vec::new(),
        unsurveyed: Vec::new(),
        lost: Notes::default(),
        notes: Vec::new(),
        unread: Notes::default(),
        alone: Notes::default(),
        pictures: Vec::new(),
        misnamed: Vec::new(),
        error: None,
        known: HashSet::new(),
        visited: HashSet::from([real.clone()]),
        real,
        has_recordings: false,
        is_pictures: false,
    };
    search.directory(root, DEPTH)?;
    search.finish()
}

/// A search for recordings.
struct Search<'a> {
    root: &'a Path,
    /// The root without links.
    real: PathBuf,
    options: &'a SourceOptions,
    opener: &'a Opener,
    found: Vec<Found>,
    /// Files that have no selected camera topic.
    without_cameras: Vec<Survey>,
    /// Compressed files that are each the only file of their directory.
    unsurveyed: Vec<PathBuf>,
    lost: Notes,
    /// How files are grouped.
    notes: Vec<String>,
    /// What is not read, and is no loss.
    unread: Notes,
    /// Files that are read only if they are named themselves.
    alone: Notes,
    pictures: Vec<Pictures>,
    /// Files that are recordings in spite of their names.
    misnamed: Vec<PathBuf>,
    /// The error of the first file or directory that cannot be read.
    error: Option<SourceError>,
    /// Files that were found, decompressed and without links.
    known: HashSet<PathBuf>,
    /// Directories that were searched, without links.
    visited: HashSet<PathBuf>,
    /// There are recordings, perhaps none that can be read.
    has_recordings: bool,
    /// The root has pictures and no recordings of its own.
    is_pictures: bool,
}

/// A directory of pictures.
struct Pictures {
    directory: PathBuf,
    /// There are recordings in it or below it.
    is_mixed: bool,
    /// What is lost where recordings are read: the directory is linked, and is not searched.
    link: Option<String>,
}

/// What is in a directory, without the directories below it.
#[derive(Default)]
struct Contents {
    files: Vec<Inside>,
    directories: Vec<PathBuf>,
    /// Paths of all recordings, also of those that are not read.
    recordings: Vec<PathBuf>,
    has_pictures: bool,
}

impl Search<'_> {
    fn directory(&mut self, directory: &Path, depth: usize) -> Result<(), SourceError> {
        let before = self.found.len();
        let (mut is_described, mut problem) = (false, None);
        if signature::has_rosbag2_metadata(directory) {
            match Metadata::read(directory) {
                Ok(metadata) => {
                    is_described = true;
                    let place = Place::Directory(directory.into());
                    let name = self.relative(directory);
                    self.found.push(Found { name, place, warnings: Vec::new() });
                    self.known.extend(listed_files(directory, &metadata));
                }
                Err(reason) => problem = Some(format!("{ROSBAG2_METADATA} {reason}")),
            }
        }
        let Contents { files, directories, recordings, has_pictures } =
            self.contents(directory, is_described)?;
        let mut has_recordings = is_described || !recordings.is_empty();
        if let Some(text) = problem.as_ref().filter(|_| !has_recordings) {
            self.lost.push(format!("{text}, and no recording is beside it"));
            has_recordings = true;
        }
        self.has_recordings |= has_recordings;
        self.files(directory, files, &recordings, problem);
        for directory in directories {
            self.below(&directory, depth);
        }
        if has_pictures {
            self.is_pictures |= directory == self.root && !has_recordings;
            let is_mixed = has_recordings || self.found.len() > before;
            self.pictures.push(Pictures { directory: directory.into(), is_mixed, link: None });
        }
        Ok(())
    }

    /// Lists a directory. If `metadata.yaml` describes it, its files are not listed.
    fn contents(&mut self, directory: &Path, is_described: bool) -> Result<Contents, SourceError> {
        let mut contents = Contents::default();
        let mut entries = entries(directory)?;
        // A directory or a file has its own name, not that of a link to it.
        entries.sort_by_cached_key(|path| path.is_symlink());
        self.name_alone(&entries)?;
        for path in entries {
            if path.is_dir() {
                contents.directories.push(path);
                continue;
            }
            contents.has_pictures |= images::format(&path).is_some() && !is_pipe(&path);
            let path = match path.extension() {
                // A DVC pointer may be all that is there of a recording.
                Some(extension) if extension == "dvc" => path.with_extension(""),
                _ => path,
            };
            match is_described {
                true => self.other_file(path),
                false => self.file(path, &mut contents),
            }
        }
        Ok(contents)
    }

    /// Adds a file of a directory if it is a recording.
    fn file(&mut self, path: PathBuf, contents: &mut Contents) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_recording = signature::is_recording_name(&name);
        // A link or a DVC pointer to nothing may stand for a directory of recordings.
        if !is_recording && path.extension().is_some() {
            self.other_file(path);
            return;
        }
        let shown = self.relative(&path);
        match inside(self.root, &shown) {
            Ok(_) if !is_recording => self.other_file(path),
            // The same file, compressed, comes after the decompressed one.
            Ok(file) => {
                contents.recordings.push(path);
                if self.known.insert(identity(&file)) {
                    contents.files.push(file);
                }
            }
            Err(Refused::Link(_) | Refused::NoFile) if !is_recording => {}
            // Only a pointer has the name of a directory.
            Err(Refused::NoFile) if path.is_dir() => {}
            Err(refused) => {
                if is_recording {
                    contents.recordings.push(path);
                }
                self.lost.push(format!("{} {refused}", shown.display()));
            }
        }
    }

    /// Keeps a file that is not called a recording if it is one.
    fn other_file(&mut self, path: PathBuf) {
        if signature::is_misnamed_recording(&path) {
            self.misnamed.push(path);
        }
    }

    /// Remembers the files that are read only if they are named themselves, unless the topics leave
    /// them out. Videos that the report of an earlier run names are none of them.
    fn name_alone(&mut self, entries: &[PathBuf]) -> Result<(), SourceError> {
        let filter = TopicFilter::new(self.root, self.options)?;
        let is_alone = |path: &&PathBuf| {
            let name = stream_name(path);
            (path.is_file() || signature::dangling(path).is_some())
                && filter.matches(&name)
                && signature::is_video_name(path)
        };
        let mut made = None;
        for path in entries.iter().filter(is_alone) {
            let made = made.get_or_insert_with(|| reports::videos(entries));
            if !made.contains(&stream_name(path)) {
                self.alone.push(format!(
                    "{} is not read: a file of this kind is converted only if it is named itself",
                    self.relative(path).display()
                ));
            }
        }
        Ok(())
    }

    /// Searches a directory below the root.
    fn below(&mut self, directory: &Path, depth: usize) {
        let shown = self.relative(directory);
        let shown = shown.display();
        match directory.canonicalize() {
            Err(error) => self.lost.push(format!("{shown} cannot be read ({error})")),
            // A loop of links, or the directory itself.
            Ok(real) if self.visited.contains(&real) => {}
            Ok(real) if !real.starts_with(&self.real) => {
                let text = format!(
                    "{shown} is a link to {}, outside the directory, and is not searched: give \
                     that directory as well",
                    real.display()
                );
                let is_recording =
                    |path: &PathBuf| signature::is_recording_name(&stream_name(path));
                match entries(directory) {
                    // A directory of pictures may be put together by links.
                    Ok(paths)
                        if paths.iter().any(|path| images::format(path).is_some())
                            && !paths.iter().any(is_recording)
                            && !signature::has_rosbag2_metadata(directory) =>
                    {
                        let (directory, link) = (directory.into(), Some(text));
                        self.pictures.push(Pictures { directory, is_mixed: false, link });
                    }
                    _ => self.lost.push(text),
                }
            }
            Ok(_) if depth == 0 => {
                self.lost.push(format!(
                    "{shown} is not searched, because it is more than {DEPTH} directories deep"
                ));
            }
            Ok(real) => {
                self.visited.insert(real);
                if let Err(error) = self.directory(directory, depth - 1) {
                    self.lost.push(format!("{error}; the directory is left out"));
                    self.error.get_or_insert(error);
                }
            }
        }
    }

    /// Groups the files of a directory into recordings. `present`: all recordings in the directory.
    /// `problem`: why `metadata.yaml` does not describe them.
    fn files(
        &mut self,
        directory: &Path,
        files: Vec<Inside>,
        present: &[PathBuf],
        problem: Option<String>,
    ) {
        let mut surveys = Vec::new();
        let is_alone = files.len() == 1;
        for Inside { path, .. } in files {
            if is_alone && signature::has_packed_name(&path) {
                // It would be decompressed once more, and there is nothing to compare it with.
                self.unsurveyed.push(path.clone());
                surveys.push(Survey { path, ..Survey::default() });
                continue;
            }
            surveys.extend(self.survey(&path));
        }
        let (groups, reason) = group(surveys, present);
        let mut prefix = problem.map(|text| format!("{text}; ")).unwrap_or_default();
        if groups.len() > 1 {
            let text = format!(
                "{prefix}{} recordings are in {}, each is converted on its own: {}",
                groups.len(),
                directory.display(),
                reason.unwrap_or_default()
            );
            self.notes.push(text);
            prefix.clear();
        }
        for Group { files, missing } in groups {
            let mut warnings: Vec<_> =
                missing.into_iter().map(|text| Warning { text, loss: true }).collect();
            let names = files.iter().take(NAMED).filter_map(|file| file.path.file_name());
            let names: Vec<_> = names.map(|name| name.to_string_lossy()).collect();
            let names =
                format!("{}{}", names.join(", "), if files.len() > NAMED { " …" } else { "" });
            let text = match files.len() {
                1 if prefix.is_empty() => None,
                1 => Some(format!("{prefix}the file in the directory is read: {names}")),
                count => Some(format!(
                    "{prefix}{count} files are read as one recording, because each continues the \
                     one before it: {names}"
                )),
            };
            warnings.extend(text.map(|text| Warning { text, loss: false }));
            let name = self.relative(&directory.join(common_name(&files)));
            let planned = |file: Survey| Planned { path: file.path, span: file.span };
            let files = files.into_iter().map(planned).collect();
            self.found.push(Found { name, place: Place::Files(directory.into(), files), warnings });
        }
    }

    /// Surveys a file; `None` if it is left out.
    fn survey(&mut self, path: &Path) -> Option<Survey> {
        match self.opener.survey(path, self.options) {
            Ok(survey) if survey.cameras.is_empty() && !self.options.all_messages => {
                self.without_cameras.push(survey);
                None
            }
            Ok(survey) => Some(survey),
            Err(error) => {
                self.lost.push(format!("{error}; the file is left out"));
                self.error.get_or_insert(error);
                None
            }
        }
    }

    /// Leaves out the files that were not surveyed, if they turn out to have no camera. The only
    /// recording below the root need not be surveyed.
    fn survey_packed(&mut self) {
        let is_only = self.found.len() == 1 && self.without_cameras.is_empty();
        if is_only && self.pictures.is_empty() {
            return;
        }
        for path in std::mem::take(&mut self.unsurveyed) {
            if self.survey(&path).is_none() {
                let has = |files: &[Planned]| files.iter().any(|file| file.path == path);
                self.found
                    .retain(|found| !matches!(&found.place, Place::Files(_, files) if has(files)));
            }
        }
    }

    fn relative(&self, path: &Path) -> PathBuf {
        path.strip_prefix(self.root).unwrap_or(path).to_owned()
    }

    fn finish(mut self) -> Result<Vec<Found>, SourceError> {
        self.survey_packed();
        let has_camera = !self.found.is_empty();
        let has_pictures = self.pictures.iter().any(|pictures| self.is_camera(pictures));
        let is_empty = self.without_cameras.is_empty() && self.lost.is_empty();
        let alone = std::mem::take(&mut self.alone).into_warnings(false);
        let mut place = None;
        match () {
            () if has_camera => {
                for file in &self.without_cameras {
                    if let Some(damage) = &file.damage {
                        self.lost.push(format!(
                            "{}: {damage}; no camera topic was found in the file, and it is left \
                             out",
                            self.relative(&file.path).display()
                        ));
                    }
                }
            }
            () if is_empty && self.pictures.is_empty() && !alone.is_empty() => {
                let reason =
                    format!("a directory without recordings and pictures: {}", alone[0].text);
                return Err(SourceError::invalid(self.root, reason, "name the file itself"));
            }
            () if is_empty && !has_pictures && !self.pictures.is_empty() => {
                let hint = format!(
                    "give the directory that has them: {}",
                    self.pictures[0].directory.display()
                );
                return Err(SourceError::invalid(self.root, images::NO_PICTURES, hint));
            }
            () if self.is_pictures || (has_pictures && !self.has_recordings) || is_empty => {
                place = Some(Place::Directory(self.root.into()));
            }
            () if !self.without_cameras.is_empty() => {
                // The error for a recording without a camera lists its topics.
                let planned = |file: Survey| Planned { path: file.path, span: file.span };
                let files = self.without_cameras.drain(..).map(planned).collect();
                place = Some(Place::Files(self.root.into(), files));
            }
            () => {
                let lost = self.lost.into_warnings(true);
                let text = lost.first().map_or("", |warning| &warning.text);
                let reason = format!("a directory without any of its recordings: {text}");
                let hint = "bring the files into the directory";
                return Err(self
                    .error
                    .unwrap_or_else(|| SourceError::invalid(self.root, reason, hint)));
            }
        }
        self.name_misnamed();
        self.name_pictures(!matches!(place, Some(Place::Directory(_))))?;
        let whole = place.map(|place| Found { name: PathBuf::new(), place, warnings: Vec::new() });
        self.found.extend(whole);
        self.make_names_unique();
        if let Some(first) = self.found.first_mut() {
            let notes = self.notes.into_iter().map(|text| Warning { text, loss: false });
            let lost = self.lost.into_warnings(true).into_iter();
            let warnings = lost.chain(alone).chain(notes).chain(self.unread.into_warnings(false));
            first.warnings.splice(0..0, warnings);
        }
        Ok(self.found)
    }

    /// Whether the pictures of a directory become a video if there is no recording: those of the
    /// root, otherwise those of each directory directly in it.
    fn is_camera(&self, Pictures { directory, .. }: &Pictures) -> bool {
        match self.is_pictures {
            true => directory == self.root,
            false => directory.parent() == Some(self.root),
        }
    }

    /// Names the recordings that are not read because of their names, unless a link or
    /// `metadata.yaml` names them.
    fn name_misnamed(&mut self) {
        for path in std::mem::take(&mut self.misnamed) {
            if path.canonicalize().is_ok_and(|real| !self.known.contains(&real)) {
                self.unread.push(format!(
                    "{} is a recording, and is not read because of its name: in a directory, names \
                     end with .mcap, .db3 or .bag",
                    self.relative(&path).display()
                ));
            }
        }
    }

    /// Names the directories whose pictures are not read. `has_recordings`: recordings are read.
    fn name_pictures(&mut self, has_recordings: bool) -> Result<(), SourceError> {
        let filter = TopicFilter::new(self.root, self.options)?;
        for pictures in std::mem::take(&mut self.pictures) {
            let Pictures { directory, is_mixed, link } = &pictures;
            let shown = match directory == self.root {
                true => self.root.to_owned(),
                false => self.relative(directory),
            };
            let text = format!("the pictures in {} are not read", shown.display());
            let name = directory.file_name().unwrap_or_default().to_string_lossy();
            match (has_recordings, link) {
                (true, Some(text)) => self.lost.push(text.clone()),
                (true, None) if *is_mixed => self.unread.push(format!(
                    "{text}, because recordings are in this directory or below it: move them to a \
                     directory of their own to convert them"
                )),
                (true, None) => {
                    self.unread.push(format!("{text}: give this directory to convert them"));
                }
                (false, _) if !self.is_camera(&pictures) && filter.matches(&name) => {
                    self.lost.push(format!("{text}: give this directory to convert them"));
                }
                (false, _) => {}
            }
        }
        Ok(())
    }

    /// Recordings of one name, such as `a.mcap` and `a.bag`, have the names of their files.
    fn make_names_unique(&mut self) {
        let (mut once, mut shared) = (HashSet::new(), HashSet::new());
        for Found { name, .. } in &self.found {
            if !once.insert(name.clone()) {
                shared.insert(name.clone());
            }
        }
        let mut taken = HashSet::new();
        for Found { name, place, .. } in &mut self.found {
            if shared.contains(name)
                && let Place::Files(_, files) = place
                && let Some(file) = files.first().and_then(|file| file.path.file_name())
            {
                let file = file.to_owned();
                name.set_file_name(match files.len() {
                    1 => file,
                    _ => stem(Path::new(&file)).into(),
                });
            }
            let wanted = name.clone();
            let mut number = 2;
            // Some file systems are case-insensitive.
            while !taken.insert(name.to_string_lossy().to_lowercase()) {
                let mut numbered = wanted.clone().into_os_string();
                numbered.push(format!("-{number}"));
                *name = numbered.into();
                number += 1;
            }
        }
    }
}

#[cfg(all(test, feature = "mcap", feature = "rosbag1", feature = "sqlite"))]
mod tests;
