//! `encoder bench` reports what it measures, whatever the figures are on this machine.
#![allow(clippy::unwrap_used)]

use crate::common;

use std::fs;

use common::{
    picture::Picture,
    program::{command, told},
    recording::{Content, camera},
};
use serde_json::Value;

/// Runs `encoder bench` with the arguments `words`; returns its exit code, its output, and its
/// JSON.
fn bench(words: &[&str]) -> (i32, String, Value) {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("a.json");
    let mut command = command(["bench", "--rounds", "1"].iter().chain(words).copied());
    let output = command.args(["--json".as_ref(), json.as_os_str()]).output().unwrap();
    let (code, said) = told(&output);
    let text = fs::read(json).unwrap_or_else(|_| b"null".to_vec());
    (code, said, serde_json::from_slice(&text).unwrap())
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn each_encoder_and_preset_is_a_row_with_every_figure() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("a.html");
    let words = [
        "--size",
        "96x64",
        "--frames",
        "8",
        "--encoder",
        "openh264",
        "--preset",
        "ultrafast,medium",
        "--html",
        page.to_str().unwrap(),
    ];
    let (code, said, all) = bench(&words);
    assert_eq!(code, 0, "{said}");
    let rows = all["rows"].as_array().unwrap();
    let presets: Vec<_> = rows.iter().map(|row| row["preset"].as_str().unwrap()).collect();
    assert_eq!(presets, ["ultrafast", "medium"]);
    for row in rows {
        assert_eq!(row["encoder"], "openh264");
        assert!(row["error"].is_null() && row["ffmpeg"].is_null(), "{row}");
        for figure in ["fps", "input_mb_s", "alone_fps", "kbit_s", "bytes"] {
            assert!(number(&row[figure]) > 0.0, "{figure}: {row}");
        }
        assert!(number(&row["latency_ms"][0]) <= number(&row["latency_ms"][1]));
        if cfg!(target_os = "linux") {
            for figure in ["cpu_ms", "alone_cpu_ms", "cpu_against_alone", "memory_mib"] {
                assert!(number(&row[figure]) >= 0.0, "{figure}: {row}");
            }
        }
        let ssim = number(&row["quality"]["ssim"]);
        assert!((0.5..=1.0).contains(&ssim), "{row}");
        // 96 × 64 × 3 bytes of each frame.
        let bytes = number(&row["fps"]) * 18_432.0 / 1e6;
        assert!((number(&row["input_mb_s"]) / bytes - 1.0).abs() < 1e-6, "{row}");
    }
    assert_eq!((&all["frames"], &all["size"][0]), (&8.into(), &96.into()));
    assert!(said.contains("openh264") && said.contains("kbit/s"), "{said}");
    let html = fs::read_to_string(page).unwrap();
    assert!(html.contains("<svg") && html.contains("openh264"), "{html}");
    // It works without a network.
    assert!(!html.contains("http") && !html.contains("src="), "{html}");
}

#[test]
fn a_recording_is_measured_against_plain_ffmpeg() {
    let folder = tempfile::tempdir().unwrap();
    let frames: Vec<_> = (0..9)
        .map(|n| {
            (
                n * 50_000_000,
                n * 50_000_000,
                Content::raw(&Picture::stamped(160, 96, n as usize), "bgr8", 0),
            )
        })
        .collect();
    let recording = camera(folder.path(), &frames);
    let words = [
        recording.to_str().unwrap(),
        "--encoder",
        "x264",
        "--preset",
        "superfast",
        "--cameras",
        "2",
        "--threads",
        "2",
        "--baseline",
        "ffmpeg",
        "--frames",
        "7",
    ];
    let (code, said, all) = bench(&words);
    assert_eq!(code, 0, "{said}");
    let row = &all["rows"][0];
    assert_eq!((&all["frames"], &all["cameras"]), (&7.into(), &2.into()));
    let plain = &row["ffmpeg"];
    let words = "-preset superfast -crf 23 -threads 1 -g 30 -bf 0 -pix_fmt yuv420p";
    assert!(plain["description"].as_str().unwrap().ends_with(words), "{plain}");
    // The same encoder at the same settings.
    let [ours, theirs] = [row, plain].map(|one| number(&one["quality"]["ssim"]));
    assert!((ours - theirs).abs() < 0.02, "{ours} {theirs}");
    assert!(number(&plain["speed"]) > 0.0 && number(&plain["fps"]) > 0.0);
}

#[test]
fn raw_frames_come_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.gray");
    let pixels: Vec<u8> = (0..64 * 48 * 4).map(|n| (n * 7 % 253) as u8).collect();
    fs::write(&file, pixels).unwrap();
    let words = [
        file.to_str().unwrap(),
        "--raw",
        "gray:64x48@30",
        "--encoder",
        "openh264",
        "--preset",
        "fast",
    ];
    let (code, said, all) = bench(&words);
    assert_eq!((code, &all["frames"]), (0, &4.into()), "{said}");
}

#[test]
fn what_cannot_be_measured_is_said() {
    for (words, expected, text) in [
        (&["--encoder", "h265"][..], 2, "h265"),
        (&["--preset", "quick"], 2, "ultrafast, superfast, veryfast"),
        (&["--encoder", "videotoolbox", "--preset", "fast"], 1, "macOS"),
        (&["missing.mcap"], 1, "missing.mcap"),
        (&["--html", "Cargo.toml"], 1, "--overwrite"),
        (&["--raw", "rgb24:64x48"], 2, "RECORDING"),
        (&["--frames", "1"], 2, "2..=100000"),
    ] {
        if text == "macOS" && cfg!(target_os = "macos") {
            continue;
        }
        let (code, said, all) = bench(words);
        assert_eq!(code, expected, "{words:?}: {said}");
        assert!(said.contains(text), "{words:?}: {said}");
        assert!(all.is_null(), "{words:?}");
    }
}
