//! Tools that the Python package index has for every system.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use crate::process::{Result, output, succeeds, target};

/// Where packages with this purpose lie.
pub fn folder(name: &str) -> PathBuf {
    target().join("tools").join(name)
}

/// Installs packages into `folder`; nothing else of this machine's Python is touched.
///
/// # Errors
/// When there is no Python with pip, and no way to get pip, or a package cannot be had.
pub fn install(folder: &Path, packages: &[&str]) -> Result<()> {
    let python = ["python3", "python"]
        .into_iter()
        .find(|name| succeeds(Command::new(name).arg("--version")))
        .ok_or("no Python")?;
    let venv = target().join("tools").join("venv");
    let install = |python: &Path| {
        let mut command = Command::new(python);
        command.args(["-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target"]);
        output(command.arg(folder).args(packages)).map(drop)
    };
    install(Path::new(python)).or_else(|error| {
        // A Python without pip may bring one along in a virtual environment.
        if !succeeds(Command::new(python).args(["-m", "venv"]).arg(&venv)) {
            return Err(error);
        }
        let bin = venv.join(if cfg!(windows) { "Scripts" } else { "bin" });
        install(&bin.join(format!("python{}", env::consts::EXE_SUFFIX)))
    })?;
    println!("setup: {} installed in {}", packages.join(" and "), folder.display());
    Ok(())
}
