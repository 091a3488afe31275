//! A video of a camera: pictures of one size.

use encoder_core::Resolution;
use encoder_media::StreamId;
use tracing::{debug, warn};

use crate::{
    passthrough::Passthrough,
    session::{Closing, Session, SessionError, Slot, VideoReport},
    source::Payload,
};

/// How many reasons or changes of size are listed individually.
const LISTED: usize = 10;

/// A slot of a ring, and the picture that is decoded into it.
pub(crate) struct DecodeTask {
    pub slot: Slot,
    pub payload: Payload,
}

impl DecodeTask {
    pub fn run(self) {
        // The session counts a picture that does not fit.
        let _ = self.slot.fill(&self.payload);
    }
}

/// A video that accepts frames.
pub(crate) struct Part {
    /// Number among those of its camera, from 1.
    pub number: usize,
    /// Size of its pictures.
    pub size: Resolution,
    pub video: Video,
    /// Number of messages of the camera when a frame was last added to this video.
    pub used: u64,
    pub notes: Notes,
}

/// How the video is made.
pub(crate) enum Video {
    Encoding(Session),
    Copying(Passthrough),
}

impl Part {
    /// Closes the video. An encoder runs until it has written everything.
    pub fn close(self, camera: (StreamId, usize), topic: &str) -> ClosedPart {
        let result = match self.video {
            Video::Encoding(session) => Ok(Pending::Session(session.close())),
            Video::Copying(copy) => copy
                .finish()
                .map(|report| Pending::Done(Box::new(report)))
                .map_err(SessionError::from),
        };
        ClosedPart { camera, topic: topic.into(), number: self.number, notes: self.notes, result }
    }
}

/// A video that accepts no more frames, or could not be begun.
pub(crate) struct ClosedPart {
    /// The topic, and the number of the publisher among its publishers.
    pub camera: (StreamId, usize),
    pub topic: String,
    pub number: usize,
    pub notes: Notes,
    pub result: Result<Pending, SessionError>,
}

pub(crate) enum Pending {
    Session(Closing),
    Done(Box<VideoReport>),
}

/// The remark about pictures of a size that H.264 does not have.
pub(crate) fn padded(size: Resolution) -> Option<String> {
    let even = size.even();
    (size != even).then(|| {
        format!(
            "the pictures are {size}; H.264 4:2:0 has even sizes only: they are carried in {even}, \
             the last column or row repeated"
        )
    })
}

/// The part of a video's report that does not come from its session.
#[derive(Default)]
pub(crate) struct Notes {
    /// Broken messages that were never pushed to the session.
    pub lost: Lost,
    /// Frames that were left out because of a lower constant rate.
    pub left_out: u64,
    /// Times of the recording that were estimated before frames were repeated or left out.
    pub times_guessed: u64,
    pub remarks: Remarks,
}

/// Messages without a picture: all are counted, the first are listed.
#[derive(Default)]
pub(crate) struct Lost {
    pub frames: u64,
    reasons: Vec<String>,
}

impl Lost {
    pub fn add(&mut self, number: u64, reason: &str) {
        self.frames += 1;
        if self.reasons.len() < LISTED {
            warn!(frame = number, "frame left out: {reason}");
            self.reasons.push(format!("frame {number}: {reason}"));
        } else {
            debug!(frame = number, "frame left out: {reason}");
        }
    }

    /// Counts frames that have no entry in the list.
    pub fn add_unlisted(&mut self, frames: u64) {
        self.frames += frames;
    }

    pub fn warnings(self) -> Vec<String> {
        self.reasons
    }
}

/// Remarks for the user. Of the changes of size, the first are listed and all are counted.
#[derive(Default)]
pub(crate) struct Remarks {
    list: Vec<String>,
    changes: usize,
}

impl Remarks {
    pub fn add(&mut self, text: String) {
        warn!("{text}");
        self.list.push(text);
    }

    /// Adds a remark about a change of size.
    pub fn add_change(&mut self, text: String) {
        self.changes += 1;
        match self.changes {
            ..=LISTED => self.add(text),
            _ => debug!("{text}"),
        }
    }

    pub fn extend(&mut self, texts: impl IntoIterator<Item = String>) {
        texts.into_iter().for_each(|text| self.add(text));
    }

    pub fn warnings(self) -> Vec<String> {
        let Self { mut list, changes } = self;
        let more = changes.saturating_sub(LISTED);
        if more > 0 {
            list.push(format!("{more} more changes of size are not listed"));
        }
        list
    }
}
