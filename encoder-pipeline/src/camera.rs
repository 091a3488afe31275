//! One camera of a recording: from its messages to its files.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use bytes::Bytes;
use encoder_core::Resolution;
use tracing::{Span, debug, error_span, warn};

use crate::{
    mux::{AnnexBSink, Mp4Options, Mp4Sink, OutputMode, Sink, SinkError},
    naming::{Format, Names},
    passthrough::{AccessUnitReader, MessageError, Passthrough, PushError},
    picture::{self, PictureError},
    progress::Progress,
    report::{Output, SkippedTopic},
    session::{Closing, OnBadFrame, Session, SessionConfig, SessionError, SessionReport, Slot},
    source::{Packet, Payload, StreamInfo},
    timeline::{FrameTimes, Timing},
};

/// A place in a ring with the picture that belongs into it: work for a decoder.
pub(crate) struct DecodeTask {
    slot: Slot,
    payload: Payload,
}

impl DecodeTask {
    pub fn run(self) {
        self.slot.fill(&self.payload);
    }
}

/// What a camera needs from the run that it is part of.
pub(crate) struct Context<'a> {
    pub config: SessionConfig,
    pub names: Names,
    pub overwrite: bool,
    pub mode: OutputMode,
    pub decoders: crossbeam_channel::Sender<DecodeTask>,
    pub progress: &'a dyn Progress,
    pub keep_encoded_video: bool,
    pub label_cameras: bool,
}

/// A camera of a recording.
pub(crate) struct Camera {
    pub info: StreamInfo,
    state: State,
    /// Reads the messages of a topic that is H.264 already.
    access_units: AccessUnitReader,
    /// How often each message is shown, where a constant rate is made of a varying one.
    pub copies: Option<Vec<u32>>,
    ended: Vec<Ended>,
    /// Broken messages before the first whole one.
    leading: Vec<Broken>,
    /// Broken messages that belong to the current file but never reached its session.
    lost: Lost,
    pub messages: u64,
    left_out: u64,
    parts: usize,
    /// What a user should know about the current file.
    remarks: Vec<String>,
    /// All messages that concern the camera are inside of it.
    span: Span,
}

enum State {
    Waiting,
    Encoding(Session, Resolution),
    Copying(Passthrough),
    Refused(String),
    Failed,
}

/// A message without a picture.
struct Broken {
    number: u64,
    times: FrameTimes,
    copies: u32,
    reason: String,
}

#[derive(Default)]
struct Lost {
    frames: u64,
    reasons: Vec<String>,
}

/// A file that takes no more frames.
struct Ended {
    result: Result<Pending, SessionError>,
    lost: Lost,
    left_out: u64,
    remarks: Vec<String>,
}

enum Pending {
    Session(Closing),
    Done(Box<SessionReport>),
}

/// How many reasons are written into a report one by one.
const NAMED: usize = 10;

impl Camera {
    pub fn new(info: StreamInfo) -> Self {
        Self {
            span: error_span!("camera", topic = info.topic),
            info,
            state: State::Waiting,
            access_units: AccessUnitReader::default(),
            copies: None,
            ended: Vec::new(),
            leading: Vec::new(),
            lost: Lost::default(),
            messages: 0,
            left_out: 0,
            parts: 0,
            remarks: Vec::new(),
        }
    }

    /// Whether a file was begun.
    pub fn has_output(&self) -> bool {
        self.parts > 0
    }

    /// Whether no more can come of it.
    pub fn has_failed(&self) -> bool {
        matches!(self.state, State::Failed)
    }

    /// Takes the next message. Waits while the camera's ring is full.
    pub fn push(&mut self, packet: Packet, context: &mut Context<'_>) {
        let span = self.span.clone();
        let _entered = span.enter();
        let order = self.messages;
        self.messages += 1;
        let times = FrameTimes { header_ns: packet.header_ns, log_ns: packet.log_ns };
        let copies = self
            .copies
            .as_ref()
            .and_then(|all| usize::try_from(order).ok().and_then(|n| all.get(n)).copied())
            .unwrap_or(1);
        if copies == 0 {
            self.left_out += 1;
            return;
        }
        if matches!(self.state, State::Refused(_) | State::Failed) {
            return;
        }
        match packet.payload {
            Ok(Payload::Video { format, data }) => {
                self.push_video(&format, &data, packet.number, times, context);
            }
            Ok(payload) => self.push_picture(payload, packet.number, times, copies, context),
            Err(bad) => self.bad(packet.number, times, copies, bad.reason),
        }
    }

    fn push_picture(
        &mut self,
        payload: Payload,
        number: u64,
        times: FrameTimes,
        copies: u32,
        context: &mut Context<'_>,
    ) {
        let size = match picture::size(&payload, &context.config.picture) {
            Ok(size) => size,
            Err(PictureError::Unsupported { reason, hint })
                if matches!(self.state, State::Waiting) =>
            {
                self.state = State::Refused(format!("{reason}; {hint}"));
                return;
            }
            Err(error) => return self.bad(number, times, copies, error.to_string()),
        };
        match &self.state {
            State::Encoding(_, current) if *current == size => {}
            State::Encoding(_, current) => {
                let remark = change(*current, size, number);
                self.end(Some(remark));
                self.begin(size, context);
            }
            State::Copying(_) => {
                let reason = "a still in a video topic".into();
                return self.bad(number, times, copies, reason);
            }
            _ => self.begin(size, context),
        }
        self.send(number, times, copies, Some(payload), context);
    }

    /// Opens the encoder of the next file.
    fn begin(&mut self, size: Resolution, context: &mut Context<'_>) {
        let mut config = context.config.clone();
        if let (Timing::Recorded(_), Some(rate)) = (config.timing, self.info.rate) {
            config.timing = Timing::Rate(rate);
        }
        if let Timing::Rate(rate) = config.timing {
            config.settings.encoder.frame_rate = rate;
        }
        if context.label_cameras {
            config.camera_label = Some(self.info.topic.clone());
        }
        let options = Mp4Options::new(config.spread().0, &config.settings.encoder);
        let opened = self.sink(options, context).map_err(SessionError::from).and_then(|sink| {
            config.part = Some(self.parts);
            Session::open(size, &config, sink)
        });
        match opened {
            Ok(session) => {
                context.progress.camera(
                    &self.info.topic,
                    self.info.messages,
                    Arc::clone(session.counters()),
                );
                self.state = State::Encoding(session, size);
                if size != size.even() {
                    self.remark(format!(
                        "the pictures are {size}; H.264 4:2:0 has even sizes only: they are carried \
                         in {}, the last column or row repeated",
                        size.even()
                    ));
                }
                self.take_leading();
            }
            Err(error) => {
                self.state = State::Failed;
                self.push_ended(Err(error));
            }
        }
    }

    fn sink(
        &mut self,
        options: Mp4Options,
        context: &mut Context<'_>,
    ) -> Result<Box<dyn Sink>, SinkError> {
        self.parts += 1;
        let path = context.names.file(&self.info.topic, self.parts);
        debug!(file = %path.display(), "writing");
        Ok(match context.names.format() {
            Format::Mp4 => {
                let (overwrite, mode) = (context.overwrite, context.mode);
                Box::new(Mp4Sink::create(&path, &Mp4Options { overwrite, mode, ..options })?)
            }
            Format::AnnexB => Box::new(AnnexBSink::create(&path, context.overwrite)?),
        })
    }

    /// Gives a frame its place, and the work of filling it to the decoders.
    fn send(
        &mut self,
        number: u64,
        times: FrameTimes,
        copies: u32,
        payload: Option<Payload>,
        context: &Context<'_>,
    ) {
        let State::Encoding(session, _) = &mut self.state else { return };
        let slot = match session.reserve(times) {
            Ok(Some(slot)) => slot.numbered(number).times_in_a_row(copies),
            Ok(None) => return,
            Err(_) => return self.fail(),
        };
        if let Some(payload) = payload
            && let Err(unsent) = context.decoders.send(DecodeTask { slot, payload })
        {
            unsent.into_inner().run();
        }
    }

    /// The session has failed and takes nothing more; its end tells why.
    fn fail(&mut self) {
        self.end(None);
        self.state = State::Failed;
    }

    fn bad(&mut self, number: u64, times: FrameTimes, copies: u32, reason: String) {
        match &mut self.state {
            State::Encoding(session, _) => match session.reserve(times) {
                Ok(Some(slot)) => slot.numbered(number).times_in_a_row(copies).fail(reason),
                Ok(None) => {}
                Err(_) => self.fail(),
            },
            State::Waiting => {
                // Topics of a million broken messages exist; the first few tell enough.
                let named = self.leading.len() < NAMED;
                let reason = if named { reason } else { "as those before it".into() };
                self.leading.push(Broken { number, times, copies, reason });
            }
            State::Copying(_) => {
                warn!(frame = number, "frame left out: {reason}");
                self.lost.add(number, reason);
            }
            State::Refused(_) | State::Failed => {}
        }
    }

    /// Broken messages get their places, now that there is a file.
    fn take_leading(&mut self) {
        for Broken { number, times, copies, reason } in std::mem::take(&mut self.leading) {
            self.bad(number, times, copies, reason);
        }
    }

    fn push_video(
        &mut self,
        format: &str,
        data: &Bytes,
        number: u64,
        times: FrameTimes,
        context: &mut Context<'_>,
    ) {
        if matches!(self.state, State::Waiting) {
            let refusal = if !format.eq_ignore_ascii_case("h264") {
                Some(format!(
                    "a video topic in format \"{format}\"; only h264 can be copied: convert the \
                     topic with FFmpeg first"
                ))
            } else if !context.keep_encoded_video {
                Some(
                    "an H.264 topic is copied as recorded, which cannot change its rate; leave \
                     out --resample"
                        .into(),
                )
            } else {
                None
            };
            if let Some(reason) = refusal {
                self.state = State::Refused(reason);
                return;
            }
        }
        let unit = match self.access_units.read(data) {
            Ok(Some(unit)) => unit,
            Ok(None) => return debug!(frame = number, "parameter sets alone"),
            Err(MessageError::Unfit(reason)) => {
                return self.stop_copy(PushError::Unfit(format!("frame {number}: {reason}")));
            }
            Err(MessageError::Broken(reason)) => {
                return self.bad_video(number, times, reason, context);
            }
        };
        if let (Some(gap), OnBadFrame::Fail) = (&unit.gap, context.config.on_bad_frame) {
            return self.bad_video(number, times, gap.clone(), context);
        }
        let size = unit.size;
        match &self.state {
            State::Copying(copy) if copy.size() != size => {
                let remark = change(copy.size(), size, number);
                self.end(Some(remark));
                self.begin_copy(size, context);
            }
            State::Copying(_) => {}
            _ if unit.starts_decoding() => self.begin_copy(size, context),
            _ => {
                let reason = "it comes before the first key frame with parameter sets";
                return self.bad_video(number, times, reason.into(), context);
            }
        }
        if let State::Copying(copy) = &mut self.state
            && let Err(error) = copy.push(unit, number, times)
        {
            self.stop_copy(error);
        }
    }

    /// The current copy cannot be continued. A topic that is unfit from the start has no file.
    fn stop_copy(&mut self, error: PushError) {
        let reason = match &error {
            PushError::Unfit(reason) => reason.clone(),
            PushError::Sink(_) => String::new(),
        };
        let stopped = match std::mem::replace(&mut self.state, State::Failed) {
            State::Copying(copy) => copy.stop(error),
            _ => None,
        };
        if stopped.is_none() && self.ended.is_empty() {
            self.parts = 0;
            self.state = State::Refused(reason);
        } else {
            self.push_ended(Err(stopped.unwrap_or(SessionError::Stream(reason))));
        }
    }

    /// A broken access unit cannot be replaced by a picture: it is left out, or ends the file.
    fn bad_video(&mut self, number: u64, times: FrameTimes, reason: String, context: &Context<'_>) {
        if context.config.on_bad_frame == OnBadFrame::Fail {
            self.state = State::Failed;
            self.push_ended(Err(SessionError::BadFrame { number, reason }));
        } else {
            self.bad(number, times, 1, reason);
        }
    }

    fn begin_copy(&mut self, size: Resolution, context: &mut Context<'_>) {
        let (timing, rate) = (context.config.timing, context.config.settings.encoder.frame_rate);
        match self.sink(Mp4Options { timing, rate, ..Mp4Options::default() }, context) {
            Ok(sink) => {
                self.state = State::Copying(Passthrough::new(size, timing, rate, sink));
                self.take_leading();
            }
            Err(error) => {
                self.state = State::Failed;
                self.push_ended(Err(error.into()));
            }
        }
    }

    /// Ends the current file; its encoder runs on until it has written everything.
    fn end(&mut self, remark: Option<String>) {
        if let Some(remark) = remark {
            self.remark(remark);
        }
        let result = match std::mem::replace(&mut self.state, State::Waiting) {
            State::Encoding(session, _) => Ok(Pending::Session(session.close())),
            State::Copying(copy) => copy
                .finish()
                .map(|report| Pending::Done(Box::new(report)))
                .map_err(SessionError::from),
            other => {
                self.state = other;
                return;
            }
        };
        self.push_ended(result);
    }

    fn remark(&mut self, text: String) {
        warn!("{text}");
        self.remarks.push(text);
    }

    fn push_ended(&mut self, result: Result<Pending, SessionError>) {
        self.ended.push(Ended {
            result,
            lost: std::mem::take(&mut self.lost),
            left_out: std::mem::take(&mut self.left_out),
            remarks: std::mem::take(&mut self.remarks),
        });
    }

    /// Takes no more messages; the encoder runs on until it has written everything.
    pub fn close(&mut self) {
        let span = self.span.clone();
        let _entered = span.enter();
        self.end(None);
    }

    /// Waits for the camera's files; tells why there is none.
    pub fn finish(mut self, context: &Context<'_>) -> Finished {
        self.close();
        let span = self.span.clone();
        let _entered = span.enter();
        let mut finished = Finished::default();
        let skipped = match &self.state {
            State::Refused(reason) => Some(reason.clone()),
            _ if !self.ended.is_empty() => None,
            _ if self.messages == 0 => Some("the topic has no messages".to_string()),
            _ => Some(match self.leading.first() {
                Some(Broken { number, reason, .. }) => format!(
                    "none of its {} frames can be decoded; frame {number}: {reason}",
                    self.leading.len()
                ),
                None => "no frame of it was read".to_string(),
            }),
        };
        if let Some(reason) = skipped {
            warn!("no video of this topic: {reason}");
            finished.skipped = Some(SkippedTopic {
                topic: self.info.topic.clone(),
                schema: self.info.schema.clone(),
                frames_in: self.messages,
                reason,
            });
        }
        let files = context.names.directory();
        for ended in self.ended {
            finished.outputs.push(ended.output(&self.info.topic, files));
        }
        finished
    }
}

impl Lost {
    fn add(&mut self, number: u64, reason: String) {
        self.frames += 1;
        if self.reasons.len() < NAMED {
            self.reasons.push(format!("frame {number}: {reason}"));
        }
    }
}

impl Ended {
    fn output(self, topic: &str, directory: &std::path::Path) -> Output {
        let mut counters = None;
        let report = self.result.and_then(|pending| match pending {
            Pending::Session(closing) => {
                counters = Some(Arc::clone(&closing.counters));
                closing.join()
            }
            Pending::Done(report) => Ok(*report),
        });
        let mut output = Output {
            topic: topic.into(),
            file: None,
            partial: None,
            encoder: None,
            encoder_description: None,
            encoders: Vec::new(),
            failovers: Vec::new(),
            width: 0,
            height: 0,
            frames_in: self.lost.frames + self.left_out,
            frames_encoded: 0,
            frames_repeated: 0,
            frames_failed: self.lost.frames,
            frames_dropped: 0,
            frames_left_out: self.left_out,
            first_stamp_ns: None,
            last_stamp_ns: None,
            duration_s: 0.0,
            bytes: 0,
            refusals: Vec::new(),
            warnings: self.lost.reasons,
            error: None,
        };
        output.warnings.extend(self.remarks);
        let relative =
            |file: &std::path::Path| file.strip_prefix(directory).unwrap_or(file).to_path_buf();
        match report {
            Ok(report) => {
                output.file = report.file.as_deref().map(relative);
                if report.frames_encoded == 0 {
                    output.error = Some("no frame of it can be decoded".into());
                }
                output.encoder = Some(report.encoder.to_string());
                output.encoder_description = Some(report.description);
                output.encoders = report.spans;
                output.failovers = report.failovers;
                output.width = report.size.width;
                output.height = report.size.height;
                output.frames_in += report.frames_in;
                output.frames_encoded = report.frames_encoded;
                output.frames_repeated = report.frames_repeated;
                output.frames_failed += report.frames_failed;
                output.frames_dropped = report.frames_dropped;
                output.first_stamp_ns = report.first_ns;
                output.last_stamp_ns = report.last_ns;
                output.duration_s = report.duration_s;
                output.bytes = report.bytes_out;
                output.refusals = report.refusals;
                let failures = report.failures.iter();
                output.warnings.extend(failures.map(|(n, why)| format!("frame {n}: {why}")));
                output.warnings.extend(report.warnings);
            }
            Err(error) => {
                if let Some(counters) = counters {
                    output.frames_in += counters.frames_in.load(Relaxed);
                    output.frames_failed += counters.frames_failed.load(Relaxed);
                    output.frames_dropped = counters.frames_dropped.load(Relaxed);
                }
                if let SessionError::Kept { part, .. } = &error {
                    output.partial = Some(relative(part));
                }
                output.error = Some(error.to_string());
            }
        }
        output
    }
}

/// What became of a camera.
#[derive(Default)]
pub(crate) struct Finished {
    pub outputs: Vec<Output>,
    pub skipped: Option<SkippedTopic>,
}

fn change(from: Resolution, to: Resolution, number: u64) -> String {
    format!("the pictures change from {from} to {to} at frame {number}: a new file begins")
}
