//! The expected contents of a folder of recordings, from its `expected.json`.

use std::{collections::BTreeMap, fs, path::Path};

use serde::Deserialize;

use crate::process::Result;

/// The whole file.
#[derive(Deserialize)]
pub struct Expected {
    pub files: Vec<Recording>,
}

/// One recording.
#[derive(Deserialize)]
pub struct Recording {
    /// Path below the folder.
    pub file: String,
    pub outcome: Outcome,
    /// The camera topics.
    pub streams: Vec<Topic>,
}

/// The expected result of a conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Everything converts.
    Ok,
    /// Readable frames are converted, and losses are reported.
    OkWithWarnings,
    /// Nothing can be converted.
    Error,
    /// Several results are correct; the videos must be complete.
    Policy,
}

impl Outcome {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::OkWithWarnings => "ok with warnings",
            Self::Error => "error",
            Self::Policy => "policy",
        }
    }
}

/// The expected contents of a camera topic.
#[derive(Default, Deserialize)]
pub struct Topic {
    /// The topic; `-` if the source has no topics.
    pub topic: String,
    /// Number of messages, including broken messages.
    pub messages: usize,
    /// Number of frames that can be decoded.
    pub usable_frames: usize,
    /// Width and height, as `640x480`; more than one where they change.
    #[serde(default)]
    pub sizes: Vec<String>,
    /// Pixel format or encoding.
    #[serde(default)]
    pub encodings: Vec<String>,
    /// The number in the bar code of each usable frame, in the order of log times.
    #[serde(default)]
    pub bars_by_log: Vec<Option<u32>>,
    /// The same in the order of header stamps, if it differs.
    #[serde(default)]
    pub bars_by_stamp: Option<Vec<Option<u32>>>,
    /// Mean red, green and blue below the bar code, by the index of a usable frame.
    #[serde(default)]
    pub mean_rgb: BTreeMap<usize, Option<[f64; 3]>>,
}

impl Topic {
    /// Whether some frame of the topic cannot be decoded.
    pub fn has_bad_frames(&self) -> bool {
        self.usable_frames < self.messages
    }
}

/// Reads `expected.json` of a folder.
///
/// # Errors
/// When it is missing or has another shape.
pub fn read(dir: &Path) -> Result<Vec<Recording>> {
    let path = dir.join("expected.json");
    let bytes = fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let expected: Expected =
        serde_json::from_slice(&bytes).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(expected.files)
}
