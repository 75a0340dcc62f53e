//! The commands that ask the running callhook, from a shell.

pub mod dead;
pub mod health;
