//! What the black-box tests share: the service under test as a child process, and those it talks to, each
//! with a script of the test's: a webhook receiver, an Asterisk, an STS server. Nothing in here knows the
//! inside of the program.

pub mod asterisk;
pub mod capture;
pub mod disk;
pub mod flawed;
pub mod phone;
pub mod receiver;
pub mod record;
pub mod service;
pub mod sound;
pub mod stage;
pub mod sts;
pub mod wire;
