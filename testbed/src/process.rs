//! The processes of this machine, for tests that none is left behind.

use std::{
    fs,
    time::{Duration, Instant},
};

/// How long [`until`] waits: far longer than any condition of a test needs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A process, as in the system's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub id: u32,
    /// The id of its parent.
    pub parent: u32,
    /// The id of its process group, which is the id of the group's first process.
    pub group: u32,
    /// Whether it has ended and was not reaped.
    pub zombie: bool,
    /// The name of its program, cut to 15 bytes.
    pub name: String,
}

impl Process {
    /// A line of `/proc/*/stat`: `id (name) state parent group …`.
    fn parse(line: &str) -> Option<Self> {
        let (id, rest) = line.split_once(" (")?;
        // The name may hold brackets itself.
        let (name, rest) = rest.rsplit_once(") ")?;
        let mut words = rest.split(' ');
        let zombie = matches!(words.next()?, "Z" | "X");
        let mut number = || words.next()?.parse().ok();
        Some(Self {
            id: id.parse().ok()?,
            parent: number()?,
            group: number()?,
            zombie,
            name: name.into(),
        })
    }

    /// Whether it counts as gone: it has ended, and this process is not responsible for reaping it.
    /// The new parent of an orphan may never reap it, as in some containers.
    fn is_gone(&self) -> bool {
        self.zombie && self.parent != std::process::id()
    }
}

/// All processes that can be seen.
pub fn all() -> Vec<Process> {
    let Ok(folder) = fs::read_dir("/proc") else { return Vec::new() };
    folder
        .filter_map(|entry| fs::read(entry.ok()?.path().join("stat")).ok())
        .filter_map(|stat| Process::parse(&String::from_utf8_lossy(&stat)))
        .collect()
}

/// The processes whose parent is `id`.
pub fn children_of(id: u32) -> Vec<Process> {
    all().into_iter().filter(|process| process.parent == id).collect()
}

/// The children of `id`, their children and so on. Orphans are no longer descendants, but are still
/// in their [`group`].
pub fn descendants_of(id: u32) -> Vec<Process> {
    let all = all();
    let mut found: Vec<Process> = Vec::new();
    let mut parents = vec![id];
    while let Some(parent) = parents.pop() {
        let children = all.iter().filter(|process| process.parent == parent);
        parents.extend(children.clone().map(|process| process.id));
        found.extend(children.cloned());
    }
    found
}

/// The processes of the group `id`, orphans included.
pub fn group(id: u32) -> Vec<Process> {
    all().into_iter().filter(|process| process.group == id).collect()
}

/// Whether the process `id` has ended and, if it was a child of this process, was reaped.
pub fn is_gone(id: u32) -> bool {
    let stat = fs::read(format!("/proc/{id}/stat")).unwrap_or_default();
    Process::parse(&String::from_utf8_lossy(&stat)).is_none_or(|process| process.is_gone())
}

/// Waits until the process `id` [is gone](is_gone).
///
/// # Panics
/// If it still exists after [`PATIENCE`].
#[track_caller]
pub fn assert_gone(id: u32) {
    until(&format!("process {id} is gone"), || is_gone(id));
}

/// Waits until all processes of the group `id` are gone.
///
/// # Panics
/// If one still exists after [`PATIENCE`].
#[track_caller]
pub fn assert_group_gone(id: u32) {
    let end = Instant::now() + PATIENCE;
    loop {
        let left: Vec<_> = group(id).into_iter().filter(|process| !process.is_gone()).collect();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "left behind after {PATIENCE:?}: {left:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until `condition` holds; `what` names it in the panic.
///
/// # Panics
/// If it does not hold after [`PATIENCE`].
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "not in {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Processes with this text in their environment, such as the folder of their device.
pub fn with_environment(text: &str) -> Vec<Process> {
    all()
        .into_iter()
        .filter(|process| {
            let environment = fs::read(format!("/proc/{}/environ", process.id)).unwrap_or_default();
            String::from_utf8_lossy(&environment).contains(text)
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn lines_of_the_table() {
        let process = Process::parse("42 (a) (b) S 7 40 40 0 -1 4194560").unwrap();
        let name = "a) (b".to_owned();
        assert_eq!(process, Process { id: 42, parent: 7, group: 40, zombie: false, name });
        assert!(Process::parse("42 (sh) Z 7 40").unwrap().zombie);
        for text in ["", "42", "42 (sh", "42 (sh) S", "42 (sh) S x 1", "x (sh) S 1 1"] {
            assert_eq!(Process::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn families_orphans_and_zombies() {
        let me = std::process::id();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & read line"]).stdin(Stdio::piped());
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().unwrap();
        let id = child.id();
        let mut sleeper = 0;
        until("the grandchild sleeps", || {
            sleeper = descendants_of(me).iter().find(|p| p.name == "sleep").map_or(0, |p| p.id);
            sleeper != 0
        });
        assert!(children_of(me).iter().any(|p| p.id == id));
        assert!(children_of(id).iter().any(|p| p.id == sleeper));
        assert!(children_of(me).iter().all(|p| p.id != sleeper));
        drop(child.stdin.take());
        until("the child has ended", || children_of(me).iter().any(|p| p.id == id && p.zombie));
        // Ended and not reaped: it counts as left behind.
        assert!(!is_gone(id));
        assert!(child.wait().unwrap().code().is_some());
        assert!(is_gone(id));
        // The orphan is found by its group only.
        assert!(group(id).iter().any(|p| p.id == sleeper));
        assert!(!is_gone(sleeper));
        assert!(Command::new("kill").arg(sleeper.to_string()).status().unwrap().success());
        assert_gone(sleeper);
        assert_group_gone(id);
    }
}
