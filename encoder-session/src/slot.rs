use std::panic::{AssertUnwindSafe, catch_unwind};

use encoder_core::FrameLayout;
use encoder_ringbuf::WriteSlot;
use tracing::Span;

use encoder_media::{Payload, timeline::FrameTimes};
use encoder_picture::{self as picture, PictureError, PictureOptions};

/// What the ring carries beside the picture.
pub(super) struct Meta {
    pub times: FrameTimes,
    pub number: u64,
    pub copies: u32,
    pub outcome: Result<(), String>,
}

/// The place of one frame in the ring.
pub struct Slot {
    pub(super) slot: WriteSlot<Meta>,
    pub(super) layout: FrameLayout,
    pub(super) options: PictureOptions,
    pub(super) times: FrameTimes,
    pub(super) number: u64,
    pub(super) copies: u32,
    pub(super) span: Span,
}

impl Slot {
    /// Shows the picture `copies` times in a row: for a constant rate made of a varying one.
    #[must_use]
    pub fn times_in_a_row(mut self, copies: u32) -> Self {
        self.copies = copies;
        self
    }

    /// Names the frame by its number in the recording, for messages.
    #[must_use]
    pub fn numbered(mut self, number: u64) -> Self {
        self.number = number;
        self
    }

    /// Decodes a picture into its place.
    pub fn fill(mut self, payload: &Payload) {
        let (options, layout) = (self.options, self.layout);
        let span = self.span.clone();
        let _entered = span.enter();
        let memory = &mut *self.slot;
        // A decoder from elsewhere that panics costs this frame, not the recording.
        let decoded =
            catch_unwind(AssertUnwindSafe(|| picture::decode(payload, &options, &layout, memory)));
        let outcome = match decoded {
            Ok(outcome) => outcome,
            Err(_) => Err(PictureError::Broken("the decoder panicked".into())),
        };
        self.publish(outcome.map_err(|error| error.to_string()));
    }

    /// Says that there is no picture, and why.
    pub fn fail(self, reason: impl Into<String>) {
        self.publish(Err(reason.into()));
    }

    fn publish(self, outcome: Result<(), String>) {
        let Self { slot, times, number, copies, .. } = self;
        slot.publish(Meta { times, number, copies, outcome });
    }
}
