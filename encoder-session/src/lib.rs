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
