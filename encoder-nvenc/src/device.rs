//! Decides from the facts of this machine whether an encoder may work, and on which GPUs. Pure
//! functions: [`crate::gather`] reads the facts.

use std::collections::BTreeMap;

use encoder_core::{ConfigError, OpenError, Refusal, RefusalKind};

use crate::{
    facts::{Access, Api, Candidate, Driver, Facts, Found, Gpu, Node, Nvml, Smi},
    library,
    messages::{lacks_encoder, no_encoder, refuse, update},
};

/// The API that introduced the presets `p1` to `p7`: with an older driver no FFmpeg can use them.
const OLDEST_API: Api = Api(10, 0);

const INSTALL: &str = "install the NVIDIA driver; in a container run with --gpus all (NVIDIA \
                       Container Toolkit) and NVIDIA_DRIVER_CAPABILITIES=video,compute,utility; \
                       or use another encoder";
const RESTART: &str = "restart the machine after a driver update; in a container restart the \
                       container, so that it gets the libraries of the host's driver";
const LOAD: &str = "load the driver (sudo modprobe nvidia) and look at the system log (dmesg) for \
                    why it did not load; after an update of the kernel install the driver again";
const ACCESS: &str = "give this user access to the device (its group, often video; or the mode \
                      0666, which is the driver's default); in a container pass --gpus all";

const LOST: &str = "start the container again; a `systemctl daemon-reload` on the host takes the \
                    devices away from running containers, unless they are given by name (--device \
                    /dev/nvidia0 --device /dev/nvidiactl --device /dev/nvidia-uvm, or CDI), or \
                    the container engine uses the cgroup driver cgroupfs";
const GROUP: &str = "allow the device to the service (systemd: DeviceAllow=char-nvidia* rw, or \
                     PrivateDevices=no), or run this program outside of it";

/// The GPUs that an encoder may work on: all, or the GPU `wanted`.
///
/// # Errors
/// [`OpenError::Refused`] if no encoder can work; [`OpenError::Config`] if there are GPUs and
/// `wanted` is none of them.
pub(crate) fn check(facts: &Facts, wanted: Option<u32>) -> Result<Found, OpenError> {
    if facts.system == "macos" {
        let reason = "NVENC does not exist on macOS";
        return Err(refuse(RefusalKind::NoDevice, reason, "use another encoder").absent().into());
    }
    check_nodes(facts)?;
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
    let versions: Vec<_> = version
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
        identity: versions.iter().cloned().chain(identity).collect(),
        driver: (!versions.is_empty()).then(|| versions.join(", ")),
        gpus: candidates,
        is_jetson: facts.is_jetson,
        has_driver: facts.cuda.is_ok() && facts.encode.is_ok(),
    })
}

/// Checks that this user may open the nodes that every GPU needs, and at least one node of a GPU.
fn check_nodes(facts: &Facts) -> Result<(), Refusal> {
    let is_closed = |node: &&Node| node.access != Access::Allowed;
    let is_gpu = |node: &&Node| {
        node.path.strip_prefix("/dev/nvidia").is_some_and(|n| n.parse::<u32>().is_ok())
    };
    let (gpus, control): (Vec<&Node>, Vec<&Node>) = facts.nodes.iter().partition(is_gpu);
    let closed = gpus.first().filter(|_| gpus.iter().all(is_closed));
    match control.iter().find(|node| is_closed(node)).or(closed) {
        Some(node) if node.access == Access::Blocked => Err(blocked(facts, &node.path)),
        Some(node) => Err(refuse(
            RefusalKind::Permission,
            format!("this user may not open {}", node.path),
            ACCESS,
        )),
        None => Ok(()),
    }
}

/// The refusal of a process whose control group may not use a device.
fn blocked(facts: &Facts, what: &str) -> Refusal {
    let (whose, hint) = match facts.is_container() {
        true => ("this container has no access, or has lost it", LOST),
        false => ("the control group of this process has no access", GROUP),
    };
    refuse(RefusalKind::Permission, format!("{whose}: {what}"), hint)
}

/// The driver that NVML reports; `None` if NVML is absent and an encoder may work without it.
fn check_nvml(facts: &Facts) -> Result<Option<&Driver>, Refusal> {
    let failure = match &facts.nvml {
        Ok(driver) if driver.gpus.is_empty() => {
            let (reason, hint) = match facts.is_container() {
                true => (
                    "there is no NVIDIA GPU: the driver shows none to this container",
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
    let mismatch = |details: &str| {
        let reason = format!("the NVIDIA driver's parts are of different versions{details}");
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
        Nvml::Blocked => blocked(facts, "the NVIDIA driver (Operating System Error)"),
        Nvml::Unknown if facts.is_container() => {
            blocked(facts, "the NVIDIA driver (Failed to initialize NVML: Unknown Error)")
        }
        Nvml::Unknown => refuse(
            RefusalKind::Failed,
            "the NVIDIA driver reports an unknown error",
            "look at the system log (dmesg) for messages with NVRM or Xid; load the driver again, \
             or restart the machine",
        ),
        Nvml::Lost(error) => refuse(
            RefusalKind::Failed,
            format!("the GPU is lost: {error}"),
            "restart the machine, and check the system log (dmesg), power and cooling",
        ),
        Nvml::Other(error) => refuse(
            RefusalKind::Failed,
            format!("the NVIDIA driver reports an error: {error}"),
            "check that nvidia-smi works",
        ),
        Nvml::Absent(error) => match &facts.smi {
            Some(Smi::Fails(smi)) if smi.contains("mismatch") => {
                mismatch(&format!("; nvidia-smi reports: {smi}"))
            }
            Some(Smi::Fails(smi)) if smi.contains("communicate") => {
                let reason = format!("the NVIDIA driver is not loaded; nvidia-smi reports: {smi}");
                refuse(RefusalKind::Missing, reason, LOAD)
            }
            None if facts.nodes.is_empty() && facts.cuda.is_err() && facts.is_jetson => {
                library::jetson(error)
            }
            None if facts.nodes.is_empty() && facts.cuda.is_err() => refuse(
                RefusalKind::NoDevice,
                format!(
                    "there is no NVIDIA device: no node in /dev, no nvidia-smi, no CUDA library \
                     ({error})"
                ),
                INSTALL,
            )
            .absent(),
            _ => return Ok(None),
        },
    })
}

fn check_libraries(facts: &Facts) -> Result<(), Refusal> {
    let host = "install the whole NVIDIA driver on the host, and start the container again";
    let smi = match &facts.smi {
        Some(Smi::Fails(error)) => format!("; nvidia-smi reports: {error}"),
        Some(Smi::Hangs) => "; nvidia-smi does not answer".into(),
        Some(Smi::Works) | None => String::new(),
    };
    // The runtime's default for a container.
    let capabilities = facts.capabilities.as_deref().unwrap_or("utility,compute");
    let has = |part: &str| capabilities.split(',').any(|c| c.trim() == part || c.trim() == "all");
    let container = facts.is_container();
    let hint = |part: &str, package: &str| match container {
        true if has(part) => host.to_owned(),
        true => "set NVIDIA_DRIVER_CAPABILITIES=video,compute,utility (or all) for the container"
            .to_owned(),
        false => format!("install the driver's {package}"),
    };
    if facts.cuda.as_ref().err().is_some_and(|error| library::is_static(error)) {
        return Ok(());
    }
    let broken = |part: &str, error: &str| library::broken(facts, part, error).map_or(Ok(()), Err);
    if let Err(error) = &facts.cuda {
        broken("the CUDA part of the NVIDIA driver", error)?;
        let reason = format!("the CUDA part of the NVIDIA driver is missing: {error}{smi}");
        let hint = hint("compute", "compute libraries (package libcuda1 or libnvidia-compute)");
        return Err(refuse(RefusalKind::Missing, reason, hint));
    }
    match &facts.encode {
        Err(error) => {
            broken("the driver's encode library", error)?;
            let reason = format!("the driver's encode library is missing: {error}{smi}");
            let hint = hint(
                "video",
                "encode library (package libnvidia-encode1 or libnvidia-encode, of the driver's \
                 version)",
            );
            Err(refuse(RefusalKind::Missing, reason, hint))
        }
        Ok(Some(api)) if *api < OLDEST_API => Err(refuse(
            RefusalKind::DriverTooOld,
            format!(
                "the NVIDIA driver is too old: it has the NVENC API {}.{}, and the presets p1 to p7 \
                 need 10.0",
                api.0, api.1
            ),
            update(OLDEST_API),
        )),
        Ok(_) => Ok(()),
    }
}

/// The GPUs that CUDA shows, in its order: all, or the GPU `wanted`.
fn candidates(
    facts: &Facts,
    driver: &Driver,
    wanted: Option<u32>,
) -> Result<Vec<Candidate>, OpenError> {
    let visible = visible(&driver.gpus, facts.visible.as_deref(), facts.pci_order);
    // The set of GPUs is known even if CUDA's order is not.
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
            let place = match facts.visible {
                Some(_) => "CUDA_VISIBLE_DEVICES shows",
                None => "this machine has",
            };
            let s = if count == 1 { "" } else { "s" };
            let allowed = format!("{range}: {place} {count} GPU{s}");
            return Err(ConfigError::value("backend.nvenc.gpu", wanted, allowed).into());
        }
    }
    Ok(all)
}

/// The GPUs in CUDA's order; `None` for an index whose GPU is not known.
///
/// CUDA puts the fastest GPU first, unless `CUDA_DEVICE_ORDER` selects the order of NVML. If all
/// GPUs are of one model, both orders are equal. CUDA reads a list up to its first invalid entry.
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

/// One name for all candidates.
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
