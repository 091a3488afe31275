//! A program in C that links a static library: nothing in it registers itself, so the library calls
//! `link_backends`.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// The static library of the example, which Cargo builds unless it already has.
fn library() -> PathBuf {
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
        .args(["build", "--example", "static_library", "--no-default-features"])
        .args(["--features", &enabled.join(","), "--message-format", "json"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let end = text.find("libstatic_library.a").expect("the file of the library");
    let begin = text[..end].rfind('"').unwrap() + 1;
    PathBuf::from(&text[begin..end]).join("libstatic_library.a")
}

#[test]
fn a_c_program_links_the_backends_by_a_call() {
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/static_library.c");
    let linked = Command::new(compiler)
        .arg(source)
        .arg(library())
        // The C++ library is OpenH264's.
        .args(["-lstdc++", "-lpthread", "-ldl", "-lm", "-o"])
        .arg(&program)
        .output()
        .unwrap();
    assert!(linked.status.success(), "{}", String::from_utf8_lossy(&linked.stderr));
    let output = Command::new(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let numbers: Vec<usize> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let &[_, after, again, is_named] = numbers.as_slice() else { panic!("{text}") };
    let enabled = encoder_core::backends().len();
    assert_eq!((after, again, is_named), (enabled, enabled, 1), "{text}");
    println!("registered before the call: {}", numbers[0]);
}
