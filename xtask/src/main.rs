//! Work commands: `cargo xtask --help`. One file per duty.

mod corpus;
mod features;
mod process;
mod quality;
mod sample;
mod setup;
mod test;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// Work commands of this workspace.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make FFmpeg and nasm available for the tests. Asks nothing; may be run again.
    Setup,
    /// Set up and run all tests: the workspace, the model tests of the ring, native x264.
    Test {
        /// Arguments for `cargo test --workspace`.
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Build with each backend alone, with none and with all, and compare the registry.
    Features,
    /// Make sample/two_cameras.mcap again.
    Sample,
    /// Measure x264 and OpenH264 against each other: the figures of docs/quality.md.
    Quality {
        /// A video that FFmpeg can read; may be given several times.
        #[arg(long = "clip", value_name = "FILE", required = true)]
        clips: Vec<PathBuf>,
        /// Frames of each clip.
        #[arg(long, default_value_t = 150)]
        frames: u32,
    },
    /// Convert every recording of a folder with known contents, and judge the videos.
    Corpus {
        /// The folder, with its expected.json.
        dir: PathBuf,
        /// The table, in Markdown.
        out: PathBuf,
        /// Only files whose name contains this.
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Setup => setup::setup().map(|_| true),
        Command::Test { args } => test::test(&args),
        Command::Features => features::features(),
        Command::Sample => sample::sample().map(|()| true),
        Command::Quality { clips, frames } => quality::quality(&clips, frames).map(|()| true),
        Command::Corpus { dir, out, only } => corpus::corpus(&dir, &out, only.as_deref()),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
