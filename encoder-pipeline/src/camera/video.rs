//! Topics that are H.264 already: their access units are copied.

use encoder_core::Resolution;

use super::{Camera, Message, Mode, State};
use crate::{
    context::Context,
    destination::PartInfo,
    mux::{Sink, SinkError},
    part::{Part, Video},
    passthrough::{AccessUnit, Passthrough, PushError, VideoFrame, VideoMessage},
    report::SkipReason,
    session::{OnBadFrame, SessionError},
    timeline::Timing,
};

impl Camera {
    pub(super) fn push_video(
        &mut self,
        format: &str,
        data: &[u8],
        message: VideoMessage,
        context: &mut Context<'_>,
    ) -> Result<(), SinkError> {
        match self.mode() {
            Some(Mode::Encode) => {
                let VideoMessage { number, times } = message;
                let message =
                    Message { number, times: self.numbered(times, 1, context), copies: 1 };
                self.bad(message, "an access unit in a topic of stills".into(), context);
                return Ok(());
            }
            None if !format.eq_ignore_ascii_case("h264") => {
                self.state = State::Refused(SkipReason::Codec { format: format.into() });
                return Ok(());
            }
            None if !context.keep_encoded_video => {
                self.state = State::Refused(SkipReason::FixedRate);
                return Ok(());
            }
            _ => {}
        }
        let frames = self.access_units.read(data, message);
        frames.into_iter().try_for_each(|frame| self.push_frame(frame, context))
    }

    /// Copies a frame of a video topic.
    pub(super) fn push_frame(
        &mut self,
        frame: VideoFrame,
        context: &mut Context<'_>,
    ) -> Result<(), SinkError> {
        if matches!(self.state, State::Refused(_) | State::Failed) {
            return Ok(());
        }
        let VideoMessage { number, times } = frame.message;
        let message = Message { number, times: self.numbered(times, 1, context), copies: 1 };
        let unit = match frame.unit {
            Ok(AccessUnit { damage: Some(reason), .. })
                if context.config.on_bad_frame == OnBadFrame::Fail =>
            {
                self.bad_video(message, reason, context);
                return Ok(());
            }
            Ok(unit) => unit,
            Err(error) => {
                self.bad_video(message, error.to_string(), context);
                return Ok(());
            }
        };
        match self.open.last().map(|part| part.size) {
            Some(current) if current == unit.size => {}
            _ if unit.starts_decoding() => {
                if !self.select(unit.size, Mode::Copy, message, context)? {
                    return Ok(());
                }
            }
            current => {
                let reason = match current {
                    Some(_) => "its size is another one, and it is no key frame",
                    None => "it comes before the first key frame with parameter sets",
                };
                self.bad_video(message, reason.into(), context);
                return Ok(());
            }
        }
        self.copy(unit, message, context);
        Ok(())
    }

    pub(super) fn copying(
        &mut self,
        size: Resolution,
        number: usize,
        context: &mut Context<'_>,
    ) -> Result<Video, SessionError> {
        let rate = self.rate(context);
        let timing = rate.map_or(context.config.timing, Timing::Numbered);
        let rate = rate.unwrap_or(context.config.settings.encoder.frame_rate);
        let mut part = PartInfo::copied(&self.info, number, size, timing, rate);
        part.frame_id = self.frame_id.as_deref();
        let sink: Box<dyn Sink> = context.destination.sink(&part)?;
        Ok(Video::Copying(Passthrough::new(size, timing, rate, sink)))
    }

    /// Appends an access unit to the current video.
    fn copy(&mut self, unit: AccessUnit, message: Message, context: &mut Context<'_>) {
        let messages = self.messages;
        let Some(part) = self.open.last_mut() else { return };
        part.used = messages;
        let Video::Copying(copy) = &mut part.video else { return };
        if let Err(error) = copy.push(unit, message.number, message.times) {
            self.stop_copy(error, context);
        }
    }

    /// Ends the current copy, which cannot be continued. A topic that cannot be copied from the
    /// start on has no video.
    fn stop_copy(&mut self, error: PushError, context: &mut Context<'_>) {
        let unfit = match &error {
            PushError::Unfit(reason) => Some(reason.clone()),
            PushError::Sink(_) => None,
        };
        let (number, stopped) = match self.take_current(context) {
            Some(Part { number, video: Video::Copying(copy), notes, .. }) => {
                self.notes = notes;
                (number, copy.stop(error))
            }
            _ => (context.number(self.info.id), None),
        };
        match (stopped, unfit) {
            (Some(error), _) => self.end_with(error, number, context),
            (None, Some(reason)) if self.parts <= 1 => self.state = State::Refused(reason),
            (None, reason) => {
                let reason = reason.map(|reason| reason.to_string()).unwrap_or_default();
                self.end_with(SessionError::Stream(reason), number, context);
            }
        }
    }

    /// A broken access unit cannot be replaced by a picture: it is left out, or ends the video.
    pub(super) fn bad_video(
        &mut self,
        message: Message,
        reason: String,
        context: &mut Context<'_>,
    ) {
        if context.config.on_bad_frame != OnBadFrame::Fail {
            return self.bad(message, reason, context);
        }
        let error = SessionError::BadFrame { number: message.number, reason };
        // A dropped video leaves no file.
        let number = match self.take_current(context) {
            Some(part) => {
                self.notes = part.notes;
                part.number
            }
            None => context.number(self.info.id),
        };
        self.end_with(error, number, context);
    }
}
