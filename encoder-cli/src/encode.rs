//! `encoder encode`.

use std::{
    io::{self, IsTerminal},
    path::{Path, PathBuf},
};

use encoder_core::{OpenError, Plan, Policy, Settings, plan};
use encoder_pipeline::{
    destination::FileDestination,
    error::RunError,
    metrics,
    mux::OutputMode,
    naming::{Format, Target, is_directory},
    progress::{Progress, Silent},
    rate::{GridEnds, GridScope},
    report::{Exit, Report, SkipReason, check_free, save_report},
    run::Run,
    scan::span,
    session::{OnBadFrame, OnFull, SessionConfig, SessionError},
    source::{self, Recording, Source, SourceError, SourceOptions},
    stop::Stop,
    text::{self, Count},
    timeline::{Clock, Timing},
};
use indicatif::MultiProgress;
use tracing::{error, info, warn};

#[cfg(feature = "prometheus")]
use super::exporter::Exporter;
use super::{
    args::{BadFrameArg, Encode, FormatArg, FullArg, GridArg, GridEndsArg, ModeArg, TimeArg},
    bars::Bars,
    hints::{Message, of_skipped},
    messages::NOTE,
    option_names::with_options,
    output::Output,
    settings::Refused,
    signals,
};

pub fn encode(
    args: &Encode,
    bars: Option<&MultiProgress>,
    out: &mut Output,
) -> Result<u8, Refused> {
    let mut settings = args.video.settings()?;
    settings.encoder.preset = args.preset.unwrap_or(settings.encoder.preset);
    check(args)?;
    let inputs = inputs(args)?;
    let annexb = |target: &Target| match target {
        Target::File(path) => Format::of(path) == Some(Format::AnnexB),
        Target::Directory(_) => matches!(args.format, Some(FormatArg::Annexb)),
    };
    if args.output_mode == ModeArg::Fragmented && inputs.iter().any(|input| annexb(&input.target)) {
        return Err(Refused::usage(
            "--output-mode fragmented is for MP4: a raw H.264 stream has no fragments",
        ));
    }
    let ready = match prepare(args, &settings) {
        Ok(ready) => ready,
        Err(Unready::Usage(refused)) => return Err(refused),
        Err(Unready::Failed(message, error)) => {
            inputs.iter().for_each(|input| save_failure(input, error()));
            return Err(Refused { usage: false, message });
        }
    };
    let Ready { plan, stop, .. } = &ready;
    plan.announce();
    if let Some(encoder) = plan.software_only {
        info!(
            target: NOTE,
            "software encoding by {encoder}; no hardware encoder here: see `encoder detect`"
        );
    }
    let session = session(args, settings, plan.clone());
    let mut worst = Exit::Done.code();
    let mut not_begun = 0;
    for input in inputs {
        let exit = if stop.is_set() {
            not_begun += 1;
            let name = input.recording.to_string();
            save_failure(&input, RunError::Stopped { recording: name });
            Exit::Failed.code()
        } else {
            convert(args, &session, stop, &input, bars, out)
        };
        // A failure takes precedence over a repair, and a repair over a success.
        worst = match (worst, exit) {
            (1, _) | (_, 1) => 1,
            (3, _) | (_, 3) => 3,
            _ => 0,
        };
    }
    if not_begun > 0 {
        let is = if not_begun == 1 { "was" } else { "were" };
        error!("stopped: {} {is} not begun", Count(not_begun, "recording"));
    }
    Ok(worst)
}

/// Checks what the arguments say about standard input.
fn check(args: &Encode) -> Result<(), Refused> {
    let stdin = args.recordings.iter().filter(|r| is_stdin(r)).count();
    if stdin > 0 && (args.recordings.len() > 1 || args.resample.is_some()) {
        return Err(Refused::usage(
            "standard input can be read once only: no other recording beside it, and no --resample",
        ));
    }
    if let Some(pipe) = args.recordings.iter().find(|r| is_read_once(r))
        && args.resample.is_some()
    {
        return Err(Refused::usage(format!(
            "{} is a pipe, which can be read once only: no --resample",
            pipe.display()
        )));
    }
    if args.raw.is_some() && stdin == 0 {
        return Err(Refused::usage("--raw describes standard input: give `-` as the recording"));
    }
    if stdin > 0 && std::io::stdin().is_terminal() {
        return Err(Refused::usage("standard input is a terminal: pipe frames into it"));
    }
    if args.on_full != FullArg::Block && stdin == 0 {
        return Err(Refused::usage(
            "--on-full is for frames on standard input: a recording waits for the encoder",
        ));
    }
    Ok(())
}

/// What all recordings need.
struct Ready {
    plan: Plan,
    stop: Stop,
    /// Held until the last recording is done, so that the metrics are written on every return.
    #[cfg(feature = "prometheus")]
    _exporter: Option<Exporter>,
}

/// Why nothing can be converted.
enum Unready {
    Usage(Refused),
    /// A message, and the error for the report of each recording.
    Failed(Message, Box<dyn Fn() -> RunError>),
}

fn prepare(args: &Encode, settings: &Settings) -> Result<Ready, Unready> {
    let setup = |message: Message| {
        let text = message.text.clone();
        Unready::Failed(message, Box::new(move || RunError::Setup(text.clone())))
    };
    #[cfg(feature = "prometheus")]
    let exporter = Exporter::start(&args.metrics).map_err(|refused| setup(refused.message))?;
    let plan = choose(args, settings).map_err(|error| match error {
        OpenError::Unknown { .. } | OpenError::Config(_) => Unready::Usage(Refused::usage(error)),
        error => Unready::Failed(
            Message::of_open(&error),
            Box::new(move || SessionError::Open(error.clone()).into()),
        ),
    })?;
    let stop = signals::stop().map_err(|error| setup(Message::new(error)))?;
    Ok(Ready {
        plan,
        stop,
        #[cfg(feature = "prometheus")]
        _exporter: exporter,
    })
}

/// Writes the report of a recording that is not converted.
fn save_failure(input: &Input, error: RunError) {
    // The error itself is reported; where it is written, the report may be impossible too.
    let report = Report::failed(input.recording.to_string(), error);
    let _ = save(&report, &input.target.report_path());
}

/// Writes a report. The report of a run that left no file does not replace that of a run that did,
/// also with `--overwrite`: the files of that run are still there.
fn save(report: &Report, path: &Path) -> io::Result<()> {
    if report.left_nothing() && !path.is_dir() && check_free(path, false).is_err() {
        warn!(
            "{}: still the report of an earlier run, because this run made no file",
            path.display()
        );
        return Ok(());
    }
    save_report(path, &with_options(&text::json(report)?))
}

pub fn is_stdin(recording: &Path) -> bool {
    recording.as_os_str() == "-"
}

/// Whether a recording can be read only once: it is standard input or a pipe.
fn is_read_once(recording: &Path) -> bool {
    is_stdin(recording) || source::is_pipe(recording)
}

/// A recording, and where its videos go.
struct Input {
    recording: Recording,
    /// The path on the command line.
    given: PathBuf,
    target: Target,
}

/// The settings that all cameras of all recordings share.
fn session(args: &Encode, settings: Settings, plan: Plan) -> SessionConfig {
    let clock = match args.time {
        TimeArg::Header => Clock::Header,
        TimeArg::Log => Clock::Log,
    };
    let mut session = SessionConfig::new(settings, plan);
    session.timing = args.fps.map_or(Timing::Recorded(clock), Timing::Rate);
    session.on_bad_frame = match args.on_bad_frame {
        BadFrameArg::Repeat => OnBadFrame::Repeat,
        BadFrameArg::Skip => OnBadFrame::Skip,
        BadFrameArg::Fail => OnBadFrame::Fail,
    };
    session.on_full = match args.on_full {
        FullArg::Block => OnFull::Block,
        FullArg::DropOldest => OnFull::DropOldest,
        FullArg::DropNewest => OnFull::DropNewest,
        FullArg::Error => OnFull::Error,
    };
    session.picture = args.source.picture();
    session
}

/// The output files of a recording.
fn files(args: &Encode, target: &Target) -> FileDestination {
    FileDestination::new(target.clone())
        .format(args.format.map_or(Format::default(), FormatArg::format))
        .mode(match args.output_mode {
            ModeArg::Progressive => OutputMode::Progressive,
            ModeArg::Fragmented => OutputMode::Fragmented,
        })
        .overwrite(args.overwrite)
}

/// Converts one recording, writes its report, and prints a summary. Returns the exit code.
fn convert(
    args: &Encode,
    session: &SessionConfig,
    stop: &Stop,
    Input { recording, given, target }: &Input,
    bars: Option<&MultiProgress>,
    out: &mut Output,
) -> u8 {
    let path = target.report_path();
    if let Err(error) = check_free(&path, args.overwrite) {
        Message::of_sink(error).report();
        return Exit::Failed.code();
    }
    let scope = match args.grid {
        GridArg::Recording => GridScope::Recording,
        GridArg::Camera => GridScope::Camera,
    };
    let ends = match args.grid_ends {
        GridEndsArg::Pad => GridEnds::Pad,
        GridEndsArg::Trim => GridEnds::Trim,
    };
    let run = Run::new(files(args, target), session.clone())
        .recording(recording.to_string())
        .resample(args.resample)
        .grid(scope, ends)
        .threads(args.video.threads())
        .pictures(args.source.pictures())
        .is_live(is_read_once(given))
        .stop(stop.clone());
    #[cfg(feature = "prometheus")]
    let run = run.label_cameras(args.metrics.metrics_camera);
    let mut options = args.source.options();
    options.rate = args.fps;
    options.ffmpeg = session.settings.ffmpeg.path.clone();
    options.stop = Some(stop.clone());
    let open = || -> Result<Box<dyn Source>, SourceError> {
        match is_stdin(given) {
            true => source::open_stdin(args.raw.as_ref(), &options),
            false => recording.open(&options),
        }
    };
    let mut report = {
        let progress: Box<dyn Progress> = match bars {
            Some(all) => Box::new(Bars::new(all.clone())),
            None => Box::new(Silent),
        };
        run.convert(&open, &*progress)
    };
    let is_cut = options.start.is_some() || options.end.is_some();
    if is_cut && has_no_messages(&report) {
        // The recording is read again, for its time span only.
        let is_read_once = is_read_once(given);
        let source = if is_read_once { None } else { uncut(recording, &options) };
        let span = source.and_then(|source| span(source, stop));
        if is_read_once || span.is_some() {
            let recording = report.recording.clone();
            report.error = Some(RunError::OutsideWindow { recording, span });
        }
    }
    summarize(&report, given, out);
    report.relative_to(target.directory());
    match save(&report, &path) {
        Ok(()) => report.exit,
        // The error may be that nothing can be written there.
        Err(_) if report.error.is_some() => report.exit,
        Err(e) => {
            error!("{}: the report cannot be written: {e}", path.display());
            Exit::Failed.code()
        }
    }
}

/// Whether the run failed because no camera has a message.
fn has_no_messages(report: &Report) -> bool {
    match &report.error {
        Some(RunError::NothingConverted { skipped, .. }) => {
            skipped.iter().all(|skipped| skipped.reason == SkipReason::NoMessages)
        }
        _ => false,
    }
}

/// The recording from start to end.
fn uncut(recording: &Recording, options: &SourceOptions) -> Option<Box<dyn Source>> {
    let options = SourceOptions { start: None, end: None, ..options.clone() };
    recording.open(&options).ok()
}

fn summarize(report: &Report, given: &Path, out: &mut Output) {
    for o in &report.outputs {
        if let Some(file) = &o.video.file {
            info!(
                encoder = %o.video.encoder,
                frames = o.video.frames_encoded,
                repeated = o.video.frames_repeated,
                failed = o.video.frames_failed,
                seconds = o.video.duration_s,
                "{} → {file}",
                o.topic,
            );
        }
        if let Some(error) = &o.error {
            Message::of(error, given).about(&o.topic).report();
        }
    }
    if let Some(error) = &report.error {
        Message::of(error, given).report();
    } else {
        for skipped in &report.skipped_topics {
            if let Some(hint) = of_skipped(&skipped.reason) {
                warn!(hint, "{}: the topic was left out", skipped.topic);
            }
        }
    }
    let videos = report.outputs.iter().filter(|o| o.video.file.is_some());
    let frames: u64 = videos.clone().map(|o| o.video.frames_encoded).sum();
    let failed: u64 = report.outputs.iter().map(|o| o.video.frames_failed).sum();
    let videos = videos.count();
    // Without a video there was an error.
    if videos > 0 {
        out.summary(&format!(
            "{}: {}, {}{} in {:.1} s",
            report.recording,
            Count(videos as u64, "video"),
            Count(frames, "frame"),
            if failed > 0 { format!(" ({failed} could not be decoded)") } else { String::new() },
            report.elapsed_s
        ));
    }
}

/// The directory or file of `-o`.
fn target(output: &Path, format: Option<FormatArg>) -> Result<Target, Refused> {
    // Extensions of video files that this program does not write.
    const OTHERS: [&str; 18] = [
        "mkv", "webm", "mov", "m4v", "avi", "ts", "m2ts", "mts", "mpg", "mpeg", "flv", "wmv",
        "ogv", "3gp", "gif", "h265", "265", "hevc",
    ];
    let shown = output.display();
    if output.as_os_str() == "-" {
        return Err(Refused::usage("-o -: videos are not written to standard output")
            .hint("give a file or a directory; ./- is a directory of this name"));
    }
    let target = Target::of(output);
    let extension = output.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    match (&target, format) {
        (Target::File(path), Some(wanted)) if Format::of(path) != Some(wanted.format()) => {
            let name = path.with_extension(wanted.format().extension());
            Err(Refused::usage(format!("-o {shown} is a file of another format than --format"))
                .hint(format!("leave out --format, or give -o {}", name.display())))
        }
        (Target::Directory(path), _) if OTHERS.contains(&&*extension) && !is_directory(path) => {
            Err(Refused::usage(format!(
                "-o {shown}: videos are written as MP4 (.mp4) or raw H.264 (.h264), not as \
                 .{extension}"
            ))
            .hint(format!(
                "give -o {}, and convert it with FFmpeg; for a directory of this name put / behind \
                 it",
                output.with_extension("mp4").display()
            )))
        }
        _ => Ok(target),
    }
}

/// The recordings at a path: a directory may have several. An error is left to the conversion,
/// which reports it.
pub fn recordings(path: &Path, options: &SourceOptions) -> Vec<Recording> {
    let one = || vec![Recording::at(path)];
    match is_stdin(path) {
        true => one(),
        false => source::recordings(path, options).unwrap_or_else(|_| one()),
    }
}

/// Each recording with the target of its videos: of several, each has a directory of its own.
fn inputs(args: &Encode) -> Result<Vec<Input>, Refused> {
    let (output, options) = (&args.output, args.source.options());
    let found: Vec<_> =
        args.recordings.iter().map(|path| (path, recordings(path, &options))).collect();
    let count: usize = found.iter().map(|(_, all)| all.len()).sum();
    let target = target(output, args.format)?;
    if count > 1 && matches!(target, Target::File(_)) {
        return Err(Refused::usage(format!(
            "-o {} names one file, and there are {count} recordings; give a directory",
            output.display()
        )));
    }
    let is_alone = found.len() == 1;
    let mut taken = std::collections::HashSet::new();
    let mut inputs = Vec::new();
    for (path, all) in found {
        let stem = path.file_stem().or(path.file_name()).unwrap_or_default();
        let directory = if is_alone { output.clone() } else { output.join(stem) };
        if !taken.insert(directory.clone()) {
            return Err(Refused::usage(format!(
                "two recordings are called {}: convert them one by one",
                stem.to_string_lossy()
            )));
        }
        let is_only = all.len() == 1;
        for recording in all {
            let target = match (count, is_only) {
                (1, _) => target.clone(),
                (_, true) => Target::Directory(directory.clone()),
                (_, false) => Target::Directory(directory.join(recording.name())),
            };
            inputs.push(Input { recording, given: path.clone(), target });
        }
    }
    Ok(inputs)
}

/// Plans the encoders to try.
fn choose(args: &Encode, settings: &Settings) -> Result<Plan, OpenError> {
    let policy = Policy::new(&settings.gpu, args.encoder.as_deref());
    let found = args.video.probe.detection(settings).for_policy(&policy).run()?;
    plan(&policy, &found).inspect_err(|error| metrics::not_opened(error, None))
}
