//! Checks the pictures of an encoder while it encodes.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use encoder_core::{
    CheckOutput, Codec, DecodeError, EncodedChunk, Frame, MAX_DECODE_DELAY, NalKind,
    PictureDecoder, Resolution, nal_units, picture_decoder,
};

use crate::fingerprint::{Fingerprint, Tolerance};

/// Earlier frames that are remembered, to recognise a picture that was shown before.
const EARLIER: u64 = 16;
/// Key frames that are remembered longer: the first one, and the last ones that were right.
const KEY_FRAMES: usize = 3;

const NO_PICTURE: &str = "its access unit has no complete picture";

/// Decodes access units of the active encoder, and compares their pictures with the frames that the
/// encoder was given.
///
/// A frame is remembered by its [`Fingerprint`], a hundredth of its size.
pub(super) struct OutputCheck {
    mode: CheckOutput,
    codec: Codec,
    /// The coded size of the pictures.
    size: Resolution,
    state: State,
    /// Frames from [`EARLIER`] before the first one without an access unit.
    frames: VecDeque<(u64, Fingerprint)>,
    /// The first key frame and the last ones whose pictures were right, at most [`KEY_FRAMES`].
    key_frames: Vec<(u64, Fingerprint)>,
    /// Frames whose access units were decoded and whose pictures have not come yet, and whether
    /// they are key frames.
    decoding: VecDeque<(u64, bool)>,
    /// Number of pictures that were compared, and the frame after the last one that is right.
    count: u64,
    right_until: u64,
    /// Time spent since the last call of [`OutputCheck::take_time`].
    spent: Duration,
}

enum State {
    /// The active encoder is not checked.
    Off,
    /// No decoder is open.
    Closed,
    Open(Box<dyn PictureDecoder>),
}

/// Why a picture does not count as right.
#[derive(Debug, PartialEq)]
pub(super) enum Finding {
    /// The pictures of this encoder cannot be checked, for this reason.
    Unable(String),
    /// The picture of this frame is wrong, for this reason.
    Wrong(u64, String),
}

impl OutputCheck {
    pub fn new(mode: CheckOutput, codec: Codec, size: Resolution) -> Self {
        Self {
            mode,
            codec,
            size: size.even(),
            state: State::Off,
            frames: VecDeque::new(),
            key_frames: Vec::new(),
            decoding: VecDeque::new(),
            count: 0,
            right_until: 0,
            spent: Duration::ZERO,
        }
    }

    /// How many access units are held back because their pictures have not been checked.
    pub fn delay(&self) -> usize {
        if self.mode == CheckOutput::All { MAX_DECODE_DELAY } else { 0 }
    }

    /// How many pictures were compared with their frames.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Index after the last frame whose picture was found right.
    pub fn right_until(&self) -> u64 {
        self.right_until
    }

    /// Access units of frames from this index on must not be emitted yet.
    pub fn limit(&self) -> u64 {
        match (self.mode, &self.state) {
            (CheckOutput::All, State::Closed | State::Open(_)) => self.right_until,
            _ => u64::MAX,
        }
    }

    /// Another encoder is active, from the frame `base` on. Software is not checked.
    pub fn restart(&mut self, is_hardware: bool, base: u64) {
        let is_checked = is_hardware && self.mode != CheckOutput::Off;
        self.state = if is_checked { State::Closed } else { State::Off };
        self.decoding.clear();
        self.right_until = base;
    }

    /// Takes the fingerprint of a frame that the active encoder is given. Frames before
    /// `complete_until` have their access units.
    pub fn frame(&mut self, frame: &Frame<'_>, complete_until: u64) {
        if self.mode == CheckOutput::Off {
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

    /// Checks an access unit of the active encoder, and pictures that its decoder returns late.
    pub fn unit(&mut self, unit: &EncodedChunk) -> Result<(), Finding> {
        let is_due = self.mode == CheckOutput::All || unit.keyframe;
        if matches!(self.state, State::Off) || !is_due {
            return Ok(());
        }
        let begun = Instant::now();
        let checked = self.decode(unit);
        self.spent += begun.elapsed();
        checked
    }

    /// Checks the pictures that the decoder has not returned yet. The active encoder has ended.
    pub fn finish(&mut self) -> Result<(), Finding> {
        let begun = Instant::now();
        let checked = self.flush();
        self.spent += begun.elapsed();
        checked
    }

    /// The time that the checks took since the last call.
    pub fn take_time(&mut self) -> Duration {
        std::mem::take(&mut self.spent)
    }

    fn decode(&mut self, unit: &EncodedChunk) -> Result<(), Finding> {
        if matches!(self.state, State::Closed) {
            let opened = picture_decoder(self.codec).map(|open| open(self.size));
            self.state = match opened {
                Some(Ok(decoder)) => State::Open(decoder),
                Some(Err(error)) => return Err(self.unable(error.to_string())),
                None => return Err(self.unable("no decoder is compiled in".into())),
            };
        }
        let is_slice = |nal: &[u8]| {
            nal.first()
                .is_some_and(|&head| matches!(NalKind::of(head), NalKind::Idr | NalKind::Slice))
        };
        if !nal_units(&unit.data).any(is_slice) {
            return Err(Finding::Wrong(unit.pts, NO_PICTURE.into()));
        }
        self.decoding.push_back((unit.pts, unit.keyframe));
        self.run(|decoder, show| decoder.decode(&unit.data, show))?;
        if self.decoding.len() > MAX_DECODE_DELAY {
            return Err(self.missing());
        }
        match self.mode {
            CheckOutput::All => Ok(()),
            // The pictures before the next key frame are not decoded.
            _ => self.flush(),
        }
    }

    fn flush(&mut self) -> Result<(), Finding> {
        if !matches!(self.state, State::Open(_)) {
            return Ok(());
        }
        self.run(|decoder, show| decoder.flush(show))?;
        match self.decoding.is_empty() {
            true => Ok(()),
            false => Err(self.missing()),
        }
    }

    /// The decoder did not return the picture of an access unit.
    fn missing(&self) -> Finding {
        let frame = self.decoding.front().map_or(0, |(frame, _)| *frame);
        Finding::Wrong(frame, NO_PICTURE.into())
    }

    /// Runs the decoder, and judges the pictures that it returns.
    fn run(
        &mut self,
        work: impl FnOnce(
            &mut dyn PictureDecoder,
            &mut dyn FnMut(&Frame<'_>),
        ) -> Result<(), DecodeError>,
    ) -> Result<(), Finding> {
        let Self { state, frames, key_frames, decoding, count, right_until, .. } = self;
        let State::Open(decoder) = state else { return Ok(()) };
        let last = decoding.back().map_or(0, |(frame, _)| *frame);
        let mut wrong = None;
        let done = work(decoder.as_mut(), &mut |picture| {
            let Some((index, is_key)) = decoding.pop_front() else { return };
            if wrong.is_some() {
                return;
            }
            *count += 1;
            match judge(frames, key_frames, index, is_key, picture) {
                Ok(()) => {
                    *right_until = index + 1;
                    if is_key {
                        remember(key_frames, frames, index);
                    }
                }
                Err(why) => wrong = Some(Finding::Wrong(index, why)),
            }
        });
        match (wrong, done) {
            (Some(wrong), _) => Err(wrong),
            (None, Ok(())) => Ok(()),
            (None, Err(DecodeError::Unsupported(why))) => Err(self.unable(why)),
            (None, Err(DecodeError::Broken(why))) => {
                *count += 1;
                Err(Finding::Wrong(last, format!("it does not decode: {why}")))
            }
        }
    }

    fn unable(&mut self, why: String) -> Finding {
        self.state = State::Off;
        self.decoding.clear();
        Finding::Unable(why)
    }
}

/// Compares the decoded picture of a frame with the frame.
fn judge(
    frames: &VecDeque<(u64, Fingerprint)>,
    key_frames: &[(u64, Fingerprint)],
    index: u64,
    is_key: bool,
    picture: &Frame<'_>,
) -> Result<(), String> {
    let Some((_, frame)) = frames.iter().find(|(n, _)| *n == index) else { return Ok(()) };
    let others = frames.iter().chain(key_frames).filter(|(n, _)| *n != index);
    let tolerance = if is_key { Tolerance::KEY } else { Tolerance::PREDICTED };
    frame.judge(&Fingerprint::of(picture), tolerance, others.map(|(n, other)| (*n, other)))
}

/// Remembers a key frame whose picture was right.
fn remember(
    key_frames: &mut Vec<(u64, Fingerprint)>,
    frames: &VecDeque<(u64, Fingerprint)>,
    index: u64,
) {
    let known = key_frames.iter().any(|(n, _)| *n == index);
    if let Some(frame) = frames.iter().find(|(n, _)| *n == index && !known) {
        if key_frames.len() == KEY_FRAMES {
            key_frames.remove(1);
        }
        key_frames.push(frame.clone());
    }
}
