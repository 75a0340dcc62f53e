//! Input: a message of a speech-to-speech server.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| callhook_fuzz::sts::check(input));
