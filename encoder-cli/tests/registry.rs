//! The registered backends are those that were compiled in, in the library and in the program.
#![allow(clippy::unwrap_used)]

use std::process::Command;

// A crate that is only listed as a dependency is not linked.
use encoder_pipeline as _;

/// The backends of the enabled features, in the order of their rank.
fn enabled() -> Vec<&'static str> {
    [
        ("nvenc", cfg!(feature = "nvenc")),
        ("qsv", cfg!(feature = "qsv")),
        ("vaapi", cfg!(feature = "vaapi")),
        ("videotoolbox", cfg!(feature = "videotoolbox")),
        ("x264", cfg!(feature = "x264")),
        ("openh264", cfg!(feature = "openh264")),
    ]
    .into_iter()
    .filter_map(|(id, is_enabled)| is_enabled.then_some(id))
    .collect()
}

#[test]
fn the_library_registers_the_enabled_backends() {
    let ids: Vec<_> = encoder_core::backends().iter().map(|b| b.id.as_str()).collect();
    assert_eq!(ids, enabled());
}

#[test]
fn the_program_shows_the_enabled_backends() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_encoder"));
    let run = program.args(["detect", "--json"]).env("ENCODER_CACHE", "").output();
    let run = run.unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let shown: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    let ids: Vec<_> =
        shown.as_array().unwrap().iter().map(|b| b["encoder"].as_str().unwrap()).collect();
    assert_eq!(ids, enabled());
}
