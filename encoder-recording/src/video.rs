//! Reads any video file, decoded by an FFmpeg child process: [`VideoDecoder`].

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use encoder_core::{EncoderType, FrameRate};
use encoder_ffmpeg::{DecodeError, Ending, Ffmpeg, PictureInfo, Search, VideoDecoder, VideoStream};

use super::filter::Window;
use super::{
    BadMessage, Event, Limits, Packet, Payload, RawImage, Source, SourceError, SourceOptions,
    StreamInfo, Warning,
};

/// The name of this reader in errors about FFmpeg.
const READER: EncoderType = EncoderType::new("video-file");

/// The rate that FFmpeg assumes for a stream that declares none.
const ASSUMED: (u32, u32) = (25, 1);

/// Distances of frames that differ by no more than this are equal, but for rounding.
const EVEN_NS: i64 = 1_000;

/// A video file.
pub(crate) struct VideoSource {
    path: PathBuf,
    decoder: VideoDecoder,
    limits: Limits,
    /// The window of time to return.
    window: RangeInclusive<i64>,
    /// The rate of a file without times.
    rate: Option<FrameRate>,
    announced: bool,
    warnings: VecDeque<Warning>,
    /// Number of frames so far.
    frames: u64,
    /// How many of them have no time in the file.
    untimed: u64,
    /// Time of the first frame and of the last one, in nanoseconds.
    origin: Option<i64>,
    last: i64,
    /// The shortest and the longest distance of two frames, in nanoseconds.
    distances: Option<(i64, i64)>,
    ended: bool,
}

impl VideoSource {
    /// Opens a file and waits for its first picture. The first video stream is read, upright
    /// (rotation in the file is applied), with square pixels, and in the standard dynamic range. A
    /// bare elementary stream has `options.rate`, or the rate that FFmpeg reads from it or assumes.
    ///
    /// # Errors
    /// [`SourceError`] when FFmpeg is missing or decodes no picture of the file.
    pub(crate) fn open(
        path: &Path,
        options: &SourceOptions,
    ) -> Result<Box<dyn Source>, SourceError> {
        std::fs::File::open(path).map_err(|e| SourceError::io(path, e))?;
        let search = Search::new(READER).named(options.ffmpeg.as_deref());
        let ffmpeg = search.run().map_err(|refusal| {
            SourceError::invalid(
                path,
                format!("a video file needs FFmpeg to be read: {}", refusal.reason),
                concat!(
                    "install FFmpeg 4.4 or later, or ",
                    encoder_ffmpeg::set_ffmpeg!("its path")
                ),
            )
        })?;
        Self::open_with(&ffmpeg, path, options)
    }

    fn open_with(
        ffmpeg: &Ffmpeg,
        path: &Path,
        options: &SourceOptions,
    ) -> Result<Box<dyn Source>, SourceError> {
        let decoder = VideoDecoder::open(ffmpeg, path).map_err(|error| match error {
            DecodeError::Start { program, error } => SourceError::io(program, error),
            DecodeError::Read(error) => SourceError::io(path, error),
            error @ DecodeError::Hdr { .. } => SourceError::invalid(
                path,
                error.to_string(),
                "convert it to SDR first, or use an FFmpeg with the filters zscale and tonemap (built \
                 with libzimg)",
            ),
            error => SourceError::invalid(path, error.to_string(), "check that it is a video file"),
        })?;
        let stream = decoder.stream();
        let declared = stream.rate.unwrap_or_default();
        let rate = (!stream.has_times()).then(|| options.rate.unwrap_or(declared));
        let warnings = notes(stream, rate.filter(|_| options.rate.is_none()));
        Ok(Box::new(Self {
            path: path.into(),
            decoder,
            limits: options.limits,
            window: Window::new(options).bounds(0),
            rate,
            announced: false,
            warnings: warnings.into(),
            frames: 0,
            untimed: 0,
            origin: None,
            last: 0,
            distances: None,
            ended: false,
        }))
    }

    /// Reads no more frames. Adds a warning if frames so far had no time.
    fn stop(&mut self) {
        self.ended = true;
        let Self { untimed, frames, .. } = *self;
        if untimed > 0 {
            let text = format!(
                "the file has no time for {untimed} of {frames} frames: their times are \
                 guesses"
            );
            self.warnings.push_back(Warning { text, loss: true });
        }
    }

    /// The end of the video, after an error or the last picture. Adds a warning unless the video is
    /// complete.
    fn end(&mut self, failure: Option<&DecodeError>) {
        self.stop();
        let ending = self.decoder.finish();
        let loss = self.loss(failure, &ending);
        let doubts = self.doubts(&ending).into_iter().map(|text| Warning { text, loss: true });
        self.warnings.extend(doubts);
        self.warnings.extend(loss.map(|text| Warning { text, loss: true }));
        self.warnings.extend(marks(&ending).into_iter().map(|text| Warning { text, loss: false }));
    }

    /// Why frames may be at wrong times.
    fn doubts(&self, ending: &Ending) -> Vec<String> {
        let stream = self.decoder.stream();
        let mut doubts = Vec::new();
        if self.rate.is_some() {
            return doubts;
        }
        if stream.wraps_after().is_some_and(|wraps_after| self.last > wraps_after) {
            doubts.push(
                "the video is longer than 26.5 hours, where the times of its container start again: \
                 FFmpeg continues them there, and a pause at that moment is lost"
                    .into(),
            );
        }
        // The times that FFmpeg invents are right if the rate is constant.
        let is_even =
            self.distances.is_none_or(|(short, long)| long.saturating_sub(short) <= EVEN_NS);
        if stream.lacks_display_times() && ending.marks.b_pictures > 0 && !is_even {
            doubts.push(
                "the container has no display times, and the pictures are not in the order of their \
                 display: the times of the last ones are guesses of FFmpeg"
                    .into(),
            );
        }
        doubts
    }

    /// Why frames may be missing or broken.
    fn loss(&mut self, failure: Option<&DecodeError>, ending: &Ending) -> Option<String> {
        let Ending { exit, log, .. } = ending;
        let stream = self.decoder.stream();
        if let Some(failure) = failure {
            return Some(format!(
                "frame {}: {failure}; FFmpeg ended with {exit}: {log}",
                self.frames
            ));
        }
        if !exit.is_success() {
            return Some(format!("FFmpeg ended with {exit}: {log}"));
        }
        if ending.has_more_samples {
            return Some(
                "FFmpeg wrote more pictures than it reported times of: frames may be missing or at \
                 wrong times"
                    .into(),
            );
        }
        let totals = ending.totals.filter(|_| stream.has_picture_per_packet());
        let missing = totals.map_or(0, |totals| totals.packets.saturating_sub(totals.decoded));
        if ending.errors > 0 {
            let first = match ending.first_error.as_str() {
                "" => String::new(),
                first => format!(", the first is: {first}"),
            };
            let mut text = format!(
                "the video is damaged: FFmpeg reported {} errors{first}; frames may be missing or \
                 broken",
                ending.errors
            );
            if missing > 0 {
                text.push_str(&format!("; {missing} packets gave no picture"));
            }
            return Some(text);
        }
        // An interlaced picture may be two packets, one for each field.
        let fields = ending.marks.interlaced;
        if missing == 0 || missing == fields {
            return None;
        }
        if missing < fields {
            let text = format!(
                "{missing} packets of the video gave no picture of their own: they are second fields \
                 of its interlaced pictures, or pictures are missing"
            );
            self.warnings.push_back(Warning { text, loss: false });
            return None;
        }
        let missing = missing - fields;
        let text = format!("{missing} packets of the video gave no picture, without an error");
        if stream.may_hide_pictures() {
            let text = format!("{text}: the file hides them by an edit list, or they are lost");
            self.warnings.push_back(Warning { text, loss: false });
            return None;
        }
        Some(format!("{text}: a key frame or another picture that they need is missing"))
    }

    /// Reads the samples of a frame.
    fn picture(&mut self, info: &PictureInfo) -> Result<Picture, DecodeError> {
        let PictureInfo { width, height, .. } = *info;
        let pixels = u64::from(width) * u64::from(height);
        if pixels > self.limits.pixels || info.bytes() > self.limits.message_bytes {
            self.decoder.skip(info)?;
            let reason = format!("{width}x{height} pixels are more than the limit");
            return Ok(Err(BadMessage { reason }));
        }
        Ok(Ok(Payload::Raw(RawImage {
            encoding: "i420".into(),
            width,
            height,
            step: 0,
            is_bigendian: false,
            data: self.decoder.read(info)?.into(),
        })))
    }

    /// The display time of a frame, relative to the first frame: as the file has it, and if it has
    /// none, a guess as the second number.
    fn time(&mut self, info: &PictureInfo, number: u64) -> (Option<i64>, i64) {
        let shown = |rate: FrameRate, n| i64::try_from(rate.nanoseconds(n)).unwrap_or(i64::MAX);
        if let Some(rate) = self.rate {
            let time = shown(rate, number);
            return (Some(time), time);
        }
        let next = self.last.saturating_add(shown(FrameRate::default(), 1));
        self.untimed += u64::from(info.time_ns.is_none());
        let found = info.time_ns.map(|time| time.saturating_sub(*self.origin.get_or_insert(time)));
        let time = found.unwrap_or(if number == 0 { 0 } else { next });
        if number > 0 {
            let distance = time.saturating_sub(self.last);
            let (short, long) = self.distances.unwrap_or((distance, distance));
            self.distances = Some((short.min(distance), long.max(distance)));
        }
        self.last = time;
        (found, time)
    }

    /// The next frame; `None` at the end of the video.
    fn next_frame(&mut self) -> Result<Option<(PictureInfo, Picture)>, DecodeError> {
        let Some(info) = self.decoder.next_picture()? else { return Ok(None) };
        let picture = self.picture(&info)?;
        Ok(Some((info, picture)))
    }
}

/// What is done with the pictures of a stream; `rate` is the rate of a stream without times, unless
/// the user gave it.
fn notes(stream: &VideoStream, rate: Option<FrameRate>) -> Vec<Warning> {
    let mut notes = Vec::new();
    if let Some((width, height)) = stream.pixel_aspect {
        notes.push(format!(
            "the pixels of the video are not square ({width}:{height}): its pictures are scaled to \
             square pixels"
        ));
    }
    if let Some(hdr) = stream.hdr {
        notes.push(format!("the video is HDR ({hdr}): its pictures are converted to SDR"));
    }
    if let Some(rate) = rate.filter(|rate| (rate.numerator(), rate.denominator()) == ASSUMED) {
        notes.push(format!(
            "the stream has no times, and {rate} fps is what FFmpeg assumes where a stream declares \
             no rate; `SourceOptions::rate` sets it"
        ));
    }
    let mut notes: Vec<_> = notes.into_iter().map(|text| Warning { text, loss: false }).collect();
    if stream.others > 0 {
        let text = format!(
            "the file has {} video streams, and only the first is read; FFmpeg copies another to a \
             file of its own: ffmpeg -i FILE -map 0:V:1 -c copy OUT",
            stream.others + 1
        );
        notes.push(Warning { text, loss: true });
    }
    notes
}

/// How the video looks different from what a player shows.
fn marks(ending: &Ending) -> Vec<String> {
    let marks = &ending.marks;
    let table = [
        (
            marks.interlaced,
            "are interlaced: the lines of both fields are kept in each frame".into(),
        ),
        (
            marks.not_square,
            "have pixels of another shape, and are not scaled to square ones".into(),
        ),
        (marks.hdr, "are HDR, though the video began without: their colours are wrong".into()),
        (
            marks.wide_gamut,
            format!(
                "have the primaries {}, which are not converted: their colours are less saturated \
                 than in a player",
                marks.primaries
            ),
        ),
    ];
    let met = table.into_iter().filter(|(count, _)| *count > 0);
    met.map(|(count, text)| format!("{count} frames {text}")).collect()
}

type Picture = Result<Payload, BadMessage>;

impl Source for VideoSource {
    fn next_event(&mut self) -> Result<Option<Event>, SourceError> {
        if !self.announced {
            self.announced = true;
            let name = self.path.file_name().unwrap_or(self.path.as_os_str());
            return Ok(Some(Event::Stream(StreamInfo {
                id: 0,
                topic: name.to_string_lossy().into_owned(),
                schema: String::new(),
                messages: None,
                rate: self.rate,
            })));
        }
        if let Some(warning) = self.warnings.pop_front() {
            return Ok(Some(Event::Warning(warning)));
        }
        while !self.ended {
            let (info, payload) = match self.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => {
                    self.end(None);
                    break;
                }
                Err(DecodeError::Read(error)) => return Err(SourceError::io(&self.path, error)),
                Err(failure) => {
                    self.end(Some(&failure));
                    break;
                }
            };
            let number = self.frames;
            self.frames += 1;
            let (header_ns, log_ns) = self.time(&info, number);
            if log_ns > *self.window.end() {
                // Dropping the source ends FFmpeg.
                self.stop();
            } else if self.window.contains(&log_ns) {
                let message = None;
                let packet = Packet {
                    stream: 0,
                    number,
                    log_ns,
                    header_ns,
                    frame_id: None,
                    payload,
                    message,
                };
                return Ok(Some(Event::Packet(packet)));
            }
        }
        Ok(self.warnings.pop_front().map(Event::Warning))
    }

    fn other_topics(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
