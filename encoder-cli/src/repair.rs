//! `encoder repair`.

use std::{
    collections::HashSet,
    fs::File,
    io::{BufReader, ErrorKind},
    path::{Path, PathBuf},
};

use encoder_pipeline::{
    mux::{Leftover, OutputFile, PartError, Recovery, is_being_written, repaired_name},
    text::Count,
};
use tracing::warn;

use super::{
    hints::{Message, missing},
    output::Output,
    settings::Refused,
};

/// Makes a whole file from each damaged file, and from each part file below each directory; returns
/// the exit code.
pub fn repair(
    files: &[PathBuf],
    output: Option<&Path>,
    overwrite: bool,
    out: &mut Output,
) -> Result<u8, Refused> {
    let files = &leftovers(files, out)?[..];
    let into = match output {
        Some(path) if !path.is_dir() && files.len() > 1 => {
            return Err(Refused::usage(format!(
                "-o {} names one file, and there are {} to repair; give a directory that exists",
                path.display(),
                files.len()
            )));
        }
        other => other,
    };
    let mut code = 0;
    let mut made = HashSet::new();
    for file in files {
        let mut output = match into {
            Some(path) if path.is_dir() => {
                path.join(repaired_name(file).file_name().unwrap_or_default())
            }
            Some(path) => path.to_path_buf(),
            None => repaired_name(file),
        };
        // Several runs may have left a part file for the same name.
        let (name, mut number) = (output.clone(), 1);
        while made.contains(&output) {
            number += 1;
            let stem = name.file_stem().unwrap_or_default().to_string_lossy();
            let extension = name.extension().unwrap_or_default().to_string_lossy();
            output.set_file_name(format!("{stem}-{number}.{extension}"));
        }
        match repair_file(file, &output, overwrite) {
            Ok(text) => {
                out.summary(&format!("{}: {text}", file.display()));
                made.insert(output);
            }
            Err(message) => {
                message.report();
                code = 1;
            }
        }
    }
    Ok(code)
}

/// The files, and instead of a directory the part files below it.
fn leftovers(files: &[PathBuf], out: &mut Output) -> Result<Vec<PathBuf>, Refused> {
    let mut all = Vec::new();
    for file in files {
        if !file.is_dir() {
            all.push(file.clone());
            continue;
        }
        let found = Leftover::find_below(file)
            .map_err(|error| Refused::failed(format!("{}: {error}", file.display())))?;
        if found.is_empty() {
            let file = file.display();
            out.summary(&format!("{file}: no run that was cut off left a file; nothing to repair"));
        }
        for Leftover { path, is_temporary, .. } in found {
            if is_temporary {
                let input = File::open(&path).ok().map(BufReader::new);
                let has_frames = input.is_some_and(|input| Recovery::find(input).is_ok());
                let path = path.display();
                if has_frames {
                    warn!(
                        "{path}: a temporary file of a run that was cut off, with frames: `encoder \
                         repair {path} -o FILE` makes a video of it"
                    );
                } else {
                    warn!(
                        "{path}: a temporary file of a run that was cut off, without frames of its \
                         own: delete it"
                    );
                }
            } else {
                all.push(path);
            }
        }
    }
    Ok(all)
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
