use tracing::info;

use crate::{Backend, OpenError, OpenRequest, Plan, Refusal, Settings, VideoEncoder, backends};

/// An open encoder and what was passed over on the way to it.
pub struct Opened {
    /// The encoder, ready for frame 0.
    pub encoder: Box<dyn VideoEncoder>,
    /// Every backend before it in the order, with the reason.
    pub refusals: Vec<Refusal>,
}

/// Opens the first encoder of `plan` that opens for `settings.encoder` (whose resolution must be
/// set). Each one that does not is one `WARN` with its reason and cure (those that the plan passed
/// over: once for the plan); the choice is one `INFO`.
///
/// # Errors
/// [`OpenError::Config`] at once when the settings are wrong, [`OpenError::NoneLeft`] when nothing
/// opened.
pub fn open_first(plan: &Plan, settings: &Settings, threads: usize) -> Result<Opened, OpenError> {
    settings.check()?;
    if settings.encoder.resolution.is_none() {
        return Err(crate::ConfigError::value("encoder.resolution", "none", "WIDTHxHEIGHT").into());
    }
    let all = backends();
    let mut refusals = plan.refusals.clone();
    plan.announce();
    for &id in &plan.order {
        let Some(backend) = all.iter().find(|b| b.id == id) else { continue };
        match open(backend, settings, threads) {
            Ok(encoder) => {
                info!(encoder = %id, how = encoder.description(), "encoder chosen");
                return Ok(Opened { encoder, refusals });
            }
            Err(OpenError::Refused(refusal)) => {
                refusal.warn();
                refusals.push(refusal);
            }
            Err(other) => return Err(other),
        }
    }
    Err(OpenError::NoneLeft { refusals })
}

fn open(
    backend: &Backend,
    settings: &Settings,
    threads: usize,
) -> Result<Box<dyn VideoEncoder>, OpenError> {
    let empty = crate::BackendOptions::new();
    (backend.open)(&OpenRequest {
        config: &settings.encoder,
        gpu: &settings.gpu,
        options: settings.backend.get(backend.id.as_str()).unwrap_or(&empty),
        threads: threads.max(1),
    })
}
