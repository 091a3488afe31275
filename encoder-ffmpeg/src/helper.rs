//! Requests to a [`HelperTask`]: in the helper process of this program, with a deadline.

use std::{
    fmt,
    io::{BufRead, BufReader, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::ChildStdin,
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread,
    time::{Duration, Instant},
};

use encoder_core::{HELPER_READY, HelperTask, helper_program};
use tracing::warn;

use crate::{
    guard::command,
    process::{Child, Exit},
    tail::SharedTail,
};

/// How long an ended helper process may take to disappear.
const GONE: Duration = Duration::from_secs(1);

/// Sends requests to a task. The helper process is started with the first request and runs until
/// this value is dropped, or a request is not answered.
///
/// Without a [helper program](encoder_core::set_helper) the task runs on a thread of this process.
/// That keeps the deadline, but a driver that crashes ends this process, and a driver that hangs may
/// prevent that it ends.
#[derive(Debug)]
pub struct Helper {
    task: &'static HelperTask,
    process: Option<Process>,
    /// Whether the helper program could not be used.
    has_none: bool,
}

/// Why a task gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// It did not answer in time.
    Late {
        /// The time that it had.
        limit: Duration,
        /// The last [step](encoder_core::helper_step) that it began; empty if it is not known.
        step: String,
    },
    /// Its process ended.
    Ended {
        /// How it ended.
        exit: Exit,
        /// The last [step](encoder_core::helper_step) that it began, and what was written to
        /// stderr after that; empty if it is not known.
        step: String,
    },
    /// It panicked in this process, or no thread could be started.
    Failed(String),
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = match self {
            Self::Late { limit, step } => {
                write!(f, "no answer in {} s", limit.as_secs_f32())?;
                step
            }
            Self::Ended { exit, step } => {
                write!(f, "its process was ended by {exit}")?;
                step
            }
            Self::Failed(reason) => return f.write_str(reason),
        };
        if step.is_empty() { Ok(()) } else { write!(f, ", at the step: {step}") }
    }
}

impl Helper {
    /// Requests to `task`. Starts nothing.
    pub fn new(task: &'static HelperTask) -> Self {
        Self { task, process: None, has_none: false }
    }

    /// Sends a request, of one line, and waits for the answer.
    ///
    /// # Errors
    /// When there is no answer within `limit`. A process that does not answer is killed; if the
    /// system cannot end it, it is abandoned.
    pub fn ask(&mut self, request: &str, limit: Duration) -> Result<String, NoAnswer> {
        let begun = Instant::now();
        if self.process.is_none() && !self.has_none {
            self.process = start(self.task, limit)?;
            self.has_none = self.process.is_none();
        }
        let Some(process) = &mut self.process else {
            return answer_here(self.task, request, limit);
        };
        let left = limit.saturating_sub(begun.elapsed());
        let answer = process.ask(request, left, limit);
        if answer.is_err() {
            self.process = None;
        }
        answer
    }
}

/// Starts the helper process; `None` if there is no helper program that can be used.
fn start(task: &'static HelperTask, limit: Duration) -> Result<Option<Process>, NoAnswer> {
    let Some(program) = helper_program() else { return Ok(None) };
    let begun = Instant::now();
    let useless = |reason: &str| {
        let program = program.display();
        warn!("{program} is no helper program: {reason}; drivers are called in this process");
    };
    let mut process = match Process::start(&program, task) {
        Ok(process) => process,
        Err(error) => {
            useless(&error.to_string());
            return Ok(None);
        }
    };
    match process.line(limit, limit) {
        Ok(line) if line == HELPER_READY => Ok(Some(process)),
        Err(NoAnswer::Late { .. }) if begun.elapsed() >= limit => {
            Err(NoAnswer::Late { limit, step: String::new() })
        }
        Ok(line) => {
            useless(&format!("it writes {line:?}"));
            Ok(None)
        }
        Err(error) => {
            useless(&error.to_string());
            Ok(None)
        }
    }
}

/// Runs the task on a thread of this process.
fn answer_here(
    task: &'static HelperTask,
    request: &str,
    limit: Duration,
) -> Result<String, NoAnswer> {
    let (sender, answer) = sync_channel(1);
    let request = request.to_owned();
    let run = move || {
        let answer = catch_unwind(AssertUnwindSafe(|| task.answer(&request)));
        let _ = sender.send(answer.map_err(|_| NoAnswer::Failed("it panicked".into())));
    };
    thread::Builder::new()
        .name(task.name().into())
        .spawn(run)
        .map_err(|error| NoAnswer::Failed(format!("no thread can be started: {error}")))?;
    let late = |_| NoAnswer::Late { limit, step: String::new() };
    answer.recv_timeout(limit).map_err(late)?
}

/// A running helper process.
#[derive(Debug)]
struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    log: SharedTail,
}

impl Process {
    fn start(program: &Path, task: &HelperTask) -> std::io::Result<Self> {
        let log = SharedTail::default();
        let tail = log.clone();
        let (child, stdin, stdout) =
            Child::spawn_alone(command(program, task), move |bytes| tail.push(bytes))?;
        let (sender, lines) = sync_channel(1);
        thread::Builder::new().name("helper-stdout".into()).spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { child, stdin: Some(stdin), lines, log })
    }

    fn ask(&mut self, request: &str, left: Duration, limit: Duration) -> Result<String, NoAnswer> {
        if let Some(stdin) = &mut self.stdin {
            // If the process has ended, there is no answer either.
            let _ = stdin.write_all(format!("{request}\n").as_bytes());
        }
        self.line(left, limit)
    }

    /// The next line of its stdout within `left`, which is what is left of `limit`.
    fn line(&mut self, left: Duration, limit: Duration) -> Result<String, NoAnswer> {
        let step = |log: &SharedTail| {
            let text = log.text();
            let last: Vec<_> = text.lines().rev().take(2).collect();
            last.into_iter().rev().collect::<Vec<_>>().join(" | ")
        };
        self.lines.recv_timeout(left).map_err(|error| match error {
            RecvTimeoutError::Timeout => NoAnswer::Late { limit, step: step(&self.log) },
            RecvTimeoutError::Disconnected => {
                let exit = self.child.wait(GONE).unwrap_or(Exit::Unknown);
                NoAnswer::Ended { exit, step: step(&self.log) }
            }
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // It has nothing to complete. Its exit may hang in the code of a driver.
        self.child.kill_within(GONE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static ECHO: HelperTask = HelperTask::new("test-echo", |text| match text {
        "panic" => panic!("on purpose"),
        "hang" => loop {
            thread::park();
        },
        text => text.to_uppercase(),
    });

    #[test]
    fn without_a_helper_program_a_thread_of_this_process_answers() {
        let (long, short) = (Duration::from_secs(60), Duration::from_millis(20));
        let mut helper = Helper::new(&ECHO);
        assert_eq!(helper.ask("a", long), Ok("A".into()));
        assert_eq!(helper.ask("panic", long), Err(NoAnswer::Failed("it panicked".into())));
        let late = NoAnswer::Late { limit: short, step: String::new() };
        assert_eq!(helper.ask("hang", short), Err(late.clone()));
        assert_eq!(late.to_string(), "no answer in 0.02 s");
        assert_eq!(helper.ask("b", long), Ok("B".into()));
    }

    #[test]
    fn messages_have_the_step() {
        let ended = NoAnswer::Ended { exit: Exit::Signal(6), step: "load libcuda.so.1".into() };
        let text = "its process was ended by signal 6, at the step: load libcuda.so.1";
        assert_eq!(ended.to_string(), text);
    }
}
