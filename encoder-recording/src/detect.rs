//! What kind of recording something is.

use std::{fs::File, io::Read, path::Path};

use super::{
    RawSpec, Source, SourceError, SourceOptions, formats, images::ImagesSource, raw::RawSource,
    y4m::Y4mSource,
};
use encoder_media::Stop;

/// Opens a recording by what it is: its first bytes, not its name. The name counts only where
/// these say nothing, for the error.
///
/// # Errors
/// [`SourceError`] when it is missing, empty or of no known kind.
pub fn open(path: &Path, options: &SourceOptions) -> Result<Box<dyn Source>, SourceError> {
    if path.is_dir() {
        return open_directory(path, options);
    }
    let mut head = Vec::new();
    let mut file = File::open(path).map_err(|e| SourceError::io(path, e))?;
    file.by_ref().take(16).read_to_end(&mut head).map_err(|e| SourceError::io(path, e))?;
    drop(file);
    match kind(&head, path) {
        Kind::Mcap => formats::open_mcap(path, options),
        Kind::Bag => formats::open_bag(path, options),
        Kind::Sqlite => formats::open_sqlite(path, options),
        Kind::Y4m => Y4mSource::open(path, options),
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
        Kind::Other => formats::open_video(path, options),
    }
}

/// Opens standard input: raw frames as `raw` describes them, Y4M without it. It ends when `stop` is
/// said.
///
/// # Errors
/// [`SourceError`] when it is no Y4M.
pub fn open_stdin(
    raw: Option<&RawSpec>,
    options: &SourceOptions,
    stop: &Stop,
) -> Result<Box<dyn Source>, SourceError> {
    let reader = stop.stdin().map_err(|e| SourceError::io(Path::new("stdin"), e))?;
    match raw {
        Some(spec) => {
            let spec = RawSpec { rate: spec.rate.or(options.rate), ..*spec };
            Ok(Box::new(RawSource::new(reader, spec, "stdin")))
        }
        None => Ok(Box::new(Y4mSource::new(reader, Path::new("stdin"), options)?)),
    }
}

/// Opens a file of raw frames as `spec` describes them, one after another.
///
/// # Errors
/// [`SourceError`] when it cannot be opened.
pub fn open_raw(path: &Path, spec: &RawSpec) -> Result<Box<dyn Source>, SourceError> {
    let file = File::open(path).map_err(|e| SourceError::io(path, e))?;
    Ok(Box::new(RawSource::new(Box::new(std::io::BufReader::new(file)), *spec, path)))
}

fn open_directory(path: &Path, options: &SourceOptions) -> Result<Box<dyn Source>, SourceError> {
    let entries = std::fs::read_dir(path).map_err(|e| SourceError::io(path, e))?;
    let is_recording = entries.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name == formats::ROSBAG2_METADATA || name.ends_with(".mcap") || name.ends_with(".db3")
    });
    if is_recording {
        return formats::open_rosbag2(path, options);
    }
    ImagesSource::open(path, options)
}

#[derive(Debug, PartialEq)]
enum Kind {
    Mcap,
    Bag,
    Sqlite,
    Y4m,
    Still,
    Empty,
    Other,
}

fn kind(head: &[u8], path: &Path) -> Kind {
    let magics: [(&[u8], Kind); 6] = [
        (formats::MCAP, Kind::Mcap),
        (formats::BAG, Kind::Bag),
        (formats::SQLITE, Kind::Sqlite),
        (b"YUV4MPEG2", Kind::Y4m),
        (b"\xff\xd8\xff", Kind::Still),
        (b"\x89PNG\r\n\x1a\n", Kind::Still),
    ];
    if let Some((_, kind)) = magics.into_iter().find(|(magic, _)| head.starts_with(magic)) {
        return kind;
    }
    // The reader of the kind that the name promises tells best what is wrong.
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    match extension.as_str() {
        "mcap" => Kind::Mcap,
        "bag" => Kind::Bag,
        "db3" => Kind::Sqlite,
        "y4m" => Kind::Y4m,
        _ if head.is_empty() => Kind::Empty,
        _ => Kind::Other,
    }
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
            (b"hello", "a.MCAP", Kind::Mcap),
            (b"", "a.bag", Kind::Bag),
            (b"", "a", Kind::Empty),
            (b"\0\0\0\x18ftyp", "a.mp4", Kind::Other),
        ] {
            assert_eq!(kind(head, Path::new(name)), expected, "{name}");
        }
    }
}
