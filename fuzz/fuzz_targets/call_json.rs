//! Input: the body of a POST /call.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| callhook_fuzz::call_json::check(input));
