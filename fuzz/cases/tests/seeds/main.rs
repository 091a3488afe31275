//! The fuzz targets, with the seeds in `fuzz/seeds` and small changes of them. The seeds whose
//! names begin with `found-` are findings; the others are made again by `cargo xtask seeds`.
#![allow(clippy::unwrap_used)]

mod seeds;

use std::{
    collections::BTreeSet,
    fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
    thread,
};

use encoder_fuzz_cases::{TARGETS, Target};

const FOUND: &str = "found-";

/// Bytes of a seed that are changed and cut at, one by one: its first ones.
const CHANGED: usize = 256;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The seeds of a target: name and bytes.
fn seeds_of(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = fuzz().join("seeds").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut seeds: Vec<_> = entries
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
        })
        .collect();
    seeds.sort();
    seeds
}

fn target(name: &str) -> Target {
    TARGETS.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("no {name}")).1
}

#[test]
fn seeds_and_small_changes_of_them_give_no_finding() {
    thread::scope(|scope| {
        for (name, target) in TARGETS {
            scope.spawn(move || replay(name, *target));
        }
    });
}

fn replay(name: &str, target: Target) {
    let check = |seed: &str, change: &str, bytes: &[u8]| {
        let quiet = catch_unwind(|| target(bytes)).is_ok();
        assert!(quiet, "finding in {name}: {seed} {change}");
    };
    for (seed, bytes) in seeds_of(name) {
        check(&seed, "as it is", &bytes);
        for at in 0..bytes.len().min(CHANGED) {
            check(&seed, &format!("cut at byte {at}"), &bytes[..at]);
            for change in [1 << (at % 8), 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] ^= change;
                check(&seed, &format!("with byte {at} changed by {change:#x}"), &bytes);
            }
        }
    }
}

/// With `ENCODER_WRITE_SEEDS` in the environment they are written anew.
#[test]
fn seeds_are_what_their_names_say() {
    let made = seeds::all();
    if std::env::var_os("ENCODER_WRITE_SEEDS").is_some() {
        for (target, _) in TARGETS {
            fs::create_dir_all(fuzz().join("seeds").join(target)).unwrap();
            for (seed, _) in seeds_of(target).iter().filter(|(seed, _)| !seed.starts_with(FOUND)) {
                fs::remove_file(fuzz().join("seeds").join(target).join(seed)).unwrap();
            }
        }
        for seed in &made {
            let path = fuzz().join("seeds").join(seed.target).join(&seed.name);
            fs::write(path, &seed.bytes).unwrap();
        }
    }
    for seed in &made {
        // What is written, and what would be.
        let path = fuzz().join("seeds").join(seed.target).join(&seed.name);
        let written = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        for bytes in [&seed.bytes, &written] {
            assert_eq!(target(seed.target)(bytes), seed.is_good, "{}: {}", seed.target, seed.name);
        }
    }
    let mut total = 0;
    for (target, _) in TARGETS {
        let made: BTreeSet<_> =
            made.iter().filter(|s| s.target == *target).map(|s| s.name.as_str()).collect();
        for (name, bytes) in seeds_of(target) {
            assert!(bytes.len() < 4096, "{target}/{name} has {} bytes", bytes.len());
            assert!(
                name.starts_with(FOUND) || made.contains(name.as_str()),
                "{target}/{name} is made by nothing"
            );
            total += bytes.len();
        }
    }
    assert!(total < 300 << 10, "{total} bytes of seeds");
}

#[test]
fn each_target_has_its_program() {
    let manifest: toml::Table =
        fs::read_to_string(fuzz().join("Cargo.toml")).unwrap().parse().unwrap();
    let bins = manifest["bin"].as_array().unwrap().iter();
    let bins: Vec<_> = bins.map(|bin| bin["name"].as_str().unwrap()).collect();
    let targets: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(bins, targets);
    for name in targets {
        let program = fs::read_to_string(fuzz().join(format!("targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("encoder_fuzz_cases::{name}(")), "{program}");
    }
}
