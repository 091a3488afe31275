//! The device detects wrong calls of a client: otherwise "no violation" would mean nothing.

use std::{path::Path, process::Command};

use encoder_testbed::nvenc::{Fault, Part, VirtualNvenc};

use crate::{
    device,
    ffmpeg::{Encode, ffmpegs},
};

/// The client of `c/nvenc_client.c`, compiled.
fn client(device: &VirtualNvenc, folder: &Path) -> std::path::PathBuf {
    let target = device.file(Part::Cuda).unwrap().ancestors().nth(3).unwrap();
    let program = folder.join("client");
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let output = Command::new(compiler)
        .args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-isystem"])
        .arg(target.join("tools/headers"))
        .arg("-o")
        .arg(&program)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("c/nvenc_client.c"))
        .arg("-ldl")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    program
}

#[test]
fn misuse_is_detected() {
    let Some(healthy) = device() else { return };
    let folder = tempfile::tempdir().unwrap();
    let client = client(&healthy, folder.path());
    let run = |device: &VirtualNvenc, misuse: &str| {
        let mut command = Command::new(&client);
        let output = device.apply(command.arg(misuse)).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(run(&healthy, "nothing"), (Some(0), String::new()));
    assert_eq!(healthy.violations(), [""; 0]);
    let table = [
        ("initialize-twice", "InitializeEncoder: called twice"),
        ("version", "EncodePicture: version "),
        ("size", "a buffer of 176x96 for pictures of 160x96"),
        ("lock-twice", "LockInputBuffer: the buffer is locked already"),
        ("unlock-twice", "UnlockInputBuffer: "),
        ("encode-locked", "EncodePicture: the input "),
        ("write-in-flight", "LockInputBuffer: the buffer is still to be read"),
        ("too-early", "LockBitstream: the buffer waits for a picture"),
        ("pitch", "EncodePicture: pitch 160"),
        ("format", "EncodePicture: format "),
        ("output-stays-locked", "EncodePicture: the output "),
        ("not-flushed", "DestroyEncoder: "),
        ("buffers-stay", "DestroyEncoder: 2 buffers still exist"),
        ("session-stays", "1 sessions at the end"),
        ("too-late", "DestroyEncoder: the session is closed"),
        ("context-stays", "1 CUDA contexts"),
    ];
    for (misuse, wanted) in table {
        let Some(device) = device() else { return };
        run(&device, misuse);
        let seen = device.violations();
        assert!(seen.iter().any(|what| what.contains(wanted)), "{misuse}: {seen:?}");
    }
}

#[test]
fn ffmpeg_releases_incompletely_after_an_error() {
    for ffmpeg in ffmpegs() {
        let Some(device) = device() else { return };
        let device = device.fault(Fault::BUFFERS);
        assert!(!Encode::new(ffmpeg, &device).run().status.success());
        assert_ne!(device.violations(), [""; 0]);
    }
}
