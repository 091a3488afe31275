//! The report of a run, for people and for programs. `docs/report.md` describes the JSON.

use std::{fmt, io, path::Path};

use serde::{Serialize, Serializer, ser::SerializeStruct};

use crate::{destination::Location, error::RunError, mux::SinkError, session::VideoReport};

/// How a run ended; the exit code of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Every frame of every topic is in a video.
    Done,
    /// The videos are whole, but frames were repaired, left out or missing.
    Repaired,
    /// At least one video that was asked for could not be made.
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

/// Everything about one run over one recording.
#[derive(Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The recording, as it was named.
    pub recording: String,
    /// The exit code: 0 done, 1 failed, 3 done with repaired, left out or missing frames.
    pub exit: u8,
    /// Why the run failed as a whole. In JSON `error` and `error_kind`, absent otherwise.
    #[serde(flatten)]
    pub error: Option<RunError>,
    /// Whether it was stopped before the end of the recording.
    pub interrupted: bool,
    /// One entry per video, in the order of topics.
    pub outputs: Vec<Output>,
    /// What the destination made as a whole, such as the directory of the videos; absent where it
    /// has no location, or the run failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<Location>,
    /// Camera topics without a video, and why.
    pub skipped_topics: Vec<SkippedTopic>,
    /// What concerns the recording or the destination as a whole.
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
    /// How it was made; without a file where it could not be made.
    #[serde(flatten)]
    pub video: VideoReport,
    /// What holds the frames before an error, where that is kept.
    pub partial: Option<Location>,
    /// Frames of the recording that a lower constant rate had no place for.
    pub frames_left_out: u64,
    /// Why there is no video. In JSON `error` and `error_kind`, absent otherwise.
    #[serde(flatten)]
    pub error: Option<RunError>,
}

/// A camera topic without a video.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct SkippedTopic {
    /// The topic.
    pub topic: String,
    /// Its schema or type.
    pub schema: String,
    /// Its messages.
    pub frames_in: u64,
    /// Why there is no video. In JSON `reason`, and the kind as `reason_kind`.
    #[serde(flatten)]
    pub reason: SkipReason,
}

/// Why a camera topic has no video.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SkipReason {
    /// The topic has no messages.
    NoMessages,
    /// None of its frames can be decoded.
    NothingDecoded {
        /// How many frames there are.
        frames: u64,
        /// Number of the first one.
        number: u64,
        /// What is wrong with the first one.
        reason: String,
    },
    /// The run ended before a frame of it was read.
    NothingRead,
    /// Its pictures have an encoding that is not supported, or only with an option.
    Unsupported {
        /// What is not supported.
        reason: String,
        /// What a user can do.
        hint: String,
    },
    /// It is a video that is not H.264, and only H.264 is copied.
    Codec {
        /// The format as recorded.
        format: String,
    },
    /// It is an H.264 video, and copying cannot make a constant rate.
    FixedRate,
    /// It is an H.264 video that cannot be copied as it was recorded.
    CannotCopy {
        /// Why, and what a user can do.
        reason: String,
    },
}

impl SkipReason {
    /// The kind, as in `report.json`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::NoMessages => "no-messages",
            Self::NothingDecoded { .. } => "nothing-decoded",
            Self::NothingRead => "nothing-read",
            Self::Unsupported { .. } => "unsupported",
            Self::Codec { .. } => "codec",
            Self::FixedRate => "fixed-rate",
            Self::CannotCopy { .. } => "cannot-copy",
        }
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMessages => f.write_str("the topic has no messages"),
            Self::NothingDecoded { frames, number, reason } => {
                write!(f, "none of its {frames} frames can be decoded; frame {number}: {reason}")
            }
            Self::NothingRead => f.write_str("no frame of it was read"),
            Self::Unsupported { reason, hint } => write!(f, "{reason}; {hint}"),
            Self::Codec { format } => write!(
                f,
                "a video topic in format \"{format}\"; only h264 can be copied: convert the topic \
                 with FFmpeg first"
            ),
            Self::FixedRate => {
                f.write_str("an H.264 topic is copied as recorded, which cannot change its rate")
            }
            Self::CannotCopy { reason } => f.write_str(reason),
        }
    }
}

impl Serialize for SkipReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("SkipReason", 2)?;
        fields.serialize_field("reason", &self.to_string())?;
        fields.serialize_field("reason_kind", self.kind())?;
        fields.end()
    }
}

impl Report {
    /// The errors of the run and of its videos, that of the run first.
    pub fn errors(&self) -> impl Iterator<Item = &RunError> {
        self.error.iter().chain(self.outputs.iter().filter_map(|output| output.error.as_ref()))
    }

    /// Makes the locations of files below `directory` relative to it.
    pub fn relative_to(&mut self, directory: &Path) {
        for output in &mut self.outputs {
            for location in [&mut output.video.file, &mut output.partial].into_iter().flatten() {
                *location = location.relative_to(directory);
            }
        }
    }

    /// Writes the report as JSON, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, path: &Path) -> std::io::Result<()> {
        use std::io::Write;
        let directory = path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::Builder::new().prefix(".report.").tempfile_in(directory)?;
        serde_json::to_writer_pretty(&mut file, self)?;
        file.write_all(b"\n")?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
        }
        file.persist(path).map_err(|e| e.error)?;
        Ok(())
    }
}

/// Refuses to write over the report of another run, unless that run made no file.
///
/// # Errors
/// [`SinkError::Io`] where `report` exists.
pub fn check_free(report: &Path, overwrite: bool) -> Result<(), SinkError> {
    if overwrite || !report.exists() || made_nothing(report) {
        return Ok(());
    }
    let exists = "the file exists: another run wrote here";
    Err(SinkError::io(report)(io::Error::new(io::ErrorKind::AlreadyExists, exists)))
}

/// Whether this is the report of a run without a single file. A file that is no report belongs to
/// somebody else.
fn made_nothing(report: &Path) -> bool {
    let text = std::fs::read(report).unwrap_or_default();
    let value: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    let outputs = value.get("outputs").and_then(|outputs| outputs.as_array());
    outputs.is_some_and(|all| all.iter().all(|o| o.get("file").is_some_and(|f| f.is_null())))
}
