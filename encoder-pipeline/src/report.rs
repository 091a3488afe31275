//! What a run did, for people and for programs. `docs/report.md` describes the JSON.

use std::path::{Path, PathBuf};

use encoder_core::Refusal;
use serde::Serialize;

use crate::session::{EncoderSpan, Failover};

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
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The recording, as it was named.
    pub recording: String,
    /// The exit code: 0 done, 1 failed, 3 done with repaired, left out or missing frames.
    pub exit: u8,
    /// What failed as a whole; absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether it was stopped before the end of the recording.
    pub interrupted: bool,
    /// One entry per video file, in the order of topics.
    pub outputs: Vec<Output>,
    /// Camera topics that gave no video, and why.
    pub skipped_topics: Vec<SkippedTopic>,
    /// What concerns the recording as a whole.
    pub warnings: Vec<String>,
    /// Version of the program.
    pub version: &'static str,
    /// Length of the run in seconds.
    pub elapsed_s: f64,
}

/// One video file.
#[derive(Clone, Debug, Serialize)]
pub struct Output {
    /// Topic (or file name, where there are no topics).
    pub topic: String,
    /// The file, relative to the report; null when it could not be made.
    pub file: Option<PathBuf>,
    /// The file that has what was written before an error; null when there is none.
    pub partial: Option<PathBuf>,
    /// The encoder that was really used, of several the one that made the most frames; `copy` for a
    /// topic that was H.264 already; null when none was opened.
    pub encoder: Option<String>,
    /// How the encoder ran: library or program, with its version.
    pub encoder_description: Option<String>,
    /// All encoders that were used, in order, with their frames.
    pub encoders: Vec<EncoderSpan>,
    /// Each loss of an encoder in mid-stream and each return. No frame is lost by them.
    pub failovers: Vec<Failover>,
    /// Width of the coded pictures in pixels.
    pub width: u32,
    /// Height of the coded pictures in pixels.
    pub height: u32,
    /// Frames of the recording that belong to this file, broken ones included.
    pub frames_in: u64,
    /// Frames in the video.
    pub frames_encoded: u64,
    /// Frames of the video that show the picture of another frame again.
    pub frames_repeated: u64,
    /// Frames of the recording that could not be decoded.
    pub frames_failed: u64,
    /// Frames that were dropped because the encoder did not keep up with a live source.
    pub frames_dropped: u64,
    /// Frames of the recording that a lower constant rate had no place for.
    pub frames_left_out: u64,
    /// Recorded time of the first frame in nanoseconds.
    pub first_stamp_ns: Option<i64>,
    /// Recorded time of the last frame in nanoseconds.
    pub last_stamp_ns: Option<i64>,
    /// Length of the video in seconds.
    pub duration_s: f64,
    /// Bytes of video.
    pub bytes: u64,
    /// Encoders that were passed over, with reason and hint.
    pub refusals: Vec<Refusal>,
    /// What a user should know about this video.
    pub warnings: Vec<String>,
    /// Why there is no file; absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A camera topic without a video.
#[derive(Clone, Debug, Serialize)]
pub struct SkippedTopic {
    /// The topic.
    pub topic: String,
    /// Its schema or type.
    pub schema: String,
    /// Its messages.
    pub frames_in: u64,
    /// Why there is no video.
    pub reason: String,
}

impl Report {
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
