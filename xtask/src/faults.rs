//! The fault campaign and the soak: long runs that check that no frame is lost and memory does not
//! grow.

use crate::{
    process::{Result, cargo, show},
    setup,
    test::libx264,
    workspace::{NATIVE, target_of},
};

/// The names of the faults of the test `faults`, and the name for all of them.
pub const NAMES: [&str; 9] =
    ["full", "kill", "hang", "error", "late-error", "swallow", "double", "panic", "busy"];

/// Loses the encoder in every way, at every moment, in every pair of encoders that is available
/// here, and kills its child process 200 times at random; prints the tables. Returns whether no
/// frame was lost. `fault` is the name of a fault, or `full`.
///
/// # Errors
/// When a tool cannot be installed or started.
pub fn faults(fault: &str) -> Result<bool> {
    let tools = setup::setup()?;
    let mut campaign = cargo();
    let package = target_of("test", "faults")?.package;
    campaign.args(["test", "--package", &package, "--test", "faults"]);
    if libx264() {
        campaign.args(["--features", NATIVE]);
    } else {
        println!("faults: x264 in process is left out: it needs libx264-dev and libclang-dev");
    }
    campaign.args(["--", "--nocapture", "--test-threads", "1"]);
    campaign.env("ENCODER_FAULTS", fault).env("RUST_BACKTRACE", "0");
    show(tools.announce(&mut campaign))
}

/// Pushes frames at full speed for some minutes and measures the memory. Returns whether it grew by
/// at most 5 % after the first ten seconds.
///
/// # Errors
/// When it cannot be started.
pub fn soak(minutes: u32, encoder: &str) -> Result<bool> {
    let tools = setup::setup()?;
    let mut soak = cargo();
    let package = target_of("example", "soak")?.package;
    soak.args(["run", "--release", "--package", &package, "--example", "soak", "--"]);
    soak.args([&minutes.to_string(), encoder]);
    show(tools.announce(&mut soak))
}
