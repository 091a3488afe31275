//! The program `encoder` with this backend.

use encoder_ipcm as _;

fn main() -> std::process::ExitCode {
    encoder_cli::main()
}
