//! A device that hangs: in mid-stream, at the end, and when a signal ends the run.

use super::*;

/// Each change of the encoder: from, to, cause, count.
fn changes(done: &Converted) -> Vec<(&str, &str, &str, u64)> {
    let all = done.output()["failovers"].as_array().unwrap();
    all.iter()
        .map(|f| {
            let [from, to, cause] = ["from", "to", "cause"].map(|key| f[key].as_str().unwrap());
            (from, to, cause, f["count"].as_u64().unwrap())
        })
        .collect()
}

#[test]
fn a_device_that_hangs_is_left_after_its_second_hang() {
    let Some(bench) = bench() else { return };
    // Not in the probe, which has five pictures.
    let bench = bench.with(|device| device.fault(Fault::new(Stage::Encode, Action::Hang).frame(6)));
    let done = bench.convert(&[], "[gpu]\nstall_timeout_s = 3").expect(0);
    let expected = [("nvenc", "nvenc", "stalled", 1), ("nvenc", "x264", "stalled", 1)];
    assert_eq!(changes(&done), expected, "{}", done.said);
    assert_eq!(done.video().numbers(), numbers());
}

#[test]
fn a_device_that_hangs_when_it_is_closed_costs_no_frame() {
    // At the end of the stream access units are owed; when the encoder is closed, none is.
    for (stage, expected) in [
        (Stage::Close, &[][..]),
        (Stage::End, &[("nvenc", "nvenc", "stalled", 1), ("nvenc", "x264", "stalled", 1)][..]),
    ] {
        let Some(bench) = bench() else { return };
        let limit = if expected.is_empty() { 3600 } else { 3 };
        let toml = format!("[encoder]\nb_frames = 2\n[gpu]\nstall_timeout_s = {limit}");
        // The fault would not pass the probe: it begins later.
        assert_eq!(bench.detect(&toml)["status"], "usable");
        let bench = bench.with(|device| device.fault(Fault::new(stage, Action::Hang)));
        let done = bench.convert(&[], &toml).expect(0);
        let first = &done.output()["encoders"][0]["encoder"];
        assert_eq!(first, "nvenc", "{}", done.said);
        assert_eq!(changes(&done), expected, "{}", done.said);
        assert_eq!(done.video().numbers(), numbers());
        assert_eq!(done.count("frames_encoded"), COUNT as i64);
    }
}

#[test]
fn a_signal_ends_a_hang() {
    // Whether another encoder is left.
    for is_alone in [false, true] {
        let Some(bench) = bench() else { return };
        // Behind the frames of the probe, and so early that the second encoder reaches it too.
        let hang = Fault::new(Stage::Encode, Action::Hang).frame(5);
        let bench = bench.with(|device| device.fault(hang));
        let (config, out) =
            (bench.config("[gpu]\nstall_timeout_s = 3600"), tempfile::tempdir().unwrap());
        let args = ["encode", "-", "--raw", "gray:322x178@25", "--config", text(&config)];
        let required = if is_alone { &["--encoder", "nvenc"][..] } else { &[] };
        let args = args.into_iter().chain(["-o", text(out.path())]).chain(required.iter().copied());
        let mut command = bench.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut program = command.spawn().unwrap();
        let mut stdin = program.stdin.take().unwrap();
        const FRAMES: usize = 12;
        for n in 0..FRAMES {
            let rgb = Picture::stamped(322, 178, n).rgb;
            let grey: Vec<u8> = rgb.chunks(3).map(|pixel| pixel[0]).collect();
            std::io::Write::write_all(&mut stdin, &grey).unwrap();
        }
        let has_hung = || {
            bench
                .device
                .log()
                .iter()
                .any(|event| matches!(event.what, What::Fault { frame: 5, .. }))
        };
        process::until("it hangs", has_hung);
        let sent = Command::new("kill").args(["-TERM", &program.id().to_string()]).status();
        assert!(sent.unwrap().success());
        let (code, said) = told(&program.wait_with_output().unwrap());
        drop(stdin);
        bench.nobody_is_left();
        let stopped = Converted::check(out, "report.json", code, said).expect(3);
        assert_eq!(stopped.report["interrupted"], true);
        let shown = stopped.video().numbers();
        assert_eq!(shown, numbers()[..shown.len()], "{}", stopped.said);
        let read = stopped.count("frames_in");
        let missing = stopped.count("frames_dropped");
        assert_eq!(shown.len() as i64, read - missing);
        assert_eq!((read, missing > 0), (FRAMES as i64, is_alone), "{}", stopped.said);
        let words = format!("the last {missing} frames that were read are missing");
        assert_eq!(stopped.warns(&words), is_alone, "{}", stopped.report);
    }
}
