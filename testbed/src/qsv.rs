//! The virtual Quick Sync device: a runtime `libmfx-gen.so.1.2`, a VA-API driver and a render node
//! of our own, which the real FFmpeg finds in place of Intel's. The driver is a VA-API encoder too,
//! also on a node that is AMD's.
//!
//! The dispatchers are real: `libmfx.so.1` of the Media SDK, or the oneVPL dispatcher that is a
//! part of FFmpeg. libva is real too. The encoders take NV12 and write lossless H.264, so that the
//! decoded pictures can be compared with the input.

mod event;
mod fault;

use std::{
    env,
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

pub use self::{
    event::{Config, Event, VaConfig, What},
    fault::{Action, Fault, Stage},
};
use crate::{
    compile::{self, Library, Missing},
    log,
};

/// A part of a machine with Quick Sync that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The render node `/dev/dri/renderD128`: there is no GPU.
    Node,
    /// The VA-API driver.
    Driver,
    /// The runtime `libmfx-gen.so.1.2`.
    Runtime,
}

/// The vendor of the render node's device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gpu {
    /// 8086:56a0 with the drivers i915 and iHD.
    Intel,
    /// 1002:744c with the drivers amdgpu and radeonsi. The runtime is still present: use
    /// [`Part::Runtime`] to leave it out.
    Amd,
}

/// One device with its own folder, which is removed when the value is dropped.
///
/// Programs see it through [`apply`](Self::apply) or [`environment`](Self::environment); several
/// may run at the same time. It shows a render node to every program that is linked to the C
/// library, in place of all nodes of the machine.
#[derive(Debug)]
pub struct VirtualQsv {
    folder: TempDir,
    libraries: Libraries,
    left_out: Vec<Part>,
    spec: Vec<(String, String)>,
}

impl VirtualQsv {
    /// A healthy device. The libraries are compiled when they are first asked for.
    ///
    /// # Errors
    /// Without a C compiler or without the headers of oneVPL, VA-API and DRM.
    pub fn new() -> Result<Self, Missing> {
        let libraries = libraries()?;
        let missing =
            |error: io::Error| Missing(format!("no folder for a virtual device: {error}"));
        let folder = tempfile::Builder::new().prefix("virtual-qsv-").tempdir().map_err(missing)?;
        for part in ["dri", "node/device/drm", "driver"] {
            fs::create_dir_all(folder.path().join(part)).map_err(missing)?;
        }
        let dir = folder.path().to_string_lossy().into_owned();
        let spec = vec![("dir".into(), dir)];
        let device = Self { folder, libraries, left_out: Vec::new(), spec };
        Ok(device.node(128).gpu(Gpu::Intel))
    }

    /// The number of the render node, 128 to 191.
    ///
    /// # Panics
    /// When the device's folder cannot be written.
    #[must_use]
    pub fn node(self, number: u32) -> Self {
        let nodes = self.folder.path().join("dri");
        let change = || {
            for entry in fs::read_dir(&nodes)? {
                fs::remove_file(entry?.path())?;
            }
            fs::write(nodes.join(format!("renderD{number}")), "")
        };
        change().unwrap_or_else(|error| panic!("the virtual render node: {error}"));
        self.set("node", &number.to_string())
    }

    /// Sets the vendor of the device. Default: Intel.
    ///
    /// # Panics
    /// When the device's folder cannot be written.
    #[must_use]
    pub fn gpu(self, gpu: Gpu) -> Self {
        let (vendor, model, kernel, driver) = match gpu {
            Gpu::Intel => ("8086", "56a0", "i915", "iHD"),
            Gpu::Amd => ("1002", "744c", "amdgpu", "radeonsi"),
        };
        let there = self.libraries.driver.join("iHD_drv_video.so");
        let described =
            describe_node(&self.folder.path().join("node/device"), vendor, model, kernel);
        let link = self.folder.path().join("driver").join(format!("{driver}_drv_video.so"));
        described
            .and_then(|()| renew_link(&there, &link))
            .unwrap_or_else(|error| panic!("the virtual render node: {error}"));
        let device = self.set("vendor", vendor).set("model", model);
        device.set("kernel_driver", kernel).set("driver", driver)
    }

    /// Adds a second render node with this number, of a device of this vendor on which nothing
    /// works: a display adapter, or a GPU whose driver is broken.
    ///
    /// # Panics
    /// When the device's folder cannot be written.
    #[must_use]
    pub fn bad_node(self, number: u32, vendor: &str, driver: &str) -> Self {
        let (root, model) = (self.folder.path(), "1050");
        let device = root.join("bad_node/device");
        fs::create_dir_all(device.join("drm"))
            .and_then(|()| fs::write(root.join(format!("dri/renderD{number}")), ""))
            .and_then(|()| describe_node(&device, vendor, model, driver))
            .unwrap_or_else(|error| panic!("the second render node: {error}"));
        self.set("bad_node", &number.to_string()).set("bad_kernel_driver", driver)
    }

    /// Leaves the VA-API encoder only its low-power mode. With `lists_both`, its driver lists the
    /// normal mode too, which does not work.
    #[must_use]
    pub fn low_power_only(self, lists_both: bool) -> Self {
        self.set("entrypoint", if lists_both { "listed" } else { "low-power" })
    }

    /// How long each picture takes.
    #[must_use]
    pub fn frame_time(self, time: Duration) -> Self {
        self.set("frame_ms", &time.as_millis().to_string())
    }

    /// Injects a fault. A device has at most one fault: this one replaces an earlier one.
    #[must_use]
    pub fn fault(self, fault: Fault) -> Self {
        fault.pairs().into_iter().fold(self, |device, (key, value)| device.set(key, &value))
    }

    /// Leaves out a part.
    ///
    /// # Panics
    /// When the device's folder cannot be written.
    #[must_use]
    pub fn without(mut self, part: Part) -> Self {
        if part == Part::Node {
            let node = self.folder.path().join("dri").join(format!("renderD{}", self.get("node")));
            fs::remove_file(node).unwrap_or_else(|error| panic!("the virtual node: {error}"));
        }
        self.left_out.push(part);
        self
    }

    /// Any key of the spec, as `c/mfx_testbed.h` lists them.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.spec.retain(|(known, _)| known != key);
        self.spec.push((key.into(), value.into()));
        self
    }

    fn get(&self, key: &str) -> &str {
        self.spec.iter().find(|(known, _)| known == key).map_or("", |(_, value)| value)
    }

    /// The environment in which a program finds the device. Lists end with the values of this
    /// process.
    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        let spec: Vec<_> = self.spec.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let empty = self.folder.path();
        let part = |part, there: &Path| match self.left_out.contains(&part) {
            true => empty.to_path_buf(),
            false => there.to_path_buf(),
        };
        let runtime = part(Part::Runtime, &self.libraries.runtime);
        let driver = part(Part::Driver, &self.folder.path().join("driver"));
        vec![
            ("ENCODER_VIRTUAL_QSV".into(), spec.join(";").into()),
            ("LD_PRELOAD".into(), in_front(self.libraries.shim.as_os_str(), "LD_PRELOAD")),
            ("LD_LIBRARY_PATH".into(), in_front(runtime.as_os_str(), "LD_LIBRARY_PATH")),
            ("LIBVA_DRIVERS_PATH".into(), driver.into()),
            ("LIBVA_DRIVER_NAME".into(), self.get("driver").into()),
        ]
    }

    /// Makes the program that `command` starts, and those that it starts, find the device.
    pub fn apply<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.envs(self.environment())
    }

    /// The events so far, in all processes.
    ///
    /// # Panics
    /// When the log cannot be read.
    pub fn log(&self) -> Vec<Event> {
        log::read(self.folder.path())
    }

    /// Calls so far that a real runtime might reject, and resources that were not released.
    /// Meaningful without a fault.
    pub fn violations(&self) -> Vec<String> {
        let violation = |event: Event| match event.what {
            What::Violation { what } | What::Leak { what } => Some(what),
            _ => None,
        };
        self.log().into_iter().filter_map(violation).collect()
    }

    /// The configurations with which VA-API encoders were initialised so far.
    pub fn va_configs(&self) -> Vec<VaConfig> {
        let config = |event: Event| match event.what {
            What::VaInitialized(config) => Some(*config),
            _ => None,
        };
        self.log().into_iter().filter_map(config).collect()
    }

    /// The configurations with which Quick Sync encoders were initialised so far.
    pub fn configs(&self) -> Vec<Config> {
        let config = |event: Event| match event.what {
            What::Initialized(config) => Some(*config),
            _ => None,
        };
        self.log().into_iter().filter_map(config).collect()
    }
}

/// A list with `first` in front of what this process has in `variable`.
fn in_front(first: &OsStr, variable: &str) -> OsString {
    let mut list = first.to_owned();
    if let Some(behind) = env::var_os(variable).filter(|list| !list.is_empty()) {
        list.push(":");
        list.push(behind);
    }
    list
}

/// Writes the files by which the system describes the PCI device of the render node.
fn describe_node(folder: &Path, vendor: &str, model: &str, driver: &str) -> io::Result<()> {
    renew_link(Path::new("/sys/bus/pci"), &folder.join("subsystem"))?;
    renew_link(&Path::new("/sys/bus/pci/drivers").join(driver), &folder.join("driver"))?;
    let upper = format!("{vendor}:{model}").to_uppercase();
    let files = [
        ("uevent", format!("DRIVER={driver}\nPCI_ID={upper}\nPCI_SLOT_NAME=0000:00:02.0\n")),
        ("vendor", format!("0x{vendor}\n")),
        ("device", format!("0x{model}\n")),
        ("subsystem_vendor", format!("0x{vendor}\n")),
        ("subsystem_device", format!("0x{model}\n")),
        ("revision", "0x0c\n".into()),
    ];
    files.iter().try_for_each(|(name, text)| fs::write(folder.join(name), text))
}

fn renew_link(target: &Path, link: &Path) -> io::Result<()> {
    match fs::remove_file(link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => symlink(target, link),
    }
}

#[cfg(unix)]
use std::os::unix::fs::symlink;

#[cfg(not(unix))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::Error::other("Quick Sync is virtual on Linux only"))
}

#[derive(Debug)]
struct Libraries {
    /// The file.
    shim: PathBuf,
    /// The folder of the VA-API driver.
    driver: PathBuf,
    /// The folder of the runtime, which contains nothing else.
    runtime: PathBuf,
}

/// The libraries, compiled if needed.
fn libraries() -> Result<Libraries, Missing> {
    let folder = |file, sources: &[&str]| {
        let arguments = &["-fvisibility=hidden", "-ldl", "-lpthread"];
        compile::compile(&[Library { file, sources, includes: &[], arguments }]).map_err(
            |Missing(reason)| {
                Missing(format!(
                    "{reason}; the headers are in libvpl-dev, libva-dev and libdrm-dev of Debian"
                ))
            },
        )
    };
    let runtime =
        ["mfx_runtime.c", "mfx_encoder.c", "mfx_unsupported.c", "mfx_testbed.c", "picture.c"];
    let driver = ["va_driver.c", "vaapi_memory.c", "vaapi_encoder.c", "mfx_testbed.c", "picture.c"];
    Ok(Libraries {
        shim: folder("drm_shim.so", &["drm_shim.c", "mfx_testbed.c"])?.join("drm_shim.so"),
        driver: folder("iHD_drv_video.so", &driver)?,
        runtime: folder("libmfx-gen.so.1.2", &runtime)?,
    })
}
