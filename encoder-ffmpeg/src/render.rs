//! Render nodes: the device files of a GPU for programs without a screen, on Linux. Quick Sync and
//! VA-API both need a render node.

use std::{
    fs::{self, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use encoder_core::{
    ConfigError, Device, EncoderType, OpenError, Refusal, RefusalKind, file_identity,
};

use crate::{options::misconfigured, rule::Rule};

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

    /// The device of this node. The node and the state of the drivers in user space are appended to
    /// `identity`; `libraries` are the files of these drivers, relative to the system's library
    /// folders.
    pub fn device(&self, mut identity: Vec<String>, libraries: &[&str]) -> Device {
        let path = self.path.display();
        let name = match self.maker() {
            Some(maker) => format!("{path} ({maker})"),
            None => path.to_string(),
        };
        let hex = |number: Option<u16>| number.map_or("?".into(), |n| format!("{n:04x}"));
        let driver = self.driver.clone();
        let kernel = driver.as_deref().unwrap_or("?");
        identity.push(format!("{path} {}:{} {kernel}", hex(self.vendor), hex(self.model)));
        identity.extend(installed(LIBRARY_FOLDERS, libraries));
        Device::new(name).with_driver(driver).with_identity(identity)
    }
}

/// The folders of drivers in user space on common systems.
const LIBRARY_FOLDERS: &[&str] = &[
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
const DRIVER: &str = "install the device's VA-API driver (mesa-va-drivers for AMD, \
                      intel-media-va-driver or i965-va-driver for Intel); check with vainfo";

/// The meaning of lines of FFmpeg's log for an encoder on a render node: rules for the node and its
/// VA-API driver, which Quick Sync uses too.
pub const RULES: &[Rule] = &[
    Rule::new(
        "Permission denied",
        RefusalKind::Permission,
        "the device may not be opened by this user",
        NODE,
    ),
    Rule::new(
        "No such file or directory",
        RefusalKind::NoDevice,
        "the device does not exist",
        "check the option `device`; ls /dev/dri lists the devices",
    ),
    Rule::new(
        "failed to resolve symbol 'va",
        RefusalKind::DriverTooOld,
        "libva is too old for this FFmpeg",
        "install libva 2.21 or later, or set ENCODER_FFMPEG to the FFmpeg of this system",
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

/// The refusal that a probe reports where [`find`] failed.
pub fn refusal(id: EncoderType, error: OpenError) -> Refusal {
    match error {
        OpenError::Refused(refusal) => refusal,
        other => misconfigured(id, other),
    }
}

/// The nodes that a backend can use.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// The backend.
    pub id: EncoderType,
    /// The name of its technique, for messages: `Quick Sync`.
    pub what: &'static str,
    /// Whether the backend works on devices of this vendor.
    pub fits: fn(u16) -> bool,
    /// The devices that it works on, for messages: `one of Intel`.
    pub needs: &'static str,
    /// The hint if there is no such device.
    pub hint: &'static str,
}

/// The node to use: `named`, the option `device`, else the first node that fits and opens. A node
/// of unknown vendor fits, and comes after the nodes that are known to fit; the probe decides.
///
/// # Errors
/// [`OpenError::Config`] where the named node does not exist; [`OpenError::Refused`] where there is
/// no node, none that fits, or none that this user may open.
pub fn find(wanted: &Wanted, named: Option<&Path>) -> Result<Node, OpenError> {
    find_in(wanted, named, Path::new("/dev/dri"), Path::new("/sys/class/drm"))
}

fn find_in(
    wanted: &Wanted,
    named: Option<&Path>,
    dev: &Path,
    sys: &Path,
) -> Result<Node, OpenError> {
    let names = names(dev);
    if let Some(path) = named.filter(|path| !path.exists()) {
        let field = format!("backend.{}.device", wanted.id);
        let allowed = if names.is_empty() {
            format!("a render node, and {} has none here", dev.display())
        } else {
            list(names.iter().map(|name| name.display()))
        };
        return Err(ConfigError::value(field, path.display(), allowed).into());
    }
    let looked_at = named.map_or(names, |path| vec![path.to_owned()]);
    let nodes = looked_at.into_iter().map(|path| Node::look_up(path, sys)).collect();
    choose(wanted, nodes, dev).map_err(OpenError::from)
}

/// The render nodes in `dev`, by number.
fn names(dev: &Path) -> Vec<PathBuf> {
    let Ok(entries) = dev.read_dir() else { return Vec::new() };
    let mut nodes: Vec<(u32, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.strip_prefix("renderD")?.parse().ok()?;
            Some((number, entry.path()))
        })
        .collect();
    nodes.sort();
    nodes.into_iter().map(|(_, path)| path).collect()
}

fn choose(wanted: &Wanted, nodes: Vec<Node>, dev: &Path) -> Result<Node, Refusal> {
    let refuse = |reason| Refusal::new(wanted.id, RefusalKind::NoDevice, reason, wanted.hint);
    let (mut fitting, others): (Vec<_>, Vec<_>) =
        nodes.into_iter().partition(|node| node.vendor.is_none_or(wanted.fits));
    fitting.sort_by_key(|node| node.vendor.is_none());
    let mut first = None;
    for node in fitting {
        let refusal = match OpenOptions::new().read(true).write(true).open(&node.path) {
            Ok(_) => return Ok(node),
            Err(error) => closed(wanted, &node.path, &error, group_of(&node.path).as_deref()),
        };
        first.get_or_insert(refusal);
    }
    Err(first.unwrap_or_else(|| match others.as_slice() {
        [] => refuse(format!("there is no render node ({}/renderD*)", dev.display())).absent(),
        others => {
            let vendor = |node: &Node| {
                let maker = node.maker().unwrap_or_default();
                format!("{} is a device of {maker}", node.path.display())
            };
            let (what, needs) = (wanted.what, wanted.needs);
            refuse(format!("{}; {what} needs {needs}", list(others.iter().map(vendor)))).absent()
        }
    }))
}

/// The refusal of a node that exists and does not open.
fn closed(wanted: &Wanted, node: &Path, error: &io::Error, group: Option<&str>) -> Refusal {
    let place = node.display();
    if error.kind() != io::ErrorKind::PermissionDenied {
        let reason = format!("{place} cannot be opened: {error}");
        return Refusal::new(wanted.id, RefusalKind::NoDevice, reason, wanted.hint);
    }
    let group = group.unwrap_or("render");
    Refusal::new(
        wanted.id,
        RefusalKind::Permission,
        format!("this user may not open {place}, which belongs to the group {group}"),
        format!(
            "add the user to the group (sudo usermod -aG {group} $USER) and log in again; in a \
             container pass --device /dev/dri and --group-add with the group's number"
        ),
    )
}

/// The name of a file's group; its number where the system has no name for it.
#[cfg(unix)]
fn group_of(path: &Path) -> Option<String> {
    let gid = std::os::unix::fs::MetadataExt::gid(&path.metadata().ok()?).to_string();
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    Some(group_name(&groups, &gid).unwrap_or(gid))
}

#[cfg(not(unix))]
fn group_of(_: &Path) -> Option<String> {
    None
}

#[cfg(any(unix, test))]
fn group_name(groups: &str, gid: &str) -> Option<String> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == gid).then(|| name.to_owned())
    })
}

fn list(items: impl Iterator<Item = impl ToString>) -> String {
    items.map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const QSV: Wanted = Wanted {
        id: EncoderType::QSV,
        what: "Quick Sync",
        fits: |vendor| vendor == INTEL,
        needs: "one of Intel",
        hint: "buy one",
    };
    const VAAPI: Wanted = Wanted {
        id: EncoderType::VAAPI,
        what: "VA-API",
        fits: |vendor| vendor != NVIDIA,
        needs: "one of AMD or Intel",
        hint: "buy one",
    };

    /// A machine in a folder: `renderD128=8086:46a6:i915`, where an empty part is not known and a
    /// `!` at the end makes a node that does not open.
    #[cfg(unix)]
    fn machine(spec: &str) -> tempfile::TempDir {
        use std::os::unix::fs::symlink;
        let root = tempfile::tempdir().unwrap();
        let dev = root.path().join("dri");
        fs::create_dir(&dev).unwrap();
        for word in spec.split_whitespace() {
            let opens = !word.ends_with('!');
            let (name, facts) = word.trim_end_matches('!').split_once('=').unwrap();
            // A folder cannot be opened for writing, not even by root.
            if opens {
                fs::write(dev.join(name), "").unwrap();
            } else {
                fs::create_dir(dev.join(name)).unwrap();
            }
            let facts: Vec<_> = facts.split(':').collect();
            let &[vendor, model, driver] = facts.as_slice() else { continue };
            let device = root.path().join("drm").join(name).join("device");
            fs::create_dir_all(&device).unwrap();
            fs::write(device.join("vendor"), format!("0x{vendor}\n")).unwrap();
            fs::write(device.join("device"), format!("0x{model}\n")).unwrap();
            let (driver, version) = driver.split_once('-').unwrap_or((driver, ""));
            let folder = root.path().join("drivers").join(driver);
            fs::create_dir_all(folder.join("module")).unwrap();
            if !version.is_empty() {
                fs::write(folder.join("module/version"), format!("{version}\n")).unwrap();
            }
            symlink(&folder, device.join("driver")).unwrap();
        }
        root
    }

    #[cfg(unix)]
    fn search(root: &Path, wanted: &Wanted, named: Option<&str>) -> Result<Node, OpenError> {
        let named = named.map(|name| root.join("dri").join(name));
        find_in(wanted, named.as_deref(), &root.join("dri"), &root.join("drm"))
    }

    #[cfg(unix)]
    #[test]
    fn the_first_node_that_fits_is_used() {
        // machine | named | for Quick Sync | for VA-API: a node, or a part of the refusal
        let table: &[(&str, &str, &str, &str)] = &[
            ("", "", "no render node", "no render node"),
            ("card0=8086:46a6:i915", "", "no render node", "no render node"),
            ("renderD128=8086:46a6:i915", "", "renderD128", "renderD128"),
            (
                "renderD128=1002:73bf:amdgpu",
                "",
                "renderD128 is a device of AMD; Quick Sync needs one of Intel",
                "renderD128",
            ),
            (
                "renderD128=10de:2684:nvidia",
                "",
                "renderD128 is a device of NVIDIA; Quick Sync needs one of Intel",
                "renderD128 is a device of NVIDIA; VA-API needs one of AMD or Intel",
            ),
            ("renderD128=1af4:1050:virtio-pci", "", "is a device of vendor 0x1af4", "renderD128"),
            // The node of another vendor comes first.
            ("renderD128=10de:1:nvidia renderD129=8086:2:i915", "", "renderD129", "renderD129"),
            ("renderD128=1002:1:amdgpu renderD129=8086:2:xe", "", "renderD129", "renderD128"),
            ("renderD128=8086:1:i915! renderD129=8086:2:xe", "", "renderD129", "renderD129"),
            ("renderD200=8086:1:i915 renderD99=8086:2:xe", "", "renderD99", "renderD99"),
            ("renderD128=8086:1:i915!", "", "cannot be opened", "cannot be opened"),
            // Without /sys the probe decides.
            ("renderD128=", "", "renderD128", "renderD128"),
            ("renderD128= renderD129=8086:2:i915", "", "renderD129", "renderD129"),
            ("renderD128= renderD129=10de:2:nvidia", "", "renderD128", "renderD128"),
            // By name.
            (
                "renderD128=8086:1:i915 renderD129=8086:2:xe",
                "renderD129",
                "renderD129",
                "renderD129",
            ),
            (
                "renderD128=1002:1:amdgpu renderD129=8086:2:xe",
                "renderD128",
                "is a device of AMD",
                "renderD128",
            ),
            ("renderD128=8086:1:i915", "renderD130", "not allowed; allowed is", "not allowed"),
            ("", "renderD128", "has none here", "has none here"),
        ];
        for (spec, named, qsv, vaapi) in table {
            let root = machine(spec);
            for (wanted, expected) in [(QSV, qsv), (VAAPI, vaapi)] {
                let named = (!named.is_empty()).then_some(*named);
                match search(root.path(), &wanted, named) {
                    Ok(node) => assert!(node.path.ends_with(expected), "{spec}: {node:?}"),
                    Err(error) => {
                        let lost =
                            named.is_some_and(|name| !root.path().join("dri").join(name).exists());
                        assert_eq!(matches!(error, OpenError::Config(_)), lost, "{spec}");
                        assert!(error.to_string().contains(expected), "{spec}: {error}");
                    }
                }
            }
        }
    }

    #[cfg(unix)]
    #[test]
    fn the_kernel_describes_a_node() {
        let root = machine("renderD128=1002:73bf:amdgpu-6.8.5 renderD129=");
        let node = search(root.path(), &VAAPI, None).unwrap();
        let path = node.path.display();
        let device = node.device(vec!["ffmpeg".into()], &[]);
        assert_eq!(device.name, format!("{path} (AMD)"));
        assert_eq!(device.driver.as_deref(), Some("amdgpu 6.8.5"));
        assert_eq!(
            device.identity,
            ["ffmpeg".to_owned(), format!("{path} 1002:73bf amdgpu 6.8.5")]
        );
        let node = search(root.path(), &VAAPI, Some("renderD129")).unwrap();
        let device = node.device(vec![], &[]);
        assert_eq!((device.name, device.driver), (node.path.display().to_string(), None));
        // A link to a node is that node.
        let link = root.path().join("dri/by-path");
        std::os::unix::fs::symlink(root.path().join("dri/renderD128"), &link).unwrap();
        assert_eq!(search(root.path(), &VAAPI, Some("by-path")).unwrap().vendor, Some(AMD));
    }

    #[test]
    fn permission() {
        let node = Path::new("/dev/dri/renderD128");
        let denied = closed(&QSV, node, &io::ErrorKind::PermissionDenied.into(), Some("video"));
        assert_eq!(denied.kind, RefusalKind::Permission);
        assert!(denied.reason.contains("the group video"), "{denied}");
        assert!(denied.hint.contains("usermod -aG video"), "{denied}");
        let lost = closed(&QSV, node, &io::ErrorKind::NotFound.into(), None);
        assert_eq!(lost.kind, RefusalKind::NoDevice);
        let groups = "root:x:0:\nvideo:x:44:me\nrender:x:104:\nbroken";
        assert_eq!(group_name(groups, "104").as_deref(), Some("render"));
        assert_eq!(group_name(groups, "4"), None);
    }

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
