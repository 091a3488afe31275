//! The core of the encoder workspace: what an encoder is, how it is configured, which ones are
//! compiled in, which of them really work here, and which one to take.
//!
//! This crate knows no backend, no file and no container. Backends register a [`Backend`] through
//! [`inventory`]; [`detect`] proves each of them with a real encode; [`plan`] orders them;
//! [`open_first`] walks the plan until one opens.
//!
//! Encoders count frames and know nothing of time: every `pts` here is a frame index.

mod backend;
mod chunk;
mod config;
mod detect;
mod encoder;
mod encoder_type;
mod error;
mod frame;
mod open;
mod probe;
mod select;
mod settings;

pub use backend::{Backend, OpenRequest, backends};
pub use chunk::{EncodedChunk, NalKind, nal_units};
pub use config::{
    BackendOptions, Codec, EncoderConfig, FrameRate, GpuEncoderConfig, NvencPreset, NvencTune,
    Preset, Resolution,
};
pub use detect::{Detected, detect, detect_available_encoders, detect_for};
pub use encoder::VideoEncoder;
pub use encoder_type::EncoderType;
pub use error::{ConfigError, EncodeError, OpenError};
pub use frame::{Frame, FrameBuffer, FrameLayout, PixelFormat, Plane, PlaneMut};
pub use inventory;
pub use open::{Opened, open_first};
pub use probe::{Caps, Refusal, RefusalKind, Verdict, mean_absolute_difference, probe_in_process};
pub use select::{Plan, Policy, plan};
pub use settings::{Settings, unknown_key};
