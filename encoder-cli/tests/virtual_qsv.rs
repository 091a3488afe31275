//! The program with a virtual Quick Sync device: the real `h264_qsv` of the real FFmpeg on a
//! runtime that replaces Intel's. It tests options, pictures, refusals and clean-up, but not a real
//! device's speed, picture quality or limits.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod common;

use common::{
    decode::planes,
    device::{Bench, numbers, warning},
};
use encoder_testbed::{
    or_left_out,
    qsv::{Fault, Part, VirtualQsv},
};

fn bench() -> Option<Bench<VirtualQsv>> {
    or_left_out(VirtualQsv::new()).map(Bench::new)
}

#[test]
fn it_is_usable_and_every_pixel_arrives() {
    let Some(bench) = bench() else { return };
    let found = bench.detect("");
    assert_eq!(found["status"], "usable", "{found}");
    assert_eq!(found["pixel_formats"], serde_json::json!(["nv12"]));
    assert!(found["name"].as_str().unwrap().contains("/dev/dri/renderD128"), "{found}");
    let software = bench.convert(&["--encoder", "x264", "--crf", "0"], "").expect(0);
    let expected = planes(&software.path("cam.mp4"));
    for (b_frames, depth) in [("0", 1), ("2", 4), ("1", 8)] {
        let toml = format!("[backend.qsv]\nasync_depth = {depth}");
        let args = ["--encoder", "qsv", "--b-frames", b_frames, "--gop", "12"];
        let hardware = bench.convert(&args, &toml).expect(0);
        assert_eq!(hardware.output()["encoder"], "qsv");
        assert_eq!(hardware.video().numbers(), numbers());
        // x264 at CRF 0 is lossless, and so is the device; NV12 on the way changes nothing.
        assert!(planes(&hardware.path("cam.mp4")) == expected, "{b_frames} B-frames");
    }
    assert_eq!(bench.device.violations(), Vec::<String>::new());
}

#[test]
fn what_was_asked_for_arrives() {
    let Some(bench) = bench() else { return };
    let toml = "[encoder]\ncrf = 25\ngop_size = 24\nb_frames = 2\npreset = \"slow\"\n\
                [backend.qsv]\nasync_depth = 3";
    bench.convert(&["--encoder", "qsv"], toml).expect(0);
    let configs = bench.device.configs();
    let stream = configs.last().unwrap();
    // ICQ, which Intel's runtime numbers 9.
    assert_eq!((stream.rate_control, stream.quality[1]), (9, 25), "{stream:?}");
    assert_eq!((stream.gop_pic_size, stream.gop_ref_dist, stream.idr_interval), (24, 3, 0));
    assert_eq!((stream.async_depth, stream.target_usage), (3, 3));
    assert_eq!(stream.colour, [1, 13, 6, 0]);
}

#[test]
fn the_rate_control_arrives() {
    // Options | method: 3 is a constant quantiser, 1 a constant and 2 a variable bit rate; the
    // quantisers, or the mean and the maximum in 1000 bits per second.
    let table: [(&[&str], u32, [u32; 3]); 4] = [
        (&["--qp", "31", "--b-frames", "2"], 3, [31; 3]),
        (&["--bitrate", "900"], 2, [0, 900, 1800]),
        (&["--bitrate", "900", "--max-bitrate", "1200"], 2, [0, 900, 1200]),
        (&["--bitrate", "900", "--max-bitrate", "900"], 1, [0, 900, 900]),
    ];
    for (args, method, quality) in table {
        let Some(bench) = bench() else { return };
        bench.convert(&[&["--encoder", "qsv"], args].concat(), "").expect(0);
        let configs = bench.device.configs();
        let stream = configs.last().unwrap();
        assert_eq!(stream.rate_control, method, "{args:?}: {stream:?}");
        let from = if method == 3 { 0 } else { 1 };
        assert_eq!(stream.quality[from..], quality[from..], "{args:?}: {stream:?}");
    }
}

#[test]
fn each_miss_has_its_own_refusal() {
    type Change = fn(VirtualQsv) -> VirtualQsv;
    let table: [(Change, &str, &str); 6] = [
        (|d| d.without(Part::Driver), "no-device", "VA-API"),
        (|d| d.without(Part::Runtime), "no-device", "runtime finds no device"),
        (|d| d.fault(Fault::NODE_DENIED), "permission", "/dev/dri/renderD128"),
        (|d| d.fault(Fault::NO_SESSION), "no-device", "runtime finds no device"),
        (|d| d.fault(Fault::INVALID_PARAM), "unsupported", "parameters"),
        (|d| d.fault(Fault::DEVICE_FAILED), "failed", "device failed"),
    ];
    for (n, (change, kind, words)) in table.into_iter().enumerate() {
        let Some(bench) = bench() else { return };
        let bench = bench.with(change);
        let found = bench.detect("");
        assert_eq!(found["status"], "refused", "row {n}: {found}");
        assert_eq!(found["kind"], kind, "row {n}: {found}");
        assert!(found["reason"].as_str().unwrap().contains(words), "row {n}: {found}");
        let done = bench.convert(&[], "").expect(0);
        assert_ne!(done.output()["encoder"], "qsv");
        assert!(warning(&done.said, "qsv").contains(words), "row {n}: {}", done.said);
    }
}

#[test]
fn what_goes_wrong_amid_a_stream_costs_no_frame() {
    let Some(bench) = bench() else { return };
    let bench = bench.with(|device| device.fault(Fault::DEVICE_FAILED.frame(20)));
    let done = bench.convert(&["--encoder", "qsv"], "").expect(0);
    assert_eq!(done.video().numbers(), numbers());
    let failovers = done.output()["failovers"].as_array().unwrap();
    assert!(!failovers.is_empty(), "{}", done.said);
    for failover in failovers {
        assert!(failover["reason"].as_str().unwrap().contains("device failed (-17)"), "{failover}");
    }
}
