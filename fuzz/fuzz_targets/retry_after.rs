//! Input: the value of a Retry-After header.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| callhook_fuzz::retry_after::check(input));
