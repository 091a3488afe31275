//! The core of the encoder workspace: the encoder trait, its configuration, the registry of
//! backends, detection and selection.
//!
//! This crate knows no backend and no container. Backends register a [`Backend`] through
//! [`inventory`]; a [`Detection`] probes each of them with a real encode; [`plan`] orders them; a
//! [`Chain`] opens the first that opens, and the next one when an encoder is lost.
//!
//! Encoders count frames and know nothing of time: every `pts` here is a frame index.
//!
//! # Evolution
//! Backends live in crates outside this workspace too. Types that may grow are `#[non_exhaustive]`:
//! make them with their constructors and `with_…` methods, and match enums with a last arm that
//! refuses what it does not know. [`EncoderConfig`], [`GpuEncoderConfig`] and [`Settings`] are plain
//! data; write them with `..Default::default()`, since they get new fields.
//!
//! # Example
//! ```
//! use encoder_core::{Caps, Detected, EncoderType, Policy, ProbeResult, Refusal, RefusalKind};
//! use encoder_core::{Settings, plan};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let settings = Settings::from_toml("[encoder]\ngop_size = 60\n[gpu]\nring_buffer_size = 32")?;
//! assert_eq!(settings.encoder.gop_size, 60);
//! let error = Settings::from_toml("[gpu]\nring_bufer_size = 32").map(|_| ()).unwrap_err();
//! assert!(error.to_string().ends_with("did you mean `ring_buffer_size`?"));
//!
//! // A `Detection` returns such results, by real encodes. Here they are made up.
//! let absent = Refusal::new(EncoderType::NVENC, RefusalKind::NoDevice, "no GPU", "install one");
//! let results = [
//!     Detected::new(EncoderType::NVENC, true, ProbeResult::Refused(absent)),
//!     Detected::new(EncoderType::X264, false, ProbeResult::Usable(Caps::new("libx264"))),
//! ];
//! let plan = plan(&Policy::new(&settings.gpu, None), &results)?;
//! assert_eq!(plan.order, [EncoderType::X264]);
//! assert_eq!(plan.refusals[0].reason, "no GPU");
//! # Ok(())
//! # }
//! ```

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
mod helper;
mod in_use;
mod names;
mod nvenc;
mod picture_decoder;
mod presets;
mod probe;
mod rate_control;
mod schedule;
mod select;
mod settings;
mod task;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod waiter;

pub use backend::{Backend, Device, Open, OpenRequest, backend, backends, ranked, register};
pub use cache::{CACHE_ENV, Cache};
pub use chain::Chain;
pub use chunk::{EncodedChunk, NalKind, nal_units};
pub use config::{
    BackendOptions, CheckOutput, Codec, EncoderConfig, FrameRate, GpuEncoderConfig, Preset,
    Resolution,
};
pub use detect::{Detected, Detection, detect_available_encoders, file_identity};
pub use encoder::{DeviceLoad, LoadProbe, VideoEncoder};
pub use encoder_type::EncoderType;
pub use error::{ConfigError, EncodeError, FailureKind, OpenError, panic_text};
pub use frame::{Frame, FrameBuffer, FrameLayout, FrameMemory, PixelFormat, Plane, PlaneMut};
pub use helper::{
    HELPER_ENV, HELPER_READY, HelperTask, helper_program, helper_step, own_program, run_as_helper,
    set_helper,
};
pub use inventory;
pub use nvenc::{NvencPreset, NvencTune};
pub use picture_decoder::{
    DecodeError, MAX_DECODE_DELAY, OpenDecoder, PictureDecoder, picture_decoder,
};
pub use presets::Presets;
pub use probe::{
    Caps, Holders, ProbeResult, Refusal, RefusalKind, mean_absolute_difference, probe_in_process,
};
pub use rate_control::RateControl;
pub use select::{Plan, Policy, plan};
pub use settings::{FfmpegConfig, Settings, unknown_key};
pub use task::{Task, block_on};
pub use waiter::{OnStop, Waited, Waiter};
