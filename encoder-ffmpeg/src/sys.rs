//! Calls of the system that the standard library does not offer: every `unsafe` line of this crate.
//!
//! Off Unix, reads from and writes to a child that hangs cannot be bounded; the rest works alike.

use std::{
    io::{self, IoSlice, Read, Write},
    path::Path,
    process::{ChildStdin, ChildStdout, Command},
    time::Duration,
};

use crate::wait::Wait;

/// What a file is to be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// To be read and written.
    ReadWrite,
    /// To be run as a program.
    Run,
}

/// Whether this user may use the file, without opening it: opening a device node calls its driver,
/// which may hang.
///
/// # Errors
/// The system's if the user may not, or there is no such file.
pub(crate) fn check_access(path: &Path, access: Access) -> io::Result<()> {
    #[cfg(unix)]
    {
        let mode = match access {
            Access::ReadWrite => libc::R_OK | libc::W_OK,
            Access::Run => libc::X_OK,
        };
        let path = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str());
        let path = std::ffi::CString::new(path)?;
        // SAFETY: `path` is a string that ends with a zero byte and lives through the call.
        match unsafe { libc::access(path.as_ptr(), mode) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
    #[cfg(not(unix))]
    {
        let _ = access;
        path.metadata().map(drop)
    }
}

/// Makes the child a leader of its own process group, so that Ctrl-C in a terminal does not end
/// it before this process has closed the stream. On Linux the child also dies with the thread that
/// spawns it.
pub(crate) fn isolate(command: &mut Command) {
    let _ = &command;
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    #[cfg(target_os = "linux")]
    {
        let parent = std::process::id();
        let die_with_parent = move || {
            // SAFETY: prctl with PR_SET_PDEATHSIG and getppid are async-signal-safe and touch no
            // memory of ours.
            let (set, now) =
                unsafe { (libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL), libc::getppid()) };
            if set != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have died before the signal was requested.
            if now.cast_unsigned() != parent {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            Ok(())
        };
        // SAFETY: the closure runs between fork and exec; it calls only async-signal-safe
        // functions and does not allocate.
        unsafe { std::os::unix::process::CommandExt::pre_exec(command, die_with_parent) };
    }
}

/// Makes a child keep the memory of frames that it has encoded. Otherwise glibc returns the memory
/// of each frame to the system and gets new pages for the next frame, and clearing these takes as
/// long as copying the frame. Variables that the user has set are kept; other C libraries ignore
/// both variables.
pub(crate) fn keep_memory(command: &mut Command) {
    // The largest value that glibc accepts on 64 bits: frames of 3840×2160 and more are smaller.
    for (name, bytes) in
        [("MALLOC_MMAP_THRESHOLD_", 32 << 20), ("MALLOC_TRIM_THRESHOLD_", 256 << 20)]
    {
        if std::env::var_os(name).is_none() {
            command.env(name, bytes.to_string());
        }
    }
}

/// Requests the end of the process group that a child leads, or kills it: the child and all
/// processes that it has started. The child must not be reaped yet. There are no groups off Unix.
pub(crate) fn signal_group(child: u32, force: bool) {
    let _ = (child, force);
    #[cfg(unix)]
    if let Ok(group) = libc::pid_t::try_from(child) {
        let signal = if force { libc::SIGKILL } else { libc::SIGTERM };
        // SAFETY: kill takes plain numbers. The child is not reaped, so its process id, which is
        // also that of its group, cannot belong to another process.
        unsafe { libc::kill(-group, signal) };
    }
}

/// Kills the processes that an ended child has left running, because they would keep its pipes
/// open. The child must not be reaped yet, and this does not reap it. Returns whether the child may
/// be reaped: false while it runs.
pub(crate) fn sweep_group(child: u32) -> bool {
    let _ = child;
    #[cfg(unix)]
    {
        // SAFETY: siginfo_t is plain data, for which zeroes are valid.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: `info` is valid for the length of the call; the rest are numbers.
        let asked = unsafe { libc::waitid(libc::P_PID, child, &raw mut info, options) };
        // The number stays zero while the child runs.
        if asked == 0 && info.si_signo == 0 {
            return false;
        }
        if asked == 0 {
            signal_group(child, true);
        }
    }
    true
}

/// Prepares the pipe to a child: enlarges it for whole frames where the system allows it, and makes
/// its writes non-blocking.
pub(crate) fn prepare_pipe(pipe: &ChildStdin) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::fd::AsRawFd;
        let fd = pipe.as_raw_fd();
        enlarge_pipe(pipe);
        // SAFETY: the descriptor is open for the calls; both commands take and return numbers. The
        // flag belongs to our end of the pipe alone.
        let set = unsafe {
            let flags = libc::fcntl(fd, libc::F_GETFL);
            flags >= 0 && libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) >= 0
        };
        if !set {
            return Err(io::Error::last_os_error());
        }
    }
    let _ = pipe;
    Ok(())
}

/// Enlarges a pipe for whole frames, where the system allows it.
#[cfg(unix)]
pub(crate) fn enlarge_pipe(pipe: &impl std::os::fd::AsRawFd) {
    let _ = pipe;
    #[cfg(target_os = "linux")]
    // SAFETY: the descriptor is open for the call; F_SETPIPE_SZ takes a number. A refusal (the
    // user's limit) only costs speed.
    unsafe {
        libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, 1 << 20)
    };
}

#[cfg(not(unix))]
pub(crate) fn enlarge_pipe<T>(_: &T) {}

/// Waits until `pipe` is ready for `events` or broken; false when `limit` passed first.
#[cfg(unix)]
fn wait_for(pipe: &impl std::os::fd::AsRawFd, events: i16, limit: Duration) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: pipe.as_raw_fd(), events, revents: 0 };
    let begun = std::time::Instant::now();
    loop {
        let left = limit.saturating_sub(begun.elapsed());
        let ms = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: `poll` is one valid pollfd for the length of the call.
        match unsafe { libc::poll(&raw mut poll, 1, ms) } {
            0 if ms == i32::MAX => {}
            0 => return Ok(false),
            n if n > 0 => return Ok(true),
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// Whether the child has written bytes that were not read yet.
pub(crate) fn has_output(pipe: &ChildStdout) -> bool {
    #[cfg(unix)]
    {
        use std::os::fd::AsRawFd;
        let mut poll = libc::pollfd { fd: pipe.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: `poll` is one valid pollfd for the length of the call.
        unsafe { libc::poll(&raw mut poll, 1, 0) > 0 && poll.revents & libc::POLLIN != 0 }
    }
    #[cfg(not(unix))]
    {
        let _ = pipe;
        false
    }
}

/// Waits until the pipe takes bytes or is broken; false when the wait ended first.
fn wait_writable(pipe: &ChildStdin, wait: &mut Wait) -> io::Result<bool> {
    let _ = pipe;
    while let Some(left) = wait.next() {
        let _ = left;
        #[cfg(unix)]
        if !wait_for(pipe, libc::POLLOUT, left)? {
            continue;
        }
        return Ok(true);
    }
    Ok(false)
}

/// The stdout of a child; each wait for bytes has a limit.
pub(crate) struct LimitedStdout<'a> {
    pub(crate) pipe: &'a mut ChildStdout,
    pub(crate) stall: Duration,
}

impl Read for LimitedStdout<'_> {
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] when no byte comes for `stall`; otherwise the system's.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let _ = self.stall;
        #[cfg(unix)]
        if !wait_for(&*self.pipe, libc::POLLIN, self.stall)? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.pipe.read(buffer)
    }
}

/// Writes all of `slices` in as few calls as the system takes, without joining them first. With
/// `is_stable`, their bytes do not change before the child has read them: then the pages themselves
/// are put into the pipe, where the system supports it, and the child's read is the only copy.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`] when the pipe takes nothing for the length of `wait`, which begins
/// again each time that it takes something; otherwise the system's.
pub(crate) fn write_all(
    pipe: &mut ChildStdin,
    mut slices: &mut [IoSlice<'_>],
    wait: &mut Wait,
    mut is_stable: bool,
) -> io::Result<()> {
    /// The most slices that every system takes in one call.
    const BATCH: usize = 1024;
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        let batch = slices.get(..slices.len().min(BATCH)).unwrap_or_default();
        let written = if is_stable { splice(pipe, batch) } else { pipe.write_vectored(batch) };
        match written {
            // Where the system lacks the call or does not allow it, plain writes are used.
            Err(error) if is_stable && !concerns_pipe(&error) => is_stable = false,
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait.restart();
                if !wait_writable(pipe, wait)? {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether a plain write would end in the same error.
fn concerns_pipe(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, Interrupted, WouldBlock};
    matches!(error.kind(), BrokenPipe | Interrupted | WouldBlock)
}

/// Puts the memory of `slices` into the pipe; returns how many bytes it took.
#[cfg(target_os = "linux")]
fn splice(pipe: &ChildStdin, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    use std::os::fd::AsRawFd;
    // SAFETY: IoSlice has the layout of iovec, and `slices` lives through the call, which reads
    // as many of them. The system holds the pages for the pipe, even if this process frees
    // their memory; nothing here is written through them.
    let taken = unsafe {
        libc::vmsplice(
            pipe.as_raw_fd(),
            slices.as_ptr().cast(),
            slices.len(),
            libc::SPLICE_F_NONBLOCK,
        )
    };
    usize::try_from(taken).map_err(|_| io::Error::last_os_error())
}

#[cfg(not(target_os = "linux"))]
fn splice(_: &ChildStdin, _: &[IoSlice<'_>]) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(all(test, unix))]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{io::Read, process::Stdio};

    use encoder_core::Waiter;

    use super::*;

    /// The bytes that a child reads when `data` is written to it in pieces.
    fn through_cat(data: &[u8], piece: usize, is_stable: bool) -> Vec<u8> {
        let mut command = Command::new("cat");
        isolate(&mut command);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let mut out = child.stdout.take().unwrap();
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            out.read_to_end(&mut all).unwrap();
            all
        });
        prepare_pipe(&pipe).unwrap();
        let mut slices: Vec<_> = data.chunks(piece).map(IoSlice::new).collect();
        slices.insert(1, IoSlice::new(&[]));
        let mut wait = Wait::new(&Waiter::new(), Duration::from_secs(60));
        write_all(&mut pipe, &mut slices, &mut wait, is_stable).unwrap();
        drop(pipe);
        assert!(child.wait().unwrap().success());
        reader.join().unwrap()
    }

    #[test]
    fn slices_arrive_in_order_whatever_their_number() {
        let data: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
        for piece in [700, 4096, 100_001, 5_000_000] {
            for is_stable in [false, true] {
                assert!(through_cat(&data, piece, is_stable) == data, "{piece} {is_stable}");
            }
        }
    }

    #[test]
    fn access_to_files() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let kind = |path: &Path, access| check_access(path, access).map_err(|e| e.kind());
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
        assert_eq!(kind(&file, Access::ReadWrite), Ok(()));
        // Without a run bit nobody may run it, not even the superuser.
        assert_eq!(kind(&file, Access::Run), Err(io::ErrorKind::PermissionDenied));
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(kind(&file, Access::Run), Ok(()));
        let link = folder.path().join("link");
        symlink("nowhere", &link).unwrap();
        assert_eq!(kind(&link, Access::ReadWrite), Err(io::ErrorKind::NotFound));
        assert_eq!(kind(Path::new("a\0b"), Access::Run), Err(io::ErrorKind::InvalidInput));
    }

    #[test]
    fn a_child_keeps_its_memory() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $MALLOC_MMAP_THRESHOLD_ $MALLOC_TRIM_THRESHOLD_"]);
        keep_memory(&mut command);
        let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let ours = |name, bytes: &str| std::env::var(name).unwrap_or_else(|_| bytes.into());
        let mmap = ours("MALLOC_MMAP_THRESHOLD_", "33554432");
        let trim = ours("MALLOC_TRIM_THRESHOLD_", "268435456");
        assert_eq!(output.trim(), format!("{mmap} {trim}"));
    }

    #[test]
    fn processes_that_a_child_leaves_running_end_with_it() {
        let mut command = Command::new("sh");
        isolate(&mut command);
        command.args(["-c", "sleep 1000 & read line"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        assert!(!sweep_group(child.id()));
        assert!(child.try_wait().unwrap().is_none());
        drop(stdin);
        let id = child.id();
        let (ended, end) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            let read = stdout.read(&mut [0]);
            let _ = ended.send(());
            read.unwrap()
        });
        // The stdout is open until the sleeper is gone.
        while end.try_recv().is_err() {
            let _ = sweep_group(id);
            std::thread::yield_now();
        }
        assert_eq!(reader.join().unwrap(), 0);
        assert!(child.wait().unwrap().code().is_some());
    }

    #[test]
    fn a_child_that_writes_nothing_is_a_timeout() {
        let mut command = Command::new("sh");
        isolate(&mut command);
        command.args(["-c", "echo line; exec sleep 1000"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut pipe = child.stdout.take().unwrap();
        let mut buffer = [0; 64];
        let mut read = |ms| {
            let stall = Duration::from_millis(ms);
            LimitedStdout { pipe: &mut pipe, stall }.read(&mut buffer)
        };
        assert_eq!(read(60_000).unwrap(), 5);
        assert_eq!(read(50).unwrap_err().kind(), io::ErrorKind::TimedOut);
        signal_group(child.id(), true);
        assert_eq!(read(60_000).unwrap(), 0);
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn a_child_that_does_not_read_is_a_timeout_and_a_dead_one_a_broken_pipe() {
        let mut command = Command::new("sleep");
        isolate(&mut command);
        let mut child = command.arg("1000").stdin(Stdio::piped()).spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        prepare_pipe(&pipe).unwrap();
        let data = vec![0; 4 << 20];
        let mut wait = Wait::new(&Waiter::new(), Duration::from_millis(50));
        for is_stable in [true, false] {
            let all = &mut [IoSlice::new(&data)];
            let error = write_all(&mut pipe, all, &mut wait, is_stable).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
        signal_group(child.id(), true);
        assert!(!child.wait().unwrap().success());
        for is_stable in [true, false] {
            let all = &mut [IoSlice::new(&data)];
            let error = write_all(&mut pipe, all, &mut wait, is_stable).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        }
    }
}
