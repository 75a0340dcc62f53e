//! callhook stands where AVR Core stands in a phone call: it takes the call from Asterisk, asks a
//! webhook receiver where it should go, bridges it to the speech-to-speech server there, and delivers
//! the call's events in order, with retries.
//!
//! ```text
//!  Asterisk ── POST /call ──┐
//!  AVR Core ── POST /events ┴─► http ─┬─► queue ─► (journal) ─► delivery ─► receiver
//!                                 ▲   │     ▲                      │
//!                                 └── slot ─┴────── outcome ───────┘
//!                                     │
//!  Asterisk ── AudioSocket ──► bridge ┘  (its events)
//!                                 ▲
//!                                 └─► sts ◄─► speech-to-speech server
//! ```
//!
//! Data goes through once, in one direction; results come back as values. Each module knows only
//! those below it:
//!
//! | module | its question |
//! | --- | --- |
//! | [`app`] | who is running? |
//! | [`health`] | does it live? |
//! | [`workbench`] | how do I try a receiver without a PBX? |
//! | [`inspector`] | what do operators see and do? |
//! | [`http`] | is the request well formed? |
//! | [`bridge`] | what happens in a call? |
//! | [`audiosocket`] | what does Asterisk say? |
//! | [`sts`] | what does the speech-to-speech server say? |
//! | [`listener`] | who connects? |
//! | [`calls`] | was this call announced before, and is it live? |
//! | [`queue`] | when is an event due, in what order, and what follows from an outcome? |
//! | [`history`] | what happened lately? |
//! | [`journal`] | what was promised? |
//! | [`delivery`] | how did one attempt go? |
//! | [`routing`] | what did the receiver decide? |
//! | [`event`] | what is said about a call? |
//! | [`config`] | what was asked for? |
//!
//! Invariants that hold throughout:
//! - The events of one call arrive in the order they were accepted, one request at a time.
//! - A call never waits for another call, and a caller never longer than `ROUTING_TIMEOUT`.
//! - A bridged call that sent `call_started` sends one `call_ended`, whatever becomes of callhook.
//! - A `call_initiated` is an event like any other: there is one HTTP client and one retry loop.

pub mod app;
pub mod attempt;
pub mod audiosocket;
pub mod bridge;
pub mod calls;
pub mod command;
pub mod config;
pub mod delivery;
pub mod event;
pub mod history;
pub mod http;
pub mod inspector;
pub mod journal;
pub mod label;
pub mod listener;
pub mod log;
pub mod metrics;
pub mod queue;
pub mod retry;
pub mod routing;
pub mod sts;
pub mod text;
pub mod time;
pub mod wire;
pub mod workbench;
