//! A program in C that links a static library: nothing in it registers itself, so the library calls
//! `link_backends`.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

// A crate that is only listed as a dependency is not linked.
use encoder_pipeline as _;

/// The static library of an example, which Cargo builds unless it already has.
fn library(example: &str) -> PathBuf {
    let enabled: Vec<_> = [
        ("nvenc", cfg!(feature = "nvenc")),
        ("qsv", cfg!(feature = "qsv")),
        ("vaapi", cfg!(feature = "vaapi")),
        ("videotoolbox", cfg!(feature = "videotoolbox")),
        ("x264", cfg!(feature = "x264")),
        ("openh264", cfg!(feature = "openh264")),
        // The others are named so that Cargo need not compile the dependencies again.
        ("mcap", cfg!(feature = "mcap")),
        ("rosbag1", cfg!(feature = "rosbag1")),
        ("rosbag2", cfg!(feature = "rosbag2")),
        ("sqlite", cfg!(feature = "sqlite")),
        ("video", cfg!(feature = "video")),
    ]
    .into_iter()
    .filter_map(|(name, is_enabled)| is_enabled.then_some(name))
    .collect();
    let output = Command::new(env!("CARGO"))
        .args(["build", "--example", example, "--no-default-features"])
        .args(["--features", &enabled.join(","), "--message-format", "json"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let file = format!("lib{example}.a");
    let end = text.find(&file).expect("the file of the library");
    let begin = text[..end].rfind('"').unwrap() + 1;
    PathBuf::from(&text[begin..end]).join(file)
}

/// The number that a C program with the library of this example prints.
fn backends_in_c(example: &str) -> usize {
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    let linked = Command::new(compiler)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/static_library.c"))
        .arg(library(example))
        // The C++ library is OpenH264's.
        .args(["-lstdc++", "-lpthread", "-ldl", "-lm", "-o"])
        .arg(&program)
        .output()
        .unwrap();
    assert!(linked.status.success(), "{}", String::from_utf8_lossy(&linked.stderr));
    let output = Command::new(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim().parse().unwrap_or_else(|_| panic!("{text}"))
}

#[test]
fn a_c_program_links_the_backends_by_a_call() {
    assert_eq!(backends_in_c("static_library_without_call"), 0);
    assert_eq!(backends_in_c("static_library"), encoder_core::backends().len());
}
