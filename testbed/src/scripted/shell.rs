//! Steps as text for `sh`.

use std::{fs, io, path::Path, time::Duration};

use super::{Input, Real, Script, Step};

/// Longer than any test; bounded, so that no process stays on the machine for ever.
const FOR_EVER: &str = "sleep 1000";

/// The text of a flood.
const WARNING: &str = "[h264_nvenc @ 0x55d0c0ffee00] [warning] the same thing once more";

/// The text of the program. The bytes that it writes to stdout become files in `folder`.
pub(super) fn program(script: &Script, folder: &Path) -> io::Result<String> {
    // `mkdir` assigns a number to exactly one call. If the folder was removed with its owner, it
    // would fail for ever.
    let mut text = format!(
        "#!/bin/sh\n\
         here={}\n\
         claim() {{\n\
         n=1\n\
         while ! mkdir \"$here/$1.$n\" 2>/dev/null; do\n\
         [ -d \"$here/$1.$n\" ] || exit 99\n\
         n=$((n + 1))\n\
         done\n\
         }}\n\
         case \" $* \" in\n\
         *' -encoders '*) kind=listing ;;\n\
         *' -f h264 -i '*) kind=decoding ;;\n\
         *) kind=encoding ;;\n\
         esac\n\
         claim call; call=\"$here/call.$n\"\n\
         claim $kind\n\
         printf '%s\\0' $kind $n $$ \"$@\" >\"$call/saying\" && mv \"$call/saying\" \"$call/said\"\n",
        quote(&folder.to_string_lossy()),
    );
    let mut cases = vec![
        ("[ $kind = listing ]".to_owned(), &script.listing),
        ("[ $kind = decoding ]".to_owned(), &script.decoding),
    ];
    let mut until = 0;
    for (times, steps) in &script.first {
        until += times;
        cases.push((format!("[ $n -le {until} ]"), steps));
    }
    cases.push(("true".to_owned(), &script.encoding));
    let mut data = Data { folder, files: 0 };
    for (condition, steps) in cases {
        text.push_str(&format!("if {condition}; then\n"));
        for (index, step) in steps.iter().enumerate() {
            let last = index + 1 == steps.len();
            text.push_str(&line(script, step, last, &mut data)?);
            text.push('\n');
        }
        text.push_str("exit 0\nfi\n");
    }
    Ok(text)
}

struct Data<'a> {
    folder: &'a Path,
    files: u32,
}

impl Data<'_> {
    fn file(&mut self, bytes: &[u8]) -> io::Result<String> {
        self.files += 1;
        let path = self.folder.join(format!("data.{}", self.files));
        fs::write(&path, bytes)?;
        Ok(quote(&path.to_string_lossy()))
    }
}

fn line(script: &Script, step: &Step, last: bool, data: &mut Data<'_>) -> io::Result<String> {
    Ok(match step {
        Step::List => {
            let mut list = String::from("Encoders:\n V..... = Video\n ------\n");
            for name in &script.encoders {
                list.push_str(&format!(" V....D {name:20} H.264 (codec h264)\n"));
            }
            format!("{}\ncat {}", say(&script.banner), data.file(list.as_bytes())?)
        }
        Step::Say(text) => say(text),
        Step::Write(bytes) => format!("cat {}", data.file(bytes)?),
        Step::Take(bytes) => format!("head -c {bytes} >/dev/null"),
        Step::TakeAll => "cat >/dev/null".into(),
        Step::Wait(time) => sleep(*time),
        Step::FloodStderr(bytes) => format!("{} >&2", flood(*bytes)),
        Step::FloodStdout(bytes) => flood(*bytes),
        Step::IgnoreSignals => "trap '' TERM INT HUP".into(),
        // Without an explicit redirection, a shell closes stdin of a background process.
        Step::HoldPipes => format!("exec 3<&0\n{FOR_EVER} <&3 &"),
        Step::HoldStdout => format!("{FOR_EVER} 2>/dev/null &"),
        Step::Real(real) => forward(real, last),
        Step::Hang => format!("exec {FOR_EVER}"),
        Step::Exit(status) => format!("exit {status}"),
        // No core file: the crash is intended.
        Step::Die(signal) => format!("ulimit -c 0\nkill -{signal} $$"),
    })
}

fn say(text: &str) -> String {
    format!("printf '%s\\n' {} >&2", quote(text))
}

fn sleep(time: Duration) -> String {
    format!("sleep {}", time.as_secs_f64())
}

fn flood(bytes: Option<u64>) -> String {
    match bytes {
        // Whole lines, so that the next text starts on a new line.
        Some(bytes) => {
            format!("{{ yes '{WARNING}' | head -c {}; echo; }}", bytes.saturating_sub(1))
        }
        None => format!("exec yes '{WARNING}'"),
    }
}

fn forward(real: &Real, last: bool) -> String {
    let program = quote(&real.program.to_string_lossy());
    let mut text = match real.input {
        Input::All if last && real.output.is_none() => format!("exec {program} \"$@\""),
        Input::All => format!("{program} \"$@\""),
        // One by one: the rest of a piece would wait in a buffer for the next piece.
        Input::First(count, bytes) => format!(
            "n=0; while [ $n -lt {count} ]; do head -c {bytes}; n=$((n + 1)); done | \
             {program} \"$@\""
        ),
        Input::Slowly(bytes, pause) => format!(
            "while head -c {bytes} >\"$call/piece\" && [ -s \"$call/piece\" ]; do\n\
             cat \"$call/piece\" && {} || break\n\
             done | {program} \"$@\"",
            sleep(pause)
        ),
    };
    if let Some(bytes) = real.output {
        text.push_str(&format!(" | {{ head -c {bytes}; cat >/dev/null; }}"));
    }
    text
}

/// One word for the shell.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
