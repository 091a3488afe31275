use std::{
    io::Write,
    path::{Path, PathBuf},
    time::Instant,
};

use encoder_core::{EncodedChunk, EncoderConfig, FrameRate};
use tempfile::NamedTempFile;

use super::{
    Finished, Location, OutputFile, PartError, Sink, SinkError,
    fragment::Fragmenter,
    fragment_reader::FragmentReader,
    output::{check_free, sync_directory, temporary},
    part_file::PartFile,
    progressive,
    record::Head,
};
use encoder_media::timeline::{self, Clock, FrameTimes, Timeline, Timing};

/// What an MP4 file is while it is written, and when it is whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputMode {
    /// Written as `NAME.mp4.part`; when it is whole, the index goes in front and the file gets its
    /// name.
    #[default]
    Progressive,
    /// A fragmented file under its own name, which plays while it grows.
    Fragmented,
}

/// How an MP4 file is written.
#[derive(Clone, Copy, Debug)]
pub struct Mp4Options {
    /// Replace a file that exists.
    pub overwrite: bool,
    /// What the file is while it is written, and when it is whole.
    pub mode: OutputMode,
    /// How the frames are laid out in time.
    pub timing: Timing,
    /// Assumed for the duration of a single frame.
    pub rate: FrameRate,
    /// How many frames a picture may be decoded ahead of its time.
    pub reorder: u32,
}

impl Mp4Options {
    /// A progressive file that replaces none, of a stream as `encoder` describes it.
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
    /// A progressive file that replaces none, at the recorded times, without B-frames.
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
/// Pictures are shown from 0 on, in the finished progressive file at exactly the times of the
/// layout, in its timescale.
pub struct Mp4Sink {
    path: PathBuf,
    overwrite: bool,
    mode: OutputMode,
    fragments: Fragmenter,
    place: FileState,
    /// A piece is missing: nothing may come behind it.
    broken: bool,
}

/// Where the fragments go.
enum FileState {
    /// Under its own name as soon as it plays.
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
        let place = match mode {
            OutputMode::Progressive => FileState::Visible(PartFile::beside(path)?),
            OutputMode::Fragmented => {
                FileState::Hidden(Some(temporary(path).map_err(SinkError::io(path))?))
            }
        };
        let fragments = Fragmenter::new(Head { timing, rate, reorder });
        Ok(Self { path: path.into(), overwrite, mode, fragments, place, broken: false })
    }

    fn wrong(&self, reason: impl Into<String>) -> SinkError {
        SinkError::stream(&self.path, reason)
    }

    fn append(&mut self, piece: &[u8], now: Instant) -> Result<(), SinkError> {
        if piece.is_empty() {
            return Ok(());
        }
        // Good again when the piece is there.
        self.broken = true;
        match &mut self.place {
            FileState::Visible(file) => {
                file.append(piece, now).map_err(SinkError::io(file.path()))?;
            }
            FileState::Hidden(file) => {
                let error = SinkError::io(&self.path);
                let Some(mut file) = file.take() else {
                    return Err(self.wrong("the file could not be given its name"));
                };
                let written = file.write_all(piece).and_then(|()| file.as_file().sync_data());
                written.map_err(&error)?;
                let named = if self.overwrite {
                    file.persist(&self.path)
                } else {
                    file.persist_noclobber(&self.path)
                };
                let file = named.map_err(|e| error(e.error))?;
                sync_directory(&self.path);
                let length = piece.len() as u64;
                self.place = FileState::Visible(PartFile::new(file, self.path.clone(), length));
            }
        }
        self.broken = false;
        Ok(())
    }

    /// Writes what is left, and what the file is to be.
    fn end(&mut self, layout: &Timeline) -> Result<(), SinkError> {
        let rest = self.fragments.finish();
        self.append(&rest, Instant::now())?;
        let (FileState::Visible(part), OutputMode::Progressive) = (&self.place, self.mode) else {
            return Ok(());
        };
        let error = SinkError::io(&self.path);
        let mut output = OutputFile::create(&self.path, self.overwrite)?;
        let mut part = FragmentReader::open(part.file()).map_err(|e| match e {
            PartError::Io(e) => error(e),
            other => self.wrong(format!("{}: {other}", part.path().display())),
        })?;
        let frames = progressive::write(&mut part, layout, &mut output).map_err(&error)?;
        if frames != self.fragments.frames() {
            let all = self.fragments.frames();
            return Err(self.wrong(format!("{frames} of {all} frames came back from the disk")));
        }
        output.commit().map(drop)
    }
}

impl Sink for Mp4Sink {
    fn write(&mut self, chunk: EncodedChunk, times: &FrameTimes) -> Result<(), SinkError> {
        if self.broken {
            return Err(self.wrong("nothing more can be written behind an error"));
        }
        let now = Instant::now();
        let piece = self.fragments.push(&chunk, times, now).map_err(|text| self.wrong(text))?;
        self.append(&piece, now)
    }

    fn finish(mut self: Box<Self>, layout: &Timeline) -> Result<Finished, SinkError> {
        if self.fragments.is_empty() {
            return Err(self.wrong("no picture to write"));
        }
        if let Err(error) = self.end(layout) {
            return Err(match self.abandon() {
                Some(kept) => error.kept(kept),
                None => error,
            });
        }
        let Self { path, mode, fragments, place, .. } = *self;
        let warnings = match (mode, place) {
            (OutputMode::Fragmented, FileState::Visible(file)) => {
                file.keep();
                fragments.warnings()
            }
            _ => Vec::new(),
        };
        Ok(Finished::at(path).with_warnings(warnings))
    }

    fn abandon(mut self: Box<Self>) -> Option<Location> {
        if !self.broken {
            let rest = self.fragments.finish();
            // What is there is worth keeping all the same.
            let _ = self.append(&rest, Instant::now());
        }
        match self.place {
            FileState::Visible(file) => file.keep().map(Location::from),
            FileState::Hidden(_) => None,
        }
    }
}
