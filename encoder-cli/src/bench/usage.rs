//! What this process and its children have used: CPU time and memory.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// CPU time, user and system, of this process and of those children that have ended; `None` where
/// the system does not tell.
pub fn cpu() -> Option<Duration> {
    Some(usage(Who::Mine)? + usage(Who::Children)?)
}

/// Looks at the children of this process now and then.
///
/// (What the system keeps of children that have ended counts their time before they became another
/// program, when they had all the memory of this one.)
pub struct Watch {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Watch {
    /// Begins to look.
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

/// Memory of all children that are programs of their own, in KiB; 0 where the system does not tell.
fn memory_of_children() -> u64 {
    let name = |path: &str| fs::read_to_string(format!("/proc/{path}/comm")).unwrap_or_default();
    let own = name("self");
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return 0 };
    let lists = threads.flatten().map(|thread| thread.path().join("children"));
    let children: String = lists.filter_map(|list| fs::read_to_string(list).ok()).collect();
    let others = children.split_whitespace().filter(|child| name(child) != own);
    others.filter_map(|child| status(child, "VmRSS:")).sum()
}

/// A figure of a process in KiB.
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
    // Where it cannot be forgotten, the figure is too high, not too low.
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
    fn what_was_used_is_counted() {
        let before = cpu().expect("Linux tells");
        let mut sum = 0u64;
        while cpu().expect("Linux tells") < before + Duration::from_millis(20) {
            sum = std::hint::black_box(sum + 1);
        }
        forget();
        let (_, now) = memory().expect("Linux tells");
        let taken = std::hint::black_box(vec![1u8; 64 << 20]);
        let (most, _) = memory().expect("Linux tells");
        assert!(most >= now + (60 << 10), "{now} {most} {}", taken.len());
    }

    #[test]
    fn children_are_counted_while_they_live() {
        let watch = Watch::children();
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().expect("sleep");
        while memory_of_children() == 0 {
            thread::yield_now();
        }
        child.kill().expect("it runs");
        child.wait().expect("it was killed");
        let most = watch.end();
        // Less than this process has, of which it was a copy at first.
        assert!(most < status("self", "VmRSS:").expect("Linux tells") + (8 << 10), "{most}");
    }
}
