//! Input: frames as they come from Asterisk.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| callhook_fuzz::audiosocket::check(input));
