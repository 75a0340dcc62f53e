//! The workbench: the commands for people who write receivers and have no PBX at hand.

pub mod check;
pub mod credentials;
pub mod demo;
pub mod dice;
pub mod receive;
pub mod scenario;
pub mod share;
pub mod simulate;
