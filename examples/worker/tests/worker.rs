//! Runs the worker, and decodes its videos with FFmpeg.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Command, Stdio},
};

const CAMERAS: [&str; 4] = ["front", "left", "right", "wrist"];
const WORKER: &str = env!("CARGO_BIN_EXE_encoder-example-worker");

/// The frames that FFmpeg decodes from a file, which must be without damage.
fn frames(file: &Path) -> usize {
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-xerror", "-i"]).arg(file).args(["-f", "framehash", "-"]);
    let output = ffmpeg.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{}: {said}", file.display());
    String::from_utf8(output.stdout).unwrap().lines().filter(|line| !line.starts_with('#')).count()
}

fn entries(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|it| it.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn four_cameras_become_four_videos() {
    let out = tempfile::tempdir().unwrap();
    let output = Command::new(WORKER).arg(out.path()).arg("2").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let files = ["front.mp4", "left.mp4", "metrics.prom", "right.mp4", "wrist.mp4"];
    assert_eq!(entries(out.path()), files);
    let metrics = fs::read_to_string(out.path().join("metrics.prom")).unwrap();
    for camera in CAMERAS {
        assert_eq!(frames(&out.path().join(format!("{camera}.mp4"))), 60, "{camera}");
        assert!(metrics.contains(&format!("camera=\"{camera}\"")), "{metrics}");
    }
}

#[test]
fn ctrl_c_completes_the_videos() {
    let out = tempfile::tempdir().unwrap();
    let mut worker = Command::new(WORKER);
    worker.arg(out.path()).arg("100000").stderr(Stdio::piped()).stdout(Stdio::null());
    let mut worker = worker.spawn().unwrap();
    let mut said = BufReader::new(worker.stderr.take().unwrap());
    // Each camera has encoded frames.
    let mut waiting = CAMERAS.to_vec();
    let mut line = String::new();
    while !waiting.is_empty() {
        line.clear();
        assert!(said.read_line(&mut line).unwrap() > 0, "{waiting:?}");
        let is_at_work = |camera: &str| {
            let count = line.strip_prefix(camera).and_then(|rest| rest.strip_prefix(": "));
            count.is_some_and(|count| count.contains(" frames by ") && !count.starts_with("0 "))
        };
        waiting.retain(|camera| !is_at_work(camera));
    }
    let id = worker.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert_eq!(worker.wait().unwrap().code(), Some(0), "{rest}");
    assert!(rest.contains("stopping: the videos are completed"), "{rest}");
    for camera in CAMERAS {
        assert!(frames(&out.path().join(format!("{camera}.mp4"))) > 0, "{camera}");
    }
}

#[test]
fn on_a_full_disk_what_was_written_plays() {
    let out = tempfile::tempdir().unwrap();
    // 200 blocks of 512 bytes for each file, in place of a small disk.
    let script = r#"trap "" XFSZ; ulimit -f 200; exec "$@""#;
    let mut worker = Command::new("sh");
    worker.args(["-c", script, "sh", WORKER]).arg(out.path()).arg("1000");
    let output = worker.env("ENCODER_CACHE", "").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    for camera in CAMERAS {
        assert!(said.contains(&format!("{camera}: free some space")), "{said}");
        let part = out.path().join(format!("{camera}.mp4.part"));
        assert!(said.contains(&format!("what was written so far is in {}", part.display())));
        assert!(frames(&part) > 0);
    }
}
