//! What must hold for any input from outside, whoever made it: a fuzzer or the corpus.
//!
//! Each module has one `check(input)`, which panics where a property is broken. None of them trusts
//! the program's own readers: [`json`] reads JSON by itself.

pub mod audiosocket;
pub mod call_json;
pub mod events_json;
pub mod json;
pub mod plain_json;
pub mod retry_after;
pub mod settings;
pub mod sts;
