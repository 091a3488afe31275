//! `encoder encode`.

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
};

use encoder_core::{OpenError, Plan, Policy, Settings, plan};
use encoder_pipeline::{
    metrics,
    mux::OutputMode,
    naming::{Format, Target},
    progress::{Progress, Silent},
    report::{Exit, Report},
    run::{Run, check_free},
    session::{OnBadFrame, OnFull, SessionConfig},
    source::{self, Source, SourceError},
    timeline::{Clock, Timing},
};
use indicatif::MultiProgress;
use tracing::{error, info};

#[cfg(feature = "prometheus")]
use super::exporter::Exporter;
use super::{
    args::{BadFrameArg, Encode, FormatArg, FullArg, ModeArg, TimeArg},
    bars::Bars,
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
    let targets = targets(&args.recordings, &args.output)?;
    let annexb = |target: &Target| match target {
        Target::File(path) => Format::of(path) == Some(Format::AnnexB),
        Target::Directory(_) => matches!(args.format, FormatArg::Annexb),
    };
    if args.output_mode == ModeArg::Fragmented && targets.iter().any(|(_, target)| annexb(target)) {
        return Err(Refused::usage(
            "--output-mode fragmented is for MP4: a raw H.264 stream has no fragments",
        ));
    }
    // Until the end, however it comes.
    #[cfg(feature = "prometheus")]
    let _exporter = Exporter::start(&args.metrics)?;
    let plan = choose(args, &settings)?;
    plan.announce();
    let threads = args.video.threads();
    let stop = signals::stop().map_err(Refused::failed)?;
    let mut worst = Exit::Done.code();
    let mut left = targets.len();
    for (recording, target) in targets {
        if stop.is_set() {
            error!("stopped: {left} recordings were not begun");
            return Ok(if worst == 0 { Exit::Repaired.code() } else { worst });
        }
        left -= 1;
        let clock = match args.time {
            TimeArg::Header => Clock::Header,
            TimeArg::Log => Clock::Log,
        };
        let session = SessionConfig::new(settings.clone(), plan.clone())
            .with_timing(args.fps.map_or(Timing::Recorded(clock), Timing::Rate))
            .with_on_bad_frame(match args.on_bad_frame {
                BadFrameArg::Repeat => OnBadFrame::Repeat,
                BadFrameArg::Skip => OnBadFrame::Skip,
                BadFrameArg::Fail => OnBadFrame::Fail,
            })
            .with_on_full(match args.on_full {
                FullArg::Block => OnFull::Block,
                FullArg::DropOldest => OnFull::DropOldest,
                FullArg::DropNewest => OnFull::DropNewest,
                FullArg::Error => OnFull::Error,
            })
            .with_picture(args.source.picture())
            .with_waiter(stop.waiter().clone());
        let mut run = Run::new(recording.display().to_string(), target, session, stop.clone());
        run.format = match args.format {
            FormatArg::Mp4 => Format::Mp4,
            FormatArg::Annexb => Format::AnnexB,
        };
        run.overwrite = args.overwrite;
        run.mode = match args.output_mode {
            ModeArg::Progressive => OutputMode::Progressive,
            ModeArg::Fragmented => OutputMode::Fragmented,
        };
        run.resample = args.resample;
        run.threads = threads;
        run.is_live = is_stdin(recording);
        #[cfg(feature = "prometheus")]
        {
            run.label_cameras = args.metrics.metrics_camera;
        }
        let exit = convert(&run, args, recording, bars);
        // A failure outweighs a repair, and a repair a success.
        worst = match (worst, exit) {
            (1, _) | (_, 1) => 1,
            (3, _) | (_, 3) => 3,
            _ => 0,
        };
    }
    Ok(worst)
}

fn is_stdin(recording: &Path) -> bool {
    recording.as_os_str() == "-"
}

/// Converts one recording, writes its report, and tells the user.
fn convert(run: &Run, args: &Encode, recording: &Path, bars: Option<&MultiProgress>) -> u8 {
    let path = run.report_path();
    if let Err(text) = check_free(&path, args.overwrite) {
        error!("{text}");
        return Exit::Failed.code();
    }
    let mut options = args.source.options();
    options.rate = args.fps;
    let open = || -> Result<Box<dyn Source>, SourceError> {
        if is_stdin(recording) {
            return source::open_stdin(args.raw.as_ref(), &options, &run.stop);
        }
        source::open(recording, &options)
    };
    let report = {
        let progress: Box<dyn Progress> = match bars {
            Some(all) => Box::new(Bars::new(all.clone())),
            None => Box::new(Silent),
        };
        run.convert(&open, &*progress)
    };
    tell(&report, run.target.directory());
    match report.save(&path) {
        Ok(()) => report.exit,
        // Where nothing could be made, the directory may be missing too.
        Err(_) if report.error.is_some() => report.exit,
        Err(e) => {
            error!("{}: the report cannot be written: {e}", path.display());
            Exit::Failed.code()
        }
    }
}

fn tell(report: &Report, directory: &Path) {
    for o in &report.outputs {
        if let Some(file) = &o.file {
            info!(
                encoder = o.encoder,
                frames = o.frames_encoded,
                repeated = o.frames_repeated,
                failed = o.frames_failed,
                seconds = o.duration_s,
                "{} → {}",
                o.topic,
                directory.join(file).display()
            );
        }
        if let Some(text) = &o.error {
            error!("{}: {text}", o.topic);
        }
    }
    if let Some(text) = &report.error {
        error!("{text}");
    }
    let files = report.outputs.iter().filter(|o| o.file.is_some());
    let frames: u64 = files.clone().map(|o| o.frames_encoded).sum();
    let failed: u64 = report.outputs.iter().map(|o| o.frames_failed).sum();
    println!(
        "{}: {} videos, {frames} frames{} in {:.1} s",
        report.recording,
        files.count(),
        if failed > 0 { format!(" ({failed} could not be decoded)") } else { String::new() },
        report.elapsed_s
    );
}

/// Each recording with its own place.
fn targets<'a>(
    recordings: &'a [PathBuf],
    output: &Path,
) -> Result<Vec<(&'a Path, Target)>, Refused> {
    if let [one] = recordings {
        return Ok(vec![(one, Target::of(output))]);
    }
    if matches!(Target::of(output), Target::File(_)) {
        return Err(Refused::usage(format!(
            "-o {} names one file, and there are {} recordings; give a directory",
            output.display(),
            recordings.len()
        )));
    }
    let mut taken = std::collections::HashSet::new();
    recordings
        .iter()
        .map(|recording| {
            let stem = recording.file_stem().or(recording.file_name()).unwrap_or_default();
            let dir = output.join(stem);
            if !taken.insert(dir.clone()) {
                return Err(Refused::usage(format!(
                    "two recordings are called {}: convert them one by one",
                    stem.to_string_lossy()
                )));
            }
            Ok((recording.as_path(), Target::Directory(dir)))
        })
        .collect()
}

/// Which encoders to try.
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
