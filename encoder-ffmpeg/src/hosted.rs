//! A video encoder that runs in an FFmpeg child.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, Read},
    process::{ChildStdin, ChildStdout},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use encoder_core::{
    ConfigError, EncodeError, EncodedChunk, EncoderConfig, EncoderType, FailureKind, Frame,
    FrameLayout, LoadProbe, OpenError, OpenRequest, PixelFormat, Plane, Refusal, RefusalKind,
    Resolution, VideoEncoder, Waited,
};

use tracing::warn;

use crate::{
    args::{FfmpegSpec, announced, arguments},
    classify::{IGNORED_OPTION, classify},
    error_watch::ErrorWatch,
    find::{Ffmpeg, Search, not_listed},
    flv::{AccessUnit, FlvParser},
    order::Order,
    process::{Child, Exit},
    rule::hints::{REPORT, SIZE},
    sys,
    tail::{SharedTail, summary},
    wait::Wait,
};

/// How long a child that has the end of its input may take to end by itself, after its last access
/// unit.
const END: Duration = Duration::from_secs(5);

/// The fewest bytes of a frame: FFmpeg reads the first ten bytes of any input before it looks at the
/// format, to find an ID3 tag. With a smaller frame (2x2) it would wait for the next frame, and this
/// program for the encoder.
const SMALLEST_FRAME: usize = 10;

/// How long a child whose pipes are broken may take to end.
const GONE_SOON: Duration = Duration::from_secs(1);

/// After an error, the input of a child without output for this long is closed: when its encoder
/// fails, FFmpeg 9 does not end before it has read more input, or the end of it.
const AFTER_ERROR: Duration = Duration::from_secs(2);

/// An encoder in an FFmpeg child.
///
/// The calling thread writes frames straight from their memory into the child's stdin, on Linux
/// without a copy where that memory [is stable](Frame::is_stable). A thread reads access units from
/// the child's stdout into a queue, which holds at most the access units of the frames in flight.
/// Another thread keeps the last lines of its stderr and reaps it. [`encode_frame`] waits for the
/// child only when more than [`max_delay`] frames are in flight. A stop of the
/// [waiter](FfmpegSpec::waiter) kills the child at once.
///
/// [`encode_frame`]: VideoEncoder::encode_frame
/// [`max_delay`]: FfmpegSpec::max_delay
pub struct HostedEncoder {
    spec: FfmpegSpec,
    label: String,
    size: Resolution,
    /// Frames per second in FFmpeg's arguments: numerator, denominator.
    rate: (i128, i128),
    child: Child,
    log: SharedTail,
    stdin: Option<ChildStdin>,
    units: Receiver<Message>,
    reader: Option<JoinHandle<()>>,
    /// Index of the first frame.
    base: Option<u64>,
    frames_in: u64,
    chunks_out: u64,
    ready: VecDeque<EncodedChunk>,
    order: Order,
    errors: ErrorWatch,
    failed: bool,
}

/// A message of the reader thread; the end of the stream is the last.
enum Message {
    /// The head of the stream: FFmpeg writes it as soon as the encoder is open.
    Opened,
    Unit(AccessUnit),
    End(Result<(), String>),
}

/// Opens an encoder for `request` in the FFmpeg that a [`Search`](crate::Search) finds. With the result of
/// a probe ([`OpenRequest::probe`]), that search is skipped.
///
/// # Errors
/// [`OpenError::Refused`] when there is no FFmpeg or it lacks the encoder or does not start, and
/// when [`FfmpegSpec::max_delay`] is not the delay that the backend declares
/// ([`OpenRequest::max_delay`]); [`OpenError::Config`] when the resolution is not set. FFmpeg opens the encoder itself when it
/// has the first frame: a refusal of the device is the error of the first
/// [`encode_frame`](VideoEncoder::encode_frame), [`EncodeError::Refused`].
pub fn open(
    mut spec: FfmpegSpec,
    request: &OpenRequest<'_>,
) -> Result<Box<dyn VideoEncoder>, OpenError> {
    if let Some(declared) = request.max_delay.filter(|declared| *declared != spec.max_delay) {
        let reason = format!(
            "its backend declares that an encoder keeps {declared} frames, its FfmpegSpec {}",
            spec.max_delay
        );
        return Err(Refusal::new(spec.id, RefusalKind::Failed, reason, REPORT).into());
    }
    let named = request.ffmpeg;
    let ffmpeg = match request.probe.and_then(|probe| Ffmpeg::probed(&spec, probe, named)) {
        Some(probed) => Arc::new(probed),
        None => {
            let search = Search::new(spec.id).named(named).with_encoder(spec.encoder);
            search.with_waiter(request.waiter).run()?
        }
    };
    spec.start = Duration::from_secs(request.gpu.probe_timeout_s.into());
    spec.stall = Duration::from_secs(request.gpu.stall_timeout_s.into());
    let spec = spec.with_waiter(request.waiter);
    Ok(Box::new(HostedEncoder::open(&ffmpeg, spec, request.config)?))
}

impl HostedEncoder {
    /// As [`open`], in a certain FFmpeg.
    ///
    /// # Errors
    /// As [`open`].
    pub fn open(
        ffmpeg: &Ffmpeg,
        spec: FfmpegSpec,
        config: &EncoderConfig,
    ) -> Result<Self, OpenError> {
        let Some(size) = config.resolution.map(Resolution::even) else {
            let allowed = "WIDTHxHEIGHT";
            return Err(ConfigError::value("encoder.resolution", "none", allowed).into());
        };
        if FrameLayout::new(spec.format, size).packed_bytes() < SMALLEST_FRAME {
            let reason = format!("FFmpeg takes no pictures as small as {size}");
            return Err(Refusal::new(spec.id, RefusalKind::Unsupported, reason, SIZE).into());
        }
        if !ffmpeg.lists(spec.encoder) {
            return Err(not_listed(spec.id, std::slice::from_ref(ffmpeg), spec.encoder).into());
        }
        let refuse = |error: io::Error| {
            Refusal::new(
                spec.id,
                RefusalKind::Failed,
                format!("{} does not start: {error}", ffmpeg.path.display()),
                "check that the program can be run, and the limits on processes and memory",
            )
        };
        let mut command = ffmpeg.command();
        command.args(arguments(&spec, ffmpeg.version, size, config.frame_rate));
        sys::keep_memory(&mut command);
        let log = SharedTail::default();
        let (mut child, stdin, stdout) = Child::spawn(command, {
            let log = log.clone();
            move |bytes| log.push(bytes)
        })
        .map_err(refuse)?;
        // The thread of this encoder may be anywhere at the stop: in a sink that is blocked.
        child.kill_on_stop(&spec.waiter);
        sys::prepare_pipe(&stdin).map_err(refuse)?;
        sys::enlarge_pipe(&stdout);
        let (sender, units) = channel();
        let reader = std::thread::Builder::new()
            .name("ffmpeg-stdout".into())
            .spawn(move || read_units(stdout, &sender))
            .map_err(refuse)?;
        let (num, den) = announced(config.frame_rate);
        Ok(Self {
            label: format!("{} {}", ffmpeg.label(), spec.encoder),
            spec,
            size,
            rate: (num.into(), den.into()),
            child,
            log,
            stdin: Some(stdin),
            units,
            reader: Some(reader),
            base: None,
            frames_in: 0,
            chunks_out: 0,
            ready: VecDeque::new(),
            order: Order::default(),
            errors: ErrorWatch::default(),
            failed: false,
        })
    }

    /// Process id of the child.
    pub fn child_id(&self) -> u32 {
        self.child.id()
    }

    fn check(&mut self, frame: &Frame<'_>) -> Result<(), EncodeError> {
        if self.failed || self.stdin.is_none() {
            let what = "the encoder has ended and takes no more frames".into();
            return Err(self.error(FailureKind::Failed, what));
        }
        frame.check(self.spec.format, self.size)?;
        let base = *self.base.get_or_insert(frame.index);
        if frame.index != base + self.frames_in {
            let expected = base + self.frames_in;
            let what = format!("got frame {} instead of frame {expected}", frame.index);
            return Err(self.fail(FailureKind::Failed, what));
        }
        if frame.force_idr && !self.frames_in.is_multiple_of(self.spec.gop_size.into()) {
            let what = format!(
                "frame {}: an IDR picture was asked for, and FFmpeg takes no such request through \
                 a pipe: ask at multiples of gop_size = {}, or open a new encoder there",
                frame.index, self.spec.gop_size
            );
            return Err(self.fail(FailureKind::Failed, what));
        }
        Ok(())
    }

    fn write(&mut self, frame: &Frame<'_>) -> Result<(), EncodeError> {
        let Some(stdin) = &mut self.stdin else { return Ok(()) };
        self.errors.before_frame(self.log.errors(), self.frames_in);
        let mut slices: Vec<IoSlice<'_>> =
            frame.planes().iter().flat_map(runs).map(IoSlice::new).collect();
        let limit = if self.frames_in == 0 { self.spec.start } else { self.spec.stall };
        let mut wait = Wait::new(&self.spec.waiter, limit);
        let Err(error) = sys::write_all(stdin, &mut slices, &mut wait, frame.is_stable) else {
            return Ok(());
        };
        // If the output is wrong, the reader has sent the defect before it closed the child's
        // stdout.
        let defect = match error.kind() {
            io::ErrorKind::BrokenPipe => self.units.try_iter().find_map(|message| match message {
                Message::End(end) => end.err(),
                Message::Opened | Message::Unit(_) => None,
            }),
            _ => None,
        };
        if self.frames_in == 0 && defect.is_none() {
            let is_late = error.kind() == io::ErrorKind::TimedOut;
            return Err(self.refuse(is_late.then(|| wait.length())));
        }
        Err(match error.kind() {
            io::ErrorKind::TimedOut => {
                self.child.kill();
                let what = format!("FFmpeg took no input for {} and was killed", wait.said());
                self.fail(FailureKind::Stalled, what)
            }
            // It ended by itself, or because its stdout was closed.
            io::ErrorKind::BrokenPipe => {
                let what = defect.unwrap_or_else(|| "FFmpeg ended early".into());
                self.fail(FailureKind::Died, what)
            }
            _ => self.fail(FailureKind::Died, format!("FFmpeg takes no input: {error}")),
        })
    }

    /// Waits until the encoder, which has the first frame, is open.
    fn wait_until_open(&mut self) -> Result<(), EncodeError> {
        let mut wait = Wait::new(&self.spec.waiter, self.spec.start);
        while let Some(left) = wait.next() {
            match self.units.recv_timeout(left) {
                Ok(Message::Opened) => {
                    self.errors.opened(self.log.errors());
                    return Ok(());
                }
                Err(RecvTimeoutError::Timeout) => {}
                _ => return Err(self.refuse(None)),
            }
        }
        Err(self.refuse(Some(wait.length())))
    }

    /// Ends a child whose encoder did not open; `late` is the limit that has passed. Returns a
    /// refusal of the device, or a failure if the child crashed or was killed from outside: then
    /// another attempt may succeed.
    fn refuse(&mut self, late: Option<Duration>) -> EncodeError {
        self.failed = true;
        self.stdin = None;
        if let Some(error) = self.stopped() {
            return error;
        }
        let limit = late.unwrap_or(GONE_SOON);
        let mut wait = Wait::new(&self.spec.waiter, limit);
        let ended = if late.is_some() { None } else { self.child.wait_until(&mut wait) };
        let exit = ended.unwrap_or_else(|| {
            self.child.kill();
            Exit::TimedOut(limit)
        });
        let refusal = classify(self.spec.id, &self.spec.rules, &self.log.text(), exit);
        match exit {
            Exit::Signal(_) => self.error(FailureKind::Died, refusal.reason),
            _ => refusal.into(),
        }
    }

    /// Waits for the next access unit; false at the end of the stream. The input of a child without
    /// output after an error is closed during the wait.
    fn receive(&mut self) -> Result<bool, EncodeError> {
        let mut wait = Wait::new(&self.spec.waiter, self.spec.stall);
        while let Some(left) = wait.next() {
            match self.units.recv_timeout(left) {
                Err(RecvTimeoutError::Timeout) => {
                    if wait.elapsed() >= AFTER_ERROR
                        && self.errors.may_have_stopped(self.log.errors())
                    {
                        self.stdin = None;
                    }
                }
                message => return self.receive_message(message.ok()),
            }
        }
        let inside = self.frames_in - self.order.seen();
        self.child.kill();
        let what = format!(
            "FFmpeg gave no output for {} with {inside} frames inside, and was killed",
            wait.said()
        );
        Err(self.fail(FailureKind::Stalled, what))
    }

    /// Returns false at the end of the stream.
    fn receive_message(&mut self, message: Option<Message>) -> Result<bool, EncodeError> {
        match message {
            Some(Message::Opened) => Ok(true),
            Some(Message::Unit(unit)) => self.accept(unit).map(|()| true),
            Some(Message::End(Ok(()))) | None => Ok(false),
            Some(Message::End(Err(what))) => Err(self.fail(FailureKind::WrongOutput, what)),
        }
    }

    fn accept(&mut self, unit: AccessUnit) -> Result<(), EncodeError> {
        let index = match self.order.index(unit.pts_ms, self.rate) {
            Ok(index) if index < self.frames_in => index,
            Ok(index) => {
                let what = format!("an access unit of frame {index} came before that frame did");
                return Err(self.fail(FailureKind::WrongOutput, what));
            }
            Err(what) => return Err(self.fail(FailureKind::WrongOutput, what)),
        };
        self.errors.access_unit(index);
        let dts = self.order.seen() - 1;
        self.ready.push_back(EncodedChunk {
            data: unit.data,
            pts: self.base.unwrap_or(0) + index,
            dts,
            keyframe: unit.keyframe,
        });
        Ok(())
    }

    /// Ends the child and returns the error, with the failure, the exit of the child and its last
    /// messages.
    fn fail(&mut self, kind: FailureKind, what: String) -> EncodeError {
        self.failed = true;
        self.stdin = None;
        if let Some(error) = self.stopped() {
            return error;
        }
        // Usually it has ended or is about to: its own exit explains more than a kill.
        let ended = self.child.wait_until(&mut Wait::new(&self.spec.waiter, GONE_SOON));
        let kind = match ended {
            // Killed by this program.
            _ if kind == FailureKind::Stalled => kind,
            Some(Exit::Signal(_)) => FailureKind::Died,
            Some(Exit::Code(1..)) => FailureKind::Failed,
            _ => kind,
        };
        let exit = ended.unwrap_or_else(|| self.child.kill());
        self.error(kind, explain(&self.spec, &what, exit, &self.log.text()))
    }

    /// The error after a stop, which has killed the child.
    fn stopped(&mut self) -> Option<EncodeError> {
        (self.spec.waiter.state() == Waited::Stopped).then(|| {
            self.child.kill();
            self.error(FailureKind::Stalled, "the run was stopped, and FFmpeg was killed".into())
        })
    }

    fn error(&self, kind: FailureKind, message: String) -> EncodeError {
        EncodeError::Failed { encoder: self.spec.id, index: self.frames_in, kind, message }
    }

    fn finish(&mut self) -> Result<(), EncodeError> {
        // A child with all access units has nothing left to do but to end.
        while self.order.seen() < self.frames_in && self.receive()? {}
        let mut wait = Wait::new(&self.spec.waiter, END);
        let mut has_ended = false;
        while !has_ended && let Some(left) = wait.next() {
            has_ended = match self.units.recv_timeout(left) {
                Err(RecvTimeoutError::Timeout) => false,
                message => !self.receive_message(message.ok())?,
            };
        }
        let is_whole = self.order.seen() == self.frames_in;
        let exit = if has_ended || is_whole { self.child.wait_until(&mut wait) } else { None };
        if exit.is_none() {
            self.child.kill();
            if is_whole {
                let (encoder, limit) = (self.spec.id, wait.said());
                warn!(
                    %encoder,
                    "FFmpeg did not end within {limit} of its last access unit, and was killed; \
                     nothing is missing"
                );
            }
        }
        if exit.is_some_and(|exit| !exit.is_success()) {
            return Err(
                self.fail(FailureKind::Failed, "FFmpeg failed at the end of the stream".into())
            );
        }
        if self.log.text().contains(IGNORED_OPTION) {
            return Err(self.fail(FailureKind::Failed, "FFmpeg ignored an option".into()));
        }
        if self.order.seen() != self.frames_in {
            let (seen, frames) = (self.order.seen(), self.frames_in);
            let what = format!("{frames} frames went in, {seen} came out");
            return Err(self.fail(FailureKind::WrongOutput, what));
        }
        Ok(())
    }
}

impl VideoEncoder for HostedEncoder {
    fn encode_frame(&mut self, frame: &Frame<'_>) -> Result<Option<EncodedChunk>, EncodeError> {
        self.check(frame)?;
        self.write(frame)?;
        if self.frames_in == 0 {
            self.wait_until_open()?;
        }
        self.frames_in += 1;
        while let Ok(message) = self.units.try_recv() {
            match message {
                Message::Opened => {}
                Message::Unit(unit) => self.accept(unit)?,
                Message::End(end) => {
                    let what = end.err().unwrap_or_else(|| "FFmpeg ended early".into());
                    return Err(self.fail(FailureKind::Died, what));
                }
            }
        }
        while self.ready.is_empty() && self.frames_in - self.chunks_out > self.spec.max_delay as u64
        {
            if !self.receive()? {
                return Err(self.fail(FailureKind::Died, "FFmpeg ended early".into()));
            }
        }
        let chunk = self.ready.pop_front();
        self.chunks_out += u64::from(chunk.is_some());
        Ok(chunk)
    }

    fn flush(&mut self) -> Result<Vec<EncodedChunk>, EncodeError> {
        if self.failed {
            return Err(self.error(FailureKind::Failed, "the encoder has failed before".into()));
        }
        if self.stdin.take().is_none() {
            return Ok(Vec::new());
        }
        if self.frames_in == 0 {
            self.child.kill();
            return Ok(Vec::new());
        }
        self.finish()?;
        self.chunks_out += self.ready.len() as u64;
        Ok(std::mem::take(&mut self.ready).into())
    }

    fn encoder_type(&self) -> EncoderType {
        self.spec.id
    }

    fn description(&self) -> String {
        self.label.clone()
    }

    fn pixel_format(&self) -> PixelFormat {
        self.spec.format
    }

    fn load(&self) -> Option<LoadProbe> {
        self.spec.load.clone()
    }
}

impl Drop for HostedEncoder {
    fn drop(&mut self) {
        self.stdin = None;
        let exit = self.child.wait(Duration::ZERO).unwrap_or_else(|| self.child.kill());
        // The reader ends when the child's stdout closes, which a child that cannot be killed keeps
        // open.
        if let (Some(reader), true) = (self.reader.take(), exit != Exit::Unknown) {
            let _ = reader.join();
        }
    }
}

/// The message for a failure, with the cause if a rule matches.
fn explain(spec: &FfmpegSpec, what: &str, exit: Exit, stderr: &str) -> String {
    let refusal = classify(spec.id, &spec.rules, stderr, exit);
    let log = match summary(stderr) {
        empty if empty.is_empty() => empty,
        log => format!("; its last messages: {log}"),
    };
    match refusal.kind {
        RefusalKind::Failed | RefusalKind::Timeout => format!("{what} ({exit}){log}"),
        _ => format!("{what} ({exit}): {} ({}){log}", refusal.reason, refusal.hint),
    }
}

/// The bytes of a plane: one slice if rows have no padding, else one slice per row.
fn runs<'a>(plane: &Plane<'a>) -> Vec<&'a [u8]> {
    let whole = plane.row_bytes * plane.rows;
    match plane.data.get(..whole) {
        Some(data) if plane.stride == plane.row_bytes => vec![data],
        _ => plane.rows().collect(),
    }
}

/// Reads the child's stdout to its end.
fn read_units(mut stdout: ChildStdout, sender: &Sender<Message>) {
    let mut parser = FlvParser::new();
    let mut buffer = vec![0; 256 << 10];
    let mut units = Vec::new();
    let mut opened = false;
    let end = loop {
        match stdout.read(&mut buffer) {
            Ok(0) => break Ok(()),
            Ok(n) => {
                if !std::mem::replace(&mut opened, true) && sender.send(Message::Opened).is_err() {
                    return;
                }
                let result = parser.push(buffer.get(..n).unwrap_or_default(), &mut units);
                for unit in units.drain(..) {
                    // The encoder is being dropped.
                    if sender.send(Message::Unit(unit)).is_err() {
                        return;
                    }
                }
                if let Err(error) = result {
                    break Err(error.to_string());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(format!("FFmpeg's output cannot be read: {error}")),
        }
    };
    let end = end.and_then(|()| {
        parser.finish().map_err(|error| format!("FFmpeg's output was cut off: {error}"))
    });
    let _ = sender.send(Message::End(end));
}

#[cfg(test)]
#[path = "hosted_tests.rs"]
mod tests;
