//! One camera of a recording: from its messages to its videos.
//!
//! A video has pictures of one size. When the size changes, the next picture is added to the video
//! of the new size, which may still be open; otherwise a new video begins. Videos stay open for a
//! while, because a size often returns, and are closed when it does not. The number of open videos
//! is bounded.

mod video;

use encoder_core::{FrameRate, Resolution};
use encoder_media::ResampleError;
use tracing::{Span, error_span, warn};

use crate::{
    context::Context,
    destination::PartInfo,
    inspection::Inspection,
    leading::{Broken, Leading},
    mux::SinkError,
    part::{self, ClosedPart, DecodeTask, Notes, Part, Video},
    passthrough::{AccessUnitReader, VideoMessage},
    picture::{self, PictureError, PictureOptions},
    rate::CameraPlan,
    report::{SkipReason, SkippedTopic},
    session::{Closing, Session, SessionError},
    sizes::SizeChanges,
    source::{Packet, Payload, StreamInfo},
    timeline::{Clock, FrameTimes, Timing},
};

/// The most open videos of a camera: the current video, and others whose size may return. Each has
/// an encoder and a ring.
const MOST_OPEN: usize = 4;
/// The most open videos of a run that are not current.
const MOST_IDLE: usize = 8;
/// A video is closed when this many messages of its camera were added to other videos.
const IDLE_MESSAGES: u64 = 100;

/// The most videos of a camera.
const MOST_PARTS: usize = 1000;

/// Why a message that is not in the plan of a constant rate is left out.
const UNPLANNED: &str = "it was not there when the times of the recording were read, so it has no \
                         place at the constant rate";

/// A camera of a recording: a topic, or one of the publishers of a topic.
pub(crate) struct Camera {
    pub info: StreamInfo,
    /// Number of the publisher among those of the topic, from 0.
    publisher: usize,
    /// The frame id that names the videos of a further publisher.
    frame_id: Option<String>,
    state: State,
    /// The open videos: the current video is last, before it the video that was current most
    /// recently, and so on.
    open: Vec<Part>,
    /// Reads the messages of a topic that is already H.264.
    access_units: AccessUnitReader,
    /// How often each message is repeated, if a constant rate is made from recorded times.
    copies: Option<Vec<u32>>,
    leading: Leading,
    inspection: Inspection,
    pub messages: u64,
    /// Number of the next frame, if the rate is constant.
    frames: u64,
    /// Number of videos so far.
    parts: usize,
    sizes: SizeChanges,
    /// Notes for the first video, which has not begun.
    notes: Notes,
    /// The span that contains all log messages of the camera.
    span: Span,
}

enum State {
    /// No picture was received yet.
    Waiting,
    Running,
    Refused(SkipReason),
    Failed,
}

/// A message, without its payload.
#[derive(Clone, Copy)]
struct Message {
    number: u64,
    times: FrameTimes,
    /// How often its picture is repeated.
    copies: u32,
}

/// Whether pictures are encoded, or access units copied.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Encode,
    Copy,
}

impl Camera {
    pub fn new(info: StreamInfo, picture: PictureOptions) -> Self {
        Self {
            span: error_span!("camera", topic = info.topic),
            inspection: Inspection::new(&info.topic, picture),
            info,
            publisher: 0,
            frame_id: None,
            state: State::Waiting,
            open: Vec::new(),
            access_units: AccessUnitReader::default(),
            copies: None,
            leading: Leading::default(),
            messages: 0,
            frames: 0,
            parts: 0,
            sizes: SizeChanges::default(),
            notes: Notes::default(),
        }
    }

    /// A further publisher of a topic.
    pub fn of_publisher(
        info: StreamInfo,
        publisher: usize,
        frame_id: &str,
        picture: PictureOptions,
    ) -> Self {
        Self { publisher, frame_id: Some(frame_id.into()), ..Self::new(info, picture) }
    }

    /// Makes a constant rate from recorded times. `plan` is the camera's plan, or why it has none;
    /// `None` if the first pass over the recording found nothing to plan.
    pub fn resample(&mut self, plan: Option<Result<CameraPlan, ResampleError>>) {
        let plan = match plan {
            Some(Err(error)) => {
                self.state = State::Refused(SkipReason::Rate { error });
                return;
            }
            plan => plan.and_then(Result::ok).unwrap_or_default(),
        };
        let _entered = self.span.enter();
        plan.warnings.into_iter().for_each(|text| self.notes.remarks.add(text));
        self.notes.times_guessed = plan.guessed;
        self.copies = Some(plan.copies);
    }

    /// Whether the camera accepts no more messages because of an error.
    pub fn has_failed(&self) -> bool {
        matches!(self.state, State::Failed)
    }

    /// Adds the next message. Waits while the camera's ring is full.
    ///
    /// # Errors
    /// [`SinkError::Refused`] if the destination does not accept a video of this camera.
    pub fn push(&mut self, packet: Packet, context: &mut Context<'_>) -> Result<(), SinkError> {
        let span = self.span.clone();
        let _entered = span.enter();
        let order = self.messages;
        self.messages += 1;
        if matches!(self.state, State::Refused(_) | State::Failed) {
            return Ok(());
        }
        let copies = match &self.copies {
            Some(all) => usize::try_from(order).ok().and_then(|n| all.get(n)).copied(),
            None => Some(1),
        };
        if copies == Some(0) {
            self.notes().left_out += 1;
            return Ok(());
        }
        let times = FrameTimes { header_ns: packet.header_ns, log_ns: packet.log_ns };
        if let Ok(Payload::Video { format, data }) = packet.payload {
            let message = VideoMessage { number: packet.number, times };
            self.push_video(&format, &data, message, context)?;
        } else if let Some(copies) = copies {
            let times = self.numbered(times, copies, context);
            let message = Message { number: packet.number, times, copies };
            match packet.payload {
                Ok(payload) => self.push_picture(payload, message, context)?,
                Err(bad) => self.bad(message, bad.reason, context),
            }
        } else {
            self.push_unplanned(packet);
        }
        self.close_idle(context);
        Ok(())
    }

    /// Leaves out a message that the first pass over the recording did not encounter: it has no
    /// place at the constant rate.
    fn push_unplanned(&mut self, packet: Packet) {
        if !matches!(self.state, State::Waiting) {
            return self.notes().lost.add(packet.number, UNPLANNED);
        }
        let size = packet.payload.map(|p| picture::size(&p, self.inspection.options()));
        let reason = match size {
            Ok(Ok(_)) => {
                self.state = State::Refused(SkipReason::Unplanned);
                return;
            }
            Ok(Err(PictureError::Unsupported { reason, hint })) => {
                self.state = State::Refused(SkipReason::Unsupported { reason, hint });
                return;
            }
            Ok(Err(PictureError::Broken(reason))) => reason,
            Ok(Err(error)) => error.to_string(),
            Err(bad) => bad.reason,
        };
        let times = FrameTimes { header_ns: packet.header_ns, log_ns: packet.log_ns };
        self.leading.push(packet.number, times, 0, reason);
    }

    /// Adds the last frames of a video topic, whose times depend on the next message.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn flush(&mut self, context: &mut Context<'_>) -> Result<(), SinkError> {
        let span = self.span.clone();
        let _entered = span.enter();
        let rate = context.config.settings.encoder.frame_rate;
        let frames = self.access_units.finish(rate);
        frames.into_iter().try_for_each(|frame| self.push_frame(frame, context))
    }

    /// The constant rate of this camera's videos, if they have one.
    fn rate(&self, context: &Context<'_>) -> Option<FrameRate> {
        match context.config.timing {
            Timing::Rate(rate) | Timing::Numbered(rate) => Some(rate),
            Timing::Recorded(_) => self.info.rate,
        }
    }

    /// At a constant rate the frame's number determines its time, over all videos of the camera. A
    /// frame that is in another video, or was dropped, leaves its time empty.
    fn numbered(&mut self, times: FrameTimes, copies: u32, context: &Context<'_>) -> FrameTimes {
        let Some(rate) = self.rate(context) else { return times };
        let number = self.frames;
        self.frames += u64::from(copies);
        let log_ns = i64::try_from(rate.nanoseconds(number)).unwrap_or(i64::MAX);
        FrameTimes { header_ns: Some(times.by(Clock::Header)), log_ns }
    }

    fn push_picture(
        &mut self,
        payload: Payload,
        message: Message,
        context: &mut Context<'_>,
    ) -> Result<(), SinkError> {
        if self.mode() == Some(Mode::Copy) {
            self.bad(message, "a still in a video topic".into(), context);
            return Ok(());
        }
        let remarks = self.inspection.look(message.number, &payload);
        self.notes().remarks.extend(remarks);
        let size = match picture::size(&payload, self.inspection.options()) {
            Ok(size) => size,
            Err(PictureError::Unsupported { reason, hint })
                if matches!(self.state, State::Waiting) =>
            {
                self.state = State::Refused(SkipReason::Unsupported { reason, hint });
                return Ok(());
            }
            Err(error) => {
                self.bad(message, error.to_string(), context);
                return Ok(());
            }
        };
        if self.select(size, Mode::Encode, message, context)? {
            self.send(message, payload, context);
        }
        Ok(())
    }

    fn mode(&self) -> Option<Mode> {
        self.open.last().map(|part| match part.video {
            Video::Encoding(_) => Mode::Encode,
            Video::Copying(_) => Mode::Copy,
        })
    }

    /// The notes of the current video.
    fn notes(&mut self) -> &mut Notes {
        self.open.last_mut().map_or(&mut self.notes, |part| &mut part.notes)
    }

    /// Makes the video with pictures of `size` the current video. Returns whether such a video is
    /// open.
    fn select(
        &mut self,
        size: Resolution,
        mode: Mode,
        message: Message,
        context: &mut Context<'_>,
    ) -> Result<bool, SinkError> {
        let messages = self.messages;
        match self.open.iter().position(|part| part.size == size) {
            Some(n) if n + 1 == self.open.len() => self.open[n].used = messages,
            Some(n) => {
                let mut part = self.open.remove(n);
                let from = self.open.last().map_or(size, |part| part.size);
                let remark = self.sizes.returns(from, size, message.number);
                self.remark(remark);
                part.used = messages;
                self.open.push(part);
            }
            None if self.parts >= MOST_PARTS => {
                let reason = format!(
                    "its size is {size}, and no video is begun for it: the camera has {MOST_PARTS} \
                     videos already"
                );
                self.notes().lost.add(message.number, &reason);
                return Ok(false);
            }
            None => {
                if let Some(from) = self.open.last().map(|part| part.size) {
                    let remark = self.sizes.begins(from, size, message.number);
                    self.remark(remark);
                }
                self.make_room(context);
                return self.begin(size, mode, context);
            }
        }
        Ok(true)
    }

    /// Adds a remark about sizes to the current video.
    fn remark(&mut self, text: Option<String>) {
        if let Some(text) = text {
            self.notes().remarks.add_change(text);
        }
    }

    /// Closes the videos that were not current for the longest time, to make room for another.
    fn make_room(&mut self, context: &mut Context<'_>) {
        while self.open.len() >= MOST_OPEN || (context.idle >= MOST_IDLE && !self.open.is_empty()) {
            self.close_part(0, context, true);
        }
    }

    /// Closes the videos whose size has not returned for a while.
    fn close_idle(&mut self, context: &mut Context<'_>) {
        while self.open.len() > 1 && self.messages - self.open[0].used >= IDLE_MESSAGES {
            self.close_part(0, context, true);
        }
    }

    /// Begins the video with pictures of `size`. Returns whether that succeeded.
    fn begin(
        &mut self,
        size: Resolution,
        mode: Mode,
        context: &mut Context<'_>,
    ) -> Result<bool, SinkError> {
        self.parts += 1;
        let number = context.number(self.info.id);
        let opened = match mode {
            Mode::Encode => self.encoding(size, number, context),
            Mode::Copy => self.copying(size, number, context),
        };
        match opened {
            Ok(video) => {
                if !self.open.is_empty() {
                    context.idle += 1;
                }
                let (used, notes) = (self.messages, std::mem::take(&mut self.notes));
                self.open.push(Part { number, size, video, used, notes });
                self.state = State::Running;
                let padded = part::padded(size).filter(|_| mode == Mode::Encode);
                self.notes().remarks.extend(padded);
                self.take_leading(context);
                Ok(self.open.last().is_some_and(|part| part.number == number))
            }
            Err(SessionError::Sink(error @ SinkError::Refused { .. })) => Err(error),
            Err(error) => {
                self.end_with(error, number, context);
                Ok(false)
            }
        }
    }

    /// Opens an encoder.
    fn encoding(
        &mut self,
        size: Resolution,
        number: usize,
        context: &mut Context<'_>,
    ) -> Result<Video, SessionError> {
        let mut config = context.config.clone();
        if let Some(rate) = self.rate(context) {
            config.timing = Timing::Numbered(rate);
            config.settings.encoder.frame_rate = rate;
        }
        if context.label_cameras {
            config.camera_label = Some(self.info.topic.clone());
        }
        config.part = Some(number);
        config.picture = *self.inspection.options();
        let (timing, encoder) = (config.timing, &config.settings.encoder);
        let mut part = PartInfo::encoded(&self.info, number, size, timing, encoder);
        part.frame_id = self.frame_id.as_deref();
        let sink = context.destination.sink(&part)?;
        let session = Session::open(size, &config, sink)?;
        let (topic, messages) = (&self.info.topic, self.info.messages);
        context.progress.camera(topic, messages, session.stats_handle());
        Ok(Video::Encoding(session))
    }

    /// Reserves the frame's slot, and queues its picture for decoding.
    fn send(&mut self, message: Message, payload: Payload, context: &mut Context<'_>) {
        let Some(Part { video: Video::Encoding(session), .. }) = self.open.last_mut() else {
            return;
        };
        let slot = match session.reserve(message.times) {
            Ok(Some(slot)) => slot
                .numbered(message.number)
                .times_in_a_row(message.copies)
                // Depth may begin after the video.
                .with_options(*self.inspection.options()),
            Ok(None) => return,
            Err(_) => return self.fail(context),
        };
        if let Err(unsent) = context.decoders.send(DecodeTask { slot, payload }) {
            unsent.into_inner().run();
        }
    }

    /// A message without a picture.
    fn bad(&mut self, message: Message, reason: String, context: &mut Context<'_>) {
        let Message { number, times, copies } = message;
        match (&self.state, self.open.last_mut()) {
            (State::Waiting, _) => self.leading.push(number, times, copies, reason),
            (_, Some(Part { video: Video::Encoding(session), .. })) => {
                match session.reserve(times) {
                    Ok(Some(slot)) => slot.numbered(number).times_in_a_row(copies).fail(reason),
                    Ok(None) => {}
                    Err(_) => self.fail(context),
                }
            }
            (_, Some(part)) => part.notes.lost.add(number, &reason),
            (_, None) => {}
        }
    }

    /// Adds the broken messages before the first picture to the video that has begun.
    fn take_leading(&mut self, context: &mut Context<'_>) {
        let (kept, dropped) = self.leading.take();
        if dropped > 0 {
            let notes = self.notes();
            notes.lost.add_unlisted(dropped);
            notes.remarks.add(format!(
                "of the broken frames before the first good one, the first {dropped} are left out"
            ));
        }
        for Broken { number, times, copies, reason } in kept {
            self.bad(Message { number, times, copies }, reason.into_owned(), context);
        }
    }

    /// The current session has failed and accepts no more frames; its end returns the cause.
    fn fail(&mut self, context: &mut Context<'_>) {
        self.state = State::Failed;
        self.close_all(context, true);
    }

    /// Ends the camera: video `number` could not be begun or continued.
    fn end_with(&mut self, error: SessionError, number: usize, context: &mut Context<'_>) {
        let notes = std::mem::take(&mut self.notes);
        let camera = (self.info.id, self.publisher);
        let topic = self.info.topic.clone();
        context.closing.push(ClosedPart { camera, topic, number, notes, result: Err(error) });
        self.fail(context);
    }

    /// Removes the current video from the list.
    fn take_current(&mut self, context: &mut Context<'_>) -> Option<Part> {
        let part = self.open.pop()?;
        if !self.open.is_empty() {
            context.idle -= 1;
        }
        Some(part)
    }

    fn close_part(&mut self, n: usize, context: &mut Context<'_>, waits: bool) {
        let remark = self.sizes.take();
        self.remark(remark);
        if self.open.len() > 1 {
            context.idle -= 1;
        }
        let part = self.open.remove(n).close((self.info.id, self.publisher), &self.info.topic);
        match waits {
            true => context.closing.push(part),
            false => context.closing.push_without_waiting(part),
        }
    }

    fn close_all(&mut self, context: &mut Context<'_>, waits: bool) {
        while !self.open.is_empty() {
            self.close_part(0, context, waits);
        }
    }

    /// Discards the open videos. Returns their sessions, which are ending.
    pub fn discard(&mut self) -> Vec<Closing> {
        let sessions = self.open.drain(..).filter_map(|part| match part.video {
            Video::Encoding(session) => Some(session.discard()),
            Video::Copying(_) => None,
        });
        sessions.collect()
    }

    /// Closes all videos; the encoders run until they have written everything.
    pub fn close(&mut self, context: &mut Context<'_>) {
        let span = self.span.clone();
        let _entered = span.enter();
        let remarks = self.inspection.finish();
        self.notes().remarks.extend(remarks);
        self.close_all(context, false);
    }

    /// Returns why this camera has no video, if it has none.
    pub fn skipped(&self) -> Option<SkippedTopic> {
        let _entered = self.span.enter();
        let reason = match &self.state {
            State::Refused(reason) => reason.clone(),
            State::Running | State::Failed => return None,
            State::Waiting if self.messages == 0 => SkipReason::NoMessages,
            State::Waiting => match self.leading.first() {
                Some((number, reason)) => {
                    let (frames, reason) = (self.leading.count(), reason.to_owned());
                    SkipReason::NothingDecoded { frames, number, reason }
                }
                None => SkipReason::NothingRead,
            },
        };
        warn!("no video of this topic: {reason}");
        Some(SkippedTopic {
            topic: self.info.topic.clone(),
            schema: self.info.schema.clone(),
            frames_in: self.messages,
            reason,
        })
    }
}
