//! The device in NVML and `nvidia-smi`.

use std::{env, os::unix::process::ExitStatusExt, process::Command, time::Duration};

use encoder_testbed::nvenc::{Fault, Part, Smi, Stage, VirtualNvenc};
use nvml_wrapper::{Nvml, enum_wrappers::device::EncoderType};

use crate::{
    device,
    ffmpeg::{feed, pipes},
};

/// Runs [`report`] in a process with the device; returns its output.
pub fn see(device: &VirtualNvenc) -> String {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "nvml::report", "--ignored", "--nocapture", "--test-threads", "1"]);
    let output = device.apply(&mut command).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "other tests run it, in a process of its own"]
fn report() {
    let nvml = match Nvml::init() {
        Ok(nvml) => nvml,
        Err(error) => return println!("no NVML: {error}"),
    };
    println!("driver {}", nvml.sys_driver_version().unwrap());
    println!("cuda {}", nvml.sys_cuda_driver_version().unwrap());
    for index in 0..nvml.device_count().unwrap() {
        let gpu = nvml.device_by_index(index).unwrap();
        println!("gpu {}", gpu.name().unwrap());
        let uuid = gpu.uuid().unwrap();
        assert!(uuid.starts_with("GPU-"));
        assert_eq!(nvml.device_by_uuid(uuid.as_str()).unwrap().index().unwrap(), index);
        assert!(gpu.memory_info().unwrap().total > gpu.memory_info().unwrap().used);
        assert!(gpu.pci_info().unwrap().bus_id.contains(':'));
        assert!(gpu.utilization_rates().unwrap().gpu <= 100);
        assert!(gpu.cuda_compute_capability().unwrap().major > 0);
        match gpu.encoder_capacity(EncoderType::H264) {
            Ok(capacity) => println!("capacity {capacity}"),
            Err(error) => println!("no capacity: {error}"),
        }
        assert!(nvml.device_by_uuid("GPU-nobody").is_err());
        let sessions = gpu.encoder_stats().map_or(0, |stats| stats.session_count);
        println!("sessions {sessions}");
    }
}

#[test]
fn nvml_wrapper_reads_the_device() {
    let Some(device) = device() else { return };
    let device =
        device.gpus(&["NVIDIA L4", "NVIDIA H100:no-encoder"]).driver("550.54.14", (12, 2), (12, 4));
    let text = see(&device);
    let wanted = "driver 550.54.14\ncuda 12040\ngpu NVIDIA L4\ncapacity 100\nsessions 0\n\
                  gpu NVIDIA H100\nno capacity: ";
    assert!(text.contains(wanted), "{text}");
    assert_eq!(device.violations(), [""; 0]);
}

#[test]
fn nvml_can_fail() {
    let Some(device) = device() else { return };
    let mismatch =
        device.fault(Fault::new(Stage::NvmlInit, encoder_testbed::nvenc::Action::Error(18)));
    assert!(see(&mismatch).contains("no NVML: "), "{}", see(&mismatch));
}

#[test]
fn nvidia_smi_lists_the_device() {
    let Some(device) = device() else { return };
    let smi = |device: &VirtualNvenc| {
        let mut command = Command::new(device.file(Part::Smi).unwrap());
        command.args(["--query-gpu=name,driver_version", "--format=csv,noheader"]);
        let output = device.apply(&mut command).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let device = device.gpus(&["NVIDIA L4"]).driver("550.54.14", (12, 2), (12, 4));
    assert_eq!(smi(&device), (Some(0), "NVIDIA L4, 550.54.14\n".into()));
    let device = device.smi(Smi::Mismatch);
    let (status, text) = smi(&device);
    assert_eq!(status, Some(18));
    assert!(text.contains("Driver/library version mismatch"), "{text}");
    let device = device.smi(Smi::Fails);
    let (status, text) = smi(&device);
    assert_eq!(status, Some(9));
    assert!(text.contains("couldn't communicate"), "{text}");

    let device = device.smi(Smi::Hangs);
    let mut command = Command::new(device.file(Part::Smi).unwrap());
    let child = pipes(device.apply(&mut command)).spawn().unwrap();
    let output = feed(child, Vec::new(), Duration::from_millis(200));
    assert_eq!(output.status.signal(), Some(9));
}
