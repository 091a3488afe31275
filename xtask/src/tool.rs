//! Programs of Cargo that the checks use: the user's, or one below the target directory.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    process::{Result, cargo, output, show},
    pypi,
};

/// A program of Cargo.
pub struct Tool {
    /// Its name, which is that of its crate.
    pub name: &'static str,
    /// The version that is installed. Others of the same minor number are used too.
    pub version: &'static str,
    /// The Python package that contains the program for every system: installed in seconds, while
    /// building it takes minutes.
    pub package: Option<&'static str>,
}

impl Tool {
    /// The program, which is installed if it is missing.
    ///
    /// # Errors
    /// When it cannot be installed.
    pub fn program(&self) -> Result<PathBuf> {
        let name = format!("{}{}", self.name, env::consts::EXE_SUFFIX);
        let folder = pypi::folder(self.name);
        let unpacked = folder.join("bin").join(&name);
        let known = [PathBuf::from(name), unpacked.clone()];
        if let Some(path) = known.into_iter().find(|path| self.is_usable(path)) {
            return Ok(path);
        }
        if let Some(package) = self.package {
            if let Err(error) = pypi::install(&folder, &[&format!("{package}=={}", self.version)]) {
                println!("{}: {error}", self.name);
            }
            if self.is_usable(&unpacked) {
                return Ok(unpacked);
            }
            println!("{}: no program for this system in the Python package index", self.name);
        }
        println!("{}: building it takes minutes", self.name);
        let mut install = cargo();
        install.args(["install", self.name, "--locked", "--version", self.version]);
        install.arg("--root").arg(&folder);
        // The caller's flags and target directory must not affect this build.
        install.env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS");
        if show(&mut install)? && self.is_usable(&unpacked) {
            return Ok(unpacked);
        }
        let Self { name, version, .. } = self;
        Err(format!("{name} {version} is missing: cargo install {name} --locked").into())
    }

    fn is_usable(&self, program: &Path) -> bool {
        output(Command::new(program).arg("--version"))
            .is_ok_and(|answer| self.has_minor(&String::from_utf8_lossy(&answer.stdout)))
    }

    /// Whether the answer, such as `cargo-deny 0.20.2`, has the minor number of the version.
    fn has_minor(&self, answer: &str) -> bool {
        let minor = self.version.rsplit_once('.').map_or(self.version, |(minor, _)| minor);
        let number = answer.split_whitespace().nth(1).unwrap_or_default();
        number.strip_prefix(minor).is_some_and(|patch| patch.starts_with('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_another_minor_number_are_not_taken() {
        let tool = Tool { name: "cargo-deny", version: "0.20.2", package: None };
        for (answer, is_usable) in [
            ("cargo-deny 0.20.2\n", true),
            ("cargo-deny 0.20.11", true),
            ("cargo-deny 0.2.0", false),
            ("cargo-deny 0.200.1", false),
            ("cargo-deny 0.21.0", false),
            ("cargo-deny", false),
            ("", false),
        ] {
            assert_eq!(tool.has_minor(answer), is_usable, "{answer}");
        }
    }
}
