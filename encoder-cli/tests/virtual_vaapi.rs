//! The program with a virtual VA-API device: the real `h264_vaapi` of the real FFmpeg on a driver
//! that replaces those of AMD and Intel. It tests options, pictures, refusals and clean-up, but not
//! a real device's speed, picture quality or limits.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod common;

use common::{
    decode::planes,
    device::{Bench, VirtualVaapi, numbers, warning},
};
use encoder_testbed::{
    or_left_out,
    qsv::{Fault, Gpu, Part, VirtualQsv},
};

fn bench(gpu: Gpu) -> Option<Bench<VirtualVaapi>> {
    let device = or_left_out(VirtualQsv::new())?;
    Some(Bench::new(VirtualVaapi(device.gpu(gpu))))
}

/// Whether the system's libva is older than this FFmpeg needs, which must be the only refusal of a
/// working device.
fn libva_is_too_old(bench: &Bench<VirtualVaapi>) -> bool {
    let found = bench.detect("");
    if found["status"] == "usable" {
        return false;
    }
    assert_eq!(found["kind"], "driver-too-old", "{found}");
    let reason = found["reason"].as_str().unwrap();
    assert!(reason.contains("libva is too old for this FFmpeg"), "{reason}");
    assert!(found["hint"].as_str().unwrap().contains("libva 2.21"), "{found}");
    eprintln!("left out: {reason}");
    true
}

#[test]
fn it_is_usable_and_every_pixel_arrives() {
    for (gpu, maker) in [(Gpu::Amd, "AMD"), (Gpu::Intel, "Intel")] {
        let Some(bench) = bench(gpu) else { return };
        if libva_is_too_old(&bench) {
            return;
        }
        let found = bench.detect("");
        let name = found["name"].as_str().unwrap();
        assert!(name.contains("/dev/dri/renderD128") && name.contains(maker), "{found}");
        let software = bench.convert(&["--encoder", "x264", "--crf", "0"], "").expect(0);
        let args = ["--encoder", "vaapi", "--gop", "12"];
        let hardware = bench.convert(&args, "").expect(0);
        assert_eq!(hardware.output()["encoder"], "vaapi");
        assert_eq!(hardware.video().numbers(), numbers());
        // x264 at CRF 0 is lossless, and so is the device.
        assert!(planes(&hardware.path("cam.mp4")) == planes(&software.path("cam.mp4")));
        assert_eq!(bench.device.0.violations(), Vec::<String>::new());
        // Quick Sync has a higher rank, if it works.
        let chosen = bench.convert(&[], "").expect(0);
        let quick_sync = cfg!(feature = "qsv") && maker == "Intel";
        let expected = if quick_sync { "qsv" } else { "vaapi" };
        assert_eq!(chosen.output()["encoder"], expected, "{}", chosen.said);
        if cfg!(feature = "qsv") && maker == "AMD" {
            // There is no device of Intel, and nothing to repair.
            assert!(!chosen.said.contains("qsv"), "{}", chosen.said);
        }
    }
}

#[test]
fn what_was_asked_for_arrives() {
    let Some(bench) = bench(Gpu::Amd) else { return };
    if libva_is_too_old(&bench) {
        return;
    }
    bench.convert(&["--encoder", "vaapi", "--crf", "20", "--gop", "24"], "").expect(0);
    let configs = bench.device.0.va_configs();
    let (probe, stream) = (configs.first().unwrap(), configs.last().unwrap());
    // Constant quantiser, which every VA-API driver supports; the probe has its own quality.
    assert_eq!((stream.rate_control, stream.qp, probe.qp), (16, 20, 23), "{stream:?}");
    assert_eq!((stream.intra_period, stream.intra_idr_period), (24, 24));
    assert_eq!((stream.width, stream.height, stream.ip_period), (322, 178, 1));
}

#[test]
fn the_rate_control_arrives() {
    // Options | mode: 16 is a constant quantiser, 4 a variable bit rate; the quantiser, or the
    // maximum in bits per second, which FFmpeg sets to twice the mean if it is not given.
    let table: [(&[&str], u32, u32); 3] = [
        (&["--qp", "31"], 16, 31),
        (&["--bitrate", "900"], 4, 1_800_000),
        (&["--bitrate", "900", "--max-bitrate", "1200"], 4, 1_200_000),
    ];
    for (args, mode, value) in table {
        let Some(bench) = bench(Gpu::Amd) else { return };
        if libva_is_too_old(&bench) {
            return;
        }
        bench.convert(&[&["--encoder", "vaapi"], args].concat(), "").expect(0);
        let configs = bench.device.0.va_configs();
        let stream = configs.last().unwrap();
        let got = if mode == 16 { stream.qp } else { stream.bits_per_second };
        assert_eq!((stream.rate_control, got), (mode, value), "{args:?}: {stream:?}");
    }
}

#[test]
fn each_miss_has_its_own_refusal() {
    type Change = fn(VirtualQsv) -> VirtualQsv;
    let table: [(Change, &str, &str); 2] = [
        (|d| d.without(Part::Driver), "no-device", "VA-API driver"),
        (|d| d.fault(Fault::NODE_DENIED), "permission", "/dev/dri/renderD128"),
    ];
    for (n, (change, kind, words)) in table.into_iter().enumerate() {
        let Some(bench) = bench(Gpu::Amd) else { return };
        let bench = bench.with(|device| VirtualVaapi(change(device.0)));
        let found = bench.detect("");
        assert_eq!(
            (&found["status"], &found["kind"]),
            (&"refused".into(), &kind.into()),
            "{n}: {found}"
        );
        assert!(found["reason"].as_str().unwrap().contains(words), "{n}: {found}");
        let done = bench.convert(&[], "").expect(0);
        assert!(warning(&done.said, "vaapi").contains(words), "{n}: {}", done.said);
    }
}
