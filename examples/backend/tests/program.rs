//! The program with this backend: three lines of code.
#![allow(clippy::unwrap_used)]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use encoder_core::HelperTask;

/// An example of this crate, which `cargo test` has built.
fn program(example: &str) -> PathBuf {
    let folder = env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("examples");
    let path = folder.join(format!("{example}{}", env::consts::EXE_SUFFIX));
    let build = "cargo build -p encoder-ipcm --examples";
    assert!(path.is_file(), "{} is not built: {build}", path.display());
    let list = fs::read_to_string(folder.join(format!("{example}.d"))).unwrap();
    let modified = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).ok();
    let newer = sources(&list).into_iter().find(|file| modified(file) > modified(&path));
    assert_eq!(newer, None, "{} is older than this source: {build}", path.display());
    path
}

/// The source files in a list that Cargo writes beside what it builds: `target: source source`.
fn sources(list: &str) -> Vec<PathBuf> {
    let (_, files) = list.lines().next().unwrap().split_once(": ").unwrap();
    // A space in a path is escaped.
    let files = files.replace("\\ ", "\0");
    files.split_whitespace().map(|file| file.replace('\0', " ").into()).collect()
}

#[test]
fn a_list_of_sources_is_read() {
    let expected = ["/w/a.rs", "/w/b c.rs"].map(PathBuf::from);
    assert_eq!(sources("/t/program: /w/a.rs /w/b\\ c.rs\n"), expected);
    // That of the example has the files of the crates in this repository.
    let folder = program("program").parent().unwrap().join("program.d");
    let all = sources(&fs::read_to_string(folder).unwrap());
    for part in ["backend/src/lib.rs", "encoder-core/src/lib.rs", "encoder-cli/src/lib.rs"] {
        assert!(all.iter().any(|file| file.ends_with(part)), "{part}: {all:?}");
    }
}

#[test]
fn the_backend_has_at_most_sixty_lines() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
    let lines = fs::read_to_string(path).unwrap().lines().count();
    assert!(lines <= 60, "{lines}");
}

fn run(example: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program(example));
    command.args(arguments).env("ENCODER_CACHE", "").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_source_has_three_lines() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/program.rs");
    let source = fs::read_to_string(path).unwrap();
    let is_code = |line: &&str| !line.is_empty() && !line.starts_with("//") && *line != "}";
    let lines: Vec<_> = source.lines().filter(is_code).collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
}

#[test]
fn it_detects_the_backend_and_encodes_with_it() {
    let found = run("program", &["detect"]);
    let (out, log) = (text(&found.stdout), text(&found.stderr));
    assert!(found.status.success(), "{log}");
    let line =
        out.lines().find(|line| line.starts_with("ipcm ")).unwrap_or_else(|| panic!("{out}"));
    assert!(line.contains("usable") && line.contains("encoder-ipcm 0.1.0"), "{line}");

    let folder = tempfile::tempdir().unwrap();
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sample/two_cameras.mcap");
    let (sample, output) = (sample.to_str().unwrap(), folder.path().to_str().unwrap());
    let encoded = run("program", &["encode", sample, "-o", output, "--encoder", "ipcm"]);
    assert!(encoded.status.success(), "{}", text(&encoded.stderr));
    let files = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let videos: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|e| e == "mp4")).collect();
    assert_eq!(videos.len(), 2, "{videos:?}");
    let report = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let report = report.into_iter().find(|path| path.extension().is_some_and(|e| e == "json"));
    let report = fs::read_to_string(report.unwrap()).unwrap();
    assert_eq!(report.matches("\"encoder\": \"ipcm\"").count(), 4, "{report}");
}

#[test]
fn it_has_the_version_and_the_helper_of_the_program() {
    let version = run("program", &["--version"]);
    assert!(text(&version.stdout).starts_with("encoder 0."), "{version:?}");
    // As a helper process it performs a task, and reads no other arguments.
    let task = HelperTask::new("no-such-task", |_| String::new());
    let helper = run("program", &task.arguments());
    assert_eq!(helper.status.code(), Some(2));
    assert!(text(&helper.stderr).contains("has no task `no-such-task`"), "{helper:?}");
}

#[test]
fn two_backends_of_one_name_are_an_error_that_names_both() {
    for arguments in [&["detect"][..], &["encode", "nowhere.mcap", "-o", "nowhere"]] {
        let refused = run("twice", arguments);
        let log = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{log}");
        for part in ["two backends are named `ipcm`", "src/lib.rs:15:", "examples/twice.rs:6:"] {
            assert!(log.contains(part), "{part}: {log}");
        }
    }
}
