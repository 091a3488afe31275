//! `encoder detect`.

use std::{fmt, path::Path};

use encoder_core::{Caps, Detected, Device, OpenError, Policy, ProbeResult};

use crate::{
    options::ProbeArgs,
    settings::{Refused, load},
};

/// Where the columns of text begin: name, kind, probe result, time, and the rest.
const INDENT: usize = 43;

/// Probes all encoders of this build, or the named encoder.
pub fn find(
    name: Option<&str>,
    config: Option<&Path>,
    probe: &ProbeArgs,
) -> Result<Vec<Detected>, Refused> {
    let settings = load(config)?;
    let policy = Policy::new(&settings.gpu, name);
    let found = probe.detection(&settings).for_policy(&policy).run().map_err(Refused::usage)?;
    if let Some(wanted) = name.filter(|name| found.iter().all(|d| d.encoder.as_str() != *name)) {
        let available = found.iter().map(|d| d.encoder).collect();
        let wanted = wanted.to_owned();
        return Err(Refused::usage(OpenError::Unknown { wanted, available }));
    }
    Ok(found)
}

/// The results as a table.
pub struct Table<'a>(pub &'a [Detected]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            writeln!(out, "no encoder in this build: enable the feature of a backend")?;
        }
        for found in self.0 {
            let kind = if found.hardware { "hardware" } else { "software" };
            let place = place(found.device.as_ref());
            let (word, what) = match &found.result {
                ProbeResult::Usable(caps) if place.is_empty() => ("usable", caps.library.clone()),
                ProbeResult::Usable(caps) => ("usable", format!("{}, {place}", caps.library)),
                ProbeResult::Refused(refusal) => ("refused", refusal.reason.clone()),
            };
            let ms = found.probe_ms;
            writeln!(out, "{:<13}{kind:<10}{word:<9}{ms:>6} ms  {what}", found.encoder)?;
            let mut line = |text: String| writeln!(out, "{:INDENT$}{text}", "");
            match &found.result {
                ProbeResult::Usable(caps) => {
                    line(format!("probed: {}", probed(caps)))?;
                    for note in &caps.notes {
                        line(format!("note: {note}"))?;
                    }
                }
                ProbeResult::Refused(refusal) => {
                    if !place.is_empty() {
                        line(format!("found: {place}"))?;
                    }
                    line(format!("hint: {}", refusal.hint))?;
                }
            }
            if let Some(age) = found.cached_s {
                line(format!("as found {} ago; --reprobe looks again", ago(age)))?;
            }
        }
        Ok(())
    }
}

fn place(device: Option<&Device>) -> String {
    let Some(device) = device else { return String::new() };
    [Some(device.name.as_str()), device.driver.as_deref()]
        .into_iter()
        .flatten()
        .filter(|text| !text.is_empty())
        .collect::<Vec<_>>()
        .join(", ")
}

fn probed(caps: &Caps) -> String {
    let formats = caps.pixel_formats.iter().map(|format| format.as_str());
    formats.chain(caps.features.iter().map(String::as_str)).collect::<Vec<_>>().join(", ")
}

fn ago(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert_eq!([0, 119, 120, 7199, 7200].map(ago), ["0 s", "119 s", "2 min", "119 min", "2 h"]);
        assert_eq!(place(None), "");
        let device = |name| Device::new(name).with_driver("driver 1".to_owned());
        assert_eq!(place(Some(&device("a GPU"))), "a GPU, driver 1");
        assert_eq!(place(Some(&device(""))), "driver 1");
    }
}
