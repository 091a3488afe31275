//! One run over one recording: every camera topic becomes a video; the recording is read once.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    time::{Duration, Instant},
};

use encoder_core::FrameRate;
use tracing::warn;

use crate::{
    camera::Camera,
    closing::Closings,
    context::Context,
    destination::Destination,
    error::RunError,
    mux::SinkError,
    part::DecodeTask,
    picture::PictureOptions,
    progress::Progress,
    publishers::{Publishers, bytes},
    rate::{GridEnds, GridScope, Plan, RateOptions},
    report::{Exit, Output, Report, SkippedTopic},
    session::{OnBadFrame, SessionConfig},
    source::{Event, Packet, Source, SourceError, StreamId, StreamInfo},
    stop::Stop,
    timeline::{Clock, Timing},
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
    grid: (GridScope, GridEnds),
    threads: usize,
    is_live: bool,
    stop: Option<Stop>,
    label_cameras: bool,
    pictures: BTreeMap<String, PictureOptions>,
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
                grid: Default::default(),
                threads,
                is_live: false,
                stop: None,
                label_cameras: false,
                pictures: BTreeMap::new(),
            },
        }
    }

    /// The name of the recording in the report and in errors.
    pub fn recording(mut self, name: impl Into<String>) -> Self {
        self.options.recording = name.into();
        self
    }

    /// Makes a constant rate from recorded times, by nearest frame. A frame that cannot be decoded
    /// is replaced by the frame before it, also with [`OnBadFrame::Skip`]: each time has a frame.
    pub fn resample(mut self, rate: Option<FrameRate>) -> Self {
        self.options.resample = rate;
        self
    }

    /// The grid of [`resample`](Self::resample): which cameras share it, and where a shared grid
    /// begins and ends.
    pub fn grid(mut self, scope: GridScope, ends: GridEnds) -> Self {
        self.options.grid = (scope, ends);
        self
    }

    /// Threads for decoding and for encoding, all cameras together. They replace the threads of the
    /// session's configuration, and are divided among the cameras.
    pub fn threads(mut self, threads: usize) -> Self {
        self.options.threads = threads;
        self
    }

    /// Whether the recording may be a live stream of pictures (Y4M, raw frames). The rest of a live
    /// stream is not read once no video can be made from it.
    pub fn is_live(mut self, is_live: bool) -> Self {
        self.options.is_live = is_live;
        self
    }

    /// How the pictures of some topics are shown, by topic, instead of as in the session's
    /// configuration.
    pub fn pictures(mut self, pictures: BTreeMap<String, PictureOptions>) -> Self {
        self.options.pictures = pictures;
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
                report.interrupted |= matches!(error, RunError::Stopped { .. });
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
        note(report, finished.warnings);
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
        let (mut source, plan) = match ready {
            Ok(ready) => ready,
            Err(error) => return (destination, Err(error)),
        };
        let mut config = self.session.clone();
        if let Some(stop) = &self.stop {
            config.waiter = stop.waiter().clone();
        }
        if let Some(rate) = self.resample {
            config.timing = Timing::Rate(rate);
            if config.on_bad_frame == OnBadFrame::Skip {
                config.on_bad_frame = OnBadFrame::Repeat;
            }
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
                    numbers: HashMap::new(),
                },
                topics: Vec::new(),
                plan,
                report,
                lossy: false,
            };
            let result = work
                .read(&mut *source)
                .and_then(|()| work.deliver_held())
                .and_then(|()| work.flush());
            work.name_unknown_topics();
            work.end(result.is_ok());
            // The decoders end with the queue, which is dropped here.
            let Work { context, lossy, .. } = work;
            (context.destination, result.map(|()| lossy))
        });
        if result.is_ok() && report.outputs.is_empty() {
            if report.interrupted {
                return (destination, Err(self.stopped()));
            }
            let error = nothing(&report.skipped_topics, &source.other_topics(), &self.recording);
            return (destination, Err(error));
        }
        (destination, result)
    }

    /// Opens the recording and prepares the destination. Also returns the plan of a constant rate,
    /// if it is made from recorded times.
    fn prepare(
        &self,
        destination: &mut dyn Destination,
        open: &dyn Fn() -> Result<Box<dyn Source>, SourceError>,
        report: &mut Report,
    ) -> Result<(Box<dyn Source>, Option<Plan>), RunError> {
        if self.is_stopped() {
            return Err(self.stopped());
        }
        // What a pipe had until the stop may be no recording.
        let open = || match open() {
            Err(_) if self.is_stopped() => Err(self.stopped()),
            opened => opened.map_err(RunError::from),
        };
        let plan = match self.resample {
            Some(rate) => {
                let clock = match self.session.timing {
                    Timing::Recorded(clock) => clock,
                    Timing::Rate(_) | Timing::Numbered(_) => Clock::Header,
                };
                let (scope, ends) = self.grid;
                let picture = &|topic: &str| self.picture(topic);
                let options = RateOptions { rate, clock, scope, ends, picture };
                Some(Plan::read(open()?, &options, || self.is_stopped())?)
            }
            None => None,
        };
        report.grid = plan.as_ref().and_then(|plan| plan.grid.clone());
        let source = open()?;
        note(report, destination.begin()?);
        Ok((source, plan))
    }

    /// How the pictures of a topic are shown.
    fn picture(&self, topic: &str) -> PictureOptions {
        self.pictures.get(topic).copied().unwrap_or(self.session.picture)
    }

    fn stopped(&self) -> RunError {
        RunError::Stopped { recording: self.recording.clone() }
    }

    fn is_stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(Stop::is_set)
    }
}

/// How long a run that failed waits for the ends of the videos that it discards: a sink may hang.
const DISCARD: Duration = Duration::from_secs(10);

/// How many warnings about a recording are listed individually.
const LISTED_WARNINGS: usize = 100;

/// A run in progress. Dropping it before [`end`](Self::end) leaves no file of a video that is not
/// complete.
struct Work<'a> {
    options: &'a Options,
    context: Context<'a>,
    /// The camera topics, by stream.
    topics: Vec<Topic>,
    /// The constant rate, if it is made from recorded times.
    plan: Option<Plan>,
    report: &'a mut Report,
    /// Whether frames may be missing.
    lossy: bool,
}

/// A camera topic.
struct Topic {
    info: StreamInfo,
    picture: PictureOptions,
    publishers: Publishers<Packet>,
    /// The camera of each publisher; at least one.
    cameras: Vec<Camera>,
}

impl Topic {
    /// Adds the camera of the next publisher.
    fn add_camera(&mut self, plan: Option<&mut Plan>) {
        let (n, info) = (self.cameras.len(), self.info.clone());
        let mut camera = match self.publishers.frame_id(n) {
            Some(frame_id) if n > 0 => Camera::of_publisher(info, n, frame_id, self.picture),
            _ => Camera::new(info, self.picture),
        };
        if let Some(plan) = plan {
            camera.resample(plan.take(self.info.id, n));
        }
        self.cameras.push(camera);
    }
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
                Err(error) if self.cameras().any(|camera| camera.messages > 0) => {
                    self.warn(format!("{error}; what came before is kept"), true);
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            };
            self.context.destination.event(&event)?;
            match event {
                Event::Stream(info) => {
                    let mut others = self.topics.iter().map(|topic| &topic.info);
                    if let Some(other) = others.find(|other| other.topic == info.topic) {
                        let text = format!(
                            "{}: the topic has messages of two types, {} and {}; each is a video \
                             of its own",
                            info.topic, other.schema, info.schema
                        );
                        self.warn(text, false);
                    }
                    let picture = self.options.picture(&info.topic);
                    let publishers = Publishers::default();
                    let mut topic = Topic { info, picture, publishers, cameras: Vec::new() };
                    topic.add_camera(self.plan.as_mut());
                    self.topics.push(topic);
                }
                Event::Packet(packet) => {
                    self.push(packet)?;
                    if self.options.is_live && self.is_over() {
                        return Ok(());
                    }
                }
                Event::Warning(warning) => self.warn(warning.text, warning.loss),
                // Only the destination uses this event.
                _ => {}
            }
        }
    }

    /// Whether nothing more can come of a live stream. Sources with a rate have one stream; others
    /// are recordings, in which another camera may follow.
    fn is_over(&self) -> bool {
        let has_rate = |topic: &Topic| topic.info.rate.is_some();
        self.topics.iter().all(has_rate) && self.cameras().all(Camera::has_failed)
    }

    fn cameras(&self) -> impl Iterator<Item = &Camera> {
        self.topics.iter().flat_map(|topic| &topic.cameras)
    }

    fn push(&mut self, mut packet: Packet) -> Result<(), SinkError> {
        let stream = packet.stream;
        if let Some(topic) = self.topics.get_mut(stream) {
            let (number, frame_id) = (packet.number, packet.frame_id.take());
            topic.publishers.push(number, frame_id, bytes(&packet), packet);
        }
        self.deliver(stream)
    }

    /// Passes the messages that were held until the end.
    fn deliver_held(&mut self) -> Result<(), RunError> {
        for stream in 0..self.topics.len() {
            self.topics[stream].publishers.end();
            self.deliver(stream)?;
        }
        Ok(())
    }

    /// Passes the messages of a topic whose publisher is known to its cameras.
    fn deliver(&mut self, stream: StreamId) -> Result<(), SinkError> {
        self.context.config.threads = (self.options.threads / self.cameras().count().max(1)).max(1);
        let Some(topic) = self.topics.get_mut(stream) else { return Ok(()) };
        while let Some((publisher, packet)) = topic.publishers.next() {
            while topic.cameras.len() <= publisher {
                topic.add_camera(self.plan.as_mut());
            }
            topic.cameras[publisher].push(packet, &mut self.context)?;
        }
        let warnings = topic.publishers.warnings();
        let named = warnings.into_iter().map(|text| format!("{}: {text}", topic.info.topic));
        for text in named.collect::<Vec<_>>() {
            self.warn(text, false);
        }
        Ok(())
    }

    /// Adds the frames that the cameras hold back until the next message.
    fn flush(&mut self) -> Result<(), RunError> {
        let Self { topics, context, .. } = self;
        let mut cameras = topics.iter_mut().flat_map(|topic| &mut topic.cameras);
        cameras.try_for_each(|camera| camera.flush(context)).map_err(RunError::from)
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

    /// Warns of topics with settings that the recording does not have.
    fn name_unknown_topics(&mut self) {
        for topic in self.options.pictures.keys() {
            if !self.topics.iter().any(|known| known.info.topic == *topic) {
                let text = format!(
                    "the pictures of the topic {topic} are configured, and the recording has no \
                     camera topic of that name"
                );
                self.warn(text, false);
            }
        }
    }

    /// Ends all cameras. Their rings are closed first, so that the encoders end in parallel. If the
    /// run failed, videos that still accept frames are dropped; videos that were closed before are
    /// complete, and are reported.
    fn end(&mut self, is_whole: bool) {
        let mut discarded = Vec::new();
        for topic in &mut self.topics {
            match is_whole {
                true => topic.cameras.iter_mut().for_each(|c| c.close(&mut self.context)),
                false => discarded.extend(topic.cameras.drain(..).flat_map(|mut c| c.discard())),
            }
        }
        // Their files are gone before the destination is abandoned, and before the program ends.
        let end = Instant::now() + DISCARD;
        for session in discarded {
            if !session.wait_ended(end.saturating_duration_since(Instant::now())) {
                let limit = DISCARD.as_secs();
                self.warn(format!("a video that was given up did not end within {limit} s"), true);
            }
        }
        for ((stream, publisher), mut output) in self.context.closing.finish() {
            let topic = self.topics.get(stream);
            let frame_id = topic.and_then(|topic| topic.publishers.frame_id(publisher));
            output.frame_id = frame_id.map(str::to_owned);
            self.report.outputs.push(output);
        }
        let skipped: Vec<_> = self.cameras().filter_map(Camera::skipped).collect();
        self.report.skipped_topics.extend(skipped);
    }
}

/// Adds warnings about the destination.
fn note(report: &mut Report, warnings: Vec<String>) {
    warnings.iter().for_each(|text| warn!("{text}"));
    report.warnings.extend(warnings);
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
    let repaired = |o: &Output| {
        let video = &o.video;
        video.frames_failed > 0 || video.frames_dropped > 0 || video.times_guessed > 0
    };
    if lossy || !report.skipped_topics.is_empty() || report.outputs.iter().any(repaired) {
        return Exit::Repaired;
    }
    Exit::Done
}
