//! Texts of refusals, with the GPU and the driver.

use encoder_core::{EncoderType, Refusal, RefusalKind};

use crate::facts::{Api, Candidate, Found};

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

/// Adds the device to the refusal of a probe.
pub(crate) fn with_device(refusal: Refusal, found: &Found) -> Refusal {
    use RefusalKind::{DriverTooOld, Missing, NoDevice, NotBuilt, Permission};
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
    let hint = match required(&refusal.reason) {
        Some(needed) if refusal.kind == DriverTooOld => format!(
            "{}, or set ENCODER_FFMPEG to an FFmpeg that was built for this driver",
            update(needed)
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
mod tests {
    use super::*;
    use RefusalKind::{DriverTooOld, Missing, NoDevice};

    fn found(names: &[&str]) -> Found {
        let gpu = |(index, name): (u32, &&str)| Candidate {
            index,
            key: format!("GPU-{index}"),
            name: Some((*name).into()),
            known: true,
            bare: false,
        };
        Found {
            name: names.join(", "),
            driver: Some("driver 570.86.15, NVENC API 13.0".into()),
            identity: Vec::new(),
            gpus: (0..).zip(names).map(gpu).collect(),
        }
    }

    #[test]
    fn names() {
        for name in [
            "NVIDIA A100-SXM4-80GB",
            "NVIDIA A30",
            "NVIDIA H100 PCIe",
            "NVIDIA H200",
            "NVIDIA GH200 480GB",
            "NVIDIA B200",
            "GRID A100-4C",
            "GeForce GT 1030",
            "NVIDIA GeForce MX350",
            "P106-100",
            "NVIDIA CMP 170HX",
        ] {
            assert!(lacks_encoder(name), "{name}");
        }
        for name in [
            "NVIDIA L4",
            "Tesla T4",
            "NVIDIA A10",
            "NVIDIA A10G",
            "NVIDIA L40S",
            "NVIDIA RTX A1000",
            "NVIDIA RTX A3000 Laptop GPU",
            "NVIDIA GeForce RTX 3050",
            "NVIDIA RTX PRO 6000 Blackwell",
            "Quadro P1000",
            "NVIDIA Virtual",
        ] {
            assert!(!lacks_encoder(name), "{name}");
        }
    }

    #[test]
    fn refusals_get_the_device() {
        let with_device = |kind, reason: &str, names: &[&str]| {
            let found = found(names);
            let refusal = refuse(kind, reason, "hint").transient();
            let refusal = super::with_device(refusal, &found);
            assert_eq!(refusal.kind, kind);
            (refusal.reason, refusal.hint, refusal.transient)
        };
        let unsupported = "this GPU has no video encoder: unsupported device (2)";
        let (reason, hint, transient) = with_device(NoDevice, unsupported, &["NVIDIA H200"]);
        assert_eq!(
            reason,
            "NVIDIA H200 has no video encoder (NVENC) \
         [this GPU has no video encoder: unsupported device (2)]"
        );
        assert!(hint.contains("another encoder") && !transient);
        let (reason, hint, transient) =
            with_device(NoDevice, unsupported, &["NVIDIA H200", "NVIDIA L4"]);
        assert_eq!(
            reason,
            format!("{unsupported} [NVIDIA H200, NVIDIA L4, driver 570.86.15, NVENC API 13.0]")
        );
        assert!(hint == "hint" && transient);
        for (needed, expected) in [
            ("13.1", "update the NVIDIA driver to 610 or newer, or set ENCODER_FFMPEG"),
            ("12.2", "update the NVIDIA driver to 570 or newer"),
            ("11.1", "470.57"),
            ("99.0", "update the NVIDIA driver, or set"),
        ] {
            let message = format!("too old: Required: {needed} Found: 8.0");
            let (reason, hint, _) = with_device(DriverTooOld, &message, &["NVIDIA L4"]);
            assert!(reason.ends_with("[NVIDIA L4, driver 570.86.15, NVENC API 13.0]"));
            assert!(hint.starts_with(expected) || hint.contains(expected), "{hint}");
        }
        assert_eq!(required("Required: x"), None);
        assert_eq!(with_device(DriverTooOld, "no number", &["NVIDIA L4"]).1, "hint");
        assert_eq!(with_device(Missing, "no ffmpeg", &["NVIDIA L4"]).0, "no ffmpeg");
    }
}
