use std::{sync::LazyLock, thread, time::Duration};

use serde::Serialize;

use crate::{
    BackendOptions, Caps, Codec, ConfigError, EncoderConfig, EncoderType, GpuEncoderConfig,
    OpenError, Presets, ProbeResult, Settings, VideoEncoder,
};

/// What a backend is given to look for its device, to probe itself and to open an encoder.
/// Everything in it has been checked.
#[derive(Clone, Debug)]
pub struct OpenRequest<'a> {
    /// The stream. `resolution` is set for opening; before that it may not be known.
    pub config: &'a EncoderConfig,
    /// The knobs of hardware encoders.
    pub gpu: &'a GpuEncoderConfig,
    /// The backend's own table of options, as it stands in the configuration.
    pub options: &'a BackendOptions,
    /// How many threads a software encoder may use.
    pub threads: usize,
    /// For opening: what the probe has found out, where there was one. It need not be asked again.
    pub probe: Option<&'a Caps>,
}

impl<'a> OpenRequest<'a> {
    /// The part of `settings` that concerns the backend `id`.
    pub fn new(settings: &'a Settings, id: EncoderType, threads: usize) -> Self {
        static NONE: LazyLock<BackendOptions> = LazyLock::new(BackendOptions::new);
        Self {
            config: &settings.encoder,
            gpu: &settings.gpu,
            options: settings.backend.get(id.as_str()).unwrap_or_else(|| &NONE),
            threads: threads.max(1),
            probe: None,
        }
    }
}

/// Where an encoder would run, found out without starting anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Device {
    /// What it is: `NVIDIA L4 (GPU 0)`, `/dev/dri/renderD128`. Empty for software.
    pub name: String,
    /// The driver and its version, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// All that the probe depends on: program, library, driver, device, options. A probe holds as
    /// long as this is_stable the same.
    #[serde(skip)]
    pub identity: Vec<String>,
}

/// A backend, as it registers itself.
///
/// ```text
/// encoder_core::inventory::submit! {
///     Backend { id: EncoderType::new("mine"), rank: |_| 55, … }
/// }
/// ```
///
/// A crate that is only listed as a dependency is not linked: the program must name it once,
/// `use encoder_mine as _;`.
pub struct Backend {
    /// Its name.
    pub id: EncoderType,
    /// Its place in the default order, lower first: nvenc 10, qsv 20, vaapi 25, videotoolbox 30,
    /// x264 60, openh264 90. It may depend on what is asked for: `threads` are then those of the
    /// machine. Pure; the options may be wrong.
    pub rank: fn(&OpenRequest<'_>) -> u16,
    /// Whether it needs a device.
    pub hardware: bool,
    /// The codecs that it makes.
    pub codecs: &'static [Codec],
    /// Its presets.
    pub presets: Presets,
    /// Checks the table `[backend.<id>]` of the configuration.
    pub check_options: fn(&BackendOptions) -> Result<(), ConfigError>,
    /// Looks for the device, in milliseconds: driver, node, permission, library. Starts nothing
    /// where all is well. A refusal here spares the probe; [`OpenError::Config`] is for a device
    /// that is asked for and is not there.
    pub inspect: fn(&OpenRequest<'_>) -> Result<Device, OpenError>,
    /// Probes by a real encode that it works here, within about the deadline. May block; is
    /// called from a thread of its own, after `inspect`.
    pub probe: fn(&OpenRequest<'_>, deadline: Duration) -> ProbeResult,
    /// The most frames that an encoder opened so keeps before its first access unit must come
    /// out: [`VideoEncoder::max_delay`], known before it is opened.
    pub max_delay: fn(&OpenRequest<'_>) -> usize,
    /// Opens an encoder.
    pub open: fn(&OpenRequest<'_>) -> Result<Box<dyn VideoEncoder>, OpenError>,
}

inventory::collect!(Backend);

/// The backends that are compiled in, by their rank for the default settings, then by name. (Link
/// order means nothing.)
pub fn backends() -> Vec<&'static Backend> {
    ranked(&Settings::default())
}

/// The backends that are compiled in, by their rank for these settings, then by name.
pub fn ranked(settings: &Settings) -> Vec<&'static Backend> {
    let threads = cores();
    let mut all: Vec<_> = inventory::iter::<Backend>.into_iter().collect();
    all.sort_by_key(|backend| {
        ((backend.rank)(&OpenRequest::new(settings, backend.id, threads)), backend.id)
    });
    all
}

/// Threads of the machine, or as many as this process is allowed.
pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(2, usize::from)
}
