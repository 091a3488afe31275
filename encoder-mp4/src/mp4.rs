use std::{
    io::Write,
    path::{Path, PathBuf},
    time::Instant,
};

use encoder_core::{EncoderConfig, FrameRate};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::{
    AccessUnit, Finished, Location, OutputFile, PartError, Sink, SinkError,
    fragment::{FragmentLength, Fragmenter},
    fragment_reader::FragmentReader,
    output::{check_free, sync_directory, temporary},
    part_file::PartFile,
    progressive,
    record::Head,
    segment::Segment,
};
use encoder_media::timeline::{self, Clock, Timeline, Timing};

/// The layout of an MP4 file while it is written and when it is finished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum OutputMode {
    /// Written as `NAME.mp4.part`. Finishing it writes a second file with the index at the front,
    /// under the final name.
    #[default]
    Progressive,
    /// A fragmented file under its final name, which is playable while it grows.
    Fragmented,
}

encoder_core::names! {
    OutputMode, "output mode":
    Progressive = "progressive",
    Fragmented = "fragmented",
}

/// Options of an MP4 file.
#[derive(Clone, Copy, Debug)]
pub struct Mp4Options {
    /// Replace an existing file.
    pub overwrite: bool,
    /// Layout of the file.
    pub mode: OutputMode,
    /// How the display times of frames are chosen.
    pub timing: Timing,
    /// Used for the duration of a single frame.
    pub rate: FrameRate,
    /// How many frames ahead of its display a picture may be decoded.
    pub reorder: u32,
}

impl Mp4Options {
    /// A progressive file for the stream of this encoder configuration. An existing file is not
    /// replaced.
    pub fn new(timing: Timing, encoder: &EncoderConfig) -> Self {
        Self {
            timing,
            rate: encoder.frame_rate,
            reorder: timeline::reorder(encoder.b_frames),
            ..Self::default()
        }
    }
}

impl Default for Mp4Options {
    /// A progressive file at the recorded times, without B-frames. An existing file is not
    /// replaced.
    fn default() -> Self {
        Self {
            overwrite: false,
            mode: OutputMode::default(),
            timing: Timing::Recorded(Clock::default()),
            rate: FrameRate::default(),
            reorder: 0,
        }
    }
}

/// Writes one H.264 track as MP4.
///
/// The first picture is displayed at 0. A finished progressive file has exactly the times and the
/// timescale of the [`Timeline`].
pub struct Mp4Sink {
    path: PathBuf,
    overwrite: bool,
    mode: OutputMode,
    fragmenter: Fragmenter,
    state: FileState,
    /// The last write was incomplete: nothing may be appended after it.
    is_broken: bool,
}

/// The file that the fragments are appended to.
enum FileState {
    /// A fragmented file before its first fragment: it is renamed to its final name when it is
    /// playable. `None` after the renaming failed.
    Hidden(Option<NamedTempFile>),
    Visible(PartFile),
}

impl Mp4Sink {
    /// Begins a file.
    ///
    /// # Errors
    /// When `path` exists and may not be overwritten, or nothing can be written there.
    pub fn create(path: &Path, options: &Mp4Options) -> Result<Self, SinkError> {
        let Mp4Options { overwrite, mode, timing, rate, reorder } = *options;
        check_free(path, overwrite)?;
        let state = match mode {
            OutputMode::Progressive => FileState::Visible(PartFile::beside(path)?),
            OutputMode::Fragmented => {
                FileState::Hidden(Some(temporary(path).map_err(SinkError::io(path))?))
            }
        };
        let fragmenter = Fragmenter::new(Head { timing, rate, reorder }, FragmentLength::default());
        Ok(Self { path: path.into(), overwrite, mode, fragmenter, state, is_broken: false })
    }

    fn stream_error(&self, reason: impl Into<String>) -> SinkError {
        SinkError::stream(&self.path, reason)
    }

    /// Appends segments in one write.
    fn append(&mut self, segments: Vec<Segment>, now: Instant) -> Result<(), SinkError> {
        let mut segments = segments.into_iter().map(Segment::into_data);
        let Some(mut piece) = segments.next() else { return Ok(()) };
        segments.for_each(|more| piece.extend_from_slice(&more));
        let io_error = SinkError::io(&self.path);
        match &mut self.state {
            FileState::Visible(file) => {
                file.append(&piece, now).map_err(SinkError::io(file.path()))?;
            }
            FileState::Hidden(file) => {
                let Some(mut file) = file.take() else {
                    return Err(self.stream_error("the file could not be given its name"));
                };
                let written = file.write_all(&piece).and_then(|()| file.as_file().sync_data());
                written.map_err(&io_error)?;
                let named = if self.overwrite {
                    file.persist(&self.path)
                } else {
                    file.persist_noclobber(&self.path)
                };
                let file = named.map_err(|e| io_error(e.error))?;
                sync_directory(&self.path);
                let length = piece.len() as u64;
                self.state = FileState::Visible(PartFile::new(file, self.path.clone(), length));
            }
        }
        Ok(())
    }

    /// Writes the last fragment, and the progressive file.
    fn complete(&mut self, timeline: &Timeline) -> Result<(), SinkError> {
        let last = self.fragmenter.finish().map_err(|text| self.stream_error(text))?;
        self.is_broken = true;
        self.append(last, Instant::now())?;
        self.is_broken = false;
        let (FileState::Visible(part), OutputMode::Progressive) = (&self.state, self.mode) else {
            return Ok(());
        };
        let io_error = SinkError::io(&self.path);
        let mut output = OutputFile::create(&self.path, self.overwrite)?;
        let mut fragments = FragmentReader::open(part.file()).map_err(|e| match e {
            PartError::Io(e) => io_error(e),
            other => self.stream_error(format!("{}: {other}", part.path().display())),
        })?;
        let frames =
            progressive::write(&mut fragments, timeline, &mut output).map_err(&io_error)?;
        if frames != self.fragmenter.frames() {
            let all = self.fragmenter.frames();
            return Err(self.stream_error(format!("{frames} of {all} frames were read back")));
        }
        output.commit().map(drop)
    }
}

impl Sink for Mp4Sink {
    fn write(&mut self, unit: AccessUnit) -> Result<(), SinkError> {
        if self.is_broken {
            return Err(self.stream_error("nothing more can be written behind an error"));
        }
        let now = Instant::now();
        // Set until both steps have returned: after a panic in either step, nothing may be
        // appended.
        self.is_broken = true;
        match self.fragmenter.push(&unit.chunk, &unit.times, now) {
            Ok(segments) => self.append(segments, now)?,
            Err(text) => {
                self.is_broken = false;
                return Err(self.stream_error(text));
            }
        }
        self.is_broken = false;
        Ok(())
    }

    fn finish(mut self: Box<Self>, timeline: &Timeline) -> Result<Finished, SinkError> {
        if self.fragmenter.is_empty() {
            return Err(self.stream_error("no picture to write"));
        }
        if let Err(error) = self.complete(timeline) {
            return Err(match self.abandon() {
                Some(kept) => error.kept(kept),
                None => error,
            });
        }
        let Self { path, mode, fragmenter, state, .. } = *self;
        let finished = Finished::at(path);
        Ok(match (mode, state) {
            (OutputMode::Fragmented, FileState::Visible(file)) => {
                file.keep();
                let (warnings, guessed) = fragmenter.judgement(timeline);
                finished.with_warnings(warnings).with_guessed_times(guessed)
            }
            (_, FileState::Visible(part)) => finished.with_warnings(part.warning()),
            _ => finished,
        })
    }

    fn abandon(mut self: Box<Self>) -> Option<Location> {
        if !self.is_broken {
            // The earlier fragments are kept, whether this fragment can be written or not.
            if let Ok(last) = self.fragmenter.finish() {
                let _ = self.append(last, Instant::now());
            }
        }
        match self.state {
            FileState::Visible(file) => file.keep().map(Location::from),
            FileState::Hidden(_) => None,
        }
    }

    fn part_file(&self) -> Option<&Path> {
        match &self.state {
            FileState::Visible(file) if !file.is_empty() => Some(file.path()),
            _ => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_comes_back_from_its_text() {
        for (mode, text) in OutputMode::ALL.iter().zip(["progressive", "fragmented"]) {
            assert_eq!(mode.to_string(), text);
            assert_eq!(text.parse(), Ok(*mode));
            assert_eq!(serde_json::to_value(mode).unwrap(), text);
            assert_eq!(serde_json::from_value::<OutputMode>(text.into()).unwrap(), *mode);
        }
        let error = "whole".parse::<OutputMode>().unwrap_err().to_string();
        assert_eq!(error, "output mode = whole: not allowed; allowed is progressive, fragmented");
    }
}
