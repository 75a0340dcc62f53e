//! What the black-box tests share: the service under test as a child process, and a webhook receiver
//! that a test scripts. Nothing in here knows the inside of the program.
#![allow(
    dead_code,
    reason = "each test file compiles this module anew and uses its own part of it"
)]

pub mod flawed;
pub mod receiver;
pub mod service;
pub mod wire;
