//! Copies a video topic that is already H.264, without encoding it again.

use bytes::Bytes;
use encoder_core::{EncodedChunk, EncoderType, FrameRate, NalKind, Resolution, nal_units};
use tracing::warn;

use crate::{
    mux::{Content, Sink, SinkError, StreamError, StreamReader},
    session::{EncoderSpan, SessionError, VideoReport},
    skipped::SkipReason,
    timeline::{FrameTimes, TimestampAnalysis, Timing},
};

/// The encoder's name in reports if access units were copied and no encoder was used.
pub const COPY: EncoderType = EncoderType::new("copy");

/// A copy of fewer frames is not kept if the topic turns out not to be copyable.
const WORTH_KEEPING: u64 = 32;

/// How many gaps are listed individually.
const LISTED_GAPS: usize = 10;

/// Reads the messages of a recorded H.264 topic.
#[derive(Debug, Default)]
pub struct AccessUnitReader {
    stream: StreamReader,
    /// Parameter sets were in a message that is not copied.
    has_pending_sets: bool,
    /// Number of access units so far.
    count: u64,
}

/// Why a message cannot be copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageError {
    /// The message is broken; later ones may be good.
    Broken(String),
    /// The topic cannot be copied.
    Unfit(String),
}

/// An access unit of a recorded video topic.
#[derive(Debug)]
pub struct AccessUnit {
    /// With start codes of four bytes.
    data: Vec<u8>,
    /// The active parameter sets at a key frame; empty for other pictures.
    sets: Vec<u8>,
    keyframe: bool,
    /// Number of the access unit within the topic.
    index: u64,
    /// Size of the pictures.
    pub size: Resolution,
    /// The picture is displayed before one that precedes it in the recording.
    is_reordered: bool,
    /// Why pictures before this picture must be missing in the recording.
    pub gap: Option<String>,
}

impl AccessUnitReader {
    /// Reads the next message: an Annex B access unit. Returns `None` if the message holds only
    /// parameter sets: they are put in front of the next access unit.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn read(&mut self, data: &Bytes) -> Result<Option<AccessUnit>, MessageError> {
        let pending = self.has_pending_sets.then(|| self.stream.parameter_sets());
        let picture = match self.stream.read(data) {
            Ok(Content::Picture(picture)) => picture,
            Ok(Content::ParameterSets) => {
                self.has_pending_sets = true;
                return Ok(None);
            }
            Err(error) => {
                let is_set = |unit: &[u8]| matches!(kind(unit), NalKind::Sps | NalKind::Pps);
                self.has_pending_sets |= nal_units(data).any(is_set);
                return Err(match error {
                    StreamError::Framing(reason) => MessageError::Unfit(format!(
                        "{reason}; each message must hold one frame: record the topic that way, or \
                         decode it with FFmpeg"
                    )),
                    error => MessageError::Broken(error.to_string()),
                });
            }
        };
        self.has_pending_sets = false;
        self.count += 1;
        let keyframe = picture.is_keyframe;
        let mut unit = AccessUnit {
            data: pending.unwrap_or_default(),
            sets: if keyframe { self.stream.keyframe_parameter_sets() } else { Vec::new() },
            keyframe,
            index: self.count,
            size: picture.size,
            is_reordered: picture.is_reordered,
            gap: picture.gap.map(|gap| {
                format!(
                    "pictures before it are missing in the recording ({gap}); what is predicted \
                     from them is damaged until the next key frame"
                )
            }),
        };
        unit.data.reserve(data.len() + 16);
        nal_units(data).for_each(|nal| put(&mut unit.data, nal));
        Ok(Some(unit))
    }
}

impl AccessUnit {
    /// Whether decoding can start at this access unit.
    pub fn starts_decoding(&self) -> bool {
        self.keyframe
    }

    /// The access unit with all parameter sets in front: for the first access unit of a file, or
    /// the first after access units that were added to other files.
    fn into_first(self) -> Vec<u8> {
        let mut out = self.sets;
        let mut is_before_slices = true;
        for unit in nal_units(&self.data) {
            match kind(unit) {
                NalKind::Sps | NalKind::Pps if is_before_slices => continue,
                NalKind::Slice | NalKind::Idr => is_before_slices = false,
                _ => {}
            }
            put(&mut out, unit);
        }
        out
    }
}

fn kind(unit: &[u8]) -> NalKind {
    NalKind::of(unit[0])
}

/// Appends a NAL unit after a start code.
fn put(out: &mut Vec<u8>, unit: &[u8]) {
    out.extend_from_slice(&[0, 0, 0, 1]);
    out.extend_from_slice(unit);
}

/// A file that access units are copied to, in the order of the recording.
pub struct Passthrough {
    sink: Box<dyn Sink>,
    size: Resolution,
    analysis: TimestampAnalysis,
    bytes: u64,
    /// Index of the last access unit.
    last: u64,
    /// Number of gaps where pictures are missing, and the first gaps: number of the frame and
    /// reason.
    gaps: u64,
    listed_gaps: Vec<(u64, String)>,
}

/// Why an access unit could not be appended.
#[derive(Debug)]
pub enum PushError {
    /// The sink failed.
    Sink(SinkError),
    /// The topic cannot be copied.
    Unfit(SkipReason),
}

impl Passthrough {
    /// Begins a file with pictures of `size`. `rate` is used for the duration if there is a single
    /// frame.
    pub fn new(size: Resolution, timing: Timing, rate: FrameRate, sink: Box<dyn Sink>) -> Self {
        let analysis = TimestampAnalysis::new(timing, rate, 0);
        Self { sink, size, analysis, bytes: 0, last: 0, gaps: 0, listed_gaps: Vec::new() }
    }

    /// Size of the pictures.
    pub fn size(&self) -> Resolution {
        self.size
    }

    /// Appends an access unit, which is frame `number` of the recording. The first access unit must
    /// be a key frame.
    ///
    /// # Errors
    /// [`PushError`]; nothing can be appended after it.
    pub fn push(
        &mut self,
        mut unit: AccessUnit,
        number: u64,
        times: FrameTimes,
    ) -> Result<(), PushError> {
        if unit.is_reordered && self.sink.has_times() {
            return Err(PushError::Unfit(SkipReason::Reordered { frame: number }));
        }
        if let Some(gap) = unit.gap.take() {
            warn!(frame = number, "{gap}");
            self.gaps += 1;
            if self.listed_gaps.len() < LISTED_GAPS {
                self.listed_gaps.push((number, gap));
            }
        }
        let (pts, keyframe, index) = (self.analysis.frames(), unit.keyframe, unit.index);
        let is_next = pts > 0 && index == self.last + 1;
        let data = if keyframe && !is_next { unit.into_first() } else { unit.data };
        self.last = index;
        self.analysis.push(&times);
        self.bytes += data.len() as u64;
        let chunk = EncodedChunk { data, pts, dts: pts, keyframe };
        self.sink.write(chunk, &times).map_err(PushError::Sink)
    }

    /// Ends the video after an error. What was copied is kept. If that is little and the topic
    /// cannot be copied, no video is kept and `None` is returned.
    pub fn stop(self, error: PushError) -> Option<SessionError> {
        Some(match error {
            PushError::Sink(error) => self.abandon(error).into(),
            PushError::Unfit(_) if self.analysis.frames() < WORTH_KEEPING => return None,
            PushError::Unfit(reason) => {
                let error = SessionError::Stream(reason.to_string());
                match self.sink.abandon() {
                    Some(part) => SessionError::Kept { error: Box::new(error), part },
                    None => error,
                }
            }
        })
    }

    /// Ends the video after an error of its sink. Keeps what was written before.
    fn abandon(self, error: SinkError) -> SinkError {
        match self.sink.abandon() {
            Some(kept) => error.kept(kept),
            None => error,
        }
    }

    /// Completes the video.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(self) -> Result<VideoReport, SinkError> {
        const DESCRIPTION: &str = "copied as recorded";
        let timeline = self.analysis.timeline();
        timeline.log();
        let count = self.analysis.frames();
        let has_times = self.sink.has_times();
        let finished = self.sink.finish(&timeline)?;
        let mut report = VideoReport::new(COPY, DESCRIPTION, self.size);
        report.spans =
            vec![EncoderSpan { encoder: COPY, description: DESCRIPTION.into(), frames: count }];
        report.file = finished.location;
        report.frames_in = count + self.gaps;
        report.frames_encoded = count;
        report.frames_failed = self.gaps;
        if has_times {
            report.times_guessed = finished.times_guessed.unwrap_or(timeline.guessed);
        }
        report.failures = self.listed_gaps;
        report.bytes_out = self.bytes;
        report.duration_s = timeline.duration_s();
        report.first_ns = timeline.first_ns;
        report.last_ns = timeline.last_ns;
        report.warnings = timeline.warnings.into_iter().chain(finished.warnings).collect();
        report.warnings.push("the topic is H.264 already: it was copied, not encoded again".into());
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPS: [u8; 10] = [0x67, 0x42, 0xc0, 0x1e, 0xd9, 0x00, 0xa0, 0x47, 0xfe, 0x88];
    const PPS: [u8; 4] = [0x68, 0xce, 0x3c, 0x80];
    /// An IDR picture and a picture that is not an IDR picture.
    const IDR: [u8; 5] = [0x65, 0xb8, 0x40, 0x08, 0x22];
    const P: [u8; 5] = [0x41, 0xe2, 0x10, 0x08, 0x22];

    fn message(units: &[&[u8]]) -> Bytes {
        units.iter().flat_map(|unit| [&[0, 0, 1], *unit].concat()).collect()
    }

    fn stream(units: &[&[u8]]) -> Vec<u8> {
        units.iter().flat_map(|unit| [&[0, 0, 0, 1], *unit].concat()).collect()
    }

    #[test]
    fn parameter_sets_of_messages_that_are_not_copied_come_with_the_next() {
        let mut reader = AccessUnitReader::default();
        let mut read = |units: &[&[u8]]| reader.read(&message(units));
        // Before the first key frame: in a broken message, and in a message of its own.
        assert!(matches!(read(&[&SPS, &P]), Err(MessageError::Broken(_))));
        assert!(matches!(read(&[&PPS]), Ok(None)));
        let first = read(&[&IDR]).ok().flatten().unwrap_or_else(|| panic!("no picture"));
        assert!(first.starts_decoding() && !first.is_reordered && first.gap.is_none());
        assert_eq!(first.data, stream(&[&SPS, &PPS, &IDR]));
        assert_eq!(first.into_first(), stream(&[&SPS, &PPS, &IDR]));
        // Otherwise as recorded.
        for units in [&[&P[..]][..], &[&PPS, &P], &[&P, &PPS]] {
            let next = read(units).ok().flatten().unwrap_or_else(|| panic!("no picture"));
            assert!(!next.starts_decoding());
            assert_eq!(next.data, stream(units));
        }
        assert!(matches!(read(&[&SPS, &PPS]), Ok(None)));
        let next = read(&[&P]).ok().flatten().unwrap_or_else(|| panic!("no picture"));
        assert_eq!(next.data, stream(&[&SPS, &PPS, &P]));
        // A key frame that begins a file has each parameter set exactly once.
        let again = read(&[&SPS, &PPS, &IDR, &PPS]).ok().flatten();
        let again = again.unwrap_or_else(|| panic!("no picture"));
        assert_eq!(again.data, stream(&[&SPS, &PPS, &IDR, &PPS]));
        assert_eq!(again.into_first(), stream(&[&SPS, &PPS, &IDR, &PPS]));
    }
}
