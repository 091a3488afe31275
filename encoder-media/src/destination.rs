use encoder_core::{Codec, EncoderConfig, FrameRate, Resolution};

use crate::{
    Event, Finished, Sink, SinkError, StreamInfo,
    timeline::{self, Timing},
};

/// Where the output of a run goes: a directory of files, an object store, a data set.
///
/// A run calls [`begin`](Self::begin) once, then [`sink`](Self::sink) for each video and
/// [`event`](Self::event) for each event of the recording, and in the end [`finish`](Self::finish)
/// or [`abandon`](Self::abandon). All calls come from the thread of the run. The sinks work on the
/// threads of their sessions; when the destination is finished or abandoned, all of them have been
/// finished, abandoned or dropped.
///
/// Dropping a destination that was neither finished nor abandoned leaves nothing that is half made.
pub trait Destination: Send {
    /// Makes ready. Called once, when the recording could be opened and before any video is made,
    /// so that an error costs no work.
    ///
    /// # Errors
    /// [`SinkError`]; the run ends with it.
    fn begin(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// Returns the sink of a video.
    ///
    /// # Errors
    /// [`SinkError::Refused`] where the destination does not take this video: the run ends with
    /// it. Every other error is the end of this video's camera, and the other cameras go on.
    fn sink(&mut self, part: &PartInfo<'_>) -> Result<Box<dyn Sink>, SinkError>;

    /// Takes an event of the recording, in its order, before the run acts on it: for destinations
    /// that also store messages which are no camera's, or the camera messages as they were
    /// recorded. By default events are ignored.
    ///
    /// # Errors
    /// [`SinkError`]; the run ends with it.
    fn event(&mut self, event: &Event) -> Result<(), SinkError> {
        let _ = event;
        Ok(())
    }

    /// Completes the output as a whole. Returns what was made, where that has a location of its
    /// own beside those of the videos, and warnings about it.
    ///
    /// # Errors
    /// [`SinkError`]; then nothing that is half made may be left.
    fn finish(self: Box<Self>) -> Result<Finished, SinkError>;

    /// The run failed as a whole. What is half made is removed; videos that are whole may stay. By
    /// default the destination is dropped.
    fn abandon(self: Box<Self>) {}
}

/// A video that is about to be made: one camera, pictures of one size.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct PartInfo<'a> {
    /// The camera.
    pub stream: &'a StreamInfo,
    /// Number of the video among those of its camera, from 1. There is more than one where the
    /// size of the pictures changes.
    pub number: usize,
    /// Size of the pictures in pixels.
    pub size: Resolution,
    /// How the access units are coded.
    pub codec: Codec,
    /// How the frames are laid out in time.
    pub timing: Timing,
    /// Assumed for the duration of a single frame.
    pub rate: FrameRate,
    /// How many frames a picture may be decoded ahead of its time.
    pub reorder: u32,
    /// What the encoder is configured for; `None` where the topic is a video already and is
    /// copied.
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
        Self { stream, number, size, codec, timing, rate, reorder: 0, encoder: None }
    }
}
