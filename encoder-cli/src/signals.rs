//! Ctrl-C and SIGTERM: the first ends the run with whole files, the second at once.

use std::io;

use encoder_pipeline::stop::Stop;

/// A stop that SIGINT and SIGTERM say.
///
/// # Errors
/// When the system refuses.
pub fn stop() -> io::Result<Stop> {
    let stop = Stop::new()?;
    #[cfg(unix)]
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        use signal_hook::{flag, low_level::pipe};
        let (set, wake) = stop.ends()?;
        // In this order: only a flag that is set already makes the signal what it is by default.
        flag::register_conditional_default(signal, set.clone())?;
        flag::register(signal, set)?;
        pipe::register(signal, std::os::fd::OwnedFd::from(wake))?;
    }
    // A limit for files is an error of the write that meets it, which knows which file, not the end
    // of the program.
    #[cfg(unix)]
    signal_hook::flag::register(libc::SIGXFSZ, std::sync::Arc::new(false.into()))?;
    Ok(stop)
}
