//! The program with a virtual NVENC device: the real `h264_nvenc` of the real FFmpeg, on libraries
//! that replace NVIDIA's. It tests options, pictures, refusals and clean-up, but not a real
//! device's speed, picture quality or limits.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod common;

#[path = "virtual_nvenc/causes.rs"]
mod causes;
#[path = "virtual_nvenc/hangs.rs"]
mod hangs;

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use common::{
    EPOCH, MS,
    decode::planes,
    device::{Bench, COUNT, numbers, text, warning},
    picture::Picture,
    program::{Converted, told},
    recording::{Content, Recording, Serialization},
};
use encoder_testbed::{
    nvenc::{Action, Capability, Fault, Part, Stage, VirtualNvenc, What, Wrong},
    or_left_out, process,
};

fn bench() -> Option<Bench<VirtualNvenc>> {
    or_left_out(VirtualNvenc::new()).map(Bench::new)
}

#[test]
fn it_is_usable_and_every_pixel_arrives() {
    let Some(bench) = bench() else { return };
    let found = bench.detect("");
    assert_eq!(found["status"], "usable", "{found}");
    assert_eq!(found["hardware"], true);
    assert!(found["name"].as_str().unwrap().contains("NVIDIA Virtual"), "{found}");
    assert!(found["driver"].as_str().unwrap().contains("610.43.02"), "{found}");
    assert_eq!(found["features"], serde_json::json!(["b-frames", "lossless"]));

    let software = bench.convert(&["--encoder", "x264", "--crf", "0"], "").expect(0);
    let expected = planes(&software.path("cam.mp4"));
    for (b_frames, gop) in [("0", "12"), ("2", "12"), ("1", "250")] {
        let args = ["--encoder", "nvenc", "--b-frames", b_frames, "--gop", gop];
        let hardware = bench.convert(&args, "").expect(0);
        assert_eq!(hardware.output()["encoder"], "nvenc");
        assert_eq!(hardware.video().numbers(), numbers());
        // x264 at CRF 0 is lossless, and so is the device.
        assert!(planes(&hardware.path("cam.mp4")) == expected, "{b_frames} B-frames");
    }
    assert_eq!(bench.device.violations(), Vec::<String>::new());
    assert_eq!(bench.device.open_sessions(), 0);
}

#[test]
fn what_was_asked_for_arrives() {
    let Some(bench) = bench() else { return };
    let toml = "[encoder]\ncrf = 19\ngop_size = 30\nb_frames = 2\npixel_format = \"nv12\"\n\
                [gpu]\nnvenc_preset = \"p5\"\nnvenc_tune = \"hq\"\n[backend.nvenc]\ngpu = 1";
    let bench = bench.with(|device| device.gpus(&["NVIDIA First", "NVIDIA Second"]));
    bench.convert(&["--encoder", "nvenc"], toml).expect(0);
    let configs = bench.device.configs();
    let stream = configs.last().unwrap();
    assert_eq!((stream.preset.as_str(), stream.tuning.as_str()), ("p5", "hq"));
    assert_eq!((stream.rate_control.as_str(), stream.target_quality), ("vbr", 19.0));
    assert_eq!((stream.gop_length, stream.idr_period, stream.frame_interval_p), (30, 30, 3));
    assert_eq!((stream.width, stream.height, stream.gpu), (322, 178, 1));
    assert_eq!((stream.full_range, stream.colour), (Some(false), Some([1, 13, 6])));
    // The probe used the same options, at its own quality.
    let probe = configs.first().unwrap();
    assert_eq!((probe.preset.as_str(), probe.target_quality, probe.gpu), ("p5", 23.0, 1));
    assert_eq!((probe.width, probe.height), (640, 360));
}

#[test]
fn the_rate_control_arrives() {
    // Options | rate control, quantisers, mean and maximum bit rate, bits of the buffer
    type Row<'a> = (&'a [&'a str], &'a str, [u32; 3], [u32; 2]);
    let table: [Row<'_>; 3] = [
        (&["--qp", "31", "--b-frames", "2"], "constqp", [31; 3], [0, 0]),
        (&["--bitrate", "900"], "vbr", [0; 3], [900_000, 0]),
        (&["--bitrate", "900", "--max-bitrate", "1200"], "vbr", [0; 3], [900_000, 1_200_000]),
    ];
    for (args, rate_control, qp, bits) in table {
        let Some(bench) = bench() else { return };
        bench.convert(&[&["--encoder", "nvenc"], args].concat(), "").expect(0);
        let configs = bench.device.configs();
        let stream = configs.last().unwrap();
        assert_eq!(stream.rate_control, rate_control, "{args:?}: {stream:?}");
        if rate_control == "constqp" {
            assert_eq!(stream.qp, qp, "{args:?}: {stream:?}");
        } else {
            assert_eq!(stream.target_quality, 0.0, "{args:?}: {stream:?}");
            assert_eq!(stream.bitrate, bits[0], "{args:?}: {stream:?}");
            assert_eq!(stream.max_bitrate, bits[1], "{args:?}: {stream:?}");
        }
        // The probe has the same kind of rate control.
        assert_eq!(configs.first().unwrap().rate_control, rate_control, "{args:?}");
    }
}

#[test]
fn wrong_configuration_is_an_error_before_anything_starts() {
    let Some(bench) = bench() else { return };
    for (toml, expected) in [
        ("[gpu]\nnvenc_preset = \"p9\"", "p7"),
        ("[gpu]\nnvenc_tune = \"fast\"", "lossless"),
        ("[backend.nvenc]\ngpu = 1", "backend.nvenc.gpu = 1"),
        ("[backend.nvenc]\ngpus = 1", "did you mean `gpu`?"),
    ] {
        let refused = bench.convert(&[], toml).expect(2);
        assert!(refused.said.contains(expected), "{}", refused.said);
        assert_eq!(refused.files(), Vec::<String>::new());
    }
    assert_eq!(bench.device.log(), [], "nobody has spoken to the device");
}

#[test]
fn each_miss_has_its_own_refusal() {
    const HASTE: &str = "[gpu]\nprobe_timeout_s = 1";
    let hang = |place| Fault::new(place, Action::Hang);
    let output = |wrong| Fault::output(wrong).times(1000);
    type Change = Box<dyn Fn(VirtualNvenc) -> VirtualNvenc>;
    let fault = |fault: Fault| -> Change { Box::new(move |device| device.fault(fault)) };
    // fault | kind | transient | part of the reason | configuration
    let table: Vec<(Change, &str, bool, &str, &str)> = vec![
        (Box::new(|d| d.without(Part::Encode)), "missing", false, "libnvidia-encode", ""),
        (Box::new(|d| d.without(Part::Cuda)), "missing", false, "libcuda", ""),
        (Box::new(|d| d.gpus(&[])), "no-device", false, "no NVIDIA GPU", ""),
        (Box::new(|d| d.gpus(&["NVIDIA H200:no-encoder"])), "no-device", false, "H200", ""),
        (Box::new(|d| d.driver("390.157", (8, 1), (9, 1))), "driver-too-old", false, "too old", ""),
        (
            Box::new(|d| d.driver("460.91", (11, 0), (11, 2))),
            "driver-too-old",
            false,
            "Found: 11.0",
            "",
        ),
        (fault(Fault::SESSIONS), "busy", true, "sessions", ""),
        (fault(Fault::CLIENT_KEY), "busy", true, "sessions", ""),
        (fault(Fault::NO_DEVICE), "no-device", false, "no NVIDIA GPU", ""),
        (fault(Fault::DRIVER_MISMATCH), "failed", false, "different versions", ""),
        (fault(Fault::GPU_BUSY), "busy", true, "taken by another", ""),
        (fault(Fault::GPU_MEMORY), "busy", true, "memory is full", ""),
        (fault(Fault::VERSION), "driver-too-old", false, "too old", ""),
        (fault(Fault::PRESET), "unsupported", false, "preset", ""),
        (fault(Fault::BUFFERS), "busy", true, "memory", ""),
        (fault(Fault::ENCODE), "failed", false, "EncodePicture failed", ""),
        (fault(Fault::DEVICE_LOST), "failed", false, "device does not exist", ""),
        (fault(Fault::LOCK_BUSY), "wrong-output", false, "5 pictures went in, 4 came out", ""),
        (fault(Fault::new(Stage::Encode, Action::Abort)), "failed", false, "signal 6", ""),
        (
            fault(Fault::new(Stage::Encode, Action::Segfault)),
            "failed",
            false,
            "segmentation fault",
            "",
        ),
        (
            fault(Fault::new(Stage::Encode, Action::Exit(0))),
            "wrong-output",
            false,
            "0 came out",
            "",
        ),
        (fault(hang(Stage::CudaInit)), "timeout", true, "no answer in 1 s", HASTE),
        (fault(hang(Stage::Open)), "timeout", true, "no answer in 1 s", HASTE),
        (fault(hang(Stage::Encode)), "timeout", true, "no answer in 1 s", HASTE),
        (fault(hang(Stage::Close)), "timeout", true, "no answer in 1 s", HASTE),
        (fault(output(Wrong::Black)), "wrong-output", false, "levels off", ""),
        (fault(output(Wrong::Stale)), "wrong-output", false, "levels off", ""),
        (fault(output(Wrong::Shifted)), "wrong-output", false, "levels off", ""),
        (fault(output(Wrong::Swapped)), "wrong-output", false, "in chroma", ""),
        (fault(output(Wrong::Garbage)), "wrong-output", false, "", ""),
        (fault(output(Wrong::Truncated)), "wrong-output", false, "", ""),
        (fault(output(Wrong::Empty)), "wrong-output", false, "", ""),
        (fault(output(Wrong::Timestamp).frame(2)), "wrong-output", false, "which no frame had", ""),
    ];
    for (n, (change, kind, transient, words, toml)) in table.into_iter().enumerate() {
        let Some(bench) = bench() else { return };
        let bench = bench.with(change);
        let found = bench.detect(toml);
        let told = format!("row {n}: {found}");
        assert_eq!(found["status"], "refused", "{told}");
        assert_eq!(
            (&found["kind"], &found["transient"]),
            (&kind.into(), &transient.into()),
            "{told}"
        );
        assert!(found["reason"].as_str().unwrap().contains(words), "{told}");
        assert!(!found["hint"].as_str().unwrap().is_empty(), "{told}");
    }
}

#[test]
fn a_refusal_is_loud_where_it_is_required_and_one_warning_where_not() {
    let Some(bench) = bench() else { return };
    let bench = bench.with(|device| device.gpus(&["NVIDIA H200:no-encoder"]));
    let required = bench.convert(&["--encoder", "nvenc"], "").expect(1);
    assert!(required.said.contains("no video encoder"), "{}", required.said);
    assert!(required.said.contains("use a GPU with NVENC"), "{}", required.said);
    let required = bench.convert(&[], "[gpu]\nrequire_hardware = true").expect(1);
    assert!(required.said.contains("no encoder could be opened"), "{}", required.said);
    let fallen_back = bench.convert(&[], "").expect(0);
    assert_eq!(fallen_back.output()["encoder"], "x264");
    assert!(warning(&fallen_back.said, "nvenc").contains("no video encoder"));
    assert_eq!(fallen_back.video().numbers(), numbers());
}

#[test]
fn what_a_device_refuses_at_the_first_frame_goes_to_the_next() {
    // The device was probed as usable and cached, and then refuses: because of the size of the
    // recording, or because other processes have taken its sessions since.
    let smaller = |d: VirtualNvenc| d.capability(Capability::WidthMax, 300);
    type Change = fn(VirtualNvenc) -> VirtualNvenc;
    let table: [(Change, &str); 4] = [
        (smaller, "too large for this device"),
        (|d| d.fault(Fault::SESSIONS), "all encode sessions are in use"),
        (|d| d.fault(Fault::GPU_MEMORY), "memory is full"),
        (|d| d.fault(Fault::new(Stage::Open, Action::Hang)), "no answer in 1 s"),
    ];
    for (change, words) in table {
        let Some(bench) = bench() else { return };
        const HASTE: &str = "[gpu]\nprobe_timeout_s = 1";
        // With a long timeout, so that it also succeeds on a slow machine. The timeout is not part
        // of the cache key, so the result stays valid.
        assert_eq!(bench.detect("[gpu]\nprobe_timeout_s = 60")["status"], "usable");
        let bench = bench.with(change);
        let done = bench.convert(&[], HASTE).expect(0);
        // With a short timeout, the probe of software encoders may also be too slow.
        assert_ne!(done.output()["encoder"], "nvenc", "{}", done.said);
        assert!(warning(&done.said, "nvenc").contains(words), "{}", done.said);
        assert!(done.output()["refusals"].to_string().contains(words));
        assert_eq!(done.video().numbers(), numbers());
        let required = bench.convert(&["--encoder", "nvenc"], HASTE).expect(1);
        assert!(required.said.contains(words), "{}", required.said);
        assert!(required.outputs().iter().all(|output| output["file"].is_null()));
    }
}

#[test]
fn what_goes_wrong_amid_a_stream_costs_no_frame() {
    let hang = Fault::new(Stage::Encode, Action::Hang);
    // The fault, the cause in the report, and text from the device (either of the two).
    for (fault, cause, words) in [
        (Fault::ENCODE.frame(32), "failed", "EncodePicture failed"),
        (Fault::DEVICE_LOST.frame(32), "failed", "device does not exist"),
        (Fault::new(Stage::Encode, Action::Segfault).frame(32), "died", "segmentation fault"),
        (Fault::LOCK_BUSY.frame(32), "wrong-output", "it lost frame|frames went in"),
        (Fault::output(Wrong::Timestamp).frame(32), "wrong-output", "access unit"),
        (hang.frame(32), "stalled", "put for 3 s"),
    ] {
        let Some(bench) = bench() else { return };
        let bench = bench.with(|device| device.fault(fault));
        // Each new session of the device has the fault again. The ring's 25 slots have no room for
        // the 32nd frame before seven frames are committed: it cannot strike three times.
        let args = ["--encoder", "nvenc", "--b-frames", "2"];
        let done = bench.convert(&args, "[gpu]\nstall_timeout_s = 3").expect(0);
        let told = format!("{fault:?}: {}\n{:#}", done.said, done.report);
        assert_eq!(done.video().numbers(), numbers(), "{told}");
        assert_eq!((done.count("frames_in"), done.count("frames_encoded")), (40, 40), "{told}");
        let failovers = done.output()["failovers"].as_array().unwrap();
        assert!(!failovers.is_empty(), "{told}");
        // If the fault strikes a second time, it is near the end, where it may look different.
        assert_eq!(failovers[0]["cause"], cause, "{told}");
        let reason = failovers[0]["reason"].as_str().unwrap();
        assert!(words.split('|').any(|words| reason.contains(words)), "{told}");
        for failover in failovers {
            assert_eq!((&failover["from"], &failover["to"]), (&"nvenc".into(), &"nvenc".into()));
        }
        let warned = done.said.lines().filter(|line| line.starts_with("warning:")).count();
        let counts = failovers.iter().map(|failover| failover["count"].as_u64().unwrap());
        assert_eq!(warned as u64, counts.sum::<u64>(), "{told}");
    }
}

#[test]
fn wrong_pictures_amid_a_stream_are_encoded_again_in_software() {
    for (wrong, frame, toml) in [
        (Wrong::Black, 24, ""),
        (Wrong::Stale, 24, ""),
        (Wrong::Garbage, 24, ""),
        (Wrong::Swapped, 24, ""),
        (Wrong::Black, 30, "[gpu]\ncheck_output = \"all\""),
        (Wrong::Garbage, 30, "[gpu]\ncheck_output = \"all\""),
    ] {
        let Some(bench) = bench() else { return };
        // The probe encodes fewer frames, and passes.
        let bench =
            bench.with(|device| device.fault(Fault::output(wrong).frame(frame).times(1000)));
        let done = bench.convert(&["--gop", "12"], toml).expect(0);
        let told = format!("{wrong:?} {frame}: {}\n{:#}", done.said, done.report);
        assert_eq!(done.video().numbers(), numbers(), "{told}");
        let failover = &done.output()["failovers"][0];
        assert_eq!(
            (&failover["from"], &failover["to"]),
            (&"nvenc".into(), &"x264".into()),
            "{told}"
        );
        assert_eq!(failover["cause"], "wrong-picture", "{told}");
        let reason = failover["reason"].as_str().unwrap();
        assert!(reason.contains(&format!("picture of frame {frame} is wrong")), "{told}");
        // The frames before the key frame that is wrong were not checked: this is a warning.
        let unchecked = toml.is_empty();
        assert_eq!(done.said.contains("frames 13 to 23"), unchecked, "{told}");
        assert_eq!(bench.device.open_sessions(), 0);
    }
}

#[test]
fn a_device_that_fails_again_and_again_is_left_for_software() {
    let Some(bench) = bench() else { return };
    let bench = bench.with(|device| device.fault(Fault::DEVICE_LOST.frame(5)));
    let done = bench.convert(&["--b-frames", "2"], "").expect(0);
    assert_eq!(done.video().numbers(), numbers(), "{:#}", done.report);
    let changes: Vec<_> = done.output()["failovers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| (f["from"].as_str().unwrap(), f["to"].as_str().unwrap(), &f["count"]))
        .collect();
    assert_eq!(changes, [("nvenc", "nvenc", &2.into()), ("nvenc", "x264", &1.into())]);
    // The encoder with the most frames, however many the other encoder completed.
    assert_eq!(done.output()["encoder"], "x264");
    let encoders = done.output()["encoders"].as_array().unwrap();
    let frames: i64 = encoders.iter().map(|e| e["frames"].as_i64().unwrap()).sum();
    assert_eq!((&encoders[encoders.len() - 1]["encoder"], frames), (&"x264".into(), 40));
    // If the encoder is required, its loss is an error, and the written part is kept. Each of three
    // attempts completes at least two frames, since otherwise the eleven slots have no room for the
    // fourteenth frame.
    let bench = bench.with(|device| device.fault(Fault::DEVICE_LOST.frame(13)));
    let small = "[gpu]\nenable_ring_buffer = false";
    let failed = bench.convert(&["--encoder", "nvenc"], small).expect(1);
    assert!(failed.said.contains("device does not exist"), "{}", failed.said);
    assert!(failed.output()["file"].is_null());
    let part = failed.path(failed.output()["partial"].as_str().unwrap());
    let kept = common::decode::decode_fragmented(&part).numbers();
    assert!(kept.len() >= 6, "{kept:?}");
    assert_eq!(kept, (0..kept.len()).map(Some).collect::<Vec<_>>());
}

/// A session of another process on the device, while this value lives.
struct Holder(std::process::Child);

impl Holder {
    fn new(bench: &Bench<VirtualNvenc>) -> Self {
        let ffmpeg = std::env::var_os("ENCODER_FFMPEG").unwrap_or_else(|| "ffmpeg".into());
        let mut command = Command::new(ffmpeg);
        let words = "-hide_banner -loglevel error -f rawvideo -pix_fmt yuv420p -s 640x360 \
                     -probesize 32 -i pipe:0 -c:v h264_nvenc -f null -";
        command.args(words.split_whitespace()).stdin(Stdio::piped());
        let mut child = bench.device.apply(&mut command).spawn().unwrap();
        let frames = vec![128; 640 * 360 * 3];
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), &frames).unwrap();
        process::until("the session is open", || bench.device.open_sessions() == 1);
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn was_refused(bench: &Bench<VirtualNvenc>) -> bool {
    bench.device.log().iter().any(|event| matches!(event.what, What::Refused { .. }))
}

#[test]
fn a_session_limit_is_waited_for_or_spilled_as_was_said() {
    let Some(bench) = bench() else { return };
    let bench = bench.with(|device| device.session_limit(1, 10));
    let holder = Holder::new(&bench);
    let (config, out) = (bench.config(""), tempfile::tempdir().unwrap());
    let args =
        ["encode", text(&bench.recording), "-o", text(out.path()), "--config", text(&config)];
    let (code, said) = told(&bench.command(args).output().unwrap());
    let spilled = Converted::check(out, "report.json", code, said).expect(0);
    assert_eq!(spilled.output()["encoder"], "x264");
    assert!(warning(&spilled.said, "nvenc").contains("all encode sessions are in use"));
    assert!(was_refused(&bench));

    // The same with a waiting time: the program continues once the other session has ended.
    let Some(bench) = self::bench() else { return };
    let bench = bench.with(|device| device.session_limit(1, 10));
    drop(holder);
    let holder = Holder::new(&bench);
    let config = bench.config("[gpu]\nsession_wait_s = 600");
    let out = tempfile::tempdir().unwrap();
    let args =
        ["encode", text(&bench.recording), "-o", text(out.path()), "--config", text(&config)];
    let waiting = bench
        .command(args)
        .arg("-v")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    process::until("it was refused", || was_refused(&bench));
    drop(holder);
    let (code, said) = told(&waiting.wait_with_output().unwrap());
    let waited = Converted::check(out, "report.json", code, said).expect(0);
    assert_eq!(waited.output()["encoder"], "nvenc", "{}", waited.said);
    bench.nobody_is_left();
}

#[test]
fn a_signal_ends_the_wait_for_a_session() {
    let Some(bench) = bench() else { return };
    let bench = bench.with(|device| device.session_limit(1, 10));
    let holder = Holder::new(&bench);
    let config = bench.config("[gpu]\nsession_wait_s = 3600");
    let out = tempfile::tempdir().unwrap();
    let args =
        ["encode", text(&bench.recording), "-o", text(out.path()), "--config", text(&config)];
    let mut command = bench.command(args);
    command.arg("-v").stdout(Stdio::null()).stderr(Stdio::piped());
    let mut waiting = command.spawn().unwrap();
    let mut lines = BufReader::new(waiting.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("waiting up to 3600 s")));
    let sent = Command::new("kill").args(["-INT", &waiting.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let said: Vec<_> = lines.collect();
    let (code, said) = (waiting.wait().unwrap().code().unwrap(), said.join("\n"));
    let stopped = Converted::check(out, "report.json", code, said).expect(3);
    assert_eq!(stopped.report["interrupted"], true);
    // All frames that were read are in a complete file, encoded by the next encoder.
    assert_eq!(stopped.output()["encoder"], "x264", "{}", stopped.said);
    let shown = stopped.video().numbers();
    assert_eq!(shown, numbers()[..shown.len()]);
    drop(holder);
    bench.nobody_is_left();
}

#[test]
fn sessions_of_the_same_run_are_not_waited_for() {
    let Some(bench) = bench() else { return };
    let recording = bench.folder.path().join("three.mcap");
    let mut cameras = Recording::create(&recording);
    for n in 0..COUNT {
        let time = EPOCH + n as i64 * 40 * MS;
        let content = Content::raw(&Picture::stamped(322, 178, n), "rgb8", 0);
        for topic in ["/left", "/middle", "/right"] {
            cameras.write(topic, Serialization::CdrLittle, time, time, &content);
        }
    }
    cameras.finish();
    let runtime = tempfile::tempdir().unwrap();
    let convert = |bench: &Bench<VirtualNvenc>, args: &[&str], toml: &str| {
        let (config, out) = (bench.config(toml), tempfile::tempdir().unwrap());
        let all = ["encode", text(&recording), "-o", text(out.path()), "--config", text(&config)];
        let mut command = bench.command(all.into_iter().chain(args.iter().copied()));
        let output = command.env("XDG_RUNTIME_DIR", runtime.path()).output().unwrap();
        let (code, said) = told(&output);
        bench.nobody_is_left();
        Converted::check(out, "report.json", code, said)
    };
    let check = |done: &Converted, expected: &str| {
        let outputs = done.outputs();
        let mut encoders: Vec<_> = outputs.iter().map(|o| o["encoder"].as_str().unwrap()).collect();
        encoders.sort_unstable();
        assert_eq!(encoders, ["nvenc", "nvenc", "x264"], "{}", done.said);
        let software = outputs.iter().find(|o| o["encoder"] == "x264").unwrap();
        let refusals = software["refusals"].as_array().unwrap();
        let refusal = refusals.iter().find(|refusal| refusal["encoder"] == "nvenc").unwrap();
        let reason = refusal["reason"].as_str().unwrap();
        assert!(reason.contains(expected) && !reason.contains("for 30 s now"), "{reason}");
        for output in outputs {
            let video = common::decode::decode(&done.path(output["file"].as_str().unwrap()));
            assert_eq!(video.numbers(), numbers());
        }
    };
    const LIMIT: &str = "[gpu]\nmax_sessions = 2\nsession_wait_s = 30";
    let done = convert(&bench, &[], LIMIT).expect(0);
    check(&done, "that max_sessions allows are in use by this program itself");
    // If there is no other encoder, the error is reported at once, with a hint.
    let failed = convert(&bench, &["--encoder", "nvenc"], LIMIT).expect(1);
    let outputs = failed.outputs();
    let errors: Vec<_> = outputs.iter().filter_map(|output| output["error"].as_str()).collect();
    let [error] = errors[..] else { panic!("{errors:?}") };
    assert!(error.contains("raise gpu.max_sessions") && !error.contains("30 s"), "{error}");
    // A limit of the driver: the owner of the sessions is a guess, as the reason states.
    let bench = bench.with(|device| device.session_limit(2, 10));
    let done = convert(&bench, &[], "[gpu]\nsession_wait_s = 30").expect(0);
    check(&done, "not waited for, since this program itself uses 2 sessions");
}

#[test]
fn sessions_are_counted_over_all_programs_of_the_user() {
    let Some(bench) = bench() else { return };
    let runtime = tempfile::tempdir().unwrap();
    let config = bench.config("[gpu]\nmax_sessions = 1");
    let (held, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // A program that has begun, and waits for more frames.
    let args = ["encode", "-", "--raw", "gray:160x120@30", "-o", text(held.path())];
    let mut holder = bench
        .command(args.into_iter().chain(["--encoder", "nvenc", "--config", text(&config)]))
        .env("XDG_RUNTIME_DIR", runtime.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::io::Write::write_all(holder.stdin.as_mut().unwrap(), &[128; 160 * 120 * 4]).unwrap();
    let is_running = || bench.device.configs().iter().any(|c| (c.width, c.height) == (160, 120));
    process::until("the stream has begun", is_running);

    let args = ["encode", text(&bench.recording), "-o", text(out.path())];
    let mut command = bench.command(args.into_iter().chain(["--config", text(&config)]));
    let (code, said) = told(&command.env("XDG_RUNTIME_DIR", runtime.path()).output().unwrap());
    let spilled = Converted::check(out, "report.json", code, said).expect(0);
    assert_eq!(spilled.output()["encoder"], "x264");
    assert!(warning(&spilled.said, "nvenc").contains("max_sessions allows are in use"));
    assert_eq!(spilled.video().numbers(), numbers());

    // However the program ends, its session is free again.
    holder.kill().unwrap();
    holder.wait().unwrap();
    bench.nobody_is_left();
    let out = tempfile::tempdir().unwrap();
    let args = ["encode", text(&bench.recording), "-o", text(out.path())];
    let mut command = bench.command(args.into_iter().chain(["--config", text(&config)]));
    let (code, said) = told(&command.env("XDG_RUNTIME_DIR", runtime.path()).output().unwrap());
    let done = Converted::check(out, "report.json", code, said).expect(0);
    assert_eq!(done.output()["encoder"], "nvenc", "{}", done.said);
}
