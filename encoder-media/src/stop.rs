//! Ending a run early, with whole files.

use std::{
    io::{self, PipeReader, PipeWriter, Read, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

/// Tells a run to end: it reads no more, and makes whole videos of what it has read. Clones are
/// one and the same.
#[derive(Clone, Debug)]
pub struct Stop(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    flag: Arc<AtomicBool>,
    /// A byte in it wakes a reader that waits for standard input.
    wake: (PipeReader, PipeWriter),
}

impl Stop {
    /// Nobody has said stop.
    ///
    /// # Errors
    /// When the system gives no pipe.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(Shared { flag: Arc::default(), wake: io::pipe()? })))
    }

    /// Says stop. Standard input that is waited for ends.
    pub fn stop(&self) {
        self.0.flag.store(true, SeqCst);
        // A pipe that is full has been written to.
        let _ = (&self.0.wake.1).write(&[0]);
    }

    /// Whether somebody has said stop.
    pub fn is_set(&self) -> bool {
        self.0.flag.load(SeqCst)
    }

    /// For a signal handler: what to set, and what to write a byte to.
    ///
    /// # Errors
    /// When the system gives no more descriptors.
    pub fn ends(&self) -> io::Result<(Arc<AtomicBool>, PipeWriter)> {
        Ok((Arc::clone(&self.0.flag), self.0.wake.1.try_clone()?))
    }

    /// Standard input, which ends when somebody says stop. Only on Unix does it end while it is
    /// waited for.
    ///
    /// # Errors
    /// When the system gives no more descriptors.
    pub fn stdin(&self) -> io::Result<Box<dyn Read + Send>> {
        #[cfg(unix)]
        {
            use std::os::fd::AsFd;
            let input = std::fs::File::from(io::stdin().as_fd().try_clone_to_owned()?);
            Ok(Box::new(Stoppable { input, stop: self.clone() }))
        }
        #[cfg(not(unix))]
        Ok(Box::new(io::stdin()))
    }
}

#[cfg(unix)]
struct Stoppable {
    input: std::fs::File,
    stop: Stop,
}

#[cfg(unix)]
impl Read for Stoppable {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        use std::os::fd::AsRawFd;
        let watch = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut both = [watch(self.input.as_raw_fd()), watch(self.stop.0.wake.0.as_raw_fd())];
        loop {
            if self.stop.is_set() {
                return Ok(0);
            }
            // SAFETY: `both` is two valid pollfds for the length of the call, and their
            // descriptors are open as long as `self` is.
            let ready = unsafe { libc::poll(both.as_mut_ptr(), 2, -1) };
            if ready < 0 {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            } else if both[0].revents != 0 && !self.stop.is_set() {
                return self.input.read(bytes);
            }
        }
    }
}

#[cfg(all(test, unix))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_waits_is_woken() {
        let stop = Stop::new().unwrap();
        let (input, mut source) = io::pipe().unwrap();
        let input = std::fs::File::from(std::os::fd::OwnedFd::from(input));
        let mut reader = Stoppable { input, stop: stop.clone() };
        source.write_all(b"abc").unwrap();
        let mut bytes = [0; 8];
        assert_eq!(reader.read(&mut bytes).unwrap(), 3);
        let (told, waiting) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            told.send(()).unwrap();
            reader.read(&mut [0; 8]).unwrap()
        });
        waiting.recv().unwrap();
        assert!(!stop.is_set());
        stop.clone().stop();
        // The source is still open: without the stop it would wait for ever.
        assert_eq!(thread.join().unwrap(), 0);
        assert!(stop.is_set());
        drop(source);
    }

    #[test]
    fn a_signal_handler_can_say_it_too() {
        let stop = Stop::new().unwrap();
        let (flag, mut wake) = stop.ends().unwrap();
        flag.store(true, SeqCst);
        wake.write_all(&[0]).unwrap();
        assert!(stop.is_set());
    }
}
