//! Sessions are counted over all processes, and released whenever a process ends.

use std::{
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use encoder_testbed::nvenc::{Action, Fault, Stage, VirtualNvenc, What};

use crate::{
    device,
    ffmpeg::{Encode, LONG, complaint, ffmpegs},
    nvml,
};

/// Waits until the fault has occurred.
fn wait_for_fault(device: &VirtualNvenc) {
    let begun = Instant::now();
    while !device.log().iter().any(|event| matches!(event.what, What::Fault { .. })) {
        assert!(begun.elapsed() < LONG, "the fault did not strike");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Sends signals that request an end, which FFmpeg ignores in a call that never returns; then kills
/// it.
fn end(mut child: Child) {
    for signal in ["-INT", "-TERM"] {
        assert!(
            Command::new("kill")
                .arg(signal)
                .arg(child.id().to_string())
                .status()
                .unwrap()
                .success()
        );
    }
    assert!(child.try_wait().unwrap().is_none(), "a signal ended it");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_limit_over_all_processes() {
    for ffmpeg in ffmpegs() {
        let Some(device) = device() else { return };
        let hang = Fault::new(Stage::Encode, Action::Hang).frame(3).processes(1);
        let device = device.session_limit(1, 10).fault(hang);
        let child = Encode::new(ffmpeg, &device).leave();
        wait_for_fault(&device);
        assert_eq!(device.open_sessions(), 1);
        let seen = nvml::see(&device);
        assert!(seen.contains("capacity 90\nsessions 1\n"), "{seen}");

        let refused = Encode::new(ffmpeg, &device).run();
        let complaint = complaint(&refused).unwrap();
        assert!(
            complaint.contains("OpenEncodeSessionEx failed: out of memory (10)"),
            "{complaint}"
        );
        assert!(device.log().iter().any(|e| matches!(e.what, What::Refused { sessions: 1, .. })));

        end(child);
        assert_eq!(device.open_sessions(), 0);
        Encode::new(ffmpeg, &device).assert_exact();
    }
}

#[test]
fn a_limit_within_a_process() {
    for ffmpeg in ffmpegs() {
        let Some(device) = device() else { return };
        let two_outputs = "-y -f h264 /dev/null -c:v h264_nvenc";
        let device = device.session_limit(2, 21);
        Encode::new(ffmpeg, &device).options(two_outputs).assert_exact();
        assert_eq!(device.configs().len(), 2);
        assert_eq!(device.violations(), [""; 0]);

        let device = device.session_limit(1, 21);
        let refused = Encode::new(ffmpeg, &device).options(two_outputs).run();
        let line = complaint(&refused).unwrap();
        assert!(
            line.contains("OpenEncodeSessionEx failed: incompatible client key (21)"),
            "{line}"
        );
        assert_eq!(device.open_sessions(), 0);
    }
}

#[test]
fn nothing_but_sigkill_ends_a_hang() {
    let places =
        [Stage::CudaInit, Stage::Open, Stage::Initialize, Stage::Lock, Stage::End, Stage::Close];
    for ffmpeg in ffmpegs() {
        for place in places {
            let Some(device) = device() else { return };
            let device = device.fault(Fault::new(place, Action::Hang));
            let child = Encode::new(ffmpeg, &device).leave();
            wait_for_fault(&device);
            end(child);
            assert_eq!(device.open_sessions(), 0, "{place:?}");
        }
    }
}

#[test]
fn only_the_first_process_has_the_fault() {
    for ffmpeg in ffmpegs() {
        let Some(device) = device() else { return };
        let device = device.fault(Fault::ENCODE.frame(2).processes(1));
        assert!(!Encode::new(ffmpeg, &device).run().status.success());
        Encode::new(ffmpeg, &device).assert_exact();
        Encode::new(ffmpeg, &device).assert_exact();
    }
}

#[test]
fn a_slow_device_delays_each_picture() {
    for ffmpeg in ffmpegs() {
        let Some(device) = device() else { return };
        let device = device.frame_time(Duration::from_millis(20));
        let begun = Instant::now();
        Encode::new(ffmpeg, &device).assert_exact();
        assert!(begun.elapsed() >= Duration::from_millis(12 * 20));
        let pause = Duration::from_millis(300);
        let device = device.fault(Fault::new(Stage::Open, Action::Sleep(pause)));
        let begun = Instant::now();
        Encode::new(ffmpeg, &device).assert_exact();
        assert!(begun.elapsed() >= pause);
    }
}
