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
mod messages;
mod option_names;
mod options;
mod output;
mod repair;
mod settings;
mod signals;

use std::{
    io::{self, IsTerminal},
    path::Path,
    process::ExitCode,
};

use args::{Cli, Command, LogArg};
use clap::Parser;
use encoder_pipeline::{
    error::RunError,
    scan::{RecordingInfo, scan},
    source::{self, Recording},
    text,
};
use hints::Message;
use indicatif::{MultiProgress, ProgressDrawTarget};
use options::SourceArgs;
use output::Output;
use settings::Refused;

/// Runs the program with the arguments of this process and returns its exit code.
pub fn main() -> ExitCode {
    if let Some(code) = encoder_core::run_as_helper() {
        return code;
    }
    if let Ok(program) = encoder_core::own_program() {
        encoder_core::set_helper(program);
    }
    let cli = Cli::parse();
    let bars = (!cli.quiet && cli.log != LogArg::Json && io::stderr().is_terminal())
        .then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));
    messages::begin(cli.log, cli.quiet, cli.verbose, bars.clone());
    let mut out = Output::new(cli.quiet);
    let code = run(&cli.command, bars.as_ref(), &mut out).unwrap_or_else(|refused| {
        refused.message.report();
        refused.code()
    });
    ExitCode::from(out.end(code))
}

fn run(command: &Command, bars: Option<&MultiProgress>, out: &mut Output) -> Result<u8, Refused> {
    match command {
        Command::Encode(args) => encode::encode(args, bars, out),
        #[cfg(feature = "bench")]
        Command::Bench(args) => bench::bench(args, out),
        Command::Detect { json, encoder, config, probe } => {
            let found = detect::find(encoder.as_deref(), config.as_deref(), probe)?;
            out.print(&match json {
                true => format!("{}\n", text::json(&found).map_err(Refused::failed)?),
                false => detect::Table(&found).to_string(),
            });
            Ok(0)
        }
        Command::Repair { files, output, overwrite } => {
            repair::repair(files, output.as_deref(), *overwrite, out)
        }
        Command::Info { recording, json, source } => info(recording, *json, source, out),
    }
}

/// A recording of a directory: what is in it, or why it cannot be read.
#[derive(serde::Serialize)]
struct Entry {
    recording: String,
    #[serde(flatten)]
    info: Option<RecordingInfo>,
    #[serde(flatten)]
    error: Option<RunError>,
}

/// Shows a recording, or the list of all recordings in a directory.
fn info(path: &Path, json: bool, args: &SourceArgs, out: &mut Output) -> Result<u8, Refused> {
    let options = args.options();
    let open = |recording: &Recording| match encode::is_stdin(path) {
        true => source::open_stdin(None, &options),
        false => recording.open(&options),
    };
    let recordings = encode::recordings(path, &options);
    let is_list = recordings.iter().any(Recording::is_in_directory);
    let (mut entries, mut code) = (Vec::new(), 0);
    for recording in recordings {
        let found = open(&recording).and_then(|s| scan(s, &args.picture(), &args.pictures()));
        let (info, error) = match found {
            Ok(info) => (Some(info), None),
            Err(error) => {
                let error = RunError::from(error);
                Message::of(&error, path).report();
                code = 1;
                (None, Some(error))
            }
        };
        entries.push(Entry { recording: recording.to_string(), info, error });
    }
    let mut infos =
        entries.iter().filter_map(|entry| Some((&entry.recording, entry.info.as_ref()?)));
    let text = match (is_list, json) {
        (true, true) => text::json(&entries),
        (true, false) => Ok(infos.map(|(name, info)| format!("{name}\n{info}")).collect()),
        (false, json) => match infos.next() {
            None => return Ok(code),
            Some((_, info)) if json => text::json(info),
            Some((_, info)) => Ok(info.to_string()),
        },
    };
    let text = text.map_err(Refused::failed)?;
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    out.print(&format!("{text}{end}"));
    Ok(code)
}
