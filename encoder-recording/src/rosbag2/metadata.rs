//! `metadata.yaml`.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use super::files::{self, Refused};
use crate::signature::ROSBAG2_METADATA as NAME;

/// The most bytes of the file; a longer file is not read.
const MAX_BYTES: u64 = 16 << 20;

/// The fields of `metadata.yaml` that are needed to read the recording.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Metadata {
    #[serde(default)]
    pub(super) storage_identifier: String,
    #[serde(default)]
    pub(super) relative_file_paths: Vec<String>,
    starting_time: Option<StartingTime>,
    duration: Option<Length>,
    /// Newer recorders also describe each file.
    #[serde(default)]
    files: Vec<FileTimes>,
    #[serde(default)]
    topics_with_message_count: Vec<TopicCount>,
}

#[derive(Debug, Deserialize)]
struct StartingTime {
    nanoseconds_since_epoch: i64,
}

#[derive(Debug, Deserialize)]
struct Length {
    nanoseconds: i64,
}

#[derive(Debug, Deserialize)]
struct FileTimes {
    path: String,
    starting_time: Option<StartingTime>,
    duration: Option<Length>,
}

#[derive(Debug, Deserialize)]
struct TopicCount {
    message_count: u64,
    topic_metadata: TopicName,
}

#[derive(Debug, Deserialize)]
struct TopicName {
    name: String,
}

impl Metadata {
    /// Reads the description of the recording in `directory`. The error describes what is wrong
    /// with the file.
    pub(crate) fn read(directory: &Path) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Document {
            rosbag2_bagfile_information: Metadata,
        }
        let path = match files::inside(directory, Path::new(NAME)) {
            Ok(file) => file.path,
            Err(Refused::Missing) => return Err("is missing".into()),
            Err(refused) => return Err(refused.to_string()),
        };
        let mut text = String::new();
        let read = File::open(&path).and_then(|file| {
            let len = file.metadata()?.len();
            file.take(MAX_BYTES).read_to_string(&mut text)?;
            Ok(len)
        });
        match read {
            Err(error) => return Err(format!("cannot be read ({error})")),
            Ok(len) if len > MAX_BYTES => {
                return Err(format!("has {len} bytes, more than the {MAX_BYTES} that are read"));
            }
            Ok(_) => {}
        }
        let document: Document = serde_saphyr::from_str(&text)
            .map_err(|error| format!("cannot be understood ({error})"))?;
        let metadata = document.rosbag2_bagfile_information;
        if metadata.relative_file_paths.is_empty() {
            return Err("lists no files".into());
        }
        Ok(metadata)
    }

    /// The start of the recording, in nanoseconds since the epoch. A recorder without messages
    /// writes the largest possible time.
    pub(super) fn start(&self) -> Option<i64> {
        let start = self.starting_time.as_ref()?.nanoseconds_since_epoch;
        (start != i64::MAX).then_some(start)
    }

    /// Log times of the first and the last message of the recording, if they are known.
    pub(super) fn span(&self) -> Option<(i64, i64)> {
        span(self.starting_time.as_ref(), self.duration.as_ref())
    }

    /// Log times of the first and the last message of a file, if they are known.
    pub(super) fn span_of(&self, path: &Path) -> Option<(i64, i64)> {
        let name = path.file_name()?;
        let file =
            self.files.iter().find(|file| Path::new(&file.path).file_name() == Some(name))?;
        span(file.starting_time.as_ref(), file.duration.as_ref())
    }

    /// Number of messages of each topic.
    pub(super) fn counts(&self) -> HashMap<String, u64> {
        let topics = self.topics_with_message_count.iter();
        topics.map(|topic| (topic.topic_metadata.name.clone(), topic.message_count)).collect()
    }

    /// Whether the recording may have a topic. Without a list of topics, it may have any.
    pub(super) fn has_topic(&self, name: &str) -> bool {
        let mut topics = self.topics_with_message_count.iter();
        self.topics_with_message_count.is_empty()
            || topics.any(|topic| topic.topic_metadata.name == name)
    }
}

/// First and last time; `None` where a recorder without messages wrote the largest possible time.
fn span(start: Option<&StartingTime>, length: Option<&Length>) -> Option<(i64, i64)> {
    let start = start?.nanoseconds_since_epoch;
    let length = length?.nanoseconds;
    (start != i64::MAX && length >= 0).then(|| (start, start.saturating_add(length)))
}
