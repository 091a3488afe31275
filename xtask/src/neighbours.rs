//! Checks what a program takes in that depends on these crates: the program resolves beside common
//! crates, links no native library that it did not ask for, and is built of few packages.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    process::{Result, cargo, merged, output, root},
    workspace::metadata,
};

/// Crates that programs of this kind use, in the newest versions that go together.
const NEIGHBOURS: &str = r#"
image = "0.25"
metrics = "0.24"
rusqlite = { version = "0.39", features = ["bundled"] }
sqlx = { version = "0.9", default-features = false, features = ["runtime-tokio", "sqlite"] }
tokio = { version = "1", features = ["full"] }
zune-jpeg = "0.5"
"#;

/// The same, in older versions.
const OLDER_NEIGHBOURS: &str = r#"
image = "0.25"
metrics = "0.24"
rusqlite = { version = "0.32", features = ["bundled"] }
sqlx = { version = "0.8", default-features = false, features = ["runtime-tokio", "sqlite"] }
tokio = { version = "1", features = ["full"] }
zune-jpeg = "0.4"
"#;

/// A program that depends on crates of this workspace.
struct Program {
    name: &'static str,
    /// The crates, and what their dependencies state beside the path.
    crates: &'static [(&'static str, &'static str)],
    /// The program's other dependencies. Without any it is resolved by the lock file of the
    /// workspace, and must link nothing.
    neighbours: &'static str,
    /// How many packages are built for it at most, itself not counted.
    packages: Option<usize>,
}

const FEW_FEATURES: &str = r#"default-features = false, features = ["mcap", "openh264"]"#;
const NO_FEATURES: &str = "default-features = false";

const PROGRAMS: [Program; 7] = [
    Program {
        name: "all features beside neighbours",
        crates: &[("encoder-pipeline", "")],
        neighbours: NEIGHBOURS,
        packages: None,
    },
    Program {
        name: "all features beside older neighbours",
        crates: &[("encoder-pipeline", "")],
        neighbours: OLDER_NEIGHBOURS,
        packages: None,
    },
    Program {
        name: "few features beside neighbours",
        crates: &[("encoder-pipeline", FEW_FEATURES)],
        neighbours: NEIGHBOURS,
        packages: None,
    },
    Program {
        name: "few features beside older neighbours",
        crates: &[("encoder-pipeline", FEW_FEATURES)],
        neighbours: OLDER_NEIGHBOURS,
        packages: None,
    },
    Program {
        name: "sessions, pictures, MP4 and three backends",
        crates: &[
            ("encoder-session", ""),
            ("encoder-picture", ""),
            ("encoder-mp4", ""),
            ("encoder-nvenc", ""),
            ("encoder-openh264", ""),
            ("encoder-x264", ""),
        ],
        neighbours: "",
        packages: Some(85),
    },
    Program {
        name: "recordings without features",
        crates: &[("encoder-recording", NO_FEATURES)],
        neighbours: "",
        packages: None,
    },
    Program {
        name: "the pipeline without features",
        crates: &[("encoder-pipeline", NO_FEATURES)],
        neighbours: "",
        packages: None,
    },
];

/// Runs all checks. Returns whether there are no findings, which are printed.
///
/// # Errors
/// When Cargo cannot read the workspace or be started.
pub fn neighbours() -> Result<bool> {
    let workspace = metadata(&["--no-deps"])?;
    let mut wrong = requirements(&workspace);
    let folders = folders(&workspace);
    for program in &PROGRAMS {
        match check(program, &folders)? {
            Ok(found) => println!("neighbours: {}: {found}", program.name),
            Err(text) => wrong.push(format!("{}: {text}", program.name)),
        }
    }
    for text in &wrong {
        println!("neighbours: {text}");
    }
    Ok(wrong.is_empty())
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn word<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// The dependencies of the workspace that a program cannot share with others: exact versions, and
/// versions before a release.
fn requirements(workspace: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    for package in list(&workspace["packages"]) {
        for dependency in list(&package["dependencies"]) {
            let requirement = word(dependency, "req");
            let is_exact = requirement.split(',').any(|part| part.trim().starts_with('='));
            let is_early = requirement.contains('-');
            if is_exact || is_early {
                let what = if is_early { "a version before a release" } else { "an exact version" };
                let (name, other) = (word(package, "name"), word(dependency, "name"));
                wrong.push(format!("{name} requires {what}: {other} = \"{requirement}\""));
            }
        }
    }
    wrong
}

/// The folder of each crate of the workspace.
fn folders(workspace: &Value) -> BTreeMap<String, PathBuf> {
    let folder = |package: &Value| {
        let manifest = Path::new(word(package, "manifest_path"));
        (word(package, "name").to_string(), manifest.parent().unwrap_or(manifest).to_path_buf())
    };
    list(&workspace["packages"]).map(folder).collect()
}

/// The manifest of a program.
fn manifest(program: &Program, folders: &BTreeMap<String, PathBuf>) -> Result<String> {
    let mut text = String::from(
        "[package]\nname = \"program\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
         [dependencies]\n",
    );
    for (name, rest) in program.crates {
        let folder = folders.get(*name).ok_or_else(|| format!("no package {name}"))?;
        let path = toml::Value::from(folder.to_string_lossy().into_owned());
        let comma = if rest.is_empty() { "" } else { ", " };
        text.push_str(&format!("{name} = {{ path = {path}{comma}{rest} }}\n"));
    }
    text.push_str(program.neighbours);
    Ok(text)
}

/// Resolves a program in a temporary folder. Returns what was found, or what is wrong.
fn check(
    program: &Program,
    folders: &BTreeMap<String, PathBuf>,
) -> Result<std::result::Result<String, String>> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("Cargo.toml"), manifest(program, folders)?)?;
    fs::create_dir(folder.path().join("src"))?;
    fs::write(folder.path().join("src/lib.rs"), "")?;
    let command = |args: &[&str]| -> Command {
        let mut command = cargo();
        command.current_dir(folder.path()).args(args);
        command
    };
    if !program.neighbours.is_empty() {
        let (resolved, text) = merged(command(&["generate-lockfile"]))?;
        return Ok(if resolved { Ok("resolves".into()) } else { Err(text) });
    }
    fs::copy(root().join("Cargo.lock"), folder.path().join("Cargo.lock"))?;
    let metadata = output(&mut command(&["metadata", "--format-version", "1"]))?;
    let linked = linked(&serde_json::from_slice(&metadata.stdout)?);
    if !linked.is_empty() {
        return Ok(Err(format!("links without a feature: {}", linked.join(", "))));
    }
    let tree = output(&mut command(&["tree", "--edges", "normal", "--prefix", "none"]))?;
    let count = packages(&String::from_utf8(tree.stdout)?);
    let text = format!("{count} packages, none with native libraries");
    Ok(match program.packages {
        Some(limit) if count > limit => Err(format!("{count} packages, more than {limit}")),
        Some(limit) => Ok(format!("{text}; at most {limit}")),
        None => Ok(text),
    })
}

/// The packages that claim a native library: there can be one of each in a program.
fn linked(metadata: &Value) -> Vec<String> {
    list(&metadata["packages"])
        .filter(|package| !package["links"].is_null())
        .map(|package| format!("{} ({})", word(package, "name"), word(package, "links")))
        .collect()
}

/// How many different packages the output of `cargo tree` has, without the program.
fn packages(tree: &str) -> usize {
    let package = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_string(), words.next()?.to_string()))
    };
    let all: BTreeSet<_> = tree.lines().filter_map(package).collect();
    all.len().saturating_sub(1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn versions_that_cannot_be_shared_are_found() {
        // requirement | what is wrong
        for (requirement, expected) in [
            ("^1", ""),
            (">=0.32, <0.44", ""),
            ("~1.2", ""),
            ("*", ""),
            ("=1.2.3", "an exact version"),
            (">=1, =1.2.3", "an exact version"),
            ("=0.5.16-rc3", "a version before a release"),
            ("^0.5.16-rc3", "a version before a release"),
        ] {
            let workspace = json!({"packages": [
                {"name": "a", "dependencies": [{"name": "b", "req": requirement}]},
            ]});
            let found = requirements(&workspace);
            match expected {
                "" => assert!(found.is_empty(), "{found:?}"),
                what => {
                    assert_eq!(found, [format!("a requires {what}: b = \"{requirement}\"")]);
                }
            }
        }
    }

    #[test]
    fn this_workspace_has_no_such_requirement() {
        let found = requirements(&metadata(&["--no-deps"]).unwrap());
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn the_manifests_name_crates_of_the_workspace() {
        let folders = folders(&metadata(&["--no-deps"]).unwrap());
        for program in &PROGRAMS {
            let table: toml::Table = manifest(program, &folders).unwrap().parse().unwrap();
            let dependencies = table["dependencies"].as_table().unwrap();
            for (name, _) in program.crates {
                let path = dependencies[*name]["path"].as_str().unwrap();
                assert!(Path::new(path).join("Cargo.toml").is_file(), "{path}");
            }
            assert_eq!(dependencies.contains_key("sqlx"), !program.neighbours.is_empty());
        }
        let unknown = Program { crates: &[("none", "")], ..PROGRAMS[0] };
        assert_eq!(manifest(&unknown, &folders).unwrap_err().to_string(), "no package none");
    }

    #[test]
    fn libraries_and_packages_are_counted() {
        let metadata = json!({"packages": [
            {"name": "a", "links": null}, {"name": "b-sys", "links": "b"},
        ]});
        assert_eq!(linked(&metadata), ["b-sys (b)"]);
        let tree = "program v0.0.0 (/tmp/p)\na v1.0.0\nb v0.2.0 (proc-macro)\na v1.0.0 (*)\n\
                    a v2.0.0\n";
        assert_eq!(packages(tree), 3);
        assert_eq!(packages(""), 0);
    }
}
