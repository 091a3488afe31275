//! The table of threads in the page on embedding has the threads that the crates start.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The names in the first column of the table, without the part that varies: `encode-`.
fn documented() -> BTreeSet<String> {
    let page = fs::read_to_string(root().join("docs/embedding.md")).unwrap();
    let section = page.split("\n## ").find(|section| section.starts_with("Threads\n")).unwrap();
    let columns = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let code = columns.flat_map(|column| column.split('`').skip(1).step_by(2));
    // Calls of the library have capitals or an underscore; the parts that vary are in capitals.
    let names = code.map(|name| name.trim_end_matches(|c: char| c.is_ascii_uppercase()));
    let is_call = |name: &&str| name.contains(':') || *name == "push" || *name == "push_async";
    names.filter(|name| !is_call(name)).map(str::to_owned).collect()
}

fn add_sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        // The conformance suite runs in tests of other crates.
        if path.is_dir() && name != "testing" {
            add_sources(&path, found);
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            found.push(path);
        }
    }
}

/// The names of the threads in the library's crates.
fn started() -> BTreeSet<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let is_library = name.starts_with("encoder-") && name != "encoder-cli";
        if is_library && path.join("src").is_dir() {
            add_sources(&path.join("src"), &mut files);
        }
    }
    let mut names = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let library = text.split("#[cfg(test)]\n").next().unwrap();
        for begin in
            ["Builder::new().name(", "            .name(", "Task::spawn(", "HelperTask::new("]
        {
            for rest in library.split(begin).skip(1) {
                let rest = rest.trim_start();
                let quoted = rest.strip_prefix("format!(").or(rest.strip_prefix("&format!("));
                if let Some(quoted) = quoted.unwrap_or(rest).strip_prefix('"') {
                    names.insert(quoted.split(['"', '{']).next().unwrap().to_owned());
                }
            }
        }
    }
    names
}

#[test]
fn the_page_on_embedding_has_every_thread() {
    let mut started = started();
    // A task of helper processes alone, and the example of the documentation.
    for name in ["guard", "greet"] {
        assert!(started.remove(name), "{name}");
    }
    assert_eq!(documented(), started);
}
