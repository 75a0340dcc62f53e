//! The commands that ask the running callhook, from a shell.

mod client;
pub mod dead;
pub mod health;
