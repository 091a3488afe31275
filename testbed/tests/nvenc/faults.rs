//! The effect of each fault on FFmpeg.

use std::os::unix::process::ExitStatusExt;

use encoder_testbed::nvenc::{Action, Capability, Fault, Part, Stage, VirtualNvenc};

use crate::{
    device,
    ffmpeg::{Encode, Ffmpeg, complaint, ffmpegs, stderr},
};

/// The exit status: FFmpeg 5 has one for all failures.
fn status(ffmpeg: &Ffmpeg, newer: i32) -> Option<i32> {
    Some(if ffmpeg.major < 7 { 1 } else { newer })
}

fn check(name: &str, make: impl Fn(VirtualNvenc) -> VirtualNvenc, wanted: &str, newer: i32) {
    for ffmpeg in ffmpegs() {
        let Some(device) = device() else { return };
        let device = make(device);
        let output = Encode::new(ffmpeg, &device).run();
        let what = format!("{name}, FFmpeg {}: {}", ffmpeg.major, stderr(&output));
        assert!(complaint(&output).is_some_and(|line| line.contains(wanted)), "{what}");
        assert_eq!(output.status.code(), status(ffmpeg, newer), "{what}");
        assert_eq!(device.open_sessions(), 0, "{what}");
    }
}

#[test]
fn a_driver_that_does_not_work() {
    // If the machine has its own library, leaving out the virtual library has no effect.
    if !["/usr/lib/x86_64-linux-gnu/libcuda.so.1", "/usr/lib64/libcuda.so.1"]
        .iter()
        .any(|file| std::path::Path::new(file).exists())
    {
        check("no driver", |d| d.without(Part::Cuda), "Cannot load libcuda.so.1", 255);
        check("no encode", |d| d.without(Part::Encode), "Cannot load libnvidia-encode.so.1", 255);
    }
    check("version", |d| d.fault(Fault::VERSION), "nvenc instance: invalid version (15)", 234);
    check(
        "old driver",
        |d| d.driver("450.51", (11, 0), (11, 0)),
        "Driver does not support the required nvenc API version. Required: ",
        218,
    );
}

#[test]
fn a_gpu_that_does_not_work() {
    let init = "cuInit(0) failed -> CUDA_ERROR_";
    check("no device", |d| d.fault(Fault::NO_DEVICE), &format!("{init}NO_DEVICE"), 171);
    let mismatch = format!("{init}SYSTEM_DRIVER_MISMATCH");
    check("mismatch", |d| d.fault(Fault::DRIVER_MISMATCH), &mismatch, 171);
    check("no GPUs", |d| d.gpus(&[]), "No CUDA capable devices found", 187);
    let create = "cuCtxCreate(";
    for fault in [Fault::GPU_BUSY, Fault::GPU_MEMORY] {
        check("context", |d| d.fault(fault), create, 187);
    }
}

#[test]
fn a_session_that_is_refused() {
    let open = "OpenEncodeSessionEx failed: ";
    check("H100", |d| d.gpus(&["H100:no-encoder"]), &format!("{open}unsupported device (2)"), 187);
    check("sessions", |d| d.fault(Fault::SESSIONS), &format!("{open}out of memory (10)"), 187);
    let key = format!("{open}incompatible client key (21)");
    check("client key", |d| d.fault(Fault::CLIENT_KEY), &key, 187);
}

#[test]
fn a_setting_that_is_refused() {
    let preset = "Cannot get the preset configuration: unsupported param (12)";
    check("preset", |d| d.fault(Fault::PRESET), preset, 218);
    let small = "InitializeEncoder failed: invalid param (8): Frame Dimension less than the \
                 minimum supported value.";
    check("too small", |d| d.capability(Capability::WidthMin, 512), small, 234);
    check("too wide", |d| d.capability(Capability::WidthMax, 128), "Width 160 exceeds 128", 187);
    let buffer = "CreateInputBuffer failed: out of memory (10)";
    check("buffers", |d| d.fault(Fault::BUFFERS), buffer, 244);
}

#[test]
fn an_error_in_the_middle() {
    let encode = "EncodePicture failed!: ";
    check(
        "error",
        |d| d.fault(Fault::ENCODE.frame(5)),
        &format!("{encode}generic error (20)"),
        171,
    );
    let lost = format!("{encode}device does not exist (5)");
    check("lost", |d| d.fault(Fault::DEVICE_LOST.frame(5)), &lost, 251);
    let lock = Fault::new(Stage::Lock, Action::Error(5)).frame(5);
    let lost = "Failed locking bitstream buffer: device does not exist (5)";
    check("lost at lock", |d| d.fault(lock), lost, 251);
    let busy = format!("{encode}encoder busy (18)");
    check("busy twice", |d| d.fault(Fault::BUSY.frame(5).times(2)), &busy, 245);
}

#[test]
fn an_encoder_that_is_busy_once_recovers() {
    for ffmpeg in ffmpegs() {
        let Some(device) = device() else { return };
        let device = device.fault(Fault::BUSY.frame(5));
        Encode::new(ffmpeg, &device).assert_exact();
    }
}

#[test]
fn a_busy_output_loses_a_picture() {
    for ffmpeg in ffmpegs() {
        let Some(device) = device() else { return };
        let device = device.fault(Fault::LOCK_BUSY.frame(5));
        let encode = Encode::new(ffmpeg, &device).options("-bf 0");
        let output = encode.run();
        assert!(output.status.success());
        let line = complaint(&output).unwrap();
        assert!(line.contains("Failed locking bitstream buffer: lock busy (13)"), "{line}");
        let decoded = encode.decode(output.stdout).stdout;
        assert_eq!(decoded.len() / encode.picture(), 11);
    }
}

#[test]
fn a_process_that_dies() {
    let table = [
        (Action::Abort, (None, Some(6))),
        (Action::Segfault, (None, Some(11))),
        (Action::Exit(1), (Some(1), None)),
    ];
    for ffmpeg in ffmpegs() {
        for (action, wanted) in table {
            let Some(device) = device() else { return };
            let device = device.fault(Fault::new(Stage::Encode, action).frame(5));
            let output = Encode::new(ffmpeg, &device).run();
            let status = (output.status.code(), output.status.signal());
            assert_eq!(status, wanted, "{action:?}");
            assert_eq!(complaint(&output), None);
            assert_eq!(device.open_sessions(), 0);
        }
    }
}
