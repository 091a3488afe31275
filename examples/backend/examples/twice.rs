//! A program with two backends of one name, which it reports.

use encoder_core::{Backend, inventory};
use encoder_ipcm::IPCM;

inventory::submit! { Backend::new(IPCM, |_| unreachable!("two backends have one name")) }

fn main() -> std::process::ExitCode {
    encoder_cli::main()
}
