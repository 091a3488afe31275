//! The backends of render nodes on a virtual one: the real `h264_vaapi` and `h264_qsv` of the real
//! FFmpeg, on a virtual driver. The tests show that the node is found, that options and pictures
//! reach the driver, and that refusals name the cause; they show nothing about a real device.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::{
    env, fs,
    path::Path,
    process::{Command, Output},
};

use encoder_core::{
    Detection, EncodedChunk, EncoderType, FrameBuffer, FrameLayout, OpenRequest, ProbeResult,
    Resolution, Settings, VideoEncoder, backends,
};
use encoder_qsv as _;
use encoder_testbed::{
    or_left_out,
    qsv::{Action, Fault, Gpu, Part, Stage, VirtualQsv},
};
use encoder_vaapi as _;
use serde_json::Value;

/// The environment variable that makes this program the child; its value is a folder with
/// `settings.toml`.
const FOLDER: &str = "ENCODER_VIRTUAL_FOLDER";
/// An odd shape: rows of the surface are longer than those of the picture.
const SIZE: Resolution = Resolution::new(650, 362);
const PICTURES: u64 = 40;

fn pictures() -> Vec<FrameBuffer> {
    let layout = FrameLayout::new(encoder_core::PixelFormat::Nv12, SIZE);
    (0..PICTURES).map(|n| FrameBuffer::test_picture(layout, n)).collect()
}

/// The part that runs in the environment of the device, which must not change in a running process:
/// detects encoders, and encodes with VA-API if it is usable.
#[test]
fn child() {
    let Some(folder) = env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let text = fs::read_to_string(folder.join("settings.toml")).unwrap();
    let mut settings = Settings::from_toml(&text).unwrap();
    settings.gpu.probe_timeout_s = 60;
    let result = Detection::new(&settings).run();
    let found = match &result {
        Ok(found) => serde_json::to_value(found).unwrap(),
        Err(error) => Value::String(error.to_string()),
    };
    fs::write(folder.join("found.json"), found.to_string()).unwrap();
    settings.encoder.resolution = Some(SIZE);
    let mut request = OpenRequest::new(&settings, EncoderType::VAAPI, 2);
    let found = result.unwrap_or_default();
    request.probe = found.iter().find_map(|found| match &found.result {
        ProbeResult::Usable(caps) if found.encoder == EncoderType::VAAPI => Some(caps),
        _ => None,
    });
    let backend = backends().into_iter().find(|b| b.id == EncoderType::VAAPI).unwrap();
    let Ok(encoder) = (backend.open)(&request) else { return };
    match stream(encoder) {
        Ok(stream) => fs::write(folder.join("stream.h264"), stream).unwrap(),
        Err(error) => fs::write(folder.join("error"), error).unwrap(),
    }
}

fn stream(mut encoder: Box<dyn VideoEncoder>) -> Result<Vec<u8>, String> {
    let mut chunks: Vec<EncodedChunk> = Vec::new();
    for (n, picture) in (0..).zip(pictures()) {
        chunks.extend(encoder.encode_frame(&picture.frame(n)).map_err(|e| e.to_string())?);
    }
    chunks.extend(encoder.flush().map_err(|e| e.to_string())?);
    let mut shown: Vec<u64> = chunks.iter().map(|chunk| chunk.pts).collect();
    shown.sort_unstable();
    assert!(shown.into_iter().eq(0..PICTURES));
    assert!(chunks.iter().filter(|chunk| chunk.keyframe).map(|chunk| chunk.pts).eq([0, 30]));
    Ok(chunks.into_iter().flat_map(|chunk| chunk.data).collect())
}

/// The pictures that the child encodes.
fn input() -> Vec<u8> {
    let mut bytes = Vec::new();
    pictures().iter().for_each(|picture| picture.frame(0).append_packed(&mut bytes));
    bytes
}

/// The report of a child.
struct Machine {
    folder: tempfile::TempDir,
    found: Value,
}

fn look(device: &VirtualQsv, toml: &str) -> Machine {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("settings.toml"), toml).unwrap();
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["child", "--exact"]).env(FOLDER, folder.path());
    let Output { status, stdout, stderr } = device.apply(&mut command).output().unwrap();
    let said = [stdout, stderr].concat();
    assert!(status.success(), "{}", String::from_utf8_lossy(&said));
    let found = fs::read(folder.path().join("found.json")).unwrap();
    let found: Value = serde_json::from_slice(&found).unwrap();
    Machine { folder, found }
}

impl Machine {
    fn of(&self, encoder: &str) -> &Value {
        let all = self.found.as_array().unwrap_or_else(|| panic!("{}", self.found));
        all.iter().find(|found| found["encoder"] == encoder).unwrap()
    }

    /// False if the libva of this machine is too old for the FFmpeg, which hides every other fault
    /// of the device.
    fn has_libva(&self) -> bool {
        let vaapi = self.of("vaapi");
        let old = vaapi["kind"] == "driver-too-old";
        if old {
            eprintln!("left out: {}", vaapi["reason"]);
            assert!(vaapi["reason"].as_str().unwrap().starts_with("libva is too old"), "{vaapi}");
        }
        !old
    }

    /// The pictures of the stream from FFmpeg's software decoder, after a check of their colour
    /// tags.
    fn decoded(&self) -> Vec<u8> {
        let ffmpeg = encoder_ffmpeg::Ffmpeg::find(EncoderType::VAAPI).unwrap();
        let output = Command::new(&ffmpeg.path)
            .args(["-hide_banner", "-i"])
            .arg(self.folder.path().join("stream.h264"))
            .args(["-f", "rawvideo", "-pix_fmt", "nv12", "pipe:1"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("(tv, smpte170m/bt709/iec61966-2-1"), "{said}");
        output.stdout
    }
}

fn device() -> Option<VirtualQsv> {
    or_left_out(VirtualQsv::new())
}

#[test]
fn the_node_of_each_vendor() {
    for gpu in [Gpu::Intel, Gpu::Amd] {
        let Some(device) = device() else { return };
        let device = device.node(131).gpu(gpu);
        let machine = look(&device, "");
        let (name, driver) = match gpu {
            Gpu::Intel => ("/dev/dri/renderD131 (Intel)", "i915"),
            Gpu::Amd => ("/dev/dri/renderD131 (AMD)", "amdgpu"),
        };
        let qsv = machine.of("qsv");
        match gpu {
            Gpu::Intel => {
                assert_eq!(qsv["status"], "usable", "{qsv}");
                assert_eq!(qsv["name"], name);
                assert_eq!(qsv["features"], serde_json::json!(["b-frames"]), "{qsv}");
            }
            Gpu::Amd => {
                let reason =
                    "/dev/dri/renderD131 is a device of AMD; Quick Sync needs one of Intel";
                assert_eq!(qsv["reason"], reason, "{qsv}");
            }
        }
        let vaapi = machine.of("vaapi");
        assert_eq!((&vaapi["name"], &vaapi["driver"]), (&name.into(), &driver.into()));
        if !machine.has_libva() {
            continue;
        }
        assert_eq!(vaapi["status"], "usable", "{vaapi}");
        assert_eq!(vaapi["features"], serde_json::json!(["b-frames"]), "{vaapi}");
        assert_eq!(device.violations(), Vec::<String>::new());
    }
}

#[test]
fn decoding_restores_every_picture_and_options_reach_the_driver() {
    // settings | rate control, its number, B-frames + 1, quality level
    let table = [
        ("", (16, 23, 1, 0)),
        ("[encoder]\nb_frames = 2\ncrf = 30", (16, 30, 3, 0)),
        (
            "[encoder]\ncrf = 19\n[backend.vaapi]\nrc_mode = \"icq\"\ncompression_level = 3\n\
             device = \"/dev/dri/renderD128\"",
            (64, 19, 1, 3),
        ),
    ];
    let input = input();
    for (toml, expected) in table {
        let Some(device) = device() else { return };
        let machine = look(&device, toml);
        if !machine.has_libva() {
            return;
        }
        assert!(machine.decoded() == input, "{toml}");
        let config = device.va_configs().pop().unwrap();
        let quality = if config.rate_control == 16 { config.qp } else { config.icq_quality };
        let got = (config.rate_control, quality, config.ip_period, config.quality_level);
        assert_eq!(got, expected, "{toml}: {config:?}");
        assert_eq!((config.intra_idr_period, config.profile), (30, 100), "{toml}");
        assert_eq!(device.violations(), Vec::<String>::new());
    }
}

#[test]
fn the_first_node_that_works_is_used() {
    // Vendor and driver of the node that does not work.
    for (vendor, driver) in [("1002", "amdgpu"), ("8086", "xe"), ("1af4", "virtio_gpu")] {
        let (Some(healthy), Some(device)) = (self::device(), self::device()) else { return };
        let device = device.node(129).bad_node(128, vendor, driver);
        let machine = look(&device, "");
        // Some builds of FFmpeg do not work with this libva, whatever the node.
        let usual = look(&healthy, "");
        let works = |encoder| usual.of(encoder)["status"] == "usable";
        if !machine.has_libva() || !works("vaapi") || !works("qsv") {
            return;
        }
        for encoder in ["vaapi", "qsv"] {
            let found = machine.of(encoder);
            assert_eq!(found["status"], "usable", "{vendor}: {found}");
            assert_eq!(found["name"], "/dev/dri/renderD129 (Intel)", "{found}");
            assert_eq!(found["driver"], "i915", "{found}");
            assert_eq!(found["chosen"]["device"], "/dev/dri/renderD129", "{found}");
        }
        // The encoder is opened on the node of the probe.
        assert!(machine.decoded() == input(), "{vendor}");
        // The node that the configuration names is the only one that is tried.
        let toml = "[backend.vaapi]\ndevice = \"/dev/dri/renderD128\"";
        let named = look(&device, toml);
        let refused = named.of("vaapi");
        assert_eq!(refused["status"], "refused", "{refused}");
        assert!(!refused["reason"].as_str().unwrap().contains("renderD129"), "{refused}");
        // If none works, the refusal names each.
        let machine = look(&device.without(Part::Driver), "");
        let reason = machine.of("vaapi")["reason"].as_str().unwrap();
        for node in ["renderD128", "renderD129 (Intel)"] {
            assert!(reason.contains(&format!("/dev/dri/{node}")), "{reason}");
        }
    }
}

#[test]
fn a_device_with_only_a_low_power_encoder_is_used() {
    // Whether the driver lists the normal mode too | configuration | usable | chosen by the probe
    let table = [
        // FFmpeg uses the only mode that is listed.
        (false, "", true, false),
        (false, "low_power = true", true, false),
        (true, "", true, true),
        (true, "low_power = true", true, false),
        (true, "low_power = false", false, false),
    ];
    for (lists_both, low_power, usable, chosen) in table {
        let Some(device) = device() else { return };
        let device = device.low_power_only(lists_both);
        let machine = look(&device, &format!("[backend.vaapi]\n{low_power}"));
        if !machine.has_libva() {
            return;
        }
        let vaapi = machine.of("vaapi");
        assert_eq!(vaapi["status"] == "usable", usable, "{low_power}: {vaapi}");
        assert_eq!(vaapi["chosen"]["low_power"] == "true", chosen, "{low_power}: {vaapi}");
        if usable {
            assert!(machine.decoded() == input(), "{low_power}");
        } else {
            assert!(vaapi["reason"].as_str().unwrap().contains("does not work"), "{vaapi}");
        }
    }
    // The option decides where it is set.
    let Some(device) = device() else { return };
    let machine = look(&device, "[backend.vaapi]\nlow_power = true");
    assert_eq!(machine.of("vaapi")["kind"], "no-device", "{}", machine.of("vaapi"));
}

#[test]
fn each_missing_part_has_its_own_refusal() {
    type Change = fn(VirtualQsv) -> VirtualQsv;
    let table: [(Change, &str, &str); 4] = [
        (|d| d.without(Part::Node), "no-device", "no render node"),
        (|d| d.without(Part::Driver), "no-device", "no VA-API driver"),
        (|d| d.fault(Fault::NODE_DENIED), "permission", "/dev/dri/renderD128"),
        (|d| d.fault(Fault::new(Stage::Encode, Action::Error(23))), "failed", "the device failed"),
    ];
    for (change, kind, words) in table {
        let Some(device) = device() else { return };
        let machine = look(&change(device), "");
        if !machine.has_libva() {
            continue;
        }
        let vaapi = machine.of("vaapi");
        assert_eq!(vaapi["kind"], kind, "{vaapi}");
        assert!(vaapi["reason"].as_str().unwrap().contains(words), "{vaapi}");
    }
    let Some(device) = device() else { return };
    let machine = look(&device, "[backend.vaapi]\nlow_power = true");
    if machine.has_libva() {
        let vaapi = machine.of("vaapi");
        assert!(vaapi["hint"].as_str().unwrap().contains("unset low_power"), "{vaapi}");
    }
    let toml = "[backend.vaapi]\ndevice = \"/dev/dri/renderD140\"";
    let machine = look(&device, toml);
    let expected = "backend.vaapi.device = /dev/dri/renderD140: not allowed; allowed is \
                    /dev/dri/renderD128";
    assert_eq!(machine.found, expected);
}

#[test]
fn a_failure_in_mid_stream_is_an_error_with_its_cause() {
    let Some(device) = device() else { return };
    let device = device.fault(Fault::new(Stage::Encode, Action::Error(23)).frame(20));
    let machine = look(&device, "");
    if !machine.has_libva() {
        return;
    }
    let error = fs::read_to_string(machine.folder.path().join("error")).unwrap();
    assert!(error.contains("encoder vaapi failed at frame"), "{error}");
    assert!(error.contains("internal decoding error"), "{error}");
}
