//! Work commands: `cargo xtask --help`. One file per duty.

mod apt;
mod corpus;
mod deny;
mod dist;
mod faults;
mod fuzz;
mod headers;
mod instructions;
mod licences;
mod macos;
mod matrix;
mod neighbours;
mod package;
mod process;
mod program;
mod pypi;
mod quality;
mod sample;
mod semver;
mod setup;
mod tally;
mod test;
mod tool;
mod workspace;

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
    /// Make FFmpeg, players, headers and nasm available for the tests. Asks nothing; may be run again.
    Setup,
    /// Set up and run all tests: the workspace, the model tests of the ring, native x264.
    Test {
        /// Arguments for `cargo test --workspace`.
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Build and test each backend alone and the usual combinations; check the types for macOS.
    TestMatrix {
        /// Only what has this backend in it.
        #[arg(long, value_name = "NAME")]
        backend: Option<String>,
        /// Without the pairs, and the tests that `cargo xtask test` runs too.
        #[arg(long)]
        quick: bool,
    },
    /// Lose the encoder in every way, at every moment: the whole campaign, and its table.
    Faults {
        /// Only this fault; full: all of them.
        #[arg(long, value_name = "NAME", default_value = "full")]
        #[arg(value_parser = faults::NAMES)]
        fault: String,
    },
    /// Push frames at full speed for minutes, and watch the memory.
    Soak {
        /// How long.
        #[arg(long, default_value_t = 30)]
        minutes: u32,
        /// The encoder.
        #[arg(long, default_value = "openh264")]
        encoder: String,
    },
    /// Run the fuzz targets, with nightly Rust and cargo-fuzz.
    Fuzz {
        /// How long each target runs.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1440))]
        minutes: u32,
        /// Only this one.
        #[arg(long, value_name = "NAME")]
        target: Option<String>,
    },
    /// Make the seeds of the fuzz targets again.
    Seeds,
    /// Check licences, bans, sources and advisories of the dependencies against deny.toml.
    Deny,
    /// Resolve programs that depend on these crates beside common crates, and check that they link no
    /// native library without a feature and are built of few packages.
    Neighbours,
    /// Make a platform's archive, with its licences and checksum, in target/dist.
    Dist {
        /// What it is for.
        platform: dist::Platform,
    },
    /// Package every crate that is to be published, and check them from their packages alone.
    Package {
        /// Let Cargo build each package by itself too, as it does before it publishes: minutes.
        #[arg(long)]
        build: bool,
    },
    /// Compare the public API of every published crate with that of the last release, by
    /// cargo-semver-checks.
    Semver {
        /// A revision to compare with, in place of the last tag `v…`.
        #[arg(long, value_name = "REV")]
        baseline_rev: Option<String>,
        /// A folder with another checkout to compare with.
        #[arg(long, value_name = "DIR", conflicts_with = "baseline_rev")]
        baseline_root: Option<PathBuf>,
    },
    /// Count the instructions of what stands around the encoder; fails where a count has grown
    /// over what benches/instructions.json has.
    Instructions {
        /// Record the counts instead.
        #[arg(long)]
        save: bool,
    },
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
        /// Preset of both.
        #[arg(long, default_value = "veryfast")]
        preset: String,
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
        Command::TestMatrix { backend, quick } => matrix::matrix(backend.as_deref(), quick),
        Command::Faults { fault } => faults::faults(&fault),
        Command::Soak { minutes, encoder } => faults::soak(minutes, &encoder),
        Command::Fuzz { minutes, target } => fuzz::fuzz(minutes, target.as_deref()),
        Command::Seeds => fuzz::seeds(),
        Command::Deny => deny::deny(),
        Command::Neighbours => neighbours::neighbours(),
        Command::Dist { platform } => dist::dist(platform).map(|()| true),
        Command::Package { build } => package::package(build),
        Command::Semver { baseline_rev, baseline_root } => {
            semver::semver(baseline_rev.as_deref(), baseline_root.as_deref())
        }
        Command::Instructions { save } => instructions::instructions(save),
        Command::Sample => sample::sample().map(|()| true),
        Command::Quality { clips, frames, preset } => {
            quality::quality(&clips, frames, preset).map(|()| true)
        }
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
