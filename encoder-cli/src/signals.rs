//! Ctrl-C, SIGTERM and SIGHUP: the first signal ends the run with whole files, a second Ctrl-C or
//! SIGTERM ends it at once.

use std::io;

use encoder_pipeline::stop::Stop;

/// Returns a [`Stop`] that SIGINT, SIGTERM and SIGHUP set.
///
/// SIGHUP stays ignored if it was ignored at the start (`nohup`). A second SIGHUP has no effect: a
/// terminal that is closed causes two.
///
/// # Errors
/// When the system refuses.
pub fn stop() -> io::Result<Stop> {
    let stop = Stop::new()?;
    #[cfg(unix)]
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        use signal_hook::{flag, low_level::pipe};
        if signal == libc::SIGHUP && is_ignored(signal) {
            continue;
        }
        let (set, wake) = stop.ends()?;
        if signal != libc::SIGHUP {
            // The order matters: the signal has its default action only if the flag is already set.
            flag::register_conditional_default(signal, set.clone())?;
        }
        flag::register(signal, set)?;
        pipe::register(signal, std::os::fd::OwnedFd::from(wake))?;
    }
    // A file size limit must be an error of the write that exceeds it, which names the file, and
    // not end the program.
    #[cfg(unix)]
    signal_hook::flag::register(libc::SIGXFSZ, std::sync::Arc::new(false.into()))?;
    Ok(stop)
}

/// Whether this process ignores the signal.
#[cfg(unix)]
fn is_ignored(signal: libc::c_int) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action the call changes nothing; it writes the present action to a
    // place that is large enough and lives. All zeroes is a valid `sigaction`.
    let action = unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
        action.assume_init()
    };
    action.sa_sigaction == libc::SIG_IGN
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn the_runtime_ignores_one_signal() {
        // Rust ignores SIGPIPE, and nothing else changes these two.
        assert!(is_ignored(libc::SIGPIPE));
        assert!(!is_ignored(libc::SIGSEGV));
    }
}
