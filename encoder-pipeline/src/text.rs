//! Text from recordings and child processes, made safe to print: a topic, a file name or a message
//! of a child may contain control characters, which a terminal would obey.

use std::{
    borrow::Cow,
    fmt::{self, Write},
};

use serde::Serialize;

/// The text without control characters and characters that change the direction of writing: each is
/// replaced by its escape, such as `\\u{1b}`.
///
/// ```
/// use encoder_pipeline::text::printable;
///
/// assert_eq!(printable("/cam/\u{1b}[31m"), "/cam/\\u{1b}[31m");
/// assert_eq!(printable("/caméra"), "/caméra");
/// ```
pub fn printable(text: &str) -> Cow<'_, str> {
    escape(text, |_| false)
}

/// As [`printable`], for a text of several lines: line feeds and tabs are kept.
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    escape(text, |c| matches!(c, '\n' | '\t'))
}

fn escape(text: &str, is_kept: fn(char) -> bool) -> Cow<'_, str> {
    let is_safe = |c: char| is_kept(c) || !(c.is_control() || turns(c));
    if text.chars().all(is_safe) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_safe(c) {
            true => out.push(c),
            false => out.extend(c.escape_default()),
        }
    }
    out.into()
}

/// Whether a character changes the direction of the text behind it.
fn turns(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// JSON with the control characters escaped that JSON allows as they are: a terminal obeys
/// U+0080 to U+009F too.
///
/// # Errors
/// Those of the value's `Serialize`.
pub fn json(value: &impl Serialize) -> serde_json::Result<String> {
    Ok(json_escaped(&serde_json::to_string_pretty(value)?).into_owned())
}

/// Escapes these characters in text that is JSON.
pub fn json_escaped(json: &str) -> Cow<'_, str> {
    let is_safe = |c: char| matches!(c, '\n' | '\t') || !(c.is_control() || turns(c));
    if json.chars().all(is_safe) {
        return json.into();
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        match is_safe(c) {
            true => out.push(c),
            // None of them is outside the Basic Multilingual Plane. A `String` takes all text.
            false => drop(write!(out, "\\u{:04x}", u32::from(c))),
        }
    }
    out.into()
}

/// A number of things: `1 video`, `2 videos`.
#[derive(Clone, Copy, Debug)]
pub struct Count<'a>(pub u64, pub &'a str);

impl fmt::Display for Count<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, noun) = self;
        write!(f, "{count} {noun}{}", if *count == 1 { "" } else { "s" })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_escaped() {
        for (text, safe) in [
            ("plain /cam/ünï-1", "plain /cam/ünï-1"),
            ("\u{1b}]0;title\u{7}", "\\u{1b}]0;title\\u{7}"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("a\rb\nc\td\u{7f}", "a\\rb\\nc\\td\\u{7f}"),
            ("abc\u{202e}4pm.", "abc\\u{202e}4pm."),
        ] {
            assert_eq!(printable(text), safe);
        }
        assert_eq!(printable_lines("a\rb\nc\td\u{1b}"), "a\\rb\nc\td\\u{1b}");
    }

    #[test]
    fn json_stays_json() {
        let text = "\u{1b}[1m \u{9b}31m \u{7f} \u{202e} \n\t ü";
        let written = json(&[text]).unwrap();
        assert!(!written.chars().any(|c| c.is_control() && c != '\n'), "{written:?}");
        assert!(!written.contains('\u{202e}'), "{written:?}");
        let read: Vec<String> = serde_json::from_str(&written).unwrap();
        assert_eq!(read, [text]);
    }

    #[test]
    fn counts() {
        assert_eq!(Count(1, "video").to_string(), "1 video");
        assert_eq!(Count(0, "frame").to_string(), "0 frames");
    }
}
