//! The parts of a run that its cameras share.

use crate::{
    closing::Closings, destination::Destination, part::DecodeTask, progress::Progress,
    session::SessionConfig,
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
}
