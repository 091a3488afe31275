//! Ctrl-C and SIGTERM: the first signal ends the run with whole files, the second ends it at once.

use std::io;

use encoder_pipeline::stop::Stop;

/// Returns a [`Stop`] that SIGINT and SIGTERM set.
///
/// # Errors
/// When the system refuses.
pub fn stop() -> io::Result<Stop> {
    let stop = Stop::new()?;
    #[cfg(unix)]
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        use signal_hook::{flag, low_level::pipe};
        let (set, wake) = stop.ends()?;
        // The order matters: the signal has its default action only if the flag is already set.
        flag::register_conditional_default(signal, set.clone())?;
        flag::register(signal, set)?;
        pipe::register(signal, std::os::fd::OwnedFd::from(wake))?;
    }
    // A file size limit must be an error of the write that exceeds it, which names the file, and
    // not end the program.
    #[cfg(unix)]
    signal_hook::flag::register(libc::SIGXFSZ, std::sync::Arc::new(false.into()))?;
    Ok(stop)
}
