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
//! Each rule is checked with encoders of its own, on a thread of its own with a deadline, so that
//! an encoder that panics or hangs fails one rule. The suite runs on the machine of the test: a
//! backend whose device is missing fails the first rule, `probe`.
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

use crate::{Backend, OpenDecoder, Settings, picture_decoder};

/// Checks all rules with the default settings. Blocks for some seconds: it encodes a few hundred
/// pictures.
///
/// # Panics
/// If a rule fails, with the whole report.
pub fn check(backend: &'static Backend) -> Report {
    let report = Suite::new(backend).run();
    assert!(report.is_ok(), "{report}");
    report
}

/// The conformance suite with settings of its own: see [`check`].
#[derive(Debug)]
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

    /// Sets the settings, such as the options of the backend. Size, key frame distance, B-frames and
    /// pixel format are set by the rules. At the quality that the settings ask for, decoded pictures
    /// must be within 10 levels of the originals on average.
    #[must_use]
    pub fn with_settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Sets the decoder of the pictures.
    #[must_use]
    pub fn with_decoder(mut self, decoder: OpenDecoder) -> Self {
        self.decoder = Some(decoder);
        self
    }

    /// Sets how long a rule may take: an encoder that hangs fails the rule after that. Default one
    /// minute.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Checks all rules. Blocks.
    pub fn run(self) -> Report {
        let suite = Arc::new(self);
        let mut results = Vec::with_capacity(rules::RULES.len());
        for rule in rules::RULES {
            // Without a working encoder, every other rule would fail for the same reason.
            let is_broken = results.first().is_some_and(RuleResult::is_failed);
            let outcome = match is_broken {
                true => Outcome::NotChecked("the probe failed".into()),
                false => suite.apply(rule.check),
            };
            results.push(RuleResult { rule: rule.name, text: rule.text, outcome });
        }
        Report { encoder: suite.backend.id, results }
    }

    /// Checks a rule on a thread, which is abandoned if it hangs.
    fn apply(self: &Arc<Self>, check: rules::Check) -> Outcome {
        let (sender, answer) = mpsc::channel();
        let suite = Arc::clone(self);
        let work = move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| check(&suite)));
            // Nobody receives the outcome after the deadline.
            let _ = sender.send(outcome.unwrap_or_else(|panic| {
                let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
                let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
                Outcome::Failed(format!("it panicked: {}", text.unwrap_or_default()))
            }));
        };
        if let Err(error) = thread::Builder::new().name("conformance".into()).spawn(work) {
            return Outcome::Failed(format!("no thread for the rule: {error}"));
        }
        answer.recv_timeout(self.deadline).unwrap_or_else(|_| {
            Outcome::Failed(format!("it did not return within {} s", self.deadline.as_secs_f32()))
        })
    }
}
