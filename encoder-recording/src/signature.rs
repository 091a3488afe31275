//! The first bytes and the names by which recordings are recognised.

#[cfg(any(feature = "mcap", feature = "rosbag1", feature = "sqlite"))]
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

#[cfg(any(feature = "mcap", feature = "rosbag1", feature = "sqlite"))]
use encoder_media::Location;
use encoder_media::SourceError;

/// First bytes of an MCAP file.
pub(crate) const MCAP: &[u8] = b"\x89MCAP0\r\n";
/// First bytes of a ROS 1 bag, of any version.
pub(crate) const BAG: &[u8] = b"#ROSBAG";
/// First bytes of a SQLite database.
pub(crate) const SQLITE: &[u8] = b"SQLite format 3\0";
/// First bytes of Zstandard data.
pub(crate) const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// Name of the file that describes a rosbag2 directory.
pub(crate) const ROSBAG2_METADATA: &str = "metadata.yaml";
/// The first key of that file.
const ROSBAG2_KEY: &[u8] = b"rosbag2_bagfile_information";
/// How many bytes of that file are searched for the key.
const ROSBAG2_HEAD: u64 = 1 << 16;
/// Name endings of recordings.
const ENDINGS: [&str; 3] = [".mcap", ".db3", ".bag"];
/// Follows the ending of a ROS 1 bag that is being written, or whose recorder was killed.
const ACTIVE: &str = ".active";
/// Name endings of files that are compressed as a whole; rosbag2 writes the first. Files of the last
/// two are refused when they are opened.
pub(crate) const PACKED_ENDINGS: [&str; 7] =
    [".zstd", ".zst", ".gz", ".bz2", ".lz4", ".xz", ".zip"];
/// Extensions of video files and Y4M.
#[cfg(feature = "rosbag2")]
const VIDEO_EXTENSIONS: [&str; 24] = [
    "264", "265", "3gp", "av1", "avi", "flv", "h264", "h265", "hevc", "ivf", "m2ts", "m4v",
    "mjpeg", "mjpg", "mkv", "mov", "mp4", "mpeg", "mpg", "mxf", "ogv", "webm", "wmv", "y4m",
];
/// End of the warning about a file that was read to its end, and states nowhere how many messages it
/// has.
#[cfg(any(feature = "mcap", feature = "rosbag2"))]
pub(crate) const UNCOUNTED: &str = "nothing states how many messages it should have";
/// Reason of the error for a recording whose camera topics are all excluded by [`SourceOptions::topics`].
pub(crate) const NO_TOPIC_MATCHES: &str = "no camera topic matches the topics that were asked for";

/// A format of files that are compressed as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    Zstd,
    Gzip,
    Bzip2,
    Lz4,
    Xz,
    Zip,
}

impl Compression {
    /// Recognises the format of a file by its first bytes.
    pub(crate) fn of(head: &[u8]) -> Option<Self> {
        let magics: [(&[u8], Self); 6] = [
            (ZSTD, Self::Zstd),
            (b"\x1f\x8b\x08", Self::Gzip),
            (b"BZh", Self::Bzip2),
            (b"\x04\x22\x4d\x18", Self::Lz4),
            (b"\xfd7zXZ\0", Self::Xz),
            (b"PK\x03\x04", Self::Zip),
        ];
        let known = magics.into_iter().find(|(magic, _)| head.starts_with(magic));
        // Zstandard may start with a skippable frame, as pzstd writes it.
        let is_skippable = matches!(head, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]);
        known.map(|(_, compression)| compression).or(is_skippable.then_some(Self::Zstd))
    }

    /// Whether files of this format are decompressed here.
    pub(crate) fn is_supported(self) -> bool {
        !matches!(self, Self::Xz | Self::Zip)
    }

    /// The name of the format.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Zstd => "Zstandard",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Lz4 => "LZ4",
            Self::Xz => "xz",
            Self::Zip => "ZIP",
        }
    }

    /// The command that decompresses a file and keeps it, without the name of the file.
    pub(crate) fn command(self) -> &'static str {
        match self {
            Self::Zstd => "zstd -d",
            Self::Gzip => "gunzip -k",
            Self::Bzip2 => "bunzip2 -k",
            Self::Lz4 => "unlz4 -k",
            Self::Xz => "unxz -k",
            Self::Zip => "unzip",
        }
    }
}

/// The first `count` bytes of a file, or fewer.
pub(crate) fn head(path: &Path, count: u64) -> Result<Vec<u8>, SourceError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(count).read_to_end(&mut bytes))
        .map_err(|error| SourceError::io(path, error))?;
    Ok(bytes)
}

/// The error for a recording without a selected camera topic.
#[cfg(any(feature = "mcap", feature = "rosbag1", feature = "sqlite"))]
pub(crate) fn no_camera(
    location: impl Into<Location>,
    others: &BTreeSet<(String, String)>,
    unwanted: &BTreeSet<String>,
) -> SourceError {
    if unwanted.is_empty() {
        return SourceError::no_camera(location, others.iter().cloned().collect());
    }
    let topics: Vec<_> = unwanted.iter().map(String::as_str).collect();
    let hint = format!("its camera topics are: {}", topics.join(", "));
    SourceError::invalid(location, NO_TOPIC_MATCHES, hint)
}

/// The error for a file in a compression that is not decompressed here; `None` for other files.
pub(crate) fn packed(path: &Path, head: &[u8]) -> Option<SourceError> {
    let compression = Compression::of(head).filter(|compression| !compression.is_supported())?;
    Some(SourceError::invalid(
        path,
        format!(
            "a file that is compressed as {}, which is not decompressed here",
            compression.name()
        ),
        format!(
            "decompress it first: {} {}",
            compression.command(),
            path.file_name().unwrap_or(path.as_os_str()).display()
        ),
    ))
}

/// A file name without the ending of a file that is compressed as a whole.
pub(crate) fn unpacked_name(name: &str) -> &str {
    PACKED_ENDINGS.into_iter().find_map(|ending| without(name, ending)).unwrap_or(name)
}

/// A file name without an ending, in capital or small letters; `None` if it has another ending.
fn without<'a>(name: &'a str, ending: &str) -> Option<&'a str> {
    let (stem, end) = name.split_at_checked(name.len().checked_sub(ending.len())?)?;
    end.eq_ignore_ascii_case(ending).then_some(stem)
}

/// Whether a file is compressed by its name.
#[cfg(feature = "rosbag2")]
pub(crate) fn has_packed_name(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    unpacked_name(&name) != name
}

/// Splits the name of a recording, which may be compressed or still be written (`x.bag.active.gz`),
/// into its stem and one of [`ENDINGS`]. The ending is empty if no recording has such a name.
pub(crate) fn split_name(name: &str) -> (&str, &'static str) {
    let name = unpacked_name(name);
    let name = without(name, ACTIVE).unwrap_or(name);
    let split = |ending: &'static str| Some((without(name, ending)?, ending));
    ENDINGS.into_iter().find_map(split).unwrap_or((name, ""))
}

/// Whether a recording may have this name.
pub(crate) fn is_recording_name(name: &str) -> bool {
    !name.starts_with('.') && !split_name(name).1.is_empty()
}

/// Whether a file is a recording although its name is not that of one: `x.mcap.bak`, or a name
/// without an ending. Other files are not opened.
#[cfg(feature = "rosbag2")]
pub(crate) fn is_misnamed_recording(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let may_be = !name.contains('.') || ENDINGS.iter().any(|ending| name.contains(ending));
    may_be
        && !is_recording_name(&name)
        && path.is_file()
        && head(path, MCAP.len() as u64)
            .is_ok_and(|head| [MCAP, BAG].iter().any(|magic| head.starts_with(magic)))
}

/// Whether a file is a video or Y4M by its name.
#[cfg(feature = "rosbag2")]
pub(crate) fn is_video_name(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    match &*extension {
        // Other files have these extensions as well: a transport stream begins with this byte.
        "ts" | "mts" => head(path, 1).is_ok_and(|head| head == b"G"),
        extension => VIDEO_EXTENSIONS.contains(&extension),
    }
}

/// The error for a file that stands for another one: version control of large files leaves it where
/// the file itself was not fetched. `None` for other files.
pub(crate) fn pointer(path: &Path, head: &[u8]) -> Option<SourceError> {
    let is_annex = |line: &[u8]| {
        let line = String::from_utf8_lossy(line);
        line.starts_with("/annex/objects/") || line.contains(".git/annex/objects/")
    };
    let first = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let (format, command) = if head.starts_with(b"version https://git-lfs.github.com/")
        || head.starts_with(b"version https://hawser.github.com/")
    {
        ("Git LFS", "git lfs pull")
    } else if is_annex(first) {
        ("git-annex", "git annex get")
    } else if head.starts_with(b"outs:\n") || head.starts_with(b"md5: ") {
        ("DVC", "dvc pull")
    } else {
        return None;
    };
    let reason = format!("a {format} pointer to the file, not the file itself");
    Some(SourceError::invalid(path, reason, format!("fetch the file: {command}")))
}

/// A path that is a link to a file that does not exist, as version control of large files leaves
/// it: the target, and the command that fetches the file if it is known.
pub(crate) fn dangling(path: &Path) -> Option<String> {
    let target = path.read_link().ok()?;
    if path.exists() {
        return None;
    }
    let text = target.to_string_lossy();
    let command = match () {
        () if text.contains("annex/objects") => "; fetch it: git annex get",
        () if text.contains(".dvc") => "; fetch it: dvc pull",
        () => "",
    };
    Some(format!("is a link to {text}, which is not there{command}"))
}

/// Whether a DVC pointer stands beside a file that does not exist.
pub(crate) fn has_dvc_pointer(path: &Path) -> bool {
    let mut pointer = path.as_os_str().to_owned();
    pointer.push(".dvc");
    !path.exists() && Path::new(&pointer).is_file()
}

/// Whether a directory's `metadata.yaml` belongs to rosbag2. Data sets of pictures also have files
/// of that name.
pub(crate) fn has_rosbag2_metadata(directory: &Path) -> bool {
    let path = directory.join(ROSBAG2_METADATA);
    // A named pipe would be waited for.
    let head = path.is_file().then(|| head(&path, ROSBAG2_HEAD).ok()).flatten().unwrap_or_default();
    head.windows(ROSBAG2_KEY.len()).any(|window| window == ROSBAG2_KEY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_to_files() {
        for (head, command) in [
            (&b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n"[..], "git lfs"),
            (b"/annex/objects/SHA256E-s5--1.mcap\n", "git annex get"),
            (b"../.git/annex/objects/a/b/SHA256E-s5--1.mcap", "git annex get"),
            (b"outs:\n- md5: 1\n  path: a.mcap\n", "dvc pull"),
            (b"version 1", ""),
            (MCAP, ""),
            (b"", ""),
        ] {
            let error = pointer(Path::new("a.mcap"), head).map(|error| error.to_string());
            assert_eq!(error.is_some(), !command.is_empty(), "{error:?}");
            assert!(error.unwrap_or_default().contains(command));
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_to_nothing() -> std::io::Result<()> {
        let directory = tempfile::tempdir()?;
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("a"), "")?;
        for (name, target, expected) in [
            ("b", "a", None),
            ("c", "nowhere", Some("is a link to nowhere, which is not there")),
            ("d", ".git/annex/objects/x", Some("git annex get")),
        ] {
            std::os::unix::fs::symlink(target, at(name))?;
            let text = dangling(&at(name));
            assert_eq!(text.is_some(), expected.is_some(), "{name}");
            assert!(text.unwrap_or_default().contains(expected.unwrap_or_default()));
        }
        assert_eq!(dangling(&at("a")), None);
        std::fs::write(at("e.dvc"), "")?;
        assert!(has_dvc_pointer(&at("e")) && !has_dvc_pointer(&at("a")));
        Ok(())
    }

    #[test]
    fn names_of_recordings() {
        for (name, plain, expected) in [
            ("x_0.db3", "x_0.db3", true),
            ("x.mcap", "x.mcap", true),
            ("x_0.db3.zstd", "x_0.db3", true),
            ("x.mcap.zst", "x.mcap", true),
            ("X.MCAP.ZSTD", "X.MCAP", true),
            ("x.mcap.gz", "x.mcap", true),
            ("x.bag.bz2", "x.bag", true),
            ("x.db3.LZ4", "x.db3", true),
            // They are named, and refused.
            ("x.bag.xz", "x.bag", true),
            ("x.mcap.zip", "x.mcap", true),
            ("x.bag.active", "x.bag.active", true),
            ("x.bag.active.gz", "x.bag.active", true),
            ("x.zstd", "x", false),
            ("x.active", "x.active", false),
            ("x.tar.zst", "x.tar", false),
            ("x.tar.gz", "x.tar", false),
            ("x.mcap.zst.txt", "x.mcap.zst.txt", false),
            // Files that macOS creates beside other files on foreign file systems.
            ("._x.db3", "._x.db3", false),
            (".mcap", ".mcap", false),
            ("img1.jpg", "img1.jpg", false),
            ("é.zst", "é", false),
            ("日本", "日本", false),
            ("", "", false),
        ] {
            assert_eq!(unpacked_name(name), plain);
            assert_eq!(is_recording_name(name), expected, "{name}");
        }
    }
}
