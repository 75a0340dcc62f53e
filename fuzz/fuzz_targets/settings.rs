//! Input: an environment and a settings file.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| callhook_fuzz::settings::check(input));
