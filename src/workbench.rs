//! The workbench: the commands for people who write receivers and have no PBX at hand.

pub mod demo;
pub mod receive;
