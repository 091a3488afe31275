//! Runs a command with a virtual NVENC device in place and tells what the device saw.
//!
//! ```text
//! cargo run -p encoder-testbed --example virtual-nvenc -- [KEY=VALUE]… COMMAND…
//! ```
//!
//! The keys are those of `testbed/c/log.h`: `frame_ms=40`, `fault_place=encode`,
//! `fault_action=hang`.

use std::{
    env,
    error::Error,
    process::{Command, ExitCode},
};

use encoder_testbed::nvenc::VirtualNvenc;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = env::args_os().skip(1).peekable();
    let mut device = VirtualNvenc::new()?;
    while let Some(argument) = arguments.next_if(|a| a.to_string_lossy().contains('=')) {
        let argument = argument.to_string_lossy();
        let (key, value) = argument.split_once('=').unwrap_or_default();
        device = device.set(key, value);
    }
    let program = arguments.next().ok_or("usage: virtual-nvenc [KEY=VALUE]… COMMAND…")?;
    let status = device.apply(Command::new(program).args(arguments)).status()?;
    for event in device.log() {
        eprintln!("virtual NVENC, process {}: {:?}", event.pid, event.what);
    }
    eprintln!("{status}");
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
