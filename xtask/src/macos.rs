//! Building for macOS, there or from another system.

use std::{env, path::Path, process::Command};

use crate::{
    process::{Result, cargo, merged, output, succeeds},
    pypi,
    workspace::{PROGRAM, feature_list, target_of},
};

/// The oldest macOS on which programs run: the first on Apple silicon. (Zig would take its own.)
const OLDEST: &str = "11.0";

/// Macs with Apple silicon.
pub const TARGET: &str = "aarch64-apple-darwin";

/// Cargo with `subcommand` (`check`, `build`) for macOS, C and C++ included: elsewhere by
/// cargo-zigbuild, whose compiler brings Apple's headers along.
///
/// # Errors
/// Names what is missing.
pub fn cargo_for_macos(subcommand: &str) -> Result<Command> {
    standard_library()?;
    let mut command = if cfg!(target_os = "macos") {
        let mut cargo = cargo();
        cargo.arg(subcommand);
        cargo
    } else {
        let subcommand = if subcommand == "build" { "zigbuild" } else { subcommand };
        zigbuild(subcommand)?
    };
    command.args(["--target", TARGET]).env("MACOSX_DEPLOYMENT_TARGET", OLDEST);
    Ok(command)
}

/// Checks the types of the VideoToolbox backend and of the program that has it.
///
/// # Errors
/// Names what is missing; the types have not been checked then.
pub fn check(features: &[String]) -> Result<(bool, String)> {
    let mut command = cargo_for_macos("check")?;
    let package = target_of("bin", PROGRAM)?.package;
    command.args(["-p", "encoder-videotoolbox", "-p", &package, "--no-default-features"]);
    command.args(["--features", &feature_list(features)?]);
    merged(command)
}

fn standard_library() -> Result<()> {
    let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["--print", "target-libdir", "--target", TARGET]);
    let libraries = String::from_utf8(output(&mut rustc)?.stdout)?;
    let is_there = || Path::new(libraries.trim()).is_dir();
    let added = || succeeds(Command::new("rustup").args(["target", "add", TARGET])) && is_there();
    match is_there() || added() {
        true => Ok(()),
        false => Err(format!(
            "Rust's standard library for {TARGET} is missing, and `rustup target add {TARGET}` fails"
        )
        .into()),
    }
}

fn zigbuild(subcommand: &str) -> Result<Command> {
    let folder = pypi::folder("zig");
    let program = folder.join("bin").join(format!("cargo-zigbuild{}", env::consts::EXE_SUFFIX));
    let zig = folder.join("ziglang").join(format!("zig{}", env::consts::EXE_SUFFIX));
    let runs = || {
        succeeds(Command::new(&program).arg("--version"))
            && succeeds(Command::new(&zig).arg("version"))
    };
    if !runs() {
        pypi::install(&folder, &["ziglang==0.17.1", "cargo-zigbuild==0.24.1"])
            .map_err(|e| format!("no C compiler for {TARGET} (zig and cargo-zigbuild): {e}"))?;
    }
    if !runs() {
        return Err(format!("zig and cargo-zigbuild in {} do not run", folder.display()).into());
    }
    let mut command = Command::new(program);
    command.current_dir(crate::process::root()).arg(subcommand).env("CARGO_ZIGBUILD_ZIG_PATH", zig);
    Ok(command)
}
