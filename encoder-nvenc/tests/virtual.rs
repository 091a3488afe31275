//! The backend on the virtual NVENC device, in the real FFmpeg.
//!
//! The libraries of the device are found through the environment, which a running program cannot
//! safely change. So each case is a child process: this test program runs only its test `child`,
//! which reports in one line. `ENCODER_FFMPEG` chooses the FFmpeg.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::{
    env,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use encoder_core::{
    Detection, FrameBuffer, FrameLayout, OpenRequest, Resolution, Settings, VideoEncoder, backends,
};
use encoder_nvenc as _;
use encoder_testbed::{
    nvenc::{Action, Capability, Config, Fault, Part, Smi, Stage, VirtualNvenc, What},
    or_left_out,
};
use serde_json::{Value, json};

const SIZE: Resolution = Resolution::new(640, 360);
const FRAMES: u64 = 60;

/// Environment variables with the task of the child and its settings.
const TASK: &str = "ENCODER_TEST_TASK";
const SETTINGS: &str = "ENCODER_TEST_SETTINGS";

#[test]
#[ignore = "started by the other tests"]
fn child() {
    let mut settings = Settings::from_toml(&env::var(SETTINGS).unwrap()).unwrap();
    let begun = Instant::now();
    let task = env::var(TASK).unwrap();
    let mut report = if task == "detect" {
        match Detection::new(&settings).run() {
            Ok(found) => serde_json::to_value(&found[0]).unwrap(),
            Err(error) => json!({ "config": error.to_string() }),
        }
    } else {
        settings.encoder.resolution = Some(SIZE);
        match task.parse() {
            Ok(count) => open(&settings, count),
            Err(_) => encode(&settings),
        }
    };
    report["ms"] = json!(begun.elapsed().as_millis() as u64);
    println!("\nreport: {report}");
}

/// Opens `count` encoders and encodes a frame with each, so that all sessions are open at once.
fn open(settings: &Settings, count: usize) -> Value {
    let backend = backends()[0];
    let request = OpenRequest::new(settings, backend.id, 1);
    let layout = FrameLayout::new(settings.encoder.pixel_format, SIZE);
    let picture = FrameBuffer::test_picture(layout, 0);
    let mut open: Vec<Box<dyn VideoEncoder>> = Vec::new();
    let mut refused = Vec::new();
    for _ in 0..count {
        match (backend.open)(&request) {
            Ok(mut encoder) => {
                encoder.encode_frame(&picture.frame(0)).unwrap();
                open.push(encoder);
            }
            Err(error) => refused.push(error.to_string()),
        }
    }
    json!({ "open": open.len(), "refused": refused })
}

/// Encodes a video; each frame must have one access unit, in time.
fn encode(settings: &Settings) -> Value {
    let backend = backends()[0];
    let request = OpenRequest::new(settings, backend.id, 1);
    let mut encoder = match (backend.open)(&request) {
        Ok(encoder) => encoder,
        Err(error) => return json!({ "refused": error.to_string() }),
    };
    let layout = FrameLayout::new(encoder.pixel_format(), SIZE);
    let mut indices = Vec::new();
    for n in 0..FRAMES {
        match encoder.encode_frame(&FrameBuffer::test_picture(layout, n).frame(n)) {
            Ok(chunk) => indices.extend(chunk.map(|chunk| chunk.pts)),
            Err(error) => return json!({ "failed": error.to_string() }),
        }
        assert!(n + 1 - indices.len() as u64 <= (backend.max_delay)(&request) as u64);
    }
    indices.extend(encoder.flush().unwrap().into_iter().map(|chunk| chunk.pts));
    indices.sort_unstable();
    assert_eq!(indices, (0..FRAMES).collect::<Vec<_>>());
    json!({ "frames": indices.len() })
}

/// Runs the child on `device`.
fn run(device: &VirtualNvenc, task: &str, settings: &str) -> Value {
    run_with(device, task, settings, &[])
}

fn run_with(device: &VirtualNvenc, task: &str, settings: &str, more: &[(&str, &str)]) -> Value {
    let runtime = tempfile::tempdir().unwrap();
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "child", "--ignored", "--nocapture"]);
    command.env(TASK, task).env(SETTINGS, settings).env("XDG_RUNTIME_DIR", runtime.path());
    command.env_remove("CUDA_VISIBLE_DEVICES").env_remove("NVIDIA_DRIVER_CAPABILITIES");
    device.apply(&mut command).envs(more.iter().copied());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let report = text.lines().find_map(|line| line.strip_prefix("report: "));
    let report = report.unwrap_or_else(|| {
        panic!("{text}\n{}", String::from_utf8_lossy(&output.stderr));
    });
    serde_json::from_str(report).unwrap()
}

/// Text of a report.
fn text<'a>(report: &'a Value, key: &str) -> &'a str {
    report[key].as_str().unwrap_or_else(|| panic!("no {key} in {report}"))
}

/// Whether the machine has a real driver: then parts that the virtual device leaves out are still
/// found.
fn real_driver() -> bool {
    ["/dev/nvidiactl", "/dev/dxg"].iter().any(|node| Path::new(node).exists())
}

/// Whether an encoder was tried.
fn tried(device: &VirtualNvenc) -> bool {
    device.log().iter().any(|event| matches!(event.what, What::Opened { .. } | What::Fault { .. }))
}

#[test]
fn a_healthy_device() {
    let Some(device) = or_left_out(VirtualNvenc::new()) else { return };
    let found = run(&device, "detect", "");
    assert_eq!(found["status"], "usable", "{found}");
    assert_eq!(found["name"], "NVIDIA Virtual (GPU 0)");
    assert_eq!(found["driver"], "driver 610.43.02, NVENC API 13.1");
    assert_eq!(found["features"], json!(["b-frames", "lossless"]));
    assert!(text(&found, "library").ends_with(" h264_nvenc"));
    assert_eq!(device.violations(), Vec::<String>::new());
    assert_eq!(device.open_sessions(), 0);
}

#[test]
fn features_are_the_capabilities_of_the_device() {
    let Some(device) = or_left_out(VirtualNvenc::new()) else { return };
    let device = device.capability(Capability::Lossless, 0);
    assert_eq!(run(&device, "detect", "")["features"], json!(["b-frames"]));
    let device = device.capability(Capability::BFrames, 0);
    assert_eq!(run(&device, "detect", "")["features"], json!([]));
    let found = run(&device, "detect", "[encoder]\nb_frames = 2");
    assert_eq!(found["kind"], "unsupported", "{found}");
    assert!(text(&found, "reason").contains("[NVIDIA Virtual (GPU 0)"), "{found}");
}

#[test]
fn settings_reach_the_device() {
    let Some(device) = or_left_out(VirtualNvenc::new()) else { return };
    let device = device.gpus(&["NVIDIA Virtual", "NVIDIA Virtual"]);
    let table: [(&str, fn(&Config) -> bool); 10] = [
        ("", |c| {
            (c.preset.as_str(), c.tuning.as_str(), c.profile.as_str()) == ("p4", "hq", "high")
                && (c.gop_length, c.idr_period, c.frame_interval_p) == (30, 30, 1)
                && (c.rate_control.as_str(), c.target_quality) == ("vbr", 23.0)
                && (c.bitrate, c.max_bitrate, c.vbv_size) == (0, 0, 0)
                && (c.lookahead, c.spatial_aq, c.temporal_aq) == (0, false, false)
                && (c.gpu, c.width, c.height, c.fps) == (0, 640, 360, [30, 1])
                && !c.zero_reorder_delay
        }),
        (
            "[encoder]\ncrf = 31\ngop_size = 12\nb_frames = 2\npixel_format = \"nv12\"\n\
             [gpu]\nnvenc_preset = \"p5\"\n[backend.nvenc]\ngpu = 1",
            |c| {
                (c.preset.as_str(), c.target_quality, c.gpu) == ("p5", 31.0, 1)
                    && (c.gop_length, c.idr_period, c.frame_interval_p) == (12, 12, 3)
            },
        ),
        ("[encoder]\ncrf = 0", |c| c.target_quality == 1.0),
        ("[gpu]\nnvenc_tune = \"ull\"\nnvenc_preset = \"p1\"", |c| {
            c.tuning == "ull" && c.preset == "p1" && c.zero_reorder_delay
        }),
        ("[encoder]\nb_frames = 4\n[gpu]\nnvenc_tune = \"ll\"", |c| {
            c.tuning == "ll" && c.frame_interval_p == 5
        }),
        ("[gpu]\nnvenc_preset = \"p7\"", |c| c.preset == "p7" && c.profile == "high"),
        ("[backend.nvenc]\nrc_lookahead = 20", |c| c.lookahead == 20),
        ("[encoder]\nb_frames = 3\n[backend.nvenc]\nrc_lookahead = 27", |c| {
            c.lookahead == 27 && c.frame_interval_p == 4
        }),
        ("[backend.nvenc]\nspatial_aq = true\ntemporal_aq = true", |c| {
            c.spatial_aq && c.temporal_aq
        }),
        ("[gpu]\nnvenc_tune = \"lossless\"\n[backend.nvenc]\nspatial_aq = true", |c| {
            (c.tuning.as_str(), c.rate_control.as_str(), c.qp) == ("lossless", "constqp", [0; 3])
                && !c.spatial_aq
        }),
    ];
    for (n, (settings, holds)) in table.iter().enumerate() {
        let report = run(&device, "encode", settings);
        assert_eq!(report["frames"], FRAMES, "{settings}: {report}");
        let configs = device.configs();
        assert_eq!(configs.len(), n + 1);
        let config = configs.last().unwrap();
        assert!(holds(config), "{settings}: {config:?}");
        assert_eq!((config.full_range, config.colour), (Some(false), Some([1, 13, 6])));
    }
    assert_eq!(device.violations(), Vec::<String>::new());
}

#[test]
fn refusals_of_the_device_check_encode_nothing() {
    let Some(device) = or_left_out(VirtualNvenc::new()) else { return };
    drop(device);
    let new = || VirtualNvenc::new().unwrap();
    let nvml = |code| new().fault(Fault::new(Stage::NvmlInit, Action::Error(code)));
    let mut table = vec![
        (new().gpus(&[]), "no-device", "there is no NVIDIA GPU"),
        (nvml(9), "missing", "the NVIDIA driver is not loaded"),
        (nvml(18), "failed", "different versions"),
        (nvml(4), "permission", "may not use"),
        (nvml(15), "failed", "the GPU is lost"),
        (new().driver("430.1", (9, 1), (10, 1)), "driver-too-old", "API 9.1"),
        (new().gpus(&["NVIDIA H200:no-encoder"]), "no-device", "NVIDIA H200 (GPU 0) has no video"),
    ];
    if !real_driver() {
        let no_nvml = || new().without(Part::Ml);
        table.extend([
            (new().without(Part::Encode), "missing", "libnvidia-encode.so.1"),
            (new().without(Part::Cuda), "missing", "libcuda.so.1"),
            (no_nvml().without(Part::Cuda).smi(Smi::Fails), "missing", "couldn't communicate"),
            (no_nvml().smi(Smi::Mismatch), "failed", "version mismatch"),
            (no_nvml().without(Part::Cuda).smi(Smi::Hangs), "missing", "does not answer"),
            (
                no_nvml().without(Part::Cuda).without(Part::Encode).without(Part::Smi),
                "no-device",
                "there is no NVIDIA device",
            ),
        ]);
    }
    for (device, kind, words) in table {
        let found = run(&device, "detect", "");
        assert_eq!(found["kind"], kind, "{words}: {found}");
        assert!(text(&found, "reason").contains(words), "{found}");
        assert!(!text(&found, "hint").is_empty());
        let opened = |what| matches!(what, What::Opened { .. } | What::Refused { .. });
        assert!(!device.log().into_iter().any(|event| opened(event.what)), "{words}");
    }
    if !real_driver() {
        let device = new().without(Part::Encode);
        assert!(text(&run(&device, "encode", ""), "refused").contains("encode library"));
        let more = [("NVIDIA_DRIVER_CAPABILITIES", "compute,utility")];
        let found = run_with(&device, "detect", "", &more);
        assert!(text(&found, "hint").contains("=video,compute,utility"), "{found}");
        // Without NVML and nvidia-smi, but with all other parts.
        let device = new().without(Part::Ml).without(Part::Smi);
        let found = run(&device, "detect", "");
        assert_eq!(found["status"], "usable", "{found}");
        assert_eq!(
            (text(&found, "name"), text(&found, "driver")),
            ("NVIDIA GPU", "NVENC API 13.1")
        );
    }
}

#[test]
fn a_gpu_that_does_not_exist_is_an_error() {
    let Some(device) = or_left_out(VirtualNvenc::new()) else { return };
    let device = device.gpus(&["NVIDIA Virtual", "NVIDIA Virtual"]);
    let settings = "[backend.nvenc]\ngpu = 2";
    let expected = "backend.nvenc.gpu = 2: not allowed; allowed is 0 to 1: this machine has 2 GPUs";
    assert_eq!(text(&run(&device, "detect", settings), "config"), expected);
    assert_eq!(text(&run(&device, "encode", settings), "refused"), expected);
    let more = [("CUDA_VISIBLE_DEVICES", "1")];
    let found = run_with(&device, "detect", "[backend.nvenc]\ngpu = 1", &more);
    assert!(text(&found, "config").contains("0: CUDA_VISIBLE_DEVICES shows 1 GPU"), "{found}");
    assert!(!tried(&device));
    assert_eq!(text(&run(&device, "detect", ""), "name"), "2 × NVIDIA Virtual");
    let found = run(&device, "detect", "[backend.nvenc]\ngpu = 1");
    assert_eq!(text(&found, "name"), "NVIDIA Virtual (GPU 1)");
    assert_eq!(text(&found, "status"), "usable");
    assert!(tried(&device));
}

#[test]
fn faults_are_reported_by_name() {
    let Some(device) = or_left_out(VirtualNvenc::new()) else { return };
    drop(device);
    let new = || VirtualNvenc::new().unwrap();
    let hang = |place| new().fault(Fault::new(place, Action::Hang));
    let place = "[NVIDIA Virtual (GPU 0), driver 610.43.02, NVENC API 13.1]";
    let table = [
        (new().fault(Fault::NO_DEVICE), "no-device", false, place),
        (new().fault(Fault::DRIVER_MISMATCH), "failed", false, "different versions"),
        (new().fault(Fault::GPU_BUSY), "busy", true, place),
        (new().fault(Fault::GPU_MEMORY), "busy", true, "memory is full"),
        (new().fault(Fault::SESSIONS), "busy", true, "sessions are in use"),
        (new().fault(Fault::CLIENT_KEY), "busy", true, "sessions are in use"),
        (new().fault(Fault::VERSION), "driver-too-old", false, place),
        (new().fault(Fault::PRESET), "unsupported", false, "preset"),
        (new().fault(Fault::BUFFERS), "busy", true, "memory is full"),
        (new().fault(Fault::ENCODE), "failed", false, "encoder failed"),
        (new().fault(Fault::DEVICE_LOST), "failed", false, "lost"),
        (new().fault(Fault::LOCK_BUSY), "wrong-output", false, "pictures went in"),
        (new().gpus(&["NVIDIA Odd:no-encoder"]), "no-device", false, "[NVIDIA Odd (GPU 0)"),
        (new().driver("450.1", (11, 0), (11, 0)), "driver-too-old", false, "NVENC API 11.0]"),
        (new().capability(Capability::WidthMax, 512), "unsupported", false, "exceeds 512"),
        (hang(Stage::NvmlInit), "timeout", true, "gave no answer in 5 s"),
        (hang(Stage::CudaInit), "timeout", true, place),
        (hang(Stage::Encode), "timeout", true, place),
    ];
    for (device, kind, transient, words) in table {
        let settings = if kind == "timeout" { "[gpu]\nprobe_timeout_s = 3" } else { "" };
        let found = run(&device, "detect", settings);
        assert_eq!((text(&found, "kind"), &found["transient"]), (kind, &json!(transient)));
        assert!(text(&found, "reason").contains(words), "{words}: {found}");
        // The deadline, the device check after it, and a margin for a slow machine.
        let taken = Duration::from_millis(found["ms"].as_u64().unwrap());
        assert!(taken < Duration::from_secs(60), "{taken:?}: {found}");
        if words.contains("11.0") {
            assert!(text(&found, "hint").starts_with("update the NVIDIA driver to"), "{found}");
        }
    }
}

#[test]
fn no_more_sessions_than_allowed() {
    let Some(device) = or_left_out(VirtualNvenc::new()) else { return };
    let report = run(&device, "3", "[gpu]\nmax_sessions = 2");
    assert_eq!(report["open"], 2);
    assert_eq!(
        report["refused"],
        json!([
            "nvenc: all 2 sessions of NVIDIA Virtual (GPU 0) that max_sessions allows are in use \
             by this program itself; hint: raise gpu.max_sessions, encode fewer videos at once, or \
             allow another encoder"
        ])
    );
    let device = VirtualNvenc::new().unwrap().gpus(&["NVIDIA Virtual"; 3]);
    let report = run(&device, "7", "[gpu]\nmax_sessions = 2");
    assert_eq!(report["open"], 6, "{report}");
    let refused = report["refused"].to_string();
    assert!(refused.contains("each GPU (3 × NVIDIA Virtual)"), "{refused}");
    let gpus: Vec<_> = device.configs().into_iter().map(|config| config.gpu).collect();
    assert_eq!(gpus, [0, 1, 2, 0, 1, 2]);
    let report = run(&device, "2", "[gpu]\nmax_sessions = 1\n[backend.nvenc]\ngpu = 1");
    assert_eq!((&report["open"], device.configs().last().unwrap().gpu), (&json!(1), 1));
    // If sessions cannot be counted, none is opened.
    let more = [("XDG_RUNTIME_DIR", "/proc")];
    let report = run_with(&device, "1", "[gpu]\nmax_sessions = 1", &more);
    assert!(report["refused"].to_string().contains("cannot be counted"), "{report}");
    assert_eq!(device.violations(), Vec::<String>::new());
}
