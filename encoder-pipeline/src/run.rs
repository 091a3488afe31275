//! One run over one recording: every camera topic becomes a video, the recording is read once.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use encoder_core::FrameRate;
use encoder_media::resample;
use tracing::warn;

use crate::{
    camera::{Camera, Context, DecodeTask},
    mux::OutputMode,
    naming::{Format, Names, Target},
    progress::Progress,
    report::{Exit, Output, Report, SkippedTopic},
    session::SessionConfig,
    source::{Event, Packet, Source, SourceError, StreamId},
    stop::Stop,
    timeline::{self, Clock, FrameTimes, Timing},
};

/// What to convert, how, and where to.
pub struct Run {
    /// What the recording is called in the report.
    pub recording: String,
    /// Where the videos go.
    pub target: Target,
    /// What is in them, where the target is a directory.
    pub format: Format,
    /// Replace files that exist.
    pub overwrite: bool,
    /// What an MP4 file is while it is written, and when it is whole.
    pub mode: OutputMode,
    /// Encoder, timing and policies, the same for every camera. `threads` is divided among them.
    pub session: SessionConfig,
    /// Make this constant rate out of recorded times, by nearest frame.
    pub resample: Option<FrameRate>,
    /// Threads for decoding and for encoding, all cameras together.
    pub threads: usize,
    /// Whether the recording is a live stream: nobody reads the rest of it once no video can be made
    /// of it any more.
    pub is_live: bool,
    /// Ends it early, with whole files.
    pub stop: Stop,
    /// Give the metrics of each camera a label with its topic.
    pub label_cameras: bool,
}

impl Run {
    /// Where the report stands: `report.json` in the directory, or beside the file.
    pub fn report_path(&self) -> PathBuf {
        match &self.target {
            Target::Directory(dir) => dir.join("report.json"),
            Target::File(file) => file.with_extension("report.json"),
        }
    }

    /// Converts. `open` opens the recording; with `resample` it is called twice, the first time
    /// to learn the times. Never panics on input; what went wrong is in the report.
    pub fn convert(
        &self,
        open: &dyn Fn() -> Result<Box<dyn Source>, SourceError>,
        progress: &dyn Progress,
    ) -> Report {
        let begun = Instant::now();
        let mut report = Report {
            recording: self.recording.clone(),
            version: env!("CARGO_PKG_VERSION"),
            ..Report::default()
        };
        let lossy = match self.cameras(open, progress, &mut report) {
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

    /// Whether frames may be missing.
    fn cameras(
        &self,
        open: &dyn Fn() -> Result<Box<dyn Source>, SourceError>,
        progress: &dyn Progress,
        report: &mut Report,
    ) -> Result<bool, String> {
        let copies = match self.resample {
            Some(rate) => self.plan_rate(open, rate, report)?,
            None => Vec::new(),
        };
        let mut source = open().map_err(|e| e.to_string())?;
        let directory = self.target.directory();
        std::fs::create_dir_all(directory)
            .map_err(|e| format!("{}: {e}; choose another -o", directory.display()))?;
        let mut config = self.session.clone();
        if let Some(rate) = self.resample {
            config.timing = Timing::Rate(rate);
        }
        // The queue is bounded by the rings: each job holds a slot of one.
        let (decoders, queue) = crossbeam_channel::unbounded::<DecodeTask>();
        let lossy = std::thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                let queue = queue.clone();
                scope.spawn(move || queue.iter().for_each(DecodeTask::run));
            }
            // Dropped at the end of the scope, and with it the decoders' queue.
            let mut work = Work {
                run: self,
                context: Context {
                    config,
                    names: Names::new(self.target.clone(), self.format),
                    overwrite: self.overwrite,
                    mode: self.mode,
                    decoders,
                    progress,
                    keep_encoded_video: self.resample.is_none(),
                    label_cameras: self.label_cameras,
                },
                cameras: Vec::new(),
                copies,
                report,
                lossy: false,
            };
            work.read(&mut *source)?;
            work.finish();
            Ok::<_, String>(work.lossy)
        })?;
        if report.outputs.is_empty() {
            return Err(nothing(&report.skipped_topics, &source.other_topics(), &self.recording));
        }
        Ok(lossy)
    }

    /// Reads the recording's times, and decides for each camera which frames make the rate: by
    /// stream, how often each message is shown.
    fn plan_rate(
        &self,
        open: &dyn Fn() -> Result<Box<dyn Source>, SourceError>,
        rate: FrameRate,
        report: &mut Report,
    ) -> Result<Vec<Vec<u32>>, String> {
        let clock = match self.session.timing {
            Timing::Recorded(clock) => clock,
            Timing::Rate(_) => Clock::Header,
        };
        let mut source = open().map_err(|e| e.to_string())?;
        let mut topics: Vec<(String, Vec<FrameTimes>)> = Vec::new();
        // What goes wrong here goes wrong again, and is told then.
        while !self.stop.is_set()
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
            let copies = resample(&stamps, rate).map_err(|e| format!("{topic}: {e}"))?;
            report.warnings.extend(warnings.into_iter().map(|w| format!("{topic}: {w}")));
            plans.push(copies);
        }
        Ok(plans)
    }
}

/// How many warnings about a recording are listed one by one.
const LISTED_WARNINGS: usize = 100;

/// A run in progress. Dropped before it is finished, it leaves no file.
struct Work<'a> {
    run: &'a Run,
    context: Context<'a>,
    /// The cameras, by stream.
    cameras: Vec<Camera>,
    /// How often each message is shown, by stream, where a constant rate is made.
    copies: Vec<Vec<u32>>,
    report: &'a mut Report,
    /// Frames may be missing.
    lossy: bool,
}

impl Work<'_> {
    fn read(&mut self, source: &mut dyn Source) -> Result<(), String> {
        loop {
            if self.run.stop.is_set() {
                self.report.interrupted = true;
                self.warn("stopped: what was read so far is kept".into(), true);
                return Ok(());
            }
            match source.next_event() {
                Ok(Some(Event::Stream(info))) => {
                    let mut camera = Camera::new(info);
                    camera.copies = self.copies.get_mut(camera.info.id).map(std::mem::take);
                    self.cameras.push(camera);
                }
                Ok(Some(Event::Packet(packet))) => {
                    self.push(packet)?;
                    if self.run.is_live && self.cameras.iter().all(Camera::has_failed) {
                        return Ok(());
                    }
                }
                Ok(Some(Event::Warning(warning))) => self.warn(warning.text, warning.loss),
                // What is no camera's is not asked for.
                Ok(Some(_)) => {}
                // One that was stopped ends like one that is over.
                Ok(None) if self.run.stop.is_set() => {}
                Ok(None) => return Ok(()),
                // What came before it is worth keeping.
                Err(error) if self.cameras.iter().any(|camera| camera.messages > 0) => {
                    self.warn(format!("{error}; what came before is kept"), true);
                    return Ok(());
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    fn push(&mut self, packet: Packet) -> Result<(), String> {
        self.check_single(packet.stream)?;
        self.context.config.threads = (self.run.threads / self.cameras.len().max(1)).max(1);
        if let Some(camera) = self.cameras.get_mut(packet.stream) {
            camera.push(packet, &mut self.context);
        }
        Ok(())
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

    /// One file takes one camera.
    fn check_single(&self, stream: StreamId) -> Result<(), String> {
        let Target::File(file) = &self.run.target else { return Ok(()) };
        let other = self.cameras.iter().find(|c| c.info.id != stream && c.has_output());
        match (other, self.cameras.get(stream)) {
            (Some(first), Some(second)) if !second.has_output() => Err(format!(
                "the recording has more than one camera topic ({}, {}), and -o {} names one file; \
                 choose one with --topic, or give a directory",
                first.info.topic,
                second.info.topic,
                file.display()
            )),
            _ => Ok(()),
        }
    }

    /// Ends all cameras, first their rings, so that the encoders end side by side.
    fn finish(&mut self) {
        for camera in &mut self.cameras {
            camera.close();
        }
        for camera in self.cameras.drain(..) {
            let finished = camera.finish(&self.context);
            self.report.outputs.extend(finished.outputs);
            self.report.skipped_topics.extend(finished.skipped);
        }
    }
}

/// Why there is nothing to convert.
fn nothing(skipped: &[SkippedTopic], others: &[(String, String)], recording: &str) -> String {
    let cameras: Vec<_> =
        skipped.iter().map(|s| format!("{} [{}]: {}", s.topic, s.schema, s.reason)).collect();
    if cameras.is_empty() {
        return SourceError::no_camera(Path::new(recording), others.to_vec()).to_string();
    }
    format!("{recording}: no camera topic could be converted; {}", cameras.join("; "))
}

fn judge(report: &Report, lossy: bool) -> Exit {
    let failed = |o: &Output| o.error.is_some();
    if report.error.is_some() || report.outputs.iter().any(failed) {
        return Exit::Failed;
    }
    let repaired = |o: &Output| o.frames_failed > 0 || o.frames_dropped > 0;
    if lossy || !report.skipped_topics.is_empty() || report.outputs.iter().any(repaired) {
        return Exit::Repaired;
    }
    Exit::Done
}

/// Refuses to write over the result of another run. A run that made no file has left none.
///
/// # Errors
/// In words, with the hint.
pub fn check_free(report: &Path, overwrite: bool) -> Result<(), String> {
    if overwrite || !report.exists() || made_nothing(report) {
        return Ok(());
    }
    Err(format!(
        "{} exists: another run wrote here; give another -o, or --overwrite",
        report.display()
    ))
}

/// Whether this is the report of a run without a single file. What is no report is somebody's.
fn made_nothing(report: &Path) -> bool {
    let text = std::fs::read(report).unwrap_or_default();
    let value: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    let outputs = value.get("outputs").and_then(|outputs| outputs.as_array());
    outputs.is_some_and(|all| all.iter().all(|o| o.get("file").is_some_and(|f| f.is_null())))
}
