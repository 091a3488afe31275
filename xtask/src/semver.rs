//! Compares the public API of the crates with that of an earlier state, by cargo-semver-checks.

use std::{path::Path, process::Command};

use serde_json::Value;

use crate::{
    package::{Crate, published},
    process::{Result, output, root, show, succeeds},
    tool::Tool,
    workspace::metadata,
};

/// No Python package contains it.
const CARGO_SEMVER_CHECKS: Tool =
    Tool { name: "cargo-semver-checks", version: "0.51.0", package: None };

/// How the tags of releases begin.
const TAGS: &str = "v[0-9]*";

/// What the crates are compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Baseline {
    /// A revision of this repository.
    Revision(String),
    /// Another checkout.
    Folder(String),
}

impl Baseline {
    fn arguments(&self) -> [&str; 2] {
        match self {
            Self::Revision(revision) => ["--baseline-rev", revision],
            Self::Folder(folder) => ["--baseline-root", folder],
        }
    }

    /// Whether the crate in this folder of the workspace existed.
    fn has(&self, folder: &str) -> bool {
        match self {
            Self::Revision(revision) => {
                let manifest = format!("{revision}:{folder}/Cargo.toml");
                succeeds(git(&["cat-file", "-e"]).arg(manifest))
            }
            Self::Folder(root) => Path::new(root).join(folder).join("Cargo.toml").is_file(),
        }
    }
}

/// Compares every published crate. Returns whether the version of each allows its changes. Without
/// a baseline the last tag of a release is used; without a release there is nothing to compare.
///
/// # Errors
/// When cargo-semver-checks cannot be installed or started, or the baseline does not exist.
pub fn semver(revision: Option<&str>, folder: Option<&Path>) -> Result<bool> {
    let baseline = match (revision, folder) {
        (Some(revision), _) => revision_of(revision)?,
        (None, Some(folder)) => folder_of(folder)?,
        (None, None) => match last_release() {
            Some(tag) => Baseline::Revision(tag),
            None => {
                println!(
                    "semver: no release yet: no tag {TAGS} to compare with; \
                     --baseline-rev and --baseline-root name another state"
                );
                return Ok(true);
            }
        },
    };
    let metadata = metadata(&["--no-deps"])?;
    let (old, new): (Vec<_>, Vec<_>) = libraries(&metadata)?.into_iter().partition(|one| {
        let folder = one.folder.strip_prefix(root()).unwrap_or(&one.folder);
        baseline.has(&folder.to_string_lossy().replace('\\', "/"))
    });
    for one in new {
        println!("semver: {} is new", one.name);
    }
    if old.is_empty() {
        return Err("no crate of this workspace is in the baseline".into());
    }
    let mut command = Command::new(CARGO_SEMVER_CHECKS.program()?);
    command.current_dir(root()).args(arguments(&baseline, &old));
    show(&mut command)
}

fn git(arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.current_dir(root()).args(arguments);
    command
}

/// The tag of the last release in the history.
fn last_release() -> Option<String> {
    let mut describe = git(&["describe", "--tags", "--abbrev=0", "--match", TAGS]);
    let tag = output(&mut describe).ok()?.stdout;
    Some(String::from_utf8(tag).ok()?.trim().to_string())
}

fn revision_of(name: &str) -> Result<Baseline> {
    let commit = format!("{name}^{{commit}}");
    match output(&mut git(&["rev-parse", "--verify", "--quiet", &commit])) {
        // The hash: a name could be taken for an option.
        Ok(found) => Ok(Baseline::Revision(String::from_utf8(found.stdout)?.trim().into())),
        Err(_) => Err(format!("--baseline-rev {name}: no such revision").into()),
    }
}

fn folder_of(folder: &Path) -> Result<Baseline> {
    let found = folder.canonicalize().map_err(|e| format!("{}: {e}", folder.display()))?;
    Ok(Baseline::Folder(found.to_string_lossy().into_owned()))
}

/// The published crates that have a library.
fn libraries(metadata: &Value) -> Result<Vec<Crate>> {
    let has_library = |one: &Crate| {
        let mut packages = metadata["packages"].as_array().into_iter().flatten();
        let package = packages.find(|package| package["name"] == one.name.as_str());
        package.is_some_and(|package| {
            let mut targets = package["targets"].as_array().into_iter().flatten();
            targets.any(|target| target["kind"] == serde_json::json!(["lib"]))
        })
    };
    let found: Vec<_> = published(metadata).into_iter().filter(has_library).collect();
    if found.is_empty() { Err("no crate has a library".into()) } else { Ok(found) }
}

/// The arguments of cargo-semver-checks. Features of native libraries are not default features, and
/// are left out: the libraries may be missing.
fn arguments<'a>(baseline: &'a Baseline, crates: &'a [Crate]) -> Vec<&'a str> {
    let mut all = vec!["semver-checks", "check-release", "--default-features"];
    all.extend(baseline.arguments());
    all.extend(crates.iter().flat_map(|one| ["--package", &one.name]));
    all
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn crates_that_the_baseline_has_are_found() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("a")).unwrap();
        std::fs::write(folder.path().join("a/Cargo.toml"), "").unwrap();
        let baseline = folder_of(folder.path()).unwrap();
        assert!(baseline.has("a") && !baseline.has("b"));
        assert!(folder_of(&folder.path().join("none")).is_err());
        if succeeds(&mut git(&["rev-parse", "--verify", "HEAD"])) {
            let head = revision_of("HEAD").unwrap();
            assert!(head.has("encoder-core") && !head.has("no-such-crate"), "{head:?}");
        }
        assert!(revision_of("no-such-revision").is_err());
    }

    #[test]
    fn the_libraries_of_this_workspace_are_compared() {
        let metadata = metadata(&["--no-deps"]).unwrap();
        let crates = libraries(&metadata).unwrap();
        let names: Vec<_> = crates.iter().map(|one| one.name.as_str()).collect();
        assert!(names.contains(&"encoder-core") && names.contains(&"encoder-pipeline"));
        assert!(!names.contains(&"xtask") && !names.contains(&"encoder-docs"), "{names:?}");
        let baseline = Baseline::Revision("v1".into());
        let core: Vec<_> = crates.into_iter().filter(|one| one.name == "encoder-core").collect();
        let expected = [
            "semver-checks",
            "check-release",
            "--default-features",
            "--baseline-rev",
            "v1",
            "--package",
            "encoder-core",
        ];
        assert_eq!(arguments(&baseline, &core), expected);
    }
}
