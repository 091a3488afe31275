//! `encoder repair`.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, BufReader, ErrorKind, Read, Write},
    path::{Path, PathBuf},
};

use encoder_pipeline::{
    mux::{
        Leftover, LeftoverContent, OutputFile, PartError, Recovery, is_being_written, repaired_name,
    },
    text::Count,
};
use tracing::warn;

use super::{
    hints::{Message, missing},
    output::Output,
    settings::Refused,
};

/// A file to repair.
struct Damaged {
    path: PathBuf,
    /// Whether it was found in a directory: its video replaces no file.
    is_found: bool,
}

/// Makes a whole file from each damaged file, and from each part file below each directory; returns
/// the exit code.
pub fn repair(
    files: &[PathBuf],
    output: Option<&Path>,
    overwrite: bool,
    out: &mut Output,
) -> Result<u8, Refused> {
    let (damaged, is_complete) = damaged(files, out);
    let into = match output {
        Some(path) if !path.is_dir() && damaged.len() > 1 => {
            return Err(Refused::usage(format!(
                "-o {} names one file, and there are {} to repair; give a directory that exists",
                path.display(),
                damaged.len()
            )));
        }
        other => other,
    };
    let mut code = if is_complete { 0 } else { 1 };
    let mut made = HashSet::new();
    for Damaged { path: file, is_found } in damaged {
        let name = repaired_name(&file);
        let (name, is_named) = match into {
            Some(path) if path.is_dir() => {
                (path.join(name.file_name().unwrap_or_default()), !is_found)
            }
            Some(path) => (path.to_path_buf(), true),
            None => (name, !is_found),
        };
        // Several runs may have left a part file for the same name.
        let mut video = name.clone();
        for number in 2.. {
            let is_other = |video: &Path| !is_named && exists(video) && !holds(video, &file);
            if !made.contains(&video) && !is_other(&video) {
                break;
            }
            let stem = name.file_stem().unwrap_or_default().to_string_lossy();
            let extension = name.extension().unwrap_or_default().to_string_lossy();
            video.set_file_name(format!("{stem}-{number}.{extension}"));
        }
        if !is_named && exists(&video) {
            let (file, video) = (file.display(), video.display());
            out.summary(&format!("{file}: all of its frames are in {video} already"));
            continue;
        }
        match repair_file(&file, &video, overwrite && is_named) {
            Ok(text) => {
                out.summary(&format!("{}: {text}", file.display()));
                made.insert(video);
            }
            Err(message) => {
                message.report();
                code = 1;
            }
        }
    }
    Ok(code)
}

/// The files, and instead of a directory the files below it that runs have left. Also returns
/// whether all directories could be read.
fn damaged(files: &[PathBuf], out: &mut Output) -> (Vec<Damaged>, bool) {
    let (mut all, mut is_complete) = (Vec::new(), true);
    for file in files {
        if !file.is_dir() {
            all.push(Damaged { path: file.clone(), is_found: false });
            continue;
        }
        let (found, unread) = Leftover::find_below(file);
        if found.is_empty() && unread.is_empty() {
            let file = file.display();
            out.summary(&format!("{file}: no run that was cut off left a file; nothing to repair"));
        }
        for (directory, error) in unread {
            is_complete = false;
            let text = format!("{}: {error}: nothing is repaired there", directory.display());
            Message::new(text).report();
        }
        for Leftover { path, is_temporary, content, .. } in found {
            if is_temporary && content == LeftoverContent::Nothing {
                warn!(
                    "{}: a temporary file of a run that was cut off, without frames of its own: it \
                     may be deleted",
                    path.display()
                );
            } else {
                all.push(Damaged { path, is_found: true });
            }
        }
    }
    (all, is_complete)
}

/// Whether there is anything at the path, also a link to nothing.
fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Whether `video` is what the repair of `file` makes.
fn holds(video: &Path, file: &Path) -> bool {
    let is_same = || -> Option<bool> {
        let found = Recovery::find(BufReader::new(File::open(file).ok()?)).ok()?;
        let mut expected = Expected(BufReader::new(File::open(video).ok()?));
        found.write(&mut expected).ok()?;
        Some(expected.0.read(&mut [0]).ok()? == 0)
    };
    video.is_file() && is_same() == Some(true)
}

/// Accepts only the bytes that come out of the reader.
struct Expected<R>(R);

impl<R: Read> Write for Expected<R> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut expected = vec![0; bytes.len()];
        self.0.read_exact(&mut expected)?;
        match expected == bytes {
            true => Ok(bytes.len()),
            false => Err(io::Error::other("other bytes")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn repair_file(file: &Path, output: &Path, overwrite: bool) -> Result<String, Message> {
    let wrong =
        |error: &dyn std::fmt::Display| Message::new(format!("{}: {error}", file.display()));
    if is_being_written(file) {
        return Err(wrong(&"a program is still writing it; repair it when that has ended"));
    }
    let input = File::open(file).map_err(|error| match error.kind() {
        ErrorKind::NotFound => wrong(&error).hint(missing(file)),
        _ => wrong(&error),
    })?;
    let found = match Recovery::find(BufReader::new(input)) {
        Err(error @ (PartError::Progressive | PartError::RawStream)) => {
            return Ok(format!("{error}; nothing to repair"));
        }
        found => found.map_err(|e| wrong(&e))?,
    };
    // Also if one path is a link to the other.
    if let (Ok(from), Ok(to)) = (file.canonicalize(), output.canonicalize())
        && from == to
    {
        return Err(wrong(
            &"the repaired file needs another name: the one that was cut off is kept",
        ));
    }
    let (frames, rest, torn) = (found.frames(), found.rest(), found.of_torn_fragment());
    let seconds = found.timeline().duration_s();
    for text in &found.timeline().warnings {
        warn!("{}: {text}", file.display());
    }
    let mut whole = OutputFile::create(output, overwrite).map_err(Message::of_sink)?;
    found.write(&mut whole).map_err(|e| wrong(&e))?;
    whole.commit().map_err(Message::of_sink)?;
    let rest = match rest {
        0 => String::new(),
        1 => "; 1 byte at the end was of no use".into(),
        n => format!("; {n} bytes at the end were of no use"),
    };
    let is = if frames == 1 { "is" } else { "are" };
    let frames = Count(frames, "frame");
    let torn = match torn {
        0 => String::new(),
        n => format!(
            "; {n} of them are from the last fragment, which is incomplete, and each has its \
             checksum"
        ),
    };
    Ok(format!("{frames}, {seconds:.3} s, {is} in {}{torn}{rest}", output.display()))
}
