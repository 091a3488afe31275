//! Standard output. If it is closed or full, recordings are still converted, and the error is
//! reported at the end.

use std::io::{self, Write};

use encoder_pipeline::text::printable_lines;
use tracing::error;

use crate::option_names::with_options;

/// What this program prints.
pub struct Output {
    is_quiet: bool,
    error: Option<io::Error>,
}

impl Output {
    /// With `is_quiet`, summaries are not printed.
    pub fn new(is_quiet: bool) -> Self {
        Self { is_quiet, error: None }
    }

    /// Prints the result of a command, without control characters. After an error nothing is printed.
    pub fn print(&mut self, text: &str) {
        if self.error.is_some() {
            return;
        }
        let mut out = io::stdout().lock();
        let text = printable_lines(text);
        let text = with_options(&text);
        self.error = out.write_all(text.as_bytes()).and_then(|()| out.flush()).err();
    }

    /// Prints a line about work that is done.
    pub fn summary(&mut self, line: &str) {
        if !self.is_quiet {
            self.print(&format!("{line}\n"));
        }
    }

    /// Reports an error of standard output. Returns the exit code: `code`, or 1 if something could
    /// not be printed. A reader that closed the pipe needs no more output: this is not an error.
    pub fn end(self, code: u8) -> u8 {
        match self.error {
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                error!("standard output cannot be written: {error}");
                if code == 2 { code } else { 1 }
            }
            _ => code,
        }
    }
}
