//! Who is told how far a run is.

use std::sync::Arc;

use crate::session::Counters;

/// Is told of each camera when its video begins; reads the counters whenever it likes.
pub trait Progress: Sync {
    /// A video begins. `frames` is how many frames the recording promises for its topic.
    fn camera(&self, topic: &str, frames: Option<u64>, counters: Arc<Counters>);
}

/// Tells nobody.
pub struct Silent;

impl Progress for Silent {
    fn camera(&self, _topic: &str, _frames: Option<u64>, _counters: Arc<Counters>) {}
}
