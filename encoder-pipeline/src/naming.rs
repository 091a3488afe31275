//! Names of files.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

/// The format of the files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// MP4 with the index at the front.
    #[default]
    Mp4,
    /// A raw H.264 stream (Annex B), without timestamps.
    AnnexB,
}

impl Format {
    /// The format for the extension of a file.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "mp4" => Some(Self::Mp4),
            "h264" | "264" | "annexb" => Some(Self::AnnexB),
            _ => None,
        }
    }

    /// The extension of files of this format.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Mp4 => "mp4",
            Self::AnnexB => "h264",
        }
    }
}

/// A directory or a single file for the videos.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// One file per camera topic in this directory.
    Directory(PathBuf),
    /// One file, for a single camera.
    File(PathBuf),
}

impl Target {
    /// Returns a file if the extension is that of a [`Format`], otherwise a directory. A directory
    /// that exists, or a path that ends with a separator, is a directory whatever its extension.
    pub fn of(path: &Path) -> Self {
        match Format::of(path) {
            Some(_) if !is_directory(path) => Self::File(path.into()),
            _ => Self::Directory(path.into()),
        }
    }

    /// The directory that contains the files.
    pub fn directory(&self) -> &Path {
        match self {
            Self::Directory(dir) => dir,
            Self::File(file) => {
                file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
            }
        }
    }

    /// Where the program writes its report: `report.json` in the directory, or beside the file.
    pub fn report_path(&self) -> PathBuf {
        match self {
            Self::Directory(directory) => directory.join("report.json"),
            Self::File(file) => file.with_extension("report.json"),
        }
    }
}

/// Whether the path can only be meant as a directory: it is one, or it ends with a separator.
pub fn is_directory(path: &Path) -> bool {
    path.is_dir() || path.as_os_str().to_string_lossy().ends_with(std::path::is_separator)
}

/// Makes file names that are unique within a run.
pub struct Names {
    target: Target,
    format: Format,
    taken: HashSet<String>,
    /// The names of the first videos, by topic and frame id.
    stems: HashMap<(String, Option<String>), String>,
}

impl Names {
    /// Makes names below `target`.
    pub fn new(target: Target, format: Format) -> Self {
        let format = match &target {
            Target::File(path) => Format::of(path).unwrap_or(format),
            Target::Directory(_) => format,
        };
        Self { target, format, taken: HashSet::new(), stems: HashMap::new() }
    }

    /// The format of the files.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The file for video number `part` (from 1) of a topic. Must be called once for each video: a
    /// name that is already used gets a number, in the order of the calls.
    pub fn file(&mut self, topic: &str, part: usize) -> PathBuf {
        self.file_of(topic, None, part)
    }

    /// As [`file`](Self::file), for a publisher of the topic that is named by its frame id. Only
    /// the videos behind its first one have their number in the name.
    pub fn file_of(&mut self, topic: &str, frame_id: Option<&str>, part: usize) -> PathBuf {
        let key = (topic.to_owned(), frame_id.map(str::to_owned));
        let known = self.stems.get(&key).cloned();
        let is_first = part == 1 || (frame_id.is_some() && known.is_none());
        let suffix = if is_first { String::new() } else { format!("_part{part}") };
        let (base, extension) = match &self.target {
            Target::File(path) => (
                path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
                path.extension().unwrap_or_default().to_string_lossy().into_owned(),
            ),
            Target::Directory(_) => (stem(topic), self.format.extension().to_owned()),
        };
        let named = || match frame_id {
            Some(id) => format!("{base}_{}", stem(id)),
            None => base.clone(),
        };
        let free = self.free(&format!("{}{suffix}", known.unwrap_or_else(named)));
        let name = format!("{free}.{extension}");
        let path = match &self.target {
            Target::File(path) => path.with_file_name(name),
            Target::Directory(directory) => directory.join(name),
        };
        if is_first {
            self.stems.insert(key, free);
        }
        path
    }

    fn free(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_string();
        let mut number = 2;
        // Some file systems are case-insensitive.
        while !self.taken.insert(name.to_lowercase()) {
            name = format!("{wanted}-{number}");
            number += 1;
        }
        name
    }
}

/// A topic as a file name: `/cam/top` becomes `cam_top`.
fn stem(topic: &str) -> String {
    let mut out = String::new();
    for c in topic.trim_matches('/').chars() {
        match c {
            c if c.is_alphanumeric() || matches!(c, '-' | '.' | '_') => out.push(c),
            _ => out.push('_'),
        }
    }
    // No hidden files, and no names that are too long for a file system.
    let mut out = out.trim_start_matches('.').to_string();
    while out.len() > 120 {
        out.pop();
    }
    if out.is_empty() { "video".into() } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_become_names_and_no_name_comes_twice() {
        let mut names = Names::new(Target::of(Path::new("out")), Format::Mp4);
        for (topic, part, expected) in [
            ("/cam/top", 1, "out/cam_top.mp4"),
            ("/cam_top", 1, "out/cam_top-2.mp4"),
            ("/Cam/Top", 1, "out/Cam_Top-3.mp4"),
            ("/cam/top", 2, "out/cam_top_part2.mp4"),
            ("/cam_top", 3, "out/cam_top-2_part3.mp4"),
            ("/cam/top_part3", 1, "out/cam_top_part3.mp4"),
            ("/cam/top", 3, "out/cam_top_part3-2.mp4"),
            ("", 1, "out/video.mp4"),
            ("/", 1, "out/video-2.mp4"),
            ("../../etc", 1, "out/_.._etc.mp4"),
            ("..", 1, "out/video-3.mp4"),
            ("/a b:c\\d", 1, "out/a_b_c_d.mp4"),
            ("/caméra", 1, "out/caméra.mp4"),
        ] {
            assert_eq!(names.file(topic, part), Path::new(expected), "{topic}");
        }
        let long = names.file(&"x".repeat(500), 1);
        assert!(long.as_os_str().len() < 140);
    }

    #[test]
    fn the_extension_decides_between_file_and_directory() {
        for (path, file, format) in [
            ("a/b.mp4", true, Format::Mp4),
            ("b.MP4", true, Format::Mp4),
            ("b.h264", true, Format::AnnexB),
            ("videos", false, Format::Mp4),
            ("v1.0", false, Format::Mp4),
            ("b.mp4/", false, Format::Mp4),
        ] {
            let target = Target::of(Path::new(path));
            assert_eq!(matches!(target, Target::File(_)), file, "{path}");
            let mut names = Names::new(target, Format::Mp4);
            assert_eq!(names.format(), format);
            if file {
                assert_eq!(names.file("/any", 1), Path::new(path));
            }
        }
        let mut names = Names::new(Target::of(Path::new("d/b.mp4")), Format::Mp4);
        assert_eq!(names.file("/any", 2), Path::new("d/b_part2.mp4"));
        assert_eq!(names.file_of("/any", Some("left"), 3), Path::new("d/b_left.mp4"));
    }

    #[test]
    fn further_publishers_are_named_by_their_frame_ids() {
        let mut names = Names::new(Target::of(Path::new("out")), Format::Mp4);
        for (frame_id, part, expected) in [
            (None, 1, "out/cam.mp4"),
            (Some("left/optical"), 2, "out/cam_left_optical.mp4"),
            (Some(""), 3, "out/cam_video.mp4"),
            (None, 4, "out/cam_part4.mp4"),
            (Some("left/optical"), 5, "out/cam_left_optical_part5.mp4"),
            (Some("left optical"), 6, "out/cam_left_optical-2.mp4"),
        ] {
            assert_eq!(names.file_of("/cam", frame_id, part), Path::new(expected));
        }
    }
}
