//! Runs a child to its end under a deadline: for questions and probes, not for streams.

use std::{
    io,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::{child::Exit, sys, tail::Tail};

/// What a child left behind.
pub(crate) struct Ran {
    pub(crate) exit: Exit,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

/// The most that is taken from a child's stdout; one that writes more is killed.
const MOST: usize = 64 << 20;

/// Runs `path`, feeding it `input`. A child that hangs, floods or crashes costs the deadline and
/// nothing else.
///
/// # Errors
/// What the system says when the child cannot be started.
pub(crate) fn run(
    path: &Path,
    arguments: &[String],
    input: Vec<u8>,
    deadline: Duration,
) -> io::Result<Ran> {
    let mut command = Command::new(path);
    command.args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    sys::isolate(&mut command);
    // A thread of its own: the caller may be inside an async runtime already.
    std::thread::Builder::new()
        .name("ffmpeg-probe".into())
        .spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(converse(
                command.into(),
                &input,
                deadline,
            ))
        })?
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the probe thread panicked")))
}

async fn converse(
    mut command: tokio::process::Command,
    input: &[u8],
    deadline: Duration,
) -> io::Result<Ran> {
    let mut child = command.kill_on_drop(true).spawn()?;
    let (stdin, out, err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (mut stdout, mut tail) = (Vec::new(), Tail::default());
    let talk = async {
        let write = async {
            if let Some(mut stdin) = stdin {
                // A child that takes no more has a reason, which its other streams tell.
                let _ = stdin.write_all(input).await;
            }
        };
        let read_out = drain(out, |bytes| {
            stdout.extend_from_slice(bytes);
            stdout.len() <= MOST
        });
        let read_err = drain(err, |bytes| {
            tail.push(bytes);
            true
        });
        tokio::join!(write, read_out, read_err);
        child.wait().await
    };
    let exit = match timeout(deadline, talk).await {
        Ok(status) => Exit::of(status?),
        Err(_) => Exit::TimedOut(deadline),
    };
    if let Exit::TimedOut(_) = exit {
        // With all that it has started: a shell's children would live on.
        if let Some(id) = child.id() {
            sys::signal_group(id, true);
        }
        let _ = child.start_kill();
        // One that sits in a broken driver may stay for ever: it is left to the system.
        let _ = timeout(Duration::from_secs(2), child.wait()).await;
    }
    if stdout.len() > MOST {
        // It ended because it could write no more: that is not its fault alone.
        tail.push(format!("\n[error] more than {} MiB of output\n", MOST >> 20).as_bytes());
    }
    Ok(Ran { exit, stdout, stderr: tail.text() })
}

/// Reads to the end, or until `take` has enough: then the pipe closes and the child ends.
async fn drain(pipe: Option<impl AsyncRead + Unpin>, mut take: impl FnMut(&[u8]) -> bool) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n @ 1..) = pipe.read(&mut buffer).await {
        if !take(buffer.get(..n).unwrap_or_default()) {
            break;
        }
    }
}
