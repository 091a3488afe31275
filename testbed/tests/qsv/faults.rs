//! The effect of each fault on FFmpeg.

use std::{os::unix::process::ExitStatusExt, path::Path, time::Duration, time::Instant};

use encoder_testbed::qsv::{Action, Fault, Part, Stage, VirtualQsv, What};

use crate::{
    device,
    ffmpeg::{Encode, Ended, Ffmpeg, ffmpegs, wait_until},
};

/// Runs with each FFmpeg. `older` and `newer` are what the first complaint contains, and `status`
/// is the exit status of newer versions: FFmpeg 5 has one for all failures.
fn check(make: impl Fn(VirtualQsv) -> VirtualQsv, older: &str, newer: &str, status: i32) {
    each(make, |ffmpeg, ended| {
        let (wanted, status) = if ffmpeg.major < 6 { (older, 1) } else { (newer, status) };
        let what = format!("{wanted}, FFmpeg {}: {}", ffmpeg.major, ended.stderr());
        assert!(ended.complaint().is_some_and(|line| line.contains(wanted)), "{what}");
        assert_eq!(ended.status.code(), Some(status), "{what}");
    });
}

fn each(make: impl Fn(VirtualQsv) -> VirtualQsv, check: impl Fn(&Ffmpeg, &Ended)) {
    for ffmpeg in ffmpegs() {
        let Some(device) = device() else { return };
        let device = make(device);
        check(ffmpeg, &Encode::new(ffmpeg, &device).run());
    }
}

#[test]
fn a_machine_without_a_part() {
    let display = "Failed to create a VAAPI device.";
    check(|d| d.without(Part::Node), display, display, 187);
    check(|d| d.fault(Fault::NODE_DENIED), display, display, 187);
    let driver = "Failed to initialise VAAPI connection: -1";
    check(|d| d.without(Part::Driver), driver, driver, 251);
    // If the machine has its own runtime, leaving out the virtual runtime has no effect.
    let installed = |file: &str| Path::new("/usr/lib/x86_64-linux-gnu").join(file).exists();
    if !installed("libmfx-gen.so.1.2") {
        let session = "Error initializing an internal MFX session: unsupported (-3)";
        // The Media SDK's own runtime, which Debian's libmfx1 contains, does not know the device.
        let (newer, status) = match installed("libmfxhw64.so.1") {
            true => ("Error during set display handle", 251),
            false => ("Error creating a MFX session: -9", 171),
        };
        check(|d| d.without(Part::Runtime), session, newer, status);
    }
}

#[test]
fn a_session_that_is_refused() {
    let older = "Error initializing an internal MFX session: unsupported (-3)";
    check(|d| d.fault(Fault::NO_SESSION), older, "Error creating a MFX session: -9", 171);
}

#[test]
fn a_setting_that_is_refused() {
    let init = "Error initializing the encoder: ";
    let unsupported = format!("{init}unsupported (-3)");
    check(|d| d.fault(Fault::UNSUPPORTED), &unsupported, &unsupported, 218);
    let invalid = format!("{init}invalid video parameters (-15)");
    check(|d| d.fault(Fault::INVALID_PARAM), &invalid, &invalid, 234);
}

#[test]
fn an_error_in_the_middle() {
    let failed = "Error during encoding: device failed (-17)";
    check(|d| d.fault(Fault::DEVICE_FAILED.frame(5)), failed, failed, 251);
}

/// FFmpeg 5 does not check the result of waiting for a picture: it succeeds with missing pictures.
#[test]
fn an_error_of_a_picture() {
    let lost = Fault::new(Stage::Sync, Action::Error(-17)).frame(5);
    for ffmpeg in ffmpegs() {
        let Some(device) = device() else { return };
        let device = device.fault(lost);
        let encode = Encode::new(ffmpeg, &device);
        let ended = encode.run();
        let status = if ffmpeg.major < 6 { 0 } else { 183 };
        assert_eq!(ended.status.code(), Some(status), "{}", ended.stderr());
        let decoded = encode.decode(&ended);
        assert!(decoded == encode.input()[..decoded.len()], "FFmpeg {}", ffmpeg.major);
        assert_eq!(decoded.len(), encode.input().len() / 4, "FFmpeg {}", ffmpeg.major);
    }
}

#[test]
fn a_crash() {
    for place in [Stage::Encode, Stage::Sync] {
        let crash = Fault::new(place, Action::Segfault).frame(5);
        each(|d| d.fault(crash), |_, ended| assert_eq!(ended.status.signal(), Some(11)));
    }
}

/// FFmpeg does not detect it.
#[test]
fn a_hang() {
    for place in [Stage::Session, Stage::Init, Stage::Encode, Stage::Sync] {
        let frame = if matches!(place, Stage::Encode | Stage::Sync) { 5 } else { 0 };
        for ffmpeg in ffmpegs() {
            let Some(device) = device() else { return };
            let device = device.fault(Fault::new(place, Action::Hang).frame(frame));
            let mut run = Encode::new(ffmpeg, &device).start();
            let struck = || device.log().iter().any(|e| matches!(e.what, What::Fault { .. }));
            wait_until(struck);
            assert!(run.child.try_wait().unwrap().is_none(), "{place:?}");
            run.child.kill().unwrap();
            let ended = run.end();
            assert_eq!(ended.status.signal(), Some(9), "{place:?}");
            assert_eq!(ended.complaint(), None, "{place:?}");
        }
    }
}

#[test]
fn a_slow_device() {
    let time = Duration::from_millis(20);
    for ffmpeg in ffmpegs() {
        let Some(device) = device() else { return };
        let device = device.frame_time(time);
        let begun = Instant::now();
        Encode::new(ffmpeg, &device).assert_exact();
        assert!(begun.elapsed() >= 20 * time);
    }
}
