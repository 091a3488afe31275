//! The guard: a helper process that ends the children of this program if it is killed.
//!
//! On Linux a child dies with this program by itself. What the child has started does not: the
//! FFmpeg behind a wrapper script, for example. So the guard knows the process group of each child.
//! Its stdin is a pipe that only this program has open; when the pipe is closed, the guard kills
//! the groups that are left. It runs while there are children.
//!
//! A program without a [helper program](encoder_core::set_helper) has no guard.

use std::{
    collections::BTreeSet,
    io::Write,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};

use encoder_core::{HelperTask, helper_program};
use tracing::debug;

use crate::sys;

/// The task of the guard. A request is `hold GROUP` or `free GROUP`; answers are empty.
static TASK: HelperTask = HelperTask::new("guard", answer).at_end(end);
encoder_core::inventory::submit! { TASK }

/// In the guard: the groups that are held.
static HELD: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

fn answer(request: &str) -> String {
    if let Some((verb, group)) = request.split_once(' ')
        && let Ok(group) = group.parse()
    {
        match verb {
            "hold" => lock(&HELD).insert(group),
            _ => lock(&HELD).remove(&group),
        };
    }
    String::new()
}

fn end() {
    for group in std::mem::take(&mut *lock(&HELD)) {
        sys::signal_group(group, true);
    }
}

/// A running guard, as this program sees it.
#[derive(Debug)]
pub(crate) struct Guard(Mutex<Child>);

impl Guard {
    /// The guard of this program, which is started if it does not run. `None` if there is no helper
    /// program, or it does not start.
    pub(crate) fn current() -> Option<Arc<Self>> {
        static CURRENT: Mutex<Weak<Guard>> = Mutex::new(Weak::new());
        let program = helper_program()?;
        let mut current = lock(&CURRENT);
        if let Some(running) = current.upgrade() {
            return Some(running);
        }
        let mut command = command(&program, &TASK);
        // It must not hold open what the program writes to.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        command.current_dir("/");
        // A signal of the terminal must not end it.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let started = command.spawn().inspect_err(|error| debug!("no guard: {error}"));
        let guard = Arc::new(Self(Mutex::new(started.ok()?)));
        *current = Arc::downgrade(&guard);
        Some(guard)
    }

    /// Holds the process group `group` until the value is dropped.
    pub(crate) fn hold(self: Arc<Self>, group: u32) -> Held {
        self.send("hold", group);
        Held { guard: self, group }
    }

    fn send(&self, verb: &str, group: u32) {
        if let Some(stdin) = &mut lock(&self.0).stdin {
            // An error means that somebody has killed the guard.
            let _ = stdin.write_all(format!("{verb} {group}\n").as_bytes());
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        /// It ends as soon as its stdin is closed.
        const LIMIT: Duration = Duration::from_secs(1);
        let mut child = lock(&self.0);
        drop(child.stdin.take());
        let begun = Instant::now();
        while let Ok(None) = child.try_wait() {
            if begun.elapsed() > LIMIT {
                let _ = child.kill();
                let _ = child.wait();
                return;
            }
            thread::sleep(Duration::from_micros(200));
        }
    }
}

/// A process group that the guard holds.
#[derive(Debug)]
pub(crate) struct Held {
    guard: Arc<Guard>,
    group: u32,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.guard.send("free", self.group);
    }
}

/// The command that performs `task` in `program`.
pub(crate) fn command(program: &Path, task: &HelperTask) -> Command {
    let mut command = Command::new(program);
    command.args(task.arguments());
    #[cfg(unix)]
    if let Some(name) = std::env::current_exe().ok().as_deref().and_then(Path::file_name)
        && program.starts_with("/proc/self")
    {
        std::os::unix::process::CommandExt::arg0(&mut command, name);
    }
    command
}

/// Poisoned locks are used: a panic leaves no partial change behind them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(all(test, unix))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_are_held_at_the_end_are_killed() {
        let start = || {
            let mut command = Command::new("sleep");
            std::os::unix::process::CommandExt::process_group(&mut command, 0);
            command.arg("1000").spawn().unwrap()
        };
        let (mut held, mut freed) = (start(), start());
        for (verb, child) in [("hold", &held), ("hold", &freed), ("free", &freed)] {
            answer(&format!("{verb} {}", child.id()));
        }
        answer("hold nonsense");
        end();
        let signal = std::os::unix::process::ExitStatusExt::signal(&held.wait().unwrap());
        assert_eq!(signal, Some(libc::SIGKILL));
        assert!(freed.try_wait().unwrap().is_none());
        freed.kill().unwrap();
        freed.wait().unwrap();
    }
}
