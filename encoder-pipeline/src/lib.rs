#![doc = include_str!("../README.md")]
//!
//! Converts robot recordings to correct H.264 video.
//!
//! The path of a frame: [`source`] reads the recording, [`picture`] converts into a slot of the
//! ring, a session encodes, a sink writes.
//!
//! ```no_run
//! use encoder_core::{Cache, Detection, Policy, Resolution, Settings, plan};
//! use encoder_pipeline::{
//!     mux::{Mp4Options, Mp4Sink},
//!     session::{Session, SessionConfig},
//!     source::{Payload, RawImage},
//!     timeline::FrameTimes,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let camera: Vec<(i64, Vec<u8>)> = Vec::new();
//! let settings = Settings::default();
//! // Probed by real encodes, now or within the last day.
//! let found = Detection::new(&settings).cache(Cache::of_user()).run()?;
//! let plan = plan(&Policy::new(&settings.gpu, None), &found)?;
//! let config = SessionConfig::new(settings, plan);
//! let options = Mp4Options::new(config.timing, &config.settings.encoder);
//! let sink = Mp4Sink::create("front.mp4".as_ref(), &options)?;
//! let mut session = Session::open(Resolution::new(848, 480), &config, Box::new(sink))?;
//! for (stamp_ns, pixels) in camera {
//!     let image = RawImage {
//!         encoding: "bgr8".into(),
//!         width: 848,
//!         height: 480,
//!         step: 848 * 3,
//!         is_bigendian: false,
//!         data: pixels.into(),
//!     };
//!     session.push(&Payload::Raw(image), FrameTimes::at(stamp_ns))?;
//! }
//! let report = session.finish()?; // the file exists from here on
//! println!("{} frames by {}", report.frames_encoded, report.encoder);
//! # Ok(())
//! # }
//! ```

mod camera;
mod closing;
mod context;
pub mod destination;
pub mod error;
mod inspection;
mod leading;
pub mod naming;
mod part;
pub mod passthrough;
pub mod progress;
mod publishers;
pub mod rate;
pub mod report;
pub mod run;
pub mod scan;
mod sizes;
mod skipped;
pub mod text;

pub use encoder_media::timeline;
pub use encoder_mp4 as mux;
pub use encoder_picture as picture;
pub use encoder_recording as source;
pub use encoder_session as session;
pub use encoder_session::metrics;
/// Ends a run early, with complete files.
pub mod stop {
    pub use encoder_media::Stop;
}

/// Registers the backends that are enabled as Cargo features.
///
/// Only needed in a static library that a C or C++ program links: the linker leaves out the code by
/// which a backend registers itself. Elsewhere it has no effect. Call it before the first
/// [`Detection`](encoder_core::Detection); more calls do no harm.
pub fn link_backends() {
    // No other place outside the backends names them.
    encoder_core::register(&[
        #[cfg(feature = "nvenc")]
        &encoder_nvenc::BACKEND,
        #[cfg(feature = "qsv")]
        &encoder_qsv::BACKEND,
        #[cfg(feature = "vaapi")]
        &encoder_vaapi::BACKEND,
        #[cfg(feature = "videotoolbox")]
        &encoder_videotoolbox::BACKEND,
        #[cfg(feature = "x264")]
        &encoder_x264::BACKEND,
        #[cfg(feature = "openh264")]
        &encoder_openh264::BACKEND,
    ]);
}

encoder_core::opaque_debug!(
    destination::FileDestination = "FileDestination",
    naming::Names = "Names",
    passthrough::Passthrough = "Passthrough",
    run::Run = "Run",
);

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    /// A result of these types can be unwrapped, and a struct that holds them can derive `Debug`.
    #[test]
    fn what_is_opened_has_a_text() {
        fn check<T: Debug + ?Sized>() {}
        check::<crate::run::Run>();
        check::<crate::destination::FileDestination>();
        check::<crate::session::Session>();
        check::<crate::session::Closing>();
        check::<Box<dyn crate::mux::Sink>>();
        check::<crate::mux::Mp4Sink>();
        check::<Box<dyn crate::source::Source>>();
        check::<Box<dyn encoder_core::VideoEncoder>>();
        check::<encoder_core::Chain>();
        let text = format!("{:?}", crate::progress::Silent);
        assert_eq!(text, "Silent");
    }
}
