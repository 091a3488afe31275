//! Detects the kind of a recording.

use std::{
    fmt,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use super::{
    RawSpec, Source, SourceError, SourceOptions,
    filter::{check_topic, stream_name},
    formats,
    raw::RawSource,
    signature::{self, Compression},
    y4m::Y4mSource,
};

/// Number of leading bytes that are used to detect the kind of a file.
const HEAD: u64 = 4096;
/// The same for a pipe.
const PIPE_HEAD: u64 = 16;

/// First words of playlists. They are refused because FFmpeg would read the files that they name.
const PLAYLISTS: [&[u8]; 3] = [b"#EXTM3U", b"ffconcat", b"[playlist]"];
/// Elements of playlists in XML.
const XML_PLAYLISTS: [&[u8]; 2] = [b"<MPD", b"<CompositionPlaylist"];

/// Opens a recording. Its kind is detected by its first bytes. The name is used only if the first
/// bytes match no known kind: the error is then that of the reader for this name.
///
/// A directory must have one recording in it; [`recordings`] finds all of them. A pipe is read
/// once: a recording is written to a temporary file first, and Y4M is read as it comes.
///
/// # Errors
/// [`SourceError`] when the recording is missing, empty or of no known kind, or the directory has
/// several.
pub fn open(path: &Path, options: &SourceOptions) -> Result<Box<dyn Source>, SourceError> {
    #[cfg(not(feature = "rosbag2"))]
    if path.is_dir() {
        return formats::open_directory(path, options);
    }
    #[cfg(feature = "rosbag2")]
    if path.is_dir() {
        let all = recordings(path, options)?;
        return match all.as_slice() {
            [one] => one.open(options),
            all => {
                let names: Vec<_> = all.iter().map(ToString::to_string).collect();
                let reason = format!("{} recordings are in this directory", all.len());
                let hint = format!("open them one by one: {}", names.join(", "));
                Err(SourceError::invalid(path, reason, hint))
            }
        };
    }
    if is_pipe(path) {
        let input: io::Result<Box<dyn Read + Send>> = match &options.stop {
            Some(stop) => stop.open(path),
            None => File::open(path).map(|file| Box::new(file) as _),
        };
        let input = input.map_err(|error| SourceError::io(path, error))?;
        return open_pipe(path, input, None, options);
    }
    let head = signature::head(path, HEAD).map_err(|error| missing(path, error))?;
    let refused = signature::packed(path, &head).or_else(|| signature::pointer(path, &head));
    if let Some(error) = refused {
        return Err(error);
    }
    match kind(&head, path) {
        Kind::Mcap => formats::open_mcap(path, options),
        Kind::Bag => formats::open_bag(path, options),
        Kind::Sqlite => formats::open_sqlite(path, options),
        Kind::Packed => formats::open_packed(path, options),
        Kind::Y4m => {
            check_topic(path, &stream_name(path), options)?;
            Y4mSource::open(path, options)
        }
        Kind::Still if is_motion_jpeg(path) => {
            check_topic(path, &stream_name(path), options)?;
            formats::open_video(path, options)
        }
        Kind::Still => Err(SourceError::invalid(
            path,
            "a single picture",
            "give the directory that it is in: its pictures become one video, in natural order",
        )),
        Kind::Empty => Err(SourceError::invalid(
            path,
            "the file is empty",
            "record it again, or take another file",
        )),
        Kind::Playlist => Err(SourceError::invalid(
            path,
            "a playlist, which names other files",
            "give the video files themselves",
        )),
        Kind::Other => {
            check_topic(path, &stream_name(path), options)?;
            formats::open_video(path, options)
        }
    }
}

/// A recording, as [`recordings`] finds it.
#[derive(Clone, Debug)]
pub struct Recording(What);

#[derive(Clone, Debug)]
enum What {
    /// A path, which is opened by what it is.
    Path(PathBuf),
    #[cfg(feature = "rosbag2")]
    Found {
        /// The directory, if it has only this recording.
        only: Option<PathBuf>,
        found: crate::folder::Found,
    },
}

impl Recording {
    /// The recording at a path.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(What::Path(path.into()))
    }

    /// A name that no other recording of its directory has, as a relative path.
    pub fn name(&self) -> &Path {
        match &self.0 {
            What::Path(path) => Path::new(path.file_name().unwrap_or_default()),
            #[cfg(feature = "rosbag2")]
            What::Found { found, .. } => &found.name,
        }
    }

    /// Whether it was found in the directory that [`recordings`] was given, rather than being what
    /// is at that path itself.
    pub fn is_in_directory(&self) -> bool {
        match &self.0 {
            What::Path(_) => false,
            #[cfg(feature = "rosbag2")]
            What::Found { only: None, .. } => true,
            #[cfg(feature = "rosbag2")]
            What::Found { only: Some(path), found } => !found.place.is(path),
        }
    }

    /// Opens the recording.
    ///
    /// # Errors
    /// As [`open`].
    pub fn open(&self, options: &SourceOptions) -> Result<Box<dyn Source>, SourceError> {
        match &self.0 {
            What::Path(path) => open(path, options),
            #[cfg(feature = "rosbag2")]
            What::Found { found, .. } => formats::open_found(found, options),
        }
    }
}

impl fmt::Display for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            What::Path(path) => path.display().fmt(f),
            #[cfg(feature = "rosbag2")]
            What::Found { only: Some(path), .. } => path.display().fmt(f),
            #[cfg(feature = "rosbag2")]
            What::Found { found, .. } => found.place.fmt(f),
        }
    }
}

/// The recordings at a path: a file, a rosbag2 directory or a directory of pictures is one. Any
/// other directory is searched for recordings, also in the directories below it. Files that continue
/// each other in time are parts of one recording; files that overlap in time, start again, or have
/// other camera topics or other names are recordings of their own.
///
/// # Errors
/// [`SourceError`] when the directory cannot be read, or none of its recordings can.
pub fn recordings(path: &Path, options: &SourceOptions) -> Result<Vec<Recording>, SourceError> {
    #[cfg(feature = "rosbag2")]
    if path.is_dir() {
        let found = formats::find(path, options)?;
        let only = (found.len() == 1).then(|| path.to_owned());
        let recording = |found| Recording(What::Found { only: only.clone(), found });
        return Ok(found.into_iter().map(recording).collect());
    }
    let _ = options;
    Ok(vec![Recording::at(path)])
}

/// An error that says what stands for a file that does not exist.
fn missing(path: &Path, error: SourceError) -> SourceError {
    let text = match signature::dangling(path) {
        Some(text) => format!("the path {text}"),
        None if signature::has_dvc_pointer(path) => {
            "only a DVC pointer to the file exists; fetch it: dvc pull".into()
        }
        None => return error,
    };
    SourceError::io(path, io::Error::new(io::ErrorKind::NotFound, text))
}

/// Whether a path is a pipe or a device, which can be read once and not by offset.
pub fn is_pipe(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir())
}

/// Opens what comes through a pipe: raw frames as `raw` describes them, or what its first bytes
/// show.
fn open_pipe(
    path: &Path,
    mut input: Box<dyn Read + Send>,
    raw: Option<&RawSpec>,
    options: &SourceOptions,
) -> Result<Box<dyn Source>, SourceError> {
    let mut head = Vec::new();
    // No more than is needed: a live source may send small frames.
    let read = input.by_ref().take(PIPE_HEAD).read_to_end(&mut head);
    read.map_err(|error| SourceError::io(path, error))?;
    let magics = [
        (signature::MCAP, "an MCAP file"),
        (signature::BAG, "a ROS 1 bag"),
        (signature::SQLITE, "a database of rosbag2"),
        (signature::ZSTD, "data that is compressed as Zstandard"),
    ];
    let recording = magics.into_iter().find(|(magic, _)| head.starts_with(magic));
    if let (Some((_, kind)), Some(_)) = (recording, raw) {
        return Err(SourceError::invalid(
            path,
            format!("{kind}, which has no raw frames"),
            "leave out the format of raw frames",
        ));
    }
    if recording.is_some()
        || (raw.is_none()
            && signature::Compression::of(&head) == Some(signature::Compression::Zstd))
    {
        return formats::open_spooled(path, head, input, options);
    }
    check_topic(path, &stream_name(path), options)?;
    if let (None, Some(compression)) = (raw, signature::Compression::of(&head)) {
        let what = format!("data that is compressed as {}", compression.name());
        let hint = format!("decompress it in front of the pipe ({})", compression.command());
        return Err(SourceError::invalid(path, what, hint));
    }
    let is_y4m = head.starts_with(b"YUV4MPEG2");
    if let (None, false, Some(error)) = (raw, is_y4m, signature::packed(path, &head)) {
        return Err(error);
    }
    let reader = Box::new(io::Cursor::new(head).chain(input));
    match raw {
        Some(spec) => Ok(Box::new(RawSource::new(reader, spec, path, options))),
        None => Ok(Box::new(Y4mSource::new(reader, path, options)?)),
    }
}

/// Opens standard input: raw frames as `raw` describes them; without it Y4M, an MCAP file, a ROS 1
/// bag or a database of rosbag2, also compressed as Zstandard.
///
/// # Errors
/// [`SourceError`] when it is something else.
pub fn open_stdin(
    raw: Option<&RawSpec>,
    options: &SourceOptions,
) -> Result<Box<dyn Source>, SourceError> {
    let path = Path::new("stdin");
    let reader: io::Result<Box<dyn Read + Send>> = match &options.stop {
        Some(stop) => stop.stdin(),
        None => Ok(Box::new(io::stdin())),
    };
    open_pipe(path, reader.map_err(|error| SourceError::io(path, error))?, raw, options)
}

/// Opens a file of raw frames as `spec` describes them, one after another.
///
/// # Errors
/// [`SourceError`] when it cannot be opened.
pub fn open_raw(
    path: &Path,
    spec: &RawSpec,
    options: &SourceOptions,
) -> Result<Box<dyn Source>, SourceError> {
    check_topic(path, &stream_name(path), options)?;
    let file = File::open(path).map_err(|e| SourceError::io(path, e))?;
    let reader = Box::new(std::io::BufReader::new(file));
    Ok(Box::new(RawSource::new(reader, spec, path, options)))
}

#[derive(Debug, PartialEq)]
enum Kind {
    Mcap,
    Bag,
    Sqlite,
    /// The file is compressed as a whole.
    Packed,
    Y4m,
    Still,
    Empty,
    Playlist,
    Other,
}

fn kind(head: &[u8], path: &Path) -> Kind {
    let magics: [(&[u8], Kind); 6] = [
        (signature::MCAP, Kind::Mcap),
        (signature::BAG, Kind::Bag),
        (signature::SQLITE, Kind::Sqlite),
        (b"YUV4MPEG2", Kind::Y4m),
        (b"\xff\xd8\xff", Kind::Still),
        (b"\x89PNG\r\n\x1a\n", Kind::Still),
    ];
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    if let Some((_, kind)) = magics.into_iter().find(|(magic, _)| head.starts_with(magic)) {
        // A Motion JPEG stream begins as its first picture does.
        let is_stream = kind == Kind::Still && ["mjpeg", "mjpg"].contains(&extension.as_str());
        return if is_stream { Kind::Other } else { kind };
    }
    if Compression::of(head).is_some() {
        return Kind::Packed;
    }
    match extension.as_str() {
        "mcap" => Kind::Mcap,
        "bag" => Kind::Bag,
        "db3" => Kind::Sqlite,
        "y4m" => Kind::Y4m,
        _ if head.is_empty() => Kind::Empty,
        _ if is_playlist(head) => Kind::Playlist,
        _ => Kind::Other,
    }
}

/// Whether a file that begins as a JPEG is a stream of them: behind the first there is another. A
/// file that is called a picture is one, whatever is behind it: cameras append previews.
fn is_motion_jpeg(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let is_called_picture = ["jpg", "jpeg", "jpe", "jfif", "mpo"].contains(&extension.as_str());
    let Some(file) = File::open(path).ok().filter(|_| !is_called_picture) else { return false };
    has_second_jpeg(&mut BufReader::new(file)).is_some()
}

/// Reads a JPEG to its end; returns whether another begins behind it.
fn has_second_jpeg(reader: &mut impl BufRead) -> Option<()> {
    let mut bytes = |count: u64| {
        let mut bytes = Vec::new();
        reader.by_ref().take(count).read_to_end(&mut bytes).ok()?;
        (bytes.len() as u64 == count).then_some(bytes)
    };
    let (mut marker, mut is_marker) = (0, false);
    bytes(2)?;
    while marker != 0xd9 {
        // Anything in front of a marker is data of a scan.
        let byte = bytes(1)?[0];
        if !is_marker || byte == 0xff {
            is_marker = byte == 0xff;
            continue;
        }
        (marker, is_marker) = (byte, false);
        if !matches!(marker, 0x00 | 0x01 | 0xd0..=0xd9) {
            let length = u16::from_be_bytes(*bytes(2)?.first_chunk()?);
            bytes(u64::from(length).saturating_sub(2))?;
        }
    }
    // Some writers fill up with zeros.
    let first = loop {
        match bytes(1)?[0] {
            0 => {}
            other => break other,
        }
    };
    (first == 0xff && bytes(2)? == [0xd8, 0xff]).then_some(())
}

fn is_playlist(head: &[u8]) -> bool {
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let starts_with =
        |word: &&[u8]| text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    let contains =
        |word: &&[u8]| text.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word));
    PLAYLISTS.iter().any(starts_with)
        || (text.starts_with(b"<") && XML_PLAYLISTS.iter().any(contains))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_go_before_the_name() {
        for (head, name, expected) in [
            (&b"\x89MCAP0\r\n"[..], "a.bag", Kind::Mcap),
            (b"#ROSBAG V2.0\n", "a", Kind::Bag),
            (b"#ROSBAG V1.2\n", "a", Kind::Bag),
            (b"SQLite format 3\0", "a.mcap", Kind::Sqlite),
            (b"YUV4MPEG2 W1", "a.mp4", Kind::Y4m),
            (b"\xff\xd8\xff\xe0", "a", Kind::Still),
            (b"\xff\xd8\xff\xe0", "a.mjpeg", Kind::Other),
            (b"\x28\xb5\x2f\xfd\x04", "a.mcap", Kind::Packed),
            (b"\x50\x2a\x4d\x18\x04\0\0\0", "a.db3.zst", Kind::Packed),
            (b"\x1f\x8b\x08\0", "a.bag.gz", Kind::Packed),
            (b"BZh91AY", "a.bag.bz2", Kind::Packed),
            (b"\x04\x22\x4d\x18", "a.mcap.lz4", Kind::Packed),
            (b"hello", "a.MCAP", Kind::Mcap),
            (b"", "a.bag", Kind::Bag),
            (b"", "a", Kind::Empty),
            (b"#EXTM3U\n#EXT-X-VERSION:3\n", "a.mp4", Kind::Playlist),
            (b"\xef\xbb\xbf\n#extm3u\n", "a", Kind::Playlist),
            (b"ffconcat version 1.0\nfile /x.mp4\n", "a.mp4", Kind::Playlist),
            (b"<?xml version=\"1.0\"?>\n<MPD profiles=\"\">", "a.mpd", Kind::Playlist),
            (b"\0\0\0\x18ftyp <MPD", "a.mp4", Kind::Other),
            (b"\0\0\0\x18ftyp", "a.mp4", Kind::Other),
        ] {
            assert_eq!(kind(head, Path::new(name)), expected, "{name}");
        }
    }

    #[test]
    fn pictures_behind_each_other_are_a_stream() {
        // A header, a scan with a stuffed byte and a restart, the end.
        let jpeg = b"\xff\xd8\xff\xe0\0\x04\xff\xd9\xff\xda\0\x02\x12\xff\0\xff\xd0\x34\xff\xd9";
        let is_stream = |parts: &[&[u8]]| has_second_jpeg(&mut &parts.concat()[..]).is_some();
        assert!(is_stream(&[jpeg, jpeg]));
        assert!(is_stream(&[jpeg, &[0; 9], jpeg]));
        for behind in [&b""[..], b"\0\0\0", b"\xff\xd8", b"x\xff\xd8\xff", &[0xff; 9]] {
            assert!(!is_stream(&[jpeg, behind]), "{behind:x?}");
        }
        for end in 0..jpeg.len() {
            assert!(!is_stream(&[&jpeg[..end]]));
        }
    }
}
