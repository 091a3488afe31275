//! `encoder repair`.

use std::{
    fs::File,
    io::{BufReader, ErrorKind},
    path::{Path, PathBuf},
};

use encoder_pipeline::{
    mux::{OutputFile, PartError, Recovery, is_being_written, repaired_name},
    text::Count,
};
use tracing::warn;

use super::{
    hints::{Message, missing},
    output::Output,
    settings::Refused,
};

/// Makes a whole file from each damaged file; returns the exit code.
pub fn repair(
    files: &[PathBuf],
    output: Option<&Path>,
    overwrite: bool,
    out: &mut Output,
) -> Result<u8, Refused> {
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
    for file in files {
        let output = match into {
            Some(path) if path.is_dir() => {
                path.join(repaired_name(file).file_name().unwrap_or_default())
            }
            Some(path) => path.to_path_buf(),
            None => repaired_name(file),
        };
        match repair_file(file, &output, overwrite) {
            Ok(text) => out.summary(&format!("{}: {text}", file.display())),
            Err(message) => {
                message.report();
                code = 1;
            }
        }
    }
    Ok(code)
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
        Err(error @ PartError::Progressive) => return Ok(format!("{error}; nothing to repair")),
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
    let (frames, rest) = (found.frames(), found.rest());
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
    Ok(format!("{frames}, {seconds:.3} s, {is} in {}{rest}", output.display()))
}
