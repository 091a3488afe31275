//! Finds the cause of a failure in FFmpeg's log. Exit codes are not reliable: 1 in old versions,
//! the low byte of an internal number in new versions.

use encoder_core::{EncoderType, Refusal, RefusalKind};

use crate::{
    line,
    process::Exit,
    rule::{
        Rule,
        hints::{LATER, REPORT, SIZE},
    },
    tail::{last, summary},
};

use RefusalKind::{Busy, Failed, NotBuilt, Permission, Unsupported};

/// The rules that hold for every encoder. A backend's own rules come before them.
const COMMON: &[Rule] = &[
    // This program and FFmpeg do not fit together.
    Rule::new(
        "Unknown encoder",
        NotBuilt,
        "this FFmpeg was built without the encoder",
        "install an FFmpeg that has it",
    ),
    Rule::new("Unrecognized option", Failed, "FFmpeg does not know an option", REPORT),
    Rule::new("Option not found", Failed, "FFmpeg does not know an option", REPORT),
    Rule::new("Error setting option", Failed, "FFmpeg does not take an option's value", REPORT),
    Rule::new(
        "Unable to parse option value",
        Failed,
        "FFmpeg does not take an option's value",
        REPORT,
    ),
    Rule::new(IGNORED_OPTION, Failed, "FFmpeg ignores an option", REPORT),
    Rule::new(
        "Permission denied",
        Permission,
        "this user may not open a device",
        "add the user to the group of the device; in a container pass the device",
    )
    .and("/dev/"),
    Rule::new(
        "Permission denied",
        Failed,
        "this user may not read a library",
        "check the permissions of the library and of the folders above it, and LD_LIBRARY_PATH",
    )
    .and(".so"),
    Rule::new("Decode error rate", Failed, "too many errors", REPORT),
    Rule::new(" exceeds ", Unsupported, "the picture is too large for this device", SIZE),
    Rule::new("Cannot allocate memory", Busy, "memory or sessions are used up", LATER)
        .as_last_resort(),
    // Neither a device nor a library is named: a file of FFmpeg's own.
    Rule::new(
        "Permission denied",
        Failed,
        "this user may not open a file",
        "check the permissions of the file that the message names, and of the folders above it",
    )
    .as_last_resort(),
];

/// A part of FFmpeg's warning about an option that has no effect.
pub(crate) const IGNORED_OPTION: &str = "has not been used for any stream";

/// Names the cause of a failure of FFmpeg: from its `stderr` by the tables `rules`, which come
/// before the rules of every encoder, and from its exit if no rule matches. A pure function.
///
/// Only lines that FFmpeg marked as a warning or worse are read, and lines without a mark: FFmpeg
/// reports its attempts as verbose, and these are not causes.
pub fn classify(
    encoder: EncoderType,
    rules: &[&'static [Rule]],
    stderr: &str,
    exit: Exit,
) -> Refusal {
    let all = || rules.iter().copied().chain([COMMON]).flatten();
    let find = |last_resort| {
        let mut rules = all().filter(|rule| rule.last_resort == last_resort);
        rules.find_map(|rule| Some((rule, stderr.lines().find(|line| matches(rule, line))?)))
    };
    if let Some((rule, line)) = find(false).or_else(|| find(true)) {
        let reason = format!("{}: {}", rule.meaning, line::split(line).1.trim_start());
        let refusal = Refusal::new(encoder, rule.kind, reason, rule.hint);
        return if rule.kind == Busy { refusal.transient() } else { refusal };
    }
    let log = match summary(stderr) {
        empty if empty.is_empty() => "without a message".into(),
        log => format!("with the messages: {log}"),
    };
    match exit {
        Exit::TimedOut(_) => Refusal::new(
            encoder,
            RefusalKind::Timeout,
            match last(stderr) {
                "" => format!("FFmpeg gave {exit}, without a message"),
                line => format!("FFmpeg gave {exit}; its last message: {line}"),
            },
            "check the driver (a hung device needs a restart); try again when the machine is idle",
        )
        .transient(),
        Exit::Signal(_) => Refusal::new(
            encoder,
            Failed,
            format!("FFmpeg was ended by {exit}, {log}"),
            "update FFmpeg and the driver",
        ),
        _ => Refusal::new(
            encoder,
            Failed,
            format!("FFmpeg ended with {exit}, {log}"),
            "run FFmpeg by hand with this encoder to see more",
        ),
    }
}

fn matches(rule: &Rule, line: &str) -> bool {
    (rule.any_level || !line::is_chatter(line))
        && line.contains(rule.needle)
        && line.contains(rule.also)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use RefusalKind::{Missing, NoDevice, Timeout};

    #[test]
    fn causes_of_logs() {
        // stderr | kind | transient
        let table: &[(&str, RefusalKind, bool)] = &[
            ("[error] Decode error rate 1 exceeds maximum 0.666667", Failed, false),
            ("Width 640 exceeds 512", Unsupported, false),
            ("[error] Failed to open /dev/device: Permission denied", Permission, false),
            ("ffmpeg: error while loading libx.so.2: Permission denied", Failed, false),
            ("[error] /home/me/.config/ffmpeg: Permission denied", Failed, false),
            ("[error] Unknown encoder 'h264_nvenc'", NotBuilt, false),
            (
                "Unrecognized option 'vsync'.\nError splitting the argument list: Option not found",
                Failed,
                false,
            ),
            (
                "Codec AVOption cq (x) has not been used for any stream. The most likely reason",
                Failed,
                false,
            ),
            ("Error: Cannot allocate memory", Busy, true),
            ("something new", Failed, false),
            ("", Failed, false),
        ];
        for (stderr, kind, transient) in table {
            let refusal = classify(EncoderType::X264, &[], stderr, Exit::Code(1));
            assert_eq!((refusal.kind, refusal.transient), (*kind, *transient), "{refusal}");
            assert!(!refusal.hint.is_empty());
            // The reason contains FFmpeg's own message too.
            let has_line = stderr.lines().any(|l| refusal.reason.contains(line::split(l).1));
            assert!(has_line || stderr.is_empty(), "{refusal}");
        }
    }

    const TABLE: &[Rule] = &[
        Rule::new("no runtime", Missing, "cause", "install"),
        Rule::new("no session", NoDevice, "consequence", "hint"),
        Rule::new("too", Unsupported, "both", "hint").and("wide"),
        Rule::new("tried", NoDevice, "only verbose", "hint").at_any_level(),
        Rule::new("nothing works", NoDevice, "sum", "hint").as_last_resort(),
    ];
    const SECOND: &[Rule] = &[Rule::new("denied", Permission, "second table", "hint")];

    #[test]
    fn rules_decide_in_their_order() {
        // stderr | the meaning
        for (stderr, meaning) in [
            ("[error] no session\n[error] no runtime", "cause: no runtime"),
            ("[error] no session", "consequence: no session"),
            ("[error] nothing works\n[error] denied", "second table: denied"),
            ("[error] nothing works\n[error] 640 exceeds 512", "the picture is too large"),
            ("[error] Cannot allocate memory\n[error] nothing works", "sum: nothing works"),
            ("[error] too high\n[error] too wide", "both: too wide"),
            ("[error] too high", "FFmpeg ended with exit status 1, with the messages"),
            ("[verbose] tried", "only verbose: tried"),
            // The first table decides before FFmpeg's own rules do.
            ("[error] Unrecognized option 'x'\n[error] no session", "consequence: no session"),
        ] {
            let refusal = classify(EncoderType::QSV, &[TABLE, SECOND], stderr, Exit::Code(1));
            assert!(refusal.reason.starts_with(meaning), "{stderr}: {refusal}");
        }
    }

    #[test]
    fn only_a_line_with_a_device_is_about_a_device() {
        // stderr | kind | a part of the reason | a part of the hint
        for (stderr, kind, reason, hint) in [
            ("[error] /dev/dri/renderD128: Permission denied", Permission, "a device", "container"),
            (
                "libcuda.so.1: cannot open shared object file: Permission denied",
                Failed,
                "a library",
                "LD_LIBRARY_PATH",
            ),
            ("[error] x264_2pass.log: Permission denied", Failed, "a file", "message names"),
            // A cause that is named decides.
            ("[error] log: Permission denied\n[error] too wide", Unsupported, "both", "hint"),
        ] {
            let refusal = classify(EncoderType::QSV, &[TABLE], stderr, Exit::Code(1));
            assert_eq!(refusal.kind, kind, "{refusal}");
            assert!(refusal.reason.contains(reason), "{refusal}");
            assert!(refusal.hint.contains(hint), "{refusal}");
        }
    }

    #[test]
    fn lines_below_a_warning_are_not_causes() {
        let rules: &[&[Rule]] = &[TABLE];
        for (stderr, kind) in [
            ("[h264_nvenc] [verbose] Trying without: no runtime", Failed),
            ("[info] Permission denied is what this film is called", Failed),
            ("[vf#0:0] [debug] Cannot allocate memory", Failed),
            ("[verbose] no runtime\n[error] no session", NoDevice),
            ("[h264_nvenc] [warning] no runtime", Missing),
            ("[fatal] no runtime", Missing),
            ("implib-gen: no runtime", Missing),
            // The text of an error may look like a mark.
            ("[error] [info] no runtime", Missing),
        ] {
            let refusal = classify(EncoderType::NVENC, rules, stderr, Exit::Code(1));
            assert_eq!(refusal.kind, kind, "{stderr}: {refusal}");
        }
    }

    #[test]
    fn without_a_message_the_exit_is_the_reason() {
        let of = |exit| classify(EncoderType::QSV, &[TABLE], "", exit);
        assert!(of(Exit::Signal(11)).reason.contains("segmentation fault"));
        assert!(of(Exit::Code(134)).reason.contains("exit status 134, without a message"));
        let late = of(Exit::TimedOut(Duration::from_secs(10)));
        assert_eq!((late.kind, late.transient), (Timeout, true));
        assert!(late.reason.contains("no answer in 10 s"));
        // The line that shows how far it came, and not all that it reported on the way.
        let chatter = "[verbose] one\n[warning] slow\n[verbose] two\n";
        let late = classify(EncoderType::QSV, &[], chatter, Exit::TimedOut(Duration::from_secs(9)));
        assert_eq!(late.reason, "FFmpeg gave no answer in 9 s; its last message: [warning] slow");
        // A message decides before the exit does.
        let line = "[h264_nvenc] [error] no runtime";
        let refusal = classify(EncoderType::NVENC, &[TABLE], line, Exit::Signal(9));
        assert_eq!((refusal.kind, refusal.reason.as_str()), (Missing, "cause: no runtime"));
    }
}
