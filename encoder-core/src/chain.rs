use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use tracing::{debug, info};

use crate::{
    Backend, Caps, ConfigError, EncoderType, FailureKind, GpuEncoderConfig, Holders, OpenError,
    OpenRequest, Plan, Refusal, RefusalKind, Settings, VideoEncoder, Waited, Waiter, backends,
    in_use::{self, InUse},
    panic_text,
    schedule::{Failure, FallbackSchedule},
};

/// The fallback chain of one video: opens the encoders of a [`Plan`] in order, and decides which
/// encoder follows when the active one is lost.
///
/// - An encoder that refuses to open is passed over. Each refusal is one `WARN` with reason and
///   hint, repeated only when the reason changes; each encoder that opens is one `INFO`. A busy
///   encoder ([`Refusal::is_busy`]) is retried for [`session_wait_s`] first, unless its sessions
///   are held by this process. An encoder that did not answer in time is retried if no other
///   encoder is left.
/// - An encoder that fails in mid-stream is opened again, after a short pause. After three failures
///   in a row, with less than half a minute of quiet between them, the next encoder follows. An
///   encoder that hangs costs more time: if another encoder is left, that encoder follows the second
///   failure, and after a failure an encoder counts as hung after a quarter of [`stall_timeout_s`].
/// - After the waiter was interrupted, the next encoder follows the first hang; the last encoder is
///   opened again once.
/// - An encoder that was passed over or given up is tried again after [`failback_after_s`], a busy
///   encoder after half a minute. Each failed attempt doubles that time, up to an hour. The active
///   encoder stays open during the attempt.
/// - Before the first encoder is open, a wrong configuration is an error. After that, and for an
///   encoder that has passed its probe, it is a refusal: the configuration was right, but the
///   device that it names has disappeared.
///
/// [`session_wait_s`]: crate::GpuEncoderConfig::session_wait_s
/// [`stall_timeout_s`]: crate::GpuEncoderConfig::stall_timeout_s
/// [`failback_after_s`]: crate::GpuEncoderConfig::failback_after_s
pub struct Chain {
    order: Vec<&'static Backend>,
    probes: BTreeMap<EncoderType, Caps>,
    schedule: FallbackSchedule,
    settings: Settings,
    /// The settings for an encoder that has failed, if another encoder could replace it.
    impatient: GpuEncoderConfig,
    threads: usize,
    waiter: Waiter,
    /// One entry for each encoder and kind.
    refusals: Vec<Refusal>,
    has_opened: bool,
    /// When the active encoder first reported "busy".
    busy_since: Option<Instant>,
    /// The pause before a busy encoder is retried.
    pause: Duration,
    /// The place of the encoder that [`Self::open_better`] opened.
    better: Option<usize>,
    is_ending: Arc<AtomicBool>,
    /// The active encoder, and the encoder that [`Self::open_better`] opened.
    in_use: Option<Arc<InUse>>,
    better_in_use: Option<Arc<InUse>>,
}

crate::opaque_debug!(Chain = "Chain");

/// The first pause before a busy encoder is retried; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// An encoder that has failed counts as hung after a quarter of `stall_timeout_s`, but not before
/// this many seconds: an encoder that works may be slow.
const LEAST_STALL_S: u32 = 5;

impl Chain {
    /// A chain for `settings.encoder`, whose resolution must be set. Logs the refusals of the plan,
    /// once for a plan.
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
        let stall = settings.gpu.stall_timeout_s;
        let stall_timeout_s = (stall / 4).max(LEAST_STALL_S).min(stall);
        let impatient = GpuEncoderConfig { stall_timeout_s, ..settings.gpu.clone() };
        Ok(Self {
            schedule: FallbackSchedule::new(order.len(), failback_after),
            order,
            probes: plan.probes.clone(),
            settings,
            impatient,
            threads,
            waiter: Waiter::new(),
            refusals: plan.refusals.clone(),
            has_opened: false,
            busy_since: None,
            pause: FIRST_PAUSE,
            better: None,
            is_ending: Arc::default(),
            in_use: None,
            better_in_use: None,
        })
    }

    /// Sets the clock of the chain, which is also used for its waits. To be called before the first
    /// encoder is opened.
    #[must_use]
    pub fn with_waiter(mut self, waiter: Waiter) -> Self {
        self.waiter = waiter;
        self
    }

    /// Sets the threads that a software encoder may use, for encoders that are opened after this
    /// call.
    pub fn set_threads(&mut self, threads: usize) {
        self.threads = threads;
    }

    /// The time of the chain's waiter.
    pub fn now(&self) -> Instant {
        self.waiter.now()
    }

    /// To be set when the stream gets no more frames: its encoder then ends without further calls,
    /// so other chains of this process may wait for its session.
    pub fn ending_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_ending)
    }

    /// The largest [`max_delay`](Backend::max_delay) of all encoders of the chain. A caller that
    /// can hold this many frames can use every encoder of the chain.
    pub fn max_delay(&self) -> usize {
        let delay = |backend: &&'static Backend| (backend.max_delay)(&self.request(backend));
        self.order.iter().map(delay).max().unwrap_or(0)
    }

    /// The [`max_delay`](Backend::max_delay) of one encoder of the chain. For another encoder, the
    /// largest of all.
    pub fn max_delay_of(&self, encoder: EncoderType) -> usize {
        match self.order.iter().find(|backend| backend.id == encoder) {
            Some(backend) => (backend.max_delay)(&self.request(backend)),
            None => self.max_delay(),
        }
    }

    /// The most bytes that an encoder of the chain is estimated to use: the largest
    /// [`Backend::estimate_memory`] of all of them.
    pub fn memory_estimate(&self) -> u64 {
        let bytes = |backend: &&'static Backend| backend.estimate_memory(&self.request(backend));
        self.order.iter().map(bytes).max().unwrap_or(0)
    }

    /// Sets the preferred frame format. It applies to encoders opened after this call, if they
    /// support several formats.
    pub fn prefer_format(&mut self, format: crate::PixelFormat) {
        self.settings.encoder.pixel_format = format;
    }

    /// Opens the active encoder of the schedule. If it does not open, tries the next encoders in
    /// order. Blocks for up to `session_wait_s` when an encoder has no free session.
    ///
    /// # Errors
    /// [`OpenError::NoneLeft`] when no encoder is left; [`OpenError::Stopped`] when the waiter was
    /// stopped; before the first encoder has opened also [`OpenError::Config`], when the settings
    /// do not fit a backend that was not probed.
    pub fn open(&mut self) -> Result<Box<dyn VideoEncoder>, OpenError> {
        while let Some(place) = self.schedule.active() {
            if self.is_stopped() {
                return Err(OpenError::Stopped);
            }
            match self.open_at(place) {
                // Stopped while it was opened: it is dropped here.
                Ok(_) if self.is_stopped() => return Err(OpenError::Stopped),
                Ok(encoder) => {
                    let id = encoder.encoder_type();
                    info!(encoder = %id, how = encoder.description(), "encoder chosen");
                    self.in_use = Some(InUse::new(id, &self.is_ending));
                    return Ok(encoder);
                }
                Err(OpenError::Refused(refusal)) => {
                    self.refuse(refusal);
                }
                Err(error) => return Err(error),
            }
        }
        Err(OpenError::NoneLeft { refusals: self.refusals.clone() })
    }

    /// Opens the active encoder again, after it was drained and dropped. Otherwise as
    /// [`open`](Self::open).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn reopen(&mut self) -> Result<Box<dyn VideoEncoder>, OpenError> {
        self.in_use = None;
        self.open()
    }

    /// Opens the encoder at this place. Every error is returned as a refusal, except a wrong
    /// configuration of an encoder that was not probed, as long as no encoder has opened.
    fn open_at(&mut self, place: usize) -> Result<Box<dyn VideoEncoder>, OpenError> {
        let none_left = || OpenError::NoneLeft { refusals: self.refusals.clone() };
        let backend = *self.order.get(place).ok_or_else(none_left)?;
        let refusal = |kind, reason: String, hint| {
            OpenError::Refused(Refusal::new(backend.id, kind, reason, hint))
        };
        let mut request = self.request(backend);
        if self.schedule.is_suspect(place, self.now()) {
            request.gpu = &self.impatient;
        }
        let open = || backend.open_encoder(&request);
        match catch_unwind(AssertUnwindSafe(open)) {
            Ok(Ok(encoder)) => {
                self.has_opened = true;
                Ok(encoder)
            }
            Ok(Err(error @ OpenError::Refused(_))) => Err(error),
            Ok(Err(error)) if !self.has_opened && !self.probes.contains_key(&backend.id) => {
                Err(error)
            }
            Ok(Err(error)) => Err(refusal(
                RefusalKind::NoDevice,
                error.to_string(),
                "check that the device that the configuration names is still there",
            )),
            Err(panic) => Err(refusal(
                RefusalKind::Failed,
                format!("it panicked when it was opened: {}", panic_text(&*panic)),
                "report it to the author of this encoder",
            )),
        }
    }

    /// To be called when the active encoder refused its first frame, and was dropped. The next
    /// [`open`](Self::open) opens the same encoder again if it is busy and there is time to wait,
    /// or if it did not answer and no other encoder is left (as often as an encoder that
    /// [fails](Self::fail)); otherwise the next encoder. Blocks for the pause before that.
    ///
    /// Returns whether the encoder was passed over.
    pub fn refuse(&mut self, mut refusal: Refusal) -> bool {
        (self.in_use, self.better, self.better_in_use) = (None, None, None);
        // After a stop no encoder is passed over: `open` reports the stop.
        if self.is_stopped() || self.has_waited(&mut refusal) {
            return false;
        }
        let now = self.now();
        if refusal.kind == RefusalKind::Timeout && self.schedule.is_alone(now) {
            if let Some(pause) = self.schedule.fail(self.failure(FailureKind::Stalled), now) {
                self.waiter.wait(pause);
                return false;
            }
        } else {
            self.schedule.pass(refusal.transient, now);
        }
        self.note(refusal);
        self.reset_wait();
        true
    }

    /// Waits for one pause before a busy encoder is retried. Returns false if the encoder is to be
    /// passed over instead; the reason of the refusal then states how long the wait was.
    fn has_waited(&mut self, refusal: &mut Refusal) -> bool {
        let budget = Duration::from_secs(self.settings.gpu.session_wait_s.into());
        if budget.is_zero() || !self.is_worth_waiting(refusal) {
            return false;
        }
        let now = self.now();
        if self.busy_since.is_none() {
            let limit = budget.as_secs();
            info!(encoder = %refusal.encoder, "waiting up to {limit} s: {}", refusal.reason);
        }
        let since = *self.busy_since.get_or_insert(now);
        let left = budget.saturating_sub(now.saturating_duration_since(since));
        if !left.is_zero() {
            match self.waiter.wait(self.pause.min(left)) {
                Waited::Elapsed => {
                    self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                    return true;
                }
                Waited::Stopped => return true,
                Waited::Interrupted => {}
            }
        }
        let waited = self.now().saturating_duration_since(since).as_secs();
        refusal.reason = format!("{}, for {waited} s now", refusal.reason);
        false
    }

    /// Whether a busy encoder can become free while this thread waits.
    ///
    /// Sessions of this process do not end during the wait, because the waiting thread may be the
    /// thread that feeds them. Only sessions of streams that get no more frames end by themselves.
    fn is_worth_waiting(&self, refusal: &mut Refusal) -> bool {
        if !refusal.is_busy() {
            return false;
        }
        let here = in_use::count(refusal.encoder);
        if here.ending > 0 || self.is_ending.load(SeqCst) {
            return true;
        }
        match refusal.holders {
            Holders::Others => true,
            Holders::ThisProcess => false,
            // A guess, because the driver does not report which processes hold its sessions. If the
            // guess is wrong, the encoder is tried again soon, while the next encoder is active.
            Holders::Unknown if here.all > 0 && !self.schedule.is_alone(self.now()) => {
                refusal.reason = format!(
                    "{}; not waited for, since this program itself uses {} sessions",
                    refusal.reason, here.all
                );
                false
            }
            Holders::Unknown => true,
        }
    }

    /// Resets the wait for a busy encoder.
    fn reset_wait(&mut self) {
        (self.busy_since, self.pause) = (None, FIRST_PAUSE);
    }

    /// Adds a refusal to the list: one entry for each encoder and kind, with the latest reason.
    fn note(&mut self, refusal: Refusal) {
        let key = (refusal.encoder, refusal.kind);
        let Some(known) = self.refusals.iter_mut().find(|known| (known.encoder, known.kind) == key)
        else {
            refusal.warn();
            self.refusals.push(refusal);
            return;
        };
        if known.reason == refusal.reason {
            debug!(encoder = %refusal.encoder, "encoder refused again: {}", refusal.reason);
        } else {
            refusal.warn();
        }
        *known = Refusal { count: known.count.saturating_add(1), ..refusal };
    }

    /// To be called when the active encoder failed in mid-stream, and was dropped. The next
    /// [`open`](Self::open) opens the same encoder again, or the next encoder after too many
    /// failures. Blocks for the pause before that. Returns whether any encoder is left.
    pub fn fail(&mut self, kind: FailureKind) -> bool {
        (self.in_use, self.better, self.better_in_use) = (None, None, None);
        let now = self.now();
        if kind == FailureKind::WrongPicture && !self.schedule.is_alone(now) {
            self.schedule.pass(false, now);
        } else if let Some(pause) = self.schedule.fail(self.failure(kind), now) {
            self.waiter.wait(pause);
        }
        self.schedule.active().is_some()
    }

    fn failure(&self, kind: FailureKind) -> Failure {
        Failure { is_hang: kind == FailureKind::Stalled, is_stopped: self.is_interrupted() }
    }

    /// Whether the run has been stopped: the frames read so far are still encoded, without waiting.
    pub fn is_interrupted(&self) -> bool {
        self.waiter.state() == Waited::Interrupted
    }

    /// Whether the waiter was stopped: the video is not wanted any more.
    fn is_stopped(&self) -> bool {
        self.waiter.state() == Waited::Stopped
    }

    /// To be called when the active encoder has taken a frame: failures long ago no longer count.
    pub fn steady(&mut self) {
        self.schedule.steady(self.now());
        self.reset_wait();
    }

    /// Whether an encoder that precedes the active one in the plan can be tried again now.
    pub fn has_better(&self) -> bool {
        self.waiter.state() == Waited::Elapsed && self.schedule.better(self.now()).is_some()
    }

    /// Opens an encoder that precedes the active one in the plan; the active encoder stays open.
    /// Does not wait for a busy encoder. To be followed by [`take_better`](Self::take_better) once
    /// it has taken its first frame, or by [`refuse_better`](Self::refuse_better); if the active
    /// encoder is lost before that, call neither.
    ///
    /// `None` if no such encoder opens: each is tried again later, and the active encoder stays
    /// active.
    pub fn open_better(&mut self) -> Option<Box<dyn VideoEncoder>> {
        while self.waiter.state() == Waited::Elapsed
            && let Some(place) = self.schedule.better(self.now())
        {
            self.better = Some(place);
            match self.open_at(place) {
                Ok(_) if self.is_stopped() => return None,
                Ok(encoder) => {
                    self.better_in_use = Some(InUse::new(encoder.encoder_type(), &self.is_ending));
                    return Some(encoder);
                }
                Err(OpenError::Refused(refusal)) => self.refuse_better(refusal),
                Err(error) => {
                    debug!("no encoder to go back to: {error}");
                    return None;
                }
            }
        }
        None
    }

    /// To be called when the encoder of [`open_better`](Self::open_better) did not take its first
    /// frame, and was dropped.
    pub fn refuse_better(&mut self, refusal: Refusal) {
        self.better_in_use = None;
        if let Some(place) = self.better.take() {
            self.schedule.put_off(place, refusal.transient, self.now());
            self.note(refusal);
        }
    }

    /// Makes the encoder of [`open_better`](Self::open_better) the active one.
    pub fn take_better(&mut self) {
        if let Some(place) = self.better.take() {
            self.schedule.take(place, self.now());
            self.in_use = self.better_in_use.take();
        }
    }

    /// Every encoder that was passed over so far, with the reason: one entry for each encoder and
    /// kind, so the list stays short however long the stream is.
    pub fn refusals(&self) -> &[Refusal] {
        &self.refusals
    }

    fn request(&self, backend: &Backend) -> OpenRequest<'_> {
        let request = OpenRequest::new(&self.settings, backend.id, self.threads);
        let (probe, waiter) = (self.probes.get(&backend.id), Some(&self.waiter));
        OpenRequest { probe, waiter, ..request }
    }
}
