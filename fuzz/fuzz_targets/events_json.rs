//! Input: the body of a POST /events.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| callhook_fuzz::events_json::check(input));
