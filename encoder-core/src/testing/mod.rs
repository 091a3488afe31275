//! A conformance suite for backends: the Cargo feature `testing`.
//!
//! A crate with a backend calls [`check`] in its tests:
//!
//! ```toml
//! [dev-dependencies]
//! encoder-core = { version = "0.1", features = ["testing"] }
//! ```
//!
//! ```no_run
//! # use encoder_core::{Backend, EncoderType};
//! # const BACKEND: Backend = Backend::new(EncoderType::new("mine"), |_| unreachable!());
//! #[test]
//! fn it_conforms() {
//!     encoder_core::testing::check(&BACKEND);
//! }
//! ```
//!
//! Each rule is checked on a thread of its own with a deadline. An encoder that panics fails the
//! rule. After a rule that misses its deadline, the remaining rules are not checked. The suite runs
//! on the machine of the test: a backend whose device is missing fails the first rule, `probe`.
//!
//! Pictures are compared if there is a decoder: the registered one
//! ([`picture_decoder`]), or [`Suite::with_decoder`]. Without a decoder,
//! the report lists these rules as not checked.

mod encode;
mod report;
mod rules;
#[cfg(test)]
mod tests;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, OnceLock, mpsc},
    thread,
    time::Duration,
};

pub use report::{Outcome, Report, RuleResult};

use crate::{Backend, OpenDecoder, Settings, panic_text, picture_decoder};

/// Checks all rules with the default settings. Blocks for some seconds: it encodes a few hundred
/// pictures.
///
/// # Panics
/// If a rule fails, with the whole report.
pub fn check(backend: &'static Backend) -> Report {
    Suite::new(backend).check()
}

/// The conformance suite with settings of its own:
///
/// ```no_run
/// # use encoder_core::{Backend, EncoderType, Settings, testing::Suite};
/// # const BACKEND: Backend = Backend::new(EncoderType::new("mine"), |_| unreachable!());
/// let mut settings = Settings::default();
/// settings.backend.insert("mine".into(), [("speed".into(), 2.into())].into_iter().collect());
/// Suite::new(&BACKEND).with_settings(settings).check();
/// ```
#[derive(Debug)]
#[must_use = "a suite checks nothing until `check` or `run`"]
pub struct Suite {
    backend: &'static Backend,
    settings: Settings,
    decoder: Option<OpenDecoder>,
    deadline: Duration,
    /// The streams that several rules check.
    streams: OnceLock<Result<Vec<Option<encode::Stream>>, String>>,
}

impl Suite {
    /// A suite with the default settings, the registered decoder if there is one, and a deadline of
    /// a minute.
    pub fn new(backend: &'static Backend) -> Self {
        let settings = Settings::default();
        let decoder = picture_decoder(settings.encoder.codec);
        let deadline = Duration::from_secs(60);
        Self { backend, settings, decoder, deadline, streams: OnceLock::new() }
    }

    /// Sets the settings, such as the options of the backend. The rules set size, key frame distance,
    /// B-frames and pixel format; some also set preset and rate control. At the quality that the
    /// settings ask for, decoded pictures must be within 10 levels of the originals on average.
    pub fn with_settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Sets the decoder of the pictures.
    pub fn with_decoder(mut self, decoder: OpenDecoder) -> Self {
        self.decoder = Some(decoder);
        self
    }

    /// Sets how long a rule may take: an encoder that hangs fails the rule after that, and the
    /// remaining rules are not checked. Default one minute.
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Checks all rules. Blocks.
    ///
    /// # Panics
    /// If a rule fails, with the whole report.
    pub fn check(self) -> Report {
        let report = self.run();
        assert!(report.is_ok(), "{report}");
        report
    }

    /// Checks all rules, and returns the report whatever the outcomes are. Blocks.
    #[must_use = "the report has the rules that failed"]
    pub fn run(self) -> Report {
        let suite = Arc::new(self);
        let mut results = Vec::with_capacity(rules::RULES.len());
        // Why the remaining rules are not checked.
        let mut skipped = None;
        for rule in rules::RULES {
            let outcome = match skipped {
                Some(reason) => Outcome::NotChecked(String::from(reason)),
                None => suite.apply(rule.check).unwrap_or_else(|| {
                    // Each further rule would wait for the whole deadline.
                    skipped = Some("an encoder hangs");
                    let seconds = suite.deadline.as_secs_f32();
                    Outcome::Failed(format!("it did not return within {seconds} s"))
                }),
            };
            let result = RuleResult { rule: rule.name, text: rule.text, outcome };
            if results.is_empty() && result.is_failed() {
                // Without a working encoder, every other rule would fail for the same reason.
                skipped.get_or_insert("the probe failed");
            }
            results.push(result);
        }
        Report { encoder: suite.backend.id, results }
    }

    /// Checks a rule on a thread. `None` after the deadline, when the thread is abandoned.
    fn apply(self: &Arc<Self>, check: rules::Check) -> Option<Outcome> {
        let (sender, answer) = mpsc::channel();
        let suite = Arc::clone(self);
        let work = move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| check(&suite)));
            // Nobody receives the outcome after the deadline.
            let _ = sender.send(outcome.unwrap_or_else(|panic| {
                Outcome::Failed(format!("it panicked: {}", panic_text(&*panic)))
            }));
        };
        if let Err(error) = thread::Builder::new().name("conformance".into()).spawn(work) {
            return Some(Outcome::Failed(format!("no thread for the rule: {error}")));
        }
        answer.recv_timeout(self.deadline).ok()
    }
}
