//! Converts pictures on a thread of the session, for callers that may not block.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use encoder_media::Payload;

use crate::{Slot, shared::Shared};

/// The thread that converts the pictures of a session, and its queue. Each entry of the queue holds
/// a slot, so there are at most as many entries as slots.
///
/// Dropping it closes the queue: the thread converts the pictures in the queue, and ends. Nothing
/// waits for the thread: the session's thread waits for the slots, as long as the video is wanted.
pub(super) struct Converter {
    queue: Sender<(Slot, Payload)>,
}

impl Converter {
    /// Starts the thread. It converts no more pictures once the video is not wanted any more.
    ///
    /// # Errors
    /// When the system starts no thread.
    pub fn start(shared: Arc<Shared>) -> io::Result<Self> {
        let (queue, pictures) = channel();
        let convert = move || run(&pictures, &shared);
        thread::Builder::new().name("convert".into()).spawn(convert)?;
        Ok(Self { queue })
    }

    /// Adds a picture to the queue.
    pub fn push(&self, slot: Slot, payload: Payload) {
        // The thread ends only after its queue is closed; a decoder's panic does not end it.
        if let Err(unsent) = self.queue.send((slot, payload)) {
            let (slot, _) = unsent.0;
            slot.fail("the thread that converts pictures has ended");
        }
    }
}

fn run(pictures: &Receiver<(Slot, Payload)>, shared: &Shared) {
    for (slot, payload) in pictures {
        // A slot that is dropped unfilled ends the session, which has been ended already.
        if shared.check_wanted().is_ok() {
            slot.decode(&payload);
        }
    }
}
