//! Causes that look alike, and the hint of each.

use super::*;

#[test]
fn each_cause_has_a_hint_of_its_own() {
    let cuda = |code| Fault::new(Stage::CudaInit, Action::Error(code));
    type Change = Box<dyn Fn(VirtualNvenc) -> VirtualNvenc>;
    let fault = |fault: Fault| -> Change { Box::new(move |device| device.fault(fault)) };
    // what is wrong | configuration | kind | part of the reason | part of the hint
    let table: Vec<(Change, &str, &str, &str, &str)> = vec![
        (fault(cuda(34)), "", "failed", "a stub of libcuda", "lib64/stubs"),
        (fault(cuda(802)), "", "failed", "not ready", "nvidia-fabricmanager"),
        (fault(cuda(804)), "", "failed", "CUDA compatibility", "/usr/local/cuda/compat"),
        (fault(cuda(999)), "", "failed", "CUDA does not start", "nvidia_uvm"),
        (
            fault(Fault::new(Stage::Context, Action::Error(214))),
            "",
            "failed",
            "cannot be corrected (ECC)",
            "--gpu-reset",
        ),
        (
            Box::new(|device| device.capability(Capability::BFrames, 0)),
            "[encoder]\nb_frames = 2",
            "unsupported",
            "that many B-frames",
            "b_frames = 0",
        ),
        (
            Box::new(|device| device.capability(Capability::Lossless, 0)),
            "[gpu]\nnvenc_tune = \"lossless\"",
            "unsupported",
            "no lossless",
            "nvenc_tune = \"hq\"",
        ),
    ];
    for (change, toml, kind, words, hint) in table {
        let Some(bench) = bench() else { return };
        let found = bench.with(change).detect(toml);
        assert_eq!(
            (&found["status"], &found["kind"]),
            (&"refused".into(), &kind.into()),
            "{found}"
        );
        assert!(found["reason"].as_str().unwrap().contains(words), "{found}");
        assert!(found["hint"].as_str().unwrap().contains(hint), "{found}");
    }
}

/// A script around FFmpeg, as a snap or Nix has it: this program loads the driver, and FFmpeg does
/// not.
#[test]
fn an_ffmpeg_that_does_not_find_the_driver_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let Some(bench) = bench() else { return };
    let real = std::env::var("ENCODER_FFMPEG").unwrap_or_else(|_| "ffmpeg".into());
    let wrapper = bench.folder.path().join("ffmpeg");
    let script = format!("#!/bin/sh\nunset LD_LIBRARY_PATH\nexec \"{real}\" \"$@\"\n");
    // Written by another process: see `Script::lay_down`.
    let written = Command::new("sh")
        .args(["-c", "printf %s \"$1\" >\"$0\""])
        .args([text(&wrapper), &script])
        .status();
    assert!(written.unwrap().success());
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = bench
        .command(["detect", "--encoder", "nvenc", "--json"])
        .env("ENCODER_FFMPEG", &wrapper)
        .output()
        .unwrap();
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = &found[0];
    assert_eq!((&found["status"], &found["kind"]), (&"refused".into(), &"missing".into()));
    let reason = found["reason"].as_str().unwrap();
    assert!(reason.contains(text(&wrapper)) && reason.contains("which this program can load"));
    assert!(found["hint"].as_str().unwrap().contains("or ENCODER_FFMPEG to"), "{found}");
}
