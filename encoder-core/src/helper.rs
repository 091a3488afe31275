//! The helper process: calls into device drivers, which may hang or crash, are made there.
//!
//! A driver that hangs in the kernel cannot be ended, and a process with a thread in such a call
//! cannot end either. So these calls are [`HelperTask`]s, which run in a child process of their own
//! wherever this program has a *helper*: a program that calls [`run_as_helper`] at its start.

use std::{
    env,
    ffi::OsStr,
    io::{self, BufRead, Write},
    path::PathBuf,
    process::ExitCode,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// The environment variable with the path of the helper program, for a program that sets none by
/// [`set_helper`]: the path of an installed `encoder`.
pub const HELPER_ENV: &str = "ENCODER_HELPER";

/// The first argument of a helper process. The second is the version of this crate, the third the
/// name of the task.
const ARGUMENT: &str = "helper-process";

/// The line that a helper process writes before its first answer. A program that ends without it is
/// no helper.
pub const HELPER_READY: &str = "helper-ready";

/// A task of the helper process: a function that answers requests, each of one line.
///
/// ```
/// use encoder_core::{HelperTask, inventory};
///
/// static GREET: HelperTask = HelperTask::new("greet", |name| format!("hello {name}"));
/// inventory::submit! { GREET }
/// # assert_eq!(GREET.answer("you"), "hello you");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct HelperTask {
    name: &'static str,
    answer: fn(&str) -> String,
    at_end: fn(),
}

impl HelperTask {
    /// A task. `name` must be the only one of the program; line breaks of an answer become spaces.
    pub const fn new(name: &'static str, answer: fn(&str) -> String) -> Self {
        Self { name, answer, at_end: || {} }
    }

    /// Sets a function that the helper process calls when there are no more requests, also when
    /// the program that started it was killed.
    #[must_use]
    pub const fn at_end(mut self, at_end: fn()) -> Self {
        self.at_end = at_end;
        self
    }

    /// The name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Answers a request in this process.
    pub fn answer(&self, request: &str) -> String {
        (self.answer)(request)
    }

    /// The arguments with which a helper program performs this task.
    pub fn arguments(&self) -> [&'static str; 3] {
        [ARGUMENT, env!("CARGO_PKG_VERSION"), self.name]
    }

    fn serve(&self, requests: impl BufRead, mut answers: impl Write) -> io::Result<()> {
        for request in requests.lines() {
            let answer = self.answer(&request?).replace(['\n', '\r'], " ");
            writeln!(answers, "{answer}")?;
            answers.flush()?;
        }
        Ok(())
    }
}

inventory::collect!(HelperTask);

static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
static IS_HELPER: AtomicBool = AtomicBool::new(false);

/// Sets the program that this process starts as its helper: a program whose `main` calls
/// [`run_as_helper`] first, and that has the same version of this crate. Only the first call has an
/// effect.
///
/// A Rust program can be its own helper ([`own_program`]); others name the program `encoder`.
pub fn set_helper(program: impl Into<PathBuf>) {
    let _ = PROGRAM.set(program.into());
}

/// The file of this program, for [`set_helper`]. On Linux it stays valid when the file is replaced.
///
/// # Errors
/// The system's, if it does not report the path.
pub fn own_program() -> io::Result<PathBuf> {
    let path = env::current_exe()?;
    Ok(if cfg!(target_os = "linux") { "/proc/self/exe".into() } else { path })
}

/// The helper program: the path of [`set_helper`], else the value of [`HELPER_ENV`]. `None` if
/// there is none, and in a helper process.
pub fn helper_program() -> Option<PathBuf> {
    if IS_HELPER.load(Relaxed) {
        return None;
    }
    let named = || env::var_os(HELPER_ENV).filter(|path| !path.is_empty()).map(PathBuf::from);
    PROGRAM.get().cloned().or_else(named)
}

/// Performs the task of a helper process, if this process was started as one; otherwise returns
/// `None` at once. To be called at the start of `main`, before anything else.
pub fn run_as_helper() -> Option<ExitCode> {
    let mut arguments = env::args_os().skip(1);
    if arguments.next()? != ARGUMENT {
        return None;
    }
    IS_HELPER.store(true, Relaxed);
    Some(perform(arguments.next().as_deref(), arguments.next().as_deref()))
}

fn perform(version: Option<&OsStr>, name: Option<&OsStr>) -> ExitCode {
    let mine = env!("CARGO_PKG_VERSION");
    if version != Some(mine.as_ref()) {
        let asked = version.unwrap_or_default().display();
        eprintln!("this helper program has version {mine}, and version {asked} was requested");
        return ExitCode::from(2);
    }
    let all = inventory::iter::<HelperTask>.into_iter();
    let Some(task) = all.into_iter().find(|task| name == Some(task.name.as_ref())) else {
        let name = name.unwrap_or_default().display();
        eprintln!("this helper program has no task `{name}`");
        return ExitCode::from(2);
    };
    // An error means that the program that started this process has closed a pipe.
    let _ = writeln!(io::stdout(), "{HELPER_READY}")
        .and_then(|()| task.serve(io::stdin().lock(), io::stdout().lock()));
    (task.at_end)();
    ExitCode::SUCCESS
}

/// Notes the step that a [`HelperTask`] begins. If the helper process crashes or hangs, the last
/// step is part of the message. Has no effect outside a helper process.
pub fn helper_step(step: &str) {
    if IS_HELPER.load(Relaxed) {
        eprintln!("{step}");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn each_request_gets_an_answer_of_one_line() {
        let task = HelperTask::new("twice", |text| format!("{text}\n{text}"));
        let mut answers = Vec::new();
        task.serve(&b"a\n\nb c"[..], &mut answers).unwrap();
        assert_eq!(String::from_utf8(answers).unwrap(), "a a\n \nb c b c\n");
        assert_eq!(task.arguments(), [ARGUMENT, env!("CARGO_PKG_VERSION"), "twice"]);
    }

    #[test]
    fn a_program_that_is_no_helper_goes_on() {
        // The arguments of this test.
        assert!(run_as_helper().is_none());
        assert!(!IS_HELPER.load(Relaxed));
    }
}
