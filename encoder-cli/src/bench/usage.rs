//! The CPU time and memory that this process and its children have used.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// CPU time, user and system, of this process and of those children that have ended; `None` if the
/// system does not report it.
pub fn cpu() -> Option<Duration> {
    Some(usage(Who::Mine)? + usage(Who::Children)?)
}

/// Samples the memory of this process's children at intervals.
///
/// (The system's own maximum for ended children includes the time before `exec`, when they had all
/// the memory of this process.)
pub struct Watch {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Watch {
    /// Starts sampling.
    pub fn children() -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let mut most = 0;
            while !flag.load(Relaxed) {
                most = most.max(memory_of_children());
                thread::park_timeout(Duration::from_millis(50));
            }
            most
        });
        Self { is_over, thread }
    }

    /// The most memory that all children had at once, in KiB.
    pub fn end(self) -> u64 {
        self.is_over.store(true, Relaxed);
        self.thread.thread().unpark();
        self.thread.join().unwrap_or(0)
    }
}

/// Memory of all children after their `exec`, in KiB; 0 if the system does not report it.
fn memory_of_children() -> u64 {
    let name = |path: &str| fs::read_to_string(format!("/proc/{path}/comm")).unwrap_or_default();
    let own = name("self");
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return 0 };
    let lists = threads.flatten().map(|thread| thread.path().join("children"));
    let children: String = lists.filter_map(|list| fs::read_to_string(list).ok()).collect();
    let others = children.split_whitespace().filter(|child| name(child) != own);
    others.filter_map(|child| status(child, "VmRSS:")).sum()
}

/// A value of `/proc/PROCESS/status` in KiB.
fn status(process: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The most memory that this process has had since [`forget`], and what it has now, in KiB.
pub fn memory() -> Option<(u64, u64)> {
    Some((status("self", "VmHWM:")?, status("self", "VmRSS:")?))
}

/// Forgets the most memory that this process has had so far.
pub fn forget() {
    // If the reset fails, the figure is too high, not too low.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

enum Who {
    Mine,
    Children,
}

#[cfg(unix)]
fn usage(who: Who) -> Option<Duration> {
    let who = match who {
        Who::Mine => libc::RUSAGE_SELF,
        Who::Children => libc::RUSAGE_CHILDREN,
    };
    // SAFETY: `rusage` is plain data, for which zeroes are valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is valid for the length of the call, which only writes to it.
    if unsafe { libc::getrusage(who, &raw mut usage) } != 0 {
        return None;
    }
    let time = |t: libc::timeval| {
        let micros = u64::try_from(t.tv_usec).unwrap_or(0);
        Duration::from_secs(u64::try_from(t.tv_sec).unwrap_or(0)) + Duration::from_micros(micros)
    };
    Some(time(usage.ru_utime) + time(usage.ru_stime))
}

#[cfg(not(unix))]
fn usage(_: Who) -> Option<Duration> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn used_cpu_time_and_memory_are_counted() {
        let before = cpu().expect("Linux reports it");
        let mut sum = 0u64;
        while cpu().expect("Linux reports it") < before + Duration::from_millis(20) {
            sum = std::hint::black_box(sum + 1);
        }
        forget();
        let (_, now) = memory().expect("Linux reports it");
        let taken = std::hint::black_box(vec![1u8; 64 << 20]);
        let (most, _) = memory().expect("Linux reports it");
        assert!(most >= now + (60 << 10), "{now} {most} {}", taken.len());
    }

    #[test]
    fn running_children_are_counted() {
        let watch = Watch::children();
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().expect("sleep");
        while memory_of_children() == 0 {
            thread::yield_now();
        }
        child.kill().expect("it runs");
        child.wait().expect("it was killed");
        let most = watch.end();
        // Less than this process, of which the child was a copy before `exec`.
        assert!(most < status("self", "VmRSS:").expect("Linux reports it") + (8 << 10), "{most}");
    }
}
