//! Fuzzing, with cargo-fuzz: needs nightly Rust. `fuzz/README.md` describes the targets and how to
//! add one.

use std::{fs, path::Path, process::Command};

use crate::{
    process::{Result, cargo, root, show, succeeds},
    workspace::{metadata, target_of},
};

/// Runs each target, or only `target`, for `minutes` minutes. Returns whether there were no
/// findings.
///
/// # Errors
/// When a tool is missing, or there is no such target.
pub fn fuzz(minutes: u32, target: Option<&str>) -> Result<bool> {
    let folder = root().join("fuzz");
    let all = targets(&folder)?;
    let chosen: Vec<_> = all.iter().filter(|name| target.is_none_or(|t| t == *name)).collect();
    if chosen.is_empty() {
        return Err(format!("no such target; there are {}", all.join(", ")).into());
    }
    tools()?;
    // What is fuzzed has the versions that are shipped.
    fs::copy(root().join("Cargo.lock"), folder.join("Cargo.lock"))?;
    let mut results = Vec::new();
    for name in chosen {
        results.push((name, run(&folder, name, minutes)?));
    }
    println!();
    for (name, passed) in &results {
        println!("{name}: {}", if *passed { "no finding" } else { "FAILED" });
    }
    Ok(results.iter().all(|(_, passed)| *passed))
}

fn targets(folder: &Path) -> Result<Vec<String>> {
    let manifest = folder.join("Cargo.toml").display().to_string();
    let metadata = metadata(&["--no-deps", "--manifest-path", &manifest])?;
    let targets = metadata["packages"][0]["targets"].as_array().into_iter().flatten();
    Ok(targets.filter_map(|target| target["name"].as_str()).map(String::from).collect())
}

/// Cargo of nightly Rust. (The Cargo in `CARGO` does not support `+nightly`, which is a feature of
/// rustup.)
fn nightly() -> Command {
    let mut command = Command::new("cargo");
    command.arg("+nightly").current_dir(root().join("fuzz"));
    command
}

fn tools() -> Result<()> {
    if !succeeds(nightly().arg("--version")) {
        return Err("nightly Rust is missing: rustup toolchain install nightly".into());
    }
    let is_there = || succeeds(nightly().args(["fuzz", "--version"]));
    let installed = || show(cargo().args(["install", "cargo-fuzz", "--locked"]));
    if is_there() || (installed()? && is_there()) {
        return Ok(());
    }
    Err("cargo-fuzz is missing, and `cargo install cargo-fuzz --locked` fails".into())
}

fn run(folder: &Path, name: &str, minutes: u32) -> Result<bool> {
    // New inputs are kept in `corpus`, findings in `artifacts`.
    let corpus = folder.join("corpus").join(name);
    fs::create_dir_all(&corpus)?;
    let mut fuzz = nightly();
    fuzz.args(["fuzz", "run", name]).arg(corpus).arg(folder.join("seeds").join(name));
    fuzz.arg("--").arg(format!("-max_total_time={}", 60 * minutes));
    // Hangs, and allocations by claimed sizes, are findings; the limits of the targets are low.
    fuzz.args(["-timeout=10", "-rss_limit_mb=2048", "-malloc_limit_mb=256"]);
    fuzz.args(["-max_len=8192", "-print_final_stats=1"]);
    let words = folder.join("dictionaries").join(format!("{name}.dict"));
    if words.is_file() {
        fuzz.arg(format!("-dict={}", words.display()));
    }
    show(&mut fuzz)
}

/// Regenerates the seeds that the tests generate.
///
/// # Errors
/// When Cargo cannot be started.
pub fn seeds() -> Result<bool> {
    let mut test = cargo();
    let package = target_of("test", "seeds")?.package;
    test.args(["test", "--package", &package, "--test", "seeds", "what_their_names_say"]);
    show(test.env("ENCODER_WRITE_SEEDS", "1"))
}
