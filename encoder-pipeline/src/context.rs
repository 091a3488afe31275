//! What the cameras of a run share.

use std::collections::HashMap;

use crate::{
    closing::Closings, destination::Destination, part::DecodeTask, progress::Progress,
    session::SessionConfig, source::StreamId,
};

/// The parts of a run that a camera uses.
pub(crate) struct Context<'a> {
    pub config: SessionConfig,
    pub destination: Box<dyn Destination>,
    pub decoders: crossbeam_channel::Sender<DecodeTask>,
    pub progress: &'a dyn Progress,
    pub keep_encoded_video: bool,
    pub label_cameras: bool,
    /// The videos that accept no more frames.
    pub closing: Closings,
    /// Number of open videos that are not current.
    pub idle: usize,
    /// Number of videos of each topic.
    pub numbers: HashMap<StreamId, usize>,
}

impl Context<'_> {
    /// The number of the next video of a topic.
    pub fn number(&mut self, stream: StreamId) -> usize {
        let number = self.numbers.entry(stream).or_default();
        *number += 1;
        *number
    }
}
