//! The report of a run, for people and for programs. `docs/report.md` describes the JSON.

use std::{io, path::Path};

use serde::Serialize;

pub use crate::rate::{GridCamera, GridReport};
pub use crate::skipped::{SkipReason, SkippedTopic};
use crate::{
    destination::Location, error::RunError, mux::SinkError, session::VideoReport, text::json,
};

/// How a run ended; determines the exit code of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Every frame of every camera topic is in a video, at its time.
    Done,
    /// The videos are complete, but frames were broken, missing or dropped, times were guessed, a
    /// topic or a file was left out, or the run was stopped.
    Repaired,
    /// At least one requested video could not be made.
    Failed,
}

impl Exit {
    /// The exit code: 0, 3 or 1.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Repaired => 3,
            Self::Failed => 1,
        }
    }
}

/// The report of one run over one recording.
#[derive(Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The recording, as it was named by the caller.
    pub recording: String,
    /// The exit code of an [`Exit`]: 0, 3 or 1.
    pub exit: u8,
    /// Why the run failed as a whole. In JSON `error` and `error_kind`, absent otherwise.
    #[serde(flatten)]
    pub error: Option<RunError>,
    /// Whether the run was stopped before the end of the recording.
    pub interrupted: bool,
    /// One entry per video, in the order of topics.
    pub outputs: Vec<Output>,
    /// The output of the destination as a whole, such as the directory of the videos; absent if it
    /// has no location, or the run failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<Location>,
    /// The grid of a constant rate that was made from recorded times; absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grid: Option<GridReport>,
    /// Camera topics without a video, and why.
    pub skipped_topics: Vec<SkippedTopic>,
    /// Warnings about the recording or the destination as a whole.
    pub warnings: Vec<String>,
    /// Version of the program.
    pub version: &'static str,
    /// Length of the run in seconds.
    pub elapsed_s: f64,
}

/// One video.
#[derive(Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Output {
    /// Topic (or file name, where there are no topics).
    pub topic: String,
    /// Number of the video among those of its topic, from 1.
    pub part: usize,
    /// The frame id of the camera, if several cameras publish on the topic; absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame_id: Option<String>,
    /// How the video was made; without a file if it could not be made.
    #[serde(flatten)]
    pub video: VideoReport,
    /// The file with the frames before an error, if it is kept.
    pub partial: Option<Location>,
    /// Frames of the recording that were left out because of a lower constant rate.
    pub frames_left_out: u64,
    /// Why there is no video. In JSON `error` and `error_kind`, absent otherwise.
    #[serde(flatten)]
    pub error: Option<RunError>,
}

impl Report {
    /// The report of a run that failed before the recording was opened.
    pub fn failed(recording: impl Into<String>, error: RunError) -> Self {
        Self {
            recording: recording.into(),
            exit: Exit::Failed.code(),
            interrupted: matches!(error, RunError::Stopped { .. }),
            error: Some(error),
            version: env!("CARGO_PKG_VERSION"),
            ..Self::default()
        }
    }

    /// The errors of the run and of its videos; the error of the run comes first.
    pub fn errors(&self) -> impl Iterator<Item = &RunError> {
        self.error.iter().chain(self.outputs.iter().filter_map(|output| output.error.as_ref()))
    }

    /// Whether the run left no file: neither a video nor a part of one.
    pub fn left_nothing(&self) -> bool {
        self.outputs.iter().all(|output| output.video.file.is_none() && output.partial.is_none())
    }

    /// Makes the locations of files below `directory` relative to that directory.
    pub fn relative_to(&mut self, directory: &Path) {
        for output in &mut self.outputs {
            for location in [&mut output.video.file, &mut output.partial].into_iter().flatten() {
                *location = location.relative_to(directory);
            }
        }
    }

    /// Writes the report as JSON, atomically. The directory is made if it does not exist.
    ///
    /// # Errors
    /// When the report cannot be written.
    pub fn save(&self, path: &Path) -> std::io::Result<()> {
        save_report(path, &json(self)?)
    }
}

/// Writes `text`, the JSON of a report, atomically and with a line feed at the end:
/// [`Report::save`] for a program that changes the text of its reports. The directory is made if it
/// does not exist.
///
/// # Errors
/// When the report cannot be written.
pub fn save_report(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    let mut file =
        tempfile::Builder::new().prefix(".report.").suffix(".part").tempfile_in(directory)?;
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
    }
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}

/// Refuses to overwrite the report of another run, unless that run made no file.
///
/// # Errors
/// [`SinkError::Io`] where `report` exists, or is a directory.
pub fn check_free(report: &Path, overwrite: bool) -> Result<(), SinkError> {
    if report.is_dir() {
        let error = io::Error::new(io::ErrorKind::IsADirectory, "a directory has this name");
        return Err(SinkError::io(report)(error));
    }
    if overwrite || !report.exists() || made_nothing(report) {
        return Ok(());
    }
    let exists = "the file exists: another run wrote here";
    Err(SinkError::io(report)(io::Error::new(io::ErrorKind::AlreadyExists, exists)))
}

/// Whether the file is the report of a run that made no file. A file that is not a report must not
/// be overwritten.
fn made_nothing(report: &Path) -> bool {
    // A named pipe would be waited for.
    let text = report.is_file().then(|| std::fs::read(report).ok()).flatten().unwrap_or_default();
    let value: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    let outputs = value.get("outputs").and_then(|outputs| outputs.as_array());
    outputs.is_some_and(|all| all.iter().all(|o| o.get("file").is_some_and(|f| f.is_null())))
}
