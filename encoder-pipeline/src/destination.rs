//! Where the videos of a run go: a [`Destination`]. [`FileDestination`] writes files;
//! `docs/add-a-destination.md` shows how to write another one.

use std::{ffi::OsStr, path::Path};

use encoder_media::Event;
pub use encoder_media::{Destination, Location, PartInfo};
use tracing::debug;

use crate::{
    mux::{
        AnnexBSink, Finished, Leftover, LeftoverContent, Mp4Options, Mp4Sink, OutputMode, Sink,
        SinkError,
    },
    naming::{Format, Names, Target},
};

/// Files: one per video in a directory, named after its topic, or a single file for one camera.
pub struct FileDestination {
    target: Target,
    names: Names,
    overwrite: bool,
    mode: OutputMode,
    /// The topic of the single file.
    topic: Option<String>,
    /// All camera topics that the recording has named so far.
    topics: Vec<String>,
}

impl FileDestination {
    /// MP4 files in a directory, or the file of `target` in the format of its extension. Files that
    /// exist are not replaced.
    pub fn new(target: Target) -> Self {
        Self {
            names: Names::new(target.clone(), Format::default()),
            target,
            overwrite: false,
            mode: OutputMode::default(),
            topic: None,
            topics: Vec::new(),
        }
    }

    /// The format of the files in a directory. The format of a single file is that of its
    /// extension.
    #[must_use]
    pub fn format(mut self, format: Format) -> Self {
        self.names = Names::new(self.target.clone(), format);
        self
    }

    /// Whether files that exist are replaced.
    #[must_use]
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.overwrite = overwrite;
        self
    }

    /// The layout of an MP4 file while it is written, and when it is complete.
    #[must_use]
    pub fn mode(mut self, mode: OutputMode) -> Self {
        self.mode = mode;
        self
    }

    /// Warnings about files of runs that were cut off: in the directory, or of the single file.
    fn leftovers(&self) -> Vec<String> {
        let directory = self.target.directory();
        let mut found = Leftover::find(directory).unwrap_or_default();
        if let Target::File(file) = &self.target {
            found.retain(|leftover| is_video_of(file, &leftover.video()));
        }
        let with = |content| -> Vec<&Path> {
            let all = found.iter().filter(|leftover| leftover.content == content);
            all.map(|leftover| &*leftover.path).collect()
        };
        let frames = with(LeftoverContent::Frames);
        let repaired = match &*frames {
            [one] => one,
            _ => directory,
        };
        let table = [
            (frames, format!("`Recovery::find({})` makes videos of them", repaired.display())),
            (with(LeftoverContent::Stream), "they play as they are; rename them".into()),
            (
                with(LeftoverContent::OtherVersion),
                "another version of this software wrote them, and can repair them".into(),
            ),
            (with(LeftoverContent::Nothing), "they have no frames and may be deleted".into()),
        ];
        let named = table.into_iter().filter(|(paths, _)| !paths.is_empty());
        let text = |(paths, what): (Vec<&Path>, String)| {
            let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
            format!("files of runs that were cut off: {}; {what}", names.join(", "))
        };
        named.map(text).collect()
    }

    /// Refuses a second camera if the target is a single file.
    fn check_camera(&mut self, topic: &str) -> Result<(), SinkError> {
        let Target::File(file) = &self.target else { return Ok(()) };
        let first = self.topic.get_or_insert_with(|| topic.to_owned());
        if first == topic {
            return Ok(());
        }
        let mut topics = vec![first.as_str(), topic];
        let others = self.topics.iter().map(String::as_str);
        topics.extend(others.filter(|other| !(*other == first || *other == topic)));
        let reason = format!(
            "the recording has more than one camera topic ({}), and this is one file",
            topics.join(", ")
        );
        Err(SinkError::refused(file, reason))
    }
}

/// Whether a run with the single file `file` also writes `video`: as the file itself, or as a further
/// video of its camera.
fn is_video_of(file: &Path, video: &Path) -> bool {
    let parts = |path: &Path| {
        let part = |part: Option<&OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        (part(path.file_stem()), part(path.extension()))
    };
    let ((stem, extension), (other, of_other)) = (parts(file), parts(video));
    let rest = other.strip_prefix(&stem);
    extension == of_other && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

impl Destination for FileDestination {
    fn begin(&mut self) -> Result<Vec<String>, SinkError> {
        let directory = self.target.directory();
        std::fs::create_dir_all(directory).map_err(SinkError::io(directory))?;
        Ok(self.leftovers())
    }

    fn sink(&mut self, part: &PartInfo<'_>) -> Result<Box<dyn Sink>, SinkError> {
        self.check_camera(&part.stream.topic)?;
        let path = self.names.file_of(&part.stream.topic, part.frame_id, part.number);
        debug!(file = %path.display(), "writing");
        let PartInfo { timing, rate, reorder, .. } = *part;
        let (overwrite, mode) = (self.overwrite, self.mode);
        Ok(match self.names.format() {
            Format::Mp4 => {
                let options = Mp4Options { overwrite, mode, timing, rate, reorder };
                Box::new(Mp4Sink::create(&path, &options)?)
            }
            Format::AnnexB => Box::new(AnnexBSink::create(&path, overwrite)?),
        })
    }

    fn event(&mut self, event: &Event) -> Result<(), SinkError> {
        if let Event::Stream(info) = event {
            self.topics.push(info.topic.clone());
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Finished, SinkError> {
        let at: &Path = match &self.target {
            Target::Directory(directory) => directory,
            Target::File(file) => file,
        };
        Ok(Finished::at(at))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use encoder_core::{EncoderConfig, Resolution};
    use encoder_media::{StreamInfo, timeline::Timing};
    use encoder_testbed::fixtures::entries;

    use super::*;
    use crate::timeline::Clock;

    fn stream(topic: &str) -> StreamInfo {
        let (schema, messages, rate) = (String::new(), None, None);
        StreamInfo { id: 0, topic: topic.into(), schema, messages, rate }
    }

    fn sink(files: &mut FileDestination, topic: &str, number: usize) -> Result<(), SinkError> {
        let (encoder, stream) = (EncoderConfig::default(), stream(topic));
        let timing = Timing::Recorded(Clock::Header);
        let size = Resolution::new(16, 16);
        files.sink(&PartInfo::encoded(&stream, number, size, timing, &encoder)).map(drop)
    }

    #[test]
    fn a_single_file_takes_the_parts_of_one_camera() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("new/a.mp4");
        let mut files = FileDestination::new(Target::of(&file));
        files.begin().unwrap();
        sink(&mut files, "/left", 1).unwrap();
        sink(&mut files, "/left", 2).unwrap();
        for topic in ["/rear", "/left", "/right", "/top"] {
            files.event(&Event::Stream(stream(topic))).unwrap();
        }
        let error = sink(&mut files, "/right", 1).unwrap_err();
        assert!(matches!(error, SinkError::Refused { .. }), "{error}");
        assert!(error.to_string().contains("(/left, /right, /rear, /top)"), "{error}");
        assert_eq!(Box::new(files).finish().unwrap(), Finished::at(&file));

        let mut files = FileDestination::new(Target::of(directory.path()));
        sink(&mut files, "/left", 1).unwrap();
        sink(&mut files, "/right", 1).unwrap();
        // The sinks were dropped.
        assert_eq!(entries(directory.path()), ["new"]);
    }

    #[test]
    fn a_destination_that_cannot_be_made_is_an_error_before_any_video() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        let mut files = FileDestination::new(Target::of(&file.join("below")));
        let error = files.begin().unwrap_err();
        assert!(error.to_string().contains("file/below"), "{error}");
    }
}
