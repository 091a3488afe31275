//! Running programs.

use std::{
    env,
    error::Error,
    io::{self, Read},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Errors are messages.
pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Options that make FFmpeg output each frame once, whatever its time. (The option was renamed: no
/// version has both names.)
pub const EACH_FRAME_ONCE: [&str; 4] = ["-vf", "settb=AVTB,setpts=N/30/TB", "-r", "30"];

/// The root of the workspace.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Where Cargo puts what it builds.
pub fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// The Cargo that runs this, in the root of the workspace.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// The command line.
pub fn typed(command: &Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Prints the command and runs it with its output on the terminal. Returns whether it succeeded.
pub fn show(command: &mut Command) -> Result<bool> {
    println!("+ {}", typed(command));
    let status = command.status().map_err(|e| format!("{}: {e}", typed(command)))?;
    Ok(status.success())
}

/// Runs the command. Returns whether it succeeded, and both its outputs in the order of writing.
pub fn merged(mut command: Command) -> Result<(bool, String)> {
    let (mut reader, writer) = io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().map_err(|e| format!("{}: {e}", typed(&command)))?;
    // The command holds writing ends: while it exists, the output does not end.
    drop(command);
    let mut text = Vec::new();
    reader.read_to_end(&mut text)?;
    Ok((child.wait()?.success(), String::from_utf8_lossy(&text).into_owned()))
}

/// Runs the command, which must succeed, and returns its output.
pub fn output(command: &mut Command) -> Result<Output> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{}: {e}", command.get_program().display()))?;
    if output.status.success() {
        return Ok(output);
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let tail: Vec<_> = text.lines().rev().take(5).collect();
    let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
    Err(format!("{}: {}\n{tail}", typed(command), output.status).into())
}

/// Runs the command and returns its output, whatever its exit code.
///
/// # Errors
/// When it cannot be started, or has not ended after `deadline`; it is then killed.
pub fn output_within(deadline: Duration, command: &mut Command) -> Result<Output> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut stopped = false;
    let begun = Instant::now();
    let (out, err) = (child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        let out = scope.spawn(move || read_all(out));
        let err = scope.spawn(move || read_all(err));
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if begun.elapsed() > deadline && !stopped {
                stopped = true;
                child.kill()?;
            }
            thread::sleep(Duration::from_millis(20));
        };
        if stopped {
            return Err(format!("not ended after {deadline:?}").into());
        }
        let text =
            |thread: thread::ScopedJoinHandle<'_, Vec<u8>>| thread.join().unwrap_or_default();
        Ok(Output { status, stdout: text(out), stderr: text(err) })
    })
}

fn read_all(pipe: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    // The output before a read error is kept.
    let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
    bytes
}

/// Whether the command can be started and succeeds; its output is ignored.
pub fn succeeds(command: &mut Command) -> bool {
    let silent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    silent.status().is_ok_and(|status| status.success())
}
