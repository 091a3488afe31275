//! `encoder encode`.

use std::{io::IsTerminal, path::Path};

use encoder_core::{OpenError, Plan, Policy, Settings, plan};
use encoder_pipeline::{
    destination::FileDestination,
    metrics,
    mux::OutputMode,
    naming::{Format, Target},
    progress::{Progress, Silent},
    report::{Exit, Report, check_free},
    run::Run,
    session::{OnBadFrame, OnFull, SessionConfig},
    source::{self, Recording, Source, SourceError, SourceOptions},
    stop::Stop,
    timeline::{Clock, Timing},
};
use indicatif::MultiProgress;
use tracing::{error, info, warn};

#[cfg(feature = "prometheus")]
use super::exporter::Exporter;
use super::{
    args::{BadFrameArg, Encode, FormatArg, FullArg, ModeArg, TimeArg},
    bars::Bars,
    hints::{of_skipped, with_hint, with_sink_hint},
    settings::Refused,
    signals,
};

pub fn encode(args: &Encode, bars: Option<&MultiProgress>) -> Result<u8, Refused> {
    let mut settings = args.video.settings()?;
    settings.encoder.preset = args.preset.unwrap_or(settings.encoder.preset);
    let stdin = args.recordings.iter().filter(|r| is_stdin(r)).count();
    if stdin > 0 && (args.recordings.len() > 1 || args.resample.is_some()) {
        return Err(Refused::usage(
            "standard input can be read once only: no other recording beside it, and no --resample",
        ));
    }
    if let Some(pipe) = args.recordings.iter().find(|r| source::is_pipe(r))
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
    let inputs = inputs(args)?;
    let annexb = |target: &Target| match target {
        Target::File(path) => Format::of(path) == Some(Format::AnnexB),
        Target::Directory(_) => matches!(args.format, FormatArg::Annexb),
    };
    if args.output_mode == ModeArg::Fragmented && inputs.iter().any(|input| annexb(&input.target)) {
        return Err(Refused::usage(
            "--output-mode fragmented is for MP4: a raw H.264 stream has no fragments",
        ));
    }
    // Held until the end of this function, so that the metrics are written on every return.
    #[cfg(feature = "prometheus")]
    let _exporter = Exporter::start(&args.metrics)?;
    let plan = choose(args, &settings)?;
    plan.announce();
    let session = session(args, settings, plan);
    let stop = signals::stop().map_err(Refused::failed)?;
    let mut worst = Exit::Done.code();
    let mut left = inputs.len();
    for input in inputs {
        if stop.is_set() {
            error!("stopped: {left} recordings were not begun");
            return Ok(if worst == 0 { Exit::Repaired.code() } else { worst });
        }
        left -= 1;
        let exit = convert(args, &session, &stop, &input, bars);
        // A failure takes precedence over a repair, and a repair over a success.
        worst = match (worst, exit) {
            (1, _) | (_, 1) => 1,
            (3, _) | (_, 3) => 3,
            _ => 0,
        };
    }
    Ok(worst)
}

pub fn is_stdin(recording: &Path) -> bool {
    recording.as_os_str() == "-"
}

/// A recording, and where its videos go.
struct Input {
    recording: Recording,
    is_stdin: bool,
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
        .format(match args.format {
            FormatArg::Mp4 => Format::Mp4,
            FormatArg::Annexb => Format::AnnexB,
        })
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
    Input { recording, is_stdin, target }: &Input,
    bars: Option<&MultiProgress>,
) -> u8 {
    let path = target.report_path();
    if let Err(error) = check_free(&path, args.overwrite) {
        error!("{}", with_sink_hint(error));
        return Exit::Failed.code();
    }
    let run = Run::new(files(args, target), session.clone())
        .recording(recording.to_string())
        .resample(args.resample)
        .threads(args.video.threads())
        .is_live(*is_stdin)
        .stop(stop.clone());
    #[cfg(feature = "prometheus")]
    let run = run.label_cameras(args.metrics.metrics_camera);
    let mut options = args.source.options();
    options.rate = args.fps;
    let open = || -> Result<Box<dyn Source>, SourceError> {
        match is_stdin {
            true => source::open_stdin(args.raw.as_ref(), &options, stop),
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
    summarize(&report);
    report.relative_to(target.directory());
    match report.save(&path) {
        Ok(()) => report.exit,
        // If no video was made, the directory may be missing too.
        Err(_) if report.error.is_some() => report.exit,
        Err(e) => {
            error!("{}: the report cannot be written: {e}", path.display());
            Exit::Failed.code()
        }
    }
}

fn summarize(report: &Report) {
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
            error!("{}: {}", o.topic, with_hint(error));
        }
    }
    for skipped in &report.skipped_topics {
        if let Some(hint) = of_skipped(&skipped.reason) {
            warn!("{}: {hint}", skipped.topic);
        }
    }
    if let Some(error) = &report.error {
        error!("{}", with_hint(error));
    }
    let videos = report.outputs.iter().filter(|o| o.video.file.is_some());
    let frames: u64 = videos.clone().map(|o| o.video.frames_encoded).sum();
    let failed: u64 = report.outputs.iter().map(|o| o.video.frames_failed).sum();
    println!(
        "{}: {} videos, {frames} frames{} in {:.1} s",
        report.recording,
        videos.count(),
        if failed > 0 { format!(" ({failed} could not be decoded)") } else { String::new() },
        report.elapsed_s
    );
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
    if count > 1 && matches!(Target::of(output), Target::File(_)) {
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
                (1, _) => Target::of(output),
                (_, true) => Target::Directory(directory.clone()),
                (_, false) => Target::Directory(directory.join(recording.name())),
            };
            inputs.push(Input { recording, is_stdin: is_stdin(path), target });
        }
    }
    Ok(inputs)
}

/// Plans the encoders to try.
fn choose(args: &Encode, settings: &Settings) -> Result<Plan, Refused> {
    let policy = Policy::new(&settings.gpu, args.encoder.as_deref());
    let found =
        args.video.probe.detection(settings).for_policy(&policy).run().map_err(Refused::usage)?;
    let unknown = |e: &OpenError| matches!(e, OpenError::Unknown { .. });
    plan(&policy, &found).map_err(|error| {
        metrics::not_opened(&error, None);
        Refused { usage: unknown(&error), text: error.to_string() }
    })
}
