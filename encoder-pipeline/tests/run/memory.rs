//! A recording in memory, and a destination in memory that can fail at each point.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex},
};

use encoder_core::Resolution;
use encoder_pipeline::{
    destination::{Destination, Location, PartInfo},
    mux::{AccessUnit, Finished, Sink, SinkError},
    source::{Event, Packet, Payload, Source, SourceError, StreamInfo, Warning},
    timeline::{FrameTimes, Timeline},
};

use super::encoder::{number, picture};

/// A message of a recording: stream, log time, the offset of its stamp from the log time, and a
/// picture or an error.
#[derive(Clone)]
pub struct Message {
    pub stream: usize,
    pub ns: i64,
    pub stamp_offset: i64,
    pub payload: Result<Payload, String>,
}

impl Message {
    /// Picture `n` of the first camera, at 10 per second.
    pub fn at(n: u32, size: Resolution) -> Self {
        let (ns, payload) = (i64::from(n) * 100_000_000, Ok(picture(n, size)));
        Self { stream: 0, ns, stamp_offset: 7, payload }
    }
}

/// A recording in memory.
pub struct Recording {
    pub topics: &'static [&'static str],
    pub messages: Vec<Message>,
    /// The error that the source returns at the end.
    pub end: Option<fn() -> SourceError>,
}

impl Recording {
    /// One camera, `/cam`.
    pub fn new(messages: Vec<Message>) -> Self {
        Self { topics: &["/cam"], messages, end: None }
    }

    /// Opens the recording; may be called several times.
    pub fn opened(self) -> impl Fn() -> Result<Box<dyn Source>, SourceError> {
        move || {
            let mut numbers = vec![0; self.topics.len()];
            let streams = self.topics.iter().enumerate().map(|(id, topic)| {
                let (topic, schema) = ((*topic).into(), "test/Image".into());
                Event::Stream(StreamInfo { id, topic, schema, messages: None, rate: None })
            });
            let packets = self.messages.iter().map(|message| {
                let Message { stream, ns, stamp_offset, payload } = message.clone();
                let number = numbers[stream];
                numbers[stream] += 1;
                let payload = payload.map_err(|reason| encoder_media::BadMessage { reason });
                Event::Packet(Packet {
                    stream,
                    number,
                    log_ns: ns,
                    header_ns: Some(ns + stamp_offset),
                    frame_id: None,
                    payload,
                    message: None,
                })
            });
            let events: Vec<_> = streams.chain(packets).collect();
            Ok(Box::new(Reader { events: events.into_iter(), end: self.end }))
        }
    }
}

struct Reader {
    events: std::vec::IntoIter<Event>,
    end: Option<fn() -> SourceError>,
}

impl Source for Reader {
    fn next_event(&mut self) -> Result<Option<Event>, SourceError> {
        match self.events.next() {
            None => self.end.take().map_or(Ok(None), |end| Err(end())),
            event => Ok(event),
        }
    }

    fn other_topics(&self) -> Vec<(String, String)> {
        vec![("/joints".into(), "test/Joints".into())]
    }
}

/// The call in which a destination fails.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fails {
    Nowhere,
    Begin,
    Event,
    Sink,
    Refuse,
    Write,
    FinishVideo,
    Finish,
}

/// A video in memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Video {
    pub size: (u32, u32),
    /// The number of each frame, in order.
    pub frames: Vec<u32>,
    /// Display time of each frame, in ticks.
    pub ticks: Vec<u64>,
    pub timescale: u32,
    pub duration: u64,
}

/// The state of a destination.
#[derive(Default)]
pub struct Kept {
    /// By topic and number.
    pub videos: BTreeMap<(String, usize), Video>,
    pub events: usize,
    pub warnings: usize,
    pub ended: Option<&'static str>,
    /// Sinks that were neither finished nor dropped.
    pub open_sinks: usize,
    pub most_open_sinks: usize,
    /// Videos that are copied, not encoded.
    pub copied: usize,
}

/// A destination in memory: keeps the access units of each video.
pub struct Memory {
    kept: Arc<Mutex<Kept>>,
    fails: Fails,
}

impl Memory {
    pub fn new(fails: Fails) -> (Self, Arc<Mutex<Kept>>) {
        let kept = Arc::new(Mutex::new(Kept::default()));
        (Self { kept: Arc::clone(&kept), fails }, kept)
    }

    fn check(&self, point: Fails) -> Result<(), SinkError> {
        if self.fails == point { Err(full()) } else { Ok(()) }
    }
}

/// The error of a full object store.
pub fn full() -> SinkError {
    SinkError::io(Location::Name("memory:a".into()))(io::ErrorKind::StorageFull.into())
}

impl Destination for Memory {
    fn begin(&mut self) -> Result<Vec<String>, SinkError> {
        self.check(Fails::Begin)?;
        Ok(vec!["memory is small".into()])
    }

    fn sink(&mut self, part: &PartInfo<'_>) -> Result<Box<dyn Sink>, SinkError> {
        self.check(Fails::Sink)?;
        if self.fails == Fails::Refuse && part.stream.topic != "/cam" {
            let at = Location::Name("memory:a".into());
            return Err(SinkError::refused(at, format!("no place for {}", part.stream.topic)));
        }
        assert_eq!(part.codec, encoder_core::Codec::H264);
        let mut kept = self.kept.lock().unwrap();
        kept.copied += usize::from(part.encoder.is_none());
        kept.open_sinks += 1;
        kept.most_open_sinks = kept.most_open_sinks.max(kept.open_sinks);
        Ok(Box::new(MemorySink {
            kept: Arc::clone(&self.kept),
            fails: self.fails,
            key: (part.stream.topic.clone(), part.number),
            video: Video { size: (part.size.width, part.size.height), ..Video::default() },
            times: Vec::new(),
        }))
    }

    fn event(&mut self, event: &Event) -> Result<(), SinkError> {
        let mut kept = self.kept.lock().unwrap();
        kept.events += 1;
        kept.warnings += usize::from(matches!(event, Event::Warning(Warning { .. })));
        let is_late = kept.events > 8;
        drop(kept);
        if is_late { self.check(Fails::Event) } else { Ok(()) }
    }

    fn finish(self: Box<Self>) -> Result<Finished, SinkError> {
        let mut kept = self.kept.lock().unwrap();
        assert_eq!(kept.open_sinks, 0, "all sinks have ended");
        kept.ended = Some("finished");
        drop(kept);
        self.check(Fails::Finish)?;
        let at = Location::Name("memory:".into());
        Ok(Finished::at(at).with_warnings(["memory is volatile".into()]))
    }

    fn abandon(self: Box<Self>) {
        let mut kept = self.kept.lock().unwrap();
        assert_eq!(kept.open_sinks, 0, "all sinks have ended");
        kept.ended = Some("abandoned");
    }
}

struct MemorySink {
    kept: Arc<Mutex<Kept>>,
    fails: Fails,
    key: (String, usize),
    video: Video,
    times: Vec<FrameTimes>,
}

impl Sink for MemorySink {
    fn write(&mut self, unit: AccessUnit) -> Result<(), SinkError> {
        if self.fails == Fails::Write && self.times.len() == 3 {
            return Err(full());
        }
        let AccessUnit { chunk, times, .. } = unit;
        // A copied access unit has no number.
        self.video.frames.push(number(&chunk.data).unwrap_or(chunk.pts as u32));
        self.times.push(times);
        Ok(())
    }

    fn finish(mut self: Box<Self>, layout: &Timeline) -> Result<Finished, SinkError> {
        if self.fails == Fails::FinishVideo {
            return Err(full());
        }
        let mut ticks = layout.ticks();
        self.video.ticks = self.times.iter().map(|times| ticks.next(times)).collect();
        self.video.timescale = layout.timescale();
        self.video.duration = layout.duration();
        let location = Location::Name(format!("memory:{}/{}", self.key.0, self.key.1));
        let (key, video) = (self.key.clone(), std::mem::take(&mut self.video));
        self.kept.lock().unwrap().videos.insert(key, video);
        Ok(Finished::at(location))
    }

    fn abandon(self: Box<Self>) -> Option<Location> {
        (self.fails == Fails::Write).then(|| Location::Name(format!("memory:{}.part", self.key.0)))
    }
}

impl Drop for MemorySink {
    fn drop(&mut self) {
        self.kept.lock().unwrap().open_sinks -= 1;
    }
}
