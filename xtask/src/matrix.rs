//! The matrix of backends: each alone, the usual combinations, none, all; and macOS.

use std::{process::Command, time::Instant};

use crate::{
    macos,
    process::{Result, cargo, merged},
    program::{Detected, built, contains_exactly, detect},
    setup::{self, Tools},
    tally::{Tally, tallies},
    test::libx264,
    workspace::{Backend, NATIVE, PROGRAM, backends, feature_list, has_target, other_features},
};

/// Tests on a virtual device stand in files whose names begin so, `tests/virtual.rs` in a
/// backend's crate and `tests/virtual_<backend>.rs` of the program.
const VIRTUAL: &str = "tests/virtual";

/// Builds and tests the program with each set of features, and prints a table. Returns whether
/// every line is correct. With `only`, just the sets with that backend; `quick` leaves out the
/// pairs, and the tests of the backends' crates, which are also part of `cargo xtask test`.
///
/// # Errors
/// When a tool cannot be installed or started, or there is no such backend.
pub fn matrix(only: Option<&str>, quick: bool) -> Result<bool> {
    let matrix = Matrix { tools: setup::setup()?, backends: backends()?, quick };
    let names: Vec<_> = matrix.backends.iter().map(|backend| backend.name.as_str()).collect();
    if let Some(name) = only.filter(|name| !names.contains(name)) {
        return Err(format!("no backend {name}: there are {}", names.join(", ")).into());
    }
    let mut rows = Vec::new();
    for set in matrix.sets()? {
        if only.is_none_or(|name| set.iter().any(|f| f == name)) {
            rows.push(matrix.row(&set)?);
        }
    }
    if only.is_none_or(|name| name == "videotoolbox") {
        rows.push(macos_row());
    }
    println!(
        "\n| features | built | contains exactly these | tests passed | exercised here | seconds |\n\
         |---|---|---|---|---|---|"
    );
    for row in &rows {
        let Row { features, built, contents, tests, exercised, seconds, .. } = row;
        println!("| {features} | {built} | {contents} | {tests} | {exercised} | {seconds} |");
    }
    Ok(rows.iter().all(|row| row.right))
}

struct Row {
    features: String,
    built: String,
    contents: String,
    tests: String,
    exercised: String,
    seconds: u64,
    right: bool,
}

struct Matrix {
    tools: Tools,
    backends: Vec<Backend>,
    quick: bool,
}

impl Matrix {
    /// The sets of features. The program of the last stays in the target directory.
    fn sets(&self) -> Result<Vec<Vec<String>>> {
        let mut sets = vec![vec![]];
        for backend in &self.backends {
            sets.push(vec![backend.name.clone()]);
            if !backend.is_software() && !self.quick {
                sets.push(vec![backend.name.clone(), "x264".into()]);
            }
        }
        if libx264() {
            sets.push(vec![NATIVE.into()]);
        } else {
            println!("{NATIVE} left out: it needs libx264-dev, libclang-dev and pkg-config");
        }
        let all = self.backends.iter().map(|backend| backend.name.clone());
        sets.push(all.chain(other_features()?).collect());
        Ok(sets)
    }

    fn row(&self, set: &[String]) -> Result<Row> {
        let features = if set.is_empty() { "none".into() } else { set.join(", ") };
        println!("features: {features}");
        let begun = Instant::now();
        // The whole workspace is named so that the dependencies are those of `cargo test
        // --workspace`, which are built already.
        let features_of_cargo = feature_list(set)?;
        let mut targets = vec!["--workspace", "--no-default-features"];
        targets.extend(["--features", &features_of_cargo, "--test", "registry"]);
        // A device is compared with x264.
        let on_virtual = set.first().map(|device| format!("virtual_{device}")).unwrap_or_default();
        if set.len() == 2 && !self.quick && has_target("test", &on_virtual)? {
            targets.extend(["--test", &on_virtual]);
        }
        // A test builds the program of its own package only.
        let mut build = cargo();
        build.arg("build").args(&targets).args(["--bin", PROGRAM]);
        build.env("CARGO_TERM_COLOR", "never");
        let (mut passed, mut text) = merged(build)?;
        let mut warnings = count_warnings(&text);
        if passed {
            let mut test = cargo();
            test.arg("test").args(&targets).arg("--no-fail-fast");
            let (succeeded, more) = self.run(test)?;
            passed = succeeded;
            text.push_str(&more);
        }
        // Of a backend alone, also the tests of its crate.
        let crate_tests = match set {
            [feature] if !self.quick => self.crate_tests(feature)?,
            _ => None,
        };
        if let Some((succeeded, more)) = &crate_tests {
            passed &= succeeded;
            warnings += count_warnings(more);
            text.push_str(more);
        }
        let contents = contains_exactly(&built(), set, &self.backends);
        let detected = detect(self.tools.announce(&mut Command::new(built())));
        let tallies = tallies(&text);
        let right = passed && warnings == 0 && contents.is_ok() && detected.is_ok();
        if !right {
            println!("{text}");
        }
        let word = match (text.contains("error: could not compile"), warnings) {
            (true, _) => "FAILED".into(),
            (false, 0) => "yes".into(),
            (false, count) => format!("with {count} warnings"),
        };
        Ok(Row {
            features,
            built: word,
            contents: contents.map_or_else(|error| format!("NO: {error}"), |()| "yes".into()),
            tests: counts(&tallies),
            exercised: match detected {
                Err(error) => format!("FAILED: {error}"),
                Ok(_) if !passed => "FAILED".into(),
                Ok(_) if set.is_empty() => "nothing to exercise".into(),
                Ok(all) => {
                    let words: Vec<_> = all
                        .iter()
                        .map(|one| self.exercised(one, &tallies, crate_tests.is_some()))
                        .collect();
                    words.join("; ")
                }
            },
            seconds: begun.elapsed().as_secs(),
            right,
        })
    }

    /// Runs the tests of the crate that brings this feature.
    fn crate_tests(&self, feature: &str) -> Result<Option<(bool, String)>> {
        let name = feature.strip_suffix("-native").unwrap_or(feature);
        let Some(backend) = self.backends.iter().find(|backend| backend.name == name) else {
            return Ok(None);
        };
        let mut command = cargo();
        command.args(["test", "-p", &backend.package, "--no-fail-fast"]);
        if feature == NATIVE {
            command.args(["--features", "native"]);
        }
        self.run(command).map(Some)
    }

    /// Runs tests and reports whether some passed without running, because a device or tool is
    /// missing.
    fn run(&self, mut command: Command) -> Result<(bool, String)> {
        command.args(["--", "--show-output"]).env("CARGO_TERM_COLOR", "never");
        self.tools.announce(&mut command);
        merged(command)
    }

    /// How far a backend was tested, by the results of detection and of the tests.
    fn exercised(&self, found: &Detected, tallies: &[Tally], alone: bool) -> String {
        let software = self
            .backends
            .iter()
            .any(|backend| backend.name == found.encoder && backend.is_software());
        let mut ways = Vec::new();
        match &found.usable {
            Ok(device) if software => ways.push(format!("software, really run ({device})")),
            Ok(device) => ways.push(format!("real hardware ({device})")),
            Err(_) => {}
        }
        // They are run of sets with one such backend only.
        let on_virtual = tallies.iter().filter(|tally| tally.target.starts_with(VIRTUAL));
        let count: u32 = on_virtual.map(|tally| tally.passed.saturating_sub(tally.left_out)).sum();
        if count > 0 && !software {
            ways.push(format!("virtual device ({count} tests)"));
        }
        if let (Err(reason), true) = (&found.usable, ways.is_empty()) {
            // The tests of its crate hand its arguments to FFmpeg, where FFmpeg has the encoder.
            ways.push(match alone {
                true => format!("arguments only ({reason})"),
                false => "registered, refused".into(),
            });
        }
        format!("{}: {}", found.encoder, ways.join(", "))
    }
}

/// Of the compiler; what tests write comes later.
fn count_warnings(text: &str) -> usize {
    let building = text.lines().take_while(|line| !line.trim_start().starts_with("Running "));
    building.filter(|line| line.starts_with("warning: ")).count()
}

fn counts(tallies: &[Tally]) -> String {
    let sum = |count: fn(&Tally) -> u32| tallies.iter().map(count).sum::<u32>();
    let (passed, failed, left_out) = (sum(|t| t.passed), sum(|t| t.failed), sum(|t| t.left_out));
    let mut text = (passed.saturating_sub(left_out)).to_string();
    if failed > 0 {
        text.push_str(&format!(", {failed} FAILED"));
    }
    if left_out > 0 {
        text.push_str(&format!(", {left_out} left out"));
    }
    text
}

/// Types only: nothing for macOS is run elsewhere.
fn macos_row() -> Row {
    let features = ["videotoolbox", "x264"].map(String::from);
    let begun = Instant::now();
    println!("{}: {}", macos::TARGET, features.join(", "));
    let (built, right) = match macos::check(&features) {
        Ok((true, _)) => ("types checked".into(), true),
        Ok((false, text)) => {
            println!("{text}");
            ("FAILED".into(), false)
        }
        Err(error) => (format!("not type-checked: {error}"), true),
    };
    Row {
        features: format!("{} for {}", features.join(", "), macos::TARGET),
        built,
        contents: "–".into(),
        tests: "–".into(),
        exercised: "not run".into(),
        seconds: begun.elapsed().as_secs(),
        right,
    }
}
