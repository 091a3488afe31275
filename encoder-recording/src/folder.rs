//! Folders: which recordings are in them.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::path::{Path, PathBuf};

use crate::filter::{TopicFilter, stream_name};
use crate::images::{self, entries};
use crate::rosbag2::{
    Description, Inside, Metadata, Notes, Opener, PartsSource, Planned, Refused, identity, inside,
};
use crate::signature::{self, ROSBAG2_METADATA};
use crate::survey::{Group, Survey, common_name, group, stem};
use crate::{Event, Source, SourceError, SourceOptions, Warning};

/// How deep directories are searched.
const DEPTH: usize = 8;
/// How the names of reports end.
const REPORT: &str = "report.json";
/// How many bytes of a report are searched for the names of videos.
const REPORT_HEAD: u64 = 1 << 24;
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

/// A source that returns warnings about the directory first.
struct Warned {
    warnings: VecDeque<Warning>,
    source: Box<dyn Source>,
}

/// Puts warnings about the directory in front of a source.
pub(crate) fn warned(source: Box<dyn Source>, warnings: &[Warning]) -> Box<dyn Source> {
    match warnings {
        [] => source,
        all => Box::new(Warned { warnings: all.iter().cloned().collect(), source }),
    }
}

impl Source for Warned {
    fn next_event(&mut self) -> Result<Option<Event>, SourceError> {
        match self.warnings.pop_front() {
            Some(warning) => Ok(Some(Event::Warning(warning))),
            None => self.source.next_event(),
        }
    }

    fn other_topics(&self) -> Vec<(String, String)> {
        self.source.other_topics()
    }

    fn log_span(&self) -> Option<(i64, i64)> {
        self.source.log_span()
    }

    fn profile(&self) -> &str {
        self.source.profile()
    }
}

/// Finds the recordings in a directory and in the directories below it. A directory of pictures, and
/// a directory without recordings, is returned as it is.
///
/// # Errors
/// [`SourceError`] when the directory cannot be read, or there are recordings in it and none of
/// them can be read.
pub(crate) fn find(
    root: &Path,
    options: &SourceOptions,
    opener: &Opener,
) -> Result<Vec<Found>, SourceError> {
    let mut search = Search {
        root,
        options,
        opener,
        found: Vec::new(),
        without_cameras: Vec::new(),
        lost: Notes::default(),
        notes: Vec::new(),
        pictures: Notes::default(),
        alone: Notes::default(),
        error: None,
        visited: root.canonicalize().into_iter().collect(),
        is_pictures: false,
    };
    search.directory(root, DEPTH)?;
    search.finish()
}

/// A search for recordings.
struct Search<'a> {
    root: &'a Path,
    options: &'a SourceOptions,
    opener: &'a Opener,
    found: Vec<Found>,
    /// Files that have no selected camera topic.
    without_cameras: Vec<Survey>,
    lost: Notes,
    notes: Vec<String>,
    /// Directories of pictures.
    pictures: Notes,
    /// Files that are read only if they are named themselves.
    alone: Notes,
    /// The error of the first file that cannot be read.
    error: Option<SourceError>,
    /// Directories that were searched, without links.
    visited: HashSet<PathBuf>,
    /// The root has pictures and no recordings of its own.
    is_pictures: bool,
}

impl Search<'_> {
    fn directory(&mut self, directory: &Path, depth: usize) -> Result<(), SourceError> {
        let entries = entries(directory)?;
        self.name_alone(&entries)?;
        let mut described = None;
        if signature::has_rosbag2_metadata(directory) {
            match Metadata::read(directory) {
                Ok(_) => {
                    let place = Place::Directory(directory.into());
                    let name = self.relative(directory);
                    self.found.push(Found { name, place, warnings: Vec::new() });
                    return Ok(());
                }
                Err(reason) => described = Some(format!("{ROSBAG2_METADATA} {reason}")),
            }
        }
        let (mut files, mut directories) = (Vec::new(), Vec::new());
        let (mut known, mut has_pictures, mut has_files) = (HashSet::new(), false, false);
        for path in entries {
            let Some(name) = path.file_name().map(|name| name.to_string_lossy().into_owned())
            else {
                continue;
            };
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            has_pictures |= images::format(&path).is_some();
            // A DVC pointer may be all that is there of a recording.
            let name = name.strip_suffix(".dvc").unwrap_or(&name);
            if !signature::is_recording_name(name) {
                continue;
            }
            has_files = true;
            match inside(directory, Path::new(name)) {
                // The same file, compressed, comes after the decompressed one.
                Ok(file) if known.insert(identity(&file)) => files.push(file),
                Ok(_) => {}
                // Only a pointer has the name of a directory.
                Err(Refused::NoFile) if directory.join(name).is_dir() => {}
                Err(refused) => {
                    let path = self.relative(&directory.join(name));
                    self.lost.push(format!("{} {refused}", path.display()));
                }
            }
        }
        if let Some(text) = described.as_ref().filter(|_| !has_files) {
            self.lost.push(format!("{text}, and no recording is beside it"));
            has_files = true;
        }
        self.files(directory, files, described);
        if has_pictures && !has_files {
            if directory == self.root {
                self.is_pictures = true;
                return Ok(());
            }
            self.pictures.push(format!(
                "the pictures in {} are not read: give this directory to convert them",
                self.relative(directory).display()
            ));
        }
        let root = self.root.canonicalize().unwrap_or_default();
        for directory in directories {
            let Ok(real) = directory.canonicalize() else { continue };
            if depth > 0 && real.starts_with(&root) && self.visited.insert(real) {
                self.directory(&directory, depth - 1)?;
            }
        }
        Ok(())
    }

    /// Remembers the files that are read only if they are named themselves, unless `--topic` leaves
    /// them out. Videos that an earlier run made are none of them: its report names them.
    fn name_alone(&mut self, entries: &[PathBuf]) -> Result<(), SourceError> {
        let filter = TopicFilter::new(self.root, self.options)?;
        let is_alone = |path: &&PathBuf| {
            let name = stream_name(path);
            (path.is_file() || signature::dangling(path).is_some())
                && (signature::is_packed_otherwise(&name)
                    || (filter.matches(&name) && signature::is_video_name(path)))
        };
        let is_report = |path: &&PathBuf| path.is_file() && stream_name(path).ends_with(REPORT);
        let read = |path: &PathBuf| {
            let head = signature::head(path, REPORT_HEAD).unwrap_or_default();
            String::from_utf8_lossy(&head).into_owned()
        };
        let mut reports: Option<Vec<String>> = None;
        for path in entries.iter().filter(is_alone) {
            let reports =
                reports.get_or_insert_with(|| entries.iter().filter(is_report).map(read).collect());
            let quoted = format!("\"{}\"", stream_name(path));
            if !reports.iter().any(|report| report.contains(&quoted)) {
                self.alone.push(format!(
                    "{} is not read: a file of this kind is converted only if it is named itself",
                    self.relative(path).display()
                ));
            }
        }
        Ok(())
    }

    /// Groups the files of a directory into recordings. `described`: why `metadata.yaml` does not
    /// describe them.
    fn files(&mut self, directory: &Path, files: Vec<Inside>, described: Option<String>) {
        let mut surveys = Vec::new();
        let is_alone = files.len() == 1;
        for Inside { path, .. } in files {
            if is_alone && signature::has_packed_name(&path) {
                // It would be decompressed once more, and there is nothing to compare it with.
                surveys.push(Survey { path, ..Survey::default() });
                continue;
            }
            match self.opener.survey(&path, self.options) {
                Ok(survey) if survey.cameras.is_empty() && !self.options.all_messages => {
                    self.without_cameras.push(survey);
                }
                Ok(survey) => surveys.push(survey),
                Err(error) => {
                    self.lost.push(format!("{error}; the file is left out"));
                    self.error.get_or_insert(error);
                }
            }
        }
        let (groups, reason) = group(surveys);
        let mut prefix = described.map(|text| format!("{text}; ")).unwrap_or_default();
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

    fn relative(&self, path: &Path) -> PathBuf {
        path.strip_prefix(self.root).unwrap_or(path).to_owned()
    }

    fn finish(mut self) -> Result<Vec<Found>, SourceError> {
        if self.found.is_empty() && !self.without_cameras.is_empty() {
            // The error for a recording without a camera lists its topics.
            let planned = |file: Survey| Planned { path: file.path, span: file.span };
            let files = self.without_cameras.drain(..).map(planned).collect();
            let place = Place::Files(self.root.into(), files);
            self.found.push(Found { name: PathBuf::new(), place, warnings: Vec::new() });
        }
        let lost = std::mem::take(&mut self.lost).into_warnings(true);
        let alone = std::mem::take(&mut self.alone).into_warnings(true);
        let pictures = std::mem::take(&mut self.pictures).into_warnings(false);
        if self.found.is_empty() {
            if let Some(error) = self.error {
                return Err(error);
            }
            let invalid = |reason, hint| Err(SourceError::invalid(self.root, reason, hint));
            if !self.is_pictures {
                if let Some(Warning { text, .. }) = lost.first() {
                    let reason = format!("a directory without any of its recordings: {text}");
                    return invalid(reason, "bring the files into the directory");
                }
                if let (Some(Warning { text, .. }), []) = (alone.first(), &*pictures) {
                    let reason = format!("a directory without recordings and pictures: {text}");
                    return invalid(reason, "name the file itself");
                }
            }
            let place = Place::Directory(self.root.into());
            return Ok(vec![Found { name: PathBuf::new(), place, warnings: alone }]);
        }
        self.make_names_unique();
        if let Some(first) = self.found.first_mut() {
            let notes = self.notes.into_iter().map(|text| Warning { text, loss: false });
            let warnings = lost.into_iter().chain(alone).chain(notes).chain(pictures);
            first.warnings.splice(0..0, warnings);
        }
        Ok(self.found)
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

#[cfg(all(test, feature = "mcap"))]
#[allow(clippy::unwrap_used)]
mod tests {
    use encoder_testbed::fixtures::recording::{
        Content, Recording, Serialization, camera, small_jpeg,
    };

    use crate::{Event, SourceError, SourceOptions, recordings};

    /// Names of the recordings at a path, and the warnings of the first of them.
    fn found(
        path: &std::path::Path,
        topics: &[&str],
    ) -> Result<(Vec<String>, String), SourceError> {
        let topics = topics.iter().map(|topic| topic.to_string()).collect();
        let options = SourceOptions { topics, ..Default::default() };
        let all = recordings(path, &options)?;
        let mut source = all[0].open(&options)?;
        let mut warnings = String::new();
        while let Some(event) = source.next_event()? {
            if let Event::Warning(warning) = event {
                warnings.push_str(&format!("{}: {}\n", warning.loss, warning.text));
            }
        }
        let name = |recording: &crate::Recording| recording.name().to_string_lossy().into_owned();
        Ok((all.iter().map(name).collect(), warnings))
    }

    #[test]
    fn what_is_in_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let picture = |name: &str| {
            let Content::Compressed { data, .. } = small_jpeg(0) else { panic!() };
            std::fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            std::fs::write(at(name), data).unwrap();
        };
        // Pictures alone.
        picture("left/1.jpg");
        assert_eq!(found(directory.path(), &[]).unwrap().0.len(), 1);
        // Recordings in it: without a camera, at any depth, and in a hidden directory.
        let mut imu = Recording::create(at("imu.mcap"));
        let channel = imu.other("/imu", "sensor_msgs/msg/Imu", "cdr", "ros2msg");
        imu.bytes(channel, 1, b"x");
        imu.finish();
        let error = found(directory.path(), &[]).unwrap_err();
        assert!(matches!(error, SourceError::NoCamera { .. }), "{error}");
        for name in ["a/b/c", ".hidden"] {
            std::fs::create_dir_all(at(name)).unwrap();
            camera(&at(name), &[(1, 1, small_jpeg(0))]);
        }
        let (names, warnings) = found(directory.path(), &[]).unwrap();
        assert_eq!(names, ["a/b/c/one"]);
        assert_eq!(warnings.lines().count(), 1, "{warnings}");
        assert!(warnings.starts_with("false: the pictures in left are not read"), "{warnings}");
        let error = found(directory.path(), &["/nope"]).unwrap_err().to_string();
        assert!(error.contains("no camera topic"), "{error}");
        // A second one, and a file that cannot be read.
        camera(directory.path(), &[(1, 1, small_jpeg(0))]);
        std::fs::write(at("two.mcap"), "no MCAP").unwrap();
        let (names, warnings) = found(directory.path(), &[]).unwrap();
        assert_eq!(names, ["one", "a/b/c/one"]);
        assert!(warnings.contains("true: ") && warnings.contains("two.mcap"), "{warnings}");
        let error = crate::open(directory.path(), &SourceOptions::default()).err().unwrap();
        assert!(error.to_string().contains("2 recordings are in this directory"), "{error}");
        // A directory of pictures stays that.
        picture("1.jpg");
        std::fs::remove_file(at("one.mcap")).unwrap();
        std::fs::remove_file(at("two.mcap")).unwrap();
        std::fs::remove_file(at("imu.mcap")).unwrap();
        assert_eq!(found(directory.path(), &[]).unwrap().0.len(), 1);
    }

    #[test]
    fn files_that_are_read_alone_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("b.mp4"), "x").unwrap();
        let error = found(directory.path(), &[]).unwrap_err().to_string();
        assert!(error.contains("b.mp4 is not read"), "{error}");
        // Beside a recording of its own, a rosbag2 directory, and pictures.
        let rosbag2 = "rosbag2_bagfile_information:\n  relative_file_paths: [one.mcap]\n";
        let Content::Compressed { data, .. } = small_jpeg(0) else { panic!() };
        camera(directory.path(), &[(1, 1, small_jpeg(0))]);
        for (name, content) in [("", &b""[..]), ("metadata.yaml", rosbag2.as_bytes())] {
            if !name.is_empty() {
                std::fs::write(at(name), content).unwrap();
            }
            let (names, warnings) = found(directory.path(), &[]).unwrap();
            assert_eq!(names.len(), 1);
            assert!(warnings.starts_with("true: b.mp4 is not read"), "{warnings}");
            assert_eq!(warnings.lines().count(), 1, "{warnings}");
        }
        std::fs::remove_file(at("metadata.yaml")).unwrap();
        std::fs::remove_file(at("one.mcap")).unwrap();
        std::fs::write(at("1.jpg"), data).unwrap();
        let (_, warnings) = found(directory.path(), &[]).unwrap();
        assert!(warnings.starts_with("true: b.mp4 is not read"), "{warnings}");
        // Not the videos of an earlier run; and files of other kinds.
        std::fs::write(at("out.report.json"), r#"{"outputs": [{"file": "b.mp4"}]}"#).unwrap();
        for (name, content) in
            [("c.bag.gz", ""), ("d.Y4M", ""), ("e.ts", "G"), ("f.ts", "export {}"), ("g.gz", "")]
        {
            std::fs::write(at(name), content).unwrap();
        }
        let all = directory.path().file_name().unwrap().to_str().unwrap();
        for (topics, expected) in
            [(&[][..], &["c.bag.gz", "d.Y4M", "e.ts"][..]), (&[all, "d.*"], &["c.bag.gz", "d.Y4M"])]
        {
            let (_, warnings) = found(directory.path(), topics).unwrap();
            let names: Vec<_> =
                warnings.lines().filter_map(|line| line.split(' ').nth(1)).collect();
            assert_eq!(names, expected, "{warnings}");
        }
    }

    #[test]
    fn warnings_reach_a_rosbag2_directory_that_comes_first() {
        let directory = tempfile::tempdir().unwrap();
        let bag = directory.path().join("a");
        std::fs::create_dir(&bag).unwrap();
        camera(&bag, &[(1, 1, small_jpeg(0))]);
        let rosbag2 = "rosbag2_bagfile_information:\n  relative_file_paths: [one.mcap]\n";
        std::fs::write(bag.join("metadata.yaml"), rosbag2).unwrap();
        std::fs::write(directory.path().join("two.mcap"), "no MCAP").unwrap();
        let (names, warnings) = found(directory.path(), &[]).unwrap();
        assert_eq!(names, ["a"]);
        assert!(warnings.starts_with("true: ") && warnings.contains("two.mcap"), "{warnings}");
    }

    #[cfg(unix)]
    #[test]
    fn named_pipes_in_a_directory_are_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        camera(directory.path(), &[(1, 1, small_jpeg(0))]);
        for name in ["metadata.yaml", "two.mcap", "v.mp4", "1.jpg"] {
            let pipe = directory.path().join(name);
            assert!(std::process::Command::new("mkfifo").arg(pipe).status().unwrap().success());
        }
        let (names, warnings) = found(directory.path(), &[]).unwrap();
        assert_eq!(names, ["one"]);
        assert_eq!(warnings, "true: two.mcap is not a file\n");
    }

    #[test]
    fn what_is_found_in_one_directory_is_one_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        for (name, time) in [("x.mcap", 1), ("y.mcap", 1)] {
            let mut recording = Recording::create(directory.path().join(name));
            recording.write("/cam", Serialization::CdrLittle, time, time, &small_jpeg(0));
            recording.finish();
        }
        let (names, warnings) = found(directory.path(), &[]).unwrap();
        assert_eq!(names, ["x", "y"]);
        assert!(warnings.contains("2 recordings are in"), "{warnings}");
    }
}
