//! Render nodes: the device files of a GPU for programs without a screen, on Linux. Quick Sync and
//! VA-API both need a render node.

mod nodes;

use std::{
    fs,
    path::{Path, PathBuf},
};

use encoder_core::{ConfigError, Device, EncoderType, RefusalKind, file_identity};

pub use self::nodes::{Nodes, Wanted, find, probe_low_power, probed_low_power};
use crate::{rule::Rule, set_ffmpeg};

/// Intel's number on the PCI bus.
pub const INTEL: u16 = 0x8086;
/// AMD's number on the PCI bus.
pub const AMD: u16 = 0x1002;
/// NVIDIA's number on the PCI bus.
pub const NVIDIA: u16 = 0x10de;

/// A render node and what the kernel reports about it. Without `/sys`, as in some containers, only
/// the path is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// `/dev/dri/renderD128`.
    pub path: PathBuf,
    /// The vendor of the device: [`INTEL`], [`AMD`] …
    pub vendor: Option<u16>,
    /// The vendor's number of the device.
    pub model: Option<u16>,
    /// Its kernel driver, with a version where the driver has its own: `i915`, `amdgpu 6.8.5`.
    pub driver: Option<String>,
}

impl Node {
    /// Looks `path` up in `sys`, which is `/sys/class/drm` on a real machine.
    fn look_up(path: PathBuf, sys: &Path) -> Self {
        // A name such as `/dev/dri/by-path/…` is a link to the node.
        let real = path.canonicalize().unwrap_or_else(|_| path.clone());
        let Some(name) = real.file_name() else { return Self { path, ..Self::default() } };
        let device = sys.join(name).join("device");
        let number = |file: &str| {
            let text = fs::read_to_string(device.join(file)).ok()?;
            u16::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
        };
        let driver = fs::read_link(device.join("driver")).ok().and_then(|link| {
            let name = link.file_name()?.to_string_lossy().into_owned();
            let version = fs::read_to_string(device.join("driver/module/version"));
            let version = version.unwrap_or_default();
            Some(format!("{name} {}", version.trim()).trim_end().to_owned())
        });
        Self { vendor: number("vendor"), model: number("device"), driver, path }
    }

    /// The vendor's name: `Intel`, `vendor 0x1af4`; `None` where the kernel does not report it.
    pub fn maker(&self) -> Option<String> {
        Some(match self.vendor? {
            INTEL => "Intel".into(),
            AMD => "AMD".into(),
            NVIDIA => "NVIDIA".into(),
            other => format!("vendor {other:#06x}"),
        })
    }

    /// Its name in reports: `/dev/dri/renderD128 (Intel)`.
    pub fn name(&self) -> String {
        let path = self.path.display();
        match self.maker() {
            Some(maker) => format!("{path} ({maker})"),
            None => path.to_string(),
        }
    }

    /// The device of this node, without an identity.
    pub fn device(&self) -> Device {
        Device::new(self.name()).with_driver(self.driver.clone())
    }

    /// What the kernel reports about it, as a part of [`Device::identity`].
    fn identity(&self) -> String {
        let hex = |number: Option<u16>| number.map_or("?".into(), |n| format!("{n:04x}"));
        let kernel = self.driver.as_deref().unwrap_or("?");
        format!("{} {}:{} {kernel}", self.path.display(), hex(self.vendor), hex(self.model))
    }
}

/// Where the kernel describes the nodes.
const SYS: &str = "/sys/class/drm";

/// The folders of drivers in user space on common systems.
pub const LIBRARY_FOLDERS: &[&str] = &[
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib/x86_64-linux-gnu",
    "/usr/local/lib",
    "/run/opengl-driver/lib",
];

/// The identities of existing `files`: a driver that is installed after a refusal must cause a new
/// probe.
fn installed(folders: &[&str], files: &[&str]) -> Vec<String> {
    let all = folders.iter().flat_map(|folder| files.iter().map(|f| Path::new(folder).join(f)));
    all.filter_map(|path| file_identity(&path).ok()).collect()
}

const NODE: &str = "add the user to the group of the device (render or video) and log in again; \
                    in a container pass --device /dev/dri";
const DRIVER: &str = concat!(
    "install the device's VA-API driver (mesa-va-drivers for AMD, intel-media-va-driver or \
     i965-va-driver for Intel); check with vainfo: if that works, this FFmpeg looks for drivers in \
     other folders (snap, Nix, a static build): set LIBVA_DRIVERS_PATH, or ",
    set_ffmpeg!("another FFmpeg")
);

/// The meaning of lines of FFmpeg's log for an encoder on a render node: rules for the node and its
/// VA-API driver, which Quick Sync uses too.
pub const RULES: &[Rule] = &[
    Rule::new(
        "Permission denied",
        RefusalKind::Permission,
        "the device may not be opened by this user",
        NODE,
    )
    .and("/dev/"),
    Rule::new(
        "No such file or directory",
        RefusalKind::NoDevice,
        "the device does not exist",
        "check the option `device`; ls /dev/dri lists the devices",
    )
    .and("/dev/"),
    Rule::new(
        "failed to resolve symbol 'va",
        RefusalKind::DriverTooOld,
        "libva is too old for this FFmpeg",
        concat!("install libva 2.21 or later, or ", set_ffmpeg!("the FFmpeg of this system")),
    ),
    Rule::new(
        "No VA display found",
        RefusalKind::NoDevice,
        "there is no VA-API driver for the device",
        DRIVER,
    ),
    Rule::new(
        "Failed to initialise VAAPI connection",
        RefusalKind::NoDevice,
        "there is no VA-API driver for the device",
        DRIVER,
    ),
    // FFmpeg 5.1 and 9 report it as verbose, and only the summary below as an error.
    Rule::new(
        "Cannot open a VA display from DRM device",
        RefusalKind::NoDevice,
        "the device is no GPU for VA-API",
        DRIVER,
    )
    .at_any_level()
    .as_last_resort(),
    Rule::new(
        "Device creation failed",
        RefusalKind::NoDevice,
        "the device cannot be opened",
        DRIVER,
    )
    .as_last_resort(),
];

/// Checks the option `device` of the backend `id`.
///
/// # Errors
/// [`ConfigError::Value`] for a path that cannot be part of an option of FFmpeg, in which a comma
/// starts the next part.
pub fn check_path(id: EncoderType, path: Option<&Path>) -> Result<(), ConfigError> {
    match path {
        Some(path) if path.to_str().is_none_or(|text| text.contains(',')) => {
            let allowed = "a path without commas, such as /dev/dri/renderD128";
            Err(ConfigError::value(format!("backend.{id}.device"), path.display(), allowed))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_that_is_installed_changes_the_identity() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().to_str().unwrap();
        let before = installed(&[folder], &["dri/iHD_drv_video.so"]);
        fs::create_dir(root.path().join("dri")).unwrap();
        fs::write(root.path().join("dri/iHD_drv_video.so"), "x").unwrap();
        let after = installed(&[folder], &["dri/iHD_drv_video.so"]);
        assert_eq!((before.len(), after.len()), (0, 1));
    }
}
