//! The result of the suite.

use std::fmt;

use serde::Serialize;

use crate::EncoderType;

/// The outcome of each rule. Displayed as a table with one line per rule.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The backend.
    pub encoder: EncoderType,
    /// Each rule, in the order in which they were checked.
    pub results: Vec<RuleResult>,
}

/// A rule and its outcome.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct RuleResult {
    /// The name of the rule: `dts`.
    pub rule: &'static str,
    /// The rule, in one sentence.
    pub text: &'static str,
    /// The outcome.
    pub outcome: Outcome,
}

/// The outcome of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Outcome {
    /// The backend keeps the rule. The text says what it refused, and is empty if it refused
    /// nothing.
    Passed(String),
    /// The rule was not checked, for this reason.
    NotChecked(String),
    /// The backend breaks the rule: the first difference.
    Failed(String),
}

impl Report {
    /// Whether no rule failed.
    pub fn is_ok(&self) -> bool {
        self.failures().next().is_none()
    }

    /// The rules that failed.
    pub fn failures(&self) -> impl Iterator<Item = &RuleResult> {
        self.results.iter().filter(|result| result.is_failed())
    }

    /// The outcome of the rule with this name.
    pub fn outcome(&self, rule: &str) -> Option<&Outcome> {
        self.results.iter().find(|result| result.rule == rule).map(|result| &result.outcome)
    }
}

impl RuleResult {
    /// Whether the rule failed.
    pub fn is_failed(&self) -> bool {
        matches!(self.outcome, Outcome::Failed(_))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (all, failed) = (self.results.len(), self.failures().count());
        write!(f, "backend {}: {failed} of {all} rules failed", self.encoder)?;
        self.results.iter().try_for_each(|result| write!(f, "\n{result}"))
    }
}

impl fmt::Display for RuleResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, text) = match &self.outcome {
            Outcome::Passed(text) => ("ok", text),
            Outcome::NotChecked(text) => ("skipped", text),
            Outcome::Failed(text) => ("FAILED", text),
        };
        write!(f, "{word:<8} {:<16}", self.rule)?;
        match (self.is_failed(), text.as_str()) {
            (true, text) => write!(f, " {text} (rule: {})", self.text),
            (false, "") => Ok(()),
            (false, text) => write!(f, " {text}"),
        }
    }
}
