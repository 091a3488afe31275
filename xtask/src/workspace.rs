//! The workspace as Cargo describes it: the paths of targets, and the list of backends. No other
//! file of these commands names the folder or the package of a backend.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::process::{Result, cargo, output};

/// The program that is measured, tested and handed out.
pub const PROGRAM: &str = "encoder";

/// Backends that need no device.
const SOFTWARE: [&str; 2] = ["x264", "openh264"];

/// x264 in process: a variant of a backend.
pub const NATIVE: &str = "x264-native";

/// The package whose features are the backends: each feature enables the crate of a backend.
const FACADE: &str = "encoder-pipeline";

/// A backend of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its name: the same for the feature, the façade and the program.
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

/// The backends: the default features of the façade that enable a crate.
///
/// # Errors
/// When Cargo cannot read the workspace, or there are none.
pub fn backends() -> Result<Vec<Backend>> {
    backends_of(&metadata(&["--no-deps"])?)
}

fn backends_of(metadata: &Value) -> Result<Vec<Backend>> {
    let facade = package(metadata, FACADE)?;
    let backend = |name: &str| {
        let mut enables = list(&facade["features"][name]).filter_map(Value::as_str);
        let package = enables.find_map(|word| word.strip_prefix("dep:"))?.into();
        Some(Backend { name: name.into(), package })
    };
    let names = list(&facade["features"]["default"]).filter_map(Value::as_str);
    let backends: Vec<_> = names.filter_map(backend).collect();
    match backends.is_empty() {
        true => Err(format!("no default feature of {FACADE} is a backend").into()),
        false => Ok(backends),
    }
}

/// The default features of the program beside the backends: in every program that is handed out.
///
/// # Errors
/// When Cargo cannot read the workspace.
pub fn other_features() -> Result<Vec<String>> {
    let metadata = metadata(&["--no-deps"])?;
    let program = target_of("bin", PROGRAM)?.package;
    other_features_of(&metadata, &program)
}

fn other_features_of(metadata: &Value, program: &str) -> Result<Vec<String>> {
    let backends = backends_of(metadata)?;
    let features = &package(metadata, program)?["features"]["default"];
    let others = list(features)
        .filter_map(Value::as_str)
        .filter(|name| backends.iter().all(|backend| backend.name != *name));
    Ok(others.map(String::from).collect())
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
                    "default": ["nvenc", "mcap", "x264", "prometheus"],
                    "nvenc": ["encoder-pipeline/nvenc"],
                    "prometheus": ["dep:exporter"],
                },
                "targets": [
                    {"name": "encoder", "kind": ["bin"], "src_path": "/w/cli/src/main.rs"},
                    {"name": "both", "kind": ["test"], "src_path": "/w/cli/tests/both.rs"},
                ],
            },
            {
                "name": "encoder-pipeline",
                "features": {
                    "default": ["nvenc", "x264", "mcap"],
                    "mcap": ["encoder-recording/mcap"],
                    "nvenc": ["dep:encoder-nvenc"],
                    "x264": ["dep:encoder-x264"],
                    "x264-native": ["x264", "encoder-x264/native"],
                },
                "targets": [
                    {"name": "encoder_pipeline", "kind": ["lib"], "src_path": "/w/facade/src/lib.rs"},
                    {"name": "both", "kind": ["test"], "src_path": "/w/facade/tests/both.rs"},
                ],
            },
        ]})
    }

    #[test]
    fn backends_are_the_features_that_enable_a_crate_of_their_own() {
        let backend =
            |name: &str| Backend { name: name.into(), package: format!("encoder-{name}") };
        let mut workspace = workspace();
        assert_eq!(backends_of(&workspace).unwrap(), ["nvenc", "x264"].map(backend));
        assert_eq!(other_features_of(&workspace, "cli").unwrap(), ["mcap", "prometheus"]);
        workspace["packages"][1]["features"]["default"] = json!(["mcap"]);
        assert!(backends_of(&workspace).is_err());
    }

    #[test]
    fn targets_are_found_by_kind_and_name() {
        let of = |kind, name| {
            let found = targets_of(&workspace(), kind, name);
            found.into_iter().map(|target| target.package).collect::<Vec<_>>()
        };
        assert_eq!(of("bin", "encoder"), ["cli"]);
        assert_eq!(of("test", "encoder"), [""; 0]);
        assert_eq!(of("test", "both"), ["cli", "encoder-pipeline"]);
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
