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
use encoder_pipeline::{scan::scan, source};
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

fn info(recording: &std::path::Path, json: bool, args: &SourceArgs) -> u8 {
    let scanned = source::open(recording, &args.options())
        .and_then(|s| scan(s, &args.picture(), &args.pictures()));
    match scanned {
        Ok(info) if json => match serde_json::to_string_pretty(&info) {
            Ok(text) => done(writeln!(io::stdout(), "{text}")),
            Err(e) => done(Err(e.into())),
        },
        Ok(info) => done(write!(io::stdout(), "{info}")),
        Err(e) => {
            error!("{e}");
            1
        }
    }
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
