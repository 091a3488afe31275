//! How a session works.

use std::{sync::Arc, time::Duration};

use encoder_core::{
    EncoderType, FrameMemory, FrameRate, OpenRequest, Plan, Settings, Waiter, backend,
};
use encoder_media::timeline::{Clock, Timing};
use encoder_picture::PictureOptions;
use encoder_ringbuf::SlotAllocator;
use serde::{Deserialize, Serialize};
use tracing::debug;

use crate::Pool;

/// What to do with a frame that cannot be decoded. It is counted in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnBadFrame {
    /// Repeat the previous frame (before the first good frame: repeat that frame), so that the
    /// number of frames stays that of the recording.
    #[default]
    Repeat,
    /// Leave the frame out; later frames keep their times.
    Skip,
    /// End the video with an error.
    Fail,
}

encoder_core::names! {
    OnBadFrame, "on_bad_frame":
    Repeat = "repeat",
    Skip = "skip",
    Fail = "fail",
}

/// What to do with a frame when the ring is full. All variants but the first are for live sources,
/// which cannot wait; each dropped frame is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFull {
    /// Wait for a free slot.
    #[default]
    Block,
    /// Drop the oldest frame that the encoder has not read; if it has read all, drop the new frame.
    DropOldest,
    /// Drop the new frame.
    DropNewest,
    /// End with [`SessionError::Full`](crate::SessionError::Full).
    Error,
}

encoder_core::names! {
    OnFull, "on_full":
    Block = "block",
    DropOldest = "drop-oldest",
    DropNewest = "drop-newest",
    Error = "error",
}

/// How a session works.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SessionConfig {
    /// The encoder's configuration; `encoder.resolution` is set from the size at opening.
    pub settings: Settings,
    /// Which encoders to try, in order.
    pub plan: Plan,
    /// Threads that a software encoder may use.
    pub threads: usize,
    /// How the frames are laid out in time.
    pub timing: Timing,
    /// What to do with frames that cannot be decoded.
    pub on_bad_frame: OnBadFrame,
    /// What to do with frames when the ring is full.
    pub on_full: OnFull,
    /// How to display pictures without colours, such as depth images.
    pub picture: PictureOptions,
    /// Value of the label `camera` of the session's [metrics]. Without it, the values of all
    /// sessions with the same encoder are added up.
    pub camera_label: Option<String>,
    /// Number of this file among those of its camera, for messages.
    pub part: Option<usize>,
    /// The clock of sessions, and the means to end their waits from outside. A `Run` sets it to the
    /// waiter of its `Stop`.
    ///
    /// Interrupting it ends the waits for a busy encoder: encoders are opened without waiting.
    ///
    /// Stopping it also ends the waits for a share of the pool, and no encoder is opened any more. An
    /// encoder in FFmpeg's process is killed at once: the session then fails with
    /// [`SessionError::Lost`](crate::SessionError::Lost), and what was written is kept. An encoder in
    /// this process encodes on, and its session goes on until it has lost its encoder. To end a
    /// session, call [`Closing::abort`](crate::Closing::abort).
    pub waiter: Waiter,
    /// The bounds that the session shares with others.
    pub pool: Option<Pool>,
    /// How long [`Session::open`](crate::Session::open) waits for a share of the pool.
    pub pool_wait: Duration,
    allocators: Allocators,
}

impl SessionConfig {
    /// Recorded times from the header stamps, bad frames repeated, one encoder thread.
    pub fn new(settings: Settings, plan: Plan) -> Self {
        Self {
            settings,
            plan,
            threads: 1,
            timing: Timing::Recorded(Clock::Header),
            on_bad_frame: OnBadFrame::default(),
            on_full: OnFull::default(),
            picture: PictureOptions::default(),
            camera_label: None,
            part: None,
            waiter: Waiter::new(),
            pool: None,
            pool_wait: Duration::ZERO,
            allocators: Allocators::new(),
        }
    }
}

impl SessionConfig {
    /// How frames are laid out in time, and the constant rate that their numbers are computed from.
    /// A dropped frame leaves its time empty, also at a constant rate.
    pub fn spread(&self) -> (Timing, Option<FrameRate>) {
        match self.timing {
            Timing::Rate(rate) if self.on_full != OnFull::Block => {
                (Timing::Numbered(rate), Some(rate))
            }
            timing => (timing, None),
        }
    }
}

/// Allocators by the memory that they provide.
type Allocators = Vec<(FrameMemory, Arc<dyn SlotAllocator>)>;

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

    /// Sets the bounds that the session shares with others. The session's ring and the threads of
    /// its encoder may then be smaller than configured: see [`Pool`].
    #[must_use]
    pub fn with_pool(mut self, pool: Pool) -> Self {
        self.pool = Some(pool);
        self
    }

    /// Sets how long [`Session::open`](crate::Session::open) waits for a share of the pool; after
    /// that, and at once by default, it returns [`PoolError::Full`](crate::PoolError::Full). A wait
    /// by the thread that also feeds the other sessions cannot help, because these do not end.
    #[must_use]
    pub fn with_pool_wait(mut self, wait: Duration) -> Self {
        self.pool_wait = wait;
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn policies_have_one_name() {
        for value in OnBadFrame::ALL {
            assert_eq!(value.to_string().parse(), Ok(*value));
            assert_eq!(serde_json::json!(value), value.as_str());
        }
        for value in OnFull::ALL {
            assert_eq!(value.to_string().parse(), Ok(*value));
            assert_eq!(serde_json::json!(value), value.as_str());
        }
        let error = "drop".parse::<OnFull>().unwrap_err().to_string();
        let allowed = "block, drop-oldest, drop-newest, error";
        assert_eq!(error, format!("on_full = drop: not allowed; allowed is {allowed}"));
    }
}
