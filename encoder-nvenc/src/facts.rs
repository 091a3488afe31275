//! The facts of a machine, and the device that follows from them.

use serde::{Deserialize, Serialize};

/// The facts that [`crate::gather`] reads from this machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// `linux`, `windows`, `macos` …
    pub(crate) system: String,
    /// The driver as NVML, the library of `nvidia-smi`, reports it.
    pub(crate) nvml: Result<Driver, Nvml>,
    /// Device nodes.
    pub(crate) nodes: Vec<Node>,
    /// The result of `nvidia-smi`, which is run only if NVML does not load.
    pub(crate) smi: Option<Smi>,
    /// Whether the CUDA library loads, or the loader's error.
    pub(crate) cuda: Result<(), String>,
    /// Whether the encode library loads, with the newest API that it has, or the loader's error.
    pub(crate) encode: Result<Option<Api>, String>,
    /// Whether a file or variable shows that this is a container.
    pub(crate) container: bool,
    /// Whether this is a Jetson, whose encoder is not NVENC.
    pub(crate) is_jetson: bool,
    /// Whether Windows provides its driver to Linux, in WSL.
    pub(crate) has_wsl_driver: bool,
    /// `NVIDIA_DRIVER_CAPABILITIES`.
    pub(crate) capabilities: Option<String>,
    /// `CUDA_VISIBLE_DEVICES`.
    pub(crate) visible: Option<String>,
    /// Whether CUDA counts GPUs as NVML does: `CUDA_DEVICE_ORDER=PCI_BUS_ID`.
    pub(crate) pci_order: bool,
}

impl Facts {
    /// Whether this is Linux inside Windows (WSL 2), whose driver is that of Windows.
    pub(crate) fn is_wsl(&self) -> bool {
        self.nodes.iter().any(|node| node.path == "/dev/dxg")
    }

    /// Whether this is a container. The variable is set by images that are made for NVIDIA's
    /// runtime.
    pub(crate) fn is_container(&self) -> bool {
        self.container || self.capabilities.is_some()
    }
}

/// The driver, as NVML reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Driver {
    /// Its version.
    pub(crate) version: Option<String>,
    /// The GPUs in the order of the bus.
    pub(crate) gpus: Vec<Gpu>,
}

/// A GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gpu {
    /// `NVIDIA L4`.
    pub(crate) name: String,
    /// `GPU-5c6f…`.
    pub(crate) uuid: Option<String>,
    /// Whether NVML reports the use of an encoder for it. `false` alone is no refusal.
    pub(crate) encoder: bool,
}

/// The reason why NVML reports nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Nvml {
    /// The library does not load: the loader's error.
    Absent(String),
    /// The kernel module is not loaded.
    DriverNotLoaded,
    /// Kernel module and library are of different versions.
    Mismatch,
    /// This user is not permitted to use the driver.
    Permission,
    /// The control group of this process is not permitted to use the devices.
    Blocked,
    /// NVML_ERROR_UNKNOWN (999): in a container, its devices were taken away.
    Unknown,
    /// A GPU that fell off the bus or needs a reset.
    Lost(String),
    /// Any other error.
    Other(String),
}

/// A device node that exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Node {
    /// `/dev/nvidia0`.
    pub(crate) path: String,
    /// Whether it opens.
    pub(crate) access: Access,
}

/// Whether a device node opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Access {
    /// It opens, or does not for another reason than permission.
    Allowed,
    /// This user may not open it: its mode or its group.
    Denied,
    /// The control group of this process may not open it, whatever the user.
    Blocked,
}

/// How `nvidia-smi` ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Smi {
    /// It succeeded.
    Works,
    /// It failed: its output.
    Fails(String),
    /// It did not end in time and was killed.
    Hangs,
}

/// A version of the NVENC API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Api(pub(crate) u32, pub(crate) u32);

/// A device that may work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// `NVIDIA L4 (GPU 0)`, `2 × NVIDIA L4`.
    pub(crate) name: String,
    /// `driver 570.86.15, NVENC API 13.0`.
    pub(crate) driver: Option<String>,
    /// The inputs that decide the result of a probe.
    pub(crate) identity: Vec<String>,
    /// The GPUs that the encoder may be opened on.
    pub(crate) gpus: Vec<Candidate>,
    /// Whether this is a Jetson.
    pub(crate) is_jetson: bool,
    /// Whether this program has loaded the libraries of the driver.
    pub(crate) has_driver: bool,
}

/// A GPU that an encoder may be opened on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// CUDA's index.
    pub(crate) index: u32,
    /// A key that is the same in every program: its UUID, else its index.
    pub(crate) key: String,
    /// Its name.
    pub(crate) name: Option<String>,
    /// Whether the GPU of this index is known for certain.
    pub(crate) known: bool,
    /// Whether it certainly has no encoder.
    pub(crate) bare: bool,
}
