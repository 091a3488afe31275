//! The workspace as Cargo describes it: where a target is, and which backends there are. No other
//! file of these commands names the folder or the package of one.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::process::{Result, cargo, output};

/// The program that is measured, tested and handed out.
pub const PROGRAM: &str = "encoder";

/// Backends that need no device.
const SOFTWARE: [&str; 2] = ["x264", "openh264"];

/// x264 in process: a variant of a backend.
pub const NATIVE: &str = "x264-native";

/// The endpoint and the file of metrics: in every program that is handed out.
pub const PROMETHEUS: &str = "prometheus";

/// A backend of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its name: that of the program's feature.
    pub name: String,
    /// Its package.
    pub package: String,
}

impl Backend {
    /// Whether it needs no device.
    pub fn is_software(&self) -> bool {
        SOFTWARE.contains(&self.name.as_str())
    }
}

/// A program, test, benchmark or example of the workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The package that has it, for `--package`.
    pub package: String,
    /// Its file; of a folder with a `main.rs`, that.
    pub source: PathBuf,
}

/// The target of this kind (`bin`, `test`, `bench`, `example`) and name.
///
/// # Errors
/// When Cargo cannot read the workspace, or no package or several have one.
pub fn target_of(kind: &str, name: &str) -> Result<Target> {
    let mut found = targets_of(&metadata(&["--no-deps"])?, kind, name);
    match (found.pop(), found.is_empty()) {
        (Some(target), true) => Ok(target),
        (None, _) => Err(format!("no package has a {kind} target {name}").into()),
        _ => Err(format!("several packages have a {kind} target {name}").into()),
    }
}

/// Whether some package has it.
///
/// # Errors
/// When Cargo cannot read the workspace.
pub fn has_target(kind: &str, name: &str) -> Result<bool> {
    Ok(!targets_of(&metadata(&["--no-deps"])?, kind, name).is_empty())
}

fn targets_of(metadata: &Value, kind: &str, name: &str) -> Vec<Target> {
    let mut found = Vec::new();
    for package in list(&metadata["packages"]) {
        for target in list(&package["targets"]) {
            if target["name"] == name && list(&target["kind"]).any(|k| k == kind) {
                let word = |value: &Value| value.as_str().unwrap_or_default().to_string();
                let source = Path::new(&word(&target["src_path"])).to_path_buf();
                found.push(Target { package: word(&package["name"]), source });
            }
        }
    }
    found
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The backends, as the default features of the program list them, without that of metrics.
///
/// # Errors
/// When Cargo cannot read the workspace, or a feature enables no crate.
pub fn backends() -> Result<Vec<Backend>> {
    let program = target_of("bin", PROGRAM)?.package;
    backends_of(&metadata(&["--no-deps"])?, &program)
}

fn backends_of(metadata: &Value, program: &str) -> Result<Vec<Backend>> {
    let package = package(metadata, program)?;
    let names = list(&package["features"]["default"]).filter_map(Value::as_str);
    let backends: Vec<_> = names
        .filter(|name| *name != PROMETHEUS)
        .map(|name| Ok(Backend { name: name.into(), package: enabled(metadata, program, name)? }))
        .collect::<Result<_>>()?;
    match backends.is_empty() {
        true => Err(format!("{program} has no default features").into()),
        false => Ok(backends),
    }
}

/// The crate that a feature enables: itself, or through the feature of another package.
fn enabled(metadata: &Value, name: &str, feature: &str) -> Result<String> {
    let mut next = None;
    for word in list(&package(metadata, name)?["features"][feature]).filter_map(Value::as_str) {
        if let Some(enabled) = word.strip_prefix("dep:") {
            return Ok(enabled.into());
        }
        next = word.split_once('/').or(next);
    }
    // Features of packages never form a circle.
    let (next, feature_there) =
        next.ok_or_else(|| format!("feature {feature} of {name} enables no crate"))?;
    enabled(metadata, next.trim_end_matches('?'), feature_there)
}

fn package<'a>(metadata: &'a Value, name: &str) -> Result<&'a Value> {
    let found = list(&metadata["packages"]).find(|p| p["name"] == name);
    found.ok_or_else(|| format!("no package {name}").into())
}

/// `cargo metadata` with further arguments.
///
/// # Errors
/// When Cargo fails.
pub fn metadata(args: &[&str]) -> Result<Value> {
    let mut command = cargo();
    command.args(["metadata", "--format-version", "1"]).args(args);
    Ok(serde_json::from_slice(&output(&mut command)?.stdout)?)
}

/// The features for Cargo, each with the package of the program in front.
///
/// # Errors
/// When Cargo cannot read the workspace.
pub fn feature_list(features: &[String]) -> Result<String> {
    let program = target_of("bin", PROGRAM)?.package;
    let words: Vec<_> = features.iter().map(|feature| format!("{program}/{feature}")).collect();
    Ok(words.join(","))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn workspace() -> Value {
        json!({"packages": [
            {
                "name": "cli",
                "features": {
                    "default": ["nvenc", "prometheus", "x264"],
                    "nvenc": ["facade/nvenc"],
                    "prometheus": ["dep:exporter"],
                    "x264": ["facade/x264"],
                    "none": [],
                },
                "targets": [
                    {"name": "encoder", "kind": ["bin"], "src_path": "/w/cli/src/main.rs"},
                    {"name": "both", "kind": ["test"], "src_path": "/w/cli/tests/both.rs"},
                ],
            },
            {
                "name": "facade",
                "features": {"nvenc": ["dep:encoder-nvenc"], "x264": ["dep:encoder-x264"]},
                "targets": [
                    {"name": "facade", "kind": ["lib"], "src_path": "/w/facade/src/lib.rs"},
                    {"name": "both", "kind": ["test"], "src_path": "/w/facade/tests/both.rs"},
                ],
            },
        ]})
    }

    #[test]
    fn a_backend_is_found_through_the_features_of_other_packages() {
        let backend =
            |name: &str| Backend { name: name.into(), package: format!("encoder-{name}") };
        let workspace = workspace();
        assert_eq!(backends_of(&workspace, "cli").unwrap(), ["nvenc", "x264"].map(backend));
        let text = |error: Result<String>| error.unwrap_err().to_string();
        assert_eq!(
            text(enabled(&workspace, "cli", "none")),
            "feature none of cli enables no crate"
        );
        assert_eq!(
            backends_of(&workspace, "facade").unwrap_err().to_string(),
            "facade has no default features"
        );
    }

    #[test]
    fn targets_are_found_by_kind_and_name() {
        let of = |kind, name| {
            let found = targets_of(&workspace(), kind, name);
            found.into_iter().map(|target| target.package).collect::<Vec<_>>()
        };
        assert_eq!(of("bin", "encoder"), ["cli"]);
        assert_eq!(of("test", "encoder"), [""; 0]);
        assert_eq!(of("test", "both"), ["cli", "facade"]);
    }

    #[test]
    fn the_program_of_this_workspace_is_found() {
        let program = target_of("bin", PROGRAM).unwrap();
        assert!(program.source.ends_with("src/main.rs"), "{program:?}");
        assert!(target_of("bin", "no such program").is_err());
        let names: Vec<_> = backends().unwrap().into_iter().map(|b| (b.name, b.package)).collect();
        assert!(names.contains(&("openh264".into(), "encoder-openh264".into())), "{names:?}");
    }
}
