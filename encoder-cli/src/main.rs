//! The program `encoder`.

fn main() -> std::process::ExitCode {
    encoder_cli::main()
}
