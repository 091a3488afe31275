//! Errors as they are printed: what failed, and hints, which are options of this program or come
//! from the library.

use std::{fs, path::Path};

use encoder_core::{OpenError, Refusal};
use encoder_pipeline::{
    destination::Location,
    error::{ErrorKind, RunError},
    mux::SinkError,
    naming::Format,
    report::SkipReason,
    session::SessionError,
    source::SourceError,
};
use tracing::error;

/// An error and its hints.
#[derive(Debug)]
pub struct Message {
    pub text: String,
    pub hints: Vec<String>,
}

impl Message {
    /// A text without hints.
    pub fn new(text: impl ToString) -> Self {
        Self { text: text.to_string(), hints: Vec::new() }
    }

    /// The same message with a further hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// An error of a run over `recording`.
    pub fn of(error: &RunError, recording: &Path) -> Self {
        let mut message = match error {
            RunError::Session(SessionError::Open(error)) => Self::of_open(error),
            RunError::Source(SourceError::Invalid { location, reason, hint }) => {
                Self::new(format!("{location}: {reason}")).hint(hint)
            }
            error => Self::new(error),
        };
        let hints = &mut message.hints;
        match error {
            RunError::NothingConverted { skipped, .. } => {
                hints.extend(skipped.iter().filter_map(|s| of_skipped(&s.reason)).map(Into::into));
                hints.dedup();
            }
            error if error.kind() == ErrorKind::Missing && !recording.exists() => {
                hints.push(missing(recording));
            }
            error => hints.extend(of_error(error).map(Into::into)),
        }
        if let Some(part) = error.kept().filter(|part| is_mp4(part)) {
            hints.push(format!("`encoder repair {part}` makes a video of it"));
        }
        message
    }

    /// The error of an output file.
    pub fn of_sink(error: SinkError) -> Self {
        Self::of(&error.into(), Path::new(""))
    }

    /// Why no encoder was opened.
    pub fn of_open(error: &OpenError) -> Self {
        let named = |refusal: &Refusal| format!("{}: {}", refusal.encoder, refusal.reason);
        match error {
            OpenError::Refused(refusal) => Self::new(named(refusal)).hint(&refusal.hint),
            OpenError::NoneLeft { refusals } if !refusals.is_empty() => {
                let (absent, others): (Vec<_>, Vec<_>) = refusals.iter().partition(|r| r.absent);
                let mut reasons: Vec<_> = others.iter().copied().map(named).collect();
                let hint = |refusal: &&Refusal| format!("{}: {}", refusal.encoder, refusal.hint);
                let mut hints: Vec<_> = others.iter().map(hint).collect();
                if !absent.is_empty() {
                    let names: Vec<_> = absent.iter().map(|r| r.encoder.as_str()).collect();
                    reasons.push(format!("no device here for {}", names.join(", ")));
                    hints.push("`encoder detect` shows what each encoder needs".into());
                }
                let text = format!("no encoder could be opened: {}", reasons.join(" | "));
                Self { text, hints }
            }
            error => Self::new(error),
        }
    }

    /// The same message, with the camera.
    pub fn about(mut self, topic: &str) -> Self {
        self.text = format!("{topic}: {}", self.text);
        self
    }

    /// Writes it to standard error.
    pub fn report(&self) {
        match self.hints.join("\n") {
            none if none.is_empty() => error!("{}", self.text),
            hint => error!(hint, "{}", self.text),
        }
    }
}

/// What to check if there is no such file.
pub fn missing(path: &Path) -> String {
    if let Ok(target) = fs::read_link(path) {
        return format!("it is a link to {}, which does not exist", target.display());
    }
    if path.to_string_lossy().contains(['*', '?', '[']) {
        return "the shell found no file that matches this pattern: check the path".into();
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let Some(parent) = parent else {
        let here = std::env::current_dir().unwrap_or_default();
        return format!("check the name: the current directory is {}", here.display());
    };
    let absent = parent.ancestors().take_while(|directory| !directory.exists()).last();
    match absent {
        Some(directory) if !directory.as_os_str().is_empty() => {
            format!("check the path: there is no {}", directory.display())
        }
        _ => format!("check the name: the directory {} exists", parent.display()),
    }
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

const RATE_GAP: &str = "cut the recording with --start and --end, or use --time log if the header \
                        stamps are wrong";
const NO_COMMON_TIME: &str = "use --grid-ends pad, or --grid camera";

/// The option that helps against a topic that was left out.
pub fn of_skipped(reason: &SkipReason) -> Option<&'static str> {
    match reason {
        SkipReason::FixedRate => Some("leave out --resample"),
        SkipReason::Rate { .. } => match reason.kind() {
            "rate-gap" => Some(RATE_GAP),
            _ => Some(NO_COMMON_TIME),
        },
        SkipReason::Reordered { .. } => Some("--format annexb copies it without times"),
        _ => None,
    }
}

fn of_error(error: &RunError) -> Option<&'static str> {
    Some(match error.kind() {
        ErrorKind::OutputExists => "give another -o, or --overwrite",
        ErrorKind::OutputPermission => "give an -o that you may write to",
        ErrorKind::OutputIo => "give another -o",
        ErrorKind::OutputRefused => {
            "choose one camera with --topic (`encoder info` lists them), or give a directory as -o"
        }
        ErrorKind::OutsideWindow => {
            "--start and --end are seconds from the first message, or @SECONDS since 1970"
        }
        ErrorKind::DiskFull if is_too_large(error) => {
            "raise the limit for files (ulimit -f), or give a file system with larger ones as -o"
        }
        ErrorKind::DiskFull => "free some space or give another -o",
        ErrorKind::RateGap => RATE_GAP,
        ErrorKind::NoCommonTime => NO_COMMON_TIME,
        _ => return None,
    })
}

/// Whether a file is too large, rather than the disk full.
fn is_too_large(error: &RunError) -> bool {
    error.io_error().is_some_and(|error| error.kind() == std::io::ErrorKind::FileTooLarge)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io;

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
                let Message { text, hints } = Message::of_sink(error.kept(Path::new(kept)));
                assert!(text.starts_with("out/a.mp4: "), "{text}");
                assert!(hints[0].contains(option), "{hints:?}");
                let repair = format!("`encoder repair {kept}`");
                let is_named = hints.iter().any(|hint| hint.starts_with(&repair));
                assert_eq!(is_named, is_repaired, "{hints:?}");
            }
        }
        let message = Message::of_sink(SinkError::stream(Path::new("a.mp4"), "no picture"));
        assert_eq!(message.text, "a.mp4: no picture");
        assert_eq!(message.hints, Vec::<String>::new());
    }

    #[test]
    fn encoders_that_are_refused_have_a_hint_each() {
        use encoder_core::{EncoderType, RefusalKind};
        let refusal =
            |encoder, hint| Refusal::new(encoder, RefusalKind::Failed, "it is broken", hint);
        let refusals = vec![
            refusal(EncoderType::QSV, "buy one").absent(),
            refusal(EncoderType::NVENC, "repair it"),
            refusal(EncoderType::X264, "install it"),
        ];
        let message = Message::of_open(&OpenError::NoneLeft { refusals });
        assert_eq!(
            message.text,
            "no encoder could be opened: nvenc: it is broken | x264: it is broken | no device here \
             for qsv"
        );
        let hints = ["nvenc: repair it", "x264: install it"];
        assert_eq!(message.hints[..2], hints);
        assert!(message.hints[2].contains("encoder detect"));
    }

    #[test]
    fn what_to_check_if_a_file_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| missing(&folder.path().join(name));
        let here = folder.path().display();
        assert_eq!(at("a.mcap"), format!("check the name: the directory {here} exists"));
        assert_eq!(at("b/c/a.mcap"), format!("check the path: there is no {here}/b"));
        assert!(at("*.mcap").contains("pattern"));
        assert!(missing(Path::new("a.mcap")).contains("current directory"));
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("gone", folder.path().join("link.mcap")).unwrap();
            assert_eq!(at("link.mcap"), "it is a link to gone, which does not exist");
        }
    }
}
