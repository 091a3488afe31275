//! `metadata.yaml`.

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
pub(super) struct Metadata {
    #[serde(default)]
    pub(super) storage_identifier: String,
    #[serde(default)]
    pub(super) relative_file_paths: Vec<String>,
    starting_time: Option<StartingTime>,
    #[serde(default)]
    topics_with_message_count: Vec<TopicCount>,
}

#[derive(Debug, Deserialize)]
struct StartingTime {
    nanoseconds_since_epoch: i64,
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
    pub(super) fn read(directory: &Path) -> Result<Self, String> {
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

    /// Number of messages of a topic.
    pub(super) fn messages(&self, topic: &str) -> Option<u64> {
        let mut topics = self.topics_with_message_count.iter();
        topics.find(|t| t.topic_metadata.name == topic).map(|t| t.message_count)
    }
}
