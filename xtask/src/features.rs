//! The matrix of backend features.

use std::time::Instant;

use crate::{
    process::{Result, cargo},
    test::libx264,
};

/// The features, each of which must build alone.
const BACKENDS: [&str; 5] = ["nvenc", "qsv", "videotoolbox", "x264", "openh264"];

/// Builds the program with each set of features and runs the test that compares the registry
/// with it. Prints a table: whether every line of it is right.
///
/// # Errors
/// When Cargo cannot be started.
pub fn features() -> Result<bool> {
    let mut sets: Vec<Vec<&str>> = vec![vec![]];
    sets.extend(BACKENDS.map(|backend| vec![backend]));
    if libx264() {
        sets.push(vec!["x264-native"]);
    } else {
        println!("x264-native left out: it needs libx264-dev, libclang-dev and pkg-config");
    }
    // The program of the last set is the one that stays in the target directory.
    sets.push(BACKENDS.to_vec());
    let mut rows = Vec::new();
    for set in &sets {
        let features = set.join(",");
        println!("features: {}", if set.is_empty() { "none" } else { &features });
        let begun = Instant::now();
        let wanted: Vec<_> = set.iter().map(|f| format!("encoder-pipeline/{f}")).collect();
        // A test of the package builds and links its program too. The whole workspace is named so
        // that the dependencies are those of `cargo test --workspace`, which are built already.
        let output = cargo()
            .args(["test", "--workspace", "--no-default-features", "--test", "registry"])
            .args(["--features", &wanted.join(",")])
            .output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        let warnings = text.lines().filter(|line| line.starts_with("warning: ")).count();
        if !output.status.success() {
            println!("{text}{}", String::from_utf8_lossy(&output.stdout));
        }
        let verdict = match (output.status.success(), warnings) {
            (true, 0) => "ok",
            (true, _) => "warnings",
            (false, _) => "FAILED",
        };
        rows.push((features, verdict, begun.elapsed().as_secs()));
    }
    println!("\n| features | builds and registers | seconds |\n|---|---|---|");
    for (features, verdict, seconds) in &rows {
        let name = if features.is_empty() { "none" } else { features };
        println!("| {name} | {verdict} | {seconds} |");
    }
    Ok(rows.iter().all(|(_, verdict, _)| *verdict == "ok"))
}
