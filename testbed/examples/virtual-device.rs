//! Runs a command with a virtual device and prints the device's log.
//!
//! ```text
//! cargo run -p encoder-testbed --example virtual-device -- nvenc|qsv [KEY=VALUE]… COMMAND…
//! ```
//!
//! The keys are those of `testbed/c/log.h` and `testbed/c/mfx_testbed.h`: `frame_ms=40`,
//! `fault_place=encode`, `fault_action=hang`. `without=runtime` leaves Quick Sync's runtime out.

use std::{
    env,
    error::Error,
    process::{Command, ExitCode, ExitStatus},
};

use encoder_testbed::{
    nvenc::VirtualNvenc,
    qsv::{Part, VirtualQsv},
};

const USAGE: &str = "usage: virtual-device nvenc|qsv [KEY=VALUE]… COMMAND…";

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut words: Vec<String> = env::args().skip(1).collect();
    let keys = words.iter().skip(1).take_while(|word| word.contains('=')).count();
    if words.len() < keys + 2 {
        return Err(USAGE.into());
    }
    let command = words.split_off(keys + 1);
    let pairs = words.iter().skip(1).filter_map(|word| word.split_once('='));
    let (status, events) = match words[0].as_str() {
        "nvenc" => {
            let device = pairs.fold(VirtualNvenc::new()?, |d, (key, value)| d.set(key, value));
            let status = run(device.environment(), &command)?;
            (status, device.log().iter().map(|e| format!("{e:?}")).collect::<Vec<_>>())
        }
        "qsv" => {
            let device = pairs.fold(VirtualQsv::new()?, |device, pair| match pair {
                ("without", "runtime") => device.without(Part::Runtime),
                ("without", "driver") => device.without(Part::Driver),
                ("without", "node") => device.without(Part::Node),
                (key, value) => device.set(key, value),
            });
            let status = run(device.environment(), &command)?;
            (status, device.log().iter().map(|e| format!("{e:?}")).collect())
        }
        _ => return Err(USAGE.into()),
    };
    events.iter().for_each(|event| eprintln!("virtual {}: {event}", words[0]));
    eprintln!("{status}");
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run(
    environment: Vec<(std::ffi::OsString, std::ffi::OsString)>,
    command: &[String],
) -> std::io::Result<ExitStatus> {
    Command::new(&command[0]).args(&command[1..]).envs(environment).status()
}
