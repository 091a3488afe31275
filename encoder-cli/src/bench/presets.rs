//! Selects the presets of each encoder to measure.

use encoder_core::{Backend, ConfigError, Presets, Settings};

use super::args::Bench;
use crate::settings::Refused;

/// The name of the preset of an encoder without presets.
const NO_PRESET: &str = "-";

/// The presets of an encoder to measure: the requested presets that it has.
pub fn wanted(args: &Bench, presets: &Presets) -> Vec<String> {
    if presets.all.is_empty() {
        return vec![NO_PRESET.into()];
    }
    if args.preset.is_empty() {
        return presets.usual.iter().map(|&name| name.into()).collect();
    }
    args.preset.iter().filter(|name| presets.all.contains(&name.as_str())).cloned().collect()
}

/// Refuses a preset that no encoder of this build has.
pub fn check(args: &Bench) -> Result<(), Refused> {
    let all = encoder_core::backends();
    let mut known: Vec<&str> = Vec::new();
    for name in all.iter().flat_map(|backend| backend.presets.all) {
        if !known.contains(name) {
            known.push(name);
        }
    }
    match args.preset.iter().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(Refused::usage(ConfigError::value("--preset", name, known.join(", ")))),
        None => Ok(()),
    }
}

pub fn backend(name: &str) -> Option<&'static Backend> {
    encoder_core::backends().into_iter().find(|backend| backend.id.as_str() == name)
}

/// The settings for one row.
pub fn settings(args: &Bench, preset: &str, encoder: &str) -> Result<Settings, Refused> {
    let mut settings = args.video.settings()?;
    if let Some(backend) = backend(encoder).filter(|_| preset != NO_PRESET) {
        (backend.presets.choose)(&mut settings, preset).map_err(Refused::usage)?;
    }
    Ok(settings)
}
