use std::{
    env, fs, io,
    panic::resume_unwind,
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant, SystemTime},
};

use serde::Serialize;
use tracing::{debug, warn};

use crate::{
    Backend, Cache, ConfigError, Device, EncoderType, OpenError, OpenRequest, Policy, ProbeResult,
    Refusal, RefusalKind, Settings, Task, Waited, Waiter,
    backend::cores,
    cache::ProbeResults,
    probe::{REPORT, panicked},
    ranked,
};

/// A backend with its probe result.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Detected {
    /// The backend.
    pub encoder: EncoderType,
    /// Whether it needs a device.
    pub hardware: bool,
    /// The device; `None` if the device check refused.
    #[serde(flatten)]
    pub device: Option<Device>,
    /// The result of the probe, or of the device check if that refused.
    #[serde(flatten)]
    pub result: ProbeResult,
    /// How long device check and probe took, in milliseconds.
    pub probe_ms: u64,
    /// Age in seconds of a result from the cache; `None` if the probe was made now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached_s: Option<u64>,
}

impl Detected {
    /// A result from elsewhere than [`Detection`], as input for [`plan`](crate::plan).
    pub fn new(encoder: EncoderType, hardware: bool, result: ProbeResult) -> Self {
        Self { encoder, hardware, device: None, result, probe_ms: 0, cached_s: None }
    }

    /// Sets the device.
    #[must_use]
    pub fn with_device(mut self, device: Device) -> Self {
        self.device = Some(device);
        self
    }
}

/// Finds out which of the compiled-in backends work on this machine, in stages: the device check of
/// each, then a real encode with the user's own options, unless its result is in the cache.
#[derive(Clone, Debug)]
pub struct Detection<'a> {
    settings: &'a Settings,
    only: Option<&'a str>,
    cache: Option<Cache>,
    reprobe: bool,
    /// Stopped when the result is no longer needed.
    waiter: Waiter,
}

impl<'a> Detection<'a> {
    /// Detects every backend, without a cache.
    pub fn new(settings: &'a Settings) -> Self {
        Self { settings, only: None, cache: None, reprobe: false, waiter: Waiter::new() }
    }

    /// Leaves out backends that `policy` excludes: if it requires an encoder, all other backends.
    #[must_use]
    pub fn for_policy(mut self, policy: &'a Policy) -> Self {
        self.only = policy.require.as_deref();
        self
    }

    /// Takes probe results from `cache` if they are still valid, and stores new results there.
    #[must_use]
    pub fn cache(mut self, cache: Option<Cache>) -> Self {
        self.cache = cache;
        self
    }

    /// Probes every backend again, also if its result is in the cache; stores the new results.
    #[must_use]
    pub fn reprobe(mut self, reprobe: bool) -> Self {
        self.reprobe = reprobe;
        self
    }

    /// The probe results, in rank order. All backends are probed at the same time.
    ///
    /// Blocks for as long as the slowest probe, which is at most about [`probe_timeout_s`], and for
    /// milliseconds when the cache has all results.
    ///
    /// # Errors
    /// [`ConfigError`] if the settings are wrong or name a device that does not exist, if two
    /// backends have one name, and if the system starts no thread.
    ///
    /// [`probe_timeout_s`]: crate::GpuEncoderConfig::probe_timeout_s
    pub fn run(&self) -> Result<Vec<Detected>, ConfigError> {
        self.settings.check()?;
        let mut all = ranked(self.settings);
        // `plan` refuses an unknown name, and lists the known ones.
        if self.only.is_some_and(|name| all.iter().any(|b| b.id.as_str() == name)) {
            all.retain(|backend| Some(backend.id.as_str()) == self.only);
        }
        let mut settings = self.settings.clone();
        // A probe compares pictures, so it has its own size and quality.
        settings.encoder.resolution = None;
        settings.encoder.rate_control = settings.encoder.rate_control.of_probe();
        self.among(&all, &settings)
    }

    /// As [`run`](Self::run), on a thread of its own: for a task of any executor.
    ///
    /// Dropping the future stops the detection: probes that run end, no result is stored in the
    /// cache, and the drop does not wait.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_async(&self) -> Result<Vec<Detected>, ConfigError> {
        let (settings, only) = (self.settings.clone(), self.only.map(str::to_owned));
        let (cache, reprobe, waiter) = (self.cache.clone(), self.reprobe, self.waiter.child());
        let stop = waiter.clone();
        let detect = move || {
            let (settings, only) = (&settings, only.as_deref());
            Detection { settings, only, cache, reprobe, waiter }.run()
        };
        let task = Task::spawn("detect", stop, detect).map_err(no_thread)?;
        task.await.unwrap_or_else(|panic| resume_unwind(panic))
    }

    fn among(
        &self,
        backends: &[&'static Backend],
        settings: &Settings,
    ) -> Result<Vec<Detected>, ConfigError> {
        let known = self.cache.as_ref().map(|cache| cache.load(SystemTime::now()));
        let common_identity = common_identity();
        let answers: Vec<_> = thread::scope(|scope| {
            let running: Result<Vec<_>, ConfigError> = backends
                .iter()
                .map(|&backend| {
                    let known = known.as_ref().filter(|_| !self.reprobe);
                    let common_identity = &common_identity;
                    let thread = thread::Builder::new().name(format!("detect-{}", backend.id));
                    let thread = thread.spawn_scoped(scope, move || {
                        let begun = Instant::now();
                        let request = OpenRequest::new(settings, backend.id, cores());
                        let request = OpenRequest { waiter: Some(&self.waiter), ..request };
                        (examine(backend, &request, common_identity, known), begun.elapsed())
                    });
                    Ok((backend, thread.map_err(no_thread)?))
                })
                .collect();
            let join = |(backend, thread): (_, ScopedJoinHandle<'_, _>)| (backend, thread.join());
            running.map(|running| running.into_iter().map(join).collect())
        })?;
        let mut found = Vec::with_capacity(answers.len());
        let mut kept = known;
        for (backend, answer) in answers {
            let (examined, elapsed) = match answer {
                Ok((examined, elapsed)) => (examined?, elapsed),
                Err(_) => (Examined::refused(panicked(backend.id)), Duration::ZERO),
            };
            let Examined { mut device, mut result, cached, driver } = examined;
            if let Some(all) = &mut kept {
                match (&device, &result) {
                    (None, ProbeResult::Refused(refusal)) if cached.is_none() => {
                        match refusal.kind {
                            RefusalKind::Timeout => all.keep_hang(backend.id, &driver, refusal),
                            _ => all.forget_hang(backend.id, &driver),
                        }
                    }
                    (Some(device), result) => {
                        all.forget_hang(backend.id, &driver);
                        if cached.is_none() {
                            all.keep(backend.id, &device.identity, result);
                        }
                    }
                    _ => {}
                }
            }
            // The probe may have chosen another device than the first.
            if let (Some(device), ProbeResult::Usable(caps)) = (&mut device, &mut result)
                && let Some(chosen) = caps.device.take()
            {
                (device.name, device.driver) = (chosen.name, chosen.driver);
            }
            found.push(Detected {
                encoder: backend.id,
                hardware: backend.hardware,
                device,
                result,
                probe_ms: elapsed.as_millis() as u64,
                cached_s: cached.map(|age| age.as_secs()),
            });
        }
        if let (Some(cache), Some(all)) = (&self.cache, kept)
            && self.waiter.state() != Waited::Stopped
            && let Err(error) = cache.save(all)
        {
            debug!("the cache of results cannot be written: {error}");
        }
        Ok(found)
    }
}

fn examine(
    backend: &Backend,
    request: &OpenRequest<'_>,
    common_identity: &[String],
    known: Option<&ProbeResults>,
) -> Result<Examined, ConfigError> {
    if let Some(refusal) = backend.misfit(request) {
        return Ok(Examined::refused(refusal));
    }
    let mut driver = vec!["driver".to_owned()];
    driver.extend(backend.identify_driver());
    driver.extend_from_slice(common_identity);
    if let Some(kept) = known.and_then(|all| all.find(backend.id, &driver)) {
        let result = match kept.result {
            ProbeResult::Refused(refusal) => {
                let age = kept.age.as_secs();
                let reason = format!("{} (checked {age} s ago)", refusal.reason);
                ProbeResult::Refused(refusal.with_reason(reason))
            }
            usable => usable,
        };
        return Ok(Examined { cached: Some(kept.age), driver, ..Examined::of(result) });
    }
    let mut device = match backend.find_device(request) {
        Ok(device) => device,
        Err(OpenError::Config(error)) => return Err(error),
        Err(OpenError::Refused(refusal)) => {
            return Ok(Examined { driver, ..Examined::refused(refusal) });
        }
        Err(other) => {
            let reason = other.to_string();
            let refusal = Refusal::new(backend.id, RefusalKind::Failed, reason, REPORT);
            return Ok(Examined::refused(refusal));
        }
    };
    device.identity.extend_from_slice(common_identity);
    if let Some(kept) = known.and_then(|all| all.find(backend.id, &device.identity)) {
        let cached = Some(kept.age);
        return Ok(Examined { device: Some(device), cached, driver, ..Examined::of(kept.result) });
    }
    let result = probe(backend, request);
    Ok(Examined { device: Some(device), driver, ..Examined::of(result) })
}

struct Examined {
    device: Option<Device>,
    result: ProbeResult,
    cached: Option<Duration>,
    /// The key under which it is stored that the driver does not answer.
    driver: Vec<String>,
}

impl Examined {
    fn of(result: ProbeResult) -> Self {
        Self { device: None, result, cached: None, driver: Vec::new() }
    }

    fn refused(refusal: Refusal) -> Self {
        Self::of(ProbeResult::Refused(refusal))
    }
}

/// Probes a backend, and retries once if its device is busy: right after the start of the machine,
/// or while another program starts or ends, a working device may refuse.
fn probe(backend: &Backend, request: &OpenRequest<'_>) -> ProbeResult {
    const PAUSE: Duration = Duration::from_millis(200);
    let deadline = Duration::from_secs(request.gpu.probe_timeout_s.into());
    let begun = Instant::now();
    let result = backend.run_probe(request, deadline);
    let ProbeResult::Refused(refusal) = &result else { return result };
    let left = deadline.saturating_sub(begun.elapsed() + PAUSE);
    if !refusal.is_busy() || left.is_zero() {
        return result;
    }
    match request.waiter {
        Some(waiter) if waiter.wait(PAUSE) == Waited::Stopped => return result,
        Some(_) => {}
        None => thread::sleep(PAUSE),
    }
    backend.run_probe(request, left)
}

fn no_thread(error: io::Error) -> ConfigError {
    ConfigError::Thread(error.to_string())
}

/// The part of the identity that all backends share: this program, the boot of the machine, and the
/// environment variables that select libraries and devices.
fn common_identity() -> Vec<String> {
    const VARIABLES: [&str; 10] = [
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
        "CUDA_VISIBLE_DEVICES",
        "NVIDIA_VISIBLE_DEVICES",
        "NVIDIA_DRIVER_CAPABILITIES",
        "LIBVA_DRIVER_NAME",
        "LIBVA_DRIVERS_PATH",
        "ONEVPL_SEARCH_PATH",
        "ONEVPL_PRIORITY_PATH",
        "DYLD_LIBRARY_PATH",
    ];
    let program = env::current_exe()
        .and_then(|path| file_identity(&path))
        .unwrap_or_else(|_| env!("CARGO_PKG_VERSION").into());
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let variables = VARIABLES
        .iter()
        .filter_map(|name| Some(format!("{name}={}", env::var_os(name)?.display())));
    [program, boot.trim().to_owned()].into_iter().chain(variables).collect()
}

/// A file as part of [`Device::identity`]: path, size and time of the last change.
///
/// # Errors
/// When the metadata of the file cannot be read.
pub fn file_identity(path: &std::path::Path) -> io::Result<String> {
    let meta = fs::metadata(path)?;
    let changed = meta.modified()?.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Ok(format!("{} {} {}", path.display(), meta.len(), changed.as_nanos()))
}

/// The backends that work on this machine with the default settings, in rank order, by a new probe
/// of each. [`Detection`] also returns why the others do not work. Empty, with a `WARN`, if two
/// backends have one name.
pub fn detect_available_encoders() -> Vec<EncoderType> {
    let found = Detection::new(&Settings::default()).run();
    let found = found.inspect_err(|error| warn!("no encoder is detected: {error}"));
    let found = found.unwrap_or_default();
    found.into_iter().filter(|d| d.result.is_usable()).map(|d| d.encoder).collect()
}
