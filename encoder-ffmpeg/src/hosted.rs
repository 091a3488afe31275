//! A video encoder that runs in an FFmpeg child.

use std::{
    collections::{BTreeSet, VecDeque},
    io::{self, IoSlice, Read},
    process::{ChildStdin, ChildStdout},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use encoder_core::{
    ConfigError, EncodeError, EncodedChunk, EncoderConfig, EncoderType, FailureKind, Frame,
    LoadProbe, OpenError, OpenRequest, PixelFormat, Plane, Refusal, RefusalKind, Resolution,
    VideoEncoder,
};

use crate::{
    args::{FfmpegSpec, arguments},
    child::{Child, Exit},
    classify::{classify, not_listed},
    find::Ffmpeg,
    flv::{AccessUnit, FlvParser},
    sys,
    tail::words,
};

/// How long a child may take to end by itself, and again once it was asked to.
const GRACE: Duration = Duration::from_secs(10);

/// How long a child whose pipes are broken may take to end.
const GONE_SOON: Duration = Duration::from_secs(1);

/// After how long without output a child is looked at that has told of an error. When its encoder
/// fails, FFmpeg 9 does not end before it was given more input, or the end of it.
const AFTER_ERROR: Duration = Duration::from_secs(2);

/// An encoder in an FFmpeg child.
///
/// The calling thread writes frames straight from their memory into the child's stdin, on Linux
/// without a copy where that memory [is_stable](Frame::is_stable) as it is; one thread
/// reads access units from its stdout into a queue without a bound (it holds only what the encoder
/// owes), another keeps the last lines of its stderr and reaps it. [`encode_frame`] waits for the
/// child only when it owes more than [`max_delay`] access units.
///
/// [`encode_frame`]: VideoEncoder::encode_frame
/// [`max_delay`]: VideoEncoder::max_delay
pub struct HostedEncoder {
    spec: FfmpegSpec,
    label: String,
    size: Resolution,
    /// Frames per second as FFmpeg was told: numerator, denominator.
    rate: (i128, i128),
    child: Child,
    stdin: Option<ChildStdin>,
    units: Receiver<Message>,
    reader: Option<JoinHandle<()>>,
    /// Index of the first frame.
    base: Option<u64>,
    frames_in: u64,
    chunks_out: u64,
    ready: VecDeque<EncodedChunk>,
    order: Order,
    /// How many errors it had told of when it began.
    errors: u64,
    failed: bool,
}

/// What the reader thread sends; the end of the stream is the last.
enum Message {
    /// The head of the stream is there: FFmpeg writes it as soon as the encoder is open.
    Begun,
    Unit(AccessUnit),
    End(Result<(), String>),
}

/// Opens an encoder for `request` in the FFmpeg that [`Ffmpeg::find`] finds. What a probe was told
/// ([`OpenRequest::probe`]) is not asked again.
///
/// # Errors
/// [`OpenError::Refused`] when there is no FFmpeg or it lacks the encoder or does not start;
/// [`OpenError::Config`] when the resolution is not set. FFmpeg opens the encoder itself when it
/// has the first frame: what the device refuses is the error of the first
/// [`encode_frame`](VideoEncoder::encode_frame), [`EncodeError::Refused`].
pub fn open(
    mut spec: FfmpegSpec,
    request: &OpenRequest<'_>,
) -> Result<Box<dyn VideoEncoder>, OpenError> {
    let ffmpeg = match request.probe.and_then(|probe| probe.host.as_deref()) {
        Some(version_text) => Arc::new(Ffmpeg::probed(&spec, version_text)?),
        None => Ffmpeg::find(spec.id)?,
    };
    spec.start = Duration::from_secs(request.gpu.probe_timeout_s.into());
    spec.stall = Duration::from_secs(request.gpu.stall_timeout_s.into());
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
        if !ffmpeg.lists(spec.encoder) {
            return Err(not_listed(spec.id, ffmpeg, spec.encoder).into());
        }
        let refuse = |error: io::Error| {
            Refusal::new(
                spec.id,
                RefusalKind::Failed,
                format!("{} does not start: {error}", ffmpeg.path.display()),
                "check that the program can be run, and the limits on processes and memory",
            )
        };
        let arguments = arguments(&spec, ffmpeg.version, size, config.frame_rate);
        let (child, stdin, stdout) = Child::spawn(&ffmpeg.path, &arguments).map_err(refuse)?;
        sys::prepare_pipe(&stdin).map_err(refuse)?;
        sys::enlarge_pipe(&stdout);
        let (sender, units) = channel();
        let reader = std::thread::Builder::new()
            .name("ffmpeg-stdout".into())
            .spawn(move || read_units(stdout, &sender))
            .map_err(refuse)?;
        let rate = config.frame_rate;
        let rate = if rate.as_f64() < 1.0 {
            (1, 1)
        } else {
            (rate.numerator().into(), rate.denominator().into())
        };
        Ok(Self {
            label: format!("{} {}", ffmpeg.label(), spec.encoder),
            spec,
            size,
            rate,
            child,
            stdin: Some(stdin),
            units,
            reader: Some(reader),
            base: None,
            frames_in: 0,
            chunks_out: 0,
            ready: VecDeque::new(),
            order: Order::default(),
            errors: 0,
            failed: false,
        })
    }

    /// Process id of the child.
    pub fn child_id(&self) -> u32 {
        self.child.id()
    }

    fn check(&mut self, frame: &Frame<'_>) -> Result<(), EncodeError> {
        if self.failed || self.stdin.is_none() {
            let what = "it has ended and takes no more frames".into();
            return Err(self.error(FailureKind::Failed, what));
        }
        let format = self.spec.format;
        if (frame.format, frame.width, frame.height) != (format, self.size.width, self.size.height)
        {
            return Err(EncodeError::Mismatch {
                index: frame.index,
                got_format: frame.format,
                got_width: frame.width,
                got_height: frame.height,
                format,
                width: self.size.width,
                height: self.size.height,
            });
        }
        let base = *self.base.get_or_insert(frame.index);
        if frame.index != base + self.frames_in {
            let expected = base + self.frames_in;
            let what = format!("frame {} came instead of {expected}", frame.index);
            return Err(self.fail(FailureKind::Failed, what));
        }
        if frame.force_idr && !self.frames_in.is_multiple_of(self.spec.gop_size.into()) {
            let what = format!(
                "an IDR picture was asked for at frame {}, and FFmpeg takes no such request \
                 through a pipe: ask at multiples of gop_size = {}, or open a new encoder there",
                frame.index, self.spec.gop_size
            );
            return Err(self.fail(FailureKind::Failed, what));
        }
        Ok(())
    }

    fn write(&mut self, frame: &Frame<'_>) -> Result<(), EncodeError> {
        let Some(stdin) = &mut self.stdin else { return Ok(()) };
        let mut slices: Vec<IoSlice<'_>> =
            frame.planes().iter().flat_map(runs).map(IoSlice::new).collect();
        let limit = if self.frames_in == 0 { self.spec.start } else { self.spec.stall };
        let Err(error) = sys::write_all(stdin, &mut slices, limit, frame.is_stable) else {
            return Ok(());
        };
        // What the reader would not take, it said before it closed the child's output.
        let unread = match error.kind() {
            io::ErrorKind::BrokenPipe => self.units.try_iter().find_map(|message| match message {
                Message::End(end) => end.err(),
                Message::Begun | Message::Unit(_) => None,
            }),
            _ => None,
        };
        if self.frames_in == 0 && unread.is_none() {
            let late = (error.kind() == io::ErrorKind::TimedOut).then_some(limit);
            return Err(self.refuse(late));
        }
        Err(match error.kind() {
            io::ErrorKind::TimedOut => {
                let limit = limit.as_secs_f32();
                self.child.kill();
                let what = format!("FFmpeg took no input for {limit} s and was killed");
                self.fail(FailureKind::Stalled, what)
            }
            // It went away, by itself or because nobody could read its output any more.
            io::ErrorKind::BrokenPipe => {
                let what = unread.unwrap_or_else(|| "FFmpeg ended early".into());
                self.fail(FailureKind::Died, what)
            }
            _ => self.fail(FailureKind::Died, format!("FFmpeg takes no input: {error}")),
        })
    }

    /// Waits until the encoder is open. It has the first frame.
    fn begin(&mut self) -> Result<(), EncodeError> {
        match self.units.recv_timeout(self.spec.start) {
            Ok(Message::Begun) => {
                // What it said before, it has got over.
                self.errors = self.child.errors();
                Ok(())
            }
            Err(RecvTimeoutError::Timeout) => Err(self.refuse(Some(self.spec.start))),
            _ => Err(self.refuse(None)),
        }
    }

    /// Ends a child whose encoder did not open, and says why; `late` when it took so long. One that
    /// was killed, or crashed, has said nothing about the device: begun again it may open.
    fn refuse(&mut self, late: Option<Duration>) -> EncodeError {
        self.failed = true;
        self.stdin = None;
        let limit = late.unwrap_or(GONE_SOON);
        let ended = if late.is_some() { None } else { self.child.wait(limit) };
        let exit = ended.unwrap_or_else(|| {
            self.child.kill();
            Exit::TimedOut(limit)
        });
        let refusal = classify(self.spec.id, &self.child.stderr(), exit);
        match exit {
            Exit::Signal(_) => self.error(FailureKind::Died, refusal.reason),
            _ => refusal.into(),
        }
    }

    /// Waits for the next message of the reader. A child that has told of an error since it began
    /// gets the end of its input meanwhile.
    fn next_message(&mut self) -> Result<Message, RecvTimeoutError> {
        let begun = Instant::now();
        loop {
            let left = self.spec.stall.saturating_sub(begun.elapsed());
            match self.units.recv_timeout(left.min(AFTER_ERROR)) {
                Err(RecvTimeoutError::Timeout) if left > AFTER_ERROR => {
                    if self.child.errors() > self.errors {
                        self.stdin = None;
                    }
                }
                other => return other,
            }
        }
    }

    /// Waits for the next access unit; false at the end of the stream.
    fn receive(&mut self) -> Result<bool, EncodeError> {
        match self.next_message() {
            Ok(Message::Begun) => Ok(true),
            Ok(Message::Unit(unit)) => self.accept(unit).map(|()| true),
            Ok(Message::End(Ok(()))) | Err(RecvTimeoutError::Disconnected) => Ok(false),
            Ok(Message::End(Err(what))) => Err(self.fail(FailureKind::WrongOutput, what)),
            Err(RecvTimeoutError::Timeout) => {
                let limit = self.spec.stall.as_secs_f32();
                let owed = self.frames_in - self.order.seen;
                self.child.end(Duration::ZERO);
                let what = format!(
                    "FFmpeg gave no output for {limit} s with {owed} frames inside, and was killed"
                );
                Err(self.fail(FailureKind::Stalled, what))
            }
        }
    }

    fn accept(&mut self, unit: AccessUnit) -> Result<(), EncodeError> {
        let index = match self.order.index(unit.pts_ms, self.rate) {
            Ok(index) if index < self.frames_in => index,
            Ok(index) => {
                let what =
                    format!("an access unit for frame {index} came out before that frame went in");
                return Err(self.fail(FailureKind::WrongOutput, what));
            }
            Err(what) => return Err(self.fail(FailureKind::WrongOutput, what)),
        };
        let dts = self.order.seen - 1;
        self.ready.push_back(EncodedChunk {
            data: unit.data,
            pts: self.base.unwrap_or(0) + index,
            dts,
            keyframe: unit.keyframe,
        });
        Ok(())
    }

    /// Ends the child and makes the error: what went wrong, how it ended, its last words.
    fn fail(&mut self, kind: FailureKind, what: String) -> EncodeError {
        self.failed = true;
        self.stdin = None;
        // Usually it is gone or about to go: its end says more than ours would.
        let ended = self.child.wait(GONE_SOON);
        let kind = match ended {
            // This one was killed because of it.
            _ if kind == FailureKind::Stalled => kind,
            Some(Exit::Signal(_)) => FailureKind::Died,
            Some(Exit::Code(1..)) => FailureKind::Failed,
            _ => kind,
        };
        let exit = ended.unwrap_or_else(|| self.child.kill());
        self.error(kind, explain(self.spec.id, &what, exit, &self.child.stderr()))
    }

    fn error(&self, kind: FailureKind, message: String) -> EncodeError {
        EncodeError::Failed { encoder: self.spec.id, index: self.frames_in, kind, message }
    }

    fn finish(&mut self) -> Result<(), EncodeError> {
        while self.receive()? {}
        let exit = self.child.end(GRACE);
        let stderr = self.child.stderr();
        if exit != Exit::Code(0) {
            return Err(
                self.fail(FailureKind::Failed, "FFmpeg failed at the end of the stream".into())
            );
        }
        if stderr.contains("has not been used for any stream") {
            return Err(self.fail(FailureKind::Failed, "FFmpeg ignored an option".into()));
        }
        if self.order.seen != self.frames_in {
            let (seen, frames) = (self.order.seen, self.frames_in);
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
            self.begin()?;
        }
        self.frames_in += 1;
        while let Ok(message) = self.units.try_recv() {
            match message {
                Message::Begun => {}
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
            return Err(self.error(FailureKind::Failed, "it has failed before".into()));
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

    fn max_delay(&self) -> usize {
        self.spec.max_delay
    }

    fn load(&self) -> Option<LoadProbe> {
        self.spec.load.clone()
    }
}

impl Drop for HostedEncoder {
    fn drop(&mut self) {
        self.stdin = None;
        let exit = if self.child.wait(Duration::ZERO).is_none() {
            self.child.kill()
        } else {
            Exit::Code(0)
        };
        // Its stdout closes with it. One that cannot even be killed keeps its thread.
        if let (Some(reader), true) = (self.reader.take(), exit != Exit::Unknown) {
            let _ = reader.join();
        }
    }
}

/// The message for a failure, with the meaning of FFmpeg's words where they are known.
fn explain(id: EncoderType, what: &str, exit: Exit, stderr: &str) -> String {
    let refusal = classify(id, stderr, exit);
    let said = words(stderr);
    let said = if said.is_empty() { String::new() } else { format!("; its last words: {said}") };
    match refusal.kind {
        RefusalKind::Failed | RefusalKind::Timeout => format!("{what} ({exit}){said}"),
        _ => format!("{what} ({exit}): {} ({}){said}", refusal.reason, refusal.hint),
    }
}

/// A plane as few pieces: whole where rows touch, else row by row.
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
    let mut begun = false;
    let end = loop {
        match stdout.read(&mut buffer) {
            Ok(0) => break Ok(()),
            Ok(n) => {
                if !std::mem::replace(&mut begun, true) && sender.send(Message::Begun).is_err() {
                    return;
                }
                let result = parser.push(buffer.get(..n).unwrap_or_default(), &mut units);
                for unit in units.drain(..) {
                    // Nobody listens any more: the encoder is being dropped.
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

/// Turns presentation times back into frame indices, and sees that each comes once.
#[derive(Debug, Default)]
struct Order {
    first_ms: Option<i64>,
    /// Every index below has been seen.
    complete: u64,
    /// Indices above it that have been seen: as many as the encoder reorders.
    ahead: BTreeSet<u64>,
    /// How many access units there were.
    seen: u64,
}

impl Order {
    /// The index of the frame that is shown at `pts_ms`. The first access unit of a stream is its
    /// first picture.
    fn index(&mut self, pts_ms: i64, (num, den): (i128, i128)) -> Result<u64, String> {
        let first = *self.first_ms.get_or_insert(pts_ms);
        let scaled = i128::from(pts_ms - first) * num;
        let index = (scaled + 500 * den).div_euclid(1000 * den);
        let index = u64::try_from(index).map_err(|_| {
            format!("an access unit is shown {} ms before the first", first - pts_ms)
        })?;
        if index < self.complete || !self.ahead.insert(index) {
            return Err(format!("two access units for frame {index}"));
        }
        while self.ahead.remove(&self.complete) {
            self.complete += 1;
        }
        self.seen += 1;
        Ok(index)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use encoder_core::{FrameBuffer, FrameLayout};

    use super::*;

    #[test]
    fn milliseconds_give_back_every_index_at_every_rate() {
        for (num, den) in [(1, 1), (30, 1), (30000, 1001), (60, 1), (25, 2), (240, 1), (480, 1)] {
            let mut order = Order::default();
            // Two frames of delay, and times rounded as FFmpeg rounds them.
            let ms = |n: i128| ((n * 1000 * den * 2 + num) / (2 * num)) as i64 + 67;
            for group in 0..5_000 {
                let at = group * 4;
                for n in [at, at + 3, at + 1, at + 2] {
                    assert_eq!(order.index(ms(n), (num, den)), Ok(n as u64), "{num}/{den}");
                }
                assert!(order.ahead.is_empty());
            }
            assert_eq!(order.seen, 20_000);
            assert!(order.index(ms(7), (num, den)).unwrap_err().contains("two access units"));
            assert!(order.index(-3_000, (num, den)).unwrap_err().contains("before the first"));
        }
    }

    #[test]
    fn planes_go_out_without_their_padding() {
        for (width, pieces) in [(640, 1), (642, 360)] {
            let layout = FrameLayout::new(PixelFormat::Yuv420p, Resolution::new(width, 360));
            let picture = FrameBuffer::test_picture(layout, 2);
            let frame = picture.frame(0);
            assert_eq!(runs(&frame.planes()[0]).len(), pieces);
            let mut packed = Vec::new();
            frame.append_packed(&mut packed);
            assert_eq!(frame.planes().iter().flat_map(runs).collect::<Vec<_>>().concat(), packed);
        }
    }
}
