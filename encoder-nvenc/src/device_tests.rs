#![allow(clippy::unwrap_used)]

use super::*;
use RefusalKind::{DriverTooOld, Failed, Missing, NoDevice, Permission};

fn gpu(name: &str, n: u32) -> Gpu {
    Gpu { name: name.into(), uuid: Some(format!("GPU-{n}")), encoder: true }
}

fn gpus(names: &[&str]) -> Vec<Gpu> {
    (0..).zip(names).map(|(n, name)| gpu(name, n)).collect()
}

/// A machine without faults.
fn healthy(names: &[&str]) -> Facts {
    Facts {
        system: "linux".into(),
        nvml: Ok(Driver { version: Some("570.86.15".into()), gpus: gpus(names) }),
        nodes: nodes(&[("nvidiactl", false), ("nvidia-uvm", false)]),
        smi: None,
        cuda: Ok(()),
        encode: Ok(Some(Api(13, 0))),
        container: false,
        is_jetson: false,
        has_wsl_driver: false,
        capabilities: None,
        visible: None,
        pci_order: false,
    }
}

fn nodes(list: &[(&str, bool)]) -> Vec<Node> {
    let access = |denied| if denied { Access::Denied } else { Access::Allowed };
    list.iter().map(|(name, denied)| node(name, access(*denied))).collect()
}

fn node(name: &str, access: Access) -> Node {
    Node { path: format!("/dev/{name}"), access }
}

/// A machine without NVML.
fn without_nvml() -> Facts {
    Facts { nvml: Err(Nvml::Absent("libnvidia-ml.so.1: no such file".into())), ..healthy(&[]) }
}

fn with_nvml_error(error: Nvml) -> Facts {
    Facts { nvml: Err(error), ..healthy(&[]) }
}

/// A machine whose GPUs have no encoder in NVML.
fn without_encoder(names: &[&str]) -> Facts {
    let mut facts = healthy(names);
    if let Ok(driver) = &mut facts.nvml {
        driver.gpus.iter_mut().for_each(|gpu| gpu.encoder = false);
    }
    facts
}

#[test]
fn refusals() {
    let no_cuda = || Err("libcuda.so.1: no such file".to_owned());
    let no_encode = || Err("libnvidia-encode.so.1: no such file".to_owned());
    let bare = Facts { nodes: Vec::new(), cuda: no_cuda(), ..without_nvml() };
    let smi_fails = |words: &str| Some(Smi::Fails(words.into()));
    let h = || healthy(&["NVIDIA L4"]);
    let wsl = || nodes(&[("dxg", true)]);
    let in_container = |facts| Facts { container: true, ..facts };
    let given = |part: &str, facts| Facts { capabilities: Some(part.into()), ..facts };
    let shown = |list: &str| Facts { visible: Some(list.into()), ..h() };
    let table: Vec<(Facts, RefusalKind, &str, &str)> = vec![
        (Facts { system: "macos".into(), ..h() }, NoDevice, "macOS", "another encoder"),
        (bare.clone(), NoDevice, "there is no NVIDIA device", "install the NVIDIA driver"),
        (with_nvml_error(Nvml::DriverNotLoaded), Missing, "not loaded", "modprobe"),
        (with_nvml_error(Nvml::Mismatch), Failed, "different versions", "restart the machine"),
        (with_nvml_error(Nvml::Permission), Permission, "may not use", "--gpus all"),
        (with_nvml_error(Nvml::Lost("fell off the bus".into())), Failed, "fell off", "power"),
        (with_nvml_error(Nvml::Other("unknown".into())), Failed, "unknown", "nvidia-smi"),
        (
            Facts { smi: smi_fails("Driver/library version mismatch"), ..without_nvml() },
            Failed,
            "nvidia-smi reports: Driver/library",
            "restart",
        ),
        (
            Facts { smi: smi_fails("couldn't communicate with the driver"), ..bare.clone() },
            Missing,
            "nvidia-smi reports: couldn't communicate",
            "dmesg",
        ),
        (
            Facts { smi: smi_fails("no libnvidia-ml"), ..bare.clone() },
            Missing,
            "libcuda.so.1: no such file; nvidia-smi reports: no libnvidia-ml",
            "libcuda1",
        ),
        (
            Facts { smi: Some(Smi::Hangs), ..bare.clone() },
            Missing,
            "nvidia-smi does not answer",
            "libcuda1",
        ),
        (
            Facts { nodes: nodes(&[("nvidia0", false)]), ..bare.clone() },
            Missing,
            "CUDA part",
            "libcuda1",
        ),
        (
            Facts { nodes: nodes(&[("nvidia0", false), ("nvidiactl", true)]), ..h() },
            Permission,
            "/dev/nvidiactl",
            "0666",
        ),
        (Facts { nodes: nodes(&[("nvidia-uvm", true)]), ..h() }, Permission, "uvm", "group"),
        (
            Facts { nodes: nodes(&[("nvidia0", true), ("nvidia12", true)]), ..without_nvml() },
            Permission,
            "/dev/nvidia0",
            "group",
        ),
        (Facts { nodes: wsl(), ..without_nvml() }, Permission, "/dev/dxg", "group"),
        (healthy(&[]), NoDevice, "driver finds none", "lspci"),
        (in_container(healthy(&[])), NoDevice, "no NVIDIA GPU", "--gpus all"),
        (shown(""), NoDevice, "CUDA_VISIBLE_DEVICES=\"\" hides every GPU", "unset"),
        (shown("-1"), NoDevice, "hides every GPU", "unset"),
        (shown("7,0"), NoDevice, "hides every GPU", "unset"),
        (Facts { cuda: no_cuda(), ..h() }, Missing, "libcuda.so.1", "libcuda1"),
        (in_container(Facts { cuda: no_cuda(), ..h() }), Missing, "libcuda.so.1", "on the host"),
        (given("video", Facts { cuda: no_cuda(), ..h() }), Missing, "CUDA", "video,compute"),
        (Facts { encode: no_encode(), ..h() }, Missing, "encode library", "libnvidia-encode1"),
        (
            in_container(Facts { encode: no_encode(), ..h() }),
            Missing,
            "libnvidia-encode.so.1",
            "NVIDIA_DRIVER_CAPABILITIES=video,compute,utility",
        ),
        (
            given("compute,utility", Facts { encode: no_encode(), ..h() }),
            Missing,
            "encode library",
            "NVIDIA_DRIVER_CAPABILITIES=video",
        ),
        (given("all", Facts { encode: no_encode(), ..h() }), Missing, "encode", "on the host"),
        (
            given("compute, video", Facts { encode: no_encode(), ..h() }),
            Missing,
            "encode",
            "on the host",
        ),
        (Facts { encode: Ok(Some(Api(9, 1))), ..h() }, DriverTooOld, "API 9.1", "445.87 or newer"),
        (
            without_encoder(&["NVIDIA H200"]),
            NoDevice,
            "NVIDIA H200 (GPU 0) has no video encoder (NVENC)",
            "another encoder",
        ),
        (
            without_encoder(&["NVIDIA A100-SXM4-80GB", "NVIDIA H100 80GB HBM3"]),
            NoDevice,
            "NVIDIA A100-SXM4-80GB, NVIDIA H100 80GB HBM3 has no",
            "another encoder",
        ),
    ];
    for (facts, kind, reason, hint) in table {
        let error = check(&facts, None).unwrap_err();
        let OpenError::Refused(refusal) = error else { panic!("{error} of {facts:?}") };
        assert_eq!((refusal.kind, refusal.transient), (kind, false), "{refusal}");
        assert!(refusal.reason.contains(reason), "{refusal}");
        assert!(refusal.hint.contains(hint), "{refusal}");
    }
}

/// The message of the loader, the machine, and words of the refusal.
#[test]
fn libraries_that_do_not_load() {
    const GNU: &str = "libcuda.so.1: cannot open shared object file: No such file or directory";
    let with = |error: &str| Facts { cuda: Err(error.into()), ..healthy(&["NVIDIA L4"]) };
    let bare = |error: &str| Facts { nodes: vec![], cuda: Err(error.into()), ..without_nvml() };
    let wsl = |driver, error: &str| Facts {
        nodes: nodes(&[("dxg", false)]),
        has_wsl_driver: driver,
        ..bare(error)
    };
    let table: Vec<(Facts, RefusalKind, &str, &str)> = vec![
        (with("/lib/libcuda.so.1: file too short"), Missing, "is empty", "delete the empty files"),
        (with("/lib/libcuda.so.1: invalid ELF header"), Missing, "is damaged", "install"),
        (with("/lib32/libcuda.so.1: wrong ELF class: ELFCLASS32"), Missing, "32-bit", "64-bit"),
        (
            with("/lib/libm.so.6: version `GLIBC_2.34' not found (required by libcuda.so.1)"),
            Missing,
            "older than the NVIDIA driver needs",
            "newer system",
        ),
        (
            with("libcuda.so.1: failed to map segment from shared object"),
            Missing,
            "allow the library to be mapped",
            "noexec",
        ),
        (
            with("libcuda.so.1: cannot open shared object file: Permission denied"),
            Missing,
            "may not read the library",
            "no device is concerned",
        ),
        (
            with("Error loading shared library libcuda.so.1: No such file or directory"),
            Missing,
            "musl",
            "glibc",
        ),
        (
            with("Error relocating /usr/lib/libcuda.so.1: __strdup: symbol not found"),
            Missing,
            "musl",
            "glibc",
        ),
        (wsl(true, GNU), Missing, "does not look into /usr/lib/wsl/lib", "LD_LIBRARY_PATH"),
        (wsl(false, GNU), NoDevice, "Windows provides no NVIDIA driver", "in Windows"),
        (Facts { is_jetson: true, ..bare(GNU) }, NoDevice, "a Jetson", "V4L2"),
        (
            Facts {
                is_jetson: true,
                encode: Err("libnvidia-encode.so.1: none".into()),
                ..without_nvml()
            },
            NoDevice,
            "libnvidia-encode.so.1: none",
            "another encoder",
        ),
        // None of these: the library is missing.
        (with(GNU), Missing, "CUDA part of the NVIDIA driver is missing", "libcuda1"),
        // The encode library alone.
        (
            Facts {
                encode: Err("/lib/libnvidia-encode.so.1: file too short".into()),
                ..healthy(&["NVIDIA L4"])
            },
            Missing,
            "the driver's encode library does not load: the file of this library is empty",
            "-size 0",
        ),
    ];
    for (facts, kind, reason, hint) in table {
        let Err(OpenError::Refused(refusal)) = check(&facts, None) else { panic!("{facts:?}") };
        assert_eq!(refusal.kind, kind, "{refusal}");
        assert!(refusal.reason.contains(reason), "{refusal}");
        assert!(refusal.hint.contains(hint), "{refusal}");
    }
    // A static build of this program cannot load the driver, and FFmpeg may: the probe decides.
    let fixed = || Err("Dynamic loading not supported".to_owned());
    let no_nvml = Err(Nvml::Absent("Dynamic loading not supported".into()));
    let of_static = Facts {
        cuda: fixed(),
        encode: fixed().map(|()| None),
        nvml: no_nvml,
        nodes: nodes(&[("nvidia0", false)]),
        ..healthy(&[])
    };
    let found = check(&of_static, None).unwrap();
    assert_eq!((found.name.as_str(), found.has_driver), ("NVIDIA GPU", false));
    let without_nodes = Facts { nodes: vec![], ..of_static };
    assert!(check(&without_nodes, None).is_err());
}

#[test]
fn access_that_a_control_group_denies() {
    let closed = || vec![node("nvidiactl", Access::Blocked)];
    let unknown = || with_nvml_error(Nvml::Unknown);
    let table: Vec<(Facts, bool, RefusalKind, &str, &str)> = vec![
        (unknown(), true, Permission, "Unknown Error", "daemon-reload"),
        (unknown(), false, Failed, "an unknown error", "Xid"),
        (with_nvml_error(Nvml::Blocked), true, Permission, "has lost it", "daemon-reload"),
        (with_nvml_error(Nvml::Blocked), false, Permission, "control group", "DeviceAllow"),
        (Facts { nodes: closed(), ..unknown() }, true, Permission, "/dev/nvidiactl", "again"),
        (Facts { nodes: closed(), ..unknown() }, false, Permission, "nvidiactl", "DeviceAllow"),
    ];
    for (facts, container, kind, reason, hint) in table {
        let facts = Facts { container, ..facts };
        let Err(OpenError::Refused(refusal)) = check(&facts, None) else { panic!("{facts:?}") };
        assert_eq!(refusal.kind, kind, "{refusal}");
        assert!(refusal.reason.contains(reason), "{refusal}");
        assert!(refusal.hint.contains(hint), "{refusal}");
    }
}

#[test]
fn devices() {
    let mixed = ["NVIDIA L4", "NVIDIA T4", "NVIDIA L4"];
    let bare_and_good = || {
        let mut facts = healthy(&["NVIDIA H100 PCIe", "NVIDIA L4"]);
        if let Ok(driver) = &mut facts.nvml {
            driver.gpus[0].encoder = false;
        }
        facts
    };
    let shown = |list: &str, facts| Facts { visible: Some(list.into()), ..facts };
    let in_order = |facts| Facts { pci_order: true, ..facts };
    // facts, wanted GPU | name, keys of the GPUs
    let table: Vec<(Facts, Option<u32>, &str, &[&str])> = vec![
        (healthy(&["NVIDIA L4"]), None, "NVIDIA L4 (GPU 0)", &["GPU-0"]),
        (healthy(&["NVIDIA L4"; 2]), None, "2 × NVIDIA L4", &["GPU-0", "GPU-1"]),
        (healthy(&["NVIDIA L4"; 2]), Some(1), "NVIDIA L4 (GPU 1)", &["GPU-1"]),
        // GPUs of different models: CUDA's order is not NVML's, unless `CUDA_DEVICE_ORDER` selects
        // it.
        (healthy(&mixed), None, "2 × NVIDIA L4, NVIDIA T4", &["gpu0", "gpu1", "gpu2"]),
        (healthy(&mixed), Some(1), "NVIDIA GPU 1", &["gpu1"]),
        (in_order(healthy(&mixed)), Some(1), "NVIDIA T4 (GPU 1)", &["GPU-1"]),
        (shown("2,0", in_order(healthy(&mixed))), Some(1), "NVIDIA L4 (GPU 1)", &["GPU-0"]),
        (shown("GPU-1", healthy(&mixed)), None, "NVIDIA T4 (GPU 0)", &["GPU-1"]),
        (shown("1, 0,9,2", healthy(&["NVIDIA L4"; 3])), None, "2 × NVIDIA L4", &["GPU-1", "GPU-0"]),
        (shown("MIG-7", healthy(&["NVIDIA L4"])), None, "NVIDIA GPU 0", &["gpu0"]),
        // Neither NVML nor the name of a GPU refuses by itself.
        (without_encoder(&["NVIDIA L99"]), None, "NVIDIA L99 (GPU 0)", &["GPU-0"]),
        (healthy(&["NVIDIA H200"]), None, "NVIDIA H200 (GPU 0)", &["GPU-0"]),
        (bare_and_good(), None, "NVIDIA H100 PCIe, NVIDIA L4", &["gpu0", "gpu1"]),
        (without_nvml(), None, "NVIDIA GPU", &[]),
        (without_nvml(), Some(3), "NVIDIA GPU 3", &[]),
        // nvidia-smi may be slow, or may not load NVML either.
        (Facts { smi: Some(Smi::Hangs), ..without_nvml() }, None, "NVIDIA GPU", &[]),
        (Facts { smi: Some(Smi::Fails("?".into())), ..without_nvml() }, None, "NVIDIA GPU", &[]),
        (Facts { smi: Some(Smi::Works), nodes: vec![], ..without_nvml() }, None, "NVIDIA GPU", &[]),
    ];
    for (facts, wanted, name, keys) in table {
        let found = check(&facts, wanted).unwrap();
        assert_eq!(found.name, name, "{facts:?}");
        assert_eq!(found.gpus.iter().map(|gpu| gpu.key.as_str()).collect::<Vec<_>>(), keys);
        assert!(found.identity.iter().any(|text| text.contains("API 13.0")));
    }
    let found = check(&bare_and_good(), None).unwrap();
    assert_eq!(found.driver.as_deref(), Some("driver 570.86.15, NVENC API 13.0"));
    assert!(found.identity.contains(&"NVIDIA H100 PCIe GPU-0 false".into()));
    assert_eq!(found.gpus.iter().map(|gpu| gpu.bare).collect::<Vec<_>>(), [true, false]);
    let silent = Facts { encode: Ok(None), ..without_nvml() };
    assert_eq!(check(&silent, None).unwrap().driver, None);
    // A GPU without an encoder is refused if the configuration names it.
    assert!(check(&in_order(bare_and_good()), Some(0)).is_err());
    assert!(check(&in_order(bare_and_good()), Some(1)).is_ok());
}

#[test]
fn a_configured_gpu_that_does_not_exist_is_an_error() {
    let shown = Facts { visible: Some("1,0".into()), ..healthy(&["NVIDIA L4"; 4]) };
    let no_library = Facts { encode: Err("none".into()), ..healthy(&["NVIDIA L4"]) };
    for (facts, wanted, expected) in [
        (
            healthy(&["NVIDIA L4"]),
            1,
            "backend.nvenc.gpu = 1: not allowed; allowed is 0: this machine has 1 GPU",
        ),
        (healthy(&["NVIDIA L4"; 4]), 4, "0 to 3: this machine has 4 GPUs"),
        (shown, 2, "0 to 1: CUDA_VISIBLE_DEVICES shows 2 GPUs"),
        (no_library, 7, "backend.nvenc.gpu = 7"),
    ] {
        let error = check(&facts, Some(wanted)).unwrap_err();
        assert!(matches!(error, OpenError::Config(_)), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    // Without any GPU it is a refusal: the next encoder may work.
    assert!(matches!(check(&healthy(&[]), Some(1)), Err(OpenError::Refused(_))));
}
