//! The rules of a backend, for x264 in FFmpeg, and with the feature `native` in this process. Needs an
//! FFmpeg: set ENCODER_FFMPEG or put it on the PATH.
#![allow(clippy::unwrap_used)]

use encoder_core::{
    Settings,
    testing::{Outcome, Suite},
};
// Decodes the pictures.
use encoder_openh264 as _;

#[test]
fn in_ffmpeg_it_keeps_every_rule() {
    check("ffmpeg");
}

#[cfg(feature = "native")]
#[test]
fn in_this_process_it_keeps_every_rule() {
    check("native");
}

fn check(mode: &str) {
    let settings = Settings::from_toml(&format!("[backend.x264]\nmode = \"{mode}\"")).unwrap();
    let report = Suite::new(&encoder_x264::BACKEND).with_settings(settings).check();
    let pictures = [report.outcome("pictures"), report.outcome("frame-memory")];
    assert_eq!(pictures, [Some(&Outcome::Passed(String::new())); 2], "{report}");
}
