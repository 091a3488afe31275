//! Progress of a run.

use crate::session::StatsHandle;

/// Receives the numbers of each video when the video begins, and may read them at any time.
pub trait Progress: Sync {
    /// Called when a video begins. `frames` is the number of frames in its topic by the index of
    /// the recording.
    fn camera(&self, topic: &str, frames: Option<u64>, stats: StatsHandle);
}

/// Ignores the progress.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn camera(&self, _topic: &str, _frames: Option<u64>, _stats: StatsHandle) {}
}
