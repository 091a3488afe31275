//! Options of this program that help against an error of the library.

use encoder_pipeline::{
    destination::Location,
    error::{ErrorKind, RunError},
    mux::SinkError,
    naming::Format,
    report::SkipReason,
};

/// An error with the options that help.
pub fn with_hint(error: &RunError) -> String {
    let mut text = error.to_string();
    let mut add = |hint: &str| {
        text.push_str("; ");
        text.push_str(hint);
    };
    match error {
        RunError::NothingConverted { skipped, .. } => {
            let mut hints: Vec<_> = skipped.iter().filter_map(|s| of_skipped(&s.reason)).collect();
            hints.dedup();
            hints.into_iter().for_each(add);
        }
        error => of_error(error).into_iter().for_each(&mut add),
    }
    if let Some(part) = error.kept().filter(|part| is_mp4(part)) {
        text.push_str(&format!("; `encoder repair {part}` makes a video of it"));
    }
    text
}

/// Whether `encoder repair` can read this: an MP4 file or its part.
fn is_mp4(part: &Location) -> bool {
    let Some(path) = part.path() else { return false };
    let mut name = path.to_path_buf();
    // NAME.mp4, NAME.mp4.part or NAME.mp4.2.part.
    while name.extension().is_some() {
        if Format::of(&name) == Some(Format::Mp4) {
            return true;
        }
        name.set_extension("");
    }
    false
}

/// An error of an output file, with the options that help.
pub fn with_sink_hint(error: SinkError) -> String {
    with_hint(&error.into())
}

/// The option that helps against a topic that was left out.
pub fn of_skipped(reason: &SkipReason) -> Option<&'static str> {
    match reason {
        SkipReason::FixedRate => Some("leave out --resample"),
        SkipReason::Reordered { .. } => Some("--format annexb copies it without times"),
        _ => None,
    }
}

fn of_error(error: &RunError) -> Option<&'static str> {
    Some(match error.kind() {
        ErrorKind::OutputExists => "give another -o, or --overwrite",
        ErrorKind::OutputPermission => "give an -o that you may write to",
        ErrorKind::OutputIo => "give another -o",
        ErrorKind::OutputRefused => "choose one camera with --topic, or give a directory as -o",
        ErrorKind::DiskFull if is_too_large(error) => {
            "raise the limit for files (ulimit -f), or give a file system with larger ones as -o"
        }
        ErrorKind::DiskFull => "free some space or give another -o",
        ErrorKind::RateGap => {
            "cut the recording with --start and --end, use --time log if the header stamps are \
             wrong, or --grid camera if the cameras were not recorded together"
        }
        ErrorKind::NoCommonTime => "use --grid-ends pad, or --grid camera",
        _ => return None,
    })
}

/// Whether a file is too large, rather than the disk full.
fn is_too_large(error: &RunError) -> bool {
    error.io_error().is_some_and(|error| error.kind() == std::io::ErrorKind::FileTooLarge)
}

#[cfg(test)]
mod tests {
    use std::{io, path::Path};

    use super::*;

    #[test]
    fn errors_of_the_output_name_an_option() {
        for (kind, option) in [
            (io::ErrorKind::AlreadyExists, "--overwrite"),
            (io::ErrorKind::PermissionDenied, "-o that you may write to"),
            (io::ErrorKind::StorageFull, "free some space"),
            (io::ErrorKind::FileTooLarge, "ulimit -f"),
            (io::ErrorKind::NotADirectory, "another -o"),
        ] {
            for (kept, is_repaired) in [
                ("out/a.mp4.part", true),
                ("out/a.mp4.2.part", true),
                ("out/a.mp4", true),
                ("out/a.h264.part", false),
            ] {
                let error = SinkError::io(Path::new("out/a.mp4"))(kind.into());
                let text = with_sink_hint(error.kept(Path::new(kept)));
                assert!(text.starts_with("out/a.mp4: ") && text.contains(option), "{text}");
                let repair = format!("`encoder repair {kept}`");
                assert_eq!(text.contains(&repair), is_repaired, "{text}");
            }
        }
        let text = with_sink_hint(SinkError::stream(Path::new("a.mp4"), "no picture"));
        assert_eq!(text, "a.mp4: no picture");
    }
}
