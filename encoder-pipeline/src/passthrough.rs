//! Copies a video topic that is already H.264, without encoding it again.

use encoder_core::{EncodedChunk, EncoderType, FrameRate, NalKind, Resolution, nal_units};
use tracing::warn;

use crate::{
    mux::{self, ReadFrame, Sink, SinkError, StreamReader, UnitSplitter},
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

/// A message of a recorded H.264 topic.
#[derive(Clone, Copy, Debug)]
pub struct VideoMessage {
    /// Its number within the topic.
    pub number: u64,
    /// Its recorded times.
    pub times: FrameTimes,
}

/// A frame of a recorded H.264 topic.
#[derive(Debug)]
pub struct VideoFrame {
    /// The message with its first slice; the times are those of the frame.
    pub message: VideoMessage,
    /// The access unit, or why the frame cannot be copied. Later frames may be good.
    pub unit: Result<AccessUnit, crate::mux::StreamError>,
}

/// Reads the messages of a recorded H.264 topic. A message may hold several frames, and a frame may
/// be in several messages.
#[derive(Debug, Default)]
pub struct AccessUnitReader {
    splitter: UnitSplitter,
    stream: StreamReader<VideoMessage>,
    /// The frames that begin in the latest message that a frame begins in. Their times depend on the
    /// next such message.
    latest: Vec<VideoFrame>,
    /// The usual time from one frame to the next, in nanoseconds.
    usual_ns: Option<i64>,
    /// Number of access units so far.
    count: u64,
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
    /// What is missing in the recording: pictures before this picture, or a part of it.
    pub damage: Option<String>,
    /// The message has other frames before this frame, and one time for all of them.
    has_guessed_time: bool,
}

impl AccessUnitReader {
    /// Reads the next message, and returns the frames whose times are known now.
    pub fn read(&mut self, data: &[u8], message: VideoMessage) -> Vec<VideoFrame> {
        let mut frames = Vec::new();
        self.stream.begin_message();
        match self.splitter.split(data) {
            Ok(units) => {
                for unit in units {
                    let read = self.stream.read(unit, &message);
                    read.into_iter().for_each(|frame| self.add_read(frame, &mut frames));
                }
            }
            Err(error) => {
                let read = self.stream.finish();
                read.into_iter().for_each(|frame| self.add_read(frame, &mut frames));
                self.add(VideoFrame { message, unit: Err(error) }, &mut frames);
            }
        }
        frames
    }

    /// Ends the topic and returns the last frames. `rate` is used for the times of several frames in
    /// the only message.
    pub fn finish(&mut self, rate: FrameRate) -> Vec<VideoFrame> {
        let mut frames = Vec::new();
        let read = self.stream.finish();
        read.into_iter().for_each(|frame| self.add_read(frame, &mut frames));
        let step = i64::try_from(rate.nanoseconds(1)).unwrap_or(i64::MAX);
        self.usual_ns.get_or_insert(step);
        self.release(None, &mut frames);
        frames
    }

    fn add_read(&mut self, (message, read): ReadFrame<VideoMessage>, out: &mut Vec<VideoFrame>) {
        let unit = read.map(|picture| {
            self.count += 1;
            AccessUnit {
                data: picture.data,
                sets: picture.parameter_sets,
                keyframe: picture.is_keyframe,
                index: self.count,
                size: picture.size,
                is_reordered: picture.is_reordered,
                damage: picture.damage,
                has_guessed_time: false,
            }
        });
        self.add(VideoFrame { message, unit }, out);
    }

    fn add(&mut self, frame: VideoFrame, out: &mut Vec<VideoFrame>) {
        if self.latest.first().is_some_and(|first| first.message.number != frame.message.number) {
            self.release(Some(frame.message.times), out);
        }
        self.latest.push(frame);
    }

    /// Returns the frames of the latest message: the first frame has its times, the others are
    /// spread evenly up to the times of the next message.
    fn release(&mut self, next: Option<FrameTimes>, out: &mut Vec<VideoFrame>) {
        let Some(first) = self.latest.first().map(|frame| frame.message.times) else { return };
        let count = i64::try_from(self.latest.len()).unwrap_or(i64::MAX);
        let usual = self.usual_ns;
        let step = |from: Option<i64>, to: Option<i64>| {
            let measured = to.zip(from).map(|(to, from)| to.saturating_sub(from) / count);
            measured.filter(|&step| step > 0)
        };
        let header_step = step(first.header_ns, next.and_then(|next| next.header_ns));
        let log_step = step(Some(first.log_ns), next.map(|next| next.log_ns));
        // Frames are not spread over a pause of the source.
        let limited = |step: Option<i64>| match (step, usual) {
            (Some(step), Some(usual)) => Some(step.min(usual.saturating_mul(2))),
            (step, usual) => step.or(usual),
        };
        self.usual_ns = limited(header_step.or(log_step));
        let header_step = self.usual_ns.unwrap_or(0);
        let log_step = limited(log_step).unwrap_or(0);
        for (n, mut frame) in (0i64..).zip(self.latest.drain(..)) {
            let later = |ns: i64, step: i64| ns.saturating_add(step.saturating_mul(n));
            frame.message.times = FrameTimes {
                header_ns: first.header_ns.map(|ns| later(ns, header_step)),
                log_ns: later(first.log_ns, log_step),
            };
            if let Ok(unit) = &mut frame.unit {
                unit.has_guessed_time = n > 0;
            }
            out.push(frame);
        }
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
    /// Number of places where something is missing in the recording, and the first of these: number
    /// of the message and reason.
    gaps: u64,
    listed_gaps: Vec<(u64, String)>,
    /// Whether the times of the messages are those of the frames.
    is_timed: bool,
    /// Number of frames that share their message with frames before them, and the message of the
    /// first of these.
    guessed: u64,
    first_guessed: Option<u64>,
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
        let is_timed = matches!(timing, Timing::Recorded(_)) && sink.has_times();
        Self {
            sink,
            size,
            analysis,
            bytes: 0,
            last: 0,
            gaps: 0,
            listed_gaps: Vec::new(),
            is_timed,
            guessed: 0,
            first_guessed: None,
        }
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
        if let Some(damage) = unit.damage.take() {
            warn!(frame = number, "{damage}");
            self.gaps += 1;
            if self.listed_gaps.len() < LISTED_GAPS {
                self.listed_gaps.push((number, damage));
            }
        }
        if self.is_timed && unit.has_guessed_time {
            self.guessed += 1;
            self.first_guessed.get_or_insert(number);
        }
        let (pts, keyframe, index) = (self.analysis.frames(), unit.keyframe, unit.index);
        let is_next = pts > 0 && index == self.last + 1;
        let data = if keyframe && !is_next { unit.into_first() } else { unit.data };
        self.last = index;
        self.analysis.push(&times);
        self.bytes += data.len() as u64;
        let chunk = EncodedChunk { data, pts, dts: pts, keyframe };
        self.sink.write(mux::AccessUnit::new(chunk, times)).map_err(PushError::Sink)
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
        let count = self.analysis.frames();
        let has_times = self.sink.has_times();
        let finished = self.sink.finish(&timeline)?;
        let (mut warnings, guessed) = match has_times {
            true => finished.judgement(&timeline),
            false => Default::default(),
        };
        warnings.extend(finished.warnings);
        warnings.iter().for_each(|text| warn!("{text}"));
        let mut report = VideoReport::new(COPY, DESCRIPTION, self.size);
        report.spans = vec![EncoderSpan::new(COPY, DESCRIPTION, count)];
        report.file = finished.location;
        report.frames_in = count + self.gaps;
        report.frames_encoded = count;
        report.frames_failed = self.gaps;
        report.failures = self.listed_gaps;
        report.bytes_out = self.bytes;
        report.duration_s = timeline.duration_s();
        report.first_ns = timeline.first_ns;
        report.last_ns = timeline.last_ns;
        report.times_guessed = guessed + self.guessed;
        report.warnings = warnings;
        if let Some(number) = self.first_guessed {
            let text = format!(
                "{} frames are in one message with frames before them, the first in message \
                 {number}: their times are not recorded, and were spread evenly up to the next \
                 message",
                self.guessed
            );
            warn!("{text}");
            report.warnings.push(text);
        }
        report.warnings.push("the topic is H.264 already: it was copied, not encoded again".into());
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPS: [u8; 10] = [0x67, 0x42, 0xc0, 0x1e, 0xd9, 0x00, 0xa0, 0x47, 0xfe, 0x88];
    const PPS: [u8; 4] = [0x68, 0xce, 0x3c, 0x80];
    /// An IDR picture.
    const IDR: [u8; 5] = [0x65, 0xb8, 0x40, 0x08, 0x22];

    /// The picture `n` behind an IDR picture; its `frame_num` has 4 bits.
    const fn p(n: u8) -> [u8; 5] {
        [0x41, 0xe0 | (n % 16) << 1, 0x10, 0x08, 0x22]
    }

    fn message(units: &[&[u8]]) -> Vec<u8> {
        units.iter().flat_map(|unit| [&[0, 0, 1], *unit].concat()).collect()
    }

    fn stream(units: &[&[u8]]) -> Vec<u8> {
        units.iter().flat_map(|unit| [&[0, 0, 0, 1], *unit].concat()).collect()
    }

    fn at(number: u64, ms: i64) -> VideoMessage {
        VideoMessage { number, times: FrameTimes::at(ms * 1_000_000) }
    }

    /// The frames of these messages, each at 40 ms after the one before.
    fn read(messages: &[&[&[u8]]]) -> Vec<VideoFrame> {
        let mut reader = AccessUnitReader::default();
        let mut frames = Vec::new();
        for (n, units) in (0u32..).zip(messages) {
            frames.extend(reader.read(&message(units), at(n.into(), 40 * i64::from(n))));
        }
        frames.extend(reader.finish(FrameRate::default()));
        frames
    }

    fn good(frame: VideoFrame) -> AccessUnit {
        frame.unit.unwrap_or_else(|error| panic!("message {}: {error}", frame.message.number))
    }

    #[test]
    fn parameter_sets_of_messages_that_are_not_copied_come_with_the_next() {
        let messages: &[&[&[u8]]] = &[
            // Before the first key frame: in front of a broken frame, and in a message of their own.
            &[&SPS, &p(1)],
            &[&PPS],
            &[&IDR],
            // Otherwise as recorded; sets behind a picture are for the next.
            &[&p(1)],
            &[&PPS, &p(2)],
            &[&p(3), &PPS],
            &[&p(4)],
            &[&SPS, &PPS],
            &[&p(5)],
            // A key frame that begins a file has each parameter set exactly once.
            &[&SPS, &PPS, &IDR, &PPS],
        ];
        let mut frames = read(messages).into_iter();
        assert!(frames.next().is_some_and(|frame| frame.unit.is_err()));
        let units: Vec<_> = frames.map(good).collect();
        let data: Vec<_> = units.iter().map(|unit| unit.data.clone()).collect();
        let expected: &[&[&[u8]]] = &[
            &[&SPS, &PPS, &PPS, &IDR],
            &[&p(1)],
            &[&PPS, &p(2)],
            &[&p(3)],
            &[&PPS, &p(4)],
            &[&SPS, &PPS, &p(5)],
            &[&SPS, &PPS, &IDR],
        ];
        assert_eq!(data, expected.iter().map(|units| stream(units)).collect::<Vec<_>>());
        let keyframes: Vec<_> = units.iter().map(AccessUnit::starts_decoding).collect();
        assert_eq!(keyframes, [true, false, false, false, false, false, true]);
        assert!(units.iter().all(|unit| !unit.is_reordered && unit.damage.is_none()));
        for unit in units.into_iter().filter(AccessUnit::starts_decoding) {
            assert_eq!(unit.into_first(), stream(&[&SPS, &PPS, &IDR]));
        }
    }

    #[test]
    fn frames_that_share_a_message_are_spread_up_to_the_next() {
        // Messages: time in ms and number of frames. Times of the frames, `!` if guessed.
        type Case<'a> = (&'a str, &'a [(i64, usize)], &'a str);
        let cases: &[Case<'_>] = &[
            ("one frame each", &[(0, 1), (40, 1), (90, 1)], "0 40 90"),
            ("two frames each", &[(0, 2), (80, 2), (180, 2)], "0 40! 80 130! 180 230!"),
            ("a burst", &[(0, 1), (40, 3), (160, 1)], "0 40 80! 120! 160"),
            ("a pause", &[(0, 1), (40, 2), (9000, 1)], "0 40 120! 9000"),
            ("equal times", &[(0, 1), (40, 2), (40, 1)], "0 40 80! 40"),
            ("the only message", &[(7, 3)], "7 40.333! 73.667!"),
            ("no frame in between", &[(0, 2), (40, 0), (80, 1)], "0 40! 80"),
        ];
        for (name, messages, expected) in cases {
            let mut reader = AccessUnitReader::default();
            let (mut frames, mut numbers) = (Vec::new(), 1..);
            for (n, (ms, count)) in (0u64..).zip(*messages) {
                let units = if n == 0 { vec![&SPS[..], &PPS, &IDR] } else { vec![&PPS[..]] };
                let pictures = count - usize::from(n == 0);
                let pictures: Vec<_> = numbers.by_ref().take(pictures).map(p).collect();
                let units = [units, pictures.iter().map(|unit| &unit[..]).collect()].concat();
                frames.extend(reader.read(&message(&units), at(n, *ms)));
            }
            frames.extend(reader.finish(FrameRate::default()));
            let got: Vec<_> = frames
                .into_iter()
                .map(|frame| {
                    let (ns, header) = (frame.message.times.log_ns, frame.message.times.header_ns);
                    assert_eq!(Some(ns), header);
                    let mark = if good(frame).has_guessed_time { "!" } else { "" };
                    format!("{}{mark}", (ns as f64 / 1e3).round() / 1e3)
                })
                .collect();
            assert_eq!(got.join(" "), *expected, "{name}");
        }
    }
}
