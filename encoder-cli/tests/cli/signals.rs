//! Ctrl-C, SIGTERM and SIGHUP: files are complete, and a second signal ends the program at once.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use crate::common;

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    os::{fd::AsRawFd, unix::process::ExitStatusExt},
    process::{Child, ChildStdin, Command, Stdio},
};

use common::{
    decode::decode,
    entries,
    picture::Picture,
    program::{Converted, command},
};
use encoder_testbed::process;

const FRAMES: usize = 40;

/// The program, with frames on its standard input, which stays open.
fn start(out: &std::path::Path, args: &[&str]) -> (Child, ChildStdin) {
    let out = out.to_str().unwrap();
    let all = ["encode", "-", "--raw", "rgb24:160x120@25", "-o", out, "--overwrite"];
    let mut command = command(all.into_iter().chain(args.iter().copied()));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut program = command.spawn().unwrap();
    let mut stdin = program.stdin.take().unwrap();
    for n in 0..FRAMES {
        stdin.write_all(&Picture::stamped(160, 120, n).rgb).unwrap();
    }
    process::until("it has read all frames", || unread(&stdin) == 0);
    (program, stdin)
}

/// Number of unread bytes in a pipe.
fn unread(pipe: &impl AsRawFd) -> i32 {
    let mut bytes = 0;
    // SAFETY: the descriptor is open, and FIONREAD writes one int to a place that lives.
    let asked = unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    assert_eq!(asked, 0);
    bytes
}

fn send(signal: &str, id: u32) {
    let sent = Command::new("kill").args([signal, &id.to_string()]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn the_first_signal_ends_with_a_whole_file() {
    for (signal, mode) in
        [("-INT", "progressive"), ("-TERM", "fragmented"), ("-HUP", "progressive")]
    {
        for encoder in ["openh264", "x264"] {
            let out = tempfile::tempdir().unwrap();
            let (program, stdin) =
                start(out.path(), &["--encoder", encoder, "--output-mode", mode]);
            send(signal, program.id());
            let output = program.wait_with_output().unwrap();
            drop(stdin);
            let (code, said) = common::program::told(&output);
            let ended = Converted::check(out, "report.json", code, said).expect(3);
            assert_eq!(ended.report["interrupted"], true);
            assert!(ended.warns("stopped"), "{}", ended.report);
            // All frames that were read are in the video, including those that the encoder held.
            let video = common::decode::decode_fragmented(&ended.path("stdin.mp4"));
            assert_eq!(video.numbers(), (0..FRAMES).map(Some).collect::<Vec<_>>());
        }
    }
}

/// A terminal that is closed sends several, and after `nohup` they have no effect.
#[test]
fn further_hangups_have_no_effect_and_nohup_is_respected() {
    for is_ignored in [false, true] {
        let out = tempfile::tempdir().unwrap();
        let args = ["encode", "-", "--raw", "rgb24:160x120@25", "--encoder", "openh264", "-o"];
        let mut shell = Command::new("sh");
        let ignore = if is_ignored { "trap '' HUP; " } else { "" };
        shell.args(["-c", &format!("{ignore}exec \"$@\""), "sh", env!("CARGO_BIN_EXE_encoder")]);
        shell.args(args).arg(out.path()).env("ENCODER_CACHE", "");
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut program = shell.spawn().unwrap();
        let mut stdin = program.stdin.take().unwrap();
        let mut write = |n| stdin.write_all(&Picture::stamped(160, 120, n).rgb);
        (0..FRAMES).for_each(|n| write(n).unwrap());
        process::until("it encodes", || !entries(out.path()).is_empty());
        send("-HUP", program.id());
        send("-HUP", program.id());
        if is_ignored {
            (FRAMES..2 * FRAMES).for_each(|n| write(n).unwrap());
            drop(stdin);
        }
        let (code, said) = common::program::told(&program.wait_with_output().unwrap());
        let ended = Converted::check(out, "report.json", code, said);
        let ended = ended.expect(if is_ignored { 0 } else { 3 });
        assert_eq!(ended.report["interrupted"], !is_ignored);
        let numbers = ended.video().numbers();
        assert_eq!(numbers, (0..numbers.len()).map(Some).collect::<Vec<_>>());
        assert!(!is_ignored || numbers.len() == 2 * FRAMES);
    }
}

/// The FFmpeg that encodes for the program.
fn encoder_of(program: &Child) -> u32 {
    let encoder = || {
        let all = process::children_of(program.id());
        all.into_iter().find(|child| child.name.starts_with("ffmpeg")).map(|child| child.id)
    };
    process::until("the encoder runs", || encoder().is_some());
    encoder().unwrap()
}

#[test]
fn an_encoder_that_hangs_is_restarted_once_after_a_signal() {
    let out = tempfile::tempdir().unwrap();
    // With B-frames the encoder holds frames, so the program waits for it at the end.
    let (program, stdin) = start(out.path(), &["--encoder", "x264", "--b-frames", "2"]);
    let child = encoder_of(&program);
    send("-STOP", child);
    send("-TERM", program.id());
    let output = program.wait_with_output().unwrap();
    drop(stdin);
    process::assert_gone(child);
    let (code, said) = common::program::told(&output);
    let ended = Converted::check(out, "report.json", code, said).expect(3);
    assert_eq!(ended.report["interrupted"], true);
    let failover = &ended.output()["failovers"][0];
    assert_eq!((&failover["cause"], &failover["count"]), (&"stalled".into(), &1.into()));
    assert!(failover["reason"].as_str().unwrap().contains("the run was stopped"), "{failover}");
    assert_eq!(ended.video().numbers(), (0..FRAMES).map(Some).collect::<Vec<_>>());
}

#[test]
fn the_second_signal_ends_at_once_and_what_was_written_stays() {
    let out = tempfile::tempdir().unwrap();
    let (mut program, stdin) = start(out.path(), &["--encoder", "x264"]);
    // An encoder that hangs, so that the program does not end quickly.
    let child = encoder_of(&program);
    send("-STOP", child);
    send("-INT", program.id());
    let mut said = BufReader::new(program.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("stopped") {
        line.clear();
        assert!(said.read_line(&mut line).unwrap() > 0, "it ended early");
    }
    send("-INT", program.id());
    let status = program.wait().unwrap();
    assert_eq!(status.signal(), Some(2), "{status}");
    drop(stdin);
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    process::assert_gone(child);
    // No incomplete file under the final name.
    let left = entries(out.path());
    assert!(left.iter().all(|name| name.ends_with(".part")), "{left:?}");
}

#[test]
fn a_recording_that_is_stopped_keeps_what_was_read() {
    use common::{
        EPOCH, MS,
        recording::{camera, small},
    };
    let folder = tempfile::tempdir().unwrap();
    let frames: Vec<_> = (0..3000)
        .map(|n| {
            let time = EPOCH + n as i64 * 40 * MS;
            (time, time, small(n % 4096))
        })
        .collect();
    let recording = camera(folder.path(), &frames);
    let out = folder.path().join("out");
    let paths = [recording.to_str().unwrap(), out.to_str().unwrap()];
    let mut command = command(["encode", paths[0], "-o", paths[1], "--encoder", "openh264"]);
    let program = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    process::until("it writes", || out.is_dir() && !entries(&out).is_empty());
    send("-INT", program.id());
    let (code, said) = common::program::told(&program.wait_with_output().unwrap());
    // On a fast machine the program may already have ended.
    assert!(code == 3 || code == 0, "{code}: {said}");
    let numbers = decode(&out.join("cam.mp4")).numbers();
    assert_eq!(numbers, (0..numbers.len()).map(Some).collect::<Vec<_>>());
    assert_eq!(entries(&out), ["cam.mp4", "report.json"]);
}

#[test]
fn a_signal_ends_the_wait_for_a_named_pipe() {
    let mut y4m = b"YUV4MPEG2 W160 H120 F25:1\n".to_vec();
    for n in 0..3 {
        y4m.extend(b"FRAME\n");
        y4m.extend(Picture::stamped(160, 120, n).raw("i420", 0).0);
    }
    // Nothing is written, not even by a writer; the beginning of a header; three frames.
    for (bytes, code) in [(None, 1), (Some(&y4m[..10]), 1), (Some(&y4m[..]), 3)] {
        let (folder, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let pipe = folder.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let paths = [&pipe, out.path()].map(|path| path.to_str().unwrap());
        let args = ["encode", paths[0], "-o", paths[1], "--encoder", "openh264"];
        let mut program =
            command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let writer = bytes.map(|bytes| {
            let mut writer = File::options().write(true).open(&pipe).unwrap();
            writer.write_all(bytes).unwrap();
            process::until("it has read", || unread(&writer) == 0);
            writer
        });
        if writer.is_none() {
            let threads = format!("/proc/{}/task", program.id());
            let opens = |thread: &std::path::PathBuf| {
                std::fs::read_to_string(thread.join("comm")).is_ok_and(|name| name == "open\n")
            };
            let all = || std::fs::read_dir(&threads).into_iter().flatten().flatten();
            process::until("it waits", || all().any(|thread| opens(&thread.path())));
        }
        send("-INT", program.id());
        process::until("it ends", || program.try_wait().unwrap().is_some());
        drop(writer);
        let (ended, said) = common::program::told(&program.wait_with_output().unwrap());
        let ended = Converted::check(out, "report.json", ended, said).expect(code);
        assert_eq!(ended.report["interrupted"], true);
        match code {
            1 => assert_eq!(ended.report["error_kind"], "stopped", "{}", ended.report),
            _ => assert_eq!(ended.video().numbers(), [Some(0), Some(1), Some(2)]),
        }
    }
}
