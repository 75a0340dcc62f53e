//! What the tests share: the service under test as a child process, and those it talks to, each with a script
//! of the test's: a webhook receiver, a proxy, an Asterisk, an STS server. `disk` and `queue` are for tests of the
//! library; nothing else in here knows the inside of the program.

pub mod asterisk;
pub mod capture;
pub mod copies;
pub mod disk;
pub mod event;
pub mod flawed;
pub mod journal;
pub mod proxy;
pub mod queue;
pub mod receiver;
pub mod record;
pub mod routing;
pub mod service;
pub mod sound;
pub mod stage;
pub mod sts;
pub mod tls;
pub mod tools;
pub mod wire;
