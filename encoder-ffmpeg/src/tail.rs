//! The end of a child's stderr: bounded, whatever the child writes.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::line::{is_chatter, is_error, without_addresses};

const LINES: usize = 40;
const LINE_BYTES: usize = 400;

/// The last lines of a stderr stream. Lines below the level of a warning are dropped first.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    lines: VecDeque<String>,
    partial: Vec<u8>,
    errors: u64,
}

impl Tail {
    /// Takes the next bytes of the stream.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match byte {
                b'\n' | b'\r' => self.end_line(),
                _ if self.partial.len() < LINE_BYTES => self.partial.push(byte),
                _ => {}
            }
        }
    }

    fn end_line(&mut self) {
        let line = without_addresses(&String::from_utf8_lossy(&self.partial));
        self.partial.clear();
        if line.is_empty() {
            return;
        }
        self.errors += u64::from(is_error(&line));
        if self.lines.len() >= LINES {
            let drop = self.lines.iter().position(|l| is_chatter(l)).unwrap_or(0);
            self.lines.remove(drop);
        }
        self.lines.push_back(line);
    }

    /// The stored lines.
    pub(crate) fn text(&mut self) -> String {
        self.end_line();
        let mut text = String::new();
        for line in &self.lines {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

/// A [`Tail`] that the thread of a child fills while its owner reads it.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedTail(Arc<Mutex<Tail>>);

impl SharedTail {
    /// As [`Tail::push`].
    pub(crate) fn push(&self, bytes: &[u8]) {
        self.lock().push(bytes);
    }

    /// As [`Tail::text`].
    pub(crate) fn text(&self) -> String {
        self.lock().text()
    }

    /// How many errors FFmpeg has reported.
    pub(crate) fn errors(&self) -> u64 {
        self.lock().errors
    }

    /// A poisoned lock is used: a panic leaves no partial change of the [`Tail`].
    fn lock(&self) -> MutexGuard<'_, Tail> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lines of a [`Tail::text`] for a message: its warnings and errors, or its last line if there
/// are none.
pub(crate) fn summary(text: &str) -> String {
    const MOST: usize = 8;
    let serious: Vec<&str> = text.lines().filter(|line| !is_chatter(line)).collect();
    match serious.as_slice() {
        [] => last(text).to_owned(),
        lines => lines[lines.len().saturating_sub(MOST)..].join(" | "),
    }
}

/// The line of a [`Tail::text`] that shows how far a child came that gave no answer: its last
/// warning or error, or its last line if there are none.
pub(crate) fn last(text: &str) -> &str {
    let serious = text.lines().rfind(|line| !is_chatter(line));
    serious.or(text.lines().last()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floods_are_bounded_and_errors_outlive_chatter() {
        let mut tail = Tail::default();
        tail.push(b"[h264_nvenc @ 0x55d0c0ffee00] [error] Cannot load libcuda.so.1\n");
        for n in 0..1000 {
            tail.push(format!("[verbose] chatter {n}\r").as_bytes());
        }
        tail.push(&vec![b'x'; 1 << 20]);
        assert_eq!(tail.errors, 1);
        let text = tail.text();
        assert!(text.starts_with("[h264_nvenc] [error] Cannot load libcuda.so.1\n"), "{text}");
        assert!(text.contains("chatter 999\n") && !text.contains("chatter 900\n"));
        assert_eq!(text.lines().count(), LINES);
        assert!(text.len() <= LINES * (LINE_BYTES + 1));
        assert!(!summary(&text).contains("chatter"));
        assert_eq!(summary("[info] a\n[info] b\n"), "[info] b");
        assert_eq!(summary("[error] a\n[info]\n[error] b\n"), "[error] a | [error] b");
        assert_eq!(last("[warning] a\n[error] b\n[info]\n"), "[error] b");
        assert_eq!((last("[info] a\n[info] b\n"), last("")), ("[info] b", ""));
        assert_eq!(summary("[error] a\n[verbose]\n"), "[error] a");
        assert_eq!(summary(""), "");
    }

    #[test]
    fn invalid_utf8_is_accepted() {
        let mut tail = Tail::default();
        for _ in 0..100 {
            tail.push(&[0xff, 0xfe, b'\n', 0xc3]);
        }
        assert!(tail.text().lines().count() <= LINES);
    }
}
