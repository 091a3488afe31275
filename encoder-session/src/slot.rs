use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use encoder_core::{FrameLayout, panic_text};
use encoder_ringbuf::{ReadSlot, WriteSlot};
use tracing::Span;

use encoder_media::{Payload, timeline::FrameTimes};
use encoder_picture::{self as picture, Clipped, PictureError, PictureOptions};

/// The times of a frame.
#[derive(Clone, Copy)]
pub(super) struct Captured {
    pub times: FrameTimes,
    /// When its slot was reserved.
    pub reserved: Instant,
}

/// The slots whose frames are to be key frames, by their numbers in the ring. A request is
/// recorded before its slot is published, and outside of the slot: if the ring drops the slot, the
/// request applies to the next slot that is read.
#[derive(Default)]
pub(super) struct KeyFrameRequests(Mutex<BTreeSet<u64>>);

impl KeyFrameRequests {
    fn add(&self, slot: u64) {
        self.lock().insert(slot);
    }

    /// Removes the requests up to this slot. Returns whether there were any.
    pub fn take_until(&self, slot: u64) -> bool {
        let mut requests = self.lock();
        let later = requests.split_off(&(slot + 1));
        !std::mem::replace(&mut *requests, later).is_empty()
    }

    /// Nothing panics under the lock.
    fn lock(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The data of a slot besides the picture.
pub(super) struct Meta {
    pub captured: Captured,
    pub number: u64,
    pub copies: u32,
    /// What of the picture is shown as white.
    pub outcome: Result<Option<Clipped>, NoPicture>,
    /// The picture, if it had the layout of the ring already: then the slot's memory is unused.
    pub picture: Option<Bytes>,
}

/// Why a slot has no picture.
pub(super) enum NoPicture {
    /// Its frame cannot be decoded, for this reason.
    Bad(String),
    /// The slot was dropped.
    Dropped,
}

/// The picture of a slot.
pub(super) fn picture_of(slot: &ReadSlot<Meta>) -> &[u8] {
    slot.meta().and_then(|meta| meta.picture.as_deref()).unwrap_or(slot)
}

/// The reserved slot of one frame in the ring.
///
/// Each slot is to be [filled](Self::fill) or [failed](Self::fail): dropping it without either ends
/// the session with [`SessionError::SlotDropped`](crate::SessionError::SlotDropped).
pub struct Slot {
    /// `None` once it has been published.
    pub(super) slot: Option<WriteSlot<Meta>>,
    pub(super) layout: FrameLayout,
    pub(super) options: PictureOptions,
    /// Whether encoders may read pictures from memory outside of the ring.
    pub(super) may_share: bool,
    pub(super) captured: Captured,
    pub(super) number: u64,
    pub(super) copies: u32,
    /// The frame is to be a key frame.
    pub(super) is_key: bool,
    pub(super) key_frames: Arc<KeyFrameRequests>,
    pub(super) span: Span,
}

impl Slot {
    /// Repeats the picture `copies` times in a row, to make a constant rate from a variable rate.
    #[must_use]
    pub fn times_in_a_row(mut self, copies: u32) -> Self {
        self.copies = copies;
        self
    }

    /// Makes this frame a key frame: an IDR picture, whose access unit has the parameter sets. The
    /// next one by [`gop_size`](encoder_core::EncoderConfig::gop_size) is counted from there. See
    /// [`Session::request_key_frame`](crate::Session::request_key_frame).
    #[must_use]
    pub fn key_frame(mut self) -> Self {
        self.is_key = true;
        self
    }

    /// Sets the frame's number in the recording, for messages.
    #[must_use]
    pub fn numbered(mut self, number: u64) -> Self {
        self.number = number;
        self
    }

    /// Decodes the picture with other options than those of the session.
    #[must_use]
    pub fn with_options(mut self, options: PictureOptions) -> Self {
        self.options = options;
        self
    }

    /// Decodes a picture into its slot. A picture that has the layout of the ring already is not
    /// copied: its memory is held until the slot is used again.
    ///
    /// A picture that is damaged is handled by [`OnBadFrame`](crate::OnBadFrame).
    ///
    /// Blocks: while the picture is decoded and converted, which takes milliseconds.
    ///
    /// # Errors
    /// Every [`PictureError`] but [`PictureError::Broken`]: the picture can never be in this video,
    /// whatever its pixels. The slot has its place in the order of the frames, so the frame counts as
    /// failed, as after [`fail`](Self::fail).
    pub fn fill(self, payload: &Payload) -> Result<(), PictureError> {
        match picture::check(payload, &self.options, &self.layout) {
            Ok(()) => {
                self.decode(payload);
                Ok(())
            }
            Err(error) => {
                self.fail(error.to_string());
                Err(error)
            }
        }
    }

    /// As [`fill`](Self::fill), for a picture that was checked.
    pub(super) fn decode(mut self, payload: &Payload) {
        let (options, layout) = (self.options, self.layout);
        if self.may_share
            && let Some(picture) = picture::ready(payload, &options, &layout)
        {
            return self.publish(Ok(None), Some(picture));
        }
        let Some(memory) = self.slot.as_deref_mut() else { return };
        let span = self.span.clone();
        let _entered = span.enter();
        let outcome = guarded(|| picture::decode(payload, &options, &layout, memory));
        self.publish(outcome.map_err(|error| NoPicture::Bad(error.to_string())), None);
    }

    /// Marks the slot as having no picture, with the reason.
    pub fn fail(mut self, reason: impl Into<String>) {
        self.publish(Err(NoPicture::Bad(reason.into())), None);
    }

    /// Has no effect on a slot that has been published.
    fn publish(&mut self, outcome: Result<Option<Clipped>, NoPicture>, picture: Option<Bytes>) {
        let Self { captured, number, copies, is_key, .. } = *self;
        if let Some(slot) = self.slot.take() {
            if is_key {
                self.key_frames.add(slot.seq());
            }
            slot.publish(Meta { captured, number, copies, outcome, picture });
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.publish(Err(NoPicture::Dropped), None);
    }
}

/// The result of a decoder. If it panics, only this frame is lost, not the video.
fn guarded(
    decode: impl FnOnce() -> Result<Option<Clipped>, PictureError>,
) -> Result<Option<Clipped>, PictureError> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|panic| {
        let text = format!("the decoder panicked: {}", panic_text(&*panic));
        Err(PictureError::Broken(text))
    })
}

/// The pictures with values that need more bits than are shown.
#[derive(Default)]
pub(super) struct ClippedPictures {
    pictures: u64,
    /// The number of the first one.
    first: u64,
    bits: u8,
    highest: u16,
}

impl ClippedPictures {
    pub fn add(&mut self, number: u64, Clipped { bits, highest }: Clipped) {
        if self.pictures == 0 {
            self.first = number;
        }
        self.pictures += 1;
        self.bits = bits;
        self.highest = self.highest.max(highest);
    }

    pub fn warning(&self) -> Option<String> {
        let Self { pictures, first, bits, highest } = self;
        (*pictures > 0).then(|| {
            format!(
                "the values of {pictures} pictures, from frame {first} on, reach {highest}, which is \
                 more than {bits} bits: higher values are white"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_that_of_the_next_slot_that_is_read() {
        let requests = KeyFrameRequests::default();
        assert!(!requests.take_until(0));
        for slot in [4, 2, 9] {
            requests.add(slot);
        }
        // Slots 2 and 4 were dropped.
        let due: Vec<_> = [0, 1, 5, 6, 9, 10].map(|slot| requests.take_until(slot)).into();
        assert_eq!(due, [false, false, true, false, true, false]);
    }

    #[test]
    fn a_panic_of_a_decoder_is_a_broken_picture_with_its_text() {
        let broken = |text: &str| Err(PictureError::Broken(text.into()));
        let row = 7;
        assert_eq!(
            guarded(|| panic!("row {row} is missing")),
            broken("the decoder panicked: row 7 is missing")
        );
        assert_eq!(guarded(|| panic!("no row")), broken("the decoder panicked: no row"));
        assert_eq!(
            guarded(|| std::panic::panic_any(7)),
            broken("the decoder panicked: it has no text")
        );
        assert_eq!(guarded(|| Ok(None)), Ok(None));
    }
}
