//! Selects the part of a recording to read: topics by glob, and a window of log time.

use std::ops::RangeInclusive;
use std::path::Path;

use encoder_media::Location;
use globset::{Glob, GlobSet, GlobSetBuilder};
use thiserror::Error;

use super::{Moment, SourceError, SourceOptions, signature::NO_TOPIC_MATCHES};

/// Checks a glob for [`SourceOptions::topics`].
///
/// # Errors
/// [`TopicGlobError`] if it cannot be parsed.
pub fn check_topic_glob(glob: &str) -> Result<(), TopicGlobError> {
    match Glob::new(glob) {
        Ok(_) => Ok(()),
        Err(error) => Err(TopicGlobError { reason: error.to_string() }),
    }
}

/// A glob of [`SourceOptions::topics`] that cannot be parsed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{reason}; {GLOB_HINT}")]
pub struct TopicGlobError {
    reason: String,
}

const GLOB_HINT: &str = "write topics as they are, or with * and ?; put \\ before a literal [ or {";

/// Selects topics.
pub(crate) struct TopicFilter {
    /// `None`: all.
    globs: Option<GlobSet>,
}

impl TopicFilter {
    /// A topic is selected if one of `options.topics` matches it; without globs, all topics are
    /// selected. `*` also matches `/`, so `/front*` selects every topic below `/front`.
    ///
    /// # Errors
    /// [`SourceError::Invalid`] for a glob that cannot be parsed.
    pub(crate) fn new(
        location: impl Into<Location>,
        options: &SourceOptions,
    ) -> Result<Self, SourceError> {
        if options.topics.is_empty() {
            return Ok(Self { globs: None });
        }
        let build = || {
            let mut globs = GlobSetBuilder::new();
            for topic in &options.topics {
                globs.add(Glob::new(topic)?);
            }
            globs.build()
        };
        match build() {
            Ok(globs) => Ok(Self { globs: Some(globs) }),
            Err(error) => {
                Err(SourceError::invalid(location, format!("topic pattern: {error}"), GLOB_HINT))
            }
        }
    }

    /// Whether `topic` is selected.
    pub(crate) fn matches(&self, topic: &str) -> bool {
        self.globs.as_ref().is_none_or(|globs| globs.is_match(topic))
    }
}

/// The topic of a source that has one stream and no topics: the name of its file.
pub(crate) fn stream_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Refuses a source whose only stream is not among the selected topics.
pub(crate) fn check_topic(
    path: &Path,
    topic: &str,
    options: &SourceOptions,
) -> Result<(), SourceError> {
    if TopicFilter::new(path, options)?.matches(topic) {
        return Ok(());
    }
    let hint = format!("its only stream is named `{topic}`");
    Err(SourceError::invalid(path, NO_TOPIC_MATCHES, hint))
}

/// The part of a recording's time to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    start: Option<Moment>,
    end: Option<Moment>,
}

impl Window {
    /// The window of `options`.
    pub(crate) fn new(options: &SourceOptions) -> Self {
        Self { start: options.start, end: options.end }
    }

    /// Whether the recording's last part may be left out.
    #[cfg(feature = "mcap")]
    pub(crate) fn has_end(&self) -> bool {
        self.end.is_some()
    }

    /// First and last log time to read, in nanoseconds since the epoch, for a recording whose first
    /// message was logged at `first_ns`. Empty if the end lies before the start.
    pub(crate) fn bounds(&self, first_ns: i64) -> RangeInclusive<i64> {
        let absolute = |moment| match moment {
            Moment::FromStart(ns) => first_ns.saturating_add(ns),
            Moment::Absolute(ns) => ns,
        };
        self.start.map_or(i64::MIN, absolute)..=self.end.map_or(i64::MAX, absolute)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::*;

    fn filter(topics: &[&str]) -> Result<TopicFilter, SourceError> {
        let topics = topics.iter().map(|topic| topic.to_string()).collect();
        TopicFilter::new(Path::new("x"), &SourceOptions { topics, ..Default::default() })
    }

    #[test]
    fn topics() {
        let table: &[(&[&str], &str, bool)] = &[
            (&[], "/cam", true),
            (&["/cam"], "/cam", true),
            (&["/cam"], "/cam2", false),
            (&["/cam*"], "/cam/left/image", true),
            (&["/a", "*/image"], "/cam/left/image", true),
            (&["/cam?"], "/cam", false),
            (&["/{left,right}/*"], "/right/image", true),
        ];
        for (globs, topic, wanted) in table {
            assert_eq!(filter(globs).unwrap().matches(topic), *wanted, "{globs:?} {topic}");
        }
        let error = filter(&["/cam["]).err().unwrap().to_string();
        assert!(error.contains("/cam["), "{error}");
        assert_eq!(check_topic_glob("/{left,right}/*"), Ok(()));
        let error = check_topic_glob("/cam[").unwrap_err().to_string();
        assert!(error.contains("/cam[") && error.contains("put \\ before"), "{error}");
    }

    #[test]
    fn windows() {
        let window = |start, end| Window { start, end }.bounds(100);
        assert_eq!(window(None, None), i64::MIN..=i64::MAX);
        assert_eq!(window(Some(Moment::FromStart(5)), None), 105..=i64::MAX);
        assert_eq!(window(Some(Moment::Absolute(5)), Some(Moment::FromStart(5))), 5..=105);
        assert_eq!(window(Some(Moment::FromStart(i64::MAX)), None), i64::MAX..=i64::MAX);
    }
}
