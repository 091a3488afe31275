//! Detects the kind of a recording.

use std::{fs::File, path::Path};

use super::{
    RawSpec, Source, SourceError, SourceOptions,
    filter::{check_topic, stream_name},
    formats,
    images::ImagesSource,
    raw::RawSource,
    signature::{self, Compression},
    y4m::Y4mSource,
};
use encoder_media::Stop;

/// Number of leading bytes that are used to detect the kind of a file.
const HEAD: u64 = 4096;

/// First words of playlists. They are refused because FFmpeg would read the files that they name.
const PLAYLISTS: [&[u8]; 3] = [b"#EXTM3U", b"ffconcat", b"[playlist]"];
/// Elements of playlists in XML.
const XML_PLAYLISTS: [&[u8]; 2] = [b"<MPD", b"<CompositionPlaylist"];

/// Opens a recording. Its kind is detected by its first bytes. The name is used only if the first
/// bytes match no known kind: the error is then that of the reader for this name.
///
/// # Errors
/// [`SourceError`] when the recording is missing, empty or of no known kind.
pub fn open(path: &Path, options: &SourceOptions) -> Result<Box<dyn Source>, SourceError> {
    if path.is_dir() {
        return open_directory(path, options);
    }
    let head = signature::head(path, HEAD)?;
    if let Some(error) = signature::packed(path, &head) {
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

/// Opens standard input: raw frames as `raw` describes them, Y4M without it. The stream ends when
/// `stop` is called.
///
/// # Errors
/// [`SourceError`] when it is not Y4M.
pub fn open_stdin(
    raw: Option<&RawSpec>,
    options: &SourceOptions,
    stop: &Stop,
) -> Result<Box<dyn Source>, SourceError> {
    let path = Path::new("stdin");
    check_topic(path, &stream_name(path), options)?;
    let reader = stop.stdin().map_err(|e| SourceError::io(path, e))?;
    match raw {
        Some(spec) => Ok(Box::new(RawSource::new(reader, spec, path, options))),
        None => Ok(Box::new(Y4mSource::new(reader, path, options)?)),
    }
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

/// Opens a directory. It is a rosbag2 recording if it contains a rosbag2 file or a `metadata.yaml`
/// of rosbag2, otherwise a directory of pictures.
fn open_directory(path: &Path, options: &SourceOptions) -> Result<Box<dyn Source>, SourceError> {
    let entries = std::fs::read_dir(path).map_err(|e| SourceError::io(path, e))?;
    let is_file = entries.flatten().any(|entry| {
        // A broken link is a missing file of the recording.
        signature::is_rosbag2_name(&entry.file_name().to_string_lossy()) && !entry.path().is_dir()
    });
    if is_file || signature::has_rosbag2_metadata(path) {
        return formats::open_rosbag2(path, options);
    }
    ImagesSource::open(path, options)
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
}
