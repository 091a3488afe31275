//! Drivers that crash or hang when the program looks for devices. The device check runs in a helper
//! process, so they delay the program at most, and it ends in any case.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod common;

use std::{ffi::OsString, path::Path, process::Command};

use common::{
    device::{Bench, numbers, text, warning},
    program::told,
};
use encoder_testbed::{
    nvenc::{Defect, Part, VirtualNvenc},
    or_left_out,
    stuck::StuckFile,
};
use serde_json::Value;

/// The shortest time that the device check gets is 5 s.
const HASTE: &str = "[gpu]\nprobe_timeout_s = 1";

fn bench() -> Option<Bench<VirtualNvenc>> {
    or_left_out(VirtualNvenc::new()).map(Bench::new)
}

/// The only result of `encoder detect --json`.
fn detected(mut command: Command) -> Value {
    let output = command.output().unwrap();
    let (code, said) = told(&output);
    assert_eq!(code, 0, "{said}");
    let all: Value = serde_json::from_slice(&output.stdout).unwrap();
    all[0].clone()
}

#[test]
fn a_library_that_crashes_is_a_refusal_with_its_name() {
    for (part, name) in [
        (Part::Ml, "libnvidia-ml.so.1"),
        (Part::Cuda, "libcuda.so.1"),
        (Part::Encode, "libnvidia-encode.so.1"),
    ] {
        let Some(bench) = bench() else { return };
        let bench = bench.with(|device| device.defect(part, Defect::CrashAtLoad));
        let found = bench.detect("");
        assert_eq!((&found["status"], &found["kind"]), (&"refused".into(), &"failed".into()));
        let reason = found["reason"].as_str().unwrap();
        assert!(reason.contains("signal 6") && reason.contains(name), "{reason}");
        assert!(!found["hint"].as_str().unwrap().is_empty(), "{found}");
        let done = bench.convert(&[], "").expect(0);
        assert_eq!(done.output()["encoder"], "x264");
        assert!(warning(&done.said, "nvenc").contains(name), "{}", done.said);
        assert_eq!(done.video().numbers(), numbers());
    }
}

#[test]
fn a_driver_that_does_not_answer_is_waited_for_once() {
    let Some(bench) = bench() else { return };
    let bench = bench.with(|device| device.defect(Part::Ml, Defect::HangAtLoad));
    let config = bench.config(HASTE);
    let args = ["detect", "--json", "--encoder", "nvenc", "--config", text(&config)];
    let detect = |further: &[&str]| {
        let found = detected(bench.command([&args, further].concat()));
        bench.nobody_is_left();
        found
    };
    let first = detect(&[]);
    assert_eq!((&first["kind"], &first["transient"]), (&"timeout".into(), &true.into()));
    let reason = first["reason"].as_str().unwrap();
    assert!(reason.contains("no answer in 5 s") && reason.contains("libnvidia-ml"), "{reason}");
    assert!(first["cached_s"].is_null(), "{first}");
    // It is remembered, also for the encode.
    let second = detect(&[]);
    assert!(second["cached_s"].is_number(), "{second}");
    assert_eq!((&second["kind"], &second["transient"]), (&"timeout".into(), &true.into()));
    assert!(second["reason"].as_str().unwrap().contains("s ago"), "{second}");
    let done = bench.convert(&[], HASTE).expect(0);
    assert!(warning(&done.said, "nvenc").contains("s ago"), "{}", done.said);
    // It is checked again on request.
    assert!(detect(&["--reprobe"])["cached_s"].is_null());
    // A driver that answers again is found on request, and then in each run.
    let config = bench.config("");
    let bench = bench.with(|_| VirtualNvenc::new().unwrap());
    let args = ["detect", "--json", "--encoder", "nvenc", "--config", text(&config)];
    let again = detected(bench.command([&args[..], &["--reprobe"]].concat()));
    assert_eq!(again["status"], "usable", "{again}");
    assert_eq!(detected(bench.command(args))["status"], "usable");
}

#[test]
fn a_library_that_hangs_at_the_end_delays_nothing() {
    let Some(bench) = bench() else { return };
    let bench = bench.with(|device| device.defect(Part::Ml, Defect::HangAtExit));
    let found = bench.detect("");
    assert_eq!(found["status"], "usable", "{found}");
    // The load of the device is queried while it encodes.
    let done = bench.convert(&["--encoder", "nvenc"], "").expect(0);
    assert_eq!(done.video().numbers(), numbers());
}

/// A driver in uninterruptible sleep: SIGKILL has no effect on the process that calls it.
#[test]
fn a_process_that_cannot_be_killed_is_left_behind() {
    let Some(bench) = bench() else { return };
    let Some(stuck) = or_left_out(StuckFile::new("libnvidia-ml.so.1")) else { return };
    let bench = bench.with(|device| device.without(Part::Ml));
    let (config, out) = (bench.config(HASTE), tempfile::tempdir().unwrap());
    let args = ["encode", text(&bench.recording), "-o", text(out.path()), "--config"];
    let plain = bench.command(args.into_iter().chain([text(&config)]));
    let mut command = stuck.command(Path::new(plain.get_program()));
    command.args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) if name == "LD_LIBRARY_PATH" => {
                let mut folders = OsString::from(stuck.folder());
                folders.push(":");
                folders.push(value);
                command.env(name, folders);
            }
            Some(value) => drop(command.env(name, value)),
            None => drop(command.env_remove(name)),
        }
    }
    let (code, said) = told(&command.output().unwrap());
    assert_eq!(code, 0, "{said}");
    // The program has ended, with its video, before the process that it had to leave behind.
    assert!(said.contains("is in state D"), "{said}");
    assert!(warning(&said, "nvenc").contains("gave no answer in 5 s"), "{said}");
    assert!(out.path().join("cam.mp4").is_file(), "{said}");
}
