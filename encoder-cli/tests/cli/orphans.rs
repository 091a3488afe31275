//! No FFmpeg that the program has started keeps running when the program is ended from outside.
//! Needs FFmpeg with libx264.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use crate::common;

use std::{
    fs,
    io::Write,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use common::{picture::Picture, program::command};
use encoder_testbed::{
    process::{Process, all, assert_gone, assert_group_gone, children_of, group, until},
    scripted::{Kind, Script, Step},
};

/// The program in the middle of a stream, as the leader of a process group, like a job of a shell.
fn encoding(out: &tempfile::TempDir) -> Child {
    let args = ["encode", "-", "--raw", "rgb24:160x120@30", "--encoder", "x264", "-o"];
    let mut program = command(args.into_iter().chain([out.path().to_str().unwrap()]))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    // More frames than the ring, FFmpeg's look-ahead and the pipes hold: once these are written,
    // some are encoded.
    let stdin = program.stdin.as_mut().unwrap();
    for n in 0..200 {
        stdin.write_all(&Picture::stamped(160, 120, n).rgb).unwrap();
    }
    program
}

/// The FFmpeg process that encodes.
fn ffmpeg(program: &Child) -> Process {
    let mut children = children_of(program.id());
    // Another child is the guard.
    children.retain(|child| child.name.starts_with("ffmpeg"));
    assert_eq!(children.len(), 1, "{children:?}");
    let child = children.remove(0);
    assert!(!child.zombie, "{child:?}");
    child
}

fn kill(signal: &str, target: &str) {
    assert!(Command::new("kill").args([signal, "--", target]).status().unwrap().success());
}

#[test]
fn a_program_that_is_killed_takes_its_ffmpeg_along() {
    let out = tempfile::tempdir().unwrap();
    let mut program = encoding(&out);
    let child = ffmpeg(&program);
    kill("-KILL", &program.id().to_string());
    program.wait().unwrap();
    assert_gone(child.id);
    assert_group_gone(child.id);
}

/// An FFmpeg that works ends when its input is closed; an FFmpeg that hangs does not.
#[test]
fn a_program_that_is_killed_takes_an_ffmpeg_along_that_hangs() {
    killed_while_ffmpeg_hangs(|_| None);
}

/// FFmpeg is then no child of the program.
#[test]
fn a_program_that_is_killed_takes_the_ffmpeg_of_a_wrapper_along() {
    let folder = tempfile::tempdir().unwrap();
    killed_while_ffmpeg_hangs(|ffmpeg| {
        let wrapper = folder.path().join("ffmpeg");
        let script = format!("#!/bin/sh\n'{}' \"$@\"\nexit $?\n", ffmpeg.display());
        fs::write(&wrapper, script).unwrap();
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
        Some(wrapper)
    });
}

/// Kills the program while its FFmpeg hangs. `wrapped` may replace FFmpeg's path.
fn killed_while_ffmpeg_hangs(wrapped: impl FnOnce(&Path) -> Option<PathBuf>) {
    let real = std::env::var_os("ENCODER_FFMPEG").unwrap_or_else(|| "ffmpeg".into());
    let hanging = Script::over(real).encoding([Step::IgnoreSignals, Step::Hang]).lay_down();
    let hanging = hanging.unwrap();
    let wrapper = wrapped(hanging.path());
    let mut program = command(["detect", "--encoder", "x264"])
        .envs(hanging.environment())
        .envs(wrapper.map(|path| ("ENCODER_FFMPEG", path)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("it encodes", || !hanging.calls_for(Kind::Encoding).is_empty());
    let child = hanging.calls_for(Kind::Encoding)[0].process;
    // By then it is the sleeping process, which ignores its input.
    let of_child = || all().into_iter().find(|process| process.id == child).unwrap().group;
    until("it hangs", || group(of_child()).iter().any(|process| process.name == "sleep"));
    let of_child = of_child();
    kill("-KILL", &program.id().to_string());
    program.wait().unwrap();
    assert_gone(child);
    assert_group_gone(of_child);
}

#[test]
fn a_signal_from_the_terminal_reaches_the_program_alone() {
    for signal in ["-INT", "-TERM"] {
        let out = tempfile::tempdir().unwrap();
        let mut program = encoding(&out);
        let child = ffmpeg(&program);
        // A terminal signals the process group of its job: FFmpeg is in another group.
        assert_eq!(child.group, child.id);
        assert_ne!(child.group, program.id());
        kill(signal, &format!("-{}", program.id()));
        drop(program.stdin.take());
        program.wait().unwrap();
        assert_gone(child.id);
        assert_group_gone(child.id);
    }
}
