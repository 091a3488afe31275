//! The number of an FFmpeg release.

use std::fmt;

/// The number of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The number before the first dot.
    pub major: u32,
    /// The number after the first dot.
    pub minor: u32,
}

impl Version {
    /// A version.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// The option that keeps every frame as it is, to be followed by `passthrough`: FFmpeg 5.1
    /// renamed it, FFmpeg 9 removed the old name. `None` is a development build, which is treated
    /// as a new version.
    pub fn passthrough(version: Option<Self>) -> &'static str {
        match version {
            Some(version) if version < Self::new(5, 1) => "-vsync",
            _ => "-fps_mode",
        }
    }

    /// Reads the text behind `ffmpeg version`; `None` for development builds, which have a date or
    /// a revision instead of a number.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('n').unwrap_or(text);
        let (major, rest) = text.split_once('.')?;
        let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        // Dates such as 2024.05 are no versions.
        if major.len() > 2 {
            return None;
        }
        Some(Self::new(major.parse().ok()?, minor.parse().ok()?))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_without_a_number() {
        for text in ["", ".", "5", "5.", "n", "n.1", "99999999999.1", "5.99999999999", "é.1"] {
            assert_eq!(Version::parse(text), None, "{text:?}");
        }
    }
}
