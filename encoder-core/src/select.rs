use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::{Detected, EncoderType, OpenError, Refusal, RefusalKind, Verdict};

/// What a user wants of the choice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Goes first when it is usable; the others stay behind it.
    pub preferred: Option<String>,
    /// Only this one, or an error.
    pub require: Option<String>,
    /// Only backends with a device, or an error.
    pub require_hardware: bool,
}

/// Backends to try, in order, and those that were passed over.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// To be opened in this order, until one opens.
    pub order: Vec<EncoderType>,
    /// Why others are not in the order.
    pub refusals: Vec<Refusal>,
    /// Whether the refusals were logged: once for a plan, however often it is used.
    announced: Arc<AtomicBool>,
}

impl Plan {
    /// A plan that was made elsewhere.
    pub fn new(order: Vec<EncoderType>, refusals: Vec<Refusal>) -> Self {
        Self { order, refusals, announced: Arc::default() }
    }

    /// Logs each refusal as one `WARN`, the first time that it is called on a plan or its clones.
    /// Opening an encoder does it too.
    pub fn announce(&self) {
        if !self.announced.swap(true, Ordering::Relaxed) {
            self.refusals.iter().for_each(Refusal::warn);
        }
    }
}

/// Orders the backends. A pure function: the verdicts come in rank order, as [`crate::detect`]
/// gives them.
///
/// # Errors
/// [`OpenError::Unknown`] when a name is asked for that is not compiled in;
/// [`OpenError::Refused`] when the required one does not work here; [`OpenError::NoneLeft`] when
/// nothing is left.
pub fn plan(policy: &Policy, verdicts: &[Detected]) -> Result<Plan, OpenError> {
    let available = || verdicts.iter().map(|d| d.encoder).collect();
    let find = |name: &str| {
        verdicts
            .iter()
            .position(|d| d.encoder.as_str() == name)
            .ok_or_else(|| OpenError::Unknown { wanted: name.into(), available: available() })
    };
    if let Some(name) = &policy.require {
        let wanted = &verdicts[find(name)?];
        if let Verdict::Refused(refusal) = &wanted.verdict {
            return Err(refusal.clone().into());
        }
        if policy.require_hardware && !wanted.hardware {
            return Err(software(wanted.encoder).into());
        }
        return Ok(Plan::new(vec![wanted.encoder], vec![]));
    }
    let mut ranked: Vec<&Detected> = verdicts.iter().collect();
    if let Some(name) = &policy.preferred {
        let first = ranked.remove(find(name)?);
        ranked.insert(0, first);
    }
    let (mut order, mut refusals) = (Vec::new(), Vec::new());
    for detected in ranked {
        match &detected.verdict {
            Verdict::Refused(refusal) => refusals.push(refusal.clone()),
            Verdict::Usable(_) if policy.require_hardware && !detected.hardware => {
                refusals.push(software(detected.encoder));
            }
            Verdict::Usable(_) => order.push(detected.encoder),
        }
    }
    if order.is_empty() {
        return Err(OpenError::NoneLeft { refusals });
    }
    Ok(Plan::new(order, refusals))
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

    /// `n+` usable, `n-` refused; nvenc and qsv are hardware.
    fn verdicts(spec: &str) -> Vec<Detected> {
        spec.split_whitespace()
            .map(|word| {
                let (name, sign) = word.split_at(word.len() - 1);
                let encoder = [
                    EncoderType::NVENC,
                    EncoderType::QSV,
                    EncoderType::X264,
                    EncoderType::OPENH264,
                ]
                .into_iter()
                .find(|e| e.as_str() == name)
                .expect("a known name");
                let verdict = if sign == "+" {
                    Verdict::Usable(Caps::default())
                } else {
                    Verdict::Refused(Refusal::new(encoder, RefusalKind::NoDevice, "no", "buy"))
                };
                let hardware = encoder < EncoderType::VIDEOTOOLBOX && name != "openh264";
                Detected { encoder, hardware, verdict, probe_ms: 0 }
            })
            .collect()
    }

    #[test]
    fn the_table() {
        // verdicts | preferred | required | hardware only | order or error | refused
        let table: &[(&str, &str, &str, bool, &str, &str)] = &[
            ("nvenc+ x264+ openh264+", "", "", false, "nvenc x264 openh264", ""),
            ("nvenc- x264+ openh264+", "", "", false, "x264 openh264", "nvenc"),
            ("nvenc- x264- openh264+", "", "", false, "openh264", "nvenc x264"),
            ("nvenc- x264- openh264-", "", "", false, "!none", "nvenc x264 openh264"),
            ("", "", "", false, "!none", ""),
            ("nvenc+ x264+", "x264", "", false, "x264 nvenc", ""),
            ("nvenc+ qsv+ x264+", "qsv", "", false, "qsv nvenc x264", ""),
            ("nvenc+ qsv- x264+", "qsv", "", false, "nvenc x264", "qsv"),
            ("nvenc+ x264+", "qsv", "", false, "!unknown", ""),
            ("nvenc+ x264+", "", "x264", false, "x264", ""),
            ("nvenc- x264+", "", "nvenc", false, "!refused", ""),
            ("nvenc+ x264+", "", "qsv", false, "!unknown", ""),
            ("nvenc+ x264+", "nvenc", "x264", false, "x264", ""),
            ("nvenc+ x264+", "", "", true, "nvenc", "x264"),
            ("nvenc- x264+", "", "", true, "!none", "nvenc x264"),
            ("nvenc- qsv+ x264+", "x264", "", true, "qsv", "x264 nvenc"),
            ("nvenc+ x264+", "", "x264", true, "!refused", ""),
            ("nvenc+ x264+", "", "nvenc", true, "nvenc", ""),
        ];
        for (spec, preferred, required, hardware, expected, refused) in table {
            let name = |s: &str| (!s.is_empty()).then(|| s.to_string());
            let policy = Policy {
                preferred: name(preferred),
                require: name(required),
                require_hardware: *hardware,
            };
            let (got, refusals) = match plan(&policy, &verdicts(spec)) {
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
                "{policy:?}"
            );
        }
    }
}
