//! The core of the encoder workspace: what an encoder is, how it is configured, which ones are
//! compiled in, which of them really work here, and which one to take.
//!
//! This crate knows no backend and no container. Backends register a [`Backend`] through
//! [`inventory`]; a [`Detection`] probes each of them with a real encode; [`plan`] orders them; a
//! [`Chain`] walks the plan until one opens, and again when that one is lost.
//!
//! Encoders count frames and know nothing of time: every `pts` here is a frame index.

mod backend;
mod cache;
mod chain;
mod chunk;
mod config;
mod detect;
mod encoder;
mod encoder_type;
mod error;
mod frame;
mod in_use;
mod presets;
mod probe;
mod schedule;
mod select;
mod settings;
mod waiter;

pub use backend::{Backend, Device, OpenRequest, backends, ranked};
pub use cache::{CACHE_ENV, Cache};
pub use chain::Chain;
pub use chunk::{EncodedChunk, NalKind, nal_units};
pub use config::{
    BackendOptions, Codec, EncoderConfig, FrameRate, GpuEncoderConfig, NvencPreset, NvencTune,
    Preset, Resolution,
};
pub use detect::{Detected, Detection, detect_available_encoders, file_identity};
pub use encoder::{DeviceLoad, LoadProbe, VideoEncoder};
pub use encoder_type::EncoderType;
pub use error::{ConfigError, EncodeError, FailureKind, OpenError};
pub use frame::{Frame, FrameBuffer, FrameLayout, PixelFormat, Plane, PlaneMut};
pub use inventory;
pub use presets::Presets;
pub use probe::{
    Caps, Holders, ProbeResult, Refusal, RefusalKind, mean_absolute_difference, probe_in_process,
};
pub use select::{Plan, Policy, plan};
pub use settings::{Settings, unknown_key};
pub use waiter::{Waited, Waiter};
