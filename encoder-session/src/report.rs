use encoder_core::{EncoderType, Refusal, Resolution};
use encoder_media::Location;
use serde::{Serialize, Serializer, ser::SerializeStruct};

/// Consecutive frames encoded by the same encoder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct EncoderSpan {
    /// Which encoder.
    pub encoder: EncoderType,
    /// How the encoder ran.
    pub description: String,
    /// Number of frames.
    pub frames: u64,
}

impl EncoderSpan {
    /// A number of frames by one encoder.
    pub fn new(encoder: EncoderType, description: impl Into<String>, frames: u64) -> Self {
        Self { encoder, description: description.into(), frames }
    }
}

/// Changes of the encoder in mid-stream with the same encoders and cause. All of them share one
/// entry, so that the list stays short however long the stream is. No frame is lost by a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Failover {
    /// The first frame that the new encoder encoded, at the first change.
    pub frame: u64,
    /// The same at the latest change.
    pub last_frame: u64,
    /// How many changes there were.
    pub count: u64,
    /// The encoder before the change.
    pub from: EncoderType,
    /// The encoder after the change; the same if it was opened again.
    pub to: EncoderType,
    /// `died`, `stalled`, `wrong-output`, `wrong-picture`, `failed`, `refused`, or `failback` for the return to a
    /// better encoder.
    pub cause: &'static str,
    /// The error of the encoder before, at the latest change.
    pub reason: String,
}

/// How a video was made: by a session, or by copying a topic that was already H.264.
///
/// The names of the serialized fields are those that `docs/report.md` lists for a video.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct VideoReport {
    /// The location of the video; `None` if the sink has no location, or no frame was good.
    pub file: Option<Location>,
    /// The encoder that was used; of several, the encoder with the most frames. `copy` if the
    /// access units were copied, [`NO_ENCODER`](Self::NO_ENCODER) if no encoder was opened.
    #[serde(serialize_with = "name_or_null")]
    pub encoder: EncoderType,
    /// How the encoder ran: library or program, with its version. Empty if no encoder was opened.
    #[serde(rename = "encoder_description", serialize_with = "text_or_null")]
    pub description: String,
    /// All encoders that were used, in order. After 64 changes, the frames of later spans are added
    /// to the latest span of the same encoder, which is moved to the end.
    #[serde(rename = "encoders")]
    pub spans: Vec<EncoderSpan>,
    /// The losses of encoders in mid-stream, and the failbacks to a better encoder. No frame is
    /// lost by them.
    pub failovers: Vec<Failover>,
    /// Coded size of the pictures in pixels.
    #[serde(flatten, serialize_with = "width_and_height")]
    pub size: Resolution,
    /// Frames of the recording that belong to this video, including bad frames.
    pub frames_in: u64,
    /// Frames in the video.
    pub frames_encoded: u64,
    /// Frames of the video that repeat another picture.
    pub frames_repeated: u64,
    /// Frames that could not be decoded.
    pub frames_failed: u64,
    /// Frames that were dropped because the ring was full, or because the run was stopped and no
    /// encoder worked.
    pub frames_dropped: u64,
    /// Times that were estimated: of frames whose recorded times cannot be true, of jumps of the
    /// clock that were closed, and of frames that share a message with frames before them.
    pub times_guessed: u64,
    /// Pictures of the encoder that were decoded and compared with their frames while it encoded
    /// ([`check_output`](encoder_core::GpuEncoderConfig::check_output)).
    pub frames_checked: u64,
    /// The first of the bad frames: number and reason.
    #[serde(skip)]
    pub failures: Vec<(u64, String)>,
    /// Recorded time of the first frame in nanoseconds.
    #[serde(rename = "first_stamp_ns")]
    pub first_ns: Option<i64>,
    /// Recorded time of the last frame in nanoseconds.
    #[serde(rename = "last_stamp_ns")]
    pub last_ns: Option<i64>,
    /// Length of the video in seconds.
    pub duration_s: f64,
    /// Bytes of access units.
    #[serde(rename = "bytes")]
    pub bytes_out: u64,
    /// Encoders that were passed over, with reason and hint: one entry for each encoder and kind.
    pub refusals: Vec<Refusal>,
    /// What a user should know about this video.
    pub warnings: Vec<String>,
}

impl VideoReport {
    /// Used as the encoder's name if no encoder was opened.
    pub const NO_ENCODER: EncoderType = EncoderType::new("none");

    /// The report of a video without frames, with pictures of `size`.
    pub fn new(encoder: EncoderType, description: impl Into<String>, size: Resolution) -> Self {
        Self {
            file: None,
            encoder,
            description: description.into(),
            spans: Vec::new(),
            failovers: Vec::new(),
            size,
            frames_in: 0,
            frames_encoded: 0,
            frames_repeated: 0,
            frames_failed: 0,
            frames_dropped: 0,
            frames_checked: 0,
            times_guessed: 0,
            failures: Vec::new(),
            first_ns: None,
            last_ns: None,
            duration_s: 0.0,
            bytes_out: 0,
            refusals: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

impl Default for VideoReport {
    /// Nothing was encoded: no encoder was opened, and the size is not known.
    fn default() -> Self {
        Self::new(Self::NO_ENCODER, "", Resolution::new(0, 0))
    }
}

fn name_or_null<S: Serializer>(encoder: &EncoderType, serializer: S) -> Result<S::Ok, S::Error> {
    match *encoder {
        VideoReport::NO_ENCODER => serializer.serialize_none(),
        encoder => serializer.serialize_str(encoder.as_str()),
    }
}

fn text_or_null<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    match text {
        "" => serializer.serialize_none(),
        text => serializer.serialize_str(text),
    }
}

pub(crate) fn width_and_height<S: Serializer>(
    size: &Resolution,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut fields = serializer.serialize_struct("Resolution", 2)?;
    fields.serialize_field("width", &size.width)?;
    fields.serialize_field("height", &size.height)?;
    fields.end()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_video_that_no_encoder_made_has_null_for_it() {
        let none = serde_json::to_value(VideoReport::default()).unwrap();
        assert!(none["encoder"].is_null() && none["encoder_description"].is_null(), "{none}");
        assert!(none["file"].is_null() && none["first_stamp_ns"].is_null(), "{none}");
        let size = Resolution::new(64, 48);
        let made = VideoReport::new(EncoderType::X264, "libx264", size);
        let made = serde_json::to_value(made).unwrap();
        assert_eq!(made["encoder"], "x264");
        assert_eq!(made["encoder_description"], "libx264");
        assert_eq!((&made["width"], &made["height"]), (&64.into(), &48.into()));
        assert!(made.get("failures").is_none() && made.get("size").is_none(), "{made}");
    }
}
