//! The fallback chain, with backends that this test registers and a manual clock.
#![allow(clippy::unwrap_used)]

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
        mpsc::channel,
    },
    thread,
    time::{Duration, Instant},
};

use encoder_core::{
    Backend, Caps, Chain, ConfigError, EncodeError, EncodedChunk, EncoderType, FailureKind, Frame,
    Holders, OpenError, OpenRequest, PixelFormat, Plan, ProbeResult, Refusal, RefusalKind,
    Resolution, Settings, VideoEncoder, Waited, Waiter,
};

const A: EncoderType = EncoderType::new("a");
const B: EncoderType = EncoderType::new("b");
const C: EncoderType = EncoderType::new("c");

/// Runs one test at a time, because open encoders are counted for the whole process.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static RUNNING: Mutex<()> = Mutex::new(());
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

macro_rules! register {
    ($($id:ident $delay:literal),* $(,)?) => {$(
        encoder_core::inventory::submit! {
            Backend::new($id, |request| open($id, request))
                .rank(|_| 1)
                .check_options(|_| Ok(()))
                .probe(|_, _| ProbeResult::Usable(Caps::default()))
                .max_delay(|request| $delay + usize::from(request.config.b_frames))
        }
    )*};
}
register!(A 1, B 7, C 3);

/// How often each backend of each chain was opened.
static OPENED: Mutex<Option<HashMap<(EncoderType, i64), usize>>> = Mutex::new(None);

/// The `stall_timeout_s` of each encoder that was opened, with its run.
static STALLS: Mutex<Vec<(i64, u32)>> = Mutex::new(Vec::new());

fn opened(id: EncoderType, run: i64) -> usize {
    OPENED.lock().unwrap().get_or_insert_default().get(&(id, run)).copied().unwrap_or_default()
}

/// Follows the script in `open` of the backend's table, one word per call; the last word is
/// repeated.
fn open(id: EncoderType, request: &OpenRequest<'_>) -> Result<Box<dyn VideoEncoder>, OpenError> {
    let run = request.options["run"].as_integer().unwrap();
    STALLS.lock().unwrap().push((run, request.gpu.stall_timeout_s));
    let script = request.options["open"].as_str().unwrap();
    let words: Vec<_> = script.split_whitespace().collect();
    let n = {
        let mut opened = OPENED.lock().unwrap();
        let count = opened.get_or_insert_default().entry((id, run)).or_default();
        *count += 1;
        *count - 1
    };
    let busy = |holders| Err(refusal(id, RefusalKind::Busy).transient().held_by(holders).into());
    match words[n.min(words.len() - 1)] {
        "ok" => Ok(Box::new(Idle(id))),
        "busy" => busy(Holders::Unknown),
        "others" => busy(Holders::Others),
        "own" => busy(Holders::ThisProcess),
        "no" => Err(refusal(id, RefusalKind::Unsupported).into()),
        "gone" => Err(ConfigError::value(format!("backend.{id}.gpu"), 7, "0").into()),
        "panic" => panic!("on purpose"),
        // Opens, but another thread has stopped the waiter meanwhile.
        "stop" => {
            request.waiter.unwrap().stop();
            Ok(Box::new(Idle(id)))
        }
        word => unreachable!("{word}"),
    }
}

struct Idle(EncoderType);

impl VideoEncoder for Idle {
    fn encode_frame(&mut self, _: &Frame<'_>) -> Result<Option<EncodedChunk>, EncodeError> {
        Ok(None)
    }
    fn flush(&mut self) -> Result<Vec<EncodedChunk>, EncodeError> {
        Ok(Vec::new())
    }
    fn encoder_type(&self) -> EncoderType {
        self.0
    }
    fn description(&self) -> String {
        self.0.to_string()
    }
    fn pixel_format(&self) -> PixelFormat {
        PixelFormat::Yuv420p
    }
}

fn refusal(id: EncoderType, kind: RefusalKind) -> Refusal {
    Refusal::new(id, kind, format!("{id} says no"), "none")
}

fn busy(id: EncoderType) -> Refusal {
    refusal(id, RefusalKind::Busy).transient()
}

/// A chain of backends with their scripts, and its clock.
struct Play {
    chain: Chain,
    waiter: Waiter,
    begun: Instant,
    run: i64,
}

impl Play {
    fn new(order: &[(EncoderType, &str)], wait: u32) -> Self {
        Self::with(order, wait, Waiter::manual())
    }

    fn with(order: &[(EncoderType, &str)], wait: u32, waiter: Waiter) -> Self {
        Self::of(order, wait, waiter, &[])
    }

    fn probed(order: &[(EncoderType, &str)], probed: &[EncoderType]) -> Self {
        Self::of(order, 0, Waiter::manual(), probed)
    }

    fn of(
        order: &[(EncoderType, &str)],
        wait: u32,
        waiter: Waiter,
        probed: &[EncoderType],
    ) -> Self {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        let run = RUNS.fetch_add(1, SeqCst) as i64;
        let mut settings = Settings::default();
        settings.encoder.resolution = Some(Resolution::new(64, 64));
        settings.encoder.b_frames = 2;
        settings.gpu.session_wait_s = wait;
        for (id, script) in order {
            let table = format!("run = {run}\nopen = \"{script}\"");
            settings.backend.insert(id.to_string(), table.parse().unwrap());
        }
        let order = order.iter().map(|(id, _)| *id).collect();
        let mut plan = Plan::new(order, vec![]);
        plan.probes = probed.iter().map(|id| (*id, Caps::default())).collect();
        let chain = Chain::new(&plan, settings, 1).unwrap();
        let begun = waiter.now();
        Self { chain: chain.with_waiter(waiter.clone()), waiter, begun, run }
    }

    /// The encoder that opens.
    fn open(&mut self) -> EncoderType {
        self.chain.open().unwrap().encoder_type()
    }

    fn better(&mut self) -> Option<EncoderType> {
        assert!(self.chain.has_better());
        self.chain.open_better().map(|encoder| encoder.encoder_type())
    }

    /// Seconds since the beginning.
    fn seconds(&self) -> u64 {
        (self.waiter.now() - self.begun).as_secs()
    }

    fn advance(&self, seconds: u64) {
        self.waiter.advance(Duration::from_secs(seconds));
    }

    fn opened(&self, id: EncoderType) -> usize {
        opened(id, self.run)
    }

    /// Encoders that were passed over, with the number of their refusals.
    fn refused(&self) -> Vec<(EncoderType, u64)> {
        self.chain.refusals().iter().map(|refusal| (refusal.encoder, refusal.count)).collect()
    }
}

#[test]
fn the_next_encoder_is_opened_until_one_opens() {
    let _turn = one_at_a_time();
    let mut play = Play::new(&[(A, "no"), (C, "busy"), (B, "ok")], 0);
    // The largest delay of all encoders, whichever is opened.
    assert_eq!(play.chain.max_delay(), 9);
    assert_eq!(play.open(), B);
    assert_eq!(play.refused(), [(A, 1), (C, 1)]);
    // An encoder that opened and refused its first frame is passed over too.
    assert!(play.chain.refuse(refusal(B, RefusalKind::Unsupported)));
    let Err(OpenError::NoneLeft { refusals }) = play.chain.open() else { panic!("none is left") };
    assert_eq!(refusals.len(), 3);
    // No other encoder was left, so the busy encoder was tried once more.
    assert_eq!(play.refused(), [(A, 1), (C, 2), (B, 1)]);
    // A passed-over encoder may be tried again, so its delay still counts.
    assert_eq!(play.chain.max_delay(), 9);
}

#[test]
fn the_last_encoder_is_opened_again_if_it_did_not_answer() {
    let _turn = one_at_a_time();
    let late = |id| refusal(id, RefusalKind::Timeout).transient();
    let mut play = Play::new(&[(A, "no"), (B, "ok")], 0);
    assert_eq!(play.open(), B);
    for _ in 0..2 {
        assert!(!play.chain.refuse(late(B)));
        assert_eq!(play.refused(), [(A, 1)]);
        assert_eq!(play.open(), B);
    }
    assert!(play.chain.refuse(late(B)));
    assert!(play.chain.open().is_err());
    assert_eq!(play.refused(), [(A, 1), (B, 1)]);
    // With another encoder left, it is passed over at once.
    let mut two = Play::new(&[(B, "ok"), (A, "ok")], 0);
    assert_eq!(two.open(), B);
    assert!(two.chain.refuse(late(B)));
    assert_eq!(two.open(), A);
}

#[test]
fn an_encoder_that_hangs_is_left_earlier_than_one_that_fails() {
    let _turn = one_at_a_time();
    // encoders | whether the run was stopped | encoders after each hang | limits in seconds
    type Row<'a> = (&'a [EncoderType], bool, &'a [EncoderType], &'a [u32]);
    let table: &[Row<'_>] = &[
        // The second hang is enough, and is noticed earlier; the last encoder has three attempts.
        (&[A, B], false, &[A, B, B, B], &[60, 15, 60, 60, 60]),
        (&[A], false, &[A, A], &[60, 60, 60]),
        // After a stop, the first is enough, and the second for the last encoder.
        (&[A, B], true, &[B, B], &[60, 60, 60]),
        (&[A], true, &[A], &[60, 60]),
    ];
    for (order, is_stopped, expected, stalls) in table {
        let order: Vec<_> = order.iter().map(|id| (*id, "ok")).collect();
        let mut play = Play::new(&order, 0);
        play.open();
        if *is_stopped {
            play.waiter.interrupt();
        }
        let mut active = Vec::new();
        while play.chain.fail(FailureKind::Stalled) {
            active.push(play.open());
        }
        assert_eq!(active, *expected, "{order:?} {is_stopped}");
        let run = play.run;
        let all = STALLS.lock().unwrap();
        let of: Vec<_> = all.iter().filter(|stall| stall.0 == run).map(|stall| stall.1).collect();
        assert_eq!(of, *stalls, "{order:?} {is_stopped}");
    }
}

#[test]
fn a_busy_encoder_is_waited_for_as_long_as_configured() {
    let _turn = one_at_a_time();
    let mut patient = Play::new(&[(A, "busy busy ok"), (B, "ok")], 3600);
    assert_eq!(patient.open(), A);
    assert_eq!((patient.opened(A), patient.refused()), (3, vec![]));
    // It is busy again at its first frame: it is opened again.
    assert!(!patient.chain.refuse(busy(A)));
    assert_eq!(patient.open(), A);
    // A lasting refusal is not waited for.
    assert!(patient.chain.refuse(refusal(A, RefusalKind::Unsupported)));
    assert_eq!(patient.open(), B);
    assert!(patient.seconds() < 2);

    let mut hasty = Play::new(&[(A, "busy"), (B, "ok")], 100);
    assert_eq!((hasty.open(), hasty.seconds()), (B, 100));
    assert_eq!(hasty.refused(), [(A, 1)]);
    assert!(hasty.chain.refusals()[0].reason.ends_with(", for 100 s now"));
    // The pauses between the attempts grow up to two seconds.
    assert!((50..70).contains(&hasty.opened(A)), "{}", hasty.opened(A));

    let mut spilling = Play::new(&[(A, "busy"), (B, "ok")], 0);
    assert_eq!((spilling.open(), spilling.seconds()), (B, 0));
    assert_eq!((spilling.opened(A), spilling.refused()), (1, vec![(A, 1)]));
}

#[test]
fn each_wait_for_a_busy_encoder_may_take_the_whole_limit() {
    let _turn = one_at_a_time();
    let mut play = Play::new(&[(A, "busy ok")], 100);
    assert_eq!(play.open(), A);
    play.chain.steady();
    // An hour later it fails, and is busy again.
    play.advance(3600);
    assert!(play.chain.fail(FailureKind::Failed));
    assert!(!play.chain.refuse(busy(A)), "it is waited for");
}

#[test]
fn sessions_of_this_process_are_not_waited_for() {
    let _turn = one_at_a_time();
    // holders of the sessions | the encoder that opens | seconds of waiting
    for (holders, expected, waited) in
        [("own", B, 0), ("others", B, 600), ("busy", B, 600), ("own own ok", B, 0)]
    {
        let mut play = Play::new(&[(A, holders), (B, "ok")], 600);
        assert_eq!((play.open(), play.seconds()), (expected, waited), "{holders}");
    }
    // If no other encoder is left, the error is returned at once too.
    let mut alone = Play::new(&[(A, "own")], 600);
    let error = alone.chain.open().err().unwrap().to_string();
    assert_eq!(
        (error.as_str(), alone.seconds()),
        ("no encoder could be opened: a: a says no; hint: none", 0)
    );
    // Unless a session of this process is about to end by itself.
    let mut ending = Play::new(&[(C, "ok")], 0);
    let encoder = ending.open();
    let mut next = Play::new(&[(encoder, "own own ok"), (B, "ok")], 600);
    ending.chain.ending_flag().store(true, SeqCst);
    assert_eq!(next.open(), C);
    // Or this stream itself gets no more frames, so that no other stream waits for this thread.
    drop(ending);
    let mut last = Play::new(&[(A, "own own ok"), (B, "ok")], 600);
    last.chain.ending_flag().store(true, SeqCst);
    assert_eq!(last.open(), A);
}

#[test]
fn with_unknown_holders_sessions_of_this_process_prevent_the_wait() {
    let _turn = one_at_a_time();
    let first = &mut Play::new(&[(A, "ok")], 0);
    assert_eq!(first.open(), A);
    let mut second = Play::new(&[(A, "busy"), (B, "ok")], 600);
    assert_eq!((second.open(), second.seconds()), (B, 0));
    let reason = &second.chain.refusals()[0].reason;
    assert!(
        reason.ends_with("not waited for, since this program itself uses 1 sessions"),
        "{reason}"
    );
    // If no other encoder is left, or if other processes are known to hold sessions, the chain
    // waits.
    let mut alone = Play::new(&[(A, "busy")], 600);
    assert!(alone.chain.open().is_err());
    assert_eq!(alone.seconds(), 600);
    let mut others = Play::new(&[(A, "others"), (B, "ok")], 600);
    assert_eq!((others.open(), others.seconds()), (B, 600));
    // An encoder that failed, or whose chain was dropped, holds no session.
    first.chain.fail(FailureKind::Failed);
    let mut third = Play::new(&[(A, "busy"), (B, "ok")], 600);
    assert_eq!((third.open(), third.seconds()), (B, 600));
}

#[test]
fn an_interrupt_ends_the_wait_and_the_next_encoder_is_opened() {
    let _turn = one_at_a_time();
    let waiter = Waiter::new();
    let mut play = Play::with(&[(A, "busy"), (B, "ok")], 3600, waiter.clone());
    let run = play.run;
    let (send, taken) = channel();
    thread::spawn(move || send.send((play.open(), play.chain.refusals()[0].reason.clone())));
    while opened(A, run) < 2 {
        thread::yield_now();
    }
    waiter.interrupt();
    let (taken, reason) = taken.recv_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!(taken, B);
    assert!(reason.contains(" s now"), "{reason}");
    // After an interrupt the chain neither waits nor attempts failback.
    let mut late = Play::with(&[(A, "busy"), (B, "ok")], 3600, waiter.clone());
    assert_eq!((late.open(), late.opened(A)), (B, 1));
    assert!(!late.chain.has_better());
    assert!(late.chain.open_better().is_none());
    assert!(late.chain.fail(FailureKind::Failed));
    assert_eq!(late.open(), B);
}

#[test]
fn a_stop_ends_the_wait_and_nothing_is_opened() {
    let _turn = one_at_a_time();
    let waiter = Waiter::new();
    let mut play = Play::with(&[(A, "busy"), (B, "ok")], 3600, waiter.child());
    let run = play.run;
    let (send, ended) = channel();
    thread::spawn(move || send.send((play.chain.open().err(), play.refused())));
    while opened(A, run) < 2 {
        thread::yield_now();
    }
    waiter.stop();
    let (error, refused) = ended.recv_timeout(Duration::from_secs(60)).unwrap();
    assert!(matches!(error, Some(OpenError::Stopped)), "{error:?}");
    assert_eq!((opened(B, run), refused), (0, vec![]));
    let mut late = Play::with(&[(B, "ok")], 3600, waiter);
    assert!(matches!(late.chain.open(), Err(OpenError::Stopped)));
    assert_eq!((late.opened(B), late.waiter.state()), (0, Waited::Stopped));
}

#[test]
fn an_encoder_that_opens_during_a_stop_is_dropped() {
    let _turn = one_at_a_time();
    let mut play = Play::new(&[(A, "stop"), (B, "ok")], 0);
    assert!(matches!(play.chain.open(), Err(OpenError::Stopped)));
    // Errors of the encoder that the stop has ended are no refusals.
    assert!(!play.chain.refuse(refusal(A, RefusalKind::Timeout)));
    assert!(matches!(play.chain.open(), Err(OpenError::Stopped)));
    assert_eq!((play.opened(A), play.opened(B), play.refused()), (1, 0, vec![]));

    let mut play = Play::new(&[(A, "busy stop"), (B, "ok")], 0);
    assert_eq!(play.open(), B);
    play.waiter.advance(Duration::from_secs(3600));
    assert!(play.chain.has_better());
    assert!(play.chain.open_better().is_none());
    assert_eq!(play.opened(A), 2);
    assert!(!play.chain.has_better());
}

#[test]
fn a_panic_while_an_encoder_opens_is_a_refusal_with_its_text() {
    let _turn = one_at_a_time();
    let mut play = Play::new(&[(A, "panic"), (B, "ok")], 0);
    assert_eq!(play.open(), B);
    let reason = &play.chain.refusals()[0].reason;
    assert_eq!(reason, "it panicked when it was opened: on purpose");
}

#[test]
fn a_wrong_configuration_is_an_error_first_and_a_refusal_later() {
    let _turn = one_at_a_time();
    let mut wrong = Play::new(&[(A, "gone"), (B, "ok")], 0);
    let error = wrong.chain.open().err().unwrap();
    assert!(matches!(error, OpenError::Config(_)), "{error}");
    // The device disappears before the encoder is opened again.
    let mut lost = Play::new(&[(A, "ok gone"), (B, "ok")], 0);
    assert_eq!(lost.open(), A);
    assert!(lost.chain.fail(FailureKind::Failed));
    assert_eq!(lost.open(), B);
    let refusal = &lost.chain.refusals()[0];
    assert_eq!((refusal.encoder, refusal.kind), (A, RefusalKind::NoDevice));
    assert_eq!(refusal.reason, "backend.a.gpu = 7: not allowed; allowed is 0");
    // The same for the encoder behind the first.
    let mut second = Play::new(&[(A, "ok no"), (B, "gone"), (C, "ok")], 0);
    assert_eq!(second.open(), A);
    second.chain.refuse(refusal_of(A));
    assert_eq!(second.open(), C);
    assert_eq!(second.refused(), [(A, 1), (B, 1)]);
    // The same for an encoder that was probed before, such as for the second camera of a run.
    let mut probed = Play::probed(&[(A, "gone"), (B, "ok")], &[A]);
    assert_eq!((probed.open(), probed.refused()), (B, vec![(A, 1)]));
    let mut other = Play::probed(&[(A, "gone"), (B, "ok")], &[B]);
    assert!(matches!(other.chain.open(), Err(OpenError::Config(_))));
    // The same for a failback attempt.
    second.advance(300);
    assert_eq!(second.better(), None);
    assert_eq!(second.refused(), [(A, 2), (B, 2)]);
}

fn refusal_of(id: EncoderType) -> Refusal {
    refusal(id, RefusalKind::Unsupported)
}

#[test]
fn an_encoder_that_panics_when_it_is_opened_is_passed_over() {
    let _turn = one_at_a_time();
    let mut play = Play::new(&[(A, "panic"), (B, "ok")], 0);
    assert_eq!((play.open(), play.refused()), (B, vec![(A, 1)]));
    assert!(play.chain.refusals()[0].reason.contains("panicked"));
}

#[test]
fn a_better_encoder_is_opened_beside_the_active_one() {
    let _turn = one_at_a_time();
    let mut play = Play::new(&[(A, "busy busy busy ok"), (B, "ok")], 0);
    assert_eq!(play.open(), B);
    assert!(!play.chain.has_better());
    // Each failed attempt doubles the retry delay.
    for delay in [30, 60] {
        play.advance(delay - 1);
        assert!(!play.chain.has_better());
        play.advance(1);
        assert_eq!(play.better(), None);
    }
    // It opens, and refuses its first frame.
    play.advance(120);
    assert_eq!(play.better(), Some(A));
    play.chain.refuse_better(busy(A));
    play.advance(239);
    assert!(!play.chain.has_better());
    play.advance(1);
    assert_eq!(play.better(), Some(A));
    play.chain.take_better();
    // The active encoder was opened once; the refusals of the other encoder are one entry.
    assert_eq!((play.opened(A), play.opened(B)), (5, 1));
    assert_eq!(play.refused(), [(A, 4)]);
    // Now the better encoder is active: when it fails once, it is opened again.
    assert!(play.chain.fail(FailureKind::Failed));
    assert_eq!(play.open(), A);
}

#[test]
fn the_active_encoder_may_fail_during_a_failback_attempt() {
    let _turn = one_at_a_time();
    let mut play = Play::new(&[(A, "no ok"), (B, "ok")], 0);
    assert_eq!(play.open(), B);
    play.advance(300);
    assert_eq!(play.better(), Some(A));
    assert!(play.chain.fail(FailureKind::Failed));
    // The attempt is over: neither call has any effect.
    play.chain.refuse_better(refusal_of(A));
    play.chain.take_better();
    assert_eq!((play.open(), play.refused()), (B, vec![(A, 1)]));
    assert_eq!(play.better(), Some(A), "it is tried again at once");
}

#[test]
fn the_list_of_refusals_stays_short() {
    let _turn = one_at_a_time();
    let mut play = Play::new(&[(A, "no"), (B, "ok")], 0);
    assert_eq!(play.open(), B);
    for n in 0..1000 {
        play.advance(3600);
        assert!(play.chain.has_better());
        assert!(play.chain.open_better().is_none());
        play.chain.steady();
        assert_eq!(play.refused(), [(A, n + 2)]);
    }
    // An entry for each kind, with the latest reason.
    play.advance(3600);
    let late = refusal(A, RefusalKind::Unsupported).with_reason("later");
    assert!(play.chain.open_better().is_none());
    play.chain.refuse(busy(B));
    play.chain.refuse(late.clone().with_encoder(B));
    play.chain.refuse(late.with_encoder(B));
    let kinds: Vec<_> = play.chain.refusals().iter().map(|r| (r.encoder, r.kind)).collect();
    let unsupported = RefusalKind::Unsupported;
    assert_eq!(kinds, [(A, unsupported), (B, RefusalKind::Busy), (B, unsupported)]);
    assert_eq!(play.chain.refusals()[2].reason, "later");
}

#[test]
fn a_chain_needs_a_size_and_right_settings() {
    let _turn = one_at_a_time();
    let plan = Plan::new(vec![B], vec![]);
    let error = Chain::new(&plan, Settings::default(), 1).err().unwrap().to_string();
    assert!(error.contains("resolution"), "{error}");
    let mut settings = Settings::default();
    settings.gpu.max_sessions = Some(0);
    let error = Chain::new(&plan, settings, 1).err().unwrap().to_string();
    assert!(error.contains("gpu.max_sessions = 0: not allowed; allowed is 1 to 64"), "{error}");
}
