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
//! those on floors below its own:
//!
//! | floor | module | its question |
//! | --- | --- | --- |
//! | 12 | `main` | which command, and which exit code? |
//! | 11 | [`command`] | what does a shell ask of the running callhook? |
//! | 11 | [`workbench`] | how do I try a receiver without a PBX? |
//! | 10 | [`app`] | who is running? |
//! | 9 | [`config`] | what was asked for? |
//! | 8 | [`inspector`] | what do operators see and do? |
//! | 7 | [`metrics`] | what was counted, in all? |
//! | 6 | [`http`] | is the request well formed? |
//! | 6 | [`bridge`] | what happens in a call? |
//! | 5 | [`calls`] | was this call announced before, is it live, and what is asked of it? |
//! | 5 | [`cluster`] | which node delivers a call's events? |
//! | 4 | [`queue`] | when is an event due, in what order, and what follows from an outcome? |
//! | 4 | [`sts`] | what does the speech-to-speech server say? |
//! | 3 | [`journal`] | what was promised? |
//! | 3 | [`history`] | what happened lately? |
//! | 3 | [`delivery`] | how did one attempt go? |
//! | 2 | [`attempt`] | what does an attempt's outcome mean? |
//! | 2 | [`routing`] | what did the receiver decide? |
//! | 2 | [`audiosocket`] | what does Asterisk say? |
//! | 1 | [`event`] | what is said about a call? |
//! | 1 | [`wire`] | how does a connection come to be? |
//! | 1 | [`listener`] | who connects? |
//! | 1 | [`log`] | how is a line of the log written? |
//! | 0 | [`receiver`] | which receiver is meant? |
//! | 0 | [`retry`] | how long to wait? |
//! | 0 | [`expiring`] | what is known for a while? |
//! | 0 | [`lease`] | may this still be sent? |
//! | 0 | [`label`] | what is a metric told apart by? |
//! | 0 | [`time`] | what time is it, and how is it written? |
//! | 0 | [`text`] | how is it worded? |
//! | 0 | [`output`] | how is it printed? |
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
pub mod cluster;
pub mod command;
pub mod config;
pub mod delivery;
pub mod event;
pub mod expiring;
pub mod history;
pub mod http;
pub mod inspector;
pub mod journal;
pub mod label;
pub mod lease;
pub mod listener;
pub mod log;
pub mod metrics;
pub mod output;
pub mod queue;
pub mod receiver;
pub mod retry;
pub mod routing;
pub mod sts;
pub mod text;
pub mod time;
pub mod wire;
pub mod workbench;
