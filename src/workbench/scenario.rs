//! Scenarios: phone calls as files, for [`super::simulate`] to play.
//!
//! A file is TOML. Times are milliseconds, fixed or by chance ([`time`]); texts have variables
//! ([`text`]). `config/scenarios/booking.toml` explains every key.
//!
//! ```toml
//! [lists]
//! guest = ["Ada", "Bo"]
//!
//! [[script]]
//! name = "books"
//! weight = 3                                              # three times as often as weight 1
//! steps = [
//!     { initiated = { from = "{{caller}}", to = "5001" } },
//!     { after = { uniform = [300, 900] }, started = {} },
//!     { agent = "Good evening!" },                        # transcription, then the time to say it
//!     { barge_in = 400 },                                 # so long after the agent began
//!     { user = "A table for {{guest}}." },                # the time to say it, then transcription
//!     { dtmf = "12#", every = 250 },
//!     { pause = 2000 },
//!     { event = "error", payload = { message = "…" } },   # any type; json = '…' takes it as it is
//!     { repeat = 3, steps = [{ agent = "Still there?" }] },
//!     { hang_up = ["hangup", "sts_closed"] },             # or lost = true, or abandoned = true
//! ]
//! ```
//!
//! Invariants:
//! - A [`Scenario`] can be played: every variable exists, every script ends, every limit is kept.
//! - All mistakes of a file are told at once, each with its line and column.
//!
//! Limits: [`file::MAX_FILE`], [`file::MAX_SCRIPTS`], [`script::MAX_STEPS`], [`script::MAX_EVENTS`],
//! [`script::MAX_TIMES`], [`text::MAX_TEXT`], [`text::MAX_LISTS`], [`text::MAX_ENTRIES`],
//! [`text::MAX_NAME`], [`time::MAX_TIME`].

pub mod file;
pub mod plan;
pub mod read;
pub mod record;
pub mod script;
pub mod stage;
pub mod text;
pub mod time;

pub use self::file::{LoadError, MAX_FILE, MAX_SCRIPTS, SHIPPED, Scenario};
pub use self::plan::{Plan, Planned, plan};
