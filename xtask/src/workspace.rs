//! What the workspace says of itself.

use serde_json::Value;

use crate::process::{Result, cargo, output};

/// Backends that need no device.
const SOFTWARE: [&str; 2] = ["x264", "openh264"];

/// x264 in process: a variant of a backend.
pub const NATIVE: &str = "x264-native";

/// The package of the program `encoder`.
pub const PROGRAM: &str = "encoder-cli";

/// A backend of the program: the feature of `encoder-pipeline`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its name: that of the feature.
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

/// Features of the program beside the backends: in every program that is handed out.
pub const OTHERS: [&str; 7] =
    ["prometheus", "bench", "mcap", "rosbag1", "rosbag2", "sqlite", "video"];

/// The backends: the default features of `encoder-pipeline` that enable a crate of their own.
///
/// # Errors
/// When Cargo cannot read the workspace.
pub fn backends() -> Result<Vec<Backend>> {
    let metadata = metadata(&["--no-deps"])?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let pipeline = packages.into_iter().find(|p| p["name"] == "encoder-pipeline");
    let features = &pipeline.ok_or("no package encoder-pipeline")?["features"];
    let names = features["default"].as_array().ok_or("encoder-pipeline has no default features")?;
    let backend = |name: &str| {
        let enables = features[name].as_array().into_iter().flatten().filter_map(Value::as_str);
        let package = enables.into_iter().find_map(|word| word.strip_prefix("dep:"))?.into();
        Some(Backend { name: name.into(), package })
    };
    Ok(names.iter().filter_map(Value::as_str).filter_map(backend).collect())
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

/// The features for Cargo, of the package of the program.
pub fn feature_list(features: &[String]) -> String {
    let words: Vec<_> = features.iter().map(|f| format!("{PROGRAM}/{f}")).collect();
    words.join(",")
}
