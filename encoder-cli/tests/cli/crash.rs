//! The files that remain after the program was killed or the disk was full, and their recovery.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use crate::common;

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use common::{
    decode::{self, decode, decode_fragmented, decode_stream},
    entries,
    picture::Picture,
    program::{command, run, told},
};
use encoder_pipeline::mux::Recovery;

/// Frame `n` as raw RGB, with noise below its bar code, so that it has many bytes when coded.
fn frame(n: usize) -> Vec<u8> {
    let picture = Picture::stamped(160, 120, n);
    let mut noise = n as u32 + 1;
    let mut rgb = picture.rgb;
    for byte in &mut rgb[160 * 3 * 64..] {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (noise >> 24) as u8;
    }
    rgb
}

const INPUT: [&str; 4] = ["encode", "-", "--raw", "rgb24:160x120@25"];
const OPENH264: [&str; 4] = ["--encoder", "openh264", "--crf", "12"];

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn numbers(count: usize) -> Vec<Option<usize>> {
    (0..count).map(Some).collect()
}

/// The time of frame N at 25 fps, in ticks of 1/12800 s.
fn ticks(count: usize) -> Vec<u64> {
    (0..count as u64).map(|n| n * 512).collect()
}

/// Frames that can be recovered from a file, which may not exist.
fn whole_frames(path: &Path) -> u64 {
    let found = File::open(path).ok().and_then(|file| Recovery::find(file).ok());
    found.map_or(0, |found| found.frames())
}

/// Runs the program, writes `count` frames without closing the input, and kills it when all frames
/// but those of the last second are in `file`.
fn kill(out: &Path, extra: &[&str], file: &Path, count: usize) {
    let args = [&INPUT[..], &["-o", text(out)], &OPENH264, extra].concat();
    let mut command = command(args);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    for n in 0..count {
        input.write_all(&frame(n)).unwrap();
    }
    input.flush().unwrap();
    let begun = Instant::now();
    while whole_frames(file) + 25 < count as u64 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} frames", whole_frames(file));
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_killed_program_leaves_a_part_that_plays_and_can_be_repaired() {
    let directory = tempfile::tempdir().unwrap();
    let (out, part) = (directory.path().join("a.mp4"), directory.path().join("a.mp4.part"));
    kill(&out, &[], &part, 90);
    assert_eq!(entries(directory.path()), ["a.mp4.part"]);
    let left = decode_fragmented(&part);
    let count = left.frames.len();
    assert!(count >= 65, "{count} frames");
    assert_eq!((left.numbers(), left.pts), (numbers(count), ticks(count)));

    let before = std::fs::read(&part).unwrap();
    let (code, said) = run(["repair", text(&part)]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(&format!("{count} frames")) && said.contains(text(&out)), "{said}");
    let video = decode(&out);
    assert_eq!((video.numbers(), video.pts), (numbers(count), ticks(count)));
    assert_eq!(std::fs::read(&part).unwrap(), before);
    let (code, said) = run(["repair", text(&out)]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("nothing to repair"), "{said}");

    // Existing files are kept. The next run also keeps the part file, and reports it.
    let (code, said) = run(["repair", text(&part)]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("--overwrite"), "{said}");
    let args = [&INPUT[..], &["-o", text(&out), "--overwrite"], &OPENH264].concat();
    let mut child = command(args).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&frame(7)).unwrap();
    let (code, said) = told(&child.wait_with_output().unwrap());
    assert_eq!(code, 0, "{said}");
    let hint = format!("encoder repair {}", text(&part));
    assert_eq!(said.matches(&hint).count(), 1, "{said}");
    assert_eq!(decode(&out).numbers(), [Some(7)]);
    assert_eq!(std::fs::read(&part).unwrap(), before);
    assert_eq!(entries(directory.path()), ["a.mp4", "a.mp4.part", "a.report.json"]);
}

#[test]
fn a_killed_program_leaves_a_fragmented_file_that_plays() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("a.mp4");
    std::fs::write(&out, "an older video").unwrap();
    kill(&out, &["--output-mode", "fragmented", "--overwrite"], &out, 90);
    assert_eq!(entries(directory.path()), ["a.mp4"]);
    let left = decode_fragmented(&out);
    let count = left.frames.len();
    assert!(count >= 65, "{count} frames");
    assert_eq!((left.numbers(), left.pts), (numbers(count), ticks(count)));
    let (code, said) = run(["repair", text(&out)]);
    assert_eq!(code, 0, "{said}");
    let video = decode(&directory.path().join("a.repaired.mp4"));
    assert_eq!((video.numbers(), video.pts), (numbers(count), ticks(count)));
}

#[test]
fn what_cannot_be_repaired_is_refused_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let (out, part) = (path("a.mp4"), path("a.mp4.part"));
    kill(&out, &[], &part, 40);
    let bytes = std::fs::read(&part).unwrap();
    std::fs::write(path("head.part"), &bytes[..900]).unwrap();
    std::fs::write(path("tail.part"), [&bytes[..], &[0; 4096]].concat()).unwrap();
    std::fs::write(path("foreign.mp4"), "not a video at all").unwrap();
    std::fs::write(path("empty.part"), "").unwrap();
    std::fs::write(path("a.h264.part"), [0, 0, 0, 1, 0x67, 0x42, 0xc0, 0x1e]).unwrap();
    for (name, code, says) in [
        ("head.part", 1, "not one frame is whole"),
        ("empty.part", 1, "the file is empty (0 bytes)"),
        ("a.h264.part", 0, "raw H.264 stream"),
        ("foreign.mp4", 1, "not written by this software"),
        ("missing.part", 1, "No such file"),
        ("tail.part", 0, "4096 bytes at the end were of no use"),
    ] {
        let (got, said) = run(["repair", text(&path(name)), "-o", text(&path("b.mp4"))]);
        assert_eq!(got, code, "{name}: {said}");
        assert!(said.contains(says) && said.contains(name), "{name}: {said}");
        assert_eq!(path("b.mp4").exists(), name == "tail.part", "{name}");
    }
    // The file itself is never overwritten.
    let (code, said) = run(["repair", text(&part), "-o", text(&part), "--overwrite"]);
    assert_eq!(code, 1, "{said}");
    assert_eq!(std::fs::read(&part).unwrap(), bytes);
    let (code, said) = run(["repair", text(&part), text(&path("tail.part")), "-o", "c.mp4"]);
    assert_eq!(code, 2, "{said}");
}

#[test]
fn the_whole_frames_of_a_fragment_that_is_cut_off_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let part = path("a.mp4.part");
    kill(&path("a.mp4"), &[], &part, 90);
    let bytes = std::fs::read(&part).unwrap();
    let (cut, whole) = (path("cut.mp4.part"), path("cut.mp4"));
    let mut gained = 0;
    // The last two fragments, at 24 places.
    for end in (1..=24).map(|n| bytes.len() - n * bytes.len() / 60) {
        std::fs::write(&cut, &bytes[..end]).unwrap();
        let found = Recovery::find(File::open(&cut).unwrap()).unwrap();
        let (count, torn) = (found.frames() as usize, found.of_torn_fragment());
        // FFmpeg may show a part of the frame in which the file ends.
        let shown = decode::count(&cut);
        assert!((count..=count + 1).contains(&shown), "{end}: {count}, FFmpeg {shown}");
        let (code, said) = run(["repair", text(&cut), "--overwrite"]);
        assert_eq!(code, 0, "{said}");
        assert!(said.contains(&format!("{count} frames")), "{said}");
        assert_eq!(
            said.contains("from the last fragment, which is incomplete"),
            torn > 0,
            "{said}"
        );
        let video = decode(&whole);
        assert_eq!((video.numbers(), video.pts), (numbers(count), ticks(count)), "{end}");
        gained += torn;
    }
    assert!(gained > 24, "{gained} frames of torn fragments");
}

#[test]
fn all_that_killed_runs_left_in_a_directory_is_repaired_or_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::create_dir(path("drive")).unwrap();
    let part = path("drive/a.mp4.part");
    kill(&path("drive/a.mp4"), &[], &part, 40);
    std::fs::copy(&part, path("drive/a.mp4.2.part")).unwrap();
    std::fs::write(path(".b.mp4.Xy7abc.part"), "").unwrap();
    std::fs::write(path("c.mp4.part"), "").unwrap();
    let (code, said) = run(["repair", text(directory.path())]);
    assert_eq!(code, 1, "{said}");
    for says in ["c.mp4.part: the file is empty", ".b.mp4.Xy7abc.part: a temporary file"] {
        assert!(said.contains(says), "{said}");
    }
    let count = whole_frames(&part) as usize;
    for name in ["drive/a.mp4", "drive/a-2.mp4"] {
        assert_eq!(decode(&path(name)).numbers(), numbers(count), "{name}");
    }
    let (code, said) = run(["repair", text(&path("drive")), "-o", text(&path("one.mp4"))]);
    assert_eq!(code, 2, "{said}");
    std::fs::create_dir(path("none")).unwrap();
    let (code, said) = run(["repair", text(&path("none"))]);
    assert!(code == 0 && said.contains("nothing to repair"), "{said}");

    // The next run names them.
    let args = [&INPUT[..], &["-o", text(directory.path())], &OPENH264].concat();
    let mut child = command(args).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&frame(7)).unwrap();
    let (code, said) = told(&child.wait_with_output().unwrap());
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("c.mp4.part") && said.contains(".b.mp4.Xy7abc.part"), "{said}");
}

#[test]
fn the_repair_of_a_directory_replaces_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let part = path("a.mp4.part");
    kill(&path("a.mp4"), &[], &part, 40);
    std::fs::write(path("a.mp4"), "the whole video of another run").unwrap();
    for says in ["are in ", "are in "].map(|says| format!("{says}{}", text(&path("a-2.mp4")))) {
        let (code, said) = run(["repair", text(directory.path()), "--overwrite"]);
        assert!(code == 0 && said.contains(&says), "{said}");
        assert_eq!(entries(directory.path()), ["a-2.mp4", "a.mp4", "a.mp4.part"]);
        assert_eq!(std::fs::read(path("a.mp4")).unwrap(), b"the whole video of another run");
    }
    assert_eq!(decode(&path("a-2.mp4")).frames.len() as u64, whole_frames(&part));
    // A file that is named itself.
    let (code, said) = run(["repair", text(&part), "--overwrite"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(std::fs::read(path("a.mp4")).unwrap(), std::fs::read(path("a-2.mp4")).unwrap());
}

#[cfg(target_os = "linux")]
#[test]
fn a_directory_that_cannot_be_read_does_not_end_the_repair_of_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    kill(&path("z/a.mp4"), &[], &path("z/a.mp4.part"), 40);
    // The longest path that the system accepts has 4095 bytes. Joined, these are longer.
    let below = vec!["x".repeat(200); 11].join("/");
    for name in ["b", "c"] {
        std::fs::create_dir_all(path(name).join(&below)).unwrap();
    }
    std::fs::rename(path("c"), path("b").join(&below).join("c")).unwrap();
    let (code, said) = run(["repair", text(directory.path())]);
    assert_eq!(code, 1, "{said}");
    assert_eq!(said.matches("nothing is repaired there").count(), 1, "{said}");
    assert!(path("z/a.mp4").is_file(), "{said}");
}

#[test]
fn a_file_that_was_left_is_named_once_and_others_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let part = path("stdin.mp4.part");
    kill(&path("stdin.mp4"), &[], &part, 40);
    // Downloads.
    let foreign = [&24_u32.to_be_bytes()[..], b"ftypisom", &[0; 12], b"\0\0\0\x08moov"].concat();
    for name in ["movie.mp4.part", "movie.pdf.part", ".movie.part"] {
        std::fs::write(path(name), &foreign).unwrap();
    }
    for out in [directory.path().to_owned(), path("stdin.mp4")] {
        let args = [&INPUT[..], &["-o", text(&out), "--overwrite"], &OPENH264].concat();
        let mut child = command(args).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(&frame(7)).unwrap();
        let (code, said) = told(&child.wait_with_output().unwrap());
        assert_eq!(code, 0, "{said}");
        assert_eq!(said.lines().filter(|line| line.contains(text(&part))).count(), 1, "{said}");
        assert!(!said.contains("movie"), "{said}");
        let report = if out.is_dir() { path("report.json") } else { path("stdin.report.json") };
        let report: serde_json::Value =
            serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
        let warnings = report["warnings"].as_array().unwrap();
        let names = |warning: &&serde_json::Value| warning.to_string().contains("stdin.mp4.part");
        assert_eq!(warnings.iter().filter(names).count(), 1, "{report}");
    }
    let (code, said) = run(["repair", text(directory.path())]);
    assert!(code == 0 && !said.contains("movie"), "{said}");
}

#[test]
fn a_directory_under_the_name_of_a_file_is_noticed_before_encoding() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    for name in ["out/stdin.mp4", "report/report.json", "b.mp4/b.mp4"] {
        std::fs::create_dir_all(path(name)).unwrap();
    }
    for out in [path("out"), path("report")] {
        let args = [&INPUT[..], &["-o", text(&out), "--overwrite"], &OPENH264].concat();
        let mut child = command(args).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // The program may end before it has read the frame.
        let _ = child.stdin.take().unwrap().write_all(&frame(7));
        let (code, said) = told(&child.wait_with_output().unwrap());
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("a directory has this name"), "{said}");
        assert!(!entries(&out).iter().any(|name| name.ends_with(".part")), "{said}");
    }
    let part = path("b.mp4.part");
    kill(&path("c.mp4"), &[], &path("c.mp4.part"), 40);
    std::fs::rename(path("c.mp4.part"), &part).unwrap();
    let (code, said) = run(["repair", text(&part), "-o", text(&path("b.mp4")), "--overwrite"]);
    assert!(code == 1 && said.contains("a directory has this name"), "{said}");
    assert_eq!(entries(&path("b.mp4")), ["b.mp4"]);
}

/// A place with limited space: a small file system, or a limit on the file size.
enum Small {
    Disk(PathBuf),
    Limit(PathBuf),
}

impl Small {
    /// Both places, if this user can create them.
    fn all(directory: &Path) -> Vec<Self> {
        let (disk, limit) = (directory.join("disk"), directory.join("limit"));
        std::fs::create_dir(&disk).unwrap();
        std::fs::create_dir(&limit).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1200k", "tmpfs", text(&disk)]);
        let mounted = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        let disk = mounted.then_some(Self::Disk(disk));
        disk.into_iter().chain([Self::Limit(limit)]).collect()
    }

    fn path(&self) -> &Path {
        match self {
            Self::Disk(path) | Self::Limit(path) => path,
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        match self {
            Self::Disk(_) => command(args.iter().copied()),
            Self::Limit(_) => {
                // 2400 blocks of 512 bytes.
                let script = r#"trap "" XFSZ; ulimit -f 2400; exec "$@""#;
                let mut command = Command::new("sh");
                command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_encoder")]).args(args);
                command.env_remove("ENCODER_LOG").env("ENCODER_CACHE", "");
                command
            }
        }
    }

    fn says(&self) -> &'static str {
        match self {
            Self::Disk(_) => "free some space",
            Self::Limit(_) => "ulimit",
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        if let Self::Disk(path) = self {
            let _ = Command::new("umount").arg(path).status();
        }
    }
}

#[test]
fn a_full_disk_is_a_clear_error_and_what_was_written_plays() {
    let directory = tempfile::tempdir().unwrap();
    for small in Small::all(directory.path()) {
        for (name, extra) in
            [("a.mp4", &[][..]), ("b.mp4", &["--output-mode", "fragmented"]), ("c.h264", &[])]
        {
            let out = small.path().join(name);
            let args = [&INPUT[..], &["-o", text(&out)], &OPENH264, extra].concat();
            let mut command = small.command(&args);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let mut input = child.stdin.take().unwrap();
            // Until no more frames are accepted.
            let fed = (0..2000).take_while(|&n| input.write_all(&frame(n)).is_ok()).count();
            drop(input);
            let (code, said) = told(&child.wait_with_output().unwrap());
            assert_eq!(code, 1, "{said}");
            assert!(said.contains(small.says()) && said.contains(name), "{said}");
            assert_eq!(said.contains("encoder repair"), name != "c.h264", "{said}");
            // A full disk may have no room for the report.
            if let Small::Limit(_) = small {
                let report = std::fs::read(out.with_extension("report.json")).unwrap();
                let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
                assert_eq!(report["outputs"][0]["error_kind"], "disk-full", "{report}");
                let partial = report["outputs"][0]["partial"].as_str();
                assert!(partial.is_some_and(|part| part.starts_with(name)), "{report}");
            }
            let part = match extra {
                [] => small.path().join(format!("{name}.part")),
                _ => out.clone(),
            };
            let video = match name {
                "c.h264" => decode_stream(&part),
                _ => decode_fragmented(&part),
            };
            let count = video.frames.len();
            assert!(count > 10 && count < fed, "{count} of {fed}");
            assert_eq!(video.numbers(), numbers(count), "{name}");
            if name != "c.h264" {
                let whole = directory.path().join("whole.mp4");
                let (code, said) = run(["repair", text(&part), "-o", text(&whole), "--overwrite"]);
                assert_eq!(code, 0, "{said}");
                assert_eq!(decode(&whole).pts, ticks(count));
            }
            std::fs::remove_file(&part).unwrap();
        }
    }
}
