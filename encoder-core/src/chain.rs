use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use tracing::info;

use crate::{
    Backend, Caps, ConfigError, EncoderType, OpenError, OpenRequest, Plan, Refusal, RefusalKind,
    Settings, VideoEncoder, backends, schedule::FallbackSchedule,
};

/// The fallback chain of one video: opens the encoders of a [`Plan`], one after the other, and
/// knows which is next when one is lost.
///
/// - One that refuses to begin is passed over, with one `WARN` that tells reason and hint; each
///   that opens is one `INFO`. One that is only busy ([`Refusal::is_busy`]) is asked again for
///   [`session_wait_s`] before the next is taken. One that gave no answer, with nobody behind it,
///   is begun again.
/// - One that fails in mid-stream is begun again, after a short pause. Three failures in a row,
///   without half a minute of quiet between them, and the next one has its turn.
/// - One that was passed over or given up comes back after [`failback_after_s`], twice as long after
///   each time that it was of no use; one that was busy after half a minute.
///
/// [`session_wait_s`]: crate::GpuEncoderConfig::session_wait_s
/// [`failback_after_s`]: crate::GpuEncoderConfig::failback_after_s
pub struct Chain {
    order: Vec<&'static Backend>,
    probes: BTreeMap<EncoderType, Caps>,
    schedule: FallbackSchedule,
    settings: Settings,
    threads: usize,
    refusals: Vec<Refusal>,
    /// Since when the current one is busy.
    busy_since: Option<Instant>,
    pause: Duration,
}

/// The first pause before a busy encoder is asked again; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

impl Chain {
    /// A chain for `settings.encoder`, whose resolution must be set. Logs what the plan passed
    /// over: once for a plan.
    ///
    /// # Errors
    /// [`OpenError::Config`] when the settings are wrong.
    pub fn new(plan: &Plan, settings: Settings, threads: usize) -> Result<Self, OpenError> {
        settings.check()?;
        if settings.encoder.resolution.is_none() {
            return Err(ConfigError::value("encoder.resolution", "none", "WIDTHxHEIGHT").into());
        }
        plan.announce();
        let all = backends();
        let order: Vec<_> = plan
            .order
            .iter()
            .filter_map(|&id| all.iter().copied().find(|backend| backend.id == id))
            .collect();
        let failback_after = settings.gpu.failback_after_s;
        let failback_after =
            (failback_after > 0).then(|| Duration::from_secs(failback_after.into()));
        Ok(Self {
            schedule: FallbackSchedule::new(order.len(), failback_after, Instant::now()),
            order,
            probes: plan.probes.clone(),
            settings,
            threads,
            refusals: plan.refusals.clone(),
            busy_since: None,
            pause: FIRST_PAUSE,
        })
    }

    /// The most frames that any encoder of the chain keeps before its first access unit must come
    /// out: whoever holds that many can go on with each of them.
    pub fn max_delay(&self) -> usize {
        let delay = |backend: &&'static Backend| (backend.max_delay)(&self.request(backend));
        self.order.iter().map(delay).max().unwrap_or(0)
    }

    /// The format that frames must have for all encoders opened from now on that can choose.
    pub fn prefer_format(&mut self, format: crate::PixelFormat) {
        self.settings.encoder.pixel_format = format;
    }

    /// Opens the encoder whose turn it is, or the next that opens. Blocks while it waits for a busy
    /// one.
    ///
    /// # Errors
    /// [`OpenError::Config`] at once where the settings do not fit a backend,
    /// [`OpenError::NoneLeft`] when nothing is left.
    pub fn open(&mut self) -> Result<Box<dyn VideoEncoder>, OpenError> {
        while let Some(backend) = self.current() {
            match backend.open_encoder(&self.request(backend)) {
                Ok(encoder) => {
                    info!(encoder = %backend.id, how = encoder.description(), "encoder chosen");
                    return Ok(encoder);
                }
                Err(OpenError::Refused(refusal)) => {
                    self.refuse(refusal);
                }
                Err(other) => return Err(other),
            }
        }
        Err(OpenError::NoneLeft { refusals: self.refusals.clone() })
    }

    fn current(&self) -> Option<&'static Backend> {
        self.schedule.current().and_then(|n| self.order.get(n)).copied()
    }

    /// Says that the encoder opened last refused its first frame; [`open`](Self::open) then gives
    /// the next one, or the same again when it is only busy and there is time to wait, or gave no
    /// answer and is the last one left (as often as one that [fails](Self::fail)). Blocks for the
    /// pause before that. Tells whether it was passed over.
    pub fn refuse(&mut self, mut refusal: Refusal) -> bool {
        let budget = Duration::from_secs(self.settings.gpu.session_wait_s.into());
        if refusal.is_busy() && !budget.is_zero() {
            if self.busy_since.is_none() {
                let limit = budget.as_secs();
                info!(encoder = %refusal.encoder, "waiting up to {limit} s: {}", refusal.reason);
            }
            let waited = self.busy_since.get_or_insert_with(Instant::now).elapsed();
            let left = budget.saturating_sub(waited);
            if !left.is_zero() {
                thread::sleep(self.pause.min(left));
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                return false;
            }
            refusal.reason = format!("{}, for {} s now", refusal.reason, waited.as_secs());
        }
        let now = Instant::now();
        if refusal.kind == RefusalKind::Timeout && self.schedule.is_alone(now) {
            if let Some(pause) = self.schedule.fail(now) {
                thread::sleep(pause);
                return false;
            }
        } else {
            self.schedule.pass(refusal.transient, now);
        }
        refusal.warn();
        self.refusals.push(refusal);
        (self.busy_since, self.pause) = (None, FIRST_PAUSE);
        true
    }

    /// Says that the encoder opened last failed in mid-stream; [`open`](Self::open) then gives the
    /// same again, or the next one after too many failures. Blocks for the pause before that. Tells
    /// whether any is left.
    pub fn fail(&mut self) -> bool {
        if let Some(pause) = self.schedule.fail(Instant::now()) {
            thread::sleep(pause);
        }
        self.schedule.current().is_some()
    }

    /// Says that the current encoder does its work: failures long ago do not count.
    pub fn steady(&mut self, now: Instant) {
        self.schedule.steady(now);
    }

    /// Whether an encoder that is wanted more than the current one has rested and can be tried
    /// again.
    pub fn has_better(&self, now: Instant) -> bool {
        self.schedule.better(now).is_some()
    }

    /// Makes it the turn of the better one: [`open`](Self::open) then gives it.
    pub fn take_better(&mut self, now: Instant) {
        if let Some(better) = self.schedule.better(now) {
            self.schedule.take(better, now);
        }
    }

    /// Every encoder that was passed over so far, with the reason.
    pub fn refusals(&self) -> &[Refusal] {
        &self.refusals
    }

    fn request(&self, backend: &Backend) -> OpenRequest<'_> {
        let request = OpenRequest::new(&self.settings, backend.id, self.threads);
        OpenRequest { probe: self.probes.get(&backend.id), ..request }
    }
}
