//! A source with warnings of its own in front of those of another one.

use std::collections::VecDeque;

use crate::{Event, Source, SourceError, Warning};

struct Warned {
    warnings: VecDeque<Warning>,
    source: Box<dyn Source>,
}

/// Returns `source` with these warnings as its first events.
pub(crate) fn warned(
    source: Box<dyn Source>,
    warnings: impl IntoIterator<Item = Warning>,
) -> Box<dyn Source> {
    let warnings = VecDeque::from_iter(warnings);
    match warnings.is_empty() {
        true => source,
        false => Box::new(Warned { warnings, source }),
    }
}

impl Source for Warned {
    fn next_event(&mut self) -> Result<Option<Event>, SourceError> {
        match self.warnings.pop_front() {
            Some(warning) => Ok(Some(Event::Warning(warning))),
            None => self.source.next_event(),
        }
    }

    fn other_topics(&self) -> Vec<(String, String)> {
        self.source.other_topics()
    }

    fn log_span(&self) -> Option<(i64, i64)> {
        self.source.log_span()
    }

    fn profile(&self) -> &str {
        self.source.profile()
    }
}
