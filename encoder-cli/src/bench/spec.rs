//! The specification of one measurement. The program passes it to its child process as text.

use std::{fmt, path::PathBuf, str::FromStr};

/// The kind of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The whole pipeline: from frames as recorded to MP4 files.
    Whole,
    /// The encoder alone, on frames in its format.
    Alone,
    /// The whole pipeline at the rate of the camera, for the latency.
    Live,
    /// The plain `ffmpeg` program, given the same frames by a pipe.
    Ffmpeg,
}

const MODES: [(Mode, &str); 4] = [
    (Mode::Whole, "whole"),
    (Mode::Alone, "alone"),
    (Mode::Live, "live"),
    (Mode::Ffmpeg, "ffmpeg"),
];

/// One measurement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    pub mode: Mode,
    pub encoder: String,
    pub preset: String,
    /// The folder of its files.
    pub folder: PathBuf,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = MODES.iter().find(|(mode, _)| *mode == self.mode).map_or("", |(_, name)| name);
        write!(f, "{mode}:{}:{}:{}", self.encoder, self.preset, self.folder.display())
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no MODE:ENCODER:PRESET:FOLDER");
        let mut words = text.splitn(4, ':');
        let mut word = || words.next().ok_or_else(wrong);
        let mode = word()?;
        let (mode, _) = MODES.into_iter().find(|(_, name)| *name == mode).ok_or_else(wrong)?;
        let (encoder, preset) = (word()?.to_owned(), word()?.to_owned());
        Ok(Self { mode, encoder, preset, folder: word()?.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_has_a_text_form() {
        let folder = PathBuf::from("/tmp/a:b");
        for (mode, _) in MODES {
            let (encoder, preset) = ("x264".into(), "fast".into());
            let case = Case { mode, encoder, preset, folder: folder.clone() };
            assert_eq!(case.to_string().parse(), Ok(case));
        }
        assert!("whole:x264:fast".parse::<Case>().is_err());
        assert!("slow:x264:fast:/tmp".parse::<Case>().is_err());
    }
}
