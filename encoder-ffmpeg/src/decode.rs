//! Decodes video files in an FFmpeg child.
//!
//! FFmpeg writes the pictures to its stdout, and with its filter `showinfo` the size and the time
//! of each picture to its stderr; both are put together here. Times stay fractions of the file's
//! own time base until they become nanoseconds.

use std::{
    ffi::OsString,
    io::{self, Read},
    path::{Path, PathBuf},
    process::ChildStdout,
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use thiserror::Error;

use crate::{
    decode_log::{LogEvent, LogReader, Marks, PictureInfo, SharedLog, Totals},
    decode_stream::{Hdr, VideoStream},
    find::Ffmpeg,
    process::{Child, Exit},
    sys,
    version::Version,
};

/// A decoder without output for this long is killed. Long, because FFmpeg may search a damaged file
/// or wait for a slow disk.
pub const DECODE_STALL: Duration = Duration::from_secs(300);

/// How long FFmpeg may have written samples of a picture that it has not reported. It reports a
/// picture before it writes the samples.
const UNREPORTED: Duration = Duration::from_secs(10);

/// How long FFmpeg may take to end when its output has ended.
const GRACE: Duration = Duration::from_secs(10);

/// A failure to decode.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// FFmpeg does not start.
    #[error("{} does not start: {error}", program.display())]
    Start {
        /// The FFmpeg.
        program: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// The file has no picture that FFmpeg can decode.
    #[error("FFmpeg decodes no picture of it: {log}")]
    NoPicture {
        /// FFmpeg's last messages.
        log: String,
    },
    /// The video has a high dynamic range, and FFmpeg has no filters that reduce it.
    #[error("the video is HDR ({hdr}), and this FFmpeg cannot convert it: {log}")]
    Hdr {
        /// The dynamic range.
        hdr: Hdr,
        /// FFmpeg's last messages, or why it cannot.
        log: String,
    },
    /// FFmpeg's output ended within a picture.
    #[error("the video breaks off after {got} of {expected} bytes of a picture")]
    CutOff {
        /// Bytes of the picture that were received.
        got: u64,
        /// Bytes of the whole picture.
        expected: u64,
    },
    /// FFmpeg was killed because it had no output.
    #[error("FFmpeg gave no output for {} s and was killed", limit.as_secs_f32())]
    Stalled {
        /// How long FFmpeg had no output.
        limit: Duration,
    },
    /// FFmpeg wrote samples of a picture without reporting the picture, and was killed.
    #[error("FFmpeg wrote samples of a picture that it did not report, and was killed")]
    Unreported,
    /// The system cannot read FFmpeg's output.
    #[error("FFmpeg's output cannot be read: {0}")]
    Read(io::Error),
}

/// How a decode ended: [`VideoDecoder::finish`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Ending {
    /// How FFmpeg ended.
    pub exit: Exit,
    /// How many errors, concealed errors and corrupt packets FFmpeg reported. If there are any,
    /// pictures may be missing or broken.
    pub errors: u64,
    /// The first of them; empty where there is none, or FFmpeg reports only how many there are.
    pub first_error: String,
    /// FFmpeg's last messages.
    pub log: String,
    /// Whether FFmpeg wrote more samples than it reported pictures: then a picture may have the
    /// time of another.
    pub has_more_samples: bool,
    /// What FFmpeg read and decoded; `None` if it did not report it.
    pub totals: Option<Totals>,
    /// Marks of the pictures that the conversion does not heed.
    pub marks: Marks,
}

/// A video file that is being decoded. FFmpeg is killed when this is dropped.
#[derive(Debug)]
pub struct VideoDecoder {
    child: Child,
    samples: ChildStdout,
    /// The queue needs no bound: FFmpeg reports a picture before it writes the samples, and waits
    /// while the pipe of the samples is full, so the queue holds no more pictures than the pipe.
    events: Receiver<LogEvent>,
    log: SharedLog,
    stall: Duration,
    stream: VideoStream,
    /// The first picture, which shows that there is a video at all.
    first: Option<PictureInfo>,
    /// All events have been taken.
    events_ended: bool,
}

impl VideoDecoder {
    /// Opens a file and waits for its first picture. The first video stream is decoded, upright
    /// (rotation in the file is applied), with square pixels, and in the standard dynamic range.
    /// FFmpeg may open no network address that the file names.
    ///
    /// # Errors
    /// [`DecodeError`] when FFmpeg does not start, decodes no picture, or has no output for
    /// [`DECODE_STALL`].
    pub fn open(ffmpeg: &Ffmpeg, file: &Path) -> Result<Self, DecodeError> {
        Self::open_within(ffmpeg, file, DECODE_STALL)
    }

    /// As [`open`](Self::open), with the caller's limit instead of [`DECODE_STALL`].
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_within(ffmpeg: &Ffmpeg, file: &Path, stall: Duration) -> Result<Self, DecodeError> {
        let mut decoder = Self::start(ffmpeg, file, stall, &VideoStream::default())?;
        if decoder.first_picture(None)? {
            return Ok(decoder);
        }
        // The stream needs other filters.
        let stream = decoder.stream.clone();
        drop(decoder);
        let mut decoder = Self::start(ffmpeg, file, stall, &stream)?;
        decoder.first_picture(stream.hdr)?;
        Ok(decoder)
    }

    /// Starts FFmpeg, with the filters that `stream` needs.
    fn start(
        ffmpeg: &Ffmpeg,
        file: &Path,
        stall: Duration,
        stream: &VideoStream,
    ) -> Result<Self, DecodeError> {
        let mut url = OsString::from("file:");
        url.push(file);
        let mut command = ffmpeg.command();
        command
            // At the level `verbose`, FFmpeg reports how many packets it read.
            .args(["-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+verbose"])
            // Without it, FFmpeg takes long pauses out, and drops the times behind a gap of 30 hours.
            .arg("-copyts")
            // A playlist must not reach the network.
            .args(["-protocol_whitelist", "file", "-i"])
            .arg(url)
            .args(["-map", "0:V:0", "-vf", &stream.filters()])
            .args([Version::passthrough(ffmpeg.version), "passthrough"])
            // Without it, pictures of another size are scaled to the size of the first.
            .arg("-noautoscale")
            .args(["-f", "rawvideo", "-pix_fmt", "yuv420p", "pipe:1"]);
        let (sender, events) = channel();
        let log = SharedLog::default();
        let mut reader = LogReader::new(sender, log.clone());
        let (child, stdin, samples) = Child::spawn(command, move |bytes| reader.push(bytes))
            .map_err(|error| DecodeError::Start { program: ffmpeg.path.clone(), error })?;
        drop(stdin);
        sys::enlarge_pipe(&samples);
        let stream = VideoStream::default();
        let (first, events_ended) = (None, false);
        Ok(Self { child, samples, events, log, stall, stream, first, events_ended })
    }

    /// Waits for the first picture. Returns false, before there is a picture, if the stream needs
    /// other filters than those for the dynamic range `expected`.
    fn first_picture(&mut self, expected: Option<Hdr>) -> Result<bool, DecodeError> {
        while let Some(event) = self.next_event()? {
            match event {
                LogEvent::Stream(stream) => {
                    let rate = self.stream.rate.take();
                    self.stream = stream;
                    self.stream.rate = rate;
                    match self.stream.hdr {
                        Some(hdr @ Hdr::DolbyVision) => {
                            let log = "its colours are defined by Dolby alone".into();
                            return Err(DecodeError::Hdr { hdr, log });
                        }
                        hdr if hdr != expected => return Ok(false),
                        _ => {}
                    }
                }
                LogEvent::Rate(rate) => self.stream.rate = Some(rate),
                LogEvent::Picture(picture) => {
                    self.first = Some(picture);
                    return Ok(true);
                }
            }
        }
        let log = self.finish().log;
        Err(match expected {
            Some(hdr) => DecodeError::Hdr { hdr, log },
            None => DecodeError::NoPicture { log },
        })
    }

    /// The stream that is decoded.
    pub fn stream(&self) -> &VideoStream {
        &self.stream
    }

    /// Size and time of the next picture; `None` at the end of the video. Its samples must be
    /// [read](Self::read) or [skipped](Self::skip) before the next call.
    ///
    /// # Errors
    /// [`DecodeError::Stalled`].
    pub fn next_picture(&mut self) -> Result<Option<PictureInfo>, DecodeError> {
        if let Some(picture) = self.first.take() {
            return Ok(Some(picture));
        }
        while let Some(event) = self.next_event()? {
            if let LogEvent::Picture(picture) = event {
                return Ok(Some(picture));
            }
        }
        Ok(None)
    }

    /// The samples of `picture`, the last one that [`next_picture`](Self::next_picture) returned.
    ///
    /// # Errors
    /// [`DecodeError::CutOff`], [`DecodeError::Stalled`], [`DecodeError::Read`].
    pub fn read(&mut self, picture: &PictureInfo) -> Result<Vec<u8>, DecodeError> {
        /// The first allocation is at most this large: the size is FFmpeg's claim, so memory grows
        /// only with the samples that arrive.
        const FIRST: u64 = 16 << 20;
        let expected = picture.bytes();
        let mut samples = Vec::new();
        let mut limited = sys::LimitedStdout { pipe: &mut self.samples, stall: self.stall };
        samples.reserve_exact(usize::try_from(expected.min(FIRST)).unwrap_or_default());
        let read = (&mut limited).take(expected).read_to_end(&mut samples);
        self.check(read.map(|_| samples.len() as u64), expected)?;
        Ok(samples)
    }

    /// Skips the samples of `picture`, the last one that [`next_picture`](Self::next_picture)
    /// returned.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn skip(&mut self, picture: &PictureInfo) -> Result<(), DecodeError> {
        let expected = picture.bytes();
        let mut limited = sys::LimitedStdout { pipe: &mut self.samples, stall: self.stall };
        let skipped = io::copy(&mut (&mut limited).take(expected), &mut io::sink());
        self.check(skipped, expected)
    }

    fn check(&mut self, read: io::Result<u64>, expected: u64) -> Result<(), DecodeError> {
        match read {
            Ok(got) if got == expected => Ok(()),
            Ok(got) => Err(DecodeError::CutOff { got, expected }),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(self.stalled()),
            Err(error) => Err(DecodeError::Read(error)),
        }
    }

    fn stalled(&mut self) -> DecodeError {
        self.child.kill();
        DecodeError::Stalled { limit: self.stall }
    }

    fn next_event(&mut self) -> Result<Option<LogEvent>, DecodeError> {
        let begun = Instant::now();
        loop {
            // A log line counts as output too.
            let last_byte = self.log.lock().last_byte.max(begun);
            let left = self.stall.saturating_sub(last_byte.elapsed());
            match self.events.recv_timeout(left.min(UNREPORTED)) {
                Ok(event) => return Ok(Some(event)),
                Err(RecvTimeoutError::Disconnected) => {
                    self.events_ended = true;
                    return Ok(None);
                }
                Err(RecvTimeoutError::Timeout) if left.is_zero() => return Err(self.stalled()),
                Err(RecvTimeoutError::Timeout)
                    if left > UNREPORTED && sys::has_output(&self.samples) =>
                {
                    self.child.kill();
                    return Err(DecodeError::Unreported);
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Waits until FFmpeg has ended: at the end of the video, or after an error.
    pub fn finish(&mut self) -> Ending {
        let has_more_samples = self.events_ended && {
            let mut limited = sys::LimitedStdout { pipe: &mut self.samples, stall: GRACE };
            matches!(limited.read(&mut [0]), Ok(1))
        };
        let exit = match self.child.wait(GRACE) {
            Some(exit) => exit,
            None => self.child.kill(),
        };
        let log = self.log.lock();
        let totals = log.totals;
        Ending {
            exit,
            errors: log.errors.max(totals.map_or(0, |totals| totals.errors)),
            first_error: log.first_error.clone(),
            log: log.summary(),
            has_more_samples,
            totals,
            marks: log.marks.clone(),
        }
    }
}
