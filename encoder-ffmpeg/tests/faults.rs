//! Hosted encoders and probes in scripted programs in place of FFmpeg that fail in every way.
//! Failures in mid-stream need a real FFmpeg with libx264: set ENCODER_FFMPEG or put it on the
//! PATH.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use encoder_core::{
    EncodedChunk, EncoderConfig, EncoderType, FrameBuffer, FrameLayout, PixelFormat, ProbeResult,
    Refusal, RefusalKind, Resolution, VideoEncoder,
};
use encoder_ffmpeg::{Ffmpeg, FfmpegSpec, HostedEncoder, OLDEST, Rule, Version, test_encode_with};
use encoder_testbed::scripted::{Kind, Real, Script, Scripted, Step, VENDORS};

/// Much longer than any step here takes, so that only a hang reaches it.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);
/// [`SHORT`] and the kill of a child that ignores signals take less, even on a busy machine.
const SOON: Duration = Duration::from_secs(30);
const SIZE: Resolution = Resolution::new(640, 360);
const FRAMES: usize = 200;

const RULES: &[Rule] = &[
    Rule::new("Cannot load libcuda.so.1", RefusalKind::Missing, "there is no driver", "install it"),
    Rule::new("required nvenc API version", RefusalKind::DriverTooOld, "too old", "update it"),
    Rule::new("device does not exist (5)", RefusalKind::Failed, "the GPU was lost", "check it"),
];

fn real() -> PathBuf {
    Ffmpeg::find(EncoderType::X264)
        .expect(
            "these tests need FFmpeg 4.4 or later with libx264: apt install ffmpeg, or set \
             ENCODER_FFMPEG to its path",
        )
        .path
        .clone()
}

/// A program that lists `h264_nvenc` and runs these steps when it encodes.
fn fake(encoding: impl Into<Vec<Step>>) -> Scripted {
    Script::new().encoding(encoding).lay_down().unwrap()
}

/// The real FFmpeg, except that it runs these steps when it encodes.
fn half_real(encoding: impl Into<Vec<Step>>) -> Scripted {
    Script::over(real()).encoding(encoding).lay_down().unwrap()
}

fn find(path: &Path, deadline: Duration) -> Result<Ffmpeg, Refusal> {
    Ffmpeg::at(path, EncoderType::NVENC, deadline)
}

/// A spec for an encoder that this FFmpeg lists.
fn spec(ffmpeg: &Ffmpeg) -> FfmpegSpec {
    let config = EncoderConfig::default();
    let mut spec = match ffmpeg.lists("libx264") {
        true => FfmpegSpec::new(EncoderType::X264, "libx264", &config)
            .with_options("-preset ultrafast -tune zerolatency -crf 23 -threads 1"),
        false => FfmpegSpec::new(EncoderType::NVENC, "h264_nvenc", &config).with_rules(RULES),
    };
    spec.max_delay = 8;
    spec
}

fn probe(fake: &Scripted, deadline: Duration) -> Refusal {
    let ffmpeg = find(fake.path(), LONG).unwrap();
    match test_encode_with(&ffmpeg, &spec(&ffmpeg), &[], deadline) {
        ProbeResult::Refused(refusal) => refusal,
        ProbeResult::Usable(caps) => panic!("{caps:?}"),
    }
}

fn open(fake: &Scripted, stall: Duration, size: Resolution) -> HostedEncoder {
    let ffmpeg = find(fake.path(), LONG).unwrap();
    let config = EncoderConfig { resolution: Some(size), ..EncoderConfig::default() };
    let spec = FfmpegSpec { stall, start: stall, ..spec(&ffmpeg) };
    HostedEncoder::open(&ffmpeg, spec, &config).unwrap()
}

/// Encodes all frames; returns the error that ended the encoder, and the chunks before it.
fn try_encode(fake: &Scripted, stall: Duration) -> (Option<String>, Vec<EncodedChunk>) {
    try_encode_at(SIZE, fake, stall)
}

fn try_encode_at(
    size: Resolution,
    fake: &Scripted,
    stall: Duration,
) -> (Option<String>, Vec<EncodedChunk>) {
    let mut encoder = open(fake, stall, size);
    let picture = FrameBuffer::test_picture(FrameLayout::new(PixelFormat::Yuv420p, size), 0);
    let mut chunks = Vec::new();
    for n in 0..FRAMES {
        match encoder.encode_frame(&picture.frame(n as u64)) {
            Ok(chunk) => chunks.extend(chunk),
            Err(error) => return (Some(error.to_string()), chunks),
        }
    }
    let error = encoder.flush().map(|rest| chunks.extend(rest)).err();
    (error.map(|error| error.to_string()), chunks)
}

fn encode(fake: &Scripted, stall: Duration) -> (String, Vec<EncodedChunk>) {
    let (error, chunks) = try_encode(fake, stall);
    (error.expect("it should have failed"), chunks)
}

/// Asserts that no process that it started is left.
fn assert_nothing_left(fake: &Scripted) {
    let _ = fake;
    #[cfg(target_os = "linux")]
    for call in fake.calls() {
        encoder_testbed::process::assert_gone(call.process);
        encoder_testbed::process::assert_group_gone(call.process);
    }
}

/// An FLV header, parameter sets and one IDR picture.
fn one_picture() -> Step {
    Step::Write(encoder_testbed::flv::stream(1, 2))
}

/// The bytes of this many frames.
fn frames(count: usize) -> u64 {
    (FrameLayout::new(PixelFormat::Yuv420p, SIZE).packed_bytes() * count) as u64
}

#[test]
fn a_child_that_ends_at_once_is_classified_by_its_log() {
    let line = "[h264_nvenc @ 0x55d0] [error] Cannot load libcuda.so.1";
    let fake = fake([Step::say(line), Step::Exit(1)]);
    let refusal = probe(&fake, LONG);
    assert_eq!(refusal.kind, RefusalKind::Missing);
    assert!(refusal.reason.contains("Cannot load libcuda.so.1"), "{refusal}");
    let (error, _) = encode(&fake, LONG);
    assert!(error.contains("there is no driver"), "{error}");
}

#[test]
fn a_child_that_hangs_is_killed_after_the_deadline() {
    for steps in [vec![Step::Hang], vec![Step::IgnoreSignals, Step::Hang]] {
        let fake = fake(steps);
        let begun = Instant::now();
        let refusal = probe(&fake, SHORT);
        assert_eq!((refusal.kind, refusal.transient), (RefusalKind::Timeout, true));
        let (error, _) = encode(&fake, SHORT);
        assert!(error.contains("gave no answer in 0.3 s"), "{error}");
        assert!(begun.elapsed() < SOON);
        assert_nothing_left(&fake);
    }
}

#[test]
fn a_child_that_reads_and_writes_nothing_is_a_stall() {
    let hang = [Step::IgnoreSignals, Step::TakeAll, Step::Hang];
    // All frames fit into the pipe, however late the child begins to read.
    let size = Resolution::new(64, 64);
    let (error, chunks) = try_encode_at(size, &fake(hang.clone()), SHORT);
    assert!(error.unwrap().contains("gave no answer in 0.3 s") && chunks.is_empty());
    // The same after its first picture.
    let fake = fake([&[one_picture()], &hang[..]].concat());
    let (error, chunks) = try_encode_at(size, &fake, SHORT);
    let error = error.unwrap();
    assert!(error.contains("gave no output for 0.3 s with 9 frames inside"), "{error}");
    assert_eq!(chunks.len(), 1);
    assert_nothing_left(&fake);
}

#[test]
fn the_input_of_a_child_that_waits_after_an_error_is_closed() {
    // FFmpeg 9 behaves like this when its encoder fails.
    let fake = fake([
        one_picture(),
        Step::Take(64 * 64 * 3 / 2),
        Step::say("[h264_nvenc] [error] EncodePicture failed!: device does not exist (5)"),
        Step::TakeAll,
        Step::Exit(1),
    ]);
    let begun = Instant::now();
    let (error, chunks) = try_encode_at(Resolution::new(64, 64), &fake, LONG);
    assert!(error.unwrap().contains("device does not exist (5)"));
    assert_eq!(chunks.len(), 1);
    assert!(begun.elapsed() < LONG);
    assert_nothing_left(&fake);
}

#[test]
fn an_exit_status_of_0_without_output_is_wrong_output() {
    let refusal = probe(&fake([Step::TakeAll]), LONG);
    assert_eq!(refusal.kind, RefusalKind::WrongOutput);
    let quick = fake([]);
    assert_eq!(probe(&quick, LONG).kind, RefusalKind::WrongOutput);
    let (error, chunks) = encode(&quick, LONG);
    assert!(error.contains("ffmpeg") || error.contains("FFmpeg"), "{error}");
    assert!(error.contains("exit status 0"), "{error}");
    assert!(chunks.is_empty());
}

#[test]
fn the_cause_is_reported_if_a_child_dies_after_its_first_picture() {
    let fake = fake([
        one_picture(),
        Step::Take(frames(1)),
        Step::say("EncodePicture failed!: device does not exist (5)"),
        Step::Exit(1),
    ]);
    let (error, chunks) = encode(&fake, LONG);
    assert!(error.contains("device does not exist (5)"), "{error}");
    assert!(chunks.len() <= 1);
    let refusal = probe(&fake, LONG);
    assert_eq!(refusal.kind, RefusalKind::Failed);
    assert!(refusal.reason.contains("the GPU was lost"), "{refusal}");
}

#[test]
fn chunks_and_messages_are_returned_if_a_child_dies_in_mid_stream() {
    for (end, exit) in [(Step::Die("KILL"), "signal 9"), (Step::Exit(187), "exit status 187")] {
        let fake = half_real([
            Step::Real(Real::new(real()).taking(50, frames(1))),
            Step::say("[fatal] CUDA_ERROR_ILLEGAL_ADDRESS: the end of it"),
            end,
        ]);
        let (error, chunks) = encode(&fake, LONG);
        assert!(error.contains("CUDA_ERROR_ILLEGAL_ADDRESS: the end of it"), "{error}");
        assert!(error.contains(exit), "{error}");
        // The encoder wrote all 50; at most `max_delay` + 1 of them were not yet returned.
        assert!((41..=50).contains(&chunks.len()), "{}", chunks.len());
        assert!(chunks.iter().map(|chunk| chunk.pts).eq(0..chunks.len() as u64));
        assert_nothing_left(&fake);
    }
}

#[test]
fn output_that_is_cut_off_is_an_error() {
    let fake = half_real([Step::Real(Real::new(real()).cut(3_000))]);
    assert_eq!(probe(&fake, LONG).kind, RefusalKind::WrongOutput);
    let (error, chunks) = encode(&fake, SHORT);
    // On a very busy machine it does not open in time either.
    let is_late = error.contains("no answer in 0.3 s") && chunks.is_empty();
    assert!(error.contains("was killed") || is_late, "{error}");
    assert!(chunks.len() < FRAMES);
}

#[test]
fn a_missing_picture_is_an_error() {
    let refusal = probe(&fake([Step::TakeAll, one_picture()]), LONG);
    assert!(refusal.reason.contains("5 pictures went in, 1 came out"), "{refusal}");
}

#[test]
fn a_probe_fails_where_the_output_does_not_decode() {
    let no_memory = "[error] Cannot allocate memory";
    let table = [
        (vec![Step::TakeAll], RefusalKind::WrongOutput, "5 pictures went in, 0 decode"),
        (vec![Step::FloodStdout(Some(frames(5)))], RefusalKind::WrongOutput, "levels off"),
        (vec![Step::FloodStdout(None)], RefusalKind::WrongOutput, "more than 64 MiB of output"),
        (vec![Step::say(no_memory), Step::Exit(1)], RefusalKind::Busy, "Cannot allocate memory"),
    ];
    for (steps, kind, reason) in table {
        let fake = Script::over(real()).decoding(steps).lay_down().unwrap();
        let refusal = probe(&fake, LONG);
        assert_eq!(refusal.kind, kind, "{refusal}");
        assert!(refusal.reason.contains(reason), "{refusal}");
        assert_nothing_left(&fake);
    }
}

#[test]
fn a_decoder_that_hangs_is_killed_after_the_deadline() {
    let fake = Script::over(real()).decoding([Step::IgnoreSignals, Step::Hang]).lay_down().unwrap();
    // Long enough for the encode before it.
    let refusal = probe(&fake, Duration::from_secs(5));
    assert_eq!((refusal.kind, refusal.transient), (RefusalKind::Timeout, true), "{refusal}");
    assert_nothing_left(&fake);
}

#[test]
fn the_probe_encodes_once_and_decodes_once() {
    let fake = Script::over(real()).lay_down().unwrap();
    let ffmpeg = find(fake.path(), LONG).unwrap();
    assert!(test_encode_with(&ffmpeg, &spec(&ffmpeg), &[], LONG).is_usable());
    let calls = fake.calls();
    let kinds: Vec<_> = calls.iter().map(|call| call.kind).collect();
    assert_eq!(kinds, [Kind::Listing, Kind::Encoding, Kind::Decoding]);
    assert_eq!(calls[1].option("-c:v"), Some("libx264"));
    assert_nothing_left(&fake);
}

#[test]
fn a_child_that_fails_once_works_when_it_is_opened_again() {
    let fake = Script::over(real())
        .first(1, [Step::Take(frames(1)), Step::say("[error] lost"), Step::Exit(1)])
        .lay_down()
        .unwrap();
    let (error, chunks) = encode(&fake, LONG);
    assert!(error.contains("lost") && chunks.is_empty(), "{error}");
    let (error, chunks) = try_encode(&fake, LONG);
    assert_eq!((error, chunks.len()), (None, FRAMES));
    assert_nothing_left(&fake);
}

#[test]
fn floods_of_stderr_neither_block_nor_hide_the_end() {
    let last = "Driver does not support the required nvenc API version. Required: 13.1 Found: 12.2";
    for flood in [Step::FloodStderr(Some(8 << 20)), Step::Say("x".repeat(1 << 20))] {
        let fake = fake([flood, Step::say(last), Step::Exit(1)]);
        let (error, _) = encode(&fake, LONG);
        assert!(error.contains("Required: 13.1 Found: 12.2"), "{error}");
        assert!(error.len() < 10_000);
        assert_eq!(probe(&fake, LONG).kind, RefusalKind::DriverTooOld);
    }
}

#[test]
fn a_flood_of_stderr_is_no_failure() {
    let fake = half_real([Step::FloodStderr(Some(8 << 20)), Step::real(real())]);
    let ffmpeg = find(fake.path(), LONG).unwrap();
    assert!(test_encode_with(&ffmpeg, &spec(&ffmpeg), &[], LONG).is_usable());
    let (error, chunks) = try_encode(&fake, LONG);
    assert_eq!((error, chunks.len()), (None, FRAMES));
}

#[test]
fn an_endless_flood_of_stderr_is_ended_after_the_deadline() {
    let fake = fake([Step::IgnoreSignals, Step::FloodStderr(None)]);
    let begun = Instant::now();
    assert_eq!(probe(&fake, SHORT).kind, RefusalKind::Timeout);
    let (error, _) = encode(&fake, SHORT);
    assert!(error.contains("gave no answer in "), "{error}");
    assert!(error.len() < 10_000);
    assert!(begun.elapsed() < SOON);
    assert_nothing_left(&fake);
}

/// A first frame that is larger than the pipe is still being written when the child ends because
/// its stdout was closed: the error reports its output, not its exit.
#[test]
fn garbage_is_reported_also_while_the_first_frame_is_written() {
    let endless = fake([Step::FloodStdout(None)]);
    let (error, _) = try_encode_at(Resolution::new(1920, 1080), &endless, LONG);
    let error = error.unwrap();
    assert!(error.contains("no FLV header"), "{error}");
    assert_nothing_left(&endless);
}

#[test]
fn garbage_and_endless_output_are_errors() {
    let garbage = fake([Step::Write(b"no video at all\n".to_vec()), Step::TakeAll]);
    let (error, _) = encode(&garbage, LONG);
    assert!(error.contains("no FLV header"), "{error}");
    assert_eq!(probe(&garbage, LONG).kind, RefusalKind::WrongOutput);
    for (head, reason) in [(None, "no FLV header"), (Some(one_picture()), "FLV")] {
        let endless = fake(head.into_iter().chain([Step::FloodStdout(None)]).collect::<Vec<_>>());
        let (error, _) = encode(&endless, LONG);
        assert!(error.contains(reason), "{error}");
        let begun = Instant::now();
        let refusal = probe(&endless, LONG);
        assert!(begun.elapsed() < LONG, "{refusal}");
        assert!(refusal.reason.contains("more than 64 MiB of output"), "{refusal}");
        assert_nothing_left(&endless);
    }
}

#[test]
fn crashes_are_reported_by_name() {
    let fake = fake([Step::Die("SEGV")]);
    let refusal = probe(&fake, LONG);
    assert!(refusal.reason.contains("segmentation fault"), "{refusal}");
    let (error, _) = encode(&fake, LONG);
    assert!(error.contains("segmentation fault"), "{error}");
}

/// Scripts that wrap FFmpeg, and snaps, start processes of their own.
#[test]
fn processes_that_a_child_leaves_behind_delay_nothing() {
    use RefusalKind::{Failed, Timeout, WrongOutput};
    let table = [
        // Its stderr is open: it counts as running.
        (Step::HoldPipes, Step::Hang, Timeout),
        (Step::HoldPipes, Step::Exit(1), Timeout),
        (Step::HoldPipes, Step::Exit(0), Timeout),
        // Its stderr is closed and it has ended: the processes that it left behind are ended too.
        (Step::HoldStdout, Step::Hang, Timeout),
        (Step::HoldStdout, Step::Exit(1), Failed),
        (Step::HoldStdout, Step::Exit(0), WrongOutput),
    ];
    for (hold, end, kind) in table {
        let what = format!("{hold:?}, {end:?}");
        let fake = fake([hold, end]);
        let begun = Instant::now();
        let limit = if kind == Timeout { SHORT } else { LONG };
        let refusal = probe(&fake, limit);
        assert_eq!(refusal.kind, kind, "{what}: {refusal}");
        encode(&fake, SHORT);
        assert!(begun.elapsed() < SOON, "{what}");
        assert_nothing_left(&fake);
    }
}

#[test]
fn dropping_the_encoder_ends_every_child() {
    for steps in [
        vec![Step::IgnoreSignals, Step::TakeAll, Step::Hang],
        vec![Step::FloodStderr(None)],
        vec![Step::HoldPipes, Step::Hang],
    ] {
        let fake = fake(steps);
        let encoder = open(&fake, LONG, SIZE);
        let id = encoder.child_id();
        #[cfg(target_os = "linux")]
        encoder_testbed::process::until("the child runs", || {
            fake.calls_for(Kind::Encoding).iter().any(|call| call.process == id)
        });
        let begun = Instant::now();
        drop(encoder);
        assert!(begun.elapsed() < SOON);
        #[cfg(target_os = "linux")]
        assert!(encoder_testbed::process::is_gone(id));
        assert_nothing_left(&fake);
    }
}

/// Its stderr is closed and it was reaped; only its stdout is open.
#[cfg(target_os = "linux")]
#[test]
fn dropping_does_not_wait_when_the_child_has_ended() {
    let fake = fake([Step::HoldStdout]);
    let encoder = open(&fake, LONG, SIZE);
    let id = encoder.child_id();
    encoder_testbed::process::until("the child is reaped", || {
        encoder_testbed::process::is_gone(id)
    });
    let begun = Instant::now();
    drop(encoder);
    assert!(begun.elapsed() < SOON);
    assert_nothing_left(&fake);
}

#[test]
fn the_versions_of_all_vendors() {
    for vendor in VENDORS {
        let fake = Script::new().version(vendor.version).lay_down().unwrap();
        let version = vendor.release.map(|(major, minor)| Version::new(major, minor));
        let found = find(fake.path(), LONG);
        if version.is_some_and(|version| version < OLDEST) {
            let refusal = found.unwrap_err();
            assert_eq!(refusal.kind, RefusalKind::Unsupported, "{vendor:?}: {refusal}");
            continue;
        }
        let ffmpeg = found.unwrap();
        assert_eq!(ffmpeg.version, version, "{vendor:?}");
        assert_eq!(Some(ffmpeg.version_text.as_str()), vendor.version.split(' ').next());
        assert!(ffmpeg.lists("h264_nvenc") && !ffmpeg.lists("libx264"));
    }
}

#[test]
fn programs_other_than_ffmpeg_are_refused() {
    let exec = "ffmpeg: error while loading shared libraries";
    let table = [
        (
            vec![Step::say("ffmpeg version 4.3.1-fake")],
            RefusalKind::Unsupported,
            "4.4 is the oldest",
        ),
        (
            vec![Step::Write(b"something else\n".to_vec())],
            RefusalKind::Failed,
            "no FFmpeg that works",
        ),
        (vec![Step::say(exec), Step::Exit(127)], RefusalKind::Failed, "shared libraries"),
        (vec![Step::List, Step::Exit(1)], RefusalKind::Failed, "exit status 1"),
        (vec![Step::List, Step::Die("SEGV")], RefusalKind::Failed, "segmentation fault"),
        (vec![], RefusalKind::Failed, "no FFmpeg that works"),
    ];
    for (steps, kind, reason) in table {
        let refusal =
            find(Script::new().listing(steps).lay_down().unwrap().path(), LONG).unwrap_err();
        assert_eq!(refusal.kind, kind, "{refusal}");
        assert!(refusal.reason.contains(reason), "{refusal}");
        assert!(
            refusal.hint.contains("set `ffmpeg.path` or ENCODER_FFMPEG to its path"),
            "{refusal}"
        );
    }
}

#[test]
fn programs_that_do_not_list_encoders_in_time_are_refused() {
    for steps in [
        vec![Step::Hang],
        vec![Step::IgnoreSignals, Step::Hang],
        vec![Step::FloodStderr(None)],
        vec![Step::List, Step::HoldPipes],
    ] {
        let fake = Script::new().listing(steps).lay_down().unwrap();
        let begun = Instant::now();
        let refusal = find(fake.path(), SHORT).unwrap_err();
        assert_eq!((refusal.kind, refusal.transient), (RefusalKind::Timeout, true));
        assert!(begun.elapsed() < SOON);
        assert_nothing_left(&fake);
    }
    let chatty = [Step::FloodStderr(Some(1 << 20)), Step::List];
    let fake = Script::new().listing(chatty).lay_down().unwrap();
    assert!(find(fake.path(), LONG).unwrap().lists("h264_nvenc"));
}

#[test]
fn files_that_are_not_programs_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain");
    std::fs::write(&plain, "#!/bin/sh\n").unwrap();
    let broken = folder.path().join("broken");
    std::fs::write(&broken, "#!/nowhere/sh\n").unwrap();
    std::fs::set_permissions(&broken, std::fs::Permissions::from_mode(0o755)).unwrap();
    for path in [&plain, &broken, folder.path(), Path::new("/nowhere/ffmpeg")] {
        let refusal = find(path, LONG).unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::Missing, "{refusal}");
        assert!(refusal.reason.contains("cannot be run"), "{refusal}");
        assert!(refusal.reason.contains(&path.display().to_string()), "{refusal}");
    }
}
