//! From what was found on this machine to a probe result. Pure functions: the facts come from
//! [`crate::gather`].

use std::collections::BTreeMap;

use encoder_core::{ConfigError, OpenError, Refusal, RefusalKind};

use crate::messages::{lacks_encoder, no_encoder, refuse, update};

/// What was found.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// `linux`, `windows`, `macos` …
    pub(crate) system: &'static str,
    /// What NVML, the library of `nvidia-smi`, says.
    pub(crate) nvml: Result<Driver, Nvml>,
    /// Device nodes.
    pub(crate) nodes: Vec<Node>,
    /// What `nvidia-smi` says; asked only where NVML does not load.
    pub(crate) smi: Option<Smi>,
    /// Whether the CUDA library loads, or the loader's words.
    pub(crate) cuda: Result<(), String>,
    /// Whether the encode library loads, with the newest API that it knows.
    pub(crate) encode: Result<Option<Api>, String>,
    /// Whether this is a container.
    pub(crate) container: bool,
    /// `NVIDIA_DRIVER_CAPABILITIES`.
    pub(crate) capabilities: Option<String>,
    /// `CUDA_VISIBLE_DEVICES`.
    pub(crate) visible: Option<String>,
    /// Whether CUDA counts GPUs as NVML does: `CUDA_DEVICE_ORDER=PCI_BUS_ID`.
    pub(crate) pci_order: bool,
}

/// What NVML knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Driver {
    /// Its version.
    pub(crate) version: Option<String>,
    /// In the order of the bus.
    pub(crate) gpus: Vec<Gpu>,
}

/// A GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gpu {
    /// `NVIDIA L4`.
    pub(crate) name: String,
    /// `GPU-5c6f…`.
    pub(crate) uuid: Option<String>,
    /// Whether NVML reports the use of an encoder for it. `false` alone probes nothing.
    pub(crate) encoder: bool,
}

/// Why NVML says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Nvml {
    /// The library does not load: the loader's words.
    Absent(String),
    /// The kernel module is not there.
    DriverNotLoaded,
    /// Kernel module and library are of different versions.
    Mismatch,
    /// This user may not ask, or the control group of this process.
    Permission,
    /// A GPU that fell off the bus or needs a reset.
    Lost(String),
    /// Anything else.
    Other(String),
}

/// A device node that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// `/dev/nvidia0`.
    pub(crate) path: String,
    /// Whether this user may not open it.
    pub(crate) denied: bool,
}

/// How `nvidia-smi` answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Smi {
    /// Well.
    Works,
    /// With an error: its words.
    Fails(String),
    /// Not in time.
    Hangs,
}

/// A version of the NVENC API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Api(pub(crate) u32, pub(crate) u32);

/// The presets `p1` to `p7` came with this API: an older driver cannot take them, whatever FFmpeg.
const OLDEST_API: Api = Api(10, 0);

/// A device that may work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// `NVIDIA L4 (GPU 0)`, `2 × NVIDIA L4`.
    pub(crate) name: String,
    /// `driver 570.86.15, NVENC API 13.0`.
    pub(crate) driver: Option<String>,
    /// What a probe depends on.
    pub(crate) identity: Vec<String>,
    /// The GPUs that the encoder may be opened on.
    pub(crate) gpus: Vec<Candidate>,
}

/// A GPU that an encoder may be opened on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// As CUDA counts.
    pub(crate) index: u32,
    /// What tells it from others in every program: its UUID, else its index.
    pub(crate) key: String,
    /// Its name.
    pub(crate) name: Option<String>,
    /// Whether it is known which GPU the index means.
    pub(crate) known: bool,
    /// Whether it has no encoder for certain.
    pub(crate) bare: bool,
}

const INSTALL: &str = "install the NVIDIA driver; in a container run with --gpus all (NVIDIA \
                       Container Toolkit) and NVIDIA_DRIVER_CAPABILITIES=video,compute,utility; \
                       or use another encoder";
const RESTART: &str = "restart the machine after a driver update; in a container restart the \
                       container, so that it gets the libraries of the host's driver";
const LOAD: &str = "load the driver (sudo modprobe nvidia) and look at the system log (dmesg) for \
                    why it did not load; after an update of the kernel install the driver again";
const ACCESS: &str = "give this user access to the device (its group, often video; or the mode \
                      0666, which is the driver's default); in a container pass --gpus all";

/// Whether an encoder can be expected here, on the GPU `wanted` or on any.
///
/// # Errors
/// [`OpenError::Refused`] where it is certain that it cannot work; [`OpenError::Config`] when
/// there are GPUs and `wanted` is none of them.
pub(crate) fn check(facts: &Facts, wanted: Option<u32>) -> Result<Found, OpenError> {
    if facts.system == "macos" {
        let reason = "NVENC does not exist on macOS";
        return Err(refuse(RefusalKind::NoDevice, reason, "use videotoolbox").into());
    }
    check_nodes(&facts.nodes)?;
    let driver = check_nvml(facts)?;
    let candidates = match driver {
        Some(driver) => candidates(facts, driver, wanted)?,
        None => Vec::new(),
    };
    check_libraries(facts)?;
    if !candidates.is_empty() && candidates.iter().all(|gpu| gpu.bare) {
        return Err(no_encoder(&name_of(&candidates, wanted)).into());
    }
    let version = driver.and_then(|driver| driver.version.as_deref());
    let api = facts.encode.as_ref().ok().copied().flatten();
    let told: Vec<_> = version
        .map(|version| format!("driver {version}"))
        .into_iter()
        .chain(api.map(|Api(major, minor)| format!("NVENC API {major}.{minor}")))
        .collect();
    let gpus = driver.map_or(&[][..], |driver| &driver.gpus);
    let identity = gpus.iter().map(|gpu| {
        format!("{} {} {}", gpu.name, gpu.uuid.as_deref().unwrap_or_default(), gpu.encoder)
    });
    Ok(Found {
        name: name_of(&candidates, wanted),
        identity: told.iter().cloned().chain(identity).collect(),
        driver: (!told.is_empty()).then(|| told.join(", ")),
        gpus: candidates,
    })
}

/// The nodes that everything goes through must open; of the GPUs' own nodes one is enough.
fn check_nodes(nodes: &[Node]) -> Result<(), Refusal> {
    let is_gpu = |node: &&Node| {
        node.path.strip_prefix("/dev/nvidia").is_some_and(|n| n.parse::<u32>().is_ok())
    };
    let (gpus, control): (Vec<&Node>, Vec<&Node>) = nodes.iter().partition(is_gpu);
    let closed = gpus.first().filter(|_| gpus.iter().all(|node| node.denied));
    match control.iter().find(|node| node.denied).or(closed) {
        Some(node) => Err(refuse(
            RefusalKind::Permission,
            format!("this user may not open {}", node.path),
            ACCESS,
        )),
        None => Ok(()),
    }
}

/// What NVML knows; `None` where it is absent and yet something may work.
fn check_nvml(facts: &Facts) -> Result<Option<&Driver>, Refusal> {
    let failure = match &facts.nvml {
        Ok(driver) if driver.gpus.is_empty() => {
            let (reason, hint) = match facts.container {
                true => (
                    "there is no NVIDIA GPU: the driver shows this container none",
                    "run the container with --gpus all, or with NVIDIA_VISIBLE_DEVICES=all under \
                     the runtime nvidia",
                ),
                false => (
                    "there is no NVIDIA GPU: the driver finds none",
                    "check that the GPU is seated and enabled (lspci) and that the driver \
                     supports it (dmesg); or use another encoder",
                ),
            };
            return Err(refuse(RefusalKind::NoDevice, reason, hint));
        }
        Ok(driver) => return Ok(Some(driver)),
        Err(failure) => failure,
    };
    let mismatch = |words: &str| {
        let reason = format!("the NVIDIA driver's parts are of different versions{words}");
        refuse(RefusalKind::Failed, reason, RESTART)
    };
    Err(match failure {
        Nvml::DriverNotLoaded => {
            refuse(RefusalKind::Missing, "the NVIDIA driver is not loaded", LOAD)
        }
        Nvml::Mismatch => mismatch(" (Driver/library version mismatch)"),
        Nvml::Permission => {
            refuse(RefusalKind::Permission, "this user may not use the NVIDIA driver", ACCESS)
        }
        Nvml::Lost(words) => refuse(
            RefusalKind::Failed,
            format!("the GPU is lost: {words}"),
            "restart the machine, and check the system log (dmesg), power and cooling",
        ),
        Nvml::Other(words) => refuse(
            RefusalKind::Failed,
            format!("the NVIDIA driver does not answer well: {words}"),
            "check that nvidia-smi works",
        ),
        Nvml::Absent(words) => match &facts.smi {
            Some(Smi::Fails(smi)) if smi.contains("mismatch") => {
                mismatch(&format!("; nvidia-smi says: {smi}"))
            }
            Some(Smi::Fails(smi)) if smi.contains("communicate") => {
                let reason = format!("the NVIDIA driver is not loaded; nvidia-smi says: {smi}");
                refuse(RefusalKind::Missing, reason, LOAD)
            }
            None if facts.nodes.is_empty() && facts.cuda.is_err() => refuse(
                RefusalKind::NoDevice,
                format!(
                    "there is no NVIDIA device: no node in /dev, no nvidia-smi, no CUDA library \
                     ({words})"
                ),
                INSTALL,
            ),
            _ => return Ok(None),
        },
    })
}

fn check_libraries(facts: &Facts) -> Result<(), Refusal> {
    let host = "install the whole NVIDIA driver on the host, and start the container again";
    let smi = match &facts.smi {
        Some(Smi::Fails(words)) => format!("; nvidia-smi says: {words}"),
        Some(Smi::Hangs) => "; nvidia-smi does not answer".into(),
        Some(Smi::Works) | None => String::new(),
    };
    // What a container is given when nothing is said.
    let given = facts.capabilities.as_deref().unwrap_or("utility,compute");
    let has = |part: &str| given.split(',').any(|c| c.trim() == part || c.trim() == "all");
    let container = facts.container || facts.capabilities.is_some();
    let hint = |part: &str, package: &str| match container {
        true if has(part) => host.to_owned(),
        true => "set NVIDIA_DRIVER_CAPABILITIES=video,compute,utility (or all) for the container"
            .to_owned(),
        false => format!("install the driver's {package}"),
    };
    if let Err(words) = &facts.cuda {
        let reason = format!("the CUDA part of the NVIDIA driver is missing: {words}{smi}");
        let hint = hint("compute", "compute libraries (package libcuda1 or libnvidia-compute)");
        return Err(refuse(RefusalKind::Missing, reason, hint));
    }
    match &facts.encode {
        Err(words) => {
            let reason = format!("the driver's encode library is missing: {words}{smi}");
            let hint = hint(
                "video",
                "encode library (package libnvidia-encode1 or \
                                      libnvidia-encode, of the driver's version)",
            );
            Err(refuse(RefusalKind::Missing, reason, hint))
        }
        Ok(Some(api)) if *api < OLDEST_API => Err(refuse(
            RefusalKind::DriverTooOld,
            format!(
                "the NVIDIA driver is too old: it knows the NVENC API {}.{}, and the presets p1 to p7 \
                 need 10.0",
                api.0, api.1
            ),
            update(OLDEST_API),
        )),
        Ok(_) => Ok(()),
    }
}

/// The GPUs that CUDA shows, in its order: all, or the one that is wanted.
fn candidates(
    facts: &Facts,
    driver: &Driver,
    wanted: Option<u32>,
) -> Result<Vec<Candidate>, OpenError> {
    let visible = visible(&driver.gpus, facts.visible.as_deref(), facts.pci_order);
    // All of them together are known, in whatever order CUDA counts them.
    let whole = facts.visible.is_none() && wanted.is_none();
    let candidate = |(index, (known, gpu)): (u32, (bool, Option<&Gpu>))| Candidate {
        index,
        key: gpu
            .filter(|_| known)
            .and_then(|gpu| gpu.uuid.clone())
            .unwrap_or_else(|| format!("gpu{index}")),
        name: gpu.map(|gpu| gpu.name.clone()),
        known,
        bare: gpu.is_some_and(|gpu| !gpu.encoder && lacks_encoder(&gpu.name)),
    };
    let named = driver.gpus.iter().map(|gpu| Some(gpu).filter(|_| whole));
    let named = named.chain(std::iter::repeat(None));
    let visible = visible.into_iter().zip(named).map(|(gpu, any)| (gpu.is_some(), gpu.or(any)));
    let mut all: Vec<_> = (0..).zip(visible).map(candidate).collect();
    if all.is_empty() {
        let value = facts.visible.as_deref().unwrap_or_default();
        return Err(refuse(
            RefusalKind::NoDevice,
            format!("CUDA_VISIBLE_DEVICES=\"{value}\" hides every GPU"),
            "unset it, or set it to the GPUs that this program may use",
        )
        .into());
    }
    if let Some(wanted) = wanted {
        let count = all.len();
        all.retain(|gpu| gpu.index == wanted);
        if all.is_empty() {
            let range = if count == 1 { "0".into() } else { format!("0 to {}", count - 1) };
            let who = match facts.visible {
                Some(_) => "CUDA_VISIBLE_DEVICES shows",
                None => "this machine has",
            };
            let s = if count == 1 { "" } else { "s" };
            let allowed = format!("{range}: {who} {count} GPU{s}");
            return Err(ConfigError::value("backend.nvenc.gpu", wanted, allowed).into());
        }
    }
    Ok(all)
}

/// The GPUs as CUDA counts them; `None` for one that is there without being known which it is.
///
/// CUDA puts the fastest first unless it is told to count like NVML; where all are alike, both
/// count alike. A list counts up to its first invalid entry.
fn visible<'a>(gpus: &'a [Gpu], list: Option<&str>, pci_order: bool) -> Vec<Option<&'a Gpu>> {
    let alike = gpus.iter().all(|gpu| Some(&gpu.name) == gpus.first().map(|first| &first.name));
    let known = |gpu| Some(gpu).filter(|_| alike || pci_order);
    let Some(list) = list else { return gpus.iter().map(known).collect() };
    let entry = |text: &str| -> Option<Option<&'a Gpu>> {
        if let Ok(index) = text.parse::<usize>() {
            return gpus.get(index).map(known);
        }
        if text.starts_with("MIG-") {
            return Some(None);
        }
        let named = |gpu: &&Gpu| gpu.uuid.as_deref().is_some_and(|uuid| uuid.starts_with(text));
        text.starts_with("GPU-").then(|| gpus.iter().find(named).map(Some)).flatten()
    };
    list.split(',').map(|text| entry(text.trim())).take_while(Option::is_some).flatten().collect()
}

/// What the candidates are called together.
fn name_of(candidates: &[Candidate], wanted: Option<u32>) -> String {
    match candidates {
        [] => wanted.map_or("NVIDIA GPU".into(), |index| format!("NVIDIA GPU {index}")),
        [one] => match &one.name {
            Some(name) => format!("{name} (GPU {})", one.index),
            None => format!("NVIDIA GPU {}", one.index),
        },
        several => {
            let mut counts = BTreeMap::<&str, usize>::new();
            for gpu in several {
                *counts.entry(gpu.name.as_deref().unwrap_or("NVIDIA GPU")).or_default() += 1;
            }
            let part = |(name, count): (&str, usize)| match count {
                1 => name.to_owned(),
                _ => format!("{count} × {name}"),
            };
            counts.into_iter().map(part).collect::<Vec<_>>().join(", ")
        }
    }
}

#[cfg(test)]
#[path = "device_tests.rs"]
mod tests;
