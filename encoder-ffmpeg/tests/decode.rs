//! Decoding of video files: with a real FFmpeg, which has to be on the PATH or in ENCODER_FFMPEG,
//! and with scripted programs in place of FFmpeg that fail.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use std::{
    io::ErrorKind,
    net::TcpListener,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use encoder_core::EncoderType;
use encoder_ffmpeg::{
    DecodeError, Exit, Ffmpeg, PictureInfo, VideoDecoder,
    process::{Input, run},
};
use encoder_testbed::scripted::{Script, Scripted, Step};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);

fn ffmpeg() -> Arc<Ffmpeg> {
    Ffmpeg::find(EncoderType::X264).expect(
        "these tests need FFmpeg 4.4 or later: apt install ffmpeg, or set ENCODER_FFMPEG to its \
         path",
    )
}

/// Makes a video of FFmpeg's test source.
fn video(folder: &Path, name: &str, source: &str, options: &[&str]) -> PathBuf {
    let path = folder.join(name);
    let mut command = ffmpeg().command();
    command.args(["-hide_banner", "-loglevel", "error", "-y", "-f", "lavfi", "-i", source]);
    command.args(options).arg(&path);
    let output = run(command, Input::Empty, LONG).unwrap();
    assert_eq!(output.exit, Exit::Code(0), "{}", output.stderr);
    path
}

/// A program that runs `steps` in place of FFmpeg.
fn fake(steps: impl Into<Vec<Step>>) -> (Scripted, Ffmpeg) {
    let scripted = Script::new().encoding(steps).lay_down().unwrap();
    let ffmpeg = Ffmpeg::at(scripted.path(), EncoderType::X264, LONG).unwrap();
    (scripted, ffmpeg)
}

/// The log line of a picture of 16x8 pixels, which has 192 bytes.
fn announce(n: u32) -> Step {
    Step::say(format!("[Parsed_showinfo_2 @ 0x5] [info] n:{n} pts:{n} pts_time:{n} s:16x8 i:P"))
}

fn assert_nothing_left(scripted: &Scripted) {
    let _ = scripted;
    #[cfg(target_os = "linux")]
    for call in scripted.calls() {
        encoder_testbed::process::assert_gone(call.process);
        encoder_testbed::process::assert_group_gone(call.process);
    }
}

#[test]
fn pictures_come_with_their_sizes_and_times() {
    let folder = tempfile::tempdir().unwrap();
    // A name that looks like an option and like a protocol; odd sides.
    let path = video(folder.path(), "-x:y %d.mkv", "testsrc=s=97x65:r=10:d=1", &["-c:v", "ffv1"]);
    let mut decoder = VideoDecoder::open(&ffmpeg(), &path).unwrap();
    assert!(decoder.stream().has_times());
    let mut count = 0;
    while let Some(picture) = decoder.next_picture().unwrap() {
        let time_ns = Some(i64::from(count) * 100_000_000);
        assert_eq!(picture, PictureInfo { width: 97, height: 65, time_ns });
        assert_eq!(picture.bytes(), 97 * 65 + 2 * 49 * 33);
        if count % 2 == 0 {
            assert_eq!(decoder.read(&picture).unwrap().len() as u64, picture.bytes());
        } else {
            decoder.skip(&picture).unwrap();
        }
        count += 1;
    }
    assert_eq!(count, 10);
    let ending = decoder.finish();
    assert_eq!((ending.exit, ending.errors), (Exit::Code(0), 0), "{ending:?}");
    assert!(!ending.has_more_samples);
}

#[test]
fn elementary_streams_have_no_times() {
    let folder = tempfile::tempdir().unwrap();
    let options = ["-c:v", "mpeg4", "-f", "m4v"];
    let path = video(folder.path(), "a.m4v", "testsrc=s=64x48:r=10:d=1", &options);
    assert!(!VideoDecoder::open(&ffmpeg(), &path).unwrap().stream().has_times());
}

#[test]
fn files_without_a_picture_are_errors_with_ffmpegs_messages() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.mp4");
    std::fs::write(&path, "no video").unwrap();
    let error = VideoDecoder::open(&ffmpeg(), &path).unwrap_err();
    assert!(matches!(&error, DecodeError::NoPicture { log } if log.contains("Invalid data")));
}

#[test]
fn an_address_in_a_playlist_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let path = folder.path().join("x.m3u8");
    let list = format!(
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXT-X-MEDIA-SEQUENCE:0\n\
         #EXTINF:10.0,\nhttp://{address}/a.ts\n#EXT-X-ENDLIST\n"
    );
    std::fs::write(&path, list).unwrap();
    let error = VideoDecoder::open(&ffmpeg(), &path).unwrap_err();
    assert!(matches!(&error, DecodeError::NoPicture { log } if log.contains("a.ts")), "{error}");
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn dropping_the_decoder_ends_ffmpeg() {
    let (scripted, ffmpeg) = fake([announce(0), Step::IgnoreSignals, Step::Hang]);
    let decoder = VideoDecoder::open(&ffmpeg, Path::new("x")).unwrap();
    drop(decoder);
    assert_nothing_left(&scripted);
}

#[test]
fn a_decoder_that_hangs_is_killed_after_its_limit() {
    // Before the first picture, before its samples, within them, and before the second picture.
    let hang = |steps: Vec<Step>| {
        let (scripted, ffmpeg) = fake([steps, vec![Step::IgnoreSignals, Step::Hang]].concat());
        let begun = Instant::now();
        let result = VideoDecoder::open_within(&ffmpeg, Path::new("x"), SHORT);
        let result = result.and_then(|mut decoder| {
            while let Some(picture) = decoder.next_picture()? {
                decoder.read(&picture)?;
            }
            Ok(())
        });
        assert!(begun.elapsed() < LONG);
        let error = result.unwrap_err().to_string();
        assert_eq!(error, "FFmpeg gave no output for 0.3 s and was killed");
        assert_nothing_left(&scripted);
    };
    hang(vec![]);
    hang(vec![announce(0)]);
    hang(vec![announce(0), Step::Write(vec![7; 100])]);
    hang(vec![announce(0), Step::Write(vec![7; 192])]);
}

#[test]
fn a_truncated_video_is_an_error_with_ffmpegs_exit() {
    for (end, exit) in [
        (Step::Exit(3), Exit::Code(3)),
        (Step::Die("SEGV"), Exit::Signal(11)),
        (Step::Exit(0), Exit::Code(0)),
    ] {
        let error = Step::say("[mov @ 0x5] [error] the disk is gone");
        let steps = [
            vec![announce(0), announce(1), Step::Write(vec![7; 192 + 100])],
            vec![Step::FloodStderr(Some(1 << 20)), error, end],
        ];
        let (scripted, ffmpeg) = fake(steps.concat());
        let mut decoder = VideoDecoder::open(&ffmpeg, Path::new("x")).unwrap();
        let first = decoder.next_picture().unwrap().unwrap();
        assert_eq!(decoder.read(&first).unwrap(), [7; 192]);
        let second = decoder.next_picture().unwrap().unwrap();
        let error = decoder.skip(&second).unwrap_err();
        assert!(matches!(error, DecodeError::CutOff { got: 100, expected: 192 }), "{error}");
        let ending = decoder.finish();
        assert_eq!((ending.exit, ending.errors), (exit, 1));
        assert_eq!(ending.first_error, "[mov] [error] the disk is gone");
        assert!(ending.log.ends_with(&ending.first_error), "{ending:?}");
        assert_nothing_left(&scripted);
    }
}

#[test]
fn samples_without_a_picture_are_reported() {
    let (_scripted, ffmpeg) = fake([announce(0), Step::Write(vec![7; 2 * 192])]);
    let mut decoder = VideoDecoder::open(&ffmpeg, Path::new("x")).unwrap();
    let picture = decoder.next_picture().unwrap().unwrap();
    decoder.read(&picture).unwrap();
    assert_eq!(decoder.next_picture().unwrap(), None);
    assert!(decoder.finish().has_more_samples);
}

/// The limit for it is shorter than that for a decoder that hangs.
#[test]
fn a_decoder_that_waits_with_samples_of_no_picture_is_killed() {
    let steps = [announce(0), Step::Write(vec![7; 2 * 192]), Step::IgnoreSignals, Step::Hang];
    let (scripted, ffmpeg) = fake(steps);
    let mut decoder = VideoDecoder::open(&ffmpeg, Path::new("x")).unwrap();
    let picture = decoder.next_picture().unwrap().unwrap();
    decoder.read(&picture).unwrap();
    let error = decoder.next_picture().unwrap_err();
    assert!(matches!(error, DecodeError::Unreported), "{error}");
    assert_nothing_left(&scripted);
}

/// FFmpeg announces many small pictures before it fills the pipe of their samples.
#[test]
fn many_announced_pictures_do_not_block() {
    let announced = (0..3000).map(announce);
    let steps = announced.chain([Step::Write(vec![7; 3000 * 192])]).collect::<Vec<_>>();
    let (_scripted, ffmpeg) = fake(steps);
    let mut decoder = VideoDecoder::open(&ffmpeg, Path::new("x")).unwrap();
    let mut count = 0;
    while let Some(picture) = decoder.next_picture().unwrap() {
        decoder.read(&picture).unwrap();
        count += 1;
    }
    assert_eq!((count, decoder.finish().exit), (3000, Exit::Code(0)));
}

#[test]
fn a_program_that_does_not_start_is_named() {
    let (scripted, ffmpeg) = fake([]);
    drop(scripted);
    let error = VideoDecoder::open(&ffmpeg, Path::new("x")).unwrap_err();
    assert!(matches!(&error, DecodeError::Start { program, .. } if *program == ffmpeg.path));
}
