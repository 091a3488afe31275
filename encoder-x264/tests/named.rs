//! An FFmpeg that the settings name, and two of them in one process.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use encoder_core::{
    Cache, Detected, Detection, EncoderType, FrameBuffer, FrameLayout, OpenRequest, ProbeResult,
    RefusalKind, Resolution, Settings, backend,
};
use encoder_ffmpeg::Ffmpeg;
// A crate that is only listed as a dependency is not linked.
use encoder_x264 as _;

/// A script around the FFmpeg of this machine that notes each start in a file beside it.
fn script(folder: &Path, name: &str) -> PathBuf {
    let real = Ffmpeg::find(EncoderType::X264).expect("this test needs FFmpeg");
    let path = folder.join(name);
    let text = format!(
        "#!/bin/sh\necho start >> \"$0.starts\"\nexec \"{}\" \"$@\"\n",
        real.path.display()
    );
    // Written by another process: a file that this process has open for writing may not be run, and
    // other threads start processes, which inherit it.
    let mut shell = Command::new("sh");
    shell.args(["-c", "cat > \"$0\" && chmod +x \"$0\""]).arg(&path).stdin(Stdio::piped());
    let mut shell = shell.spawn().unwrap();
    shell.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(shell.wait().unwrap().success());
    path
}

fn starts(script: &Path) -> usize {
    let notes = script.with_extension("starts");
    fs::read_to_string(notes).map_or(0, |text| text.lines().count())
}

fn settings(ffmpeg: &Path) -> Settings {
    let path = ffmpeg.display();
    let text = format!("[ffmpeg]\npath = \"{path}\"\n[backend.x264]\nmode = \"ffmpeg\"");
    let mut settings = Settings::from_toml(&text).unwrap();
    settings.encoder.resolution = Some(Resolution::new(64, 48));
    settings
}

fn detect(settings: &Settings, cache: &Path) -> Detected {
    let found = Detection::new(settings).cache(Some(Cache::at(cache))).run().unwrap();
    found.into_iter().find(|found| found.encoder == EncoderType::X264).unwrap()
}

fn host(found: &Detected) -> &Path {
    match &found.result {
        ProbeResult::Usable(caps) => caps.host_file.as_deref().unwrap(),
        ProbeResult::Refused(refusal) => panic!("{refusal}"),
    }
}

#[test]
fn two_settings_with_different_ffmpegs_share_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (script(folder.path(), "a"), script(folder.path(), "b"));
    let cache = folder.path().join("cache");
    let (with_a, with_b) = (settings(&a), settings(&b));
    let found_a = detect(&with_a, &cache);
    assert_eq!((host(&found_a), starts(&b)), (a.as_path(), 0));
    // The result of the other FFmpeg is in the cache, and is not used.
    let found_b = detect(&with_b, &cache);
    assert_eq!((host(&found_b), found_b.cached_s), (b.as_path(), None));
    // Both results are in the cache.
    for (settings, path) in [(&with_a, &a), (&with_b, &b)] {
        let again = detect(settings, &cache);
        assert_eq!((host(&again), again.cached_s.is_some()), (path.as_path(), true));
    }
    // An encoder runs in the FFmpeg of its settings, also with the probe result of another one.
    let ProbeResult::Usable(caps) = &found_a.result else { unreachable!() };
    for (settings, path, other) in [(&with_a, &a, &b), (&with_b, &b, &a)] {
        let before = (starts(path), starts(other));
        let mut request = OpenRequest::new(settings, EncoderType::X264, 1);
        request.probe = Some(caps);
        let mut encoder = backend(EncoderType::X264).unwrap().open_encoder(&request).unwrap();
        let layout = FrameLayout::new(encoder.pixel_format(), Resolution::new(64, 48));
        let picture = FrameBuffer::test_picture(layout, 0);
        let mut chunks: Vec<_> =
            encoder.encode_frame(&picture.frame(0)).unwrap().into_iter().collect();
        chunks.extend(encoder.flush().unwrap());
        assert_eq!(chunks.len(), 1);
        assert!(starts(path) > before.0, "{}", path.display());
        assert_eq!(starts(other), before.1, "{}", path.display());
    }
}

#[test]
fn a_path_that_is_no_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nowhere");
    let found = detect(&settings(&path), &folder.path().join("cache"));
    let ProbeResult::Refused(refusal) = found.result else { panic!("{found:?}") };
    assert_eq!(refusal.kind, RefusalKind::Missing);
    let expected = format!("ffmpeg.path = {}: this is no file", path.display());
    assert_eq!(refusal.reason, expected);
    assert!(refusal.hint.contains("ffmpeg.path"), "{refusal}");
}
