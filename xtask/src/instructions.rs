//! Counts the instructions of the code around the encoder, and compares them with recorded counts.
//! Times are not steady on shared machines; counts are, for the same compiler and processor family.

use std::{collections::BTreeMap, env, fs, path::PathBuf, process::Command};

use serde::{Deserialize, Serialize};

use crate::{
    apt::apt,
    process::{Result, cargo, output, show, succeeds, target},
    workspace::target_of,
};

/// The program with the workloads; the recorded counts are beside its source.
const BENCH: &str = "instructions";
/// How much a count may grow before it is reported: allocators and hash maps differ a little.
const TOLERANCE: f64 = 0.03;
/// How often a workload is repeated in the two runs whose difference is measured.
const TIMES: [u64; 2] = [1, 3];

/// The recorded counts, which are kept in the repository.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Record {
    /// Counts of another compiler or processor are not comparable.
    place: String,
    /// Instructions of one workload, by its name.
    counts: BTreeMap<String, u64>,
}

/// Counts, prints the table, and compares with the recorded counts. Returns whether no count has
/// grown. With `save`, records the counts instead.
///
/// # Errors
/// When the program does not build or run.
pub fn instructions(save: bool) -> Result<bool> {
    let valgrind = || succeeds(Command::new("valgrind").arg("--version"));
    if !(valgrind() || apt(&["valgrind"]) && valgrind()) {
        println!("instructions: left out: it needs valgrind");
        return Ok(true);
    }
    let program = build()?;
    let names = output(&mut Command::new(&program))?;
    let names = String::from_utf8_lossy(&names.stdout).into_owned();
    let mut now = Record { place: place()?, counts: BTreeMap::new() };
    for name in names.lines() {
        let [few, more] = TIMES.map(|times| count(&program, name, times));
        let each = (more? - few?) / (TIMES[1] - TIMES[0]);
        now.counts.insert(name.into(), each);
    }
    let path = target_of("bench", BENCH)?.source.with_extension("json");
    if save {
        fs::write(&path, serde_json::to_string_pretty(&now)? + "\n")?;
        println!("instructions: recorded in {}", path.display());
    }
    let known: Record = serde_json::from_slice(&fs::read(&path)?)?;
    let (text, grown) = judge(&now, &known);
    print!("{text}");
    Ok(grown.is_empty())
}

/// The table, and the counts that have grown.
fn judge(now: &Record, known: &Record) -> (String, Vec<String>) {
    let is_comparable = now.place == known.place;
    let mut text =
        String::from("\n| work | instructions | recorded | ratio |\n|---|---|---|---|\n");
    let mut grown = Vec::new();
    for (name, &count) in &now.counts {
        let before = known.counts.get(name).copied().filter(|_| is_comparable);
        let ratio = before.map(|before| count as f64 / before.max(1) as f64);
        if ratio.is_some_and(|ratio| ratio > 1.0 + TOLERANCE) {
            grown.push(name.clone());
        }
        let word = |value: Option<String>| value.unwrap_or_else(|| "–".into());
        let (before, ratio) =
            (before.map(|n| n.to_string()), ratio.map(|ratio| format!("{ratio:.3}")));
        text += &format!("| {name} | {count} | {} | {} |\n", word(before), word(ratio));
    }
    if !is_comparable {
        text += &format!("\nNot compared: this is {}, recorded was {}.\n", now.place, known.place);
    }
    for name in &grown {
        text += &format!(
            "\n{name} takes more instructions than recorded: make it cheaper, or record what it \
             costs now: cargo xtask instructions --save\n"
        );
    }
    (text, grown)
}

/// The program with the workloads, built like tests, so that its dependencies are already built.
fn build() -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--workspace", "--bench", BENCH]);
    // Both settings change inlining.
    command.env("CARGO_PROFILE_DEV_OPT_LEVEL", "1").env("CARGO_INCREMENTAL", "0");
    if !show(&mut command)? {
        return Err("the benchmark does not build".into());
    }
    // Cargo adds a hash to the file name, which is only in its output.
    let told = output(command.args(["--message-format", "json", "--quiet"]))?;
    let told = String::from_utf8_lossy(&told.stdout);
    let program = told.lines().rev().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == BENCH)
            .then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    program.ok_or_else(|| "Cargo did not tell where the benchmark is".into())
}

/// Instructions of the whole program.
fn count(program: &PathBuf, name: &str, times: u64) -> Result<u64> {
    let out = target().join("callgrind.out");
    let mut command = Command::new("valgrind");
    command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", out.display()));
    let run = command.arg(program).arg(name).arg(times.to_string()).output()?;
    let said = String::from_utf8_lossy(&run.stderr);
    if !run.status.success() {
        return Err(format!("{name}: {said}").into());
    }
    collected(&said).ok_or_else(|| format!("{name}: valgrind told no count: {said}").into())
}

/// Parses `==7== Collected : 1234` in valgrind's output.
fn collected(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.split("Collected :").nth(1)?.trim().parse().ok())
}

/// Compiler and processor, as far as counts depend on them.
fn place() -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let rustc = output(Command::new(rustc).arg("--version"))?;
    let rustc = String::from_utf8_lossy(&rustc.stdout).trim().to_owned();
    let valgrind = output(Command::new("valgrind").arg("--version"))?;
    let valgrind = String::from_utf8_lossy(&valgrind.stdout).trim().to_owned();
    Ok(format!("{rustc}, {valgrind}, {}{}", env::consts::ARCH, features()))
}

/// The vector instructions that valgrind passes on.
fn features() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        return " with AVX2";
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(place: &str, counts: &[(&str, u64)]) -> Record {
        let counts = counts.iter().map(|&(name, count)| (name.into(), count)).collect();
        Record { place: place.into(), counts }
    }

    #[test]
    fn what_has_grown_is_told() {
        let known = record("here", &[("a", 1000), ("b", 1000), ("gone", 1)]);
        let now = record("here", &[("a", 1029), ("b", 1031), ("new", 5)]);
        let (text, grown) = judge(&now, &known);
        assert_eq!(grown, ["b"]);
        assert!(text.contains("| a | 1029 | 1000 | 1.029 |"), "{text}");
        assert!(text.contains("| new | 5 | – | – |"), "{text}");
        assert!(text.contains("b takes more") && text.contains("--save"), "{text}");
        assert!(!text.contains("Not compared"), "{text}");
    }

    #[test]
    fn counts_of_elsewhere_are_not_compared() {
        let (text, grown) = judge(&record("here", &[("a", 9)]), &record("there", &[("a", 1)]));
        assert!(grown.is_empty());
        assert!(
            text.contains("| a | 9 | – | – |") && text.contains("recorded was there"),
            "{text}"
        );
    }

    #[test]
    fn the_count_is_read_from_valgrinds_words() {
        let text =
            "==7== Callgrind\n==7== \n==7== Events    : Ir\n==7== Collected : 8241327\n==7== ";
        assert_eq!(collected(text), Some(8_241_327));
        assert_eq!(collected("==7== Collected :"), None);
    }
}
