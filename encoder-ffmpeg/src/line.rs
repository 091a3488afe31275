//! Parses the marks of a line of FFmpeg's log: `[h264_nvenc @ 0x55d0c0ffee00] [error] Cannot load
//! …`.

/// The levels of FFmpeg's log, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Panic,
    Fatal,
    Error,
    Warning,
    Info,
    Verbose,
    Debug,
    Trace,
}

impl Level {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "panic" => Self::Panic,
            "fatal" => Self::Fatal,
            "error" => Self::Error,
            "warning" => Self::Warning,
            "info" => Self::Info,
            "verbose" => Self::Verbose,
            "debug" => Self::Debug,
            "trace" => Self::Trace,
            _ => return None,
        })
    }
}

/// The level of a line, and its text without the marks in front. FFmpeg puts the contexts first and
/// the level last, so a bracket after the level belongs to the text. A line that another library
/// wrote straight to stderr has no level.
pub(crate) fn split(line: &str) -> (Option<Level>, &str) {
    let mut rest = line;
    while let Some((mark, behind)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let Some(text) = behind.strip_prefix(' ').or(behind.is_empty().then_some("")) else {
            break;
        };
        if let Some(level) = Level::parse(mark) {
            return (Some(level), text);
        }
        rest = text;
    }
    (None, rest)
}

/// Whether FFmpeg reported an error in this line.
pub(crate) fn is_error(line: &str) -> bool {
    split(line).0.is_some_and(|level| level <= Level::Error)
}

/// Whether FFmpeg marked the line as less than a warning.
pub(crate) fn is_chatter(line: &str) -> bool {
    split(line).0.is_some_and(|level| level > Level::Warning)
}

/// Takes the addresses out of `[h264_nvenc @ 0x55d0c0ffee00]`.
pub(crate) fn without_addresses(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line.trim_end();
    while let Some((before, after)) = rest.split_once(" @ 0x") {
        out.push_str(before);
        rest = after.trim_start_matches(|c: char| c.is_ascii_hexdigit());
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_texts() {
        use Level::{Error, Info, Verbose, Warning};
        for (line, level, text) in [
            ("[error] Device creation failed", Some(Error), "Device creation failed"),
            ("[h264_nvenc @ 0x5] [warning] slow", Some(Warning), "slow"),
            ("[vist#0:0/h264 @ 0x5] [dec:h264 @ 0x6] [verbose] x", Some(Verbose), "x"),
            // As FFmpeg 9 ends, without the space at the end of the line.
            ("[verbose]", Some(Verbose), ""),
            ("[info]   [error] in the title", Some(Info), "  [error] in the title"),
            ("[error] [x] y", Some(Error), "[x] y"),
            ("[h264_qsv] text", None, "text"),
            // libx264 by itself, a loader's stub, and no marks at all.
            ("x264 [error]: invalid preset", None, "x264 [error]: invalid preset"),
            ("implib-gen: libva.so.2: [error] no", None, "implib-gen: libva.so.2: [error] no"),
            ("[errors] 3", None, "3"),
            ("[error]x", None, "[error]x"),
            ("[x", None, "[x"),
            ("", None, ""),
        ] {
            assert_eq!(split(line), (level, text), "{line}");
        }
        assert!(is_error("[fatal] x") && !is_error("[warning] x") && !is_error("[info] [error] x"));
        assert!(is_chatter("[info] x") && !is_chatter("[warning] x") && !is_chatter("x"));
        assert!(!is_chatter("[error] the file is called [info] x"));
    }
}
