//! All tests but the few that need the machine to themselves, as one binary, so that they and all that they
//! share are linked once. A module a theme; files of a theme lie in the directory of its name.
//!
//! Most run callhook as a child process among stand-ins for those it talks to (`tests/support`), each test
//! with a child, ports and directories of its own. They run side by side, so none may touch what the whole
//! process has one of: environment variables, the working directory, a global logger. Beside it are
//! `tests/crash`, `tests/keyed.rs`, `tests/with_copies.rs` (some of these modules again, with further receivers), and in
//! JavaScript `tests/browser` (`scripts/browser.sh`).

#![allow(clippy::unwrap_used, reason = "a test that panics says where")]

#[path = "../support/mod.rs"]
mod support;

// Events, from the front to the receiver.
mod backlog;
mod burst;
mod failure_log;
mod front;
mod hostile_clients;
mod hostile_receivers;
mod https;
mod isolation;
mod network;
mod outage;
mod routing;
mod webhook;

// Bridged calls.
mod agent_acts;
mod call;
mod call_audio;
mod call_ends;
mod dialplan;
mod hostile_calls;
mod wss;

// What survives.
mod dead;
mod dead_kept;
mod dead_receivers;
mod journal;
mod journal_file;
mod journal_full;
mod memory;

// What operators read and set.
mod commands;
mod drain;
mod files;
mod inspector;
mod metrics;
mod openapi;
mod receivers;
mod secrets;
mod settings;
mod unread_log;

// The workbench.
mod check;
mod receive;
mod scenarios;
mod simulate;

// The library without a process, and its source.
mod bridged_events;
mod copies;
mod corpus;
mod dispatcher;
mod failing_disk;
mod floors;
mod journal_model;
mod simulation;
