//! From a robot recording to correct H.264 video.
//!
//! A frame goes one way: [`source`] reads the recording, [`picture`] converts into a slot of the
//! ring, a session encodes, a sink writes.

mod camera;
pub mod copy;
pub mod mux;
pub mod naming;
pub mod picture;
pub mod progress;
pub mod report;
mod resample;
pub mod run;
pub mod scan;
pub mod session;
pub mod source;
pub mod timeline;

// A backend registers itself once its crate is named: this is the one place outside of it.
#[cfg(feature = "nvenc")]
use encoder_nvenc as _;
#[cfg(feature = "openh264")]
use encoder_openh264 as _;
#[cfg(feature = "qsv")]
use encoder_qsv as _;
#[cfg(feature = "videotoolbox")]
use encoder_videotoolbox as _;
#[cfg(feature = "x264")]
use encoder_x264 as _;
