//! Encoders that fail on request: real encoders, with a fault around them.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use encoder_core::{
    Backend, Caps, EncodeError, EncodedChunk, EncoderType, FailureKind, Frame, OpenError,
    OpenRequest, PixelFormat, ProbeResult, Refusal, RefusalKind, VideoEncoder, backends,
};
use encoder_testbed::process;

/// The encoder that is lost.
pub const FRAIL: EncoderType = EncoderType::new("frail");

encoder_core::inventory::submit! {
    Backend::new(FRAIL, |request| Ok(Box::new(Frail::open(request)?)))
        .rank(|_| 1)
        .check_options(|_| Ok(()))
        .probe(|_, _| ProbeResult::Usable(Caps::default()))
        .max_delay(|request| (inner(request).max_delay)(&stripped(request)))
}

/// The kind of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The child is killed before it receives the frame (-9).
    Kill,
    /// The child is stopped: it accepts no frames and returns no access units.
    Hang,
    /// The encoder returns an error and does not accept the frame.
    Error,
    /// The encoder accepts the frame and then fails: its access unit is lost.
    LateError,
    /// An access unit is lost.
    Swallow,
    /// An access unit is returned twice.
    Double,
    /// The encoder panics.
    Panic,
    /// The encoder refuses its first frame, like a device without a free session.
    Busy,
}

impl Fault {
    pub const ALL: [Self; 8] = [
        Self::Kill,
        Self::Hang,
        Self::Error,
        Self::LateError,
        Self::Swallow,
        Self::Double,
        Self::Panic,
        Self::Busy,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Hang => "hang",
            Self::Error => "error",
            Self::LateError => "late-error",
            Self::Swallow => "swallow",
            Self::Double => "double",
            Self::Panic => "panic",
            Self::Busy => "busy",
        }
    }

    pub fn of(name: &str) -> Self {
        let found = Self::ALL.into_iter().find(|fault| fault.name() == name);
        found.unwrap_or_else(|| panic!("no fault {name}"))
    }

    /// Whether the fault needs a child process.
    pub fn needs_child(self) -> bool {
        matches!(self, Self::Kill | Self::Hang)
    }
}

/// When the fault strikes: at this frame, or when the stream is flushed.
pub const FLUSH: u64 = u64::MAX >> 1;

/// The table `[backend.frail]`: `inner` is the encoder; the fault strikes `times` times, at the
/// frame `at` or the first frame after it. `run` distinguishes tests that run in parallel.
pub fn options(inner: &str, inner_options: &str, fault: Fault, at: u64, times: u32) -> String {
    static RUNS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let run = RUNS.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    format!(
        "[backend.frail]\ninner = \"{inner}\"\nfault = \"{}\"\nat = {at}\ntimes = {times}\n\
         run = {run}\n[backend.frail.options]\n{inner_options}",
        fault.name()
    )
}

fn word<'a>(request: &'a OpenRequest<'_>, key: &str) -> &'a str {
    request.options.get(key).and_then(|value| value.as_str()).unwrap_or_default()
}

fn number(request: &OpenRequest<'_>, key: &str) -> u64 {
    let number = request.options.get(key).and_then(|value| value.as_integer());
    number.unwrap_or_default() as u64
}

fn inner(request: &OpenRequest<'_>) -> &'static Backend {
    let name = word(request, "inner").to_owned();
    let found = backends().into_iter().find(|backend| backend.id.as_str() == name);
    found.unwrap_or_else(|| panic!("no backend {name}"))
}

/// The request that is passed to the inner encoder.
fn stripped<'a>(request: &OpenRequest<'a>) -> OpenRequest<'a> {
    let options = request.options.get("options").and_then(|options| options.as_table());
    request.clone().with_options(options.unwrap_or_else(|| panic!("no options")))
}

/// How often each run's fault has struck.
static STRUCK: Mutex<Option<HashMap<u64, u64>>> = Mutex::new(None);

struct Frail {
    inner: Box<dyn VideoEncoder>,
    child: Option<u32>,
    fault: Fault,
    at: u64,
    times: u64,
    run: u64,
    taken: u64,
    /// The latest access unit.
    last: Option<EncodedChunk>,
}

impl Frail {
    fn open(request: &OpenRequest<'_>) -> Result<Self, OpenError> {
        // Only one encoder is opened at a time, so a new child process belongs to it.
        static TURN: Mutex<()> = Mutex::new(());
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let children = || -> Vec<u32> {
            let all = process::children_of(std::process::id()).into_iter();
            let mine = all.filter(|p| !p.zombie && p.name.starts_with("ffmpeg"));
            mine.map(|p| p.id).collect()
        };
        let before = children();
        let backend = inner(request);
        let request_inside = stripped(request);
        let inner = (backend.open)(&request_inside)?;
        let child = children().into_iter().rfind(|id| !before.contains(id));
        Ok(Self {
            inner,
            child,
            fault: Fault::of(word(request, "fault")),
            at: number(request, "at"),
            times: number(request, "times"),
            run: number(request, "run"),
            taken: 0,
            last: None,
        })
    }

    /// Whether the fault strikes now.
    fn strikes(&self, moment: u64) -> bool {
        let mut struck = STRUCK.lock().unwrap_or_else(PoisonError::into_inner);
        let count = struck.get_or_insert_default().entry(self.run).or_default();
        let is_first = self.fault != Fault::Busy || self.taken == 0;
        let now = moment >= self.at && is_first && *count < self.times;
        *count += u64::from(now);
        now
    }

    fn signal(&self, signal: &str) {
        let child = self.child.expect("the fault needs a child");
        let mut kill = std::process::Command::new("kill");
        let sent = kill.args([signal, &child.to_string()]).status().unwrap();
        assert!(sent.success() || process::is_gone(child), "{signal} to {child}");
        if signal == "-KILL" {
            // The death is detected at the next call, whichever it is.
            process::until("it is dead", || {
                let all = process::children_of(std::process::id());
                all.iter().all(|process| process.id != child || process.zombie)
            });
        }
    }

    fn failed(&self, index: u64) -> EncodeError {
        EncodeError::Failed {
            encoder: FRAIL,
            index,
            kind: FailureKind::Failed,
            message: "the device was lost".into(),
        }
    }
}

impl VideoEncoder for Frail {
    fn encode_frame(&mut self, frame: &Frame<'_>) -> Result<Option<EncodedChunk>, EncodeError> {
        let strikes = self.strikes(frame.index);
        if strikes {
            match self.fault {
                Fault::Kill => self.signal("-KILL"),
                Fault::Hang => self.signal("-STOP"),
                Fault::Error => return Err(self.failed(frame.index)),
                Fault::Panic => panic!("a test's encoder panics"),
                Fault::Busy => {
                    let kind = RefusalKind::Busy;
                    return Err(Refusal::new(FRAIL, kind, "no session", "wait").transient().into());
                }
                _ => {}
            }
        }
        self.taken += 1;
        let chunk = self.inner.encode_frame(frame)?;
        if !strikes {
            self.last = chunk.clone().or(self.last.take());
            return Ok(chunk);
        }
        match self.fault {
            Fault::LateError => Err(self.failed(frame.index)),
            Fault::Swallow => Ok(None),
            Fault::Double => Ok(self.last.clone().or(chunk)),
            _ => Ok(chunk),
        }
    }

    fn flush(&mut self) -> Result<Vec<EncodedChunk>, EncodeError> {
        if self.strikes(FLUSH) {
            match self.fault {
                Fault::Kill => self.signal("-KILL"),
                Fault::Hang => self.signal("-STOP"),
                Fault::Panic => panic!("a test's encoder panics"),
                Fault::Swallow => {
                    let mut rest = self.inner.flush()?;
                    rest.pop();
                    return Ok(rest);
                }
                Fault::Double => {
                    let mut rest = self.inner.flush()?;
                    rest.extend(rest.last().cloned());
                    return Ok(rest);
                }
                Fault::Busy => {}
                Fault::Error | Fault::LateError => return Err(self.failed(FLUSH)),
            }
        }
        self.inner.flush()
    }

    fn encoder_type(&self) -> EncoderType {
        FRAIL
    }

    fn description(&self) -> String {
        "a test".into()
    }

    fn pixel_format(&self) -> PixelFormat {
        self.inner.pixel_format()
    }
}
