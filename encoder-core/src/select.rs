use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tracing::debug;

use crate::{
    Caps, Detected, EncoderType, GpuEncoderConfig, OpenError, ProbeResult, Refusal, RefusalKind,
};

/// The user's settings for the choice of the encoder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Policy {
    /// The encoder to try first if it is usable; the others follow by rank.
    pub preferred: Option<EncoderType>,
    /// The only encoder to try; an error if it is not usable.
    pub require: Option<String>,
    /// Try encoders with a device only; an error if none is usable.
    pub require_hardware: bool,
    /// Whether a busy encoder may be waited for. If so, it stays in the order.
    pub wait: bool,
}

impl Policy {
    /// The policy of the settings `gpu`, with the name of a required encoder.
    pub fn new(gpu: &GpuEncoderConfig, require: Option<&str>) -> Self {
        Self {
            preferred: gpu.preferred_encoder,
            require: require.map(str::to_owned),
            require_hardware: gpu.require_hardware,
            wait: gpu.session_wait_s > 0,
        }
    }

    /// Why the policy rules a backend out.
    fn refuses(&self, detected: &Detected) -> Option<Refusal> {
        match &detected.result {
            ProbeResult::Refused(refusal) if !(self.wait && refusal.is_busy()) => {
                Some(refusal.clone())
            }
            _ if self.require_hardware && !detected.hardware => Some(software(detected.encoder)),
            _ => None,
        }
    }
}

/// Backends to try, in order, and those that were passed over.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Plan {
    /// The backends to open, in this order, until an encoder opens.
    pub order: Vec<EncoderType>,
    /// Why other backends are not in the order.
    pub refusals: Vec<Refusal>,
    /// The capabilities of the backends in the order, from their probes.
    pub probes: BTreeMap<EncoderType, Caps>,
    /// The software encoder that is used because no device of any hardware backend is here. `None`
    /// if a hardware backend is in the order or has a device that does not work, and if software
    /// was asked for.
    pub software_only: Option<EncoderType>,
    /// Whether the refusals were logged, which happens once for all clones of a plan.
    announced: Arc<AtomicBool>,
}

impl Plan {
    /// A plan from elsewhere than [`plan`], without probes.
    pub fn new(order: Vec<EncoderType>, refusals: Vec<Refusal>) -> Self {
        Self { order, refusals, ..Self::default() }
    }

    fn of(order: Vec<&Detected>, refusals: Vec<Refusal>) -> Self {
        let probe = |detected: &&Detected| match &detected.result {
            ProbeResult::Usable(caps) => Some((detected.encoder, caps.clone())),
            ProbeResult::Refused(_) => None,
        };
        let probes = order.iter().filter_map(probe).collect();
        let order = order.iter().map(|detected| detected.encoder).collect();
        Self { order, refusals, probes, ..Self::default() }
    }

    /// Logs each refusal as one `WARN`, at the first call on a plan or its clones. The refusal of a
    /// backend whose device is [absent](Refusal::absent) is only a `DEBUG`.
    /// [`Chain::new`](crate::Chain::new) calls it too.
    pub fn announce(&self) {
        if self.announced.swap(true, Ordering::Relaxed) {
            return;
        }
        for refusal in &self.refusals {
            match refusal.absent {
                true => debug!(encoder = %refusal.encoder, "no such device: {}", refusal.reason),
                false => refusal.warn(),
            }
        }
    }
}

/// Orders the backends: a pure function. The probe results are in rank order, as
/// [`Detection`](crate::Detection) returns them.
///
/// # Errors
/// [`OpenError::Unknown`] if the policy names a backend that is not compiled in;
/// [`OpenError::Refused`] if the required backend does not work; [`OpenError::NoneLeft`] if no
/// backend remains.
pub fn plan(policy: &Policy, results: &[Detected]) -> Result<Plan, OpenError> {
    let available = || results.iter().map(|d| d.encoder).collect();
    let find = |name: &str| {
        results
            .iter()
            .position(|d| d.encoder.as_str() == name)
            .ok_or_else(|| OpenError::Unknown { wanted: name.into(), available: available() })
    };
    if let Some(name) = &policy.require {
        let wanted = &results[find(name)?];
        return match policy.refuses(wanted) {
            Some(refusal) => Err(refusal.into()),
            None => Ok(Plan::of(vec![wanted], vec![])),
        };
    }
    let mut ranked: Vec<&Detected> = results.iter().collect();
    if let Some(id) = policy.preferred {
        let first = ranked.remove(find(id.as_str())?);
        ranked.insert(0, first);
    }
    let (mut order, mut refusals) = (Vec::new(), Vec::new());
    for &detected in &ranked {
        match policy.refuses(detected) {
            Some(refusal) => refusals.push(refusal),
            None => order.push(detected),
        }
    }
    let Some(first) = order.first().map(|first| first.encoder) else {
        return Err(OpenError::NoneLeft { refusals });
    };
    let mut hardware = ranked.iter().filter(|detected| detected.hardware).peekable();
    let is_absent = |detected: &&Detected| matches!(&detected.result, ProbeResult::Refused(refusal) if refusal.absent);
    let is_wanted = policy.preferred == Some(first);
    let is_forced = hardware.peek().is_some() && hardware.all(is_absent) && !is_wanted;
    let software_only = is_forced.then_some(first);
    Ok(Plan { software_only, ..Plan::of(order, refusals) })
}

fn software(encoder: EncoderType) -> Refusal {
    Refusal::new(
        encoder,
        RefusalKind::Unsupported,
        "a software encoder, and hardware is required",
        "set require_hardware = false to allow it",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Caps;

    /// `name+` usable, `name-` refused, `name~` busy, `name0` without a device, in rank order.
    fn results(spec: &str) -> Vec<Detected> {
        const KNOWN: [(EncoderType, bool); 6] = [
            (EncoderType::NVENC, true),
            (EncoderType::QSV, true),
            (EncoderType::VAAPI, true),
            (EncoderType::VIDEOTOOLBOX, true),
            (EncoderType::X264, false),
            (EncoderType::OPENH264, false),
        ];
        spec.split_whitespace()
            .map(|word| {
                let (name, sign) = word.split_at(word.len() - 1);
                let (encoder, hardware) =
                    *KNOWN.iter().find(|(e, _)| e.as_str() == name).expect("a known name");
                let refused = |kind| Refusal::new(encoder, kind, "no", "buy");
                let result = match sign {
                    "+" => ProbeResult::Usable(Caps::default()),
                    "-" => ProbeResult::Refused(refused(RefusalKind::NoDevice)),
                    "0" => ProbeResult::Refused(refused(RefusalKind::NoDevice).absent()),
                    _ => ProbeResult::Refused(refused(RefusalKind::Busy).transient()),
                };
                Detected::new(encoder, hardware, result)
            })
            .collect()
    }

    #[test]
    fn orders_and_refusals_of_policies() {
        const HARDWARE: u8 = 1;
        const WAIT: u8 = 2;
        // probe results | preferred | required | flags | order or error | refused
        let table: &[(&str, &str, &str, u8, &str, &str)] = &[
            // By rank, without encoders that do not work.
            ("nvenc+ x264+ openh264+", "", "", 0, "nvenc x264 openh264", ""),
            ("nvenc- x264+ openh264+", "", "", 0, "x264 openh264", "nvenc"),
            ("nvenc- x264- openh264+", "", "", 0, "openh264", "nvenc x264"),
            ("nvenc- x264- openh264-", "", "", 0, "!none", "nvenc x264 openh264"),
            ("", "", "", 0, "!none", ""),
            ("openh264+", "", "", 0, "openh264", ""),
            ("x264-", "", "", 0, "!none", "x264"),
            (
                "nvenc- qsv- vaapi- videotoolbox- x264- openh264+",
                "",
                "",
                0,
                "openh264",
                "nvenc qsv vaapi videotoolbox x264",
            ),
            (
                "nvenc+ qsv+ vaapi+ videotoolbox+ x264+ openh264+",
                "",
                "",
                0,
                "nvenc qsv vaapi videotoolbox x264 openh264",
                "",
            ),
            ("qsv- vaapi+ x264+", "", "", 0, "vaapi x264", "qsv"),
            ("qsv+ vaapi- x264+", "", "", 0, "qsv x264", "vaapi"),
            // A preferred encoder comes first if it works; the others follow.
            ("nvenc+ x264+", "x264", "", 0, "x264 nvenc", ""),
            ("nvenc+ x264+", "nvenc", "", 0, "nvenc x264", ""),
            ("nvenc+ qsv+ x264+", "qsv", "", 0, "qsv nvenc x264", ""),
            ("nvenc+ qsv- x264+", "qsv", "", 0, "nvenc x264", "qsv"),
            ("nvenc- qsv- x264+", "qsv", "", 0, "x264", "qsv nvenc"),
            ("nvenc- openh264-", "openh264", "", 0, "!none", "openh264 nvenc"),
            ("nvenc+ x264+", "qsv", "", 0, "!unknown", ""),
            ("", "x264", "", 0, "!unknown", ""),
            ("x264+ openh264+", "openh264", "", 0, "openh264 x264", ""),
            // A required encoder is the only one in the order, whatever is preferred.
            ("nvenc+ x264+", "", "x264", 0, "x264", ""),
            ("nvenc- x264+", "", "nvenc", 0, "!refused", ""),
            ("nvenc+ x264+", "", "qsv", 0, "!unknown", ""),
            ("nvenc+ x264+", "nvenc", "x264", 0, "x264", ""),
            ("nvenc+ x264-", "nvenc", "x264", 0, "!refused", ""),
            ("", "", "nvenc", 0, "!unknown", ""),
            // With required hardware, software encoders are refused.
            ("nvenc+ x264+", "", "", HARDWARE, "nvenc", "x264"),
            ("nvenc- x264+", "", "", HARDWARE, "!none", "nvenc x264"),
            ("nvenc- qsv+ x264+", "x264", "", HARDWARE, "qsv", "x264 nvenc"),
            ("nvenc+ x264+", "", "x264", HARDWARE, "!refused", ""),
            ("nvenc+ x264+", "", "nvenc", HARDWARE, "nvenc", ""),
            ("nvenc- x264+", "", "nvenc", HARDWARE, "!refused", ""),
            ("nvenc+ qsv+ x264- openh264+", "qsv", "", HARDWARE, "qsv nvenc", "x264 openh264"),
            ("x264+ openh264+", "", "", HARDWARE, "!none", "x264 openh264"),
            // A busy encoder is passed over, or waited for.
            ("nvenc~ x264+", "", "", 0, "x264", "nvenc"),
            ("nvenc~ x264+", "", "", WAIT, "nvenc x264", ""),
            ("nvenc~ x264+", "", "nvenc", 0, "!refused", ""),
            ("nvenc~ x264+", "", "nvenc", WAIT, "nvenc", ""),
            ("nvenc~ x264+", "", "", HARDWARE, "!none", "nvenc x264"),
            ("nvenc~ x264+", "", "", HARDWARE | WAIT, "nvenc", "x264"),
            ("nvenc~ qsv+ x264+", "nvenc", "", 0, "qsv x264", "nvenc"),
            ("nvenc~ qsv+ x264+", "qsv", "", WAIT, "qsv nvenc x264", ""),
            // A lasting refusal is not waited for.
            ("nvenc- x264+", "", "", WAIT, "x264", "nvenc"),
            ("nvenc- x264+", "", "nvenc", WAIT, "!refused", ""),
            ("nvenc~ qsv- x264-", "", "", WAIT, "nvenc", "qsv x264"),
        ];
        assert!(table.len() >= 40);
        for (spec, preferred, required, flags, expected, refused) in table {
            let name = |s: &str| (!s.is_empty()).then(|| s.to_string());
            let policy = Policy {
                preferred: name(preferred).map(|name| name.parse().expect("a known name")),
                require: name(required),
                require_hardware: flags & HARDWARE != 0,
                wait: flags & WAIT != 0,
            };
            let (got, refusals) = match plan(&policy, &results(spec)) {
                Ok(plan) => (
                    plan.order.iter().map(|e| e.as_str()).collect::<Vec<_>>().join(" "),
                    plan.refusals,
                ),
                Err(OpenError::NoneLeft { refusals }) => ("!none".into(), refusals),
                Err(OpenError::Unknown { .. }) => ("!unknown".into(), vec![]),
                Err(OpenError::Refused(_)) => ("!refused".into(), vec![]),
                Err(other) => panic!("{other}"),
            };
            let refusals: Vec<_> = refusals.iter().map(|r| r.encoder.as_str()).collect();
            assert_eq!(
                (got.as_str(), refusals.join(" ").as_str()),
                (*expected, *refused),
                "{spec}: {policy:?}"
            );
        }
    }

    #[test]
    fn software_for_want_of_a_device() {
        for (spec, preferred, expected) in [
            ("nvenc0 qsv0 x264+ openh264+", None, Some(EncoderType::X264)),
            ("nvenc0 x264- openh264+", None, Some(EncoderType::OPENH264)),
            // A device that is there and does not work has a warning of its own.
            ("nvenc- qsv0 x264+", None, None),
            ("nvenc~ qsv0 x264+", None, None),
            ("nvenc0 vaapi+ x264+", None, None),
            // Asked for, or the only kind of this build.
            ("nvenc0 x264+ openh264+", Some("openh264"), None),
            ("x264+ openh264+", None, None),
            // The preferred device is not here.
            ("nvenc0 x264+", Some("nvenc"), Some(EncoderType::X264)),
        ] {
            let preferred = preferred.map(|name: &str| name.parse().expect("a known name"));
            let policy = Policy { preferred, ..Policy::default() };
            let plan = plan(&policy, &results(spec)).expect("an order");
            assert_eq!(plan.software_only, expected, "{spec} {preferred:?}");
        }
    }

    #[test]
    fn a_policy_from_the_configuration() {
        let gpu = GpuEncoderConfig {
            preferred_encoder: Some(EncoderType::QSV),
            session_wait_s: 1,
            ..GpuEncoderConfig::default()
        };
        let policy = Policy::new(&gpu, Some("x264"));
        assert_eq!(
            (policy.preferred, policy.require.as_deref()),
            (Some(EncoderType::QSV), Some("x264"))
        );
        assert!(policy.wait && !policy.require_hardware);
        assert_eq!(Policy::new(&GpuEncoderConfig::default(), None), Policy::default());
    }
}
