//! The program `encoder`: see `encoder --help`.
//!
//! A program with a backend of its own names the backend's crate and calls [`main`]:
//!
//! ```no_run
//! // use my_backend as _;
//! fn main() -> std::process::ExitCode {
//!     encoder_cli::main()
//! }
//! ```

mod args;
mod bars;
#[cfg(feature = "bench")]
mod bench;
mod detect;
mod encode;
#[cfg(feature = "prometheus")]
mod exporter;
mod hints;
mod options;
mod repair;
mod settings;
mod signals;

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use args::{Cli, Command, LogArg};
use clap::Parser;
use encoder_pipeline::{
    scan::{RecordingInfo, scan},
    source::{self, Recording, SourceError},
    stop::Stop,
};
use indicatif::{MultiProgress, ProgressDrawTarget};
use options::SourceArgs;
use settings::Refused;
use tracing::error;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// Runs the program with the arguments of this process and returns its exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let bars = (!cli.quiet && cli.log == LogArg::Text && io::stderr().is_terminal())
        .then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));
    log(&cli, bars.clone());
    let code = match &cli.command {
        Command::Encode(args) => match encode::encode(args, bars.as_ref()) {
            Ok(code) => code,
            Err(refused) => refuse(&refused),
        },
        #[cfg(feature = "bench")]
        Command::Bench(args) => match bench::bench(args) {
            Ok(code) => code,
            Err(refused) => refuse(&refused),
        },
        Command::Detect { json, encoder, config, probe } => {
            match detect::find(encoder.as_deref(), config.as_deref(), probe) {
                Ok(found) => done(detect::show(&found, *json)),
                Err(refused) => refuse(&refused),
            }
        }
        Command::Repair { files, output, overwrite } => {
            match repair::repair(files, output.as_deref(), *overwrite) {
                Ok(code) => code,
                Err(refused) => refuse(&refused),
            }
        }
        Command::Info { recording, json, source } => info(recording, *json, source),
    };
    ExitCode::from(code)
}

fn refuse(refused: &Refused) -> u8 {
    error!("{}", refused.text);
    refused.code()
}

/// Messages go to standard error, above the bars.
fn log(cli: &Cli, bars: Option<MultiProgress>) {
    let level = match (cli.quiet, cli.verbose) {
        (true, _) => "error",
        (_, 0) => "warn",
        (_, 1) => "info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_env("ENCODER_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(Above(bars));
    match cli.log {
        LogArg::Json => lines.json().init(),
        LogArg::Text if io::stderr().is_terminal() => lines.without_time().init(),
        LogArg::Text => lines.init(),
    }
}

/// The contents of one recording of several.
#[derive(serde::Serialize)]
struct Named<'a> {
    recording: String,
    #[serde(flatten)]
    info: &'a RecordingInfo,
}

fn info(path: &std::path::Path, json: bool, args: &SourceArgs) -> u8 {
    let options = args.options();
    let open = |recording: &Recording| match encode::is_stdin(path) {
        true => {
            let stop = Stop::new().map_err(|error| SourceError::io(path, error))?;
            source::open_stdin(None, &options, &stop)
        }
        false => recording.open(&options),
    };
    let (mut found, mut code) = (Vec::new(), 0);
    for recording in encode::recordings(path, &options) {
        match open(&recording).and_then(|source| scan(source, &args.picture())) {
            Ok(info) => found.push((recording.to_string(), info)),
            Err(e) => {
                error!("{e}");
                code = 1;
            }
        }
    }
    let text = match found.as_slice() {
        [] => return code,
        [(_, info)] if json => serde_json::to_string_pretty(info),
        [(_, info)] => Ok(info.to_string()),
        all if json => {
            let named = all.iter().map(|(name, info)| Named { recording: name.clone(), info });
            serde_json::to_string_pretty(&named.collect::<Vec<_>>())
        }
        all => Ok(all.iter().map(|(name, info)| format!("{name}\n{info}")).collect()),
    };
    let printed = text.map_err(io::Error::from).and_then(|text| {
        let end = if text.ends_with('\n') { "" } else { "\n" };
        write!(io::stdout(), "{text}{end}")
    });
    done(printed).max(code)
}

/// A reader that closed the pipe needs no more output: this is not an error.
fn done(result: io::Result<()>) -> u8 {
    match result {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            error!("{e}");
            1
        }
        _ => 0,
    }
}

/// Writes lines above the bars instead of through them.
struct Above(Option<MultiProgress>);

impl<'a> MakeWriter<'a> for Above {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { bars: self.0.as_ref(), text: Vec::new() }
    }
}

struct Line<'a> {
    bars: Option<&'a MultiProgress>,
    text: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let print = || io::stderr().write_all(&self.text);
        // An error of standard error itself cannot be reported anywhere.
        let _ = match self.bars {
            Some(bars) => bars.suspend(print),
            None => print(),
        };
    }
}
