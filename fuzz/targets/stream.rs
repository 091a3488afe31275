#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    encoder_fuzz_cases::stream(input);
});
