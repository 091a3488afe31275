//! The times that a recording has, read with readers from elsewhere.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    process::{Result, output},
    pypi,
};

/// The log time and the header stamp of a message, in nanoseconds.
pub type Times = (i64, Option<i64>);

/// Reads recordings with the Python packages `mcap` and `rosbags`.
pub struct Reader {
    script: PathBuf,
    packages: PathBuf,
}

impl Reader {
    /// Installs the packages.
    ///
    /// # Errors
    /// When they cannot be had.
    pub fn new() -> Result<Self> {
        let packages = pypi::folder("recordings");
        if !packages.join("rosbags").is_dir() {
            let names = ["mcap", "rosbags", "zstandard", "lz4", "ruamel.yaml", "numpy", "apsw"];
            pypi::install(
                &packages,
                &[&names[..], &["backports.zstd", "typing_extensions"]].concat(),
            )?;
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/corpus/times.py");
        Ok(Self { script, packages })
    }

    /// The times of the messages of each camera topic, in the order of log times. Topics that the
    /// packages cannot read are missing.
    ///
    /// # Errors
    /// When the script fails.
    pub fn times(&self, recording: &Path) -> Result<BTreeMap<String, Vec<Times>>> {
        let mut command = Command::new("python3");
        command.arg(&self.script).arg(recording).env("PYTHONPATH", &self.packages);
        Ok(serde_json::from_slice(&output(&mut command)?.stdout)?)
    }
}
