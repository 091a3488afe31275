//! The licence texts of everything that is linked into the program, for its archive.
//!
//! Which licences are permitted is in `deny.toml`, and `cargo xtask deny` checks the whole tree by
//! it. The texts are collected here: cargo-about omits those of C libraries in a crate under
//! another licence (LZ4), that of Rust's standard library, and takes minutes to build and to run.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    process::{Result, cargo, output, root},
    workspace::{PROGRAM, feature_list, metadata, target_of},
};

/// How the name of a file with a licence begins, in lower case.
const NAMES: [&str; 6] = ["licence", "license", "copying", "copyright", "notice", "unlicense"];

/// Folders of crates whose contents are not compiled into the program.
const NOT_LINKED: [&str; 7] =
    ["benches", "contrib", "examples", "ossfuzz", "programs", "sqlcipher", "tests"];

/// The second of two licences of which one may choose: not the choice here.
const NOT_CHOSEN: [(&str, &str); 1] = [("zstd-sys", "zstd/COPYING")];

/// A file for the archive.
pub struct Text {
    /// Its place below the folder of licences.
    pub path: String,
    /// Its contents.
    pub text: String,
}

/// The licence texts of the crates (and of what is bundled in them, and of Rust's standard
/// library) in the program with these features, and an index.
///
/// # Errors
/// Names every crate without a licence, and every licence that is not permitted.
pub fn licences(features: &[String], target: &str) -> Result<Vec<Text>> {
    let shared = toolchain()?;
    let permitted = permitted(&read(&root().join("deny.toml"))?)?;
    let metadata = metadata(&[])?;
    let packages: Vec<_> = metadata["packages"].as_array().into_iter().flatten().collect();
    let mut index = String::from(
        "The program contains these works. Where there is a choice of licences, any of them that \
         is permissive is chosen.\n\n",
    );
    let mut texts = Vec::new();
    let mut wrong = Vec::new();
    for (name, version) in linked(features, target)? {
        let package = packages
            .iter()
            .find(|p| p["name"] == name.as_str() && p["version"] == version.as_str())
            .ok_or_else(|| format!("cargo metadata does not know {name} {version}"))?;
        // The workspace's own licence is at the top of the archive.
        if package["source"].is_null() {
            continue;
        }
        match of_crate(package, &name, &version, &shared, &permitted) {
            Ok(found) => texts.extend(found),
            Err(error) => wrong.push(format!("{name} {version}: {error}")),
        }
        let word = |key: &str| package[key].as_str().unwrap_or("-").to_string();
        index.push_str(&format!("{name} {version}: {}, {}\n", word("license"), word("repository")));
        if name == "libsqlite3-sys" {
            index.push_str("    with SQLite, which is in the public domain\n");
        }
    }
    if !wrong.is_empty() {
        return Err(format!("licences:\n{}", wrong.join("\n")).into());
    }
    let library = shared.join("COPYRIGHT-library.html");
    index.push_str("Rust's standard library: MIT OR Apache-2.0, and others named in its file\n");
    texts.push(Text { path: "rust-standard-library.html".into(), text: read(&library)? });
    texts.push(Text { path: "INDEX.txt".into(), text: index });
    texts.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(texts)
}

/// The names and versions of the crates that Cargo links; build dependencies are excluded.
fn linked(features: &[String], target: &str) -> Result<Vec<(String, String)>> {
    let mut command = cargo();
    let package = target_of("bin", PROGRAM)?.package;
    command.args(["tree", "--package", &package, "--edges", "normal,no-proc-macro"]);
    command.args(["--prefix", "none", "--format", "{p}", "--no-default-features"]);
    command.args(["--features", &feature_list(features)?, "--target", target]);
    let text = String::from_utf8(output(&mut command)?.stdout)?;
    let read = |line: &str| {
        let mut words = line.split_whitespace();
        let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
        Some((name.to_string(), version.to_string()))
    };
    let mut all: Vec<_> = text.lines().filter_map(read).collect();
    all.sort();
    all.dedup();
    Ok(all)
}

fn of_crate(
    package: &Value,
    name: &str,
    version: &str,
    shared: &Path,
    permitted: &[String],
) -> Result<Vec<Text>> {
    let expression = package["license"].as_str().ok_or("names no licence")?;
    let chosen = choose(expression, permitted)?;
    let manifest = Path::new(package["manifest_path"].as_str().ok_or("has no manifest")?);
    let folder = manifest.parent().unwrap_or(manifest);
    let mut files = Vec::new();
    find(folder, &mut files)?;
    files.sort();
    let mut texts = Vec::new();
    for file in files {
        let inner = file.strip_prefix(folder)?.to_string_lossy().replace('\\', "/");
        if NOT_CHOSEN.contains(&(name, &inner)) {
            continue;
        }
        let text = read(&file)?;
        if text.to_uppercase().contains("GNU GENERAL PUBLIC LICENSE") {
            return Err(format!("{inner} is the GPL").into());
        }
        texts.push(Text { path: format!("{name}-{version}/{inner}"), text });
    }
    // Some crates only name their licence, without its text.
    if texts.is_empty() {
        for licence in chosen {
            let file = shared.join("licenses").join(format!("{licence}.txt"));
            let standard = read(&file).map_err(|e| format!("has no licence file: {e}"))?;
            let text = standard
                .lines()
                .map(|line| match line.starts_with("Copyright (c) <year>") {
                    true => format!("Copyright (c) {}\n", holders(package, name)),
                    false => format!("{line}\n"),
                })
                .collect();
            texts.push(Text { path: format!("{name}-{version}/{licence}.txt"), text });
        }
    }
    Ok(texts)
}

fn holders(package: &Value, name: &str) -> String {
    let authors: Vec<_> =
        package["authors"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    match (authors.is_empty(), package["repository"].as_str()) {
        (false, _) => authors.join(", "),
        (true, Some(repository)) => format!("the authors of {name} ({repository})"),
        (true, None) => format!("the authors of {name}"),
    }
}

/// The list `[licenses] allow` of `deny.toml`: SPDX names, some of them with an exception.
fn permitted(deny: &str) -> Result<Vec<String>> {
    let table: toml::Table = deny.parse()?;
    let list = table.get("licenses").and_then(|licenses| licenses.get("allow"));
    let list =
        list.and_then(toml::Value::as_array).ok_or("deny.toml has no list licenses.allow")?;
    Ok(list.iter().filter_map(toml::Value::as_str).map(String::from).collect())
}

/// The licences that apply to a work, by its SPDX expression (also with the old `/` for `OR`): of
/// alternatives the first permitted licence.
///
/// # Errors
/// When every alternative has a licence that is not permitted.
fn choose(expression: &str, permitted: &[String]) -> Result<Vec<String>> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<_> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    match (any_of(&mut rest, permitted), rest.is_empty()) {
        (Some(chosen), true) => Ok(chosen),
        _ => Err(format!("licence not permitted: {expression}").into()),
    }
}

fn any_of(words: &mut &[&str], permitted: &[String]) -> Option<Vec<String>> {
    let mut chosen = all_of(words, permitted);
    while let Some((&"OR", rest)) = words.split_first() {
        *words = rest;
        let next = all_of(words, permitted);
        chosen = chosen.or(next);
    }
    chosen
}

fn all_of(words: &mut &[&str], permitted: &[String]) -> Option<Vec<String>> {
    let mut chosen = one(words, permitted);
    while let Some((&"AND", rest)) = words.split_first() {
        *words = rest;
        let next = one(words, permitted);
        chosen = chosen.zip(next).map(|(mut all, more)| {
            all.extend(more);
            all
        });
    }
    chosen
}

fn one(words: &mut &[&str], permitted: &[String]) -> Option<Vec<String>> {
    let (&word, rest) = words.split_first()?;
    *words = rest;
    if word == "(" {
        let inner = any_of(words, permitted);
        let (_, rest) = words.split_first().filter(|(word, _)| **word == ")")?;
        *words = rest;
        return inner;
    }
    // An exception does not restrict the permissions of the licence.
    if let ["WITH", _, rest @ ..] = words {
        *words = rest;
    }
    permitted.iter().any(|p| p == word).then(|| vec![word.to_string()])
}

/// Files with licences, also those of libraries bundled in a crate.
fn find(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().to_lowercase();
        if entry.file_type()?.is_dir() {
            if !NOT_LINKED.contains(&name.as_str()) {
                find(&entry.path(), files)?;
            }
        } else if NAMES.iter().any(|begin| name.starts_with(begin)) && !name.ends_with(".rs") {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// The directory of the toolchain's own licences and the standard texts.
fn toolchain() -> Result<PathBuf> {
    let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let sysroot = String::from_utf8(output(rustc.args(["--print", "sysroot"]))?.stdout)?;
    Ok(Path::new(sysroot.trim()).join("share").join("doc").join("rust"))
}

fn read(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        let permitted = ["MIT", "Apache-2.0", "BSD-3-Clause", "ISC", "Zlib"].map(String::from);
        // expression | chosen
        for (expression, expected) in [
            ("MIT", "MIT"),
            ("MIT/Apache-2.0", "MIT"),
            ("GPL-2.0-or-later OR MIT", "MIT"),
            ("MIT OR Apache-2.0 OR LGPL-2.1-or-later", "MIT"),
            ("(Apache-2.0 OR MIT) AND BSD-3-Clause", "Apache-2.0 BSD-3-Clause"),
            ("(GPL-3.0 OR ISC) AND (Zlib OR MIT)", "ISC Zlib"),
            ("Apache-2.0 WITH LLVM-exception OR MIT", "Apache-2.0"),
            ("MIT OR GPL-2.0 AND ISC", "MIT"),
        ] {
            assert_eq!(choose(expression, &permitted).unwrap().join(" "), expected, "{expression}");
        }
        for expression in [
            "GPL-2.0-or-later",
            "MIT AND GPL-2.0",
            "(MIT AND GPL-2.0) OR LGPL-2.1",
            "Proprietary",
            "",
            "(MIT",
            "MIT MIT",
            "MIT AND",
        ] {
            assert!(choose(expression, &permitted).is_err(), "{expression}");
        }
    }

    #[test]
    fn the_list_of_licences_is_that_of_cargo_deny() {
        let deny = fs::read_to_string(root().join("deny.toml")).unwrap();
        let permitted = permitted(&deny).unwrap();
        assert_eq!(choose("GPL-2.0 OR MIT", &permitted).unwrap(), ["MIT"]);
        assert!(choose("GPL-2.0-or-later", &permitted).is_err());
        assert!(super::permitted("[licenses]").is_err());
    }
}
