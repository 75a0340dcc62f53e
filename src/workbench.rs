//! The workbench: the commands for people who write receivers and have no PBX at hand.

pub mod alteration;
pub mod by_name;
pub mod check;
pub mod credentials;
pub mod demo;
pub mod dice;
pub mod receive;
pub mod receiver_options;
pub mod scenario;
pub mod share;
pub mod simulate;
