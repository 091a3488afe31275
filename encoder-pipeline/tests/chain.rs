//! A session changes its encoder: which encoder becomes active, when, and how long the session
//! waits. With encoders that only count, and a clock that advances by a second with each frame.
#![allow(clippy::unwrap_used)]

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    time::Duration,
};

use encoder_core::{
    Backend, Caps, ConfigError, EncodeError, EncodedChunk, EncoderType, FailureKind, Frame,
    Holders, OpenError, OpenRequest, PixelFormat, Plan, ProbeResult, Refusal, RefusalKind,
    Resolution, Settings, VideoEncoder, Waiter,
};
use encoder_pipeline::{
    destination::FileDestination,
    mux::{AccessUnit, CallbackSink},
    naming::{Format, Target},
    progress::Silent,
    run::Run,
    session::{Session, SessionConfig, SessionError, SessionState, VideoReport},
    source::{Event, Packet, Payload, RawImage, Source, SourceError, StreamInfo},
    stop::Stop,
    timeline::FrameTimes,
};
use encoder_testbed::fixtures::{EPOCH, MS, entries};
use encoder_testbed::process;

const SIZE: Resolution = Resolution::new(16, 16);
const GOP: u64 = 10;

const BETTER: EncoderType = EncoderType::new("better");
const USUAL: EncoderType = EncoderType::new("usual");
const LAST: EncoderType = EncoderType::new("last");

/// Open encoders are counted for the whole process, so tests run one at a time.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

macro_rules! register {
    ($($id:ident $format:ident),*) => {$(
        encoder_core::inventory::submit! {
            Backend::new($id, |request| Scripted::open($id, PixelFormat::$format, request))
                .rank(|_| 1000)
                .check_options(|_| Ok(()))
                .probe(|_, _| ProbeResult::Usable(Caps::default()))
                .max_delay(|request| number(request, "delay") as usize)
        }
    )*};
}
// The frames of one encoder are converted to another layout.
register!(BETTER Nv12, USUAL Yuv420p, LAST Yuv420p);

fn number(request: &OpenRequest<'_>, key: &str) -> i64 {
    request.options.get(key).and_then(|value| value.as_integer()).unwrap_or_default()
}

/// The events of each run: `open better`, `first better 20`, `flush usual`, `drop usual`.
static EVENTS: Mutex<Option<HashMap<i64, Vec<String>>>> = Mutex::new(None);

fn log(run: i64, event: String) {
    let mut events = EVENTS.lock().unwrap_or_else(PoisonError::into_inner);
    events.get_or_insert_default().entry(run).or_default().push(event);
}

fn events(run: i64) -> Vec<String> {
    let events = EVENTS.lock().unwrap_or_else(PoisonError::into_inner);
    events.as_ref().and_then(|events| events.get(&run)).cloned().unwrap_or_default()
}

fn count(run: i64, event: &str) -> usize {
    events(run).iter().filter(|known| *known == event).count()
}

/// Returns each access unit `delay` frames later. Each opening consumes one word of `open` in its
/// table; the last word is used again and again:
///
/// - `busy`, `own`, `gone`: it does not open.
/// - `first-busy`, `first-own`, `first-fails`, `first-panics`: it opens and refuses its first frame.
/// - `N`: it fails at frame N; `N-flush`: at the end, once it has frame N.
/// - `ok`.
struct Scripted {
    id: EncoderType,
    format: PixelFormat,
    run: i64,
    word: String,
    delay: u64,
    /// First frame, accepted frames, returned access units.
    base: Option<u64>,
    taken: u64,
    returned: u64,
}

impl Scripted {
    fn open(
        id: EncoderType,
        format: PixelFormat,
        request: &OpenRequest<'_>,
    ) -> Result<Box<dyn VideoEncoder>, OpenError> {
        let (run, delay) = (number(request, "run"), number(request, "delay") as u64);
        let event = format!("open {id}");
        log(run, event.clone());
        let script = request.options["open"].as_str().unwrap();
        let words: Vec<_> = script.split_whitespace().collect();
        let word = words[(count(run, &event) - 1).min(words.len() - 1)];
        match word {
            "busy" => return Err(busy(id, Holders::Others).into()),
            "own" => return Err(busy(id, Holders::ThisProcess).into()),
            "gone" => {
                return Err(
                    ConfigError::value(format!("backend.{id}.device"), "/dev/x", "0").into()
                );
            }
            _ => {}
        }
        let word = word.to_owned();
        Ok(Box::new(Self { id, format, run, word, delay, base: None, taken: 0, returned: 0 }))
    }

    fn next(&mut self) -> EncodedChunk {
        let (pts, dts) = (self.base.unwrap() + self.returned, self.returned);
        self.returned += 1;
        EncodedChunk { data: self.id.as_str().into(), pts, dts, keyframe: dts == 0 }
    }

    fn failed(&self) -> EncodeError {
        let (encoder, index, kind) = (self.id, self.taken, FailureKind::Failed);
        EncodeError::Failed { encoder, index, kind, message: "the device was unplugged".into() }
    }
}

fn busy(id: EncoderType, holders: Holders) -> Refusal {
    Refusal::new(id, RefusalKind::Busy, "no session is left", "wait").transient().held_by(holders)
}

impl VideoEncoder for Scripted {
    fn encode_frame(&mut self, frame: &Frame<'_>) -> Result<Option<EncodedChunk>, EncodeError> {
        assert_eq!(frame.format, self.format);
        assert_eq!(frame.planes()[0].rows().next().unwrap()[0] & 0xf, frame.index as u8 & 0xf);
        if self.base.is_none() {
            match self.word.as_str() {
                "first-busy" => return Err(busy(self.id, Holders::Others).into()),
                "first-own" => return Err(busy(self.id, Holders::ThisProcess).into()),
                "first-fails" => return Err(self.failed()),
                "first-panics" => panic!("a test's encoder panics"),
                _ => log(self.run, format!("first {} {}", self.id, frame.index)),
            }
        }
        let base = *self.base.get_or_insert(frame.index);
        assert_eq!(frame.index, base + self.taken, "frames come in order, without gaps");
        if self.word.parse() == Ok(frame.index) {
            return Err(self.failed());
        }
        self.taken += 1;
        Ok((self.taken - self.returned > self.delay).then(|| self.next()))
    }

    fn flush(&mut self) -> Result<Vec<EncodedChunk>, EncodeError> {
        log(self.run, format!("flush {}", self.id));
        if let Some(frame) = self.word.strip_suffix("-flush")
            && frame.parse::<u64>().unwrap() < self.base.unwrap_or(0) + self.taken
        {
            return Err(self.failed());
        }
        Ok((self.returned..self.taken).map(|_| self.next()).collect())
    }

    fn encoder_type(&self) -> EncoderType {
        self.id
    }
    fn description(&self) -> String {
        "counts".into()
    }
    fn pixel_format(&self) -> PixelFormat {
        self.format
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        log(self.run, format!("drop {}", self.id));
    }
}

/// A configuration, and the number of its run.
fn config(order: &[(EncoderType, &str)], wait: u32) -> (SessionConfig, i64) {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    let run = RUNS.fetch_add(1, SeqCst) as i64;
    let mut settings = Settings::default();
    settings.encoder.gop_size = GOP as u32;
    settings.gpu.enable_ring_buffer = false;
    settings.gpu.session_wait_s = wait;
    for (id, script) in order {
        let table = format!("run = {run}\ndelay = 3\nopen = \"{script}\"");
        settings.backend.insert(id.to_string(), table.parse().unwrap());
    }
    let order = order.iter().map(|(id, _)| *id).collect();
    let mut config = SessionConfig::new(settings, Plan::new(order, vec![]));
    config.waiter = Waiter::manual();
    (config, run)
}

/// A picture with the low bits of its number as luma.
fn picture(n: u64) -> Payload {
    let mut yuv = vec![128; 16 * 16 * 3 / 2];
    yuv[..256].fill(0x40 | (n as u8 & 0xf));
    Payload::Raw(RawImage {
        encoding: "i420".into(),
        width: 16,
        height: 16,
        step: 16,
        is_bigendian: false,
        data: yuv.into(),
    })
}

/// The result of a session of so many frames.
struct Made {
    result: Result<VideoReport, SessionError>,
    /// The encoder of each frame, in order.
    encoders: Vec<String>,
    /// Seconds that were waited by the clock, besides one second for each frame.
    waited: u64,
}

impl Made {
    fn report(&self) -> &VideoReport {
        self.result.as_ref().unwrap()
    }

    /// From, to, cause and count of each entry.
    fn failovers(&self) -> Vec<(&str, &str, &str, u64)> {
        let all = self.report().failovers.iter();
        all.map(|f| (f.from.as_str(), f.to.as_str(), f.cause, f.count)).collect()
    }

    fn refused(&self) -> Vec<(&str, RefusalKind, u64)> {
        let all = self.report().refusals.iter();
        all.map(|r| (r.encoder.as_str(), r.kind, r.count)).collect()
    }

    /// Each encoder with its number of consecutive frames.
    fn spans(&self) -> Vec<(&str, usize)> {
        let runs = self.encoders.chunk_by(|a, b| a == b);
        runs.map(|run| (run[0].as_str(), run.len())).collect()
    }
}

/// A session of `frames` frames, each of which advances its clock by a second.
fn play(config: &SessionConfig, frames: u64) -> Made {
    let begun = config.waiter.now();
    let encoders = Arc::new(Mutex::new(Vec::new()));
    let sink = CallbackSink({
        let (encoders, waiter) = (Arc::clone(&encoders), config.waiter.clone());
        move |AccessUnit { chunk, .. }: AccessUnit| {
            let mut encoders = encoders.lock().unwrap();
            assert_eq!((chunk.pts, chunk.dts), (encoders.len() as u64, encoders.len() as u64));
            encoders.push(String::from_utf8(chunk.data).unwrap());
            waiter.advance(Duration::from_secs(1));
        }
    });
    let config = config.clone();
    let waiter = config.waiter.clone();
    let result = within("a session", move || {
        let mut session = Session::open(SIZE, &config, Box::new(sink))?;
        for n in 0..frames {
            // An error: the session has failed, which `finish` reports.
            if session.push(&picture(n), FrameTimes::at(EPOCH + n as i64 * 40 * MS)).is_err() {
                break;
            }
        }
        session.finish()
    });
    let encoders = encoders.lock().unwrap().clone();
    let waited = (waiter.now() - begun).as_secs() - encoders.len() as u64;
    if result.is_ok() {
        assert_eq!(encoders.len() as u64, frames);
    }
    Made { result, encoders, waited }
}

/// Runs `work` on a thread of its own; fails if it hangs.
fn within<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || send.send(work()));
    let result = receive.recv_timeout(Duration::from_secs(60));
    result.unwrap_or_else(|e| panic!("{what}: hangs or panicked ({e})"))
}

#[test]
fn a_device_that_disappears_in_mid_stream_is_passed_over() {
    let _turn = turn();
    // At the beginning, a missing device that the configuration names is an error.
    let (wrong, _) = config(&[(BETTER, "gone"), (USUAL, "ok")], 0);
    let error = play(&wrong, 5).result.err().unwrap();
    assert!(matches!(error, SessionError::Open(OpenError::Config(_))), "{error}");
    // In mid-stream it is a refusal.
    let (lost, run) = config(&[(BETTER, "25 gone"), (USUAL, "ok")], 0);
    let made = play(&lost, 40);
    assert_eq!(made.spans(), [("better", 22), ("usual", 18)]);
    assert_eq!(made.refused(), [("better", RefusalKind::NoDevice, 1)]);
    assert!(made.report().refusals[0].reason.contains("backend.better.device"));
    assert_eq!(made.failovers(), [("better", "usual", "failed", 1)]);
    assert_eq!(count(run, "open better"), 2);
    // If the lost encoder was the last one, its loss is the error, and the other reason is named.
    let (alone, _) = config(&[(BETTER, "25 gone")], 0);
    let error = play(&alone, 40).result.err().unwrap().to_string();
    assert!(error.contains("unplugged") && error.contains("/dev/x"), "{error}");
}

#[test]
fn sessions_of_this_process_are_not_waited_for() {
    let _turn = turn();
    for (script, expected) in [("own", 0), ("first-own", 0), ("busy", 600), ("first-busy", 600)] {
        let (config, _) = config(&[(BETTER, script), (USUAL, "ok")], 600);
        // More frames than the ring holds, so that the session is not closed when the encoder
        // refuses.
        let made = play(&config, 50);
        assert_eq!((made.spans(), made.waited), (vec![("usual", 50)], expected), "{script}");
    }
    let (config, _) = config(&[(BETTER, "first-own")], 600);
    let made = play(&config, 50);
    let error = made.result.err().unwrap().to_string();
    assert!(error.contains("no session is left; hint: wait"), "{error}");
    assert_eq!(made.waited, 0);
}

#[test]
fn a_better_encoder_that_stays_busy_does_not_disturb_the_working_one() {
    let _turn = turn();
    for busy in ["busy", "first-busy", "first-fails", "first-panics"] {
        // It refuses to open, or to accept its first frame, throughout the recording.
        let (config, run) = config(&[(BETTER, busy), (USUAL, "ok")], 0);
        let made = play(&config, 24_000);
        assert_eq!(made.spans(), [("usual", 24_000)], "{busy}");
        // The working encoder is opened once and flushed once.
        let usual: Vec<_> =
            events(run).into_iter().filter(|event| event.contains("usual")).collect();
        assert_eq!(usual, ["open usual", "first usual 0", "flush usual", "drop usual"], "{busy}");
        // Retries within 400 minutes: the intervals double up to an hour, starting at half a minute
        // or at five minutes.
        let attempts = count(run, "open better");
        assert!((9..=14).contains(&attempts), "{busy}: {attempts}");
        // One entry in the report, with a count.
        let kind = if busy.contains("busy") { RefusalKind::Busy } else { RefusalKind::Failed };
        let refused = made.refused();
        // If an encoder fails at its first frame, its first loss is a failover.
        let expected = if kind == RefusalKind::Busy { attempts } else { attempts - 3 };
        assert_eq!(refused, [("better", kind, expected as u64)], "{busy}");
        let failovers = made.failovers();
        match kind {
            RefusalKind::Busy => assert_eq!(failovers, []),
            _ => assert_eq!(
                failovers,
                [("better", "better", "failed", 2), ("better", "usual", "failed", 1)]
            ),
        }
    }
}

#[test]
fn a_better_encoder_takes_over_once_it_has_accepted_a_frame() {
    let _turn = turn();
    for script in ["busy busy busy ok", "first-busy first-busy first-busy ok"] {
        let (config, run) = config(&[(BETTER, script), (USUAL, "ok")], 0);
        let made = play(&config, 1000);
        // Retried at 30, 90 and 210 s, each time at the end of a GOP.
        let [("usual", usual), ("better", better)] = made.spans()[..] else {
            panic!("{:?}", made.spans())
        };
        assert_eq!((usual % GOP as usize, usual + better), (0, 1000));
        assert!((210..=260).contains(&usual), "{usual}");
        assert_eq!(made.failovers(), [("usual", "better", "failback", 1)]);
        assert_eq!(made.report().failovers[0].frame, usual as u64);
        assert_eq!(made.refused(), [("better", RefusalKind::Busy, 3)]);
        // The better encoder accepts a frame before the working encoder is flushed.
        let events = events(run);
        let at = |event: &str| events.iter().position(|known| known == event).unwrap();
        let order = [at(&format!("first better {usual}")), at("flush usual"), at("drop usual")];
        assert!(order.is_sorted(), "{events:?}");
        assert_eq!(count(run, "open usual"), 1);
    }
}

#[test]
fn a_working_encoder_that_is_lost_while_it_is_replaced_loses_no_frame() {
    let _turn = turn();
    // The working encoder fails when it is drained. Its frames are encoded again by the same
    // backend, opened again, and at the end of the next GOP the better encoder is retried.
    let (config, run) = config(&[(BETTER, "busy ok"), (USUAL, "20-flush ok")], 0);
    let made = play(&config, 100);
    let [("usual", usual), ("better", _)] = made.spans()[..] else { panic!("{:?}", made.spans()) };
    assert_eq!(
        made.failovers(),
        [("usual", "usual", "failed", 1), ("usual", "better", "failback", 1)]
    );
    assert_eq!((count(run, "open usual"), count(run, "open better")), (2, 3));
    assert_eq!(count(run, &format!("first better {usual}")), 1);
    assert_eq!(made.refused(), [("better", RefusalKind::Busy, 1)]);
}

#[test]
fn the_lists_of_a_long_stream_stay_short() {
    let _turn = turn();
    // Lost every forty frames and opened again each time; later, encoders with repeated failbacks.
    let fails = |first: u64| (0..).map(move |n| (first + 40 * n).to_string());
    let script: Vec<_> = fails(40).take(500).collect();
    let (config, _) = config(&[(USUAL, &script.join(" "))], 0);
    let made = play(&config, 20_000);
    assert_eq!(made.failovers(), [("usual", "usual", "failed", 499)]);
    let failover = &made.report().failovers[0];
    assert_eq!((failover.frame, failover.last_frame), (37, 19_957));
    assert_eq!(made.report().spans.len(), 1);

    let script: Vec<_> = (0..200).flat_map(|_| ["first-busy", "ok"]).collect();
    let (config, _) = self::config(&[(BETTER, &script.join(" ")), (USUAL, "ok")], 0);
    let made = play(&config, 50);
    assert_eq!(made.spans().len(), 2);
    // An encoder that is lost every minute or two, with a failback half a minute later.
    let mut words = Vec::new();
    for n in 1..400u64 {
        words.push((n * 100).to_string());
        words.push("busy".into());
    }
    let (config, _) = self::config(&[(BETTER, &words.join(" ")), (USUAL, "ok")], 0);
    let made = play(&config, 30_000);
    assert!(made.spans().len() > 200, "{}", made.spans().len());
    assert!(made.report().spans.len() <= 64);
    let frames: u64 = made.report().spans.iter().map(|span| span.frames).sum();
    assert_eq!(frames, 30_000);
    assert_eq!(made.failovers().len(), 2, "{:?}", made.failovers());
    assert_eq!(made.refused().len(), 1);
}

#[test]
fn a_session_that_is_dropped_waits_no_more_and_opens_nothing() {
    let _turn = turn();
    // By the system's clock the wait would last an hour.
    let (mut config, run) = config(&[(BETTER, "2 busy"), (USUAL, "ok")], 3600);
    config.waiter = Waiter::new();
    let sink = CallbackSink(|_: AccessUnit| {});
    let mut session = Session::open(SIZE, &config, Box::new(sink)).unwrap();
    let stats = session.stats_handle();
    for n in 0..3 {
        session.push(&picture(n), FrameTimes::at(n as i64)).unwrap();
    }
    process::until("its thread waits", || count(run, "open better") >= 3);
    drop(session);
    process::until("its thread has ended", || stats.get().state == SessionState::Ended);
    assert_eq!(count(run, "open usual"), 0);

    // The same for an encoder that accepts no more frames, and for a stop from outside.
    for is_dropped in [true, false] {
        let (mut config, run) = self::config(&[(BETTER, "2 busy"), (USUAL, "ok")], 3600);
        config.waiter = Waiter::new();
        let sink = CallbackSink(|_: AccessUnit| {});
        let mut session = Session::open(SIZE, &config, Box::new(sink)).unwrap();
        for n in 0..3 {
            session.push(&picture(n), FrameTimes::at(n as i64)).unwrap();
        }
        let stats = session.stats_handle();
        let closing = session.close();
        process::until("its thread waits", || count(run, "open better") >= 3);
        if is_dropped {
            drop(closing);
            process::until("its thread has ended", || stats.get().state == SessionState::Ended);
        } else {
            config.waiter.stop();
            let error = within("a stopped session", || closing.join().unwrap_err().to_string());
            assert!(error.contains("unplugged") && error.contains("stopped"), "{error}");
        }
        assert_eq!(count(run, "open usual"), 0);
    }
}

/// A camera whose messages never end.
struct Endless(u64);

impl Source for Endless {
    fn next_event(&mut self) -> Result<Option<Event>, SourceError> {
        let number = self.0;
        self.0 += 1;
        Ok(Some(match number {
            0 => Event::Stream(StreamInfo {
                id: 0,
                topic: "/cam".into(),
                schema: String::new(),
                messages: None,
                rate: None,
            }),
            n => Event::Packet(Packet {
                stream: 0,
                number: n - 1,
                log_ns: n as i64 * 40 * MS,
                header_ns: None,
                frame_id: None,
                payload: Ok(picture(n - 1)),
                message: None,
            }),
        }))
    }

    fn other_topics(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}

#[test]
fn a_stop_ends_the_wait_of_a_run() {
    let _turn = turn();
    // At the first opening, at the first frame, and in mid-stream. `openh264` writes a real file.
    for script in ["busy", "first-busy", "5 busy", "5 first-busy"] {
        let openh264 = EncoderType::OPENH264;
        let (mut config, run) = config(&[(BETTER, script)], 3600);
        config.plan = Plan::new(vec![BETTER, openh264], vec![]);
        let folder = tempfile::tempdir().unwrap();
        let stop = Stop::new().unwrap();
        let target = Target::Directory(folder.path().into());
        let files = FileDestination::new(target).format(Format::AnnexB);
        let job = Run::new(files, config).recording("endless").threads(1).stop(stop.clone());
        let (send, ended) = mpsc::channel();
        std::thread::spawn(move || {
            let report = job.convert(&|| Ok(Box::new(Endless(0))), &Silent);
            let _ = send.send(report);
        });
        process::until("it waits", || count(run, "open better") >= 3);
        stop.stop();
        let report = ended.recv_timeout(Duration::from_secs(60)).unwrap();
        assert!(report.interrupted, "{script}: {report:?}");
        assert_eq!(report.exit, 3, "{script}: {report:?}");
        // All frames that were read are in the file, encoded by the next encoder.
        let output = &report.outputs[0];
        let video = &output.video;
        assert!(video.frames_encoded > 0 && video.frames_encoded == video.frames_in);
        assert_eq!(video.spans.last().unwrap().encoder, openh264, "{script}");
        assert_eq!(entries(folder.path()), ["cam.h264"]);
    }
}
