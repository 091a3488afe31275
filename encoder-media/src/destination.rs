use encoder_core::{Codec, EncoderConfig, FrameRate, Resolution};

use crate::{
    Event, Finished, Sink, SinkError, StreamInfo,
    timeline::{self, Timing},
};

/// The output of a run: a directory of files, an object store, a data set.
///
/// A run calls [`begin`](Self::begin) once, then [`sink`](Self::sink) for each video and
/// [`event`](Self::event) for each event of the recording, and finally [`finish`](Self::finish) or
/// [`abandon`](Self::abandon). All calls are made on the thread of the run. The sinks are used on
/// the threads of their sessions; before the destination is finished or abandoned, all of them have
/// been finished, abandoned or dropped.
///
/// Dropping a destination that was neither finished nor abandoned leaves no incomplete output.
pub trait Destination: Send {
    /// Prepares the destination. Called once, after the recording was opened and before any video
    /// is made, so that an error costs no work. Returns warnings about the destination.
    ///
    /// # Errors
    /// [`SinkError`]; the run ends with it.
    fn begin(&mut self) -> Result<Vec<String>, SinkError> {
        Ok(Vec::new())
    }

    /// Returns the sink of a video.
    ///
    /// # Errors
    /// [`SinkError::Refused`] if the destination does not accept this video: the run ends with this
    /// error. Any other error ends only this video's camera; the other cameras continue.
    fn sink(&mut self, part: &PartInfo<'_>) -> Result<Box<dyn Sink>, SinkError>;

    /// Called for each event of the recording, in order, before the run handles it: for
    /// destinations that also store messages of other topics, or the camera messages as they were
    /// recorded. By default events are ignored.
    ///
    /// # Errors
    /// [`SinkError`]; the run ends with it.
    fn event(&mut self, event: &Event) -> Result<(), SinkError> {
        let _ = event;
        Ok(())
    }

    /// Completes the output as a whole. Returns the output, if it has a location of its own besides
    /// those of the videos, and warnings about it.
    ///
    /// # Errors
    /// [`SinkError`]; no incomplete output may be left then.
    fn finish(self: Box<Self>) -> Result<Finished, SinkError>;

    /// Called if the run failed as a whole. Removes incomplete output; complete videos may stay. By
    /// default the destination is dropped.
    fn abandon(self: Box<Self>) {}
}

/// A video that is about to begin: one camera, pictures of one size.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct PartInfo<'a> {
    /// The camera.
    pub stream: &'a StreamInfo,
    /// Number of the video among those of its camera, from 1. A camera has several videos if the
    /// size of the pictures changes.
    pub number: usize,
    /// The frame id of the camera, if the topic has several publishers and this is not the first of
    /// them. [`number`](Self::number) counts the videos of all of them.
    pub frame_id: Option<&'a str>,
    /// Size of the pictures in pixels.
    pub size: Resolution,
    /// How the access units are coded.
    pub codec: Codec,
    /// How the frames are laid out in time.
    pub timing: Timing,
    /// Used for the duration of a single frame.
    pub rate: FrameRate,
    /// How many frames ahead of its display a picture may be decoded.
    pub reorder: u32,
    /// The configuration of the encoder; `None` if the topic is already a video and is copied.
    pub encoder: Option<&'a EncoderConfig>,
}

impl<'a> PartInfo<'a> {
    /// A video that is encoded.
    pub fn encoded(
        stream: &'a StreamInfo,
        number: usize,
        size: Resolution,
        timing: Timing,
        encoder: &'a EncoderConfig,
    ) -> Self {
        Self {
            stream,
            number,
            frame_id: None,
            size,
            codec: encoder.codec,
            timing,
            rate: encoder.frame_rate,
            reorder: timeline::reorder(encoder.b_frames),
            encoder: Some(encoder),
        }
    }

    /// A video that is copied as it was recorded, without B-frames.
    pub fn copied(
        stream: &'a StreamInfo,
        number: usize,
        size: Resolution,
        timing: Timing,
        rate: FrameRate,
    ) -> Self {
        let codec = Codec::H264;
        let frame_id = None;
        Self { stream, number, frame_id, size, codec, timing, rate, reorder: 0, encoder: None }
    }
}
