//! Ends a run early, with complete files.

use std::{
    fs::File,
    io::{self, PipeReader, PipeWriter, Read, Write},
    path::Path,
    sync::{
        Arc, Once,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::channel,
    },
    thread,
    time::Duration,
};

use encoder_core::{Waited, Waiter};

/// Ends a run early: the run stops reading, stops waiting for a busy encoder, and completes the
/// videos of the frames that it has read. Clones share the same state.
#[derive(Clone, Debug)]
pub struct Stop(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    flag: Arc<AtomicBool>,
    /// Interrupted when the stop is set.
    waiter: Waiter,
    /// A pipe; a byte in it wakes a reader that waits for its input.
    wake: (PipeReader, PipeWriter),
    woken: Once,
}

impl Stop {
    /// A stop that is not set.
    ///
    /// # Errors
    /// When the system cannot create a pipe.
    pub fn new() -> io::Result<Self> {
        let (flag, waiter) = (Arc::default(), Waiter::new());
        Ok(Self(Arc::new(Shared { flag, waiter, wake: io::pipe()?, woken: Once::new() })))
    }

    /// Sets the stop. Ends waits for standard input, pipes and busy encoders at once.
    pub fn stop(&self) {
        self.0.flag.store(true, SeqCst);
        self.0.waiter.interrupt();
        // A single byte: a write to a full pipe would block. Nothing else is written, and the
        // reading end is open, so it does not fail.
        self.0.woken.call_once(|| drop((&self.0.wake.1).write(&[0])));
    }

    /// Whether the stop is set.
    pub fn is_set(&self) -> bool {
        self.0.flag.load(SeqCst)
    }

    /// The waiter that the stop interrupts, for sessions.
    pub fn waiter(&self) -> &Waiter {
        &self.0.waiter
    }

    /// For a signal handler, which must not call [`stop`](Self::stop): the handler sets the flag
    /// and writes a byte to the pipe, and a thread does the rest. The thread ends with the first
    /// byte, or when the pipe is closed.
    ///
    /// # Errors
    /// When the system has no more descriptors or threads.
    pub fn ends(&self) -> io::Result<(Arc<AtomicBool>, PipeWriter)> {
        let (mut signalled, signal) = io::pipe()?;
        let stop = self.clone();
        thread::Builder::new().name("stop".into()).spawn(move || {
            if signalled.read_exact(&mut [0]).is_ok() {
                stop.stop();
            }
        })?;
        Ok((Arc::clone(&self.0.flag), signal))
    }

    /// Standard input. On Unix it ends when the stop is set, also during a blocked read; elsewhere
    /// the stop has no effect on it.
    ///
    /// # Errors
    /// When the system has no more descriptors.
    pub fn stdin(&self) -> io::Result<Box<dyn Read + Send>> {
        #[cfg(unix)]
        {
            use std::os::fd::AsFd;
            let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
            Ok(self.reader(input))
        }
        #[cfg(not(unix))]
        Ok(Box::new(io::stdin()))
    }

    /// Opens a file, such as a named pipe, which ends when the stop is set. The wait for the writer
    /// of a named pipe is also ended, and a blocked read, but the latter only on Unix.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn open(&self, path: &Path) -> io::Result<Box<dyn Read + Send>> {
        let (send, opened) = channel();
        let waiter = self.0.waiter.child();
        let (done, path) = (waiter.clone(), path.to_owned());
        // After a stop, this thread waits until a writer opens the pipe, or the process ends.
        thread::Builder::new().name("open".into()).spawn(move || {
            let _ = send.send(File::open(path));
            done.interrupt();
        })?;
        while waiter.wait(Duration::from_secs(3600)) == Waited::Elapsed {}
        match opened.try_recv() {
            Ok(file) => Ok(self.reader(file?)),
            Err(_) => Ok(Box::new(io::empty())),
        }
    }

    fn reader(&self, input: File) -> Box<dyn Read + Send> {
        #[cfg(unix)]
        {
            enlarge_pipe(&input);
            Box::new(Stoppable { input, stop: self.clone() })
        }
        #[cfg(not(unix))]
        Box::new(input)
    }
}

/// Makes a pipe hold as much as it may, if `input` is one: frames are large, and each read of a small
/// pipe costs two system calls and a switch to the writer. Has no effect on other files.
#[cfg(unix)]
fn enlarge_pipe(input: &File) {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        /// The most that the system allows by default.
        const BYTES: libc::c_int = 1 << 20;
        // SAFETY: The descriptor is open as long as `input` is borrowed; the call takes no pointer.
        // An error leaves the pipe as it is.
        let _ = unsafe { libc::fcntl(input.as_raw_fd(), libc::F_SETPIPE_SZ, BYTES) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = input;
}

#[cfg(unix)]
struct Stoppable {
    input: File,
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
    use std::time::Duration;

    use encoder_core::Waited;

    use super::*;

    #[test]
    fn a_reader_that_waits_is_woken() {
        let stop = Stop::new().unwrap();
        let (input, mut source) = io::pipe().unwrap();
        let input = File::from(std::os::fd::OwnedFd::from(input));
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
        assert_eq!(stop.waiter().state(), Waited::Elapsed);
        stop.clone().stop();
        // The source is still open: without the stop, the read would block forever.
        assert_eq!(thread.join().unwrap(), 0);
        assert!(stop.is_set());
        assert_eq!(stop.waiter().state(), Waited::Interrupted);
        drop(source);
    }

    #[test]
    fn a_stop_that_is_set_again_does_not_block() {
        let stop = Stop::new().unwrap();
        // More than the pipe holds.
        (0..100_000).for_each(|_| stop.stop());
        assert!(stop.is_set());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_pipe_holds_more() {
        use std::os::fd::{AsRawFd, OwnedFd};
        let (input, _source) = io::pipe().unwrap();
        let input = File::from(OwnedFd::from(input));
        // SAFETY: The descriptor is open; the call takes no pointer.
        let size = || unsafe { libc::fcntl(input.as_raw_fd(), libc::F_GETPIPE_SZ) };
        let before = size();
        enlarge_pipe(&input);
        assert!(size() >= before && size() > 0);
        // A file is no pipe.
        enlarge_pipe(&File::open("/dev/null").unwrap());
    }

    #[test]
    fn a_wait_for_the_writer_of_a_pipe_ends() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let read = |stop: &Stop| {
            let (stop, pipe) = (stop.clone(), pipe.clone());
            thread::spawn(move || {
                let mut text = String::new();
                stop.open(&pipe).unwrap().read_to_string(&mut text).unwrap();
                text
            })
        };
        // Without a stop, all that the writer writes is read.
        let reader = read(&Stop::new().unwrap());
        std::fs::write(&pipe, "abc").unwrap();
        assert_eq!(reader.join().unwrap(), "abc");
        // Nobody opens the pipe for writing.
        let stop = Stop::new().unwrap();
        let reader = read(&stop);
        stop.stop();
        assert_eq!(reader.join().unwrap(), "");
        // The writer writes nothing more.
        let pipe = directory.path().join("other");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let stop = Stop::new().unwrap();
        let (send, begun) = channel();
        let (at, stopped) = (pipe.clone(), stop.clone());
        let reader = thread::spawn(move || {
            let mut input = stopped.open(&at).unwrap();
            let mut bytes = [0; 8];
            send.send(input.read(&mut bytes).unwrap()).unwrap();
            input.read(&mut bytes).unwrap()
        });
        let mut writer = File::options().write(true).open(&pipe).unwrap();
        writer.write_all(b"a").unwrap();
        assert_eq!(begun.recv().unwrap(), 1);
        stop.stop();
        assert_eq!(reader.join().unwrap(), 0);
        drop(writer);
        assert!(Stop::new().unwrap().open(&directory.path().join("nowhere")).is_err());
    }

    #[test]
    fn a_signal_handler_ends_a_wait() {
        let stop = Stop::new().unwrap();
        let (flag, mut signal) = stop.ends().unwrap();
        let (send, ended) = std::sync::mpsc::channel();
        let waiter = stop.waiter().child();
        std::thread::spawn(move || send.send(waiter.wait(Duration::from_secs(3600))));
        // As a signal handler does it.
        flag.store(true, SeqCst);
        signal.write_all(&[0]).unwrap();
        let ended = ended.recv_timeout(Duration::from_secs(60));
        assert_eq!(ended, Ok(Waited::Interrupted));
        assert!(stop.is_set());
        // A blocked read of standard input also ends.
        let (input, source) = io::pipe().unwrap();
        let input = File::from(std::os::fd::OwnedFd::from(input));
        assert_eq!(Stoppable { input, stop }.read(&mut [0; 8]).unwrap(), 0);
        drop(source);
    }

    #[test]
    fn a_handler_that_is_gone_is_no_stop() {
        let stop = Stop::new().unwrap();
        let (_, signal) = stop.ends().unwrap();
        drop(signal);
        let shared = Arc::downgrade(&stop.0);
        assert!(!stop.is_set());
        drop(stop);
        // The thread has ended, and released its descriptors.
        while shared.strong_count() > 0 {
            thread::yield_now();
        }
    }
}
