//! How a run is made.

use encoder_core::FrameRate;

use super::Run;
use crate::{
    mux::OutputMode,
    naming::{Format, Target},
    session::SessionConfig,
    stop::Stop,
};

impl Run {
    /// Converts `recording` (its name in the report) into MP4 files at `target`, one for each
    /// camera, by one thread. Files that exist are kept, and `stop` ends the run early.
    pub fn new(
        recording: impl Into<String>,
        target: Target,
        session: SessionConfig,
        stop: Stop,
    ) -> Self {
        Self {
            recording: recording.into(),
            target,
            format: Format::Mp4,
            overwrite: false,
            mode: OutputMode::default(),
            session,
            resample: None,
            threads: 1,
            is_live: false,
            stop,
            label_cameras: false,
        }
    }

    /// Sets the format of the files.
    #[must_use]
    pub fn with_format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// Sets whether files that exist are replaced.
    #[must_use]
    pub fn with_overwrite(mut self, overwrite: bool) -> Self {
        self.overwrite = overwrite;
        self
    }

    /// Sets what an MP4 file is while it is written.
    #[must_use]
    pub fn with_mode(mut self, mode: OutputMode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets the constant rate that is made of the recorded times, by nearest frame.
    #[must_use]
    pub fn with_resample(mut self, rate: FrameRate) -> Self {
        self.resample = Some(rate);
        self
    }

    /// Sets the threads for decoding and for encoding, of all cameras together.
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Sets whether the recording is a live stream.
    #[must_use]
    pub fn with_live(mut self, is_live: bool) -> Self {
        self.is_live = is_live;
        self
    }

    /// Sets whether the metrics of each camera have a label with its topic.
    #[must_use]
    pub fn with_label_cameras(mut self, label_cameras: bool) -> Self {
        self.label_cameras = label_cameras;
        self
    }
}
