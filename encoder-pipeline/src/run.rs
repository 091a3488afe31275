//! One run over one recording: every camera topic becomes a video; the recording is read once.

use std::{path::Path, time::Instant};

use encoder_core::FrameRate;
use encoder_media::resample;
use tracing::warn;

use crate::{
    camera::{Camera, Context, DecodeTask},
    closing::Closings,
    destination::Destination,
    error::RunError,
    mux::SinkError,
    progress::Progress,
    report::{Exit, Output, Report, SkippedTopic},
    session::SessionConfig,
    source::{Event, Packet, Source, SourceError},
    stop::Stop,
    timeline::{self, Clock, FrameTimes, Timing},
};

/// A conversion of one recording, with the destination of the videos and the settings of the
/// encoding.
///
/// ```no_run
/// use encoder_core::{Cache, Detection, Policy, Settings, plan};
/// use encoder_pipeline::{
///     destination::FileDestination, naming::Target, progress::Silent, run::Run,
///     session::SessionConfig, source,
/// };
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let settings = Settings::default();
/// let found = Detection::new(&settings).cache(Cache::of_user()).run()?;
/// let session = SessionConfig::new(settings.clone(), plan(&Policy::new(&settings.gpu, None), &found)?);
/// let files = FileDestination::new(Target::of("videos".as_ref()));
/// let report = Run::new(files, session)
///     .recording("drive.mcap")
///     .convert(&|| source::open("drive.mcap".as_ref(), &Default::default()), &Silent);
/// for error in report.errors() {
///     eprintln!("{}: {error}", error.kind());
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is converted before `convert` is called"]
pub struct Run {
    destination: Box<dyn Destination>,
    options: Options,
}

struct Options {
    recording: String,
    session: SessionConfig,
    resample: Option<FrameRate>,
    threads: usize,
    is_live: bool,
    stop: Option<Stop>,
    label_cameras: bool,
}

impl Run {
    /// A run that writes to `destination`, with `session` for every camera: encoder, timing and
    /// policies. By default it uses one thread for each core, and is not live.
    pub fn new(destination: impl Destination + 'static, session: SessionConfig) -> Self {
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            destination: Box::new(destination),
            options: Options {
                recording: String::new(),
                session,
                resample: None,
                threads,
                is_live: false,
                stop: None,
                label_cameras: false,
            },
        }
    }

    /// The name of the recording in the report and in errors.
    pub fn recording(mut self, name: impl Into<String>) -> Self {
        self.options.recording = name.into();
        self
    }

    /// Makes a constant rate from recorded times, by nearest frame.
    pub fn resample(mut self, rate: Option<FrameRate>) -> Self {
        self.options.resample = rate;
        self
    }

    /// Threads for decoding and for encoding, all cameras together. They replace the threads of the
    /// session's configuration, and are divided among the cameras.
    pub fn threads(mut self, threads: usize) -> Self {
        self.options.threads = threads;
        self
    }

    /// Whether the recording is a live stream. The rest of a live stream is not read once no video
    /// can be made from it.
    pub fn is_live(mut self, is_live: bool) -> Self {
        self.options.is_live = is_live;
        self
    }

    /// Ends the run early, with complete videos.
    pub fn stop(mut self, stop: Stop) -> Self {
        self.options.stop = Some(stop);
        self
    }

    /// Whether the metrics of each camera have a label with its topic.
    pub fn label_cameras(mut self, label_cameras: bool) -> Self {
        self.options.label_cameras = label_cameras;
        self
    }

    /// Converts the recording. `open` opens it; with [`resample`](Self::resample) it is called
    /// twice, the first time to read the times. Never panics on input; errors are in the report.
    pub fn convert(
        self,
        open: &dyn Fn() -> Result<Box<dyn Source>, SourceError>,
        progress: &dyn Progress,
    ) -> Report {
        let Self { destination, options } = self;
        let begun = Instant::now();
        let mut report = Report {
            recording: options.recording.clone(),
            version: env!("CARGO_PKG_VERSION"),
            ..Report::default()
        };
        let lossy = match options.convert(destination, open, progress, &mut report) {
            Ok(lossy) => lossy,
            Err(error) => {
                report.error = Some(error);
                true
            }
        };
        report.exit = judge(&report, lossy).code();
        report.elapsed_s = begun.elapsed().as_secs_f64();
        report
    }
}

impl Options {
    /// Returns whether frames may be missing.
    fn convert(
        &self,
        destination: Box<dyn Destination>,
        open: &dyn Fn() -> Result<Box<dyn Source>, SourceError>,
        progress: &dyn Progress,
        report: &mut Report,
    ) -> Result<bool, RunError> {
        let (destination, result) = self.cameras(destination, open, progress, report);
        let is_made = |output: &Output| output.error.is_none();
        if result.is_err() || !report.outputs.iter().any(is_made) {
            destination.abandon();
            return result;
        }
        let finished = destination.finish()?;
        report.destination = finished.location;
        finished.warnings.iter().for_each(|text| warn!("{text}"));
        report.warnings.extend(finished.warnings);
        result
    }

    /// Makes the videos. Returns the destination, to be finished or abandoned.
    fn cameras(
        &self,
        mut destination: Box<dyn Destination>,
        open: &dyn Fn() -> Result<Box<dyn Source>, SourceError>,
        progress: &dyn Progress,
        report: &mut Report,
    ) -> (Box<dyn Destination>, Result<bool, RunError>) {
        let ready = self.prepare(&mut *destination, open, report);
        let (mut source, copies) = match ready {
            Ok(ready) => ready,
            Err(error) => return (destination, Err(error)),
        };
        let mut config = self.session.clone();
        if let Some(stop) = &self.stop {
            config.waiter = stop.waiter().clone();
        }
        if let Some(rate) = self.resample {
            config.timing = Timing::Rate(rate);
        }
        // The queue is bounded by the rings: each task holds a slot of a ring.
        let (decoders, queue) = crossbeam_channel::unbounded::<DecodeTask>();
        let (destination, result) = std::thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                let queue = queue.clone();
                scope.spawn(move || queue.iter().for_each(DecodeTask::run));
            }
            let mut work = Work {
                options: self,
                context: Context {
                    config,
                    destination,
                    decoders,
                    progress,
                    keep_encoded_video: self.resample.is_none(),
                    label_cameras: self.label_cameras,
                    closing: Closings::default(),
                    idle: 0,
                },
                cameras: Vec::new(),
                copies,
                report,
                lossy: false,
            };
            let result = work.read(&mut *source);
            work.end(result.is_ok());
            // The decoders end with the queue, which is dropped here.
            let Work { context, lossy, .. } = work;
            (context.destination, result.map(|()| lossy))
        });
        if result.is_ok() && report.outputs.is_empty() {
            let error = nothing(&report.skipped_topics, &source.other_topics(), &self.recording);
            return (destination, Err(error));
        }
        (destination, result)
    }

    /// Opens the recording and prepares the destination. Also returns, by stream, how often each
    /// message is repeated, if a constant rate is made.
    fn prepare(
        &self,
        destination: &mut dyn Destination,
        open: &dyn Fn() -> Result<Box<dyn Source>, SourceError>,
        report: &mut Report,
    ) -> Result<(Box<dyn Source>, Vec<Vec<u32>>), RunError> {
        let copies = match self.resample {
            Some(rate) => self.plan_rate(open, rate, report)?,
            None => Vec::new(),
        };
        let source = open()?;
        destination.begin()?;
        Ok((source, copies))
    }

    /// Reads the recording's times, and determines for each camera which frames make the constant
    /// rate. Returns, by stream, how often each message is repeated.
    fn plan_rate(
        &self,
        open: &dyn Fn() -> Result<Box<dyn Source>, SourceError>,
        rate: FrameRate,
        report: &mut Report,
    ) -> Result<Vec<Vec<u32>>, RunError> {
        let clock = match self.session.timing {
            Timing::Recorded(clock) => clock,
            Timing::Rate(_) | Timing::Numbered(_) => Clock::Header,
        };
        let mut source = open()?;
        let mut topics: Vec<(String, Vec<FrameTimes>)> = Vec::new();
        // The second pass encounters the same error, and reports it.
        while !self.is_stopped()
            && let Ok(Some(event)) = source.next_event()
        {
            match event {
                Event::Stream(info) => topics.push((info.topic, Vec::new())),
                Event::Packet(packet) => {
                    if let Some((_, times)) = topics.get_mut(packet.stream) {
                        let header_ns = packet.header_ns;
                        times.push(FrameTimes { header_ns, log_ns: packet.log_ns });
                    }
                }
                _ => {}
            }
        }
        let mut plans = Vec::new();
        for (topic, times) in topics {
            let (stamps, warnings) = timeline::stamps(clock, &times);
            let copies = match resample(&stamps, rate) {
                Ok(copies) => copies,
                Err(error) => return Err(RunError::Resample { topic, error }),
            };
            report.warnings.extend(warnings.into_iter().map(|w| format!("{topic}: {w}")));
            plans.push(copies);
        }
        Ok(plans)
    }

    fn is_stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(Stop::is_set)
    }
}

/// How many warnings about a recording are listed individually.
const LISTED_WARNINGS: usize = 100;

/// A run in progress. Dropping it before [`end`](Self::end) leaves no file of a video that is not
/// complete.
struct Work<'a> {
    options: &'a Options,
    context: Context<'a>,
    /// The cameras, by stream.
    cameras: Vec<Camera>,
    /// How often each message is repeated, by stream, if a constant rate is made.
    copies: Vec<Vec<u32>>,
    report: &'a mut Report,
    /// Whether frames may be missing.
    lossy: bool,
}

impl Work<'_> {
    fn read(&mut self, source: &mut dyn Source) -> Result<(), RunError> {
        loop {
            if self.options.is_stopped() {
                self.report.interrupted = true;
                self.warn("stopped: what was read so far is kept".into(), true);
                return Ok(());
            }
            let event = match source.next_event() {
                Ok(Some(event)) => event,
                // A source that was stopped ends like a complete recording.
                Ok(None) if self.options.is_stopped() => continue,
                Ok(None) => return Ok(()),
                // Frames that were read before the error become videos.
                Err(error) if self.cameras.iter().any(|camera| camera.messages > 0) => {
                    self.warn(format!("{error}; what came before is kept"), true);
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            };
            self.context.destination.event(&event)?;
            match event {
                Event::Stream(info) => {
                    let mut others = self.cameras.iter().map(|camera| &camera.info);
                    if let Some(other) = others.find(|other| other.topic == info.topic) {
                        let text = format!(
                            "{}: the topic has messages of two types, {} and {}; each is a video \
                             of its own",
                            info.topic, other.schema, info.schema
                        );
                        self.warn(text, false);
                    }
                    let mut camera = Camera::new(info);
                    camera.copies = self.copies.get_mut(camera.info.id).map(std::mem::take);
                    self.cameras.push(camera);
                }
                Event::Packet(packet) => {
                    self.push(packet)?;
                    if self.options.is_live && self.cameras.iter().all(Camera::has_failed) {
                        return Ok(());
                    }
                }
                Event::Warning(warning) => self.warn(warning.text, warning.loss),
                // Only the destination uses this event.
                _ => {}
            }
        }
    }

    fn push(&mut self, packet: Packet) -> Result<(), SinkError> {
        self.context.config.threads = (self.options.threads / self.cameras.len().max(1)).max(1);
        match self.cameras.get_mut(packet.stream) {
            Some(camera) => camera.push(packet, &mut self.context),
            None => Ok(()),
        }
    }

    fn warn(&mut self, text: String, loss: bool) {
        warn!("{text}");
        self.lossy |= loss;
        match self.report.warnings.len() {
            n if n < LISTED_WARNINGS => self.report.warnings.push(text),
            n if n == LISTED_WARNINGS => self.report.warnings.push("more are not listed".into()),
            _ => {}
        }
    }

    /// Ends all cameras. Their rings are closed first, so that the encoders end in parallel. If the
    /// run failed, videos that still accept frames are dropped; videos that were closed before are
    /// complete, and are reported.
    fn end(&mut self, is_whole: bool) {
        if is_whole {
            for camera in &mut self.cameras {
                camera.close(&mut self.context);
            }
        } else {
            self.cameras.clear();
        }
        self.report.outputs = self.context.closing.finish();
        self.report.skipped_topics.extend(self.cameras.iter().filter_map(Camera::skipped));
    }
}

/// Why no topic of the recording can be converted.
fn nothing(skipped: &[SkippedTopic], others: &[(String, String)], recording: &str) -> RunError {
    if skipped.is_empty() {
        return SourceError::no_camera(Path::new(recording), others.to_vec()).into();
    }
    RunError::NothingConverted { recording: recording.into(), skipped: skipped.to_vec() }
}

fn judge(report: &Report, lossy: bool) -> Exit {
    if report.errors().next().is_some() {
        return Exit::Failed;
    }
    let repaired = |o: &Output| o.video.frames_failed > 0 || o.video.frames_dropped > 0;
    if lossy || !report.skipped_topics.is_empty() || report.outputs.iter().any(repaired) {
        return Exit::Repaired;
    }
    Exit::Done
}
