//! What this process and its children have used: CPU time and memory.

use std::time::Duration;

/// CPU time, user and system, of this process and of those children that have ended; `None` where
/// the system does not tell.
pub fn cpu() -> Option<Duration> {
    Some(usage(Who::Mine)?.0 + usage(Who::Children)?.0)
}

/// The most memory that any child has had, in KiB.
pub fn memory_of_children() -> Option<u64> {
    Some(usage(Who::Children)?.1)
}

/// The most memory that this process has had since [`forget`], and what it has now, in KiB.
pub fn memory() -> Option<(u64, u64)> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let of = |key: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse().ok()
    };
    Some((of("VmHWM:")?, of("VmRSS:")?))
}

/// Forgets the most memory that this process has had so far.
pub fn forget() {
    // Where it cannot be forgotten, the figure is too high, not too low.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

enum Who {
    Mine,
    Children,
}

#[cfg(unix)]
fn usage(who: Who) -> Option<(Duration, u64)> {
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
    let most = u64::try_from(usage.ru_maxrss).unwrap_or(0);
    // macOS counts bytes.
    let most = if cfg!(target_os = "macos") { most / 1024 } else { most };
    Some((time(usage.ru_utime) + time(usage.ru_stime), most))
}

#[cfg(not(unix))]
fn usage(_: Who) -> Option<(Duration, u64)> {
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
}
