//! All tests, by one command.

use std::{fs, path::Path, process::Command};

use crate::{
    apt::apt,
    process::{Result, cargo, show, succeeds, target},
    setup,
};

/// Runs every kind of test, also after a failure. Returns whether all passed. `args` are passed to
/// the first kind, the tests of the workspace.
///
/// # Errors
/// When a tool cannot be installed or started.
pub fn test(args: &[String]) -> Result<bool> {
    let tools = setup::setup()?;
    let mut results = Vec::new();

    let mut workspace = cargo();
    workspace.args(["test", "--workspace", "--no-fail-fast"]).args(args);
    results.push(("workspace", Some(show(tools.announce(&mut workspace))?)));

    // What FFmpeg hosts or judges, with the other FFmpeg. (The tests of `testbed` take both by
    // themselves.)
    if let Some(other) = tools.swapped() {
        let programs = ["real", "hosted", "players", "virtual*"].map(|name| ["--test", name]);
        let again = [
            programs.concat(),
            vec!["--test", "cli", "--", "colours::", "detection::", "frames::", "mp4::"],
        ];
        for args in again {
            let mut tests = cargo();
            tests.args(["test", "--workspace", "--no-fail-fast"]).args(args);
            results.push(("second FFmpeg", Some(show(other.announce(&mut tests))?)));
        }
    }

    // A target directory of its own spares the rebuild of everything else afterwards.
    for (what, package) in [
        ("models of the ring (loom)", "encoder-ringbuf"),
        ("models of tasks (loom)", "encoder-core"),
    ] {
        let mut models = cargo();
        models.args(["test", "-p", package, "--test", "loom"]);
        models.env("RUSTFLAGS", "--cfg ring_loom").env("CARGO_TARGET_DIR", target().join("loom"));
        results.push((what, Some(show(&mut models)?)));
    }

    let native = if libx264() {
        let mut native = cargo();
        // Of the whole workspace, so that the dependencies are built already.
        native.args(["test", "--workspace", "--features", "encoder-x264/native"]);
        native.args(["--test", "native", "--test", "hosted", "--test", "conformance"]);
        Some(show(tools.announce(&mut native))?)
    } else {
        None
    };
    results.push(("native x264", native));

    println!();
    for (what, passed) in &results {
        let word = match passed {
            Some(true) => "passed",
            Some(false) => "FAILED",
            None => "left out: it needs libx264-dev, libclang-dev and pkg-config",
        };
        println!("{what}: {word}");
    }
    Ok(results.iter().all(|(_, passed)| *passed != Some(false)))
}

/// Whether libx264 can be linked; installs its development files where that is possible.
pub fn libx264() -> bool {
    let is_there = || succeeds(Command::new("pkg-config").args(["--exists", "x264"])) && libclang();
    is_there() || (apt(&["libx264-dev", "libclang-dev", "pkg-config"]) && is_there())
}

/// Whether bindgen will find libclang: in LIBCLANG_PATH, by llvm-config, or where Linux
/// distributions put it.
fn libclang() -> bool {
    let has = |dir: &Path| {
        fs::read_dir(dir).is_ok_and(|entries| {
            entries.flatten().any(|e| e.file_name().to_string_lossy().starts_with("libclang.so"))
        })
    };
    let in_llvm = |parent: &str| {
        fs::read_dir(parent)
            .is_ok_and(|entries| entries.flatten().any(|e| has(&e.path().join("lib"))))
    };
    std::env::var_os("LIBCLANG_PATH").is_some()
        || succeeds(Command::new("llvm-config").arg("--version"))
        || in_llvm("/usr/lib")
        || has(Path::new("/usr/lib/x86_64-linux-gnu"))
        || has(Path::new("/usr/lib/aarch64-linux-gnu"))
        || has(Path::new("/usr/lib64"))
}
