//! A static library for a program in C, `tests/static_library.c`, that does not link the backends:
//! none is registered.

use encoder_core::{Detection, Policy, Settings, plan};
use encoder_pipeline as _;

/// The number of backends that are registered, if it is not 0; otherwise 0 if the error names the
/// function that links them, and 1000 if it does not.
#[unsafe(no_mangle)]
pub extern "C" fn count_backends() -> usize {
    let settings = Settings::default();
    let found = Detection::new(&settings).run().unwrap_or_default();
    match plan(&Policy::default(), &found) {
        Err(error) if error.to_string().contains("encoder_pipeline::link_backends()") => 0,
        Err(_) => 1000,
        Ok(_) => found.len(),
    }
}
