//! Runs child processes: every FFmpeg, `nvidia-smi`, and the measurements of a benchmark.
//!
//! A child leads a process group of its own, so that Ctrl-C in a terminal does not end it before
//! its parent has closed its input. Its stderr is always read, so that it cannot block on writing
//! to it. It is killed with its group when its owner drops it, or when a waiter is stopped
//! (`Child::kill_on_stop`). When this program dies, the guard kills it with its group, and
//! without a guard Linux kills the child alone. It is always reaped. A child that the system cannot
//! end, because it hangs in a broken driver, keeps its threads and delays other work by at most
//! [`GONE`].

use std::{
    fmt,
    io::{self, Read, Write},
    process::{ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    task::Wake,
    thread,
    time::Duration,
};

use encoder_core::{OnStop, Waiter};
use tracing::debug;

use crate::{
    guard::{Guard, Held},
    sys,
    tail::SharedTail,
    wait::Wait,
};

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It ended by itself, with this status.
    Code(i32),
    /// It was ended by this signal.
    Signal(i32),
    /// It was killed because it had not ended after this time.
    TimedOut(Duration),
    /// The system did not report how it ended.
    Unknown,
}

impl Exit {
    fn of(status: ExitStatus) -> Self {
        #[cfg(unix)]
        if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
            return Self::Signal(signal);
        }
        status.code().map_or(Self::Unknown, Self::Code)
    }

    /// Whether it ended by itself with status 0.
    pub fn is_success(self) -> bool {
        self == Self::Code(0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(11) => f.write_str("a segmentation fault (signal 11)"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::TimedOut(limit) => write!(f, "no answer in {} s", limit.as_secs_f32()),
            Self::Unknown => f.write_str("an unknown exit status"),
        }
    }
}

/// The stdin of a child.
pub enum Input {
    /// Empty: the end of the stream at once.
    Empty,
    /// These bytes.
    Bytes(Vec<u8>),
    /// The output of this function, which runs on its own thread.
    Writer(Box<dyn FnOnce(ChildStdin) -> io::Result<()> + Send>),
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::Writer(_) => f.write_str("Writer"),
        }
    }
}

/// The result of [`run`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Output {
    /// How it ended.
    pub exit: Exit,
    /// Whether it read all of its input.
    pub took_input: bool,
    /// Its stdout, up to [`MAX_STDOUT`].
    pub stdout: Vec<u8>,
    /// The last lines of its stderr, one line each; FFmpeg's lines below the level of a warning are
    /// dropped first.
    pub stderr: String,
}

/// The most that [`run`] reads of a child's stdout. A child that writes more finds its stdout
/// closed.
pub const MAX_STDOUT: usize = 64 << 20;

/// How long to wait for a killed child to disappear; after that its thread alone waits for it.
pub const GONE: Duration = Duration::from_secs(5);

/// Runs a child to its end and captures its output. It counts as ended when it has exited and its
/// pipes are closed. If that takes longer than `deadline`, it is killed and the exit is
/// [`Exit::TimedOut`]. May be called from anywhere, async code included; blocks.
///
/// # Errors
/// The system's, when the child or a thread cannot be started.
pub fn run(command: Command, input: Input, deadline: Duration) -> io::Result<Output> {
    run_until_stop(command, input, deadline, &Waiter::new())
}

/// As [`run`], but a stop of `waiter` ends the child early, as the deadline does.
pub(crate) fn run_until_stop(
    command: Command,
    input: Input,
    deadline: Duration,
    waiter: &Waiter,
) -> io::Result<Output> {
    let mut wait = Wait::new(waiter, deadline);
    let tail = SharedTail::default();
    let (mut child, stdin, stdout) = Child::spawn(command, {
        let tail = tail.clone();
        move |bytes| tail.push(bytes)
    })?;
    let written = feed(stdin, input)?;
    let collected = Arc::new(Mutex::new(Vec::new()));
    let read = collect(stdout, Arc::clone(&collected))?;

    let written = receive(&mut wait, &written);
    let read = receive(&mut wait, &read);
    let exit = match (&written, &read, child.wait_until(&mut wait)) {
        (Some(_), Some(_), Some(exit)) => exit,
        _ => {
            child.kill();
            Exit::TimedOut(deadline)
        }
    };
    if read == Some(Completeness::Cut) {
        // The child may have ended because its stdout was closed, which is not its fault.
        let limit = MAX_STDOUT >> 20;
        tail.push(format!("\n[error] more than {limit} MiB of output\n").as_bytes());
    }
    let stdout = std::mem::take(&mut *lock(&collected));
    Ok(Output { exit, took_input: written.unwrap_or(false), stdout, stderr: tail.text() })
}

/// Receives the one value of a channel; `None` when the wait is over first, or there is no value.
fn receive<T>(wait: &mut Wait, channel: &Receiver<T>) -> Option<T> {
    loop {
        // It may have arrived before the wait was over.
        match channel.recv_timeout(wait.next().unwrap_or_default()) {
            Err(RecvTimeoutError::Timeout) if wait.next().is_some() => {}
            received => return received.ok(),
        }
    }
}

/// Writes a child's input on a thread; sends whether the child read all of it.
fn feed(stdin: ChildStdin, input: Input) -> io::Result<Receiver<bool>> {
    let (sender, written) = sync_channel(1);
    let write = move |mut stdin: ChildStdin| match input {
        Input::Empty => Ok(()),
        Input::Bytes(bytes) => stdin.write_all(&bytes),
        Input::Writer(write) => write(stdin),
    };
    thread::Builder::new().name("child-stdin".into()).spawn(move || {
        let _ = sender.send(write(stdin).is_ok());
    })?;
    Ok(written)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Completeness {
    Whole,
    Cut,
}

/// Reads a child's stdout on a thread, up to [`MAX_STDOUT`].
fn collect(
    mut stdout: ChildStdout,
    collected: Arc<Mutex<Vec<u8>>>,
) -> io::Result<Receiver<Completeness>> {
    let (sender, read) = sync_channel(1);
    thread::Builder::new().name("child-stdout".into()).spawn(move || {
        let end = read_all(&mut stdout, 64 << 10, |bytes| {
            let mut collected = lock(&collected);
            collected.extend_from_slice(bytes);
            collected.len() <= MAX_STDOUT
        });
        // The pipe is closed before the owner of the child receives the end.
        drop(stdout);
        let _ = sender.send(end);
    })?;
    Ok(read)
}

/// Reads a pipe to its end, or until `take` returns false.
fn read_all(
    pipe: &mut impl Read,
    buffer: usize,
    mut take: impl FnMut(&[u8]) -> bool,
) -> Completeness {
    let mut buffer = vec![0; buffer];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => return Completeness::Whole,
            Ok(n) if take(buffer.get(..n).unwrap_or_default()) => {}
            Ok(_) => return Completeness::Cut,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Completeness::Whole,
        }
    }
}

/// A running child whose stdin and stdout belong to its owner.
pub struct Child {
    process: Arc<Mutex<Process>>,
    ended: Receiver<Exit>,
    exit: Option<Exit>,
    on_stop: Option<OnStop>,
    /// Dropped after the child has ended.
    _held: Option<Held>,
}

struct Process {
    child: std::process::Child,
    reaped: bool,
}

impl Process {
    /// Requests the end of the child and its group, or kills them. Has no effect after the child
    /// was reaped: its process id may then belong to another process.
    fn signal(&mut self, force: bool) {
        if !self.reaped {
            sys::signal_group(self.child.id(), force);
            if force {
                let _ = self.child.kill();
            }
        }
    }
}

/// Kills a child when it is woken. The child is reaped by its own thread, under the same lock.
struct Killer(Arc<Mutex<Process>>);

impl Wake for Killer {
    fn wake(self: Arc<Self>) {
        lock(&self.0).signal(true);
    }
}

impl Child {
    /// Starts a child with pipes for all three streams. `stderr` is called with each piece of its
    /// stderr, and dropped at the end of it.
    ///
    /// A thread per child spawns it, reads its stderr and reaps it. The thread that spawns has to
    /// live as long as the child: on Linux the child dies with that thread, and the caller may run
    /// on a thread that ends long before.
    ///
    /// # Errors
    /// The system's, when the child or its thread cannot be started.
    pub fn spawn(
        command: Command,
        stderr: impl FnMut(&[u8]) + Send + 'static,
    ) -> io::Result<(Self, ChildStdin, ChildStdout)> {
        Self::spawn_with(command, stderr, Guard::current())
    }

    /// As [`spawn`](Self::spawn), without the guard: for a child that starts no processes.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    pub(crate) fn spawn_alone(
        command: Command,
        stderr: impl FnMut(&[u8]) + Send + 'static,
    ) -> io::Result<(Self, ChildStdin, ChildStdout)> {
        Self::spawn_with(command, stderr, None)
    }

    fn spawn_with(
        mut command: Command,
        stderr: impl FnMut(&[u8]) + Send + 'static,
        guard: Option<Arc<Guard>>,
    ) -> io::Result<(Self, ChildStdin, ChildStdout)> {
        debug!(?command, "starting a child process");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        sys::isolate(&mut command);
        let (started, start) = sync_channel(1);
        let (end, ended) = sync_channel(1);
        thread::Builder::new()
            .name("child-stderr".into())
            .spawn(move || keep(command, stderr, &started, &end))?;
        let (process, stdin, stdout) =
            start.recv().map_err(|_| io::Error::other("the thread of the child ended"))??;
        let held = guard.map(|guard| guard.hold(lock(&process).child.id()));
        let child = Self { process, ended, exit: None, on_stop: None, _held: held };
        Ok((child, stdin, stdout))
    }

    /// Waits until it has ended and its stderr is read; `None` when `limit` passed first.
    pub fn wait(&mut self, limit: Duration) -> Option<Exit> {
        if self.exit.is_none() {
            self.exit = self.ended.recv_timeout(limit).ok();
        }
        self.exit
    }

    /// As [`wait`](Self::wait), until `limit` is over, which a stop shortens.
    pub(crate) fn wait_until(&mut self, limit: &mut Wait) -> Option<Exit> {
        // It may have ended before.
        let mut exit = self.wait(Duration::ZERO);
        while exit.is_none() {
            exit = self.wait(limit.next()?);
        }
        exit
    }

    /// Ends it: waits `grace` for it to end by itself, sends it a request to end and waits `grace`
    /// again, then kills it.
    pub fn end(&mut self, grace: Duration) -> Exit {
        if let Some(exit) = self.wait(grace) {
            return exit;
        }
        self.signal(false);
        self.wait(grace).unwrap_or_else(|| self.kill())
    }

    /// Kills it and waits until it is gone, for up to [`GONE`].
    pub fn kill(&mut self) -> Exit {
        self.kill_within(GONE)
    }

    /// Kills it and waits until it is gone, for up to `limit`. A child that does not disappear in
    /// time counts as ended from then on, so that nothing waits for it again.
    pub fn kill_within(&mut self, limit: Duration) -> Exit {
        if self.exit.is_none() {
            self.signal(true);
            self.wait(limit);
        }
        *self.exit.get_or_insert(Exit::Unknown)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        lock(&self.process).child.id()
    }

    /// From now on a stop of `waiter` kills it with its group, on the thread that stops the waiter,
    /// whatever the owner of the child is doing. The stop does not wait until the child is gone.
    pub(crate) fn kill_on_stop(&mut self, waiter: &Waiter) {
        let killer = Arc::new(Killer(Arc::clone(&self.process)));
        self.on_stop = Some(waiter.on_stop(killer.into()));
    }

    fn signal(&self, force: bool) {
        lock(&self.process).signal(force);
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child").field("id", &self.id()).field("exit", &self.exit).finish()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.exit.is_none() {
            self.kill();
        }
    }
}

type Started = io::Result<(Arc<Mutex<Process>>, ChildStdin, ChildStdout)>;

/// The thread of a child.
fn keep(
    mut command: Command,
    mut stderr: impl FnMut(&[u8]),
    started: &SyncSender<Started>,
    end: &SyncSender<Exit>,
) {
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return drop(started.send(Err(error))),
    };
    let (Some(stdin), Some(stdout), Some(mut pipe)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return;
    };
    let process = Arc::new(Mutex::new(Process { child, reaped: false }));
    let _ = started.send(Ok((Arc::clone(&process), stdin, stdout)));
    read_all(&mut pipe, 4096, |bytes| {
        stderr(bytes);
        true
    });
    drop((pipe, stderr));
    // Polled rather than waited for: the lock must stay free for a kill.
    let mut pause = Duration::from_micros(200);
    let exit = loop {
        {
            let mut process = lock(&process);
            // Not reaped without a sweep, even if it ends between the two.
            if sys::sweep_group(process.child.id()) {
                match process.child.try_wait() {
                    Ok(Some(status)) => {
                        process.reaped = true;
                        break Exit::of(status);
                    }
                    Ok(None) => {}
                    Err(_) => break Exit::Unknown,
                }
            }
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    };
    let _ = end.send(exit);
}

/// Poisoned locks are used: a panic leaves no partial change behind them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(all(test, unix))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn streams_and_exits() {
        let bytes = || Input::Bytes(b"input".to_vec());
        let writer = || {
            Input::Writer(Box::new(|mut stdin| {
                stdin.write_all(b"in")?;
                stdin.write_all(b"put")
            }))
        };
        for (script, input, exit, stdout, stderr) in [
            ("cat; echo log >&2", bytes(), Exit::Code(0), "input", "log\n"),
            ("cat; exit 3", writer(), Exit::Code(3), "input", ""),
            ("cat; kill -TERM $$", Input::Empty, Exit::Signal(15), "", ""),
        ] {
            let output = run(shell(script), input, LONG).unwrap();
            assert_eq!((output.exit, output.took_input), (exit, true), "{script}");
            assert_eq!(String::from_utf8(output.stdout).unwrap(), stdout, "{script}");
            assert_eq!(output.stderr, stderr, "{script}");
        }
        assert!(run(Command::new("/nowhere/program"), Input::Empty, LONG).is_err());
    }

    #[test]
    fn input_that_is_not_read_is_reported() {
        let large = Input::Bytes(vec![0; 4 << 20]);
        let output = run(shell("exit 0"), large, LONG).unwrap();
        assert_eq!((output.exit, output.took_input), (Exit::Code(0), false));
    }

    #[test]
    fn output_without_an_end_is_cut() {
        let output = run(shell("exec yes"), Input::Empty, LONG).unwrap();
        assert!(output.stdout.len() > MAX_STDOUT && output.stdout.len() < MAX_STDOUT + (1 << 20));
        assert!(output.stderr.contains("[error] more than 64 MiB of output"), "{}", output.stderr);
    }

    #[test]
    fn a_child_that_hangs_is_killed_with_all_that_it_started() {
        let limit = Duration::from_millis(100);
        let output = run(shell("echo early; sleep 1000 & wait"), Input::Empty, limit).unwrap();
        assert_eq!(output.exit, Exit::TimedOut(limit));
        let (mut child, _stdin, mut stdout) =
            Child::spawn(shell("sleep 1000 & echo $!; wait"), |_| {}).unwrap();
        let mut id = [0; 16];
        let n = stdout.read(&mut id).unwrap();
        assert_eq!(child.wait(Duration::ZERO), None);
        drop(child);
        #[cfg(target_os = "linux")]
        {
            let id = std::str::from_utf8(&id[..n]).unwrap().trim().parse().unwrap();
            encoder_testbed::process::assert_gone(id);
        }
        let _ = n;
    }

    #[test]
    fn a_stop_ends_a_child_that_hangs() {
        let waiter = Waiter::new();
        for stop in [true, false] {
            let child = waiter.child();
            let run = thread::spawn(move || {
                run_until_stop(shell("exec sleep 1000"), Input::Empty, LONG, &child).unwrap()
            });
            // The second child starts after the stop.
            if stop {
                waiter.stop();
            }
            assert_eq!(run.join().unwrap().exit, Exit::TimedOut(LONG));
        }
    }

    #[test]
    fn a_stop_kills_a_child_whose_owner_does_nothing() {
        let waiter = Waiter::new();
        // The child starts before the stop, and after it.
        for stop_first in [false, true] {
            let (mut child, _stdin, mut stdout) =
                Child::spawn(shell("sleep 1000 & wait"), |_| {}).unwrap();
            if stop_first {
                waiter.stop();
            }
            child.kill_on_stop(&waiter.child());
            let sibling = waiter.child();
            if !stop_first {
                sibling.stop();
                assert_eq!(child.wait(Duration::ZERO), None);
                child.kill_on_stop(&sibling);
            }
            // The end of its stdout: the whole group is gone.
            assert_eq!(stdout.read(&mut [0]).unwrap(), 0);
            assert_eq!(child.wait(LONG), Some(Exit::Signal(9)));
        }
    }

    /// The process id of a child that was reaped may belong to another process.
    #[test]
    fn a_child_that_was_reaped_is_not_signalled() {
        let (mut child, _stdin, _stdout) = Child::spawn(shell("exit 0"), |_| {}).unwrap();
        let waiter = Waiter::new();
        child.kill_on_stop(&waiter);
        assert_eq!(child.wait(LONG), Some(Exit::Code(0)));
        // From now on this process plays the part of an unrelated process with the same id.
        let mut other = shell("exec sleep 1000");
        sys::isolate(&mut other);
        let other = other.spawn().unwrap();
        let first = std::mem::replace(&mut lock(&child.process).child, other);
        waiter.stop();
        child.signal(true);
        let mut other = std::mem::replace(&mut lock(&child.process).child, first);
        assert_eq!(other.try_wait().unwrap(), None);
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn processes_that_a_child_leaves_behind_do_not_delay_its_end() {
        let output = run(shell("sleep 1000 2>/dev/null & exit 7"), Input::Empty, LONG).unwrap();
        assert_eq!(output.exit, Exit::Code(7));
    }

    #[test]
    fn a_child_may_end_by_itself_or_on_request() {
        let (mut child, stdin, _stdout) = Child::spawn(shell("read line; exit 4"), |_| {}).unwrap();
        drop(stdin);
        assert_eq!(child.end(LONG), Exit::Code(4));
        let (mut child, _stdin, _stdout) = Child::spawn(shell("exec sleep 1000"), |_| {}).unwrap();
        let exit = child.end(Duration::ZERO);
        assert!(matches!(exit, Exit::Signal(9 | 15)), "{exit}");
    }
}
