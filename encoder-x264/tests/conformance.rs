//! The rules of a backend, for x264 in the FFmpeg of this machine. Needs one: set ENCODER_FFMPEG or
//! put it on the PATH.
#![allow(clippy::unwrap_used)]

use encoder_core::{
    Settings,
    testing::{Outcome, Suite},
};
// Decodes the pictures.
use encoder_openh264 as _;

#[test]
fn it_keeps_every_rule() {
    let settings = Settings::from_toml("[backend.x264]\nmode = \"ffmpeg\"").unwrap();
    let report = Suite::new(&encoder_x264::BACKEND).with_settings(settings).check();
    let pictures = [report.outcome("pictures"), report.outcome("frame-memory")];
    assert_eq!(pictures, [Some(&Outcome::Passed(String::new())); 2], "{report}");
}
