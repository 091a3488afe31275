//! A static library for a program in C, `tests/static_library.c`, that links the backends.

/// The number of backends that are registered.
#[unsafe(no_mangle)]
pub extern "C" fn count_backends() -> usize {
    encoder_pipeline::link_backends();
    // More calls do no harm.
    encoder_pipeline::link_backends();
    encoder_core::backends().len()
}
