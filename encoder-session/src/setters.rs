//! Setters of a session's configuration, and the memory of its ring.

use std::sync::Arc;

use encoder_core::{EncoderType, FrameMemory, OpenRequest, Waiter, backend};
use encoder_ringbuf::SlotAllocator;
use tracing::debug;

use super::{OnBadFrame, OnFull, SessionConfig};
use encoder_media::timeline::Timing;
use encoder_picture::PictureOptions;

/// Allocators by the memory that they provide.
pub(super) type Allocators = Vec<(FrameMemory, Arc<dyn SlotAllocator>)>;

impl SessionConfig {
    /// Sets the threads that a software encoder may use.
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Sets how the frames are laid out in time.
    #[must_use]
    pub fn with_timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// Sets what to do with frames that cannot be decoded.
    #[must_use]
    pub fn with_on_bad_frame(mut self, on_bad_frame: OnBadFrame) -> Self {
        self.on_bad_frame = on_bad_frame;
        self
    }

    /// Sets what to do with frames when the ring is full.
    #[must_use]
    pub fn with_on_full(mut self, on_full: OnFull) -> Self {
        self.on_full = on_full;
        self
    }

    /// Sets how pictures without colours are displayed, and which pictures are refused.
    #[must_use]
    pub fn with_picture(mut self, picture: PictureOptions) -> Self {
        self.picture = picture;
        self
    }

    /// Sets the clock and the interruption of waits for a busy encoder.
    #[must_use]
    pub fn with_waiter(mut self, waiter: Waiter) -> Self {
        self.waiter = waiter;
        self
    }

    /// Sets the label `camera` of the session's metrics.
    #[must_use]
    pub fn with_camera_label(mut self, label: impl Into<String>) -> Self {
        self.camera_label = Some(label.into());
        self
    }

    /// Provides `memory` to encoders that request it ([`Backend::memory`]): `allocator` then
    /// allocates the ring. An encoder without an allocator for its memory receives its frames in
    /// host memory.
    ///
    /// The encoder that opens first decides. An encoder that takes over later reads its frames from
    /// the same ring.
    ///
    /// [`Backend::memory`]: encoder_core::Backend::memory
    #[must_use]
    pub fn with_allocator(
        mut self,
        memory: FrameMemory,
        allocator: Arc<dyn SlotAllocator>,
    ) -> Self {
        self.allocators.retain(|(known, _)| *known != memory);
        self.allocators.push((memory, allocator));
        self
    }

    /// The allocator of the ring that `encoder` reads from; `None` for plain memory of the process.
    pub(super) fn allocator(&self, encoder: EncoderType) -> Option<&dyn SlotAllocator> {
        let request = OpenRequest::new(&self.settings, encoder, self.threads);
        let memory = backend(encoder).map_or(FrameMemory::Host, |it| (it.memory)(&request));
        let found = self.allocators.iter().find(|(known, _)| *known == memory);
        if found.is_none() && memory != FrameMemory::Host {
            debug!(%encoder, "there is no allocator for {memory}: frames are in host memory");
        }
        found.map(|(_, allocator)| &**allocator)
    }
}
