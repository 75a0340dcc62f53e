//! Input: a text that may be JSON.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| callhook_fuzz::plain_json::check(input));
