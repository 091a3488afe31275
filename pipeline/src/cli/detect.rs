//! `encoder detect`.

use std::io::{self, Write};

use encoder_core::{Verdict, detect as probe_all};

pub fn detect(json: bool) -> io::Result<()> {
    let all = probe_all();
    let mut out = io::stdout().lock();
    if json {
        let text = serde_json::to_string_pretty(&all)?;
        return writeln!(out, "{text}");
    }
    if all.is_empty() {
        writeln!(out, "no encoder in this build: enable a backend feature, such as openh264")?;
    }
    for found in &all {
        let kind = if found.hardware { "hardware" } else { "software" };
        let (word, what) = match &found.verdict {
            Verdict::Usable(caps) => ("usable", caps.device.clone()),
            Verdict::Refused(refusal) => ("refused", refusal.reason.clone()),
        };
        writeln!(out, "{:<13}{kind:<10}{word:<9}{:>6} ms  {what}", found.encoder, found.probe_ms)?;
        match &found.verdict {
            Verdict::Usable(caps) => {
                for note in &caps.notes {
                    writeln!(out, "{:<43}note: {note}", "")?;
                }
            }
            Verdict::Refused(refusal) => writeln!(out, "{:<43}cure: {}", "", refusal.cure)?,
        }
    }
    Ok(())
}
