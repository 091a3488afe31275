//! Texts of refusals, with the GPU and the driver.

use std::path::Path;

use encoder_core::{EncoderType, Refusal, RefusalKind};
use encoder_ffmpeg::set_ffmpeg;

use crate::{
    facts::{Api, Candidate, Found},
    library::jetson,
};

/// The Linux drivers that introduced an API, as far as they are known.
const DRIVERS: [(Api, &str); 6] = [
    (Api(10, 0), "445.87"),
    (Api(11, 0), "455.28"),
    (Api(11, 1), "470.57"),
    (Api(12, 0), "520.56"),
    (Api(13, 0), "570"),
    (Api(13, 1), "610"),
];

/// A lasting refusal.
pub(crate) fn refuse(
    kind: RefusalKind,
    reason: impl Into<String>,
    hint: impl Into<String>,
) -> Refusal {
    Refusal::new(EncoderType::NVENC, kind, reason, hint)
}

/// The hint for a driver without the API `needed`.
pub(crate) fn update(needed: Api) -> String {
    let known = DRIVERS.iter().find(|(api, _)| *api >= needed);
    match known {
        Some((_, driver)) => format!("update the NVIDIA driver to {driver} or newer"),
        None => "update the NVIDIA driver".into(),
    }
}

/// Whether a GPU of this name is known to have no encoder: the compute parts GA100, GH100 and GB100
/// to GB300, the small GM108 and GP108, and boards that are sold without outputs. The name alone
/// causes no refusal; it explains a refusal of another cause.
pub(crate) fn lacks_encoder(name: &str) -> bool {
    const PARTS: &[&str] = &[
        "A100", "A100X", "A800", "A30", "A30X", "H100", "H100L", "H800", "H20", "H200", "GH200",
        "B100", "B200", "B300", "GB200", "GB300", "CMP", "P102", "P104", "P106", "MX110", "MX130",
        "MX150", "MX230", "MX250", "MX330", "MX350", "MX450", "830M", "840M", "920MX", "930M",
        "930MX", "940M", "940MX", "1010", "1030",
    ];
    name.split([' ', '-']).any(|word| PARTS.contains(&word))
}

/// The refusal of a GPU without an encoder.
pub(crate) fn no_encoder(name: &str) -> Refusal {
    refuse(
        RefusalKind::NoDevice,
        format!("{name} has no video encoder (NVENC)"),
        "use a GPU with NVENC (such as T4, L4, L40S, A10 or RTX), or another encoder",
    )
}

/// The last driver for old GPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LastDriver {
    /// For Kepler.
    Series470,
    /// For Maxwell, Pascal and Volta.
    Series580,
}

impl LastDriver {
    fn api(self) -> Api {
        match self {
            Self::Series470 => Api(11, 1),
            Self::Series580 => Api(13, 0),
        }
    }
}

/// The last driver for a GPU of this name. `None` for GPUs that the newest drivers support, and for
/// unknown names.
pub(crate) fn last_driver(name: &str) -> Option<LastDriver> {
    use LastDriver::{Series470 as KEPLER, Series580 as PASCAL};
    const MAXWELL_QUADROS: &[&str] = &["K620", "K620M", "K1200", "K2200"];
    let words: Vec<&str> = name.split([' ', '-', '(', ')', ',']).collect();
    let has = |list: &[&str]| words.iter().any(|word| list.contains(word));
    // A letter and a number, such as P2000 or M60.
    let board = |letter: char| {
        words.iter().any(|word| {
            let number = word.strip_prefix(letter).unwrap_or_default();
            let number = number.trim_end_matches(|end: char| end.is_ascii_alphabetic());
            number.parse::<u32>().is_ok()
        })
    };
    if has(&["Quadro", "Tesla", "GRID", "NVS"]) {
        return match () {
            () if has(MAXWELL_QUADROS) || board('M') || board('P') || board('V') => Some(PASCAL),
            () if has(&["GP100", "GV100"]) => Some(PASCAL),
            () if board('K') => Some(KEPLER),
            () => None,
        };
    }
    if has(&["TITAN"]) {
        return match () {
            () if has(&["RTX"]) => None,
            () if has(&["X", "Xp", "V"]) => Some(PASCAL),
            () => Some(KEPLER),
        };
    }
    if !has(&["GeForce"]) || has(&["RTX"]) {
        return None;
    }
    // GTX 1080, GTX 980M, GT 730, MX350, 840M. GTX 16 is Turing.
    let model = words.iter().find_map(|word| {
        let number = word.trim_start_matches("MX").trim_end_matches(['M', 'X', 'A']);
        Some((number.parse::<u32>().ok()?, word.starts_with("MX")))
    });
    match model? {
        (450 | 550 | 570, true) => None,
        (_, true) | (745 | 750 | 830..=999 | 1000..=1099, false) => Some(PASCAL),
        (600..=829, false) => Some(KEPLER),
        _ => None,
    }
}

/// The hint for GPUs whose last driver lacks the API that this FFmpeg needs. `None` if a newer
/// driver may help.
fn older_ffmpeg(found: &Found, needed: Option<Api>) -> Option<String> {
    let last = |gpu: &Candidate| gpu.name.as_deref().and_then(last_driver);
    // The newest of several GPUs decides: a driver for it may be newer.
    let lasts: Option<Vec<_>> = found.gpus.iter().map(last).collect();
    let last = lasts?.into_iter().max()?;
    if needed.is_some_and(|needed| needed <= last.api()) {
        return None;
    }
    let Api(major, minor) = last.api();
    let (series, example) = match last {
        LastDriver::Series470 => (470, "FFmpeg 5.1 of Debian 12"),
        LastDriver::Series580 => (580, "FFmpeg 7"),
    };
    Some(format!(
        "{} {major}.{minor} or older, such as {example}; a driver that is newer than the series \
         {series} no longer supports this GPU",
        set_ffmpeg!("an FFmpeg that was built for NVENC API")
    ))
}

/// Whether FFmpeg reports that it does not find a library of the driver.
fn lacks_library(reason: &str) -> bool {
    ["Cannot load libcuda", "Cannot load libnvidia-encode", "Cannot load nv"]
        .iter()
        .any(|part| reason.contains(part))
}

/// The refusal of an FFmpeg that does not find the driver, which is on this machine.
fn no_driver_for(ffmpeg: &Path, refusal: &Refusal) -> Refusal {
    let place = ffmpeg.display().to_string();
    let why = match () {
        () if place.contains("/snap/") => {
            "an FFmpeg of snap sees only the libraries inside of snaps: use the FFmpeg of this \
             system's package manager"
        }
        () if place.contains("/nix/store/") => {
            "an FFmpeg of Nix does not look into the folders of this system: add the driver's \
             folder to LD_LIBRARY_PATH (on NixOS /run/opengl-driver/lib), run this program with \
             nixGL, or use the FFmpeg of this system"
        }
        () => {
            "its loader looks into other folders than that of this program, as those of static \
             builds, snap, Nix, Flatpak and Homebrew do, or a script around it changes \
             LD_LIBRARY_PATH: use the FFmpeg of this system's package manager"
        }
    };
    let reason = format!(
        "{place} does not find the NVIDIA driver, which this program can load ({})",
        refusal.reason
    );
    let hint = format!("{why}, and {}", set_ffmpeg!("its path"));
    refuse(RefusalKind::Missing, reason, hint)
}

/// Adds the device to the refusal of a probe with this FFmpeg.
pub(crate) fn with_device(refusal: Refusal, found: &Found, ffmpeg: Option<&Path>) -> Refusal {
    use RefusalKind::{DriverTooOld, Missing, NoDevice, NotBuilt, Permission};
    if refusal.kind == Missing && found.has_driver && lacks_library(&refusal.reason) {
        let ffmpeg = ffmpeg.unwrap_or(Path::new("ffmpeg"));
        return no_driver_for(ffmpeg, &refusal);
    }
    if refusal.kind == NoDevice && found.is_jetson {
        return jetson(&refusal.reason);
    }
    if matches!(refusal.kind, Missing | NotBuilt | Permission) {
        return refusal;
    }
    let bare = |gpu: &Candidate| gpu.name.as_deref().is_some_and(lacks_encoder);
    if refusal.kind == NoDevice && !found.gpus.is_empty() && found.gpus.iter().all(bare) {
        let cause = no_encoder(&found.name);
        let reason = format!("{} [{}]", cause.reason, refusal.reason);
        return cause.with_reason(reason);
    }
    let device: Vec<_> = [Some(&found.name), found.driver.as_ref()].into_iter().flatten().collect();
    let device = device.iter().map(|text| text.as_str()).collect::<Vec<_>>().join(", ");
    let needed = required(&refusal.reason);
    let hint = match (refusal.kind, older_ffmpeg(found, needed), needed) {
        (DriverTooOld, Some(hint), _) => hint,
        (DriverTooOld, None, Some(needed)) => format!(
            "{}, or {}",
            update(needed),
            set_ffmpeg!("an FFmpeg that was built for this driver")
        ),
        _ => refusal.hint.clone(),
    };
    let reason = format!("{} [{device}]", refusal.reason);
    refusal.with_reason(reason).with_hint(hint)
}

/// The API in FFmpeg's message "Required: 13.1 Found: 12.2".
fn required(message: &str) -> Option<Api> {
    let (_, rest) = message.split_once("Required: ")?;
    let (major, minor) = rest.split_whitespace().next()?.split_once('.')?;
    Some(Api(major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
#[path = "messages_tests.rs"]
mod tests;
