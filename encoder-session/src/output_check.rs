//! Checks the pictures of an encoder while it encodes.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use encoder_core::{
    CheckOutput, Codec, DecodeError, EncodedChunk, Frame, PictureDecoder, picture_decoder,
};

use crate::fingerprint::{Fingerprint, Tolerance};

/// Earlier frames that are remembered, to recognise a picture that was shown before.
const EARLIER: u64 = 16;

/// Decodes access units of the active encoder, and compares their pictures with the frames that the
/// encoder was given.
///
/// A frame is remembered by its [`Fingerprint`], a hundredth of its size. Each encoder gets a
/// decoder of its own, since its stream begins with an IDR picture.
pub(super) struct OutputCheck {
    mode: CheckOutput,
    codec: Codec,
    /// Whether the active encoder is checked, and why not if it cannot be.
    state: State,
    /// Frames from [`EARLIER`] before the first one without an access unit.
    frames: VecDeque<(u64, Fingerprint)>,
    /// Time spent since the last call of [`OutputCheck::take_time`].
    spent: Duration,
}

enum State {
    Off,
    Pending,
    Open(Box<dyn PictureDecoder>),
}

/// The result of a check.
#[derive(Debug, PartialEq)]
pub(super) enum Checked {
    /// The picture was not decoded.
    Skipped,
    /// The picture is that of its frame.
    Right,
    /// The pictures of this encoder cannot be checked, for this reason.
    Unable(String),
    /// The picture is wrong, for this reason.
    Wrong(String),
}

impl OutputCheck {
    pub fn new(mode: CheckOutput, codec: Codec) -> Self {
        let (state, frames, spent) = (State::Off, VecDeque::new(), Duration::ZERO);
        Self { mode, codec, state, frames, spent }
    }

    /// Another encoder is active. Software is not checked.
    pub fn restart(&mut self, is_hardware: bool) {
        let is_checked = is_hardware && self.mode != CheckOutput::Off;
        self.state = if is_checked { State::Pending } else { State::Off };
    }

    /// A frame that the active encoder is given. Frames before `complete_until` have their access
    /// units.
    pub fn frame(&mut self, frame: &Frame<'_>, complete_until: u64) {
        if matches!(self.state, State::Off) {
            return;
        }
        let begun = Instant::now();
        while self.frames.front().is_some_and(|(n, _)| n + EARLIER < complete_until) {
            self.frames.pop_front();
        }
        // A frame that is encoded again is known already.
        if self.frames.back().is_none_or(|(last, _)| *last < frame.index) {
            self.frames.push_back((frame.index, Fingerprint::of(frame)));
        }
        self.spent += begun.elapsed();
    }

    /// Checks an access unit of the active encoder.
    pub fn unit(&mut self, unit: &EncodedChunk) -> Checked {
        let is_due = self.mode == CheckOutput::All || unit.keyframe;
        if matches!(self.state, State::Off) || !is_due {
            return Checked::Skipped;
        }
        let begun = Instant::now();
        let checked = self.decode(unit);
        if matches!(checked, Checked::Unable(_)) {
            self.state = State::Off;
            self.frames.clear();
        }
        self.spent += begun.elapsed();
        checked
    }

    /// The time that the checks took since the last call.
    pub fn take_time(&mut self) -> Duration {
        std::mem::take(&mut self.spent)
    }

    fn decode(&mut self, unit: &EncodedChunk) -> Checked {
        let Some((_, frame)) = self.frames.iter().find(|(n, _)| *n == unit.pts) else {
            return Checked::Skipped;
        };
        if matches!(self.state, State::Pending) {
            let Some(open) = picture_decoder(self.codec) else {
                return Checked::Unable("no decoder is compiled in".into());
            };
            match open() {
                Ok(decoder) => self.state = State::Open(decoder),
                Err(error) => return Checked::Unable(error.to_string()),
            }
        }
        let State::Open(decoder) = &mut self.state else { return Checked::Skipped };
        let others = || self.frames.iter().filter(|(n, _)| *n != unit.pts).map(|(n, f)| (*n, f));
        let tolerance = if unit.keyframe { Tolerance::KEY } else { Tolerance::PREDICTED };
        let mut judged = Err("it has no picture".to_owned());
        let mut show = |picture: &Frame<'_>| {
            judged = frame.judge(&Fingerprint::of(picture), tolerance, others());
        };
        match decoder.decode(&unit.data, &mut show) {
            Ok(()) => judged.map_or_else(Checked::Wrong, |()| Checked::Right),
            Err(DecodeError::Unsupported(why)) => Checked::Unable(why),
            Err(DecodeError::Broken(why)) => Checked::Wrong(format!("it does not decode: {why}")),
        }
    }
}
