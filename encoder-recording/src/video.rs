//! Reads any video file, decoded by an FFmpeg child process: [`VideoDecoder`].

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use encoder_core::{EncoderType, FrameRate};
use encoder_ffmpeg::{DecodeError, Ffmpeg, PictureInfo, VideoDecoder};

use super::filter::Window;
use super::{
    BadMessage, Event, Limits, Packet, Payload, RawImage, Source, SourceError, SourceOptions,
    StreamInfo, Warning,
};

/// The name of this reader in errors about FFmpeg.
const READER: EncoderType = EncoderType::new("video-file");

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
    /// Number of frames so far.
    frames: u64,
    /// Time of the first frame and of the last one, in nanoseconds.
    origin: Option<i64>,
    last: i64,
    ended: bool,
}

impl VideoSource {
    /// Opens a file and waits for its first picture. The first video stream is read, upright
    /// (rotation in the file is applied). A bare elementary stream has `options.rate`, or 30.
    ///
    /// # Errors
    /// [`SourceError`] when FFmpeg is missing or decodes no picture of the file.
    pub(crate) fn open(
        path: &Path,
        options: &SourceOptions,
    ) -> Result<Box<dyn Source>, SourceError> {
        std::fs::File::open(path).map_err(|e| SourceError::io(path, e))?;
        let ffmpeg = Ffmpeg::find(READER).map_err(|refusal| {
            SourceError::invalid(
                path,
                format!("a video file needs FFmpeg to be read: {}", refusal.reason),
                "install FFmpeg 4.4 or later, or set ENCODER_FFMPEG to its path",
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
            error => SourceError::invalid(path, error.to_string(), "check that it is a video file"),
        })?;
        let rate = (!decoder.has_times()).then(|| options.rate.unwrap_or_default());
        Ok(Box::new(Self {
            path: path.into(),
            decoder,
            limits: options.limits,
            window: Window::new(options).bounds(0),
            rate,
            announced: false,
            frames: 0,
            origin: None,
            last: 0,
            ended: false,
        }))
    }

    /// The end of the video, after an error or the last picture; returns a warning unless the video
    /// is complete.
    fn end(&mut self, failure: Option<&DecodeError>) -> Option<Event> {
        self.ended = true;
        let ending = self.decoder.finish();
        let (exit, log) = (ending.exit, ending.log);
        let text = match failure {
            Some(failure) => {
                format!("frame {}: {failure}; FFmpeg ended with {exit}: {log}", self.frames)
            }
            None if !exit.is_success() => format!("FFmpeg ended with {exit}: {log}"),
            None if ending.has_more_samples => {
                "FFmpeg wrote more pictures than it reported times of: frames may be missing or at \
                 wrong times"
                    .into()
            }
            None if ending.errors > 0 => format!(
                "the video is damaged: FFmpeg reported {} errors, the first is: {}; frames may be \
                 missing or broken",
                ending.errors, ending.first_error
            ),
            None => return None,
        };
        Some(Event::Warning(Warning { text, loss: true }))
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

    /// The display time of a frame, relative to the first frame.
    fn time(&mut self, info: &PictureInfo, number: u64) -> i64 {
        let shown = |rate: FrameRate, n| i64::try_from(rate.nanoseconds(n)).unwrap_or(i64::MAX);
        if let Some(rate) = self.rate {
            return shown(rate, number);
        }
        let next = self.last.saturating_add(shown(FrameRate::default(), 1));
        let time = match (info.time_ns, number) {
            (Some(time), _) => time.saturating_sub(*self.origin.get_or_insert(time)),
            (None, 0) => 0,
            (None, _) => next,
        };
        self.last = time;
        time
    }

    /// The next frame; `None` at the end of the video.
    fn next_frame(&mut self) -> Result<Option<(PictureInfo, Picture)>, DecodeError> {
        let Some(info) = self.decoder.next_picture()? else { return Ok(None) };
        let picture = self.picture(&info)?;
        Ok(Some((info, picture)))
    }
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
        while !self.ended {
            let (info, payload) = match self.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok(self.end(None)),
                Err(DecodeError::Read(error)) => return Err(SourceError::io(&self.path, error)),
                Err(failure) => return Ok(self.end(Some(&failure))),
            };
            let number = self.frames;
            self.frames += 1;
            let log_ns = self.time(&info, number);
            if log_ns > *self.window.end() {
                // Dropping the source ends FFmpeg.
                self.ended = true;
            } else if self.window.contains(&log_ns) {
                let header_ns = Some(log_ns);
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
        Ok(None)
    }

    fn other_topics(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::process::Command;

    use super::*;

    fn ffmpeg(arguments: &[&str], output: &Path) {
        let status = Command::new("ffmpeg")
            .args(["-hide_banner", "-loglevel", "error", "-nostdin", "-y"])
            .args(arguments)
            .arg(output)
            .status()
            .expect("these tests need ffmpeg on the PATH");
        assert!(status.success(), "{arguments:?}");
    }

    /// Time, width, height, first sample.
    type Shown = (i64, u32, u32, u8);

    fn read(path: &Path, options: &SourceOptions) -> (Vec<Shown>, Vec<Warning>) {
        let mut source = VideoSource::open(path, options).unwrap();
        assert!(matches!(source.next_event().unwrap(), Some(Event::Stream(_))));
        let (mut frames, mut warnings) = (Vec::new(), Vec::new());
        while let Some(event) = source.next_event().unwrap() {
            match event {
                Event::Packet(packet) => {
                    let Ok(Payload::Raw(image)) = packet.payload else { panic!() };
                    frames.push((packet.log_ns, image.width, image.height, image.data[0]));
                }
                Event::Warning(warning) => warnings.push(warning),
                other => panic!("{other:?}"),
            }
        }
        (frames, warnings)
    }

    #[test]
    fn variable_rate_keeps_its_times() {
        let directory = tempfile::tempdir().unwrap();
        // A name that looks like an option and like a protocol.
        let path = directory.path().join("-x:y %d.mp4");
        // Frames 0, 1, 2, 4, 6, 8: two rates in one file.
        let select = "select='lt(n,3)+not(mod(n,2))'";
        let lavfi = ["-f", "lavfi", "-i", "testsrc=size=97x65:rate=10:duration=1", "-vf", select];
        ffmpeg(&[&lavfi[..], &["-fps_mode", "passthrough", "-c:v", "mpeg4"]].concat(), &path);
        let (frames, warnings) = read(&path, &SourceOptions::default());
        let times: Vec<_> = frames.iter().map(|f| f.0 / 100_000_000).collect();
        assert_eq!(times, [0, 1, 2, 4, 6, 8]);
        assert!(frames.iter().all(|f| (f.1, f.2) == (97, 65)));
        assert_eq!(warnings, []);

        use crate::Moment::FromStart;
        let window = SourceOptions {
            start: Some(FromStart(150_000_000)),
            end: Some(FromStart(650_000_000)),
            ..Default::default()
        };
        assert_eq!(read(&path, &window).0.len(), 3);
    }

    #[test]
    fn full_range_and_bt709_become_limited_bt601() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("colour.mkv");
        // Luma of red is 63 by BT.709 and 81 by BT.601.
        let table = [
            ("white", "scale=out_range=pc,format=yuvj420p", 235u8),
            ("red", "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p", 81),
        ];
        for (colour, filter, luma) in table {
            let lavfi = format!("color={colour}:size=64x48:rate=5:duration=1");
            let matrix = if colour == "red" { "bt709" } else { "smpte170m" };
            let tags = ["-vf", filter, "-colorspace", matrix, "-c:v", "ffv1"];
            ffmpeg(&[&["-f", "lavfi", "-i", &lavfi], &tags[..]].concat(), &path);
            let (frames, _) = read(&path, &SourceOptions::default());
            assert_eq!(frames.len(), 5);
            assert!(frames.iter().all(|f| f.3.abs_diff(luma) <= 2), "{colour} {frames:?}");
        }
    }

    #[test]
    fn an_elementary_stream_has_the_rate_that_is_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.m4v");
        let source = ["-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=1"];
        ffmpeg(&[&source[..], &["-c:v", "mpeg4", "-f", "m4v"]].concat(), &path);
        let rate = Some("20".parse().unwrap());
        let (frames, _) = read(&path, &SourceOptions { rate, ..Default::default() });
        let times: Vec<_> = frames.iter().map(|f| f.0).collect();
        assert_eq!(times, (0..10).map(|n| n * 50_000_000).collect::<Vec<_>>());
    }

    #[test]
    fn a_cut_file_warns_of_loss() {
        let directory = tempfile::tempdir().unwrap();
        let (whole, cut) = (directory.path().join("a.avi"), directory.path().join("b.avi"));
        let source = ["-f", "lavfi", "-i", "testsrc2=size=320x240:rate=10:duration=2"];
        ffmpeg(&[&source[..], &["-c:v", "mjpeg"]].concat(), &whole);
        let mut bytes = std::fs::read(&whole).unwrap();
        // Zeros within the pictures: FFmpeg must report errors.
        let middle = bytes.len() / 2;
        bytes[middle..middle + 20_000].fill(0);
        std::fs::write(&cut, &bytes).unwrap();
        let (frames, warnings) = read(&cut, &SourceOptions::default());
        assert!(frames.len() < 21);
        assert!(matches!(warnings.as_slice(), [Warning { loss: true, .. }]), "{warnings:?}");
    }

    /// A program in place of FFmpeg.
    #[cfg(unix)]
    #[test]
    fn a_video_that_breaks_off_is_a_loss_and_a_picture_too_large_is_left_out() {
        use encoder_testbed::scripted::{Script, Step};

        let announce = |n, size| {
            Step::say(format!("[Parsed_showinfo_2 @ 0x5] [info] n:{n} pts:{n} s:{size} i:P"))
        };
        let script = Script::new().encoding([
            announce(0, "16x8"),
            Step::Write(vec![7; 192]),
            announce(1, "32x16"),
            Step::Write(vec![8; 768]),
            announce(2, "16x8"),
            Step::Write(vec![9; 100]),
            Step::say("[mov @ 0x5] [error] the disk is gone"),
            Step::Exit(3),
        ]);
        let scripted = script.lay_down().unwrap();
        let minute = std::time::Duration::from_secs(60);
        let ffmpeg = Ffmpeg::at(scripted.path(), READER, minute).unwrap();
        let limits = Limits { pixels: 128, ..Limits::default() };
        let options = SourceOptions { limits, ..SourceOptions::default() };
        let mut source = VideoSource::open_with(&ffmpeg, Path::new("x"), &options).unwrap();
        let mut next = || source.next_event().unwrap();
        assert!(matches!(next(), Some(Event::Stream(_))));
        let Some(Event::Packet(Packet { payload: Ok(Payload::Raw(image)), .. })) = next() else {
            panic!()
        };
        assert_eq!(image.data, [7; 192].as_slice());
        let Some(Event::Packet(Packet { payload: Err(bad), .. })) = next() else { panic!() };
        assert_eq!(bad.reason, "32x16 pixels are more than the limit");
        let Some(Event::Warning(Warning { text, loss: true })) = next() else { panic!() };
        assert_eq!(
            text,
            "frame 2: the video breaks off after 100 of 192 bytes of a picture; FFmpeg ended with \
             exit status 3: [mov] [error] the disk is gone"
        );
        assert!(next().is_none());
    }

    #[test]
    fn errors_have_the_cause_and_a_hint() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.mp4");
        let options = SourceOptions::default();
        let error = VideoSource::open(&path, &options).err().unwrap();
        assert!(matches!(error, SourceError::Io { .. }));
        std::fs::write(&path, "no video").unwrap();
        let error = VideoSource::open(&path, &options).err().unwrap().to_string();
        assert!(error.contains("Invalid data"), "{error}");
    }
}
