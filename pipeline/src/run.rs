//! One run over one recording: every camera topic becomes a video, the recording is read once.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use encoder_core::FrameRate;
use tracing::warn;

use crate::{
    camera::{Camera, Context, Job as Decode},
    naming::{Format, Names, Target},
    progress::Progress,
    report::{Exit, Output, Report, SkippedTopic},
    resample::resample,
    session::SessionConfig,
    source::{Event, Source, SourceError, StreamId},
    timeline::{Clock, FrameTimes, Timeline, Timing},
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
    /// Encoder, timing and policies, the same for every camera. `threads` is divided among them.
    pub session: SessionConfig,
    /// Make this constant rate out of recorded times, by nearest frame.
    pub resample: Option<FrameRate>,
    /// Threads for decoding and for encoding, all cameras together.
    pub jobs: usize,
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
        let mut lossy = false;
        if let Err(error) = self.cameras(open, progress, &mut report, &mut lossy) {
            report.error = Some(error);
        }
        report.exit = judge(&report, lossy).code();
        report.elapsed_s = begun.elapsed().as_secs_f64();
        report
    }

    fn cameras(
        &self,
        open: &dyn Fn() -> Result<Box<dyn Source>, SourceError>,
        progress: &dyn Progress,
        report: &mut Report,
        lossy: &mut bool,
    ) -> Result<(), String> {
        let mut copies = match self.resample {
            Some(rate) => self.plan_rate(open, rate, report)?,
            None => Vec::new(),
        };
        let mut source = open().map_err(|e| e.to_string())?;
        let directory = self.target.directory();
        std::fs::create_dir_all(directory)
            .map_err(|e| format!("{}: {e}; choose another -o", directory.display()))?;
        let mut names = Names::new(self.target.clone(), self.format);
        let mut config = self.session.clone();
        if let Some(rate) = self.resample {
            config.timing = Timing::Rate(rate);
        }
        let (send, receive) = crossbeam_channel::unbounded::<Decode>();
        let mut cameras: Vec<Camera> = Vec::new();
        // The queue is bounded by the rings: each job holds a slot of one.
        let outcome = std::thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                let jobs = receive.clone();
                scope.spawn(move || jobs.iter().for_each(Decode::run));
            }
            let outcome = (|| {
                let mut seen_packets = false;
                loop {
                    let event = match source.next_event() {
                        Ok(Some(event)) => event,
                        Ok(None) => return Ok(()),
                        // What came before it is worth keeping.
                        Err(error) if seen_packets => {
                            *lossy = true;
                            report.warnings.push(format!("{error}; what came before is kept"));
                            return Ok(());
                        }
                        Err(error) => return Err(error.to_string()),
                    };
                    match event {
                        Event::Warning(warning) => {
                            warn!("{}", warning.text);
                            *lossy |= warning.loss;
                            report.warnings.push(warning.text);
                        }
                        Event::Stream(info) => {
                            let mut camera = Camera::new(info);
                            camera.copies = copies.get_mut(camera.info.id).map(std::mem::take);
                            cameras.push(camera);
                        }
                        Event::Packet(packet) => {
                            seen_packets = true;
                            self.single(&cameras, packet.stream)?;
                            config.threads = (self.jobs / cameras.len().max(1)).max(1);
                            let mut context = self.context(&config, &mut names, &send, progress);
                            if let Some(camera) = cameras.get_mut(packet.stream) {
                                camera.push(packet, &mut context);
                            }
                        }
                    }
                }
            })();
            if outcome.is_ok() {
                // Rings close first, all of them, so that the encoders end side by side.
                let context = self.context(&config, &mut names, &send, progress);
                for camera in &mut cameras {
                    camera.close(&context);
                }
                for camera in cameras.drain(..) {
                    let finished = camera.finish(&context);
                    report.outputs.extend(finished.outputs);
                    report.skipped_topics.extend(finished.skipped);
                }
            }
            cameras.clear();
            drop(send);
            outcome
        });
        outcome?;
        if report.outputs.is_empty() {
            return Err(nothing(&report.skipped_topics, &source.other_topics(), &self.recording));
        }
        Ok(())
    }

    fn context<'a>(
        &'a self,
        config: &'a SessionConfig,
        names: &'a mut Names,
        decoders: &'a crossbeam_channel::Sender<Decode>,
        progress: &'a dyn Progress,
    ) -> Context<'a> {
        Context {
            config,
            names,
            overwrite: self.overwrite,
            decoders,
            progress,
            keep_encoded_video: self.resample.is_none(),
        }
    }

    /// One file takes one camera.
    fn single(&self, cameras: &[Camera], stream: StreamId) -> Result<(), String> {
        let Target::File(file) = &self.target else { return Ok(()) };
        let other = cameras.iter().find(|c| c.info.id != stream && c.has_output());
        match (other, cameras.get(stream)) {
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
        while let Ok(Some(event)) = source.next_event() {
            match event {
                Event::Stream(info) => topics.push((info.topic, Vec::new())),
                Event::Packet(packet) => {
                    if let Some((_, times)) = topics.get_mut(packet.stream) {
                        let header_ns = packet.header_ns;
                        times.push(FrameTimes { header_ns, log_ns: packet.log_ns });
                    }
                }
                Event::Warning(_) => {}
            }
        }
        let mut plans = Vec::new();
        for (topic, times) in topics {
            let (stamps, warnings) = Timeline::stamps(clock, &times);
            let copies = resample(&stamps, rate).map_err(|e| format!("{topic}: {e}"))?;
            report.warnings.extend(warnings.into_iter().map(|w| format!("{topic}: {w}")));
            plans.push(copies);
        }
        Ok(plans)
    }
}

/// Why there is nothing to convert.
fn nothing(skipped: &[SkippedTopic], others: &[(String, String)], recording: &str) -> String {
    let cameras: Vec<_> =
        skipped.iter().map(|s| format!("{} [{}]: {}", s.topic, s.schema, s.reason)).collect();
    if cameras.is_empty() {
        let path = PathBuf::from(recording);
        return SourceError::NoCamera { path, topics: others.to_vec() }.to_string();
    }
    format!("{recording}: no camera topic could be converted; {}", cameras.join("; "))
}

fn judge(report: &Report, lossy: bool) -> Exit {
    let failed = |o: &Output| o.error.is_some();
    if report.error.is_some() || report.outputs.iter().any(failed) {
        return Exit::Failed;
    }
    let repaired = |o: &Output| o.frames_failed > 0;
    if lossy || !report.skipped_topics.is_empty() || report.outputs.iter().any(repaired) {
        return Exit::Repaired;
    }
    Exit::Done
}

/// Refuses to write over the result of another run. A run that made no file has left none.
///
/// # Errors
/// In words, with the cure.
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
