//! `encoder bench`: every encoder that works here, at several presets, measured on this machine.
//!
//! Each measurement runs in its own process, this program with `--case`, so that CPU time and
//! memory are those of the measurement alone. Measurements that are compared alternate, round by
//! round, and ratios are computed within a round.

mod args;
mod case;
mod frames;
mod page;
mod presets;
mod quality;
mod result;
mod spec;
mod usage;

use std::{
    fmt, fs,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::Command,
};

use args::BaselineArg;
pub use args::Bench;
use case::Measured;
use encoder_core::{Detected, OpenError, Presets};
use encoder_ffmpeg::process::{self, Input};
use frames::Frames;
use quality::Judge;
use result::{Results, Rounds, Row};
use spec::{Case, Mode};
use tracing::{error, warn};

use crate::{option_names::with_options, output::Output, settings::Refused};

pub fn bench(args: &Bench, out: &mut Output) -> Result<u8, Refused> {
    if let Some(case) = &args.case {
        return case::run(args, case, out);
    }
    for path in args.json.iter().chain(&args.html) {
        if path.exists() && !args.overwrite {
            let what = format!("{} exists: name another file, or --overwrite", path.display());
            return Err(Refused::failed(what));
        }
    }
    let settings = args.video.settings()?;
    let found = args.video.probe.detection(&settings).run().map_err(Refused::usage)?;
    presets::check(args)?;
    let (rows, mut is_whole) = rows(args, &found)?;
    let frames = Frames::load(args)?;
    let bench = Work { args, frames, folder: tempfile::tempdir().map_err(Refused::failed)? };
    let results = bench.results(rows, &found)?;
    is_whole &= results.rows.iter().all(|row| row.error.is_none());
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&results).map_err(Refused::failed)?;
        save(path, &text)?;
    }
    if let Some(path) = &args.html {
        save(path, &page::page(&results))?;
    }
    out.print(&Shown(&results).to_string());
    Ok(if is_whole { 0 } else { 1 })
}

/// The rows to measure, and whether all requested encoders work.
fn rows(args: &Bench, found: &[Detected]) -> Result<(Vec<Row>, bool), Refused> {
    let names: Vec<&str> = found.iter().map(|detected| detected.encoder.as_str()).collect();
    if let Some(unknown) = args.encoder.iter().find(|name| !names.contains(&name.as_str())) {
        let available = found.iter().map(|detected| detected.encoder).collect();
        return Err(Refused::usage(OpenError::Unknown { wanted: unknown.clone(), available }));
    }
    let mut is_whole = true;
    let mut rows = Vec::new();
    for detected in found {
        let name = detected.encoder.to_string();
        if !args.encoder.is_empty() && !args.encoder.contains(&name) {
            continue;
        }
        if let encoder_core::ProbeResult::Refused(refusal) = &detected.result {
            // If the user named the encoder, its refusal is an error; otherwise the results list
            // it.
            if !args.encoder.is_empty() {
                error!("{refusal}");
                is_whole = false;
            }
            continue;
        }
        let known = presets::backend(&name).map_or(Presets::NONE, |backend| backend.presets);
        for preset in presets::wanted(args, &known) {
            let row = Row {
                encoder: name.clone(),
                preset,
                hardware: detected.hardware,
                ..Row::default()
            };
            rows.push(row);
        }
    }
    if rows.is_empty() {
        return Err(Refused::failed("there is no encoder to measure; `encoder detect` shows why"));
    }
    Ok((rows, is_whole))
}

struct Work<'a> {
    args: &'a Bench,
    frames: Frames,
    folder: tempfile::TempDir,
}

impl Work<'_> {
    fn results(&self, mut rows: Vec<Row>, found: &[Detected]) -> Result<Results, Refused> {
        let (args, frames) = (self.args, &self.frames);
        let mut notes = Vec::new();
        let original = self.folder.path().join("original.yuv");
        let ffmpeg = args.video.settings()?.ffmpeg.path;
        let judge = Judge::new(ffmpeg.as_deref()).and_then(|judge| {
            case::reference(frames, &original)?;
            Ok(judge)
        });
        if let Err(reason) = &judge {
            notes.push(format!("Quality was not measured: {reason}."));
        }
        let mut has_baseline = args.baseline == Some(BaselineArg::Ffmpeg);
        if has_baseline && frames.for_ffmpeg().is_none() {
            notes.push(
                "The plain ffmpeg was not measured: these frames are none that can be \
                        written to it as they are (RGB, BGR, grey, I420, JPEG)."
                    .into(),
            );
            has_baseline = false;
        }
        let count = rows.len();
        for (n, row) in rows.iter_mut().enumerate() {
            let bar = format!("{} {} ({} of {count})", row.encoder, row.preset, n + 1);
            if let Err(error) = self.row(row, &judge, &original, has_baseline, &bar) {
                warn!("{} {}: {error}", row.encoder, row.preset);
                row.error = Some(error);
            }
        }
        progress("");
        result::mark_front(&mut rows);
        let mut refused = result::absent(found);
        let measured =
            |detected: &Detected| rows.iter().any(|row| row.encoder == detected.encoder.as_str());
        let has_other = found.iter().any(|detected| {
            detected.hardware && detected.result.is_usable() && !measured(detected)
        });
        let answer = result::answer(&rows, &refused, has_other);
        refused
            .retain(|detected| args.encoder.is_empty() || args.encoder.contains(&detected.encoder));
        notes.push(
            "CPU ms: user and system time of all processes, for each frame of each camera. \
                    × alone: that, against the encoder alone on frames that are ready for it. \
                    p50, p99: from a frame at the pace of the camera to its access unit. \
                    MiB: on top of the frames. *: nothing else is faster, smaller and better at \
                    once."
                .into(),
        );
        Ok(Results {
            version: env!("CARGO_PKG_VERSION"),
            machine: machine(),
            clip: frames.name.clone(),
            size: [frames.size.width, frames.size.height],
            frames: frames.payloads.len(),
            cameras: args.cameras.into(),
            threads: args.video.threads(),
            rounds: args.rounds.into(),
            answer,
            rows,
            refused,
            notes,
        })
    }

    fn row(
        &self,
        row: &mut Row,
        judge: &Result<Judge, String>,
        original: &Path,
        has_baseline: bool,
        bar: &str,
    ) -> Result<(), String> {
        let mut rounds = Rounds::default();
        let (mut quality, mut plain) = (None, None);
        let compare = |file: PathBuf| {
            judge.as_ref().ok().map(|judge| judge.compare(&file, original, self.frames.size))
        };
        for round in 1..=self.args.rounds {
            progress(&format!("{bar}, round {round} of {}", self.args.rounds));
            let (whole, folder) = self.measure(row, Mode::Whole)?;
            rounds.whole.push(whole);
            if round == 1 {
                quality = compare(video(folder.path())?);
            }
            rounds.alone.push(self.measure(row, Mode::Alone)?.0);
            if has_baseline {
                let (measured, folder) = self.measure(row, Mode::Ffmpeg)?;
                rounds.ffmpeg.push(measured);
                if round == 1 {
                    plain = compare(video(folder.path())?);
                }
            }
        }
        progress(&format!("{bar}, latency"));
        row.latency_ms = self.measure(row, Mode::Live)?.0.latency_ms;
        let seconds = self.frames.payloads.len() as f64 / self.frames.rate.as_f64();
        rounds.judge(row, self.frames.raw_bytes(), seconds, self.args.cameras.into());
        row.quality = quality.transpose()?;
        if let Some(ffmpeg) = &mut row.ffmpeg {
            ffmpeg.quality = plain.transpose()?;
        }
        Ok(())
    }

    /// One measurement, with the folder of its files.
    fn measure(&self, row: &Row, mode: Mode) -> Result<(Measured, tempfile::TempDir), String> {
        let folder = tempfile::tempdir_in(self.folder.path()).map_err(|e| e.to_string())?;
        let (encoder, preset) = (row.encoder.clone(), row.preset.clone());
        let case = Case { mode, encoder, preset, folder: folder.path().into() };
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.args(std::env::args_os().skip(1)).args(["--case", &case.to_string()]);
        let output =
            process::run(command, Input::Empty, case::LIMIT).map_err(|error| error.to_string())?;
        if !output.exit.is_success() {
            return Err(match output.stderr.trim().lines().last() {
                Some(line) => line.to_owned(),
                None => format!("the measurement ended with {}", output.exit),
            });
        }
        let measured = serde_json::from_slice(&output.stdout);
        Ok((measured.map_err(|error| format!("the measurement has no result: {error}"))?, folder))
    }
}

/// The first video in a folder.
fn video(folder: &Path) -> Result<PathBuf, String> {
    let entries = fs::read_dir(folder).map_err(|error| error.to_string())?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let is_video = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "mp4");
    files.into_iter().find(is_video).ok_or_else(|| "there is no video".into())
}

/// Shows the progress, on a terminal.
fn progress(text: &str) {
    if io::stderr().is_terminal() {
        let _ = write!(io::stderr(), "\r\x1b[K{text}");
    }
}

fn save(path: &Path, text: &str) -> Result<(), Refused> {
    fs::write(path, &*with_options(text))
        .map_err(|error| Refused::failed(format!("{}: {error}", path.display())))
}

/// The results as text.
struct Shown<'a>(&'a Results);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let results = self.0;
        let [width, height] = results.size;
        let (frames, cameras, threads) = (results.frames, results.cameras, results.threads);
        writeln!(
            out,
            "{}; {width}x{height}, {frames} frames, {cameras} at once, {threads} threads; \
                   medians of {}; {}\n",
            results.clip, results.rounds, results.machine
        )?;
        write!(out, "{}", results.table())?;
        for absent in &results.refused {
            writeln!(
                out,
                "{}: does not work here: {} ({})",
                absent.encoder, absent.reason, absent.hint
            )?;
        }
        for text in results.notes.iter().rev().chain([&results.answer]) {
            writeln!(out, "\n{text}")?;
        }
        Ok(())
    }
}

/// The processor and its cores.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    format!("{}, {cores} cores", model.unwrap_or(std::env::consts::ARCH))
}
