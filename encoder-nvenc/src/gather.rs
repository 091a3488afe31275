//! Reads the facts of this machine, in the helper process. Starts no further process where NVML
//! loads.

use std::{
    env, fs,
    fs::OpenOptions,
    io,
    mem::ManuallyDrop,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use encoder_core::{HelperTask, Refusal, RefusalKind, file_identity, helper_step};
use encoder_ffmpeg::{
    helper::{Helper, NoAnswer},
    process::{Exit, Input, run},
};
use libloading::Library;
use nvml_wrapper::{
    Device, Nvml as NvmlLibrary, enum_wrappers::device::EncoderType as NvmlEncoder,
    error::NvmlError,
};

use crate::{
    facts::{Access, Api, Driver, Facts, Gpu, Node, Nvml, Smi},
    messages::refuse,
};

const NVML: &str = if cfg!(windows) { "nvml.dll" } else { "libnvidia-ml.so.1" };
const CUDA: &str = if cfg!(windows) { "nvcuda.dll" } else { "libcuda.so.1" };
const ENCODE: &str = if cfg!(windows) { "nvEncodeAPI64.dll" } else { "libnvidia-encode.so.1" };

/// How long `nvidia-smi` may take.
const SMI: Duration = Duration::from_secs(2);

/// Reads the facts. The request is empty, the answer is JSON.
static TASK: HelperTask =
    HelperTask::new("nvenc-facts", |_| serde_json::to_string(&gather()).unwrap_or_default());
encoder_core::inventory::submit! { TASK }

/// Reads the facts within `limit`. The driver is called in the helper process: it may hang, and its
/// libraries may crash.
///
/// # Errors
/// A [`Refusal`] when the driver does not answer in time, which is transient, or crashes.
pub(crate) fn facts(limit: Duration) -> Result<Facts, Refusal> {
    const REPORT: &str = "report it with the results of `Detection::run`";
    let failed = |reason: String, hint| refuse(RefusalKind::Failed, reason, hint);
    match Helper::new(&TASK).ask("", limit) {
        Ok(answer) => serde_json::from_str(&answer)
            .map_err(|error| failed(format!("the device check gave no facts: {error}"), REPORT)),
        Err(NoAnswer::Late { limit, step }) => {
            let step = if step.is_empty() { step } else { format!(" ({step})") };
            Err(refuse(
                RefusalKind::Timeout,
                format!("the NVIDIA driver gave no answer in {} s{step}", limit.as_secs_f32()),
                "check the system log (dmesg); a hung device needs a restart",
            )
            .transient())
        }
        Err(NoAnswer::Ended { exit, step }) => Err(failed(
            format!("the NVIDIA driver crashed the device check: {exit} ({step})"),
            "reinstall the NVIDIA driver, and look at the system log (dmesg); or use another encoder",
        )),
        Err(NoAnswer::Failed(reason)) => Err(failed(format!("the device check: {reason}"), REPORT)),
    }
}

/// What identifies the driver without a call into it: its version as the kernel reports it, its
/// nodes, and its libraries.
pub(crate) fn driver_identity() -> Vec<String> {
    let version = fs::read_to_string("/sys/module/nvidia/version").unwrap_or_default();
    let nodes = node_paths(Path::new("/dev"), false);
    let nodes = nodes.into_iter().map(|path| path.display().to_string());
    let listed = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = env::split_paths(&listed)
        .chain(encoder_ffmpeg::LIBRARY_FOLDERS.iter().map(PathBuf::from))
        .collect();
    let libraries = folders.iter().flat_map(|folder| {
        [NVML, CUDA, ENCODE].iter().filter_map(|name| file_identity(&folder.join(name)).ok())
    });
    [version.trim().to_owned()].into_iter().chain(nodes).chain(libraries).collect()
}

fn gather() -> Facts {
    helper_step(&format!("NVML, {NVML}"));
    let nvml = nvml();
    helper_step("nodes in /dev");
    // If NVML works, it has already opened the nodes of the GPUs.
    let nodes = nodes(Path::new("/dev"), nvml.is_ok());
    helper_step("nvidia-smi");
    let smi = matches!(nvml, Err(Nvml::Absent(_))).then(|| smi(list_gpus(), SMI)).flatten();
    let container = ["/.dockerenv", "/run/.containerenv"].iter().any(|f| Path::new(f).exists())
        || env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    let variable = |name: &str| env::var_os(name).map(|value| value.display().to_string());
    Facts {
        system: env::consts::OS.into(),
        nvml,
        nodes,
        smi,
        cuda: load(CUDA).map(|_| ()),
        encode: load(ENCODE).map(|library| api(&library)),
        container,
        is_jetson: is_jetson(Path::new("/")),
        has_wsl_driver: Path::new("/usr/lib/wsl/lib/libcuda.so.1").exists(),
        capabilities: variable("NVIDIA_DRIVER_CAPABILITIES"),
        visible: variable("CUDA_VISIBLE_DEVICES"),
        pci_order: variable("CUDA_DEVICE_ORDER").is_some_and(|order| order == "PCI_BUS_ID"),
    }
}

/// Whether the machine with this root is a Jetson: its system has a file of its own, and the device
/// tree, which a container also sees, names the chip.
fn is_jetson(root: &Path) -> bool {
    let compatible = fs::read(root.join("proc/device-tree/compatible")).unwrap_or_default();
    root.join("etc/nv_tegra_release").exists()
        || String::from_utf8_lossy(&compatible).contains("nvidia,tegra")
}

fn nvml() -> Result<Driver, Nvml> {
    // Never unloaded, as in `load`.
    let nvml = ManuallyDrop::new(NvmlLibrary::init().map_err(failure)?);
    let version = nvml.sys_driver_version().ok();
    let count = nvml.device_count().map_err(failure)?;
    let mut gpus: Vec<_> = (0..count).map(|index| nvml.device_by_index(index)).collect();
    // If only some GPUs do not answer, the probe decides.
    if !gpus.is_empty() && gpus.iter().all(Result::is_err) {
        gpus.remove(0).map_err(failure)?;
    }
    Ok(Driver { version, gpus: gpus.into_iter().map(gpu).collect() })
}

fn gpu(device: Result<Device<'_>, NvmlError>) -> Gpu {
    let device = device.as_ref().ok();
    Gpu {
        name: device
            .and_then(|device| device.name().ok())
            .unwrap_or_else(|| "NVIDIA GPU that does not answer".into()),
        uuid: device.and_then(|device| device.uuid().ok()),
        encoder: device.is_some_and(|device| {
            !matches!(device.encoder_capacity(NvmlEncoder::H264), Err(NvmlError::NotSupported))
        }),
    }
}

fn failure(error: NvmlError) -> Nvml {
    match error {
        NvmlError::LibloadingError(error) => Nvml::Absent(error.to_string()),
        NvmlError::DriverNotLoaded => Nvml::DriverNotLoaded,
        NvmlError::LibRmVersionMismatch => Nvml::Mismatch,
        NvmlError::NoPermission => Nvml::Permission,
        NvmlError::OperatingSystem => Nvml::Blocked,
        NvmlError::Unknown => Nvml::Unknown,
        NvmlError::GpuLost | NvmlError::ResetRequired => Nvml::Lost(error.to_string()),
        other => Nvml::Other(other.to_string()),
    }
}

/// The paths of the NVIDIA nodes in `folder`; with `leave_gpus`, without those of GPUs.
fn node_paths(folder: &Path, leave_gpus: bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let index = name.strip_prefix("nvidia").is_some_and(|n| n.parse::<u32>().is_ok());
            match &*name {
                "nvidiactl" | "nvidia-uvm" | "dxg" => true,
                _ => index && !leave_gpus,
            }
        })
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    paths
}

/// The NVIDIA nodes in `folder`; with `leave_gpus`, without those of GPUs, because opening one
/// wakes its GPU.
fn nodes(folder: &Path, leave_gpus: bool) -> Vec<Node> {
    node_paths(folder, leave_gpus)
        .into_iter()
        .map(|path| Node {
            access: access(OpenOptions::new().read(true).write(true).open(&path).err().as_ref()),
            path: path.display().to_string(),
        })
        .collect()
}

fn access(error: Option<&io::Error>) -> Access {
    /// The number of "Operation not permitted". The mode of a file gives "Permission denied".
    const EPERM: i32 = 1;
    match error {
        Some(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            match error.raw_os_error() {
                Some(EPERM) if cfg!(unix) => Access::Blocked,
                _ => Access::Denied,
            }
        }
        _ => Access::Allowed,
    }
}

/// Loads a library of the driver. It is never unloaded: that runs its finalisers, which may hang.
fn load(name: &str) -> Result<ManuallyDrop<Library>, String> {
    helper_step(&format!("loading {name}"));
    // SAFETY: loading runs the initialisers of the library. It is a part of NVIDIA's driver, made
    // to be loaded into any program at run time.
    let library = unsafe { Library::new(name) }.map_err(|error| error.to_string())?;
    Ok(ManuallyDrop::new(library))
}

/// The newest API that the encode library has.
fn api(library: &Library) -> Option<Api> {
    type MaxVersion = unsafe extern "system" fn(*mut u32) -> i32;
    let mut version = 0;
    // SAFETY: the symbol is documented with this signature; it writes one number and needs
    // nothing to be set up before.
    let status = unsafe {
        let ask = library.get::<MaxVersion>(b"NvEncodeAPIGetMaxSupportedVersion\0").ok()?;
        ask(&raw mut version)
    };
    (status == 0).then_some(Api(version >> 4, version & 0xf))
}

fn list_gpus() -> Command {
    let mut command = Command::new("nvidia-smi");
    command.arg("-L");
    command
}

/// The result of `nvidia-smi`; `None` if it is not installed.
fn smi(command: Command, limit: Duration) -> Option<Smi> {
    let output = run(command, Input::Empty, limit).ok()?;
    Some(match output.exit {
        Exit::Code(0) => Smi::Works,
        Exit::TimedOut(_) => Smi::Hangs,
        exit => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned() + &output.stderr;
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            Smi::Fails(if text.is_empty() { exit.to_string() } else { text })
        }
    })
}

#[cfg(all(test, unix))]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn device_nodes() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["nvidia0", "nvidia12", "nvidiactl", "nvidia-uvm", "nvidia-modeset", "null"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let names = |leave_gpus| -> Vec<_> {
            let name = |node: Node| {
                assert_eq!(node.access, Access::Allowed);
                Path::new(&node.path).file_name().unwrap().to_string_lossy().into_owned()
            };
            nodes(folder.path(), leave_gpus).into_iter().map(name).collect()
        };
        assert_eq!(names(false), ["nvidia-uvm", "nvidia0", "nvidia12", "nvidiactl"]);
        assert_eq!(names(true), ["nvidia-uvm", "nvidiactl"]);
        assert_eq!(nodes(Path::new("/nowhere"), false), []);
        let closed = folder.path().join("nvidia0");
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
        // The superuser may open everything.
        let denied = fs::File::open(&closed).is_err();
        let found = nodes(folder.path(), false);
        assert_eq!(
            found.iter().map(|node| node.access == Access::Denied).collect::<Vec<_>>(),
            [false, denied, false, false]
        );
        for (number, expected) in
            [(1, Access::Blocked), (13, Access::Denied), (19, Access::Allowed)]
        {
            assert_eq!(access(Some(&io::Error::from_raw_os_error(number))), expected);
        }
        assert_eq!(access(None), Access::Allowed);
    }

    #[test]
    fn a_jetson_is_known_by_its_files() {
        let root = tempfile::tempdir().unwrap();
        assert!(!is_jetson(root.path()));
        let tree = root.path().join("proc/device-tree");
        fs::create_dir_all(&tree).unwrap();
        fs::write(tree.join("compatible"), "raspberrypi,5-model-b\0brcm,bcm2712\0").unwrap();
        assert!(!is_jetson(root.path()));
        fs::write(tree.join("compatible"), "nvidia,p3767-0005\0nvidia,tegra234\0").unwrap();
        assert!(is_jetson(root.path()));
        let other = tempfile::tempdir().unwrap();
        fs::create_dir(other.path().join("etc")).unwrap();
        fs::write(other.path().join("etc/nv_tegra_release"), "# R35").unwrap();
        assert!(is_jetson(other.path()));
    }

    #[test]
    fn results_of_nvidia_smi() {
        let long = Duration::from_secs(60);
        let run = |script, limit| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            smi(command, limit)
        };
        assert_eq!(run("echo GPU 0: x", long), Some(Smi::Works));
        let failed = run("echo no; echo driver >&2; exit 9", long);
        assert_eq!(failed, Some(Smi::Fails("no driver".into())));
        assert_eq!(run("exit 9", long), Some(Smi::Fails("exit status 9".into())));
        assert_eq!(run("exec sleep 1000", Duration::from_millis(50)), Some(Smi::Hangs));
        assert_eq!(smi(Command::new("/nowhere/nvidia-smi"), long), None);
    }
}
