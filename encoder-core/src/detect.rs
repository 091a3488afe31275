use std::time::{Duration, Instant};

use serde::Serialize;

use crate::{Backend, EncoderType, Policy, Refusal, RefusalKind, Verdict, backends};

/// How long one backend may take to prove itself.
const DEADLINE: Duration = Duration::from_secs(10);

/// A backend with its verdict.
#[derive(Clone, Debug, Serialize)]
pub struct Detected {
    /// Which backend.
    pub encoder: EncoderType,
    /// Whether it needs a device.
    pub hardware: bool,
    /// What the proof gave.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// How long the proof took, in milliseconds.
    pub probe_ms: u64,
}

/// Probes every backend that is compiled in, side by side, and gives the verdicts in rank order.
///
/// Takes as long as the slowest probe.
pub fn detect() -> Vec<Detected> {
    detect_among(&backends())
}

/// As [`detect`], but probes only what `policy` can lead to: a required encoder alone.
pub fn detect_for(policy: &Policy) -> Vec<Detected> {
    let all = backends();
    match &policy.require {
        Some(name) => match all.iter().find(|b| b.id.as_str() == name) {
            Some(backend) => detect_among(&[backend]),
            None => detect_among(&all),
        },
        None => detect_among(&all),
    }
}

fn detect_among(backends: &[&'static Backend]) -> Vec<Detected> {
    std::thread::scope(|scope| {
        let running: Vec<_> = backends
            .iter()
            .map(|&backend| {
                (
                    backend,
                    scope.spawn(move || {
                        let begun = Instant::now();
                        ((backend.probe)(DEADLINE), begun.elapsed())
                    }),
                )
            })
            .collect();
        running
            .into_iter()
            .map(|(backend, thread)| {
                let (verdict, elapsed) = thread.join().unwrap_or_else(|_| {
                    let refusal = Refusal::new(
                        backend.id,
                        RefusalKind::Failed,
                        "its probe panicked",
                        "report it with the output of `encoder detect`",
                    );
                    (Verdict::Refused(refusal), Duration::ZERO)
                });
                Detected {
                    encoder: backend.id,
                    hardware: backend.hardware,
                    verdict,
                    probe_ms: elapsed.as_millis() as u64,
                }
            })
            .collect()
    })
}

/// The backends that work here, the best one first. See [`detect`] for the reasons behind it.
pub fn detect_available_encoders() -> Vec<EncoderType> {
    detect().into_iter().filter(|d| d.verdict.is_usable()).map(|d| d.encoder).collect()
}
