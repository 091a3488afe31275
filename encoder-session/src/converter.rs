//! Converts pictures on a thread of the session, for callers that may not block.

use std::{
    io,
    sync::mpsc::{Receiver, Sender, channel},
};

use encoder_core::{Task, Waited, Waiter};
use encoder_media::Payload;

use crate::Slot;

/// The thread that converts the pictures of a session, and its queue. Each entry of the queue holds
/// a slot, so there are at most as many entries as slots.
pub(super) struct Converter {
    queue: Sender<(Slot, Payload)>,
    thread: Task<()>,
}

impl Converter {
    /// Starts the thread. After a stop of the waiter pictures are no longer converted.
    ///
    /// # Errors
    /// When the system starts no thread.
    pub fn start(waiter: &Waiter) -> io::Result<Self> {
        let (queue, pictures) = channel();
        let stop = waiter.child();
        let convert = {
            let stop = stop.clone();
            move || run(&pictures, &stop)
        };
        Ok(Self { queue, thread: Task::spawn("convert", stop, convert)? })
    }

    /// Adds a picture to the queue.
    pub fn push(&self, slot: Slot, payload: Payload) {
        // The thread ends only after its queue is closed; a decoder's panic does not end it.
        if let Err(unsent) = self.queue.send((slot, payload)) {
            let (slot, _) = unsent.0;
            slot.fail("the thread that converts pictures has ended");
        }
    }

    /// Closes the queue. The task ends when the pictures in the queue have been converted.
    pub fn close(self) -> Task<()> {
        self.thread
    }
}

fn run(pictures: &Receiver<(Slot, Payload)>, stop: &Waiter) {
    for (slot, payload) in pictures {
        // A slot that is dropped unfilled ends a session; a stopped session ends anyway.
        if stop.state() != Waited::Stopped {
            slot.decode(&payload);
        }
    }
}
