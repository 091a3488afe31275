#![allow(clippy::unwrap_used)]

use super::*;
use RefusalKind::{DriverTooOld, Missing, NoDevice};

fn found(names: &[&str]) -> Found {
    let gpu = |(index, name): (u32, &&str)| Candidate {
        index,
        key: format!("GPU-{index}"),
        name: Some((*name).into()),
        known: true,
        bare: false,
    };
    Found {
        name: names.join(", "),
        driver: Some("driver 570.86.15, NVENC API 13.0".into()),
        identity: Vec::new(),
        gpus: (0..).zip(names).map(gpu).collect(),
        is_jetson: false,
        has_driver: true,
    }
}

#[test]
fn names() {
    for name in [
        "NVIDIA A100-SXM4-80GB",
        "NVIDIA A30",
        "NVIDIA H100 PCIe",
        "NVIDIA H200",
        "NVIDIA GH200 480GB",
        "NVIDIA B200",
        "GRID A100-4C",
        "GeForce GT 1030",
        "NVIDIA GeForce MX350",
        "P106-100",
        "NVIDIA CMP 170HX",
    ] {
        assert!(lacks_encoder(name), "{name}");
    }
    for name in [
        "NVIDIA L4",
        "Tesla T4",
        "NVIDIA A10",
        "NVIDIA A10G",
        "NVIDIA L40S",
        "NVIDIA RTX A1000",
        "NVIDIA RTX A3000 Laptop GPU",
        "NVIDIA GeForce RTX 3050",
        "NVIDIA RTX PRO 6000 Blackwell",
        "Quadro P1000",
        "NVIDIA Virtual",
    ] {
        assert!(!lacks_encoder(name), "{name}");
    }
}

#[test]
fn refusals_get_the_device() {
    let with_device = |kind, reason: &str, names: &[&str]| {
        let found = found(names);
        let refusal = refuse(kind, reason, "hint").transient();
        let refusal = super::with_device(refusal, &found, None);
        assert_eq!(refusal.kind, kind);
        (refusal.reason, refusal.hint, refusal.transient)
    };
    let unsupported = "this GPU has no video encoder: unsupported device (2)";
    let (reason, hint, transient) = with_device(NoDevice, unsupported, &["NVIDIA H200"]);
    assert_eq!(
        reason,
        "NVIDIA H200 has no video encoder (NVENC) \
     [this GPU has no video encoder: unsupported device (2)]"
    );
    assert!(hint.contains("another encoder") && !transient);
    let (reason, hint, transient) =
        with_device(NoDevice, unsupported, &["NVIDIA H200", "NVIDIA L4"]);
    assert_eq!(
        reason,
        format!("{unsupported} [NVIDIA H200, NVIDIA L4, driver 570.86.15, NVENC API 13.0]")
    );
    assert!(hint == "hint" && transient);
    for (needed, expected) in [
        (
            "13.1",
            "update the NVIDIA driver to 610 or newer, or set `ffmpeg.path` or ENCODER_FFMPEG",
        ),
        ("12.2", "update the NVIDIA driver to 570 or newer"),
        ("11.1", "470.57"),
        ("99.0", "update the NVIDIA driver, or set"),
    ] {
        let message = format!("too old: Required: {needed} Found: 8.0");
        let (reason, hint, _) = with_device(DriverTooOld, &message, &["NVIDIA L4"]);
        assert!(reason.ends_with("[NVIDIA L4, driver 570.86.15, NVENC API 13.0]"));
        assert!(hint.starts_with(expected) || hint.contains(expected), "{hint}");
    }
    assert_eq!(required("Required: x"), None);
    assert_eq!(with_device(DriverTooOld, "no number", &["NVIDIA L4"]).1, "hint");
    assert_eq!(with_device(Missing, "no ffmpeg", &["NVIDIA L4"]).0, "no ffmpeg");
}

#[test]
fn the_last_drivers_of_old_gpus() {
    let kepler = Some(LastDriver::Series470);
    let pascal = Some(LastDriver::Series580);
    for (names, expected) in [
        (
            &[
                "NVIDIA GeForce GTX 1080 Ti",
                "GeForce GTX 1050",
                "NVIDIA GeForce GT 1030",
                "NVIDIA GeForce GTX 970",
                "NVIDIA GeForce GTX 980M",
                "NVIDIA GeForce GTX 750 Ti",
                "NVIDIA GeForce 940MX",
                "NVIDIA GeForce MX350",
                "NVIDIA TITAN X (Pascal)",
                "NVIDIA TITAN Xp",
                "NVIDIA TITAN V",
                "NVIDIA GeForce GTX TITAN X",
                "Quadro P2000",
                "Quadro M4000",
                "Quadro K620",
                "Quadro GP100",
                "Tesla P40",
                "Tesla P100-PCIE-16GB",
                "Tesla M60",
                "Tesla V100-SXM2-16GB",
                "GRID P40-4Q",
            ][..],
            pascal,
        ),
        (
            &[
                "NVIDIA GeForce GTX 680",
                "NVIDIA GeForce GT 730",
                "NVIDIA GeForce GTX 780 Ti",
                "NVIDIA GeForce GTX TITAN Black",
                "Quadro K4200",
                "Tesla K80",
                "GRID K520",
            ],
            kepler,
        ),
        (
            &[
                "NVIDIA GeForce GTX 1660 Ti",
                "NVIDIA GeForce GTX 1650",
                "NVIDIA GeForce RTX 2060",
                "NVIDIA GeForce RTX 4090",
                "NVIDIA TITAN RTX",
                "NVIDIA GeForce MX450",
                "NVIDIA GeForce MX550",
                "Quadro RTX 4000",
                "Quadro T1000",
                "Tesla T4",
                "NVIDIA T1000",
                "NVIDIA L4",
                "NVIDIA A10",
                "NVIDIA RTX A2000",
                "NVIDIA Virtual",
                "",
            ],
            None,
        ),
    ] {
        for name in names {
            assert_eq!(last_driver(name), expected, "{name}");
        }
    }
}

#[test]
fn an_old_gpu_needs_an_older_ffmpeg_and_no_newer_driver() {
    let api = |needed: &str| format!("too old: Required: {needed} Found: 11.1");
    let lacks = "the NVIDIA driver lacks a function: Cannot load cuCtxSynchronize".to_owned();
    // GPUs | message | parts of the hint | what it must not contain
    type Row<'a> = (&'a [&'a str], String, &'a [&'a str], &'a str);
    let old = "set `ffmpeg.path` or ENCODER_FFMPEG to an FFmpeg that was built for NVENC API";
    let table: &[Row<'_>] = &[
        (&["NVIDIA GeForce GTX 1080"], api("13.1"), &[old, "13.0 or older", "series 580"], "610"),
        (&["Tesla P40", "Tesla V100-SXM2-16GB"], api("13.1"), &[old, "13.0 or older"], "610"),
        (&["NVIDIA GeForce GTX 680"], api("12.1"), &[old, "11.1 or older", "series 470"], "570"),
        (&["NVIDIA GeForce GTX 1080"], lacks.clone(), &[old, "series 580"], "update the NVIDIA"),
        // A newer driver for this GPU has the API.
        (&["NVIDIA GeForce GTX 1080"], api("13.0"), &["driver to 570 or newer"], "series"),
        (&["NVIDIA GeForce GTX 680"], api("11.1"), &["driver to 470.57 or newer"], "series"),
        (&["NVIDIA L4"], api("13.1"), &["driver to 610 or newer"], "series"),
        (&["NVIDIA GeForce GTX 1080", "NVIDIA L4"], api("13.1"), &["610 or newer"], "series"),
        (&[], api("13.1"), &["610 or newer"], "series"),
        (&["NVIDIA L4"], lacks, &["hint"], "series"),
    ];
    for (names, message, parts, wrong) in table {
        let refusal = refuse(DriverTooOld, message, "hint");
        let hint = with_device(refusal, &found(names), None).hint;
        assert!(parts.iter().all(|part| hint.contains(part)), "{names:?} {message}: {hint}");
        assert!(!hint.contains(wrong), "{names:?} {message}: {hint}");
    }
}

#[test]
fn an_ffmpeg_that_does_not_find_the_driver_is_named() {
    let cuda = "this FFmpeg finds no NVIDIA driver: Cannot load libcuda.so.1";
    let encode = "this FFmpeg finds no encode library: Cannot load libnvidia-encode.so.1";
    for (ffmpeg, message, hint) in [
        ("/snap/bin/ffmpeg", cuda, "snap sees only"),
        ("/nix/store/0c-ffmpeg-8.0/bin/ffmpeg", encode, "/run/opengl-driver/lib"),
        ("/usr/local/bin/ffmpeg", cuda, "LD_LIBRARY_PATH"),
    ] {
        let refusal = refuse(Missing, message, "install the driver");
        let refusal = with_device(refusal, &found(&["NVIDIA L4"]), Some(Path::new(ffmpeg)));
        assert_eq!(refusal.kind, Missing);
        assert!(refusal.reason.starts_with(&format!("{ffmpeg} does not find")), "{refusal}");
        assert!(refusal.reason.contains(message), "{refusal}");
        assert!(
            refusal.hint.contains(hint) && refusal.hint.contains("`ffmpeg.path` or ENCODER_FFMPEG")
        );
        assert!(!refusal.hint.contains("install the driver"), "{refusal}");
    }
    // A static build of this program cannot load the driver either.
    let unknown = Found { has_driver: false, ..found(&[]) };
    let refusal = with_device(refuse(Missing, cuda, "hint"), &unknown, None);
    assert_eq!((refusal.reason.as_str(), refusal.hint.as_str()), (cuda, "hint"));
}

#[test]
fn a_jetson_is_named() {
    let jetson = Found { is_jetson: true, ..found(&["Orin (nvgpu)"]) };
    let message = "OpenEncodeSessionEx failed: unsupported device (2)";
    let refusal = with_device(refuse(NoDevice, message, "hint"), &jetson, None);
    assert!(refusal.reason.contains("Jetson") && refusal.reason.contains(message), "{refusal}");
    assert!(refusal.hint.contains("V4L2"), "{refusal}");
}
