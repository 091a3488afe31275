#![doc = include_str!("../README.md")]
//!
//! Encodes one video: a ring of frames, an encoder that reads from it, and a sink for the access
//! units.
//!
//! ```text
//! push / reserve ──► ring ──► encoder ──► sink
//!  caller's threads          a thread of the session
//! ```
//!
//! The encoder's thread reads slots in order, so several workers may decode pictures at once. A
//! slot is committed when the access units of its frame and of all frames displayed before it are
//! in the sink. When the encoder is lost, the next encoder of the plan, or the same encoder opened
//! again, encodes the frames without an access unit in the sink: they are still in the ring.
//!
//! # Example
//! ```no_run
//! use std::error::Error;
//!
//! use encoder_core::{Detection, Policy, Resolution, Settings, plan};
//! use encoder_media::{Payload, RawImage, Sink, timeline::FrameTimes};
//! use encoder_session::{Session, SessionConfig};
//!
//! /// Encodes pictures of 640x480 pixels, each with its time in nanoseconds. Returns the number of
//! /// frames in the video.
//! fn encode(
//!     pictures: impl Iterator<Item = (i64, Vec<u8>)>,
//!     sink: Box<dyn Sink>,
//! ) -> Result<u64, Box<dyn Error>> {
//!     let settings = Settings::default();
//!     // Real encodes: which encoders work on this machine.
//!     let found = Detection::new(&settings).run()?;
//!     let plan = plan(&Policy::new(&settings.gpu, None), &found)?;
//!     let config = SessionConfig::new(settings, plan);
//!     let mut session = Session::open(Resolution::new(640, 480), &config, sink)?;
//!     for (stamp_ns, pixels) in pictures {
//!         let picture = Payload::Raw(RawImage {
//!             encoding: "rgb8".into(),
//!             width: 640,
//!             height: 480,
//!             step: 640 * 3,
//!             is_bigendian: false,
//!             data: pixels.into(),
//!         });
//!         session.push(&picture, FrameTimes::at(stamp_ns))?; // blocks while the ring is full
//!     }
//!     Ok(session.finish()?.frames_encoded)
//! }
//! ```

mod active;
mod closing;
mod config;
mod converter;
mod engine;
mod error;
mod fingerprint;
pub mod metrics;
mod opening;
mod output_check;
mod pool;
mod report;
mod session;
mod shared;
mod slot;
mod stats;
mod worker;

pub use closing::Closing;
pub use config::{OnBadFrame, OnFull, SessionConfig};
pub use error::{Panicked, SessionError};
pub use pool::{Free, Holder, Needed, Pool, PoolError, PoolLimits, PoolStats};
pub use report::{EncoderSpan, Failover, VideoReport};
pub use session::Session;
pub use slot::Slot;
use stats::Counters;
pub use stats::{Latency, SessionState, Stats, StatsHandle};

encoder_core::opaque_debug!(Session = "Session", Closing = "Closing", Slot = "Slot");
