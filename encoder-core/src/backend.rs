use std::{
    fmt,
    panic::Location,
    path::Path,
    sync::{LazyLock, PoisonError, RwLock},
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    BackendOptions, Caps, Codec, ConfigError, EncoderConfig, EncoderType, FrameMemory,
    GpuEncoderConfig, OpenDecoder, OpenError, Presets, ProbeResult, Refusal, RefusalKind,
    Resolution, Settings, VideoEncoder, Waiter,
    probe::{PROBE_SIZE, probe_opened},
    unknown_key,
};

/// The settings that a backend gets to look for its device, to probe itself and to open an encoder.
/// All values have been checked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OpenRequest<'a> {
    /// The stream. `resolution` is set for opening; before that it may not be known.
    pub config: &'a EncoderConfig,
    /// The settings of hardware encoders.
    pub gpu: &'a GpuEncoderConfig,
    /// The table `[backend.<id>]` of the configuration.
    pub options: &'a BackendOptions,
    /// The FFmpeg program that the settings name ([`FfmpegConfig::path`](crate::FfmpegConfig::path)).
    pub ffmpeg: Option<&'a Path>,
    /// How many threads a software encoder may use.
    pub threads: usize,
    /// For opening: the capabilities that the probe found, if there was a probe. The backend need
    /// not look them up again.
    pub probe: Option<&'a Caps>,
    /// For opening: ends the waits of the encoder when the run is stopped, if the run can be
    /// stopped. An interrupted encoder continues, and may wait without progress for a few seconds
    /// at most; the result of a stopped encoder is no longer needed.
    pub waiter: Option<&'a Waiter>,
    /// For opening: the most frames that the encoder may keep, as [`Backend::max_delay`] declares
    /// for this request. Set by [`Backend::open_encoder`] and by the default probe; `None` if a
    /// program calls [`Backend::open`] itself.
    pub max_delay: Option<usize>,
}

impl<'a> OpenRequest<'a> {
    /// The part of `settings` that concerns the backend `id`.
    pub fn new(settings: &'a Settings, id: EncoderType, threads: usize) -> Self {
        static NONE: LazyLock<BackendOptions> = LazyLock::new(BackendOptions::new);
        Self {
            config: &settings.encoder,
            gpu: &settings.gpu,
            options: settings.backend.get(id.as_str()).unwrap_or_else(|| &NONE),
            ffmpeg: settings.ffmpeg.path.as_deref(),
            threads: threads.max(1),
            probe: None,
            waiter: None,
            max_delay: None,
        }
    }

    /// The same request for another stream.
    #[must_use]
    pub fn with_config(mut self, config: &'a EncoderConfig) -> Self {
        self.config = config;
        self
    }

    /// The same request with other options of the backend.
    #[must_use]
    pub fn with_options(mut self, options: &'a BackendOptions) -> Self {
        self.options = options;
        self
    }

    /// The size of the frames, which is even.
    ///
    /// # Errors
    /// [`ConfigError::Value`] if `resolution` is not set.
    pub fn coded_size(&self) -> Result<Resolution, ConfigError> {
        let size = self.config.resolution.map(Resolution::even);
        size.ok_or_else(|| ConfigError::value("encoder.resolution", "none", "WIDTHxHEIGHT"))
    }

    /// Bytes of a frame of the stream, 1.5 for each pixel; 0 if `resolution` is not set.
    pub fn frame_bytes(&self) -> u64 {
        let size = self.config.resolution.map(Resolution::even);
        size.map_or(0, |size| u64::from(size.width) * u64::from(size.height) * 3 / 2)
    }
}

/// The device of an encoder, found without starting anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Device {
    /// The name of the device: `NVIDIA L4 (GPU 0)`, `/dev/dri/renderD128`. Empty for software.
    pub name: String,
    /// The driver and its version, if there is a driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Everything that the probe depends on: program, library, driver, device, options. A cached
    /// probe result is used as long as this stays the same.
    #[serde(skip)]
    pub identity: Vec<String>,
}

impl Device {
    /// A device without driver and identity.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Sets the driver.
    #[must_use]
    pub fn with_driver(mut self, driver: impl Into<Option<String>>) -> Self {
        self.driver = driver.into();
        self
    }

    /// Sets what the probe depends on.
    #[must_use]
    pub fn with_identity(mut self, identity: Vec<String>) -> Self {
        self.identity = identity;
        self
    }
}

/// A backend, as its crate registers it.
///
/// Only the id and the function that opens an encoder are required; the setters replace defaults
/// that fit a software encoder without options.
///
/// ```
/// use encoder_core::{Backend, EncoderType, OpenError, OpenRequest, VideoEncoder, inventory};
/// # use encoder_core::{Refusal, RefusalKind};
///
/// const MINE: EncoderType = EncoderType::new("mine");
///
/// fn open(request: &OpenRequest<'_>) -> Result<Box<dyn VideoEncoder>, OpenError> {
///     # let _ = request;
///     # return Err(Refusal::new(MINE, RefusalKind::Unsupported, "an example", "none").into());
///     # #[cfg(any())]
///     Ok(Box::new(MyEncoder::new(request.coded_size()?)))
/// }
///
/// inventory::submit! {
///     Backend::new(MINE, open).rank(|_| 55).max_delay(|request| request.config.b_frames.into())
/// }
/// # assert_eq!(encoder_core::backends()[0].id, MINE);
/// ```
///
/// A crate that is only listed as a dependency is not linked: the program must name it once,
/// `use encoder_mine as _;`. In a static library that is not enough: see [`register`].
#[non_exhaustive]
pub struct Backend {
    /// Its name. Two backends of one program may not have the same name.
    pub id: EncoderType,
    /// See [`Backend::rank`].
    pub rank: fn(&OpenRequest<'_>) -> u16,
    /// See [`Backend::hardware`].
    pub hardware: bool,
    /// See [`Backend::codecs`].
    pub codecs: &'static [Codec],
    /// See [`Backend::presets`].
    pub presets: Presets,
    /// See [`Backend::memory`].
    pub memory: fn(&OpenRequest<'_>) -> FrameMemory,
    /// See [`Backend::max_delay`].
    pub max_delay: fn(&OpenRequest<'_>) -> usize,
    /// See [`Backend::probe_size`].
    pub probe_size: Resolution,
    /// Opens an encoder. [`open_encoder`](Backend::open_encoder) also checks that it can be used.
    pub open: Open,
    /// See [`Backend::decoder`].
    pub decoder: Option<OpenDecoder>,
    check_options: Option<fn(&BackendOptions) -> Result<(), ConfigError>>,
    memory_estimate: Option<fn(&OpenRequest<'_>) -> u64>,
    inspect: Option<fn(&OpenRequest<'_>) -> Result<Device, OpenError>>,
    probe: Option<fn(&OpenRequest<'_>, Duration) -> ProbeResult>,
    driver_identity: fn() -> Vec<String>,
    registered_at: &'static Location<'static>,
}

/// Opens an encoder.
pub type Open = fn(&OpenRequest<'_>) -> Result<Box<dyn VideoEncoder>, OpenError>;

impl Backend {
    /// A software encoder of H.264 without options, presets and delay. [`registered_at`] is the
    /// place of this call.
    ///
    /// [`registered_at`]: Self::registered_at
    #[track_caller]
    pub const fn new(id: EncoderType, open: Open) -> Self {
        Self {
            id,
            rank: |_| 100,
            hardware: false,
            codecs: &[Codec::H264],
            presets: Presets::NONE,
            memory: |_| FrameMemory::Host,
            max_delay: |_| 0,
            probe_size: PROBE_SIZE,
            open,
            decoder: None,
            check_options: None,
            memory_estimate: None,
            inspect: None,
            probe: None,
            driver_identity: Vec::new,
            registered_at: Location::caller(),
        }
    }

    /// Sets the place in the default order, lower first: nvenc 10, qsv 20, vaapi 25, videotoolbox
    /// 30, x264 60, openh264 90. Default 100.
    ///
    /// The rank may depend on the settings; `threads` are then those of the machine. The function
    /// must be pure and accept options that are wrong.
    #[must_use]
    pub const fn rank(mut self, rank: fn(&OpenRequest<'_>) -> u16) -> Self {
        self.rank = rank;
        self
    }

    /// Sets whether the encoder needs a device. Default false.
    #[must_use]
    pub const fn hardware(mut self, hardware: bool) -> Self {
        self.hardware = hardware;
        self
    }

    /// Sets the codecs of the encoder. Default H.264. With another codec in the configuration the
    /// backend is refused.
    #[must_use]
    pub const fn codecs(mut self, codecs: &'static [Codec]) -> Self {
        self.codecs = codecs;
        self
    }

    /// Sets the presets. Default [`Presets::NONE`].
    #[must_use]
    pub const fn presets(mut self, presets: Presets) -> Self {
        self.presets = presets;
        self
    }

    /// Sets in what memory the encoder wants its frames. Default [`FrameMemory::Host`].
    #[must_use]
    pub const fn memory(mut self, memory: fn(&OpenRequest<'_>) -> FrameMemory) -> Self {
        self.memory = memory;
        self
    }

    /// Sets the most frames that an encoder opened by this request keeps before its first access
    /// unit must come out. The ring in front of the encoder is as large as that, and an encoder that
    /// keeps more frames counts as lost. Default 0.
    #[must_use]
    pub const fn max_delay(mut self, max_delay: fn(&OpenRequest<'_>) -> usize) -> Self {
        self.max_delay = max_delay;
        self
    }

    /// Sets the size of the pictures of the default probe, for an encoder that does not take every
    /// size: 640x368 for an encoder that takes only multiples of 16. Default 640x360. A backend with
    /// a probe of its own sets the size too: the suite of the feature `testing` always uses it.
    #[must_use]
    pub const fn probe_size(mut self, size: Resolution) -> Self {
        self.probe_size = size;
        self
    }

    /// Sets how many bytes an encoder opened by this request uses, without the ring: in this
    /// process, or in its child process. Sessions that share a pool are counted by it, so it should
    /// be on the high side. The function must be pure; `resolution` is set.
    ///
    /// Default: by size and delay, in units of a frame of 1.5 bytes per pixel. Software: 16 MiB, 24
    /// frames, and 2.5 more for each frame of [`Backend::max_delay`]. Hardware: 128 MiB for the
    /// driver, 8 frames, and 1 more for each frame of delay.
    #[must_use]
    pub const fn memory_estimate(mut self, estimate: fn(&OpenRequest<'_>) -> u64) -> Self {
        self.memory_estimate = Some(estimate);
        self
    }

    /// The bytes that an encoder opened by this request uses: see [`Backend::memory_estimate`].
    pub fn estimate_memory(&self, request: &OpenRequest<'_>) -> u64 {
        if let Some(estimate) = self.memory_estimate {
            return estimate(request);
        }
        let delay = (self.max_delay)(request) as u64;
        let (fixed, half_frames) = match self.hardware {
            true => (128 << 20, 16 + 2 * delay),
            false => (16 << 20, 48 + 5 * delay),
        };
        fixed + request.frame_bytes().saturating_mul(half_frames) / 2
    }

    /// Sets the decoder that comes with the backend. It checks the pictures of hardware encoders
    /// while they encode: [`GpuEncoderConfig::check_output`]. Default: none.
    #[must_use]
    pub const fn decoder(mut self, decoder: OpenDecoder) -> Self {
        self.decoder = Some(decoder);
        self
    }

    /// Sets the check of the table `[backend.<id>]`. Default: every key is refused.
    #[must_use]
    pub const fn check_options(
        mut self,
        check: fn(&BackendOptions) -> Result<(), ConfigError>,
    ) -> Self {
        self.check_options = Some(check);
        self
    }

    /// Sets the device check, which takes milliseconds: driver, device node, permission, library.
    /// It starts no process if the device is found. After a refusal the encoder is not probed;
    /// [`OpenError::Config`] is for a device that the configuration names and that does not exist.
    ///
    /// Default: software, whose probe depends on this program and on all settings. A backend that
    /// loads a library or starts a program needs a check of its own, with that file in
    /// [`Device::identity`] (see [`file_identity`](crate::file_identity)): otherwise a probe result
    /// stays cached after the file was replaced.
    #[must_use]
    pub const fn inspect(
        mut self,
        inspect: fn(&OpenRequest<'_>) -> Result<Device, OpenError>,
    ) -> Self {
        self.inspect = Some(inspect);
        self
    }

    /// Sets the probe: a real encode that shows whether the encoder works on this machine, within
    /// about the deadline. It may block; it runs on a thread of its own, after the device check.
    ///
    /// Default: [`probe_in_process`](crate::probe_in_process) without a decoder, on an encoder from
    /// `open`. It checks the number of access units and the parameter sets, and not the pixels.
    #[must_use]
    pub const fn probe(mut self, probe: fn(&OpenRequest<'_>, Duration) -> ProbeResult) -> Self {
        self.probe = Some(probe);
        self
    }

    /// Sets a function that identifies the driver without a call into it: its files, and its
    /// version as the kernel reports it. A device check that missed its deadline is not repeated for
    /// five minutes as long as this identity stays the same. Default: an empty identity.
    #[must_use]
    pub const fn driver_identity(mut self, identity: fn() -> Vec<String>) -> Self {
        self.driver_identity = identity;
        self
    }

    /// The identity of the driver: see [`Backend::driver_identity`].
    pub(crate) fn identify_driver(&self) -> Vec<String> {
        (self.driver_identity)()
    }

    /// Checks the table `[backend.<id>]` of the configuration.
    ///
    /// # Errors
    /// [`ConfigError`] for unknown keys and wrong values.
    pub fn check(&self, options: &BackendOptions) -> Result<(), ConfigError> {
        match (self.check_options, options.keys().next()) {
            (Some(check), _) => check(options),
            (None, Some(key)) => Err(unknown_key(&format!("[backend.{}]", self.id), key, &[])),
            (None, None) => Ok(()),
        }
    }

    /// Looks for the device: see [`Backend::inspect`].
    ///
    /// # Errors
    /// [`OpenError::Refused`] if there is no device that could work, [`OpenError::Config`] if the
    /// configuration names a device that does not exist.
    pub fn find_device(&self, request: &OpenRequest<'_>) -> Result<Device, OpenError> {
        match self.inspect {
            Some(inspect) => inspect(request),
            None => {
                let OpenRequest { config, gpu, options, ffmpeg, .. } = request;
                let settings = format!("{config:?} {gpu:?} {options:?} {ffmpeg:?}");
                Ok(Device::default().with_identity(vec![settings]))
            }
        }
    }

    /// Probes the encoder: see [`Backend::probe`].
    pub fn run_probe(&self, request: &OpenRequest<'_>, deadline: Duration) -> ProbeResult {
        match self.probe {
            Some(probe) => probe(request, deadline),
            None => probe_opened(self, request, deadline),
        }
    }

    /// Opens an encoder.
    ///
    /// # Errors
    /// [`OpenError::Refused`] if the encoder cannot be used here, or needs frames that this version
    /// of the crate cannot provide (see [`FrameMemory::Device`]); [`OpenError::Config`] if the
    /// settings are wrong.
    pub fn open_encoder(
        &self,
        request: &OpenRequest<'_>,
    ) -> Result<Box<dyn VideoEncoder>, OpenError> {
        match self.misfit(request) {
            Some(refusal) => Err(refusal.into()),
            None => {
                let max_delay = Some((self.max_delay)(request));
                (self.open)(&OpenRequest { max_delay, ..request.clone() })
            }
        }
    }

    /// The refusal of a request that the encoder cannot meet, whatever its device.
    pub(crate) fn misfit(&self, request: &OpenRequest<'_>) -> Option<Refusal> {
        let refuse = |reason: String| {
            let hint = "use another encoder";
            Some(Refusal::new(self.id, RefusalKind::Unsupported, reason, hint))
        };
        let codec = request.config.codec;
        if !self.codecs.contains(&codec) {
            return refuse(format!("it does not make {codec}"));
        }
        let memory = (self.memory)(request);
        if !memory.is_host() {
            return refuse(format!(
                "it takes frames in {memory} only, and they are in host memory"
            ));
        }
        None
    }

    /// Whether this is the same backend as `other`, and not another one of the same name.
    fn is_same(&self, other: &Self) -> bool {
        (self.id, self.registered_at) == (other.id, other.registered_at)
    }

    /// The source location of [`Backend::new`], which names the crate in messages.
    pub const fn registered_at(&self) -> &'static Location<'static> {
        self.registered_at
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend")
            .field("id", &self.id)
            .field("hardware", &self.hardware)
            .field("codecs", &self.codecs)
            .field("registered_at", &format_args!("{}", self.registered_at))
            .finish_non_exhaustive()
    }
}

inventory::collect!(Backend);

/// The backends of [`register`].
static REGISTERED: RwLock<Vec<&'static Backend>> = RwLock::new(Vec::new());

/// Registers backends by a call, in addition to those that register themselves by [`inventory`]. A
/// backend that has registered itself already is not registered twice.
///
/// For a static library: the linker of a C or C++ program takes only those objects of it that are
/// called, so nothing in it registers itself. A program that calls
/// `encoder_pipeline::link_backends()` need not call this function.
pub fn register(backends: &[&'static Backend]) {
    let known = all();
    let is_new = |backend: &&&'static Backend| known.iter().all(|known| !known.is_same(backend));
    let mut registered = REGISTERED.write().unwrap_or_else(PoisonError::into_inner);
    for backend in backends.iter().filter(is_new) {
        if registered.iter().all(|known| !known.is_same(backend)) {
            registered.push(backend);
        }
    }
}

/// All backends of this program, in no particular order.
fn all() -> Vec<&'static Backend> {
    let registered = REGISTERED.read().unwrap_or_else(PoisonError::into_inner);
    inventory::iter::<Backend>.into_iter().chain(registered.iter().copied()).collect()
}

/// The ids of all backends of this program, in no particular order.
pub(crate) fn ids() -> impl Iterator<Item = EncoderType> {
    all().into_iter().map(|backend| backend.id)
}

/// The backends that are compiled in, by their rank for the default settings, then by name. (The
/// order of linking has no influence.)
///
/// Two backends with one id are both in the list; [`Settings::check`] refuses them, and with it
/// detection and [`Chain`](crate::Chain).
pub fn backends() -> Vec<&'static Backend> {
    ranked(&Settings::default())
}

/// The backends that are compiled in, by their rank for these settings, then by name.
pub fn ranked(settings: &Settings) -> Vec<&'static Backend> {
    let threads = cores();
    let mut all = all();
    all.sort_by_key(|backend| {
        ((backend.rank)(&OpenRequest::new(settings, backend.id, threads)), backend.id)
    });
    all
}

/// The backend with this id.
///
/// # Errors
/// [`OpenError::Unknown`] if it is not compiled in; [`ConfigError::DuplicateBackend`] if two
/// backends have this id.
pub fn backend(id: EncoderType) -> Result<&'static Backend, OpenError> {
    let all = all();
    let mut same = all.iter().filter(|backend| backend.id == id);
    match (same.next(), same.next()) {
        (Some(backend), None) => Ok(backend),
        (Some(first), Some(second)) => Err(duplicate(first, second).into()),
        (None, _) => {
            let available = backends().iter().map(|backend| backend.id).collect();
            Err(OpenError::Unknown { wanted: id.to_string(), available })
        }
    }
}

/// Refuses two backends with one id: the linker would decide which of them is used.
pub(crate) fn check_ids() -> Result<(), ConfigError> {
    let mut all = all();
    all.sort_by_key(|backend| backend.id);
    match all.windows(2).find(|pair| pair[0].id == pair[1].id) {
        Some([first, second]) => Err(duplicate(first, second)),
        _ => Ok(()),
    }
}

/// The error for two backends with one id. The order of linking has no influence on its text.
fn duplicate(first: &Backend, second: &Backend) -> ConfigError {
    let mut places = [first, second].map(|backend| backend.registered_at);
    places.sort();
    let places = places.map(ToString::to_string);
    ConfigError::DuplicateBackend { id: first.id, places }
}

/// Hardware threads of the machine, or the number that this process may use.
pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(2, usize::from)
}
