//! A child process that is never forgotten: its stderr is drained, it is reaped, and it does not
//! outlive its owner.

use std::{
    fmt,
    io::{self, Read},
    path::Path,
    process::{ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

use tracing::debug;

use crate::{sys, tail::Tail};

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It was killed because it had not ended after this time.
    TimedOut(Duration),
    /// Nobody knows.
    Unknown,
}

impl Exit {
    pub(crate) fn of(status: ExitStatus) -> Self {
        #[cfg(unix)]
        if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
            return Self::Signal(signal);
        }
        status.code().map_or(Self::Unknown, Self::Code)
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

/// A running child whose stdin and stdout belong to someone else.
pub(crate) struct Child {
    shared: Arc<Shared>,
    ended: Receiver<Exit>,
    exit: Option<Exit>,
}

struct Shared {
    process: Mutex<Process>,
    tail: Mutex<Tail>,
}

struct Process {
    child: std::process::Child,
    reaped: bool,
}

/// How long a killed child may take to disappear before it is left to its keeper thread: one that
/// sits in a broken driver may never do.
const GONE: Duration = Duration::from_secs(5);

impl Child {
    /// Starts `path` with `arguments` and pipes for all three streams.
    ///
    /// One keeper thread per child spawns it, drains its stderr and reaps it. It has to be the
    /// thread that spawns: on Linux the child dies with that thread, and callers may open an
    /// encoder on a thread that ends long before the encoder does.
    pub(crate) fn spawn(
        path: &Path,
        arguments: &[String],
    ) -> io::Result<(Self, ChildStdin, ChildStdout)> {
        debug!(program = %path.display(), arguments = arguments.join(" "), "starting FFmpeg");
        let mut command = Command::new(path);
        command.args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        sys::isolate(&mut command);
        sys::keep_memory(&mut command);
        let (started, start) = sync_channel(1);
        let (end, ended) = sync_channel(1);
        std::thread::Builder::new()
            .name("ffmpeg-stderr".into())
            .spawn(move || keep(command, &started, &end))?;
        let (shared, stdin, stdout) =
            start.recv().map_err(|_| io::Error::other("the keeper thread ended"))??;
        Ok((Self { shared, ended, exit: None }, stdin, stdout))
    }

    /// Waits until it has ended and its stderr is read; `None` when `limit` passed first.
    pub(crate) fn wait(&mut self, limit: Duration) -> Option<Exit> {
        if self.exit.is_none() {
            self.exit = self.ended.recv_timeout(limit).ok();
        }
        self.exit
    }

    /// Ends it: it may go by itself within `grace`, is then asked to, then killed.
    pub(crate) fn end(&mut self, grace: Duration) -> Exit {
        for force in [false, true] {
            if let Some(exit) = self.wait(grace) {
                return exit;
            }
            self.signal(force);
        }
        self.wait(GONE).unwrap_or(Exit::Unknown)
    }

    /// Kills it and waits until it is gone.
    pub(crate) fn kill(&mut self) -> Exit {
        self.signal(true);
        self.wait(GONE).unwrap_or(Exit::Unknown)
    }

    /// The kept end of its stderr.
    pub(crate) fn stderr(&self) -> String {
        lock(&self.shared.tail).text()
    }

    /// How often it has said that something went wrong.
    pub(crate) fn errors(&self) -> u64 {
        lock(&self.shared.tail).errors()
    }

    /// Its process id, for tests.
    pub(crate) fn id(&self) -> u32 {
        lock(&self.shared.process).child.id()
    }

    fn signal(&self, force: bool) {
        let mut process = lock(&self.shared.process);
        if !process.reaped {
            sys::signal_group(process.child.id(), force);
            if force {
                let _ = process.child.kill();
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.exit.is_none() {
            self.kill();
        }
    }
}

type Started = io::Result<(Arc<Shared>, ChildStdin, ChildStdout)>;

fn keep(mut command: Command, started: &SyncSender<Started>, end: &SyncSender<Exit>) {
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return drop(started.send(Err(error))),
    };
    let (Some(stdin), Some(stdout), Some(mut stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return;
    };
    let shared = Arc::new(Shared {
        process: Mutex::new(Process { child, reaped: false }),
        tail: Mutex::default(),
    });
    let _ = started.send(Ok((Arc::clone(&shared), stdin, stdout)));
    let mut buffer = [0; 4096];
    loop {
        match stderr.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => lock(&shared.tail).push(buffer.get(..n).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    // Asked again and again rather than waited for: the lock must stay free for a kill.
    let mut pause = Duration::from_micros(200);
    let exit = loop {
        {
            let mut process = lock(&shared.process);
            sys::sweep_group(process.child.id());
            match process.child.try_wait() {
                Ok(Some(status)) => {
                    process.reaped = true;
                    break Exit::of(status);
                }
                Ok(None) => {}
                Err(_) => break Exit::Unknown,
            }
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    };
    let _ = end.send(exit);
}

/// A panic elsewhere leaves nothing half done in what these locks guard.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
