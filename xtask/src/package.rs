//! Checks the crates as they would be published: each has what a registry requires, and builds from
//! the files of its package alone, with the tests that are in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;
use serde_json::Value;

use crate::{
    process::{Result, cargo, merged, root, show, target, typed},
    workspace::metadata,
};

/// The texts that must be in every package, equal to those in the root.
const LICENCES: [&str; 2] = ["LICENSE-APACHE", "LICENSE-MIT"];

/// The size limit of crates.io.
const MAX_BYTES: u64 = 10 << 20;

/// The part of the workspace's manifest that the crates are built by.
const PROFILES: &str = "profile";

/// A crate that is to be published.
#[derive(Clone, Debug)]
pub struct Crate {
    /// Its name.
    pub name: String,
    version: String,
    /// Where it is.
    pub folder: PathBuf,
    /// The crates of the workspace that it is built of.
    needs: Vec<String>,
    /// What `cargo metadata` has of it.
    metadata: Value,
}

impl Crate {
    /// The folder in a package, and the package's name.
    fn stem(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }
}

/// Packages every crate that is not marked `publish = false`, and checks the packages. Returns
/// whether all are correct. With `build`, Cargo also builds each package by itself, as it does
/// before publishing: then no crate uses a feature of a dependency that only another crate enables.
///
/// # Errors
/// When Cargo cannot read the workspace or be started.
pub fn package(build: bool) -> Result<bool> {
    let metadata = metadata(&["--no-deps"])?;
    let crates = in_order(published(&metadata))?;
    let mut wrong = Vec::new();
    for one in &crates {
        wrong.extend(lacks(one).into_iter().map(|lack| format!("{}: {lack}", one.name)));
    }
    if !report(&wrong) {
        return Ok(false);
    }
    if !pack(&metadata, &crates, build)? {
        return Ok(false);
    }

    let folder = target().join("package").join("unpacked");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    for one in &crates {
        let found = unpack(one, &folder)?;
        wrong.extend(found.into_iter().map(|text| format!("{}: {text}", one.name)));
    }
    if !report(&wrong) {
        return Ok(false);
    }
    fs::write(folder.join("Cargo.toml"), workspace_of(&crates)?)?;
    fs::copy(root().join("Cargo.lock"), folder.join("Cargo.lock"))?;
    // Together: what each asks for by itself is tried by `build`. With the tests, benchmarks and
    // examples that are in the packages.
    let mut check = cargo();
    check.current_dir(&folder).args(["check", "--workspace", "--all-targets", "--offline"]);
    // Dependencies are checked already, as those of the repository.
    check.arg("--target-dir").arg(target());
    if !show(&mut check)? {
        return Ok(false);
    }
    println!("package: {} crates are ready to be published", crates.len());
    Ok(true)
}

fn report(wrong: &[String]) -> bool {
    for text in wrong {
        println!("package: {text}");
    }
    wrong.is_empty()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn word<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Whether a package may be published somewhere: `publish = false` is an empty list.
fn is_published(package: &Value) -> bool {
    package["publish"].as_array().is_none_or(|registries| !registries.is_empty())
}

/// The crates that are not marked `publish = false`.
pub fn published(metadata: &Value) -> Vec<Crate> {
    let packages: Vec<_> = list(&metadata["packages"]).filter(|p| is_published(p)).collect();
    let names: BTreeSet<_> = packages.iter().map(|p| word(p, "name")).collect();
    let read = |package: &&Value| {
        let needs = list(&package["dependencies"])
            .filter(|d| d["kind"] != "dev" && names.contains(word(d, "name")))
            .map(|d| word(d, "name").to_string())
            .collect();
        let manifest = Path::new(word(package, "manifest_path"));
        Crate {
            name: word(package, "name").into(),
            version: word(package, "version").into(),
            folder: manifest.parent().unwrap_or(manifest).into(),
            needs,
            metadata: (*package).clone(),
        }
    };
    packages.iter().map(read).collect()
}

/// The crates in an order in which each follows its dependencies.
fn in_order(mut crates: Vec<Crate>) -> Result<Vec<Crate>> {
    let mut done = BTreeSet::new();
    let mut ordered = Vec::new();
    while !crates.is_empty() {
        let (ready, later): (Vec<_>, Vec<_>) = crates
            .into_iter()
            .partition(|one| one.needs.iter().all(|need| done.contains(need.as_str())));
        if ready.is_empty() {
            let names: Vec<_> = later.into_iter().map(|one| one.name).collect();
            return Err(format!("these crates need each other: {}", names.join(", ")).into());
        }
        done.extend(ready.iter().map(|one| one.name.clone()));
        ordered.extend(ready);
        crates = later;
    }
    Ok(ordered)
}

/// The requirements of a registry, or of its readers, that are not met.
fn lacks(one: &Crate) -> Vec<String> {
    let metadata = &one.metadata;
    let mut wrong = Vec::new();
    for key in ["description", "license", "readme", "rust_version"] {
        if word(metadata, key).trim().is_empty() {
            wrong.push(format!("has no {}", key.replace('_', "-")));
        }
    }
    if ["documentation", "homepage", "repository"].iter().all(|key| metadata[key].is_null()) {
        wrong.push("has no documentation".into());
    }
    match list(&metadata["keywords"]).count() {
        1..=5 => {}
        count => wrong.push(format!("has {count} keywords, not 1 to 5")),
    }
    if list(&metadata["categories"]).count() == 0 {
        wrong.push("has no categories".into());
    }
    if metadata["metadata"]["docs"]["rs"].is_null() {
        wrong.push("has no [package.metadata.docs.rs]".into());
    }
    wrong.extend(LICENCES.iter().filter_map(|name| licence(&one.folder, name).err()));
    if let Some(readme) = metadata["readme"].as_str() {
        let path = one.folder.join(readme);
        match fs::read_to_string(&path) {
            Ok(text) => wrong.extend(links_outside(&text)),
            Err(error) => wrong.push(format!("{}: {error}", path.display())),
        }
    }
    wrong
}

/// Whether the folder has this licence: the text in the root, by a link or as a copy.
fn licence(folder: &Path, name: &str) -> std::result::Result<(), String> {
    let text = fs::read(folder.join(name)).map_err(|error| {
        format!("has no {name} ({error}): make it a link to that in the root of the repository")
    })?;
    match fs::read(root().join(name)) {
        Ok(expected) if expected == text => Ok(()),
        _ => Err(format!("{name} is not the one in the root of the repository")),
    }
}

/// Links to files that are not in the package: a registry shows the README without them.
fn links_outside(readme: &str) -> Vec<String> {
    let targets = readme.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let inside = |link: &&str| ["https://", "http://", "#"].iter().all(|s| !link.starts_with(s));
    targets.filter(inside).map(|link| format!("the README links to the file {link}")).collect()
}

/// Runs `cargo package`.
fn pack(metadata: &Value, crates: &[Crate], build: bool) -> Result<bool> {
    let mut command = cargo();
    // Uncommitted changes are included.
    command.args(["package", "--workspace", "--allow-dirty", "--offline"]);
    for package in list(&metadata["packages"]).filter(|p| !is_published(p)) {
        command.args(["--exclude", word(package, "name")]);
    }
    if !build {
        command.arg("--no-verify");
    }
    println!("+ {}", typed(&command));
    let (passed, text) = merged(command)?;
    print!("{text}");
    if text.contains("is yanked in registry") {
        println!("package: a version in Cargo.lock was withdrawn: cargo update");
        return Ok(false);
    }
    let mut missing = crates.iter().filter(|one| !archive(one).is_file());
    if let (true, Some(one)) = (passed, missing.next()) {
        return Err(format!("Cargo made no package of {}", one.name).into());
    }
    Ok(passed)
}

fn archive(one: &Crate) -> PathBuf {
    target().join("package").join(format!("{}.crate", one.stem()))
}

/// Unpacks a package into `folder`; returns a description of errors.
fn unpack(one: &Crate, folder: &Path) -> Result<Vec<String>> {
    let path = archive(one);
    let bytes = fs::metadata(&path)?.len();
    tar::Archive::new(GzDecoder::new(fs::File::open(&path)?)).unpack(folder)?;
    let inside = folder.join(one.stem());
    let mut wrong: Vec<_> =
        LICENCES.iter().filter_map(|name| licence(&inside, name).err()).collect();
    if !inside.join("README.md").is_file() {
        wrong.push("its package has no README.md".into());
    }
    if bytes > MAX_BYTES {
        wrong.push(format!("its package has {bytes} bytes, a registry takes {MAX_BYTES}"));
    }
    Ok(wrong)
}

/// The manifest of a workspace of unpacked crates, which find each other there and not in the
/// registry. It builds by the profiles of the repository, so that what was built there is used.
fn workspace_of(crates: &[Crate]) -> Result<String> {
    let here: toml::Table = fs::read_to_string(root().join("Cargo.toml"))?.parse()?;
    let stems: BTreeMap<_, _> = crates.iter().map(|one| (one.name.clone(), one.stem())).collect();
    let members = stems.values().cloned().map(toml::Value::from).collect::<Vec<_>>();
    let patch: toml::Table = stems
        .iter()
        .map(|(name, stem)| {
            let path = toml::Table::from_iter([("path".to_string(), stem.clone().into())]);
            (name.clone(), toml::Value::Table(path))
        })
        .collect();
    let workspace = toml::Table::from_iter([
        ("resolver".to_string(), toml::Value::from("3")),
        ("members".to_string(), members.into()),
    ]);
    let mut manifest = toml::Table::new();
    manifest.insert("workspace".into(), workspace.into());
    let patch = toml::Table::from_iter([("crates-io".to_string(), toml::Value::Table(patch))]);
    manifest.insert("patch".into(), patch.into());
    if let Some(profiles) = here.get(PROFILES) {
        manifest.insert(PROFILES.into(), profiles.clone());
    }
    Ok(manifest.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn one(name: &str, needs: &[&str]) -> Crate {
        Crate {
            name: name.into(),
            version: "0.1.0".into(),
            folder: root().join("encoder-core"),
            needs: needs.iter().map(|need| need.to_string()).collect(),
            metadata: Value::Null,
        }
    }

    #[test]
    fn crates_come_behind_what_they_need() {
        let crates = vec![one("c", &["a", "b"]), one("b", &["a"]), one("a", &[])];
        let names: Vec<_> = in_order(crates).unwrap().into_iter().map(|one| one.name).collect();
        assert_eq!(names, ["a", "b", "c"]);
        let circle = in_order(vec![one("a", &["b"]), one("b", &["a"])]);
        assert_eq!(circle.unwrap_err().to_string(), "these crates need each other: a, b");
    }

    #[test]
    fn what_is_not_to_be_published_is_left_out() {
        let metadata = json!({"packages": [
            {"name": "a", "version": "1.0.0", "manifest_path": "/w/a/Cargo.toml", "publish": null,
             "dependencies": [{"name": "b", "kind": null}, {"name": "c", "kind": "dev"},
                              {"name": "elsewhere", "kind": null}]},
            {"name": "b", "version": "1.0.0", "manifest_path": "/w/b/Cargo.toml",
             "publish": ["crates-io"], "dependencies": []},
            {"name": "c", "version": "1.0.0", "manifest_path": "/w/c/Cargo.toml",
             "publish": [], "dependencies": []},
        ]});
        let crates = published(&metadata);
        let names: Vec<_> = crates.iter().map(|one| one.stem()).collect();
        assert_eq!(names, ["a-1.0.0", "b-1.0.0"]);
        assert_eq!((&crates[0].needs, &*crates[0].folder), (&vec!["b".into()], Path::new("/w/a")));
    }

    #[test]
    fn each_thing_that_is_missing_is_named() {
        let whole = json!({
            "description": "Does it.", "license": "MIT", "readme": "README.md",
            "rust_version": "1.90", "documentation": "https://docs.rs/a",
            "keywords": ["a"], "categories": ["b"],
            "metadata": {"docs": {"rs": {"all-features": true}}},
        });
        let with = |key: &str, value: Value| {
            let mut metadata = whole.clone();
            metadata[key] = value;
            lacks(&Crate { metadata, ..one("a", &[]) })
        };
        assert_eq!(with("name", "a".into()), [""; 0]);
        assert_eq!(with("description", Value::Null), ["has no description"]);
        assert_eq!(with("license", Value::Null), ["has no license"]);
        assert_eq!(with("readme", Value::Null), ["has no readme"]);
        assert_eq!(with("rust_version", Value::Null), ["has no rust-version"]);
        assert_eq!(with("documentation", Value::Null), ["has no documentation"]);
        assert_eq!(with("keywords", json!([])), ["has 0 keywords, not 1 to 5"]);
        assert_eq!(with("categories", json!([])), ["has no categories"]);
        assert_eq!(with("metadata", Value::Null), ["has no [package.metadata.docs.rs]"]);
        assert!(with("readme", "NONE.md".into())[0].contains("NONE.md: "));
        let bare = Crate { metadata: whole, folder: root().join("xtask/src"), ..one("a", &[]) };
        let text = lacks(&bare).join("\n");
        assert!(text.contains("has no LICENSE-APACHE") && text.contains("LICENSE-MIT"), "{text}");
        assert!(text.contains("README.md: "), "{text}");
    }

    #[test]
    fn a_licence_is_that_of_the_repository() {
        let folder = tempfile::tempdir().unwrap();
        // What a link becomes where the system has none.
        fs::write(folder.path().join("LICENSE-MIT"), "../LICENSE-MIT").unwrap();
        let error = licence(folder.path(), "LICENSE-MIT").unwrap_err();
        assert_eq!(error, "LICENSE-MIT is not the one in the root of the repository");
        assert_eq!(licence(&root(), "LICENSE-MIT"), Ok(()));
    }

    #[test]
    fn links_to_files_are_found() {
        let text = "[a](https://a) [b](#b) [c](../docs/c.md) and [d](d.md)";
        let wrong =
            ["the README links to the file ../docs/c.md", "the README links to the file d.md"];
        assert_eq!(links_outside(text), wrong);
    }

    #[test]
    fn the_unpacked_crates_are_a_workspace() {
        let text = workspace_of(&[one("a", &[]), one("b", &["a"])]).unwrap();
        let manifest: toml::Table = text.parse().unwrap();
        assert_eq!(manifest["workspace"]["members"].as_array().unwrap().len(), 2);
        assert_eq!(manifest["patch"]["crates-io"]["b"]["path"].as_str(), Some("b-0.1.0"));
        assert!(manifest["profile"]["dev"].is_table(), "{text}");
    }
}
