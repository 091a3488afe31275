//! A static library for a program in C: `tests/static_library.c` calls it.

use encoder_core::{EncoderType, OpenError};

/// The number of backends that are registered.
#[unsafe(no_mangle)]
pub extern "C" fn count_backends() -> usize {
    encoder_core::backends().len()
}

/// Registers the enabled backends.
#[unsafe(no_mangle)]
pub extern "C" fn link_backends() {
    encoder_pipeline::link_backends();
}

/// Whether the error of a program without backends names the function that registers them.
#[unsafe(no_mangle)]
pub extern "C" fn error_names_the_function() -> bool {
    let none = OpenError::NoneLeft { refusals: Vec::new() }.to_string();
    let unknown = OpenError::Unknown {
        wanted: EncoderType::OPENH264.to_string(),
        available: encoder_core::backends().iter().map(|backend| backend.id).collect(),
    };
    let names = |text: &str| text.contains("encoder_pipeline::link_backends()");
    names(&none) && (names(&unknown.to_string()) || count_backends() > 0)
}
