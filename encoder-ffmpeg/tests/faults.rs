//! The child with programs that pretend to be FFmpeg and fail in every way.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use std::{
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    time::{Duration, Instant},
};

use encoder_core::{
    EncodedChunk, EncoderConfig, EncoderType, FrameBuffer, FrameLayout, PixelFormat, Refusal,
    RefusalKind, Resolution, Verdict, VideoEncoder,
};
use encoder_ffmpeg::{Ffmpeg, HostedEncoder, Job, test_encode_with};

/// Much longer than anything here should take, so that a time-out cannot be mistaken.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);

struct Fake {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

/// A script that lists its encoders as FFmpeg does, and does `encode` when it is to encode.
fn fake(encode: &str) -> Fake {
    script(&format!(
        "case \"$*\" in *-encoders*)\n\
         echo 'ffmpeg version 6.0-fake Copyright' >&2\n\
         echo ' ------'; echo ' V....D h264_nvenc NVIDIA'; exit 0;;\n\
         esac\n{encode}\n"
    ))
}

fn script(text: &str) -> Fake {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ffmpeg");
    std::fs::write(folder.path().join("one.flv"), one_picture()).unwrap();
    // Written by another process: a file that this one has open for writing while another test
    // forks could not be executed.
    let mut child = std::process::Command::new("sh")
        .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
        .arg(&path)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let text = format!("#!/bin/sh\n{text}");
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(path.metadata().unwrap().permissions().mode() & 0o100 != 0);
    Fake { _folder: folder, path }
}

fn find(fake: &Fake, deadline: Duration) -> Result<Ffmpeg, Refusal> {
    Ffmpeg::at(&fake.path, EncoderType::NVENC, deadline)
}

fn probe(fake: &Fake, deadline: Duration) -> Refusal {
    let job = Job::new(EncoderType::NVENC, "h264_nvenc", &EncoderConfig::default());
    match test_encode_with(&find(fake, LONG).unwrap(), &job, &[], deadline) {
        Verdict::Refused(refusal) => refusal,
        Verdict::Usable(caps) => panic!("{caps:?}"),
    }
}

/// Encodes 200 frames; gives the error, and how many chunks came before it.
fn encode(fake: &Fake, stall: Duration) -> (String, Vec<EncodedChunk>) {
    let config =
        EncoderConfig { resolution: Some(Resolution::new(640, 360)), ..EncoderConfig::default() };
    let mut job = Job::new(EncoderType::NVENC, "h264_nvenc", &config);
    job.stall = stall;
    job.max_delay = 8;
    let mut encoder = HostedEncoder::open(&find(fake, LONG).unwrap(), job, &config).unwrap();
    let layout = FrameLayout::new(PixelFormat::Yuv420p, Resolution::new(640, 360));
    let picture = FrameBuffer::test_picture(layout, 0);
    let mut chunks = Vec::new();
    for n in 0..200 {
        match encoder.encode_frame(&picture.frame(n)) {
            Ok(chunk) => chunks.extend(chunk),
            Err(error) => return (error.to_string(), chunks),
        }
    }
    match encoder.flush() {
        Ok(_) => panic!("it should have failed"),
        Err(error) => (error.to_string(), chunks),
    }
}

/// An FLV header, parameter sets and one IDR picture.
fn one_picture() -> Vec<u8> {
    let tag = |body: &[u8]| {
        let size = body.len() as u8;
        let mut tag = vec![9, 0, 0, size, 0, 0, 0, 0, 0, 0, 0];
        tag.extend_from_slice(body);
        tag.extend_from_slice(&[0, 0, 0, size + 11]);
        tag
    };
    let sets = [0x17, 0, 0, 0, 0, 1, 100, 0, 30, 0xff, 0xe1, 0, 2, 0x67, 1, 1, 0, 2, 0x68, 1];
    let picture = [0x17, 1, 0, 0, 0, 0, 0, 0, 2, 0x65, 1];
    [b"FLV\x01\x01\0\0\0\x09\0\0\0\0".to_vec(), tag(&sets), tag(&picture)].concat()
}

/// Shell text that writes [`one_picture`].
const WRITE_PICTURE: &str = "cat \"$(dirname \"$0\")/one.flv\"";

#[test]
fn one_that_ends_at_once_is_known_by_its_words() {
    let fake = fake("echo '[h264_nvenc @ 0x55d0] [error] Cannot load libcuda.so.1' >&2; exit 1");
    let refusal = probe(&fake, LONG);
    assert_eq!(refusal.kind, RefusalKind::Missing);
    assert!(refusal.reason.contains("Cannot load libcuda.so.1"), "{refusal}");
    let (error, _) = encode(&fake, LONG);
    assert!(error.contains("the NVIDIA driver is not installed"), "{error}");
    assert!(error.contains("exit status 1"), "{error}");
}

#[test]
fn one_that_hangs_costs_its_deadline() {
    let fake = fake("exec sleep 1000");
    let refusal = probe(&fake, SHORT);
    assert_eq!((refusal.kind, refusal.transient), (RefusalKind::Timeout, true));
    let (error, _) = encode(&fake, SHORT);
    assert!(error.contains("took no input for 0.3 s and was killed"), "{error}");
}

#[test]
fn one_that_takes_all_and_gives_nothing_is_a_stall() {
    let fake = fake("trap '' TERM; cat >/dev/null; exec sleep 1000");
    let (error, chunks) = encode(&fake, SHORT);
    assert!(error.contains("gave no output for 0.3 s with 9 frames inside"), "{error}");
    assert!(chunks.is_empty());
}

#[test]
fn success_with_nothing_written_is_no_success() {
    let fake = fake("cat >/dev/null; exit 0");
    let refusal = probe(&fake, LONG);
    assert_eq!(refusal.kind, RefusalKind::WrongOutput);
    let quick = script(
        "case \"$*\" in *-encoders*) echo 'ffmpeg version 6.0' >&2
         echo ' ------'; echo ' V....D h264_nvenc N'; esac; exit 0",
    );
    let (error, _) = encode(&quick, LONG);
    assert!(error.contains("ffmpeg") || error.contains("FFmpeg"), "{error}");
    assert!(error.contains("exit status 0"), "{error}");
}

#[test]
fn one_that_dies_after_its_first_picture_says_why() {
    let fake = fake(&format!(
        "{WRITE_PICTURE}; head -c 345600 >/dev/null; echo 'EncodePicture failed!: device does not exist (5)' >&2; exit 1"
    ));
    let (error, chunks) = encode(&fake, LONG);
    assert!(error.contains("device does not exist (5)"), "{error}");
    assert!(chunks.len() <= 1);
    let refusal = probe(&fake, LONG);
    assert_eq!(refusal.kind, RefusalKind::Failed);
    assert!(refusal.reason.contains("the GPU was lost"), "{refusal}");
}

#[test]
fn a_picture_too_few_is_counted() {
    let fake = fake(&format!("cat >/dev/null; {WRITE_PICTURE}"));
    let refusal = probe(&fake, LONG);
    assert!(refusal.reason.contains("5 pictures went in, 1 came out"), "{refusal}");
}

#[test]
fn floods_of_stderr_neither_block_nor_hide_the_end() {
    let fake = fake(
        "head -c 1048576 /dev/zero | tr '\\0' 'x' >&2; echo >&2
         echo 'Driver does not support the required nvenc API version. Required: 13.1 Found: 12.2' >&2
         exit 1",
    );
    let (error, _) = encode(&fake, LONG);
    assert!(error.contains("Required: 13.1 Found: 12.2"), "{error}");
    assert!(error.len() < 10_000);
    assert_eq!(probe(&fake, LONG).kind, RefusalKind::DriverTooOld);
}

#[test]
fn garbage_and_endless_output_are_errors() {
    let garbage = fake("echo 'no video at all'; cat >/dev/null");
    let (error, _) = encode(&garbage, LONG);
    assert!(error.contains("no FLV header"), "{error}");
    assert_eq!(probe(&garbage, LONG).kind, RefusalKind::WrongOutput);
    let endless = fake("exec cat /dev/zero");
    let (error, _) = encode(&endless, LONG);
    assert!(error.contains("no FLV header"), "{error}");
    let begun = Instant::now();
    let refusal = probe(&endless, LONG);
    assert!(begun.elapsed() < LONG, "{refusal}");
}

#[test]
fn crashes_have_a_name() {
    let fake = fake("kill -SEGV $$");
    let refusal = probe(&fake, LONG);
    assert!(refusal.reason.contains("segmentation fault"), "{refusal}");
    let (error, _) = encode(&fake, LONG);
    assert!(error.contains("segmentation fault"), "{error}");
}

#[test]
fn dropping_ends_a_child_that_ignores_everything() {
    let fake = fake("trap '' TERM INT HUP; while :; do read line; done");
    let config =
        EncoderConfig { resolution: Some(Resolution::new(64, 64)), ..EncoderConfig::default() };
    let job = Job::new(EncoderType::NVENC, "h264_nvenc", &config);
    let encoder = HostedEncoder::open(&find(&fake, LONG).unwrap(), job, &config).unwrap();
    let id = encoder.child_id();
    drop(encoder);
    #[cfg(target_os = "linux")]
    assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
    let _ = id;
}

#[test]
fn programs_that_are_no_ffmpeg() {
    let table = [
        ("echo 'ffmpeg version 4.3.1-fake' >&2", RefusalKind::Unsupported, "4.4 is the oldest"),
        ("echo 'something else'", RefusalKind::Failed, "no FFmpeg that works"),
        (
            "echo 'ffmpeg: error while loading shared libraries' >&2; exit 127",
            RefusalKind::Failed,
            "shared libraries",
        ),
    ];
    for (text, kind, reason) in table {
        let refusal = find(&script(text), LONG).unwrap_err();
        assert_eq!(refusal.kind, kind, "{refusal}");
        assert!(refusal.reason.contains(reason), "{refusal}");
        assert!(refusal.cure.contains("ENCODER_FFMPEG"));
    }
    let refusal = find(&script("exec sleep 1000"), SHORT).unwrap_err();
    assert_eq!((refusal.kind, refusal.transient), (RefusalKind::Timeout, true));
    let nowhere = PathBuf::from("/nowhere/ffmpeg");
    let refusal = Ffmpeg::at(&nowhere, EncoderType::NVENC, LONG).unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::Missing);
}
