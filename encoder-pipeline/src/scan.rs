//! The contents of a recording, without converting it.

use std::{collections::BTreeMap, fmt};

use encoder_core::FrameRate;
use serde::Serialize;

use crate::{
    passthrough::{AccessUnitReader, VideoFrame, VideoMessage},
    picture::{self, PictureOptions},
    source::{Event, Packet, Payload, Source, SourceError},
    stop::Stop,
    text::Count,
    timeline::{self, Clock, FrameTimes},
};

/// A camera topic.
#[derive(Clone, Debug, Serialize)]
pub struct CameraInfo {
    /// Its name.
    pub topic: String,
    /// Its schema or type.
    pub schema: String,
    /// Encodings of its pictures: `bgr8`, `jpeg` …; several where they differ.
    pub encodings: Vec<String>,
    /// Sizes of its pictures; several where they differ.
    pub sizes: Vec<String>,
    /// Number of its messages; of a video topic in H.264 the number of its frames.
    pub frames: u64,
    /// Frames whose header cannot be read as a picture; a full decode may find more.
    pub broken: u64,
    /// Frames per second by the median of the gaps; `None` for fewer than two frames.
    pub rate: Option<f64>,
    /// Recorded time of the first frame in nanoseconds.
    pub first_stamp_ns: Option<i64>,
    /// Recorded time of the last frame in nanoseconds.
    pub last_stamp_ns: Option<i64>,
}

/// The contents of a recording.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RecordingInfo {
    /// Camera topics.
    pub cameras: Vec<CameraInfo>,
    /// Other topics: name and type.
    pub other_topics: Vec<(String, String)>,
    /// Warnings of the source.
    pub warnings: Vec<String>,
}

/// Reads a recording from start to end. Pictures are checked with `options`, those of some topics
/// with their own in `topics`.
///
/// # Errors
/// Those of the source.
pub fn scan(
    mut source: Box<dyn Source>,
    options: &PictureOptions,
    topics: &BTreeMap<String, PictureOptions>,
) -> Result<RecordingInfo, SourceError> {
    let mut info = RecordingInfo::default();
    let mut times: Vec<Vec<FrameTimes>> = Vec::new();
    let mut videos: Vec<AccessUnitReader> = Vec::new();
    loop {
        match source.next_event() {
            Ok(Some(Event::Stream(stream))) => {
                times.push(Vec::new());
                videos.push(AccessUnitReader::default());
                info.cameras.push(CameraInfo {
                    topic: stream.topic,
                    schema: stream.schema,
                    encodings: Vec::new(),
                    sizes: Vec::new(),
                    frames: 0,
                    broken: 0,
                    rate: stream.rate.map(FrameRate::as_f64),
                    first_stamp_ns: None,
                    last_stamp_ns: None,
                });
            }
            Ok(Some(Event::Packet(packet))) => {
                let stream = packet.stream;
                if let (Some(camera), Some(times), Some(video)) =
                    (info.cameras.get_mut(stream), times.get_mut(stream), videos.get_mut(stream))
                {
                    let options = topics.get(&camera.topic).unwrap_or(options);
                    camera.count(packet, options, video, times);
                }
            }
            Ok(Some(Event::Warning(warning))) => info.warnings.push(warning.text),
            // Events that belong to no camera were not requested.
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(SourceError::NoCamera { .. }) => break,
            Err(error) => return Err(error),
        }
    }
    for ((camera, times), video) in info.cameras.iter_mut().zip(&mut times).zip(&mut videos) {
        let rate = FrameRate::default();
        let last = video.finish(rate);
        last.into_iter().for_each(|frame| camera.count_frame(frame, times));
        let stamps = timeline::stamps(Clock::Header, rate, times).times;
        camera.first_stamp_ns = stamps.first().copied();
        camera.last_stamp_ns = stamps.last().copied();
        let mut gaps: Vec<i64> = stamps.windows(2).map(|w| w[1].saturating_sub(w[0])).collect();
        gaps.sort_unstable();
        let median = gaps.get(gaps.len() / 2).filter(|&&gap| gap > 0);
        camera.rate = camera.rate.or(median.map(|&gap| 1e9 / gap as f64));
    }
    info.other_topics = source.other_topics();
    Ok(info)
}

/// The log times of the first and the last camera message of the rest of a source, in nanoseconds.
/// `None` if it has none, cannot be read, or `stop` is set.
pub fn span(mut source: Box<dyn Source>, stop: &Stop) -> Option<(i64, i64)> {
    let mut span = None;
    while let Some(event) = source.next_event().ok()? {
        if stop.is_set() {
            return None;
        }
        if let Event::Packet(packet) = event {
            let (first, last) = span.get_or_insert((packet.log_ns, packet.log_ns));
            *first = packet.log_ns.min(*first);
            *last = packet.log_ns.max(*last);
        }
    }
    span
}

impl CameraInfo {
    fn count(
        &mut self,
        packet: Packet,
        options: &PictureOptions,
        video: &mut AccessUnitReader,
        all: &mut Vec<FrameTimes>,
    ) {
        let times = FrameTimes { header_ns: packet.header_ns, log_ns: packet.log_ns };
        let (encoding, size) = match &packet.payload {
            Ok(Payload::Video { format, data }) if format.eq_ignore_ascii_case("h264") => {
                remember(&mut self.encodings, format.clone());
                let frames = video.read(data, VideoMessage { number: packet.number, times });
                return frames.into_iter().for_each(|frame| self.count_frame(frame, all));
            }
            Err(_) => (None, None),
            Ok(payload @ Payload::Raw(raw)) => {
                (Some(raw.encoding.clone()), picture::size(payload, options).ok())
            }
            Ok(payload @ Payload::Compressed { format, .. }) => {
                (Some(format.clone()), picture::size(payload, options).ok())
            }
            // Other codecs are not read.
            Ok(Payload::Video { format, .. }) => {
                if !format.is_empty() {
                    remember(&mut self.encodings, format.clone());
                }
                return;
            }
            Ok(_) => (None, None),
        };
        self.frames += 1;
        all.push(times);
        match size {
            Some(size) => remember(&mut self.sizes, size.to_string()),
            None => self.broken += 1,
        }
        if let Some(encoding) = encoding {
            remember(&mut self.encodings, encoding);
        }
    }
}

impl CameraInfo {
    /// Counts a frame of a video topic.
    fn count_frame(&mut self, frame: VideoFrame, times: &mut Vec<FrameTimes>) {
        self.frames += 1;
        times.push(frame.message.times);
        match frame.unit {
            Ok(unit) => remember(&mut self.sizes, unit.size.to_string()),
            Err(_) => self.broken += 1,
        }
    }
}

fn remember(list: &mut Vec<String>, item: String) {
    // A broken stream may have a new encoding or size in every message.
    if list.len() < 16 && !list.contains(&item) {
        list.push(item);
    }
}

impl fmt::Display for RecordingInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in &self.cameras {
            let span = match (c.first_stamp_ns, c.last_stamp_ns) {
                (Some(first), Some(last)) => last.saturating_sub(first) as f64 / 1e9,
                _ => 0.0,
            };
            writeln!(f, "{}  [{}]", c.topic, c.schema)?;
            write!(f, "    {}", Count(c.frames, "frame"))?;
            if c.broken > 0 {
                write!(f, " ({} cannot be read)", c.broken)?;
            }
            write!(f, ", {span:.3} s")?;
            if let Some(rate) = c.rate {
                write!(f, ", {rate:.2} fps")?;
            }
            if !c.sizes.is_empty() {
                write!(f, ", {}", c.sizes.join(" / "))?;
            }
            if !c.encodings.is_empty() {
                write!(f, ", {}", c.encodings.join(" / "))?;
            }
            writeln!(f)?;
        }
        if self.cameras.is_empty() {
            writeln!(f, "no camera topic")?;
        }
        if !self.other_topics.is_empty() {
            writeln!(f, "other topics:")?;
            for (topic, schema) in &self.other_topics {
                writeln!(f, "    {topic}  [{schema}]")?;
            }
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        Ok(())
    }
}
