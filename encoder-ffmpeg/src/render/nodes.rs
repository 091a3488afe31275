//! Searches for render nodes, and probes them in turn.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use encoder_core::{
    ConfigError, Device, EncoderType, OpenError, OpenRequest, ProbeResult, Refusal, RefusalKind,
};

use super::{AMD, INTEL, LIBRARY_FOLDERS, Node, SYS, installed};
use crate::{
    options::misconfigured,
    sys::{self, Access},
};

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

/// Nodes that an encoder may work on, in the order in which they are probed: at least one.
#[derive(Clone, Debug)]
pub struct Nodes {
    id: EncoderType,
    first: Node,
    others: Vec<Node>,
    /// Why this user may not use further nodes that fit.
    closed: Vec<Refusal>,
    /// Whether the configuration names the node.
    is_named: bool,
}

/// The nodes to use: `named`, the option `device`, else each node that fits and that this user may
/// use. Devices of AMD and Intel come first, then devices whose vendor is not known, then others,
/// such as the display adapter of a server or of a virtual machine. Only a probe shows whether an
/// encoder works on a node.
///
/// If `request` has the result of a probe, the node on which that succeeded comes first.
///
/// Calls no driver: it reads what the kernel reports about the nodes, and their permissions.
///
/// # Errors
/// [`OpenError::Config`] where the named node does not exist; [`OpenError::Refused`] where there is
/// no node, none that fits, none that this user may use, or where the node of the probe is gone.
pub fn find(
    wanted: &Wanted,
    named: Option<&Path>,
    request: &OpenRequest<'_>,
) -> Result<Nodes, OpenError> {
    let nodes = find_in(wanted, named, Path::new("/dev/dri"), Path::new(SYS))?;
    match request.probe.and_then(|probe| probe.chosen.get(DEVICE)) {
        Some(probed) if named.is_none() => Ok(nodes.starting_with(Path::new(probed), wanted)?),
        _ => Ok(nodes),
    }
}

/// The option `low_power` that [`probe_low_power`] chose, if `request` has the result of a probe.
pub fn probed_low_power(request: &OpenRequest<'_>) -> Option<bool> {
    request.probe?.chosen.get(LOW_POWER)?.parse().ok()
}

/// Options that the probe chooses: keys of [`Caps::chosen`](encoder_core::Caps::chosen).
const DEVICE: &str = "device";
const LOW_POWER: &str = "low_power";

fn find_in(
    wanted: &Wanted,
    named: Option<&Path>,
    dev: &Path,
    sys: &Path,
) -> Result<Nodes, OpenError> {
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
    let nodes = choose(wanted, nodes, dev)?;
    Ok(Nodes { is_named: named.is_some(), ..nodes })
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

fn choose(wanted: &Wanted, nodes: Vec<Node>, dev: &Path) -> Result<Nodes, Refusal> {
    let refuse = |reason| Refusal::new(wanted.id, RefusalKind::NoDevice, reason, wanted.hint);
    let (mut fitting, others): (Vec<_>, Vec<_>) =
        nodes.into_iter().partition(|node| node.vendor.is_none_or(wanted.fits));
    fitting.sort_by_key(|node| match node.vendor {
        Some(AMD | INTEL) => 0,
        None => 1,
        Some(_) => 2,
    });
    let (mut open, mut closed) = (Vec::new(), Vec::new());
    for node in fitting {
        match sys::check_access(&node.path, Access::ReadWrite) {
            Ok(()) => open.push(node),
            Err(error) => {
                closed.push(denied(wanted, &node.path, &error, group_of(&node.path).as_deref()));
            }
        }
    }
    let mut open = open.into_iter();
    if let Some(first) = open.next() {
        let (id, others) = (wanted.id, open.collect());
        return Ok(Nodes { id, first, others, closed, is_named: false });
    }
    Err(joined(closed).unwrap_or_else(|| match others.as_slice() {
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

impl Nodes {
    /// The first node, for an encoder that is opened without a probe.
    pub fn first(&self) -> &Node {
        &self.first
    }

    /// The same nodes with the node at `path` as the first.
    fn starting_with(self, path: &Path, wanted: &Wanted) -> Result<Self, Refusal> {
        let mut all: Vec<_> = std::iter::once(self.first).chain(self.others).collect();
        let Some(place) = all.iter().position(|node| node.path == path) else {
            let reason = format!("{}, on which it was probed, is gone", path.display());
            return Err(Refusal::new(wanted.id, RefusalKind::NoDevice, reason, wanted.hint));
        };
        let first = all.remove(place);
        Ok(Self { first, others: all, ..self })
    }

    /// Whether there is a choice.
    pub fn has_several(&self) -> bool {
        !self.others.is_empty()
    }

    fn all(&self) -> impl Iterator<Item = &Node> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The device for the device check: all nodes, since only the probe chooses among them. The
    /// nodes and the state of the drivers in user space are appended to `identity`; `libraries` are
    /// the files of these drivers, relative to the system's library folders.
    pub fn device(&self, mut identity: Vec<String>, libraries: &[&str]) -> Device {
        identity.extend(self.all().map(Node::identity));
        identity.extend(installed(LIBRARY_FOLDERS, libraries));
        let mut drivers: Vec<_> = self.all().filter_map(|node| node.driver.clone()).collect();
        drivers.dedup();
        let driver = (!drivers.is_empty()).then(|| drivers.join(", "));
        Device::new(list(self.all().map(Node::name))).with_driver(driver).with_identity(identity)
    }

    /// Probes the nodes in turn until an encoder works: that node becomes
    /// [`Caps::device`](encoder_core::Caps::device), and the option `device` of
    /// [`Caps::chosen`](encoder_core::Caps::chosen) unless the configuration names it. Each of the
    /// nodes that are left gets the same part of the time that is left.
    ///
    /// If none works, the refusal names each node.
    pub fn probe(
        &self,
        deadline: Duration,
        probe: impl Fn(&Node, Duration) -> ProbeResult,
    ) -> ProbeResult {
        let begun = Instant::now();
        let mut refusals = Vec::new();
        for (node, left) in self.all().zip((1..=1 + self.others.len() as u32).rev()) {
            let share = deadline.saturating_sub(begun.elapsed()) / left;
            match probe(node, share) {
                ProbeResult::Usable(mut caps) => {
                    if !self.is_named {
                        caps = caps.with_chosen(DEVICE, node.path.to_string_lossy());
                    }
                    return ProbeResult::Usable(caps.with_device(node.device()));
                }
                ProbeResult::Refused(refusal) if self.has_several() || !self.closed.is_empty() => {
                    let reason = format!("{}: {}", node.name(), refusal.reason);
                    refusals.push(refusal.with_reason(reason));
                }
                ProbeResult::Refused(refusal) => refusals.push(refusal),
            }
        }
        refusals.extend_from_slice(&self.closed);
        let none = || misconfigured(self.id, "no render node was probed");
        ProbeResult::Refused(joined(refusals).unwrap_or_else(none))
    }
}

/// One refusal in place of those of several attempts: with all reasons, and with the hint and the
/// kind of a busy device, for which a wait may help, else of the first.
fn joined(refusals: Vec<Refusal>) -> Option<Refusal> {
    let reason = list_by("; ", refusals.iter().map(|refusal| &refusal.reason));
    let main = refusals.iter().position(Refusal::is_busy).unwrap_or(0);
    Some(refusals.into_iter().nth(main)?.with_reason(reason))
}

/// Probes an encoder that may have a normal and a low-power mode, of which some devices have only
/// one: with the option `low_power` as it is `configured`, else with each of `attempts` as long as
/// `is_mode` finds that a refusal concerns the mode. The value that works is
/// [chosen](encoder_core::Caps::chosen); `None` leaves the mode to the driver.
pub fn probe_low_power(
    configured: Option<bool>,
    attempts: &[Option<bool>],
    is_mode: impl Fn(&Refusal) -> bool,
    deadline: Duration,
    probe: impl Fn(Option<bool>, Duration) -> ProbeResult,
) -> ProbeResult {
    if configured.is_some() {
        return probe(configured, deadline);
    }
    let begun = Instant::now();
    let mut refusals = Vec::new();
    for &low_power in attempts {
        let left = deadline.saturating_sub(begun.elapsed());
        match (probe(low_power, left), low_power) {
            (ProbeResult::Usable(caps), Some(mode)) => {
                return ProbeResult::Usable(caps.with_chosen(LOW_POWER, mode.to_string()));
            }
            (ProbeResult::Refused(refusal), mode) => {
                let goes_on = is_mode(&refusal);
                let reason = match mode {
                    Some(mode) => format!("with low_power = {mode}: {}", refusal.reason),
                    None => refusal.reason.clone(),
                };
                refusals.push(refusal.with_reason(reason));
                if !goes_on {
                    break;
                }
            }
            (usable, None) => return usable,
        }
    }
    joined(refusals).map_or_else(|| probe(None, deadline), ProbeResult::Refused)
}

/// The refusal of a node that exists and may not be used.
fn denied(wanted: &Wanted, node: &Path, error: &io::Error, group: Option<&str>) -> Refusal {
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
    list_by(", ", items)
}

fn list_by(separator: &str, items: impl Iterator<Item = impl ToString>) -> String {
    items.map(|item| item.to_string()).collect::<Vec<_>>().join(separator)
}

#[cfg(test)]
#[path = "nodes_tests.rs"]
mod tests;
